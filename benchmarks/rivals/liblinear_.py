"""liblinear's own package: the primal trust-region Newton with an unpenalised bias (option -R).

Its data structure is built outside the timed part, in its favour. scikit-learn's copy of liblinear penalises the
intercept, which is another objective.
"""

import numpy as np
from rivals.base import Job, Rival, tolerances


class Liblinear(Rival):
    name = "liblinear"
    module = "liblinear"
    packages = ("liblinear-official",)

    def linear_ways(self, problem, options):
        return ("primal Newton",) if problem.objective == "binary" and problem.weights is None else ()

    def linear_ladder(self, problem, way):
        return tolerances(-2, -9)

    def linear_job(self, problem, way, setting):
        import scipy.sparse
        from liblinear.liblinearutil import parameter, train
        from liblinear.liblinearutil import problem as Data

        # bias=1 appends the constant column
        data = Data(problem.y.astype(float), scipy.sparse.csr_matrix(problem.X.astype(float)), bias=1)
        tol = "" if setting is None else f"-e {setting['tol']:g} "
        option = parameter(f"-s 0 -R -B 1 -c {problem.C!r} {tol}-q")

        def read(model):
            coef, bias = model.get_decfun()
            sign = 1 if model.get_labels()[0] == 1 else -1
            return {"coef": sign * np.array(coef), "intercept": [sign * bias], "n_iter": None}

        return Job(lambda: train(data, option), read)
