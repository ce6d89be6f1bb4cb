"""Stochastic descent on a stream of rows, each of which is seen once."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sklloss.arrays.vectors import Array
from sklloss.solvers.base import StreamObjective, require

# Learning rates start at FIRST_RATES and fall as these powers of the weight seen, for SGD and for Adam.
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
        t = np.arange(stream.steps + 1, stream.steps + len(weights) + 1, dtype=np.float64)
        size = batches.distance(stream.mean, coordinates, stream.weight)
        rates *= size
        beta_1, beta_2 = batches.decays
        rates *= np.sqrt(1.0 - beta_2**t) / (1.0 - beta_1**t)
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
