"""Second derivatives, and batches in place: what Newton's method and training loops ask of a loss."""

from dataclasses import dataclass

import numpy as np
import pytest

from sklloss import losses


def slope_of_gradient(loss, y, raw, direction, w, h=1e-3):
    """The derivative of the gradient along a direction, by differences of 4th order."""
    steps = {-2: 1, -1: -8, 1: 8, 2: -1}
    return sum(c * loss.gradient(y, raw + k * h * direction, w) for k, c in steps.items()) / (12 * h)


def away_from_kinks(loss, y, raw):
    """Raw scores that no difference moves across the points where the second derivative jumps."""
    if loss.name == "huber":
        beside = np.abs(np.abs(raw - y) - loss.delta) < 0.02
        raw = np.where(beside, raw + 0.05, raw)
    if loss.domain == "labels":
        beside = np.abs((2 * y - 1) * raw - 1) < 0.02
        raw = np.where(beside, raw + 0.05, raw)
    return raw


def test_which_losses_state_a_second_derivative(loss):
    kinked = (losses.AbsoluteError, losses.Quantile, losses.RootMeanSquaredError)
    assert loss.states_curvature is not isinstance(loss, kinked)
    assert loss.convex is not isinstance(
        loss, (losses.Focal, losses.SoftmaxFocal, losses.GeneralizedCrossEntropy)
    )


def test_the_hessian_product_is_the_slope_of_the_gradient(smooth_loss, batches, weights, rng):
    loss = smooth_loss
    for form, y, raw in batches.all(loss):
        raw = away_from_kinks(loss, y, raw)
        direction = rng.normal(size=raw.shape)
        for w in (None, weights):
            expected = slope_of_gradient(loss, y, raw, direction, w)
            product = loss.hessian_product(y, raw, direction, w)
            assert product.dtype == raw.dtype
            atol = 1e-9 * max(1.0, float(np.max(np.abs(product))))
            np.testing.assert_allclose(product, expected, rtol=1e-7, atol=atol, err_msg=form)
            if w is not None:
                assert (product[w == 0] == 0).all()


def second_differences(loss, y, raw, k, h=1e-2):
    """The second derivative of each row's loss by output k, by differences of 4th order of its values."""
    total = 0.0
    for step, factor in {-2: -1, -1: 16, 0: -30, 1: 16, 2: -1}.items():
        moved = raw.copy()
        moved[:, k] += step * h
        total = total + factor * loss.per_sample(y, moved)
    return total / (12 * h * h)


def test_the_curvature_bound_holds_and_is_attained(loss, batches):
    bound = loss.curvature_bound
    if bound is None:
        return
    found = []
    for scale in (0.3, 1.0, 3.0):
        for _, y, raw in batches.all(loss, n=200, scale=scale):
            raw = raw[:, None] if raw.ndim == 1 else raw
            y = y if loss.target == "classes" else y.reshape(raw.shape)
            raw = away_from_kinks(loss, y, raw)
            parts = raw.shape[1] if loss.reduction == "mean" else 1
            found += [parts * second_differences(loss, y, raw, k).max() for k in range(min(4, raw.shape[1]))]
    assert max(found) <= bound * (1 + 1e-5)
    assert max(found) >= 0.98 * bound


def test_which_losses_state_a_curvature_bound():
    bounds = {name: losses.get(name).curvature_bound for name in losses.names()}
    assert bounds == {
        "absolute_error": None, "cross_entropy": 0.25, "focal": None, "gamma": None,
        "generalized_cross_entropy": pytest.approx(0.117558087458102, rel=1e-14), "huber": 1.0,
        "log_cosh": 1.0, "log_loss": 0.25, "mean_squared_error": 2.0, "poisson": None, "quantile": None,
        "root_mean_squared_error": None, "squared_error": 1.0, "squared_hinge": 2.0, "tweedie": None,
    }  # fmt: skip


def test_a_shift_of_all_outputs_changes_nothing_exactly_where_the_loss_says_so(additive_loss, batches):
    for _, y, raw in batches.all(additive_loss):
        same = np.allclose(
            additive_loss.per_sample(y, raw), additive_loss.per_sample(y, raw + 1.5), rtol=1e-12
        )
        assert same is additive_loss.shift_invariant


def test_the_curvature_buffer_holds_what_the_loss_says(smooth_loss, batches):
    loss = smooth_loss
    for _, y, raw in batches.all(loss):
        raw = raw[:, None] if raw.ndim == 1 else raw
        codes = loss.target == "classes" and y.ndim == 1
        y = y if codes else np.ascontiguousarray(y.reshape(raw.shape))
        if loss.curvature_buffer is None:
            assert not loss.separable
            continue
        buffer, parts = np.empty_like(raw), raw.shape[1] if loss.reduction == "mean" else 1
        loss.evaluate_batch(raw.copy(), **{"codes" if codes else "target": y}, curvature=buffer)
        if loss.curvature_buffer == "diagonal":
            expected = loss.curvature(np, y, raw) / parts
        else:
            expected = loss.predict(raw)
        np.testing.assert_allclose(buffer, expected, rtol=1e-12, atol=1e-300)


def test_a_subclass_with_another_formula_inherits_no_trait_of_the_old_one():
    class Another(losses.CrossEntropy):
        def formula(self, xp, y, raw):
            raise NotImplementedError

    another = Another()
    assert (another.shift_invariant, another.curvature_bound, another.curvature_buffer) == (False, None, None)


def test_the_hessian_is_symmetric_and_that_of_a_convex_loss_has_no_negative_direction(
    smooth_loss, batches, weights, rng
):
    for _, y, raw in batches.all(smooth_loss):
        u, v = rng.normal(size=(2, *raw.shape))
        uv = np.sum(u * smooth_loss.hessian_product(y, raw, v, weights))
        vu = np.sum(v * smooth_loss.hessian_product(y, raw, u, weights))
        assert uv == pytest.approx(vu, rel=1e-10, abs=1e-15)
        if smooth_loss.convex:
            assert np.sum(v * smooth_loss.hessian_product(y, raw, v, weights)) >= 0


def test_whole_weights_are_repeated_rows_in_the_hessian_too(smooth_loss, batches, rng):
    repeats = rng.integers(0, 3, 40)
    index = np.repeat(np.arange(40), repeats)
    for _, y, raw in batches.all(smooth_loss):
        direction = rng.normal(size=raw.shape)
        repeated = np.zeros_like(raw)
        np.add.at(repeated, index, smooth_loss.hessian_product(y[index], raw[index], direction[index]))
        product = smooth_loss.hessian_product(y, raw, direction, repeats)
        np.testing.assert_allclose(product, repeated, rtol=1e-11, atol=1e-17)


def test_a_row_of_weight_zero_is_left_out_of_the_hessian_whatever_it_holds(smooth_loss, batches, rng):
    for _, y, raw in batches.all(smooth_loss):
        direction, weight = rng.normal(size=raw.shape), np.ones(40)
        weight[4] = 0.0
        kept = weight > 0
        expected = smooth_loss.hessian_product(y[kept], raw[kept], direction[kept])
        raw[4], direction[4] = np.nan, np.inf
        product = smooth_loss.hessian_product(y, raw, direction, weight)
        assert (product[4] == 0).all()
        np.testing.assert_allclose(product[kept], expected, rtol=1e-12, atol=1e-17)


def test_double_backward_gives_the_hessian_product(smooth_loss, batches, rng):
    torch = pytest.importorskip("torch")
    for form, y, raw in batches.all(smooth_loss, n=12):
        ours, scores, v = (torch.from_numpy(a) for a in (y, raw, rng.normal(size=raw.shape)))
        scores.requires_grad_()
        (gradient,) = torch.autograd.grad(smooth_loss(ours, scores), scores, create_graph=True)
        expected = torch.zeros_like(scores)
        if gradient.requires_grad:  # Huber's may be a constant
            (found,) = torch.autograd.grad(torch.sum(gradient * v), scores, allow_unused=True)
            expected = expected if found is None else found
        product = smooth_loss.hessian_product(ours, scores.detach(), v)
        torch.testing.assert_close(product, expected, rtol=1e-9, atol=1e-13, msg=form)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_strict_namespace_gives_the_hessian_product_of_numpy(smooth_loss, dtype, batches, weights, rng):
    strict = pytest.importorskip("array_api_strict")
    for _, y, raw in batches.all(smooth_loss, dtype=dtype):
        v = rng.normal(size=raw.shape).astype(dtype)
        expected = smooth_loss.hessian_product(y, raw, v, weights)
        product = smooth_loss.hessian_product(*(strict.asarray(a) for a in (y, raw, v, weights)))
        assert product.dtype == strict.asarray(raw).dtype
        tolerance = 200 * float(np.finfo(dtype).eps)
        scale = float(np.max(np.abs(expected)))
        np.testing.assert_allclose(np.asarray(product), expected, rtol=tolerance, atol=tolerance * scale)


def test_the_curvature_of_a_confident_row_keeps_its_digits():
    p = np.exp(-60.0)
    assert losses.LogLoss().curvature(np, 1.0, np.array([60.0]))[0] == pytest.approx(p, rel=1e-14)
    assert losses.LogCosh().curvature(np, 0.0, np.array([60.0]))[0] == pytest.approx(4 * p * p, rel=1e-14)
    # of p (v - mean of v) with p = 1 - 2e: a difference of two sums would be rounding alone
    product = losses.CrossEntropy().hessian_product([0], [[60.0, 0.0, 0.0]], [[1.0, 0.5, 0.0]])
    np.testing.assert_allclose(product, [[1.5 * p, -0.5 * p, -p]], rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_hessian_product_of_far_scores_is_a_number(smooth_loss, dtype):
    """Also if gamma times a score overflows, and if 1 - p is subnormal."""
    loss, info = smooth_loss, np.finfo(dtype)
    last = -np.log(float(info.smallest_subnormal))
    far = [36.7, last - 15, last - 1, last - 0.4, last, last + 1, 1e20, info.max / 3, info.max]
    z = np.array([*far, *np.negative(far)], dtype)
    raw = z if loss.separable else np.stack([z, np.zeros_like(z), np.zeros_like(z)], axis=1)
    direction = np.ones_like(raw)
    direction[..., 0] = 0.5
    if loss.target == "classes":
        targets = [np.full(len(z), 0), np.full(len(z), 2), np.full_like(raw, 1 / 3)]
    elif loss.target == "probabilities":
        targets = [np.full_like(z, y) for y in ((0.0, 1.0) if loss.domain == "labels" else (0.0, 0.5, 1.0))]
    else:
        targets = [np.full_like(z, 1.0)]
    for y in targets:
        product = loss.hessian_product(y, raw, direction)
        assert not np.isnan(product).any()
        if loss.inverse_link_name != "exp":  # else the second derivative grows exponentially
            assert np.isfinite(product).all()


@pytest.mark.parametrize("q", [0.1, 0.7, 1.0])
def test_the_generalized_hessian_of_a_nearly_certain_row_keeps_its_digits(q):
    # p_c**q times the cross-entropy's Hessian, but for terms of the order of (1 - p_c)**2
    p, direction = np.exp(-60.0), [[1.0, 0.5, 0.0]]
    product = losses.GeneralizedCrossEntropy(q).hessian_product([0], [[60.0, 0.0, 0.0]], direction)
    np.testing.assert_allclose(product, [[1.5 * p, -0.5 * p, -p]], rtol=1e-13)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_the_softmax_focal_hessian_of_a_nearly_certain_row_keeps_its_digits(gamma):
    # a loss of q**(g + 1) for q = 2 exp(-z): its second derivative by z is (g + 1)**2 times itself
    z = 60.0 / (gamma + 1)
    direction = np.array([[1.0, 0.0, 0.0]])
    product = losses.SoftmaxFocal(gamma).hessian_product([0], [[z, 0.0, 0.0]], direction)
    expected = (gamma + 1) ** 2 * (2 * np.exp(-z)) ** (gamma + 1)
    np.testing.assert_allclose(product, expected * np.array([[1, -0.5, -0.5]]), rtol=30 * np.exp(-z))


def test_hubers_curvature_is_one_up_to_delta_and_zero_beyond():
    d = np.array([0.0, -1.0, 1.0, np.nextafter(1.0, 2.0), -5.0])
    assert losses.Huber(1.0).curvature(np, np.zeros(5), d).tolist() == [1, 1, 1, 0, 0]


def test_a_loss_without_a_second_derivative_says_so():
    for loss in (losses.AbsoluteError(), losses.Quantile(0.3), losses.RootMeanSquaredError()):
        with pytest.raises(TypeError, match=f"{type(loss).__name__} states no curvature"):
            loss.hessian_product([1.0], [2.0], [1.0])


def test_the_direction_is_checked():
    loss, y, raw = losses.LogLoss(), [0.0, 1.0], np.array([1.0, 2.0])
    with pytest.raises(ValueError, match=r"direction and raw must have one shape; direction has \(1,\)"):
        loss.hessian_product(y, raw, [1.0])
    with pytest.raises(TypeError, match="direction must hold real numbers"):
        loss.hessian_product(y, raw, ["a", "b"])
    np.testing.assert_array_equal(
        loss.hessian_product(y, raw, [1, 2]), loss.hessian_product(y, raw, [1.0, 2.0])
    )


# One batch in place ------------------------------------------------------------------------------------


def in_place(loss, y, raw):
    """raw (n, outputs), and target or codes as `evaluate_batch` takes them."""
    scores = raw.reshape(len(raw), -1)
    if loss.target == "classes" and y.ndim == 1:
        return scores, {"codes": y.astype(np.intp)}
    return scores, {"target": np.ascontiguousarray(y.reshape(scores.shape))}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_in_place_gives_sum_gradient_curvature_and_rows(additive_loss, dtype, batches, weights):
    """Once with the kernel, if there is one, and once without."""
    loss, eps = additive_loss, float(np.finfo(dtype).eps)
    for form, y, raw in batches.all(loss, dtype=dtype):
        scores, target = in_place(loss, y, raw)
        n, outputs = scores.shape
        shared = loss.separable and loss.states_curvature
        curvature = loss.curvature(np, target["target"], scores) if shared else None
        divisor = outputs if loss.reduction == "mean" else 1
        for w in (None, weights.astype(dtype)):
            total = float(n) if w is None else float(np.sum(w, dtype=float))
            column = np.ones((n, 1), dtype) if w is None else w[:, None]
            value, gradient = loss.value_and_gradient(y, raw, w)
            for force_formula in (False, True):
                batch, rows = scores.copy(), np.empty(n, dtype)
                second = np.empty_like(batch) if shared else None
                sums = np.full(outputs, np.nan) if force_formula else None
                got = loss.evaluate_batch(
                    batch, **target, weight=w, per_sample=rows, curvature=second, sums=sums
                )
                assert type(got) is float
                assert got == pytest.approx(value * total, rel=20 * eps), form
                scale = float(np.max(np.abs(gradient))) * total
                np.testing.assert_allclose(
                    batch.reshape(raw.shape), gradient * total, rtol=50 * eps, atol=4 * eps * scale
                )
                atol = 20 * eps * float(np.max(np.abs(rows)))
                np.testing.assert_allclose(rows, loss.per_sample(y, raw), rtol=20 * eps, atol=atol)
                if shared:
                    expected = column * curvature / divisor
                    atol = 8 * eps * float(np.max(np.abs(expected)))
                    np.testing.assert_allclose(second, expected, rtol=50 * eps, atol=atol, err_msg=form)
                if sums is not None:
                    assert np.sum(sums) == pytest.approx(got, rel=1e-12)


def test_a_separable_loss_takes_weights_and_gives_sums_by_output(separable_loss, batches, rng):
    loss = separable_loss
    y, raw = batches.make(loss, "matrix")
    w = rng.uniform(0, 2, raw.shape)
    w[3, 1] = w[5] = 0.0
    broken = raw.copy()
    broken[3, 1], broken[5] = np.nan, np.inf
    sums, second = np.empty(3), np.empty_like(raw) if loss.states_curvature else None
    batch = broken.copy()
    total = loss.evaluate_batch(batch, target=y, weight=w, curvature=second, sums=sums)
    divisor = 3 if loss.reduction == "mean" else 1
    for k in range(3):
        single, column = raw[:, k : k + 1].copy(), np.ascontiguousarray(y[:, k : k + 1])
        own = np.empty_like(single) if second is not None else None
        part = loss.evaluate_batch(single, target=column, weight=w[:, k].copy(), curvature=own)
        assert sums[k] == pytest.approx(part / divisor, rel=1e-12)
        np.testing.assert_allclose(batch[:, k : k + 1], single / divisor, rtol=1e-11, atol=1e-13)
        if second is not None:
            np.testing.assert_allclose(second[:, k : k + 1], own / divisor, rtol=1e-11, atol=1e-13)
    assert total == pytest.approx(np.sum(sums), rel=1e-13)


def test_a_loss_that_is_not_separable_refuses_weights_by_output(batches):
    loss = losses.CrossEntropy()
    y, raw = batches.make(loss, "rows")
    with pytest.raises(ValueError, match="CrossEntropy is not separable and has no weights by output"):
        loss.evaluate_batch(raw.copy(), target=y, weight=np.ones_like(raw))


@dataclass(frozen=True)
class Soft(losses.LogLoss):
    """Another formula: it inherits neither kernel nor second derivative."""

    def formula(self, xp, y, raw):
        value, gradient = super().formula(xp, y, raw)
        return 2 * value, 2 * gradient()


class Bent(Soft):
    def curvature(self, xp, y, raw):
        return 2 * losses.LogLoss().curvature(xp, y, raw)


class Kinked(losses.CrossEntropy):
    def formula(self, xp, y, raw):
        return super().formula(xp, y, raw)


def test_a_second_derivative_is_that_of_the_formula_beside_it(batches, rng):
    y, raw = batches.make(losses.LogLoss(), "matrix")
    v = rng.normal(size=raw.shape)
    assert not Soft().states_curvature
    assert not Kinked().states_curvature
    with pytest.raises(TypeError, match="Soft states no curvature"):
        Soft().hessian_product(y, raw, v)
    with pytest.raises(ValueError, match="Soft has no kernel and states no curvature"):
        Soft().evaluate_batch(raw.copy(), target=y, curvature=np.empty_like(raw))
    assert Bent().states_curvature
    expected = 2 * losses.LogLoss().hessian_product(y, raw, v)
    np.testing.assert_allclose(Bent().hessian_product(y, raw, v), expected, rtol=1e-14)
