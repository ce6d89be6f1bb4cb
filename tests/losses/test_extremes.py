"""The ends of the range: many classes, infinite scores, all sizes of float32; and formulas that are wrong."""

import numpy as np
import pytest

from sklloss import losses

DTYPES = [np.float32, np.float64]
INF = np.inf


# Many classes ------------------------------------------------------------------------------------------


def of_cross_entropy(loss, cost):
    """The loss where the cross-entropy of a class code is ``cost``, but for the factor of the focal loss."""
    return -np.expm1(-loss.q * cost) / loss.q if hasattr(loss, "q") else cost


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [2, 1000, 100_000])
def test_equal_scores_of_any_size_are_the_uniform_distribution(class_loss, K, dtype):
    loss, eps = class_loss, float(np.finfo(dtype).eps)
    gamma = getattr(loss, "gamma", 0.0)
    for score in (0.0, 1e3, -1e20, np.finfo(dtype).max, -INF, INF):
        raw = np.full((2, K), score, dtype)
        value, gradient = loss.value_and_gradient([0, K - 1], raw)
        expected = (1 - 1 / K) ** gamma * of_cross_entropy(loss, np.log(K))
        assert value == pytest.approx(expected, rel=8 * eps * (1 + gamma))
        np.testing.assert_allclose(loss.predict(raw), np.full_like(raw, 1 / K), rtol=4 * eps)
        np.testing.assert_allclose(gradient[:, 1:-1], np.full((2, K - 2), gradient[0, -1]), rtol=8 * eps)
        assert np.sum(gradient, dtype=float) == pytest.approx(0.0, abs=4 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [2, 1000, 100_000])
def test_one_huge_score_is_certain_and_any_other_answer_costs_the_distance(class_loss, K, dtype):
    if class_loss == losses.CrossEntropy(0.1):
        return  # no answer is certain
    raw = np.zeros((3, K), dtype)
    raw[:, K // 2] = [1e3, 1e20, np.finfo(dtype).max]
    right = np.full(3, K // 2)
    assert class_loss.per_sample(right, raw).tolist() == [0, 0, 0]
    np.testing.assert_array_equal(class_loss.gradient(right, raw), np.zeros_like(raw))
    wrong, cost = np.zeros(3, int), raw[:, K // 2].astype(float)
    np.testing.assert_allclose(
        class_loss.per_sample(wrong, raw), of_cross_entropy(class_loss, cost), rtol=2 * np.finfo(dtype).eps
    )
    gradient = 3 * class_loss.gradient(wrong, raw)
    # p**q of the generalized cross-entropy, and 1 of the others
    slope = np.exp(-cost * getattr(class_loss, "q", 0.0))
    smallest = float(np.finfo(dtype).smallest_normal)
    np.testing.assert_allclose(gradient[:, 0], -slope, rtol=1e-6, atol=smallest)
    np.testing.assert_allclose(gradient[:, K // 2], slope, rtol=1e-6, atol=smallest)
    assert not np.delete(gradient, [0, K // 2], axis=1).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [2, 1000, 100_000])
def test_all_scores_but_one_minus_infinity_is_certain_too(class_loss, K, dtype):
    if class_loss == losses.CrossEntropy(0.1):
        return
    raw = np.full((2, K), -INF, dtype)
    raw[:, 1] = [0.0, -1e30]
    assert class_loss.per_sample([1, 1], raw).tolist() == [0, 0]
    np.testing.assert_allclose(class_loss.per_sample([0, 0], raw), [of_cross_entropy(class_loss, INF)] * 2)
    np.testing.assert_array_equal(class_loss.gradient([1, 1], raw), np.zeros_like(raw))
    assert not np.isnan(class_loss.gradient([0, 0], raw)).any()
    certain = np.zeros((2, K), dtype)
    certain[:, 1] = 1
    assert class_loss.per_sample(certain, raw).tolist() == [0, 0]
    np.testing.assert_array_equal(class_loss.predict(raw), certain)


# Infinite scores and errors: the answers that the docstrings give --------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_errors_cost_infinity_and_pull_no_harder_than_the_bound(dtype):
    raw = np.array([INF, -INF], dtype)
    bounds = {
        losses.AbsoluteError(): (1.0, 1.0),
        losses.Huber(2.5): (2.5, 2.5),
        losses.Quantile(0.25): (0.75, 0.25),
        losses.LogCosh(): (1.0, 1.0),
    }
    for loss, (up, down) in bounds.items():
        assert loss.per_sample([0.0, 0.0], raw).tolist() == [INF, INF]
        assert (2 * loss.gradient([0.0, 0.0], raw)).tolist() == [up, -down]
    assert losses.HalfSquaredError().per_sample([0.0, 0.0], raw).tolist() == [INF, INF]


@pytest.mark.parametrize("dtype", DTYPES)
def test_poisson_and_gamma_at_infinite_scores(dtype):
    raw = np.array([INF, INF, -INF, -INF], dtype)
    y = [0.0, 2.0, 0.0, 2.0]
    assert losses.Poisson().per_sample(y, raw).tolist() == [INF, INF, 0, INF]
    assert (4 * losses.Poisson().gradient(y, raw)).tolist() == [INF, INF, 0, -2]
    raw = np.array([INF, -INF], dtype)
    assert losses.Gamma().per_sample([2.0, 2.0], raw).tolist() == [INF, INF]
    assert (2 * losses.Gamma().gradient([2.0, 2.0], raw)).tolist() == [1, -INF]
    np.testing.assert_array_equal(losses.Gamma().predict(raw), [INF, 0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_poisson_and_gamma_far_out_are_their_largest_term(dtype):
    top = float(np.finfo(dtype).max)
    rows = losses.Poisson().per_sample(
        np.array([0.0, 3.0, 3.0, 0.5]), np.array([-top, -1e20, top, -top], dtype)
    )
    np.testing.assert_allclose(rows, [0, 3e20, INF, top / 2], rtol=1e-6)
    rows = losses.Gamma().per_sample(np.array([1.0, 2.0, 3.0]), np.array([top, 1e20, -top], dtype))
    np.testing.assert_allclose(rows, [top, 1e20, INF], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("power", [1.1, 1.5, 1.9])
def test_tweedie_at_infinite_and_largest_scores(power, dtype):
    loss, top = losses.Tweedie(power), np.finfo(dtype).max
    raw, y = np.array([INF, INF, -INF, -INF, top, -top, -top], dtype), np.array([0, 2, 0, 2, 2, 0, 2.0])
    assert loss.per_sample(y, raw).tolist() == [INF, INF, 0, INF, INF, 0, INF]
    assert loss.gradient(y, raw).tolist() == [INF, INF, 0, -INF, INF, 0, -INF]
    assert np.isnan(loss.per_sample(y, np.full_like(raw, np.nan))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squared_hinge_at_infinite_scores_and_at_the_margin(dtype):
    loss = losses.SquaredHinge()
    raw, y = np.array([INF, -INF, -INF, INF, 1.0, -1.0, 0.0], dtype), np.array([1, 0, 1, 0, 1, 0, 1])
    assert loss.per_sample(y, raw).tolist() == [0, 0, INF, INF, 0, 0, 1]
    assert (7 * loss.gradient(y, raw)).tolist() == [0, 0, -INF, INF, 0, 0, pytest.approx(-2, rel=1e-6)]
    assert np.isnan(loss.per_sample(y, np.full_like(raw, np.nan))).all()


def test_gammas_quotient_does_not_overflow_before_it_must():
    # exp(710) is beyond float64, exp(90) beyond float32
    value, slope = losses.Gamma().value_and_gradient([1e-300], np.array([-710.0]))
    quotient = np.exp(710.0 - 300 * np.log(10.0))
    assert value == pytest.approx(quotient - 710.0, rel=1e-12)
    assert slope[0] == pytest.approx(1 - quotient, rel=1e-12)
    rows = losses.Gamma().per_sample(np.float32([1e-5]), np.float32([-90.0]))
    assert rows[0] == pytest.approx(np.float32(1e-5) * np.exp(90.0) - 90.0, rel=1e-6)
    rows = losses.Gamma().per_sample([1e300], np.array([750.0]))
    assert rows[0] == pytest.approx(750.0, rel=1e-15)


def test_log_cosh_of_a_small_error_is_half_its_square():
    for d in (1e-3, 1e-8, 1e-100, 1e-150):
        assert losses.LogCosh()([0.0], [d]) == pytest.approx(d * d / 2 - d**4 / 12, rel=1e-14)
        assert losses.LogCosh().gradient([0.0], [d])[0] == pytest.approx(d - d**3 / 3, rel=1e-12)
    assert losses.LogCosh()([0.0], [1e300]) == 1e300


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_a_prediction_meets_its_target_the_robust_losses_and_gradients_are_zero(dtype):
    y = np.array([0.0, -0.0, 1e30, -3.0, 5e-324], dtype)
    for loss in (losses.AbsoluteError(), losses.Huber(), losses.Quantile(0.9), losses.LogCosh()):
        value, gradient = loss.value_and_gradient(y, y.copy())
        assert value == 0.0
        np.testing.assert_array_equal(gradient, np.zeros_like(y))


# All sizes of float32 ----------------------------------------------------------------------------------


def every_size():
    """One in 50021 of all finite float32, both signs, subnormals included."""
    bits = np.arange(0, 2**32, 50021, dtype=np.uint64).astype(np.uint32)
    z = bits.view(np.float32)
    return z[np.isfinite(z)]


def test_float32_agrees_with_float64_over_all_its_values(separable_loss, batches):
    """Its float64 result is exact enough to be the reference here: that one is measured by 50 digits."""
    loss, eps = separable_loss, 2.0**-23
    z = every_size()
    power = 1.0 + getattr(loss, "gamma", 0.0)
    for target in {"positive": (1.0, 0.25), "labels": (0.0, 1.0)}.get(loss.domain, (0.0, 1.0, 0.25)):
        if loss.target == "values" and not batches.positive(loss):
            target = 0.0  # on top of the rounding of raw - y
        soft = max(target if target == 0.25 else 0.0, 0.5 * getattr(loss, "label_smoothing", 0.0))
        y = np.full(z.size, target, np.float32)
        wide, narrow = z.astype(np.float64), z
        with np.errstate(all="ignore"):
            value, slope = loss.formula(np, y.astype(float), wide)
            slope = slope() if callable(slope) else slope
            tiny = 2.0**-149 * power * 4
            rows = loss.per_sample(y, narrow)
            fits = np.abs(value) < 3.4e38
            least = np.abs(target * wide) if batches.positive(loss) else 0.0
            error = np.abs(rows - value)[fits] / (np.maximum(np.abs(value), least) * eps + tiny)[fits]
            assert np.max(error) <= 6 * power
            assert np.isinf(rows[np.abs(value) > 3.5e38]).all()
            batch = narrow[:, None].copy()
            loss.evaluate_batch(batch, target=y[:, None].copy())
            fits = np.abs(slope) < 3.4e38
            least = 1.0 if batches.positive(loss) else soft
            error = np.abs(batch[:, 0] - slope)[fits] / (np.maximum(np.abs(slope), least) * eps + tiny)[fits]
            assert np.max(error) <= 6 * power


# Formulas that are known to be wrong -------------------------------------------------------------------


def test_cross_entropy_is_smallest_but_not_zero_where_the_distributions_meet(rng):
    """Not "cross-entropy is 0 when P = Q": it is the entropy of P, and any other Q costs more."""
    p = rng.dirichlet(np.ones(4))
    at_p = losses.CrossEntropy()([p], [np.log(p)])
    assert at_p == pytest.approx(losses.entropy(p), rel=1e-14)
    assert at_p > 0.1
    np.testing.assert_allclose(losses.CrossEntropy().gradient([p], [np.log(p)]), np.zeros((1, 4)), atol=1e-16)
    for q in rng.dirichlet(np.ones(4), 50):
        assert losses.CrossEntropy()([p], [np.log(q)]) > at_p
        assert losses.cross_entropy(p, q) > at_p


def test_the_binary_gradient_pulls_both_ways():
    """Not "-y/q + 1": that has no pull at all for y = 1 and q = 1, and the wrong one for every y below."""
    loss, h = losses.LogLoss(), 1e-4
    for y in (0.0, 0.3, 1.0):
        for z in (-2.0, 0.5, 3.0):
            q = 1 / (1 + np.exp(-z))
            numeric = (loss([y], [z + h]) - loss([y], [z - h])) / (2 * h)
            assert loss.gradient([y], [z])[0] == pytest.approx(numeric, abs=1e-8)
            wrong = (-y / q + 1) * q * (1 - q)
            assert abs(wrong - numeric) > 1e-3 or y == 1.0
    assert loss.gradient([0.25], [np.log(1 / 3)])[0] == pytest.approx(0.0, abs=1e-16)


def test_several_labels_can_be_likely_at_once():
    """Not "multi-label uses the softmax form", in which two sure labels share one probability."""
    y, raw = np.array([[1.0, 1.0, 0.0]]), np.array([[20.0, 20.0, -20.0]])
    assert losses.LogLoss()(y, raw) == pytest.approx(3 * np.log1p(np.exp(-20.0)), rel=1e-14)
    assert losses.LogLoss().predict(raw).sum() == pytest.approx(2.0)
    shared = -np.sum(y * np.log(losses.CrossEntropy().predict(raw)))
    assert shared == pytest.approx(2 * np.log(2), rel=1e-6)
    with pytest.raises(ValueError, match="row 0 sums to 2.0"):
        losses.CrossEntropy()(y, raw)


@pytest.mark.parametrize("guard", [1e-10, 1e-7, 1e-15])
def test_no_guard_stands_in_for_a_small_probability(guard):
    """Not ``log(1 - q) + 1e-10``, not ``log(q + 1e-10)``, not a clipped q: each has a floor or a ceiling."""
    z = 50.0
    q = 1 / (1 + np.exp(-z))
    with np.errstate(divide="ignore"):
        after = -(np.log(1 - q) + guard)
    assert after == np.inf
    assert -np.log(1 - q + guard) < 36.8
    assert -np.log(1 - np.clip(q, guard, 1 - guard)) < 36.8
    for loss, y, raw in (
        (losses.LogLoss(), [0], [z]),
        (losses.CrossEntropy(), [1], [[z, 0.0]]),
        (losses.Focal(), [0], [z]),
        (losses.Focal(), [1], [[z, 0.0]]),
    ):
        assert loss(y, raw) == pytest.approx(50.0, rel=1e-15)
        assert np.max(loss.gradient(y, raw)) == pytest.approx(1.0, rel=1e-15)
    assert losses.LogLoss()([1], [-50.0]) == 50.0
    # a right answer costs what is left of it
    assert losses.LogLoss()([0], [-z]) == pytest.approx(np.exp(-50.0), rel=1e-14)
