"""Quadratic models with an L1 norm, as proximal Newton minimises them: with their matrix, or by products."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sklloss.arrays.vectors import NUMPY, Array, Mask, dot
from sklloss.kernels.solve.coordinate_descent import descend
from sklloss.solvers.base import Solve
from sklloss.solvers.newton import solve_positive
from sklloss.solvers.newton_cg import ArraySystems

SWEEPS = 10  # of coordinate descent between two checks of what they gained
ROUNDS = 100
# A model is given up after PATIENCE rounds that each gain less than IDLE of what may be left undone.
IDLE, PATIENCE = 0.01, 3
FAST = 0.7  # sweeps converge by themselves if each gains less than this share of the one before

# Of `minimise_by_products`:
PRODUCT_ROUNDS = 50
MOST_PRODUCTS = 250
FEW = 5  # products after which a system ends where a sign would change
LOOSEST = 0.3  # what a solve on a face may leave undone, against what it has gained
CONFIRMED = 10.0  # a proximal step that gains less than what may be left by this factor confirms the end


def minimise_model(
    matrix: Array,
    gradient: Array,
    w: Array,
    l1: Array,
    share: float,
    least: float,
    trust_radius: Array | float = np.inf,
) -> tuple[Array, float, bool]:
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
    trust_radius : ndarray of shape (size,) or inf
        Bounds of abs(d). If there are any, there are sweeps alone.

    Returns
    -------
    d : ndarray of shape (size,)
    decrease : float
        By how much d lowers the model from d = 0.
    reached : bool
    """
    boxed = np.isfinite(trust_radius).any()
    z, slope = w.copy(), gradient.copy()
    gains = np.empty(SWEEPS)
    low, high = w - trust_radius, w + trust_radius
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
        gained_on_face, exact, left = _minimise_on_face(matrix, slope, z, l1)
        total += gained_on_face
        # Where little is gained, the next model, made at a better point, is worth more than this one.
        idle = idle + 1 if gained + gained_on_face <= IDLE * share * total else 0
        if idle == PATIENCE and share * total > least:
            break
    d = z - w
    decrease = -(gradient @ d + 0.5 * (d @ (slope - gradient)) + l1 @ (np.abs(z) - np.abs(w)))
    return d, decrease, reached


def _minimise_on_face(matrix: Array, slope: Array, z: Array, l1: Array) -> tuple[float, bool, float]:
    """Move z to the minimum over its support with its signs as they are, or as far as signs allow.

    ``z`` and ``slope`` change in place. Returns what is gained, whether the minimum was reached, and the most
    that may be left over the support: what the minimum without regard to signs would gain in addition.
    """
    face = np.flatnonzero((z != 0) | (l1 == 0))
    sign = np.sign(z[face])
    subgradient = slope[face] + l1[face] * sign
    block = matrix[np.ix_(face, face)]
    step = -solve_positive(block, subgradient)
    if not np.isfinite(step).all():
        return 0.0, False, np.inf
    bound = (l1[face] > 0) & ((z[face] + step) * sign < 0)
    exact = not bound.any()
    moves = [np.where(bound, -z[face], step)]
    if not exact:
        # to where the first parameter reaches 0: that far the model falls for sure
        to_zero = np.divide(-z[face], step, out=np.full_like(step, np.inf), where=bound)
        first = to_zero.min()
        moves.append(np.where(to_zero == first, -z[face], first * step))
    best: tuple[float, Array | None] = (0.0, None)
    for candidate in moves:
        gained = -(subgradient @ candidate + 0.5 * (candidate @ (block @ candidate)))
        if gained > best[0]:
            best = (gained, candidate)
    gained, move = best
    if move is None:
        return 0.0, exact, -0.5 * (subgradient @ step)
    z[face] += move
    slope += matrix[:, face] @ move
    return gained, exact, -0.5 * (subgradient @ step) - gained


def minimise_by_products(
    product: Solve,
    precondition: Callable[[Mask], Solve],
    gradient: Array,
    w: Array,
    l1: Array,
    inside: Mask,
    diagonal: Array,
    share: float,
    least: Array,
) -> tuple[Array, Array, Mask]:
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
    z, H_step = w.copy(), np.zeros_like(w)
    total = np.zeros(len(w))
    length = np.ones(len(w))
    reached: Any = ~inside.any(axis=1)
    products = 0
    for _ in range(PRODUCT_ROUNDS):
        slope = gradient + H_step
        scale = length[:, None] / diagonal
        moving = inside & ~reached[:, None]
        target = z - scale * slope
        target = np.sign(target) * np.maximum(np.abs(target) - scale * l1, 0.0)
        target = np.where(moving, target, z)
        gained, z, moved, part = _move(product, slope, z, target, l1)
        H_step += moved
        products += 1
        total += gained
        length = np.where(part < 1.0, length * np.maximum(part, 0.25), length * 1.5)
        reached |= CONFIRMED * gained <= np.maximum(share * total, least)
        if reached.all() or products > MOST_PRODUCTS:
            break
        face = inside & ((z != 0) | (l1 == 0)) & ~reached[:, None]
        sign = np.sign(z)
        subgradient = np.where(face, gradient + H_step + l1 * sign, 0.0)
        step, step_bent, spent = _conjugate_gradients(
            product, precondition(face), face, subgradient, z, l1, share, least, total
        )
        products += spent
        # where signs would change: to the first that does, or further with those that did at 0
        to_zero = np.divide(-z, step, out=np.full_like(z, np.inf), where=face & (l1 > 0) & (step * sign < 0))
        first = np.minimum(to_zero.min(axis=1), 1.0)
        gained = -first * (dot(subgradient, step) + 0.5 * first * dot(step, step_bent))
        near = np.where(to_zero <= first[:, None], 0.0, z + first[:, None] * step)
        crossing = first < 1.0
        if crossing.any():
            for part in (np.ones_like(first), np.sqrt(first)):
                target = np.where(to_zero <= part[:, None], 0.0, z + part[:, None] * step)
                target = np.where(crossing[:, None], target, z)
                further, far, far_bent = _move(product, gradient + H_step, z, target, l1)[:3]
                products += 1
                better = crossing & (further > gained)
                gained = np.where(better, further, gained)
                first[better] = 0.0
                near[better] = far[better]
                step_bent[better] = 0.0
                H_step[better] += far_bent[better]
                crossing &= ~better
                if not crossing.any():
                    break
        z = near
        H_step += first[:, None] * step_bent
        total += gained
    d = z - w
    decrease = -(dot(gradient, d) + 0.5 * dot(d, H_step) + dot(l1, np.abs(z) - np.abs(w)))
    return d, decrease, reached


def _move(
    product: Solve, slope: Array, z: Array, target: Array, l1: Array
) -> tuple[Array, Array, Array, Array]:
    """Move from z towards another point as far as that lowers the model for sure.

    Returns what is gained at least, the new z, H times the way, and the part of it that was gone.
    """
    way = target - z
    H_p = product(way)
    first = dot(slope, way) + dot(l1, np.abs(target) - np.abs(z))
    second = dot(way, H_p)
    down = first < 0
    part = np.divide(-first, second, out=np.ones_like(first), where=down & (second > -first))
    gone = np.where(down, part, 0.0)[:, None]
    z = np.where(gone == 1.0, target, z + gone * way)
    return np.where(down, -part * (first + 0.5 * part * second), 0.0), z, gone * H_p, part


def _conjugate_gradients(
    product: Solve,
    solve: Solve,
    face: Mask,
    subgradient: Array,
    start: Array,
    l1: Array,
    share: float,
    least: Array,
    total: Array,
) -> tuple[Array, Array, int]:
    """Minimise subgradient.e + e.He / 2 loosely over e on a face; e, He and the number of products."""
    H_step, residual = np.zeros_like(subgradient), -subgradient
    z = solve(residual)
    rz = dot(residual, z)
    lowered = np.zeros(len(subgradient))
    running = rz > 0
    systems = ArraySystems(NUMPY, residual, z, rz, running)
    spent = 0
    while running.any() and spent < MOST_PRODUCTS:
        spent += 1
        H_p = product(systems.p)
        length, _, newer = systems.advance(np.where(face, H_p, 0.0), solve)
        H_step += length[:, None] * H_p
        decrease = 0.5 * length * rz
        lowered += decrease
        # what is left is taken for as many times the last decrease as there were products
        enough = np.maximum(share * LOOSEST * (total + lowered), LOOSEST * least)
        running &= (length > 0) & (newer > 0) & (spent * decrease > enough)
        if spent >= FEW:
            # beyond a change of sign the model is another one
            running &= ~(face & (l1 > 0) & ((start + systems.d) * start < 0)).any(axis=1)
        systems.turn(running)
        rz = newer
    return systems.d, H_step, spent
