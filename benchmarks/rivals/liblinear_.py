"""liblinear's own package, with an unpenalised bias (option -R): the primal Newton method, for L1 newGLMNET.

Its Python layer copies the data into a structure of its own; both are timed, with the copy and, in its
favour, with the structure prepared outside the timed part. scikit-learn's copy of liblinear penalises the
intercept, which is another objective.
"""

import numpy as np

from rivals.base import Job, Rival, tolerances


class Liblinear(Rival):
    name = "liblinear"
    module = "liblinear"
    packages = ("liblinear-official",)

    def linear_ways(self, problem, options):
        if problem.objective != "binary" or problem.weights is not None:
            return ()
        way = "newGLMNET" if problem.l1_ratio else "primal Newton"
        return (way,) if options["quick"] else (way, f"{way}, data prepared")

    def linear_ladder(self, problem, way):
        return tolerances(-2, -9)

    def linear_job(self, problem, way, setting):
        from liblinear import liblinearutil
        from scipy.sparse import csr_matrix

        def copy():  # bias=1 appends the constant column
            X = csr_matrix(problem.X.astype(float, copy=False))
            return liblinearutil.problem(problem.y.astype(float), X, bias=1)

        solver = 6 if problem.l1_ratio else 0
        tol = "" if setting is None else f"-e {setting['tol']:g} "
        option = liblinearutil.parameter(f"-s {solver} -R -B 1 -c {problem.C!r} {tol}-q")
        data = copy() if way.endswith("prepared") else None

        def read(model):
            coef, bias = model.get_decfun()
            sign = 1 if model.get_labels()[0] == 1 else -1
            return {"coef": sign * np.array(coef), "intercept": [sign * bias], "n_iter": None}

        return Job(lambda: liblinearutil.train(copy() if data is None else data, option), read)
