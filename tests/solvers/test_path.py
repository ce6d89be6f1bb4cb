"""Paths of penalties: every point is the optimum that a separate fit would reach, at less cost."""

import numpy as np
import pytest
import scipy.sparse

from sklloss import losses
from sklloss.data.dataset import Dataset
from sklloss.objectives.linear import LinearObjective
from sklloss.objectives.numpy_passes import NumPyPasses
from sklloss.solvers import newton_cg as newton_cg_module
from sklloss.solvers.lbfgs import lbfgs
from sklloss.solvers.newton import newton_cholesky
from sklloss.solvers.newton_cg import PreconditionerCache, newton_cg
from sklloss.solvers.path import follow_path, newton_path

GRIDS = {
    "fine": np.logspace(-4, 4, 40),
    "coarse": np.logspace(-4, 4, 5),
    "one": [1.0],
    "uneven, with repetitions": [1e-3, 0.01, 0.01, 0.02, 0.021, 0.022, 0.03, 0.03, 5.0, 5.5, 6.0, 100.0],
    "up to none": [0.1, 1.0, 10.0, 100.0, np.inf, np.inf],
    "none alone": [np.inf],
}
KINDS = ["binary", "one-vs-rest", "soft labels", "softmax", "soft classes"]


def rows_of(rng, kind, n=300, p=4, *, fit_intercept=True, dtype=np.float64, sparse=False, weighted=False):
    X = rng.normal(size=(n, p)) * np.array([1, 10, 0.1, 3])[:p]
    X = X.astype(dtype)
    K = 1 if kind == "binary" else 3
    raw = X / X.std(axis=0) @ rng.normal(size=(p, K))
    values = codes = None
    if kind == "softmax":
        codes = (raw + rng.gumbel(size=raw.shape)).argmax(axis=1)
    elif kind == "soft classes":
        values = losses.CrossEntropy().predict(raw + rng.normal(size=raw.shape)).astype(dtype)
    elif kind == "soft labels":
        values = losses.LogLoss().predict(raw + rng.normal(size=raw.shape)).astype(dtype)
    else:
        values = (raw + rng.logistic(size=raw.shape) > 0).astype(dtype)
    loss = losses.CrossEntropy() if "class" in kind or kind == "softmax" else losses.LogLoss()
    weight = rng.exponential(size=n).astype(dtype) if weighted else None
    X = scipy.sparse.csr_matrix(X) if sparse else X
    return NumPyPasses(Dataset(X, values, codes, weight, K), loss, fit_intercept=fit_intercept, center=True)


def walk(rows, Cs, *, tol=1e-4, max_iter=100, solver=newton_cholesky):
    objectives = [LinearObjective(rows, C) for C in Cs]
    start = np.zeros(objectives[0].shape)

    def minimise(objective, w):
        return solver(objective, w, tol=tol, max_iter=max_iter)

    return list(newton_path(objectives, start, minimise, tol=tol, max_iter=max_iter))


def gaps(path):
    """The relative gap of each point to its optimum, found by a separate fit from 0."""
    for objective, result in path:
        best = newton_cholesky(objective, np.zeros(objective.shape), tol=1e-7, max_iter=1000).value
        yield ((objective.value_and_gradient(result.w)[0] - best) / best).max()


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS)
def test_every_point_of_a_path_is_within_tol_of_its_optimum(rng, grid, kind, fit_intercept):
    rows = rows_of(rng, kind, fit_intercept=fit_intercept)
    path = walk(rows, GRIDS[grid])
    assert len(path) == len(GRIDS[grid])
    assert all(result.converged.all() for _, result in path)
    assert all((result.n_iter >= 1).all() for _, result in path)
    assert max(gaps(path)) < 1e-7
    for objective, result in path:
        np.testing.assert_allclose(result.value, objective.value_and_gradient(result.w)[0], rtol=1e-12)


@pytest.mark.parametrize("kind", ["binary", "softmax"])
def test_a_smaller_tol_gives_a_more_accurate_path(rng, kind):
    path = walk(rows_of(rng, kind), GRIDS["fine"], tol=1e-6)
    assert max(gaps(path)) < 1e-11


@pytest.mark.parametrize(
    "options",
    [{"weighted": True}, {"sparse": True}, {"dtype": np.float32}],
    ids=["weights", "CSR", "float32"],
)
@pytest.mark.parametrize("kind", ["one-vs-rest", "soft labels", "softmax"])
def test_a_path_with_weights_sparse_rows_or_float32_ends_at_its_optima(rng, kind, options):
    path = walk(rows_of(rng, kind, **options), GRIDS["fine"])
    assert max(gaps(path)) < (1e-5 if "dtype" in options else 1e-7)


def test_a_fine_grid_needs_few_hessians_and_few_passes(rng, monkeypatch):
    rows = rows_of(rng, "softmax", n=1000)
    calls = {"hessian": 0, "value_and_gradient": 0}
    for name in calls:
        one_pass = getattr(NumPyPasses, name)

        def counted(self, *args, name=name, one_pass=one_pass, **options):
            calls[name] += 1
            return one_pass(self, *args, **options)

        monkeypatch.setattr(NumPyPasses, name, counted)
    walk(rows, np.logspace(-4, 4, 50))
    assert calls["hessian"] <= 25
    assert calls["value_and_gradient"] <= 250


@pytest.mark.parametrize("solver", [newton_cg, lbfgs, newton_cholesky])
def test_any_solver_can_follow_a_path(rng, solver):
    rows = rows_of(rng, "softmax")
    objectives = [LinearObjective(rows, C) for C in GRIDS["fine"]]

    def minimise(objective, w):
        return solver(objective, w, tol=1e-4, max_iter=500)

    path = list(follow_path(objectives, np.zeros(objectives[0].shape), minimise))
    assert max(gaps(path)) < 1e-7
    alone = [minimise(objective, np.zeros(objective.shape)) for objective in objectives]
    assert sum(r.n_iter[0] for _, r in path) < 0.9 * sum(r.n_iter[0] for r in alone)


def test_the_solver_takes_over_where_iterations_are_few(rng):
    rows = rows_of(rng, "binary")
    by_solver = []

    def spy(objective, w, *, tol, max_iter):
        by_solver.append(objective.scale)
        return newton_cholesky(objective, w, tol=tol, max_iter=max_iter)

    walk(rows, GRIDS["fine"], solver=spy)
    assert len(by_solver) < len(GRIDS["fine"])
    by_solver.clear()
    path = walk(rows, GRIDS["fine"], max_iter=2, solver=spy)
    assert by_solver == list(GRIDS["fine"])
    assert not all(result.converged.all() for _, result in path)
    assert max(result.n_iter.max() for _, result in path) == 2


@pytest.mark.parametrize("grid", GRIDS)
def test_newton_cg_starts_nearer_to_the_optimum_than_the_last_one_is(rng, grid):
    rows, starts, cache = rows_of(rng, "softmax", n=1000), [], PreconditionerCache()

    def minimise(objective, w):
        starts.append(w)
        return newton_cg(objective, w, tol=1e-4, max_iter=100, cache=cache if w.any() else None)

    objectives = [LinearObjective(rows, C) for C in GRIDS[grid]]
    path = list(follow_path(objectives, np.zeros(objectives[0].shape), minimise))
    assert max(gaps(path)) < 1e-7
    for k in range(2, len(path) if grid == "fine" else 0):
        objective, result = path[k]
        at_start, at_last = (objective.value_and_gradient(w)[0][0] for w in (starts[k], path[k - 1][1].w))
        assert at_start - result.value[0] < 0.2 * (at_last - result.value[0]) + 1e-7 * result.value[0]


def test_newton_cg_takes_fewer_steps_where_a_start_is_near(rng, monkeypatch):
    rows = rows_of(rng, "softmax", n=1000)
    objectives = [LinearObjective(rows, C) for C in GRIDS["fine"]]

    def walked():
        cache, starts = PreconditionerCache(), np.zeros(objectives[0].shape)

        def minimise(objective, w):
            return newton_cg(objective, w, tol=1e-4, max_iter=100, cache=cache if w.any() else None)

        path = list(follow_path(objectives, starts, minimise))
        assert max(gaps(path)) < 1e-7
        return sum(result.n_iter.max() for _, result in path)

    steps = walked()
    monkeypatch.setattr(newton_cg_module, "LOOSEST_GAPS", np.inf)
    assert steps < 0.95 * walked()


@pytest.mark.parametrize("kind", ["binary", "softmax"])
@pytest.mark.parametrize("grid", GRIDS)
def test_compiled_steps_follow_a_path_of_a_small_problem(rng, grid, kind):
    rows = rows_of(rng, kind)
    objectives = [LinearObjective(rows, C) for C in GRIDS[grid]]
    assert all(objective.takes_newton_steps for objective in objectives)
    assert not LinearObjective(rows_of(rng, "one-vs-rest"), 1.0).takes_newton_steps
    assert not LinearObjective(rows_of(rng, "binary", n=100_000), 1.0).takes_newton_steps

    def minimise(objective, w):
        return newton_cholesky(objective, w, tol=1e-4, max_iter=100)

    path = list(follow_path(objectives, np.zeros(objectives[0].shape), minimise))
    assert all(result.converged.all() for _, result in path)
    assert max(gaps(path)) < 1e-7


def test_an_output_without_an_optimum_does_not_stop_the_others(rng):
    rows = rows_of(rng, "one-vs-rest")
    values = rows.data.values.copy()
    values[:, 1] = 0.0
    rows = NumPyPasses(Dataset(rows.X, values, None, None, 3), losses.LogLoss(), fit_intercept=True)
    for objective, result in walk(rows, GRIDS["coarse"]):
        np.testing.assert_array_equal(result.converged | result.vanished, True)
        assert result.vanished[1]
        best = newton_cholesky(objective, np.zeros(objective.shape), tol=1e-7, max_iter=1000)
        np.testing.assert_allclose(result.value[[0, 2]], best.value[[0, 2]], rtol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_value_gradient_and_hessian_are_converted_to_another_penalty(rng, kind):
    rows = rows_of(rng, kind)
    w = rng.normal(size=LinearObjective(rows, 1.0).shape)
    for pair in [(0.3, 7.0), (np.inf, np.inf)]:
        one, other = (LinearObjective(rows, C) for C in pair)
        value, gradient, hessian = one.hessian(w)
        new_value, new_gradient = other.value_and_gradient_from(one, w, value, gradient)
        expected = other.hessian(w)
        np.testing.assert_allclose(new_value, expected[0], rtol=1e-12)
        np.testing.assert_allclose(new_gradient, expected[1], rtol=1e-9, atol=1e-9 * abs(expected[1]).max())
        lower = np.tril(other.hessian_from(one, hessian))
        np.testing.assert_allclose(lower, np.tril(expected[2]), rtol=1e-9, atol=1e-9 * abs(lower).max())


def test_what_does_not_depend_on_the_penalty_is_computed_once(rng):
    rows = rows_of(rng, "softmax")
    assert rows.gram() is rows.gram()
    assert rows.null_sums() is rows.null_sums()
    w = np.zeros(LinearObjective(rows, 1.0).shape)
    for C in (0.5, np.inf):
        objective = LinearObjective(rows, C)
        np.testing.assert_array_equal(objective.null_value(), objective.value_and_gradient(w)[0])


def test_rounding_errors_do_not_accumulate_along_a_path(rng):
    # The shift that all outputs of a softmax have in common is held by the penalty alone, which the Hessian
    # of a column this large does not even show.
    rows = rows_of(rng, "softmax", fit_intercept=False)
    rows = NumPyPasses(
        Dataset(rows.X * [1e6, 1, 1e-6, 1], None, rows.codes, None, 3), rows.loss, fit_intercept=False
    )
    path = walk(rows, np.logspace(-8, 8, 50))
    for objective, result in path[::7]:
        alone = newton_cholesky(objective, np.zeros(objective.shape), tol=1e-6, max_iter=100)
        assert result.value[0] <= alone.value[0] * (1 + 1e-7)
        np.testing.assert_allclose(objective.coef(result.w).sum(axis=0), 0.0, atol=1e-6 * abs(result.w).max())


def test_only_a_penalised_softmax_loses_its_common_shift(rng):
    for kind in KINDS:
        rows = rows_of(rng, kind)
        w = rng.normal(size=LinearObjective(rows, 1.0).shape)
        assert LinearObjective(rows, np.inf).without_shift(w) is w
        objective = LinearObjective(rows, 1.0)
        kept = objective.without_shift(w)
        if not kind.startswith("soft") or kind == "soft labels":
            assert kept is w
            continue
        np.testing.assert_allclose(objective.coef(kept).sum(axis=0), 0.0, atol=1e-12)
        free = LinearObjective(rows, np.inf)
        np.testing.assert_allclose(
            free.value_and_gradient(kept)[0], free.value_and_gradient(w)[0], rtol=1e-12
        )
