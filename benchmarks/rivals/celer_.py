"""celer: the Lasso, and L1 logistic regression by proximal Newton steps, on working sets chosen by duality.

Its logistic regression fits no intercept. A constant column of 100 takes its place, whose penalty is
negligible, so that the objective is the same; it is appended outside the timed part, in celer's favour. celer
itself copies CSR to CSC and rows to Fortran order; that is timed.
"""

import numpy as np
import scipy.sparse

from rivals.base import Job, Rival, read_linear, tolerances

COLUMN = 100.0


class Celer(Rival):
    name = "celer"
    module = "celer"
    packages = ("celer",)
    defaults = False

    def linear_ways(self, problem, options):
        if problem.l1_ratio != 1 or problem.objective == "softmax" or problem.weights is not None:
            return ()
        return ("celer-pn",)

    def linear_ladder(self, problem, way):
        return tolerances(-2, -9)

    def linear_job(self, problem, way, setting):
        from celer import LogisticRegression

        column = np.full((problem.X.shape[0], 1), COLUMN)
        X = (
            scipy.sparse.hstack([problem.X, column]).tocsr()
            if problem.sparse
            else np.hstack([problem.X, column])
        )
        Y = problem.y.reshape(len(column), -1)
        more = {} if setting is None else {"max_iter": 1000, **setting}

        def run():
            return [LogisticRegression(C=problem.C, **more).fit(X, y) for y in Y.T]

        def read(models):
            coef = np.vstack([model.coef_ for model in models])
            return {"coef": coef[:, :-1], "intercept": COLUMN * coef[:, -1], "n_iter": None}

        return Job(run, read)

    def regression_ways(self, problem, options):
        return ("Lasso",) if (problem.loss, problem.l1_ratio) == ("squared_error", 1) else ()

    def regression_ladder(self, problem, way):
        return tolerances(-2, -12)

    def regression_job(self, problem, way, setting):
        from celer import Lasso

        model = Lasso(alpha=problem.alpha, max_iter=1000, max_epochs=1_000_000, **(setting or {}))
        return Job(lambda: model.fit(problem.X, problem.y), read_linear)
