"""What a solver asks of an objective: all of it, or one clear error."""

import numpy as np
import pytest

from sklloss.solvers.base import GradientObjective, require
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
