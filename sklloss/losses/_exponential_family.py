"""Losses of non-negative targets with a log link: raw is the logarithm of the prediction."""

from dataclasses import dataclass
from typing import Any, ClassVar

from sklloss.losses._base import Loss, parameter, register


@register
@dataclass(frozen=True)
class Poisson(Loss):
    """The Poisson loss of counts and rates: ``exp(raw) - y raw``, with gradient ``exp(raw) - y``.

    The negative log likelihood of a Poisson variable with mean exp(raw), without the terms in y alone: half
    the Poisson deviance up to a constant, as in scikit-learn and torch. It may be negative.
    Averaged over outputs and rows.

    Notes
    -----
    y_true is finite and not negative (but need not be an integer) and has the shape of raw, (n,) or (n, T).
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
    known_dispersion: ClassVar[bool] = True
    domain: ClassVar[str] = "non-negative"
    inverse_link_name: ClassVar[str] = "exp"

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        mean = xp.exp(raw)
        # Avoids inf - inf and 0 * inf.
        alone = xp.isinf(mean) | ((y == 0) & xp.isinf(raw))
        return mean - y * xp.where(alone, 0.0, raw), lambda: mean - y

    def expected_curvature(self, xp: Any, raw: Any) -> Any:
        """exp(raw); see `Loss.expected_curvature`."""
        return xp.exp(raw)

    def saturated(self, xp: Any, y: Any) -> Any:
        """``y - y log(y)``; see `Loss.saturated`."""
        return y - y * xp.log(xp.where(y > 0, y, 1.0))

    def curvature(self, xp: Any, y: Any, raw: Any) -> Any:
        """exp(raw); see `Loss.curvature`."""
        return xp.exp(raw)


@register
@dataclass(frozen=True)
class Gamma(Loss):
    """The gamma loss of positive, skewed amounts: ``raw + y exp(-raw)``, with gradient ``1 - y exp(-raw)``.

    The negative log likelihood of a gamma variable with mean exp(raw), divided by its shape parameter and
    without the terms in y alone: half the gamma deviance up to a constant, as in scikit-learn. It measures
    relative errors and may be negative. Averaged over outputs and rows.

    Notes
    -----
    y_true is finite and greater than 0 and has the shape of raw, (n,) or (n, T). `predict` gives exp(raw):
    the link is the logarithm. Convex, not robust. The second derivative is y exp(-raw).

    ``y exp(-raw)`` is computed as ``y exp(-raw / 2) exp(-raw / 2)``, which overflows only if the result does.
    At infinite raw the loss is infinite.

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
    domain: ClassVar[str] = "positive"
    inverse_link_name: ClassVar[str] = "exp"

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        ratio = _ratio(xp, y, raw)
        # Avoids -inf + inf.
        return xp.where(xp.isinf(ratio), 0.0, raw) + ratio, lambda: 1.0 - ratio

    def expected_curvature(self, xp: Any, raw: Any) -> Any:
        """1; see `Loss.expected_curvature`."""
        return xp.ones_like(raw)

    def saturated(self, xp: Any, y: Any) -> Any:
        """``1 + log(y)``; see `Loss.saturated`."""
        return 1.0 + xp.log(y)

    def curvature(self, xp: Any, y: Any, raw: Any) -> Any:
        """``y exp(-raw)``; see `Loss.curvature`."""
        return _ratio(xp, y, raw)


@register
@dataclass(frozen=True)
class Tweedie(Loss):
    """The Tweedie loss of amounts many of which are 0, such as insurance claims.

    With a = 2 - power and b = power - 1 it is ``exp(a raw) / a + y exp(-b raw) / b``, its gradient
    ``exp(a raw) - y exp(-b raw)``: half the Tweedie deviance of the mean exp(raw) without the term in y
    alone, which scikit-learn's `TweedieRegressor` minimises with its log link. Never negative. Averaged over
    outputs and rows.

    Parameters
    ----------
    power : float in (1, 2), default=1.5
        The variance of y is proportional to its mean raised to this power: towards 1 as in `Poisson`, towards
        2 as in `Gamma`.

    Notes
    -----
    y_true is finite and not negative and has the shape of raw, (n,) or (n, T). `predict` gives exp(raw): the
    link is the logarithm. Convex, not robust. The second derivative is ``a exp(a raw) + b y exp(-b raw)``.
    At raw = inf the loss is infinite. At raw = -inf it is 0 where y is 0, else infinite.

    References
    ----------
    B. Jorgensen, "Exponential dispersion models", Journal of the Royal Statistical Society B 49, 1987.

    Examples
    --------
    >>> from sklloss.losses import Tweedie
    >>> Tweedie(power=1.5)([0.0, 3.0], [0.0, 0.0])
    5.0
    >>> Tweedie(power=1.5).gradient([0.0, 3.0], [0.0, 0.0]).tolist()
    [0.5, -1.0]
    """

    power: float = parameter(1.5, "in (1, 2)", lambda x: 1.0 < x < 2.0)

    name: ClassVar[str] = "tweedie"
    kernel: ClassVar[str] = "tweedie"
    domain: ClassVar[str] = "non-negative"
    inverse_link_name: ClassVar[str] = "exp"

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        grown, shrunk = self._terms(xp, y, raw)
        value = grown / (2.0 - self.power) + shrunk / (self.power - 1.0)
        return value, lambda: grown - shrunk

    def expected_curvature(self, xp: Any, raw: Any) -> Any:
        """``exp(a raw)``; see `Loss.expected_curvature`."""
        return xp.exp((2.0 - self.power) * raw)

    def saturated(self, xp: Any, y: Any) -> Any:
        """``y**a / (a b)``, as a + b = 1; see `Loss.saturated`."""
        a, b = 2.0 - self.power, self.power - 1.0
        return xp.where(y > 0, y, 1.0) ** a * xp.where(y > 0, 1.0, 0.0) / (a * b)

    def curvature(self, xp: Any, y: Any, raw: Any) -> Any:
        """``a exp(a raw) + b y exp(-b raw)``; see `Loss.curvature`."""
        grown, shrunk = self._terms(xp, y, raw)
        return (2.0 - self.power) * grown + (self.power - 1.0) * shrunk

    def _terms(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """``exp(a raw)`` and ``y exp(-b raw)``."""
        # Not 0 * inf.
        behind = xp.where(y == 0, 0.0, raw)
        return (
            _exp_of_product(xp, 1.0, 2.0 - self.power, raw),
            _exp_of_product(xp, y, 1.0 - self.power, behind),
        )


def _exp_of_product(xp: Any, factor: Any, exponent: float, raw: Any) -> Any:
    """``factor exp(exponent raw)``, without the error that rounding the product would cause.

    raw is split at multiples of 1/64 and the exponent at multiples of 1/256: the product of the leading parts
    is exact, and the remainder small. The exponential is the product of two square roots, which overflows
    only if the result does.
    """
    coarse = round(exponent * 256) / 256
    near = xp.abs(raw) < 10000.0
    z = xp.where(near, raw, 0.0)
    head = xp.round(z * 64.0) / 64.0
    rest = xp.exp((exponent - coarse) * head + exponent * (z - head))
    half = xp.exp(0.5 * xp.where(near, coarse * head, exponent * raw))
    return factor * half * rest * half


def _ratio(xp: Any, y: Any, raw: Any) -> Any:
    """``y exp(-raw)``, the target over the prediction."""
    half = xp.exp(-0.5 * raw)
    return y * half * half
