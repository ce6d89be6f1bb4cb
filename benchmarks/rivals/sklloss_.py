"""sklloss itself: the base of every ratio."""

import importlib.util
import io
import sys
from pathlib import Path

import numpy as np

from rivals.base import (
    NEWTON_CHOLESKY_UP_TO,
    Job,
    Rival,
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


class Sklloss(Rival):
    name = "sklloss"
    module = "sklloss"
    packages = ("scikit-learn",)

    def absent(self):
        self._find()
        if importlib.util.find_spec("sklloss") is None:
            return "sklloss is neither installed nor built in place"
        return None

    def start(self):
        self._find()
        import sklloss  # noqa: F401

    @staticmethod
    def _find():
        """An installed sklloss wins; else the tree that this file is in, if built in place."""
        if importlib.util.find_spec("sklloss") is None:
            sys.path.append(str(Path(__file__).resolve().parents[2]))

    def about(self):
        import sklloss
        from sklloss import kernels

        said = super().about()
        said["sklloss"] = getattr(sklloss, "__version__", "unknown")
        said["kernels"] = f"{kernels.chosen} ({kernels.reason})"
        return said

    def kernel_ways(self, case, options):
        from sklloss import kernels

        others = [build for build in kernels.available() if build != kernels.chosen]
        # The first also writes each row's loss, as scikit-learn does; torch, like a fit, makes the sum only.
        return (kernels.chosen, f"{kernels.chosen}, sum only", *(others if options["builds"] else ()))

    def kernel_job(self, case, way, setting):
        from sklloss import kernels

        name = {"half_squared_error": "squared_error"}.get(case.loss, case.loss)
        kernel = kernels.table_of(way.split(",")[0])[name, case.raw.dtype.name]
        raw = case.raw.copy()
        per_sample = None if way.endswith("sum only") else np.empty(len(raw), raw.dtype)
        evaluate, target, codes = kernels.evaluate, case.target, case.codes
        return Job(
            # The kernel works in place; the scores are put back outside the timed part.
            setup=lambda: np.copyto(raw, case.raw),
            run=lambda: evaluate(kernel, raw, target, codes, None, case.parameter, per_sample),
            read=lambda total: {
                "loss": total if per_sample is None else float(per_sample.sum(dtype=np.float64))
            },
        )

    def pass_ways(self, problem, options):
        return (problem.kind,)

    def pass_job(self, problem, way, setting):
        from sklloss import losses
        from sklloss.arrays.threads import single_threaded_blas
        from sklloss.data.dataset import Dataset
        from sklloss.objectives.passes import make_passes

        X, y, K = problem.X, problem.y, problem.outputs
        if K == 1:
            data, loss = Dataset(X, y.astype(X.dtype)[:, None], None, None, 1), losses.LogLoss()
        else:
            data, loss = Dataset(X, None, y.astype(np.intp), None, K), losses.CrossEntropy()
        passes = make_passes(data, loss, fit_intercept=True, n_threads=None)
        coef = np.random.default_rng(0).standard_normal((K, X.shape[1] + 1)) / np.sqrt(X.shape[1])
        passes.value_and_gradient(coef, keep_curvature=True)
        run = {
            "gradient": lambda: passes.value_and_gradient(coef, keep_curvature=True),
            "product": lambda: passes.product(coef),
            "hessian": lambda: passes.hessian(coef),
        }[problem.kind]
        return Job(single_threaded_blas()(run), lambda found: {})

    def _classifier(self, objective):
        import sklloss

        return sklloss.SoftmaxClassifier if objective == "softmax" else sklloss.LogisticClassifier

    def linear_ways(self, problem, options):
        if options["quick"] or problem.l1_ratio:
            return ("auto",)
        small = problem.unknowns <= NEWTON_CHOLESKY_UP_TO
        return ("auto", "lbfgs", "newton-cholesky") if small else ("auto", "lbfgs")

    def linear_ladder(self, problem, way):
        return tolerances(-1, -12)

    def linear_job(self, problem, way, setting):
        Classifier = self._classifier(problem.objective)
        given = {"C": problem.C}
        if setting is not None:
            given["solver"] = way
        if setting:
            given |= {"max_iter": 100_000, **setting}
        if problem.l1_ratio:
            given["l1_ratio"] = problem.l1_ratio
        return Job(lambda: Classifier(**given).fit(problem.X, problem.y, problem.weights), read_linear)

    def path_ways(self, problem, options):
        return ("auto",)

    path_ladder = linear_ladder

    def path_job(self, problem, way, setting):
        import sklloss

        return fit_path(problem, sklloss.SoftmaxClassifierCV, **(setting or {}))

    def regression_ways(self, problem, options):
        return ("auto",)

    def regression_ladder(self, problem, way):
        """The defaults first, which promise a gap of 1e-6; a tighter tol only where they do not keep it."""
        return [{}, *tolerances(-5, -12)]

    def _regression(self, problem):
        from sklloss import losses

        return {
            "squared_error": losses.HalfSquaredError,
            "huber": lambda: losses.Huber(problem.parameter),
            "log_cosh": losses.LogCosh,
            "quantile": lambda: losses.Quantile(problem.parameter),
            "poisson": losses.Poisson,
            "gamma": losses.Gamma,
        }[problem.loss]()

    def regression_job(self, problem, way, setting):
        import sklloss

        given = {"alpha": problem.alpha, "l1_ratio": problem.l1_ratio, **(setting or {})}
        model = sklloss.LinearRegressor(self._regression(problem), **given)
        return Job(lambda: model.fit(problem.X, problem.y), read_linear)

    regression_path_ways = regression_ways
    regression_path_ladder = regression_ladder

    def regression_path_job(self, problem, way, setting):
        import sklloss

        given = {"alphas": problem.alphas, "cv": problem.folds, **(setting or {})}
        model = sklloss.LinearRegressorCV(self._regression(problem), **given)
        return Job(lambda: model.fit(problem.X, problem.y), read_linear)

    def predict_ways(self, problem, options):
        return ("predict_proba",)

    def predict_job(self, problem, way, setting):
        return predict_one(problem, self._classifier(problem.objective)())

    def search_ways(self, problem, options):
        return ("defaults",)

    def search_job(self, problem, way, setting):
        from sklearn.model_selection import GridSearchCV

        search = GridSearchCV(self._classifier(problem.objective)(), {"C": problem.Cs}, cv=problem.folds)
        return Job(lambda: search.fit(problem.X, problem.y), read_search)

    def command_job(self, problem, way, setting):
        """Our side of ``python -m sklloss``, to be counted, not timed."""
        from sklloss import __main__ as command

        spec, progress = command.PROBLEMS[problem.dataset], command.Progress(io.StringIO())
        data = command.load(spec)
        return Job(lambda: command.tune(spec, "sklloss", spec.ours, data, False, progress), None)

    def network_search_ways(self, problem, options):
        return ("adam",)

    def network_search_job(self, problem, way, setting):
        import sklloss

        return network_search(problem, sklloss.MLPRegressor)

    def ensemble_ways(self, problem, options):
        return ("fit_many", "one after the other")

    def ensemble_job(self, problem, way, setting):
        from sklloss import MLPRegressor
        from sklloss.model_selection import fit_many

        given = {"max_iter": problem.max_iter, "n_iter_no_change": problem.max_iter, "tol": 0.0}
        networks = [
            MLPRegressor(hidden_layer_sizes=problem.hidden, random_state=seed, **given)
            for seed in range(problem.networks)
        ]

        def run():
            if way == "fit_many":
                return fit_many(networks, problem.X, problem.y)
            return [network.fit(problem.X, problem.y) for network in networks]

        return Job(run, lambda found: {})

    def network_ways(self, problem, options):
        return ("adam",)

    def network_job(self, problem, way, setting):
        import sklloss

        classes = problem.loss == "cross_entropy"
        Network = sklloss.MLPClassifier if classes else sklloss.MLPRegressor
        return Job(lambda: network_of(problem, setting, Network).fit(problem.X, problem.y), read_network)

    # Tensors lie on the device before the clock runs; with NumPy's arrays, moving them there is timed.

    def device_linear_ways(self, problem, options):
        return _device_ways(problem)

    def device_linear_ladder(self, problem, way):
        return tolerances(-1, -12)

    def device_linear_job(self, problem, way, setting):
        Classifier = self._classifier(problem.objective)
        X, y, device = _inputs(problem, way)
        model = Classifier(C=problem.C, max_iter=100_000, **device, **setting)
        return on_device(problem.device, lambda: model.fit(X, y), read_linear)

    def device_network_ways(self, problem, options):
        return _device_ways(problem)

    def device_network_job(self, problem, way, setting):
        import sklloss

        X, y, device = _inputs(problem, way)
        return on_device(
            problem.device,
            lambda: network_of(problem, setting, sklloss.MLPClassifier, **device).fit(X, y),
            read_network,
        )


# In main memory tensors are the kernels', and OPERATIONS is what a GPU would be asked to do.
TENSORS, OPERATIONS = "torch tensors", "torch tensors, torch's operations"
OFFLOAD, KERNELS = "NumPy, device=", "NumPy, our kernels on the CPU"


def _device_ways(problem):
    return (TENSORS, OPERATIONS) if problem.device == "cpu" else (TENSORS, OFFLOAD, KERNELS)


def _inputs(problem, way):
    """X, y, and the parameter ``device`` where it is one."""
    if way in (OFFLOAD, KERNELS):
        return problem.X, problem.y, {"device": problem.device} if way == OFFLOAD else {}
    import torch

    X, y = (torch.from_numpy(a).to(problem.device) for a in (problem.X, problem.y))
    return X, y, {"device": torch.device(problem.device)} if way == OPERATIONS else {}
