"""The focal loss: its two forms, and what it is for."""

import array
import copy
import pickle

import numpy as np
import pytest

from sklloss import losses

GAMMAS = [0.0, 0.5, 1.0, 2.0, 5.0]


@pytest.mark.parametrize("gamma", GAMMAS)
def test_codes_beside_scores_of_classes_are_the_softmax_form(gamma, rng):
    loss, softmax = losses.Focal(gamma), losses.Focal(gamma).softmax()
    assert softmax == losses.SoftmaxFocal(gamma)
    raw, v, w = rng.normal(size=(30, 5)), rng.normal(size=(30, 5)), rng.integers(0, 3, 30)
    codes = rng.integers(0, 5, 30)
    p = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    own = p[np.arange(30), codes]
    expected = -((1 - own) ** gamma) * np.log(own)
    for y in (codes, codes.tolist(), codes.astype(np.uint8)):
        scores = raw.tolist() if isinstance(y, list) else raw
        np.testing.assert_allclose(loss.per_sample(y, scores), expected, rtol=1e-12)
        assert loss(y, scores, w) == pytest.approx(np.average(expected, weights=w), rel=1e-12)
        value, gradient = loss.value_and_gradient(y, scores, w)
        assert value == softmax(codes, raw, w)
        np.testing.assert_array_equal(gradient, softmax.gradient(codes, raw, w))
        np.testing.assert_array_equal(loss.gradient(y, scores, w), gradient)
        np.testing.assert_array_equal(
            loss.hessian_product(y, scores, v, w), softmax.hessian_product(codes, raw, v, w)
        )
    batch, same = raw.copy(), raw.copy()
    total = loss.evaluate_batch(batch, codes=codes.astype(np.intp))
    assert total == softmax.evaluate_batch(same, codes=codes.astype(np.intp))
    np.testing.assert_array_equal(batch, same)
    for method in ("formula", "product_formula"):
        arguments = (np, codes, raw, v)[: 4 if method == "product_formula" else 3]
        a, b = getattr(loss, method)(*arguments), getattr(softmax, method)(*arguments)
        np.testing.assert_array_equal(*((a, b) if method == "product_formula" else (a[0], b[0])))


def test_codes_and_scores_may_be_anything_that_becomes_an_array(rng):
    loss, raw = losses.Focal(), rng.normal(size=(3, 2))
    expected = loss.per_sample(np.array([0, 1, 0]), raw)
    codes = [array.array("q", [0, 1, 0]), (0, 1, 0), [np.array(0), np.array(1), np.array(0)]]
    for y in [*codes, np.array([0, 1, 0], ">i2"), memoryview(bytes([0, 1, 0]))]:
        for scores in (raw, list(raw), tuple(raw.tolist()), np.asfortranarray(raw)):
            np.testing.assert_array_equal(loss.per_sample(y, scores), expected)
    np.testing.assert_array_equal(loss.per_sample(range(2), raw[:2]), expected[:2])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_codes_and_scores_may_be_columns_and_frames(library, rng):
    frames = pytest.importorskip(library)
    raw = rng.normal(size=(3, 2))
    y, scores = frames.Series([0, 1, 0]), frames.DataFrame(raw)
    for loss in (losses.Focal(), losses.CrossEntropy(), losses.Focal().softmax()):
        value, gradient = loss.value_and_gradient(y, scores, frames.Series([1.0, 2.0, 3.0]))
        expected, slope = loss.value_and_gradient(np.array([0, 1, 0]), raw, [1.0, 2.0, 3.0])
        assert value == expected
        assert type(gradient) is np.ndarray
        np.testing.assert_array_equal(gradient, slope)
    assert losses.Huber()(frames.Series(raw[:, 0]), scores[scores.columns[1]]) == losses.Huber()(*raw.T)


def test_a_matrix_of_targets_is_independent_labels_and_predict_gives_sigmoids(rng):
    raw = rng.normal(size=(4, 3))
    y = np.eye(3)[[0, 1, 2, 0]]
    p = 1 / (1 + np.exp(-raw))
    expected = np.sum(-y * (1 - p) ** 2 * np.log(p) - (1 - y) * p**2 * np.log(1 - p), axis=1)
    np.testing.assert_allclose(losses.Focal().per_sample(y, raw), expected, rtol=1e-12)
    np.testing.assert_allclose(losses.Focal().predict(raw), p, rtol=1e-14)
    np.testing.assert_allclose(losses.Focal().softmax().predict(raw), losses.CrossEntropy().predict(raw))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gamma_zero_is_the_log_loss_and_the_cross_entropy(dtype, batches):
    rtol = 8 * float(np.finfo(dtype).eps)
    pairs = [
        (losses.Focal(0.0), losses.LogLoss()),
        (losses.Focal(0.0).softmax(), losses.CrossEntropy()),
    ]
    for focal, plain in pairs:
        for form, y, raw in batches.all(plain, dtype=dtype):
            np.testing.assert_allclose(
                focal.per_sample(y, raw), plain.per_sample(y, raw), rtol=rtol, err_msg=form
            )
            a, b = focal.gradient(y, raw), plain.gradient(y, raw)
            np.testing.assert_allclose(a, b, rtol=4 * rtol, atol=rtol * np.max(np.abs(b)))
            v = np.ones_like(raw) * np.arange(raw.shape[-1], dtype=dtype)
            a, b = focal.hessian_product(y, raw, v), plain.hessian_product(y, raw, v)
            np.testing.assert_allclose(a, b, rtol=8 * rtol, atol=rtol * np.max(np.abs(b)))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_a_confident_right_answer_keeps_its_digits(gamma):
    z = 40.0
    q = np.exp(-z) / (1 + np.exp(-z))
    expected = q**gamma * np.log1p(np.exp(-z))
    assert losses.Focal(gamma)([1], [z]) == pytest.approx(expected, rel=1e-14)
    assert losses.Focal(gamma)([0], [[z, 0.0]]) == pytest.approx(expected, rel=1e-14)
    slope = -(q**gamma) * (q + gamma * (1 - q) * np.log1p(np.exp(-z)))
    assert losses.Focal(gamma).gradient([1], [z])[0] == pytest.approx(slope, rel=1e-14)
    np.testing.assert_allclose(losses.Focal(gamma).gradient([0], [[z, 0.0]]), [[slope, -slope]], rtol=1e-14)
    # and a wrong one costs its logit
    assert losses.Focal(gamma)([0], [1e300]) == pytest.approx(1e300, rel=1e-15)
    assert losses.Focal(gamma)([1], [[1e300, 0.0]]) == pytest.approx(1e300, rel=1e-15)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_at_infinite_scores_the_loss_is_zero_or_infinite_and_never_nan(gamma):
    inf = np.inf
    loss = losses.Focal(gamma)
    assert loss.per_sample([1, 0, 1, 0], [inf, -inf, -inf, inf]).tolist() == [0, 0, inf, inf]
    gradient = 4 * loss.gradient([1, 0, 1, 0], [inf, -inf, -inf, inf])
    assert gradient.tolist() == [0, 0, -1, 1]
    raw = np.array([[inf, 0.0, 1.0], [inf, 0.0, 1.0], [-inf, 0.0, 0.0], [inf, inf, 0.0]])
    rows = loss.per_sample([0, 1, 1, 0], raw)
    half = 0.5**gamma * np.log(2)
    np.testing.assert_allclose(rows, [0, inf, half, half], rtol=1e-14)
    assert not np.isnan(loss.gradient([0, 1, 1, 0], raw)).any()
    assert not np.isnan(loss.hessian_product([0, 1, 1, 0], raw, np.ones_like(raw))).any()


def test_easy_rows_count_less():
    loss, plain = losses.Focal(2.0), losses.LogLoss()
    easy, hard = np.log(9.0), -np.log(9.0)  # probabilities of the truth 0.9 and 0.1
    assert loss([1], [easy]) / plain([1], [easy]) == pytest.approx(0.01, rel=1e-13)
    assert loss([1], [hard]) / plain([1], [hard]) == pytest.approx(0.81, rel=1e-13)


def test_shapes_of_neither_form_are_refused():
    with pytest.raises(ValueError, match=r"y_true has \(2,\), raw has \(2, 1\)"):
        losses.Focal()([0, 1], [[1.0], [2.0]])
    with pytest.raises(ValueError, match=r"y_true has \(2, 1\), raw has \(2,\)"):
        losses.Focal()([[0], [1]], [1.0, 2.0])
    with pytest.raises(TypeError, match="must hold integer class codes, got dtype float64"):
        losses.Focal()([0.0, 1.0], [[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match=r"class codes in \[0, 2\); row 1 has 2"):
        losses.Focal().per_sample([0, 2], [[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match="class codes of shape"):
        losses.Focal().gradient([0, 1, 1], [[1.0, 2.0], [3.0, 4.0]])


def test_the_softmax_form_is_a_loss_of_its_own():
    loss = losses.SoftmaxFocal(1.5)
    assert losses.get(loss) is loss
    assert pickle.loads(pickle.dumps(loss)) == copy.deepcopy(loss) == losses.Focal(1.5).softmax()
    assert loss != losses.Focal(1.5)
    assert losses.get("focal") == losses.Focal(2.0)
