"""Stochastic solvers over arrays of other libraries: the way that they take over NumPy's."""

import numpy as np
import pytest
import scipy.sparse

from sklloss import losses
from sklloss.arrays import device as device_module
from sklloss.objectives.linear import LinearObjective
from sklloss.objectives.linear_stochastic import MiniBatches
from sklloss.objectives.passes import make_passes
from sklloss.solvers.newton_cg import newton_cg
from sklloss.solvers.stream import Stream, descend
from sklloss.solvers.variance_reduced import adam, sgd

N, P, K = 240, 6, 3


@pytest.fixture
def there(cell):
    """A place, X's dtype, and how close parameters are to NumPy's after a few epochs."""
    place, dtype = cell
    return place, dtype, 1e-8 if dtype == np.float64 else 1e-3


def objectives(there, loss, rng, *, C=1.0, weight=None, sparse=False, features=P):
    """The same objective in NumPy and there. Columns have different sizes, and one is far from 0."""
    place, dtype, _ = there
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
    for one in (X, device_module.move(X, place)):
        rows = make_passes(one, loss, *target, weight, K, fit_intercept=True, center=True)
        made.append(LinearObjective(rows, C))
    return made


LOSSES = (losses.CrossEntropy(), losses.LogLoss(0.1), losses.Focal(1.0), losses.CrossEntropy(0.1))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("solver", [sgd, adam])
@pytest.mark.parametrize("weighted", [False, True])
def test_epochs_end_where_those_of_numpy_do(there, solver, loss, weighted, rng):
    weight = rng.integers(0, 3, N).astype(float) if weighted else None
    ends = [
        solver(
            objective, np.zeros(objective.shape), tol=0.0, max_iter=2, batch_size=40,
            random_state=np.random.RandomState(0),
        )
        for objective in objectives(there, loss, rng, weight=weight)
    ]  # fmt: skip
    expected, found = ends
    assert type(found.w) is np.ndarray
    assert found.w.dtype == np.float64
    np.testing.assert_array_equal(found.n_iter, expected.n_iter)
    np.testing.assert_allclose(found.w, expected.w, rtol=there[2], atol=there[2] * np.abs(expected.w).max())
    np.testing.assert_allclose(found.curve, expected.curve, rtol=there[2])


@pytest.mark.parametrize("solver", [sgd, adam])
def test_they_go_all_the_way(solver, find_place, rng):
    there = find_place("torch"), np.dtype(np.float32), None
    here, found = objectives(there, losses.CrossEntropy(), rng)
    end = solver(found, np.zeros(found.shape), tol=1e-4, max_iter=200, random_state=np.random.RandomState(0))
    least = newton_cg(here, np.zeros(here.shape), tol=1e-9, max_iter=100)
    assert end.converged.all()
    assert end.value.sum() - least.value.sum() <= 1e-5 * least.value.sum()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("solver", [sgd, adam])
def test_a_sparse_table_of_few_columns(solver, dtype, find_place, rng):
    there = find_place("torch"), np.dtype(dtype), 1e-8 if dtype == "float64" else 1e-3
    expected, found = (
        solver(
            objective, np.zeros(objective.shape), tol=0.0, max_iter=2, batch_size=40,
            random_state=np.random.RandomState(0),
        )
        for objective in objectives(there, losses.CrossEntropy(), rng, sparse=True)
    )  # fmt: skip
    np.testing.assert_allclose(found.w, expected.w, rtol=there[2], atol=there[2] * np.abs(expected.w).max())


@pytest.mark.parametrize("solver", [sgd, adam])
def test_a_sparse_table_of_many_columns_reaches_the_same_optimum(solver, find_place, rng):
    there = find_place("torch"), np.dtype(float), None
    ends = [
        solver(
            objective,
            np.zeros(objective.shape),
            tol=1e-6,
            max_iter=500,
            random_state=np.random.RandomState(0),
        )
        for objective in objectives(there, losses.LogLoss(), rng, sparse=True, features=200, C=0.1)
    ]
    np.testing.assert_allclose(ends[1].value, ends[0].value, rtol=2e-5)


@pytest.mark.parametrize("loss", LOSSES[:3], ids=repr)
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_stream_ends_where_that_of_numpy_does(there, adaptive, loss, sparse, find_place, rng):
    if sparse and not there[0].is_torch:
        there = find_place("torch"), there[1], there[2]
    weight = rng.integers(0, 3, N).astype(float)
    ends = []
    for objective in objectives(there, loss, rng, weight=weight, sparse=sparse):
        stream = Stream()
        stream.start(np.zeros((K, P + 1)), objective.rows.center)
        for _ in range(2):
            mean = descend(
                objective, stream, adaptive=adaptive, batch_size=40, random_state=np.random.RandomState(0)
            )
        ends.append([mean, stream.w, *([stream.first, stream.second] if adaptive else [])])
    for expected, found in zip(*ends, strict=True):
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, expected, rtol=there[2], atol=there[2] * np.abs(expected).max())


def test_batches_of_many_rows_are_larger_on_a_device(find_place, rng):
    X = rng.normal(size=(120_000, 1)).astype(np.float32)
    sizes = []
    for one in (X, device_module.move(X, find_place("torch"))):
        rows = make_passes(one, losses.LogLoss(), (X > 0).astype(X.dtype), None, None, 1, fit_intercept=True)
        sizes.append(MiniBatches(LinearObjective(rows, 1.0)).batch_rows)
    assert sizes == [512, 600]
