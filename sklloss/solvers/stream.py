"""Stochastic descent on a stream of rows, of which each is seen once unless it comes again."""

from dataclasses import dataclass, fields

import numpy as np

from sklloss.objectives.linear_stochastic import DECAYS, StreamBatches

POWER = 0.7  # learning rates fall as this power of the rows seen
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

    def start(self, w):
        """Begin at these parameters."""
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
        The learning rate of the first rows: for plain steps as a share of the step that the curvature suggests.

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
    fresh = weights.sum() / stream.weight if stream.curvature is not None else 1.0
    share = FADING * fresh / (1.0 + (FADING - 1.0) * fresh)
    stream.curvature = batches.curvature(stream.mean, stream.curvature, share)
    rate = learning_rate_init if learning_rate_init is not None else 0.5
    rates = rate * (weights / seen) ** POWER
    moments = None
    if adaptive:
        if stream.first is None:
            stream.steps, stream.first, stream.second = 0, np.zeros_like(stream.w), np.zeros_like(stream.w)
        moments = (stream.first.copy(), stream.second.copy())
        t = np.arange(stream.steps + 1, stream.steps + len(weights) + 1, dtype=np.float64)
        rates = rates * np.sqrt(objective.scale * stream.weight)
        rates *= np.sqrt(1.0 - DECAYS[1] ** t) / (1.0 - DECAYS[0] ** t)
        stream.steps += len(weights)
    fresh = weights / seen
    w, mean = stream.w.copy(), stream.mean.copy()
    batches.epoch(
        w, mean, order, stream.weight / weights, stream.curvature * stream.weight, rates,
        FADING * fresh / (1.0 + (FADING - 1.0) * fresh), moments,
    )  # fmt: skip
    stream.w, stream.mean = w, mean
    stream.first, stream.second = moments if adaptive else (None, None)
    return mean
