"""Each formula against 50-digit arithmetic, and each kernel of each build against the formula."""

from functools import cache

import numpy as np
import pytest
from definitions import SEPARABLE, SOFTMAX, Exact, root_mean_squared_error, ulps
from mpmath import mpf

from sklloss import kernels, losses

DTYPES = [np.float32, np.float64]
# Bounds in ULP, of the kernels; softmax on top of the rounding of its logit differences ...
KERNEL = {"value": 2.0, "gradient": 2.0}
SOFTMAX_KERNEL = {"value": 4.0, "gradient": 2.0}
# ... and of the formula as NumPy computes it: sums over K classes in the dtype of raw, added pairwise.
SOFTMAX_FORMULA = {"value": 8.0, "gradient": 6.0}


# Kernels that take raw - y exactly; the formulas, and the other kernels, take it rounded.
ROUNDING_UNDONE = ("huber", "log_cosh", "quantile")


def assert_close(got, exact, least, bound, what):
    errors = ulps(got, exact, least)
    worst = int(np.argmax(errors))  # a NaN is the largest
    assert errors[worst] <= bound, (
        f"{what}: {errors[worst]} ULP at {worst}: {got[worst]} for {exact.high[worst]}"
    )


def scores(dtype):
    """Every scale a score can have, both signs, and a few hundred ordinary ones."""
    info = np.finfo(dtype)
    fixed = [
        0.0,
        1e-300,
        1e-30,
        0.69,
        1.0,
        16.6,
        17.0,
        36.7,
        37.0,
        87.3,
        88.7,
        103.9,
        104.5,
        709.0,
        709.8,
        745.0,
    ]
    fixed += [746.0, 1e3, 1e20, info.max, info.tiny, info.smallest_subnormal]
    rng = np.random.default_rng(1)
    wide = np.exp(rng.uniform(np.log(1e-8), np.log(800.0), 150))
    z = np.concatenate([fixed, wide, rng.normal(0, 3, 100)]).astype(dtype)
    return np.concatenate([z, -z])


@pytest.fixture(params=kernels.available())
def each_build(request, monkeypatch):
    """The test runs once with each build of the kernels that this CPU can run."""
    monkeypatch.setattr(kernels, "_table", kernels.table_of(request.param))


def formula(loss, y, z):
    """Value and gradient, before any mean."""
    value, gradient = loss.formula(np, y, z)
    return value, gradient() if callable(gradient) else gradient


def test_every_registered_loss_has_a_reference():
    softmax = set(SOFTMAX) - {"softmax_focal"}  # which `Focal` stands for
    assert set(losses.names()) == {*SEPARABLE, *softmax, "root_mean_squared_error"}


@cache
def separable_cases(loss, dtype):
    """y, z, then by output: exact value and gradient, and what size their ULP are taken of at least."""
    z = scores(dtype)
    rng = np.random.default_rng(2)
    name, info = loss.name, np.finfo(dtype)
    if name in ("squared_error", "mean_squared_error", "squared_hinge"):
        z = z[np.abs(z) < np.sqrt(info.max) / 4]
    if loss.target == "probabilities":
        soft = rng.random(z.size)
        targets = [np.full(z.size, t) for t in (0.0, 1.0)] + ([] if loss.domain == "labels" else [soft])
    elif loss.domain is not None:
        # The last: near the minimum.
        matching = np.exp(np.clip(z, -80, 80) + rng.normal(size=z.size))
        targets = [
            np.full(z.size, 1e-3 if loss.domain == "positive" else 0.0),
            np.full(z.size, 2.5),
            matching,
        ]
    else:
        targets = [np.full(z.size, t) for t in (0.0, -3.5)] + [z + rng.normal(size=z.size)]
    y = np.concatenate(targets).astype(dtype)
    z = np.concatenate([z] * len(targets))
    difference = loss.target == "values" and loss.domain is None
    with np.errstate(over="ignore"):
        pairs = [(0.0, d) for d in z - y] if difference else zip(y, z)
    found = [SEPARABLE[name](loss, mpf(float(t)), mpf(float(x))) for t, x in pairs]
    values, gradients, least_value, least = zip(*found)
    sizes = (np.array([float(x) for x in size]) for size in (least_value, least))
    exact = Exact(values), Exact(gradients)
    undone = exact
    if name in ROUNDING_UNDONE:
        found = [SEPARABLE[name](loss, mpf(0), mpf(float(x)) - mpf(float(t))) for t, x in zip(y, z)]
        undone = tuple(Exact(numbers) for numbers in list(zip(*found))[:2])
    return y, z, *exact, *sizes, *undone


def formula_bound(loss):
    """In ULP: what NumPy's functions and a few roundings make of each formula; a power multiplies them."""
    focal = 5.0 + 2.5 * getattr(loss, "gamma", 0.0)
    return {"focal": focal, "gamma": 6.0, "log_cosh": 5.0, "tweedie": 8.0}.get(loss.name, 3.0)


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("dtype", DTYPES)
def test_separable_loss_is_exact_for_every_size_of_score(separable_loss, dtype):
    loss = separable_loss
    y, z, values, gradients, least_value, least, true_values, true_gradients = separable_cases(loss, dtype)
    with np.errstate(all="ignore"):
        value, gradient = formula(loss, y, z)
    bound = formula_bound(loss)
    assert_close(value, values, least_value, bound, "formula value")
    assert_close(gradient, gradients, least, bound, "formula gradient")
    if loss.kernel is None:
        return
    assert_close(loss.per_sample(y, z), true_values, least_value, KERNEL["value"], "kernel value")
    # the gradient of a sum, not of a mean
    scores = z[:, None].copy()
    loss.evaluate_batch(scores, target=y[:, None].copy())
    assert_close(scores[:, 0], true_gradients, least, KERNEL["gradient"], "kernel gradient")


def cross_entropy_cases(dtype):
    """Scores whose differences are exact, so that the formula alone is measured."""
    rng = np.random.default_rng(3)
    top = np.finfo(dtype).max
    for K in (2, 3, 10, 100, 1000):
        z = np.round(rng.normal(0, 10, (6 if K < 100 else 2, K)) * 64) / 64
        special = np.zeros((9, K))
        special[1, 0] = 1000.0
        special[2, 1] = top
        special[3, :] = -top
        special[4, :] = -70.0
        special[4, 0] = 0.0
        special[5, :2] = 50.0
        special[6, 0] = 40.0
        special[7, 0] = 1e20
        special[8, :] = -30.0
        special[8, K // 2] = 5.0
        yield np.concatenate([z, special[: 9 if K < 1000 else 3]]).astype(dtype)


@cache
def class_cases(loss, dtype):
    """(scores, targets, exact values and gradients, what size the gradients' ULP are taken of at least)."""
    rng = np.random.default_rng(4)
    hard = not getattr(loss, "label_smoothing", 0.0)
    cases = []
    for z in cross_entropy_cases(dtype):
        n, K = z.shape
        codes = rng.integers(0, K, n)
        codes[::2] = np.argmax(z[::2], axis=1)
        rows = rng.dirichlet(np.ones(K), n).astype(dtype)
        rows[0] = np.eye(K)[0]
        for y in (codes, rows):
            if y is rows and K == 1000 and loss.kernel != "cross_entropy":
                continue  # 50 digits take their time
            shares = np.eye(K)[codes] if y is codes else rows
            values, gradients, least = [], [], []
            for i in range(n):
                scores_i, shares_i = [mpf(float(v)) for v in z[i]], [mpf(float(v)) for v in shares[i]]
                value, gradient, size = SOFTMAX[loss.kernel](loss, shares_i, scores_i)
                values.append(value)
                gradients.extend(gradient)
                # a hard target's gradient is exact in its own last digits, a soft one's in those of p or y
                least.extend([0.0] * K if y is codes and hard else size)
            cases.append((z, y, Exact(values), Exact(gradients), np.array([float(x) for x in least])))
    return cases


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_loss_is_exact_up_to_the_largest_score(class_loss, dtype):
    loss = class_loss
    # A power multiplies the errors of what it is taken of; q itself is rounded to float32 in the formula.
    factor = 2.5 if hasattr(loss, "q") else 1.0 + getattr(loss, "gamma", 0.0)
    for z, y, values, gradients, least in class_cases(loss, dtype):
        with np.errstate(all="ignore"):
            value, gradient = formula(loss, y, z)
        what = f"K={z.shape[1]} {'codes' if y.ndim == 1 else 'rows'}"
        assert_close(value, values, 0.0, factor * SOFTMAX_FORMULA["value"], f"formula value {what}")
        bound = factor * SOFTMAX_FORMULA["gradient"]
        assert_close(gradient.ravel(), gradients, least, bound, f"formula gradient {what}")
        if loss.kernel is None:
            continue
        assert_close(loss.per_sample(y, z), values, 0.0, SOFTMAX_KERNEL["value"], f"kernel value {what}")
        if hasattr(loss, "q"):
            # The terms y p**q of a row are rounded to the dtype before they are summed, which subnormal ones
            # do not survive.
            least = np.maximum(least, z.shape[1] * np.finfo(dtype).smallest_normal)
        scores = z.copy()
        if y.ndim == 1:
            loss.evaluate_batch(scores, codes=y.astype(np.intp))
        else:
            loss.evaluate_batch(scores, target=y)
        power = getattr(loss, "gamma", 0.0) or getattr(loss, "q", 0.0)
        bound = SOFTMAX_KERNEL["gradient"] * (2 if power else 1)
        assert_close(scores.ravel(), gradients, least, bound, f"kernel gradient {what}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.9])
def test_root_mean_squared_error_neither_overflows_nor_underflows(dtype, exponent, rng):
    size = float(np.finfo(dtype).max if exponent > 0 else np.finfo(dtype).smallest_normal) ** abs(exponent)
    y = (size * rng.normal(size=(20, 3))).astype(dtype)
    z = (size * rng.normal(size=(20, 3))).astype(dtype)
    w = rng.integers(0, 5, 20).astype(dtype)
    loss = losses.RootMeanSquaredError()
    value, gradient = root_mean_squared_error(y, z, w)
    # float64 differences are rounded; the smallest ones are subnormal
    bound = 8.0
    mean, slope = loss.mean_formula(np, y, z, w)
    error = ulps(np.float64([mean]), Exact([value]), np.finfo(dtype).smallest_normal)
    assert error <= (bound if dtype == np.float64 else 2**30 * bound)
    got, kernel_slope = loss.value_and_gradient(y, z, w)
    assert got == pytest.approx(float(value), rel=4e-15)
    least, gradient = 1e-3 * float(np.max(np.abs(slope))), Exact(gradient)
    assert_close(slope.ravel(), gradient, least, bound, "formula gradient")
    assert_close(kernel_slope.ravel(), gradient, least, bound, "kernel gradient")


# Every build -------------------------------------------------------------------------------------------


def run(loss, build, y, raw, weight=None):
    """(weighted sum, gradient, per sample) of a build's kernel."""
    kernel = kernels.table_of(build)[loss.kernel, raw.dtype.name]
    scores = raw.reshape(raw.shape[0], -1).copy()
    rows = np.zeros(raw.shape[0], raw.dtype)
    target = {"codes": y.astype(np.intp)} if y.ndim < scores.ndim and loss.target == "classes" else {}
    if not target:
        target = {"target": np.ascontiguousarray(y.reshape(scores.shape))}
    total = kernels.evaluate(
        kernel, scores, **target, weight=weight, parameter=loss.kernel_parameter,
        per_sample=rows if loss.additive else None,
    )  # fmt: skip
    return total, scores.reshape(raw.shape), rows


@pytest.mark.parametrize("build", kernels.available())
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_build_of_the_kernel_computes_the_formula(loss, build, dtype, batches, weights):
    if loss.kernel is None:
        return
    eps = float(np.finfo(dtype).eps)
    for form, y, raw in batches.all(loss, dtype=dtype):
        for w in (None, weights.astype(dtype)):
            value, gradient = loss.mean_formula(np, y, raw, w)
            total, slope, rows = run(loss, build, y, raw, w)
            norm = len(raw) if w is None else np.sum(w, dtype=np.float64)
            assert total / norm == pytest.approx(float(value), rel=4 * eps), form
            scale = np.max(np.abs(gradient))
            np.testing.assert_allclose(
                slope / norm, gradient, rtol=16 * eps, atol=8 * eps * scale, err_msg=form
            )
            if loss.additive and w is None:
                expected = loss._rows(np, loss.formula(np, y, raw)[0])
                # Poisson's and Gamma's terms cancel where the loss is near 0.
                atol = 4 * eps * float(np.max(np.abs(y))) if batches.positive(loss) else 0.0
                np.testing.assert_allclose(rows, expected, rtol=16 * eps, atol=atol)


@pytest.mark.parametrize("build", kernels.available())
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_build_agrees_with_the_formula_where_scores_are_infinite_or_nan(loss, build, dtype, batches):
    if loss.kernel is None or not loss.additive:
        return
    raw = np.array(
        [
            [np.inf, 1, 2],
            [-np.inf, 1, 2],
            [np.inf, np.inf, 0],
            [-np.inf] * 3,
            [np.inf, -np.inf, 0],
            [np.nan, 1, 2],
        ]
    ).astype(dtype)
    targets = [np.zeros_like(raw), np.eye(3, dtype=dtype)[[0, 1, 2, 0, 1, 2]]]
    if batches.positive(loss):
        targets.append(np.full_like(raw, 2.5))
    if loss.domain == "positive":
        del targets[:2]
    if loss.target == "classes":
        targets = [np.array([0, 1, 2, 0, 1, 2]), np.array([1, 0, 0, 2, 0, 1]), targets[1]]
        targets.append(np.full_like(raw, 1 / 3))
    for y in targets:
        with np.errstate(all="ignore"):
            value, gradient = formula(loss, y, raw)
            value = loss._rows(np, value)
            if loss.reduction == "mean" and loss.separable:
                gradient = gradient / raw.shape[1]
        _, slope, rows = run(loss, build, y, raw)
        tolerance = 8 * np.finfo(dtype).eps
        assert not np.isnan(value[:5]).any()
        assert not np.isnan(gradient[:5]).any()
        np.testing.assert_allclose(rows, value, rtol=tolerance)
        np.testing.assert_allclose(slope, gradient, rtol=tolerance, atol=tolerance)
