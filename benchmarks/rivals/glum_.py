"""glum: generalised linear models by iteratively reweighted least squares."""

from rivals.base import Job, Rival, read_linear, tolerances


class Glum(Rival):
    name = "glum"
    module = "glum"
    packages = ("glum",)

    def regression_ways(self, problem, options):
        return ("auto",) if problem.loss in ("poisson", "gamma") else ()

    def regression_ladder(self, problem, way):
        return [{"gradient_tol": setting["tol"]} for setting in tolerances(-2, -10)]

    def regression_job(self, problem, way, setting):
        from glum import GeneralizedLinearRegressor

        given = {"alpha": problem.alpha, "l1_ratio": problem.l1_ratio, "max_iter": 1000, **(setting or {})}
        model = GeneralizedLinearRegressor(family=problem.loss, **given)
        return Job(lambda: model.fit(problem.X, problem.y), read_linear)
