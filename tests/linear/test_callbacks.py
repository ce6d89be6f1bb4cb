"""scikit-learn's callbacks around the iterations of the linear classifiers."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import scale

from sklloss import LogisticClassifier, SoftmaxClassifier

callback = pytest.importorskip("sklearn.callback")


class Recorder:
    """Notes each iteration's probabilities, and asks for the end after some iterations."""

    def __init__(self, stop_after=None):
        self.stages, self.torn_down, self.stop_after = [], 0, stop_after

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        self.torn_down += 1

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
        self.stages.append((context.task_name, fitted_estimator.predict_proba(X)))
        return context.task_name == "iteration" and len(self.stages) == self.stop_after


def problem(kind):
    if kind is SoftmaxClassifier:
        X, y = load_iris(return_X_y=True)
        return scale(X), np.array(["a", "b", "c"])[y]
    X, y = load_breast_cancer(return_X_y=True)
    return scale(X), y


@pytest.mark.parametrize("kind", [LogisticClassifier, SoftmaxClassifier])
@pytest.mark.parametrize(
    "solver", ["newton-cholesky", "newton-cg", "lbfgs", "proximal-newton", "sgd", "adam"]
)
def test_each_iteration_has_a_classifier_that_predicts_and_the_fit_is_the_same(kind, solver):
    X, y = problem(kind)
    recorder = Recorder()
    model = kind(solver=solver, random_state=0, l1_ratio=0.5 if solver == "proximal-newton" else 0.0)
    watched = clone(model).set_callbacks(recorder).fit(X, y)
    model.fit(X, y)
    np.testing.assert_array_equal(watched.coef_, model.coef_)
    names, stages = zip(*recorder.stages)
    assert names[-1] == "fit"
    assert 0 < names.count("iteration") == len(names) - 1 <= model.n_iter_.max()
    np.testing.assert_array_equal(stages[-1], model.predict_proba(X))
    np.testing.assert_allclose(stages[-2], stages[-1], atol=0.02)
    assert recorder.torn_down == 1


@pytest.mark.parametrize("kind", [LogisticClassifier, SoftmaxClassifier])
@pytest.mark.parametrize("solver", ["newton-cg", "lbfgs", "adam"])
def test_a_callback_ends_the_fit(kind, solver, recwarn):
    X, y = problem(kind)
    recorder = Recorder(stop_after=2)
    model = kind(solver=solver, random_state=0).set_callbacks(recorder).fit(X, y)
    assert model.n_iter_.max() == 2
    assert len(model.loss_curve_) == 3
    assert model.loss_curve_[-1] == model.loss_ < model.loss_curve_[0]
    assert not recwarn.list
    np.testing.assert_array_equal(recorder.stages[1][1], model.predict_proba(X))
    free = kind(solver=solver, random_state=0).fit(X, y)
    np.testing.assert_allclose(model.loss_curve_, free.loss_curve_[:3], rtol=1e-10)


@pytest.mark.parametrize(("stop_after", "solver"), [(2, "lbfgs"), (11, "newton-cg")])
def test_a_fit_of_two_solvers_that_a_callback_ends_names_the_one_that_ran(rng, stop_after, solver):
    X = rng.normal(size=(11_000, 210)) + rng.normal(size=(11_000, 1))
    y = X[:, 0] + rng.logistic(size=len(X)) > 0
    recorder = Recorder(stop_after=stop_after)
    # of 35 iterations L-BFGS has 10
    model = LogisticClassifier(tol=1e-9, max_iter=35).set_callbacks(recorder).fit(X, y)
    assert model.solver_ == solver
    assert model.n_iter_.max() == stop_after


def test_callbacks_are_torn_down_after_an_error():
    X, y = problem(LogisticClassifier)
    recorder = Recorder()
    with pytest.raises(ValueError, match="C must be in"):
        LogisticClassifier(C=-1.0).set_callbacks(recorder).fit(X, y)
    assert recorder.torn_down == 1


def test_scikit_learns_scoring_monitor_follows_a_search():
    X, y = problem(SoftmaxClassifier)
    monitor = callback.ScoringMonitor(scoring="neg_log_loss")
    model = SoftmaxClassifier(solver="lbfgs").set_callbacks(monitor)
    GridSearchCV(model, {"C": [0.1, 1.0]}, cv=2).fit(X, y)
    model.fit(X, y)
    scores = [row["neg_log_loss"] for row in monitor.get_logs().data if row["task_name"] == "iteration"]
    assert len(scores) == model.n_iter_.max()
    assert scores[-1] > scores[0]
