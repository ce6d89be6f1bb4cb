"""Proximal Newton: optimality conditions, exact zeros, both kinds of models, several problems at once."""

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import minimize
from sklloss.kernels.solve import descend

from sklloss import LinearRegressor, losses
from sklloss.objectives.column_model import ColumnModel, RowCurvature
from sklloss.solvers.l1_models import (
    NO_SHIFTS,
    minimise_by_products,
    minimise_by_sweeps,
    minimise_model,
)
from sklloss.solvers.newton import newton_cholesky
from sklloss.solvers.proximal_newton import proximal_newton


class Convex:
    """sum_i s log(2 cosh(a_i . w - t_i)) for each problem, plus an L1 norm."""

    noise = 1e-15
    penalised = True
    exact_gradient = True
    costly_hessian = False
    subsample = staticmethod(lambda each: None)
    newton_steps = staticmethod(lambda points, values, *rule: None)
    curvature_excess = 0.0
    null_value = staticmethod(lambda: np.inf)

    def __init__(self, A, t, l1, *, matrices=True):
        self.A, self.t, self.matrices = A, t, matrices
        self.l1 = np.broadcast_to(l1, (len(A), A.shape[2])).copy()
        self.unit_score_change = np.full(self.l1.shape, np.inf)

    def _parts(self, w):
        r = np.einsum("bni,bi->bn", self.A, w) - self.t
        slope = np.tanh(r)
        return np.logaddexp(r, -r).sum(axis=1), np.einsum("bni,bn->bi", self.A, slope), 1 - slope**2

    def value_and_gradient(self, w):
        return self._parts(w)[:2]

    precise_gradient = value_and_gradient

    def hessian(self, w):
        value, gradient, curvature = self._parts(w)
        return value, gradient, np.einsum("bni,bn,bnj->bij", self.A, curvature, self.A)

    def linearise(self, w):
        value, gradient, self._curvature = self._parts(w)
        return value, gradient

    def affords(self, sets):
        return self.matrices

    def column_models(self, sets):
        return None

    def subset_hessian(self, sets, *, rough=False):
        parts = [
            (A[:, at], curvature[:, None])
            for A, at, curvature in zip(self.A, sets, self._curvature, strict=True)
        ]
        return [(a * c).T @ a for a, c in parts]

    def product(self, v):
        return np.einsum("bni,bn,bnj,bj->bi", self.A, self._curvature, self.A, v)

    def shifts(self, sets):
        return [None for _ in sets]

    def without_free_shift(self, w):
        return w

    def diagonal(self):
        return np.einsum("bni,bni->bi", self.A, self.A) + 1e-300

    def local_diagonal(self):
        return np.einsum("bni,bn,bni->bi", self.A, self._curvature, self.A) + 1e-300

    def subset_preconditioner(self):
        return lambda mask, scale: lambda x: np.where(mask, x / scale, 0.0)


def problems(rng, matrices, l1=3.0):
    A = rng.normal(size=(3, 60, 12)) * np.array([1, 10, 0.1])[:, None, None]
    t = np.einsum("bni,bi->bn", A[:, :, :3], rng.normal(size=(3, 3))) + rng.normal(size=(3, 60))
    return Convex(A, t, l1 * np.array([1, 10, 0.1])[:, None], matrices=matrices)


def total(objective, w):
    return objective.value_and_gradient(w)[0] + (objective.l1 * np.abs(w)).sum(axis=1)


def violation(objective, w):
    """The distance of the nearest subgradient from 0, relative to the weight of the L1 norm."""
    gradient = objective.value_and_gradient(w)[1]
    at_zero = np.maximum(np.abs(gradient) - objective.l1, 0.0)
    moved = np.abs(gradient + objective.l1 * np.sign(w))
    return np.where(w == 0, at_zero, moved)


@pytest.mark.parametrize("matrices", [True, False])
def test_subgradients_hold_zero_at_the_end(rng, matrices):
    objective = problems(rng, matrices)
    result = proximal_newton(objective, np.zeros((3, 12)), tol=1e-7, max_iter=100)
    assert result.converged.all()
    assert np.all(violation(objective, result.w) <= 1e-5 * objective.l1.max(axis=1, keepdims=True))
    assert 0 < (result.w != 0).sum() < result.w.size
    np.testing.assert_allclose(result.value, total(objective, result.w), rtol=1e-13)


@pytest.mark.parametrize("matrices", [True, False])
def test_the_optimum_is_that_of_a_split_into_positive_parts(rng, matrices):
    objective = problems(rng, matrices)
    result = proximal_newton(objective, np.zeros((3, 12)), tol=1e-7, max_iter=100)
    for k in range(3):
        alone = Convex(objective.A[k : k + 1], objective.t[k : k + 1], objective.l1[k])

        def split(u, alone=alone):
            value, gradient = alone.value_and_gradient((u[:12] - u[12:])[None])
            l1 = alone.l1[0]
            return value[0] + l1 @ u[:12] + l1 @ u[12:], np.concatenate([gradient[0] + l1, l1 - gradient[0]])

        options = {"maxiter": 10000, "maxfun": 10000, "ftol": 1e-15, "gtol": 1e-12}
        bounds = [(0, None)] * 24
        found = minimize(split, np.zeros(24), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        assert result.value[k] <= found.fun * (1 + 1e-10)
        np.testing.assert_allclose(result.value[k], found.fun, rtol=1e-7)


def test_hessian_blocks_and_hessian_products_give_the_same_optimum(rng):
    ends = [
        proximal_newton(problems(np.random.default_rng(5), kind), np.zeros((3, 12)), tol=1e-7, max_iter=100)
        for kind in (True, False)
    ]
    np.testing.assert_allclose(ends[0].value, ends[1].value, rtol=1e-12)
    np.testing.assert_array_equal(ends[0].w != 0, ends[1].w != 0)
    np.testing.assert_allclose(ends[0].w, ends[1].w, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("matrices", [True, False])
def test_without_an_l1_penalty_it_is_newtons_method(rng, matrices):
    objective = problems(rng, matrices, l1=0.0)
    result = proximal_newton(objective, np.zeros((3, 12)), tol=1e-6, max_iter=100)
    best = newton_cholesky(objective, np.zeros((3, 12)), tol=1e-10, max_iter=100)
    assert result.converged.all()
    np.testing.assert_allclose(result.value, best.value, rtol=1e-11)


@pytest.mark.parametrize("matrices", [True, False])
def test_duplicated_and_empty_columns_converge(rng, matrices):
    plain = problems(rng, matrices)
    A = np.concatenate([plain.A, plain.A[:, :, :2], -plain.A[:, :, :1], 0 * plain.A[:, :, :2]], axis=2)
    wide = Convex(A, plain.t, plain.l1[:, :1], matrices=matrices)
    best = proximal_newton(plain, np.zeros((3, 12)), tol=1e-7, max_iter=100)
    result = proximal_newton(wide, np.zeros((3, 17)), tol=1e-6, max_iter=100)
    assert result.converged.all()
    np.testing.assert_allclose(result.value, best.value, rtol=1e-10)
    assert np.all(result.w[:, -2:] == 0)


@pytest.mark.parametrize("matrices", [True, False])
def test_the_curve_never_rises_and_callbacks_see_it(rng, matrices):
    seen = []
    objective = problems(rng, matrices)
    start = np.full((3, 12), 3.0)
    kept = start.copy()
    result = proximal_newton(
        objective, start, tol=1e-6, max_iter=100,
        callback=lambda iteration, w, value: seen.append((iteration, w.copy(), float(value.sum()))),
    )  # fmt: skip
    np.testing.assert_array_equal(start, kept)
    assert result.converged.all()
    assert np.all(np.diff(result.curve) <= 1e-12 * result.curve[0])
    assert [iteration for iteration, _, _ in seen] == list(range(1, result.n_iter.max() + 1))
    assert [value for _, _, value in seen] == result.curve[1:]
    np.testing.assert_array_equal(seen[-1][1], result.w)


def test_max_iter_ends_it_unconverged(rng):
    result = proximal_newton(problems(rng, True), np.zeros((3, 12)), tol=1e-6, max_iter=1)
    assert not result.converged.any()
    assert result.n_iter.tolist() == [1, 1, 1]


def test_a_large_penalty_leaves_exact_zeros_in_one_step(rng):
    result = proximal_newton(problems(rng, True, l1=1e6), np.ones((3, 12)), tol=1e-4, max_iter=100)
    assert result.converged.all()
    assert not result.w.any()


def quadratic(rng, size, rank):
    root = rng.normal(size=(rank, size))
    return root.T @ root, root.T @ rng.normal(size=rank) * 2


@pytest.mark.parametrize("rank", [30, 8])
def test_models_are_minimised_to_their_optimality_conditions(rng, rank):
    matrix, gradient = quadratic(rng, 12, rank)
    w, l1 = np.where(rng.random(12) < 0.5, 0.0, rng.normal(size=12)), np.full(12, 2.0)
    l1[-1] = 0.0
    d, decrease, at_radius = minimise_model(matrix.copy(), gradient, w, l1, 0.0, 1e-14)
    assert at_radius
    z, slope = w + d, gradient + matrix @ d
    excess = np.where(z == 0, np.maximum(np.abs(slope) - l1, 0), np.abs(slope + l1 * np.sign(z)))
    assert excess.max() < 1e-6
    value = gradient @ d + 0.5 * d @ matrix @ d + l1 @ (np.abs(z) - np.abs(w))
    np.testing.assert_allclose(decrease, -value, rtol=1e-10)

    def solve(mask):
        return lambda x: np.where(mask, x, 0.0)

    _, found, done = minimise_by_products(
        lambda v: v @ matrix, solve, gradient[None], w[None], l1[None], np.ones((1, 12), dtype=bool),
        matrix.diagonal()[None], 0.0, np.array([1e-9]),
    )  # fmt: skip
    assert done.all()
    np.testing.assert_allclose(found, decrease, rtol=1e-6)


def test_coordinate_descent_returns_its_decrease_and_updates_the_gradient(rng):
    matrix, gradient = quadratic(rng, 9, 20)
    l1, z, slope, gains = np.full(9, 1.0), np.zeros(9), gradient.copy(), np.empty(4)
    everywhere = np.full(9, np.inf)
    descend(matrix, slope, z, l1, -everywhere, everywhere, gains, *NO_SHIFTS)
    np.testing.assert_allclose(slope, gradient + matrix @ z, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(gains.sum(), -(gradient @ z + 0.5 * z @ matrix @ z + np.abs(z).sum()))
    assert np.all(np.diff(gains) <= 0)


def column_model(rng, softmax):
    """The model of 3 coupled outputs, or of 1, over 9 of 12 sparse columns and intercepts, and its matrix."""
    X = scipy.sparse.random(200, 12, density=0.3, format="csc", random_state=3)
    outputs = 3 if softmax else 1
    p = rng.dirichlet(np.ones(3), 200).T[:outputs].copy()
    curvature = 0.5 * p
    chosen = np.sort(np.concatenate([rng.choice(12, 9, False), [12]])).astype(np.intp)
    columns, owners = np.tile(chosen, outputs), np.repeat(np.arange(outputs), len(chosen))
    matrix = X.data, X.indices.astype(np.int32), X.indptr.astype(np.int64)
    ridge = np.where(columns == 12, 0.0, 0.25)
    rows = RowCurvature(curvature, p if softmax else None)
    model = ColumnModel(matrix, rows, columns, owners, ridge)
    Z = np.hstack([X.toarray(), np.ones((200, 1))])[:, chosen]
    blocks = [
        [(Z.T * (curvature[k] * ((k == m) - softmax * p[m]))) @ Z for m in range(outputs)]
        for k in range(outputs)
    ]
    return model, np.block(blocks) + np.diag(ridge), columns


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("damping", [0.0, 1.0])
def test_sweeps_over_columns_minimise_the_model_of_the_matrix(rng, softmax, damping):
    model, matrix, columns = column_model(rng, softmax)
    np.testing.assert_allclose(model.diagonal, matrix.diagonal(), rtol=1e-12)
    damped = matrix + damping * np.diag(matrix.diagonal())
    gradient, l1 = rng.normal(size=len(columns)) * 3, np.where(columns == 12, 0.0, 1.0)
    w = np.where(rng.random(len(columns)) < 0.5, 0.0, rng.normal(size=len(columns)))
    if softmax:
        gradient[columns == 12] -= gradient[columns == 12].mean()  # no step along a common shift
    radius = 0.4 if damping else np.inf
    d, decrease, reached = minimise_by_sweeps(model, gradient, w, l1, damping, 0.0, 1e-12, radius)
    assert reached
    value = gradient @ d + 0.5 * d @ damped @ d + l1 @ (np.abs(w + d) - np.abs(w))
    np.testing.assert_allclose(decrease, -value, rtol=1e-10)
    _, best, _ = minimise_model(
        damped + 1e-12 * np.eye(len(w)), gradient, w, l1, 0.0, 1e-13, np.full(len(w), radius)
    )
    np.testing.assert_allclose(decrease, best, rtol=1e-8)
    assert np.abs(d).max() <= radius * (1 + 1e-12)


def test_sweeps_that_do_not_converge_say_so(rng):
    model, _, columns = column_model(rng, False)
    gradient, w = rng.normal(size=len(columns)), np.zeros(len(columns))
    assert not minimise_by_sweeps(model, gradient, w, w, 0.0, 0.0, 0.0)[2]


def test_steps_stay_within_the_trust_radius(rng):
    matrix, gradient = quadratic(rng, 9, 20)
    w, l1, radius = rng.normal(size=9), np.full(9, 1.0), np.full(9, 0.05)
    d, decrease, at_radius = minimise_model(matrix, gradient, w, l1, 0.0, 1e-12, radius)
    assert at_radius
    assert np.abs(d).max() <= 0.05 * (1 + 1e-12)
    slope = gradient + matrix @ d + l1 * np.sign(w + d)
    inside = np.abs(d) < 0.049
    assert np.abs(slope[inside]).max(initial=0) < 1e-5
    assert np.all(slope[~inside] * d[~inside] < 0)
    assert decrease > 0


def test_a_start_with_little_curvature_is_damped(rng):
    objective = Convex(np.full((1, 5, 1), 1.0), np.full((1, 5), 4.0), 0.1)
    objective.unit_score_change[:] = 1.0
    result = proximal_newton(objective, np.zeros((1, 1)), tol=1e-7, max_iter=100)
    assert result.converged.all()
    assert np.all(np.diff(result.curve) <= 0)
    np.testing.assert_allclose(result.w, 4 - np.arctanh(0.1 / 5), rtol=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_a_common_shift_goes_to_its_minimum(rng, ridge):
    """Along a shift the quadratic has the ridge alone, so the minimum is a kink or lies between two."""
    groups, K = 4, 5
    A = rng.standard_normal((30, groups, K))
    A -= A.mean(axis=2, keepdims=True)
    A = A.reshape(30, groups * K)
    matrix = A.T @ A + ridge * np.eye(groups * K)
    l1 = np.full(groups * K, 0.1)
    at = np.arange(groups * K).reshape(groups, K)
    everywhere, gains = np.full(groups * K, np.inf), np.empty(200)
    z = rng.standard_normal(groups * K)
    gradient = matrix @ z - A.T @ rng.standard_normal(30)
    constant = gradient - matrix @ z

    def value(z):
        return constant @ z + 0.5 * z @ matrix @ z + l1 @ np.abs(z)

    before = value(z)
    descend(matrix, gradient, z, l1, -everywhere, everywhere, gains, at, np.full(groups * K, ridge))
    assert gains.sum() == pytest.approx(before - value(z), rel=1e-9)
    np.testing.assert_allclose(gradient, matrix @ z + constant, atol=1e-10)
    for group in at:
        for s in (-1e-3, -1e-6, 1e-6, 1e-3):
            moved = z.copy()
            moved[group] += s
            assert value(moved) >= value(z) - 1e-12


def test_a_common_shift_stays_within_bounds(rng):
    z, at = np.array([1.0, 2.0, 3.0]), np.arange(3)[None]
    bounds = z - 0.25, z + 0.25
    gains = np.empty(1)
    descend(np.zeros((3, 3)), np.zeros(3), z, np.ones(3), *bounds, gains, at, np.zeros(3))
    np.testing.assert_array_equal(z, [0.75, 1.75, 2.75])
    assert gains[0] == 0.75


def test_groups_of_indicators_move_together():
    # the indicators of a group sum to 1: their common shift has hardly any curvature, and changes many signs
    rng = np.random.default_rng(1)
    groups = [np.eye(k)[rng.integers(k, size=30000)] for k in (3, 6, 9)]
    X = np.column_stack([rng.normal(size=(30000, 2)), *groups])
    y = rng.poisson(np.exp(X @ (rng.normal(size=20) + 1.0) + 1.0)).astype(float)
    model = LinearRegressor("poisson", alpha=1e-4, l1_ratio=0.5).fit(X, y)
    closer = LinearRegressor("poisson", alpha=1e-4, l1_ratio=0.5, tol=1e-7, max_iter=1000).fit(X, y)
    assert model.n_iter_[0] < 30
    saturated = losses.Poisson().saturated(np, y).mean()
    assert model.loss_ - closer.loss_ <= 1e-6 * (closer.loss_ - saturated)
    w, rest = (
        closer.coef_,
        X.T @ (np.exp(X @ closer.coef_ + closer.intercept_) - y) / len(y) + 5e-5 * closer.coef_,
    )
    np.testing.assert_allclose(rest[w != 0], -5e-5 * np.sign(w[w != 0]), atol=1e-9)
    assert (np.abs(rest[w == 0]) <= 5e-5 + 1e-9).all()
