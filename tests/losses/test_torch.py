"""Losses as criteria of torch: values, analytic gradients and autograd."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sklloss import losses

torch = pytest.importorskip("torch")
functional = pytest.importorskip("torch.nn.functional")


def autograd(loss, y, raw, weight=None):
    """Value and the gradient that torch derives from it."""
    raw = raw.detach().clone().requires_grad_()
    value = loss(y, raw, weight)
    value.backward()
    return value.detach(), raw.grad


def awkward(batches, loss, form, dtype):
    """A batch with zeros, ties of the largest score, confident rows and large scores."""
    y, raw = batches.make(loss, form, n=40, dtype=dtype)
    raw[0] = 0.0
    raw[1] = -0.0
    raw[2] = 4.0
    raw[3] *= 30.0
    raw[4] = -100.0
    if raw.ndim == 2:
        raw[5, :2] = 9.0
        raw[6] = 0.0
        raw[6, 1] = 60.0
        raw[7, 0] = 300.0
    return y, np.clip(raw, -5.0, 5.0) if batches.positive(loss) else raw


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_gradients_and_autograd_agree_also_at_zero_and_at_ties(loss, dtype, batches, weights):
    eps = float(np.finfo(dtype).eps)
    for form in batches.forms(loss):
        y, raw = awkward(batches, loss, form, dtype)
        ours, scores, w = (torch.from_numpy(a) for a in (y, raw, weights))
        for weight, torch_weight in ((None, None), (weights, w)):
            expected, slope = loss.value_and_gradient(y, raw, weight)
            value, gradient = loss.value_and_gradient(ours, scores, torch_weight)
            assert value.dtype == scores.dtype
            assert value.shape == ()
            assert float(value) == pytest.approx(expected, rel=10 * eps), form
            scale = np.max(np.abs(slope))
            np.testing.assert_allclose(gradient.numpy(), slope, rtol=50 * eps, atol=8 * eps * scale)
            value, gradient = autograd(loss, ours, scores, torch_weight)
            assert float(value) == pytest.approx(expected, rel=10 * eps)
            np.testing.assert_allclose(
                gradient.numpy(), slope, rtol=50 * eps, atol=8 * eps * scale, err_msg=form
            )


def test_autograd_keeps_the_digits_of_a_confident_row():
    raw = torch.tensor([[60.0, 0.0, 0.0]], dtype=torch.float64)
    _, gradient = autograd(losses.CrossEntropy(), torch.tensor([0]), raw)
    np.testing.assert_allclose(gradient[0, 0].item(), -2 * np.exp(-60.0), rtol=1e-14)
    _, gradient = autograd(losses.LogLoss(), torch.tensor([1]), torch.tensor([60.0], dtype=torch.float64))
    np.testing.assert_allclose(gradient[0].item(), -np.exp(-60.0), rtol=1e-14)


def test_autograd_has_no_nan_at_infinite_scores():
    inf = float("inf")
    raw = torch.tensor([inf, -inf, inf, -inf])
    value, gradient = autograd(losses.LogLoss(), torch.tensor([1, 0, 0, 1]), raw)
    assert value == inf
    assert gradient.tolist() == [0.0, 0.0, 0.25, -0.25]
    rows = torch.tensor([[inf, 0.0, 1.0], [-inf, 0.0, 0.0], [inf, inf, 0.0]])
    _, gradient = autograd(losses.CrossEntropy(), torch.tensor([0, 1, 0]), rows)
    assert not gradient.isnan().any()
    np.testing.assert_allclose(gradient[:2].numpy(), [[0, 0, 0], [0, -1 / 6, 1 / 6]], rtol=1e-6)


def test_autograd_leaves_out_a_row_of_weight_zero_whatever_its_scores(loss, batches):
    for _, y, raw in batches.all(loss):
        raw[3], raw[5] = np.inf, np.nan
        weight = np.ones(40)
        weight[[3, 5]] = 0.0
        _, gradient = autograd(loss, *(torch.from_numpy(a) for a in (y, raw, weight)))
        np.testing.assert_allclose(gradient.numpy(), loss.gradient(y, raw, weight), rtol=1e-11, atol=1e-15)


def test_the_root_of_no_error_has_gradient_zero_in_autograd():
    y = torch.tensor([1.0, 2.0])
    value, gradient = autograd(losses.RootMeanSquaredError(), y, y)
    assert value == 0.0
    assert gradient.tolist() == [0.0, 0.0]


def test_first_and_second_derivatives_pass_the_checks_of_autograd(loss, batches):
    for form in batches.forms(loss):
        if form == "many":
            continue
        y, raw = batches.make(loss, form, n=4)
        ours, scores = torch.from_numpy(y), torch.from_numpy(raw).requires_grad_()
        assert torch.autograd.gradcheck(lambda z, y=ours: loss(y, z), scores)
        assert torch.autograd.gradgradcheck(lambda z, y=ours: loss(y, z), scores)


def test_a_target_may_be_differentiated_too(batches):
    y, raw = (torch.from_numpy(a) for a in batches.make(losses.LogLoss(), "hard", n=6))
    y.requires_grad_()
    losses.LogLoss()(y, raw).backward()
    np.testing.assert_allclose(y.grad.numpy(), -raw.numpy() / 6, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_that_of_torch(smoothing, batches):
    loss = losses.CrossEntropy(smoothing)
    for form in ("codes", "rows", "many"):
        y, raw = (torch.from_numpy(a) for a in batches.make(loss, form))
        value, gradient = autograd(loss, y, raw)
        theirs = raw.clone().requires_grad_()
        expected = functional.cross_entropy(theirs, y, label_smoothing=smoothing)
        expected.backward()
        torch.testing.assert_close(value, expected.detach(), rtol=1e-13, atol=0)
        torch.testing.assert_close(gradient, theirs.grad, rtol=1e-11, atol=1e-15)


def test_log_loss_and_squared_error_are_those_of_torch(batches):
    pairs = [
        (losses.LogLoss(), functional.binary_cross_entropy_with_logits),
        (losses.MeanSquaredError(), functional.mse_loss),
        (losses.RootMeanSquaredError(), lambda raw, y: functional.mse_loss(raw, y).sqrt()),
    ]
    for loss, theirs in pairs:
        for form in batches.forms(loss):
            y, raw = (torch.from_numpy(a) for a in batches.make(loss, form))
            value, gradient = autograd(loss, y, raw)
            # torch averages log losses over labels, ours add up
            outputs = raw.shape[1] if raw.ndim == 2 and loss.reduction == "sum" else 1
            other = raw.clone().requires_grad_()
            expected = theirs(other, y) * outputs
            expected.backward()
            torch.testing.assert_close(value, expected.detach(), rtol=1e-13, atol=0)
            torch.testing.assert_close(gradient, other.grad, rtol=1e-11, atol=1e-15)


def test_robust_and_count_losses_are_those_of_torch(batches):
    pairs = [
        (losses.AbsoluteError(), functional.l1_loss),
        (losses.Huber(0.7), lambda raw, y: functional.huber_loss(raw, y, delta=0.7)),
        (losses.Poisson(), functional.poisson_nll_loss),
        (losses.LogCosh(), lambda raw, y: torch.log(torch.cosh(raw - y)).mean()),
        (losses.Quantile(0.2), lambda raw, y: torch.maximum(0.2 * (y - raw), 0.8 * (raw - y)).mean()),
        (losses.Gamma(), lambda raw, y: (raw + y / torch.exp(raw)).mean()),
        (
            losses.Tweedie(1.3),
            lambda raw, y: (torch.exp(0.7 * raw) / 0.7 + y * torch.exp(-0.3 * raw) / 0.3).mean(),
        ),
    ]
    for loss, theirs in pairs:
        for form in batches.forms(loss):
            y, raw = (torch.from_numpy(a) for a in batches.make(loss, form))
            value, gradient = autograd(loss, y, raw)
            other = raw.clone().requires_grad_()
            expected = theirs(other, y)
            expected.backward()
            torch.testing.assert_close(value, expected.detach(), rtol=1e-13, atol=0)
            torch.testing.assert_close(gradient, other.grad, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_is_the_formula_of_its_paper(gamma, batches):
    def sigmoid_form(raw, y):
        p = torch.sigmoid(raw)
        row = -y * (1 - p) ** gamma * torch.log(p) - (1 - y) * p**gamma * torch.log(1 - p)
        return row.sum(dim=1).mean() if raw.ndim == 2 else row.mean()

    def softmax_form(raw, y):
        own = torch.softmax(raw, dim=1)[torch.arange(len(y)), y]
        return torch.mean(-((1 - own) ** gamma) * torch.log(own))

    loss = losses.Focal(gamma)
    cases = [(sigmoid_form, batches.make(loss, form)) for form in batches.forms(loss)]
    cases += [(softmax_form, batches.make(loss.softmax(), form)) for form in ("codes", "many")]
    for theirs, arrays in cases:
        y, raw = (torch.from_numpy(a) for a in arrays)
        if theirs is softmax_form and y.ndim == 2:
            y = torch.argmax(y, dim=1)
        value, gradient = autograd(loss, y, raw)
        other = raw.clone().requires_grad_()
        expected = theirs(other, y)
        expected.backward()
        torch.testing.assert_close(value, expected.detach(), rtol=1e-11, atol=0)
        torch.testing.assert_close(gradient, other.grad, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("q", [0.01, 0.7, 1.0])
def test_generalized_cross_entropy_is_the_formula_of_its_paper(q, batches):
    loss = losses.GeneralizedCrossEntropy(q)
    for form in batches.forms(loss):
        y, raw = (torch.from_numpy(a) for a in batches.make(loss, form))
        rows = torch.nn.functional.one_hot(y, raw.shape[1]) if y.ndim == 1 else y
        value, gradient = autograd(loss, y, raw)
        other = raw.clone().requires_grad_()
        expected = torch.mean(torch.sum(rows * (1 - torch.softmax(other, dim=1) ** q) / q, dim=1))
        expected.backward()
        torch.testing.assert_close(value, expected.detach(), rtol=1e-11, atol=0)
        torch.testing.assert_close(gradient, other.grad, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("q", [0.1, 0.7, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autograd_of_the_generalized_cross_entropy_has_no_nan_at_infinite_scores(q, dtype):
    inf, loss = float("inf"), losses.GeneralizedCrossEntropy(q)
    raw = torch.tensor([[800.0, 0, 0], [inf, 0, 0], [-inf, 0, 0], [0, 0, 0], [1e30, 1e30, 0]], dtype=dtype)
    for code in (0, 1):
        codes = torch.full((5,), code)
        for y in (codes, torch.nn.functional.one_hot(codes, 3)):
            _, gradient = autograd(loss, y, raw)
            torch.testing.assert_close(gradient, loss.gradient(y, raw), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.3, 0.5, 1.0, 1.5, 2.0])
def test_autograd_of_the_focal_loss_has_no_nan_where_a_power_has_an_infinite_slope(gamma):
    inf = float("inf")
    loss = losses.Focal(gamma)
    for dtype in (torch.float32, torch.float64):
        z = torch.tensor([800.0, -800.0, 100.0, -100.0, inf, -inf, 0.0, 1e30], dtype=dtype)
        for y in (0, 1):
            labels = torch.full((8,), y)
            _, gradient = autograd(loss, labels, z)
            torch.testing.assert_close(gradient, loss.gradient(labels, z), rtol=1e-5, atol=1e-30)
        raw = torch.tensor(
            [[800.0, 0, 0], [inf, 0, 0], [-inf, 0, 0], [0, 0, 0], [1e30, 1e30, 0]], dtype=dtype
        )
        for code in (0, 1):
            codes = torch.full((5,), code)
            _, gradient = autograd(loss, codes, raw)
            torch.testing.assert_close(gradient, loss.gradient(codes, raw), rtol=1e-5, atol=1e-30)
            rows = torch.nn.functional.one_hot(codes, 3)
            _, gradient = autograd(loss.softmax(), rows, raw)
            assert not gradient.isnan().any()


def test_autograd_is_zero_where_a_robust_loss_has_its_kink():
    y = torch.tensor([0.0, 1.0, -2.0])
    for loss in (losses.AbsoluteError(), losses.Quantile(0.9), losses.Huber(), losses.LogCosh()):
        value, gradient = autograd(loss, y, y)
        assert value == 0.0
        assert gradient.tolist() == [0.0, 0.0, 0.0]


def test_autograd_at_infinite_errors_and_logarithms():
    inf = float("inf")
    raw = torch.tensor([inf, -inf, 1e30, -1e30])
    for loss in (losses.AbsoluteError(), losses.Quantile(0.9), losses.Huber(), losses.LogCosh()):
        _, gradient = autograd(loss, torch.zeros(4), raw)
        torch.testing.assert_close(gradient, loss.gradient(torch.zeros(4), raw))
        assert not gradient.isnan().any()
    for y in (0.0, 2.0):
        target = torch.full((4,), y)
        _, gradient = autograd(losses.Poisson(), target, raw)
        torch.testing.assert_close(gradient, losses.Poisson().gradient(target, raw))
    target = torch.full((3,), 2.0)
    _, gradient = autograd(losses.Gamma(), target, raw[:3])
    torch.testing.assert_close(gradient, losses.Gamma().gradient(target, raw[:3]))


class Digits:
    """A small convolutional network on 8x8 digits, and its batches."""

    def __init__(self, dtype):
        X, y = load_digits(return_X_y=True)
        self.X = torch.from_numpy(X[:256].reshape(-1, 1, 8, 8) / 16).to(dtype)
        self.y = torch.from_numpy(y[:256])
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 8, 3), torch.nn.ReLU(),
            torch.nn.Flatten(), torch.nn.Linear(128, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10),
        ).to(dtype)  # fmt: skip

    def soft(self, rows):
        """Probabilities: nine tenths of the digit, one tenth of the next one."""
        hot = functional.one_hot(self.y[rows], 10).to(self.X.dtype)
        return 0.9 * hot + 0.1 * torch.roll(hot, 1, dims=1)

    def slopes(self, value):
        """The gradient of all parameters, flat."""
        self.net.zero_grad()
        value.backward()
        return torch.cat([p.grad.ravel() for p in self.net.parameters()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("targets", ["codes", "probabilities"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_each_step_of_a_training_loop_has_the_value_and_gradient_of_torch(dtype, targets, smoothing):
    digits = Digits(dtype)
    criterion = losses.CrossEntropy(label_smoothing=smoothing)
    optimiser = torch.optim.SGD(digits.net.parameters(), lr=0.1, momentum=0.9)
    eps = torch.finfo(dtype).eps
    for rows in torch.arange(256).split(64) * 3:
        y = digits.y[rows] if targets == "codes" else digits.soft(rows)
        expected = functional.cross_entropy(digits.net(digits.X[rows]), y, label_smoothing=smoothing)
        slope = digits.slopes(expected)
        value = criterion(y, digits.net(digits.X[rows]))
        ours = digits.slopes(value)
        torch.testing.assert_close(value.detach(), expected.detach(), rtol=8 * eps, atol=0)
        # sums of many terms, added in the order of the layers
        torch.testing.assert_close(ours, slope, rtol=1e3 * eps, atol=16 * eps * float(slope.abs().max()))
        optimiser.step()


def test_a_network_learns_digits_by_our_criteria():
    for criterion in (losses.CrossEntropy(), losses.Focal()):
        digits = Digits(torch.float32)
        optimiser = torch.optim.Adam(digits.net.parameters(), lr=0.01)
        for _ in range(20):
            for rows in torch.arange(256).split(64):
                optimiser.zero_grad()
                criterion(digits.y[rows], digits.net(digits.X[rows])).backward()
                optimiser.step()
        right = digits.net(digits.X).argmax(dim=1) == digits.y
        assert right.float().mean() > 0.95


def test_numpy_beside_torch_is_refused():
    raw = torch.tensor([1.0, 2.0])
    with pytest.raises(TypeError, match="y_true is of numpy, raw is of torch"):
        losses.LogLoss()(np.array([0.0, 1.0]), raw)
    with pytest.raises(TypeError, match="y_true is of torch, raw is of numpy"):
        losses.LogLoss()(torch.tensor([0.0, 1.0]), np.array([1.0, 2.0]))
    with pytest.raises(TypeError, match=r"raw must be float32 or float64, got torch.bfloat16"):
        losses.LogLoss()(torch.tensor([0.0, 1.0]), raw.bfloat16())
    with pytest.raises(ValueError, match="on device meta"):
        losses.LogLoss()(torch.tensor([0.0, 1.0], device="meta"), raw)
