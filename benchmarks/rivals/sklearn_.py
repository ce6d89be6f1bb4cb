"""scikit-learn: LogisticRegression with every solver, the regressors, MLPRegressor, and the losses."""

import importlib.util

import numpy as np

from rivals.base import (
    NEWTON_CHOLESKY_UP_TO,
    Job,
    Rival,
    fit_and_read,
    fit_path,
    network_of,
    network_search,
    on_device,
    predict_one,
    read_linear,
    read_network,
    read_search,
    tolerances,
)
from rivals.sklearn_regressors import Regressors

COLUMN = 100.0  # liblinear's column for the intercept


class ScikitLearn(Regressors, Rival):
    name = "scikit-learn"
    module = "sklearn"
    packages = ("scikit-learn",)

    def kernel_ways(self, case, options):
        absent = ("focal", "softmax_focal", "generalized_cross_entropy", "log_cosh", "squared_hinge")
        return () if case.loss in absent else ("_loss",)

    def kernel_job(self, case, way, setting):
        import sklearn._loss as theirs

        one = case.raw.shape[1] == 1
        raw = case.raw.ravel() if one else case.raw
        make = {
            "cross_entropy": lambda: theirs.HalfMultinomialLoss(n_classes=case.raw.shape[1]),
            "log_loss": theirs.HalfBinomialLoss,
            "half_squared_error": theirs.HalfSquaredError,
            "absolute_error": theirs.AbsoluteError,
            "huber": lambda: theirs.HuberLoss(delta=case.parameter),
            "quantile": lambda: theirs.PinballLoss(quantile=case.parameter),
            "poisson": theirs.HalfPoissonLoss,
            "gamma": theirs.HalfGammaLoss,
            "tweedie": lambda: theirs.HalfTweedieLoss(power=case.parameter),
        }
        loss = make[case.loss]()
        y = case.codes.astype(raw.dtype) if case.target is None else case.target.ravel()
        loss_out, gradient_out = np.empty(len(raw), raw.dtype), np.empty_like(raw)
        return Job(
            lambda: loss.loss_gradient(y, raw, loss_out=loss_out, gradient_out=gradient_out, n_threads=1),
            lambda _: {"loss": float(loss_out.sum(dtype=np.float64))},
        )

    def _classifier(self):
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression

    def linear_ways(self, problem, options):
        if problem.l1_ratio:
            return ("saga",) if problem.objective == "softmax" else ("saga", "liblinear")
        if options["quick"]:
            return ("lbfgs", "newton-cholesky" if problem.outputs == 1 else "newton-cg")
        ways = ["lbfgs", "newton-cg"]
        if problem.unknowns <= NEWTON_CHOLESKY_UP_TO and not problem.sparse:
            ways.append("newton-cholesky")
        if problem.sparse:
            ways.append("saga")
        return tuple(ways)

    def default_ways(self, problem, options):
        ways = self.linear_ways(problem, options)
        return (*ways, "liblinear") if ways and problem.outputs == 1 and not options["quick"] else ways

    def linear_ladder(self, problem, way):
        if way == "lbfgs":
            return tolerances(-2, -12)
        return tolerances(0, -9)

    def linear_job(self, problem, way, setting):
        Classifier = self._classifier()
        given = {"C": problem.C}
        if setting is not None:
            given["solver"] = way
        if setting:
            given |= {"max_iter": 100_000, **setting}
        if problem.l1_ratio:
            given["l1_ratio"] = problem.l1_ratio
        if way == "liblinear" and setting:
            # It penalises the intercept: of a column this large, next to nothing.
            given["intercept_scaling"] = COLUMN
        return fit_and_read(problem, lambda: Classifier(**given))

    def path_ways(self, problem, options):
        return ("lbfgs", "newton-cg", "newton-cholesky")

    path_ladder = linear_ladder

    def path_job(self, problem, way, setting):
        from sklearn.linear_model import LogisticRegressionCV

        given = {"max_iter": 100_000, **(setting or {})}
        return fit_path(
            problem, LogisticRegressionCV, solver=way, l1_ratios=(0,), use_legacy_attributes=False, **given
        )

    def predict_ways(self, problem, options):
        return ("predict_proba",)

    def predict_job(self, problem, way, setting):
        return predict_one(problem, self._classifier()())

    def search_ways(self, problem, options):
        return ("defaults",)

    def search_job(self, problem, way, setting):
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV

        search = GridSearchCV(LogisticRegression(), {"C": problem.Cs}, cv=problem.folds)
        return Job(lambda: search.fit(problem.X, problem.y), read_search)

    def network_search_ways(self, problem, options):
        return ("adam",)

    def network_search_job(self, problem, way, setting):
        from sklearn.neural_network import MLPRegressor

        return network_search(problem, MLPRegressor)

    def network_ways(self, problem, options):
        return ("adam",)

    def network_job(self, problem, way, setting):
        from sklearn import neural_network

        classes = problem.loss == "cross_entropy"
        Network = neural_network.MLPClassifier if classes else neural_network.MLPRegressor
        return Job(lambda: network_of(problem, setting, Network).fit(problem.X, problem.y), read_network)


class ScikitLearnOneThread(ScikitLearn):
    """scikit-learn with BLAS held to one thread: what a user gets who knows to ask for it, in a search."""

    name = "scikit-learn-1-blas-thread"
    env = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "BLIS_NUM_THREADS": "1"}  # noqa: RUF012
    kernel_ways = linear_ways = network_ways = predict_ways = staticmethod(lambda problem, options: ())
    regression_ways = regression_path_ways = kernel_ways


class ScikitLearnArrays(Rival):
    """scikit-learn's LogisticRegression on torch's tensors, which lie on the device before the clock runs."""

    name = "scikit-learn-array-api"
    module = "sklearn"
    packages = ("scikit-learn",)
    env = {"SCIPY_ARRAY_API": "1"}  # noqa: RUF012
    defaults = False

    def absent(self):
        return "torch is not installed" if importlib.util.find_spec("torch") is None else super().absent()

    def start(self):
        import sklearn
        import torch  # noqa: F401

        sklearn.set_config(array_api_dispatch=True)

    def device_linear_ways(self, problem, options):
        return ("lbfgs",)

    def device_linear_ladder(self, problem, way):
        return tolerances(-2, -9)

    def device_linear_job(self, problem, way, setting):
        import torch
        from sklearn.linear_model import LogisticRegression

        X, y = torch.from_numpy(problem.X).to(problem.device), torch.from_numpy(problem.y).to(problem.device)
        model = LogisticRegression(C=problem.C, max_iter=100_000, **setting)
        return on_device(problem.device, lambda: model.fit(X, y), read_linear)

    kernel_ways = linear_ways = search_ways = network_ways = predict_ways = staticmethod(
        lambda problem, options: ()
    )
    network_search_ways = device_network_ways = kernel_ways
