"""The interface of an adapter: which problems a library can solve, by which solvers, and the job to time."""

import importlib.metadata
import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any

import kinds
import numpy as np

NEWTON_CHOLESKY_UP_TO = 3000  # most unknowns for newton-cholesky, whose Hessian has their number squared


@dataclass
class Job:
    """The work of one turn: ``run()`` is timed; ``setup()`` before each run and ``read(result)`` are not."""

    run: Any
    read: Any
    setup: Any = None


class Rival:
    """An adapter of a library, which it imports inside methods only: the main process never loads it.

    A *way* is one method of solving a problem (a solver, a build); the first that `ways` returns is the
    library's default. A *setting* is one step of a way's `ladder`, from loose to tight; None stands for the
    library's default settings, and {} for a way at its default tolerance.

    For each kind of problem a subclass may define three methods, such as ``linear_ways``, ``linear_ladder``
    and ``linear_job``; a kind without methods is left out. `_of` lists the kinds.
    """

    name = ""
    module = ""  # what to import
    packages = ()  # distributions whose versions the report lists
    env = {}  # noqa: RUF012  the process's environment, where it differs
    defaults = True  # whether it has an estimator whose defaults a user would take

    def absent(self):
        """Why this rival cannot run, in one line; None if it can."""
        if importlib.util.find_spec(self.module) is None:
            return f"{self.packages[0]} is not installed"
        return None

    def start(self):
        """Run first in the rival's process."""
        __import__(self.module)

    def about(self):
        """Versions, and the thread pools of its process."""
        said = {package: importlib.metadata.version(package) for package in self.packages}
        try:
            from threadpoolctl import threadpool_info
        except ImportError:
            return said
        pools = [(p["internal_api"], p["num_threads"], p.get("architecture")) for p in threadpool_info()]
        said["threads"] = ", ".join(f"{api} {n}" + (f" ({arch})" if arch else "") for api, n, arch in pools)
        return said

    def ways(self, problem, options):
        """The ways to solve the problem; () if it cannot."""
        return self._of(problem, "ways")(problem, options)

    def ladder(self, problem, way):
        """Settings from loose to tight."""
        return self._of(problem, "ladder")(problem, way)

    def job(self, problem, way, setting):
        """The work, ready to be timed."""
        return self._of(problem, "job")(problem, way, setting)

    def default_ways(self, problem, options):
        """Ways to time at their default tolerance too, if the problem has ``every_default``."""
        return ()

    def asked(self, problem, way):
        """What a regression problem becomes for this library, where it cannot solve it as it is.

        None if it minimises something of its own, of which no gap is known.
        """
        return problem

    def _of(self, problem, what):
        kind = {
            kinds.KernelCase: "kernel",
            kinds.PassProblem: "pass",
            kinds.LinearProblem: "linear",
            kinds.PathProblem: "path",
            kinds.RegressionProblem: "regression",
            kinds.RegressionPathProblem: "regression_path",
            kinds.SearchProblem: "search",
            kinds.PredictProblem: "predict",
            kinds.CommandProblem: "command",
            kinds.EnsembleProblem: "ensemble",
            kinds.NetworkProblem: "network",
            kinds.NetworkSearchProblem: "network_search",
            kinds.DeviceLinearProblem: "device_linear",
            kinds.DeviceNetworkProblem: "device_network",
        }[type(problem)]
        return getattr(self, f"{kind}_{what}", lambda *args: ())


def on_device(device, run, read=None):
    """A job on a device of torch's, timed until the device has finished."""

    def wait():
        if device != "cpu":
            import torch

            getattr(torch, torch.device(device).type).synchronize()

    def run_all():
        found = run()
        wait()
        return found

    return Job(run_all, read, setup=wait)


def host(array):
    """A NumPy array from a tensor on any device or anything array-like."""
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)


def read_linear(model):
    """Coefficients and iterations of a fitted classifier with scikit-learn's attributes."""
    n_iter = getattr(model, "n_iter_", None)
    n_iter = np.ravel([] if n_iter is None else host(n_iter))
    return {
        "coef": host(model.coef_),
        "intercept": host(model.intercept_),
        "n_iter": int(n_iter.max()) if n_iter.size else None,
    }


def read_ovr(model):
    """The same for a OneVsRestClassifier of such classifiers."""
    fitted = [read_linear(one) for one in model.estimators_]
    iterations = [one["n_iter"] for one in fitted if one["n_iter"] is not None]
    return {
        "coef": np.vstack([one["coef"] for one in fitted]),
        "intercept": np.concatenate([np.ravel(one["intercept"]) for one in fitted]),
        "n_iter": max(iterations, default=None),
    }


def fit_path(problem, Search, **given):
    """A job that fits an estimator with built-in cross-validation."""
    given |= {"Cs": problem.Cs, "cv": problem.folds, "scoring": "neg_log_loss"}
    return Job(lambda: Search(**given).fit(problem.X, problem.y), read_linear)


def fit_and_read(problem, make):
    """A job that fits the classifier ``make()``; for a multi-label problem one classifier for each label."""

    def run():
        from sklearn.multiclass import OneVsRestClassifier

        model = OneVsRestClassifier(make()) if problem.objective == "multilabel" else make()
        if problem.weights is None:
            return model.fit(problem.X, problem.y)
        return model.fit(problem.X, problem.y, sample_weight=problem.weights)

    return Job(run, read_ovr if problem.objective == "multilabel" else read_linear)


def predict_one(problem, model):
    """A job that predicts probabilities of the problem's rows with a model that is fitted here, untimed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(problem.X, problem.y)
    X = np.ascontiguousarray(problem.X[: problem.rows])
    return Job(lambda: model.predict_proba(X), lambda proba: {"score": float(proba.max(axis=1).mean())})


def read_network(model):
    """Weights of a fitted network with scikit-learn's attributes."""
    return {"coefs": [host(a) for a in model.coefs_], "intercepts": [host(a) for a in model.intercepts_]}


def network_of(problem, setting, Network, **more):
    """A network with scikit-learn's parameters that trains for exactly the given number of epochs."""
    return Network(
        hidden_layer_sizes=problem.hidden,
        batch_size=problem.batch_size,
        learning_rate_init=problem.learning_rate,
        alpha=problem.alpha,
        max_iter=setting["epochs"],
        n_iter_no_change=setting["epochs"] + 1,
        tol=0.0,
        random_state=setting["seed"],
        **more,
    )


def network_search(problem, Network):
    """A job that searches over networks."""

    def run():
        from sklearn.model_selection import GridSearchCV

        network = Network(max_iter=problem.max_iter, random_state=0)
        return GridSearchCV(network, problem.grid, cv=problem.folds).fit(problem.X, problem.y)

    return Job(run, read_search)


def read_search(search):
    """The best score and parameters of a search."""
    best = {k: float(v) if isinstance(v, (int, float)) else str(v) for k, v in search.best_params_.items()}
    return {"score": float(search.best_score_), "best": best}


def tolerances(first, last):
    """Powers of ten from 10**first down to 10**last."""
    return [{"tol": 10.0**k} for k in range(first, last - 1, -1)]
