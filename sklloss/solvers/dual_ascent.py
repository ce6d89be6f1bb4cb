"""A start near the minimum by dual coordinate ascent."""

import numpy as np

from sklloss.solvers.base import allowed_gap

EPOCHS = 40
ENOUGH = 0.3  # share of the allowed gap to come to
NEAR = 0.1  # relative gap from which on the end of the epochs is near the minimum


def ascended(objective, w, tol):
    """Parameters near the minimum, or ``w``, which is 0, where there is nothing to be had.

    An epoch takes one row after another, in an order that is shuffled anew by a generator of its own: the
    same from fit to fit. How near the minimum it came is an estimate, which the solver that starts there has
    to confirm.

    References
    ----------
    Shalev-Shwartz and Zhang, "Stochastic dual coordinate ascent methods for regularized loss minimization",
    2013.
    """
    ascent = objective.dual_ascent()
    if ascent is None:
        return w
    random_state = np.random.RandomState(0)
    before = np.inf
    for _ in range(EPOCHS):
        value, promise = ascent.epoch(random_state)
        # a NaN counts as left
        left = promise[~(promise <= ENOUGH * allowed_gap(value, tol))].sum()
        if left == 0 or not left <= ascent.slow * before:
            break
        before = left
    if not promise.sum() <= NEAR * np.abs(value).sum():
        return w
    found = objective.without_shift(ascent.parameters())
    return np.where(np.isfinite(found).all(axis=1, keepdims=True), found, w)
