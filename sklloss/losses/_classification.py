"""Losses of classes: of independent sigmoids, of a softmax, of a margin."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from array_api_compat import device

from sklloss import kernels
from sklloss.losses import _checks
from sklloss.losses._base import Loss, register, unit_interval


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
        against = pick(above, not_y, y)
        # A label of probability 0 contributes 0 however large the score; 0 * inf would be NaN.
        cost = against * xp.where((against == 0) & xp.isinf(size), 0.0, size)

        def gradient() -> Any:
            p, q = _sides(above, e)
            # p - y, without cancellation where p is near y = 0 or y = 1.
            return not_y * p - y * q

        return xp.log1p(e) + cost, gradient

    def curvature(self, xp: Any, y: Any, raw: Any) -> Any:
        """The variance p (1 - p), whatever y; see `Loss.curvature`."""
        _, _, e = signed_parts(xp, raw)
        d = 1.0 + e
        return e / d / d

    def inverse_link(self, xp: Any, raw: Any) -> Any:
        """sigmoid(raw)."""
        return sigmoid(xp, raw)

    def _link_in_place(self, scores: Any) -> None:  # type: ignore[override]
        sigmoid_in_place(scores)


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
        behind, e, rest = parts(xp, raw)
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
        behind, e, rest = parts(xp, raw)
        p = e / (1.0 + rest)
        return p * centred(xp, behind, p, direction)

    def inverse_link(self, xp: Any, raw: Any) -> Any:
        """softmax(raw) over the last axis."""
        return softmax(xp, raw)

    def _link_in_place(self, scores: Any) -> None:  # type: ignore[override]
        softmax_in_place(scores)


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
    reduction: ClassVar[str] = "sum"
    has_probabilities: ClassVar[bool] = False

    @property
    def curvature_bound(self) -> float:
        """The second derivative within the margin; see `Loss.curvature_bound`."""
        return 2.0

    def check_values(self, xp: Any, y: Any, outputs: int) -> None:
        """See `Loss.check_values`."""
        _checks.labels(xp, y)

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


def sigmoid(xp: Any, raw: Any) -> Any:
    """The probability of label 1, over an array namespace."""
    above, _, e = signed_parts(xp, raw)
    return _sides(above, e)[0]


def sigmoid_in_place(scores: Any) -> None:
    """Replace C-contiguous NumPy scores (n, outputs) by probabilities, using the kernel."""
    # The gradient at y = 0 is the probability.
    kernels.evaluate(kernels.get("log_loss", scores.dtype), scores, target=np.zeros_like(scores))


def signed_parts(xp: Any, raw: Any) -> tuple[Any, Any, Any]:
    """1 where raw >= 0, else 0; then |raw| and exp(-|raw|).

    |raw| is raw times its sign and not ``abs``, whose automatic derivative at 0 is 0: the derivative of the
    loss at 0 is 1/2 - y.
    """
    above = xp.astype(raw >= 0, raw.dtype)
    size = (2.0 * above - 1.0) * raw
    return above, size, xp.exp(-size)


def pick(above: Any, this: Any, other: Any) -> Any:
    """One of two finite arrays: ``this`` where above is 1, ``other`` where it is 0.

    Exact, and on a CPU faster than ``where``, which branches at every element.
    """
    return above * this + (1.0 - above) * other


def _sides(above: Any, e: Any) -> tuple[Any, Any]:
    """The sigmoids of raw and of -raw, each with its relative accuracy."""
    small, large = e / (1.0 + e), 1.0 / (1.0 + e)
    return pick(above, large, small), pick(above, small, large)


def softmax(xp: Any, raw: Any) -> Any:
    """Class probabilities (n, K), over an array namespace."""
    _, e, rest = parts(xp, raw)
    return e / (1.0 + rest)


def softmax_in_place(scores: Any) -> None:
    """Replace C-contiguous NumPy scores (n, K) by class probabilities, using the kernel."""
    # The kernel returns the probabilities as curvature; the codes do not matter.
    codes = np.zeros(scores.shape[0], dtype=np.intp)
    p = np.empty_like(scores)
    kernels.evaluate(kernels.get("cross_entropy", scores.dtype), scores, codes=codes, curvature=p)
    scores[...] = p


def one_hot(xp: Any, codes: Any, raw: Any) -> Any:
    """A boolean array of raw's shape, true at the code of each row."""
    classes = xp.arange(raw.shape[1], dtype=codes.dtype, device=device(raw))
    return codes[:, None] == classes[None, :]


def at_codes(xp: Any, array: Any, codes: Any) -> Any:
    """The entry at the code of each row of an (n, K) array, of shape (n,)."""
    if hasattr(xp, "take_along_axis"):  # not in the oldest namespaces
        return xp.take_along_axis(array, codes[:, None], axis=1)[:, 0]
    n, K = array.shape
    place = xp.arange(n, dtype=codes.dtype, device=device(array)) * K + codes
    return xp.take(xp.reshape(array, (-1,)), place, axis=0)


def parts(xp: Any, raw: Any) -> tuple[Any, Any, Any]:
    """For m the largest score of a row: m - raw and exp(raw - m), (n, K); S = sum exp(raw - m) - 1, (n, 1).

    m is the score of one class, the first that is largest; S is the sum over all the others. Automatic
    differentiation takes the same steps, and that choice keeps it right: m's own distance to m is the
    constant 0, so that the derivative of m never meets its own negative, while a class that ties with it is
    one of the others.
    """
    first = xp.argmax(raw, axis=1)
    top = at_codes(xp, raw, first)[:, None]
    alone = one_hot(xp, first, raw)
    behind = xp.where(alone | (xp.isinf(top) & (raw == top)), 0.0, top - raw)
    e = xp.exp(-behind)
    return behind, e, xp.sum(xp.where(alone, 0.0, e), axis=1, keepdims=True)


def centred(xp: Any, behind: Any, p: Any, direction: Any) -> Any:
    """``v - sum_k p_k v_k`` for a direction v.

    v is first shifted to 0 at the largest score, so that the difference keeps its digits where p is near 1.
    """
    at_top = behind == 0
    ties = xp.sum(xp.astype(at_top, p.dtype), axis=1, keepdims=True)
    v = direction - xp.sum(xp.where(at_top, direction, 0.0), axis=1, keepdims=True) / ties
    return v - xp.sum(p * v, axis=1, keepdims=True)
