"""Newton's method for L1 whose quadratic models are solved by coordinate descent over the Gram matrix.

This is how the solver "newton-cd-gram" works that scikit-learn 1.10 will have. Until it is released, the
steps are made here from scikit-learn's public `enet_path`, to which the weighted Gram matrix is passed.
"""

import types

import numpy as np

from rivals.base import Job, Rival, read_linear, tolerances

MAX_STEPS = 50
HALVINGS = 20


class GramDescent(Rival):
    name = "Gram descent"
    module = "sklearn"
    packages = ("scikit-learn",)
    defaults = False

    def linear_ways(self, problem, options):
        """Its only way, for a dense X with far more rows than columns."""
        rows, columns = problem.X.shape
        fits = problem.objective == "binary" and not problem.sparse and problem.weights is None
        return ("enet_path",) if fits and problem.l1_ratio == 1 and rows >= 20 * columns else ()

    def linear_ladder(self, problem, way):
        """The last decrease at which it stops, relative to the objective."""
        return tolerances(-2, -10)

    def linear_job(self, problem, way, setting):
        """A fit, from the arrays to the coefficients."""
        from scipy.special import expit
        from sklearn.linear_model import enet_path

        X, y, alpha = problem.X, problem.y.astype(float), 1 / problem.C
        tol = (setting or {"tol": 1e-6})["tol"]

        def value(raw, w):
            return np.logaddexp(0, raw).sum() - y @ raw + alpha * np.abs(w).sum()

        def step(w, b, raw):
            """The minimum of the quadratic model at w, b, whose intercept the weighted means eliminate."""
            p = expit(raw)
            weight = p * (1 - p)
            total = weight.sum()
            wanted = raw + (y - p) / weight
            mean, wanted_mean = weight @ X / total, weight @ wanted / total
            root = np.sqrt(weight)
            scaled = (X - mean) * root[:, None]
            target = (wanted - wanted_mean) * root
            _, path, _ = enet_path(
                scaled, target, l1_ratio=1.0, alphas=[alpha / len(X)], precompute=scaled.T @ scaled,
                Xy=scaled.T @ target, coef_init=w, tol=1e-3 * tol, max_iter=10_000, check_input=False,
            )  # fmt: skip
            ahead = path[:, 0]
            return ahead, wanted_mean - mean @ ahead

        def run():
            w, b = np.zeros(X.shape[1]), 0.0
            raw = np.zeros(len(X))
            before = value(raw, w)
            for _ in range(MAX_STEPS):
                ahead, b_ahead = step(w, b, raw)
                raw_ahead = X @ ahead + b_ahead
                length = 1.0
                for _ in range(HALVINGS):
                    at, raw_at = w + length * (ahead - w), raw + length * (raw_ahead - raw)
                    after = value(raw_at, at)
                    if after <= before:
                        break
                    length /= 2
                w, b, raw = at, b + length * (b_ahead - b), raw_at
                if before - after <= tol * abs(after):
                    break
                before = after
            return types.SimpleNamespace(coef_=w[None], intercept_=np.array([b]), n_iter_=[])

        return Job(run, read_linear)
