"""A custom loss is one method."""

import pickle
import textwrap
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from helpers import numeric_gradient

from sklloss import losses


@dataclass(frozen=True)
class Quartic(losses.Loss):
    scale: float = 1.0

    def formula(self, xp, y, raw):
        d = (raw - y) / self.scale
        return d**4, 4 * d**3 / self.scale


class MarginSoftmax(losses.Loss):
    """Not separable, without parameters: the square of 1 - p at the code."""

    target = "classes"
    separable = False
    reduction = "sum"

    def formula(self, xp, y, raw):
        e = xp.exp(raw - xp.max(raw, axis=1, keepdims=True))
        p = e / xp.sum(e, axis=1, keepdims=True)
        own = xp.astype(y[:, None] == xp.arange(raw.shape[1])[None, :], raw.dtype)
        rest = 1 - xp.sum(own * p, axis=1)
        return rest**2, -2 * rest[:, None] * xp.sum(own * p, axis=1)[:, None] * (own - p)


def documented():
    """The loss that the docstring of Loss shows."""
    text = losses.Loss.__doc__
    start = text.index("        @dataclass(frozen=True)")
    end = text.index("    A second method", start)
    scope = {"dataclass": dataclass, "ClassVar": ClassVar, "Loss": losses.Loss, "__name__": __name__}
    exec(textwrap.dedent(text[start:end]), scope)
    return scope["Cauchy"]


@pytest.mark.parametrize("make", [lambda: documented()(scale=2.0), lambda: Quartic(3.0), MarginSoftmax])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_method_gives_the_rest(make, weighted, rng):
    loss = make()
    classes = loss.target == "classes"
    raw = rng.normal(size=(12, 3))
    y = rng.integers(0, 3, 12) if classes else rng.normal(size=(12, 3))
    w = rng.integers(0, 3, 12) if weighted else None
    value, gradient = loss.value_and_gradient(y, raw, w)
    assert type(value) is float
    rows = loss.per_sample(y, raw)
    assert value == pytest.approx(np.average(rows, weights=w), rel=1e-13)
    np.testing.assert_allclose(gradient, numeric_gradient(loss, y, raw, w), atol=1e-9)
    assert loss.gradient(y, raw.astype(np.float32)).dtype == np.float32
    if not classes:
        np.testing.assert_allclose(rows, loss.formula(np, y, raw)[0].mean(axis=1), rtol=1e-14)
        with pytest.raises(ValueError, match="y_true must be finite"):
            loss(np.full((12, 3), np.nan), raw)
    with pytest.raises(ValueError, match="y_true"):
        loss(y[:5], raw)


def test_a_custom_loss_runs_in_place_like_a_kernel(rng):
    loss = Quartic(2.0)
    y, raw, w = rng.normal(size=(9, 2)), rng.normal(size=(9, 2)), rng.integers(0, 3, 9).astype(float)
    for weight in (None, w, np.zeros(9)):
        scores, rows = raw.copy(), np.empty(9)
        total = loss.evaluate_batch(scores, target=y, weight=weight, per_sample=rows)
        weights = np.ones(9) if weight is None else weight
        np.testing.assert_allclose(rows, loss.per_sample(y, raw))
        assert total == pytest.approx(weights @ rows)
        np.testing.assert_allclose(scores, weights[:, None] * loss.formula(np, y, raw)[1] / 2)
    with pytest.raises(ValueError, match="states no curvature"):
        loss.evaluate_batch(raw, target=y, curvature=np.empty_like(raw))


def test_a_custom_loss_is_a_value():
    assert Quartic() == Quartic(1.0) != Quartic(2.0)
    assert MarginSoftmax() == MarginSoftmax()
    assert MarginSoftmax() != losses.Loss()
    assert repr(Quartic()) == "Quartic(scale=1.0)"
    assert pickle.loads(pickle.dumps(losses.Loss())) == losses.Loss()
    assert losses.get(Quartic(5.0)) == Quartic(5.0)
    assert "Quartic" not in losses.names()


def test_a_subclass_with_another_formula_has_no_kernel():
    class Doubled(losses.LogLoss):
        def formula(self, xp, y, raw):
            value, gradient = super().formula(xp, y, raw)
            return 2 * value, 2 * gradient()

        def inverse_link(self, xp, raw):
            return raw

    y, raw = [1.0, 0.0], [0.5, 3.0]
    assert Doubled()(y, raw) == pytest.approx(2 * losses.LogLoss()(y, raw), rel=1e-14)
    assert Doubled().predict(raw).tolist() == raw


@pytest.mark.parametrize(
    ("domain", "target", "inside", "outside", "message"),
    [
        ("non-negative", "values", 0.0, -1.0, "Restricted needs y_true >= 0; row 1 has -1.0"),
        ("positive", "values", 0.5, 0.0, "Restricted needs y_true > 0; row 1 has 0.0"),
        ("labels", "probabilities", 1.0, 0.5, "y_true must hold the labels 0 and 1; row 1 has 0.5"),
    ],
)
def test_the_domain_of_a_loss_is_checked(domain, target, inside, outside, message):
    class Restricted(Quartic):
        pass

    Restricted.domain, Restricted.target = domain, target
    assert np.isfinite(Restricted()([inside, inside], [0.0, 0.0]))
    with pytest.raises(ValueError, match=message):
        Restricted()([inside, outside], [0.0, 0.0])
    with pytest.raises(ValueError, match="y_true must"):
        Restricted()([inside, np.nan], [0.0, 0.0])


@pytest.mark.parametrize(
    ("name", "at_two"), [("identity", 2.0), ("logistic", 1 / (1 + np.exp(-2))), ("exp", np.exp(2))]
)
def test_the_name_of_an_inverse_link_is_enough_to_predict(name, at_two):
    class Linked(Quartic):
        inverse_link_name: ClassVar[str] = name

    assert Linked().predict([2.0])[0] == pytest.approx(at_two, rel=1e-15)


def test_a_loss_without_a_formula_says_so():
    class Empty(losses.Loss):
        pass

    with pytest.raises(NotImplementedError, match="Empty must define formula"):
        Empty()([1.0], [2.0])


def test_the_domain_of_a_target_may_be_narrowed():
    class Positive(Quartic):
        def check_values(self, xp, y, outputs):
            super().check_values(xp, y, outputs)
            if bool(xp.any(y <= 0)):
                raise ValueError("y_true must be positive")

    assert Positive()([1.0], [1.0]) == 0.0
    with pytest.raises(ValueError, match="must be positive"):
        Positive()([0.0], [1.0])
    with pytest.raises(ValueError, match="must be finite"):
        Positive()([np.nan], [1.0])


# Second derivatives of custom losses -------------------------------------------------------------------


class Bowl(Quartic):
    """The same formula, with its curvature."""

    def curvature(self, xp, y, raw):
        d = (raw - y) / self.scale
        return 12 * d**2 / self.scale**2


class Margin(MarginSoftmax):
    """Not separable: the product is stated instead, from u_k = p_k (own_k - p_c) and r = 1 - p_c."""

    convex = False

    def product_formula(self, xp, y, raw, direction):
        e = xp.exp(raw - xp.max(raw, axis=1, keepdims=True))
        p = e / xp.sum(e, axis=1, keepdims=True)
        own = xp.astype(y[:, None] == xp.arange(raw.shape[1])[None, :], raw.dtype)
        chosen = xp.sum(own * p, axis=1)[:, None]
        moved = p * (direction - xp.sum(p * direction, axis=1)[:, None])
        chosen_moved = xp.sum(own * moved, axis=1)[:, None]
        # of -2 (1 - chosen) chosen (own - p)
        return -2 * (1 - 2 * chosen) * chosen_moved * (own - p) + 2 * (1 - chosen) * chosen * moved


@pytest.mark.parametrize("make", [lambda: Bowl(2.0), Margin], ids=["separable", "not separable"])
def test_a_stated_second_derivative_gives_the_hessian_product(make, rng):
    loss = make()
    assert loss.states_curvature
    raw, v = rng.normal(size=(2, 12, 3))
    y = rng.integers(0, 3, 12) if loss.target == "classes" else rng.normal(size=(12, 3))
    for w in (None, rng.integers(0, 3, 12)):
        h = 1e-3
        steps = {-2: 1, -1: -8, 1: 8, 2: -1}
        slope = sum(c * loss.gradient(y, raw + k * h * v, w) for k, c in steps.items()) / (12 * h)
        np.testing.assert_allclose(loss.hessian_product(y, raw, v, w), slope, rtol=1e-8, atol=1e-9)


def test_a_stated_curvature_fills_a_batch_in_place(rng):
    y, raw, w = rng.normal(size=(9, 2)), rng.normal(size=(9, 2)), rng.uniform(0, 2, (9, 2))
    loss, batch, curvature, sums = Bowl(2.0), raw.copy(), np.empty((9, 2)), np.empty(2)
    total = loss.evaluate_batch(batch, target=y, weight=w, curvature=curvature, sums=sums)
    np.testing.assert_allclose(curvature, w * loss.curvature(np, y, raw) / 2)
    np.testing.assert_allclose(sums, np.sum(w * loss.formula(np, y, raw)[0], axis=0) / 2)
    assert total == pytest.approx(sums.sum())


def test_a_loss_with_a_formula_alone_has_every_other_method(rng):
    loss = Quartic(2.0)
    y, raw = rng.normal(size=(2, 12, 3))
    assert not loss.states_curvature
    assert loss.curvature(np, y, raw) is None
    assert loss.product_formula(np, y, raw, raw) is None
    with pytest.raises(TypeError, match="Quartic states no curvature, so it has no Hessian product"):
        loss.hessian_product(y, raw, raw)
    np.testing.assert_array_equal(loss.predict(raw), raw)
    sums = np.empty(3)
    total = loss.evaluate_batch(raw.copy(), target=y, sums=sums)
    assert total == pytest.approx(12 * loss(y, raw), rel=1e-13)
    assert total == pytest.approx(sums.sum(), rel=1e-13)


WRONG = {
    "three things": (lambda v, g: (v, g, g), TypeError, "must return a value and a gradient, got 3 things"),
    "nothing": (lambda v, g: None, TypeError, "must return a value and a gradient, got a NoneType"),
    "a list": (lambda v, g: (v.tolist(), g), TypeError, "the value of formula must be an array of real num"),
    "a sum": (
        lambda v, g: (v.sum(), g),
        ValueError,
        "the value of formula must have shape (4, 2), it has ()",
    ),
    "rows": (
        lambda v, g: (v.sum(1), g),
        ValueError,
        "the value of formula must have shape (4, 2), it has (4,)",
    ),
    "complex": (lambda v, g: (v + 0j, g), TypeError, "of real numbers, got dtype complex128"),
    "short": (
        lambda v, g: (v, g[:3]),
        ValueError,
        "the gradient of formula must have shape (4, 2), it has (3, 2)",
    ),
    "lazy": (
        lambda v, g: (v, lambda: g[0]),
        ValueError,
        "the gradient of formula must have shape (4, 2), it has",
    ),
    "objects": (
        lambda v, g: (v, g.astype(object)),
        TypeError,
        "the gradient of formula must be an array of real",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("way", ["alone", "batch"])
def test_a_formula_that_returns_something_else_is_told_so(case, way, rng):
    change, error, message = WRONG[case]

    class Changed(losses.Loss):
        def formula(self, xp, y, raw):
            return change((raw - y) ** 2, 2 * (raw - y))

    y, raw = rng.normal(size=(2, 4, 2))
    with pytest.raises(error) as info:
        Changed().gradient(y, raw) if way == "alone" else Changed().evaluate_batch(raw, y)
    assert str(info.value).startswith("Changed: ")
    assert message in str(info.value)
