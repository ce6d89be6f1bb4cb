"""What solvers share: the interfaces of objectives, the result, and the stopping rule.

A solver states the interface that it needs by `require`, which refuses an objective that lacks a part of it
before the first iteration.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from sklloss.arrays.ops import Steps
from sklloss.arrays.vectors import Array, Mask

# A linear function of vectors (problems, size): multiplies by a matrix, or solves with it, for each problem.
Solve: TypeAlias = Callable[[Array], Array]
# Called with the iteration, w and value.
Callback: TypeAlias = Callable[[int, Array, Array], object]

# An objective that falls to this share of its value at the start has no minimum: the data are separable.
# Further down, rounding hides its derivatives. With a penalty, only an intercept can grow without end.
VANISHED = 1e-9
VANISHED_PENALISED = 1e-15

SUFFICIENT_DECREASE = 1e-4  # of the decrease that the slope predicts (Armijo's condition)
MAX_HALVINGS = 40  # of a Newton step
# A step that lowers the objective by more than this multiple of what its model predicts has left the
# region where the model holds. If the exponential tail of a loss is all the curvature, it is 1.26 times.
UNDERESTIMATE = 1.1
CLOSE_GAP = 1e-6  # the largest allowed gap, relative to the value, for which that keeps a fit from its end


class Objective(Protocol):
    """What the stopping rule asks of an objective; parameters have shape (problems, size).

    It may offer ``vanished_share``, which then replaces the constants above.
    """

    @property
    def noise(self) -> float:
        """The relative rounding error of a value."""

    @property
    def penalised(self) -> bool:
        """Whether there is a penalty, so that only an intercept can grow without end."""

    def null_value(self, *, exact: bool = False) -> Array:
        """Values at 0, (problems,)."""


class GradientObjective(Objective, Protocol):
    """An objective with gradients, as `lbfgs` needs it.

    It may offer ``preconditioner`` as well, ``preconditioner_at`` with ``local_cost``, and ``vectors``.
    """

    def value_and_gradient(self, w: Any) -> tuple[Any, Any]:
        """Values (problems,) and gradients (problems, size)."""


class HessianObjective(GradientObjective, Protocol):
    """An objective whose Hessian fits in memory, as `newton_cholesky` needs it."""

    @property
    def costly_hessian(self) -> bool:
        """Whether a Hessian costs much more than a gradient."""

    @property
    def exact_gradient(self) -> bool:
        """Whether `value_and_gradient` is as accurate as `precise_gradient`."""

    def precise_gradient(self, w: Array) -> tuple[Array, Array]:
        """As `value_and_gradient`, in float64."""

    def hessian(self, w: Array) -> tuple[Array, Array, Array]:
        """Values, gradients and the lower triangles of the Hessians, (problems, size, size)."""

    def newton_steps(self, points: Array, values: Array, *rule: Any) -> tuple[int, bool] | None:
        """Compiled steps of a small problem from ``points[0]``; None if the problem is not small."""

    def subsample(self, each: int) -> "HessianObjective | None":
        """The objective over a sample of ``each`` rows per parameter; None where there are too few rows."""


class ProductObjective(Objective, Protocol):
    """An objective with Hessian products at the point that was linearised last, as `newton_cg` needs it.

    It may offer ``vectors`` as well.
    """

    @property
    def close_preconditioner(self) -> bool:
        """Whether the preconditioner is close to the Hessian.

        What it makes of a residual then tells how much there is left to gain.
        """

    def subsample(self, each: int) -> "ProductObjective | None":
        """See `HessianObjective.subsample`."""

    @property
    def residual_floor(self) -> float:
        """The relative residual below which conjugate gradients see rounding alone."""

    @property
    def block_cost(self) -> float:
        """What a local preconditioner costs, in products."""

    def linearise(self, w: Any) -> tuple[Any, Any]:
        """Values and gradients; w becomes the point of products."""

    def multiplier(self, *, rough: bool) -> Any:
        """A function that multiplies directions by the Hessian, until the next point is linearised.

        ``rough``: where that saves time, with errors that matter little for a step.
        """

    def preconditioner(self) -> Any:
        """A function that solves approximately with the Hessian, wherever it is taken."""

    def local_preconditioner(self, *, every_row: bool = False) -> Any:
        """The same at the point that was linearised last; None if there is none better.

        It may be made from a sample of the rows, unless ``every_row`` is set.
        """

    def dual_ascent(self) -> Any:
        """Dual coordinate ascent for the objective; None if there is none."""


class L1Objective(Objective, Protocol):
    """A smooth part with Hessian products and blocks, plus an L1 norm, as `proximal_newton` needs it."""

    @property
    def l1(self) -> Array:
        """The weight of each parameter's absolute value, (problems, size)."""

    @property
    def costly_hessian(self) -> bool:
        """See `HessianObjective.costly_hessian`."""

    @property
    def exact_gradient(self) -> bool:
        """Whether gradients are in float64, and so accurate enough for steps with an earlier Hessian."""

    @property
    def curvature_excess(self) -> float:
        """The damping to start with, from 0."""

    @property
    def unit_score_change(self) -> Array:
        """How far each parameter must move to change some row's score by 1."""

    def newton_steps(self, points: Array, values: Array, *rule: Any) -> tuple[int, bool] | None:
        """See `HessianObjective.newton_steps`."""

    def subsample(self, each: int) -> "L1Objective | None":
        """See `HessianObjective.subsample`."""

    def linearise(self, w: Array) -> tuple[Array, Array]:
        """See `ProductObjective.linearise`, of the smooth part."""

    def product(self, direction: Array) -> Array:
        """See `ProductObjective.product`."""

    def diagonal(self) -> Array:
        """An upper bound of the Hessian's diagonal."""

    def local_diagonal(self) -> Array:
        """The Hessian's diagonal at the point that was linearised last."""

    def affords(self, sets: list[Array]) -> bool:
        """Whether the Hessian's blocks over these sets of parameters are worth making."""

    def subset_hessian(self, sets: list[Array], *, rough: bool = False) -> list[Array]:
        """The Hessian's blocks over sets of parameters, one set for each problem."""

    def column_models(self, sets: list[Array]) -> list[Any] | None:
        """The quadratic models over sets of parameters, for sweeps of coordinate descent without a Hessian.

        None if X is not sparse, so that a Hessian is better.
        """

    def shifts(self, sets: list[Array]) -> list[tuple[Array, Array] | None]:
        """Groups of parameters whose common shift changes no loss; None for a set that has none.

        They have the same L1 penalty. A tuple has their positions in the set, (groups, members), and the
        second derivatives of the rest of the penalty, of the set's size.
        """

    def subset_preconditioner(self) -> Any:
        """A function of a mask and a diagonal that returns an approximate solver over the mask."""

    def without_free_shift(self, w: Array) -> Array:
        """The parameters less a shift that changes neither loss nor penalty."""


class MiniBatches(Protocol):
    """Mini-batches of an objective's rows, with gradients of reduced variance, as `sgd` and `adam` step.

    Steps are taken in coordinates in which the objective is about equally curved in all directions.
    """

    @property
    def decays(self) -> tuple[float, float]:
        """Decays of Adam's two moments."""

    @property
    def rows_at(self) -> Array:
        """The numbers of the rows to visit."""

    @property
    def batches(self) -> int:
        """Batches per epoch."""

    @property
    def renewal_cost(self) -> int:
        """What `renew` costs, in epochs."""

    def anchor(self, w: Array) -> tuple[Array, Array]:
        """Values and gradients over all rows at w, which correct those of batches from now on."""

    def without_shift(self, w: Array) -> Array:
        """The parameters less what outputs have in common, where only the penalty depends on that."""

    def newton_decrement(self, gradient: Array) -> tuple[Array, Array]:
        """The approximate Newton decrement, and the root mean square of the step; both (problems,)."""

    def epoch(
        self, w: Array, order: Array, rates: Array, moments: tuple[Array, Array] | None, size: float
    ) -> None:
        """A step for each batch at rates (batches, problems); w and Adam's moments change in place."""

    def renew(self, w: Array) -> bool:
        """Take coordinates from the curvature at w; False where that costs too much."""


class MiniBatchObjective(Objective, Protocol):
    """An objective over rows in mini-batches, as `sgd` and `adam` need it."""

    @property
    def shape(self) -> tuple[int, int]:
        """(problems, size), the shape of the parameters."""

    def mini_batches(self, batch_size: int | None = None) -> MiniBatches:
        """Mini-batches of the objective's rows; None chooses their size."""


class StreamBatches(Protocol):
    """Mini-batches of the latest rows of a stream; parameters have shape (outputs, width)."""

    @property
    def decays(self) -> tuple[float, float]:
        """Decays of Adam's two moments."""

    @property
    def rows_at(self) -> Array:
        """The numbers of the rows to visit."""

    def weights(self, order: Array) -> Array:
        """The weight of each batch."""

    def curvature(self, w: Array, earlier: Array | None, share: float) -> Array:
        """The curvature per unit of weight: a mean of an earlier one and, with a share, the latest rows'."""

    def coordinates(self, curvature: Array) -> Any:
        """Coordinates in which an objective of that curvature is about equally curved in all directions."""

    def distance(self, w: Array, coordinates: Any, total: float) -> float:
        """The root mean square distance from w to the optimum, estimated from the latest rows."""

    def epoch(
        self,
        w: Array,
        mean: Array,
        order: Array,
        gains: Array,
        coordinates: Any,
        rates: Array,
        mixing: Array,
        moments: tuple[Array, Array] | None,
        size: float,
    ) -> None:
        """A step for each batch; w, its running mean and Adam's moments change in place.

        ``gains`` scale a batch's gradient to stand for the stream, ``mixing`` are the batches' weights in
        the mean, and ``size`` is the distance to the optimum.
        """


class StreamObjective(Protocol):
    """An objective over the latest rows of a stream, as `descend` needs it."""

    def stream_batches(self, batch_size: int | None = None) -> StreamBatches:
        """Mini-batches of the objective's rows; None chooses their size."""


class TrainingObjective(Protocol):
    """A network over mini-batches, as `train` needs it; parameters are a flat vector."""

    def put(self, array: Any) -> Any:
        """An array on the device of the parameters."""

    def copy(self, array: Any) -> Any:
        """A copy of an array of parameters."""

    def is_finite(self, parameters: Any) -> bool:
        """Whether no parameter is NaN or infinite."""

    def running(self) -> AbstractContextManager[Any]:
        """A context to run epochs in."""

    def epochs_at_once(self, n: int) -> int:
        """The largest number of epochs over n rows for one call of `epochs`."""

    def epochs(
        self, rows: Any, order: Array | None, count: int, batch_size: int, parameters: Any, steps: Steps
    ) -> list[float]:
        """Take the steps of some epochs, which change the parameters in place; the mean loss of each."""


_checked: set[tuple[type, type]] = set()


def require(objective: object, interface: type) -> None:
    """Raise a TypeError if the objective lacks a part of the interface, a Protocol of this file."""
    if (type(objective), interface) in _checked:
        return
    parts = [name for name in dir(interface) if not name.startswith("_")]
    # Looked up statically: a property may be costly.
    missing = [name for name in parts if inspect.getattr_static(objective, name, None) is None]
    if missing:
        raise TypeError(
            f"the solver needs {interface.__name__}; {type(objective).__name__} lacks {', '.join(missing)}"
        )
    _checked.add((type(objective), interface))


@dataclass(frozen=True, eq=False)
class Result:
    """The result of a solver.

    Attributes
    ----------
    w : ndarray of shape (problems, size)
    value : ndarray of shape (problems,)
    n_iter : ndarray of int of shape (problems,)
    converged : ndarray of bool of shape (problems,)
    curve : list of float
        The objective, summed over problems, at the start of each iteration and at the end.
    vanished : ndarray of bool of shape (problems,)
        The objective has no minimum: it was followed until almost nothing was left of it.
    """

    w: Array
    value: Array
    n_iter: Array
    converged: Mask
    curve: list[float]
    vanished: Mask


def allowed_gap(value: Any, tol: float) -> Array:
    """The objective gap F - F* at which a problem counts as solved: ``tol**2 * F``, or 1e-14 F if more.

    Near the optimum F - F* is half the squared distance to it in the metric of the Hessian, so ``tol`` is the
    relative accuracy of the parameters in that metric. A solver estimates the gap by half its Newton
    decrement, g' H**-1 g / 2, with H exact or approximated. The measure does not depend on the units of the
    features, on C, or on the number of rows.

    Parameters
    ----------
    value : ndarray of shape (problems,)
    tol : float
    """
    return max(tol**2, 1e-14) * np.abs(value)


def vanished_share(objective: Objective) -> float:
    """The share of its value at the start down to which an objective without a minimum is followed."""
    own: float | None = getattr(objective, "vanished_share", None)
    if own is not None:
        return own
    return VANISHED_PENALISED if objective.penalised else VANISHED


def has_vanished(objective: Objective, value: Array, reference: Array) -> Mask:
    """Which problems have no minimum and are as near to their infimum, 0, as rounding allows."""
    least = vanished_share(objective) * reference
    # A loss may be negative: 0 is then a value like any other.
    return (value >= 0) & (value <= least) & (reference > 0)


class Progress:
    """The state of a solver's iterations: which problems have ended, and what becomes the `Result`.

    Parameters
    ----------
    objective : Objective
    value : ndarray of shape (problems,)
        At the start.
    reference : ndarray of shape (problems,)
        The values that vanishing objectives are compared with.

    Attributes
    ----------
    converged, stuck : ndarray of bool of shape (problems,)
        A problem is stuck if no step lowers it although it is not at its optimum.
    n_iter, curve
        See `Result`.
    """

    def __init__(self, objective: Objective, value: Array, reference: Array) -> None:
        self._objective, self._reference = objective, reference
        problems = len(value)
        self.n_iter: Array = np.zeros(problems, dtype=int)
        self.converged: Mask = np.zeros(problems, dtype=bool)
        self.stuck: Mask = np.zeros(problems, dtype=bool)
        self.curve: list[float] = [float(value.sum())]

    def active(self, value: Array) -> Mask:
        """The problems that have not ended."""
        return ~(self.converged | self.stuck | has_vanished(self._objective, value, self._reference))

    def end(self, converged: Mask, unmoved: Mask) -> None:
        """Mark problems as converged, and the others among those that could not be moved as stuck."""
        self.converged |= converged
        self.stuck |= unmoved & ~self.converged

    def record(self, iteration: int, active: Mask, value: Array) -> None:
        """Record an iteration of the active problems and the values after it."""
        self.n_iter[active] = iteration
        self.curve.append(float(value.sum()))

    def result(self, w: Array, value: Array) -> Result:
        """The result, with the parameters and values at the end."""
        vanished = has_vanished(self._objective, value, self._reference)
        return Result(w, value, self.n_iter, self.converged, self.curve, vanished)


Evaluation = TypeVar("Evaluation", bound=tuple[Any, ...])


def evaluate_start(
    objective: Objective, w: Array, evaluate: Callable[[Array], Evaluation]
) -> tuple[Array, Evaluation]:
    """Evaluate an objective at the start, after moving problems to 0 where they are lower, see `start_again`.

    Parameters
    ----------
    objective : Objective
    w : ndarray of shape (problems, size)
        Changed in place.
    evaluate : callable
        Takes w; the first that it returns are the values, (problems,).

    Returns
    -------
    reference : ndarray of shape (problems,)
        The values that vanishing objectives are compared with: at the start, or at 0 if less.
    evaluation : tuple
        What ``evaluate`` returned last.
    """
    evaluation = evaluate(w)
    value: Array = evaluation[0]
    reference = np.fmin(value, objective.null_value()) if w.any() else value
    if start_again(objective, w, value):
        evaluation = evaluate(w)
    return reference, evaluation


def tell_start(callback: Callback | None, value: Array) -> None:
    """Tell a callback that has a method ``begin`` the values at the start, which a sample may have found."""
    begin = getattr(callback, "begin", None)
    if begin is not None:
        begin(value)


def start_again(objective: Objective, w: Array, value: Array) -> bool:
    """Move problems whose ``value`` is higher than at 0 there, in place; returns whether there were any.

    Scores that are far off on the wrong side hide the curvature on which a Newton step is based.
    """
    if not w.any() or (value <= objective.null_value()).all():
        return False
    worse = ~(value <= objective.null_value(exact=True))  # a NaN too
    w[worse] = 0.0
    return bool(worse.any())


def underestimates(predicted: Array, value: Array, new_value: Array, gap: Array, noise: float) -> Mask:
    """Whether a step has lowered the objective by more than its model predicted, and more than by rounding.

    The model says nothing about the distance to the minimum then: the rows that have the curvature along the
    step lose it within the step, and far beyond it the objective may be much lower. Where a rough minimum is
    enough, as over a sample, models are often that poor: no step counts.
    """
    beyond: Mask = value - new_value > UNDERESTIMATE * predicted + 10 * noise * np.abs(value)
    return beyond & (gap <= CLOSE_GAP * np.abs(value))


def finite_or_zero(direction: Array) -> Array:
    """The direction, with zeros for problems in which it is not finite."""
    return np.where(np.isfinite(direction).all(axis=1, keepdims=True), direction, 0.0)


def exhausted(decrement: Array, value: Array, noise: float = 0.0) -> Mask:
    """Whether a problem that no step lowers is solved to within rounding.

    It is if the estimated gap is at most 1e-6 of the value, or 20 times the relative noise of a value if that
    is more (1e-5 in float32). A decrement of 0 is no evidence: its direction may not have been finite.
    """
    return (decrement != 0) & (np.abs(decrement) / 2 <= max(1e-6, 20 * noise) * np.abs(value))
