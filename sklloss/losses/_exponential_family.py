"""Losses of positive quantities, whose logarithm is modelled: raw is log of the prediction."""

from dataclasses import dataclass
from typing import Any, ClassVar

from sklloss.losses import _checks
from sklloss.losses._base import Loss
from sklloss.losses._registry import register


@register
@dataclass(frozen=True)
class Poisson(Loss):
    """The Poisson loss of counts and rates: ``exp(raw) - y raw``, with gradient ``exp(raw) - y``.

    The negative log likelihood of a Poisson variable whose mean is exp(raw), without the terms that hold y
    alone: half the Poisson deviance but for a constant, as in scikit-learn and torch. It may be negative.
    Averaged over outputs and rows.

    Notes
    -----
    y_true is finite and not negative (it need not be whole) and has the shape of raw, (n,) or (n, T).
    `predict` gives exp(raw): the link is the logarithm. Convex, not robust. The second derivative is
    exp(raw). At raw = inf the loss is infinite. At raw = -inf it is 0 where y is 0, else infinite.

    References
    ----------
    P. McCullagh and J. A. Nelder, "Generalized Linear Models", 2nd edition, 1989, chapter 6.

    Examples
    --------
    >>> from sklloss.losses import Poisson
    >>> Poisson()([0, 3], [0.0, 0.0])
    1.0
    >>> Poisson().gradient([0, 3], [0.0, 0.0]).tolist()
    [0.5, -1.0]
    """

    name: ClassVar[str] = "poisson"
    kernel: ClassVar[str] = "poisson"
    inverse_link_name: ClassVar[str] = "exp"

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        mean = xp.exp(raw)
        # Not inf - inf, and not 0 * inf.
        alone = xp.isinf(mean) | ((y == 0) & xp.isinf(raw))
        return mean - y * xp.where(alone, 0.0, raw), lambda: mean - y

    def curvature(self, xp: Any, y: Any, raw: Any) -> Any:
        """exp(raw); see `Loss.curvature`."""
        return xp.exp(raw)

    def inverse_link(self, xp: Any, raw: Any) -> Any:
        """exp(raw)."""
        return xp.exp(raw)

    def check_values(self, xp: Any, y: Any, outputs: int) -> None:
        """See `Loss.check_values`: y is finite and not negative."""
        super().check_values(xp, y, outputs)
        _checks.not_below_zero(xp, y, "Poisson")


@register
@dataclass(frozen=True)
class Gamma(Loss):
    """The gamma loss of positive, skewed amounts: ``raw + y exp(-raw)``, with gradient ``1 - y exp(-raw)``.

    The negative log likelihood of a gamma variable whose mean is exp(raw), in units of its shape parameter
    and without the terms that hold y alone: half the gamma deviance but for a constant, as in scikit-learn.
    An error counts relative to the prediction. It may be negative. Averaged over outputs and rows.

    Notes
    -----
    y_true is finite and greater than 0 and has the shape of raw, (n,) or (n, T). `predict` gives exp(raw):
    the link is the logarithm. Convex, not robust. The second derivative is y exp(-raw).

    ``y exp(-raw)`` is taken in two halves: it overflows only where it is itself too large. At infinite raw
    the loss is infinite.

    References
    ----------
    P. McCullagh and J. A. Nelder, "Generalized Linear Models", 2nd edition, 1989, chapter 8.

    Examples
    --------
    >>> from sklloss.losses import Gamma
    >>> Gamma()([1.0, 2.0], [0.0, 0.0])
    1.5
    >>> Gamma().gradient([1.0, 2.0], [0.0, 0.0]).tolist()
    [0.0, -0.5]
    """

    name: ClassVar[str] = "gamma"
    kernel: ClassVar[str] = "gamma"
    inverse_link_name: ClassVar[str] = "exp"

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        ratio = _ratio(xp, y, raw)
        # Not -inf + inf.
        return xp.where(xp.isinf(ratio), 0.0, raw) + ratio, lambda: 1.0 - ratio

    def curvature(self, xp: Any, y: Any, raw: Any) -> Any:
        """``y exp(-raw)``; see `Loss.curvature`."""
        return _ratio(xp, y, raw)

    def inverse_link(self, xp: Any, raw: Any) -> Any:
        """exp(raw)."""
        return xp.exp(raw)

    def check_values(self, xp: Any, y: Any, outputs: int) -> None:
        """See `Loss.check_values`: y is finite and greater than 0."""
        super().check_values(xp, y, outputs)
        _checks.above_zero(xp, y, "Gamma")


def _ratio(xp: Any, y: Any, raw: Any) -> Any:
    """``y exp(-raw)``, the target over the prediction."""
    half = xp.exp(-0.5 * raw)
    return y * half * half
