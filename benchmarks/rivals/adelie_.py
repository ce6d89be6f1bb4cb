"""adelie: the Lasso and the elastic net by coordinate descent with screening, for one penalty."""

import machine
import numpy as np

from rivals.base import Job, Rival, tolerances


class Adelie(Rival):
    name = "adelie"
    module = "adelie"
    packages = ("adelie",)

    def regression_ways(self, problem, options):
        return ("grpnet",) if problem.loss == "squared_error" and problem.l1_ratio else ()

    def regression_ladder(self, problem, way):
        return tolerances(-3, -14)

    def regression_job(self, problem, way, setting):
        import adelie

        X, y = np.asfortranarray(problem.X), np.asarray(problem.y, np.float64)
        given = {"lmda_path": [problem.alpha], "alpha": problem.l1_ratio, "early_exit": False}
        given |= {"n_threads": machine.CPUS, "progress_bar": False, **(setting or {})}

        def read(state):
            coef = np.asarray(state.betas.toarray()).ravel()
            return {"coef": coef, "intercept": state.intercepts[0], "n_iter": None}

        return Job(lambda: adelie.grpnet(X, adelie.glm.gaussian(y), **given), read)
