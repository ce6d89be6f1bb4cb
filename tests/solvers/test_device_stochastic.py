"""Stochastic solvers over arrays of other libraries: the same path as over NumPy's."""

import numpy as np
import pytest
import scipy.sparse

from sklloss import losses
from sklloss.arrays import matrices
from sklloss.data.dataset import Dataset
from sklloss.objectives.linear import LinearObjective
from sklloss.objectives.passes import make_passes
from sklloss.solvers.newton_cg import newton_cg
from sklloss.solvers.stochastic import Stream, adam, descend, sgd

N, P, K = 240, 6, 3


@pytest.fixture
def setting(device_and_dtype):
    """A device, X's dtype, and how close parameters are to NumPy's after a few epochs."""
    device, dtype = device_and_dtype
    return device, dtype, 1e-8 if dtype == np.float64 else 1e-3


def objectives(setting, loss, rng, *, C=1.0, weight=None, sparse=False, features=P):
    """The same objective in NumPy and on the device. Columns differ in scale, and one is far from 0."""
    device, dtype, _ = setting
    X = rng.normal(size=(N, features)) * np.logspace(-1, 1, features)
    z = (X / X.std(axis=0)) @ rng.normal(size=(features, K)) + rng.normal(size=(N, K))
    X[:, -1] += 0.0 if sparse else 1000.0
    if sparse:
        X[rng.uniform(size=X.shape) < 0.6] = 0.0
        X = scipy.sparse.csr_array(X)
    X = X.astype(dtype)
    codes, values = z.argmax(axis=1), (z > 0).astype(dtype)
    target = (None, codes) if loss.target == "classes" else (values, None)
    weight = None if weight is None else weight.astype(dtype)
    made = []
    for one in (X, matrices.transfer(X, device)):
        rows = make_passes(Dataset(one, *target, weight, K), loss, fit_intercept=True, center=True)
        made.append(LinearObjective(rows, C))
    return made


LOSSES = (losses.CrossEntropy(), losses.LogLoss(0.1), losses.Focal(1.0), losses.CrossEntropy(0.1))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("solver", [sgd, adam])
@pytest.mark.parametrize("weighted", [False, True])
def test_epochs_end_where_those_of_numpy_do(setting, solver, loss, weighted, rng):
    weight = rng.integers(0, 3, N).astype(float) if weighted else None
    ends = [
        solver(
            objective, np.zeros(objective.shape), tol=0.0, max_iter=2, batch_size=40,
            random_state=np.random.RandomState(0),
        )
        for objective in objectives(setting, loss, rng, weight=weight)
    ]  # fmt: skip
    expected, found = ends
    assert type(found.w) is np.ndarray
    assert found.w.dtype == np.float64
    np.testing.assert_array_equal(found.n_iter, expected.n_iter)
    np.testing.assert_allclose(
        found.w, expected.w, rtol=setting[2], atol=setting[2] * np.abs(expected.w).max()
    )
    np.testing.assert_allclose(found.curve, expected.curve, rtol=setting[2])


@pytest.mark.parametrize("solver", [sgd, adam])
def test_stochastic_solvers_reach_the_optimum_on_a_device(solver, find_device, rng):
    setting = find_device("torch"), np.dtype(np.float32), None
    here, found = objectives(setting, losses.CrossEntropy(), rng)
    end = solver(found, np.zeros(found.shape), tol=1e-4, max_iter=200, random_state=np.random.RandomState(0))
    least = newton_cg(here, np.zeros(here.shape), tol=1e-9, max_iter=100)
    assert end.converged.all()
    assert end.value.sum() - least.value.sum() <= 1e-5 * least.value.sum()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("solver", [sgd, adam])
def test_epochs_over_few_sparse_columns_end_where_those_of_numpy_do(solver, dtype, find_device, rng):
    setting = find_device("torch"), np.dtype(dtype), 1e-8 if dtype == "float64" else 1e-3
    expected, found = (
        solver(
            objective, np.zeros(objective.shape), tol=0.0, max_iter=2, batch_size=40,
            random_state=np.random.RandomState(0),
        )
        for objective in objectives(setting, losses.CrossEntropy(), rng, sparse=True)
    )  # fmt: skip
    np.testing.assert_allclose(
        found.w, expected.w, rtol=setting[2], atol=setting[2] * np.abs(expected.w).max()
    )


@pytest.mark.parametrize("solver", [sgd, adam])
def test_many_sparse_columns_reach_the_optimum_of_numpy(solver, find_device, rng):
    setting = find_device("torch"), np.dtype(float), None
    ends = [
        solver(
            objective,
            np.zeros(objective.shape),
            tol=1e-6,
            max_iter=500,
            random_state=np.random.RandomState(0),
        )
        for objective in objectives(setting, losses.LogLoss(), rng, sparse=True, features=200, C=0.1)
    ]
    np.testing.assert_allclose(ends[1].value, ends[0].value, rtol=2e-5)


@pytest.mark.parametrize("loss", LOSSES[:3], ids=repr)
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_stream_ends_where_that_of_numpy_does(setting, adaptive, loss, sparse, find_device, rng):
    if sparse and not setting[0].is_torch:
        setting = find_device("torch"), setting[1], setting[2]
    weight = rng.integers(0, 3, N).astype(float)
    ends = []
    for objective in objectives(setting, loss, rng, weight=weight, sparse=sparse):
        stream = Stream()
        stream.start(np.zeros((K, P + 1)), objective.passes.center)
        for _ in range(2):
            mean = descend(
                objective, stream, adaptive=adaptive, batch_size=40, random_state=np.random.RandomState(0)
            )
        ends.append([mean, stream.w, *([stream.first, stream.second] if adaptive else [])])
    for expected, found in zip(*ends, strict=True):
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, expected, rtol=setting[2], atol=setting[2] * np.abs(expected).max())


def test_batches_of_many_rows_are_larger_on_a_device(find_device, rng):
    X = rng.normal(size=(120_000, 1)).astype(np.float32)
    sizes = []
    for one in (X, matrices.transfer(X, find_device("torch"))):
        rows = make_passes(
            Dataset(one, (X > 0).astype(X.dtype), None, None, 1), losses.LogLoss(), fit_intercept=True
        )
        sizes.append(LinearObjective(rows, 1.0).mini_batches().batch_rows)
    assert sizes == [512, 600]
