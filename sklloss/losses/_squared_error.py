"""Squared errors: half, mean, and root of the mean."""

from dataclasses import dataclass
from typing import Any, ClassVar

from sklloss.losses import _checks
from sklloss.losses._base import Loss, as_column
from sklloss.losses._registry import register


class _SquaredError(Loss):
    """``kernel_parameter * (raw - y)**2``, averaged over outputs."""

    kernel: ClassVar[str] = "squared_error"

    @property
    def curvature_bound(self) -> float:
        """The second derivative, a constant; see `Loss.curvature_bound`."""
        return 2.0 * self.kernel_parameter

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        d = raw - y
        return self.kernel_parameter * d * d, lambda: 2.0 * self.kernel_parameter * d

    def curvature(self, xp: Any, y: Any, raw: Any) -> Any:
        """A constant; see `Loss.curvature`."""
        return xp.full_like(raw, 2.0 * self.kernel_parameter)


@register
@dataclass(frozen=True)
class HalfSquaredError(_SquaredError):
    """Half the squared error, ``(raw - y)**2 / 2``; its gradient is ``raw - y``.

    This is what scikit-learn's regressors call "squared_error" and train on. Averaged over outputs and rows.

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself.

    Examples
    --------
    >>> from sklloss.losses import HalfSquaredError
    >>> HalfSquaredError()([1.0, 2.0], [1.0, 5.0])
    2.25
    """

    name: ClassVar[str] = "squared_error"

    @property
    def kernel_parameter(self) -> float:
        """The factor before the square."""
        return 0.5


@register
@dataclass(frozen=True)
class MeanSquaredError(_SquaredError):
    """The squared error, ``(raw - y)**2``; its gradient is ``2 (raw - y)``. Averaged over outputs and rows.

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself.

    Examples
    --------
    >>> from sklloss.losses import MeanSquaredError
    >>> MeanSquaredError()([1.0, 2.0], [1.0, 5.0])
    4.5
    """

    name: ClassVar[str] = "mean_squared_error"

    @property
    def kernel_parameter(self) -> float:
        """The factor before the square."""
        return 1.0


@register
@dataclass(frozen=True)
class RootMeanSquaredError(Loss):
    """The root of the weighted mean squared error, over rows and outputs together.

    Its gradient is ``w_i (raw - y) / (T * sum(w) * value)`` for T outputs, and 0 where every row is met
    exactly: the root has no derivative there.

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself. A root of a mean is
    not a mean over rows: `per_sample` raises a TypeError, and the loss of a batch is not the mean of the
    losses of its parts. Errors are scaled before they are squared, so that only an error beyond the dtype's
    range is infinite; the gradient is NaN then.

    Examples
    --------
    >>> from sklloss.losses import RootMeanSquaredError
    >>> RootMeanSquaredError()([0.0, 0.0], [1.0, 7.0])
    5.0
    """

    name: ClassVar[str] = "root_mean_squared_error"
    kernel: ClassVar[str] = "root_mean_squared_error"
    additive: ClassVar[bool] = False

    def mean_formula(
        self, xp: Any, y: Any, raw: Any, weight: Any = None, *, with_gradient: bool = True
    ) -> tuple[Any, Any]:
        """See `Loss.mean_formula`."""
        wide = _checks.widest(xp, raw)
        d = xp.astype(raw, wide) - xp.astype(y, wide)
        if weight is not None:
            # Rows of weight 0 may hold any value.
            d = xp.where(as_column(weight != 0, raw), d, 0.0)
        largest = xp.max(xp.abs(d))
        exact = largest == 0
        unit = xp.where(exact | xp.isinf(largest), 1.0, largest)
        u = d / unit
        rows = u * u
        parts = 1
        if rows.ndim == 2:
            parts = rows.shape[1]
            rows = xp.sum(rows, axis=1)
        if weight is None:
            total, share = float(rows.shape[0]), 1.0
        else:
            share = xp.astype(weight, wide)
            total = xp.sum(share)
            rows = rows * share
            share = as_column(share, raw)
        mean = xp.sum(rows) / (total * parts)
        # The square root has no finite derivative at 0, so its argument is never 0.
        root = xp.sqrt(xp.where(exact, 1.0, mean))
        value = xp.where(exact, 0.0, root * unit)
        if not with_gradient:
            return value, None
        gradient = u * share / (root * total * parts)
        return value, xp.astype(xp.where(xp.isinf(largest), xp.nan, gradient), raw.dtype)
