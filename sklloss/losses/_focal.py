"""The focal loss of sigmoids and of a softmax: log losses that give less weight to easy rows."""

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import numpy as np

from sklloss.losses._base import Loss, parameter, register
from sklloss.losses._links import at_codes, centred, one_hot, select, signed_parts, softmax_parts


def _gamma_parameter() -> Any:
    return parameter(2.0, "finite and not negative", lambda x: 0.0 <= x < inf)


@register
@dataclass(frozen=True)
class Focal(Loss):
    """Focal loss: the log loss times ``(1 - t) ** gamma``, t being the probability of the true label.

    With p = sigmoid(raw), q = 1 - p and g = gamma, the loss of one output is
    ``-y q**g log p - (1 - y) p**g log q``. Its gradient is
    ``(1 - y) p**g (p - g q log q) - y q**g (q - g p log p)``. A row costs the sum over its outputs.

    At gamma = 2, the loss of a row whose true label already has probability 0.9 is 1/100 of its log loss, so
    that many easy rows do not outweigh a few hard ones: the loss is designed for strong class imbalance. At
    gamma = 0 it is the log loss. The probabilities of a fitted model are biased towards 1/2 and not
    calibrated.

    Parameters
    ----------
    gamma : float >= 0, default=2.0

    Notes
    -----
    y_true is the labels 0 and 1 (bool, int or float) or probabilities of label 1, in the shape of raw: (n,),
    or (n, L) for L labels that do not exclude each other. `predict` gives the probability of label 1: the
    link is the logit.

    If raw is (n, K), K >= 2, and y_true is integer class codes (n,), the loss is the focal loss of a softmax,
    `SoftmaxFocal`: ``-(1 - p_c)**g log p_c`` for the class c of a row. `softmax` returns that loss, which
    also takes class probabilities (n, K) and predicts by softmax.

    Not convex in raw, except at gamma = 0: the second derivative is negative for a confident wrong answer. A
    certain wrong answer costs |raw|, which at infinite raw is infinite; a certain right one costs 0. p, q and
    their logarithms are all computed from exp(-|raw|), without subtraction from 1 and without clipping.

    References
    ----------
    T.-Y. Lin, P. Goyal, R. Girshick, K. He and P. Dollar, "Focal loss for dense object detection", 2017.

    Examples
    --------
    >>> from sklloss.losses import Focal
    >>> Focal(gamma=2.0)([1], [0.0]) == 0.25 * Focal(gamma=0.0)([1], [0.0])
    True
    >>> Focal()([1, 0], [[0.0, 1000.0], [0.0, 1000.0]])
    500.0
    """

    gamma: float = _gamma_parameter()

    name: ClassVar[str] = "focal"
    kernel: ClassVar[str] = "focal"
    inverse_link_name: ClassVar[str] = "logistic"
    target: ClassVar[str] = "probabilities"
    reduction: ClassVar[str] = "sum"
    convex: ClassVar[bool] = False

    def softmax(self) -> "SoftmaxFocal":
        """The same loss of a softmax over classes, a `SoftmaxFocal`."""
        return SoftmaxFocal(self.gamma)

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        if y.ndim < raw.ndim:
            return self.softmax().formula(xp, y, raw)
        above, size, small, large, rest = _sides(xp, raw)
        side, against = select(above, y, 1.0 - y), select(above, 1.0 - y, y)
        right, wrong = _power(xp, small, self.gamma), _power(xp, large, self.gamma)
        # A label of probability 0 contributes 0 however large the score; 0 * inf would be NaN.
        far = against * xp.where((against == 0) & xp.isinf(size), 0.0, size)

        def gradient() -> Any:
            surprisal = rest + xp.where(xp.isinf(size), 0.0, size)
            away = against * wrong * (self.gamma * small * surprisal + large)
            slope = away - side * right * (self.gamma * large * rest + small)
            return (2.0 * above - 1.0) * slope

        return side * right * rest + wrong * (against * rest + far), gradient

    def curvature(self, xp: Any, y: Any, raw: Any) -> Any:
        """With l = -log p, k = -log q: y p q**g (g (g p - q) l + (2 g + 1) q), and its mirror image.

        See `Loss.curvature`.
        """
        g = self.gamma
        above, size, small, large, rest = _sides(xp, raw)
        side, against = select(above, y, 1.0 - y), select(above, 1.0 - y, y)
        right = large * _power(xp, small, g) * (g * (g * large - small) * rest + (2.0 * g + 1.0) * small)
        surprisal = rest + xp.where(xp.isinf(size), 0.0, size)
        # small * surprise first: it is small even where gamma times a large surprise would overflow.
        far = g * (g * small - large) * (small * surprisal) + (2.0 * g + 1.0) * large * small
        return side * right + against * _power(xp, large, g) * far

    def product_formula(self, xp: Any, y: Any, raw: Any, direction: Any) -> Any:
        """See `Loss.product_formula`."""
        if y.ndim < raw.ndim:
            return self.softmax().product_formula(xp, y, raw, direction)
        return super().product_formula(xp, y, raw, direction)

    def per_sample(self, y_true: Any, raw: Any) -> Any:
        """See `Loss.per_sample`."""
        if _coded(y_true, raw):
            return self.softmax().per_sample(y_true, raw)
        return super().per_sample(y_true, raw)

    def hessian_product(self, y_true: Any, raw: Any, direction: Any, sample_weight: Any = None) -> Any:
        """See `Loss.hessian_product`."""
        if _coded(y_true, raw):
            return self.softmax().hessian_product(y_true, raw, direction, sample_weight)
        return super().hessian_product(y_true, raw, direction, sample_weight)

    def evaluate_batch(
        self, raw: Any, target: Any = None, codes: Any = None, *arguments: Any, **options: Any
    ) -> float:
        """See `Loss.evaluate_batch`."""
        if codes is not None:
            return self.softmax().evaluate_batch(raw, target, codes, *arguments, **options)
        return super().evaluate_batch(raw, target, codes, *arguments, **options)

    def _evaluate(
        self, y_true: Any, raw: Any, sample_weight: Any, with_gradient: bool = True
    ) -> tuple[Any, Any]:
        if _coded(y_true, raw):
            return self.softmax()._evaluate(y_true, raw, sample_weight, with_gradient)
        return super()._evaluate(y_true, raw, sample_weight, with_gradient)


@dataclass(frozen=True)
class SoftmaxFocal(Loss):
    """Focal loss of a softmax over K classes.

    With p = softmax(raw) and g = gamma the loss of a row is ``-sum_k y_k (1 - p_k)**g log p_k``. With
    ``h_k = (1 - p_k)**(g - 1) (1 - p_k - g p_k log p_k)`` its gradient is
    ``p_j sum_k y_k h_k - y_j h_j``. gamma = 0 is the cross-entropy. See `Focal`, whose `Focal.softmax` gives
    this loss.

    Parameters
    ----------
    gamma : float >= 0, default=2.0

    Notes
    -----
    raw is (n, K). y_true is integer class codes (n,) in [0, K), or class probabilities (n, K), as for
    `CrossEntropy`. `predict` gives the class probabilities. Not convex in raw, except at gamma = 0. Infinite
    scores count as they do in `CrossEntropy`.

    References
    ----------
    T.-Y. Lin, P. Goyal, R. Girshick, K. He and P. Dollar, "Focal loss for dense object detection", 2017.

    Examples
    --------
    >>> from sklloss.losses import CrossEntropy, SoftmaxFocal
    >>> SoftmaxFocal(gamma=0.0)([1], [[0.0, 1.0, 0.0]]) == CrossEntropy()([1], [[0.0, 1.0, 0.0]])
    True
    """

    gamma: float = _gamma_parameter()

    kernel: ClassVar[str] = "softmax_focal"
    inverse_link_name: ClassVar[str] = "softmax"
    target: ClassVar[str] = "classes"
    reduction: ClassVar[str] = "sum"
    separable: ClassVar[bool] = False
    shift_invariant: ClassVar[bool] = True
    convex: ClassVar[bool] = False

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        gap, e, rest = softmax_parts(xp, raw)
        total = 1.0 + rest
        if y.ndim == 2:
            p, other = _chances(xp, e, rest)
            # A class of probability 0 contributes 0 however low its score; 0 * inf would be NaN.
            surprisal = xp.log1p(rest) + xp.where((y == 0) & xp.isinf(gap), 0.0, gap)
            power = _power(xp, other, self.gamma)

            def gradient() -> Any:
                part = y * _slope(xp, self.gamma, p, other, power, _finite(xp, surprisal))
                whole = xp.sum(part, axis=1, keepdims=True)
                # p * whole - part, rearranged so that the entry of a class with p near 1 keeps its digits.
                return p * (whole - part) - part * other

            return xp.sum(y * power * surprisal, axis=1), gradient

        # With codes, only one column of each row is needed.
        gap, at_code = at_codes(xp, gap, y)[:, None], at_codes(xp, e, y)[:, None]
        p, other = _chances(xp, at_code, rest)
        surprisal = xp.log1p(rest) + gap
        power = _power(xp, other, self.gamma)

        def gradient_at_codes() -> Any:
            slope = _slope(xp, self.gamma, p, other, power, _finite(xp, surprisal))
            return slope * xp.where(one_hot(xp, y, raw), -other, e / total)

        return (power * surprisal)[:, 0], gradient_at_codes

    def product_formula(self, xp: Any, y: Any, raw: Any, direction: Any) -> Any:
        """The derivative of the gradient along a direction; see `Loss.product_formula`."""
        g = self.gamma
        if y.ndim == 1:
            y = xp.astype(one_hot(xp, y, raw), raw.dtype)
        gap, e, rest = softmax_parts(xp, raw)
        p, other = _chances(xp, e, rest)
        surprisal = _finite(xp, xp.log1p(rest) + gap)
        power = _power(xp, other, g)
        part = y * _slope(xp, g, p, other, power, surprisal)
        whole = xp.sum(part, axis=1, keepdims=True)
        # dp = p move, and d part = y h'(p) dp
        move = centred(xp, gap, p, direction)
        # Where p is near 1 both quotients are about 1, even if 1 / other is infinite.
        alone = other == 0
        divisor = xp.where(alone, 1.0, other)
        curvature = g * p * power * (surprisal - (g - 1.0) * p * (surprisal / divisor) - 2.0)
        change = xp.where(alone, 0.0, y * curvature * (move / divisor))
        return p * move * whole + p * (xp.sum(change, axis=1, keepdims=True) - change) - other * change


def _coded(y_true: Any, raw: Any) -> Any:
    """Whether targets are class codes: y_true (n,) with raw (n, K), K >= 2."""
    y, scores = _shape(y_true), _shape(raw)
    return len(y) == 1 and len(scores) == 2 and scores[1] >= 2


def _shape(array: Any) -> Any:
    """The shape of anything convertible to an array; for a list, judged by its first entry."""
    shape = getattr(array, "shape", None)
    if shape is not None:
        return tuple(shape)
    try:
        if isinstance(array, (list, tuple)):
            return (len(array), *np.shape(array[0])) if array else (0,)
        return np.shape(array)
    except (TypeError, ValueError):
        # Not an array: the checks raise the error.
        return ()


def _power(xp: Any, x: Any, gamma: float) -> Any:
    """The power of an x in [0, 1].

    For gamma < 2 its first or second derivative is infinite at 0. Its factor is at most x there, so a lower
    bound on x changes no result and keeps the derivatives finite.
    """
    if gamma == 0.0:
        return xp.ones_like(x)
    if gamma == 1.0:
        return x
    if gamma == 2.0:
        return x * x
    if gamma < 2.0:
        floor = float(xp.finfo(x.dtype).smallest_normal)
        x = xp.where(x < floor, floor, x)
    return x**gamma


def _sides(xp: Any, raw: Any) -> tuple[Any, ...]:
    """1 where raw >= 0, else 0; |raw|; of p and q the smaller, the larger and minus its logarithm."""
    above, size, e = signed_parts(xp, raw)
    # An underflowed e is a constant: automatic differentiation must not multiply its 0 by an infinity.
    e = xp.where(e == 0, 0.0, e)
    total = 1.0 + e
    return above, size, e / total, 1.0 / total, xp.log1p(e)


def _chances(xp: Any, e: Any, rest: Any) -> Any:
    """The probabilities p of some classes, and 1 - p without cancellation."""
    total = 1.0 + rest
    # A constant where e underflowed, as in _sides.
    p = xp.where(e == 0, 0.0, e / total)
    # A class with p > 1/2 is the only largest one, so all the others add up to the rest.
    return p, xp.where(p > 0.5, rest / total, 1.0 - p)


def _slope(xp: Any, gamma: float, p: Any, other: Any, power: Any, surprisal: Any) -> Any:
    """Minus p times the derivative of -(1 - p)**gamma log p, given other = 1 - p and surprise = -log p."""
    alone = other == 0
    ratio = xp.where(alone, 1.0, surprisal / xp.where(alone, 1.0, other))
    return power * (gamma * p * ratio + 1.0)


def _finite(xp: Any, surprisal: Any) -> Any:
    """An infinite surprise meets a probability 0 only, and 0 * inf is NaN."""
    return xp.where(xp.isinf(surprisal), 0.0, surprisal)
