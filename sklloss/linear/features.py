"""Parameters of the linear estimators that have a number for each feature."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklloss.data.checks import on_host


def penalty_weights(estimator: Any) -> NDArray[np.float64] | None:
    """What the penalty of each feature is multiplied by; None for 1.

    Raises
    ------
    ValueError, TypeError
        If there is not one number for each feature, a name is not that of a feature, or one is negative.
    """
    given = estimator.penalty_weights
    if given is None:
        return None
    weights = _by_feature("penalty_weights", given, estimator, 1.0)
    wrong = np.flatnonzero(~((weights >= 0) & (weights < np.inf)))
    if wrong.size:
        raise ValueError(
            "penalty_weights must be finite and not negative, got "
            f"{weights[wrong[0]]} for feature {_feature(estimator, wrong[0])}"
        )
    return None if (weights == 1).all() else weights


def monotonic_signs(estimator: Any) -> NDArray[np.float64] | None:
    """The sign that each coefficient must have, 1 or -1, or 0 for any; None if all are 0.

    Raises
    ------
    ValueError, TypeError
        If there is not one number for each feature, a name is not that of a feature, or one is no sign.
    """
    given = estimator.monotonic_cst
    if given is None:
        return None
    signs = _by_feature("monotonic_cst", given, estimator, 0.0)
    wrong = np.flatnonzero(~np.isin(signs, (-1, 0, 1)))
    if wrong.size:
        raise ValueError(
            f"monotonic_cst must be -1, 0 or 1, got {signs[wrong[0]]:g} for feature "
            f"{_feature(estimator, wrong[0])}"
        )
    return signs if signs.any() else None


def _feature(estimator: Any, j: int) -> str:
    """The name of a feature, or its number, in errors."""
    names = getattr(estimator, "feature_names_in_", None)
    return str(j) if names is None else repr(str(names[j]))


def _by_feature(name: str, given: Any, estimator: Any, default: float) -> NDArray[np.float64]:
    features = estimator.n_features_in_
    if isinstance(given, dict):
        known = getattr(estimator, "feature_names_in_", None)
        if known is None:
            raise ValueError(f"{name} is a dict of feature names, but X has none: pass an array")
        names = known.tolist()
        unknown = [key for key in given if key not in names]
        if unknown:
            raise ValueError(f"{name} names features that X does not have: {unknown}")
        given = [given.get(key, default) for key in names]
    try:
        values = np.asarray(on_host(given, name), dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must hold numbers, got {given!r}") from None
    if values.shape != (features,):
        raise ValueError(
            f"{name} must have shape ({features},), one for each feature, got shape {values.shape}"
        )
    return values
