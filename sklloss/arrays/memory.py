"""Arrays whose memory goes back to the system when they are freed."""

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Bytes from which an array has pages of its own.
LARGE = 1 << 22
# By default they would be shared with a forked child, which would write to its parent's arrays.
PRIVATE: dict[str, Any] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)


def empty(shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """As `numpy.empty`, for large arrays that a fit needs for a short time.

    malloc takes arrays of up to 32 MB from one heap, of which nothing goes back to the system that lies
    below something still in use: arrays made one after the other may take as much as all of them at once.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    try:
        pages = mmap.mmap(-1, size, **PRIVATE)
    except (OSError, OverflowError):  # NumPy raises MemoryError, or finds room
        return np.empty(shape, dtype)
    return np.frombuffer(pages, dtype).reshape(shape)
