"""X moved to where an estimator is told to compute."""

import numpy as np

from sklloss._intake.rows import in_dtype
from sklloss.backends.places import move, place_for, place_of


def offload(X, device, dtype="float32", name="X"):
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
        X = in_dtype(X, np.dtype(dtype) if place.wide == np.float64 else np.dtype(np.float32), name)
        return move(X, place)
    if home == place:
        return X
    if not home.is_torch:
        raise ValueError(f"device={str(device)!r} moves NumPy arrays and torch tensors, but {name} is {home}")
    return X.to(place.device)
