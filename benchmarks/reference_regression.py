"""The judge of regressions: objectives in float64 NumPy, and the optimum to what float64 gives.

Losses with a derivative and no L1 penalty: Newton steps. A quantile: an interior point, in which an L1
penalty is a row for each coefficient. The squared error with an L1 penalty: an exact solution on the columns
that matter, to which others are added until none is missing. The last two give a lower bound too.
"""

import numpy as np
import reference_l1
import scipy.linalg
import scipy.special

BLOCK = 8192  # rows at a time


def losses(problem, raw, y):
    """Loss of each row, its derivative and its second derivative by the raw score."""
    e = raw - y
    if problem.loss == "squared_error":
        return 0.5 * e * e, e, np.ones_like(e)
    if problem.loss == "huber":
        delta, size = problem.parameter, np.abs(e)
        value = np.where(size <= delta, 0.5 * e * e, delta * (size - 0.5 * delta))
        return value, np.clip(e, -delta, delta), (size <= delta) * 1.0
    if problem.loss == "log_cosh":
        slope = np.tanh(e)
        return np.abs(e) + np.log1p(np.exp(-2 * np.abs(e))) - np.log(2), slope, 1 - slope * slope
    if problem.loss == "quantile":
        q = problem.parameter
        return np.maximum((1 - q) * e, -q * e), np.where(e > 0, 1 - q, -q), np.zeros_like(e)
    mean = np.exp(raw)
    if problem.loss == "poisson":
        return scipy.special.xlogy(y, y) - y * raw - y + mean, mean - y, mean
    ratio = y / mean
    return ratio - 1 - np.log(y) + raw, 1 - ratio, ratio  # gamma


def _rows(problem):
    for start in range(0, len(problem.y), BLOCK):
        part = slice(start, start + BLOCK)
        yield np.asarray(problem.X[part], np.float64), np.asarray(problem.y[part], np.float64)


def objective(problem, coef, intercept):
    """The mean loss and the penalty in float64."""
    coef, intercept = np.ravel(np.asarray(coef, np.float64)), float(np.squeeze(intercept))
    with np.errstate(over="ignore"):
        total = sum(losses(problem, X @ coef + intercept, y)[0].sum() for X, y in _rows(problem))
    penalty = problem.l1_ratio * np.abs(coef).sum() + (1 - problem.l1_ratio) / 2 * (coef @ coef)
    return float(total / len(problem.y) + problem.alpha * penalty)


def solve(problem, say):
    """Minimise; return F and an estimate of F - F*."""
    if problem.loss == "quantile":
        return _interior_point(problem, say)
    if problem.l1_ratio and problem.loss != "squared_error":
        raise ValueError(f"no reference for {problem.question}")
    return (_working_set if problem.l1_ratio else _newton)(problem, say)


def _start(problem):
    """The intercept alone, near its optimum."""
    theta = np.zeros(problem.X.shape[1] + 1)
    mean = float(np.mean(problem.y, dtype=np.float64))
    theta[-1] = np.log(mean) if problem.loss in ("poisson", "gamma") else float(np.median(problem.y))
    return theta


def _scale(H):
    """What makes the diagonal 1; a column of zeros is left as it is."""
    diagonal = np.diag(H)
    return 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))


def _newton(problem, say):
    theta, q = _start(problem), problem.X.shape[1] + 1
    ridge = np.r_[np.full(q - 1, problem.alpha), 0.0]
    value, left, stalled = objective(problem, theta[:-1], theta[-1]), np.inf, 0
    for iteration in range(300):
        gradient, H = ridge * theta, np.diag(ridge)
        for X, y in _rows(problem):
            X = np.hstack([X, np.ones((len(X), 1))])
            _, slope, curve = losses(problem, X @ theta, y)
            gradient += X.T @ slope / len(problem.y)
            H += X.T @ (X * (curve / len(problem.y))[:, None])
        # Columns of different units: equilibrate. Collinear columns, and rows without curvature: a little
        # more on the diagonal, which is no bias, as the gradient decides where the steps end.
        scale = _scale(H)
        H = H * scale * scale[:, None]
        H[np.diag_indices(q)] += 1e-12
        step = -scale * scipy.linalg.solve(H, scale * gradient, assume_a="sym")
        slope = float(gradient @ step)
        left = -slope / 2
        if iteration % 10 == 0:
            say(f"reference: step {iteration + 1}, F = {value:.12g}, about {left / value:.1e} to go")
        if left <= 1e-14 * value:
            break
        length = 1.0
        trial = objective(problem, (theta + step)[:-1], (theta + step)[-1])
        while not trial <= value + 1e-4 * length * slope and length > 1e-10:
            length /= 2
            trial = objective(problem, (theta + length * step)[:-1], (theta + length * step)[-1])
        stalled = stalled + 1 if not trial < value * (1 - 1e-15) else 0
        if trial < value:
            theta, value = theta + length * step, trial
        if stalled >= 2:
            break
    return value, max(left, 0.0)


def _working_set(problem, say):
    """Lasso and elastic net: exact on some columns, with those added that the rest of X asks for."""
    X = np.asarray(problem.X, np.float64)
    X, y = X - X.mean(axis=0), problem.y - np.mean(problem.y, dtype=np.float64)
    n, p = X.shape
    l1, ridge = problem.alpha * problem.l1_ratio, problem.alpha * (1 - problem.l1_ratio)
    columns, coef = np.array([], dtype=int), np.zeros(p)
    for _ in range(100):
        slope = X.T @ (X @ coef - y) / n + ridge * coef
        missing = np.setdiff1d(np.flatnonzero(np.abs(slope) > l1 * (1 + 1e-9)), columns)
        if not len(missing):
            break
        columns = np.r_[columns, missing[np.argsort(-np.abs(slope[missing]))[: max(50, len(columns) // 4)]]]
        part = X[:, columns]
        H = part.T @ part / n
        H[np.diag_indices(len(H))] += ridge
        scale = 1 / _scale(H)
        H = H / scale / scale[:, None]
        H[np.diag_indices(len(H))] += 1e-13
        found = reference_l1._signed_quadratic(
            H, -(part.T @ y) / n / scale, np.full(len(H), l1) / scale, coef[columns] * scale
        )
        coef[:] = 0
        coef[columns] = found / scale
        columns = columns[coef[columns] != 0]
        say(f"reference: {np.count_nonzero(coef)} coefficients")
    intercept = np.mean(problem.y, dtype=np.float64) - problem.X.mean(axis=0, dtype=np.float64) @ coef
    value = objective(problem, coef, intercept)
    # Scaled until it is feasible, the residual bounds the optimum from below.
    residual = (y - X @ coef) / n
    slope = np.abs(X.T @ residual - ridge * coef).max()
    residual *= min(1.0, l1 / slope)
    lower = residual @ y - n / 2 * (residual @ residual) - ridge / 2 * (coef @ coef)
    return value, max(value - lower, 0.0)


class _Rows:
    """X with a column of ones, and below it a row for each coefficient under an L1 penalty, by products."""

    def __init__(self, problem):
        self.X, self.n = problem.X, len(problem.y)
        self.p = problem.X.shape[1]
        self.below = 2 * self.n * problem.alpha * problem.l1_ratio
        self.more = self.p if self.below else 0

    def times(self, theta):
        return np.r_[self.X @ theta[:-1] + theta[-1], self.below * theta[: self.more]]

    def transposed(self, d):
        out = np.r_[self.X.T @ d[: self.n], d[: self.n].sum()]
        out[: self.more] += self.below * d[self.n :]
        return out

    def gram(self, w):
        H = np.zeros((self.p + 1, self.p + 1))
        for start in range(0, self.n, BLOCK):
            part = slice(start, min(start + BLOCK, self.n))
            X = np.hstack([self.X[part], np.ones((part.stop - start, 1))])
            H += X.T @ (X * w[part][:, None])
        diagonal = np.arange(self.more)
        H[diagonal, diagonal] += self.below**2 * w[self.n :]
        return H


def _interior_point(problem, say):
    """Mehrotra's method on min q'u + (1 - q)'v + R theta^2 / 2, X theta + u - v = y, for the sum over rows.

    The dual variables d are those of the rows, in (q - 1, q).
    """
    X = _Rows(problem)
    y = np.r_[np.asarray(problem.y, np.float64), np.zeros(X.more)]
    q = np.r_[np.full(X.n, problem.parameter), np.full(X.more, 0.5)]
    ridge = np.r_[np.full(X.p, X.n * problem.alpha * (1 - problem.l1_ratio)), 0.0]
    theta = _start(problem)
    e = y - X.times(theta)
    spread = np.mean(np.abs(e))
    u, v = np.maximum(e, 0) + spread, np.maximum(-e, 0) + spread
    zu, zv = q.copy(), 1 - q
    best, lower = np.inf, -np.inf
    for iteration in range(150):
        d = q - zu
        value = objective(problem, theta[:-1], theta[-1])
        best = min(best, value)
        gap = float(u @ zu + v @ zv) / X.n
        lower = (float(y @ d) - float(ridge @ theta**2) / 2) / X.n
        if iteration % 10 == 0:
            say(f"reference: step {iteration + 1}, F = {value:.12g}, about {gap / value:.1e} to go")
        if gap <= 1e-12 * value:
            break
        w = 1 / (u / zu + v / zv)
        H = X.gram(w) + np.diag(ridge)
        scale = _scale(H)
        H = H * scale * scale[:, None]
        H[np.diag_indices(len(H))] += 1e-13
        try:
            factor = scipy.linalg.cho_factor(H)
        except np.linalg.LinAlgError:
            break
        rd, rp = X.transposed(d) - ridge * theta, y - X.times(theta) - u + v

        def direction(mu_u, mu_v):
            h = rp + u - v - mu_u / zu + mu_v / zv  # noqa: B023
            step = scale * scipy.linalg.cho_solve(factor, scale * (rd + X.transposed(w * h)))  # noqa: B023
            dd = w * (h - X.times(step))  # noqa: B023
            du = (mu_u + u * dd) / zu - u  # noqa: B023
            dv = (mu_v - v * dd) / zv - v  # noqa: B023
            return step, du, dv, dd

        _, du, dv, dd = direction(0.0, 0.0)
        length = _longest((u, du), (v, dv)), _longest((zu, -dd), (zv, dd))
        after = (u + length[0] * du) @ (zu - length[1] * dd) + (v + length[0] * dv) @ (zv + length[1] * dd)
        now = u @ zu + v @ zv
        mu = (after / now) ** 3 * now / (2 * len(y))
        step, du, dv, dd = direction(mu + du * dd, mu - dv * dd)
        lengths = [min(1.0, 0.9995 * x) for x in (_longest((u, du), (v, dv)), _longest((zu, -dd), (zv, dd)))]
        if ridge.any():
            lengths = [min(lengths)] * 2
        theta = theta + lengths[0] * step
        u, v = u + lengths[0] * du, v + lengths[0] * dv
        zu, zv = zu - lengths[1] * dd, zv + lengths[1] * dd
    return best, max(best - lower, 0.0)


def _longest(*pairs):
    """How far each of these may go without passing 0, at most 1."""
    worst = max(float((-step / at).max()) for at, step in pairs)
    return min(1.0, 1 / worst) if worst > 0 else 1.0
