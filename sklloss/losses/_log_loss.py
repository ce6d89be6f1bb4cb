"""The log loss of independent sigmoids."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sklloss import kernels
from sklloss.losses._base import Loss, unit_interval
from sklloss.losses._registry import register


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
