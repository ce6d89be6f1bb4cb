"""Quadratic models with an L1 norm, as proximal Newton minimises them."""

import numpy as np

from sklloss.kernels.solve.coordinate_descent import descend
from sklloss.solvers.newton import solve_positive

SWEEPS = 10  # of coordinate descent between two looks at what they gained
ROUNDS = 100
IDLE, PATIENCE = 0.01, 3
FAST = 0.7  # a sweep that gains less than this share of the last one: they will converge


def minimise_model(matrix, gradient, w, l1, share, least, reach=np.inf):
    """Minimise g.d + d.Hd / 2 + l1.|w + d| over d.

    Sweeps of coordinate descent find the support and the signs. Where they would take long to the end, as
    with correlated columns, a Cholesky factor over the support goes there at once.

    Parameters
    ----------
    matrix : ndarray of shape (size, size)
        H, positive semidefinite, both triangles filled.
    gradient, w, l1 : ndarray of shape (size,)
    share, least : float
        It ends where about ``share`` of the decrease, or ``least``, is left undone.
    reach : ndarray of shape (size,) or inf
        Bounds of abs(d). If there are any, there are sweeps alone.

    Returns
    -------
    d : ndarray of shape (size,)
    decrease : float
        By how much d lowers the model from d = 0.
    reached : bool
    """
    boxed = np.isfinite(reach).any()
    z, slope = w.copy(), gradient.copy()
    gains = np.empty(SWEEPS)
    low, high = w - reach, w + reach
    total, exact, reached, left, idle = 0.0, False, False, np.inf, 0
    for _ in range(ROUNDS):
        descend(matrix, slope, z, l1, low, high, gains)
        gained = gains.sum()
        total += gained
        enough = max(share * total, least)
        rate = gains[-1] / gains[-2] if gains[-1] > 0.0 else 0.0
        reached = (exact or left <= enough) and gained <= enough
        reached |= rate < FAST and gains[-1] * rate / (1.0 - rate) <= enough
        reached |= boxed and gained <= enough
        if reached:
            break
        if boxed:
            continue
        further, exact, left = _to_the_end_of_the_face(matrix, slope, z, l1)
        total += further
        # a model on the way may be given up where little happens; the next one will know better
        idle = idle + 1 if gained + further <= IDLE * share * total else 0
        if idle == PATIENCE and share * total > least:
            break
    d = z - w
    decrease = -(gradient @ d + 0.5 * (d @ (slope - gradient)) + l1 @ (np.abs(z) - np.abs(w)))
    return d, decrease, reached


def _to_the_end_of_the_face(matrix, slope, z, l1):
    """Move z to the minimum over its support with its signs as they are, or as far as signs allow.

    ``z`` and ``slope`` change in place. Returns what is gained, whether the minimum was reached, and the most
    that may be left over the support: what the minimum without regard to signs would gain further.
    """
    face = np.flatnonzero((z != 0) | (l1 == 0))
    sign = np.sign(z[face])
    pull = slope[face] + l1[face] * sign
    block = matrix[np.ix_(face, face)]
    step = -solve_positive(block, pull)
    if not np.isfinite(step).all():
        return 0.0, False, np.inf
    bound = (l1[face] > 0) & ((z[face] + step) * sign < 0)
    exact = not bound.any()
    moves = [np.where(bound, -z[face], step)]
    if not exact:
        # to where the first parameter reaches 0: that far the model falls for sure
        reach = np.divide(-z[face], step, out=np.full_like(step, np.inf), where=bound)
        first = reach.min()
        moves.append(np.where(reach == first, -z[face], first * step))
    best = (0.0, None, None)
    for transfer in moves:
        bent = block @ transfer
        gained = -(pull @ transfer + 0.5 * (transfer @ bent))
        if gained > best[0]:
            best = (gained, transfer)
    gained, transfer = best[:2]
    if transfer is None:
        return 0.0, exact, -0.5 * (pull @ step)
    z[face] += transfer
    slope += matrix[:, face] @ transfer
    return gained, exact, -0.5 * (pull @ step) - gained
