"""rehline: losses of linear and quadratic pieces, by coordinate descent on the dual.

Its intercept is the coefficient of a constant column, which the L2 penalty counts. Outside the timed part, in
its favour, X and y are centred, which leaves little for the intercept to do, and the column is so large that
its penalty is negligible, and no larger, because that costs it steps. It has no l1_ratio of 1, and slows down
near it; it is asked for ALMOST.
"""

import dataclasses

import numpy as np

from rivals.base import Job, Rival, tolerances

COLUMN = 30.0
ALMOST = 0.99


class Rehline(Rival):
    name = "rehline"
    module = "rehline"
    packages = ("rehline",)

    def regression_ways(self, problem, options):
        return ("dual descent",) if problem.loss in ("quantile", "huber") and problem.alpha else ()

    def asked(self, problem, way):
        return dataclasses.replace(problem, l1_ratio=min(problem.l1_ratio, ALMOST))

    def regression_ladder(self, problem, way):
        return tolerances(0, -8)

    def regression_job(self, problem, way, setting):
        from rehline import plqERM_ElasticNet, plqERM_Ridge

        middle, level = problem.X.mean(axis=0), float(np.median(problem.y))
        X, y = np.column_stack([problem.X - middle, np.full(len(problem.y), COLUMN)]), problem.y - level
        loss = {"name": "QR", "qt": problem.parameter}
        if problem.loss == "huber":
            loss = {"name": "huber", "tau": problem.parameter}
        given = {"C": 1 / (problem.alpha * len(y)), "max_iter": 100_000, **(setting or {})}
        if problem.l1_ratio:
            omega = np.append(np.ones(problem.X.shape[1]), 0.0)  # of the L1 penalty
            given |= {"omega": omega, "l1_ratio": self.asked(problem, way).l1_ratio}
        model = (plqERM_ElasticNet if problem.l1_ratio else plqERM_Ridge)(loss, **given)

        def read(model):
            coef = model.coef_[:-1]
            intercept = COLUMN * model.coef_[-1] + level - middle @ coef
            return {"coef": coef, "intercept": intercept, "n_iter": int(model.n_iter_)}

        return Job(lambda: model.fit(X, y), read)
