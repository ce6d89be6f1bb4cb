"""Newton's method: its linear algebra, its damping, and several problems solved together."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone

from sklloss import SoftmaxClassifier
from sklloss.data.dataset import Dataset
from sklloss.losses import CrossEntropy
from sklloss.objectives.linear import LinearObjective
from sklloss.objectives.passes import make_passes
from sklloss.solvers.lbfgs import lbfgs
from sklloss.solvers.newton import newton_cholesky, solve_positive
from sklloss.solvers.newton_cg import LBFGS_ITERATIONS, lbfgs_newton_cg, newton_cg


class Convex:
    """sum_i s_i log cosh(a_i . w - t_i) + ridge / 2 ||w||**2 for each problem, with all a solver needs."""

    noise = 1e-15
    penalised = True
    residual_floor = 1e-20
    close_preconditioner = False
    exact_gradient = True
    costly_hessian = False
    subsample = staticmethod(lambda each: None)
    newton_steps = staticmethod(lambda points, values, *rule: None)
    dual_ascent = staticmethod(lambda: None)
    null_value = staticmethod(lambda: np.inf)
    block_cost = 10**9

    def __init__(self, A, t, scale=1.0, ridge=0.0):
        self.A, self.t, self.scale, self.ridge = A, t, scale, ridge

    def _parts(self, w):
        r = np.einsum("bni,bi->bn", self.A, w) - self.t
        value = self.scale * np.logaddexp(r, -r).sum(axis=1) + self.ridge / 2 * (w**2).sum(axis=1)
        slope = np.tanh(r)
        gradient = self.scale * np.einsum("bni,bn->bi", self.A, slope) + self.ridge * w
        return value, gradient, 1 - slope**2

    def value_and_gradient(self, w):
        return self._parts(w)[:2]

    precise_gradient = value_and_gradient

    def hessian(self, w):
        value, gradient, curvature = self._parts(w)
        hessian = self.scale * np.einsum("bni,bn,bnj->bij", self.A, curvature, self.A)
        np.einsum("bii->bi", hessian)[:] += self.ridge
        return value, gradient, np.tril(hessian)

    def linearise(self, w):
        value, gradient, self._curvature = self._parts(w)
        return value, gradient

    def product(self, v):
        curved = np.einsum("bni,bi->bn", self.A, v) * self._curvature
        return self.scale * np.einsum("bni,bn->bi", self.A, curved) + self.ridge * v

    rough_product = product

    def multiplier(self, rough):
        return self.rough_product if rough else self.product

    def preconditioner(self):
        return np.copy

    def local_preconditioner(self, every_row=False):
        return None


def problems(rng, count=3):
    A = rng.normal(size=(count, 40, 5)) * np.array([1, 10, 0.1])[:count, None, None]
    return Convex(A, rng.normal(size=(count, 40)) * 5)


METHODS = {"newton-cholesky": newton_cholesky, "newton-cg": newton_cg}


@pytest.mark.parametrize("name", METHODS)
def test_problems_solved_together_end_where_each_ends_alone(rng, name):
    objective = problems(rng)
    result = METHODS[name](objective, np.zeros((3, 5)), tol=1e-8, max_iter=100)
    assert result.converged.all()
    for k in range(3):
        alone = Convex(objective.A[k : k + 1], objective.t[k : k + 1])
        single = METHODS[name](alone, np.zeros((1, 5)), tol=1e-8, max_iter=100)
        assert single.converged.all()
        np.testing.assert_allclose(result.w[k], single.w[0], rtol=1e-5, atol=1e-8)
        assert np.abs(alone.value_and_gradient(single.w)[1]).max() < 1e-5


@pytest.mark.parametrize("name", METHODS)
def test_the_curve_never_rises_from_a_start_far_away(rng, name):
    objective = problems(rng)
    result = METHODS[name](objective, np.full((3, 5), 3.0), tol=1e-8, max_iter=200)
    assert result.converged.all()
    assert np.all(np.diff(result.curve) <= 1e-12 * result.curve[0])
    assert len(result.curve) == result.n_iter.max() + 1
    np.testing.assert_allclose(result.curve[-1], result.value.sum(), rtol=1e-15)
    np.testing.assert_allclose(result.value, objective.value_and_gradient(result.w)[0], rtol=1e-14)


@pytest.mark.parametrize("name", METHODS)
def test_callbacks_see_every_iteration(rng, name):
    seen = []

    def callback(iteration, w, value):
        seen.append((iteration, w.copy(), float(value.sum())))

    result = METHODS[name](problems(rng), np.zeros((3, 5)), tol=1e-4, max_iter=100, callback=callback)
    assert [iteration for iteration, _, _ in seen] == list(range(1, result.n_iter.max() + 1))
    assert [value for _, _, value in seen] == result.curve[1:]
    np.testing.assert_array_equal(seen[-1][1], result.w)


@pytest.mark.parametrize("name", METHODS)
def test_the_start_is_not_written_to_and_no_iterations_return_it(rng, name):
    start = rng.normal(size=(3, 5))
    kept = start.copy()
    METHODS[name](problems(rng), start, tol=1e-4, max_iter=5)
    np.testing.assert_array_equal(start, kept)
    result = METHODS[name](problems(rng), start, tol=1e-4, max_iter=0)
    np.testing.assert_array_equal(result.w, kept)
    assert not result.converged.any()
    assert len(result.curve) == 1


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("ridge", [0.0, 1e-8])
def test_newton_converges_with_a_singular_hessian(rng, name, ridge):
    A = rng.normal(size=(1, 40, 3))
    wide = np.concatenate([A, A[:, :, :1], np.zeros((1, 40, 1)), A[:, :, 1:2] + A[:, :, 2:]], axis=2)
    t = rng.normal(size=(1, 40)) * 3
    best = newton_cholesky(Convex(A, t), np.zeros((1, 3)), tol=1e-10, max_iter=100).value
    result = METHODS[name](Convex(wide, t, ridge=ridge), np.zeros((1, 6)), tol=1e-6, max_iter=100)
    assert result.converged.all()
    np.testing.assert_allclose(result.value, best, rtol=1e-6)
    assert np.abs(result.w).max() < 1e3


class Cliff(Convex):
    """NaN beyond a distance: a step that leads there must be shortened."""

    def _parts(self, w):
        value, gradient, curvature = super()._parts(w)
        beyond = np.abs(w).max(axis=1) > 50
        value[beyond] = np.nan
        gradient[beyond] = np.nan
        return value, gradient, curvature


@pytest.mark.parametrize("name", METHODS)
def test_a_step_to_where_the_objective_is_nan_is_shortened(name):
    A = np.eye(2)[None] * 1.0
    # at |r| = 4 the curvature is 1e-3 and a full Newton step overshoots by far
    objective = Cliff(A, np.zeros((1, 2)))
    result = METHODS[name](objective, np.full((1, 2), 4.0), tol=1e-8, max_iter=100)
    assert result.converged.all()
    np.testing.assert_allclose(result.w, 0, atol=1e-6)


class Broken(Convex):
    """A Hessian of NaN at the second point."""

    def hessian(self, w):
        value, gradient, hessian = super().hessian(w)
        if np.any(w != 0):
            hessian[:] = np.nan
        return value, gradient, hessian


def test_a_hessian_of_nan_ends_at_the_last_finite_point_unconverged(rng):
    objective = Broken(rng.normal(size=(1, 40, 3)) * 3, rng.normal(size=(1, 40)) * 9)
    result = newton_cholesky(objective, np.zeros((1, 3)), tol=1e-10, max_iter=50)
    assert np.isfinite(result.w).all()
    assert np.isfinite(result.value).all()
    assert not result.converged.any()


class Counting(Convex):
    """A problem whose Hessian is costly; it counts Hessians and gradients."""

    costly_hessian = True
    hessians = gradients = 0

    def precise_gradient(self, w):
        self.gradients += 1
        return super().value_and_gradient(w)

    def hessian(self, w):
        self.hessians += 1
        return super().hessian(w)


def costly(rng):
    A = rng.normal(size=(2, 400, 5))
    return Counting(A, A @ np.ones(5) + rng.normal(size=(2, 400)) / 2)


def test_a_costly_hessian_is_reused_for_several_steps_to_the_same_optimum(rng):
    objective = costly(rng)
    result = newton_cholesky(objective, np.zeros((2, 5)), tol=1e-6, max_iter=50)
    plain_objective = Counting(objective.A, objective.t)
    plain_objective.costly_hessian = False
    plain = newton_cholesky(plain_objective, np.zeros((2, 5)), tol=1e-6, max_iter=50)
    assert result.converged.all()
    assert objective.hessians < plain_objective.hessians
    np.testing.assert_allclose(result.value, plain.value, rtol=1e-11)


@pytest.mark.parametrize("wrong", [1e-6, 0.2, 5.0, 1e6, 0.0, np.nan])
def test_an_inaccurate_hessian_at_the_start_is_recomputed(rng, wrong):
    objective = costly(rng)
    plain = newton_cholesky(Convex(objective.A, objective.t), np.zeros((2, 5)), tol=1e-7, max_iter=50)
    start = plain.w + 0.01
    hessian = wrong * Convex.hessian(objective, start)[2]
    result = newton_cholesky(objective, start, tol=1e-6, max_iter=50, hessian=hessian)
    assert result.converged.all()
    assert objective.hessians >= 1
    np.testing.assert_allclose(result.value, plain.value, rtol=1e-11)


def test_an_accurate_hessian_at_the_start_is_enough(rng):
    objective = costly(rng)
    plain = newton_cholesky(Convex(objective.A, objective.t), np.zeros((2, 5)), tol=1e-7, max_iter=50)
    start = plain.w + 0.01
    hessian = 1.05 * Convex.hessian(objective, start)[2]
    result = newton_cholesky(objective, start, tol=1e-6, max_iter=50, hessian=hessian)
    assert result.converged.all()
    assert objective.hessians == 0
    np.testing.assert_allclose(result.value, plain.value, rtol=1e-11)


def test_the_last_of_steady_steps_costs_no_pass(rng):
    objective = costly(rng)
    plain = newton_cholesky(Convex(objective.A, objective.t), np.zeros((2, 5)), tol=1e-7, max_iter=50)
    start = plain.w + 0.01
    hessian = 1.1 * Convex.hessian(objective, start)[2]
    seen = []
    result = newton_cholesky(
        objective, start, tol=1e-6, max_iter=50, hessian=hessian, callback=lambda *step: seen.append(step)
    )
    assert result.converged.all()
    assert objective.hessians == 0
    assert objective.gradients == len(result.curve) - 1 == len(seen) > 2
    np.testing.assert_allclose(result.value, objective.value_and_gradient(result.w)[0], rtol=1e-13)
    np.testing.assert_allclose(result.value, plain.value, rtol=1e-13)
    silent = newton_cholesky(objective, start, tol=1e-6, max_iter=50, hessian=hessian)
    np.testing.assert_array_equal(silent.w, result.w)


@pytest.mark.parametrize("hidden", [3.0, 30.0, 300.0, 1e4])
@pytest.mark.parametrize("size", [1e-4, 1e-3, 1e-2])
def test_a_direction_in_which_an_earlier_hessian_is_too_large_hides_nothing(rng, hidden, size):
    objective = costly(rng)
    plain = newton_cholesky(Convex(objective.A, objective.t), np.zeros((2, 5)), tol=1e-7, max_iter=50)
    start = plain.w + 0.1
    start[:, 0] = plain.w[:, 0] + size
    hessian = 1.1 * Convex.hessian(objective, start)[2]
    hessian[:, 0, 0] *= hidden
    result = newton_cholesky(objective, start, tol=1e-4, max_iter=50, hessian=hessian)
    assert result.converged.all()
    np.testing.assert_allclose(result.value, plain.value, rtol=1e-8)


# solve_positive ----------------------------------------------------------------------------------------


def positive(rng, n):
    root = rng.normal(size=(n + 3, n))
    return root.T @ root


@pytest.mark.parametrize("n", [1, 2, 17])
def test_solve_positive_reads_the_lower_triangle_only(rng, n):
    matrix, rhs = positive(rng, n), rng.normal(size=n)
    lower = np.tril(matrix)
    lower[np.triu_indices(n, 1)] = np.nan
    kept = lower.copy()
    np.testing.assert_allclose(solve_positive(lower, rhs), np.linalg.solve(matrix, rhs), rtol=1e-9)
    np.testing.assert_array_equal(lower, kept)


def test_solve_positive_is_independent_of_units(rng):
    matrix, rhs = positive(rng, 6), rng.normal(size=6)
    unit = 10.0 ** np.array([-12, -6, 0, 0, 6, 12])
    expected = np.linalg.solve(matrix, rhs)
    found = solve_positive(matrix * unit * unit[:, None], rhs * unit)
    np.testing.assert_allclose(found * unit, expected, rtol=1e-8)


@pytest.mark.parametrize("case", ["rank one short", "zero row", "zero", "slightly indefinite"])
def test_solve_positive_of_a_singular_matrix_solves_what_can_be_solved(rng, case):
    root = rng.normal(size=(9, 5))
    if case == "rank one short":
        root[:, 4] = root[:, 0] - 2 * root[:, 1]
    elif case == "zero row":
        root[:, 2] = 0
    elif case == "zero":
        root[:] = 0
    matrix = root.T @ root
    if case == "slightly indefinite":
        values, vectors = np.linalg.eigh(matrix)
        values[0] = -1e-13
        matrix = vectors * values @ vectors.T
        rhs = vectors[:, 1:] @ rng.normal(size=4)
    else:
        rhs = matrix @ rng.normal(size=5)
    found = solve_positive(np.tril(matrix), rhs)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(matrix @ found, rhs, rtol=1e-5, atol=1e-6)
    assert rhs @ found >= 0


def test_solve_positive_of_nan_is_nan_and_ends():
    assert np.isnan(solve_positive(np.full((3, 3), np.nan), np.ones(3))).all()


def with_null_value(objective):
    null = objective.value_and_gradient(np.zeros((len(objective.A), objective.A.shape[2])))[0]
    objective.null_value = lambda **_: null
    return objective


def steep(rng, count=2):
    """Problems in different units, for which L-BFGS needs many iterations."""
    A = rng.normal(size=(count, 60, 12)) * np.logspace(-2, 2, 12)
    return with_null_value(Convex(A, rng.normal(size=(count, 60)), ridge=1e-3))


def easy(rng, count=2):
    return with_null_value(Convex(rng.normal(size=(count, 200, 3)), rng.normal(size=(count, 200)), ridge=1.0))


def test_what_lbfgs_solves_it_solves_alone(rng):
    objective, w = easy(rng), np.zeros((2, 3))
    names = []
    both = lbfgs_newton_cg(objective, w, tol=1e-6, max_iter=100, begins=names.append)
    alone = lbfgs(objective, w, tol=1e-6, max_iter=LBFGS_ITERATIONS)
    assert names == ["lbfgs"]
    assert both.converged.all()
    np.testing.assert_array_equal(both.w, alone.w)
    assert both.curve == alone.curve


def test_newton_goes_on_where_lbfgs_has_got_to(rng):
    objective, w = steep(rng), np.zeros((2, 12))
    seen, names = [], []
    both = lbfgs_newton_cg(
        objective,
        w,
        tol=1e-8,
        max_iter=300,
        callback=lambda n, w, value: seen.append((n, float(value.sum()))),
        begins=names.append,
    )
    newton = newton_cg(objective, w, tol=1e-8, max_iter=300)
    assert names == ["lbfgs", "newton-cg"]
    assert both.converged.all()
    np.testing.assert_allclose(both.value, newton.value, rtol=1e-10)
    assert both.n_iter.max() == len(both.curve) - 1
    assert (both.n_iter > LBFGS_ITERATIONS).all()
    # one curve, one count
    assert [n for n, _ in seen] == list(range(1, len(both.curve)))
    assert [value for _, value in seen] == both.curve[1:]
    assert (np.diff(both.curve) <= 1e-12 * np.abs(both.curve[:-1])).all()


@pytest.mark.parametrize("max_iter", [0, 1, 3, 4, 10])
def test_max_iter_counts_the_iterations_of_both(rng, max_iter):
    names = []
    result = lbfgs_newton_cg(steep(rng), np.zeros((2, 12)), tol=0.0, max_iter=max_iter, begins=names.append)
    assert (result.n_iter == max_iter).all()
    assert len(result.curve) == max_iter + 1
    assert names == ["newton-cg"] if max_iter < 4 else ["lbfgs", "newton-cg"]


def test_a_problem_that_lbfgs_has_solved_may_wait_for_the_others(rng):
    A, t = rng.normal(size=(2, 60, 12)), rng.normal(size=(2, 60))
    A[1] *= np.logspace(-2, 2, 12)
    objective = with_null_value(Convex(A, t, ridge=1e-3))
    result = lbfgs_newton_cg(objective, np.zeros((2, 12)), tol=1e-6, max_iter=100)
    assert result.converged.all()
    alone = newton_cg(objective, np.zeros((2, 12)), tol=1e-6, max_iter=100)
    np.testing.assert_allclose(result.value, alone.value, rtol=1e-9)
    assert result.n_iter[0] < result.n_iter[1]


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_array])
def test_rows_without_weight_in_one_block_leave_the_next_ones_as_they_are(rng, container):
    X = rng.normal(size=(3_000, 25))
    y = np.argmax(X[:, :6] + [3, 0, 0, 0, -1, -2] + rng.gumbel(size=(3_000, 6)), axis=1)
    weight = rng.integers(0, 3, size=3_000).astype(float)
    kept = weight > 0
    model = SoftmaxClassifier(solver="newton-cholesky", tol=1e-7)
    expected = clone(model).fit(X[kept], y[kept], weight[kept])
    model.fit(container(X), y, weight)
    np.testing.assert_allclose(model.loss_, expected.loss_, rtol=1e-12)
    np.testing.assert_allclose(model.intercept_, expected.intercept_, rtol=0, atol=1e-8)


class Misled(Convex):
    """Rough products that miss nearly all of the curvature."""

    exact = 0

    def rough_product(self, v):
        return 1e-3 * super().product(v)

    def product(self, v):
        self.exact += 1
        return super().product(v)


def test_newton_cg_leaves_rough_products_that_mislead_it(rng):
    objective = problems(rng)
    misled = Misled(objective.A, objective.t)
    result = newton_cg(misled, np.zeros((3, 5)), tol=1e-8, max_iter=100)
    assert misled.exact
    assert result.converged.all()
    expected = newton_cg(objective, np.zeros((3, 5)), tol=1e-8, max_iter=100)
    np.testing.assert_allclose(result.value, expected.value, rtol=1e-12)


@pytest.mark.parametrize("start", [-1e-6, 0.0, 1e-6, 1e-5])
def test_systems_that_rounding_turns_uphill_do_not_end_a_fit(start):
    """In float32, 1 - p of the most probable class is lost before the loss has vanished."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(240, 6)) * np.logspace(-1, 1, 6)
    codes = (X @ rng.normal(size=(6, 3)) + rng.gumbel(size=(240, 3))).argmax(axis=1)
    X[np.arange(240), codes] += 100.0
    data = Dataset(X.astype(np.float32), codes=codes, outputs=3)
    objective = LinearObjective(make_passes(data, CrossEntropy(), fit_intercept=True), np.inf)
    found = newton_cg(objective, np.full(objective.shape, start), tol=1e-4, max_iter=300)
    assert found.vanished.all()
