"""Proximal Newton: a smooth objective plus an L1 norm, by models over the parameters that matter."""

import dataclasses
from typing import Any

import numpy as np

from sklloss.arrays.vectors import Array, Mask, dot
from sklloss.solvers.base import (
    Callback,
    L1Objective,
    Result,
    Solve,
    allowed_gap,
    evaluate_start,
    exhausted,
    require,
    underestimates,
)
from sklloss.solvers.l1_models import (
    NO_SHIFTS,
    minimise_by_products,
    minimise_by_sweeps,
    minimise_model,
)
from sklloss.solvers.newton import REUSE_GAP, REUSE_RATIO, compiled_steps, progress_from

LOOSEST = 0.1  # the largest share of its decrease that a model may leave undone
CLOSEST = 0.1  # no model is solved more closely than this share of the gap allowed at the end
MAX_TRIALS = 15  # of a step, with more damping each
MEASURABLE = 10.0  # times the rounding error of a value
SUFFICIENT_DECREASE = 1e-2  # least share of the predicted decrease that a step must achieve
GOOD, POOR = 0.75, 0.25  # shares of the predicted decrease above which damping falls, below which it rises
DAMPING_FACTOR = 4.0
LEAST_DAMPING = 0.2
HOPELESS_DAMPING = 256.0  # from which on no step is sought whose decrease rounding can hide
ROUGH_DAMPING = 1.0  # above this damping a model ignores the coupling of outputs
# As in `newton_cholesky`, the first steps are of a sample of the rows.
SAMPLE_TOL = 1e-2
SAMPLES = (128, 640)  # rows per parameter
MAX_SAMPLE_STEPS = 30
# Up to so many parameters a Hessian costs little, and solves the models of correlated columns exactly. It has
# all of them if at least half are not 0, so that it serves for the next step whichever these are.
SMALL_SET = 64
MAX_COLUMN_STEPS = 20  # by sweeps over columns, whose models may be solved less closely than they seem to be
MAX_SCORE_CHANGE = 2.0  # of any row by one parameter, while damped
# A working set has the parameters that are not 0, and of the others at most LEAST_ADDED or, if that is more,
# ADDED_PER_PARAMETER for each that is not 0.
LEAST_ADDED = 100
ADDED_PER_PARAMETER = 2


def proximal_newton(
    objective: L1Objective, w: Array, *, tol: float, max_iter: int, callback: Callback | None = None
) -> Result:
    """Minimise a convex objective plus ``l1 . |w|`` by proximal Newton steps.

    A pass over the data at w gives the gradient of all parameters, and with it a working set: the parameters
    that are not 0 or have no L1 penalty, and those at 0 that violate their optimality condition, the largest
    violations first. Over the set the quadratic model plus the L1 norm is minimised: for a sparse X by
    coordinate descent over its columns (`minimise_by_sweeps`); else, or if that is too slow, by coordinate
    descent and Cholesky factors if the Hessian's block is affordable (`minimise_model`), or by Hessian
    products (`minimise_by_products`). Parameters that the L1 norm holds at 0 are exact zeros. With many rows,
    the start is the minimum over a sample of them. A small problem is solved by compiled steps if possible.

    There is no line search. Far from the optimum second derivatives may be far too small, above all those of
    rare features of rare classes; a line search would shorten the step in all directions because of one. So
    a step that achieves too little of the decrease that the model predicts is computed again, with a multiple
    of the Hessian's diagonal added (Levenberg and Marquardt) and each parameter's change bounded. The damping
    falls again once predictions are accurate.

    Parameters
    ----------
    objective : L1Objective
    w : ndarray of shape (problems, size)
        Start.
    tol : float
        See `allowed_gap`. The gap is estimated by the decrease that the model predicts, which is half the
        Newton decrement where no parameter is 0; the working set must include all violations.
    max_iter : int
        Limit of the number of models.
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
    null = objective.null_value() if w.any() else np.inf
    tell = callback and (lambda step, at, value: callback(step, objective.without_free_shift(at), value))
    curve, found = compiled_steps(objective, w, null, tol, max_iter, tell, SUFFICIENT_DECREASE)
    if found is not None:
        return dataclasses.replace(found, w=objective.without_free_shift(found.w))
    if max_iter > 0 and not w.any():
        w = _sampled_start(objective, w)
    reference, (value, gradient) = evaluate_start(objective, w, lambda w: _linearise(objective, w))
    progress = progress_from(curve, objective, value, reference)
    damping = np.full(len(w), 0.0 if w.any() else objective.curvature_excess)
    damping[damping < LEAST_DAMPING] = 0.0
    sets, products, slow = _WorkingSets(objective), None, False
    kept: Any = None  # models whose Hessian serves for the next step too
    before = np.full(len(w), np.inf)
    for iteration in range(len(progress.curve), max_iter + 1):
        active = progress.active(value)
        if not active.any():
            break
        gap = allowed_gap(value, tol)
        chosen, complete = sets.choose(w, gradient, active)
        small = sum(map(len, chosen)) <= SMALL_SET
        columns = None if slow or small else objective.column_models(chosen)
        models: _ColumnModels | _MatrixModels | _ProductModels
        fresh = True
        if columns is not None:
            models = _ColumnModels(objective, chosen, columns, gradient, w, gap)
        elif objective.affords(chosen):
            rough = bool(damping[active].max() > ROUGH_DAMPING)
            fresh = kept is None or rough or not kept.covers(chosen)
            if fresh:
                kept = None  # not in memory beside the new one
                models = _MatrixModels(objective, chosen, rough, gradient, w, gap)
            else:
                models = kept.at(chosen, gradient, w, gap)
        else:
            products = products or _ProductModels(objective)
            models = products.at(chosen, gradient, w, gap)
        earlier = damping
        step, predicted_decrease, reached, damping, new = _accepted_step(
            objective, w, value, models, active, complete, damping
        )
        # Where sweeps converge too slowly, as for correlated columns, Hessians take over.
        slow = slow or iteration >= MAX_COLUMN_STEPS
        slow = slow or (columns is not None and not reached[active].all())
        # Damping shortens a step, and what it predicts.
        undamped = np.abs(predicted_decrease) * (1.0 + damping) ** 2
        enough = gap if fresh else gap / 4
        # Where the first model has its minimum at w, so has the objective, whatever the damping.
        optimal = (undamped == 0.0) & (damping == earlier)
        solved = active & complete & reached & (undamped <= enough) & ((damping < 1.0) | optimal)
        solved &= ~underestimates(predicted_decrease, value, new[0], gap, objective.noise)
        unmoved = active & ~step.any(axis=1)
        rounded = complete & exhausted(2 * undamped, value, objective.noise)
        # Where an earlier Hessian finds no step, a new one is needed.
        progress.end(solved | (unmoved & rounded & fresh), unmoved & fresh)
        damping = _next_damping(objective, value, new[0], predicted_decrease, damping, active)
        if not fresh and unmoved.any():
            damping = earlier
        near = ~unmoved & (predicted_decrease <= REUSE_GAP * np.abs(value))
        near &= fresh | (predicted_decrease <= REUSE_RATIO * before)
        reusable = isinstance(models, _MatrixModels) and _may_reuse_hessians(objective)
        kept = models if reusable and not damping.any() and (near | ~active).all() else None
        before = predicted_decrease
        w = w + step
        value, gradient = new
        progress.record(iteration, active, value)
        if callback is not None:
            callback(iteration, objective.without_free_shift(w), value)
    return progress.result(objective.without_free_shift(w), value)


def _next_damping(
    objective: L1Objective,
    value: Array,
    new_value: Array,
    predicted_decrease: Array,
    damping: Array,
    active: Mask,
) -> Array:
    """The damping of the next models, by what the last ones predicted."""
    damping = damping.copy()
    # A decrease that is hidden by the rounding of values is no evidence against the model.
    measurable = predicted_decrease > MEASURABLE * objective.noise * np.abs(value)
    ratio = np.divide(value - new_value, predicted_decrease, out=np.ones_like(value), where=measurable)
    damping[active & (ratio > GOOD)] /= DAMPING_FACTOR
    damping[damping < LEAST_DAMPING] = 0.0
    poor = active & (ratio < POOR)
    damping[poor] = np.maximum(DAMPING_FACTOR * damping[poor], 1.0)
    return damping


def _may_reuse_hessians(objective: L1Objective) -> bool:
    """Whether a step with an earlier Hessian may save time; it needs a gradient in float64."""
    return objective.costly_hessian and objective.exact_gradient


def _sampled_start(objective: L1Objective, w: Array) -> Array:
    """The minimum over a sample of the rows; w, which is 0, if there are few rows."""
    for rows in SAMPLES:
        small = objective.subsample(rows)
        if small is None:
            break
        found = proximal_newton(small, w, tol=SAMPLE_TOL, max_iter=MAX_SAMPLE_STEPS)
        if not found.converged.all():
            break
        w = found.w
    return w


def _linearise(objective: L1Objective, w: Array) -> tuple[Array, Array]:
    """The value with the L1 norm and the gradient of the smooth part; models are of the objective at w."""
    smooth, gradient = objective.linearise(w)
    return smooth + dot(objective.l1, np.abs(w)), gradient


class _WorkingSets:
    """Chooses the parameters that a model of each problem may change."""

    def __init__(self, objective: L1Objective) -> None:
        self._objective = objective
        self._whole = _may_reuse_hessians(objective) and objective.l1.size <= SMALL_SET
        self._scale: Array | None = None

    def choose(self, w: Array, gradient: Array, active: Mask) -> tuple[list[Array], Mask]:
        """The parameters of each problem in ascending order, and whether they include all violations."""
        free = (w != 0) | (self._objective.l1 == 0)
        excess = np.abs(gradient) - self._objective.l1
        chosen, complete = [], np.ones(len(w), dtype=bool)
        for k in range(len(w)):
            if not active[k]:
                chosen.append(np.empty(0, dtype=np.intp))
                continue
            if self._whole and w.shape[1] <= 2 * int(np.count_nonzero(free[k])):
                chosen.append(np.arange(w.shape[1]))
                continue
            violated = np.flatnonzero(~free[k] & (excess[k] > 0))
            most = max(LEAST_ADDED, ADDED_PER_PARAMETER * int(np.count_nonzero(free[k])))
            if len(violated) > most:
                complete[k] = False
                if self._scale is None:
                    self._scale = np.sqrt(self._objective.diagonal())
                priority = excess[k, violated] / self._scale[k, violated]
                violated = violated[np.argpartition(-priority, most)[:most]]
            free[k, violated] = True
            chosen.append(np.flatnonzero(free[k]))
        return chosen, complete


class _MatrixModels:
    """Models with their Hessian blocks in memory, minimised one problem after another."""

    def __init__(
        self, objective: L1Objective, chosen: list[Array], rough: bool, gradient: Array, w: Array, gap: Array
    ) -> None:
        self._objective, self._chosen = objective, chosen
        self._gradient, self._w, self._least = gradient, w, CLOSEST * gap
        self._matrices = objective.subset_hessian(chosen, rough=rough)
        self._diagonals = [matrix.diagonal().copy() for matrix in self._matrices]
        # Without the coupling of outputs, a model does not know their common shifts.
        self._shifts = [None] * len(w) if rough else objective.shifts(chosen)

    def covers(self, chosen: list[Array]) -> bool:
        """Whether the Hessians have all of these parameters."""
        return all(np.isin(at, own).all() for at, own in zip(chosen, self._chosen, strict=True))

    def at(self, chosen: list[Array], gradient: Array, w: Array, gap: Array) -> "_MatrixModels":
        """Models at another point over the same parameters or fewer, with these Hessians."""
        for k, at in enumerate(chosen):
            if len(at) < len(self._chosen[k]):
                places = np.searchsorted(self._chosen[k], at)
                self._matrices[k] = self._matrices[k][np.ix_(places, places)]
                self._diagonals[k] = self._diagonals[k][places]
        self._chosen, self._shifts = chosen, self._objective.shifts(chosen)
        self._gradient, self._w, self._least = gradient, w, CLOSEST * gap
        return self

    def solve(
        self, pending: Mask, damping: Array, step: Array, predicted_decrease: Array, reached: Mask
    ) -> None:
        for k in np.flatnonzero(pending):
            at, matrix, shifts = self._chosen[k], self._matrices[k], self._shifts[k]
            np.einsum("ii->i", matrix)[:] = (1.0 + damping[k]) * self._diagonals[k]
            trust_radius = (
                MAX_SCORE_CHANGE * self._objective.unit_score_change[k, at] if damping[k] else np.inf
            )
            step[k, at], predicted_decrease[k], reached[k] = minimise_model(
                matrix, self._gradient[k, at], self._w[k, at], self._objective.l1[k, at], LOOSEST,
                self._least[k], trust_radius,
                NO_SHIFTS if shifts is None else (shifts[0], shifts[1] + damping[k] * self._diagonals[k]),
            )  # fmt: skip

    def again(self) -> None:
        """Prepare to solve the models again, after the objective was evaluated at another point."""


class _ColumnModels:
    """Models without a matrix, minimised by coordinate descent over the columns of a sparse X."""

    def __init__(
        self,
        objective: L1Objective,
        chosen: list[Array],
        models: list[Any],
        gradient: Array,
        w: Array,
        gap: Array,
    ) -> None:
        self._objective, self._chosen, self._models = objective, chosen, models
        self._gradient, self._w, self._least = gradient, w, CLOSEST * gap

    def solve(
        self, pending: Mask, damping: Array, step: Array, predicted_decrease: Array, reached: Mask
    ) -> None:
        for k in np.flatnonzero(pending):
            at = self._chosen[k]
            trust_radius = (
                MAX_SCORE_CHANGE * self._objective.unit_score_change[k, at] if damping[k] else np.inf
            )
            step[k, at], predicted_decrease[k], reached[k] = minimise_by_sweeps(
                self._models[k], self._gradient[k, at], self._w[k, at], self._objective.l1[k, at], damping[k],
                LOOSEST, self._least[k], trust_radius,
            )  # fmt: skip

    def again(self) -> None:
        """See `_MatrixModels.again`."""


class _ProductModels:
    """Models by Hessian products, minimised for all problems at once."""

    def __init__(self, objective: L1Objective) -> None:
        self._objective = objective
        self._precondition = objective.subset_preconditioner()

    def at(self, chosen: list[Array], gradient: Array, w: Array, gap: Array) -> "_ProductModels":
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
            # A new array, since the objective reuses its buffer for the next product.
            return self._objective.product(v) + more * v

        d, decrease, done = minimise_by_products(
            product, precondition, self._gradient, self._w, self._objective.l1,
            self._inside & pending[:, None], diagonal, LOOSEST, self._least,
        )  # fmt: skip
        step[pending], predicted_decrease[pending] = d[pending], decrease[pending]
        reached[pending] = done[pending]

    def again(self) -> None:
        """See `_MatrixModels.again`."""
        self._objective.linearise(self._w)


def _accepted_step(
    objective: L1Objective,
    w: Array,
    value: Array,
    models: "_ColumnModels | _MatrixModels | _ProductModels",
    active: Mask,
    complete: Mask,
    damping: Array,
) -> tuple[Array, Array, Mask, Array, tuple[Array, Array]]:
    """The first step of each problem with a sufficient decrease, each with more damping; 0 if there is none.

    Nor is there one where a model of all that can move predicts less than the rounding of values can hide.
    Returns the steps, predicted decreases, whether models were solved, the damping, and value and gradient.
    """
    step, damping = np.zeros_like(w), damping.copy()
    predicted_decrease, reached = np.zeros(len(w)), np.zeros(len(w), dtype=bool)
    noise = objective.noise * np.abs(value)
    pending = active.copy()
    for _ in range(MAX_TRIALS):
        models.solve(pending, damping, step, predicted_decrease, reached)
        invalid: Any = ~np.isfinite(step).all(axis=1)
        step[invalid] = 0.0
        new = _linearise(objective, w + step)
        # A NaN or infinite value fails the comparison too.
        pending &= invalid | ~(new[0] <= value - SUFFICIENT_DECREASE * predicted_decrease + noise)
        hidden = pending & complete & reached & ~invalid & (predicted_decrease <= MEASURABLE * noise)
        hidden &= (damping < 1.0) | (damping >= HOPELESS_DAMPING)
        pending &= ~hidden
        if hidden.any():
            step[hidden], damping[hidden] = 0.0, 0.0
            new = _linearise(objective, w + step)
        if not pending.any():
            return step, predicted_decrease, reached, damping, new
        damping[pending] = np.maximum(DAMPING_FACTOR * damping[pending], 1.0)
        models.again()
    step[pending] = 0.0
    predicted_decrease[pending] = np.where(invalid[pending], 0.0, predicted_decrease[pending])
    return step, predicted_decrease, reached, damping, _linearise(objective, w + step)
