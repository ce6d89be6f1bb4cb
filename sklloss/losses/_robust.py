"""Losses that grow linearly in the error d = raw - y, so that the gradient of an outlier is bounded."""

from dataclasses import dataclass
from math import log
from typing import Any, ClassVar

from sklloss.losses._base import Loss, number
from sklloss.losses._registry import register


@register
@dataclass(frozen=True)
class AbsoluteError(Loss):
    """The absolute error, ``|raw - y|``; its gradient is the sign of ``raw - y``, and 0 where they meet.

    Its minimum is the median of y given X. Averaged over outputs and rows.

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself: the link is the
    identity. Convex and robust: the gradient is bounded. No second derivative is stated, because it is 0
    wherever it exists.

    Examples
    --------
    >>> from sklloss.losses import AbsoluteError
    >>> AbsoluteError()([1.0, 2.0], [1.0, 5.0])
    1.5
    """

    name: ClassVar[str] = "absolute_error"
    kernel: ClassVar[str] = "absolute_error"

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
        Where the square ends, in units of y. For normal errors of standard deviation 1, 1.35 keeps 95 % of
        the efficiency of least squares.

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself: the link is the
    identity. Convex and robust: the gradient is bounded. The second derivative is 1 for ``|d| <= delta`` and
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

    delta: float = 1.35

    name: ClassVar[str] = "huber"
    kernel: ClassVar[str] = "huber"

    def __post_init__(self) -> None:
        delta = number(self.delta, "delta", "finite and greater than 0", lambda x: 0.0 < x < float("inf"))
        object.__setattr__(self, "delta", delta)

    @property
    def curvature_bound(self) -> float:
        """The second derivative up to delta; see `Loss.curvature_bound`."""
        return 1.0

    @property
    def kernel_parameter(self) -> float:
        """Delta."""
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
    quantile : float in (0, 1), default=0.5

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself: the link is the
    identity. Convex and robust: the gradient is bounded. No second derivative is stated, because it is 0
    wherever it exists.

    References
    ----------
    R. Koenker and G. Bassett, "Regression quantiles", Econometrica 46, 1978.

    Examples
    --------
    >>> from sklloss.losses import Quantile
    >>> Quantile(0.75).per_sample([0.0, 0.0], [-8.0, 8.0]).tolist()
    [6.0, 2.0]
    """

    quantile: float = 0.5

    name: ClassVar[str] = "quantile"
    kernel: ClassVar[str] = "quantile"

    def __post_init__(self) -> None:
        quantile = number(self.quantile, "quantile", "in (0, 1)", lambda x: 0.0 < x < 1.0)
        object.__setattr__(self, "quantile", quantile)

    @property
    def kernel_parameter(self) -> float:
        """The quantile."""
        return self.quantile

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        d = raw - y
        # 0 * d is 0 where d = 0 and NaN where d is NaN.
        slope = xp.where(d > 0, 1.0 - self.quantile, xp.where(d < 0, -self.quantile, 0.0 * d))
        return slope * d, slope


@register
@dataclass(frozen=True)
class LogCosh(Loss):
    """The logarithm of the hyperbolic cosine of the error d = raw - y: ``log(cosh(d))``.

    It is about ``d**2 / 2`` near 0 and ``|d| - log 2`` far out. The gradient is tanh(d), the second
    derivative ``1 - tanh(d)**2``. Averaged over outputs and rows.

    Notes
    -----
    y_true is finite and has the shape of raw, (n,) or (n, T). `predict` gives raw itself: the link is the
    identity. Convex, robust (the gradient is bounded) and, unlike Huber's loss, smooth everywhere. The errors
    that it takes for large are those beyond about 1 in units of y: scale y.

    Written as ``log1p(2 sinh(d / 2)**2)`` near 0, which keeps the digits of a small error, and as
    ``|d| + (log1p(exp(-2 |d|)) - log 2)`` far out, where the cosine would overflow.

    Examples
    --------
    >>> from sklloss.losses import LogCosh
    >>> LogCosh().per_sample([0.0, 0.0], [1e-5, 1e5]).round(18).tolist()
    [5e-11, 99999.30685281944]
    """

    name: ClassVar[str] = "log_cosh"
    kernel: ClassVar[str] = "log_cosh"

    @property
    def curvature_bound(self) -> float:
        """1 - tanh(d)**2 is largest at d = 0; see `Loss.curvature_bound`."""
        return 1.0

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
