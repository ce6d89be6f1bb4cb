"""The linear classifiers on arrays of other namespaces: the same model as on NumPy's, where X lives."""

import copy
import os
import pickle
import subprocess
import sys
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sklloss
from sklloss import LogisticClassifier, SoftmaxClassifier, losses
from sklloss.arrays.device import device_of

SMOOTH = ("newton-cholesky", "newton-cg", "lbfgs", "sgd", "adam")
# How far a model may be from that on NumPy: both stop near the optimum, by their own rounding.
TOLERANCES = {"float64": {"rtol": 2e-4, "atol": 2e-5}, "float32": {"rtol": 5e-3, "atol": 5e-3}}


@dataclass(frozen=True)
class Cauchy(losses.Loss):
    """A loss of one's own, not convex."""

    scale: float = 1.0
    convex: ClassVar[bool] = False

    def formula(self, xp, y, raw):
        """See `Loss.formula`."""
        d = (raw - y) / self.scale
        return xp.log1p(d * d), 2 * d / (1 + d * d) / self.scale


def assert_there(array, other_device, dtype=None):
    """Assert that an array lives there, in a NumPy dtype if one is given."""
    assert device_of(array) == other_device
    if dtype is not None:
        assert other_device.get(array).dtype == np.dtype(dtype)


def problem(kind, rng, n=120, features=5):
    """X, and y of some kind that leaves no column or label without use."""
    X = rng.normal(size=(n, features)) * np.array([1.0, 3.0, 0.5, 1.0, 2.0])[:features] + 0.3
    scores = X @ rng.normal(size=(features, 3)) + rng.normal(size=(n, 3))
    labels = scores.argmax(axis=1)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    y = {
        "two": (scores[:, 0] > 0).astype(int),
        "strings": np.array(["no", "yes"])[(scores[:, 0] > 0).astype(int)],
        "three": labels,
        "soft": p,
        "fraction": p[:, 0],
        "multilabel": (scores > 0).astype(int),
        "soft multilabel": 1 / (1 + np.exp(-scores)),
    }[kind]
    return X, y


def fitted_there(model, X, y, other_device, weight=None, **options):
    """A clone, fitted to arrays there."""
    y = y if y.dtype.kind in "US" else other_device.put(y)
    weight = None if weight is None else other_device.put(weight)
    return clone(model).fit(other_device.put(X), y, weight, **options)


def assert_same_model(other_device, model, other, X, dtype):
    """Both predict alike; what ``other`` learned and says lives there."""
    tolerances = TOLERANCES[dtype]
    for name in ("coef_", "intercept_"):
        assert_there(getattr(other, name), other_device, dtype)
        np.testing.assert_allclose(other_device.get(getattr(other, name)), getattr(model, name), **tolerances)
    assert_there(other.n_iter_, other_device, np.int32)
    X_there = other_device.put(X)
    for method in ("decision_function", "predict_proba", "predict_log_proba"):
        said = getattr(other, method)(X_there)
        assert_there(said, other_device, dtype)
        np.testing.assert_allclose(other_device.get(said), getattr(model, method)(X), **tolerances)
    np.testing.assert_allclose(other.loss_, model.loss_, rtol=1e-5)


TARGETS = {
    LogisticClassifier: ("two", "three", "fraction", "multilabel", "soft multilabel"),
    SoftmaxClassifier: ("two", "three", "soft"),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("solver", [*SMOOTH, "proximal-newton"])
@pytest.mark.parametrize(
    ("kind", "target"), [(kind, target) for kind, targets in TARGETS.items() for target in targets]
)
def test_every_solver_and_target_gives_the_model_of_numpy(other_device, kind, target, solver, dtype, rng):
    X, y = problem(target, rng)
    X = X.astype(dtype)
    weight = rng.integers(0, 3, size=len(X)).astype(float)
    options = {"l1_ratio": 0.5} if solver == "proximal-newton" else {}
    # the same steps in the same order, whether or not they have come to the end
    epochs = 20 if solver in ("sgd", "adam") else 300
    model = kind(solver=solver, tol=1e-6, random_state=0, max_iter=epochs, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        other = fitted_there(model, X, y, other_device, weight)
        model.fit(X, y, weight)
    assert_same_model(other_device, model, other, X, dtype)


REGRESSION = ("squared_error", "absolute_error", "huber", "quantile", "log_cosh", "poisson")
LOSSES = {
    LogisticClassifier: ("log_loss", "focal", Cauchy(), *map(losses.get, REGRESSION)),
    SoftmaxClassifier: ("cross_entropy", "focal", losses.get("huber"), Cauchy()),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("solver", ["auto", "lbfgs", "sgd"])
@pytest.mark.parametrize(
    ("kind", "loss"), [(kind, loss) for kind, every in LOSSES.items() for loss in every], ids=str
)
def test_every_loss_gives_the_model_of_numpy(other_device, kind, loss, solver, dtype, rng):
    X, y = problem("three", rng)
    X = X.astype(dtype)
    kinked = getattr(losses.get(loss), "name", None) in ("absolute_error", "quantile")
    # at kinks L-BFGS would use up many more, to little end
    epochs = 20 if solver == "sgd" else 100 if kinked else 400
    model = kind(loss=loss, solver=solver, tol=1e-6, random_state=0, max_iter=epochs, label_smoothing=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        other = fitted_there(model, X, y, other_device)
        model.fit(X, y)
    np.testing.assert_allclose(other.loss_, model.loss_, rtol=1e-3 if dtype == "float32" else 1e-4)
    if not kinked:
        said = other_device.get(other.predict_proba(other_device.put(X)))
        np.testing.assert_allclose(said, model.predict_proba(X), atol=5e-3 if dtype == "float32" else 1e-3)


@pytest.mark.parametrize("target", ["two", "strings", "three", "multilabel"])
def test_predictions_are_classes_and_scores_are_python_floats(other_device, target, rng):
    X, y = problem(target, rng)
    model = LogisticClassifier().fit(X, y)
    other = fitted_there(model, X, y, other_device)
    X_there = other_device.put(X)
    said = other.predict(X_there)
    if target == "strings":
        assert type(said) is np.ndarray
        assert type(other.classes_) is np.ndarray
        assert (said == model.predict(X)).all()
    else:
        assert_there(other.classes_, other_device, y.dtype)
        assert_there(said, other_device, y.dtype)
        assert (other_device.get(said) == model.predict(X)).all()
    for answers in (y, y if target == "strings" else other_device.put(y)):
        score = other.score(X_there, answers)
        assert type(score) is float
        assert score == model.score(X, y)


def test_y_and_weights_may_be_of_another_namespace_than_X(other_device, strict, rng):
    X, y = problem("three", rng)
    weight = rng.random(len(X))
    model = fitted_there(SoftmaxClassifier(), X, y, other_device, weight)
    for put in (lambda array: array, strict.put, lambda array: array.tolist()):
        other = SoftmaxClassifier().fit(other_device.put(X), put(y), put(weight))
        assert (other_device.get(other.coef_) == other_device.get(model.coef_)).all()


def test_a_validation_set_and_a_warm_start_live_there_too(other_device, rng):
    X, y = problem("three", rng)
    validation = {"X_val": other_device.put(X[::2]), "y_val": other_device.put(y[::2])}
    model = SoftmaxClassifier(solver="newton-cg", warm_start=True)
    other = fitted_there(model, X, y, other_device, **validation)
    model.fit(X, y, X_val=X[::2], y_val=y[::2])
    np.testing.assert_allclose(other.validation_loss_curve_, model.validation_loss_curve_, rtol=1e-6)
    steps = int(other_device.get(other.n_iter_)[0])
    assert int(other_device.get(other.fit(other_device.put(X), other_device.put(y)).n_iter_)[0]) < steps
    with pytest.raises(ValueError, match="X and X_val must have the same namespace and device"):
        model.fit(X, y, **validation)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("kind", [LogisticClassifier, SoftmaxClassifier])
def test_streams_learn_what_they_learn_from_numpy(other_device, kind, solver, rng):
    X, y = problem("three", rng, n=300)
    model, other = (kind(solver=solver, random_state=0) for _ in range(2))
    for part in np.array_split(np.arange(300), 4):
        model.partial_fit(X[part], y[part], classes=[0, 1, 2])
        other.partial_fit(
            other_device.put(X[part]), other_device.put(y[part]), classes=other_device.put(np.arange(3))
        )
    np.testing.assert_allclose(other_device.get(other.coef_), model.coef_, rtol=1e-6, atol=1e-8)
    assert_there(other.coef_, other_device)
    with pytest.raises(ValueError, match=r"partial_fit\(\) must use the same namespace"):
        other.partial_fit(X, y)
    moved = other.to("numpy").partial_fit(X[:50], y[:50])
    model.partial_fit(X[:50], y[:50])
    np.testing.assert_allclose(moved.coef_, model.coef_, rtol=1e-6, atol=1e-8)


def test_repeated_fits_have_the_same_bits(other_device, rng):
    X, y = problem("three", rng)
    for solver in SMOOTH:
        model = SoftmaxClassifier(solver=solver, random_state=0)
        first, second = (fitted_there(model, X, y, other_device) for _ in range(2))
        assert (other_device.get(first.coef_) == other_device.get(second.coef_)).all()


def test_a_model_moves_and_pickles(other_device, rng):
    X, y = problem("three", rng)
    model = fitted_there(SoftmaxClassifier(), X, y, other_device)
    back = model.to("numpy")
    assert type(back.coef_) is type(back.classes_) is type(back.n_iter_) is np.ndarray
    np.testing.assert_allclose(
        back.predict_proba(X), other_device.get(model.predict_proba(other_device.put(X))), rtol=1e-12
    )
    assert_there(model.coef_, other_device)
    again = pickle.loads(pickle.dumps(back)).to(other_device.put(X))
    assert_there(again.coef_, other_device)
    assert (other_device.get(again.predict(other_device.put(X))) == back.predict(X)).all()
    with pytest.raises(NotFittedError):
        SoftmaxClassifier().to("numpy")
    with pytest.raises(TypeError, match="device must be"):
        model.to(3)


def test_a_model_that_has_moved_computes_where_it_lives(rng):
    torch = pytest.importorskip("torch")
    X, y = problem("two", rng)
    model = LogisticClassifier(device=torch.device("cpu")).fit(X, y)
    assert model.to("numpy").device is model.to("cpu").device is None
    assert model.device == torch.device("cpu")


def test_a_model_moves_to_where_there_is_no_float64(float32_alone, rng):
    X, y = problem("two", rng)
    model = LogisticClassifier().partial_fit(X, y * 0.5, classes=[0.0, 0.5])
    rows = float32_alone.put(X)
    moved = model.to(rows)
    assert_there(moved.coef_, float32_alone, "float32")
    assert (float32_alone.get(moved.predict(rows)) == model.predict(X)).mean() > 0.99
    moved.partial_fit(rows, y * 0.5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint64", "int16", "float16", "float64", "longdouble"])
def test_labels_are_of_any_dtype(dtype, other_device, float32_alone, rng):
    X, y = problem("two", rng)
    y = y.astype(dtype)
    for device in (other_device, float32_alone):
        rows = device.put(X.astype(np.float32))
        model = LogisticClassifier().fit(rows, y)
        assert_there(model.predict(rows), device)
        assert model.score(rows, y) > 0.7


def test_labels_that_would_be_rounded_stay_those_of_numpy(float32_alone, rng):
    X, y = problem("two", rng)
    X, y = float32_alone.put(X), y + 2.0**24
    model = LogisticClassifier().fit(X, y)
    assert type(model.classes_) is type(model.predict(X)) is np.ndarray
    assert model.score(X, y) > 0.7


def test_dask_is_computed_and_taken_as_numpy(rng):
    dask = pytest.importorskip("dask.array")
    X, y = problem("two", rng)
    model = LogisticClassifier().fit(dask.from_array(X, chunks=50), dask.from_array(y))
    assert type(model.coef_) is type(model.predict(dask.from_array(X))) is np.ndarray
    np.testing.assert_array_equal(model.coef_, LogisticClassifier().fit(X, y).coef_)


@pytest.mark.parametrize(
    "method", ["decision_function", "predict", "predict_proba", "predict_log_proba", "score"]
)
def test_rows_that_live_elsewhere_than_the_model_are_an_error(other_device, method, rng):
    X, y = problem("two", rng)
    model = LogisticClassifier().fit(X, y)
    other = fitted_there(model, X, y, other_device)
    named = "predict" if method == "score" else method
    arguments = (y,) if method == "score" else ()
    for fitted, rows in ((model, other_device.put(X)), (other, X), (other, X.tolist())):
        with pytest.raises(ValueError, match=rf"LogisticClassifier.{named}\(\) must use the same namespace"):
            getattr(fitted, method)(rows, *arguments)
    assert (
        other_device.get(model.to(other_device.put(X)).predict(other_device.put(X))) == model.predict(X)
    ).all()


def test_bad_arrays_are_named(other_device, rng):
    X, y = problem("two", rng)
    model = fitted_there(LogisticClassifier(), X, y, other_device)
    before = copy.copy(vars(model))

    def refused(kind, match, X, y=y, weight=None):
        with pytest.raises(kind, match=match):
            model.fit(X, y, weight)
        assert vars(model) == before

    bad = X.copy()
    bad[3, 1] = np.nan
    refused(ValueError, "Input X contains NaN", other_device.put(bad))
    bad[3, 1] = np.inf
    refused(ValueError, "Input X contains infinity", other_device.put(bad))
    refused(TypeError, "must be float32 or float64", other_device.put(np.rint(X).astype(int)))
    refused(ValueError, "Expected 2D array", other_device.put(X[:, 0]))
    refused(ValueError, r"Found array with 0 sample\(s\)", other_device.put(X[:0]))
    refused(ValueError, r"Found array with 0 feature\(s\)", other_device.put(X[:, :0]))
    refused(ValueError, "same number of rows", other_device.put(X), other_device.put(y[:-1]))
    refused(
        ValueError,
        "sample_weight must not be negative",
        other_device.put(X),
        y,
        other_device.put(-np.ones(len(X))),
    )
    refused(ValueError, "only one class", other_device.put(X), other_device.put(np.zeros(len(X))))
    with pytest.raises(ValueError, match="has 4 features, but LogisticClassifier is expecting 5"):
        model.predict(other_device.put(X[:, :4]))
    large = np.full((len(X), 5), 1e300)
    large[::2] = -1e300
    assert np.isfinite(other_device.get(model.decision_function(other_device.put(large / 1e10)))).all()


def test_tensors_that_cannot_be_rows_are_named(rng):
    torch = pytest.importorskip("torch")
    X, y = problem("two", rng)
    X = torch.asarray(X)
    with pytest.raises(ValueError, match=r"X requires grad.*X.detach\(\)"):
        LogisticClassifier().fit(X.clone().requires_grad_(), y)
    with pytest.raises(ValueError, match="sample_weight requires grad"):
        LogisticClassifier().fit(X, y, torch.ones(len(X), requires_grad=True))
    with pytest.raises(TypeError, match="float16.*convert it"):
        LogisticClassifier().fit(X.half(), y)
    with pytest.raises(TypeError, match="sparse rows are taken as a SciPy CSR matrix"):
        LogisticClassifier().fit(X.to_sparse_csr(), y)


@pytest.mark.parametrize("form", ["array", "columns", "csr", "frame"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", [*SMOOTH, "proximal-newton"])
def test_a_device_computes_for_numpy(form, dtype, solver, rng):
    torch = pytest.importorskip("torch")
    X, y = problem("three", rng)
    X[rng.random(X.shape) < 0.3] = 0
    rows = {
        "array": lambda: X,
        "columns": lambda: np.asfortranarray(X),
        "csr": lambda: scipy.sparse.csr_array(X),
        "frame": lambda: pytest.importorskip("pandas").DataFrame(X, columns=list("abcde")),
    }[form]()
    model = SoftmaxClassifier(solver=solver, tol=1e-6, max_iter=100, random_state=0)
    if solver == "proximal-newton":
        model.set_params(l1_ratio=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        other = clone(model).set_params(device=torch.device("cpu"), device_dtype=dtype).fit(rows, y)
        model.fit(rows, y)
    for name in ("coef_", "intercept_", "classes_", "n_iter_"):
        assert type(getattr(other, name)) is np.ndarray
        assert getattr(other, name).dtype == getattr(model, name).dtype
    np.testing.assert_allclose(other.coef_, model.coef_, **TOLERANCES[dtype])
    assert (other.predict(rows) == model.predict(rows)).mean() > 0.99
    if form == "frame":
        assert list(other.feature_names_in_) == list("abcde")


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
def test_a_device_takes_validation_rows_too(form, rng):
    torch = pytest.importorskip("torch")
    X, y = problem("three", rng)
    curves = [
        SoftmaxClassifier(device=device, device_dtype="float64", solver="lbfgs")
        .fit(form(X[20:]), y[20:], X_val=form(X[:20]), y_val=y[:20])
        .validation_loss_curve_
        for device in (None, torch.device("cpu"))
    ]
    np.testing.assert_allclose(curves[1][-1], curves[0][-1], rtol=1e-3)


def test_a_device_goes_through_pipelines_and_searches(rng):
    torch = pytest.importorskip("torch")
    X, y = problem("three", rng)
    grid = {"softmaxclassifier__C": [0.01, 1.0]}
    found = []
    for device in (None, torch.device("cpu")):
        pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier(device=device))
        found.append(GridSearchCV(pipeline, grid, scoring="neg_log_loss", cv=3).fit(X, y))
    np.testing.assert_allclose(found[1].best_score_, found[0].best_score_, rtol=1e-3)
    assert found[1].best_params_ == found[0].best_params_


def test_a_device_that_is_not_there_is_named_when_fit_asks_for_it(rng):
    X, y = problem("two", rng)
    assert LogisticClassifier(device="cpu").fit(X, y).coef_.dtype == np.float64
    for device in (0, np.zeros(2)):
        with pytest.raises(TypeError, match="device must be None, a string"):
            LogisticClassifier(device=device).fit(X, y)
    with pytest.raises(ValueError, match="device_dtype must be one of"):
        LogisticClassifier(device_dtype="float16").fit(X, y)
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="device='nowhere' is no device that PyTorch"):
        LogisticClassifier(device="nowhere").fit(X, y)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device='cuda' is not available to PyTorch.*install a build"):
            LogisticClassifier(device="cuda").fit(X, y)


def test_a_device_without_torch_says_what_to_install(rng, monkeypatch):
    X, y = problem("two", rng)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="device='cuda' needs PyTorch, which is not installed: install"):
        LogisticClassifier(device="cuda").fit(X, y)


def test_numbers_too_large_for_the_device_are_an_error(rng):
    torch = pytest.importorskip("torch")
    X, y = problem("two", rng)
    X[0, 0] = 1e300
    with pytest.raises(ValueError, match="float32"):
        LogisticClassifier(device=torch.device("cpu")).fit(X, y)


def test_a_full_device_is_a_memory_error_and_the_model_stays(rng, monkeypatch):
    torch = pytest.importorskip("torch")
    X, y = problem("two", rng)
    model = LogisticClassifier().fit(torch.asarray(X), y)
    coef = model.coef_

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr("sklloss.linear.base.make_passes", full)
    with pytest.raises(MemoryError, match="LogisticClassifier ran out of memory.*9 GiB") as caught:
        model.fit(torch.asarray(X), y)
    assert caught.value.__context__.__traceback__ is None
    assert model.coef_ is coef


def test_torch_works_without_any_switch_of_scikit_learn(tmp_path):
    pytest.importorskip("torch")
    script = tmp_path / "plain.py"
    script.write_text(
        "import sys, numpy as np, sklloss\n"
        "assert 'torch' not in sys.modules\n"
        "import torch\n"
        "X = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)\n"
        "y = (X[:, 0] + X[:, 1] > 0).to(torch.int64)\n"
        "for kind in (sklloss.LogisticClassifier, sklloss.SoftmaxClassifier):\n"
        "    model = kind().fit(X, y)\n"
        "    assert isinstance(model.predict(X), torch.Tensor) and model.score(X, y) > 0.95\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "SCIPY_ARRAY_API"}
    environment["PYTHONPATH"] = os.path.dirname(sklloss.__path__[0])
    subprocess.run([sys.executable, script], check=True, env=environment, cwd=os.getcwd())
