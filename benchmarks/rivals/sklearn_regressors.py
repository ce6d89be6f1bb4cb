"""scikit-learn's regressors, one for each loss and penalty."""

import dataclasses

from rivals.base import Job, read_linear, tolerances

FEW = 20_000  # rows that QuantileRegressor gets, whose linear programme takes minutes for more


class Regressors:
    """The methods for regressions, of `ScikitLearn`."""

    def regression_ways(self, problem, options):
        if problem.loss == "squared_error":
            if not problem.l1_ratio:
                return ("Ridge cholesky",)
            name = "Lasso" if problem.l1_ratio == 1 else "ElasticNet"
            tall = problem.X.shape[0] > problem.X.shape[1]
            return (name, f"{name} precompute") if tall else (name,)
        if problem.loss == "quantile" and problem.alpha:
            more = problem.l1_ratio == 1 and FEW < len(problem.y) < 100_000
            return ("QuantileRegressor", "QuantileRegressor on all rows")[: 1 + more]
        return {
            "quantile": (),
            "poisson": ("newton-cholesky",),
            "gamma": ("newton-cholesky",),
            "huber": ("HuberRegressor",),
            "log_cosh": ("HuberRegressor",),
        }[problem.loss]

    def asked(self, problem, way):
        """QuantileRegressor penalises by L1, and gets few rows; HuberRegressor fits a scale too."""
        if way == "HuberRegressor":
            return None
        if way == "QuantileRegressor on all rows":
            return problem
        if way == "QuantileRegressor":
            X, y = problem.X[:FEW], problem.y[:FEW]
            return dataclasses.replace(problem, X=X, y=y, l1_ratio=1.0)
        return problem

    def regression_ladder(self, problem, way):
        if way.startswith("QuantileRegressor") or way.startswith("Ridge"):
            return [{}]
        if way == "HuberRegressor":
            return [{"max_iter": 1000}]
        return tolerances(-1, -12)

    def regression_job(self, problem, way, setting):
        from sklearn import linear_model

        asked = self.asked(problem, way) or problem
        given = {"alpha": problem.alpha, **(setting or {})}
        if "tol" in given:
            given["max_iter"] = 1_000_000
        if way == "Ridge cholesky":
            model = linear_model.Ridge(alpha=problem.alpha * len(problem.y), solver="cholesky")
        elif way.startswith("QuantileRegressor"):
            model = linear_model.QuantileRegressor(quantile=problem.parameter, **given)
        elif way == "HuberRegressor":
            model = linear_model.HuberRegressor(**given)
        elif way == "newton-cholesky":
            model = self._generalized(problem)(solver=way, **given)
        else:  # with a Gram matrix, or without
            precompute = way.endswith("precompute")
            model = linear_model.ElasticNet(l1_ratio=problem.l1_ratio, precompute=precompute, **given)
        return Job(lambda: model.fit(asked.X, asked.y), read_linear)

    def _generalized(self, problem):
        from sklearn import linear_model

        return {"poisson": linear_model.PoissonRegressor, "gamma": linear_model.GammaRegressor}[problem.loss]

    def regression_path_ways(self, problem, options):
        return ("GridSearchCV",) if problem.loss in ("poisson", "gamma") else ()

    def regression_path_ladder(self, problem, way):
        return tolerances(-4, -8)

    def regression_path_job(self, problem, way, setting):
        from sklearn.model_selection import GridSearchCV

        model = self._generalized(problem)(solver="newton-cholesky", max_iter=1000, **(setting or {}))
        scoring = f"neg_mean_{problem.loss}_deviance"
        search = GridSearchCV(model, {"alpha": problem.alphas}, cv=problem.folds, scoring=scoring)
        return Job(lambda: search.fit(problem.X, problem.y), lambda done: read_linear(done.best_estimator_))
