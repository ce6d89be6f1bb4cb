"""L-BFGS: line search, memory, several problems at once, and the stopping rule."""

import numpy as np
import pytest
import scipy.optimize

from sklloss import LogisticClassifier
from sklloss.objectives.linear import LinearObjective
from sklloss.solvers.base import allowed_gap, exhausted, has_vanished
from sklloss.solvers.lbfgs import lbfgs


class Rosenbrock:
    """A curved valley for each problem: not convex, and hard without curvature."""

    noise = 1e-15
    penalised = True
    residual_floor = 1e-20
    exact_gradient = True
    null_value = staticmethod(lambda: np.inf)

    def __init__(self, steepness):
        self.steepness = np.asarray(steepness, dtype=float)

    def value_and_gradient(self, w):
        s = self.steepness
        height = w[:, 1] - w[:, 0] ** 2
        value = 1 + s * height**2 + (1 - w[:, 0]) ** 2
        gradient = np.column_stack([-4 * s * height * w[:, 0] - 2 * (1 - w[:, 0]), 2 * s * height])
        return value, gradient


class Quadratic:
    """(w - target)' H (w - target) / 2 + 1."""

    noise = 1e-15
    penalised = True
    residual_floor = 1e-20
    exact_gradient = True
    null_value = staticmethod(lambda: np.inf)

    def __init__(self, H, target):
        self.H, self.target = H, target

    def value_and_gradient(self, w):
        d = w - self.target
        g = np.einsum("bij,bj->bi", self.H, d)
        return 1 + np.einsum("bi,bi->b", d, g) / 2, g


class Preconditioned(Quadratic):
    def preconditioner(self):
        return lambda x: np.stack([np.linalg.solve(H, v) for H, v in zip(self.H, x)])


def quadratic(rng, kind=Quadratic, count=2, size=6):
    roots = rng.normal(size=(count, size + 2, size)) * np.logspace(-1, 1, size)
    H = np.einsum("bni,bnj->bij", roots, roots)
    return kind(H, rng.normal(size=(count, size)))


def test_several_curved_valleys_are_followed_at_once():
    result = lbfgs(Rosenbrock([1.0, 100.0]), np.array([[-1.2, 1.0], [-1.2, 1.0]]), tol=1e-7, max_iter=500)
    assert result.converged.all()
    np.testing.assert_allclose(result.w, 1, rtol=1e-5)
    assert result.n_iter[0] != result.n_iter[1]


def test_no_more_passes_are_taken_than_by_scipy(rng):
    objective = quadratic(rng, count=1, size=20)
    passes = {"mine": 0, "theirs": 0}
    reached = {"mine": None, "theirs": None}

    class Counting:
        noise = 1e-15
        penalised = True
        residual_floor = 1e-20
        exact_gradient = True
        null_value = staticmethod(lambda: np.inf)

        def __init__(self, whose):
            self.whose = whose

        def value_and_gradient(self, w):
            value, gradient = objective.value_and_gradient(w)
            passes[self.whose] += 1
            if value[0] - 1 < 1e-6 and reached[self.whose] is None:
                reached[self.whose] = passes[self.whose]
            return value, gradient

    theirs = Counting("theirs")
    mine = lbfgs(Counting("mine"), np.zeros((1, 20)), tol=1e-5, max_iter=5000)
    scipy.optimize.minimize(
        lambda x: tuple(part[0] for part in theirs.value_and_gradient(x[None])),
        np.zeros(20),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 10_000, "maxfun": 100_000},
    )
    assert mine.converged.all()
    np.testing.assert_allclose(mine.value[0], 1, rtol=1e-7)
    assert reached["mine"] < 1.5 * reached["theirs"]


def test_a_converged_problem_does_not_move(rng):
    objective = quadratic(rng)
    start = objective.target.copy()
    start[1] += 3
    result = lbfgs(objective, start, tol=1e-6, max_iter=500)
    assert result.converged.all()
    np.testing.assert_array_equal(result.w[0], objective.target[0])
    np.testing.assert_allclose(result.w[1], objective.target[1], atol=1e-4)
    assert result.n_iter[0] <= 2 < result.n_iter[1]


def test_an_exact_preconditioner_makes_it_newtons_method(rng):
    objective = quadratic(rng, Preconditioned)
    result = lbfgs(objective, np.zeros((2, 6)), tol=1e-6, max_iter=50)
    assert result.n_iter.max() <= 3
    np.testing.assert_allclose(result.w, objective.target, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("memory", [1, 3, 10, 100])
def test_it_converges_with_any_memory(rng, memory):
    objective = quadratic(rng)
    result = lbfgs(objective, np.zeros((2, 6)), tol=1e-6, max_iter=5000, memory=memory)
    assert result.converged.all()
    np.testing.assert_allclose(result.value, 1, rtol=1e-9)


def test_callbacks_see_the_curve_and_the_start_is_not_written_to():
    seen = []
    start = np.array([[-1.2, 1.0]])
    kept = start.copy()
    result = lbfgs(
        Rosenbrock([100.0]), start, tol=1e-6, max_iter=500, callback=lambda i, w, v: seen.append((i, v.sum()))
    )
    np.testing.assert_array_equal(start, kept)
    assert [i for i, _ in seen] == list(range(1, result.n_iter.max() + 1))
    assert [v for _, v in seen] == result.curve[1:]
    assert np.all(np.diff(result.curve) <= 1e-14)
    assert result.curve[-1] == result.value.sum()
    none = lbfgs(Rosenbrock([100.0]), start, tol=1e-6, max_iter=0)
    np.testing.assert_array_equal(none.w, start)
    assert not none.converged.any()


class Cliff(Quadratic):
    def value_and_gradient(self, w):
        value, gradient = super().value_and_gradient(w)
        beyond = np.abs(w).max(axis=1) > 2
        value[beyond], gradient[beyond] = np.nan, np.nan
        return value, gradient


def test_a_step_to_where_the_objective_is_nan_is_shortened():
    objective = Cliff(np.eye(3)[None] * 1e4, np.full((1, 3), 1.5))
    result = lbfgs(objective, np.zeros((1, 3)), tol=1e-6, max_iter=100)
    assert result.converged.all()
    np.testing.assert_allclose(result.w, 1.5, rtol=1e-4)


class Wrong(Quadratic):
    """A gradient that points uphill: no step lowers the value."""

    def value_and_gradient(self, w):
        value, gradient = super().value_and_gradient(w)
        return value, -gradient


def test_no_step_at_all_is_not_convergence(rng):
    objective = quadratic(rng, Wrong)
    result = lbfgs(objective, np.zeros((2, 6)), tol=1e-6, max_iter=50)
    assert not result.converged.any()
    np.testing.assert_array_equal(result.w, 0)
    assert np.isfinite(result.value).all()


def test_the_allowed_gap_is_relative_and_an_objective_that_vanishes_has_no_minimum():
    np.testing.assert_allclose(allowed_gap(np.array([5.0]), 1e-3), [5e-6])
    assert exhausted(np.array([1e-9]), np.array([1.0])).all()
    assert not exhausted(np.array([1e-3]), np.array([1.0])).any()
    value, start = np.array([1e-8, 1e-10, 1e-16]), np.ones(3)
    penalised, free = Rosenbrock([1.0]), Rosenbrock([1.0])
    free.penalised = False
    assert has_vanished(free, value, start).tolist() == [False, True, True]
    assert has_vanished(penalised, value, start).tolist() == [False, False, True]


def test_an_objective_below_zero_has_not_vanished():
    value = np.array([-1.0, -1e-20, 0.0, 0.0])
    assert has_vanished(Rosenbrock([1.0]), value, np.array([1.0, 1.0, 1.0, 0.0])).tolist() == [
        *(False, False, True, False)
    ]


class Renewed(Quadratic):
    """A preconditioner that is poor at first, and the Hessian itself when asked for again."""

    local_cost = 3

    def __init__(self, H, target):
        super().__init__(H, target)
        self.asked = []

    def preconditioner(self):
        return np.copy

    def preconditioner_at(self, w):
        self.asked.append(w)
        return lambda x: np.stack([np.linalg.solve(H, v) for H, v in zip(self.H, x)])


def test_a_long_fit_renews_its_preconditioner(rng):
    plain = quadratic(rng, count=2, size=40)
    objective = Renewed(plain.H, plain.target)
    start = np.zeros((2, 40))
    result = lbfgs(objective, start, tol=1e-7, max_iter=500)
    assert result.converged.all()
    np.testing.assert_allclose(result.w, plain.target, rtol=1e-4, atol=1e-5)
    assert result.n_iter.max() < 20 < lbfgs(plain, start, tol=1e-7, max_iter=500).n_iter.max()
    assert len(objective.asked) == 1
    objective.asked.clear()
    objective.local_cost = 15
    assert 15 < lbfgs(objective, start, tol=1e-7, max_iter=500).n_iter.max() < 25
    # a preconditioner that is not available changes nothing
    objective.preconditioner_at = lambda w: None
    np.testing.assert_array_equal(
        lbfgs(objective, start, tol=1e-7, max_iter=500).w, lbfgs(plain, start, tol=1e-7, max_iter=500).w
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_line_search_ends_where_rounding_hides_the_decrease(seed, monkeypatch):
    # the requested accuracy is below float32's rounding
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(150, 4)).astype(np.float32)
    y = X @ rng.normal(size=(4, 3)) + rng.normal(size=(150, 3)) > 0
    calls = []
    passes = LinearObjective.value_and_gradient
    monkeypatch.setattr(
        LinearObjective, "value_and_gradient", lambda self, w: calls.append(0) or passes(self, w)
    )
    model = LogisticClassifier(solver="lbfgs", tol=1e-6).fit(X, y)
    assert len(calls) < model.n_iter_.max() + 10
    precise = LogisticClassifier(tol=1e-6).fit(X.astype(float), y)
    np.testing.assert_allclose(model.coef_, precise.coef_, rtol=1e-3, atol=1e-4)
