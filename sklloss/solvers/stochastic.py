"""Training over mini-batches: epochs, their history, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklloss._warnings import warn
from sklloss.arrays.ops import Array
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
        Shuffle the order of the epoch before, each epoch.
    random_state : RandomState
    schedule : callable, optional
        Of the numbers of steps and their total over ``max_iter`` epochs; gives a factor of the learning
        rate for each.
    tol, n_iter_no_change : float
        More than ``n_iter_no_change`` epochs in a row that gain less than ``tol`` are a stall.
    verbose : bool
        Print the progress.
    validate : callable, optional
        Called with the parameters after each epoch; gives the validation loss, and a score or None.
    early_stopping : {"score", "loss"}, optional
        Judge progress by the validation score (named so in what is printed), not by the training loss.
    single_epoch : bool
        End after one epoch, without a word about convergence.
    mark : bool
        Mark the history after each epoch, as is always done with ``early_stopping``.
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
    """What a training remembers between epochs and, for a warm start, between calls.

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
        The epoch whose parameters are kept, counted from 1 along ``loss_curve``.
    """

    seen: int = 0
    loss_curve: list[float] = field(default_factory=list)
    best_loss: float = math.inf
    stalled: int = 0
    validation_loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    best_validation_score: float = -math.inf
    best_iter: int = 0
    _mark: tuple[Array, History, tuple[int, ...]] | None = None

    def mark(self, parameters: Array) -> None:
        """Remember the training as it is now, with the parameters that it would give."""
        # In one assignment, so that an interrupt finds the old mark or the new one. The new one leaves out
        # the old, or the parameters of every epoch would stay in memory.
        self._mark = (parameters, replace(self, _mark=None), tuple(map(len, self._curves())))

    @property
    def is_marked(self) -> bool:
        """Whether there is a mark."""
        return self._mark is not None

    def marked(self) -> tuple[Array, History] | None:
        """Go back to the last mark: its parameters, and its history up to there; None without one.

        This history is of no use afterwards: the two share their lists.
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
        """Judge an epoch, whose loss was appended, by its score, or by its loss if that is None.

        Returns whether its parameters are the ones to keep.
        """
        if score is None:
            self.stalled = self.stalled + 1 if loss > self.best_loss - tol else 0
            self.best_loss = min(self.best_loss, loss)
        else:
            # a score that is NaN is no progress
            self.stalled = 0 if score >= self.best_validation_score + tol else self.stalled + 1
            if not score > self.best_validation_score:
                return False
            self.best_validation_score = score
        self.best_iter = len(self.loss_curve)
        return True


class DivergenceError(ValueError):
    """The loss or the parameters became NaN or infinite."""

    def __init__(self, what: str, value: object, epoch: int, remedy: str = "") -> None:
        super().__init__(
            f"the {what} became {value} in epoch {epoch}: training diverges. Try a smaller "
            "learning_rate_init, and bring the columns of X (in a regression y too) to a common scale, such "
            f"as with StandardScaler{remedy}"
        )


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
    with objective.running():
        for epoch in range(1, options.max_iter + 1):
            if callbacks is not None:
                callbacks.begin()
            if options.shuffle:
                order = _shuffled(order, options)
            steps = optimizer.steps(batches, _rate_factors(epoch, batches, options))
            loss = objective.epoch(rows, order if gather else None, options.batch_size, parameters, steps)
            if not math.isfinite(loss):
                raise _divergence("training loss", loss, epoch, history, options)
            if _record(history, n, epoch, loss, parameters, options) and options.early_stopping:
                best = objective.copy(parameters)
            if options.early_stopping:
                if history.best_iter:
                    history.mark(best)
            elif options.mark:
                history.mark(objective.copy(parameters))
            stop = callbacks is not None and callbacks.end(parameters)
            optimizer.end_epoch(history.seen)
            stop = _has_stalled(history, optimizer, options) or stop
            if stop or options.single_epoch:
                break
        else:
            _warn_unless_scheduled(options)
        if not objective.is_finite(parameters):
            # The loss of an epoch is that of the parameters before its last step.
            raise _divergence("parameters", "NaN or infinite", epoch, history, options)
    if options.early_stopping and not history.best_iter:
        raise ValueError("the validation score was NaN after every epoch: there are no best weights to keep")
    return best if options.early_stopping else parameters, epoch


def _order_matters(order: np.ndarray, rows: int, options: TrainingOptions) -> bool:
    """Whether rows must be gathered: one batch is the same in any order, and rows may lie in order."""
    n = len(order)
    return n < rows or (options.batch_size < n and (options.shuffle or bool((np.diff(order) != 1).any())))


def _shuffled(order: np.ndarray, options: TrainingOptions) -> np.ndarray:
    """The draws of sklearn.utils.shuffle."""
    assert options.random_state is not None
    return order[options.random_state.permutation(len(order))]


def _rate_factors(epoch: int, batches: int, options: TrainingOptions) -> float | np.ndarray:
    if options.schedule is None:
        return 1.0
    return options.schedule(np.arange((epoch - 1) * batches, epoch * batches), options.max_iter * batches)


def _record(
    history: History, seen: int, epoch: int, loss: float, parameters: Array, options: TrainingOptions
) -> bool:
    """Validate after an epoch, note how it went, and print that; whether it is the best so far."""
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


def _warn_unless_scheduled(options: TrainingOptions) -> None:
    # A schedule is meant to run to its end.
    if options.schedule is None:
        warn(
            f"Stochastic Optimizer: Maximum iterations ({options.max_iter}) reached and the optimization "
            "hasn't converged yet.",
            ConvergenceWarning,
        )


def _divergence(
    what: str, value: object, epoch: int, history: History, options: TrainingOptions
) -> DivergenceError:
    kept = bool(options.early_stopping) and history.is_marked
    return DivergenceError(what, value, epoch, "; the weights of the best epoch are kept" if kept else "")
