"""What the benchmarks count and compare: the limit of the machine, passes of a fit, rows of the table."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
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
