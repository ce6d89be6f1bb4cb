"""The gradient of whole networks, against finite differences and torch's autograd."""

import numpy as np
import pytest
from helpers import dataset

from sklloss import losses
from sklloss.arrays.ops import ACTIVATIONS
from sklloss.objectives.network import NumpyNetworkObjective, initial_parameters, unpack

DEPTHS = [(), (6,), (7, 5), (4, 1, 3)]
LOSSES = [name for name in losses.names() if losses.get(name).target == "values"]


def problem(rng, outputs, dtype=np.float64, name=None):
    X = rng.standard_normal((40, 5)).astype(dtype)
    y = rng.standard_normal((40, outputs))
    if name is not None and losses.get(name).domain is not None:
        y = np.exp(y)
    return X, y.astype(dtype), (rng.random(40) + 0.1).astype(dtype)


def parameters_of(widths, rng, dtype=np.float64):
    size = initial_parameters(widths, "relu", np.random.RandomState(0), dtype).size
    return rng.uniform(-0.9, 0.9, size).astype(dtype)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_equals_finite_differences(activation, depth, loss, outputs, rng):
    X, y, weight = problem(rng, outputs, name=loss)
    widths = (5, *depth, outputs)
    objective = NumpyNetworkObjective(widths, activation, np.float64, losses.get(loss), alpha=0.7)
    rows = objective.rows(dataset(X, y, weight))
    parameters = parameters_of(widths, rng)
    gradient = objective.value_and_gradient(rows, parameters)[1]
    h = 1e-6
    for _ in range(4):
        direction = rng.standard_normal(parameters.size)
        up = objective.value_and_gradient(rows, parameters + h * direction)[0]
        down = objective.value_and_gradient(rows, parameters - h * direction)[0]
        assert (up - down) / (2 * h) == pytest.approx(gradient @ direction, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_value_and_gradient_equal_torch(activation, depth, loss, dtype, rng):
    torch = pytest.importorskip("torch")
    X, y, weight = problem(rng, 2, dtype, loss)
    widths = (5, *depth, 2)
    alpha = 0.3
    objective = NumpyNetworkObjective(widths, activation, dtype, losses.get(loss), alpha)
    parameters = parameters_of(widths, rng, dtype)
    value, gradient = objective.value_and_gradient(objective.rows(dataset(X, y, weight)), parameters)
    function = {
        "identity": lambda z: z,
        "relu": torch.relu,
        "tanh": torch.tanh,
        "logistic": torch.sigmoid,
        "gelu": torch.nn.functional.gelu,
        "silu": torch.nn.functional.silu,
        "elu": torch.nn.functional.elu,
    }[activation]
    coefs, intercepts = (
        [torch.tensor(part.astype(np.float64), requires_grad=True) for part in parts]
        for parts in unpack(parameters, widths)
    )
    a, w = torch.tensor(X.astype(np.float64)), torch.tensor(weight.astype(np.float64))
    for k, (coef, intercept) in enumerate(zip(coefs, intercepts)):
        a = a @ coef + intercept
        a = function(a) if k < len(coefs) - 1 else a
    expected = losses.get(loss)(torch.tensor(y.astype(np.float64)), a, w)
    expected = expected + 0.5 * alpha * sum((coef**2).sum() for coef in coefs) / w.sum()
    expected.backward()
    tolerance = 1e-10 if dtype is np.float64 else 2e-5
    assert value == pytest.approx(expected.item(), rel=tolerance)
    reference = np.concatenate([part.grad.numpy().ravel() for part in (*coefs, *intercepts)])
    np.testing.assert_allclose(gradient, reference, rtol=tolerance, atol=tolerance * np.abs(reference).max())
    assert gradient.dtype == dtype


def test_a_network_without_a_hidden_layer_is_the_linear_model(rng):
    X, y, weight = problem(rng, 2)
    objective = NumpyNetworkObjective((5, 2), "relu", np.float64, losses.get("squared_error"), alpha=2.0)
    parameters = rng.standard_normal(12)
    value, gradient = objective.value_and_gradient(objective.rows(dataset(X, y, weight)), parameters)
    coef = parameters[:10].reshape(5, 2)
    error = X @ coef + parameters[10:] - y
    loss = 0.5 * (weight @ error**2).mean() / weight.sum()
    assert value == pytest.approx(loss + (coef**2).sum() / weight.sum(), rel=1e-12)
    expected = (X.T @ (weight[:, None] * error) / 2 + 2.0 * coef) / weight.sum()
    np.testing.assert_allclose(gradient[:10].reshape(5, 2), expected, rtol=1e-11)


def test_the_loss_without_penalty_is_the_loss_objects_own(rng):
    for name in LOSSES:
        X, y, weight = problem(rng, 1, name=name)
        objective = NumpyNetworkObjective((5, 4, 1), "tanh", np.float64, losses.get(name), alpha=5.0)
        parameters = parameters_of((5, 4, 1), rng)
        expected = losses.get(name)(y, objective.predict(X, parameters), weight)
        assert objective.loss(objective.rows(dataset(X, y, weight)), parameters) == pytest.approx(
            expected, rel=1e-12
        )


def test_rows_of_another_dtype_are_predicted_in_the_networks(rng):
    X = rng.standard_normal((5000, 5)).astype(np.float32)
    objective = NumpyNetworkObjective((5, 3, 1), "tanh", np.float64)
    parameters = parameters_of((5, 3, 1), rng)
    expected = objective.predict(X.astype(np.float64), parameters)
    np.testing.assert_array_equal(objective.predict(X, parameters), expected)


def test_packing_is_undone_by_unpacking(rng):
    widths = (3, 4, 2)
    parameters = rng.standard_normal(3 * 4 + 4 * 2 + 4 + 2)
    objective = NumpyNetworkObjective(widths, "relu", np.float64)
    coefs, intercepts = objective.unpack(parameters)
    assert [c.shape for c in coefs] == [(3, 4), (4, 2)]
    assert [b.shape for b in intercepts] == [(4,), (2,)]
    np.testing.assert_array_equal(objective.pack(coefs, intercepts), parameters)
    assert not any(np.shares_memory(part, parameters) for part in coefs + intercepts)
