"""pinball-qr: quantile regression by the Fortran of R's quantreg, an interior point.

It has no L2 penalty, in whose place it is asked for none. Its L1 penalty is right for the median alone, and
counts twice what ours does. Without a penalty it fails if columns are collinear; those that the others give
are left out beforehand, outside the timed part, in its favour.
"""

import dataclasses

import numpy as np
import scipy.linalg

from rivals.base import Job, Rival, tolerances


class Pinball(Rival):
    name = "pinball-qr"
    module = "pinball"
    packages = ("pinball-qr",)

    def regression_ways(self, problem, options):
        if problem.loss != "quantile":
            return ()
        if problem.alpha and problem.l1_ratio:
            return ("lasso",) if (problem.l1_ratio, problem.parameter) == (1, 0.5) else ()
        return ("fn", "pfn")

    def asked(self, problem, way):
        return problem if way == "lasso" else dataclasses.replace(problem, alpha=0.0)

    def regression_ladder(self, problem, way):
        return [{"eps": setting["tol"]} for setting in tolerances(-4, -12)]

    def regression_job(self, problem, way, setting):
        from pinball.linear.solvers.fnb import FNBSolver
        from pinball.linear.solvers.lasso import LassoSolver
        from pinball.linear.solvers.pfn import PreprocessingSolver

        X = np.column_stack([np.ones(len(problem.y)), problem.X])
        kept = np.arange(X.shape[1])
        if way == "lasso":
            twice = 2 * problem.alpha * len(problem.y)
            solver = LassoSolver(lambda_=twice, **(setting or {}))
        else:
            kept = _independent(X)
            solver = {"fn": FNBSolver, "pfn": PreprocessingSolver}[way](**(setting or {}))
        X = X[:, kept]

        def read(result):
            coef = np.zeros(problem.X.shape[1] + 1)
            coef[kept] = result.coefficients
            return {"coef": coef[1:], "intercept": coef[0], "n_iter": int(result.iterations)}

        return Job(lambda: solver.solve(X, problem.y, problem.parameter), read)


def _independent(X):
    """Columns, the first among them, that give all others."""
    gram = X.T @ X
    scale = 1 / np.sqrt(np.where(np.diag(gram) > 0, np.diag(gram), 1))
    kept = []
    for column in range(X.shape[1]):
        trial = np.ix_([*kept, column], [*kept, column])
        if scipy.linalg.eigvalsh((gram * scale * scale[:, None])[trial])[0] > 1e-10:
            kept.append(column)
    return np.array(kept)
