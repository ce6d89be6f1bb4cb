"""Arrays whose memory goes back to the system when they are freed."""

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Bytes from which an array has pages of its own.
LARGE = 1 << 22


def empty(shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """As `numpy.empty`, for large arrays that a fit needs for a short time.

    malloc takes arrays of up to 32 MB from one heap, of which nothing goes back to the system that lies
    below something still in use: arrays made one after the other may take as much as all of them at once.
    """
    dtype = np.dtype(dtype)
    numbers = math.prod(shape)
    if numbers * dtype.itemsize < LARGE:
        return np.empty(shape, dtype)
    return np.frombuffer(mmap.mmap(-1, numbers * dtype.itemsize), dtype).reshape(shape)
