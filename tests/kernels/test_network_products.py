"""The matrix products of a network: every build that has them against NumPy, and steps that use them."""

import itertools

import numpy as np
import pytest
from helpers import compiled, epoch, layer_kernels

from sklloss import kernels
from sklloss.arrays.ops import AdamSteps, SGDSteps
from sklloss.kernels.network import network as network_kernels

DTYPES = [np.float64, np.float32]
# around the heights of tiles and the widths of vectors and panels, and more than a panel holds in cache
ROWS = [1, 2, 5, 6, 11, 12, 13, 23, 60]
COLUMNS = [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100]
INNER = [1, 3, 8, 127, 128, 129, 300]


# without fused multiply and add, BLAS serves
BUILDS = [
    build for build in kernels.available() if network_kernels.has_products(layer_kernels(np.float64, build))
]


def assert_product(out, a, b):
    """out is a @ b, each number within the rounding of one sum."""
    exact, scale = a.astype(float) @ b.astype(float), np.abs(a).astype(float) @ np.abs(b)
    bound = (a.shape[1] + 2) * np.finfo(out.dtype).eps * scale
    np.testing.assert_array_less(np.abs(out - exact), bound + 1e-30)


def test_baseline_leaves_products_to_blas():
    assert not any(network_kernels.has_products(layer_kernels(dtype, "baseline")) for dtype in DTYPES)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_those_of_numpy(build, dtype, rng):
    table = layer_kernels(dtype, build)
    for rows, columns, inner in itertools.product(ROWS, COLUMNS, INNER):
        a = rng.standard_normal((rows, inner)).astype(dtype)
        b = rng.standard_normal((inner, columns)).astype(dtype)
        out = network_kernels.multiply(table, a, b)
        assert_product(out, a, b)
        # each sum is added in one order, whatever the tiles
        np.testing.assert_array_equal(network_kernels.multiply(table, a, b.T.copy(), transposed=True), out)
        for packed in (True, False):
            outer = network_kernels.multiply_outer(table, a.T.copy(), b, packed=packed)
            np.testing.assert_array_equal(outer, out)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_outer_product_is_added_to_what_is_there(build, dtype, rng):
    table = layer_kernels(dtype, build)
    for rows, columns, inner in itertools.product(ROWS, COLUMNS, [1, 50]):
        a = rng.standard_normal((inner, rows)).astype(dtype)
        b = rng.standard_normal((inner, columns)).astype(dtype)
        start = rng.standard_normal((rows, columns)).astype(dtype)
        out = network_kernels.multiply_outer(table, a, b, start)
        exact = start + a.T.astype(float) @ b.astype(float)
        scale = np.abs(start) + np.abs(a).T.astype(float) @ np.abs(b)
        np.testing.assert_array_less(np.abs(out - exact), (inner + 2) * np.finfo(dtype).eps * scale)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_bit_of_a_product_depends_on_how_it_is_cut_or_built(dtype, rng):
    a = rng.standard_normal((37, 150)).astype(dtype)
    b = rng.standard_normal((150, 90)).astype(dtype)
    results = [network_kernels.multiply(layer_kernels(dtype, build), a, b) for build in BUILDS]
    for build, whole in zip(BUILDS, results):
        np.testing.assert_array_equal(whole, results[0])
        part = network_kernels.multiply(layer_kernels(dtype, build), a[5:20], b[:, 32:77].copy())
        np.testing.assert_array_equal(part, whole[5:20, 32:77])


def network(widths, dtype, build=kernels.chosen):
    loss = kernels.table_of(build)["squared_error", np.dtype(dtype).name]
    return network_kernels.Network(widths, "relu", dtype, layer_kernels(dtype, build), loss, parameter=0.5)


@pytest.mark.parametrize("build", kernels.available())
@pytest.mark.parametrize(("rows", "blocks"), [(300, 1), (2300, 3)])
def test_a_step_beside_the_products_goes_down_the_gradient(build, rows, blocks, rng):
    widths = (120, 100, 70, 3)
    net = network(widths, np.float64, build)
    assert -(-rows // net.block(False)) == blocks
    X, target = rng.standard_normal((rows, 120)), rng.standard_normal((rows, 3))
    start = rng.standard_normal(net.size) / 10
    gradient, parameters = np.empty(net.size), start.copy()
    loss, _ = net.loss_and_gradient(compiled(X, target), start, gradient)
    mean = epoch(
        net, compiled(X, target), None, rows, parameters,
        SGDSteps(np.full(1, 0.1), np.zeros(net.size)), penalty=0.7,
    )  # fmt: skip
    gradient[: net.coefs] += 0.7 * start[: net.coefs]
    np.testing.assert_allclose(parameters, start - 0.1 * gradient / rows, rtol=1e-11, atol=1e-14)
    assert mean == pytest.approx((loss + 0.35 * (start[: net.coefs] ** 2).sum()) / rows, rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["apart", "backwards", "columns"])
def test_rows_that_are_fetched_ahead_are_those_of_the_order(layout, dtype, rng):
    wide = rng.standard_normal((2 * 700, 130)).astype(dtype)
    X = {
        "apart": wide[::2, 7:127],
        "backwards": wide[::-2, :120],
        "columns": np.asfortranarray(wide[::2, :120]),
    }[layout]
    target = rng.standard_normal((700, 3)).astype(dtype)
    order = rng.permutation(700)[:650].astype(np.intp)
    results = []
    for rows, sequence in (((X, target), order), ((X[order].copy(), target[order]), None)):
        net = network((120, 100, 3), dtype)
        parameters = np.linspace(-0.1, 0.1, net.size).astype(dtype)
        first, second = np.zeros(net.size, dtype), np.zeros(net.size, dtype)
        steps = AdamSteps(np.full(4, 0.01), first, second, beta_1=0.9, beta_2=0.99, epsilon=1e-8)
        loss = epoch(net, compiled(*rows), sequence, 200, parameters, steps, penalty=0.3)
        results.append((loss, parameters.tobytes()))
    assert results[0] == results[1]
