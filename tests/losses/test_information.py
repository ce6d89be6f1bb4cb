"""Entropy, cross-entropy and Kullback-Leibler divergence of probabilities."""

import numpy as np
import pytest
import scipy.stats
from mpmath import mp, mpf

from sklloss import losses

DTYPES = [np.float32, np.float64]


def distributions(rng, n, K, dtype=np.float64):
    p = rng.dirichlet(np.full(K, 0.7), n)
    p[0] = np.eye(K)[0]
    return p.astype(dtype)


def exact_divergence(p, q):
    """Sum of p log(p / q) - p + q at 50 digits."""
    total = mpf(0)
    for a, b in zip(p, q):
        a, b = mpf(float(a)), mpf(float(b))
        total += (a * mp.log(a / b) if a else 0) - a + b
    return total


@pytest.fixture(autouse=True)
def fifty_digits():
    with mp.workdps(50):
        yield


def test_entropies_and_divergences_are_what_their_names_say(rng):
    p, q = rng.dirichlet(np.ones(6), (2, 9))
    np.testing.assert_allclose(losses.entropy(p), scipy.stats.entropy(p, axis=1), rtol=1e-13)
    np.testing.assert_allclose(losses.kl_divergence(p, q), scipy.stats.entropy(p, q, axis=1), rtol=1e-12)
    np.testing.assert_allclose(losses.cross_entropy(p, q), -np.sum(p * np.log(q), axis=1), rtol=1e-13)
    np.testing.assert_allclose(
        losses.cross_entropy(p, q), losses.entropy(p) + losses.kl_divergence(p, q), rtol=1e-13
    )
    assert losses.entropy(np.full(8, 1 / 8)) == pytest.approx(np.log(8), rel=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_cross_entropy_of_a_distribution_with_itself_is_its_entropy_bit_for_bit(dtype, rng):
    for K in (2, 10, 1000):
        p = distributions(rng, 20, K, dtype)
        np.testing.assert_array_equal(losses.cross_entropy(p, p.copy()), losses.entropy(p))
        assert losses.cross_entropy(p[1], p[1].copy()) == losses.entropy(p[1]) > 0
        assert losses.entropy(p[0]) == 0.0
        assert not np.signbit(losses.entropy(p[0]))
        np.testing.assert_array_equal(losses.kl_divergence(p, p.copy()), np.zeros(20, dtype))


def test_what_is_impossible_costs_nothing_and_what_was_thought_so_costs_infinity():
    assert losses.entropy([0.0, 1.0, 0.0]) == 0.0
    assert losses.cross_entropy([0.0, 1.0], [0.5, 0.5]) == pytest.approx(np.log(2))
    assert losses.cross_entropy([0.0, 1.0], [0.0, 1.0]) == 0.0
    assert losses.cross_entropy([0.5, 0.5], [0.0, 1.0]) == np.inf
    assert losses.kl_divergence([0.5, 0.5], [0.0, 1.0]) == np.inf
    assert losses.kl_divergence([0.0, 1.0], [0.5, 0.5]) == pytest.approx(np.log(2), rel=1e-15)
    assert losses.cross_entropy([0.5, 0.5], [5e-324, 1.0]) == pytest.approx(-0.5 * np.log(5e-324), rel=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_divergence_is_accurate_however_close_the_distributions_are(dtype, rng):
    bound = 8 * np.finfo(np.float64).eps
    for exponent in range(-16, 2):
        for K in (2, 5, 40):
            p = distributions(rng, 2, K)[1]
            q = p * np.exp(rng.uniform(-3, 3, size=K) * 10.0**exponent)
            p, q = p.astype(dtype), (q / q.sum()).astype(dtype)
            exact = exact_divergence(p, q)
            got = losses.kl_divergence(p, q)
            assert got >= 0
            assert abs(mpf(got) - exact) <= bound * exact


def test_the_divergence_is_never_negative_and_zero_for_equals_alone(rng):
    p = distributions(rng, 200, 7)
    moved = p.copy()
    moved[:, 0] = np.nextafter(p[:, 0], 1.0)
    for q in (moved, np.roll(p, 1, axis=1), p.copy()):
        divergence = losses.kl_divergence(p, q)
        same = np.all(p == q, axis=1)
        assert (divergence >= 0).all()
        # differences below 1e-154 have a square that underflows
        far = np.max(np.abs(p - q), axis=1) > 1e-150
        assert (divergence[far] > 0).all()
        assert (divergence[same] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_have_the_dtype_of_the_distributions_and_sums_are_wide(dtype, rng):
    p = rng.dirichlet(np.ones(5), (3, 4)).astype(dtype)
    for function in (
        lambda a, b, axis: losses.entropy(a, axis=axis),
        losses.cross_entropy,
        losses.kl_divergence,
    ):
        assert function(p, p[::-1], -1).dtype == dtype
        assert function(p, p[::-1], -1).shape == (3, 4)
        moved, back = np.moveaxis(p, 2, 0), np.moveaxis(p[::-1], 2, 0)
        np.testing.assert_array_equal(function(moved, back, 0), function(p, p[::-1], 2))
        assert type(function(p[0, 0], p[1, 0], 0)) is float
    uniform = np.full(2**17, 2.0**-17, dtype)
    assert losses.entropy(uniform) == pytest.approx(17 * np.log(2), rel=1e-14)
    assert losses.entropy(p.astype(np.float32)).dtype == np.float32
    assert losses.cross_entropy(p.astype(np.float32), rng.dirichlet(np.ones(5), (3, 4))).dtype == np.float64
    assert losses.cross_entropy(np.eye(3, dtype=int), np.full((3, 3), 1 / 3, np.float32)).dtype == np.float32
    assert losses.entropy(np.eye(3, dtype=bool)).dtype == np.float64


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_namespaces_give_what_numpy_gives(dtype, rng):
    strict = pytest.importorskip("array_api_strict")
    torch = pytest.importorskip("torch")
    p, q = (distributions(rng, 6, 4, dtype) for _ in range(2))
    for function in (losses.cross_entropy, losses.kl_divergence):
        expected = function(q, p)
        for xp in (strict, torch):
            got = function(xp.asarray(q), xp.asarray(p))
            assert got.dtype == xp.asarray(q).dtype
            np.testing.assert_allclose(np.asarray(got), expected, rtol=2 * np.finfo(dtype).eps)
            single = function(xp.asarray(q[1]), xp.asarray(q[2]))
            assert single.shape == ()
    whole = strict.asarray([[1, 0], [0, 1]])
    assert losses.entropy(whole).dtype == strict.float64


def test_torch_differentiates_entropies_and_divergences(rng):
    torch = pytest.importorskip("torch")
    p, q = (torch.from_numpy(rng.dirichlet(np.ones(4), 3)) for _ in range(2))
    p[0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    q.requires_grad_()
    losses.kl_divergence(p, q).sum().backward()
    np.testing.assert_allclose(q.grad.numpy(), 1 - (p / q).detach().numpy(), rtol=1e-12, atol=1e-14)
    q.grad = None
    losses.cross_entropy(p, q).sum().backward()
    np.testing.assert_allclose(q.grad.numpy(), -(p / q).detach().numpy(), rtol=1e-14)


BAD = {
    "sum": (([0.5, 0.25],), ValueError, "p must hold probabilities that sum to 1; it sums to 0.75"),
    "sum of a row": (([[1.0, 0.0], [0.3, 0.3]],), ValueError, "row 1 sums to 0.6"),
    "negative": (([[1.0, 0.0], [1.5, -0.5]],), ValueError, "row 1 has 1.5"),
    "NaN": (([np.nan, 1.0],), ValueError, "p must hold probabilities in [0, 1]; it has nan"),
    "infinity": (([np.inf, 0.0],), ValueError, "it has inf"),
    "deep row": (([[[1.0, 0.0]], [[0.5, 0.4]]],), ValueError, "row (1, 0) sums to 0.9"),
    "q": (([0.5, 0.5], [0.5, 0.6]), ValueError, "q must hold probabilities that sum to 1; it sums to 1.1"),
    "shapes": (
        ([[0.5, 0.5]], [0.5, 0.5]),
        ValueError,
        "q and p must have one shape; q has (2,), p has (1, 2)",
    ),
    "ragged": (([[1.0], [0.5, 0.5]],), ValueError, "p is no array of numbers"),
    "a number": ((1.0,), ValueError, "not a single number"),
    "strings": ((["a", "b"],), TypeError, "p must hold real numbers"),
    "half": ((np.ones(1, np.float16),), TypeError, "p must be float32 or float64, got float16"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_distributions_are_named(case):
    arguments, error, message = BAD[case]
    functions = [losses.cross_entropy, losses.kl_divergence] if len(arguments) == 2 else [losses.entropy]
    for function in functions:
        with pytest.raises(error) as info:
            function(*arguments)
        assert message in str(info.value)


def test_memory_layout_byte_order_and_kind_of_axis_do_not_matter(rng):
    p, q = rng.dirichlet(np.ones(4), (2, 3))
    for function in (losses.cross_entropy, losses.kl_divergence):
        expected = function(p, q)
        strided = np.repeat(q, 2, axis=1)[:, ::2]
        np.testing.assert_array_equal(function(np.asfortranarray(p), strided), expected)
        np.testing.assert_array_equal(function(p.astype(">f8"), q, axis=np.int64(-1)), expected)
        np.testing.assert_array_equal(function(p.tolist(), q.tolist()), expected)
        assert function(p.astype(">f4"), q.astype("f4")).dtype == np.float32
    np.testing.assert_allclose(losses.entropy(p.astype(">f4")), losses.entropy(p), rtol=1e-6)


def test_a_bad_axis_is_named():
    for axis in (1, -2, "rows", 0.0, True, None, (0,)):
        with pytest.raises(ValueError, match="axis must be an integer in"):
            losses.entropy([0.5, 0.5], axis=axis)
