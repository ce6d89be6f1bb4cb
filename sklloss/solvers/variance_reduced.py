"""Stochastic gradient descent and Adam that go all the way, as the variance of their gradients is reduced."""

import numpy as np

from sklloss.objectives.linear_stochastic import DECAYS, MiniBatches
from sklloss.solvers.base import Result, allowed_gap, exhausted, first_value, has_vanished, start_again

CAUTION = 0.1  # the approximate curvature may underestimate the gap
RECENT = 2  # epochs that together may lower the objective by no more than the allowed gap at the end
FLAT = 6  # epochs in a row that change it by no more than rounding might
SMALLEST = 1e-300
REJECTIONS = 12  # epochs in a row that lower it not at all
SHORTER = 0.3  # what remains of the learning rate after an epoch that ended higher than it began
LONGER = 1.3  # by what it grows after one that ended lower, but by less than
ENOUGH = 0.8  # this share of what the approximate curvature promised


def sgd(
    objective, w, *, tol, max_iter, random_state, callback=None, batch_size=None, learning_rate_init=None
):
    """Minimise by preconditioned stochastic gradient descent with variance reduction.

    Parameters
    ----------
    objective : LinearObjective
    w : ndarray of shape (problems, size)
        Start.
    tol : float
        See `allowed_gap`; the Newton decrement is estimated with the preconditioner, with a factor of
        10 for safety, twice in a row, and the last epochs must agree that little is left.
    max_iter : int
        Most epochs. Each sees every row twice: once in mini-batches, once for the whole value and gradient.
    callback : callable, optional
        Called with ``(n_iter, w, value)`` after each epoch.
    batch_size : int or None
        Rows per mini-batch.
    learning_rate_init : float or None
        The first learning rate, as a share of the step that the approximate curvature suggests. An epoch that
        ends higher than it began is undone and the rate cut; else it grows slowly.
    random_state : RandomState
        Shuffles the rows for each epoch.

    Returns
    -------
    Result

    References
    ----------
    Johnson and Zhang, "Accelerating stochastic gradient descent using predictive variance reduction", 2013.
    """
    batches = MiniBatches(objective, batch_size)
    return _minimise(
        objective, batches, w, tol, max_iter, callback, random_state, Plain(batches, learning_rate_init)
    )


def adam(
    objective, w, *, tol, max_iter, random_state, callback=None, batch_size=None, learning_rate_init=None
):
    """Minimise by Adam, with the same gradients and in the same coordinates as `sgd`.

    Adam's steps have a length that is its learning rate, however small the gradient. So the rate of an
    epoch is ``learning_rate_init`` times the root mean square of the step that the approximate curvature
    suggests at its start, and falls as the optimum nears.

    Parameters, and what it returns, are those of `sgd`.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", 2015, section 2.
    """
    batches = MiniBatches(objective, batch_size)
    return _minimise(
        objective, batches, w, tol, max_iter, callback, random_state, Adaptive(batches, learning_rate_init)
    )


class Plain:
    """The learning rates of plain descent."""

    moments = None
    most = 1.0

    def __init__(self, batches, rate):
        self.first = rate if rate is not None else 0.3

    def rates(self, share, size):
        """Of an epoch, (batches, problems) or a shape that broadcasts to it."""
        return share[None]

    def forget(self):
        """Start anew."""


class Adaptive:
    """Those of Adam, and its moments."""

    most = 10.0

    def __init__(self, batches, rate):
        self._batches = batches
        self.first = rate if rate is not None else max(0.1, 2.0 / batches.batches)
        shape = batches.objective.shape
        self.moments = (np.zeros(shape), np.zeros(shape))
        self._steps = 0

    def rates(self, share, size):
        """See `Plain.rates`."""
        t = np.arange(self._steps + 1, self._steps + self._batches.batches + 1, dtype=np.float64)
        self._steps += self._batches.batches
        bias = np.sqrt(1.0 - DECAYS[1] ** t) / (1.0 - DECAYS[0] ** t)
        return bias[:, None] * (share * size)[None]

    def forget(self):
        """See `Plain.forget`."""
        self._steps = 0
        for part in self.moments:
            part[:] = 0.0


def _minimise(objective, batches, w, tol, max_iter, callback, random_state, pace):
    w = np.array(w, dtype=np.float64)
    value, gradient = batches.anchor(w)
    if start_again(objective, w, value):
        value, gradient = batches.anchor(w)
    if w.any():
        w = batches.settle(w)
        value, gradient = batches.anchor(w)
    start = first_value(objective, w, value)
    problems = len(w)
    n_iter = np.zeros(problems, dtype=int)
    quiet, rejected, flat = (np.zeros(problems, dtype=int) for _ in range(3))
    converged = np.zeros(problems, dtype=bool)
    stuck = np.zeros(problems, dtype=bool)
    share = np.full(problems, float(pace.first))
    ceiling = np.full(problems, max(pace.most, pace.first))
    curve, earlier = [float(value.sum())], []
    renewed = 0
    for iteration in range(1, max_iter + 1):
        decrement, size = batches.towards(gradient)
        gap = allowed_gap(value, tol)
        quiet = np.where(decrement / 2 <= CAUTION * gap, quiet + 1, 0)
        settled = (gradient == 0).all(axis=1)
        if len(earlier) == RECENT:
            settled |= (quiet >= 2) & (earlier[0] - value <= gap)
        converged |= settled
        done = exhausted(decrement, value, objective.noise)
        converged |= (flat >= FLAT) & done
        over = rejected >= REJECTIONS
        converged |= over & done
        stuck |= over & ~done
        active = ~(converged | stuck | has_vanished(objective, value, start))
        if not active.any():
            break
        order = batches.rows_at[random_state.permutation(len(batches.rows_at))]
        trial = w.copy()
        rates = pace.rates(np.where(active, share, 0.0), size)
        batches.epoch(trial, order, rates, pace.moments, max(size[active].min(), SMALLEST))
        with np.errstate(over="ignore", invalid="ignore"):
            bad = ~np.isfinite(trial).all(axis=1)
            trial[bad] = w[bad]
            new_value, new_gradient = batches.anchor(trial)
        lower = active & ~bad & (new_value <= value + objective.noise * np.abs(value))
        flat = np.where(lower & (new_value >= value - objective.noise * np.abs(value)), flat + 1, 0)
        higher = active & ~lower
        earlier = [*earlier, value][-RECENT:]
        n_iter[active] = iteration
        ceiling[higher] = 0.7 * share[higher]
        # steps that left much undone were too short, if they were not too noisy
        slow = lower & (value - new_value < ENOUGH * decrement / 2)
        longer = np.where(slow, np.minimum(LONGER * share, ceiling), share)
        share = np.where(higher, SHORTER * share, longer)
        rejected = np.where(higher, rejected + 1, 0)
        if higher.any():
            w = np.where(lower[:, None], trial, w)
            value, gradient = batches.anchor(w)
            pace.forget()
        else:
            w, value, gradient = trial, new_value, new_gradient
        curve.append(float(value.sum()))
        if callback is not None:
            callback(iteration, w, value)
        if iteration - renewed >= batches.renewal_cost and batches.renew(w):
            renewed = iteration
            pace.forget()
            ceiling[:] = max(pace.most, pace.first)
    return Result(w, value, n_iter, converged, curve, has_vanished(objective, value, start))
