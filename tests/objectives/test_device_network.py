"""The objective of a network over arrays of other namespaces, against NumPy's and torch's autograd."""

import copy
import itertools

import numpy as np
import pytest
from helpers import dataset

from sklloss import losses
from sklloss.arrays.device import device_of
from sklloss.arrays.ops import ACTIVATIONS
from sklloss.objectives.device_network import DeviceNetworkObjective
from sklloss.objectives.network import NumpyNetworkObjective, initial_parameters
from sklloss.solvers.optimizers import SGD, Adam, AdamW

WIDTHS = (5, 7, 4, 3)
REGRESSION = [name for name in losses.names() if losses.get(name).target == "values"]
OPTIMIZERS = [
    Adam(0.01),
    AdamW(0.01, weight_decay=0.1),
    SGD(0.01),
    SGD(0.01, nesterovs_momentum=False),
]
TOLERANCES = {np.float64: {"rtol": 1e-9, "atol": 1e-11}, np.float32: {"rtol": 2e-4, "atol": 2e-5}}


def data(loss, rng, dtype, n=36, *, codes=False):
    """X, targets as keywords, parameters."""
    X = rng.standard_normal((n, WIDTHS[0])).astype(dtype)
    if codes:
        return X, {"codes": rng.integers(0, WIDTHS[-1], n)}
    y = rng.uniform(0.1, 1.0, (n, WIDTHS[-1]))
    if loss.target == "classes":
        y /= y.sum(axis=1, keepdims=True)
    return X, {"target": y.astype(dtype)}


def both(other_device, activation, dtype, loss, X, alpha=0.1, **rest):
    """The two objectives, their rows, and a start for each."""
    one = NumpyNetworkObjective(WIDTHS, activation, dtype, loss, alpha)
    other = DeviceNetworkObjective(WIDTHS, activation, dtype, other_device, loss, alpha)
    start = initial_parameters(WIDTHS, activation, np.random.RandomState(0), dtype)
    rows = (
        one.rows(dataset(X, **rest, outputs=WIDTHS[-1])),
        other.rows(dataset(other_device.put(X), **rest, outputs=WIDTHS[-1])),
    )
    return (one, other), rows, (start.copy(), other.put(start))


def assert_epochs_agree(objectives, rows, parameters, optimizer, dtype, epochs=2, batch_size=16):
    """Assert that both take the same steps, over all rows but a few and in a shuffled order."""
    rng = np.random.RandomState(1)
    optimizers = [copy.copy(optimizer) for _ in objectives]
    for one, objective in zip(optimizers, objectives, strict=True):
        one.start(objective.size, dtype)
        one.move_to(objective)
    for epoch in range(epochs):
        order = rng.permutation(rows[0].rows)[3:] if epoch % 2 == 0 else None
        batches = -(-(rows[0].rows if order is None else len(order)) // batch_size)
        values = [
            objective.epoch(own, order, batch_size, start, one.steps(batches))
            for objective, own, start, one in zip(objectives, rows, parameters, optimizers, strict=True)
        ]
        np.testing.assert_allclose(values[1], values[0], rtol=1e-9 if dtype == np.float64 else 1e-4)
    found = objectives[1].get(parameters[1])
    np.testing.assert_allclose(found, parameters[0], **TOLERANCES[dtype])
    states = [one.state for one in optimizers]
    for name in {"first", "second"} & set(states[0]):
        np.testing.assert_allclose(objectives[1].get(states[1][name]), states[0][name], **TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", REGRESSION)
def test_epochs_are_those_of_numpy_for_every_loss_activation_and_optimizer(other_device, loss, dtype, rng):
    loss = losses.get(loss)
    X, y = data(loss, rng, dtype)
    for k, activation in enumerate(ACTIVATIONS):
        start = both(other_device, activation, dtype, loss, X, **y)
        assert_epochs_agree(*start, OPTIMIZERS[k % len(OPTIMIZERS)], dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("loss", "codes"), [
    (losses.CrossEntropy(), True), (losses.CrossEntropy(0.1), False), (losses.LogLoss(0.1), False),
    (losses.Focal(), False), (losses.SoftmaxFocal(), True), (losses.SoftmaxFocal(), False),
])  # fmt: skip
def test_epochs_are_those_of_numpy_for_losses_of_classes(other_device, loss, codes, dtype, rng):
    X, y = data(loss, rng, dtype, codes=codes)
    weight = rng.uniform(0.0, 2.0, len(X)).astype(dtype)
    weight[4:7] = 0.0
    if loss.separable:
        weight = np.stack([weight, 2 * weight, weight + 1], axis=1)
    for optimizer in OPTIMIZERS:
        start = both(other_device, "tanh", dtype, loss, X, weight=weight, **y)
        assert_epochs_agree(*start, optimizer, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["squared_error", "root_mean_squared_error", "poisson"])
def test_the_objective_over_all_rows_is_that_of_numpy(other_device, loss, weighted, dtype, rng, monkeypatch):
    monkeypatch.setattr("sklloss.objectives.device_network.PASS_BYTES", 64 * 8)  # several blocks of rows
    loss = losses.get(loss)
    X, y = data(loss, rng, dtype, n=200)
    weight = rng.uniform(0.0, 2.0, 200).astype(dtype) if weighted else None
    if weighted:
        weight[:5] = 0.0
    (one, other), rows, starts = both(other_device, "silu", dtype, loss, X, weight=weight, **y)
    value, gradient = one.value_and_gradient(rows[0], starts[0])
    found, slope = other.value_and_gradient(rows[1], starts[0])
    np.testing.assert_allclose(found, value, rtol=1e-12 if dtype == np.float64 else 1e-5)
    np.testing.assert_allclose(slope, gradient, **TOLERANCES[dtype])
    np.testing.assert_allclose(other.loss(rows[1], starts[1]), one.loss(rows[0], starts[0]), rtol=1e-5)
    scores = other.predict(other_device.put(X), starts[1])
    assert device_of(scores) == other_device
    np.testing.assert_allclose(other_device.get(scores), one.predict(X, starts[0]), **TOLERANCES[dtype])
    np.testing.assert_array_equal(other.predict(X, starts[1]), other_device.get(scores))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_is_that_of_torchs_autograd(activation, rng):
    torch = pytest.importorskip("torch")
    functions = {
        "identity": lambda z: z, "logistic": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu,
        "gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu,
        "elu": torch.nn.functional.elu,
    }  # fmt: skip
    X = torch.asarray(rng.standard_normal((30, WIDTHS[0])))
    for loss in (losses.get("huber"), losses.get("root_mean_squared_error"), losses.CrossEntropy()):
        _, y = data(loss, rng, np.float64, n=30)
        weight = rng.uniform(0.1, 2.0, 30)
        objective = DeviceNetworkObjective(WIDTHS, activation, np.float64, device_of(X), loss)
        start = initial_parameters(WIDTHS, activation, np.random.RandomState(0), np.float64)
        value, gradient = objective.value_and_gradient(
            objective.rows(dataset(X, weight=weight, **y, outputs=WIDTHS[-1])), start
        )
        coefs, intercepts = objective.unpack(start)
        leaves = [part.requires_grad_() for part in (*coefs, *intercepts)]
        z = X
        for k, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True)):
            z = z @ coef + intercept
            z = functions[activation](z) if k + 2 < len(WIDTHS) else z
        reference = loss(torch.asarray(y["target"]), z, torch.asarray(weight))
        reference.backward()
        np.testing.assert_allclose(value, reference.item(), rtol=1e-12)
        expected = np.concatenate([leaf.grad.numpy().ravel() for leaf in leaves])
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("activation", ["gelu", "silu", "elu", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_inputs_of_an_activation_give_its_limits(other_device, activation, dtype):
    z = np.array([[-np.inf], [-1e30], [-500.0], [-0.0], [500.0], [1e30]], dtype=dtype)
    objective = DeviceNetworkObjective((1, 1, 1), activation, dtype, other_device)
    raw = other_device.get(
        objective.predict(other_device.put(z), np.array([1.0, 1.0, 0.0, 0.0], dtype=dtype))
    )[:, 0]
    at_zero = 0.5 if activation == "logistic" else 0.0
    low = -1.0 if activation in ("tanh", "elu") else 0.0
    high = [1.0, 1.0] if activation in ("logistic", "tanh") else [500.0, 1e30]
    np.testing.assert_allclose(raw, np.array([low, low, low, at_zero, *high], dtype), atol=1e-30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_normal_distribution_function_is_that_of_scipy(other_device, dtype):
    from scipy.special import ndtr

    z = np.linspace(-6.0, 6.0, 4001).astype(dtype)[:, None]
    objective = DeviceNetworkObjective((1, 1, 1), "gelu", dtype, other_device)
    raw = other_device.get(
        objective.predict(other_device.put(z), np.array([1.0, 1.0, 0.0, 0.0], dtype=dtype))
    )
    exact = z.astype(np.float64) * ndtr(z.astype(np.float64))
    np.testing.assert_allclose(raw, exact, rtol=100 * np.finfo(dtype).eps, atol=0.0)


def test_an_epoch_waits_for_the_device_once_however_many_batches_it_has(rng, monkeypatch):
    torch = pytest.importorskip("torch")
    waits = []
    reads = ("item", "__bool__", "__float__", "__int__", "__index__", "tolist", "cpu", "numpy", "nonzero")
    for name in reads:
        own = getattr(torch.Tensor, name)

        def counted(tensor, *arguments, own=own, name=name, **options):
            waits.append(name)
            return own(tensor, *arguments, **options)

        monkeypatch.setattr(torch.Tensor, name, counted)
    cases = [(losses.get(name), False) for name in REGRESSION]
    cases += [(losses.CrossEntropy(), True), (losses.LogLoss(), False), (losses.SoftmaxFocal(), True)]
    cases += [(losses.Focal(), False)]
    for (loss, codes), optimizer in zip(cases, itertools.cycle(OPTIMIZERS)):
        X, y = data(loss, rng, np.float32, n=96, codes=codes)
        X = torch.asarray(X)
        weight = rng.uniform(0.0, 1.0, 96).astype(np.float32)
        weight[3] = 0.0
        objective = DeviceNetworkObjective(WIDTHS, "relu", np.float32, device_of(X), loss, 0.1)
        rows = objective.rows(dataset(X, weight=weight, **y, outputs=WIDTHS[-1]))
        parameters = objective.put(initial_parameters(WIDTHS, "relu", np.random.RandomState(0), np.float32))
        optimizer.start(objective.size, np.float32)
        optimizer.move_to(objective)
        for batch_size in (8, 48):
            del waits[:]
            steps = optimizer.steps(96 // batch_size)
            objective.epoch(rows, rng.permutation(96), batch_size, parameters, steps)
            assert waits == ["__float__"], (loss, optimizer)


def test_rows_are_gathered_in_bounded_parts(rng, other_device, monkeypatch):
    monkeypatch.setattr("sklloss.objectives.device_network.GATHER_BYTES", 100)
    loss = losses.get("squared_error")
    X, y = data(loss, rng, np.float64)
    assert_epochs_agree(*both(other_device, "relu", np.float64, loss, X, **y), OPTIMIZERS[0], np.float64)


def test_copies_share_nothing(other_device):
    objective = DeviceNetworkObjective((2, 1), "relu", np.float64, other_device)
    here = np.arange(3.0)
    parameters = objective.put(here)
    copies = [objective.copy(parameters), objective.pack(*objective.unpack(parameters))]
    parameters += 1.0
    for one in copies:
        np.testing.assert_array_equal(other_device.get(one), here)
    assert objective.is_finite(parameters)
    assert not objective.is_finite(objective.put([1.0, np.nan, 2.0]))
