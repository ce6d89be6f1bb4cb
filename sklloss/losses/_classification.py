"""Losses of classes: of independent sigmoids, of a softmax, of a margin."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sklloss.losses._base import Loss, number, register, unit_interval
from sklloss.losses._links import (
    at_codes,
    centred,
    one_hot,
    select,
    sigmoid_pair,
    signed_parts,
    softmax_parts,
)


@register
@dataclass(frozen=True)
class LogLoss(Loss):
    """Log loss (binary cross-entropy) of independent sigmoids.

    With p = sigmoid(raw) the loss of one output is ``-y log p - (1 - y) log(1 - p)``, its gradient ``p - y``.
    A row costs the sum over its outputs: the negative log likelihood of all its labels together.

    Parameters
    ----------
    label_smoothing : float in [0, 1), default=0.0
        y becomes ``y (1 - s) + s / 2``.

    Notes
    -----
    y_true holds labels 0 and 1 (bool, int or float) or probabilities between, in the shape of raw: (n,), or
    (n, L) for L labels that may hold together. `predict` gives the probability of label 1.

    Written as ``log1p(exp(-|raw|)) + |raw| * (the probability that y gives to the losing side)``: nothing
    cancels and nothing is clipped, a certain wrong answer costs |raw|. At infinite raw the loss is 0 where y
    is certain and right, and infinite otherwise.

    Examples
    --------
    >>> from sklloss.losses import LogLoss
    >>> LogLoss()([1, 0], [50.0, 50.0])
    25.0
    """

    label_smoothing: float = 0.0

    name: ClassVar[str] = "log_loss"
    kernel: ClassVar[str] = "log_loss"
    inverse_link_name: ClassVar[str] = "logistic"
    target: ClassVar[str] = "probabilities"
    reduction: ClassVar[str] = "sum"

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_smoothing", unit_interval(self.label_smoothing, "label_smoothing"))

    @property
    def curvature_bound(self) -> float:
        """The variance p (1 - p) is largest at p = 1/2; see `Loss.curvature_bound`."""
        return 0.25

    @property
    def kernel_parameter(self) -> float:
        """The label smoothing."""
        return self.label_smoothing

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        not_y = 1.0 - y
        if self.label_smoothing:
            # Smoothed separately: 1 - y loses digits for a smoothed y near 1.
            keep, spread = 1.0 - self.label_smoothing, 0.5 * self.label_smoothing
            y, not_y = y * keep + spread, not_y * keep + spread
        above, size, e = signed_parts(xp, raw)
        against = select(above, not_y, y)
        # A label of probability 0 contributes 0 however large the score; 0 * inf would be NaN.
        cost = against * xp.where((against == 0) & xp.isinf(size), 0.0, size)

        def gradient() -> Any:
            p, q = sigmoid_pair(above, e)
            # p - y, without cancellation where p is near y = 0 or y = 1.
            return not_y * p - y * q

        return xp.log1p(e) + cost, gradient

    def curvature(self, xp: Any, y: Any, raw: Any) -> Any:
        """The variance p (1 - p), whatever y; see `Loss.curvature`."""
        _, _, e = signed_parts(xp, raw)
        d = 1.0 + e
        return e / d / d


@register
@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy of a softmax over K classes.

    With p = softmax(raw) the loss of a row is ``-sum_k y_k log p_k``, its gradient ``p - y``.

    Parameters
    ----------
    label_smoothing : float in [0, 1), default=0.0
        y becomes ``y (1 - s) + s / K``.

    Notes
    -----
    raw is (n, K). y_true holds integer class codes (n,) in [0, K), or class probabilities (n, K), each row
    finite, not negative and summing to 1 within the square root of its dtype's machine epsilon. Codes that
    come as floats are refused. `predict` gives the class probabilities.

    With m the largest score of a row and S the sum of ``exp(raw_k - m)`` over all but one maximum, the loss
    is ``log1p(S) + sum_k y_k (m - raw_k)``. S leaves the maximum out, so that the small loss of a confident
    row keeps its digits. An infinite m counts as equal to itself: the other classes have probability 0, and
    cost infinity where y gives them any; a row of -inf alone is uniform.

    Examples
    --------
    >>> from sklloss.losses import CrossEntropy
    >>> loss = CrossEntropy()
    >>> raw = [[2.0, 0.0, 0.0], [0.0, 1000.0, 0.0]]
    >>> loss([0, 0], raw) == loss([[1, 0, 0], [1, 0, 0]], raw)
    True
    >>> loss.per_sample([0, 0], raw)[1].item()
    1000.0
    """

    label_smoothing: float = 0.0

    name: ClassVar[str] = "cross_entropy"
    kernel: ClassVar[str] = "cross_entropy"
    inverse_link_name: ClassVar[str] = "softmax"
    target: ClassVar[str] = "classes"
    reduction: ClassVar[str] = "sum"
    separable: ClassVar[bool] = False
    shift_invariant: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_smoothing", unit_interval(self.label_smoothing, "label_smoothing"))

    @property
    def curvature_buffer(self) -> Literal["probabilities"]:
        """The softmax of each row; see `Loss.curvature_buffer`."""
        return "probabilities"

    @property
    def curvature_bound(self) -> float:
        """p_k (1 - p_k) is largest at p_k = 1/2; see `Loss.curvature_bound`."""
        return 0.25

    @property
    def kernel_parameter(self) -> float:
        """The label smoothing."""
        return self.label_smoothing

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        K = raw.shape[1]
        keep, spread = 1.0 - self.label_smoothing, self.label_smoothing / K
        behind, e, rest = softmax_parts(xp, raw)
        value = xp.log1p(rest[:, 0])
        if y.ndim == 1:
            value = value + keep * at_codes(xp, behind, y)
            if spread:
                value = value + xp.sum(spread * behind, axis=1)
        else:
            y = y * keep + spread if spread else y
            # A class of probability 0 contributes 0 however low its score; 0 * inf would be NaN.
            value = value + xp.sum(y * xp.where((y == 0) & xp.isinf(behind), 0.0, behind), axis=1)

        def gradient() -> Any:
            total = 1.0 + rest
            if y.ndim == 2:
                return e / total - y
            own = one_hot(xp, y, raw)
            if spread:
                return e / total - xp.where(own, xp.full_like(raw, keep + spread), spread)
            # At the code, p - 1 is minus the probability of all other classes; from S it keeps its digits.
            others = xp.where(behind == 0, rest, total - e)
            return xp.where(own, -others, e) / total

        return value, gradient

    def product_formula(self, xp: Any, y: Any, raw: Any, direction: Any) -> Any:
        """Of the direction v, p (v - sum_k p_k v_k), whatever y; see `Loss.product_formula`."""
        behind, e, rest = softmax_parts(xp, raw)
        p = e / (1.0 + rest)
        return p * centred(xp, behind, p, direction)


@register
@dataclass(frozen=True)
class GeneralizedCrossEntropy(Loss):
    """Generalized cross-entropy of a softmax over K classes, for labels of which some are wrong.

    With p = softmax(raw) the loss of a row is ``sum_k y_k (1 - p_k**q) / q``, its gradient
    ``p_j sum_k y_k p_k**q - y_j p_j**q``.

    The gradient of a row of class c is that of the cross-entropy times ``p_c**q``: a row counts less the less
    the model believes its label, and costs at most 1 / q. As q goes to 0 the loss becomes the cross-entropy;
    at q = 1 it is half the absolute error of the probabilities. A larger q resists more wrong labels, but
    gives a model that starts far from the truth smaller gradients.

    Parameters
    ----------
    q : float in (0, 1], default=0.7

    Notes
    -----
    raw is (n, K). y_true holds integer class codes (n,) in [0, K), or class probabilities (n, K), as for
    `CrossEntropy`. `predict` gives the class probabilities. Not convex in raw. Infinite scores count as they
    do in `CrossEntropy`, but a certain wrong answer costs 1 / q.

    The loss is computed as ``-expm1(q log p_c) / q`` from the cross-entropy, so that the small loss of a
    confident row keeps its digits.

    References
    ----------
    Z. Zhang and M. R. Sabuncu, "Generalized cross entropy loss for training deep neural networks with noisy
    labels", 2018.

    Examples
    --------
    >>> from sklloss.losses import GeneralizedCrossEntropy
    >>> GeneralizedCrossEntropy(q=0.5).per_sample([0, 1], [[0.0, 0.0], [1000.0, 0.0]]).round(4).tolist()
    [0.5858, 2.0]
    """

    q: float = 0.7

    name: ClassVar[str] = "generalized_cross_entropy"
    kernel: ClassVar[str] = "generalized_cross_entropy"
    inverse_link_name: ClassVar[str] = "softmax"
    target: ClassVar[str] = "classes"
    reduction: ClassVar[str] = "sum"
    separable: ClassVar[bool] = False
    shift_invariant: ClassVar[bool] = True
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "q", number(self.q, "q", "in (0, 1]", lambda x: 0.0 < x <= 1.0))

    @property
    def curvature_bound(self) -> float:
        """``p**q (1 - p) ((1 + q) p - q)`` at the p where its derivative is 0; see `Loss.curvature_bound`."""
        q = self.q
        half = 0.5 * (1.0 + 2.0 * q) * (1.0 + q)
        p = (half + math.sqrt(half**2 - q * q * (1.0 + q) * (2.0 + q))) / ((1.0 + q) * (2.0 + q))
        return p**q * (1.0 - p) * ((1.0 + q) * p - q)

    @property
    def kernel_parameter(self) -> float:
        """The exponent q."""
        return self.q

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        behind, e, rest = softmax_parts(xp, raw)
        total = 1.0 + rest
        # 1 - p without cancellation
        p, other = e / total, xp.where(behind == 0, rest, total - e) / total
        if y.ndim == 1:
            behind = at_codes(xp, behind, y)[:, None]
        value = -xp.expm1(-self.q * (xp.log1p(rest) + behind)) / self.q
        power = self._power(xp, behind, total)
        if y.ndim == 1:
            return value[:, 0], lambda: power * xp.where(one_hot(xp, y, raw), -other, p)

        def gradient() -> Any:
            part = y * power
            # The sum over all other classes. For a class with p near 1 a difference would lose its digits.
            most = p > 0.5
            elsewhere = xp.where(
                most,
                xp.sum(xp.where(most, 0.0, part), axis=1, keepdims=True),
                xp.sum(part, axis=1, keepdims=True) - part,
            )
            return p * elsewhere - part * other

        return xp.sum(y * value, axis=1), gradient

    def product_formula(self, xp: Any, y: Any, raw: Any, direction: Any) -> Any:
        """The derivative of the gradient along a direction; see `Loss.product_formula`."""
        behind, e, rest = softmax_parts(xp, raw)
        total = 1.0 + rest
        p, other = e / total, xp.where(behind == 0, rest, total - e) / total
        y = xp.astype(one_hot(xp, y, raw), raw.dtype) if y.ndim == 1 else y
        part = y * self._power(xp, behind, total)
        move = centred(xp, behind, p, direction)  # the change of log p
        change = self.q * part * move
        outer = p * move * xp.sum(part, axis=1, keepdims=True)
        return outer + p * (xp.sum(change, axis=1, keepdims=True) - change) - other * change

    def _power(self, xp: Any, behind: Any, total: Any) -> Any:
        """``p**q``, also where p underflows, for ``p = exp(-behind) / total``."""
        # q = 2**k s: scaling by 2**k is exact, and a power s of 1 to 2 at most doubles a relative error.
        mantissa, exponent = math.frexp(self.q)
        return xp.exp(-behind * 0.5 * 2.0**exponent) ** (2.0 * mantissa) / total**self.q


@register
@dataclass(frozen=True)
class SquaredHinge(Loss):
    """The squared hinge loss of a linear support vector machine, ``max(0, 1 - s raw)**2``.

    s is 1 for label 1 and -1 for label 0. The gradient is ``-2 s max(0, 1 - s raw)``. A row costs the sum
    over its outputs.

    Notes
    -----
    y_true holds labels 0 and 1 (bool, int or float), nothing between, in the shape of raw: (n,), or (n, L)
    for L labels that may hold together. `predict` gives raw itself, whose sign is the decision: the loss has
    no probabilities. Convex. The second derivative jumps at a margin ``s raw`` of 1; stated are its
    one-sided values, 2 below and 0 from there on, which serve Newton's method.

    References
    ----------
    K.-W. Chang, C.-J. Hsieh and C.-J. Lin, "Coordinate descent method for large-scale L2-loss linear support
    vector machines", Journal of Machine Learning Research 9, 2008.

    Examples
    --------
    >>> from sklloss.losses import SquaredHinge
    >>> SquaredHinge().per_sample([1, 1, 0], [2.0, 0.5, 1.0]).tolist()
    [0.0, 0.25, 4.0]
    """

    name: ClassVar[str] = "squared_hinge"
    kernel: ClassVar[str] = "squared_hinge"
    target: ClassVar[str] = "probabilities"
    domain: ClassVar[str] = "labels"
    reduction: ClassVar[str] = "sum"
    has_probabilities: ClassVar[bool] = False

    @property
    def curvature_bound(self) -> float:
        """The second derivative within the margin; see `Loss.curvature_bound`."""
        return 2.0

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        sign = 2.0 * y - 1.0
        margin = sign * raw
        # Chosen before it is squared, so that NaN stays NaN and an infinite margin costs nothing.
        missing = xp.where(margin >= 1.0, 0.0, 1.0 - margin)
        return missing * missing, lambda: -2.0 * sign * missing

    def curvature(self, xp: Any, y: Any, raw: Any) -> Any:
        """2 below the margin 1, 0 from there on; see `Loss.curvature`."""
        return 2.0 * xp.astype((2.0 * y - 1.0) * raw < 1.0, raw.dtype)
