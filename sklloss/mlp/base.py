"""The base class of the networks: parameters, training, fitted attributes. Objectives do the numerics."""

import functools
import numbers
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.metrics import get_scorer
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, check_random_state

from sklloss import losses
from sklloss._base import CallbackSupport, KeepState, Movable, VersionStamp
from sklloss._warnings import warn
from sklloss.arrays import threads
from sklloss.arrays.device import device_of, requested_device
from sklloss.data.checks import (
    Array,
    check_choice,
    check_flag,
    check_integer,
    check_real,
    check_X,
    dtype_of,
    in_dtype,
    row_major,
)
from sklloss.data.dataset import DEVICE_DTYPES, Dataset, Origin
from sklloss.losses import Loss
from sklloss.objectives.device_network import DeviceNetworkObjective
from sklloss.objectives.network import ACTIVATIONS, NumpyNetworkObjective, initial_parameters
from sklloss.solvers.lbfgsb import lbfgsb
from sklloss.solvers.optimizers import SGD, Adam, AdamW, state_on_host
from sklloss.solvers.schedules import SCHEDULES, schedule
from sklloss.solvers.stochastic import DivergenceError, History, TrainingOptions, train

# Rows that are predicted at a time.
BLOCK = 8192

STOCHASTIC = ("adam", "adamw", "sgd")
SOLVERS = (*STOCHASTIC, "lbfgs")
LEARNING_RATES = ("constant", "invscaling", "adaptive", *SCHEDULES)


class Watched(NamedTuple):
    """What early stopping watches.

    Attributes
    ----------
    kind : {"score", "loss"} or None
        None for nothing.
    scorer : callable or None
        None for the estimator's own score.
    name : str or None
        Scores of another fit are comparable if the name is the same.
    """

    kind: str | None
    scorer: Callable[..., float] | None
    name: str | None


NOT_WATCHED = Watched(None, None, None)


def is_stochastic(estimator: Any) -> bool:
    """Whether `partial_fit` is available: an AttributeError that says why not, as `available_if` wants."""
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


class BaseMLP(CallbackSupport, Movable, VersionStamp, BaseEstimator):
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

    # Trains with a stochastic solver; another function with the same arguments may observe the training.
    _run = staticmethod(train)

    def _check_parameters(self):
        """Raise for a parameter out of its range; the optimizer of a stochastic solver, else None."""
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("solver", self.solver, SOLVERS)
        check_choice("learning_rate", self.learning_rate, LEARNING_RATES)
        if self.warmup_fraction is not None:
            check_real("warmup_fraction", self.warmup_fraction, 0.0, 1.0, open_high=True)
        check_real("alpha", self.alpha, 0.0, open_high=True)
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
        for name in ("shuffle", "warm_start", "nesterovs_momentum"):
            check_flag(name, getattr(self, name))
        self._early_stopping()
        threads.check(self.n_threads)
        check_choice("device_dtype", self.device_dtype, DEVICE_DTYPES)
        rate = check_real("learning_rate_init", self.learning_rate_init, 0.0, open_low=True, open_high=True)
        adam = (
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
        optimizers = {"adam": Adam(*adam), "adamw": AdamW(*adam, weight_decay=float(self.alpha)), "sgd": sgd}
        return optimizers.get(self.solver)

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
                f"on with, whose hidden layers have {list(fitted[1:-1])} units. A clone, or fit with "
                "warm_start=False, starts a new network"
            )
        return widths

    def _batch_size(self, n):
        if isinstance(self.batch_size, str):
            return min(200, n)
        if self.batch_size > n:
            warn("Got `batch_size` less than 1 or larger than sample size. It is going to be clipped")
        return min(int(self.batch_size), n)

    def _early_stopping(self):
        """What ``early_stopping`` watches."""
        given = self.early_stopping
        if given == "loss":
            return Watched("loss", None, "loss")
        if isinstance(given, str) or callable(given):
            try:
                scorer = get_scorer(given)
            except ValueError as error:
                raise ValueError(
                    f"early_stopping must be True, False, 'loss' or a scorer, got {given!r}"
                ) from error
            return Watched("score", scorer, given if isinstance(given, str) else repr(given))
        return Watched("score", None, "score") if check_flag("early_stopping", given) else NOT_WATCHED

    def _objective(self, device, widths, activation, dtype, loss=None, alpha=0.0):
        if device is not None:
            return DeviceNetworkObjective(widths, activation, dtype, device, loss, alpha)
        return NumpyNetworkObjective(widths, activation, dtype, loss, alpha, n_threads=self.n_threads)

    def _model_array(self):
        """An array that lives where the model does."""
        return self.coefs_[0]

    def __getstate__(self) -> dict[str, Any]:
        """The state of a pickle or copy, for which the optimiser's is brought to NumPy."""
        state = super().__getstate__()
        return state | {"_optimizer": state_on_host(state["_optimizer"])} if "_optimizer" in state else state

    def _measure(self):
        """What the values of ``loss_curve_`` are of."""
        return self.loss

    def _measures_alike(self):
        """Whether the loss is the one that the fitted network was trained on."""
        return losses.get(self._trained_on) == losses.get(self.loss)

    def _history(self, first, watched, validated):
        # Values of another loss are no measure of progress.
        if first or not hasattr(self, "loss_curve_") or not self._measures_alike():
            return History()
        # nor are other scores
        same = watched == self._watched
        best = self.best_validation_score_ if same else None
        # epochs without validation keep their places
        curve = self.validation_loss_curve_ or [np.nan] * len(self.loss_curve_)
        return History(
            self.t_,
            list(self.loss_curve_),
            np.inf if self.best_loss_ is None else self.best_loss_,
            self._no_improvement_count if same else 0,
            list(curve) if validated else [],
            list(self.validation_scores_ or ()) if same else [],
            -np.inf if best is None else best,
            self.best_iter_ if same or watched is None else 0,
        )

    def _compare_start(self, history, score):
        """Let the weights that training goes on from be the best so far, by their score on the rows of X_val.

        If it is the best score so far, the rows are those of the last call. Scores of others say nothing.
        """
        if score == history.best_validation_score:
            return
        history.stalled, history.validation_scores = 0, []
        history.best_validation_score, history.best_iter = -np.inf, 0
        if score > -np.inf:
            history.best_validation_score, history.best_iter = score, self.best_iter_

    def _train(
        self, optimizer, data, held_out=None, unweighted=None, *, first, incremental=False, callbacks=None
    ):
        """Train on a Dataset and set the fitted attributes.

        Parameters
        ----------
        optimizer : Optimizer or None
            None for L-BFGS.
        data : Dataset
        held_out : Dataset, optional
            The user's validation set.
        unweighted : Dataset, optional
            The data without class weights, as a validation set has none, where that differs.
        first : bool
            Start a new network.
        incremental : bool
            Train for one epoch, with the optimiser as it was left.
        callbacks : FitCallbacks, optional
        """
        given = held_out is not None
        watched = NOT_WATCHED if optimizer is None else self._early_stopping()
        widths = self._widths(first, data.X.shape[1], data.outputs)
        random_state = check_random_state(self.random_state)
        dtype, origin = self._training_dtype(data, first)
        loss, bound = self._bind(data)
        bound = bound.in_dtype(dtype, loss)
        # "adamw" takes alpha off the weights themselves
        alpha = 0.0 if self.solver == "adamw" else self.alpha
        objective = self._objective(data.device, widths, self.activation, dtype, loss, alpha)
        parameters = self._start(objective, first, random_state, optimizer)
        order, rest = weighted_rows(bound), None
        if watched.kind and given:
            watched = watched._replace(name=watched.name + " of X_val")
        elif watched.kind:
            order, rest = self._split(order, random_state, self._strata(data))
        loss_val, bound_val = self._bind_validation(held_out, unweighted, (loss, bound), rest)
        if watched.kind and bound_val.n < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        learned = functools.partial(self._learned, objective=objective, origin=origin, loss=loss)
        validate = None
        if bound_val is not None:
            bound_val = bound_val.in_dtype(dtype, loss_val, "_val" if given else "")
            validate = self._validation(objective, loss, loss_val, bound_val, watched, learned)
        history = self._history(first, watched.name, validate is not None)
        epochs = len(history.loss_curve)
        if epochs and watched.kind and given:
            self._compare_start(history, validate(parameters)[1])
        if optimizer is not None and data.device is None:
            bound = replace(bound, X=row_major(bound.X))
        rows = objective.rows(bound)
        # What training leaves that ends early: with early stopping its best weights; after Ctrl-C those of
        # the last epoch, for a warm start to go on from.
        hooks = {
            "validate": validate,
            "mark": bool(self.warm_start) and not incremental,
            "callbacks": callbacks and callbacks.steps("epoch" if optimizer else "iteration", learned),
        }
        failure = value = None
        try:
            if optimizer is None:
                parameters, value, n_iter = self._minimize(objective, rows, parameters, history, **hooks)
            else:
                options = self._options(
                    len(order), random_state, early_stopping=watched.kind, single_epoch=incremental, **hooks
                )
                self._start_optimizer(optimizer, objective, incremental)
                parameters, n_iter = self._run(
                    objective, optimizer, rows, order, parameters, history, options
                )
        except (DivergenceError, KeyboardInterrupt) as error:
            if not history.is_marked or not (
                watched.kind if isinstance(error, DivergenceError) else hooks["mark"]
            ):
                raise
            parameters, history = history.marked()
            n_iter, failure = len(history.loss_curve) - epochs, error
        state = None
        # after a failure the moments are not those of these weights
        if optimizer is not None and failure is None:
            # between calls of partial_fit it stays; a fitted model of NumPy's leaves nothing on a device
            stays = incremental or data.device == origin.device
            state = optimizer.state if stays else state_on_host(optimizer.state)
        vars(self).update(learned(parameters), n_iter_=n_iter, _optimizer=state)
        self._set_history(history, watched, value, validate is not None)
        if failure is not None:
            raise KeepState(failure)
        if callbacks is not None:
            callbacks.end()
        return self

    def _bind_validation(self, held_out, unweighted, bound, rest):
        """The loss and the data to validate on: the user's, or the rows that were split off, or None."""
        if held_out is not None:
            return self._bind(held_out, "y_val")
        if rest is None:
            return bound[0], None
        loss, data = bound if unweighted is None else self._bind(unweighted)
        return loss, data.take(rest)

    def _training_dtype(self, data, first):
        """The dtype to train in, and where what is learned is to live."""
        dtype, origin, device = data.dtype, data.origin, data.device
        if first:
            return dtype, origin
        origin = Origin(origin.device, dtype_of(self.coefs_[0]))
        # numbers that were moved are in the dtype to compute in
        return (origin.dtype if device is None or device == origin.device else dtype), origin

    def _start(self, objective, first, random_state, optimizer):
        """The parameters to start from, drawn or fitted before."""
        if first:
            drawn = initial_parameters(objective.widths, self.activation, random_state, objective.dtype)
            # SciPy's solver moves NumPy's parameters itself
            return drawn if optimizer is None else objective.put(drawn)
        parameters = objective.pack(self.coefs_, self.intercepts_)
        return objective.get(parameters) if optimizer is None else parameters

    def _start_optimizer(self, optimizer, objective, incremental):
        if not (incremental and optimizer.resume(getattr(self, "_optimizer", None))):
            optimizer.start(objective.size, objective.dtype)
        optimizer.move_to(objective)

    def _options(self, n, random_state, **options):
        """How `train` runs on so many rows."""
        return TrainingOptions(
            batch_size=self._batch_size(n),
            max_iter=int(self.max_iter),
            shuffle=bool(self.shuffle),
            random_state=random_state,
            schedule=schedule(self.learning_rate, self.warmup_fraction),
            tol=self.tol,
            n_iter_no_change=self.n_iter_no_change,
            verbose=self.verbose,
            **options,
        )

    def _set_history(self, history, watched, value, validated):
        """Set the fitted attributes that tell of the training; ``value`` is the objective at L-BFGS's end."""
        if value is not None:
            # there may have been no iteration
            history.best_loss = min(history.best_loss, value)
        vars(self).update(
            loss_=history.loss_curve[-1] if value is None else value,
            solver_=self.solver,
            loss_curve_=history.loss_curve,
            t_=history.seen,
            best_loss_=None if watched.kind else history.best_loss,
            best_iter_=history.best_iter,
            best_validation_score_=history.best_validation_score if watched.kind else None,
            validation_scores_=history.validation_scores if watched.kind else None,
            validation_loss_curve_=history.validation_loss_curve if validated else None,
            _no_improvement_count=history.stalled,
            _watched=watched.name,
        )

    def _learned(self, parameters, *, objective, origin, loss):
        """What `predict` needs of a training, as attributes."""
        coefs, intercepts = objective.unpack(parameters)
        return {
            "coefs_": [origin.bring(coef, objective.device) for coef in coefs],
            "intercepts_": [origin.bring(intercept, objective.device) for intercept in intercepts],
            "n_layers_": len(objective.widths),
            "n_outputs_": objective.widths[-1],
            "out_activation_": self._output_activation(loss),
            # parameters of the estimator may change after the fit
            "_activation": self.activation,
            "_trained_on": self._measure(),
        }

    def _minimize(self, objective, rows, parameters, history, *, validate, mark, callbacks):
        """L-BFGS over all rows: parameters, final objective, iterations."""

        def record(value, parameters):
            history.loss_curve.append(value)
            history.best_loss = min(history.best_loss, value)
            history.best_iter = len(history.loss_curve)
            if self.verbose:
                print(f"Iteration {len(history.loss_curve)}, loss = {value:.8f}")
            if validate is not None:
                history.validation_loss_curve.append(validate(parameters)[0])
            if mark:
                history.mark(parameters.copy())
            if callbacks is None:
                return False
            callbacks.begin()
            return callbacks.end(parameters)

        return lbfgsb(
            functools.partial(objective.value_and_gradient, rows), parameters,
            tol=self.tol, max_iter=int(self.max_iter), max_fun=int(self.max_fun), callback=record,
        )  # fmt: skip

    def _on_host(self, objective):
        """The attributes that differ in a model that lives in NumPy and computes where the objective does."""
        device = objective.device
        if device is None:
            return {}
        return {"device": device.native if device.is_torch else None, "device_dtype": objective.dtype.name}

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

    def _validation(self, objective, loss, loss_val, held_out, watched, learned):
        """A function of the parameters: loss and, for early stopping, score on the held-out rows."""
        X, weight, scorer = held_out.X, held_out.weight, watched.scorer
        if loss_val != loss:
            objective = self._objective(
                objective.device, objective.widths, self.activation, objective.dtype, loss_val
            )
        rows = objective.rows(held_out)
        weights = {} if weight is None else {"sample_weight": weight}
        # metrics are NumPy's: scorers are given its rows, and a model that answers them where it is trained
        host = held_out.on_host() if scorer is not None else None
        learned = functools.partial(learned, origin=Origin(None, objective.dtype))

        def score(parameters):
            nonlocal weights
            if scorer is None:
                return self._validation_score(
                    held_out, loss_val, objective.get(objective.predict(X, parameters))
                )
            model = type(self).__new__(type(self))
            vars(model).update({**vars(self), **learned(parameters), **self._on_host(objective)})
            # the rows have been checked, and are an array without names
            vars(model).pop("feature_names_in_", None)
            try:
                value = scorer(model, host, held_out.y, **weights)
            except TypeError as error:
                # also of scikit-learn's own scorers, whose metric may not know weights
                if not weights or "unexpected keyword argument 'sample_weight'" not in str(error):
                    raise
                weights = {}
                value = scorer(model, host, held_out.y)
            if not isinstance(value, numbers.Real):
                raise TypeError(
                    f"early_stopping={self.early_stopping!r} must give a number, got {value!r} of type "
                    f"{type(value).__name__}"
                )
            return float(value)

        def validate(parameters):
            value = objective.loss(rows, parameters)
            if watched.kind == "loss":
                return value, -value
            return value, score(parameters) if watched.kind else None

        return validate

    def _of_outputs(self, function, X):
        """What a function makes of the network's outputs (rows, outputs), a block of rows at a time."""
        X = check_X(self, X, reset=False)
        dtype = computed = np.result_type(dtype_of(X), dtype_of(self.coefs_[0]))
        origin = device = device_of(X)
        if origin is None and self.device is not None:
            device = requested_device(self.device)
            if device is not None:
                computed = device.floats(self.device_dtype)
        widths = (*(coef.shape[0] for coef in self.coefs_), self.coefs_[-1].shape[1])
        objective = self._objective(device, widths, self._activation, computed)
        parameters = objective.pack(self.coefs_, self.intercepts_)

        def scores(block):
            # an error where a device's dtype has no room for a number
            block = block if device is None else in_dtype(block, computed)
            raw = objective.predict(block, parameters)
            return raw.astype(dtype, copy=False) if origin is None else raw

        n = X.shape[0]
        if n <= BLOCK:
            return function(scores(X))
        if origin is not None:
            parts = [function(scores(X[at : min(at + BLOCK, n), ...])) for at in range(0, n, BLOCK)]
            return (np if isinstance(parts[0], np.ndarray) else origin.xp).concat(parts)
        out = None
        for first in range(0, n, BLOCK):
            part = function(scores(X[first : first + BLOCK]))
            if out is None:
                out = np.empty((n, *part.shape[1:]), part.dtype)
            out[first : first + BLOCK] = part
        return out

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def weighted_rows(data: Dataset) -> NDArray[np.intp]:
    """The rows that have a weight: the others are left out of the batches, as if they had not been passed."""
    if data.weight is None:
        return np.arange(data.n, dtype=np.intp)
    return np.flatnonzero(data.weight.reshape(data.n, -1).any(axis=1))


def output_activation(loss: Loss) -> str:
    """scikit-learn's name for the loss's inverse link, the loss's own where scikit-learn has none."""
    if type(loss).inverse_link is losses.Loss.inverse_link:
        return "identity"
    return loss.inverse_link_name or type(loss).__name__
