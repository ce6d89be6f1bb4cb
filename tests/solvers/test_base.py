"""What all solvers share: the check of the objective, the start, and how problems end."""

import numpy as np
import pytest

from sklloss.solvers.base import GradientObjective, Progress, evaluate_start, require
from sklloss.solvers.lbfgs import lbfgs
from sklloss.solvers.newton import newton_cholesky
from sklloss.solvers.newton_cg import newton_cg
from sklloss.solvers.proximal_newton import proximal_newton


class GradientOnly:
    noise = 1e-15
    penalised = True

    def null_value(self, *, exact=False):
        return np.inf

    def value_and_gradient(self, w):
        return 1.0 + 0.5 * (w * w).sum(axis=1), w.copy()


def test_an_objective_with_all_that_a_solver_needs_is_taken():
    assert lbfgs(GradientOnly(), np.ones((1, 3)), tol=1e-6, max_iter=10).converged.all()


@pytest.mark.parametrize(
    ("solver", "interface", "part"),
    [
        (newton_cholesky, "HessianObjective", "hessian"),
        (newton_cg, "ProductObjective", "linearise"),
        (proximal_newton, "L1Objective", "subset_hessian"),
    ],
)
def test_what_an_objective_lacks_is_one_error_that_names_it(solver, interface, part):
    with pytest.raises(TypeError, match=rf"needs {interface}; GradientOnly lacks .*\b{part}\b"):
        solver(GradientOnly(), np.ones((1, 3)), tol=1e-6, max_iter=10)


def test_a_costly_part_is_not_computed_to_be_found():
    class Costly(GradientOnly):
        @property
        def noise(self):
            raise AssertionError("computed")

    require(Costly(), GradientObjective)


class Levels:
    """Objectives of a given value at 0; elsewhere the sum of the parameters."""

    penalised = False

    def __init__(self, null):
        self.null = np.array(null)
        self.calls = 0

    def null_value(self, *, exact=False):
        return self.null

    def evaluate(self, w):
        self.calls += 1
        return np.where(w.any(axis=1), w.sum(axis=1), self.null), w.copy()


def test_a_start_higher_than_0_is_moved_there_for_that_problem_alone():
    objective, w = Levels([5.0, 5.0]), np.array([[3.0, 1.0], [9.0, 1.0]])
    reference, (value, evaluated) = evaluate_start(objective, w, objective.evaluate)
    assert w.tolist() == evaluated.tolist() == [[3.0, 1.0], [0.0, 0.0]]
    assert value.tolist() == [4.0, 5.0]
    assert reference.tolist() == [4.0, 5.0]
    assert objective.calls == 2


def test_a_start_at_0_is_evaluated_once_and_is_the_reference():
    objective = Levels([5.0])
    reference, (value, _) = evaluate_start(objective, np.zeros((1, 2)), objective.evaluate)
    assert objective.calls == 1
    assert reference is value


def test_problems_end_one_by_one_as_converged_stuck_or_vanished():
    value = np.array([4.0, 4.0, 4.0, 4.0])
    progress = Progress(Levels(value), value, value)
    assert progress.active(value).all()
    progress.end(np.array([True, False, False, False]), np.array([True, True, False, False]))
    assert progress.stuck.tolist() == [False, True, False, False]
    value = np.array([1.0, 4.0, 1e-12, 3.0])
    active = progress.active(value)
    assert active.tolist() == [False, False, False, True]
    progress.record(7, active, value)
    result = progress.result(np.zeros((4, 2)), value)
    assert result.converged.tolist() == [True, False, False, False]
    assert result.vanished.tolist() == [False, False, True, False]
    assert result.n_iter.tolist() == [0, 0, 0, 7]
    assert result.curve == [16.0, pytest.approx(8.0)]
