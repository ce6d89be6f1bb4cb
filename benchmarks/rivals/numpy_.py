"""NumPy and SciPy: the plain products that a pass over X is measured against."""

import numpy as np

from rivals.base import Job, Rival


class NumPy(Rival):
    name = "NumPy"
    module = "numpy"
    packages = ("numpy",)
    defaults = False

    def pass_ways(self, problem, options):
        return ("dsyrk of the weighted X",) if problem.kind == "hessian" else ("two products",)

    def pass_job(self, problem, way, setting):
        X = problem.X
        n, p = X.shape
        rng = np.random.default_rng(0)
        if problem.kind == "hessian":
            from scipy.linalg.blas import dsyrk

            weight = rng.random((n, 1))
            return Job(lambda: dsyrk(1.0, (X * np.sqrt(weight)).T), lambda found: {})
        coef = rng.standard_normal((p, problem.outputs)).astype(X.dtype)
        slopes = rng.standard_normal((n, problem.outputs)).astype(X.dtype)
        return Job(lambda: (X @ coef, slopes.T @ X), lambda found: {})
