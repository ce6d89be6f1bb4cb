"""Losses of the error d = raw - y: squared errors, and losses whose gradient is bounded."""

from dataclasses import dataclass
from itertools import pairwise
from math import inf, log
from typing import Any, ClassVar

import numpy as np

from sklloss.losses import _checks
from sklloss.losses._base import Loss, as_column, number, parameter, register


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

    def expected_curvature(self, xp: Any, raw: Any) -> Any:
        """A constant; see `Loss.expected_curvature`."""
        return xp.full_like(raw, 2.0 * self.kernel_parameter)


@register
@dataclass(frozen=True)
class HalfSquaredError(_SquaredError):
    """Half the squared error, ``(raw - y)**2 / 2``; its gradient is ``raw - y``.

    The loss that scikit-learn's regressors minimise as "squared_error". Its minimum is the mean of y given X.
    Averaged over outputs and rows.

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself: the link is the
    identity. Convex, not robust. The second derivative is 1.

    Examples
    --------
    >>> from sklloss.losses import HalfSquaredError
    >>> HalfSquaredError()([1.0, 2.0], [1.0, 5.0])
    2.25
    """

    name: ClassVar[str] = "squared_error"
    kernel_parameter: ClassVar[float] = 0.5  # the factor of the square


@register
@dataclass(frozen=True)
class MeanSquaredError(_SquaredError):
    """The squared error, ``(raw - y)**2``; its gradient is ``2 (raw - y)``. Averaged over outputs and rows.

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself: the link is the
    identity. Convex, not robust. The second derivative is 2.

    Examples
    --------
    >>> from sklloss.losses import MeanSquaredError
    >>> MeanSquaredError()([1.0, 2.0], [1.0, 5.0])
    4.5
    """

    name: ClassVar[str] = "mean_squared_error"
    kernel_parameter: ClassVar[float] = 1.0  # the factor of the square


@register
@dataclass(frozen=True)
class RootMeanSquaredError(Loss):
    """The root of the weighted mean squared error, over rows and outputs together.

    Its gradient is ``w_i (raw - y) / (T * sum(w) * value)`` for T outputs, and 0 if all errors are 0, where
    the root has no derivative.

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself: the link is the
    identity. Convex, not robust. The root of a mean is not a mean over rows: `per_sample` raises a TypeError,
    and the loss of a batch is not the mean of the losses of its parts. Errors are scaled before they are
    squared, so that the loss is infinite, and its gradient NaN, only if an error exceeds the dtype's range.

    Examples
    --------
    >>> from sklloss.losses import RootMeanSquaredError
    >>> RootMeanSquaredError()([0.0, 0.0], [1.0, 7.0])
    5.0
    """

    name: ClassVar[str] = "root_mean_squared_error"
    kernel: ClassVar[str] = "root_mean_squared_error"
    additive: ClassVar[bool] = False

    @property
    def root_of(self) -> Loss:
        """The mean squared error; see `Loss.root_of`."""
        return MeanSquaredError()

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


@register
@dataclass(frozen=True)
class AbsoluteError(Loss):
    """The absolute error, ``|raw - y|``; its gradient is the sign of ``raw - y``, and 0 where they meet.

    Its minimum is the median of y given X. Averaged over outputs and rows.

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself: the link is the
    identity. Convex, and robust: the gradient is bounded. No second derivative is defined, since it is 0
    wherever it exists.

    Examples
    --------
    >>> from sklloss.losses import AbsoluteError
    >>> AbsoluteError()([1.0, 2.0], [1.0, 5.0])
    1.5
    """

    name: ClassVar[str] = "absolute_error"
    kernel: ClassVar[str] = "absolute_error"
    kink: ClassVar[tuple[float, float, float]] = (-1.0, 1.0, 0.0)
    curved_within: ClassVar[float] = 0.0

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        d = raw - y
        return xp.abs(d), lambda: xp.sign(d)


@register
@dataclass(frozen=True)
class Huber(Loss):
    """Huber's loss: ``d**2 / 2`` for an error up to delta, ``delta (|d| - delta / 2)`` beyond.

    With d = raw - y the gradient is d, cut to [-delta, delta]. Averaged over outputs and rows.

    Parameters
    ----------
    delta : float > 0, default=1.35
        The error up to which the loss is quadratic, in units of y. For normal errors of standard deviation 1,
        1.35 has 95 % of the efficiency of least squares.

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself: the link is the
    identity. Convex, and robust: the gradient is bounded. The second derivative is 1 for ``|d| <= delta`` and
    0 beyond.

    References
    ----------
    P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35, 1964.

    Examples
    --------
    >>> from sklloss.losses import Huber
    >>> Huber(delta=1.0).per_sample([0.0, 0.0], [0.5, 10.0]).tolist()
    [0.125, 9.5]
    """

    delta: float = parameter(1.35, "finite and greater than 0", lambda x: 0.0 < x < inf)

    name: ClassVar[str] = "huber"
    kernel: ClassVar[str] = "huber"
    curvature_bound: ClassVar[float] = 1.0  # the second derivative up to delta

    @property
    def kink(self) -> tuple[float, float, float]:
        """The slopes, and 1 for the quadratic part; see `Loss.kink`."""
        return -self.delta, self.delta, 1.0

    @property
    def curved_within(self) -> float:
        """delta; see `Loss.curved_within`."""
        return self.delta

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        d = raw - y
        cut = xp.where(d > self.delta, self.delta, xp.where(d < -self.delta, -self.delta, d))
        # Covers both cases: d * (d / 2) inside, delta * (|d| - delta / 2) outside.
        return cut * (d - 0.5 * cut), cut

    def curvature(self, xp: Any, y: Any, raw: Any) -> Any:
        """1 up to delta, 0 beyond; see `Loss.curvature`."""
        return xp.astype(xp.abs(raw - y) <= self.delta, raw.dtype)


@register
@dataclass(frozen=True)
class Quantile(Loss):
    """The quantile (pinball) loss: an error costs q where y is above raw and 1 - q where it is below.

    With d = raw - y the loss is ``max((1 - q) d, -q d)``, its gradient ``1 - q`` for d > 0, ``-q`` for d < 0
    and 0 where they meet. Its minimum is the q-quantile of y given X; q = 1/2 is half the absolute error.
    Averaged over outputs and rows.

    Parameters
    ----------
    quantile : float or list of float in (0, 1), default=0.5
        A list, in ascending order, has an output for each quantile of a target (n,): raw is (n, quantiles),
        and the loss is the mean over them. A list of one is the same as its number.

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself: the link is the
    identity, but several quantiles are sorted within a row, so that they never cross. Convex, and robust: the
    gradient is bounded. No second derivative is defined, since it is 0 wherever it exists.

    References
    ----------
    R. Koenker and G. Bassett, "Regression quantiles", Econometrica 46, 1978.

    Examples
    --------
    >>> from sklloss.losses import Quantile
    >>> Quantile(0.75).per_sample([0.0, 0.0], [-8.0, 8.0]).tolist()
    [6.0, 2.0]
    >>> Quantile([0.25, 0.75]).predict([[3.0, 2.0]]).tolist()
    [[2.0, 3.0]]
    """

    quantile: float | tuple[float, ...] = parameter(0.5, "in (0, 1)", lambda x: 0.0 < x < 1.0)

    name: ClassVar[str] = "quantile"
    curved_within: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        """Check the quantiles; a list becomes a tuple, and a list of one quantile that quantile."""
        if np.ndim(self.quantile) == 0:
            super().__post_init__()
            return
        levels = tuple(
            number(level, f"quantile[{k}]", "in (0, 1)", lambda x: 0.0 < x < 1.0)
            for k, level in enumerate(self.quantile)  # type: ignore[arg-type]  # which is iterable
        )
        if not levels or any(low >= high for low, high in pairwise(levels)):
            raise ValueError(f"quantile must be ascending and not empty, got {self.quantile!r}")
        object.__setattr__(self, "quantile", levels if len(levels) > 1 else levels[0])

    @property
    def kernel(self) -> str | None:  # type: ignore[override]  # a class attribute in Loss
        """The kernel of one quantile; several have none."""
        return None if isinstance(self.quantile, tuple) else "quantile"

    @property
    def kernel_parameter(self) -> float:
        """The quantile; see `Loss.kernel_parameter`."""
        return 0.0 if isinstance(self.quantile, tuple) else self.quantile

    @property
    def inverse_link_name(self) -> str | None:  # type: ignore[override]  # a class attribute in Loss
        """The identity for one quantile; several are sorted."""
        return None if isinstance(self.quantile, tuple) else "identity"

    @property
    def outputs_per_target(self) -> int:
        """The number of quantiles; see `Loss.outputs_per_target`."""
        return len(self.quantile) if isinstance(self.quantile, tuple) else 1

    @property
    def kink(self) -> tuple[float, float, float] | None:
        """The slopes, and 0 for a kink; None for several quantiles. See `Loss.kink`."""
        return None if isinstance(self.quantile, tuple) else (-self.quantile, 1.0 - self.quantile, 0.0)

    def of_output(self, k: int) -> Loss:
        """The loss of one quantile; see `Loss.of_output`."""
        return Quantile(self.quantile[k]) if isinstance(self.quantile, tuple) else self

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        d = raw - y
        q: Any = self.quantile
        if isinstance(q, tuple):
            q = xp.stack([xp.full_like(d[:, 0], level) for level in q], axis=1)
        # 0 * d is 0 where d = 0 and NaN where d is NaN.
        slope = xp.where(d > 0, 1.0 - q, xp.where(d < 0, -q, 0.0 * d))
        return slope * d, slope

    def inverse_link(self, xp: Any, raw: Any) -> Any:
        """See `Loss.inverse_link`: several quantiles are sorted within a row."""
        return xp.sort(raw, axis=-1) if isinstance(self.quantile, tuple) else raw


@register
@dataclass(frozen=True)
class LogCosh(Loss):
    """The logarithm of the hyperbolic cosine of the error d = raw - y: ``log(cosh(d))``.

    It is about ``d**2 / 2`` for small errors and ``|d| - log 2`` for large ones. The gradient is tanh(d), the
    second derivative ``1 - tanh(d)**2``. Averaged over outputs and rows.

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself: the link is the
    identity. Convex, robust (the gradient is bounded) and, unlike Huber's loss, infinitely differentiable.
    Errors count as large beyond about 1 in units of y, so scale y.

    Computed as ``log1p(2 sinh(d / 2)**2)`` near 0, which keeps the digits of a small error, and as
    ``|d| + (log1p(exp(-2 |d|)) - log 2)`` elsewhere, where the cosine would overflow.

    References
    ----------
    P. J. Green, "Bayesian reconstructions from emission tomography data using a modified EM algorithm", IEEE
    Transactions on Medical Imaging 9, 1990.

    Examples
    --------
    >>> from sklloss.losses import LogCosh
    >>> LogCosh().per_sample([0.0, 0.0], [1e-5, 1e5]).round(18).tolist()
    [5e-11, 99999.30685281944]
    """

    name: ClassVar[str] = "log_cosh"
    kernel: ClassVar[str] = "log_cosh"
    curvature_bound: ClassVar[float] = 1.0  # 1 - tanh(d)**2 is largest at d = 0
    curved_within: ClassVar[float] = 2.0  # where the second derivative is 0.07
    kink: ClassVar[tuple[float, float, float]] = (-1.0, 1.0, 0.0)
    entropic_conjugate: ClassVar[bool] = True

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        d = raw - y
        size = xp.abs(d)
        near = size < 4.0
        s = xp.sinh(0.5 * xp.where(near, d, 0.0))
        far = size + (xp.log1p(xp.exp(-2.0 * size)) - log(2.0))
        return xp.where(near, xp.log1p(2.0 * s * s), far), lambda: xp.tanh(d)

    def curvature(self, xp: Any, y: Any, raw: Any) -> Any:
        """The square of the hyperbolic secant; see `Loss.curvature`."""
        e = xp.exp(-2.0 * xp.abs(raw - y))
        d = 1.0 + e
        return 4.0 * e / d / d
