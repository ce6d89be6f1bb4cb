"""Stochastic gradient descent over mini-batches: Adam, and SGD with momentum.

An optimiser here is its hyperparameters. What it remembers from batch to batch (moments, the learning
rate that it has come down to) is its state, a dict of arrays and plain numbers.
"""

import functools
import math
from dataclasses import dataclass, field, replace

import numpy as np
from array_api_compat import array_namespace
from sklearn.exceptions import ConvergenceWarning

from sklloss._warnings import warn
from sklloss.arrays.device import to_numpy


@dataclass(frozen=True)
class Adam:
    """Adam, with its bias correction in the learning rate.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", 2015, section 2.
    """

    learning_rate_init: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    name = "adam"

    def start(self, size, dtype):
        """The state before the first batch."""
        return {
            "solver": self.name,
            "steps": 0,
            "first": np.zeros(size, dtype),
            "second": np.zeros(size, dtype),
        }

    def resume(self, state):
        """A copy of a state that this optimiser left earlier, or None if it cannot go on from there."""
        return _copied(state) if state is not None and state["solver"] == self.name else None

    def epoch(self, objective, rows, order, batch_size, parameters, state, factors=1.0):
        """Run one epoch; parameters and state change in place. ``factors`` scale the rate, maybe by batch."""
        batches = -(-(rows.n if order is None else len(order)) // batch_size)
        t = np.arange(state["steps"] + 1, state["steps"] + batches + 1, dtype=np.float64)
        state["steps"] += batches
        learning_rates = np.full(batches, self.learning_rate_init) * factors
        rates = learning_rates * np.sqrt(1.0 - self.beta_2**t) / (1.0 - self.beta_1**t)
        return objective.epoch(
            rows, order, batch_size, parameters, optimiser="adam", rates=rates,
            shrinks=self.shrinks(learning_rates), first=state["first"], second=state["second"],
            decay=self.beta_1, decay_second=self.beta_2, epsilon=self.epsilon,
        )  # fmt: skip

    def shrinks(self, learning_rates):
        """The share of itself that a weight loses in each step, beside the gradient; None for none."""

    def epoch_ends(self, state, seen):
        """Adjust the learning rate after an epoch."""

    def stalls(self, state):
        """Whether to stop now that progress has stalled, and what to say about it."""
        return True, "Stopping."


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: a step takes the learning rate times ``weight_decay`` off a weight.

    Biases do not decay. The decay takes the place of an L2 penalty: the objective should have none.

    References
    ----------
    Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.
    """

    weight_decay: float = 0.01

    name = "adamw"

    def shrinks(self, learning_rates):
        """The share of itself that a weight loses in each step."""
        return self.weight_decay * learning_rates


@dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum, by default Nesterov's.

    ``learning_rate``: "invscaling" divides by ``seen ** power_t`` after each epoch, ``seen`` being the rows
    seen so far plus one; "adaptive" divides by 5 each time progress stalls and stops below 1e-6; any other
    name leaves the rate as it is. A state that was left under another name or another first rate resumes at
    the first rate.
    """

    learning_rate_init: float = 0.001
    learning_rate: str = "constant"
    power_t: float = 0.5
    momentum: float = 0.9
    nesterovs_momentum: bool = True

    name = "sgd"

    def start(self, size, dtype):
        """The state before the first batch."""
        return {
            "solver": self.name,
            **self._first_rate(),
            "first": np.zeros(size, dtype),
        }

    def resume(self, state):
        """A copy of a state that this optimiser left earlier, or None if it cannot go on from there."""
        if state is None or state["solver"] != self.name:
            return None
        state = _copied(state)
        first = self._first_rate()
        if any(state[name] != first[name] for name in ("schedule", "learning_rate_init")):
            state.update(first)
        return state

    def _first_rate(self):
        return {
            "schedule": self.learning_rate,
            "learning_rate_init": self.learning_rate_init,
            "learning_rate": self.learning_rate_init,
        }

    def epoch(self, objective, rows, order, batch_size, parameters, state, factors=1.0):
        """Run one epoch; parameters and state change in place. ``factors`` scale the rate, maybe by batch."""
        batches = -(-(rows.n if order is None else len(order)) // batch_size)
        return objective.epoch(
            rows, order, batch_size, parameters, optimiser=self.name,
            rates=np.full(batches, state["learning_rate"]) * factors, first=state["first"],
            decay=self.momentum, nesterov=self.nesterovs_momentum,
        )  # fmt: skip

    def epoch_ends(self, state, seen):
        """Adjust the learning rate after an epoch."""
        if self.learning_rate == "invscaling":
            state["learning_rate"] = self.learning_rate_init / (seen + 1) ** self.power_t

    def stalls(self, state):
        """Whether to stop now that progress has stalled, and what to say about it."""
        if self.learning_rate != "adaptive":
            return True, "Stopping."
        if state["learning_rate"] <= 1e-6:
            return True, "Learning rate too small. Stopping."
        state["learning_rate"] /= 5.0
        return False, f"Setting learning rate to {state['learning_rate']:f}"


def _copied(state):
    return {name: _copy(part) for name, part in state.items()}


def _copy(part):
    if isinstance(part, np.ndarray):
        return part.copy()
    return array_namespace(part).asarray(part, copy=True) if hasattr(part, "shape") else part


def put_state(state, objective):
    """A state with its arrays where the objective's parameters live, in place."""
    for name, part in state.items():
        if hasattr(part, "shape"):
            state[name] = objective.put(part)
    return state


def state_on_host(state):
    """A state, or None, with NumPy's arrays."""
    if state is None:
        return None
    return {name: to_numpy(part) if hasattr(part, "shape") else part for name, part in state.items()}


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
    loss_curve: list = field(default_factory=list)
    best_loss: float = math.inf
    stalled: int = 0
    validation_loss_curve: list = field(default_factory=list)
    validation_scores: list = field(default_factory=list)
    best_validation_score: float = -math.inf
    best_iter: int = 0
    _mark: tuple | None = None

    def mark(self, parameters):
        """Remember the training as it is now, with the parameters that it would give."""
        # in one assignment, so that an interrupt finds the old mark or the new one; the new one without the
        # old, or the parameters of every epoch would stay
        self._mark = (parameters, replace(self, _mark=None), tuple(map(len, self._curves())))

    @property
    def is_marked(self):
        """Whether there is a mark."""
        return self._mark is not None

    def marked(self):
        """Go back to the last mark: its parameters, and its history up to there; None without one.

        The history that is left behind serves no more.
        """
        if self._mark is None:
            return None
        parameters, then, lengths = self._mark
        for curve, length in zip(then._curves(), lengths):
            del curve[length:]
        return parameters, then

    def _curves(self):
        return self.loss_curve, self.validation_loss_curve, self.validation_scores


class DivergenceError(ValueError):
    """The loss or the parameters became NaN or infinite."""

    def __init__(self, what, value, epoch, remedy=""):
        super().__init__(
            f"the {what} became {value} in epoch {epoch}: training diverges. Try a smaller "
            "learning_rate_init, and bring the columns of X (in a regression y too) to a common scale, such "
            f"as with StandardScaler{remedy}"
        )


def _in_its_context(run):
    @functools.wraps(run)
    def inside(objective, *arguments, **options):
        with objective.running():
            return run(objective, *arguments, **options)

    return inside


@_in_its_context
def train(
    objective,
    rows,
    order,
    parameters,
    optimiser,
    state,
    history,
    *,
    batch_size,
    max_iter,
    shuffle=True,
    random_state=None,
    schedule=None,
    tol=1e-4,
    n_iter_no_change=10,
    verbose=False,
    validate=None,
    early_stopping=None,
    single_epoch=False,
    mark=False,
    steps=None,
):
    """Train until progress stalls or ``max_iter`` epochs have passed.

    Parameters
    ----------
    objective : object with ``epoch``
        Such as `NetworkObjective`.
    rows : Rows
        That the objective takes.
    order : ndarray of intp
        The rows to train on, in their order before the first shuffle.
    parameters : ndarray
        Start; changed in place.
    optimiser : Adam or SGD
    state : dict
        The optimiser's; changed in place.
    history : History
        Changed in place.
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
    steps : object with ``begin()`` and ``end(parameters)``, optional
        Called around each epoch; training ends where ``end`` gives True.

    Returns
    -------
    parameters : ndarray
        With ``early_stopping`` those of the best epoch, else the last ones.
    n_iter : int
        Epochs run.

    Raises
    ------
    DivergenceError
        If the loss becomes NaN or infinite, or the parameters at the end.
    """
    best = objective.copy(parameters) if early_stopping else parameters
    kept = "; the weights of the best epoch are kept" if early_stopping else ""
    n = len(order)
    batches = -(-n // batch_size)
    # One batch is the same whatever its order, and rows as they lie need no gathering.
    gather = n < rows.n or (batch_size < n and (shuffle or bool((np.diff(order) != 1).any())))
    factors = 1.0
    for epoch in range(1, max_iter + 1):
        if steps is not None:
            steps.begin()
        if shuffle:
            # the draws of sklearn.utils.shuffle
            order = order[random_state.permutation(n)]
        if schedule is not None:
            factors = schedule(np.arange((epoch - 1) * batches, epoch * batches), max_iter * batches)
        loss = optimiser.epoch(
            objective, rows, order if gather else None, batch_size, parameters, state, factors
        )
        if not math.isfinite(loss):
            raise DivergenceError("training loss", loss, epoch, kept if history.is_marked else "")
        history.seen += n
        history.loss_curve.append(loss)
        if verbose:
            print(f"Iteration {epoch}, loss = {loss:.8f}")
        score = None
        if validate is not None:
            validation_loss, score = validate(parameters)
            history.validation_loss_curve.append(validation_loss)
        if early_stopping:
            history.validation_scores.append(score)
            if verbose:
                print(f"Validation {early_stopping}: {-score if early_stopping == 'loss' else score:f}")
        if _judged_best(history, loss, score, tol) and early_stopping:
            best = objective.copy(parameters)
        if early_stopping:
            if history.best_iter:
                history.mark(best)
        elif mark:
            history.mark(objective.copy(parameters))
        stop = steps is not None and steps.end(parameters)
        optimiser.epoch_ends(state, history.seen)
        if history.stalled > n_iter_no_change:
            done, message = optimiser.stalls(state)
            stop = stop or done
            if verbose:
                what = f"Validation {early_stopping}" if early_stopping else "Training loss"
                print(
                    f"{what} did not improve more than tol={tol:f} for {n_iter_no_change} consecutive "
                    f"epochs. {message}"
                )
            if not done:
                history.stalled = 0
        if stop or single_epoch:
            break
        if epoch == max_iter and schedule is None:
            warn(
                f"Stochastic Optimizer: Maximum iterations ({max_iter}) reached and the optimization hasn't "
                "converged yet.",
                ConvergenceWarning,
            )
    if not objective.is_finite(parameters):
        # The loss of an epoch is that of the parameters before its last step.
        raise DivergenceError("parameters", "NaN or infinite", epoch, kept if history.is_marked else "")
    if early_stopping and not history.best_iter:
        raise ValueError("the validation score was NaN after every epoch: there are no best weights to keep")
    return best if early_stopping else parameters, epoch


def _judged_best(history, loss, score, tol):
    """Judge an epoch by its score, or by its loss if that is None; whether its parameters are to be kept."""
    if score is None:
        history.stalled = history.stalled + 1 if loss > history.best_loss - tol else 0
        history.best_loss = min(history.best_loss, loss)
    else:
        # a score that is NaN is no progress
        history.stalled = 0 if score >= history.best_validation_score + tol else history.stalled + 1
        if not score > history.best_validation_score:
            return False
        history.best_validation_score = score
    history.best_iter = len(history.loss_curve)
    return True
