"""scikit-learn: every solver of LogisticRegression with this objective, MLPRegressor, and its loss module."""

import numpy as np

from rivals.base import NEWTON_CHOLESKY_UP_TO, Job, Rival, read_linear, read_network, read_search, tolerances


class ScikitLearn(Rival):
    name = "scikit-learn"
    module = "sklearn"
    packages = ("scikit-learn",)

    def kernel_ways(self, case, options):
        return () if case.loss in ("focal", "softmax_focal", "log_cosh") else ("_loss",)

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
        }
        loss = make[case.loss]()
        y = case.codes.astype(raw.dtype) if case.target is None else case.target.ravel()
        loss_out, gradient_out = np.empty(len(raw), raw.dtype), np.empty_like(raw)
        return Job(
            lambda: loss.loss_gradient(y, raw, loss_out=loss_out, gradient_out=gradient_out, n_threads=1),
            lambda _: {"loss": float(loss_out.sum(dtype=np.float64))},
        )

    def _estimator(self, problem, **given):
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier

        model = LogisticRegression(C=problem.C, **given)
        return OneVsRestClassifier(model) if problem.objective == "multilabel" else model

    def linear_ways(self, problem, options):
        if options["quick"]:
            return ("lbfgs", "newton-cholesky" if problem.outputs == 1 else "newton-cg")
        ways = ["lbfgs", "newton-cg"]
        if problem.unknowns <= NEWTON_CHOLESKY_UP_TO and not problem.sparse:
            ways.append("newton-cholesky")
        if problem.sparse:
            ways.append("saga")
        return tuple(ways)

    def linear_ladder(self, problem, way):
        return tolerances(0, -9) if way.startswith("newton") else tolerances(-2, -12)

    def linear_job(self, problem, way, setting):
        given = {} if setting is None else {"solver": way, "max_iter": 100_000, **setting}

        def run():
            model = self._estimator(problem, **given)
            if problem.weights is None:
                return model.fit(problem.X, problem.y)
            return model.fit(problem.X, problem.y, sample_weight=problem.weights)

        return Job(run, _read_ovr if problem.objective == "multilabel" else read_linear)

    def search_ways(self, problem, options):
        return ("defaults",)

    def search_job(self, problem, way, setting):
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV

        search = GridSearchCV(LogisticRegression(), {"C": problem.Cs}, cv=problem.folds)
        return Job(lambda: search.fit(problem.X, problem.y), read_search)

    def network_ways(self, problem, options):
        return ("adam",)

    def network_job(self, problem, way, setting):
        from sklearn.neural_network import MLPRegressor

        return Job(
            lambda: MLPRegressor(
                hidden_layer_sizes=problem.hidden,
                batch_size=problem.batch_size,
                learning_rate_init=problem.learning_rate,
                alpha=problem.alpha,
                max_iter=setting["epochs"],
                n_iter_no_change=setting["epochs"] + 1,
                tol=0.0,
                random_state=setting["seed"],
            ).fit(problem.X, problem.y),
            read_network,
        )


class ScikitLearnOneThread(ScikitLearn):
    """scikit-learn with BLAS held to one thread: what a user gets who knows to ask for it, in a search."""

    name = "scikit-learn-1-blas-thread"
    env = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "BLIS_NUM_THREADS": "1"}  # noqa: RUF012
    kernel_ways = linear_ways = network_ways = staticmethod(lambda problem, options: ())


def _read_ovr(model):
    fitted = [read_linear(one) for one in model.estimators_]
    return {
        "coef": np.vstack([one["coef"] for one in fitted]),
        "intercept": np.concatenate([one["intercept"] for one in fitted]),
        "n_iter": max(one["n_iter"] for one in fitted),
    }
