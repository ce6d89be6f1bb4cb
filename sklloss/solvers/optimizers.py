"""Optimisers for mini-batches: Adam, AdamW, and gradient descent with momentum.

An optimiser holds its hyperparameters and, in ``state``, what it remembers from batch to batch: moments, the
number of steps taken, the learning rate that it has come down to. `Optimizer.steps` says what it does in one
epoch; an objective takes these steps.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import DTypeLike

from sklloss.arrays.ops import AdamSteps, SGDSteps, Steps
from sklloss.arrays.transfer import to_numpy
from sklloss.solvers.base import TrainingObjective

# "adaptive" does not lower the learning rate below this.
LOWEST_RATE = 1e-6

# Arrays and plain numbers by name.
State = dict[str, Any]


@dataclass
class Optimizer(abc.ABC):
    """What training needs of an optimiser.

    Attributes
    ----------
    name : str
        Marks the states that it can go on from.
    learning_rate_init : float
    state : dict
        Arrays and plain numbers; empty before `start`.
    """

    name: ClassVar[str]

    learning_rate_init: float = 0.001
    state: State = field(default_factory=dict, init=False, repr=False, compare=False)

    @abc.abstractmethod
    def start(self, size: int, dtype: DTypeLike) -> None:
        """Set the state before the first batch, for so many parameters."""

    def resume(self, state: State | None) -> bool:
        """Go on from a copy of a state that this optimiser left earlier; False if it cannot."""
        if state is None or state["solver"] != self.name:
            return False
        self.state = {name: _copied(part) for name, part in state.items()}
        return True

    @abc.abstractmethod
    def steps(self, batches: int, factors: float | np.ndarray = 1.0) -> Steps:
        """The steps of an epoch of so many batches, which the state counts as taken.

        ``factors`` scale the learning rate, of each batch if they are an array.
        """

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
        t = np.arange(state["steps"] + 1, state["steps"] + batches + 1, dtype=np.float64)
        state["steps"] += batches
        learning_rates = np.full(batches, self.learning_rate_init) * factors
        return AdamSteps(
            learning_rates * np.sqrt(1.0 - self.beta_2**t) / (1.0 - self.beta_1**t),
            state["first"],
            state["second"],
            self.beta_1,
            self.beta_2,
            self.epsilon,
            self._weight_decays(learning_rates),
        )

    def _weight_decays(self, learning_rates: np.ndarray) -> np.ndarray | None:
        """The share of itself that a weight loses in each step, beside the gradient's; None for none."""
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


def _copied(part: Any) -> Any:
    if isinstance(part, np.ndarray):
        return part.copy()
    return array_namespace(part).asarray(part, copy=True) if hasattr(part, "shape") else part


def state_on_host(state: State | None) -> State | None:
    """A state with NumPy's arrays."""
    if state is None:
        return None
    return {name: to_numpy(part) if hasattr(part, "shape") else part for name, part in state.items()}
