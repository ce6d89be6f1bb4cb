"""The objective of the linear regressors."""

from __future__ import annotations

import functools
import sys

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from sklloss.losses import AbsoluteError, HalfSquaredError, Loss
from sklloss.objectives.linear import LinearObjective
from sklloss.objectives.passes import Array, Floats, Passes
from sklloss.objectives.preconditioners import BlockSolver
from sklloss.objectives.programme import MOST_ORDER, Programme

# Rows, and rows for each parameter, of a sample for least squares; most parameters.
SAMPLE_ROWS, SAMPLE_ROWS_EACH = 2048, 64
MOST_PARAMETERS = 1000
FITTED_ROWS_EACH = 2  # the least, for errors that are not fitted away
# The most by which cancellation is taken to raise the relative rounding error of a value.
MOST_CANCELLED = 1e6
# A value of this many times its rounding error, or less, is that of a perfect prediction.
PERFECT_ROUNDING = 4.0
# Errors are mostly where a loss is linear if their mean is this many times the reach of its curvature.
MANY_REACHES = 2.0


class RegressionObjective(LinearObjective):
    """`LinearObjective` whose values are those above a perfect prediction, as half a deviance is.

    The loss of a row is less its saturated value (`Loss.saturated`), which changes no derivative. Values are
    not negative then, so that a relative gap has a meaning: a Poisson loss may have any sign, or be near 0.

    Parameters
    ----------
    passes, C, l1_ratio, penalty_weights
        See `LinearObjective`.

    Attributes
    ----------
    saturated : ndarray of shape (problems,)
        The weighted sum of the saturated values, times ``scale``.
    """

    def __init__(
        self, passes: Passes, C: float, l1_ratio: float = 0.0, penalty_weights: Floats | None = None
    ) -> None:
        self._least_value = np.inf
        super().__init__(passes, C, l1_ratio, penalty_weights)
        self._counts_from_saturated = type(passes.loss).saturated is not Loss.saturated
        if self._counts_from_saturated:
            self.saturated = self.scale * passes.saturated_sums

    @property
    def noise(self) -> float:  # type: ignore[override]  # an attribute in LinearObjective
        """The relative rounding error of a value, which is a difference of sums."""
        if not np.isfinite(self._least_value):
            return self._sum_noise
        size = float(np.abs(self.saturated).max()) / max(self._least_value, sys.float_info.min)
        return self._sum_noise * (1.0 + min(size, MOST_CANCELLED))

    @noise.setter
    def noise(self, sum_noise: float) -> None:
        self._sum_noise = sum_noise

    @property
    def vanished_share(self) -> float | None:
        """The share of the value at the start that is rounding, for a loss of the error; None for others.

        Such a loss attains its minimum: a small value is a good fit, and no sign that there is no optimum.
        """
        if self.passes.loss.inverse_link_name != "identity":
            return None
        return (PERFECT_ROUNDING * self._sum_noise) ** 2

    def is_perfect(self, value: Floats) -> NDArray[np.bool_]:
        """Which values are those of a perfect prediction, but for the rounding of the sums they come from."""
        rounding = PERFECT_ROUNDING * self._sum_noise
        if self._counts_from_saturated:
            null = self.null_value()
            least = rounding * (np.abs(self.saturated) + np.where(np.isfinite(null), np.abs(null), 0.0))
        elif self.passes.loss.inverse_link_name == "identity":
            y = self._largest_scores()
            least = self.scale * self.total_weight * self._losses_of_outputs(y, y * (1.0 + rounding))
        else:
            least = np.zeros(self.problems)
        perfect: NDArray[np.bool_] = np.abs(value) <= least
        return perfect

    def _largest_scores(self) -> Floats:
        """The largest absolute target of each output, or offset if that is larger."""
        data = self.passes.data
        assert data.values is not None
        largest: Floats = np.abs(data.values).max(axis=0).astype(np.float64)
        return largest if data.offset is None else np.maximum(largest, np.abs(data.offset).max(axis=0))

    def _losses_of_outputs(self, y: Floats, raw: Floats) -> Floats:
        """The loss of a row in each problem, (problems,), as it counts in the objective."""
        loss = self.passes.loss
        if self.problems < self.passes.outputs or not loss.additive:
            return np.array([loss(y[None], raw[None])])
        parts = [loss.of_output(k)(y[k : k + 1], raw[k : k + 1]) for k in range(self.problems)]
        return np.array(parts) / loss.row_divisor(self.passes.outputs)

    @property
    def total_weight(self) -> float:
        """The sum of the weights of the rows."""
        return float(self.passes.row_weights().sum())

    def mean_target(self) -> Floats:
        """The parameters of the best constant prediction; 0 without an intercept or for an unknown link."""
        w, link = np.zeros(self.shape), self.passes.loss.inverse_link_name
        if not self.passes.fit_intercept or link not in ("exp", "identity"):
            return w
        y, offset, weight = self.passes.data.values, self.passes.data.offset, self.passes.row_weights()
        assert y is not None
        mean = np.average(y, axis=0, weights=weight).astype(np.float64)
        if offset is not None and link == "identity":
            mean -= np.average(offset, axis=0, weights=weight)
        if link == "exp":
            mean = np.log(mean, where=mean > 0, out=np.zeros_like(mean))
        if offset is not None and link == "exp":
            mean -= logsumexp(offset, axis=0, b=weight[:, None] / weight.sum())
        self.coef(w)[:, -1] = mean
        return w

    @functools.cached_property
    def least_squares(self) -> tuple[Floats, Floats]:
        """Parameters from which errors are small, and the mean absolute error of each output.

        The least squares solution for a sample of the rows; the mean of y where parameters are more than are
        worth a Hessian, or so many that rows would be fitted away.
        """
        passes = self.passes
        step = passes.n // max(SAMPLE_ROWS, SAMPLE_ROWS_EACH * passes.width) | 1
        sample = passes.every_nth(step) if step > 1 else passes
        passes = passes if sample is None else sample
        coef = self.coef(self.mean_target())
        if passes.width <= min(MOST_PARAMETERS, passes.n // FITTED_ROWS_EACH):
            squares = passes.with_loss(HalfSquaredError())
            _, gradient, matrices = squares.hessian(np.zeros(coef.shape))
            coef = -BlockSolver(matrices, self.small_ridge)(gradient)
        errors = passes.with_loss(AbsoluteError()).value_and_gradient(coef)[0] * passes.outputs
        return coef.reshape(self.shape), errors / passes.row_weights().sum()

    @property
    def mostly_linear(self) -> bool:
        """Whether most errors are where the loss has no curvature, or nearly none; or may be, of few rows.

        False where the programme that this asks for is too large.
        """
        reach = self.passes.loss.of_output(0).curved_within
        if reach is None or self.programme_too_large:
            return False
        few = self.passes.n < FITTED_ROWS_EACH * self.passes.width <= FITTED_ROWS_EACH * MOST_PARAMETERS
        return few or bool((self.least_squares[1] > MANY_REACHES * reach).any())

    def whole_value(self, w: Floats) -> Floats:
        """The value with all penalties, (problems,)."""
        norm: Floats = self.value_and_gradient(w)[0] + np.einsum("bi,bi->b", self.l1, np.abs(w))
        return norm

    def bound_at(self, w: Floats) -> RegressionObjective | None:
        """For the root of a mean: an upper bound over the mean itself, see `minimise_root`.

        None for a root of 0, but for rounding.
        """
        mean = self.passes.loss.root_of
        assert mean is not None
        passes = self.passes.with_loss(mean)
        total = float(passes.value_and_gradient(self.coef(w))[0].sum())
        root = np.sqrt(total / self.total_weight)
        at_zero = float(self.null_value(exact=True)[0]) / (self.scale * self.total_weight)
        if not root > PERFECT_ROUNDING * self._sum_noise * at_zero:
            return None
        bound = RegressionObjective(passes, self.scale / (2.0 * root))
        bound.penalised = self.penalised
        for name in ("l1", "ridge", "linear"):
            array = getattr(self, name)
            setattr(bound, name, array if array is None else array.reshape(bound.shape))
        return bound

    def absolute_error(self) -> RegressionObjective:
        """The objective with the absolute error in place of its loss."""
        C = self.scale if self.penalised else np.inf
        other = RegressionObjective(self.passes.with_loss(AbsoluteError()), C)
        other.penalised, other.scale = self.penalised, self.scale
        other.l1, other.ridge, other.linear = self.l1, self.ridge, self.linear
        return other

    @functools.cached_property
    def programme_too_large(self) -> bool:
        """Whether the matrices that a `programme` needs are too large, see `Programme.solvable`."""
        return self.size > MOST_ORDER and not self.programme(0).solvable

    def programme(self, k: int) -> Programme:
        """The programme of problem k, for a loss that has a `Loss.kink`."""
        linear = np.zeros(self.size) if self.linear is None else self.linear[k]
        costs = self.l1[k] - linear, self.l1[k] + linear
        return Programme.of(self.passes, k, self.scale, costs, self.ridge[k])

    def with_penalty(self, w: Array, sums: Array, gradient: Array) -> tuple[Array, Array]:
        """See `LinearObjective.with_penalty`."""
        value, gradient = super().with_penalty(w, sums, gradient)
        value = self._above_saturated(value)
        if isinstance(value, np.ndarray) and self.saturated.any():
            self._least_value = min(self._least_value, float(value.min()))
        return value, gradient

    def null_value(self, *, exact: bool = False) -> Floats:
        """See `LinearObjective.null_value`."""
        return super().null_value(exact=exact) - self.saturated

    def value_and_gradient_from(
        self, other: LinearObjective, w: Floats, value: Floats, gradient: Floats
    ) -> tuple[Floats, Floats]:
        """See `LinearObjective.value_and_gradient_from`."""
        assert isinstance(other, RegressionObjective)
        value, gradient = super().value_and_gradient_from(other, w, value + other.saturated, gradient)
        return value - self.saturated, gradient

    def over(self, passes: Passes, scale: float) -> RegressionObjective:
        """See `LinearObjective.over`."""
        other = RegressionObjective(passes, np.inf if not self.penalised else 1.0)
        other.saturated *= scale / other.scale
        other.scale, other.l1, other.ridge, other.linear = scale, self.l1, self.ridge, self.linear
        return other

    def _above_saturated(self, value: Array) -> Array:
        if not self.saturated.any():
            return value
        return value - (self.saturated if isinstance(value, np.ndarray) else self.vectors.put(self.saturated))
