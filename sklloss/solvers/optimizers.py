"""Optimisers for mini-batches (Adam, AdamW, gradient descent with momentum) and learning-rate schedules.

An optimiser holds its hyperparameters and, in ``state``, what changes from batch to batch: moments, the
number of steps taken, the current learning rate. `Optimizer.steps` describes the steps of an epoch, and the
objective takes them. A schedule gives the learning rate of each step a factor.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import DTypeLike

from sklloss.arrays.device import to_numpy
from sklloss.arrays.ops import AdamSteps, SGDSteps, Steps
from sklloss.solvers.base import TrainingObjective

# "adaptive" does not lower the learning rate below this.
LOWEST_RATE = 1e-6

# Steps for which bias corrections are computed at a time. Those of one epoch alone would cost a tenth of the
# epoch of a small network.
CORRECTED_STEPS = 1024

# Arrays and plain numbers by name.
State = dict[str, Any]


@dataclass
class Optimizer(abc.ABC):
    """The interface of optimisers.

    Attributes
    ----------
    name : str
        Identifies the states that `resume` accepts.
    learning_rate_init : float
    state : dict
        Arrays and plain numbers; empty before `start`.
    """

    name: ClassVar[str]

    learning_rate_init: float = 0.001
    state: State = field(default_factory=dict, init=False, repr=False, compare=False)

    @abc.abstractmethod
    def start(self, size: int, dtype: DTypeLike) -> None:
        """Set the state before the first batch; ``size`` is the number of parameters."""

    def resume(self, state: State | None) -> bool:
        """Continue from a copy of an earlier state; False if another optimiser left it, or there is none."""
        if state is None or state["solver"] != self.name:
            return False
        self.state = {name: _copied(part) for name, part in state.items()}
        return True

    @abc.abstractmethod
    def steps(self, batches: int, factors: float | np.ndarray = 1.0) -> Steps:
        """The steps for that many batches, of one epoch or several; the state counts them as taken.

        ``factors`` scale the learning rate: one for all batches, or an array with one for each.
        """

    @property
    def changes_each_epoch(self) -> bool:
        """Whether `end_epoch` has an effect, so that the steps of one epoch depend on the end of another."""
        return type(self).end_epoch is not Optimizer.end_epoch

    def end_epoch(self, seen: int) -> None:  # noqa: B027 - most do nothing
        """Adjust the learning rate after an epoch; ``seen`` are the rows seen so far."""

    def stall(self) -> tuple[bool, str]:
        """Whether to stop now that progress has stalled, and what to say about it."""
        return True, "Stopping."

    def move_to(self, objective: TrainingObjective) -> None:
        """Move the state's arrays to where an objective's parameters live."""
        for name, part in self.state.items():
            if hasattr(part, "shape"):
                self.state[name] = objective.put(part)


@dataclass
class Adam(Optimizer):
    """Adam, with its bias correction in the learning rate.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", 2015, section 2.
    """

    name: ClassVar[str] = "adam"

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def start(self, size: int, dtype: DTypeLike) -> None:
        """See `Optimizer.start`."""
        self.state: State = {
            "solver": self.name,
            "steps": 0,
            "first": np.zeros(size, dtype),
            "second": np.zeros(size, dtype),
        }

    def steps(self, batches: int, factors: float | np.ndarray = 1.0) -> AdamSteps:
        """See `Optimizer.steps`."""
        state = self.state
        second, first = bias_corrections(state["steps"], batches, self.beta_1, self.beta_2)
        state["steps"] += batches
        learning_rates = np.full(batches, self.learning_rate_init) * factors
        return AdamSteps(
            learning_rates * second / first,
            state["first"],
            state["second"],
            self.beta_1,
            self.beta_2,
            self.epsilon,
            self._weight_decays(learning_rates),
        )

    def _weight_decays(self, learning_rates: np.ndarray) -> np.ndarray | None:
        """The fraction that each step takes off a weight in addition to the gradient's change, or None."""
        return None


@dataclass
class AdamW(Adam):
    """Adam with decoupled weight decay: a step takes the learning rate times ``weight_decay`` off a weight.

    Biases do not decay. The decay takes the place of an L2 penalty: the objective should have none.

    References
    ----------
    Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.
    """

    name: ClassVar[str] = "adamw"

    weight_decay: float = 0.01

    def _weight_decays(self, learning_rates: np.ndarray) -> np.ndarray | None:
        return self.weight_decay * learning_rates


@dataclass
class SGD(Optimizer):
    """Gradient descent with momentum, by default Nesterov's.

    ``learning_rate``: "invscaling" divides by ``seen ** power_t`` after each epoch, ``seen`` being the rows
    seen so far plus one; "adaptive" divides by 5 each time progress stalls and stops below 1e-6; any other
    name leaves the rate as it is. A state that was left under another name or another first rate resumes at
    the first rate.
    """

    name: ClassVar[str] = "sgd"

    learning_rate: str = "constant"
    power_t: float = 0.5
    momentum: float = 0.9
    nesterovs_momentum: bool = True

    def start(self, size: int, dtype: DTypeLike) -> None:
        """See `Optimizer.start`."""
        self.state: State = {"solver": self.name, **self._first_rate(), "first": np.zeros(size, dtype)}

    def resume(self, state: State | None) -> bool:
        """See `Optimizer.resume`."""
        if not super().resume(state):
            return False
        first = self._first_rate()
        if any(self.state[name] != first[name] for name in ("schedule", "learning_rate_init")):
            self.state.update(first)
        return True

    def _first_rate(self) -> State:
        return {
            "schedule": self.learning_rate,
            "learning_rate_init": self.learning_rate_init,
            "learning_rate": self.learning_rate_init,
        }

    def steps(self, batches: int, factors: float | np.ndarray = 1.0) -> SGDSteps:
        """See `Optimizer.steps`."""
        rates = np.full(batches, self.state["learning_rate"]) * factors
        return SGDSteps(rates, self.state["first"], self.momentum, self.nesterovs_momentum)

    @property
    def changes_each_epoch(self) -> bool:
        """See `Optimizer.changes_each_epoch`."""
        return self.learning_rate == "invscaling"

    def end_epoch(self, seen: int) -> None:
        """See `Optimizer.end_epoch`."""
        if self.learning_rate == "invscaling":
            self.state["learning_rate"] = self.learning_rate_init / (seen + 1) ** self.power_t

    def stall(self) -> tuple[bool, str]:
        """See `Optimizer.stall`."""
        if self.learning_rate != "adaptive":
            return True, "Stopping."
        if self.state["learning_rate"] <= LOWEST_RATE:
            return True, "Learning rate too small. Stopping."
        self.state["learning_rate"] /= 5.0
        return False, f"Setting learning rate to {self.state['learning_rate']:f}"


def bias_corrections(done: int, steps: int, beta_1: float, beta_2: float) -> tuple[np.ndarray, np.ndarray]:
    """Adam's bias corrections for so many steps after the first ``done``.

    Returns ``sqrt(1 - beta_2**t)`` and ``1 - beta_1**t``, to be read only: the learning rate is multiplied by
    their quotient.
    """
    table, first = divmod(done, CORRECTED_STEPS)
    if first + steps > CORRECTED_STEPS:
        return _corrections(done, steps, beta_1, beta_2)
    second_corrections, first_corrections = _table_of_corrections(table, beta_1, beta_2)
    return second_corrections[first : first + steps], first_corrections[first : first + steps]


@functools.lru_cache(maxsize=16)
def _table_of_corrections(number: int, beta_1: float, beta_2: float) -> tuple[np.ndarray, np.ndarray]:
    return _corrections(number * CORRECTED_STEPS, CORRECTED_STEPS, beta_1, beta_2)


def _corrections(done: int, steps: int, beta_1: float, beta_2: float) -> tuple[np.ndarray, np.ndarray]:
    t = np.arange(done + 1, done + steps + 1, dtype=np.float64)
    return np.sqrt(1.0 - beta_2**t), 1.0 - beta_1**t


def _copied(part: Any) -> Any:
    if isinstance(part, np.ndarray):
        return part.copy()
    return array_namespace(part).asarray(part, copy=True) if hasattr(part, "shape") else part


def state_on_host(state: State | None) -> State | None:
    """A state with NumPy's arrays."""
    if state is None:
        return None
    return {name: to_numpy(part) if hasattr(part, "shape") else part for name, part in state.items()}


# As in torch's OneCycleLR: the first rate is the highest divided by FIRST_DIVISOR, the last rate is the first
# divided by LAST_DIVISOR.
FIRST_DIVISOR = 25.0
LAST_DIVISOR = 1e4


def cosine(steps: np.ndarray, total: int, warmup_fraction: float) -> np.ndarray:
    """A factor that rises linearly, then falls as half a cosine towards 0.

    Parameters
    ----------
    steps : ndarray
        Numbers of steps, the first of which is 0.
    total : int
        How many steps the training has.
    warmup_fraction : float
        The fraction of the steps, rounded to whole steps, in which the rate rises.

    Returns
    -------
    ndarray
        With w steps of warm-up, step s has the factor ``(s + 1) / (w + 1)`` while ``s < w``, from then on
        ``(1 + cos(pi * (s - w) / (total - w))) / 2``.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5.
    Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2, for the linear warm-up.
    """
    warmup = round(warmup_fraction * total)
    fall = _half_cosine(1.0, 0.0, (steps - warmup) / max(total - warmup, 1))
    return np.where(steps < warmup, (steps + 1) / (warmup + 1), fall)


def one_cycle(steps: np.ndarray, total: int, warmup_fraction: float) -> np.ndarray:
    """A factor that rises as half a cosine from 1 / 25, then falls as half a cosine to 1 / 250000.

    Parameters
    ----------
    steps, total, warmup_fraction
        As in `cosine`. The rate is highest at step ``warmup_fraction * total - 1``, and no earlier than in
        the first.

    Returns
    -------
    ndarray
        Those of torch's ``OneCycleLR`` at its defaults, without the momentum's cycle.

    References
    ----------
    Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates",
    2018.
    """
    top, last = max(warmup_fraction * total - 1.0, 0.0), total - 1.0
    low, end = 1.0 / FIRST_DIVISOR, 1.0 / (FIRST_DIVISOR * LAST_DIVISOR)
    rise = _half_cosine(low, 1.0, steps / (top or 1.0))
    fall = _half_cosine(1.0, end, (steps - top) / ((last - top) or 1.0))
    return np.where(steps < top, rise, fall)


def _half_cosine(start: float, end: float, fraction: np.ndarray) -> np.ndarray:
    """Half a cosine from ``start``, at a fraction of 0, to ``end``, at a fraction of 1."""
    return end + (start - end) * 0.5 * (1.0 + np.cos(np.pi * fraction))


# The schedules, and the default fraction of warm-up of each.
SCHEDULES = {"cosine": (cosine, 0.05), "one-cycle": (one_cycle, 0.3)}


def schedule(
    name: str, warmup_fraction: float | None = None
) -> Callable[[np.ndarray, int], np.ndarray] | None:
    """The factors of the schedule of that name, as a function of steps and their total.

    Parameters
    ----------
    name : str
    warmup_fraction : float, optional
        None is the schedule's default.

    Returns
    -------
    callable or None
        None if no schedule has that name.
    """
    if name not in SCHEDULES:
        return None
    function, default = SCHEDULES[name]
    return functools.partial(
        function, warmup_fraction=default if warmup_fraction is None else warmup_fraction
    )
