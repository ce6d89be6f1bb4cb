"""Where rows come from, and where they are taken in to."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from sklloss.arrays.device import Place, beside, move, place_for, place_of, to_numpy
from sklloss.data.array_checks import check_finite, dtype_of
from sklloss.data.checks import in_dtype

# What an estimator's ``device_dtype`` may be.
DEVICE_DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Home:
    """Where X came from, and its dtype there: where what is learned goes.

    Attributes
    ----------
    place : Place or None
        None for NumPy.
    dtype : NumPy dtype
    """

    place: Place | None
    dtype: np.dtype

    def bring(self, array, place):
        """An array that lives at a place, which nothing else holds."""
        if place == self.place and place is not None:
            dtype = place.real(self.dtype)
            return array if array.dtype == dtype else place.xp.astype(array, dtype)
        array = (array if place is None else place.get(array)).astype(self.dtype, copy=False)
        return beside(array, self.place)


def take_in(X, estimator, name="X"):
    """A checked X where the estimator's ``device`` asks for it, and its `Home`.

    Without one, torch's and JAX's arrays in main memory become NumPy's, which share it, for the kernels.
    """
    home = Home(place_of(X), dtype_of(X))
    return _offload(X, estimator.device, estimator.device_dtype, name), home


def _shared(X):
    """An array in main memory as NumPy's in row or column order, a copy only of other orders."""
    X = to_numpy(X)
    return X if X.flags.forc else np.ascontiguousarray(X)


def _offload(X, device, dtype, name):
    """A checked X where ``device`` asks for it, NumPy's numbers and CSR in ``dtype``; as it is for None.

    Raises
    ------
    ValueError, TypeError, ImportError, MemoryError
        Where there is no such device, or no room on it; and where numbers are too large for ``dtype``.
    """
    place, own = place_for(device), place_of(X)
    if place is None:
        return _shared(X) if own is not None and own.in_main_memory else X
    if own is None:
        dtype = place.floats(dtype)
        if scipy.sparse.issparse(X):
            return move(in_dtype(X, dtype, name), place)
        there = move(X, place, dtype)
        if X.dtype != dtype:
            check_finite(there, place, name)
        return there
    if own == place:
        return X
    if not own.is_torch:
        raise ValueError(f"device={str(device)!r} moves NumPy arrays and torch tensors, but {name} is {own}")
    return X.to(place.device)
