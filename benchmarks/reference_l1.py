"""The optimum of a problem with an L1 penalty, to what float64 gives.

Proximal steps, which find the coefficients that are not zero, take turns with Newton steps on those.

On a narrow dense table a proximal step minimises the whole quadratic model, else one with a diagonal Hessian.
"""

import dataclasses
import functools
import time

import numpy as np
import reference
import scipy.linalg

NARROW_UP_TO = 200  # features up to which the quadratic model is minimised whole
EXACT_UP_TO = 1000  # non-zero coefficients up to which the Hessian is formed, on dense rows


def solve(problem, say, limit):
    """Minimise; return F and an estimate of F - F*."""
    whole = reference.Newton(problem)
    l1 = np.full(whole.shape, problem.l1_ratio)
    l1[-1] = 0
    theta = np.zeros(whole.shape)
    value, left, length, stalled = whole.value(theta), np.inf, 1.0, 0
    begin = time.perf_counter()
    narrow = problem.outputs == 1 and not problem.sparse and whole.p <= NARROW_UP_TO
    for iteration in range(500):
        before = value
        grad, proba = whole.gradient(theta)
        if narrow:
            model = _quadratic_step(whole, l1, theta, grad, proba)
            theta, value, first, _ = _search(whole, l1, theta, value, grad, model, 1.0)
        else:
            scale = _diagonal(whole, proba)
            model = functools.partial(_diagonal_step, l1, theta, grad, scale)
            theta, value, first, length = _search(whole, l1, theta, value, grad, model, min(1.0, 2 * length))
        theta, value, second = _newton_step(problem, l1, theta, value)
        left = first + second
        if iteration % 10 == 0:
            count = np.count_nonzero(theta[:-1])
            left_over = f"{count} coefficients, about {left / value:.0e} to go"
            say(f"reference: step {iteration + 1}, F = {value:.12g}, {left_over}")
        stalled = stalled + 1 if value >= before * (1 - 1e-15) else 0
        if left <= 1e-14 * value or stalled >= 3 or time.perf_counter() - begin > limit:
            break
    return value, max(left, 0.0)


def _diagonal(newton, proba):
    """The diagonal of the smooth part's Hessian."""
    out = np.zeros(newton.shape)
    for rows, X, _, weight in reference.blocks(newton.problem):
        curve = newton.problem.C * proba[rows] * (1 - proba[rows])
        if weight is not None:
            curve *= weight[:, None]
        squares = X.multiply(X) if newton.problem.sparse else X * X
        out[:-1] += squares.T @ curve
        out[-1] += curve.sum(axis=0)
    out[:-1] += newton.ridge
    return np.maximum(out, 1e-12 * out.max())


def _search(newton, l1, theta, value, grad, step, length):
    """The point ``step(length)`` that decreases the objective, and what its model promised at first."""
    promised = None
    while True:
        trial = step(length)
        slope = float((grad * (trial - theta)).sum() + (l1 * (np.abs(trial) - np.abs(theta))).sum())
        promised = -slope if promised is None else promised
        found = newton.value(trial)
        if found <= value + 1e-4 * slope:
            return trial, found, promised, length
        length /= 2
        if length < 1e-8:
            return theta, value, promised, 1.0


def _soft(x, by):
    return np.sign(x) * np.maximum(np.abs(x) - by, 0)


def _diagonal_step(l1, theta, grad, scale, length):
    return _soft(theta - length * grad / scale, length * l1 / scale)


def _quadratic_step(newton, l1, theta, grad, proba):
    """The way to the minimum of the quadratic model, the intercept eliminated."""
    H = newton.hessian(proba)[0, 0]
    to_intercept = H[:-1, -1] / H[-1, -1]
    reduced = H[:-1, :-1] - np.outer(to_intercept, H[-1, :-1])
    slope = grad[:-1, 0] - to_intercept * grad[-1, 0]
    # Equilibrated; a column that is constant, or nearly, keeps the scale of its Hessian entry.
    scale = np.sqrt(np.maximum(np.diag(reduced), 1e-12 * np.diag(H)[:-1]) + 1e-300)
    reduced = reduced / scale / scale[:, None]
    reduced[np.diag_indices(len(reduced))] += 1e-12
    start = theta[:-1, 0] * scale
    x = _signed_quadratic(reduced, slope / scale - reduced @ start, l1[:-1, 0] / scale, start)
    move = (x - start) / scale
    move = np.r_[move, -(grad[-1, 0] / H[-1, -1] + to_intercept @ move)][:, None]
    zero = np.r_[x == 0, False][:, None]
    return lambda length: np.where(zero & (length == 1), 0, theta + length * move)


def _signed_quadratic(H, c, l1, x):
    """Minimise x'Hx / 2 + c'x + l1'|x|: solve for the signs guessed, mend the guess, one by one.

    Feature-sign search: Lee, Battle, Raina and Ng, "Efficient sparse coding algorithms", NIPS 2006.
    """
    x = x.copy()
    sign = np.sign(x)
    for _ in range(50 * len(x)):
        g = H @ x + c
        active = sign != 0
        if np.all(np.abs(g + l1 * sign)[active] <= 1e-10 * (l1[active] + np.abs(c[active]))):
            excess = np.where(active, 0, np.abs(g) - l1 * (1 + 1e-10))
            j = int(np.argmax(excess))
            if excess[j] <= 0:
                break
            sign[j] = -np.sign(g[j])
            active = sign != 0
        goal = np.zeros_like(x)
        goal[active] = np.linalg.solve(H[np.ix_(active, active)], -(c + l1 * sign)[active])
        way = goal - x
        crossing = (x != 0) & (x * goal < 0)
        lengths = np.r_[x[crossing] / (x - goal)[crossing], 1.0]
        trials = []
        for length in lengths:
            trial = x + length * way
            trial[crossing & (np.abs(trial) <= 1e-14 * np.abs(x))] = 0
            trials.append((0.5 * trial @ H @ trial + c @ trial + l1 @ np.abs(trial), length, trial))
        x = min(trials, key=lambda found: found[0])[2]
        sign = np.sign(x)
    return x


def _newton_step(problem, l1, theta, value):
    """A Newton step on the coefficients that are not zero, none of which may change its sign."""
    columns = np.flatnonzero(theta[:-1].any(axis=1))
    part = reference.Newton(dataclasses.replace(problem, X=problem.X[:, columns]))
    kept = np.r_[columns, len(theta) - 1]
    inner, sign = theta[kept], np.sign(theta[kept])
    free = sign != 0
    free[-1] = True
    sign[-1] = 0
    grad, proba = part.gradient(inner)
    grad = np.where(free, grad + l1[kept] * sign, 0)
    if free.sum() <= EXACT_UP_TO and not problem.sparse:
        step = _exact(part, grad, proba, free)
    else:
        step = _conjugate_gradients(part, grad, proba, free)
    decrease = -float((grad * step).sum()) / 2
    length = 1.0
    while length > 1e-6:
        trial = inner + length * step
        trial[:-1] = np.where(np.sign(trial[:-1]) == sign[:-1], trial[:-1], 0)
        found = part.value(trial)
        if found < value:
            out = theta.copy()
            out[kept] = trial
            return out, found, decrease
        length /= 2
    return theta, value, decrease


def _exact(newton, grad, proba, free):
    q, K = newton.shape
    H = newton.hessian(proba).transpose(0, 2, 1, 3).reshape(K * q, K * q)
    kept = np.flatnonzero(free.T.ravel())
    H = H[np.ix_(kept, kept)]
    scale = 1 / np.sqrt(np.diag(H))
    H = H * scale * scale[:, None]
    H[np.diag_indices(len(H))] += 1e-13
    step = np.zeros(K * q)
    step[kept] = -scale * scipy.linalg.solve(H, scale * grad.T.ravel()[kept], assume_a="sym")
    return step.reshape(K, q).T


def _conjugate_gradients(newton, grad, proba, free):
    scale = _diagonal(newton, proba)
    x, r = np.zeros(newton.shape), -grad
    z = r / scale
    d, rz = z, float((r * z).sum())
    start = rz
    for _ in range(300):
        if rz <= 1e-4 * start or rz == 0:
            break
        Hd = np.where(free, newton.product(proba, d), 0)
        step = rz / float((d * Hd).sum())
        x += step * d
        r = r - step * Hd
        z = r / scale
        rz, old = float((r * z).sum()), rz
        d = z + rz / old * d
    return x
