"""Arrays of other namespaces: array_api_strict has nothing beyond the standard."""

import numpy as np
import pytest
from helpers import numeric_gradient

from sklloss import losses

strict = pytest.importorskip("array_api_strict")


def test_the_gradient_is_the_slope_of_the_value(loss, batches):
    for form, y, raw in batches.all(loss, n=8):
        raw[0] = 0.0  # all scores tie
        raw[1] = -raw[1]
        weight = np.arange(8) % 4
        for w in (None, weight):
            np.testing.assert_allclose(
                loss.gradient(y, raw, w),
                numeric_gradient(loss, y, raw, w, step=2e-3),
                atol=1e-9,
                err_msg=form,
            )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_strict_namespace_gives_what_numpy_gives(loss, dtype, batches, weights):
    rtol = 100 * float(np.finfo(dtype).eps)
    for _, y, raw in batches.all(loss, dtype=dtype):
        ours, scores, w = (strict.asarray(a) for a in (y, raw, weights))
        for weight, strict_weight in ((None, None), (weights, w)):
            value, gradient = loss.value_and_gradient(ours, scores, strict_weight)
            expected, slope = loss.value_and_gradient(y, raw, weight)
            assert value.shape == ()
            assert value.dtype == gradient.dtype == scores.dtype
            assert float(value) == pytest.approx(expected, rel=rtol)
            np.testing.assert_allclose(np.asarray(gradient), slope, rtol=rtol, atol=rtol / len(raw))
            assert float(loss(ours, scores, strict_weight)) == float(value)
        if loss.additive:
            rows = np.asarray(loss.per_sample(ours, scores))
            np.testing.assert_allclose(rows, loss.per_sample(y, raw), rtol=rtol)
        np.testing.assert_allclose(np.asarray(loss.predict(scores)), loss.predict(raw), rtol=rtol)
        if not np.any(y - np.round(y)):
            whole = strict.asarray(y.astype(np.int32))
            assert float(loss(whole, scores)) == pytest.approx(loss(y, raw), rel=rtol)


def test_a_strict_namespace_takes_booleans():
    raw, y = strict.asarray([0.5, -1.0]), strict.asarray([True, False])
    assert float(losses.LogLoss()(y, raw)) == pytest.approx(losses.LogLoss()([1, 0], [0.5, -1.0]))
    raw = strict.asarray([[0.5, -1.0], [0.0, 1.0]])
    assert float(losses.CrossEntropy()(y, raw)) == pytest.approx(
        losses.CrossEntropy()([1, 0], [[0.5, -1.0], [0.0, 1.0]])
    )
    assert float(losses.HalfSquaredError()(raw, raw, y)) == 0.0


def test_namespaces_do_not_mix():
    loss, raw = losses.LogLoss(), np.array([1.0, 2.0])
    ours = strict.asarray(raw)
    with pytest.raises(TypeError, match=r"y_true is of array_api_strict, raw is of numpy"):
        loss(strict.asarray([0.0, 1.0]), raw)
    with pytest.raises(TypeError, match=r"y_true is of numpy, raw is of array_api_strict"):
        loss(np.array([0.0, 1.0]), ours)
    with pytest.raises(TypeError, match=r"y_true is of list, raw is of array_api_strict"):
        loss([0.0, 1.0], ours)
    with pytest.raises(TypeError, match=r"sample_weight is of numpy, raw is of array_api_strict"):
        loss(strict.asarray([0.0, 1.0]), ours, np.ones(2))


def test_devices_do_not_mix():
    raw = strict.asarray([1.0, 2.0])
    other = strict.asarray([0.0, 1.0], device=strict.Device("device1"))
    with pytest.raises(ValueError, match=r"y_true is on device .*device1.*, raw is on device .*CPU"):
        losses.LogLoss()(other, raw)
    with pytest.raises(ValueError, match=r"sample_weight is on device .*device1"):
        losses.LogLoss()(strict.asarray([0.0, 1.0]), raw, other)
    value = losses.LogLoss()(other, strict.asarray([1.0, 2.0], device=strict.Device("device1")))
    assert value.device == strict.Device("device1")


def test_bad_values_are_named_in_other_namespaces():
    raw, pair = strict.asarray([1.0, 2.0]), strict.asarray([[1.0, 2.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"in \[0, 1\]; row 1 has 2"):
        losses.LogLoss()(strict.asarray([0, 2]), raw)
    with pytest.raises(ValueError, match=r"class codes in .*; row 0 has -1"):
        losses.CrossEntropy()(strict.asarray([-1, 1]), pair)
    with pytest.raises(ValueError, match=r"row 1 sums to 1.5"):
        losses.CrossEntropy()(strict.asarray([[0.5, 0.5], [0.5, 1.0]]), pair)
    with pytest.raises(ValueError, match=r"y_true must be finite; row 1 has nan"):
        losses.HalfSquaredError()(strict.asarray([0.0, float("nan")]), raw)
    with pytest.raises(ValueError, match=r"sample_weight must be finite and not negative; row 1 has -2"):
        losses.HalfSquaredError()(raw, raw, strict.asarray([0.0, -2.0]))
    with pytest.raises(ValueError, match=r"sample_weight is zero"):
        losses.HalfSquaredError()(raw, raw, strict.asarray([0.0, 0.0]))
    with pytest.raises(TypeError, match=r"raw must be float32 or float64, got .*int64"):
        losses.HalfSquaredError()(raw, strict.asarray([1, 2]))
