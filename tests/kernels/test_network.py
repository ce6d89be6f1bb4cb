"""The network's kernels: activations against mpmath, and every way to pass over the rows against NumPy."""

import itertools
import tracemalloc
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import scipy.sparse
import scipy.special
from helpers import compiled, epoch, layer_kernels

from sklloss import kernels
from sklloss.arrays.ops import ACTIVATIONS, AdamSteps, SGDSteps
from sklloss.kernels.network import network as network_kernels

BUILDS = kernels.available()
DTYPES = [np.float64, np.float32]


def network(widths, activation="tanh", dtype=np.float64, kernel="squared_error", **kwargs):
    loss = None if kernel is None else kernels.get(kernel, dtype) if isinstance(kernel, str) else kernel
    return network_kernels.Network(
        widths, activation, dtype, layer_kernels(dtype), loss, parameter=0.5, **kwargs
    )


def forward(X, parameters, widths, activation):
    """Outputs of each layer, in float64."""
    functions = {
        "identity": lambda z: z,
        "relu": lambda z: np.maximum(z, 0),
        "tanh": np.tanh,
        "logistic": lambda z: 1 / (1 + np.exp(-z)),
        "gelu": lambda z: z * scipy.special.ndtr(z),
        "silu": lambda z: z * scipy.special.expit(z),
        "elu": lambda z: np.where(z < 0, np.expm1(np.minimum(z, 0)), z),
    }
    shapes = list(itertools.pairwise(widths))
    at, bias = 0, sum(a * b for a, b in shapes)
    outputs = [X]
    for k, (a, b) in enumerate(shapes):
        z = outputs[-1] @ parameters[at : at + a * b].reshape(a, b) + parameters[bias : bias + b]
        at, bias = at + a * b, bias + b
        outputs.append(z if k == len(shapes) - 1 else functions[activation](z))
    return outputs


EXACT = {
    "tanh": mpmath.tanh,
    "logistic": lambda z: 1 / (1 + mpmath.exp(-z)),
    "gelu": lambda z: z * mpmath.erfc(-z / mpmath.sqrt(2)) / 2,
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
}


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_build_has_the_activations_of_the_namespace(build, dtype):
    assert network_kernels.activation_names(layer_kernels(dtype, build)) == list(ACTIVATIONS)


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="unknown activation 'sine'"):
        network((5, 3, 1), "sine")


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("activation", "bound"), [("tanh", 2.6), ("logistic", 1.3), ("gelu", 3.8), ("silu", 2.1), ("elu", 1.1)]
)
def test_activations_stay_within_their_stated_bound_over_the_whole_range(
    build, dtype, activation, bound, rng
):
    z = np.concatenate(
        [
            rng.uniform(-1, 1, 2000) * 10.0 ** rng.uniform(-3, 1.5, 2000),
            10.0 ** rng.uniform(-37, 3, 300),
            rng.uniform(-40, 0, 300),
            [0.0, 1e-38, 20.0, -20.0, 88.0, -88.0],
        ]
    ).astype(dtype)
    out = z.copy()[None]
    network_kernels.apply_layer(layer_kernels(dtype, build), out, np.zeros(len(z), dtype), activation)
    with mpmath.workdps(60):
        exact = [EXACT[activation](mpmath.mpf(float(v))) for v in z]
        spacing = np.spacing(np.abs(np.array([float(v) for v in exact]).astype(dtype)))
        ulp = [
            abs(mpmath.mpf(float(o)) - e) / mpmath.mpf(float(s)) for o, e, s in zip(out[0], exact, spacing)
        ]
    assert max(ulp) <= bound


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("activation", "bound"), [("gelu", 1.4), ("silu", 1.0)])
def test_derivatives_of_gelu_and_silu_are_within_the_machine_epsilon(build, dtype, activation, bound, rng):
    z = np.concatenate([rng.uniform(-40, 40, 500), rng.uniform(-3, 3, 1500)]).astype(dtype)
    out, slope = z.copy()[None], np.empty((1, len(z)), dtype)
    network_kernels.apply_layer(layer_kernels(dtype, build), out, np.zeros(len(z), dtype), activation, slope)
    without = z.copy()[None]
    network_kernels.apply_layer(layer_kernels(dtype, build), without, np.zeros(len(z), dtype), activation)
    np.testing.assert_array_equal(out, without)
    with mpmath.workdps(40):
        for v, got in zip(z, slope[0]):
            v = mpmath.mpf(float(v))
            if activation == "gelu":
                exact = mpmath.ncdf(v) + v * mpmath.npdf(v)
            else:
                p = 1 / (1 + mpmath.exp(-v))
                exact = p + v * p * (1 - p)
            assert abs(mpmath.mpf(float(got)) - exact) <= bound * np.finfo(dtype).eps


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_meet_infinity_and_keep_nan(build, dtype, activation):
    z = np.array([[np.inf, -np.inf, np.nan]], dtype=dtype)
    network_kernels.apply_layer(layer_kernels(dtype, build), z, np.zeros(3, dtype), activation)
    limits = {"identity": (np.inf, -np.inf), "tanh": (1, -1), "logistic": (1, 0), "elu": (np.inf, -1)}
    assert tuple(z[0, :2]) == limits.get(activation, (np.inf, 0))
    assert np.isnan(z[0, 2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("widths", [(5, 1), (5, 3), (5, 7, 1), (5, 33, 4, 2), (5, 1, 3)])
def test_predictions_equal_numpy(activation, dtype, widths, rng):
    X = rng.standard_normal((70, 5)).astype(dtype)
    net = network(widths, activation, dtype, kernel=None)
    parameters = rng.standard_normal(net.size).astype(dtype)
    expected = forward(X.astype(float), parameters.astype(float), widths, activation)[-1]
    tolerance = 1e-12 if dtype is np.float64 else 2e-5
    np.testing.assert_allclose(net.predict(compiled(X), parameters), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(6, 1), (6, 9, 2)])
def test_all_layouts_of_X_give_the_same_loss_and_gradient(widths, dtype, rng):
    dense = rng.standard_normal((50, 6)).astype(dtype)
    dense[rng.random(dense.shape) < 0.6] = 0
    wide = np.zeros((50, 11), dtype=dtype)
    wide[:, :6] = dense
    csr = scipy.sparse.csr_array(dense)
    longer = csr.copy()
    longer.indices, longer.indptr = longer.indices.astype(np.int64), longer.indptr.astype(np.int64)
    target = rng.standard_normal((50, widths[-1])).astype(dtype)
    weight = rng.random(50).astype(dtype)
    net = network(widths, dtype=dtype)
    parameters = rng.standard_normal(net.size).astype(dtype)
    results = []
    for X in (dense, np.asfortranarray(dense), wide[:, :6], csr, longer):
        gradient = np.empty_like(parameters)
        loss, weights = net.loss_and_gradient(compiled(X, target, weight), parameters, gradient)
        assert weights == pytest.approx(weight.sum(), rel=1e-6)
        results.append((loss, gradient))
    tolerance = 1e-12 if dtype is np.float64 else 1e-5
    for loss, gradient in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=tolerance)
        np.testing.assert_allclose(gradient, results[0][1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("widths", "dense", "sparse"),
    [
        ((100, 60, 1), 1024, 1024),
        ((784, 512, 10), 401, 1004),
        ((50000, 100, 1), 128, 1024),
        ((36885, 100, 20), 128, 1024),
        ((5, 60000, 1), 128, 128),
    ],
)
def test_a_block_of_rows_fits_the_cache_but_does_not_get_small(widths, dense, sparse):
    # 4 MiB of float64: rows of X are copied into it, those of CSR are not
    net = network(widths)
    assert (net.block(False), net.block(True)) == (dense, sparse)


@pytest.mark.parametrize(
    ("container", "ordered", "copied"),
    [
        (np.ascontiguousarray, False, 0),
        (np.ascontiguousarray, True, 128),
        (np.asfortranarray, False, 128),
        (scipy.sparse.csr_array, False, 0),
        (scipy.sparse.csr_array, True, 0),
    ],
)
def test_there_is_memory_for_a_block_of_rows_where_they_are_copied(container, ordered, copied):
    features = 10000
    rows = compiled(container(np.eye(200, features)), np.zeros((200, 1)))
    net = network((features, 4, 1))
    parameters, first = np.zeros(net.size), np.zeros(net.size)
    order = np.arange(200, dtype=np.intp) if ordered else None
    tracemalloc.start()
    try:
        epoch(net, rows, order, 200, parameters, SGDSteps(np.ones(1), first))
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # a gradient, what the few units make of rows, and the copies
    assert held - parameters.nbytes - 8 * features * copied < 200_000


@pytest.mark.parametrize("kernel", ["squared_error", "root_mean_squared_error"])
def test_many_blocks_of_rows_equal_one(kernel, rng):
    # so wide that a block holds 128 rows
    inputs, hidden_units = 50, 5000
    widths = (inputs, hidden_units, 1)
    X = rng.standard_normal((300, inputs)) / 7
    target = rng.standard_normal((300, 1))
    weight = rng.random(300) + 0.1
    net = network(widths, kernel=kernel, additive=kernel == "squared_error")
    assert net.block(False) == 128
    parameters = rng.standard_normal(net.size) / 100
    gradient = np.empty_like(parameters)
    loss, weights = net.loss_and_gradient(compiled(X, target, weight), parameters, gradient)
    hidden, raw = forward(X, parameters, widths, "tanh")[1:]
    error = raw - target
    if kernel == "squared_error":
        expected, delta = 0.5 * (weight @ error**2).item(), error * weight[:, None]
    else:
        root = np.sqrt((weight @ error**2).item() / weight.sum())
        expected, delta = root * weight.sum(), error * weight[:, None] / root
    assert loss == pytest.approx(expected, rel=1e-10)
    assert weights == pytest.approx(weight.sum(), rel=1e-14)
    at = inputs * hidden_units
    out = parameters[at : at + hidden_units]
    np.testing.assert_allclose(
        gradient[at : at + hidden_units], (hidden.T @ delta)[:, 0], rtol=1e-8, atol=1e-12
    )
    assert gradient[-1] == pytest.approx(delta.sum(), rel=1e-9)
    back = (delta @ out[None]) * (1 - hidden**2)
    np.testing.assert_allclose(gradient[at + hidden_units : -1], back.sum(axis=0), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(gradient[:at].reshape(inputs, -1), X.T @ back, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("widths", [(5, 12, 3), (5, 3, 30, 1), (5, 63, 2)])
def test_layers_narrower_than_vectors_have_the_loss_and_gradient_of_their_formula(
    activation, dtype, widths, rng
):
    # 150 rows: whole folds of 8 and of 64 of them, and rows besides
    X, target = rng.standard_normal((150, 5)).astype(dtype), rng.standard_normal((150, widths[-1]))
    net = network(widths, activation, dtype)
    parameters = rng.standard_normal(net.size).astype(dtype) / 2
    gradient = np.empty_like(parameters)
    loss, _ = net.loss_and_gradient(compiled(X, target.astype(dtype)), parameters, gradient)

    def value(p):
        error = forward(X.astype(float), p, widths, activation)[-1] - target
        return 0.5 * np.sum(error**2) / widths[-1]

    exact = parameters.astype(float)
    tolerance = 1e-7 if dtype is np.float64 else 1e-4
    assert loss == pytest.approx(value(exact), rel=tolerance)
    steps = 1e-6 * np.eye(net.size)
    slopes = np.array([(value(exact + h) - value(exact - h)) / 2e-6 for h in steps])
    np.testing.assert_allclose(gradient, slopes, rtol=tolerance, atol=tolerance * np.abs(slopes).max())


@pytest.mark.parametrize("sparse", [False, True])
def test_an_epoch_over_an_order_equals_one_over_rows_laid_out_so(sparse, rng):
    X = rng.standard_normal((37, 4))
    target, weight = rng.standard_normal((37, 2)), rng.random(37)
    order = rng.permutation(37)[:30].astype(np.intp)
    results = []
    for rows, sequence in (((X, target, weight), order), ((X[order], target[order], weight[order]), None)):
        net = network((4, 6, 2))
        x = scipy.sparse.csr_array(rows[0]) if sparse else rows[0]
        parameters = np.linspace(-1, 1, net.size)
        loss = epoch(
            net, compiled(x, *rows[1:]), sequence, 8, parameters,
            SGDSteps(np.full(4, 0.1), np.zeros(net.size), momentum=0.9, nesterov=True), penalty=0.3,
        )  # fmt: skip
        results.append((loss, parameters))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("ordered", [False, True])
def test_several_epochs_in_a_call_equal_calls_one_by_one(ordered, rng):
    rows = compiled(rng.standard_normal((37, 4)), rng.standard_normal((37, 2)), rng.random(37))
    orders = [rng.permutation(37)[:30].astype(np.intp) for _ in range(3)] if ordered else [None] * 3
    batches = 4 if ordered else 5
    rates, decays = rng.random((2, 3, batches)) / 10
    results = []
    for at_once in (False, True):
        net = network((4, 6, 2))
        parameters, first, second = np.linspace(-1, 1, net.size), np.zeros(net.size), np.zeros(net.size)
        if at_once:
            order = np.concatenate(orders) if ordered else None
            steps = AdamSteps(rates.ravel(), first, second, weight_decays=decays.ravel())
            losses = net.epochs(rows, order, 3, 8, parameters, steps, penalty=0.3)
        else:
            losses = [
                epoch(
                    net,
                    rows,
                    order,
                    8,
                    parameters,
                    AdamSteps(rate, first, second, weight_decays=decay),
                    penalty=0.3,
                )
                for order, rate, decay in zip(orders, rates, decays, strict=True)
            ]
        results.append((losses, parameters, first, second))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1:], results[1][1:])


def test_class_codes_reach_the_loss(rng):
    X, codes = rng.standard_normal((20, 3)), rng.integers(0, 4, 20)
    net = network_kernels.Network(
        (3, 4), "relu", np.float64, layer_kernels(np.float64), kernels.get("cross_entropy", np.float64)
    )
    parameters = rng.standard_normal(net.size)
    loss, _ = net.loss_and_gradient(compiled(X, codes=codes.astype(np.intp), outputs=4), parameters)
    raw = X @ parameters[:12].reshape(3, 4) + parameters[12:]
    expected = (np.log(np.exp(raw).sum(axis=1)) - raw[np.arange(20), codes]).sum()
    assert loss == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match=r"class code 4 is not in \[0, 4\)"):
        net.loss_and_gradient(compiled(X, codes=np.full(20, 4, dtype=np.intp), outputs=4), parameters)


def test_an_error_in_a_python_loss_comes_out_as_it_is(rng):
    def fails(raw, target, codes, weight):
        raise LookupError("no such target")

    net = network((3, 2), kernel=fails)
    rows = compiled(rng.standard_normal((5, 3)), np.zeros((5, 2)))
    with pytest.raises(LookupError, match="no such target"):
        net.loss_and_gradient(rows, np.zeros(net.size))


def test_wrong_shapes_and_dtypes_stop_at_the_door(rng):
    X, target = rng.standard_normal((9, 3)), np.zeros((9, 1))
    net = network((3, 1))
    rows = compiled(X, target)
    right = np.zeros(net.size)
    memory = np.zeros(net.size)
    one = SGDSteps(np.ones(1), memory)
    with pytest.raises(ValueError, match="parameters must have shape"):
        net.loss_and_gradient(rows, np.zeros(7))
    with pytest.raises(ValueError, match="dtype"):
        net.loss_and_gradient(rows, np.zeros(net.size, dtype=np.float32))
    with pytest.raises(ValueError, match="X is float32"):
        net.predict(compiled(X.astype(np.float32)), right)
    with pytest.raises(ValueError, match="X has 2 columns"):
        net.predict(compiled(X[:, :2].copy()), right)
    with pytest.raises(ValueError, match="the rows have no targets"):
        net.loss_and_gradient(compiled(X), right)
    with pytest.raises(ValueError, match="the target has 2 columns"):
        net.loss_and_gradient(compiled(X, np.zeros((9, 2))), right)
    with pytest.raises(ValueError, match="target must have shape"):
        compiled(X, np.zeros((8, 1)))
    with pytest.raises(ValueError, match="Buffer dtype mismatch"):
        compiled(np.zeros((3, 3), dtype=int))
    with pytest.raises(ValueError, match="order has 9"):
        epoch(net, rows, np.array([0, 9], dtype=np.intp), 2, right, one)
    with pytest.raises(ValueError, match="order of 3 rows is not that of 2 epochs"):
        net.epochs(rows, np.zeros(3, dtype=np.intp), 2, 1, right, one)
    with pytest.raises(ValueError, match="count must be 1 or more"):
        net.epochs(rows, None, 0, 2, right, one)
    with pytest.raises(ValueError, match="one number for each batch"):
        epoch(net, rows, None, 2, right, SGDSteps(np.ones(4), memory))
    with pytest.raises(ValueError, match="kernel for the steps of 'adam' and 'sgd', not 'rprop'"):
        epoch(net, rows, None, 9, right, SimpleNamespace(kernel="rprop", rates=np.ones(1)))
    with pytest.raises(ValueError, match="velocity must have shape"):
        epoch(net, rows, None, 9, right, SGDSteps(np.ones(1), np.zeros(7)))
    with pytest.raises(ValueError, match="second must have shape"):
        epoch(net, rows, None, 9, right, AdamSteps(np.ones(1), memory, np.zeros(7)))
    steps = AdamSteps(np.ones(1), memory, memory.copy(), weight_decays=np.ones(2))
    with pytest.raises(ValueError, match="weight_decays must hold one number for each batch"):
        epoch(net, rows, None, 9, right, steps)
    with pytest.raises(ValueError, match="without a loss"):
        network((3, 1), kernel=None).loss_and_gradient(rows, right)
    with pytest.raises(ValueError, match="positive integers"):
        network((3, 0, 1))
