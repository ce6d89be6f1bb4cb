"""The losses over torch's tensors that work in place: the numbers of their formulas."""

import numpy as np
import pytest
from array_api_compat import array_namespace

from sklloss import losses
from sklloss.arrays.device import device_of
from sklloss.arrays.ops import fused_loss
from sklloss.losses import CrossEntropy, LogLoss

torch = pytest.importorskip("torch")

HARD, SOFT = "hard", "soft"


def batch(rng, loss, target, dtype, n=400, K=5, scale=8.0):
    raw = torch.from_numpy((scale * rng.normal(size=(n, K))).astype(dtype))
    if isinstance(loss, CrossEntropy):
        y = rng.integers(0, K, n) if target == HARD else rng.dirichlet(np.full(K, 0.3), n).astype(dtype)
    else:
        y = (rng.integers(0, 2, (n, K)) if target == HARD else rng.random((n, K))).astype(dtype)
    return torch.from_numpy(y), raw


def stated(loss, y, raw):
    """Value, gradient and curvature by the formulas, in float64."""
    xp, raw = array_namespace(raw), raw.double()
    y = y.double() if y.is_floating_point() else y
    value, gradient = loss.formula(xp, y, raw)
    second = loss.predict(raw) if isinstance(loss, CrossEntropy) else loss.curvature(xp, y, raw)
    return value, gradient(), second


def close(own, other, dtype):
    rtol = 3e-6 if dtype == "float32" else 3e-14
    torch.testing.assert_close(own.double(), other, rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("target", [HARD, SOFT])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", [CrossEntropy, LogLoss])
def test_value_gradient_and_curvature_are_those_of_the_formula(kind, smoothing, target, dtype, rng):
    loss = kind(label_smoothing=smoothing)
    y, raw = batch(rng, loss, target, dtype)
    expected = stated(loss, y, raw)
    evaluate, kept = fused_loss(device_of(raw), loss), y.clone()
    for _ in range(2):
        found = evaluate(y, raw.clone(), True)
        for own, other in zip(found, expected, strict=True):
            assert own.dtype == raw.dtype
            close(own, other, dtype)
    assert torch.equal(y, kept)
    value, gradient, second = evaluate(y, raw.clone(), False)
    assert second is None
    assert torch.equal(value, found[0])
    assert torch.equal(gradient, found[1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_is_lost_where_a_class_is_all_but_certain(dtype):
    # next to 1 the others' share would be lost; relative errors are what counts here
    raw = torch.tensor([[60.0, 20.0, 0.0], [0.0, 40.0, 5.0]], dtype=getattr(torch, dtype))
    codes = torch.tensor([0, 1])
    labels = torch.tensor([[1.0, 1, 1], [1, 1, 1]]).to(raw)
    for loss, y in (
        (CrossEntropy(), codes),
        *((LogLoss(s), y) for s in (0.0, 1e-9, 1e-6, 0.1) for y in (labels, 1 - labels)),
    ):
        value, gradient, _ = fused_loss(device_of(raw), loss)(y, raw.clone(), False)
        expected = stated(loss, y, raw)
        torch.testing.assert_close(value.double(), expected[0], rtol=1e-5, atol=0.0)
        torch.testing.assert_close(gradient.double(), expected[1], rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("kind", [CrossEntropy, LogLoss])
def test_infinite_scores_leave_finite_gradients(kind):
    inf = float("inf")
    raw = torch.tensor([[inf, 0.0, -inf], [-inf, -inf, -inf], [inf, inf, 1.0], [3.0, -inf, 1.0]])
    y = torch.tensor([2, 1, 0, 0]) if kind is CrossEntropy else torch.tensor([[0.0, 1.0, 1.0]]).repeat(4, 1)
    for target in (y, torch.full((4, 3), 1 / 3)):
        value, gradient, second = fused_loss(device_of(raw), kind())(target, raw.clone(), True)
        for part in (value, gradient, second):
            assert not part.isnan().any()
        assert gradient.abs().max() <= 1
    # where the formula says infinite
    value, *_ = fused_loss(device_of(raw), kind())(y, raw.clone(), False)
    assert value[0].sum() >= torch.finfo(raw.dtype).max


@pytest.mark.parametrize("kind", [CrossEntropy, LogLoss])
def test_the_largest_finite_scores_cost_what_the_formula_says(kind):
    raw = torch.tensor([[3e38, 2.9e38], [-3e38, 3e38]])
    y = torch.tensor([1, 0]) if kind is CrossEntropy else torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    value, gradient, _ = fused_loss(device_of(raw), kind())(y, raw.clone(), False)
    expected = stated(kind(), y, raw)
    largest = torch.finfo(raw.dtype).max
    torch.testing.assert_close(value.double(), expected[0].clamp(max=largest), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(gradient.double(), expected[1], rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("kind", [CrossEntropy, LogLoss])
def test_nan_stays(kind):
    raw = torch.tensor([[float("nan"), 1.0], [0.0, 1.0]])
    y = torch.tensor([1, 0]) if kind is CrossEntropy else torch.zeros(2, 2)
    value, gradient, _ = fused_loss(device_of(raw), kind())(y, raw, False)
    assert value[0].isnan().any()
    assert gradient[0].isnan().any()
    assert value[1].isfinite().all()


def test_ties_share_as_in_the_formula():
    raw = torch.tensor([[2.0, 2.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    for codes in ([0, 1], [1, 2], [2, 0]):
        y = torch.tensor(codes)
        found = fused_loss(device_of(raw), CrossEntropy())(y, raw.clone(), True)
        for own, other in zip(found, stated(CrossEntropy(), y, raw), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-15, atol=1e-16)


def test_other_losses_and_other_namespaces_keep_their_formulas(strict):
    there = device_of(torch.zeros(1))
    for name in losses.names():
        taken = fused_loss(there, losses.get(name)) is not None
        assert taken == (name in ("log_loss", "cross_entropy"))
    assert fused_loss(strict, CrossEntropy()) is None


def test_a_subclass_keeps_its_own_formula():
    class Doubled(CrossEntropy):
        def formula(self, xp, y, raw):
            value, gradient = super().formula(xp, y, raw)
            return 2.0 * value, lambda: 2.0 * gradient()

    assert fused_loss(device_of(torch.zeros(1)), Doubled()) is None
