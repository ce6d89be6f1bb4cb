"""AdamW against torch and against a plain NumPy loop."""

import numpy as np
import pytest
from helpers import dataset

from sklloss import losses
from sklloss.objectives.network import NumpyNetworkObjective, unpack
from sklloss.solvers.optimizers import Adam, AdamW

WIDTHS = (4, 6, 2)


def trained(optimizer, epochs, dtype=np.float64, alpha=0.0):
    """Start, X, y and the parameters after so many epochs of batches of 8 rows as they lie."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((20, 4)).astype(dtype), rng.standard_normal((20, 2)).astype(dtype)
    objective = NumpyNetworkObjective(WIDTHS, "tanh", dtype, losses.get("squared_error"), alpha)
    start = rng.uniform(-1, 1, objective.size).astype(dtype)
    parameters = start.copy()
    optimizer.start(objective.size, dtype)
    rows = objective.rows(dataset(X, y))
    for _ in range(epochs):
        objective.epoch(rows, None, 8, parameters, optimizer.steps(3))
    return start, X, y, parameters


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_adamw_equals_torch(dtype):
    torch = pytest.importorskip("torch")
    # Ours adds epsilon before the bias correction, torch after it: without it they are one.
    optimizer = AdamW(0.01, epsilon=1e-30, weight_decay=0.3)
    start, X, y, parameters = trained(optimizer, 5, dtype)
    weights, biases = (
        [torch.tensor(part, requires_grad=True) for part in parts] for parts in unpack(start, WIDTHS)
    )
    theirs = torch.optim.AdamW(
        [{"params": weights, "weight_decay": 0.3}, {"params": biases, "weight_decay": 0.0}],
        lr=0.01,
        eps=1e-30,
    )
    for _ in range(5):
        for batch, wanted in zip(torch.tensor(X).split(8), torch.tensor(y).split(8)):
            theirs.zero_grad()
            raw = torch.tanh(batch @ weights[0] + biases[0]) @ weights[1] + biases[1]
            (0.5 * torch.nn.functional.mse_loss(raw, wanted)).backward()
            theirs.step()
    tolerance = 1e-11 if dtype is np.float64 else 2e-5
    ours = unpack(parameters, WIDTHS)
    for part, tensor in zip((*ours[0], *ours[1]), (*weights, *biases)):
        np.testing.assert_allclose(part, tensor.detach().numpy(), rtol=tolerance, atol=tolerance)


def test_adamw_equals_a_plain_loop():
    optimizer = AdamW(0.02, 0.8, 0.95, 1e-6, weight_decay=0.5)
    start, X, y, parameters = trained(optimizer, 3)
    objective = NumpyNetworkObjective(WIDTHS, "tanh", np.float64, losses.get("squared_error"))
    expected, m, v, t = start.copy(), 0.0, 0.0, 0
    for _ in range(3):
        for first in range(0, 20, 8):
            rows = objective.rows(dataset(X[first : first + 8], y[first : first + 8]))
            gradient = objective.value_and_gradient(rows, expected)[1]
            t += 1
            m = 0.8 * m + 0.2 * gradient
            v = 0.95 * v + 0.05 * gradient**2
            rate = 0.02 * np.sqrt(1 - 0.95**t) / (1 - 0.8**t)
            step = rate * m / (np.sqrt(v) + 1e-6)
            step[: objective.coefs] += 0.02 * 0.5 * expected[: objective.coefs]
            expected = expected - step
    np.testing.assert_allclose(parameters, expected, rtol=1e-11, atol=1e-13)


def test_adamw_without_decay_is_adam_to_the_bit():
    np.testing.assert_array_equal(trained(AdamW(0.01, weight_decay=0.0), 3)[3], trained(Adam(0.01), 3)[3])


def test_an_optimizer_resumes_its_own_state_only():
    first, second = AdamW(), AdamW()
    first.start(3, np.float64)
    assert second.resume(first.state)
    assert second.state["solver"] == "adamw"
    assert not Adam().resume(first.state)
