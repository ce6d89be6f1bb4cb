"""D²: the share of a loss that predictions explain, relative to the best constant."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import logit
from sklearn.exceptions import UndefinedMetricWarning

from sklloss import losses
from sklloss.data.checks import MatrixLike, check_weight, on_host, target_array
from sklloss.losses import Loss

Floats = NDArray[np.float64]

# From predictions to raw scores, by the name of the inverse link.
LINKS: dict[str | None, Any] = {"identity": np.asarray, "exp": np.log, "logistic": logit}
# A total slope is 0 if it is this small, relative to the sum of absolute slopes.
NO_SLOPE = 1e-10


def d2_loss(
    y_true: MatrixLike,
    y_pred: MatrixLike,
    *,
    loss: str | Loss = "squared_error",
    sample_weight: ArrayLike | None = None,
) -> float:
    """D², the share of a loss that predictions explain: 1 less their loss over that of the best constant.

    Losses count from that of a perfect prediction (`Loss.saturated`), so that D² is 1 for a perfect
    prediction and 0 for the best constant. It is R² for the squared error, scikit-learn's `d2_tweedie_score`
    for the Poisson, gamma and Tweedie losses, `d2_pinball_score` and `d2_absolute_error_score` for theirs.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_outputs)
    y_pred : array-like of shape (n_samples,) or (n_samples, n_outputs)
        As `predict` returns it: values, not raw scores. For several quantiles a column for each.
    loss : str or Loss, default="squared_error"
        A loss of values; its inverse link must be the identity, the exponential or the logistic function.
    sample_weight : array-like of shape (n_samples,), default=None

    Returns
    -------
    float
        The mean over outputs. NaN, with a warning, for fewer than two samples.

    Raises
    ------
    ValueError, TypeError
        If y is outside the domain of the loss, shapes differ, or the loss is one of classes or has another
        link.

    Examples
    --------
    >>> from sklearn.metrics import make_scorer
    >>> from sklloss.metrics import d2_loss
    >>> d2_loss([1.0, 2.0, 3.0], [1.0, 3.0, 3.0], loss="quantile")
    0.5
    >>> scorer = make_scorer(d2_loss, loss="poisson")
    """
    known = losses.get(loss)
    if known.target == "classes":
        raise ValueError(f"loss={loss!r} is for classification; d2_loss takes losses of values")
    copies = known.outputs_per_target
    link = LINKS.get("identity" if copies > 1 else known.inverse_link_name)
    if link is None:
        raise ValueError(f"loss={loss!r} has an inverse link of its own, so that y_pred gives no raw scores")
    predicted = np.asarray(on_host(y_pred, "y_pred"), dtype=np.float64)
    y = target_array(y_true, "y_true", len(predicted)).astype(np.float64)
    predicted = predicted.reshape(len(predicted), -1)
    y = np.repeat(y.reshape(len(y), 1), copies, axis=1) if copies > 1 else y.reshape(len(y), -1)
    if y.shape != predicted.shape:
        raise ValueError(
            f"y_true and y_pred must have as many outputs, got {y.shape[1]} and {predicted.shape[1]}"
        )
    if len(y) < 2:
        warnings.warn("D² is not defined for fewer than two samples.", UndefinedMetricWarning, stacklevel=2)
        return float("nan")
    weight = check_weight(sample_weight, len(y), np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = link(predicted)
    scores = [_d2(known.of_output(k), y[:, k], raw[:, k], weight, link) for k in range(y.shape[1])]
    return float(np.mean(scores))


def _d2(loss: Loss, y: Floats, raw: Floats, weight: Floats | None, link: Any) -> float:
    perfect = float(np.average(loss.saturated(np, y), weights=weight))
    value = loss(y, raw, weight) - perfect
    best = loss(y, np.full(len(y), best_constant(loss, y, weight, link)), weight) - perfect
    if best <= 0:
        return 1.0 if value <= 0 else 0.0
    return 1.0 - value / best


def best_constant(loss: Loss, y: Floats, weight: Floats | None, link: Any) -> float:
    """The raw score that is the best for all rows: of a quantile, the mean, or by its slope."""
    weight = np.ones(len(y)) if weight is None else weight
    if loss.curved_within == 0 and loss.kink is not None:
        lowest, highest, _ = loss.kink
        order = np.argsort(y, kind="stable")
        share = np.cumsum(weight[order]) / weight.sum()
        level = -lowest / (highest - lowest)
        return float(y[order][min(int(np.searchsorted(share, level * (1 - 1e-12))), len(y) - 1)])

    def slope(constant: float) -> float:
        return float(np.sum(loss.gradient(y, np.full(len(y), constant), weight)))

    with np.errstate(divide="ignore"):
        mean = float(link(np.average(y, weights=weight)))
        if not np.isfinite(mean):
            return mean
        size = float(np.abs(loss.gradient(y, np.full(len(y), mean), weight)).sum())
        if abs(slope(mean)) <= NO_SLOPE * size:
            return mean
        scores = link(y)
    scores = scores[np.isfinite(scores) & (weight > 0)]
    low, high = float(scores.min()), float(scores.max())
    if loss.convex and slope(low) < 0 < slope(high):
        return float(brentq(slope, low, high, xtol=1e-12 * max(abs(low), abs(high), 1e-300)))
    found = minimize_scalar(
        lambda constant: loss(y, np.full(len(y), constant), weight), bounds=(low, high), method="bounded"
    )
    return float(found.x)
