"""The loss that a classifier minimises, adapted to its coded target."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklloss.data.dataset import Dataset
from sklloss.losses import CrossEntropy, Focal, LogLoss, Loss, SoftmaxFocal


def check_classification_loss(
    loss: Loss, label_smoothing: float, *, softmax: bool, one_softmax: str = "SoftmaxClassifier"
) -> Loss:
    """Check that a loss suits a classifier, and set its label smoothing if it has that parameter.

    Parameters
    ----------
    loss : Loss
    label_smoothing : float
        The estimator's.
    softmax : bool
        Whether the outputs are the classes of one softmax; otherwise they are independent.
    one_softmax : str
        What error messages recommend for a softmax.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError
        If the loss takes no target of such a classifier, or has another label smoothing.
    """
    if not loss.additive:
        raise ValueError(f"loss={loss!r} does not fit a classifier: it is not a mean over rows")
    if softmax and type(loss) is Focal:
        loss = loss.softmax()
    if not softmax and (loss.target == "classes" or not loss.separable):
        raise ValueError(
            f"loss={loss!r} does not fit independent outputs, because it couples them, as a "
            f"softmax does: use {one_softmax}, or loss='log_loss' or 'focal'"
        )
    loss_smoothing = getattr(loss, "label_smoothing", 0.0)
    if label_smoothing and loss_smoothing not in (0, label_smoothing):
        raise ValueError(f"label_smoothing={label_smoothing} contradicts loss={loss!r}; set one of them")
    if label_smoothing and type(loss) is (CrossEntropy if softmax else LogLoss):
        return dataclasses.replace(loss, label_smoothing=label_smoothing)
    return loss


def bind_loss(
    loss: Loss, data: Dataset, label_smoothing: float, *, softmax: bool, name: str = "y"
) -> tuple[Loss, Dataset]:
    """The loss to minimise over coded targets, and the data with targets in the form that the loss takes.

    A softmax over two classes has one output z; a loss that takes the scores of both classes gets 0 and z.
    Labels are smoothed here unless the loss does it.

    Parameters
    ----------
    loss : Loss
        From `check_classification_loss`.
    data : Dataset
    label_smoothing : float
    softmax : bool
    name : str
        The name of y in error messages.

    Returns
    -------
    loss : Loss
    data : Dataset
    """
    labels = data.labels
    assert labels is not None
    two = softmax and labels.kind == "binary"
    if label_smoothing and not getattr(loss, "label_smoothing", 0.0):
        data = _smoothed(data, label_smoothing, len(labels.classes) if softmax else 2)
    if two and type(loss) is CrossEntropy:
        loss = LogLoss(label_smoothing=loss.label_smoothing)
    elif two and type(loss) is SoftmaxFocal:
        loss = Focal(gamma=loss.gamma)
    elif two and not loss.separable:
        y: Any = data.values
        loss = TwoClasses(loss, codes=loss.target == "classes" and bool(np.isin(y, (0, 1)).all()))
    if loss.domain is not None or type(loss).check_values is not Loss.check_values:
        y = data.values
        if y is None:
            y = data.codes if loss.target == "classes" else np.eye(data.outputs)
        try:
            loss.check_values(np, y, data.outputs)
        except ValueError as error:
            reason = str(error).replace("y_true", name)
            smoothed = f" with label_smoothing={label_smoothing}" if label_smoothing else ""
            raise ValueError(
                f"loss={getattr(loss, 'loss', loss)!r} does not take {name}{smoothed}, where labels count as "
                f"0 and 1: {reason}"
            ) from error
    return loss, data


def _smoothed(data: Dataset, smoothing: float, classes: int) -> Dataset:
    """The data with probabilities y (1 - s) + s / classes."""
    y: Any = data.values
    if y is None:
        assert data.codes is not None
        y = (data.codes[:, None] == np.arange(data.outputs)).astype(np.float64)
    values = (y * (1.0 - smoothing) + smoothing / classes).astype(data.dtype)
    return dataclasses.replace(data, values=values, codes=None)


def newton_refusal(loss: Loss) -> str | None:
    """Why Newton's method cannot minimise the loss, or None if it can."""
    if not loss.convex:
        return "is not convex"
    if loss.separable:
        return None if loss.states_curvature else "states no second derivative (Loss.curvature)"
    if loss.curvature_buffer == "probabilities":
        return None
    return "has coupled outputs, whose second derivatives are implemented for CrossEntropy only"


def has_custom_link(loss: Loss, *, softmax: bool) -> bool:
    """Whether predictions are `loss.predict` of raw scores, rather than their sigmoid or softmax.

    A loss that states no inverse link takes logits, unless it is a regression loss of this package, whose
    raw scores are predictions.
    """
    if loss.inverse_link_name == "identity":
        return loss.target == "values" and loss.name is not None
    return loss.inverse_link_name != ("softmax" if softmax else "logistic")


@dataclasses.dataclass(frozen=True)
class TwoClasses(Loss):
    """A coupled loss of two classes as a function of one output z: the scores of the classes are 0 and z.

    Parameters
    ----------
    loss : Loss
    codes : bool
        Whether targets, which are all 0 or 1, are passed to the loss as class codes.
    """

    loss: Loss
    codes: bool = False

    target = "probabilities"
    reduction = "sum"

    @property
    def convex(self) -> bool:  # type: ignore[override]  # a class attribute in Loss
        """Whether the loss is convex: the restriction of a convex function is convex."""
        return self.loss.convex

    def check_values(self, xp: Any, y: Any, outputs: int) -> None:
        """See `Loss.check_values`."""
        self.loss.check_values(xp, self._target(y), 2)

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """See `Loss.formula`."""
        y = xp.astype(y[:, 0] > 0.5, xp.int64) if self.codes else xp.concat([1.0 - y, y], axis=1)
        value, gradient = self.loss.formula(xp, y, xp.concat([xp.zeros_like(raw), raw], axis=1))
        return value[:, None], lambda: (gradient() if callable(gradient) else gradient)[:, 1:]

    def evaluate_batch(
        self,
        raw: Any,
        target: Any = None,
        codes: Any = None,
        weight: Any = None,
        per_sample: Any = None,
        curvature: Any = None,
        sums: Any = None,
    ) -> float:
        """See `Loss.evaluate_batch`; the loss of two scores may have a kernel."""
        pair = np.zeros((len(raw), 2), dtype=raw.dtype)
        pair[:, 1] = raw[:, 0]
        both = {"codes" if self.codes else "target": self._target(target)}
        weight = None if weight is None else weight.reshape(-1)
        total = self.loss.evaluate_batch(pair, **both, weight=weight, per_sample=per_sample)
        raw[:, 0] = pair[:, 1]
        if sums is not None:
            sums[0] = total
        return total

    def _target(self, y: NDArray[Any]) -> NDArray[Any]:
        if self.codes:
            return (y[:, 0] > 0.5).astype(np.intp)
        return np.concatenate([1.0 - y, y], axis=1)
