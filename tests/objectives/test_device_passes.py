"""X in other libraries' arrays against the same X in NumPy, through every loss."""

import warnings

import numpy as np
import pytest
import scipy.sparse

from sklloss import losses
from sklloss.arrays.device import device_of, requested_device
from sklloss.arrays.matrices import transfer
from sklloss.data.dataset import Dataset
from sklloss.losses import Loss
from sklloss.objectives import device_passes
from sklloss.objectives.classification import TwoClasses
from sklloss.objectives.device_passes import DevicePasses
from sklloss.objectives.numpy_passes import NumPyPasses
from sklloss.objectives.passes import make_passes

N, FEATURES, OUTPUTS = 300, 5, 3
TORCH, STRICT, DEVICE1, NO_FLOAT64 = "torch", "array_api_strict", "device1", "no_float64"
CASES = [(name, dtype) for name in (TORCH, STRICT, DEVICE1) for dtype in (np.float32, np.float64)]
CASES.append((NO_FLOAT64, np.float32))
# The errors of float32 scores, and of float32 sums.
SINGLE, NARROW = 2e-5, 2e-3
STEEP = ("absolute_error", "quantile")  # the slope of a score near its target is a matter of rounding


def on_device(X, name):
    if name == TORCH:
        torch = pytest.importorskip("torch")
        return (
            transfer(X, requested_device(torch.device("cpu")))
            if scipy.sparse.issparse(X)
            else torch.asarray(X)
        )
    strict = pytest.importorskip("array_api_strict")
    device = None if name == STRICT else strict.Device(name)
    return strict.asarray(X, device=device)


def data(loss, dtype, weights, seed=0, *, n=N, outputs=OUTPUTS, sparse=False, coded=True, shift=30.0):
    """X, values, codes and weights; one of the columns is far from 0."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, FEATURES))
    X[:, 1] += shift
    if sparse:
        X = scipy.sparse.csr_array(X * (rng.random(X.shape) < 0.4))
    values = codes = None
    if loss.target == "values":
        values = (np.abs(rng.normal(size=(n, outputs))) + 0.1).astype(dtype)
    elif coded:
        codes = rng.integers(outputs, size=n)
    else:
        values = rng.dirichlet(np.ones(outputs), size=n).astype(dtype)
        values = np.round(values) if loss.domain == "labels" else values
    weight = None
    if weights != "none":
        shape = n if weights == "rows" else (n, outputs)
        weight = (rng.integers(4, size=shape) / 2).astype(dtype)
    return X.astype(dtype), values, codes, weight


def pair(loss, name, dtype, weights, *, intercept=True, **options):
    """The passes over NumPy arrays, and over the same rows on a device."""
    X, values, codes, weight = data(loss, dtype, weights, **options)
    arguments = (loss, values, codes, weight, options.get("outputs", OUTPUTS))
    keywords = {"fit_intercept": intercept, "center": True}
    there = make_passes(Dataset(on_device(X, name), *arguments[1:]), arguments[0], **keywords)
    assert isinstance(there, DevicePasses)
    return NumPyPasses(Dataset(X, *arguments[1:]), arguments[0], **keywords), there


def points(rows, count=2, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        coef = 0.1 * rng.normal(size=(rows.outputs, rows.width))
        yield coef if rows.center.any() else coef * np.where(np.arange(rows.width) == 1, 0.03, 1.0)


def close(found, expected, tolerance):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == np.float64
    size = np.abs(expected).max() if expected.size else 0.0
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * size)


def cases(loss):
    weights = ["none", "rows"]
    if loss.separable and loss.additive:
        weights.append("outputs")
    return weights


def all_losses():
    return [*(losses.get(name) for name in losses.names()), losses.SoftmaxFocal(gamma=2.0)]


def ids(loss):
    return type(loss).__name__


def has_curvature(loss):
    return loss.states_curvature and (loss.separable or loss.name == "cross_entropy")


@pytest.mark.parametrize("loss", all_losses(), ids=ids)
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_passes_give_what_numpy_gives(loss, name, dtype):
    tolerance = 1e-12 if dtype == np.float64 else NARROW if name == NO_FLOAT64 else SINGLE
    for weights in cases(loss):
        for intercept in (True, False):
            here, there = pair(loss, name, dtype, weights, intercept=intercept, coded=intercept)
            assert (here.center.any() and np.array_equal(here.center, there.center)) or not intercept
            device, curved = there.device, has_curvature(loss)
            for coef in points(here):
                sums, gradient = here.value_and_gradient(coef, keep_curvature=curved)
                resident = device.put(coef, device.wide)
                for given in (coef, resident):
                    found = there.value_and_gradient(given, keep_curvature=curved)
                    product = there.product(given) if curved else None
                    if given is resident:
                        assert all(part.dtype == resident.dtype for part in found)
                        found = [device.get(part).astype(np.float64) for part in found]
                        product = device.get(product).astype(np.float64) if curved else None
                    close(found[0], sums, tolerance)
                    if dtype == np.float64 or loss.name not in STEEP:
                        close(found[1], gradient, tolerance)
                    if curved:
                        close(product, here.product(coef), tolerance)


@pytest.mark.parametrize("loss", all_losses(), ids=ids)
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_second_derivatives_are_those_of_numpy(loss, name, dtype):
    exact = NARROW if name == NO_FLOAT64 else 1e-12
    kept = max(exact, SINGLE) if dtype == np.float32 else exact
    if not loss.additive:
        return
    for weights in cases(loss):
        for intercept in (True, False):
            here, there = pair(loss, name, dtype, weights, intercept=intercept, coded=intercept)
            coef = next(points(here))
            steep = loss.name in STEEP and name == NO_FLOAT64
            for by_slope in (False, True):
                found = there.positive_blocks(coef, by_slope=by_slope)
                expected = here.positive_blocks(coef, by_slope=by_slope)
                if not steep:
                    close(found[0], expected[0], exact)
                close(np.tril(found[1]), np.tril(expected[1]), exact)
            for part, wanted in zip(there.precise_gradient(coef), here.precise_gradient(coef), strict=True):
                if not steep:
                    close(part, wanted, exact)
            if not has_curvature(loss):
                continue
            for coupled in (True, False):
                found, expected = (rows.hessian(coef, coupled=coupled) for rows in (there, here))
                close(found[0], expected[0], exact)
                close(found[1], expected[1], exact)
                close(np.tril(found[2]), np.tril(expected[2]), exact)
            here.value_and_gradient(coef, keep_curvature=True)
            there.value_and_gradient(coef, keep_curvature=True)
            close(there.hessian_diagonal(), here.hessian_diagonal(), kept)
            sets = [np.array([0, here.width - 1]), np.array([], dtype=np.intp), np.arange(1, here.width)]
            for coupled in (False,) if loss.separable else (False, True):
                found, expected = (rows.hessian_block(sets, coupled=coupled) for rows in (there, here))
                for part, wanted in zip(found, expected, strict=True):
                    close(part, wanted, kept)


@pytest.mark.parametrize(("name", "dtype"), CASES)
@pytest.mark.parametrize("weights", ["none", "rows", "outputs"])
def test_what_is_known_of_the_columns_is_what_numpy_knows(name, dtype, weights):
    exact = 1e-4 if name == NO_FLOAT64 else 1e-12
    here, there = pair(losses.LogLoss(), name, dtype, weights)
    assert there.newton_steps(1.0, 0.0, np.ones(6), np.zeros(6), np.zeros(6), []) is None
    assert (there.n, there.features, there.width, there.outputs) == (N, FEATURES, FEATURES + 1, OUTPUTS)
    assert there.dtype == here.dtype == dtype
    assert not there.compiled
    np.testing.assert_array_equal(there.row_weights(), here.row_weights())
    close(there.squared_columns, here.squared_columns, exact)
    close(there.column_maxima(), here.column_maxima(), exact)
    close(np.tril(there.gram()), np.tril(here.gram()), max(exact, 1e-7 * (dtype == np.float32)))
    close(there.null_sums(), here.null_sums(), max(exact, 1e-6 * (dtype == np.float32)))
    coef = next(points(here))
    assert there.device.get(there.uncentered(there.device.put(coef, there.device.wide))) == pytest.approx(
        here.uncentered(coef), rel=exact
    )
    np.testing.assert_array_equal(there.centered(coef), here.centered(coef))
    part, wanted = there.every_nth(3), here.every_nth(3)
    np.testing.assert_array_equal(part.center, here.center)
    close(part.precise_gradient(coef)[1], wanted.precise_gradient(coef)[1], max(exact, 1e-12))


def test_a_long_table_is_sampled_as_in_numpy():
    loss = losses.LogLoss()
    for weights in ("none", "rows"):
        here, there = pair(loss, TORCH, np.float64, weights, n=9001)
        np.testing.assert_array_equal(there.center, here.center)
        close(there.null_sums(), here.null_sums(), 1e-12)
        close(there.null_sums(exact=True), here.null_sums(exact=True), 1e-12)
        close(np.tril(there.gram()), np.tril(here.gram()), 1e-12)
    zero = np.zeros(40)
    zero[1] = 1.0
    X, values, codes, _ = data(loss, np.float64, "none", n=40)
    rows = make_passes(Dataset(on_device(X, TORCH), values, codes, zero, OUTPUTS), loss, fit_intercept=True)
    assert rows.every_nth(2) is None


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("loss", [losses.LogLoss(), losses.CrossEntropy(), losses.SoftmaxFocal()], ids=ids)
def test_results_do_not_depend_on_how_rows_are_cut(loss, sparse, monkeypatch):
    whole = pair(loss, TORCH, np.float32, "rows", n=5000, sparse=sparse)[1]
    coef = next(points(whole))
    curved = has_curvature(loss)
    results = []
    for size in (device_passes.CHUNK_BYTES, 3000):
        monkeypatch.setattr(device_passes, "CHUNK_BYTES", size)
        monkeypatch.setattr(device_passes, "WIDE_BYTES", 16 * size)
        rows = pair(loss, TORCH, np.float32, "rows", n=5000, sparse=sparse)[1]
        slopes = np.empty((5000, OUTPUTS), np.float32)
        result = [*rows.value_and_gradient(coef, keep_curvature=curved, slopes=slopes), slopes.astype(float)]
        result += rows.positive_blocks(coef)
        if curved:
            sets = [np.arange(3)] * OUTPUTS
            result += [rows.product(coef), rows.hessian_diagonal(), *rows.hessian(coef)]
            result += rows.hessian_block(sets, coupled=not loss.separable)
        results.append(result)
    assert len(device_passes.DevicePasses._chunks(rows)) == 5
    for part, wanted in zip(*results, strict=True):
        close(part, wanted, 1e-6)


@pytest.mark.parametrize("loss", all_losses(), ids=ids)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_rows_on_torch_give_what_numpy_gives(loss, dtype):
    tolerance = 1e-12 if dtype == np.float64 else SINGLE
    for weights in cases(loss):
        for intercept in (True, False):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                here, there = pair(loss, TORCH, dtype, weights, intercept=intercept, sparse=True, shift=2.0)
            assert there.sparse
            coef, curved = next(points(here)), has_curvature(loss)
            found, expected = (rows.value_and_gradient(coef, keep_curvature=curved) for rows in (there, here))
            close(found[0], expected[0], tolerance)
            if dtype == np.float64 or loss.name not in STEEP:
                close(found[1], expected[1], tolerance)
            if not loss.additive:
                continue
            close(there.squared_columns, here.squared_columns, 1e-12)
            np.testing.assert_array_equal(there.column_maxima(), here.column_maxima())
            close(np.tril(there.gram()), np.tril(here.gram()), 1e-7)
            close(
                there.every_nth(2).precise_gradient(coef)[1],
                here.every_nth(2).precise_gradient(coef)[1],
                1e-12,
            )
            found, expected = there.positive_blocks(coef), here.positive_blocks(coef)
            close(np.tril(found[1]), np.tril(expected[1]), 1e-12)
            if curved:
                close(there.product(coef), here.product(coef), tolerance)
                close(there.hessian_diagonal(), here.hessian_diagonal(), tolerance)
                close(np.tril(there.hessian(coef)[2]), np.tril(here.hessian(coef)[2]), 1e-12)
                sets = [np.array([0, 2])] * OUTPUTS
                found, expected = (rows.hessian_block(sets, coupled=False) for rows in (there, here))
                for part, wanted in zip(found, expected, strict=True):
                    close(part, wanted, tolerance)


@pytest.mark.parametrize("sparse", [False, True])
def test_float32_rows_are_added_up_in_blocks(sparse):
    loss, n = losses.LogLoss(), 60_000
    X, values, codes, weight = data(loss, np.float32, "rows", n=n, sparse=sparse, shift=0.0)
    rng = np.random.default_rng(3)
    coef = 0.1 * rng.normal(size=(OUTPUTS, FEATURES + 1))
    arguments = (loss, values, codes, weight, OUTPUTS)
    here = NumPyPasses(Dataset(X, *arguments[1:]), arguments[0], fit_intercept=True)
    there = make_passes(Dataset(on_device(X, TORCH), *arguments[1:]), arguments[0], fit_intercept=True)
    exact = here.precise_gradient(coef)
    for found, plain, true in zip(
        there.value_and_gradient(coef), here.value_and_gradient(coef), exact, strict=True
    ):
        # one sum in float32 over all rows, of terms near 1, may be as wrong as this
        unit = n * np.finfo(np.float32).eps
        assert np.abs(found - true).max() <= 0.1 * unit
        assert np.abs(plain - true).max() <= 0.05 * unit


@pytest.mark.parametrize("loss", all_losses(), ids=ids)
def test_passes_over_resident_parameters_look_at_no_number(loss):
    # The tensors of torch's device "meta" have shapes and no numbers: whoever asks for one gets an error.
    torch = pytest.importorskip("torch")
    for weights in cases(loss):
        _, values, codes, weight = data(loss, np.float32, weights, n=3000)
        X = torch.empty((3000, FEATURES), device="meta")
        rows = make_passes(
            Dataset(X, values, codes, weight, OUTPUTS), loss, fit_intercept=True, center=np.ones(FEATURES)
        )
        coef = torch.empty((OUTPUTS, FEATURES + 1), dtype=torch.float64, device="meta")
        sums, gradient = rows.value_and_gradient(rows.centered(coef), keep_curvature=has_curvature(loss))
        assert (sums.device, gradient.shape) == (coef.device, coef.shape)
        if has_curvature(loss):
            assert rows.product(rows.uncentered(coef)).shape == coef.shape
        with pytest.raises((RuntimeError, NotImplementedError)):
            rows.value_and_gradient(np.zeros(coef.shape))


@pytest.mark.parametrize("loss", [losses.LogLoss(), losses.CrossEntropy()], ids=ids)
def test_passes_over_sparse_rows_look_at_no_number(loss, monkeypatch):
    torch = pytest.importorskip("torch")
    rows = pair(loss, TORCH, np.float32, "rows", sparse=True)[1]
    coef = rows.device.put(next(points(rows)), np.float64)

    def refuse(*arguments):
        raise AssertionError("a number was waited for")

    for method in (
        "item",
        "tolist",
        "numpy",
        "cpu",
        "__bool__",
        "__float__",
        "__int__",
        "__index__",
        "__array__",
    ):
        monkeypatch.setattr(torch.Tensor, method, refuse)
    rows.value_and_gradient(coef, keep_curvature=True)
    rows.product(coef)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_layout_of_x_does_not_matter(dtype):
    loss = losses.LogLoss()
    X, values, codes, weight = data(loss, dtype, "rows", n=5001)
    arguments = (loss, values, codes, weight, OUTPUTS)
    rows = make_passes(Dataset(on_device(X, TORCH), *arguments[1:]), arguments[0], fit_intercept=True)
    coef = next(points(rows))
    expected = rows.value_and_gradient(0.1 * coef)
    wide = on_device(np.repeat(X, 2, axis=1), TORCH)
    for turned in (on_device(np.ascontiguousarray(X.T), TORCH).T, wide[:, ::2]):
        found = make_passes(
            Dataset(turned, *arguments[1:]), arguments[0], fit_intercept=True
        ).value_and_gradient(0.1 * coef)
        for part, wanted in zip(found, expected, strict=True):
            close(part, wanted, 1e-12 if dtype == np.float64 else SINGLE)


def test_rows_of_weight_0_are_left_out_whatever_they_hold():
    for loss in (losses.LogLoss(), losses.CrossEntropy(), losses.Poisson()):
        X, values, codes, _ = data(loss, np.float64, "none", shift=0.0)
        X[7] = 1e308
        weight = np.ones(N)
        weight[7] = 0.0
        kept = np.flatnonzero(weight)
        coef = next(
            points(
                make_passes(
                    Dataset(on_device(X, TORCH), values, codes, weight, OUTPUTS), loss, fit_intercept=True
                )
            )
        )
        rows = make_passes(
            Dataset(on_device(X, TORCH), values, codes, weight, OUTPUTS), loss, fit_intercept=True
        )
        found = rows.value_and_gradient(1e3 * coef, keep_curvature=True)
        part = [None if array is None else array[kept] for array in (values, codes)]
        only = NumPyPasses(Dataset(X[kept], *part, None, OUTPUTS), loss, fit_intercept=True)
        expected = only.value_and_gradient(1e3 * coef)
        close(found[0], expected[0], 1e-12)


def test_codes_are_checked_once_and_early():
    loss = losses.CrossEntropy()
    X, _, codes, _ = data(loss, np.float64, "none")
    for bad in (-1, OUTPUTS):
        codes[11] = bad
        with pytest.raises(ValueError, match=rf"class code {bad} in row 11 is not in \[0, 3\)"):
            make_passes(Dataset(on_device(X, TORCH), None, codes, None, OUTPUTS), loss, fit_intercept=True)


def test_a_device_without_sparse_products_is_named():
    torch = pytest.importorskip("torch")
    device = device_of(torch.empty(0, device="meta"))
    with pytest.raises(ValueError, match="torch on meta multiplies no sparse matrices"):
        transfer(scipy.sparse.eye_array(3, format="csr"), device)


def test_a_loss_without_curvature_says_so():
    rows = pair(losses.AbsoluteError(), TORCH, np.float64, "none")[1]
    with pytest.raises(ValueError, match="AbsoluteError states no curvature"):
        rows.value_and_gradient(np.zeros((OUTPUTS, rows.width)), keep_curvature=True)
    rows = pair(losses.SoftmaxFocal(), TORCH, np.float64, "none")[1]
    with pytest.raises(ValueError, match="SoftmaxFocal is not separable"):
        rows.hessian(np.zeros((OUTPUTS, rows.width)))


def test_the_product_of_a_coupled_loss_is_the_slope_of_its_gradient():
    rows = pair(losses.SoftmaxFocal(gamma=1.5), TORCH, np.float64, "rows")[1]
    coef, direction = points(rows)
    rows.value_and_gradient(coef, keep_curvature=True)
    step = 1e-6
    ahead, behind = (rows.value_and_gradient(coef + s * direction)[1] for s in (step, -step))
    close(rows.product(direction), (ahead - behind) / (2 * step), 1e-7)


class Coupled(Loss):
    """A loss of the scores of two classes that has no kernel."""

    target = "classes"
    separable = False

    def formula(self, xp, y, raw):
        return losses.CrossEntropy(label_smoothing=0.2).formula(xp, y, raw)


@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize("loss", [Coupled(), losses.SoftmaxFocal()], ids=ids)
def test_two_coupled_classes_are_one_output(loss, codes):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, FEATURES))
    values = rng.integers(2, size=(N, 1)).astype(np.float64)
    if not codes:
        values = 0.8 * values + 0.1
    arguments = (TwoClasses(loss, codes=codes), values, None, rng.random(N), 1)
    here = NumPyPasses(Dataset(X, *arguments[1:]), arguments[0], fit_intercept=True)
    there = make_passes(Dataset(on_device(X, STRICT), *arguments[1:]), arguments[0], fit_intercept=True)
    for coef in points(here):
        for part, wanted in zip(there.value_and_gradient(coef), here.value_and_gradient(coef), strict=True):
            close(part, wanted, 1e-12)
