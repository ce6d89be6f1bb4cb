"""The judge's work on a device of torch's, in float64, for tables that would keep a CPU busy for long."""

import numpy as np
import reference
import torch
from torch.nn import functional

BLOCK = 1 << 16  # rows that are converted to float64 at a time


def _blocks(problem):
    """Blocks of X and y on the device; they are kept there until another problem's are asked for."""
    if _kept.get("problem") is not problem:
        _kept.clear()
        X, y = (torch.from_numpy(a).to(problem.device) for a in (problem.X, problem.y))
        _kept.update(problem=problem, blocks=list(zip(X.split(BLOCK), y.split(BLOCK), strict=True)))
    return _kept["blocks"]


_kept = {}


def _put(array, device):
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64)).to(device)


def objective(problem, coef, intercept):
    """As `reference.objective`."""
    coef = np.asarray(coef, dtype=np.float64).reshape(problem.outputs, problem.X.shape[1])
    W = _put(coef.T, problem.device)
    b = _put(np.asarray(intercept).reshape(problem.outputs), problem.device)
    total = 0.0
    for X, y in _blocks(problem):
        raw = X.double() @ W + b
        if problem.objective == "softmax":
            total += float(functional.cross_entropy(raw, y, reduction="sum"))
        else:
            y = y.double().reshape(raw.shape)
            total += float(functional.binary_cross_entropy_with_logits(raw, y, reduction="sum"))
    return problem.C * total + 0.5 * float((coef * coef).sum())


class Newton(reference.Newton):
    """As `reference.Newton`, for conjugate gradients; the rows' probabilities stay on the device."""

    def value(self, theta):
        return objective(self.problem, theta[:-1].T, theta[-1])

    def gradient(self, theta):
        W, b = _put(theta[:-1], self.problem.device), _put(theta[-1], self.problem.device)
        parts = []

        def slopes(raw, y):
            if self.problem.objective == "softmax":
                parts.append(torch.softmax(raw, dim=1))
                return parts[-1] - functional.one_hot(y, raw.shape[1])
            parts.append(torch.sigmoid(raw))
            return parts[-1] - y.reshape(raw.shape)

        gradient = self._scatter(lambda i, X, y: slopes(X @ W + b, y))
        gradient[:-1] += theta[:-1]
        return gradient, parts

    def product(self, proba, v):
        W, b = _put(v[:-1], self.problem.device), _put(v[-1], self.problem.device)
        product = self._scatter(lambda i, X, y: self._turned(proba[i], X @ W + b))
        product[:-1] += v[:-1]
        return product

    def _turned(self, p, direction):
        if self.problem.objective == "softmax":
            return p * (direction - (p * direction).sum(dim=1, keepdim=True))
        return p * (1 - p) * direction

    def _scatter(self, slopes_of):
        """C times the sum of the rows times what a function of block, rows and targets says of each."""
        total = torch.zeros(self.shape, dtype=torch.float64, device=self.problem.device)
        for i, (X, y) in enumerate(_blocks(self.problem)):
            X = X.double()
            slopes = slopes_of(i, X, y)
            total[:-1] += X.T @ slopes
            total[-1] += slopes.sum(dim=0)
        return self.problem.C * total.cpu().numpy()

    def gram(self, proba):
        total = torch.zeros((self.p + 1, self.p + 1), dtype=torch.float64, device=self.problem.device)
        for X, _ in _blocks(self.problem):
            X = functional.pad(X.double(), (0, 1), value=1.0)
            total += X.T @ X
        bend = sum(float((p * (1 - p)).sum()) for p in proba) / sum(p.numel() for p in proba)
        return self.problem.C * bend * total.cpu().numpy()
