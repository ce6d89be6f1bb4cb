"""The cross-entropy of a softmax."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from array_api_compat import device

from sklloss import kernels
from sklloss.losses._base import Loss, unit_interval
from sklloss.losses._registry import register


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
