"""The base class of the networks: parameters, training, fitted attributes. Objectives do the numerics."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, check_random_state

from sklloss import losses
from sklloss._base import (
    CallbackSupport,
    Estimator,
    FitCallbacks,
    KeepState,
    Movable,
    VersionStamp,
    unchanged_on_error,
    warn,
    with_callbacks,
)
from sklloss.arrays import threads
from sklloss.arrays.device import device_of, requested_device
from sklloss.arrays.ops import ACTIVATIONS
from sklloss.data.checks import (
    Array,
    MatrixLike,
    check_choice,
    check_flag,
    check_integer,
    check_real,
    check_verbose,
    check_X,
    dtype_of,
    in_dtype,
    is_auto,
    row_major,
)
from sklloss.data.dataset import DEVICE_DTYPES, Origin, weighted_rows
from sklloss.losses import Loss
from sklloss.objectives.device_network import DeviceNetworkObjective
from sklloss.objectives.network import NumpyNetworkObjective, initial_parameters
from sklloss.solvers.optimizers import SCHEDULES, SGD, Adam, AdamW, schedule, state_on_host
from sklloss.solvers.training import DivergenceError, History, TrainingOptions, lbfgsb, train

# Rows per block of a prediction.
BLOCK = 8192

STOCHASTIC = ("adam", "adamw", "sgd")
SOLVERS = (*STOCHASTIC, "lbfgs")
TOO_FEW_ROWS = "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
LEARNING_RATES = ("constant", "invscaling", "adaptive", *SCHEDULES)


class Monitor(NamedTuple):
    """What early stopping monitors.

    Attributes
    ----------
    kind : {"score", "loss"} or None
        None for no early stopping.
    scorer : callable or None
        None for the estimator's own score.
    name : str or None
        Scores of two fits are comparable if the name is the same.
    """

    kind: str | None = None
    scorer: Callable[..., float] | None = None
    name: str | None = None


def check_partial_fit(estimator: Any) -> bool:
    """Return True, or raise an AttributeError that says why `partial_fit` is not available."""
    if estimator.solver not in STOCHASTIC:
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    if estimator.learning_rate in SCHEDULES:
        raise AttributeError(
            f"learning_rate={estimator.learning_rate!r} runs over max_iter epochs, but partial_fit does not "
            "know how many calls will follow: use 'constant' with it"
        )
    return True


class BaseMLP(CallbackSupport, Movable, VersionStamp, Estimator):
    """The base class of the networks: everything but targets, losses and scores."""

    coefs_: list[Array]
    intercepts_: list[Array]
    loss_: float
    best_loss_: float | None
    loss_curve_: list[float]
    validation_loss_curve_: list[float] | None
    validation_scores_: list[float] | None
    best_validation_score_: float | None
    best_iter_: int
    n_iter_: int
    t_: int
    n_layers_: int
    n_outputs_: int
    out_activation_: str
    solver_: str
    n_features_in_: int
    feature_names_in_: NDArray[Any]

    @with_callbacks
    def fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: MatrixLike | None = None,
        y_val: MatrixLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)
            float32 is trained in float32, and a sparse X stays sparse. If columns are contiguous, as in most
            data frames, the stochastic solvers work on a copy.
            A torch tensor, or an array of another namespace of the array API, is used where it lives, and
            the fitted attributes live there too. If ``device`` moves a sparse X, its batches are made dense.
        y : array-like
            Targets, see the class.
        sample_weight : array-like of shape (n,), optional
            Non-negative, not all zero.
        X_val, y_val, sample_weight_val : optional
            Validation rows. Their loss is recorded, weighted by ``sample_weight_val`` alone, and
            ``early_stopping`` monitors how well they are predicted.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is invalid; the message names it. The estimator then keeps
            its previous state.
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))

    def _fit(self, X, y, sample_weight, validation, **offsets):
        """What `fit` does; ``offsets`` are for `_fit_data`."""
        callbacks = FitCallbacks(self, X, y, sample_weight, self.max_iter)
        first = not (self.warm_start and hasattr(self, "coefs_"))
        with unchanged_on_error(self):
            optimizer = self._check_parameters()
            datasets = self._fit_data(X, y, sample_weight, validation, first, **offsets)
            return self._train(optimizer, datasets, first=first, callbacks=callbacks)

    def _train_one_epoch(self, X, y, sample_weight, classes=None):
        """What `partial_fit` does."""
        first = not hasattr(self, "coefs_")
        with unchanged_on_error(self):
            if self.early_stopping:
                raise ValueError("partial_fit does not support early_stopping=True")
            optimizer = self._check_parameters()
            datasets = self._stream_data(X, y, sample_weight, classes, first)
            return self._train(optimizer, datasets, first=first, incremental=True)

    # What the classifier and the regressor define --------------------------------------------------------

    def _fit_data(self, X, y, sample_weight, validation, first):
        """Check what `fit` trains on.

        Parameters
        ----------
        X, y, sample_weight
            As the user passed them.
        validation : tuple
            X, y and weights of the user's validation set, or None for each.
        first : bool
            Whether training starts a new network.

        Returns
        -------
        data : Dataset
        held_out : Dataset or None
            The user's validation set.
        unweighted : Dataset or None
            The data without class weights, which do not apply to validation rows, if there are any.
        """
        raise NotImplementedError

    def _stream_data(self, X, y, sample_weight, classes, first):
        """Check what `partial_fit` trains on; returns the data and None twice, as `_fit_data` does."""
        raise NotImplementedError

    def _bind(self, data, name="y"):
        """The loss to train on, and the data with targets in the form that it takes."""
        raise NotImplementedError

    def _validation_score(self, held_out, loss, raw):
        """The estimator's own score of raw scores of the held-out rows."""
        raise NotImplementedError

    def _strata(self, data):
        """The classes whose shares a validation split preserves, or None."""
        return None

    def _output_activation(self, loss):
        """The value of ``out_activation_``."""
        return link_name(loss)

    def _loss_key(self):
        """What must be the same for values of ``loss_curve_`` to be comparable."""
        return self.loss

    def _has_same_loss(self):
        """Whether the fitted network was trained on the current loss."""
        return losses.get(self._trained_on) == losses.get(self.loss)

    # Parameters ------------------------------------------------------------------------------------------

    def _check_parameters(self):
        """Check the parameters; return the optimiser of a stochastic solver, None for "lbfgs"."""
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("solver", self.solver, SOLVERS)
        check_choice("learning_rate", self.learning_rate, LEARNING_RATES)
        if self.warmup_fraction is not None:
            check_real("warmup_fraction", self.warmup_fraction, 0.0, 1.0, open_high=True)
        check_real("alpha", self.alpha, 0.0, open_high=True)
        check_real("tol", self.tol, 0.0)
        check_real("validation_fraction", self.validation_fraction, 0.0, 1.0, open_high=True)
        if not is_auto("batch_size", self.batch_size, "integer"):
            check_integer("batch_size", self.batch_size, 1)
        check_integer("max_iter", self.max_iter, 1)
        check_integer("max_fun", self.max_fun, 1)
        check_integer("n_iter_no_change", self.n_iter_no_change, 1, infinity=True)
        check_verbose(self.verbose)
        for name in ("shuffle", "warm_start", "nesterovs_momentum"):
            check_flag(name, getattr(self, name))
        self._monitor()
        threads.check(self.n_threads)
        check_choice("device_dtype", self.device_dtype, DEVICE_DTYPES)
        rate = check_real("learning_rate_init", self.learning_rate_init, 0.0, open_low=True, open_high=True)
        beta_1 = check_real("beta_1", self.beta_1, 0.0, 1.0, open_high=True)
        beta_2 = check_real("beta_2", self.beta_2, 0.0, 1.0, open_high=True)
        epsilon = check_real("epsilon", self.epsilon, 0.0, open_low=True)
        power_t = check_real("power_t", self.power_t, 0.0)
        momentum = check_real("momentum", self.momentum, 0.0, 1.0)
        if self.solver == "adam":
            return Adam(rate, beta_1, beta_2, epsilon)
        if self.solver == "adamw":
            return AdamW(rate, beta_1, beta_2, epsilon, weight_decay=float(self.alpha))
        if self.solver == "sgd":
            return SGD(rate, self.learning_rate, power_t, momentum, bool(self.nesterovs_momentum))
        return None

    def _hidden_widths(self):
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        for size in sizes:
            if isinstance(size, (int, float, np.number)) and size <= 0:
                raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
            check_integer("hidden_layer_sizes", size, 1)
        return [int(size) for size in sizes]

    def _widths(self, first, features, outputs):
        """Inputs, hidden units and outputs; an error if they do not fit the network to continue with."""
        widths = (features, *self._hidden_widths(), outputs)
        if first:
            return widths
        fitted = self._fitted_widths()
        if fitted[-1] != outputs:
            raise ValueError(f"y has {outputs} outputs, but the network was fitted with {fitted[-1]}")
        if fitted != widths:
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r} does not fit the network that training goes "
                f"on with, whose hidden layers have {list(fitted[1:-1])} units. A clone, or fit with "
                "warm_start=False, starts a new network"
            )
        return widths

    def _fitted_widths(self):
        return (*(coef.shape[0] for coef in self.coefs_), self.coefs_[-1].shape[1])

    def _batch_size(self, n):
        if isinstance(self.batch_size, str):
            return min(200, n)
        if self.batch_size > n:
            warn("Got `batch_size` less than 1 or larger than sample size. It is going to be clipped")
        return min(int(self.batch_size), n)

    def _monitor(self):
        """What ``early_stopping`` monitors."""
        given = self.early_stopping
        if given == "loss":
            return Monitor("loss", None, "loss")
        if isinstance(given, str) or callable(given):
            try:
                scorer = get_scorer(given)
            except ValueError as error:
                raise ValueError(
                    f"early_stopping must be True, False, 'loss' or a scorer, got {given!r}"
                ) from error
            return Monitor("score", scorer, given if isinstance(given, str) else repr(given))
        return Monitor("score", None, "score") if check_flag("early_stopping", given) else Monitor()

    def _objective(self, device, widths, activation, dtype, loss=None, alpha=0.0):
        if device is not None:
            return DeviceNetworkObjective(widths, activation, dtype, device, loss, alpha)
        return NumpyNetworkObjective(widths, activation, dtype, loss, alpha, n_threads=self.n_threads)

    def _model_array(self):
        """An array that lives where the model does."""
        return self.coefs_[0]

    def __getstate__(self) -> dict[str, Any]:
        """The state of a pickle or copy, in which the optimiser's state is in NumPy."""
        state = super().__getstate__()
        return state | {"_optimizer": state_on_host(state["_optimizer"])} if "_optimizer" in state else state

    # Training --------------------------------------------------------------------------------------------

    def _train(self, optimizer, datasets, *, first, incremental=False, callbacks=None, run=train):
        """Train and set the fitted attributes.

        Parameters
        ----------
        optimizer : Optimizer or None
            None for L-BFGS.
        datasets : tuple
            From `_fit_data` or `_stream_data`.
        first : bool
            Whether to start a new network.
        incremental : bool
            Train for one epoch, continuing with the state of the optimiser.
        callbacks : FitCallbacks, optional
        run : callable
            Trains with a stochastic solver: `train`, or a function with the same arguments.
        """
        data, held_out, unweighted = datasets
        given = held_out is not None
        monitor = Monitor() if optimizer is None else self._monitor()
        widths = self._widths(first, data.X.shape[1], data.outputs)
        random_state = check_random_state(self.random_state)
        dtype, origin = self._training_dtype(data, first)
        loss, training = self._bind(data)
        training = training.in_dtype(dtype, loss)
        # "adamw" decays the weights itself.
        alpha = 0.0 if self.solver == "adamw" else self.alpha
        objective = self._objective(data.device, widths, self.activation, dtype, loss, alpha)
        parameters = self._initial_parameters(objective, first, random_state, optimizer)
        order, loss_val, validation = weighted_rows(training.weight, training.n), loss, None
        if given:
            monitor = monitor._replace(name=f"{monitor.name} of X_val" if monitor.kind else None)
            loss_val, validation = self._bind(held_out, "y_val")
        elif monitor.kind:
            order, split_off = self._split(order, random_state, self._strata(data))
            loss_val, validation = (loss, training) if unweighted is None else self._bind(unweighted)
            validation = validation.take(split_off)
        if monitor.kind and validation.n < 2:
            raise ValueError(TOO_FEW_ROWS)
        learned = functools.partial(self._learned, objective=objective, origin=origin, loss=loss)
        validate = None
        if validation is not None:
            validation = validation.in_dtype(dtype, loss_val, "_val" if given else "")
            validate = self._validation(objective, (loss, loss_val), validation, monitor, learned)
        history = self._history(first, monitor.name, validate is not None)
        epochs = len(history.loss_curve)
        if epochs and monitor.kind and given:
            self._compare_start(history, validate(parameters)[1])
        if optimizer is not None and data.device is None:
            X = row_major(training.X)
            training = training if X is training.X else replace(training, X=X)
        rows = objective.rows(training)
        options = self._options(
            self._batch_size(len(order)) if optimizer else len(order),
            random_state=random_state,
            validate=validate,
            early_stopping=monitor.kind,
            single_epoch=incremental,
            # For an interrupted training, from which a warm start continues.
            mark=bool(self.warm_start) and not incremental,
            callbacks=callbacks and callbacks.steps("epoch" if optimizer else "iteration", learned),
        )
        failure = value = None
        try:
            if optimizer is None:
                parameters, value, n_iter = self._minimize(objective, rows, parameters, history, options)
            else:
                self._start_optimizer(optimizer, objective, incremental)
                parameters, n_iter = run(objective, optimizer, rows, order, parameters, history, options)
        except (DivergenceError, KeyboardInterrupt) as error:
            # After divergence, early stopping keeps its best weights; after Ctrl-C, a warm start continues
            # from those of the last epoch.
            keep = monitor.kind if isinstance(error, DivergenceError) else options.mark
            if not (history.is_marked and keep):
                raise
            parameters, history = history.marked()
            n_iter, failure = len(history.loss_curve) - epochs, error
        if history.unsolved and failure is None:
            warn(history.unsolved, ConvergenceWarning)
        state = None
        # After a failure the moments do not belong to the weights that are kept.
        if optimizer is not None and failure is None:
            # Between calls of partial_fit it stays on the device; `fit` on NumPy arrays leaves nothing there.
            stays = incremental or data.device == origin.device
            state = optimizer.state if stays else state_on_host(optimizer.state)
        vars(self).update(learned(parameters), n_iter_=n_iter, _optimizer=state)
        self._set_history(history, monitor, value, validate is not None)
        if failure is not None:
            raise KeepState(failure)
        if callbacks is not None:
            callbacks.end()
        return self

    def _training_dtype(self, data, first):
        """The dtype to train in, and the origin to which the fitted attributes return."""
        dtype, origin, device = data.dtype, data.origin, data.device
        if first:
            return dtype, origin
        origin = Origin(origin.device, dtype_of(self.coefs_[0]))
        # Data that were moved are already in the dtype to compute in.
        return (origin.dtype if device is None or device == origin.device else dtype), origin

    def _initial_parameters(self, objective, first, random_state, optimizer):
        """Parameters drawn at random, or those of the last fit."""
        if first:
            drawn = initial_parameters(objective.widths, self.activation, random_state, objective.dtype)
            # SciPy's solver takes NumPy's parameters.
            return drawn if optimizer is None else objective.put(drawn)
        parameters = objective.pack(self.coefs_, self.intercepts_)
        return objective.get(parameters) if optimizer is None else parameters

    def _options(self, batch_size, **options):
        return TrainingOptions(
            batch_size=batch_size,
            max_iter=int(self.max_iter),
            shuffle=bool(self.shuffle),
            schedule=schedule(self.learning_rate, self.warmup_fraction),
            tol=self.tol,
            n_iter_no_change=self.n_iter_no_change,
            verbose=self.verbose,
            **options,
        )

    def _start_optimizer(self, optimizer, objective, incremental):
        if not (incremental and optimizer.resume(getattr(self, "_optimizer", None))):
            optimizer.start(objective.size, objective.dtype)
        optimizer.move_to(objective)

    def _minimize(self, objective, rows, parameters, history, options):
        """Run L-BFGS over all rows; return parameters, final objective and number of iterations."""

        def record(value, parameters):
            history.loss_curve.append(value)
            history.best_loss = min(history.best_loss, value)
            history.best_iter = len(history.loss_curve)
            if options.verbose:
                print(f"Iteration {len(history.loss_curve)}, loss = {value:.8f}")
            if options.validate is not None:
                history.validation_loss_curve.append(options.validate(parameters)[0])
            if options.mark:
                history.mark(parameters.copy())
            if options.callbacks is None:
                return False
            options.callbacks.begin()
            return options.callbacks.end(parameters)

        *result, history.unsolved = lbfgsb(
            functools.partial(objective.value_and_gradient, rows), parameters,
            tol=options.tol, max_iter=options.max_iter, max_fun=int(self.max_fun), callback=record,
        )  # fmt: skip
        return result

    # History ---------------------------------------------------------------------------------------------

    def _history(self, first, monitored, validated):
        """The history to continue: that of the last fit as far as it is comparable."""
        if first or not hasattr(self, "loss_curve_") or not self._has_same_loss():
            return History()
        same = monitored == self._monitored
        best = self.best_validation_score_ if same else None
        # Epochs without validation hold their places in the curve.
        curve = self.validation_loss_curve_ or [np.nan] * len(self.loss_curve_)
        return History(
            self.t_,
            list(self.loss_curve_),
            np.inf if self.best_loss_ is None else self.best_loss_,
            self._no_improvement_count if same else 0,
            list(curve) if validated else [],
            list(self.validation_scores_ or ()) if same else [],
            -np.inf if best is None else best,
            self.best_iter_ if same or monitored is None else 0,
        )

    def _compare_start(self, history, score):
        """Make the weights that training starts from the best so far, given their score on ``X_val``.

        If it equals the best score of the last call, the validation rows are the same and the history remains
        valid. Scores on other rows are not comparable.
        """
        if score == history.best_validation_score:
            return
        history.stalled, history.validation_scores = 0, []
        history.best_validation_score, history.best_iter = -np.inf, 0
        if score > -np.inf:
            history.best_validation_score, history.best_iter = score, self.best_iter_

    def _set_history(self, history, monitor, value, validated):
        """Set the attributes that describe the training; ``value`` is the final objective of L-BFGS."""
        if value is not None:
            # There may have been no iteration.
            history.best_loss = min(history.best_loss, value)
        vars(self).update(
            loss_=history.loss_curve[-1] if value is None else value,
            solver_=self.solver,
            loss_curve_=history.loss_curve,
            t_=history.seen,
            best_loss_=None if monitor.kind else history.best_loss,
            best_iter_=history.best_iter,
            best_validation_score_=history.best_validation_score if monitor.kind else None,
            validation_scores_=history.validation_scores if monitor.kind else None,
            validation_loss_curve_=history.validation_loss_curve if validated else None,
            _no_improvement_count=history.stalled,
            _monitored=monitor.name,
        )

    def _learned(self, parameters, *, objective, origin, loss):
        """The attributes that `predict` needs, from a vector of parameters."""
        coefs, intercepts = objective.unpack(parameters)
        return {
            "coefs_": [origin.bring(coef, objective.device) for coef in coefs],
            "intercepts_": [origin.bring(intercept, objective.device) for intercept in intercepts],
            "n_layers_": len(objective.widths),
            "n_outputs_": objective.widths[-1],
            "out_activation_": self._output_activation(loss),
            # Parameters of the estimator may change after the fit.
            "_activation": self.activation,
            "_trained_on": self._loss_key(),
        }

    def _on_host(self, objective):
        """The attributes that differ in a NumPy copy of the model that computes on the objective's device."""
        device = objective.device
        if device is None:
            return {}
        return {"device": device.native if device.is_torch else None, "device_dtype": objective.dtype.name}

    # Validation and prediction ---------------------------------------------------------------------------

    def _split(self, order, random_state, strata):
        if not self.validation_fraction > 0:
            raise ValueError(
                "early_stopping needs a validation set: pass X_val and y_val, or a validation_fraction > 0"
            )
        return train_test_split(
            order,
            random_state=random_state,
            test_size=self.validation_fraction,
            stratify=None if strata is None else strata[order],
        )

    def _validation(self, objective, train_and_val_loss, held_out, monitor, learned):
        """A function of the parameters that returns the loss on the held-out rows and a score or None."""
        loss, loss_val = train_and_val_loss
        X, weight, scorer = held_out.X, held_out.weight, monitor.scorer
        if loss_val != loss:
            objective = self._objective(
                objective.device, objective.widths, self.activation, objective.dtype, loss_val
            )
        rows = objective.rows(held_out)
        weights = {} if weight is None else {"sample_weight": weight}
        # Metrics need NumPy arrays: a scorer is passed the rows in NumPy, and a model that accepts them but
        # computes on the device of the training.
        X_host = held_out.on_host() if scorer is not None else None
        learned = functools.partial(learned, origin=Origin(None, objective.dtype))

        def score(parameters):
            nonlocal weights
            if scorer is None:
                raw = objective.get(objective.predict(X, parameters))
                return self._validation_score(held_out, loss_val, raw)
            model = type(self).__new__(type(self))
            vars(model).update({**vars(self), **learned(parameters), **self._on_host(objective)})
            # The checked rows are an array without column names.
            vars(model).pop("feature_names_in_", None)
            try:
                value = scorer(model, X_host, held_out.y, **weights)
            except TypeError as error:
                # scikit-learn's own scorers raise it too, if their metric does not accept weights.
                if not weights or "unexpected keyword argument 'sample_weight'" not in str(error):
                    raise
                weights = {}
                value = scorer(model, X_host, held_out.y)
            if not isinstance(value, numbers.Real):
                raise TypeError(
                    f"early_stopping={self.early_stopping!r} must give a number, got {value!r} of type "
                    f"{type(value).__name__}"
                )
            return float(value)

        def validate(parameters):
            value = objective.loss(rows, parameters)
            if monitor.kind == "loss":
                return value, -value
            return value, score(parameters) if monitor.kind else None

        return validate

    def _of_outputs(self, function, X):
        """Apply a function that works row by row to the network's outputs (rows, outputs), block by block."""
        X = check_X(self, X, reset=False)
        dtype = computed = np.result_type(dtype_of(X), dtype_of(self.coefs_[0]))
        origin = device = device_of(X)
        if origin is None and self.device is not None:
            device = requested_device(self.device)
            if device is not None:
                computed = device.floats(self.device_dtype)
        objective = self._objective(device, self._fitted_widths(), self._activation, computed)
        parameters = objective.pack(self.coefs_, self.intercepts_)

        def apply(block):
            # Raises an error if a number overflows in the dtype that the device computes in.
            block = block if device is None else in_dtype(block, computed)
            raw = objective.predict(block, parameters)
            return function(raw.astype(dtype, copy=False) if origin is None else raw)

        n = X.shape[0]
        if n <= BLOCK:
            return apply(X)
        blocks = (apply(X[first : min(first + BLOCK, n), ...]) for first in range(0, n, BLOCK))
        if origin is not None:
            parts = list(blocks)
            return (np if isinstance(parts[0], np.ndarray) else origin.xp).concat(parts)
        out = None
        for first, part in zip(range(0, n, BLOCK), blocks, strict=True):
            if out is None:
                out = np.empty((n, *part.shape[1:]), part.dtype)
            out[first : first + BLOCK] = part
        return out

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def link_name(loss: Loss) -> str:
    """scikit-learn's name for the loss's inverse link, or the class name of the loss if it has none."""
    return loss.inverse_link_name or type(loss).__name__
