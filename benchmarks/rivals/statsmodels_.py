"""statsmodels: quantile regression by iteratively reweighted least squares.

It has no penalty, so that it is asked for none. Standard errors are part of its fit.
"""

import dataclasses

import numpy as np

from rivals.base import Job, Rival


class Statsmodels(Rival):
    name = "statsmodels"
    module = "statsmodels"
    packages = ("statsmodels",)

    def regression_ways(self, problem, options):
        return ("QuantReg",) if problem.loss == "quantile" else ()

    def asked(self, problem, way):
        return dataclasses.replace(problem, alpha=0.0)

    def regression_ladder(self, problem, way):
        return [{"p_tol": 1e-4}, {"p_tol": 1e-6}]

    def regression_job(self, problem, way, setting):
        from statsmodels.regression.quantile_regression import QuantReg

        X = np.column_stack([np.ones(len(problem.y)), problem.X])

        def read(result):
            return {"coef": result.params[1:], "intercept": result.params[0], "n_iter": None}

        return Job(lambda: QuantReg(problem.y, X).fit(q=problem.parameter, **(setting or {})), read)
