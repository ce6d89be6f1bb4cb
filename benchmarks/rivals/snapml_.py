"""IBM Snap ML: binary logistic regression by parallel coordinate descent, dual or primal.

It penalises the intercept. So that the same objective can be reached, a constant column of 10 makes that
penalty 100 times smaller; the judge evaluates the true objective. Primal fits get no intercept from the
library at all, so they are handed the column with X, outside the timed part, in its favour. Its
several-class model is one-vs-rest, another objective than softmax.
"""

import os

import numpy as np

from rivals.base import Job, Rival, tolerances

COLUMN = 10.0


class SnapML(Rival):
    name = "snapml"
    module = "snapml"
    packages = ("snapml",)

    def linear_ways(self, problem, options):
        if problem.objective != "binary" or problem.weights is not None or problem.sparse:
            return ()
        if problem.l1_ratio:
            return ("primal, own intercept column",)
        if options["quick"]:
            return ("dual",)
        return ("dual", "dual, larger intercept column", "primal, own intercept column")

    def linear_ladder(self, problem, way):
        return tolerances(-2, -9)

    def linear_job(self, problem, way, setting):
        from snapml import LogisticRegression

        primal = way.startswith("primal")
        column = COLUMN if "column" in way else 1.0
        p = problem.X.shape[1]
        X = np.hstack([problem.X, np.full_like(problem.X[:, :1], column)]) if primal else problem.X
        given = {"intercept_scaling": column, **({} if setting is None else {"max_iter": 20_000, **setting})}

        def run():
            return LogisticRegression(
                regularizer=1 / problem.C,
                dual=not primal,
                fit_intercept=not primal,
                penalty="l1" if problem.l1_ratio else "l2",
                n_jobs=len(os.sched_getaffinity(0)),
                **given,
            ).fit(X, problem.y)

        def read(model):
            coef = np.ravel(model.coef_)
            intercept = coef[p:] if primal else np.ravel(model.intercept_)
            return {"coef": coef[:p], "intercept": column * intercept, "n_iter": None}

        return Job(run, read)
