"""The linear objective against a formula, its derivatives against differences, for every kind of target."""

import itertools
import tracemalloc

import numpy as np
import pytest
import scipy.sparse

from sklloss import losses
from sklloss.arrays import memory
from sklloss.data.dataset import Dataset
from sklloss.objectives import linear, numpy_passes
from sklloss.objectives.linear import LinearObjective
from sklloss.objectives.numpy_passes import NumPyPasses

N, P, K = 70, 4, 3
KINDS = ["binary", "multilabel", "one-vs-rest", "softmax codes", "softmax rows"]
WEIGHTS = ["none", "rows", "outputs"]


def data(kind, weights, dtype):
    """(X, loss, values, codes, weight, probabilities (n, outputs)) of a target of a kind."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, P))
    X[rng.uniform(size=X.shape) < 0.4] = 0
    loss = losses.CrossEntropy() if kind.startswith("softmax") else losses.LogLoss()
    values, codes, outputs = None, None, K
    if kind == "binary":
        outputs = 1
        values = rng.uniform(size=(N, 1))
    elif kind == "multilabel":
        values = rng.uniform(size=(N, K))
    elif kind == "softmax rows":
        values = rng.dirichlet(np.ones(K), size=N)
    else:
        codes = rng.integers(0, K, size=N)
    probabilities = np.eye(K)[codes] if values is None else values.astype(dtype).astype(np.float64)
    weight = {
        "none": None,
        "rows": rng.uniform(size=N),
        "outputs": rng.uniform(size=(N, outputs)),
    }[weights]
    if values is not None:
        values = values.astype(dtype)
    if weight is not None:
        weight = weight.astype(dtype)
    return X.astype(dtype), loss, values, codes, weight, probabilities


def objective(kind, weights, dtype, fit_intercept, C, container=np.asarray, smoothing=0.0):
    X, loss, values, codes, weight, probabilities = data(kind, weights, dtype)
    if smoothing:
        loss = type(loss)(label_smoothing=smoothing)
        probabilities = probabilities * (1 - smoothing) + smoothing / (K if kind.startswith("softmax") else 2)
    rows = NumPyPasses(
        Dataset(container(X), values, codes, weight, probabilities.shape[1]),
        loss,
        fit_intercept=fit_intercept,
    )
    reference = (np.asarray(X, dtype=np.float64), probabilities, weight, kind.startswith("softmax"))
    return LinearObjective(rows, C), reference


def reference_value(w, reference, fit_intercept, C):
    """Summed over problems, in extended precision so that differences of it are exact enough."""
    X, probabilities, weight, softmax = reference
    w = np.asarray(w, dtype=np.longdouble).reshape(probabilities.shape[1], -1)
    coef = w[:, :P]
    Z = X @ coef.T + (w[:, P] if fit_intercept else 0)
    weight = 1 if weight is None else np.asarray(weight, dtype=np.longdouble)
    if softmax:
        loss = np.log(np.exp(Z).sum(axis=1)) - (probabilities * Z).sum(axis=1)
    else:
        loss = np.log1p(np.exp(Z)) - probabilities * Z
        if np.ndim(weight) == 1:
            weight = weight[:, None]
    total = (weight * loss).sum()
    return total if np.isinf(C) else C * total + (coef**2).sum() / 2


def differences(f, w, h):
    """Central differences, with the fourth-order formula."""
    gradient = np.empty(w.shape, dtype=np.longdouble)
    for index in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[index] = h
        gradient[index] = (8 * (f(w + step) - f(w - step)) - (f(w + 2 * step) - f(w - 2 * step))) / (12 * h)
    return gradient


def full(hessian):
    lower = np.tril(hessian)
    return lower + np.swapaxes(np.tril(hessian, -1), 1, 2)


CASES = [
    (kind, weights)
    for kind, weights in itertools.product(KINDS, WEIGHTS)
    if not (kind.startswith("softmax") and weights == "outputs")
]
CONTAINERS = {
    "by rows": np.ascontiguousarray,
    "by columns": np.asfortranarray,
    "CSR": scipy.sparse.csr_matrix,
    "CSR int64": lambda X: _int64(scipy.sparse.csr_array(X)),
}


def _int64(X):
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("C", [0.7, np.inf])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("kind", "weights"), CASES)
def test_value_and_gradient_are_those_of_the_formula(kind, weights, fit_intercept, C, dtype, container):
    made, reference = objective(kind, weights, dtype, fit_intercept, C, CONTAINERS[container])
    w = np.random.default_rng(1).normal(size=made.shape)
    value, gradient = made.value_and_gradient(w)
    assert value.shape == (made.problems,)
    assert gradient.shape == made.shape == w.shape
    assert value.dtype == gradient.dtype == np.float64

    def f(w):
        return reference_value(w, reference, fit_intercept, C)

    rtol = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(value.sum(), float(f(w)), rtol=rtol)
    expected = differences(f, w.astype(np.longdouble), 1e-4).astype(np.float64)
    np.testing.assert_allclose(gradient, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("C", [0.7, np.inf])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("kind", "weights"), CASES)
def test_hessian_and_its_products_are_differences_of_the_gradient(
    kind, weights, fit_intercept, C, dtype, container
):
    made, reference = objective(kind, weights, dtype, fit_intercept, C, CONTAINERS[container])
    exact, _ = objective(kind, weights, np.float64, fit_intercept, C)
    if dtype == np.float32:  # the same numbers, whose gradient is exact enough to be differenced
        X, loss, values, codes, weight, p = data(kind, weights, dtype)
        wide = [None if a is None else a.astype(np.float64) for a in (X, values, weight)]
        exact = LinearObjective(
            NumPyPasses(
                Dataset(wide[0], wide[1], codes, wide[2], p.shape[1]), loss, fit_intercept=fit_intercept
            ),
            C,
        )
    w = np.random.default_rng(1).normal(size=made.shape)
    value, gradient, hessian = made.hessian(w)
    hessian = full(hessian)
    assert hessian.shape == (made.problems, made.size, made.size)
    # rows of probabilities in float32 sum to 1 only so far
    rtol = 1e-7 if kind == "softmax rows" and dtype == np.float32 else 1e-12
    np.testing.assert_allclose(value.sum(), float(reference_value(w, reference, fit_intercept, C)), rtol=rtol)
    np.testing.assert_allclose(gradient, exact.value_and_gradient(w)[1], rtol=1e-10, atol=1e-12)
    rng = np.random.default_rng(2)
    for _ in range(3):
        v = rng.normal(size=made.shape)
        if made.problems == 1 and made.passes.outputs > 1:
            # without a penalty, the Hessian of a softmax is changed along the common shift
            v = v.reshape(K, -1)
            v = (v - v.mean(axis=0)).reshape(made.shape)
        h = 1e-3
        ahead, behind = exact.value_and_gradient(w + h * v)[1], exact.value_and_gradient(w - h * v)[1]
        far, back = exact.value_and_gradient(w + 2 * h * v)[1], exact.value_and_gradient(w - 2 * h * v)[1]
        expected = (8 * (ahead - behind) - (far - back)) / (12 * h)
        found = np.einsum("bij,bj->bi", hessian, v)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())
        made.linearise(w)
        tolerance = 1e-8 if dtype == np.float64 else 1e-5
        product = made.product(v)
        np.testing.assert_allclose(product, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("entry_work", [1e-9, 1e9], ids=["entry by entry", "written out"])
@pytest.mark.parametrize("container", ["CSR", "CSR int64"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("kind", "weights"), CASES)
def test_diagonal_blocks_of_a_sparse_X_are_those_of_the_dense_one(
    monkeypatch, kind, weights, fit_intercept, dtype, container, entry_work
):
    monkeypatch.setattr(numpy_passes, "ENTRY_WORK", entry_work)
    dense, _ = objective(kind, weights, dtype, fit_intercept, 0.7)
    sparse, _ = objective(kind, weights, dtype, fit_intercept, 0.7, CONTAINERS[container])
    coef = np.random.default_rng(1).normal(size=(dense.passes.outputs, dense.passes.width))
    expected = dense.passes.hessian(coef, coupled=False)
    for found, wanted in zip(sparse.passes.hessian(coef, coupled=False), expected, strict=True):
        found, wanted = (np.tril(found), np.tril(wanted)) if found.ndim == 3 else (found, wanted)
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * np.abs(wanted).max())
    for found, wanted in zip(sparse.passes.precise_gradient(coef), expected, strict=False):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("C", [0.7, np.inf])
def test_the_hessian_of_a_softmax_is_regular_along_the_common_shift(C):
    made, _ = objective("softmax codes", "none", np.float64, True, C)
    w = np.random.default_rng(1).normal(size=made.shape)
    _, gradient, hessian = made.hessian(w)
    eigenvalues = np.linalg.eigvalsh(full(hessian)[0])
    assert eigenvalues.min() > 1e-3
    shift = np.zeros((K, made.passes.width))
    shift[:, -1] = 1
    assert abs(shift.reshape(made.shape)[0] @ gradient[0]) < 1e-10
    step = np.linalg.solve(full(hessian)[0], gradient[0])
    assert abs(step @ shift.ravel()) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_label_smoothing_is_the_objective_of_smoothed_targets(kind):
    made, reference = objective(kind, "rows", np.float64, True, 0.7, smoothing=0.3)
    w = np.random.default_rng(1).normal(size=made.shape)
    expected = float(reference_value(w, reference, True, 0.7))
    np.testing.assert_allclose(made.value_and_gradient(w)[0].sum(), expected, rtol=1e-12)
    np.testing.assert_allclose(made.hessian(w)[0].sum(), expected, rtol=1e-12)


@pytest.mark.parametrize("container", ["by rows", "CSR"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("kind", "weights"), CASES)
def test_preconditioners_are_solvers_of_what_they_say(monkeypatch, kind, weights, fit_intercept, container):
    made, reference = objective(kind, weights, np.float64, fit_intercept, 0.7, CONTAINERS[container])
    X, probabilities, weight, _ = reference
    A = np.column_stack([X, np.ones(N)]) if fit_intercept else X
    weight = np.ones(N) if weight is None else weight if weight.ndim == 1 else weight.mean(axis=1)
    ridge = np.ones(A.shape[1])
    ridge[P:] = 0
    matrix = 0.7 / 4 * A.T @ (weight[:, None] * A) + np.diag(ridge)
    x = np.random.default_rng(1).normal(size=made.shape)
    each = x.reshape(probabilities.shape[1], -1)
    np.testing.assert_allclose(
        made.preconditioner()(x).reshape(each.shape), np.linalg.solve(matrix, each.T).T, rtol=1e-7
    )
    monkeypatch.setattr(linear, "WIDEST_GRAM", 0)
    np.testing.assert_allclose(
        made.preconditioner()(x).reshape(each.shape), each / np.diagonal(matrix), rtol=1e-12
    )
    w = np.random.default_rng(2).normal(size=made.shape)
    made.linearise(w)
    before = made.product(x).copy()
    # of many columns, the diagonal of the Hessian
    wide = made.local_preconditioner()
    monkeypatch.setattr(linear, "WIDEST_GRAM", 100)
    solves = [made.local_preconditioner()]
    if container != "CSR":
        # blocks that are made and factorised one at a time
        monkeypatch.setattr(linear, "WIDEST_BLOCKS", 0)
        monkeypatch.setattr(linear, "BLOCKS_SHARE", 1.0)
        monkeypatch.setattr(numpy_passes, "OUTPUT_ROWS", 32)
        solves.append(made.local_preconditioner())
    np.testing.assert_array_equal(made.product(x), before)
    hessian = full(made.hessian(w)[2])
    for solve in solves:
        check_local_preconditioner(solve, made, reference, hessian, w, x, ridge)
    if made.problems > 1 or made.passes.outputs == 1:
        np.testing.assert_allclose(wide(x) * np.einsum("bii->bi", hessian), x, rtol=1e-7)
    else:
        check_local_preconditioner(wide, made, reference, hessian, w, x, ridge, diagonal=True)


def check_local_preconditioner(solve, made, reference, hessian, w, x, ridge, *, diagonal=False):
    X, _, weight, _ = reference
    A = np.column_stack([X, np.ones(N)]) if len(ridge) > P else X
    weight = np.ones(N) if weight is None else weight if weight.ndim == 1 else weight.mean(axis=1)
    if made.problems > 1 or made.passes.outputs == 1:
        np.testing.assert_allclose(np.einsum("bij,bj->bi", hessian, solve(x)), x, rtol=1e-6, atol=1e-8)
    else:
        # blocks for what differs between outputs, and the penalty along what they share
        d = A.shape[1]
        Z = A @ w.reshape(K, d).T
        Q = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
        blocks = [0.7 * (A * (weight * q * (1 - q))[:, None]).T @ A + np.diag(ridge) for q in Q.T]
        if diagonal:
            blocks = [np.diag(np.diagonal(block)) for block in blocks]
        shift = x.reshape(K, d).mean(axis=0)
        parts = x.reshape(K, d) - shift
        expected = np.stack([np.linalg.solve(block, part) for block, part in zip(blocks, parts, strict=True)])
        expected += ridge * shift - expected.mean(axis=0)
        np.testing.assert_allclose(solve(x).reshape(K, d), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["binary", "one-vs-rest", "softmax codes"])
def test_paired_factors_are_those_of_each_block(monkeypatch, kind):
    made, _ = objective(kind, "none", np.float64, True, 0.7)
    made.linearise(np.random.default_rng(1).normal(size=made.shape))
    x = np.random.default_rng(2).normal(size=made.shape)
    each = made.local_preconditioner()
    monkeypatch.setattr(linear, "WIDEST_BLOCKS", 0)
    monkeypatch.setattr(linear, "BLOCKS_SHARE", 1.0)
    pairs = made.local_preconditioner()
    np.testing.assert_allclose(pairs(x), each(x), rtol=1e-9)
    width = made.passes.width
    factors = [solve.coordinates() for solve in (each, pairs)]
    lower = np.tril(np.ones((width, width)))
    np.testing.assert_allclose(factors[1][0] * lower, factors[0][0] * lower, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(factors[1][1], factors[0][1], rtol=1e-9)


def test_a_wide_local_preconditioner_takes_half_a_matrix_for_each_output(monkeypatch):
    n, features, outputs = 8192, 300, 5
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, features)).astype(np.float32)
    dataset = Dataset(X, None, rng.integers(0, outputs, n), None, outputs)
    made = LinearObjective(NumPyPasses(dataset, losses.CrossEntropy(), fit_intercept=True, n_threads=1), 1.0)
    # Arrays with pages of their own are counted too.
    monkeypatch.setattr(memory, "LARGE", np.inf)
    matrix = 4 * made.passes.width * (made.passes.width + 1)
    tracemalloc.start()
    try:
        made.linearise(np.zeros(made.shape))
        made.preconditioner()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        made.local_preconditioner()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The matrix of the first preconditioner, in float64, is released.
    held = -2 * matrix + (outputs + 1) // 2 * matrix
    assert peak - before < held + 2 * matrix


def test_an_infinite_C_means_no_penalty():
    made, _ = objective("binary", "none", np.float64, True, np.inf)
    assert not made.penalised
    made, _ = objective("binary", "none", np.float64, True, 1e300)
    assert made.penalised


class PlainLogLoss(losses.LogLoss):
    """Without its kernel."""

    kernel = None


class PlainCrossEntropy(losses.CrossEntropy):
    """Without its kernel."""

    kernel = None


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("kind", "weights"), CASES)
def test_a_loss_without_a_kernel_has_the_passes_of_its_kernel(
    monkeypatch, kind, weights, fit_intercept, dtype, container
):
    # blocks smaller than the data, so that there are several
    monkeypatch.setattr(numpy_passes, "PYTHON_ROWS", 32)
    for bound in ("BLOCK_BYTES", "SMALL_BLOCK_BYTES", "WIDE_BLOCK_BYTES", "BLOCK_SCORES"):
        monkeypatch.setattr(numpy_passes, bound, 1)
    X, loss, values, codes, weight, p = data(kind, weights, dtype)
    plain = PlainCrossEntropy() if kind.startswith("softmax") else PlainLogLoss()
    ours, theirs = (
        LinearObjective(
            NumPyPasses(
                Dataset(CONTAINERS[container](X), values, codes, weight, p.shape[1]),
                one,
                fit_intercept=fit_intercept,
            ),
            0.7,
        )
        for one in (plain, loss)
    )
    w = np.random.default_rng(1).normal(size=ours.shape)
    rtol = 1e-12 if dtype == np.float64 else 1e-5

    def same(found, expected, rtol=rtol):
        for one, other in zip(found, expected):
            np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * np.abs(other).max())

    same(ours.value_and_gradient(w), theirs.value_and_gradient(w))
    if plain.separable:
        # the Hessian is worked out in float64
        same(ours.hessian(w), theirs.hessian(w), 1e-12)
        same(ours.linearise(w), theirs.linearise(w))
        direction = np.random.default_rng(2).normal(size=ours.shape)
        same([ours.product(direction)], [theirs.product(direction)])


def test_outputs_of_a_mean_are_divided_by_their_number():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(N, P)), rng.uniform(size=(N, K))

    class Plain(losses.HalfSquaredError):
        kernel = None

    w = rng.normal(size=(K, P))
    error = X @ w.T - Y
    for loss in (losses.HalfSquaredError(), Plain()):
        made = LinearObjective(NumPyPasses(Dataset(X, Y, None, None, K), loss, fit_intercept=False), np.inf)
        value, gradient, hessian = made.hessian(w)
        np.testing.assert_allclose(value, (error**2).sum(axis=0) / 2 / K, rtol=1e-12)
        np.testing.assert_allclose(gradient, error.T @ X / K, rtol=1e-12)
        np.testing.assert_allclose(full(hessian), np.broadcast_to(X.T @ X / K, (K, P, P)), rtol=1e-12)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [0.7, np.inf])
@pytest.mark.parametrize(("kind", "weights"), CASES)
@pytest.mark.parametrize("loss", ["with curvature", "without"])
def test_the_preconditioner_of_any_loss_solves_with_positive_blocks(loss, kind, weights, C, fit_intercept):
    made, (X, probabilities, weight, softmax) = objective(kind, weights, np.float64, fit_intercept, C)
    if not softmax and loss == "without":
        made.passes.loss = type("Bare", (losses.LogLoss,), {"formula": losses.LogLoss.formula})()
        assert not made.passes.loss.states_curvature
    A = np.column_stack([X, np.ones(N)]) if fit_intercept else X
    w = np.random.default_rng(1).normal(size=made.shape)
    Z = A @ made.coef(w).T
    if softmax:
        p = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    else:
        p = 1 / (1 + np.exp(-Z))
    slopes = np.abs(p - probabilities) if softmax or loss == "without" else p * (1 - p)
    weight = np.ones(slopes.shape) if weight is None else weight.reshape(N, -1)
    ridge = np.full(A.shape[1], float(np.isfinite(C)))
    ridge[P:] = 0
    scale = C if np.isfinite(C) else 1.0
    x = np.random.default_rng(2).normal(size=made.coef(w).shape)
    found = made.preconditioner_at(w)(x.reshape(made.shape)).reshape(x.shape)
    shift = x.mean(axis=0) if softmax else 0.0
    expected = np.stack(
        [
            np.linalg.solve(scale * (A * (weight * slopes)[:, [k]]).T @ A + np.diag(ridge), (x - shift)[k])
            for k in range(len(x))
        ]
    )
    if softmax:
        expected = expected - expected.mean(axis=0) + ridge * shift
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_a_preconditioner_of_coupled_outputs_that_do_not_shift_alike_is_whole():
    rng = np.random.default_rng(0)

    class Norm(losses.Loss):
        separable = False

        def formula(self, xp, y, raw):
            size = xp.sqrt(1 + ((raw - y) ** 2).sum(axis=1))
            return size, (raw - y) / size[:, None]

    X, Y = rng.normal(size=(N, P)), rng.uniform(size=(N, K))
    made = LinearObjective(NumPyPasses(Dataset(X, Y, None, None, K), Norm(), fit_intercept=True), 1.0)
    solved = made.preconditioner_at(rng.normal(size=made.shape))(np.ones(made.shape))
    assert (np.abs(made.coef(solved).sum(axis=0)) > 0).all()
    assert np.ptp(made.coef(solved), axis=0).min() > 0


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("loss", [losses.HalfSquaredError(), losses.MeanSquaredError()])
def test_the_preconditioner_of_a_quadratic_objective_is_its_hessian(loss, outputs, rng):
    X, Y = rng.normal(size=(50, 4)), rng.normal(size=(50, outputs))
    rows = NumPyPasses(Dataset(X, Y, None, None, outputs), loss, fit_intercept=True)
    objective = LinearObjective(rows, 3.0)
    objective.linearise(np.zeros(objective.shape))
    direction = rng.normal(size=objective.shape)
    product = objective.product(direction).copy()
    np.testing.assert_allclose(objective.preconditioner()(product), direction, rtol=1e-6)
    ratio = objective.diagonal() / np.einsum("bii->bi", objective.hessian(np.zeros(objective.shape))[2])
    np.testing.assert_allclose(ratio, 1.0)


def test_the_curvature_bound_is_that_of_the_loss(rng):
    def passes(loss, outputs):
        Y = rng.uniform(size=(20, outputs))
        return NumPyPasses(
            Dataset(rng.normal(size=(20, 2)), Y, None, None, outputs), loss, fit_intercept=True
        )

    assert passes(losses.LogLoss(), 2).curvature_bound == 0.25
    assert passes(losses.Huber(), 2).curvature_bound == 0.5
    assert passes(losses.Focal(), 1).curvature_bound == 0.25  # states none
    assert passes(losses.CrossEntropy(), 4).initial_curvature == pytest.approx(3 / 16)
    assert passes(losses.HalfSquaredError(), 1).initial_curvature == 1.0


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_a_product_may_leave_out_outputs(fit_intercept):
    made, _ = objective("one-vs-rest", "rows", np.float64, fit_intercept, 0.7, scipy.sparse.csr_array)
    rng = np.random.default_rng(1)
    width = made.passes.width
    for _ in range(2):
        made.linearise(rng.normal(size=made.shape))
        for moving in ([0, 1, 2], [0, 2], [1], [1], [2], [], [0, 1, 2]):
            direction = np.zeros((K, width))
            direction[moving] = rng.normal(size=(len(moving), width))
            product = made.product(direction.reshape(made.shape)).copy()
            hessian = full(made.hessian(made._point)[2])
            expected = np.einsum("bij,bj->bi", hessian, direction.reshape(made.shape))
            np.testing.assert_allclose(product, expected, rtol=1e-9, atol=1e-12 * np.abs(hessian).max())


@pytest.mark.parametrize("container", CONTAINERS)
def test_unlikely_classes_count_in_a_hessian_of_some_parameters(container):
    # Along a common shift of all outputs, what a softmax's Hessian adds up cancels, so that little is much.
    rng = np.random.default_rng(0)
    X = rng.uniform(1.0, 2.0, size=(N, P))
    rows = Dataset(CONTAINERS[container](X), None, rng.integers(0, K, size=N), None, K)
    made = LinearObjective(NumPyPasses(rows, losses.CrossEntropy(), fit_intercept=True), 1.0, 1.0)
    w = np.zeros((K, P + 1))
    w[:, -1] = [0.0, -3.0, -8.0]
    made.linearise(w.reshape(made.shape))
    chosen = np.flatnonzero(np.arange(K * (P + 1)) % (P + 1) < P)
    matrix = made.subset_hessian([chosen])[0]
    shift = np.tile(np.arange(1.0, P + 1), K)
    assert shift @ matrix @ shift <= 1e-6 * (shift**2 @ np.diagonal(matrix))
