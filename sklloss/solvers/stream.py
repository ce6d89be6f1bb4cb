"""Stochastic descent on a stream of rows, of which each is seen once unless it comes again."""

from dataclasses import dataclass, fields

import numpy as np

from sklloss.objectives.linear_stochastic import DECAYS, StreamBatches

# Learning rates fall as these powers of the rows seen, from these: of plain steps, and of Adam's.
POWERS = (0.5, 0.3)
FIRST = (0.8, 2.0)
FADING = 4.0  # a running mean gives the rows that came last this many times the share of the first


@dataclass
class Stream:
    """What is remembered between calls: arrays and plain numbers.

    Attributes
    ----------
    rows : int
        Rows seen.
    weight : float
        The sum of their weights.
    center : ndarray of shape (features,) or None
        What parameters are centered at.
    w, mean : ndarray of shape (outputs, width) or None
        Parameters after the last batch, and their running mean.
    curvature : ndarray or None
        A running mean of the loss's curvature per unit of weight, (outputs, width, width) or its diagonal.
    steps : int
        Batches since Adam's moments were 0.
    first, second : ndarray of shape (outputs, width) or None
        Adam's moments.
    """

    rows: int = 0
    weight: float = 0.0
    center: np.ndarray | None = None
    w: np.ndarray | None = None
    mean: np.ndarray | None = None
    curvature: np.ndarray | None = None
    steps: int = 0
    first: np.ndarray | None = None
    second: np.ndarray | None = None

    def start(self, w, center):
        """Begin at these parameters."""
        self.center = center
        self.w, self.mean, self.curvature = w.copy(), w.copy(), None
        self.steps, self.first, self.second = 0, None, None

    def state(self):
        """As a dict, of which a Stream is made again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def descend(objective, stream, *, adaptive, random_state, batch_size=None, learning_rate_init=None):
    """One pass over the rows of an objective, which are the latest of a stream.

    Parameters
    ----------
    objective : LinearObjective
    stream : Stream
        Its arrays are replaced, not written to.
    adaptive : bool
        Adam's steps, else plain ones.
    random_state : RandomState
        Shuffles the rows.
    batch_size : int or None
    learning_rate_init : float or None
        The learning rate of the first rows: for plain steps the share of the step that the curvature
        suggests, for Adam that of the distance to the optimum, as the latest rows show it.

    Returns
    -------
    ndarray of shape (outputs, width)
        The running mean of the parameters.

    References
    ----------
    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
    """
    batches = StreamBatches(objective, batch_size)
    order = batches.rows_at[random_state.permutation(len(batches.rows_at))]
    weights = batches.weights(order)
    before = stream.weight
    stream.rows += len(order)
    stream.weight = before + float(weights.sum())
    seen = before + np.cumsum(weights)
    share = _faded(weights.sum() / stream.weight)
    stream.curvature = batches.curvature(stream.mean, stream.curvature, share)
    coordinates = batches.coordinates(stream.curvature * stream.weight)
    rate = learning_rate_init if learning_rate_init is not None else FIRST[adaptive]
    rates = rate * (weights / seen) ** POWERS[adaptive]
    moments, size = None, 1.0
    if adaptive:
        if stream.first is None:
            stream.steps, stream.first, stream.second = 0, np.zeros_like(stream.w), np.zeros_like(stream.w)
        moments = (stream.first.copy(), stream.second.copy())
        t = np.arange(stream.steps + 1, stream.steps + len(weights) + 1, dtype=np.float64)
        size = batches.distance(stream.mean, coordinates, stream.weight)
        rates *= size
        rates *= np.sqrt(1.0 - DECAYS[1] ** t) / (1.0 - DECAYS[0] ** t)
        stream.steps += len(weights)
    w, mean = stream.w.copy(), stream.mean.copy()
    batches.epoch(
        w, mean, order, stream.weight / weights, coordinates, rates, _faded(weights / seen), moments, size
    )
    stream.w, stream.mean = w, mean
    stream.first, stream.second = moments if adaptive else (None, None)
    return mean


def _faded(fresh):
    """The weight in a running mean of what is a share ``fresh`` of all that has come."""
    return FADING * fresh / (1.0 + (FADING - 1.0) * fresh)
