"""All estimators on a device of torch's: what NumPy gives, for tensors there and for data moved there.

On CUDA's where there is one, else on a simulated one. The tests of arrays (``there`` in conftest.py) run on
it too. What only one of them can show is in test_cuda.py and test_simulated_device.py.
"""

import warnings

import numpy as np
import pytest
import scipy.sparse
from helpers import learned
from simulated_device import transfers
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklloss import LogisticClassifier, MLPClassifier, MLPRegressor, SoftmaxClassifier, losses

torch = pytest.importorskip("torch")

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


@pytest.fixture
def other_device(device):
    """``there(array)``: NumPy's as a tensor on the device."""
    return lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)


def linear(kind, solver, **options):
    options |= {"l1_ratio": 0.5} if solver == "proximal-newton" else {}
    epochs = 10 if solver in ("sgd", "adam") else 300
    return kind(solver=solver, tol=1e-6, random_state=0, max_iter=epochs, **options)


def network(kind, **options):
    options = {"hidden_layer_sizes": (16, 8), "max_iter": 3, "batch_size": 128, "random_state": 0} | options
    return kind(**options)


def assert_alike(model, other, dtype, device=None):
    """Assert that both learned the same, the other one there (None: in NumPy)."""
    for own, one in zip(learned(other), learned(model), strict=True):
        if device is not None:
            assert own.device == device
            assert own.dtype == getattr(torch, dtype)
            own = own.cpu().numpy()
        assert type(own) is np.ndarray
        np.testing.assert_allclose(own, one, **TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", [LogisticClassifier, SoftmaxClassifier])
def test_linear_classifiers_are_those_of_numpy(kind, solver, dtype, device, other_device, data, rng):
    X, y = data[0].astype(dtype), data[1]
    weight = rng.integers(0, 3, N).astype(dtype)
    model = linear(kind, solver).fit(X, y, weight)
    other = linear(kind, solver).fit(other_device(X), other_device(y), other_device(weight))
    assert_alike(model, other, dtype, device)
    proba = other.predict_proba(other_device(X))
    assert proba.device == device
    np.testing.assert_allclose(proba.cpu().numpy(), model.predict_proba(X), **TOLERANCES[dtype])
    assert type(other.score(other_device(X), y)) is float
    offloaded = linear(kind, solver, device=device, device_dtype=dtype).fit(X, y, weight)
    assert_alike(model, offloaded, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", [name for name in losses.names() if losses.get(name).target == "values"])
def test_regressors_are_those_of_numpy(loss, dtype, device, other_device, data):
    X, y = data[0].astype(dtype) / 10, data[2]
    model = network(MLPRegressor, loss=loss).fit(X, y)
    assert_alike(model, network(MLPRegressor, loss=loss).fit(other_device(X), other_device(y)), dtype, device)
    offloaded = network(MLPRegressor, loss=loss, device=device, device_dtype=dtype).fit(X, y)
    assert_alike(model, offloaded, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd", "lbfgs"])
def test_network_classifiers_are_those_of_numpy(solver, dtype, device, other_device, data):
    X, y = data[0].astype(dtype) / 10, data[1]
    model = network(MLPClassifier, solver=solver).fit(X, y)
    other = network(MLPClassifier, solver=solver).fit(other_device(X), y)
    assert_alike(model, other, dtype, device)
    assert (other.predict(other_device(X)).cpu().numpy() == model.predict(X)).mean() > 0.99
    offloaded = network(MLPClassifier, solver=solver, device=str(device), device_dtype=dtype).fit(X, y)
    assert_alike(model, offloaded, dtype)


@pytest.mark.parametrize("solver", SOLVERS)
def test_sparse_rows_are_moved_there(solver, device, data):
    X = scipy.sparse.csr_array(np.where(data[0] > 1.5, data[0], 0.0))
    model = linear(LogisticClassifier, solver).fit(X, data[1] > 1)
    other = linear(LogisticClassifier, solver, device=device, device_dtype="float64").fit(X, data[1] > 1)
    assert_alike(model, other, "float64")


def test_pipelines_and_searches_of_numpy_work_unchanged(device, data):
    X, y, _ = data
    grid = {"softmaxclassifier__C": [1e-3, 1.0]}
    found = [
        GridSearchCV(make_pipeline(StandardScaler(), SoftmaxClassifier(device=where)), grid, cv=3).fit(X, y)
        for where in (None, device)
    ]
    assert found[1].best_params_ == found[0].best_params_
    np.testing.assert_allclose(found[1].best_score_, found[0].best_score_, rtol=1e-2)


def waits(device, fit):
    """How often the host waits for the device."""
    if device.type != "cuda":
        with transfers() as seen:
            fit()
        return len(seen.reads) + len(seen.writes)
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
def test_no_batch_waits_for_the_device(kind, solver, device, other_device, data):
    X, y = other_device(data[0]), other_device(data[1])
    counts = []
    for batch_size in (N, N // 40):
        model = kind(solver=solver, batch_size=batch_size, max_iter=2, random_state=0)
        counts.append(waits(device, lambda model=model: model.fit(X, y)))
    assert counts[1] <= counts[0] + 20


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_an_iteration_waits_a_few_times(solver, device, other_device, data):
    X, y = other_device(data[0]), other_device(data[1])
    few, many = (
        waits(device, lambda n=n: SoftmaxClassifier(solver=solver, tol=0.0, max_iter=n, C=100).fit(X, y))
        for n in (3, 13)
    )
    products = 12 if solver == "newton-cg" else 1  # conjugate gradients in an iteration
    assert many - few <= 10 * 4 * products


def test_devices_do_not_mix(other_device, data):
    X, y, _ = data
    model = LogisticClassifier().fit(other_device(X), y > 1)
    for rows in (X, torch.from_numpy(X)):
        with pytest.raises(ValueError, match=r"LogisticClassifier.predict\(\) must use the same namespace"):
            model.predict(rows)
    back = clone(model).fit(X, y > 1)
    assert (model.to("numpy").predict(X) == back.predict(X)).mean() > 0.999
    assert (model.to("cpu").predict(torch.from_numpy(X)).numpy() == back.predict(X)).mean() > 0.999
