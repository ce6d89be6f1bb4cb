"""What an adapter gives: which problems it can do, in which ways, and one job to be timed."""

import importlib.metadata
import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import problems

NEWTON_CHOLESKY_UP_TO = 3000  # unknowns up to which it is tried; its Hessian grows with their square


@dataclass
class Job:
    """``setup()`` untimed before each run, ``run()`` timed, ``read(result)`` untimed after the last."""

    run: Any
    read: Any
    setup: Any = None


class Rival:
    """An adapter. Imports its library inside methods only: the benchmark's own process never loads it.

    A *way* is one manner of doing a problem (a solver, a build); the first that `ways` names is the one that
    a user gets who asks for nothing. A *setting* is one rung of a way's `ladder`, loose to tight; None
    stands for the library's defaults, and {} for a way's default tolerance.
    """

    name = ""
    module = ""  # what to import
    packages = ()  # distributions whose versions the report lists
    env = {}  # noqa: RUF012  the process's environment, where it differs
    defaults = True  # whether it has an estimator whose defaults a user would take

    def absent(self):
        """Say in one line why this rival cannot run, else None."""
        if importlib.util.find_spec(self.module) is None:
            return f"{self.packages[0]} is not installed"
        return None

    def start(self):
        """Run first in the rival's process."""
        __import__(self.module)

    def about(self):
        """Versions, and the thread pools that its process holds."""
        said = {package: importlib.metadata.version(package) for package in self.packages}
        try:
            from threadpoolctl import threadpool_info
        except ImportError:
            return said
        pools = [(p["internal_api"], p["num_threads"], p.get("architecture")) for p in threadpool_info()]
        said["threads"] = ", ".join(f"{api} {n}" + (f" ({arch})" if arch else "") for api, n, arch in pools)
        return said

    def ways(self, problem, options):
        """The ways to do the problem, () if it cannot."""
        return self._of(problem, "ways")(problem, options)

    def ladder(self, problem, way):
        """Settings from loose to tight."""
        return self._of(problem, "ladder")(problem, way)

    def job(self, problem, way, setting):
        """The work, ready to be timed."""
        return self._of(problem, "job")(problem, way, setting)

    def default_ways(self, problem, options):
        """Ways to be timed at their default tolerances too, where the problem asks for every one."""
        return ()

    def _of(self, problem, what):
        kind = {
            problems.KernelCase: "kernel",
            problems.LinearProblem: "linear",
            problems.SearchProblem: "search",
            problems.PredictProblem: "predict",
            problems.NetworkProblem: "network",
            problems.NetworkSearchProblem: "network_search",
            problems.DeviceLinearProblem: "device_linear",
            problems.DeviceNetworkProblem: "device_network",
        }[type(problem)]
        return getattr(self, f"{kind}_{what}", lambda *args: ())


def on_device(device, run, read=None):
    """A job on a device of torch's: the clock is read when all that was asked of it is done."""

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
    """A tensor on any device, or what NumPy knows, in NumPy."""
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)


def read_linear(model):
    """What the judge needs of a fitted classifier in scikit-learn's manner."""
    n_iter = np.ravel(host(getattr(model, "n_iter_", [])))
    return {
        "coef": host(model.coef_),
        "intercept": host(model.intercept_),
        "n_iter": int(n_iter.max()) if n_iter.size else None,
    }


def read_ovr(model):
    """The same of a OneVsRestClassifier over such classifiers."""
    fitted = [read_linear(one) for one in model.estimators_]
    iterations = [one["n_iter"] for one in fitted if one["n_iter"] is not None]
    return {
        "coef": np.vstack([one["coef"] for one in fitted]),
        "intercept": np.concatenate([np.ravel(one["intercept"]) for one in fitted]),
        "n_iter": max(iterations, default=None),
    }


def fit_and_read(problem, make):
    """A job that fits ``make()``, of a binary classifier's interface if y is binary, one for each label."""

    def run():
        from sklearn.multiclass import OneVsRestClassifier

        model = OneVsRestClassifier(make()) if problem.objective == "multilabel" else make()
        if problem.weights is None:
            return model.fit(problem.X, problem.y)
        return model.fit(problem.X, problem.y, sample_weight=problem.weights)

    return Job(run, read_ovr if problem.objective == "multilabel" else read_linear)


def predict_one(problem, model):
    """A job that asks a model, fitted here, untimed, for the probabilities of the problem's rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(problem.X, problem.y)
    X = np.ascontiguousarray(problem.X[: problem.rows])
    return Job(lambda: model.predict_proba(X), lambda proba: {"score": float(proba.max(axis=1).mean())})


def read_network(model):
    """Weights of a fitted network in scikit-learn's manner."""
    return {"coefs": [host(a) for a in model.coefs_], "intercepts": [host(a) for a in model.intercepts_]}


def network_of(problem, setting, Network, **more):
    """An unfitted network of scikit-learn's parameters, which trains for as many epochs as it is told."""
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
    """What a search found."""
    best = {k: float(v) if isinstance(v, (int, float)) else str(v) for k, v in search.best_params_.items()}
    return {"score": float(search.best_score_), "best": best}


def tolerances(first, last):
    """Powers of ten from 10**first down to 10**last."""
    return [{"tol": 10.0**k} for k in range(first, last - 1, -1)]
