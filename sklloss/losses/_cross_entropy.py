"""The cross-entropy of a softmax."""

from dataclasses import dataclass
from typing import ClassVar

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
    target: ClassVar[str] = "classes"
    reduction: ClassVar[str] = "sum"
    separable: ClassVar[bool] = False

    def __post_init__(self):
        object.__setattr__(self, "label_smoothing", unit_interval(self.label_smoothing, "label_smoothing"))

    @property
    def kernel_parameter(self):
        """The label smoothing."""
        return self.label_smoothing

    def formula(self, xp, y, raw):
        """See `Loss.formula`."""
        K = raw.shape[1]
        behind, e, rest = _parts(xp, raw)
        codes = y.ndim == 1
        if codes:
            own = y[:, None] == xp.arange(K, dtype=y.dtype, device=device(raw))[None, :]
            y = xp.astype(own, raw.dtype)
        if self.label_smoothing:
            y = y * (1.0 - self.label_smoothing) + self.label_smoothing / K
        # 0 * inf is NaN: a class without probability costs nothing, however far behind.
        cost = xp.sum(y * xp.where((y == 0) & xp.isinf(behind), 0.0, behind), axis=1)
        value = xp.log1p(rest[:, 0]) + cost
        total = 1.0 + rest

        def gradient():
            if not codes or self.label_smoothing:
                return e / total - y
            # At the code, p - 1 is minus the probability of all others: S keeps its digits, p - 1 would not.
            others = xp.where(behind == 0, rest, total - e)
            return xp.where(own, -others, e) / total

        return value, gradient

    def inverse_link(self, xp, raw):
        """softmax(raw) over the last axis."""
        _, e, rest = _parts(xp, raw)
        return e / (1.0 + rest)

    def _link_in_place(self, scores):
        # The kernel's curvature is the probabilities. Any code will do.
        codes = np.zeros(scores.shape[0], dtype=np.intp)
        p = np.empty_like(scores)
        kernels.evaluate(kernels.get(self.kernel, scores.dtype), scores, codes=codes, curvature=p)
        scores[...] = p


def _parts(xp, raw):
    """For m the largest score of a row: m - raw and exp(raw - m), (n, K); S = sum exp(raw - m) - 1, (n, 1).

    Automatic differentiation takes the same steps, and two choices keep it right. Where a single score is the
    largest, its distance to m is the constant 0, so that the derivative of m itself never meets its own
    negative. Where several tie, their distances stay differences of scores, so that it does not matter how
    the namespace shares out the derivative of a maximum.
    """
    top = xp.max(raw, axis=1, keepdims=True)
    at_top = raw == top
    ties = xp.sum(xp.astype(at_top, raw.dtype), axis=1, keepdims=True)
    behind = xp.where(at_top & ((ties == 1) | xp.isinf(top)), 0.0, top - raw)
    e = xp.exp(-behind)
    below = xp.sum(xp.where(at_top, 0.0, e), axis=1, keepdims=True)
    tied = xp.sum(xp.where(at_top, e, 0.0), axis=1, keepdims=True) - 1.0
    return behind, e, below + tied
