"""Quadratic models with an L1 norm, too large for their matrix: minimised by products with it."""

import numpy as np

ROUNDS = 50
MOST_PRODUCTS = 250
FEW = 5
LOOSEST = 0.3  # what a solve on a face may leave undone, against what it has gained
CONFIRMED = 10.0  # a proximal step that gains less than what may be left by this factor confirms the end


def minimise_by_products(product, precondition, gradient, w, l1, inside, diagonal, share, least):
    """Minimise g.d + d.Hd / 2 + l1.|w + d| over d for each problem, d being 0 outside a set.

    In turns: a proximal gradient step, scaled by ``diagonal``, which finds the support and the signs; and
    conjugate gradients over the support, the signs held, up to where they change.

    Parameters
    ----------
    product : callable
        The matrix times an array of the parameters' shape.
    precondition : callable
        Takes a mask of parameters and returns a function that solves with an approximation of the
        matrix over them alone.
    gradient, w, l1, diagonal : ndarray of shape (problems, size)
    inside : ndarray of bool of shape (problems, size)
    share, least : float, ndarray of shape (problems,)
        A problem ends where about ``share`` of its decrease, or ``least``, is left undone.

    Returns
    -------
    d : ndarray of shape (problems, size)
    decrease : ndarray of shape (problems,)
    reached : ndarray of bool of shape (problems,)

    References
    ----------
    Byrd, Chin, Nocedal and Oztoprak, *A family of second-order methods for convex l1-regularized
    optimization*, Mathematical Programming 159 (2016).
    """
    z, bent = w.copy(), np.zeros_like(w)
    total = np.zeros(len(w))
    length = np.ones(len(w))
    reached = ~inside.any(axis=1)
    products = 0
    for _ in range(ROUNDS):
        slope = gradient + bent
        scale = length[:, None] / diagonal
        moving = inside & ~reached[:, None]
        there = z - scale * slope
        there = np.sign(there) * np.maximum(np.abs(there) - scale * l1, 0.0)
        there = np.where(moving, there, z)
        gained, z, moved, part = _move(product, slope, z, there, l1)
        bent += moved
        products += 1
        total += gained
        length = np.where(part < 1.0, length * np.maximum(part, 0.25), length * 1.5)
        reached |= CONFIRMED * gained <= np.maximum(share * total, least)
        if reached.all() or products > MOST_PRODUCTS:
            break
        face = inside & ((z != 0) | (l1 == 0)) & ~reached[:, None]
        sign = np.sign(z)
        pull = np.where(face, gradient + bent + l1 * sign, 0.0)
        step, step_bent, spent = _conjugate_gradients(
            product, precondition(face), face, pull, z, l1, share, least, total
        )
        products += spent
        # where signs would change: to the first that does, or further with those that did at 0
        reach = np.divide(-z, step, out=np.full_like(z, np.inf), where=face & (l1 > 0) & (step * sign < 0))
        first = np.minimum(reach.min(axis=1), 1.0)
        gained = -first * (_dot(pull, step) + 0.5 * first * _dot(step, step_bent))
        near = np.where(reach <= first[:, None], 0.0, z + first[:, None] * step)
        crossing = first < 1.0
        if crossing.any():
            for part in (np.ones_like(first), np.sqrt(first)):
                there = np.where(reach <= part[:, None], 0.0, z + part[:, None] * step)
                there = np.where(crossing[:, None], there, z)
                further, far, far_bent = _move(product, gradient + bent, z, there, l1)[:3]
                products += 1
                better = crossing & (further > gained)
                gained = np.where(better, further, gained)
                first[better] = 0.0
                near[better] = far[better]
                step_bent[better] = 0.0
                bent[better] += far_bent[better]
                crossing &= ~better
                if not crossing.any():
                    break
        z = near
        bent += first[:, None] * step_bent
        total += gained
    d = z - w
    decrease = -(_dot(gradient, d) + 0.5 * _dot(d, bent) + _dot(l1, np.abs(z) - np.abs(w)))
    return d, decrease, reached


def _dot(a, b):
    return np.einsum("bi,bi->b", a, b)


def _move(product, slope, z, there, l1):
    """Move from z towards another point as far as that lowers the model for sure.

    Returns what is gained at least, the new z, H times the way, and the part of it that was gone.
    """
    way = there - z
    bend = product(way)
    first = _dot(slope, way) + _dot(l1, np.abs(there) - np.abs(z))
    second = _dot(way, bend)
    down = first < 0
    part = np.divide(-first, second, out=np.ones_like(first), where=down & (second > -first))
    gone = np.where(down, part, 0.0)[:, None]
    z = np.where(gone == 1.0, there, z + gone * way)
    return np.where(down, -part * (first + 0.5 * part * second), 0.0), z, gone * bend, part


def _conjugate_gradients(product, solve, face, pull, start, l1, share, least, total):
    """Minimise pull.e + e.He / 2 over e on a face, loosely. Returns e, He and the number of products."""
    e, bent = np.zeros_like(pull), np.zeros_like(pull)
    residual = -pull
    z = solve(residual)
    p = z.copy()
    rz = _dot(residual, z)
    lowered = np.zeros(len(pull))
    running = rz > 0
    spent = 0
    while running.any() and spent < MOST_PRODUCTS:
        spent += 1
        p[~running] = 0.0
        bend = product(p)
        curve = _dot(p, bend)
        running &= curve > 0
        length = np.divide(rz, curve, out=np.zeros_like(rz), where=running)
        e += length[:, None] * p
        bent += length[:, None] * bend
        residual = np.where(face, residual - length[:, None] * bend, 0.0)
        decrease = 0.5 * length * rz
        lowered += decrease
        # what is left is taken for as many times the last decrease as there were products
        enough = np.maximum(share * LOOSEST * (total + lowered), LOOSEST * least)
        running &= spent * decrease > enough
        if spent >= FEW:
            # beyond a change of sign the model is another one
            running &= ~(face & (l1 > 0) & ((start + e) * start < 0)).any(axis=1)
        z = solve(residual)
        newer = _dot(residual, z)
        running &= newer > 0
        ratio = np.divide(newer, rz, out=np.zeros_like(rz), where=running)
        p = z + ratio[:, None] * p
        rz = newer
    return e, bent, spent
