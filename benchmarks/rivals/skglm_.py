"""skglm: the Lasso, and L1 logistic regression by proximal Newton steps, on working sets, compiled by numba.

Its first use compiles for a minute, which is not timed. It converts CSR to CSC and rows to Fortran order
itself, which is timed.
"""

import dataclasses
import warnings

from rivals.base import Job, Rival, fit_and_read, read_linear, tolerances


class Skglm(Rival):
    name = "skglm"
    module = "skglm"
    packages = ("skglm",)
    defaults = False

    def linear_ways(self, problem, options):
        if problem.l1_ratio != 1 or problem.objective == "softmax" or problem.weights is not None:
            return ()
        return ("proximal Newton",)

    def linear_ladder(self, problem, way):
        self._compile(problem, self.linear_job)
        return tolerances(-2, -9)

    def linear_job(self, problem, way, setting):
        from skglm import SparseLogisticRegression

        alpha = 1 / (problem.C * problem.X.shape[0])
        more = {} if setting is None else {"max_iter": 1000, "max_epochs": 100_000, **setting}
        return fit_and_read(problem, lambda: SparseLogisticRegression(alpha, **more))

    def regression_ways(self, problem, options):
        return ("Lasso",) if (problem.loss, problem.l1_ratio) == ("squared_error", 1) else ()

    def regression_ladder(self, problem, way):
        self._compile(problem, self.regression_job)
        return tolerances(-2, -12)

    def regression_job(self, problem, way, setting):
        from skglm import Lasso

        more = {} if setting is None else {"max_iter": 1000, "max_epochs": 1_000_000, **setting}
        model = Lasso(problem.alpha, **more)
        return Job(lambda: model.fit(problem.X, problem.y), read_linear)

    @staticmethod
    def _compile(problem, job):
        """Fit a few rows, outside any time limit."""
        few = slice(0, 1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            job(dataclasses.replace(problem, X=problem.X[few], y=problem.y[few]), "", None).run()
