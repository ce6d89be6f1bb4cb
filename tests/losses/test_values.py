"""Means, weights, shapes and results of every loss of the registry."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from sklearn.base import clone

from sklloss import losses


def test_the_mean_is_that_of_the_samples(additive_loss, batches, weights):
    for form, y, raw in batches.all(additive_loss):
        rows = additive_loss.per_sample(y, raw)
        assert rows.shape == (40,)
        assert additive_loss(y, raw) == pytest.approx(rows.mean(), rel=1e-13), form
        assert additive_loss(y, raw, weights) == pytest.approx(np.average(rows, weights=weights), rel=1e-13)


def test_log_losses_add_over_outputs_and_regression_losses_average(additive_loss, batches):
    if not additive_loss.separable:
        return
    y, raw = batches.make(additive_loss, "matrix")
    parts = np.stack([additive_loss.per_sample(y[:, k], raw[:, k]) for k in range(3)])
    expected = parts.sum(axis=0) if additive_loss.target == "probabilities" else parts.mean(axis=0)
    np.testing.assert_allclose(additive_loss.per_sample(y, raw), expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_gives_a_float_and_a_gradient_like_raw(loss, dtype, batches, weights):
    for _, y, raw in batches.all(loss, dtype=dtype):
        before = raw.copy()
        value, gradient = loss.value_and_gradient(y, raw, weights)
        assert type(value) is float
        assert gradient.dtype == dtype
        assert gradient.shape == raw.shape
        assert value == loss(y, raw, weights)
        np.testing.assert_array_equal(gradient, loss.gradient(y, raw, weights))
        np.testing.assert_array_equal(raw, before)
        if loss.additive:
            assert loss.per_sample(y, raw).dtype == dtype
        assert loss.predict(raw).dtype == dtype
        assert loss.predict(raw).shape == raw.shape


def test_whole_weights_are_repeated_rows(loss, batches):
    repeats = np.random.default_rng(1).integers(0, 4, 40)
    for form, y, raw in batches.all(loss):
        index = np.repeat(np.arange(40), repeats)
        value, gradient = loss.value_and_gradient(y, raw, repeats)
        repeated, parts = loss.value_and_gradient(y[index], raw[index])
        assert value == pytest.approx(repeated, rel=1e-13), form
        expected = np.zeros_like(raw)
        np.add.at(expected, index, parts)
        np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-17)


def test_a_row_of_weight_zero_is_left_out_whatever_its_scores(loss, batches):
    for form, y, raw in batches.all(loss):
        weight = np.random.default_rng(1).uniform(0.5, 2, 40)
        weight[[3, 8, 20]] = 0
        kept = weight > 0
        expected, part = loss.value_and_gradient(y[kept], raw[kept], weight[kept])
        for bad in (np.inf, -np.inf, np.nan):
            raw[~kept] = bad
            with np.errstate(all="ignore"):
                formula, slope = loss.mean_formula(np, y, raw, weight)
            assert formula == pytest.approx(expected, rel=1e-13), form
            value, gradient = loss.value_and_gradient(y, raw, weight)
            assert value == pytest.approx(expected, rel=1e-13), form
            for g in (slope, gradient):
                assert (g[~kept] == 0).all()
                np.testing.assert_allclose(g[kept], part, rtol=1e-12, atol=1e-17)


def test_weights_of_one_are_no_weights(loss, batches):
    for _, y, raw in batches.all(loss):
        value, gradient = loss.value_and_gradient(y, raw)
        for one in (np.ones(40), np.ones(40, dtype=int), np.ones(40, dtype=bool), [1] * 40):
            weighted, slope = loss.value_and_gradient(y, raw, one)
            assert weighted == pytest.approx(value, rel=1e-14)
            np.testing.assert_allclose(slope, gradient, rtol=1e-14)


def test_the_scale_of_the_weights_does_not_matter(loss, batches, weights):
    for _, y, raw in batches.all(loss, dtype=np.float32):
        value, gradient = loss.value_and_gradient(y, raw, weights)
        for scale in (2.0**-1000, 2.0**1000):
            assert loss(y, raw, weights * scale) == value
            np.testing.assert_array_equal(loss.gradient(y, raw, weights * scale), gradient)


def test_the_order_of_rows_does_not_matter(loss, batches, weights):
    order = np.random.default_rng(2).permutation(40)
    for _, y, raw in batches.all(loss):
        value, gradient = loss.value_and_gradient(y, raw, weights)
        moved, slope = loss.value_and_gradient(y[order], raw[order], weights[order])
        assert moved == pytest.approx(value, rel=1e-14)
        np.testing.assert_allclose(slope, gradient[order], rtol=1e-14)


def test_a_loss_keeps_nothing_of_a_batch(loss, batches):
    for form in batches.forms(loss):
        first, second = batches.make(loss, form), batches.make(loss, form, n=17)
        before = loss.value_and_gradient(*first)
        loss.value_and_gradient(*second, np.arange(17))
        after = loss.value_and_gradient(*first)
        assert before[0] == after[0]
        np.testing.assert_array_equal(before[1], after[1])
        fresh = copy.copy(loss).value_and_gradient(*second)
        assert loss.value_and_gradient(*second)[0] == fresh[0]


def test_memory_layout_and_integer_dtype_do_not_matter(loss, batches):
    for _, y, raw in batches.all(loss):
        value, gradient = loss.value_and_gradient(y, raw)
        views = [np.asfortranarray(raw), np.repeat(raw, 2, axis=0)[::2], raw.astype(">f8")]
        for view in views:
            got, slope = loss.value_and_gradient(np.repeat(y, 2, axis=0)[::2], view)
            assert got == value
            np.testing.assert_array_equal(slope, gradient)
        raw.flags.writeable = y.flags.writeable = False
        assert loss(y, raw) == value
        if np.all(y == np.round(y)):
            for dtype in (
                (np.int8, np.int32, np.uint16, np.float32) if y.ndim < raw.ndim else (np.int8, np.float32)
            ):
                if np.all(y >= 0) and (np.dtype(dtype).kind != "f" or y.ndim == raw.ndim):
                    assert loss(y.astype(dtype), raw) == value


def test_lists_and_integer_scores_are_taken_as_float64(loss, batches):
    for _, y, raw in batches.all(loss):
        whole = np.round(raw).astype(int)
        value, gradient = loss.value_and_gradient(y, whole.astype(float))
        got, slope = loss.value_and_gradient(y.tolist(), whole.tolist())
        assert got == value
        assert slope.dtype == np.float64
        assert loss(y, whole) == value
        np.testing.assert_array_equal(slope, gradient)


def test_a_mean_of_the_largest_numbers_does_not_overflow():
    top = np.finfo(np.float64).max
    assert losses.LogLoss()([0, 0, 0, 1], [top, top, top, -top]) == top
    assert losses.LogLoss()([0, 0], [top, top], [3, 1]) == top
    raw = np.array([[0.0, top]] * 5)
    assert losses.CrossEntropy()([0] * 5, raw) == pytest.approx(top, rel=1e-15)
    assert losses.RootMeanSquaredError()([0.0] * 5, [top] * 5) == pytest.approx(top, rel=1e-15)
    assert losses.MeanSquaredError()([0.0] * 4, [1e154] * 4) == pytest.approx(1e308, rel=1e-15)
    assert losses.LogLoss()([0, 1], [np.inf, 5.0]) == np.inf


def test_a_certain_wrong_answer_costs_its_logit():
    assert losses.LogLoss()([1], [-50.0]) == 50.0
    assert losses.LogLoss().per_sample([1, 0], [-1e300, 1e300]).tolist() == [1e300, 1e300]
    assert losses.CrossEntropy()([1], [[1000.0, 0.0]]) == 1000.0
    # and a certain right one costs what is left, not 0 and not a guard of 1e-10
    assert losses.LogLoss()([1], [50.0]) == pytest.approx(np.exp(-50.0), rel=1e-15)
    assert losses.CrossEntropy()([0], [[700.0, 0.0]]) == pytest.approx(np.exp(-700.0), rel=1e-13)


def test_cross_entropy_of_a_distribution_with_itself_is_its_entropy_and_not_zero():
    p = np.array([0.5, 0.25, 0.25])
    entropy = -np.sum(p * np.log(p))
    assert losses.CrossEntropy()([p], [np.log(p)]) == pytest.approx(entropy, rel=1e-15)
    assert losses.LogLoss()([0.25], [np.log(1 / 3)]) == pytest.approx(0.5623351446188083, rel=1e-15)


def test_the_log_loss_gradient_in_the_probability_has_both_terms():
    # d/dq of -y log q - (1 - y) log(1 - q) is -y/q + (1 - y)/(1 - q), not -y/q + 1
    y, z = 0.3, 0.8
    q = 1 / (1 + np.exp(-z))
    by_probability = -y / q + (1 - y) / (1 - q)
    assert losses.LogLoss().gradient([y], [z])[0] == pytest.approx(by_probability * q * (1 - q), rel=1e-14)


def test_multi_label_is_a_sum_of_sigmoids_and_not_a_softmax():
    y, raw = np.array([[1.0, 1.0, 0.0]]), np.array([[2.0, -1.0, 0.5]])
    expected = np.sum(np.log1p(np.exp(np.where(y == 1, -raw, raw))))
    assert losses.LogLoss()(y, raw) == pytest.approx(expected, rel=1e-15)
    np.testing.assert_allclose(losses.LogLoss().predict(raw), 1 / (1 + np.exp(-raw)), rtol=1e-15)


def test_codes_are_probability_rows_with_one_one(batches):
    for smoothing in (0.0, 0.2):
        loss = losses.CrossEntropy(smoothing)
        codes, raw = batches.make(loss, "codes")
        for rows in (np.eye(4)[codes], np.eye(4, dtype=int)[codes], np.eye(4, dtype=bool)[codes]):
            assert loss(codes, raw) == pytest.approx(loss(rows, raw), rel=1e-14)
            np.testing.assert_allclose(loss.gradient(codes, raw), loss.gradient(rows, raw), atol=1e-16)


def test_two_classes_are_the_binary_log_loss(batches):
    for smoothing in (0.0, 0.2):
        y, z = batches.make(losses.LogLoss(), "hard")
        pair = np.stack([np.zeros_like(z), z], axis=1)
        binary, softmax = losses.LogLoss(smoothing), losses.CrossEntropy(smoothing)
        assert softmax(y.astype(int), pair) == pytest.approx(binary(y, z), rel=1e-14)
        assert softmax(y == 1, pair) == pytest.approx(binary(y == 1, z), rel=1e-14)
        np.testing.assert_allclose(
            softmax.gradient(y.astype(int), pair)[:, 1], binary.gradient(y, z), rtol=1e-13
        )
        np.testing.assert_allclose(softmax.predict(pair)[:, 1], binary.predict(z), rtol=1e-14)


def test_label_smoothing_mixes_the_target_with_the_uniform_one(batches):
    s = 0.3
    y, raw = batches.make(losses.LogLoss(), "soft")
    assert losses.LogLoss(s)(y, raw) == pytest.approx(losses.LogLoss()(y * (1 - s) + s / 2, raw), rel=1e-14)
    y, raw = batches.make(losses.CrossEntropy(), "rows")
    smooth = y * (1 - s) + s / y.shape[1]
    assert losses.CrossEntropy(s)(y, raw) == pytest.approx(losses.CrossEntropy()(smooth, raw), rel=1e-14)


def test_squared_errors_are_what_their_names_say(batches):
    y, raw = batches.make(losses.MeanSquaredError(), "matrix")
    mean = np.mean((y - raw) ** 2)
    assert losses.MeanSquaredError()(y, raw) == pytest.approx(mean, rel=1e-14)
    assert losses.HalfSquaredError()(y, raw) == pytest.approx(mean / 2, rel=1e-14)
    assert losses.RootMeanSquaredError()(y, raw) == pytest.approx(np.sqrt(mean), rel=1e-14)
    np.testing.assert_allclose(losses.HalfSquaredError().gradient(y, raw), (raw - y) / raw.size, rtol=1e-14)


def test_robust_and_count_losses_are_what_their_names_say():
    y, raw = np.array([1.0, 2.0, 0.5, 4.0]), np.array([1.5, -1.0, 0.5, 3.0])
    d = raw - y
    rows = {
        losses.AbsoluteError(): [0.5, 3.0, 0.0, 1.0],
        losses.Huber(0.75): [0.125, 0.75 * 2.625, 0.0, 0.75 * 0.625],
        losses.Quantile(0.25): [0.375, 0.75, 0.0, 0.25],
        losses.LogCosh(): np.log(np.cosh(d)),
        losses.Poisson(): np.exp(raw) - y * raw,
        losses.Gamma(): raw + y / np.exp(raw),
        losses.Tweedie(1.3): np.exp(0.7 * raw) / 0.7 + y * np.exp(-0.3 * raw) / 0.3,
    }
    for loss, expected in rows.items():
        np.testing.assert_allclose(loss.per_sample(y, raw), expected, rtol=1e-13, atol=1e-16)
    assert losses.Quantile(0.5)(y, raw) == pytest.approx(losses.AbsoluteError()(y, raw) / 2, rel=1e-15)
    for loss in (losses.Poisson(), losses.Gamma(), losses.Tweedie()):
        np.testing.assert_allclose(loss.predict(raw), np.exp(raw), rtol=1e-15)
        # least where the prediction is the target
        np.testing.assert_allclose(loss.gradient(y, np.log(y)), np.zeros(4), atol=1e-15)


def test_the_best_constant_is_the_mean_the_median_or_the_quantile(rng):
    y = rng.gamma(1.0, 2.0, 999)
    best = {
        losses.HalfSquaredError(): y.mean(),
        losses.AbsoluteError(): np.median(y),
        losses.Quantile(0.9): np.sort(y)[899],
        losses.Poisson(): np.log(y.mean()),
        losses.Gamma(): np.log(y.mean()),
        losses.Tweedie(1.2): np.log(y.mean()),
    }
    for loss, constant in best.items():
        least = loss(y, np.full(999, constant))
        for step in (-1e-2, 1e-2):
            assert loss(y, np.full(999, constant + step)) > least


def test_the_root_of_no_error_is_zero_with_gradient_zero():
    value, gradient = losses.RootMeanSquaredError().value_and_gradient([1.0, 2.0], [1.0, 2.0])
    assert value == 0.0
    assert gradient.tolist() == [0.0, 0.0]


def test_predictions_at_infinite_missing_and_far_scores_are_exact():
    z = np.array([0.0, 800.0, -700.0, np.inf, -np.inf, np.nan])
    p = losses.LogLoss().predict(z)
    np.testing.assert_array_equal(p[[0, 1, 3, 4]], [0.5, 1.0, 1.0, 0.0])
    assert p[2] == pytest.approx(np.exp(-700.0), rel=1e-13)
    assert np.isnan(p[5])
    inf = np.inf
    raw = np.array([[0, 0], [inf, 0], [inf, inf], [-inf, -inf], [-inf, 3], [1e308, -1e308], [0, -700.0]])
    p = losses.CrossEntropy().predict(raw)
    np.testing.assert_array_equal(p[:6], [[0.5, 0.5], [1, 0], [0.5, 0.5], [0.5, 0.5], [0, 1], [1, 0]])
    assert p[6, 1] == pytest.approx(np.exp(-700.0), rel=1e-13)
    assert losses.HalfSquaredError().predict([1.0, -2.0]).tolist() == [1.0, -2.0]


def test_nan_in_raw_gives_nan_in_its_row_and_in_the_mean(loss, batches):
    for _, y, raw in batches.all(loss):
        raw[7] = np.nan
        value, gradient = loss.value_and_gradient(y, raw)
        assert np.isnan(value)
        assert np.isnan(gradient[7]).all()
        if loss.additive:
            assert np.isnan(loss.per_sample(y, raw)).tolist() == [i == 7 for i in range(40)]
            assert not np.isnan(np.delete(gradient, 7, axis=0)).any()


# A value among values ----------------------------------------------------------------------------------


def test_losses_are_values(loss):
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), clone(loss, safe=False)):
        assert twin == loss
        assert hash(twin) == hash(loss)
    assert repr(loss).startswith(type(loss).__name__ + "(")
    assert eval(repr(loss), vars(losses)) == loss
    for field in dataclasses.fields(loss):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(loss, field.name, 0.5)


def test_losses_with_other_parameters_differ():
    assert losses.LogLoss(0.1) != losses.LogLoss(0.2)
    assert losses.LogLoss() != losses.CrossEntropy()
    assert losses.HalfSquaredError() != losses.MeanSquaredError()
    assert repr(losses.LogLoss(np.float32(0))) == "LogLoss(label_smoothing=0.0)"
    assert len({losses.LogLoss(), losses.LogLoss(0), losses.LogLoss(0.5)}) == 2


def test_the_registry_knows_losses_by_name():
    expected = {
        "log_loss": losses.LogLoss,
        "cross_entropy": losses.CrossEntropy,
        "squared_error": losses.HalfSquaredError,
        "mean_squared_error": losses.MeanSquaredError,
        "root_mean_squared_error": losses.RootMeanSquaredError,
        "absolute_error": losses.AbsoluteError,
        "huber": losses.Huber,
        "quantile": losses.Quantile,
        "log_cosh": losses.LogCosh,
        "poisson": losses.Poisson,
        "gamma": losses.Gamma,
        "tweedie": losses.Tweedie,
        "squared_hinge": losses.SquaredHinge,
        "generalized_cross_entropy": losses.GeneralizedCrossEntropy,
        "focal": losses.Focal,
    }
    for name, kind in expected.items():
        assert losses.get(name) == kind()
    assert sorted(expected) == losses.names()
    mine = losses.LogLoss(0.25)
    assert losses.get(mine) is mine
    for name in losses.names():
        assert type(losses.get(name)).__name__ in losses.__all__


def test_only_the_root_has_no_loss_of_a_row():
    with pytest.raises(TypeError, match="RootMeanSquaredError is not a mean over rows"):
        losses.RootMeanSquaredError().per_sample([0.0], [1.0])


def test_predictions_of_the_kernel_are_those_of_the_formula(loss, batches):
    for _, _, raw in batches.all(loss, scale=20.0):
        for scores in (raw, raw.astype(np.float32), np.asfortranarray(raw)):
            expected = loss.inverse_link(np, scores)
            tolerance = 8 * np.finfo(scores.dtype).eps
            np.testing.assert_allclose(loss.predict(scores), expected, rtol=tolerance)
