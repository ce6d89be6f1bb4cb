"""Losses of the margin of a label, from which no probabilities follow."""

from dataclasses import dataclass
from typing import Any, ClassVar

from sklloss.losses import _checks
from sklloss.losses._base import Loss
from sklloss.losses._registry import register


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
