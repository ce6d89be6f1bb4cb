"""Training of networks: epochs over mini-batches with their history, or SciPy's L-BFGS-B over all rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from scipy.optimize import minimize

from sklloss.arrays.ops import Array
from sklloss.arrays.threads import check_interrupt, single_threaded_blas
from sklloss.solvers.base import TrainingObjective
from sklloss.solvers.optimizers import Optimizer


class EpochCallbacks(Protocol):
    """What training calls around each epoch."""

    def begin(self) -> None:
        """Called before an epoch."""

    def end(self, parameters: Array) -> bool:
        """Called after an epoch; training ends where it returns True."""


# A function of the parameters: the validation loss, and a score or None.
Validation = Callable[[Array], tuple[float, float | None]]


@dataclass(frozen=True, eq=False)
class TrainingOptions:
    """How `train` runs.

    Attributes
    ----------
    batch_size, max_iter : int
    shuffle : bool
        Shuffle the rows before each epoch, starting from the order of the epoch before.
    random_state : RandomState
    schedule : callable, optional
        Called with the numbers of steps and their total over ``max_iter`` epochs; returns a factor of the
        learning rate for each step.
    tol, n_iter_no_change : float
        Training has stalled after more than ``n_iter_no_change`` epochs in a row that gain less than ``tol``.
    verbose : bool
        Print the progress.
    validate : callable, optional
        Called with the parameters after each epoch; returns the validation loss, and a score or None.
    early_stopping : {"score", "loss"}, optional
        Judge progress by the validation score instead of the training loss; what the score is called in the
        printed progress.
    single_epoch : bool
        End after one epoch, which counts as converged.
    mark : bool
        Mark the history after each epoch. ``early_stopping`` always does.
    callbacks : EpochCallbacks, optional
    """

    batch_size: int
    max_iter: int
    shuffle: bool = True
    random_state: np.random.RandomState | None = None
    schedule: Callable[[np.ndarray, int], np.ndarray] | None = None
    tol: float = 1e-4
    n_iter_no_change: float = 10
    verbose: bool | int = False
    validate: Validation | None = None
    early_stopping: str | None = None
    single_epoch: bool = False
    mark: bool = False
    callbacks: EpochCallbacks | None = None


@dataclass
class History:
    """The record of a training, continued by later calls with a warm start.

    Attributes
    ----------
    seen : int
        Rows seen so far.
    loss_curve : list of float
    best_loss : float
    stalled : int
        Epochs in a row without progress.
    validation_loss_curve : list of float
    validation_scores : list of float
    best_validation_score : float
    best_iter : int
        The number of the best epoch, counted from 1 along ``loss_curve``.
    unsolved : str or None
        Why the last training has not converged; None if it has.
    """

    seen: int = 0
    loss_curve: list[float] = field(default_factory=list)
    best_loss: float = math.inf
    stalled: int = 0
    validation_loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    best_validation_score: float = -math.inf
    best_iter: int = 0
    unsolved: str | None = None
    _mark: tuple[Array, History, tuple[int, ...]] | None = None

    def mark(self, parameters: Array) -> None:
        """Remember the current record, and the parameters to return if training is interrupted."""
        # One assignment, so that an interrupt finds either the old mark or the new one. The new one does not
        # refer to the old, which would keep the parameters of every epoch in memory.
        self._mark = (parameters, replace(self, _mark=None), tuple(map(len, self._curves())))

    @property
    def is_marked(self) -> bool:
        """Whether there is a mark."""
        return self._mark is not None

    def marked(self) -> tuple[Array, History] | None:
        """The parameters and the record at the last mark, or None without one.

        The two records share their lists, so this one must not be used afterwards.
        """
        if self._mark is None:
            return None
        parameters, then, lengths = self._mark
        for curve, length in zip(then._curves(), lengths, strict=True):
            del curve[length:]
        return parameters, then

    def _curves(self) -> tuple[list[float], list[float], list[float]]:
        return self.loss_curve, self.validation_loss_curve, self.validation_scores

    def add_epoch(self, loss: float, score: float | None, tol: float) -> bool:
        """Count an epoch as progress or not, by its score, or by its loss if the score is None.

        Its loss is already in ``loss_curve``. Returns whether it is the best so far.
        """
        if score is None:
            self.stalled = self.stalled + 1 if loss > self.best_loss - tol else 0
            self.best_loss = min(self.best_loss, loss)
        else:
            # A NaN score is no progress.
            self.stalled = 0 if score >= self.best_validation_score + tol else self.stalled + 1
            if not score > self.best_validation_score:
                return False
            self.best_validation_score = score
        self.best_iter = len(self.loss_curve)
        return True


class DivergenceError(ValueError):
    """The loss or the parameters became NaN or infinite."""


def train(
    objective: TrainingObjective,
    optimizer: Optimizer,
    rows: Any,
    order: np.ndarray,
    parameters: Array,
    history: History,
    options: TrainingOptions,
) -> tuple[Array, int]:
    """Train until progress stalls or ``max_iter`` epochs have passed.

    Parameters
    ----------
    objective : TrainingObjective
    optimizer : Optimizer
        Started; its state changes in place.
    rows : object
        From the objective's ``rows``.
    order : ndarray of intp
        The rows to train on, in their order before the first shuffle.
    parameters : array of shape (size,)
        Start; changed in place.
    history : History
        Changed in place.
    options : TrainingOptions

    Returns
    -------
    parameters : array
        With ``early_stopping`` those of the best epoch, else the last ones.
    n_iter : int
        Epochs run.

    Raises
    ------
    DivergenceError
        If the loss becomes NaN or infinite, or the parameters at the end.
    """
    best = objective.copy(parameters) if options.early_stopping else parameters
    n, callbacks = len(order), options.callbacks
    batches = -(-n // options.batch_size)
    gather = _order_matters(order, rows.rows, options)
    at_once = objective.epochs_at_once(n) if _needs_no_epoch_ends(optimizer, options) else 1
    epoch, stop = 0, False
    with objective.running():
        while not stop and epoch < options.max_iter:
            check_interrupt()
            if callbacks is not None:
                callbacks.begin()
            # No training ends before the last of these epochs.
            before_stall = options.n_iter_no_change + 1 - history.stalled
            count = int(max(1, min(at_once, options.max_iter - epoch, before_stall)))
            given, order = _orders(order, count, options)
            steps = optimizer.steps(count * batches, _rate_factors(epoch, count, batches, options))
            for loss in objective.epochs(
                rows, given if gather else None, count, options.batch_size, parameters, steps
            ):
                epoch += 1
                if not math.isfinite(loss):
                    raise _divergence("training loss", loss, epoch, history, options)
                is_best = _record(history, n, epoch, loss, parameters, options)
            if is_best and options.early_stopping:
                best = objective.copy(parameters)
            if options.early_stopping:
                if history.best_iter:
                    history.mark(best)
            elif options.mark:
                history.mark(objective.copy(parameters))
            stop = callbacks is not None and callbacks.end(parameters)
            optimizer.end_epoch(history.seen)
            stop = _has_stalled(history, optimizer, options) or stop or options.single_epoch
        if not stop:
            history.unsolved = _why_unsolved(options)
        if not objective.is_finite(parameters):
            # The loss of an epoch is that of the parameters before its last step.
            raise _divergence("parameters", "NaN or infinite", epoch, history, options)
    if options.early_stopping and not history.best_iter:
        raise ValueError("the validation score was NaN after every epoch: there are no best weights to keep")
    return best if options.early_stopping else parameters, epoch


def _order_matters(order: np.ndarray, rows: int, options: TrainingOptions) -> bool:
    """Whether batches must be gathered: not if a single batch takes all rows, or if the rows are in order."""
    n = len(order)
    return n < rows or (options.batch_size < n and (options.shuffle or bool((np.diff(order) != 1).any())))


def _needs_no_epoch_ends(optimizer: Optimizer, options: TrainingOptions) -> bool:
    """Whether nothing but the loss is asked for between an epoch and the next."""
    return not (
        options.callbacks is not None
        or options.validate is not None
        or options.verbose
        or options.mark
        or options.single_epoch
        or optimizer.changes_each_epoch
    )


def _orders(order: np.ndarray, count: int, options: TrainingOptions) -> tuple[np.ndarray, np.ndarray]:
    """The orders of the next epochs, one after the other, and the last of them.

    Each is shuffled by the same draws as sklearn.utils.shuffle, to the same order.
    """
    if count == 1 and not options.shuffle:
        return order, order
    orders = np.empty((count, len(order)), order.dtype)
    for each in orders:
        each[:] = order
        if options.shuffle:
            assert options.random_state is not None
            options.random_state.shuffle(each)
        order = each
    return orders.reshape(-1), order


def _rate_factors(done: int, count: int, batches: int, options: TrainingOptions) -> float | np.ndarray:
    """The factors of the learning rate in the epochs after those done, from the schedule."""
    if options.schedule is None:
        return 1.0
    steps = np.arange(done * batches, (done + count) * batches)
    return options.schedule(steps, options.max_iter * batches)


def _record(
    history: History, seen: int, epoch: int, loss: float, parameters: Array, options: TrainingOptions
) -> bool:
    """Validate, record and print an epoch; returns whether it is the best so far."""
    history.seen += seen
    history.loss_curve.append(loss)
    if options.verbose:
        print(f"Iteration {epoch}, loss = {loss:.8f}")
    score = None
    if options.validate is not None:
        validation_loss, score = options.validate(parameters)
        history.validation_loss_curve.append(validation_loss)
    if options.early_stopping:
        assert score is not None
        history.validation_scores.append(score)
        if options.verbose:
            shown = -score if options.early_stopping == "loss" else score
            print(f"Validation {options.early_stopping}: {shown:f}")
    return history.add_epoch(loss, score, options.tol)


def _has_stalled(history: History, optimizer: Optimizer, options: TrainingOptions) -> bool:
    """Whether training should end, because there was no progress for too long."""
    if history.stalled <= options.n_iter_no_change:
        return False
    done, message = optimizer.stall()
    if options.verbose:
        what = f"Validation {options.early_stopping}" if options.early_stopping else "Training loss"
        print(
            f"{what} did not improve more than tol={options.tol:f} for {options.n_iter_no_change} "
            f"consecutive epochs. {message}"
        )
    if not done:
        history.stalled = 0
    return done


def _why_unsolved(options: TrainingOptions) -> str | None:
    if options.schedule is not None:
        return None  # A schedule is designed to use all iterations.
    return (
        f"Stochastic Optimizer: Maximum iterations ({options.max_iter}) reached and the optimization hasn't "
        "converged yet."
    )


def _divergence(
    what: str, value: object, epoch: int, history: History, options: TrainingOptions
) -> DivergenceError:
    kept = bool(options.early_stopping) and history.is_marked
    note = "; the weights of the best epoch are kept" if kept else ""
    return DivergenceError(
        f"the {what} became {value} in epoch {epoch}: training diverges. Try a smaller "
        "learning_rate_init, and bring the columns of X (in a regression y too) to a common scale, such "
        f"as with StandardScaler{note}"
    )


def lbfgsb(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    parameters: np.ndarray,
    *,
    tol: float,
    max_iter: int,
    max_fun: int,
    callback: Callable[[float, np.ndarray], bool | None] | None = None,
) -> tuple[np.ndarray, float, int, str | None]:
    """Minimise a smooth function by SciPy's L-BFGS-B, with the stopping rules of scikit-learn's networks.

    Parameters
    ----------
    function : callable
        Takes a vector like ``parameters``; returns value and gradient.
    parameters : ndarray of shape (size,)
        Start.
    tol : float
        Stop where no component of the gradient is larger.
    max_iter, max_fun : int
        Limits of the iterations and of the calls of ``function``.
    callback : callable, optional
        Called with value and parameters after each iteration; ends the search by returning True.

    Returns
    -------
    parameters : ndarray
        Of the start's dtype.
    value : float
    n_iter : int
    unsolved : str or None
        Why it has not converged; None if it has.

    Raises
    ------
    ValueError
        If the value is NaN or infinite at the end.
    """
    dtype = parameters.dtype
    last: list[float] = [np.nan]
    ended: list[bool] = []

    def evaluate(w: np.ndarray) -> tuple[float, np.ndarray]:
        check_interrupt()
        value, gradient = function(w.astype(dtype, copy=False))
        last[0] = value
        return value, gradient.astype(np.float64, copy=False)

    def after_iteration(w: np.ndarray) -> None:
        assert callback is not None
        # The point that the line search accepts is the last one it evaluated.
        if callback(last[0], w.astype(dtype, copy=False)):
            ended.append(True)
            raise StopIteration

    notify: Any = None if callback is None else after_iteration
    options: Any = {"gtol": tol, "maxiter": max_iter, "maxfun": max_fun}
    with single_threaded_blas():
        found = minimize(
            evaluate,
            parameters.astype(np.float64),
            jac=True,
            method="L-BFGS-B",
            callback=notify,
            options=options,
        )
    value = float(found.fun)
    if not np.isfinite(value) or not np.isfinite(found.x).all():
        raise ValueError(
            f"the training loss became {value} after {found.nit} iterations of L-BFGS: bring the "
            "columns of X (in a regression y too) to a common scale, such as with StandardScaler"
        )
    n_iter = min(int(found.nit), max_iter)
    # In float32 a line search fails where rounding hides any further decrease: that counts as converged.
    rounded = found.status == 2 and dtype == np.float32 and n_iter > 0
    unsolved = None
    if found.status != 0 and not rounded and not ended:
        unsolved = (
            f"lbfgs failed to converge after {n_iter} iteration(s) (status={found.status}): {found.message}. "
            "Increase max_iter or max_fun, or scale the data"
        )
    return found.x.astype(dtype, copy=False), value, n_iter, unsolved
