"""Networks under the losses of classifiers: gradients against torch's autograd, weights for each output."""

import numpy as np
import pytest
from helpers import dataset

from sklloss import losses
from sklloss.arrays.ops import ACTIVATIONS, SGDSteps
from sklloss.objectives.network import NumpyNetworkObjective, initial_parameters, unpack

DEPTHS = [(), (6,), (7, 5), (4, 1, 3)]
K = 4


def codes(rng):
    return {"codes": rng.integers(0, K, 40)}


def shares(rng):
    return {"target": rng.dirichlet(np.ones(K), 40)}


def labels(rng):
    return {"target": rng.integers(0, 2, (40, K)).astype(np.float64)}


def fractions(rng):
    return {"target": rng.random((40, K))}


def pair(rng):
    return {"target": rng.integers(0, 2, (40, 1)).astype(np.float64)}


def log_softmax(torch, z):
    return torch.log_softmax(z, dim=1)


def cross_entropy(torch, z, y):
    return -(y * log_softmax(torch, z)).sum(dim=1)


def softmax_focal(torch, z, y):
    log_p = log_softmax(torch, z)
    return -(y * (1 - log_p.exp()) ** 2 * log_p).sum(dim=1)


def log_loss(torch, z, y):
    log_p, log_q = torch.nn.functional.logsigmoid(z), torch.nn.functional.logsigmoid(-z)
    return -(y * log_p + (1 - y) * log_q)


def focal(torch, z, y):
    p = torch.sigmoid(z)
    log_p, log_q = torch.nn.functional.logsigmoid(z), torch.nn.functional.logsigmoid(-z)
    return -(y * (1 - p) ** 2 * log_p + (1 - y) * p**2 * log_q)


# the loss, a target, the loss written for torch, whether it weighs each output
CASES = {
    "cross-entropy of labels": (losses.CrossEntropy(), codes, cross_entropy, False),
    "cross-entropy of probabilities": (losses.CrossEntropy(), shares, cross_entropy, False),
    "smoothed cross-entropy": (losses.CrossEntropy(label_smoothing=0.2), codes, cross_entropy, False),
    "focal of a softmax": (losses.Focal().softmax(), codes, softmax_focal, False),
    "focal of soft labels": (losses.Focal().softmax(), shares, softmax_focal, False),
    "log loss of two classes": (losses.LogLoss(), pair, log_loss, False),
    "log loss of many labels": (losses.LogLoss(), labels, log_loss, False),
    "log loss, weighed by label": (losses.LogLoss(), fractions, log_loss, True),
    "smoothed log loss": (losses.LogLoss(label_smoothing=0.2), labels, log_loss, True),
    "focal of many labels": (losses.Focal(), fractions, focal, True),
}


def problem(case, rng, dtype):
    """The loss, X, target, weight, and the target as torch's formula takes it."""
    loss, make, formula, by_output = CASES[case]
    X = rng.standard_normal((40, 5)).astype(dtype)
    target = make(rng)
    y = target["target"] if "target" in target else np.eye(K)[target["codes"]]
    smoothing = getattr(loss, "label_smoothing", 0.0)
    if smoothing:
        y = y * (1 - smoothing) + smoothing / (K if "codes" in target else 2)
    if "target" in target:
        target = {"target": target["target"].astype(dtype)}
        y = target["target"].astype(np.float64) if not smoothing else y
    weight = (rng.random((40, y.shape[1]) if by_output else 40) + 0.1).astype(dtype)
    return loss, formula, X, target, y, weight


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_value_and_gradient_equal_torch(activation, depth, case, dtype, rng):
    torch = pytest.importorskip("torch")
    function = {
        "identity": lambda z: z,
        "relu": torch.relu,
        "tanh": torch.tanh,
        "logistic": torch.sigmoid,
        "gelu": torch.nn.functional.gelu,
        "silu": torch.nn.functional.silu,
        "elu": torch.nn.functional.elu,
    }[activation]
    loss, formula, X, target, y, weight = problem(case, rng, dtype)
    widths, alpha = (5, *depth, y.shape[1]), 0.3
    objective = NumpyNetworkObjective(widths, activation, dtype, loss, alpha)
    size = initial_parameters(widths, "relu", np.random.RandomState(0), dtype).size
    parameters = rng.uniform(-0.9, 0.9, size).astype(dtype)
    value, gradient = objective.value_and_gradient(
        objective.rows(dataset(X, weight=weight, **target, outputs=widths[-1])), parameters
    )

    coefs, intercepts = (
        [torch.tensor(part.astype(np.float64), requires_grad=True) for part in parts]
        for parts in unpack(parameters, widths)
    )
    a, w = torch.tensor(X.astype(np.float64)), torch.tensor(weight.astype(np.float64))
    for k, (coef, intercept) in enumerate(zip(coefs, intercepts)):
        a = a @ coef + intercept
        a = function(a) if k < len(coefs) - 1 else a
    each = formula(torch, a, torch.tensor(y))
    w = w[:, None] if w.ndim == 1 and each.ndim == 2 else w
    # a row's weight is the mean of those of its outputs
    total = w.sum() if w.ndim == 1 else w.sum() / w.shape[1]
    expected = ((w * each).sum() + 0.5 * alpha * sum((coef**2).sum() for coef in coefs)) / total
    expected.backward()

    tolerance = 1e-10 if dtype is np.float64 else 2e-5
    assert value == pytest.approx(expected.item(), rel=tolerance)
    reference = np.concatenate([part.grad.numpy().ravel() for part in (*coefs, *intercepts)])
    np.testing.assert_allclose(gradient, reference, rtol=tolerance, atol=tolerance * np.abs(reference).max())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("gathered", [True, False])
@pytest.mark.parametrize("rows", [40, 3000])
def test_the_same_weight_for_each_output_is_a_weight_of_the_row(rows, gathered, dtype, rng):
    X = rng.standard_normal((rows, 5)).astype(dtype)
    y = rng.integers(0, 2, (rows, K)).astype(dtype)
    weight = rng.integers(1, 4, rows).astype(dtype)
    order = rng.permutation(rows) if gathered else None
    ended = []
    for one in (weight, np.repeat(weight[:, None], K, axis=1)):
        objective = NumpyNetworkObjective((5, 9, K), "tanh", dtype, losses.LogLoss(), 0.1)
        parameters = initial_parameters((5, 9, K), "tanh", np.random.RandomState(0), dtype)
        value = objective.epoch(
            objective.rows(dataset(X, y, one)), order, rows // 2 - 1, parameters,
            SGDSteps(np.full(3, 0.1), np.zeros_like(parameters), momentum=0.9),
        )  # fmt: skip
        ended.append((value, parameters))
    assert ended[0][0] == pytest.approx(ended[1][0], rel=1e-12 if dtype is np.float64 else 1e-5)
    np.testing.assert_allclose(ended[0][1], ended[1][1], rtol=1e-12 if dtype is np.float64 else 1e-5)


def test_weights_of_another_shape_are_refused(rng):
    objective = NumpyNetworkObjective((5, K), "tanh", np.float64, losses.LogLoss())
    for shape in ((39,), (40, K + 1), (39, K)):
        with pytest.raises(ValueError, match="weight must have shape"):
            objective.rows(dataset(np.zeros((40, 5)), np.zeros((40, K)), np.ones(shape)))
