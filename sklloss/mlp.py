"""Multi-layer perceptrons: parameters, targets and fitted attributes; the numerics live below."""

import warnings

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sklloss import losses
from sklloss._intake import (
    check_choice,
    check_flag,
    check_integer,
    check_real,
    check_X,
    regression_data,
    regression_validation,
    unchanged_on_error,
)
from sklloss._version import VersionStamp
from sklloss.objectives.network import ACTIVATIONS, NetworkObjective, initial_parameters, pack, unpack
from sklloss.solvers.lbfgsb import lbfgsb
from sklloss.solvers.stochastic import SGD, Adam, History, train

STOCHASTIC = ("adam", "sgd")
SOLVERS = (*STOCHASTIC, "lbfgs")
SCHEDULES = ("constant", "invscaling", "adaptive")


def _is_stochastic(estimator):
    if estimator.solver not in STOCHASTIC:
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


class _BaseMLP(BaseEstimator):
    """What the networks share: everything but targets, losses and scores."""

    def _check_parameters(self):
        """Raise for a parameter out of its range; the optimiser of a stochastic solver, else None."""
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("solver", self.solver, SOLVERS)
        check_choice("learning_rate", self.learning_rate, SCHEDULES)
        check_real("alpha", self.alpha, 0.0)
        check_real("tol", self.tol, 0.0)
        check_real("validation_fraction", self.validation_fraction, 0.0, 1.0, open_high=True)
        if not isinstance(self.batch_size, str) or self.batch_size != "auto":
            if isinstance(self.batch_size, str):
                raise ValueError(f'batch_size must be "auto" or a positive integer, got {self.batch_size!r}')
            check_integer("batch_size", self.batch_size, 1)
        check_integer("max_iter", self.max_iter, 1)
        check_integer("max_fun", self.max_fun, 1)
        check_integer("n_iter_no_change", self.n_iter_no_change, 1, infinity=True)
        if not isinstance(self.verbose, (bool, np.bool_)):
            check_integer("verbose", self.verbose, 0)
        for name in ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping"):
            check_flag(name, getattr(self, name))
        rate = check_real("learning_rate_init", self.learning_rate_init, 0.0, open_low=True)
        adam = Adam(
            rate,
            check_real("beta_1", self.beta_1, 0.0, 1.0, open_high=True),
            check_real("beta_2", self.beta_2, 0.0, 1.0, open_high=True),
            check_real("epsilon", self.epsilon, 0.0, open_low=True),
        )
        sgd = SGD(
            rate,
            self.learning_rate,
            check_real("power_t", self.power_t, 0.0),
            check_real("momentum", self.momentum, 0.0, 1.0),
            bool(self.nesterovs_momentum),
        )
        return {"adam": adam, "sgd": sgd}.get(self.solver)

    def _hidden_widths(self):
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        for size in sizes:
            if isinstance(size, (int, float, np.number)) and size <= 0:
                raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
            check_integer("hidden_layer_sizes", size, 1)
        return [int(size) for size in sizes]

    def _widths(self, first, features, outputs):
        """Inputs, hidden units and outputs; those of the fitted network where training goes on."""
        widths = (features, *self._hidden_widths(), outputs)
        if first:
            return widths
        fitted = (*(coef.shape[0] for coef in self.coefs_), self.coefs_[-1].shape[1])
        if fitted[-1] != outputs:
            raise ValueError(f"y has {outputs} outputs, but the network was fitted with {fitted[-1]}")
        if fitted != widths:
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r} does not fit the network that training goes "
                f"on with, whose hidden layers have {list(fitted[1:-1])} units; fit with warm_start=False"
            )
        return widths

    def _batch_size(self, n):
        if isinstance(self.batch_size, str):
            return min(200, n)
        if self.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                stacklevel=4,
            )
        return min(int(self.batch_size), n)

    def _history(self, first):
        if first or not hasattr(self, "loss_curve_"):
            return History()
        best = self.best_validation_score_
        return History(
            self.t_,
            list(self.loss_curve_),
            np.inf if self.best_loss_ is None else self.best_loss_,
            self._no_improvement_count,
            list(self.validation_loss_curve_ or ()),
            list(self.validation_scores_ or ()),
            -np.inf if best is None else best,
        )

    def _train(self, optimiser, data, held_out, loss, first, incremental):
        """Train on checked rows and set the fitted attributes.

        ``held_out`` is None without a validation set of the user's; ``first``: start anew; ``incremental``:
        one epoch, with the optimiser as it was left.
        """
        outputs = data.y.shape[1]
        widths = self._widths(first, data.X.shape[1], outputs)
        random_state = check_random_state(self.random_state)
        if first:
            parameters = initial_parameters(widths, self.activation, random_state, data.X.dtype)
        else:
            parameters = pack(self.coefs_, self.intercepts_, self.coefs_[0].dtype)
        dtype = parameters.dtype
        objective = NetworkObjective(widths, self.activation, dtype, loss, self.alpha)
        X, y, weight = _parts(data, dtype)
        # Rows without weight are left out of the batches, as if they had not been passed.
        order = np.arange(X.shape[0], dtype=np.intp) if weight is None else np.flatnonzero(weight)
        early = self.early_stopping and optimiser is not None
        if early and held_out is None:
            order, rest = self._split(order, random_state)
            held_out = (X[rest], y[rest], None if weight is None else weight[rest])
        elif held_out is not None:
            held_out = _parts(held_out, dtype)
        if early and held_out[0].shape[0] < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        validate = None if held_out is None else self._validation(objective, loss, held_out, early)
        state = None
        if optimiser is not None:
            if incremental:
                state = optimiser.resume(getattr(self, "_optimizer", None))
            if state is None:
                state = optimiser.start(objective.size, dtype)
        history = self._history(first)
        rows = objective.rows(X, y, weight)
        if optimiser is None:
            parameters, self.loss_, self.n_iter_ = self._train_at_once(
                objective, rows, parameters, history, validate
            )
        else:
            parameters, self.n_iter_ = train(
                objective, rows, order, parameters, optimiser, state, history,
                batch_size=self._batch_size(len(order)),
                max_iter=int(self.max_iter),
                shuffle=bool(self.shuffle),
                random_state=random_state,
                tol=self.tol,
                n_iter_no_change=self.n_iter_no_change,
                verbose=self.verbose,
                validate=validate,
                early_stopping=early,
                single_epoch=incremental,
            )  # fmt: skip
            self.loss_ = history.loss_curve[-1]
        self.coefs_, self.intercepts_ = unpack(parameters, widths)
        self.n_layers_ = len(widths)
        self.n_outputs_ = outputs
        self.out_activation_ = "identity"
        self.solver_ = self.solver
        self.loss_curve_ = history.loss_curve
        self.t_ = history.seen
        self.best_loss_ = None if early else history.best_loss
        self.validation_scores_ = history.validation_scores if early else None
        self.best_validation_score_ = history.best_validation_score if early else None
        self.validation_loss_curve_ = history.validation_loss_curve if validate is not None else None
        # what predict needs of the parameters, which may change after the fit
        self._activation = self.activation
        self._link = None if type(loss).inverse_link is losses.Loss.inverse_link else loss
        self._no_improvement_count = history.stalled
        self._optimizer = state
        return self

    def _train_at_once(self, objective, rows, parameters, history, validate):
        """L-BFGS over all rows: parameters, final objective, iterations."""

        def record(value, parameters):
            history.loss_curve.append(value)
            history.best_loss = min(history.best_loss, value)
            if self.verbose:
                print(f"Iteration {len(history.loss_curve)}, loss = {value:.8f}")
            if validate is not None:
                history.validation_loss_curve.append(validate(parameters)[0])

        return lbfgsb(
            lambda parameters: objective.value_and_gradient(rows, parameters), parameters,
            tol=self.tol, max_iter=int(self.max_iter), max_fun=int(self.max_fun), callback=record,
        )  # fmt: skip

    def _split(self, order, random_state):
        if not self.validation_fraction > 0:
            raise ValueError(
                "early_stopping needs a validation set: pass X_val and y_val, or a validation_fraction > 0"
            )
        return train_test_split(order, random_state=random_state, test_size=self.validation_fraction)

    def _validation(self, objective, loss, held_out, early):
        """A function of the parameters: loss and, for early stopping, score on the held-out rows."""
        X, y, weight = held_out
        rows = objective.rows(X, y, weight)

        def validate(parameters):
            score = None
            if early:
                score = self._validation_score(y, loss.predict(objective.predict(X, parameters)), weight)
            return objective.loss(rows, parameters), score

        return validate

    def _predict(self, X):
        """What the network gives for X, after the loss's inverse link: of shape (n, outputs)."""
        check_is_fitted(self)
        X = check_X(self, X, reset=False)
        dtype = np.result_type(X.dtype, self.coefs_[0].dtype)
        widths = (*(coef.shape[0] for coef in self.coefs_), self.coefs_[-1].shape[1])
        parameters = pack(self.coefs_, self.intercepts_, dtype)
        raw = NetworkObjective(widths, self._activation, dtype).predict(X, parameters)
        return raw if self._link is None else self._link.predict(raw)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _parts(data, dtype):
    """X, y and weights, the weights maybe None, in the network's dtype."""
    parts = (data.X, data.y, data.weight)
    return tuple(None if part is None else part.astype(dtype, copy=False) for part in parts)


class MLPRegressor(VersionStamp, RegressorMixin, _BaseMLP):
    """Multi-layer perceptron regressor, a drop-in for ``sklearn.neural_network.MLPRegressor``.

    The same ``random_state`` starts from the same weights and visits the same batches as scikit-learn, so
    the results are the same to rounding, with the differences named in the notes.

    Parameters
    ----------
    loss : {"squared_error", "mean_squared_error", "root_mean_squared_error"} or Loss, default="squared_error"
        What is minimised. "squared_error" is half the squared error, which scikit-learn trains on,
        "mean_squared_error" twice that, "root_mean_squared_error" the root of each batch's mean.
    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=(100,)
        Units of each hidden layer; empty for a linear model.
    activation : {"identity", "logistic", "tanh", "relu"}, default="relu"
        Of the hidden layers.
    solver : {"adam", "sgd", "lbfgs"}, default="adam"
        "adam" and "sgd" take a step for each batch of rows, "lbfgs" for all rows together, which suits a
        small number of rows.
    alpha : float, default=0.0001
        Strength of the L2 penalty: alpha / 2 times the sum of squared weights (not biases), divided by the
        sum of the sample weights of a batch, is added to its loss.
    batch_size : int, default="auto"
        Rows per batch; "auto" is ``min(200, n_samples)``. Larger than the number of rows is clipped, with
        a warning.
    learning_rate : {"constant", "invscaling", "adaptive"}, default="constant"
        "invscaling" divides ``learning_rate_init`` by ``t_ ** power_t`` after each epoch; "adaptive" divides
        by 5 each time that progress stalls, until 1e-6. Only used by "sgd".
    learning_rate_init : float, default=0.001
    power_t : float, default=0.5
        Only used by "sgd" with "invscaling".
    max_iter : int, default=200
        Most epochs, or iterations of "lbfgs".
    shuffle : bool, default=True
        Visit the rows in a new order each epoch.
    random_state : int, RandomState or None, default=None
        Draws the initial weights, then the validation split, then the order of each epoch.
    tol : float, default=1e-4
        An epoch that lowers the training loss (with ``early_stopping``: raises the validation score) by
        less than this counts as no improvement. "lbfgs" ends when no component of the gradient is larger.
    verbose : bool, default=False
        Print the loss of each epoch.
    warm_start : bool, default=False
        Go on from the weights of the last fit.
    momentum : float, default=0.9
        Only used by "sgd".
    nesterovs_momentum : bool, default=True
        Only used by "sgd".
    early_stopping : bool, default=False
        With "adam" and "sgd", stop when R² on held-out rows no longer improves, and keep the weights of
        the best epoch. The rows are ``X_val`` if given to `fit`, else a ``validation_fraction`` of the
        training rows.
    validation_fraction : float, default=0.1
        Only used with ``early_stopping`` and without ``X_val``.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay of the moments in "adam".
    epsilon : float, default=1e-8
        Added to the root of the second moment in "adam".
    n_iter_no_change : int, default=10
        Training stops after more than this many epochs without improvement; ``np.inf`` is allowed.
    max_fun : int, default=15000
        Most evaluations of the loss; only used by "lbfgs".

    Attributes
    ----------
    coefs_ : list of ndarray
        ``coefs_[i]`` of shape (inputs, outputs) are the weights of layer i.
    intercepts_ : list of ndarray
        Biases of each layer.
    loss_ : float
        The training loss of the last epoch, penalty included: the mean over its batches of the loss
        before each step. With "lbfgs" the objective at the end.
    best_loss_ : float or None
        The lowest of ``loss_curve_``; None with ``early_stopping``.
    loss_curve_ : list of float
        ``loss_`` of each epoch.
    validation_loss_curve_ : list of float or None
        The loss on the validation rows after each epoch, without the penalty; None without validation.
    validation_scores_ : list of float or None
        R² on the validation rows after each epoch; None without ``early_stopping``.
    best_validation_score_ : float or None
        The highest of ``validation_scores_``.
    n_iter_ : int
        Epochs of the last call.
    t_ : int
        Rows seen in training, over all epochs.
    n_layers_, n_outputs_ : int
    out_activation_ : str
        "identity".
    solver_ : str
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    Notes
    -----
    Where this differs from scikit-learn 1.9:

    - With several outputs the loss is their mean, in the gradient as in the reported value; scikit-learn
      reports the mean but descends the sum. With T outputs, scikit-learn's steps are those of
      ``alpha / T`` and (for "sgd") ``T * learning_rate_init`` here.
    - Rows of weight 0 are left out before batches are formed, so that they change nothing at all.
    - A NaN or infinite loss ends training with a ValueError in the epoch where it appears; Ctrl-C raises
      KeyboardInterrupt. After any error the estimator is what it was before the call.
    - Training that goes on (``warm_start``, `partial_fit`) keeps the dtype of the fitted weights, follows
      changed parameters, and starts the optimiser anew when ``solver`` has changed.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sklloss import MLPRegressor
    >>> X, y = make_regression(n_samples=200, n_features=20, random_state=1)
    >>> model = MLPRegressor(random_state=1, max_iter=2000, tol=0.1).fit(X, y)
    >>> model.predict(X[:2]).shape
    (2,)
    """

    def __init__(
        self,
        loss="squared_error",
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
    ):
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Train the network.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)
            float32 is trained in float32; a sparse X is never made dense.
        y : array-like of shape (n,) or (n, outputs)
        sample_weight : array-like of shape (n,), optional
            Non-negative, not all zero.
        X_val, y_val, sample_weight_val : optional
            Validation rows: their loss is recorded, and ``early_stopping`` watches their R².

        Returns
        -------
        self
        """
        first = not (self.warm_start and hasattr(self, "coefs_"))
        with unchanged_on_error(self):
            optimiser, loss = self._check_parameters(), self._loss()
            data = regression_data(self, X, y, sample_weight, reset=first)
            held_out = regression_validation(self, X_val, y_val, sample_weight_val, data.y.shape[1])
            return self._train(optimiser, data, held_out, loss, first, incremental=False)

    @available_if(_is_stochastic)
    def partial_fit(self, X, y, sample_weight=None):
        """Train for one epoch over the given rows, going on from where the last call left off.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)
        y : array-like of shape (n,) or (n, outputs)
        sample_weight : array-like of shape (n,), optional

        Returns
        -------
        self
        """
        first = not hasattr(self, "coefs_")
        with unchanged_on_error(self):
            if self.early_stopping:
                raise ValueError("partial_fit does not support early_stopping=True")
            optimiser, loss = self._check_parameters(), self._loss()
            data = regression_data(self, X, y, sample_weight, reset=first)
            return self._train(optimiser, data, None, loss, first, incremental=True)

    def predict(self, X):
        """Predicted values.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)

        Returns
        -------
        ndarray of shape (n,) or (n, outputs)
        """
        values = self._predict(X)
        return values.reshape(-1) if values.shape[1] == 1 else values

    def _loss(self):
        """The Loss to train on; a ValueError for one that is not about values."""
        loss = losses.get(self.loss)
        if loss.target != "values":
            raise ValueError(f"loss={self.loss!r} is for classification; MLPRegressor needs one over values")
        return loss

    @staticmethod
    def _validation_score(y, raw, weight):
        if not np.isfinite(raw).all():
            return float("nan")
        return float(r2_score(y, raw, sample_weight=weight))
