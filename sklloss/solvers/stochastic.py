"""Stochastic gradient descent and Adam for linear models.

`sgd` and `adam` converge to the optimum by gradients of reduced variance; `descend` makes one pass over the
latest rows of a stream and averages the parameters.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sklloss.arrays.vectors import Array
from sklloss.solvers.base import (
    Callback,
    MiniBatches,
    MiniBatchObjective,
    Progress,
    Result,
    StreamObjective,
    allowed_gap,
    evaluate_start,
    exhausted,
    require,
)
from sklloss.solvers.optimizers import bias_corrections

GAP_SAFETY = 0.1  # the approximate curvature may underestimate the gap
RECENT_EPOCHS = 2  # which must not have lowered the objective by more than the allowed gap at the end
FLAT_EPOCHS = 6  # in a row whose change of the objective may be rounding, before a problem may end
MAX_REJECTED_EPOCHS = 12  # in a row, after which a problem is given up
SMALLEST_STEP = 1e-300
RATE_CUT = 0.3  # factor of the learning rate after an epoch that raised the objective
RATE_GROWTH = 1.3  # and after one that lowered it by less than EXPECTED_DECREASE
EXPECTED_DECREASE = 0.8  # share of the decrease that the approximate curvature predicts
CEILING = 0.7  # later rates stay below this share of one that raised the objective


def sgd(
    objective: MiniBatchObjective,
    w: Array,
    *,
    tol: float,
    max_iter: int,
    random_state: np.random.RandomState,
    callback: Callback | None = None,
    batch_size: int | None = None,
    learning_rate_init: float | None = None,
) -> Result:
    """Minimise by preconditioned stochastic gradient descent with variance reduction (SVRG).

    An epoch starts from the gradient over all rows, which corrects the gradients of its batches. An epoch
    that raises the objective is undone and its learning rate cut.

    Parameters
    ----------
    objective : MiniBatchObjective
    w : ndarray of shape (problems, size)
        Start.
    tol : float
        See `allowed_gap`. The Newton decrement is estimated with the preconditioner. It must be 10 times
        smaller, twice in a row, and the last epochs must have lowered the objective by no more than the gap.
    max_iter : int
        Most epochs. Each reads every row twice: in mini-batches, and for the full value and gradient.
    callback : callable, optional
        Called with ``(n_iter, w, value)`` after each epoch.
    batch_size : int or None
        Rows per mini-batch.
    learning_rate_init : float or None
        The first learning rate, as a fraction of the step that the approximate curvature suggests. It grows
        slowly while epochs lower the objective by less than predicted.
    random_state : RandomState
        Shuffles the rows for each epoch.

    Returns
    -------
    Result

    References
    ----------
    Johnson and Zhang, "Accelerating stochastic gradient descent using predictive variance reduction", 2013.
    """
    require(objective, MiniBatchObjective)
    batches = objective.mini_batches(batch_size)
    rates = SGDRates(learning_rate_init)
    return _minimise(objective, batches, w, tol, max_iter, callback, random_state, rates)


def adam(
    objective: MiniBatchObjective,
    w: Array,
    *,
    tol: float,
    max_iter: int,
    random_state: np.random.RandomState,
    callback: Callback | None = None,
    batch_size: int | None = None,
    learning_rate_init: float | None = None,
) -> Result:
    """Minimise by Adam, with the same gradients and in the same coordinates as `sgd`.

    The length of Adam's steps is the learning rate, however small the gradient. The rate of an epoch is
    therefore ``learning_rate_init`` times the root mean square of the step that the approximate curvature
    suggests at its start, which falls near the optimum.

    Parameters and result are those of `sgd`.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", 2015, section 2.
    """
    require(objective, MiniBatchObjective)
    batches = objective.mini_batches(batch_size)
    rates = AdamRates(batches, objective.shape, learning_rate_init)
    return _minimise(objective, batches, w, tol, max_iter, callback, random_state, rates)


class SGDRates:
    """The learning rates of stochastic gradient descent, as shares of the Newton step: at most 1."""

    moments: tuple[Array, Array] | None = None
    largest: float = 1.0

    def __init__(self, first: float | None) -> None:
        self.first: float = 0.3 if first is None else first

    def of_epoch(self, share: Array, size: Array) -> Array:
        """Rates for each batch, (batches, problems) or a shape that broadcasts to it.

        ``share`` is the fraction of the Newton step to take, ``size`` the step's root mean square.
        """
        return share[None]

    def reset(self) -> None:
        """Forget the moments, whose gradients are of other parameters or coordinates."""


class AdamRates(SGDRates):
    """The learning rates of Adam, with its bias correction, and its moments."""

    largest: float = 10.0

    def __init__(self, batches: MiniBatches, shape: tuple[int, int], first: float | None) -> None:
        super().__init__(max(0.1, 2.0 / batches.batches) if first is None else first)
        self._batches, self._decays = batches.batches, batches.decays
        self._steps = 0
        self.moments: tuple[Array, Array] | None = (np.zeros(shape), np.zeros(shape))

    def of_epoch(self, share: Array, size: Array) -> Array:
        """See `SGDRates.of_epoch`."""
        second, first = bias_corrections(self._steps, self._batches, *self._decays)
        self._steps += self._batches
        return (second / first)[:, None] * (share * size)[None]

    def reset(self) -> None:
        """See `SGDRates.reset`."""
        self._steps = 0
        for moment in self.moments or ():
            moment[:] = 0.0


def _minimise(
    objective: MiniBatchObjective,
    batches: MiniBatches,
    w: Array,
    tol: float,
    max_iter: int,
    callback: Callback | None,
    random_state: np.random.RandomState,
    learning_rates: SGDRates,
) -> Result:
    w = np.array(w, dtype=np.float64)
    reference, (value, gradient) = evaluate_start(objective, w, batches.anchor)
    if w.any():
        w = batches.without_shift(w)
        value, gradient = batches.anchor(w)
    progress = Progress(objective, value, reference)
    problems = len(w)
    small_gaps, rejected, flat = (np.zeros(problems, dtype=int) for _ in range(3))  # epochs in a row
    share = np.full(problems, float(learning_rates.first))
    ceiling = np.full(problems, max(learning_rates.largest, learning_rates.first))
    earlier: list[Array] = []  # values before the latest epochs
    renewed = 0
    for iteration in range(1, max_iter + 1):
        decrement, size = batches.newton_decrement(gradient)
        gap = allowed_gap(value, tol)
        small_gaps = np.where(decrement / 2 <= GAP_SAFETY * gap, small_gaps + 1, 0)
        settled = (gradient == 0).all(axis=1)
        if len(earlier) == RECENT_EPOCHS:
            settled |= (small_gaps >= 2) & (earlier[0] - value <= gap)
        given_up = rejected >= MAX_REJECTED_EPOCHS
        rounded = exhausted(decrement, value, objective.noise)
        progress.end(settled | (((flat >= FLAT_EPOCHS) | given_up) & rounded), given_up)
        active = progress.active(value)
        if not active.any():
            break
        order = batches.rows_at[random_state.permutation(len(batches.rows_at))]
        trial = w.copy()
        rates = learning_rates.of_epoch(np.where(active, share, 0.0), size)
        smallest = max(size[active].min(), SMALLEST_STEP)
        batches.epoch(trial, order, rates, learning_rates.moments, smallest)
        with np.errstate(over="ignore", invalid="ignore"):
            bad = ~np.isfinite(trial).all(axis=1)
            trial[bad] = w[bad]
            new_value, new_gradient = batches.anchor(trial)
        lower = active & ~bad & (new_value <= value + objective.noise * np.abs(value))
        flat = np.where(lower & (new_value >= value - objective.noise * np.abs(value)), flat + 1, 0)
        higher = active & ~lower
        earlier = [*earlier, value][-RECENT_EPOCHS:]
        ceiling[higher] = CEILING * share[higher]
        # Steps that fell short of the predicted decrease may grow, unless longer ones have failed.
        slow = lower & (value - new_value < EXPECTED_DECREASE * decrement / 2)
        longer = np.where(slow, np.minimum(RATE_GROWTH * share, ceiling), share)
        share = np.where(higher, RATE_CUT * share, longer)
        rejected = np.where(higher, rejected + 1, 0)
        if higher.any():
            w = np.where(lower[:, None], trial, w)
            value, gradient = batches.anchor(w)
            learning_rates.reset()
        else:
            w, value, gradient = trial, new_value, new_gradient
        progress.record(iteration, active, value)
        if callback is not None:
            callback(iteration, w, value)
        if iteration - renewed >= batches.renewal_cost and batches.renew(w):
            renewed = iteration
            learning_rates.reset()
            ceiling[:] = max(learning_rates.largest, learning_rates.first)
    return progress.result(w, value)


# Over a stream, learning rates start at FIRST_RATES and fall as these powers of the weight seen: SGD, Adam.
POWERS = (0.5, 0.3)
FIRST_RATES = (0.8, 2.0)
# A running mean gives the latest rows this many times the weight of the average row.
RECENCY = 4.0


@dataclass
class Stream:
    """The state between calls, in arrays and numbers.

    Attributes
    ----------
    rows : int
        Rows seen.
    weight : float
        The sum of their weights.
    center : ndarray of shape (features,) or None
        Column offsets; the parameters are those of X less these.
    w, mean : ndarray of shape (outputs, width) or None
        Parameters after the last batch, and their running mean.
    curvature : ndarray or None
        The running mean of the loss's curvature per unit of weight, (outputs, width, width) or its diagonal.
    steps : int
        Steps that are in Adam's moments.
    first, second : ndarray of shape (outputs, width) or None
        Adam's moments.
    """

    rows: int = 0
    weight: float = 0.0
    center: Array | None = None
    w: Array | None = None
    mean: Array | None = None
    curvature: Array | None = None
    steps: int = 0
    first: Array | None = None
    second: Array | None = None

    def start(self, w: Array, center: Array) -> None:
        """Start from given parameters."""
        self.center = center
        self.w, self.mean, self.curvature = w.copy(), w.copy(), None
        self.steps, self.first, self.second = 0, None, None

    def state(self) -> dict[str, Any]:
        """The attributes by name, as the constructor takes them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def descend(
    objective: StreamObjective,
    stream: Stream,
    *,
    adaptive: bool,
    random_state: np.random.RandomState,
    batch_size: int | None = None,
    learning_rate_init: float | None = None,
) -> Array:
    """Make one pass over the latest rows of a stream.

    Parameters
    ----------
    objective : StreamObjective
        Over these rows alone.
    stream : Stream
        Started. Its arrays are replaced, not overwritten.
    adaptive : bool
        Adam's steps, else those of SGD.
    random_state : RandomState
        Shuffles the rows.
    batch_size : int or None
    learning_rate_init : float or None
        The learning rate of the first rows: for SGD a fraction of the step that the curvature suggests, for
        Adam a fraction of the distance to the optimum, as estimated from the latest rows.

    Returns
    -------
    ndarray of shape (outputs, width)
        The running mean of the parameters.

    References
    ----------
    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
    """
    require(objective, StreamObjective)
    assert stream.w is not None
    assert stream.mean is not None
    batches = objective.stream_batches(batch_size)
    order = batches.rows_at[random_state.permutation(len(batches.rows_at))]
    weights = batches.weights(order)
    before = stream.weight
    stream.rows += len(order)
    stream.weight = before + float(weights.sum())
    seen = before + np.cumsum(weights)
    share = _weight_in_mean(weights.sum() / stream.weight)
    stream.curvature = batches.curvature(stream.mean, stream.curvature, share)
    coordinates = batches.coordinates(stream.curvature * stream.weight)
    rate = learning_rate_init if learning_rate_init is not None else FIRST_RATES[adaptive]
    rates = rate * (weights / seen) ** POWERS[adaptive]
    moments, size = None, 1.0
    if adaptive:
        if stream.first is None or stream.second is None:
            stream.steps, stream.first, stream.second = 0, np.zeros_like(stream.w), np.zeros_like(stream.w)
        moments = (stream.first.copy(), stream.second.copy())
        size = batches.distance(stream.mean, coordinates, stream.weight)
        rates *= size
        corrections = bias_corrections(stream.steps, len(weights), *batches.decays)
        rates *= corrections[0] / corrections[1]
        stream.steps += len(weights)
    w, mean = stream.w.copy(), stream.mean.copy()
    mixing = _weight_in_mean(weights / seen)
    batches.epoch(w, mean, order, stream.weight / weights, coordinates, rates, mixing, moments, size)
    stream.w, stream.mean = w, mean
    stream.first, stream.second = moments or (None, None)
    return mean


def _weight_in_mean(latest: Any) -> Any:
    """The weight in a running mean of rows that are a fraction ``latest`` of all so far."""
    return RECENCY * latest / (1.0 + (RECENCY - 1.0) * latest)
