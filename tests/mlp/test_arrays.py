"""The networks on arrays of other namespaces: the same model as on NumPy's, where X lives."""

import copy
import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklloss import MLPClassifier, MLPRegressor, find_learning_rate, losses
from sklloss.arrays.device import device_of
from sklloss.arrays.ops import ACTIVATIONS

SOLVERS = ("adam", "adamw", "sgd", "lbfgs")
REGRESSION = [name for name in losses.names() if losses.get(name).target == "values"]
# How far results may be apart: rounding, over a few steps.
TOLERANCES = {"float64": {"rtol": 1e-7, "atol": 1e-9}, "float32": {"rtol": 2e-3, "atol": 2e-4}}
N = 60


@dataclass(frozen=True)
class Coupled(losses.Loss):
    """A loss of one's own over the scores of all classes, from its formula alone."""

    target: ClassVar[str] = "classes"
    reduction: ClassVar[str] = "sum"
    separable: ClassVar[bool] = False

    def formula(self, xp, y, raw):
        """See `Loss.formula`."""
        return losses.CrossEntropy().formula(xp, y, raw)

    def inverse_link(self, xp, raw):
        """See `Loss.inverse_link`."""
        return losses.CrossEntropy().inverse_link(xp, raw)


def regressor(**options):
    return MLPRegressor(
        **{"hidden_layer_sizes": (6, 4), "max_iter": 2, "batch_size": 24, "random_state": 0, "alpha": 0.1}
        | options
    )


def classifier(**options):
    return MLPClassifier(
        **{"hidden_layer_sizes": (6,), "max_iter": 3, "batch_size": 24, "random_state": 0} | options
    )


def regression(rng, dtype="float64", outputs=2):
    X = rng.standard_normal((N, 4)).astype(dtype)
    return X, rng.uniform(0.2, 2.0, (N, outputs) if outputs > 1 else N)


def classes(kind, rng, dtype="float64"):
    X = rng.standard_normal((N, 4)).astype(dtype)
    scores = X @ rng.standard_normal((4, 3)) + rng.standard_normal((N, 3))
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    y = {
        "two": (scores[:, 0] > 0).astype(int),
        "strings": np.array(["a", "b", "c"])[scores.argmax(axis=1)],
        "three": scores.argmax(axis=1),
        "soft": p,
        "fraction": p[:, 0],
        "multilabel": (scores > 0).astype(int),
        "soft multilabel": 1 / (1 + np.exp(-scores)),
    }[kind]
    return X, y


def assert_same_model(other_device, model, other, dtype):
    """Assert that both learned the same, the other one on the device (None: in NumPy)."""
    for name in ("coefs_", "intercepts_"):
        for one, own in zip(getattr(model, name), getattr(other, name), strict=True):
            assert device_of(own) == other_device
            own = own if other_device is None else other_device.get(own)
            assert own.dtype == np.dtype(dtype)
            np.testing.assert_allclose(own, one, **TOLERANCES[dtype])
    for name in ("n_iter_", "t_", "best_iter_", "n_layers_", "n_outputs_", "out_activation_"):
        assert getattr(model, name) == getattr(other, name)
        assert type(getattr(model, name)) is type(getattr(other, name))
    for name in ("loss_curve_", "validation_loss_curve_"):
        if getattr(model, name) is None:
            assert getattr(other, name) is None
        else:
            np.testing.assert_allclose(getattr(other, name), getattr(model, name), **TOLERANCES[dtype])


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer", "ignore:lbfgs failed", "ignore:Got `batch_size`")
class TestTheSameModel:
    """The same model as on NumPy's."""

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("k", range(len(REGRESSION)), ids=REGRESSION)
    def test_of_every_loss_activation_and_solver(self, other_device, k, dtype, rng):
        X, y = regression(rng, dtype)
        weight = rng.uniform(0.0, 1.0, N)
        weight[:4] = 0.0
        for j, activation in enumerate(ACTIVATIONS):
            # over losses and activations every pair with a solver comes
            solver = SOLVERS[(j + k) % 4]
            model = regressor(loss=REGRESSION[k], activation=activation, solver=solver)
            other = clone(model).fit(other_device.put(X), other_device.put(y), other_device.put(weight))
            model.fit(X, y, weight)
            assert_same_model(other_device, model, other, dtype)
        values = other.predict(other_device.put(X))
        assert device_of(values) == other_device
        np.testing.assert_allclose(other_device.get(values), model.predict(X), **TOLERANCES[dtype])
        score = other.score(other_device.put(X), y, other_device.put(weight))
        assert type(score) is float
        np.testing.assert_allclose(score, model.score(X, y, weight), rtol=1e-2, atol=1e-3)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("two", {"class_weight": "balanced", "activation": "gelu"}),
            ("two", {"output": "sigmoid", "loss": "focal", "solver": "adamw"}),
            ("two", {"loss": Coupled(), "label_smoothing": 0.1}),
            ("strings", {"activation": "tanh", "solver": "lbfgs"}),
            ("three", {"output": "sigmoid", "label_smoothing": 0.1}),
            ("three", {"output": "sigmoid", "class_weight": "balanced", "solver": "sgd"}),
            ("three", {"loss": "focal", "learning_rate": "one-cycle"}),
            ("soft", {"output": "softmax", "class_weight": {0: 1.0, 1: 2.0, 2: 3.0}}),
            ("soft", {"output": "softmax", "loss": Coupled(), "solver": "lbfgs"}),
            ("fraction", {"activation": "silu"}),
            ("multilabel", {"class_weight": ["balanced", None, {0: 0.0, 1: 2.0}]}),
            ("soft multilabel", {"output": "sigmoid", "loss": losses.HalfSquaredError()}),
        ],
        ids=lambda value: value if isinstance(value, str) else "-".join(value),
    )
    def test_of_every_kind_of_target(self, other_device, kind, options, dtype, rng):
        X, y = classes(kind, rng, dtype)
        weight = rng.uniform(0.0, 1.0, N)
        weight[:4] = 0.0
        model = classifier(**options).fit(X, y, weight)
        rows = other_device.put(X)
        other = classifier(**options).fit(rows, y if kind == "strings" else other_device.put(y), weight)
        assert_same_model(other_device, model, other, dtype)
        for method in ("decision_function", "predict_proba", "predict_log_proba"):
            found = getattr(other, method)(rows)
            assert device_of(found) == other_device
            np.testing.assert_allclose(
                other_device.get(found), getattr(model, method)(X), **TOLERANCES[dtype]
            )
        labels = other.predict(rows)
        home = None if kind == "strings" else other_device
        assert device_of(labels) == device_of(other.classes_) == home
        np.testing.assert_array_equal(labels if home is None else other_device.get(labels), model.predict(X))
        assert other.score(rows, y, weight) == pytest.approx(model.score(X, y, weight))

    @pytest.mark.parametrize("early", [True, "loss", "neg_log_loss", "accuracy"])
    def test_with_early_stopping(self, other_device, early, rng):
        X, y = classes("three", rng)
        options = {"early_stopping": early, "max_iter": 7, "class_weight": "balanced", "tol": 0.05}
        for rows in ({}, {"X_val": X[40:], "y_val": y[40:]}):
            model = classifier(**options, n_iter_no_change=2).fit(X, y, **rows)
            rows = {name: other_device.put(array) for name, array in rows.items()}
            other = clone(model).fit(other_device.put(X), y, **rows)
            assert_same_model(other_device, model, other, "float64")
            np.testing.assert_allclose(other.validation_scores_, model.validation_scores_, rtol=1e-9)
            assert other.best_validation_score_ == pytest.approx(model.best_validation_score_)

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_where_training_goes_on(self, other_device, solver, rng):
        X, y = regression(rng, "float32")
        model = regressor(solver=solver, warm_start=True).fit(X, y)
        other = clone(model).fit(other_device.put(X), y)
        for rows in (X[:40], X[20:].astype(np.float64)):
            model.fit(rows, y[:40])
            other.fit(other_device.put(rows), y[:40])
        assert_same_model(other_device, model, other, "float32")

    @pytest.mark.parametrize("solver", SOLVERS[:3])
    def test_of_a_stream_also_by_way_of_a_pickle_and_after_a_move(self, other_device, solver, rng):
        X, y = classes("three", rng)
        model, other = classifier(solver=solver), classifier(solver=solver)
        for turn in range(4):
            part = slice(15 * turn, 15 * turn + 15)
            model.partial_fit(X[part], y[part], classes=[0, 1, 2])
            before = other.__dict__.get("_optimizer")
            kept = None if before is None else other_device.get(before["first"])
            rows = X[part] if turn == 3 else other_device.put(X[part])
            other.partial_fit(rows, y[part], classes=[0, 1, 2])
            if kept is not None and turn != 3:
                np.testing.assert_array_equal(other_device.get(before["first"]), kept)
            assert_same_model(None if turn == 3 else other_device, model, other, "float64")
            if turn == 1:
                other = pickle.loads(pickle.dumps(other))
                assert isinstance(other._optimizer["first"], np.ndarray)
                other = copy.deepcopy(other.partial_fit(other_device.put(X[:1]), y[:1]))
                model.partial_fit(X[:1], y[:1])
                other = other.to("numpy").to(other_device.put(X))
            if turn == 2:
                other = other.to("numpy")

    def test_after_ctrl_c(self, other_device, press_ctrl_c, rng):
        @dataclass(frozen=True)
        class Plain(losses.Loss):
            def formula(self, xp, y, raw):
                return (raw - y) ** 2, 2.0 * (raw - y)

        X, y = regression(rng)
        model = regressor(loss=Plain(), max_iter=2, warm_start=True).fit(X, y)
        other = regressor(loss=Plain(), max_iter=9, warm_start=True)
        press_ctrl_c(Plain, 8)  # in the third epoch of three batches
        with pytest.raises(KeyboardInterrupt):
            other.fit(other_device.put(X), y)
        assert_same_model(other_device, model, other, "float64")

    @pytest.mark.parametrize("sparse", [False, True])
    @pytest.mark.parametrize("solver", SOLVERS)
    def test_where_a_device_computes(self, solver, sparse, rng):
        torch = pytest.importorskip("torch")
        X, y = classes("three", rng)
        X[rng.uniform(size=X.shape) < 0.5] = 0.0
        X[7] = 0.0
        X = scipy.sparse.csr_matrix(X) if sparse else X
        weight = rng.uniform(size=N)
        options = {"solver": solver, "early_stopping": "accuracy", "warm_start": True}
        model = classifier(**options).fit(X, y, weight)
        other = classifier(**options, device=torch.device("cpu"), device_dtype="float64").fit(X, y, weight)
        assert_same_model(None, model, other, "float64")
        assert_same_model(None, model.fit(X, y), other.fit(X, y), "float64")
        np.testing.assert_allclose(other.predict_proba(X), model.predict_proba(X), rtol=1e-9)
        assert other.score(X, y) == model.score(X, y)
        if solver != "lbfgs":
            assert isinstance(other._optimizer["first"], np.ndarray)
            model.set_params(early_stopping=False).partial_fit(X, y)
            other.set_params(early_stopping=False).partial_fit(X, y)
            assert device_of(other._optimizer["first"]) is not None
            assert_same_model(None, model, other, "float64")

    def test_where_a_device_computes_in_float32(self, rng):
        torch = pytest.importorskip("torch")
        X, y = regression(rng)
        model = regressor().fit(X.astype(np.float32), y)
        other = regressor(device=torch.device("cpu")).fit(X, y)
        for one, own in zip(model.coefs_, other.coefs_, strict=True):
            assert own.dtype == np.float64
            np.testing.assert_allclose(own, one, **TOLERANCES["float32"])
        values = other.predict(X)
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, values.astype(np.float32))

    def test_of_the_search_for_a_learning_rate(self, other_device, rng):
        X, y = classes("three", rng)
        X, y = np.tile(X, (40, 1)), np.tile(y, 40)  # more rows than are looked at
        expected = find_learning_rate(classifier(), X, y, n_steps=12)
        found = find_learning_rate(classifier(), other_device.put(X), other_device.put(y), n_steps=12)
        np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-9)

    def test_in_blocks_of_rows(self, other_device, monkeypatch, rng):
        monkeypatch.setattr("sklloss.mlp.base.BLOCK", 25)
        X, y = classes("strings", rng)
        model, other = classifier().fit(X, y), classifier().fit(other_device.put(X), y)
        np.testing.assert_array_equal(other.predict(other_device.put(X)), model.predict(X))
        found = other_device.get(other.predict_proba(other_device.put(X)))
        np.testing.assert_allclose(found, model.predict_proba(X), rtol=1e-9)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_a_pipeline_and_a_search_of_numpy_take_a_network_on_a_device(rng):
    torch = pytest.importorskip("torch")
    X, y = classes("strings", rng)
    pipeline = make_pipeline(StandardScaler(), classifier(device=torch.device("cpu")))
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [0.0, 1.0]}, cv=2).fit(X, y)
    assert type(search.predict(X)) is np.ndarray
    assert 0.0 <= search.best_score_ <= 1.0


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_callbacks_get_a_model_that_predicts_where_X_lives(other_device, rng):
    pytest.importorskip("sklearn.callback")
    X, y = classes("three", rng)
    scores = []

    class Watch:
        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
            pass

        def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
            scores.append((context.task_name, fitted_estimator.score(X, y)))

    model = classifier().set_callbacks(Watch()).fit(other_device.put(X), y)
    assert [name for name, _ in scores] == ["epoch"] * 3 + ["fit"]
    assert scores[2][1] == scores[3][1] == model.score(other_device.put(X), y)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_rows_of_another_device_than_fit_are_refused(other_device, rng):
    X, y = classes("three", rng)
    model = classifier().fit(other_device.put(X), y)
    for method in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(ValueError, match=rf"MLPClassifier\.{method}\(\) must use the same namespace"):
            getattr(model, method)(X)
    values = regressor().fit(X, X[:, 0])
    with pytest.raises(ValueError, match=r"MLPRegressor\.predict\(\) must use the same namespace"):
        values.predict(other_device.put(X))
    with pytest.raises(ValueError, match=r"MLPClassifier\.partial_fit\(\) must use the same namespace"):
        model.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"MLPRegressor\.partial_fit\(\) must use the same namespace"):
        values.partial_fit(other_device.put(X), X[:, 0])
    with pytest.raises(ValueError, match="X and X_val must have the same namespace and device"):
        regressor().fit(other_device.put(X), X[:, 0], X_val=X, y_val=X[:, 0])
    with pytest.raises(ValueError, match="X and X_val must have the same namespace and device"):
        classifier().fit(X, y, X_val=other_device.put(X), y_val=y)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer", "ignore::RuntimeWarning")
def test_training_that_diverges_is_an_error_and_changes_nothing(other_device, rng):
    X, y = regression(rng)
    model = regressor(solver="sgd", activation="identity").fit(other_device.put(X), y)
    before = vars(model).copy()
    model.set_params(learning_rate_init=1e6, max_iter=50, warm_start=True)
    with pytest.raises(ValueError, match="training diverges"):
        model.fit(other_device.put(X), y)
    assert all(vars(model)[name] is before[name] for name in before if name.endswith("_"))


@pytest.mark.parametrize("options", [{"device": 3}, {"device_dtype": "float16"}])
def test_what_is_no_device_is_refused(options, rng):
    X, y = regression(rng)
    with pytest.raises((TypeError, ValueError), match=f"^{next(iter(options))} must be"):
        regressor(**options).fit(X, y)


def test_numpy_imports_no_torch():
    code = (
        "import sys, numpy as np; from sklloss import MLPRegressor\n"
        "X = np.random.default_rng(0).normal(size=(20, 2))\n"
        "MLPRegressor(max_iter=300, tol=1.0).fit(X, X[:, 0]).predict(X)\n"
        "assert 'torch' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0
