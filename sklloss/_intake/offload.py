"""X moved to where an estimator is told to compute."""

import numpy as np
import scipy.sparse

from sklloss._intake.arrays import check_finite
from sklloss._intake.rows import in_dtype
from sklloss.backends.places import move, place_for, place_of


def offload(X, device, dtype="float32"):
    """A checked X where ``device`` asks for it, NumPy's numbers and CSR in ``dtype``; as it is for None.

    Raises
    ------
    ValueError, TypeError, ImportError, MemoryError
        Where there is no such device, or no room on it; and where numbers are too large for ``dtype``.
    """
    place = place_for(device)
    if place is None:
        return X
    home = place_of(X)
    if home is None:
        dtype = np.dtype(dtype) if place.wide == np.float64 else np.dtype(np.float32)
        if scipy.sparse.issparse(X):
            return move(in_dtype(X, dtype), place)
        there = move(X, place, dtype)
        if X.dtype != dtype:
            check_finite(there, place, "X")
        return there
    if home == place:
        return X
    if not home.is_torch:
        raise ValueError(f"device={str(device)!r} moves NumPy arrays and torch tensors, but X is {home}")
    return X.to(place.device)
