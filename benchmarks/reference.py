"""The one judge: objectives in float64 NumPy, and a long, precise run for the optimum of each problem.

Nothing here is shared with sklloss or with a rival.
"""

import hashlib
import json
import time

import kinds
import numpy as np
import reference_l1
import reference_regression
import scipy.linalg
import scipy.special
from threadpoolctl import threadpool_limits

BLOCK = 8192  # rows that are converted to float64 at a time
EXACT_UP_TO = 2000  # unknowns up to which the Hessian is formed; beyond it, conjugate gradients


def blocks(problem):
    n = problem.X.shape[0]
    for start in range(0, n, BLOCK):
        rows = slice(start, min(start + BLOCK, n))
        X = problem.X[rows]
        X = X.astype(np.float64) if problem.sparse else np.asarray(X, dtype=np.float64)
        weight = None if problem.weights is None else np.asarray(problem.weights[rows], dtype=np.float64)
        yield rows, X, problem.y[rows], weight


def _loss_and_probabilities(problem, raw, y):
    """Loss of each row, probabilities like raw, and the 0/1 target like raw."""
    if problem.objective == "softmax":
        target = np.zeros_like(raw)
        target[np.arange(len(y)), y] = 1
        shifted = raw - raw.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(shifted).sum(axis=1))
        return log_total - shifted[np.arange(len(y)), y], np.exp(shifted - log_total[:, None]), target
    target = np.asarray(y, dtype=np.float64).reshape(raw.shape)
    e = np.exp(-np.abs(raw))
    loss = np.log1p(e) + np.maximum(raw, 0) - target * raw
    return loss.sum(axis=1), np.where(raw >= 0, 1, e) / (1 + e), target


def objective(problem, coef, intercept):
    """C * sum_i w_i loss_i + penalty in float64, for coef (outputs, p) and intercept (outputs,)."""
    if getattr(problem, "device", "cpu") != "cpu":
        import reference_device  # which needs torch

        return reference_device.objective(problem, coef, intercept)
    if isinstance(problem, kinds.RegressionProblem):
        return reference_regression.objective(problem, coef, intercept)
    coef = np.asarray(coef, dtype=np.float64).reshape(problem.outputs, problem.X.shape[1])
    intercept = np.asarray(intercept, dtype=np.float64).reshape(problem.outputs)
    total = 0.0
    for _, X, y, weight in blocks(problem):
        loss, _, _ = _loss_and_probabilities(problem, X @ coef.T + intercept, y)
        total += float(loss.sum() if weight is None else loss @ weight)
    penalty = 0.5 * (1 - problem.l1_ratio) * float((coef * coef).sum())
    return problem.C * total + penalty + problem.l1_ratio * float(np.abs(coef).sum())


class Newton:
    """Damped Newton on theta of shape (p + 1, outputs), the last row being the intercept.

    Of an L1 penalty only `value` knows; the rest is of the smooth part.
    """

    def __init__(self, problem):
        self.problem = problem
        self.p = problem.X.shape[1]
        self.shape = (self.p + 1, problem.outputs)
        self.ridge = 1 - problem.l1_ratio

    def value(self, theta):
        return objective(self.problem, theta[:-1].T, theta[-1])

    def gradient(self, theta):
        """Gradient, and what the Hessian product needs: each row's probabilities and weight."""
        grad = np.zeros(self.shape)
        proba = np.empty((self.problem.X.shape[0], self.shape[1]))
        for rows, X, y, weight in blocks(self.problem):
            _, proba[rows], target = _loss_and_probabilities(self.problem, X @ theta[:-1] + theta[-1], y)
            error = self.problem.C * (proba[rows] - target)
            if weight is not None:
                error *= weight[:, None]
            grad[:-1] += X.T @ error
            grad[-1] += error.sum(axis=0)
        grad[:-1] += self.ridge * theta[:-1]
        return grad, proba

    def _curve(self, proba, direction):
        """The loss's curvature along a direction of raw scores, row by row."""
        if self.problem.objective == "softmax":
            return proba * (direction - (proba * direction).sum(axis=1, keepdims=True))
        return proba * (1 - proba) * direction

    def product(self, proba, v):
        out = np.zeros(self.shape)
        for rows, X, _, weight in blocks(self.problem):
            curved = self.problem.C * self._curve(proba[rows], X @ v[:-1] + v[-1])
            if weight is not None:
                curved *= weight[:, None]
            out[:-1] += X.T @ curved
            out[-1] += curved.sum(axis=0)
        out[:-1] += self.ridge * v[:-1]
        return out

    def hessian(self, proba):
        """(outputs, outputs, p + 1, p + 1); the zero blocks of independent outputs included."""
        q, K = self.shape
        H = np.zeros((K, K, q, q))
        for rows, X, _, weight in blocks(self.problem):
            X = np.hstack([X.toarray() if self.problem.sparse else X, np.ones((X.shape[0], 1))])
            P = proba[rows]
            scale = self.problem.C * (1.0 if weight is None else weight)
            for a in range(K):
                for b in range(a, K):
                    if a == b:
                        curve = P[:, a] * (1 - P[:, a])
                    elif self.problem.objective == "softmax":
                        curve = -P[:, a] * P[:, b]
                    else:
                        continue
                    H[a, b] += X.T @ (X * (scale * curve)[:, None])
        for a in range(K):
            H[a, a] += np.diag(np.r_[np.full(q - 1, self.ridge), 0.0])
            for b in range(a):
                H[a, b] = H[b, a].T
        if self.problem.objective == "softmax":
            # Adding a constant to all intercepts changes nothing: pin that direction.
            H[:, :, -1, -1] += max(1.0, abs(H[:, :, -1, -1]).max())
        return H

    def exact_step(self, grad, proba):
        q, K = self.shape
        H = self.hessian(proba).transpose(0, 2, 1, 3).reshape(K * q, K * q)
        scale = 1 / np.sqrt(np.diag(H))  # unscaled features: equilibrate before factoring
        H *= scale
        H *= scale[:, None]
        step = scale * scipy.linalg.solve(H, scale * grad.T.ravel(), assume_a="sym")
        return -step.reshape(K, q).T

    def cg_step(self, grad, proba, tol, preconditioner):
        x = np.zeros(self.shape)
        r = -grad
        z = preconditioner(r)
        d, rz = z, float((r * z).sum())
        start = np.linalg.norm(r)
        for _ in range(1000):
            Hd = self.product(proba, d)
            step = rz / float((d * Hd).sum())
            x += step * d
            r = r - step * Hd
            if np.linalg.norm(r) <= tol * start:
                break
            z = preconditioner(r)
            rz, old = float((r * z).sum()), rz
            d = z + rz / old * d
        return x

    def gram(self, proba):
        """C mean(p (1 - p)) X'X, with the intercept's column."""
        gram = np.zeros((self.p + 1, self.p + 1))
        for _, X, _, weight in blocks(self.problem):
            X = np.hstack([X, np.ones((X.shape[0], 1))])
            gram += X.T @ (X if weight is None else X * weight[:, None])
        return gram * (self.problem.C * float((proba * (1 - proba)).mean()))

    def gram_preconditioner(self, proba):
        """Factor mean(p (1 - p)) X'X + I once; it is close to every diagonal block of the Hessian."""
        gram = self.gram(proba)
        gram[np.diag_indices(self.p)] += 1
        gram[-1, -1] *= 1 + 1e-9
        factor = scipy.linalg.cho_factor(gram)
        return lambda r: scipy.linalg.cho_solve(factor, r)


def solve(problem, say=lambda line: None, limit=900.0):
    """Minimise with Newton steps until float64 has no more to give; return F and an estimate of F - F*."""
    # Two BLAS libraries' threads get into each other's way on small matrices.
    with threadpool_limits(1 if problem.X.shape[0] * problem.X.shape[1] < 1_000_000 else None):
        if isinstance(problem, kinds.RegressionProblem):
            return reference_regression.solve(problem, say)
        return (reference_l1.solve if problem.l1_ratio else _solve)(problem, say, limit)


def _solve(problem, say, limit):
    if getattr(problem, "device", "cpu") == "cpu":
        newton = Newton(problem)
    else:
        import reference_device  # which needs torch

        newton = reference_device.Newton(problem)
    exact = type(newton) is Newton and newton.shape[0] * newton.shape[1] <= EXACT_UP_TO and not problem.sparse
    theta = np.zeros(newton.shape)
    value, left, stalled = newton.value(theta), np.inf, 0
    begin = time.perf_counter()
    preconditioner = None
    for iteration in range(200):
        grad, proba = newton.gradient(theta)
        if exact:
            step = newton.exact_step(grad, proba)
        else:
            if problem.sparse:
                preconditioner = lambda r: r  # noqa: E731
            elif iteration % 4 == 0:
                preconditioner = newton.gram_preconditioner(proba)
            step = newton.cg_step(grad, proba, 0.1 if iteration < 4 else 0.02, preconditioner)
        slope = float((grad * step).sum())
        left = -slope / 2  # half the squared Newton decrement
        say(f"reference: step {iteration + 1}, F = {value:.12g}, about {left / value:.1e} to go")
        if left <= 1e-14 * value or time.perf_counter() - begin > limit:
            break
        length = 1.0
        trial = newton.value(theta + step)
        while trial > value + 1e-4 * length * slope and length > 1e-10:
            length /= 2
            trial = newton.value(theta + length * step)
        stalled = stalled + 1 if trial >= value * (1 - 1e-15) else 0
        if trial < value:
            theta, value = theta + length * step, trial
        if stalled >= 2:
            break
    return value, max(left, 0.0)


def _digest(problem):
    h = hashlib.blake2b(digest_size=12)
    X = problem.X
    parts = (X.data, X.indices, X.indptr) if problem.sparse else (X,)
    for part in (*parts, problem.y, problem.weights):
        if part is not None:
            h.update(f"{part.shape} {part.dtype}".encode())
            h.update(np.ascontiguousarray(part))
    h.update(problem.question.encode())
    return h.hexdigest()


class Optimum:
    """F* of a problem, kept on disk; `improve` lowers it if somebody did better."""

    def __init__(self, problem, folder, say):
        self.file = folder / "optima.json"
        digest = _digest(problem)
        self.key = f"{problem.name} {digest}"
        known = json.loads(self.file.read_text()) if self.file.is_file() else {}
        # the same data may go by another name
        self.key = next((key for key in known if key.endswith(f" {digest}")), self.key)
        if self.key in known:
            self.value, self.left = known[self.key]["F"], known[self.key]["left"]
        else:
            begin = time.perf_counter()
            self.value, self.left = solve(problem, say)
            say(f"reference: F* = {self.value:.12g} in {time.perf_counter() - begin:.1f} s")
            self._save()

    def _save(self):
        self.file.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(self.file.read_text()) if self.file.is_file() else {}
        known[self.key] = {"F": self.value, "left": self.left}
        draft = self.file.with_suffix(".tmp")
        draft.write_text(json.dumps(known, indent=1))
        draft.replace(self.file)

    def gap(self, value):
        return (value - self.value) / self.value

    def improve(self, value):
        """Take a lower F as F*; true if that changed F* by more than rounding."""
        if not value < self.value:
            return False
        notable = self.value - value > 1e-10 * self.value
        self.value = value
        self._save()
        return notable


def kernel_loss(case):
    """The loss of a kernel case, summed, in float64."""
    raw = case.raw.astype(np.float64)
    if case.codes is not None:
        shifted = raw - raw.max(axis=1, keepdims=True)
        log_p = shifted[np.arange(len(raw)), case.codes] - np.log(np.exp(shifted).sum(axis=1))
        if case.loss == "generalized_cross_entropy":
            return float(-(np.expm1(case.parameter * log_p) / case.parameter).sum())
        return float(-((1 - np.exp(log_p)) ** case.parameter * log_p).sum())
    y = case.target.astype(np.float64)
    d = raw - y
    size = np.abs(d)
    p = 1 / (1 + np.exp(-raw))
    each = {
        "log_loss": lambda: np.logaddexp(0, raw) - y * raw,
        "focal": lambda: np.where(y == 1, 1 - p, p) ** case.parameter * (np.logaddexp(0, raw) - y * raw),
        "half_squared_error": lambda: 0.5 * d**2,
        "absolute_error": lambda: size,
        "huber": lambda: np.where(
            size <= case.parameter, 0.5 * d**2, case.parameter * (size - 0.5 * case.parameter)
        ),
        "quantile": lambda: np.maximum((1 - case.parameter) * d, -case.parameter * d),
        "log_cosh": lambda: np.logaddexp(d, -d) - np.log(2),
        "poisson": lambda: np.exp(raw) - y * raw,
        "gamma": lambda: raw + y * np.exp(-raw),
        "tweedie": lambda: (
            np.exp((2 - case.parameter) * raw) / (2 - case.parameter)
            + y * np.exp((1 - case.parameter) * raw) / (case.parameter - 1)
        ),
        "squared_hinge": lambda: np.maximum(0, 1 - (2 * y - 1) * raw) ** 2,
    }
    return float(each[case.loss]().sum())


def network_loss(problem, coefs, intercepts):
    """The training loss of a relu network without its penalty, in float64.

    Half the mean squared error, or the cross-entropy.
    """
    layer = problem.X.astype(np.float64)
    for i, (W, b) in enumerate(zip(coefs, intercepts, strict=True)):
        layer = layer @ np.asarray(W, dtype=np.float64) + np.asarray(b, dtype=np.float64)
        if i < len(coefs) - 1:
            np.maximum(layer, 0, out=layer)
    if problem.loss == "cross_entropy":
        right = layer[np.arange(len(layer)), problem.y]
        return float(np.mean(scipy.special.logsumexp(layer, axis=1) - right))
    return float(0.5 * np.mean((layer.ravel() - problem.y.astype(np.float64)) ** 2))
