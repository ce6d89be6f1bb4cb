"""Losses for classes: log loss of independent sigmoids, cross-entropies of a softmax, squared hinge."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sklloss.losses._base import Loss, label_smoothing_parameter, parameter, register
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
    y_true is the labels 0 and 1 (bool, int or float) or probabilities of label 1, in the shape of raw: (n,),
    or (n, L) for L labels that do not exclude each other. `predict` gives the probability of label 1: the
    link is the logit. Convex, and robust: the gradient is bounded by 1. The second derivative is ``p (1 -
    p)``, at most 1/4.

    Computed as ``log1p(exp(-|raw|)) + c |raw|``, where c is the probability that y gives to the less likely
    label: nothing cancels and nothing is clipped, so a certain wrong answer costs |raw|. At infinite raw the
    loss is 0 if y is certain and right, and infinite otherwise.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.2; label smoothing: C. Szegedy
    et al., "Rethinking the Inception architecture for computer vision", 2016, section 7.

    Examples
    --------
    >>> from sklloss.losses import LogLoss
    >>> LogLoss()([1, 0], [50.0, 50.0])
    25.0
    """

    label_smoothing: float = label_smoothing_parameter()

    name: ClassVar[str] = "log_loss"
    kernel: ClassVar[str] = "log_loss"
    inverse_link_name: ClassVar[str] = "logistic"
    target: ClassVar[str] = "probabilities"
    reduction: ClassVar[str] = "sum"
    curvature_bound: ClassVar[float] = 0.25  # the variance p (1 - p) is largest at p = 1/2
    known_dispersion: ClassVar[bool] = True

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        not_y = 1.0 - y
        if self.label_smoothing:
            # Smoothed separately: 1 - y loses digits for a smoothed y near 1.
            scale, shift = 1.0 - self.label_smoothing, 0.5 * self.label_smoothing
            y, not_y = y * scale + shift, not_y * scale + shift
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

    def expected_curvature(self, xp: Any, raw: Any) -> Any:
        """The variance p (1 - p); see `Loss.expected_curvature`."""
        return self.curvature(xp, raw, raw)


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
    raw is (n, K). y_true is integer class codes (n,) in [0, K), or class probabilities (n, K), each row
    finite, not negative and summing to 1 within the square root of its dtype's machine epsilon. Codes of a
    floating-point dtype are refused. `predict` gives the class probabilities. Convex, and robust: the
    gradient is bounded by 1. The second derivative is ``diag(p) - p p'``.

    With m the largest score of a row and S the sum of ``exp(raw_k - m)`` over all but one maximum, the loss
    is ``log1p(S) + sum_k y_k (m - raw_k)``. S leaves the maximum out, so that the small loss of a confident
    row keeps its digits. Infinite scores of the same sign count as equal: at m = inf the other classes have
    probability 0, and the loss is infinite if y gives them any; a row of -inf alone is uniform.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.4; label smoothing: C. Szegedy
    et al., "Rethinking the Inception architecture for computer vision", 2016, section 7.

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

    label_smoothing: float = label_smoothing_parameter()

    name: ClassVar[str] = "cross_entropy"
    kernel: ClassVar[str] = "cross_entropy"
    inverse_link_name: ClassVar[str] = "softmax"
    target: ClassVar[str] = "classes"
    reduction: ClassVar[str] = "sum"
    separable: ClassVar[bool] = False
    shift_invariant: ClassVar[bool] = True
    curvature_buffer: ClassVar[Literal["probabilities"]] = "probabilities"
    curvature_bound: ClassVar[float] = 0.25  # p_k (1 - p_k) is largest at p_k = 1/2

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        K = raw.shape[1]
        scale, shift = 1.0 - self.label_smoothing, self.label_smoothing / K
        gap, e, rest = softmax_parts(xp, raw)
        value = xp.log1p(rest[:, 0])
        if y.ndim == 1:
            value = value + scale * at_codes(xp, gap, y)
            if shift:
                value = value + xp.sum(shift * gap, axis=1)
        else:
            y = y * scale + shift if shift else y
            # A class of probability 0 contributes 0 however low its score; 0 * inf would be NaN.
            value = value + xp.sum(y * xp.where((y == 0) & xp.isinf(gap), 0.0, gap), axis=1)

        def gradient() -> Any:
            total = 1.0 + rest
            if y.ndim == 2:
                return e / total - y
            at_code = one_hot(xp, y, raw)
            if shift:
                return e / total - xp.where(at_code, xp.full_like(raw, scale + shift), shift)
            # At the code, p - 1 is minus the probability of all other classes; from S it keeps its digits.
            others = xp.where(gap == 0, rest, total - e)
            return xp.where(at_code, -others, e) / total

        return value, gradient

    def product_formula(self, xp: Any, y: Any, raw: Any, direction: Any) -> Any:
        """Of the direction v, p (v - sum_k p_k v_k), whatever y; see `Loss.product_formula`."""
        gap, e, rest = softmax_parts(xp, raw)
        p = e / (1.0 + rest)
        return p * centred(xp, gap, p, direction)


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
    raw is (n, K). y_true is integer class codes (n,) in [0, K), or class probabilities (n, K), as for
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

    q: float = parameter(0.7, "in (0, 1]", lambda x: 0.0 < x <= 1.0)

    name: ClassVar[str] = "generalized_cross_entropy"
    kernel: ClassVar[str] = "generalized_cross_entropy"
    inverse_link_name: ClassVar[str] = "softmax"
    target: ClassVar[str] = "classes"
    reduction: ClassVar[str] = "sum"
    separable: ClassVar[bool] = False
    shift_invariant: ClassVar[bool] = True
    convex: ClassVar[bool] = False

    @property
    def curvature_bound(self) -> float:
        """``p**q (1 - p) ((1 + q) p - q)`` at the p where its derivative is 0; see `Loss.curvature_bound`."""
        q = self.q
        half = 0.5 * (1.0 + 2.0 * q) * (1.0 + q)
        p = (half + math.sqrt(half**2 - q * q * (1.0 + q) * (2.0 + q))) / ((1.0 + q) * (2.0 + q))
        return p**q * (1.0 - p) * ((1.0 + q) * p - q)

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        gap, e, rest = softmax_parts(xp, raw)
        total = 1.0 + rest
        # 1 - p without cancellation
        p, other = e / total, xp.where(gap == 0, rest, total - e) / total
        if y.ndim == 1:
            gap = at_codes(xp, gap, y)[:, None]
        value = -xp.expm1(-self.q * (xp.log1p(rest) + gap)) / self.q
        power = self._power(xp, gap, total)
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
        gap, e, rest = softmax_parts(xp, raw)
        total = 1.0 + rest
        p, other = e / total, xp.where(gap == 0, rest, total - e) / total
        y = xp.astype(one_hot(xp, y, raw), raw.dtype) if y.ndim == 1 else y
        part = y * self._power(xp, gap, total)
        move = centred(xp, gap, p, direction)  # the change of log p
        change = self.q * part * move
        outer = p * move * xp.sum(part, axis=1, keepdims=True)
        return outer + p * (xp.sum(change, axis=1, keepdims=True) - change) - other * change

    def _power(self, xp: Any, gap: Any, total: Any) -> Any:
        """``p**q``, also where p underflows, for ``p = exp(-behind) / total``."""
        # q = 2**k s: scaling by 2**k is exact, and a power s of 1 to 2 at most doubles a relative error.
        mantissa, exponent = math.frexp(self.q)
        return xp.exp(-gap * 0.5 * 2.0**exponent) ** (2.0 * mantissa) / total**self.q


@register
@dataclass(frozen=True)
class SquaredHinge(Loss):
    """The squared hinge loss of a linear support vector machine, ``max(0, 1 - s raw)**2``.

    s is 1 for label 1 and -1 for label 0. The gradient is ``-2 s max(0, 1 - s raw)``. A row costs the sum
    over its outputs.

    Notes
    -----
    y_true is the labels 0 and 1 (bool, int or float), no probabilities, in the shape of raw: (n,), or (n, L)
    for L labels that do not exclude each other. `predict` gives raw itself, whose sign is the decision: the
    loss does not determine probabilities. Convex, not robust. The second derivative is 2 for a margin
    ``s raw`` below 1 and 0 from there on; it jumps at 1, which Newton's method tolerates.

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
    curvature_bound: ClassVar[float] = 2.0  # the second derivative within the margin

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
