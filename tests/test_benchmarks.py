"""What the benchmarks count and compare: the limit of the machine, passes of a fit, rows of the table."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
from sklearn.exceptions import ConvergenceWarning

from sklloss import LogisticClassifier, MLPRegressor, SoftmaxClassifier
from sklloss.objectives.numpy_passes import NumPyPasses

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

if not FOLDER.is_dir():
    pytest.skip("not a clone", allow_module_level=True)


@pytest.fixture
def benchmarks(monkeypatch):
    """A function that imports a module of the benchmarks."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def limits(benchmarks):
    machine = benchmarks("machine")
    limits = object.__new__(machine.Limits)
    limits.levels = [("L1", 1000), ("memory", float("inf"))]
    limits.peaks = {("float32", 1): 200.0, ("float32", machine.CPUS): 400.0}
    limits.bandwidths = {("L1", 1): 100.0, ("memory", 1): 10.0}
    limits.bandwidths |= {("L1", machine.CPUS): 100.0, ("memory", machine.CPUS): 20.0}
    return limits


@pytest.mark.parametrize(
    ("flops", "moved", "times", "threads", "seconds"),
    [
        (1000, 10, 1, 1, 5.0),  # operations
        (0, 500, 1, 1, 5.0),  # a cache
        (0, 2000, 1, 1, 200.0),  # memory
        (1000, 10, 3, 1, 15.0),
    ],
)
def test_a_limit_is_the_slower_of_operations_and_bytes(
    benchmarks, limits, flops, moved, times, threads, seconds
):
    work = benchmarks("machine").Work(flops, moved, "float32", times, threads)
    assert limits.seconds(work) == seconds


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg", "newton-cholesky"])
@pytest.mark.parametrize("classes", [2, 3])
def test_every_pass_of_a_fit_is_counted(benchmarks, solver, classes):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 5)), rng.integers(0, classes, 200)
    before = NumPyPasses.value_and_gradient
    with benchmarks("counting").counted() as works:
        model = (SoftmaxClassifier if classes > 2 else LogisticClassifier)(solver=solver).fit(X, y)
    assert NumPyPasses.value_and_gradient is before
    assert sum(work.times for work in works) >= model.n_iter_.max()
    outputs = classes if classes > 2 else 1
    least = 4 * X.size * outputs
    assert sum(work.flops * work.times for work in works) >= least * model.n_iter_.max()


def test_an_epoch_of_a_network_counts_its_products(benchmarks):
    X = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    network = MLPRegressor(hidden_layer_sizes=(8,), batch_size=100, max_iter=3, n_iter_no_change=9, tol=0)
    with pytest.warns(ConvergenceWarning), benchmarks("counting").counted() as works:
        network.fit(X, X[:, 0])
    assert [work.times for work in works] == [3]
    assert works[0].flops == 100 * (4 * 4 * 8 + 6 * 8 * 1) + 12 * (5 * 8 + 9)


def test_the_rows_of_the_table_name_rivals_that_exist(benchmarks):
    problems, rivals, table = benchmarks("problems"), benchmarks("rivals"), benchmarks("groups.table")
    rows = problems.selected("table", quick=False, data=None)[0]
    assert rows
    for spec in rows:
        assert spec.group in table.GROUPS
        assert spec.against == problems.ALL or set(spec.against) <= set(rivals.RIVALS)


def test_further_files_of_a_folder_become_problems(benchmarks, tmp_path):
    problems = benchmarks("problems")
    y = np.array(["b", "a", "c", "a"])
    np.savez(tmp_path / "mine.npz", X=np.arange(8).reshape(4, 2), y=y)
    problems.add_tables(str(tmp_path))
    problem = problems.load("mine", str(tmp_path))
    assert problem.objective == "softmax"
    np.testing.assert_array_equal(problem.y, [1, 0, 2, 0])


def test_a_row_keeps_slow_solvers_that_it_shows_beside_the_fastest(benchmarks, tmp_path):
    known = benchmarks("groups.known").Known(tmp_path, fresh=False)
    way = ("scikit-learn", "saga")
    entrants = [("sklloss", "auto"), ("scikit-learn", "lbfgs"), way]
    for rival, solver, seconds in ((*entrants[1], 1.0), (*way, 9.0)):
        known.keep("p", rival, solver, {1e-5: {"setting": {}, "seconds": seconds}}, None)
    assert known.fastest("p", entrants, 1e-5) == entrants[:2]
    assert known.fastest("p", entrants, 1e-5, ("saga",)) == entrants


REGRESSIONS = [
    ("squared_error", None, 0.0),
    ("squared_error", None, 1.0),
    ("squared_error", None, 0.5),
    ("huber", 0.5, 0.0),
    ("log_cosh", None, 0.0),
    ("poisson", None, 0.0),
    ("gamma", None, 0.0),
    ("quantile", 0.5, 1.0),
    ("quantile", 0.8, 1.0),
    ("quantile", 0.8, 0.5),
    ("quantile", 0.8, 0.0),
]


def regression(benchmarks, loss, parameter, l1_ratio, alpha=0.01):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 4))
    y = np.exp(0.5 * X[:, 0] - 0.2 * X[:, 1] + 0.3 * rng.standard_normal(300))
    return benchmarks("kinds").RegressionProblem(X, y, loss, alpha, l1_ratio, parameter)


@pytest.mark.filterwarnings("ignore")  # of loose settings
@pytest.mark.parametrize(("loss", "parameter", "l1_ratio"), REGRESSIONS)
def test_every_regressor_reaches_the_optimum_of_what_it_is_asked(benchmarks, loss, parameter, l1_ratio):
    rivals, reference = benchmarks("rivals"), benchmarks("reference")
    problem = regression(benchmarks, loss, parameter, l1_ratio)
    measured = []
    for rival in rivals.RIVALS.values():
        if rival.absent():
            continue
        for way in rival.ways(problem, {"quick": False}):
            asked = rival.asked(problem, way)
            # rehline stops short where nearly all of the penalty is L1, as its rows say
            if asked is None or (rival.name == "rehline" and asked.l1_ratio > 0.9):
                continue
            best, gap = reference.solve(asked)[0], np.inf
            for setting in rival.ladder(problem, way):
                job = rival.job(problem, way, setting)
                found = job.read(job.run())
                value = reference.objective(asked, found["coef"], found["intercept"])
                gap = value / best - 1
                assert gap > -1e-9, (rival.name, way, setting)  # nobody gets below the reference
                if gap <= 1e-6:
                    break
            assert gap <= 1e-6, (rival.name, way, gap)
            measured.append(rival.name)
    assert "sklloss" in measured
    assert loss in ("huber", "log_cosh") or "scikit-learn" in measured


def test_both_searches_over_alpha_fit_the_one_that_the_problem_names(benchmarks):
    rivals, reference, kinds = benchmarks("rivals"), benchmarks("reference"), benchmarks("kinds")
    plain = regression(benchmarks, "poisson", None, 0.0)
    alphas = np.logspace(1, -3, 5)
    problem = kinds.RegressionPathProblem(plain.X, plain.y, "poisson", alphas[4], alphas=alphas, folds=3)
    best = reference.solve(problem)[0]
    for rival in (rivals.get("sklloss"), rivals.get("scikit-learn")):
        (way,) = rival.ways(problem, {"quick": False})
        job = rival.job(problem, way, rival.ladder(problem, way)[0])
        found = job.read(job.run())
        assert reference.objective(problem, found["coef"], found["intercept"]) / best - 1 <= 1e-6


def test_the_reference_of_a_quantile_is_the_optimum_of_the_linear_programme(benchmarks):
    problem = regression(benchmarks, "quantile", 0.8, 1.0)
    n, p = problem.X.shape
    costs = np.r_[np.full(2 * p, problem.alpha), 0, 0, np.full(n, 0.8 / n), np.full(n, 0.2 / n)]
    ones, eye = np.ones((n, 1)), np.eye(n)
    rows = np.hstack([problem.X, -problem.X, ones, -ones, eye, -eye])
    programme = scipy.optimize.linprog(costs, A_eq=rows, b_eq=problem.y, method="highs")
    value, left = benchmarks("reference").solve(problem)
    assert value == pytest.approx(programme.fun, rel=1e-9)
    assert left <= 1e-9 * value


def test_targets_of_regressions_name_rivals_and_limits_that_exist(benchmarks):
    problems, rivals = benchmarks("problems"), benchmarks("rivals")
    specs = [spec for spec in problems.PROBLEMS.values() if spec.group == "regression"]
    assert specs
    for spec in specs:
        assert set(spec.targets) <= {*rivals.RIVALS, "seconds", "memory"}


def test_the_table_of_targets_says_which_are_missed(benchmarks):
    common = {"group": "regression", "target": "1e-06", "way": "w", "setting": ""}

    def row(problem, rival, seconds, ratio, wanted, **more):
        times = {"times": [seconds], "seconds": seconds, "ratio": [ratio] * 3, "gap": 1e-9}
        return {**common, "problem": problem, "rival": rival, "wanted": wanted, **times, **more}

    rows = [
        row("a", "sklloss", 1.0, 1.0, 5, role="base"),
        row("a", "fast", 0.5, 0.5, 1),
        row("a", "slow", 20.0, 20.0, 10, once=0.25, asked="alpha=0"),
        {**common, "problem": "a", "rival": "lost", "wanted": 2, "over": 60.0, "error": "not done"},
    ]
    table, _, missed = benchmarks("report").targets(rows).partition("\n\n")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert [line[6] for line in cells[2:]] == ["yes", "NO", "yes", "-"]
    assert cells[4][-1] == "alpha=0; of an earlier run, while others kept 0.2 CPUs busy"
    assert cells[5][3] == "> 60 s"
    assert missed.splitlines() == ["Targets missed:", "- a: 0.5x fast w, wanted 1x"]


def test_fits_that_are_long_or_reach_no_gap_are_kept(benchmarks, tmp_path):
    Known = benchmarks("groups.known").Known
    ladder = [{"tol": 1.0}, {"tol": 0.1}, {"tol": 0.01}]
    known = Known(tmp_path, fresh=False)
    known.keep_once("p", "scikit-learn", "w", "avx2", {"seconds": 99.0})
    known.keep_nearest("p", "scikit-learn", "w", {"setting": ladder[1], "seconds": 2.0})
    known = Known(tmp_path, fresh=False)
    assert known.once("p", "scikit-learn", "w", "avx2") == {"seconds": 99.0}
    assert known.once("p", "scikit-learn", "w", "avx512") is None
    assert known.order("p", "scikit-learn", "w", ladder, (1e-6,)) == [(ladder[1], 2.0)]
    fresh = Known(tmp_path, fresh=True)
    assert fresh.once("p", "scikit-learn", "w", "avx2") is None
    fresh.keep_once("q", "scikit-learn", "w", "avx2", {"seconds": 1.0})
    known = Known(tmp_path, fresh=False)
    assert [known.once(p, "scikit-learn", "w", "avx2")["seconds"] for p in "pq"] == [99.0, 1.0]
