"""All estimators on a CUDA device: what NumPy gives, for tensors there and for data moved there.

The tests of arrays (``there`` in conftest.py) run on a device too where there is one.
"""

import gc
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklloss import LogisticClassifier, MLPClassifier, MLPRegressor, SoftmaxClassifier, losses

torch = pytest.importorskip("torch", reason="no CUDA device: PyTorch is not installed")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device that PyTorch sees", allow_module_level=True)

DEVICE = "cuda"
SOLVERS = ("newton-cholesky", "newton-cg", "lbfgs", "sgd", "adam", "proximal-newton")
TOLERANCES = {"float64": {"rtol": 2e-4, "atol": 2e-5}, "float32": {"rtol": 5e-3, "atol": 5e-3}}
N, P, K = 4000, 20, 4

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore:Sparse:UserWarning"
)


@pytest.fixture
def data(rng):
    """X, labels of K classes, and values."""
    X = rng.normal(size=(N, P)) * np.logspace(-1, 1, P) + 1
    scores = X / X.std(axis=0) @ rng.normal(size=(P, K)) + rng.normal(size=(N, K))
    return X, scores.argmax(axis=1), np.exp(scores[:, 0] / scores[:, 0].std())


def there(array):
    return torch.from_numpy(np.ascontiguousarray(array)).to(DEVICE)


def linear(kind, solver, **options):
    options |= {"l1_ratio": 0.5} if solver == "proximal-newton" else {}
    epochs = 10 if solver in ("sgd", "adam") else 300
    return kind(solver=solver, tol=1e-6, random_state=0, max_iter=epochs, **options)


def network(kind, **options):
    options = {"hidden_layer_sizes": (16, 8), "max_iter": 3, "batch_size": 128, "random_state": 0} | options
    return kind(**options)


def learned(model):
    """The arrays that a model has learned."""
    return [model.coef_, model.intercept_] if hasattr(model, "coef_") else [*model.coefs_, *model.intercepts_]


def assert_alike(model, other, dtype, *, on_device):
    for own, one in zip(learned(other), learned(model), strict=True):
        if on_device:
            assert own.device.type == torch.device(DEVICE).type
            assert own.dtype == getattr(torch, dtype)
            own = own.cpu().numpy()
        assert type(own) is np.ndarray
        np.testing.assert_allclose(own, one, **TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", [LogisticClassifier, SoftmaxClassifier])
def test_linear_classifiers_are_those_of_numpy(kind, solver, dtype, data, rng):
    X, y = data[0].astype(dtype), data[1]
    weight = rng.integers(0, 3, N).astype(dtype)
    model = linear(kind, solver).fit(X, y, weight)
    other = linear(kind, solver).fit(there(X), there(y), there(weight))
    assert_alike(model, other, dtype, on_device=True)
    proba = other.predict_proba(there(X))
    assert proba.device.type == torch.device(DEVICE).type
    np.testing.assert_allclose(proba.cpu().numpy(), model.predict_proba(X), **TOLERANCES[dtype])
    assert type(other.score(there(X), y)) is float
    offloaded = linear(kind, solver, device=DEVICE, device_dtype=dtype).fit(X, y, weight)
    assert_alike(model, offloaded, dtype, on_device=False)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", [name for name in losses.names() if losses.get(name).target == "values"])
def test_regressors_are_those_of_numpy(loss, dtype, data):
    X, y = data[0].astype(dtype) / 10, data[2]
    model = network(MLPRegressor, loss=loss).fit(X, y)
    assert_alike(model, network(MLPRegressor, loss=loss).fit(there(X), there(y)), dtype, on_device=True)
    offloaded = network(MLPRegressor, loss=loss, device=DEVICE, device_dtype=dtype).fit(X, y)
    assert_alike(model, offloaded, dtype, on_device=False)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd", "lbfgs"])
def test_network_classifiers_are_those_of_numpy(solver, dtype, data):
    X, y = data[0].astype(dtype) / 10, data[1]
    model = network(MLPClassifier, solver=solver).fit(X, y)
    other = network(MLPClassifier, solver=solver).fit(there(X), y)
    assert_alike(model, other, dtype, on_device=True)
    assert (other.predict(there(X)).cpu().numpy() == model.predict(X)).mean() > 0.99
    offloaded = network(MLPClassifier, solver=solver, device=DEVICE, device_dtype=dtype).fit(X, y)
    assert_alike(model, offloaded, dtype, on_device=False)


@pytest.mark.parametrize("solver", SOLVERS)
def test_sparse_rows_are_moved_there(solver, data):
    X = scipy.sparse.csr_array(np.where(data[0] > 1.5, data[0], 0.0))
    model = linear(LogisticClassifier, solver).fit(X, data[1] > 1)
    other = linear(LogisticClassifier, solver, device=DEVICE, device_dtype="float64").fit(X, data[1] > 1)
    assert_alike(model, other, "float64", on_device=False)


def test_pipelines_and_searches_of_numpy_work_unchanged(data):
    X, y, _ = data
    grid = {"softmaxclassifier__C": [1e-3, 1.0]}
    found = [
        GridSearchCV(make_pipeline(StandardScaler(), SoftmaxClassifier(device=device)), grid, cv=3).fit(X, y)
        for device in (None, DEVICE)
    ]
    assert found[1].best_params_ == found[0].best_params_
    np.testing.assert_allclose(found[1].best_score_, found[0].best_score_, rtol=1e-2)


@dataclass(frozen=True)
class Broken(losses.Loss):
    """A loss that fails amid a fit, when there is much on the device."""

    target: ClassVar[str] = "probabilities"

    def formula(self, xp, y, raw):
        raise RuntimeError("broken")


def allocated():
    gc.collect()
    return torch.cuda.memory_allocated()


def test_an_error_leaves_nothing_on_the_device(data):
    X, y = data[0], data[1] > 1
    LogisticClassifier(device=DEVICE).fit(X, y)  # what libraries allocate once and keep
    before = allocated()
    with pytest.raises(RuntimeError, match="broken"):
        LogisticClassifier(loss=Broken(), device=DEVICE).fit(X, y)
    assert allocated() == before
    for kind in (LogisticClassifier, MLPClassifier):
        with pytest.raises(ValueError, match="NaN"):
            kind(device=DEVICE).fit(np.where(X > 10, np.nan, X), y)
        assert allocated() == before


@pytest.mark.parametrize("kind", [SoftmaxClassifier, MLPClassifier])
def test_rows_that_do_not_fit_are_a_memory_error_that_leaves_nothing_there(kind, rng):
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    X = np.zeros((1 << 14, 1 << 10), dtype=np.float32)  # 64 MiB
    y = np.arange(len(X)) % 3
    before = allocated()
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + (32 << 20)
    torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        with pytest.raises(MemoryError, match="room"):
            kind(device=DEVICE).fit(X, y)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert allocated() == before


def test_float32_means_float32_whatever_torch_was_told(data):
    X = data[0].astype(np.float32)
    model = SoftmaxClassifier(tol=1e-3).fit(there(X), data[1])
    coef, intercept = (a.double().cpu().numpy() for a in (model.coef_, model.intercept_))
    precise = X.astype(np.float64) @ coef.T + intercept
    told = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        scores = model.decision_function(there(X)).cpu().numpy()
        other = SoftmaxClassifier(tol=1e-3).fit(there(X), data[1])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(told)
    np.testing.assert_allclose(scores, precise, rtol=1e-4, atol=1e-5 * np.abs(precise).max())
    assert torch.equal(model.coef_, other.coef_)


def synchronisations(fit):
    """How often torch waits for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("kind", [SoftmaxClassifier, MLPClassifier])
def test_no_batch_waits_for_the_device(kind, solver, data):
    X, y = there(data[0]), there(data[1])
    counts = []
    for batch_size in (N, N // 40):
        model = kind(solver=solver, batch_size=batch_size, max_iter=2, random_state=0)
        counts.append(synchronisations(lambda model=model: model.fit(X, y)))
    assert counts[1] <= counts[0] + 20


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_an_iteration_waits_a_few_times(solver, data):
    X, y = there(data[0]), there(data[1])
    few, many = (
        synchronisations(lambda n=n: SoftmaxClassifier(solver=solver, tol=0.0, max_iter=n, C=100).fit(X, y))
        for n in (3, 13)
    )
    products = 12 if solver == "newton-cg" else 1  # conjugate gradients in an iteration
    assert many - few <= 10 * 4 * products


def test_devices_do_not_mix(data):
    X, y, _ = data
    model = LogisticClassifier().fit(there(X), y > 1)
    for rows in (X, torch.from_numpy(X)):
        with pytest.raises(ValueError, match=r"LogisticClassifier.predict\(\) must use the same namespace"):
            model.predict(rows)
    back = clone(model).fit(X, y > 1)
    assert (model.to("numpy").predict(X) == back.predict(X)).mean() > 0.999
    assert (model.to("cpu").predict(torch.from_numpy(X)).numpy() == back.predict(X)).mean() > 0.999
