"""Proximal Newton: a smooth objective plus an L1 norm, by models over the parameters that matter."""

from typing import Any

import numpy as np

from sklloss.arrays.vectors import Array, Mask
from sklloss.solvers.base import (
    Callback,
    L1Objective,
    Result,
    Solve,
    allowed_gap,
    exhausted,
    first_value,
    has_vanished,
    require,
    start_again,
)
from sklloss.solvers.l1_models import minimise_by_products, minimise_model

LOOSEST = 0.1  # a model may be left with this share of its decrease undone
CLOSEST = 0.1  # but is never solved to less than this share of the gap that is allowed at the end
TRIALS = 15
ENOUGH = 1e-2  # least share of the predicted decrease that a step must bring
GOOD, POOR = 0.75, 0.25  # shares of the predicted decrease from which on damping falls, or rises
FACTOR = 4.0
LEAST_DAMPING = 0.2
ROUGH_DAMPING = 1.0  # above this damping a model leaves out how outputs are coupled
FURTHEST = 2.0  # by how much a parameter may change a row's score, by itself, while damped
# A set holds the parameters that are not 0 and up to so many others, which grow with the former.
FIRST_SET = 100
GROWTH = 2


def proximal_newton(
    objective: L1Objective, w: Array, *, tol: float, max_iter: int, callback: Callback | None = None
) -> Result:
    """Minimise a convex objective plus ``l1 . |w|`` by proximal Newton steps.

    A pass over the data at w gives the gradient of all parameters, and with it a set: those that are not 0
    or cost nothing, and those at 0 that would move, the most eager first. Over the set
    the quadratic model plus the L1 norm is minimised: where its matrix is affordable by coordinate descent
    and Cholesky factors (`minimise_model`), else by products (`minimise_by_products`). Parameters that the
    L1 norm holds at 0 are exact zeros.

    There is no line search. Far from the optimum second derivatives may be too small by far, those of rare
    features of rare classes above all; a step would be useless in most directions before it is short enough
    in one. So a step that lowers the objective by too little of what the model predicts is made anew, with
    more of the matrix's diagonal added (Levenberg and Marquardt) and each parameter bounded. Models stay
    damped until they prove true.

    Parameters
    ----------
    objective : L1Objective
    w : ndarray of shape (problems, size)
        Start.
    tol : float
        See `allowed_gap`. What it is compared with is the decrease that the model predicts: half the
        Newton decrement where nothing is at 0. It counts once no violated parameter was left out.
    max_iter : int
        Most models.
    callback : callable, optional
        Called with ``(n_iter, w, value)`` after each step.

    Returns
    -------
    Result

    References
    ----------
    Lee, Sun and Saunders, *Proximal Newton-type methods for minimizing composite functions*, SIAM J.
    Optim. 24 (2014); Johnson and Guestrin, *Blitz: a principled meta-algorithm for scaling sparse
    optimization*, ICML 2015, for working sets.
    """
    require(objective, L1Objective)
    w = np.array(w, dtype=np.float64)
    value, gradient = _linearise(objective, w)
    start = first_value(objective, w, value)
    if start_again(objective, w, value):
        value, gradient = _linearise(objective, w)
    n_iter = np.zeros(len(w), dtype=int)
    converged = np.zeros(len(w), dtype=bool)
    stuck = np.zeros(len(w), dtype=bool)
    curve = [float(value.sum())]
    damping = np.full(len(w), 0.0 if w.any() else objective.curvature_excess)
    damping[damping < LEAST_DAMPING] = 0.0
    sets, products = _Sets(objective), None
    for iteration in range(1, max_iter + 1):
        active = ~(converged | stuck | has_vanished(objective, value, start))
        if not active.any():
            break
        gap = allowed_gap(value, tol)
        chosen, complete = sets.choose(w, gradient, active)
        if objective.affords(chosen):
            rough = bool(damping[active].max() > ROUGH_DAMPING)
            models: _Matrices | _Products = _Matrices(objective, chosen, rough, gradient, w, gap)
        else:
            products = products or _Products(objective)
            models = products.at(chosen, gradient, w, gap)
        step, predicted_decrease, reached, damping, new = _accepted_step(
            objective, w, value, models, active, damping
        )
        solved = active & complete & reached & (predicted_decrease * (1.0 + damping) ** 2 <= gap)
        still = active & ~step.any(axis=1)
        converged |= solved | (still & complete & exhausted(2 * predicted_decrease, value, objective.noise))
        stuck |= still & ~converged
        # a decrease that drowns in the rounding of values says nothing against its model
        told = predicted_decrease > 10 * objective.noise * np.abs(value)
        ratio = np.divide(value - new[0], predicted_decrease, out=np.ones_like(value), where=told)
        damping[active & (ratio > GOOD)] /= FACTOR
        damping[damping < LEAST_DAMPING] = 0.0
        poor = active & (ratio < POOR)
        damping[poor] = np.maximum(FACTOR * damping[poor], 1.0)
        w = w + step
        value, gradient = new
        n_iter[active] = iteration
        curve.append(float(value.sum()))
        if callback is not None:
            callback(iteration, objective.without_free_shift(w), value)
    return Result(
        objective.without_free_shift(w),
        value,
        n_iter,
        converged,
        curve,
        has_vanished(objective, value, start),
    )


def _linearise(objective: L1Objective, w: Array) -> tuple[Array, Array]:
    """The value, L1 included, and the gradient of the smooth part; w becomes the point of models."""
    smooth, gradient = objective.linearise(w)
    return smooth + np.einsum("bi,bi->b", objective.l1, np.abs(w)), gradient


class _Sets:
    """Chooses the parameters of a model for each problem."""

    def __init__(self, objective: L1Objective) -> None:
        self._objective = objective
        self._scale: Array | None = None

    def choose(self, w: Array, gradient: Array, active: Mask) -> tuple[list[Array], Mask]:
        """Ascending parameters of each problem, and whether they are all that would move."""
        held = (w != 0) | (self._objective.l1 == 0)
        excess = np.abs(gradient) - self._objective.l1
        chosen, complete = [], np.ones(len(w), dtype=bool)
        for k in range(len(w)):
            if not active[k]:
                chosen.append(np.empty(0, dtype=np.intp))
                continue
            wanted = np.flatnonzero(~held[k] & (excess[k] > 0))
            most = max(FIRST_SET, GROWTH * int(np.count_nonzero(held[k])))
            if len(wanted) > most:
                complete[k] = False
                if self._scale is None:
                    self._scale = np.sqrt(self._objective.diagonal())
                eager = excess[k, wanted] / self._scale[k, wanted]
                wanted = wanted[np.argpartition(-eager, most)[:most]]
            held[k, wanted] = True
            chosen.append(np.flatnonzero(held[k]))
        return chosen, complete


class _Matrices:
    """Models with their matrices at hand, one problem after another."""

    def __init__(
        self, objective: L1Objective, chosen: list[Array], rough: bool, gradient: Array, w: Array, gap: Array
    ) -> None:
        self._objective, self._chosen = objective, chosen
        self._gradient, self._w, self._least = gradient, w, CLOSEST * gap
        self._matrices = objective.subset_hessian(chosen, rough=rough)
        self._diagonals = [matrix.diagonal().copy() for matrix in self._matrices]

    def solve(
        self, pending: Mask, damping: Array, step: Array, predicted_decrease: Array, reached: Mask
    ) -> None:
        for k in np.flatnonzero(pending):
            at, matrix = self._chosen[k], self._matrices[k]
            np.einsum("ii->i", matrix)[:] = (1.0 + damping[k]) * self._diagonals[k]
            trust_radius = FURTHEST * self._objective.unit_score_change[k, at] if damping[k] else np.inf
            step[k, at], predicted_decrease[k], reached[k] = minimise_model(
                matrix, self._gradient[k, at], self._w[k, at], self._objective.l1[k, at], LOOSEST,
                self._least[k], trust_radius,
            )  # fmt: skip

    def again(self) -> None:
        """Called before models are solved anew, the objective having been looked at elsewhere."""


class _Products:
    """Models by products, all problems at once."""

    def __init__(self, objective: L1Objective) -> None:
        self._objective = objective
        self._precondition = objective.subset_preconditioner()

    def at(self, chosen: list[Array], gradient: Array, w: Array, gap: Array) -> "_Products":
        self._gradient, self._w, self._least = gradient, w, CLOSEST * gap
        self._diagonal = self._objective.local_diagonal()
        self._inside = np.zeros(w.shape, dtype=bool)
        for k, at in enumerate(chosen):
            self._inside[k, at] = True
        return self

    def solve(
        self, pending: Mask, damping: Array, step: Array, predicted_decrease: Array, reached: Mask
    ) -> None:
        more = damping[:, None] * self._diagonal
        diagonal = self._diagonal + more

        def precondition(mask: Mask) -> Solve:
            return self._precondition(mask, diagonal)

        def product(v: Array) -> Array:
            # a new array: the objective writes its next product over this one
            return self._objective.product(v) + more * v

        d, decrease, done = minimise_by_products(
            product, precondition, self._gradient, self._w, self._objective.l1,
            self._inside & pending[:, None], diagonal, LOOSEST, self._least,
        )  # fmt: skip
        step[pending], predicted_decrease[pending] = d[pending], decrease[pending]
        reached[pending] = done[pending]

    def again(self) -> None:
        """See `_Matrices.again`."""
        self._objective.linearise(self._w)


def _accepted_step(
    objective: L1Objective,
    w: Array,
    value: Array,
    models: "_Matrices | _Products",
    active: Mask,
    damping: Array,
) -> tuple[Array, Array, Mask, Array, tuple[Array, Array]]:
    """A step for each problem that lowers it by enough of its prediction, ever more damped; 0 if none does.

    Returns the steps, predicted decreases, whether models were solved, the damping, and value and gradient.
    """
    step, damping = np.zeros_like(w), damping.copy()
    predicted_decrease, reached = np.zeros(len(w)), np.zeros(len(w), dtype=bool)
    noise = objective.noise * np.abs(value)
    pending = active.copy()
    for _ in range(TRIALS):
        models.solve(pending, damping, step, predicted_decrease, reached)
        lost: Any = ~np.isfinite(step).all(axis=1)
        step[lost] = 0.0
        new = _linearise(objective, w + step)
        # a NaN or infinite value is a rise too
        pending &= lost | ~(new[0] <= value - ENOUGH * predicted_decrease + noise)
        if not pending.any():
            return step, predicted_decrease, reached, damping, new
        damping[pending] = np.maximum(FACTOR * damping[pending], 1.0)
        models.again()
    step[pending] = 0.0
    predicted_decrease[pending] = np.where(lost[pending], 0.0, predicted_decrease[pending])
    return step, predicted_decrease, reached, damping, _linearise(objective, w + step)
