"""The linear regressors."""

from __future__ import annotations

import functools
import math
from typing import Any, Self

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sklloss import losses
from sklloss._base import unchanged_on_error
from sklloss.arrays.device import to_device
from sklloss.data.checks import Array, MatrixLike, check_real, check_same_device, check_X, on_host
from sklloss.data.dataset import add_offset, check_stream_data
from sklloss.data.targets import check_regression_loss, code_values
from sklloss.linear.base import SOLVERS, LinearModel, raw_scores, split_intercept
from sklloss.linear.features import penalty_weights
from sklloss.linear.partial_fit import STOCHASTIC, StreamMixin, has_no_l1
from sklloss.losses import Loss
from sklloss.objectives.classification import newton_refusal
from sklloss.objectives.passes import make_passes
from sklloss.objectives.regression import RegressionObjective
from sklloss.solvers.interior_point import interior_point

__all__ = ["LinearRegressor"]

# Of the start of a loss that is linear for most rows: the accuracy, and the most steps.
ROUGH_TOL = 0.03
ROUGH_STEPS = 100


class RegressorPredictions:
    """Mixin: the fitted model ``X @ coef_.T + intercept_`` and its predictions."""

    coef_: Array
    intercept_: Any

    def predict(self, X: MatrixLike, offset: ArrayLike | None = None) -> Array:
        """Predicted values.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
            Rows.
        offset : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            What is added to the raw scores, before the inverse link; needed if `fit` had one.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        check_is_fitted(self)
        check_same_device(self, X, self.coef_, "predict")
        scores = raw_scores(check_X(self, X, reset=False), self.coef_, self.intercept_)
        return losses.get(self._link).predict(add_offset(self, scores, offset))

    def score(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        offset: ArrayLike | None = None,
    ) -> float:
        """R², the proportion of the variance of y that the predictions explain.

        With several quantiles it is the mean over them.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in R².
        offset : array-like, default=None
            As for `predict`.

        Returns
        -------
        float
        """
        predicted, y = on_host(self.predict(X, offset), "X"), on_host(y, "y")
        copies = losses.get(self._link).outputs_per_target
        y = y if copies == 1 else np.repeat(np.reshape(y, (-1, 1)), copies, axis=1)
        return float(r2_score(y, predicted, sample_weight=on_host(sample_weight, "sample_weight")))

    def __sklearn_tags__(self) -> Tags:
        """Tags for scikit-learn: sparse input, several outputs, and what the loss takes for y."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        try:
            loss = losses.get(self.loss)
        except (TypeError, ValueError):  # which `fit` reports
            return tags
        tags.target_tags.positive_only = loss.domain in ("positive", "non-negative")
        # scikit-learn's check of several outputs has negative ones.
        tags.target_tags.multi_output = not tags.target_tags.positive_only
        # A quantile far from the median is no prediction of the mean, by which R² judges.
        tags.regressor_tags.poor_score = loss.kink is not None and loss.kink[0] != -loss.kink[1]
        return tags

    def _set_parameters(self, coef, *, data, loss, dtype):
        """Set the attributes that `predict` needs, from coefficients (outputs, width)."""
        coef, intercept = split_intercept(coef.astype(dtype), self.fit_intercept)
        self._link = self.loss
        if len(coef) == 1:
            self.coef_, self.intercept_ = to_device(coef[0], data.origin.device), float(intercept[0])
        else:
            self.coef_ = to_device(coef, data.origin.device)
            self.intercept_ = to_device(intercept, data.origin.device)


class LinearRegressor(StreamMixin, RegressorPredictions, RegressorMixin, LinearModel):
    """A linear model that minimises any regression loss, such as the Poisson, Huber or squared loss.

    Minimises ``sum_i w_i loss_i / sum_i w_i + alpha * (l1_ratio * ||coef||_1 + (1 - l1_ratio) / 2 *
    ||coef||**2)`` to within 1e-6 of its optimum at the default ``tol``, whatever the units of X and y: the
    objective of scikit-learn's `PoissonRegressor`, `GammaRegressor`, `TweedieRegressor`, `ElasticNet`,
    `Lasso`, `QuantileRegressor` (``l1_ratio=1``) and, with ``alpha / n``, `Ridge`. If the loss is not convex,
    the optimum is the local one that is reached from 0.

    Parameters
    ----------
    loss : str or Loss, default="squared_error"
        "squared_error" (half the square), "absolute_error", "huber", "quantile", "log_cosh", "poisson",
        "gamma", "tweedie", "mean_squared_error", "root_mean_squared_error", or a `sklloss.losses.Loss` over
        values, which may be your own. The prediction is the inverse link of the score: its exponential for
        "poisson", "gamma" and "tweedie", else the score itself. With several outputs the loss of a row is the
        mean over them.
    alpha : float, default=1e-4
        Strength of the penalty; 0 for none.
    l1_ratio : float, default=0.0
        The share of L1 in the penalty, in [0, 1]: 0 is L2 alone; 1 is L1 alone, which sets coefficients to
        exactly 0; values in between are the elastic net. Above 0 the loss must be convex and state its second
        derivative (`Loss.curvature`), or have a kink.
    tol : float, default=1e-4
        Accuracy, the same for every solver: the fit stops when the objective, less that of a perfect
        prediction, is estimated to be within a relative ``tol**2`` of its optimum, or when rounding prevents
        further progress.
    fit_intercept : bool, default=True
        Whether to learn an intercept, which is not penalised.
    solver : str, default="auto"
        "auto", "newton-cholesky", "newton-cg", "lbfgs", "proximal-newton", "sgd" or "adam", as in
        `LogisticClassifier`, or "interior-point". "auto" chooses by the loss, the penalty and the size of the
        problem: "interior-point" for "absolute_error" and "quantile", whose optimum it finds exactly, to a
        duality gap, and for "huber" and "log_cosh" where most errors are where these are linear, or there are
        fewer than two rows for each column.
    max_iter : int, default=100
        Maximum number of iterations, or of epochs for "sgd" and "adam"; reaching it issues a
        ConvergenceWarning.
    verbose : int, default=0
        Positive to print the objective after each iteration.
    warm_start : bool, default=False
        Whether to start from the last fit's coefficients.
    random_state : int, RandomState instance or None, default=None
        Shuffles the rows for "sgd", "adam" and `partial_fit`. The other solvers are deterministic.
    penalty_weights : array-like of shape (n_features,) or dict, default=None
        What the penalty of each feature is multiplied by, in order or by name: 0 leaves its coefficient free.
    monotonic_cst : array-like of int of shape (n_features,) or dict, default=None
        The sign that the coefficient of each feature may have, in order or by name: 1, -1, or 0 for any.
        Solved by "proximal-newton" (a loss with a kink by "interior-point"), so that the loss has to be
        convex and to state its second derivative, and coefficients that the constraint holds are exactly 0.
    n_threads : int or None, default=None
        Threads for the passes of `fit` over X; None uses as many as OMP_NUM_THREADS or the machine allows.
        The results are bitwise the same for any number.
    batch_size : int or "auto", default="auto"
        For "sgd", "adam" and `partial_fit`: rows per mini-batch, as in `LogisticClassifier`.
    learning_rate_init : float or "auto", default="auto"
        For "sgd", "adam" and `partial_fit`: the initial learning rate, relative to the curvature, as in
        `LogisticClassifier`.
    device : None, str or torch.device, default=None
        None computes on the device of X. A name such as "cuda", "cuda:1" or "mps" moves NumPy arrays, data
        frames and CSR matrices there once, through PyTorch, and the fitted attributes back. "cpu" computes
        with the compiled kernels, also for tensors; a ``torch.device`` always computes with PyTorch.
    device_dtype : {"float32", "float64"}, default="float32"
        The dtype to compute in if NumPy data are moved to ``device``; always float32 on a device without
        float64.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
    intercept_ : float or ndarray of shape (n_outputs,)
    n_iter_ : ndarray of int32 of shape (n_outputs,), or (1,) for "root_mean_squared_error"
        Iterations of each output; epochs of "sgd" and "adam"; 1 after `partial_fit`.
    loss_ : float
        The final objective, penalty included. It and the curves do not exist after `partial_fit`.
    loss_curve_ : list of float
        The objective at the start and after each iteration, without preliminary work on a sample of the rows.
    validation_loss_curve_ : list of float
        The mean loss on the validation set, if there was one, after each iteration.
    solver_ : str
        The solver used; if two ran, the last one.
    t_ : int
        Rows of positive weight seen by `fit` and all calls of `partial_fit` since.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if X had string column names.

    See Also
    --------
    MLPRegressor : A network with hidden layers, for the same losses.

    Notes
    -----
    `HuberRegressor` of scikit-learn fits the scale of the errors too; here it is ``losses.Huber(delta)``, in
    the unit of y. Exposure in a model of counts is ``offset=np.log(exposure)``.

    y has shape (n,), or (n, n_outputs) for several outputs, which have nothing in common but X: with T
    outputs the result is that of a fit for each with T times the ``alpha``. That is not so for
    "root_mean_squared_error", the root of a mean over all outputs. Targets outside the domain of the loss,
    such as a negative count, are an error that names the row.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklloss import LinearRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = LinearRegressor("poisson", alpha=1e-3).fit(X, y)
    >>> model.coef_.shape
    (10,)
    >>> bool(model.score(X, y) > 0.4)
    True
    """

    _penalise_more = "raise alpha"
    _solvers = tuple(SOLVERS)

    def __init__(
        self,
        loss: str | Loss = "squared_error",
        *,
        alpha: float = 1e-4,
        l1_ratio: float = 0.0,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        solver: str = "auto",
        max_iter: int = 100,
        verbose: int | bool = 0,
        warm_start: bool = False,
        random_state: int | RandomState | None = None,
        penalty_weights: ArrayLike | dict[str, float] | None = None,
        monotonic_cst: ArrayLike | dict[str, int] | None = None,
        n_threads: int | None = None,
        batch_size: int | str = "auto",
        learning_rate_init: float | str = "auto",
        device: Any = None,
        device_dtype: str = "float32",
    ) -> None:
        self.loss = loss
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
        self.random_state = random_state
        self.penalty_weights = penalty_weights
        self.monotonic_cst = monotonic_cst
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.device = device
        self.device_dtype = device_dtype

    @available_if(has_no_l1)
    def partial_fit(self, X: MatrixLike, y: MatrixLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from more rows: one pass over them in mini-batches.

        Available with every ``solver``, without an L1 penalty. With ``solver="adam"`` the steps are those of
        Adam, otherwise those of SGD; both use ``batch_size`` and ``learning_rate_init``. Training continues
        from the last `partial_fit`, or from a `fit` by any solver.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
            The rows, which are shuffled by ``random_state``.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Their targets.
        sample_weight : array-like of shape (n_samples,), default=None
            As for `fit`.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is invalid; the message names it. The estimator is left unchanged.

        Notes
        -----
        The objective is that of `fit` on all rows passed so far. Learning rates fall with the number of rows
        seen, and the coefficients are a running mean of those after each batch, in which early ones fade.
        ``t_`` counts the rows. ``loss_``, ``loss_curve_`` and ``validation_loss_curve_``, which describe a
        fit, are removed.
        """
        with unchanged_on_error(self):
            loss = self._check_parameters()
            learned = self.coef_ if hasattr(self, "coef_") else None
            return self._learn(
                check_stream_data(self, X, y, sample_weight, self._training_coder(), learned), loss
            )

    @property
    def _has_l1(self):
        """Whether the penalty has an L1 part."""
        return self.l1_ratio > 0 and self.alpha > 0

    def _check_parameters(self):
        """Check the parameters; return the loss to minimise."""
        loss = check_regression_loss(self.loss, type(self).__name__)
        check_real("alpha", self.alpha, 0, open_high=True)
        self._check_shared_parameters()
        return loss

    def _training_coder(self):
        """What checks the targets."""
        loss = check_regression_loss(self.loss, type(self).__name__)
        return functools.partial(code_values, loss=loss)

    def _validation_coder(self, data):
        """What checks the targets of the validation set, which has as many outputs."""
        code = self._training_coder()

        def code_as_many(rows, y, name):
            held_out = code(rows, y, name=name)
            if held_out.outputs != data.outputs:
                raise ValueError(f"{name} has {held_out.outputs} outputs, y has {data.outputs}")
            return held_out

        return code_as_many

    def _passes(self, data, loss, n_threads, name="y", center=True):
        """The passes over the rows; for ``center`` see `make_passes`."""
        return make_passes(
            data, loss, fit_intercept=bool(self.fit_intercept), n_threads=n_threads, center=center
        )

    def _objective(self, passes):
        return self._stream_objective(passes, float(passes.row_weights().sum()))

    def _stream_objective(self, passes, weight):
        """The objective over the latest rows of a stream, of ``weight`` in all."""
        strength = self.alpha * weight
        C = 1.0 / strength if strength > 0 else math.inf
        return RegressionObjective(passes, C, self.l1_ratio, penalty_weights(self))

    def _reported_value(self, value, objective):
        """The mean loss plus the penalty; see `LinearModel._reported_value`."""
        return (value + float(objective.saturated.sum())) / (objective.scale * objective.total_weight)

    def _null_start(self, objective):
        """The parameters to start from without an earlier fit: where the loss is curved."""
        loss = objective.passes.loss
        if loss.inverse_link_name == "exp":
            return objective.mean_target()
        if loss.curved_within is None or self._choose_solver(objective) == "interior-point":
            return super()._null_start(objective)
        if objective.mostly_linear:
            rough = {"tol": ROUGH_TOL, "max_iter": ROUGH_STEPS}
            return interior_point(objective.absolute_error(), np.zeros(objective.shape), **rough).w
        return objective.least_squares[0]

    def _stream_start(self, objective):
        """See `LinearModel._stream_start`; the mean of y, from which bounded slopes would be far."""
        return objective.mean_target()

    def _choose_solver(self, objective):
        """See `LinearModel._choose_solver`; a loss with a kink is a linear or quadratic programme."""
        loss = objective.passes.loss
        kinked = loss.of_output(0).kink is not None
        if self.solver == "interior-point" and not kinked:
            raise ValueError(
                f"solver='interior-point' is for losses with a kink, 'huber' and 'log_cosh', got "
                f"loss={self.loss!r}; use solver='auto'"
            )
        needed = self.solver == "interior-point" or (self.solver == "auto" and newton_refusal(loss))
        if kinked and needed and objective.programme_too_large:
            raise ValueError(
                f"loss={self.loss!r} needs a matrix of the size of the rows or of the parameters, here "
                f"{objective.passes.n} and {objective.size}, without an L1 penalty; use l1_ratio > 0, fewer "
                "features, a smooth loss such as 'huber', or a stochastic solver ('adam')"
            )
        if self.solver == "interior-point":
            return "interior-point"
        if loss.root_of is not None and self.solver not in ("lbfgs", *STOCHASTIC):
            return super()._choose_solver(
                RegressionObjective(objective.passes.with_loss(loss.root_of), math.inf)
            )
        if self.solver == "auto" and kinked and (newton_refusal(loss) or objective.mostly_linear):
            return "interior-point"
        return super()._choose_solver(objective)

    def _check_result(self, result, objective):
        """See `LinearModel._check_result`; a model that reproduces y has converged."""
        if not result.converged.all():
            result.converged[objective.is_perfect(result.value)] = True
        return super()._check_result(result, objective)

    def _why_vanished(self):
        """Why there is nothing left to minimise: the model reproduces y, which is an optimum."""

    def _parameters(self):
        """See `LinearModel._parameters`."""
        coef, intercept = super()._parameters()
        return np.atleast_2d(coef), np.atleast_1d(np.asarray(intercept))
