"""The rows of a small dense X that have nearly all of a Hessian's curvature, in float32 if that suffices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklloss.data.dataset import Dataset
from sklloss.kernels.linear.gradient import select_rows

# Least multiplications of a product, below which to choose rows takes as long as it saves, and most numbers
# in X, which is copied.
LEAST_WORK = 1 << 19
MOST_NUMBERS = 1 << 20
# Rows whose curvature is less than this share of the mean are left out, unless that leaves most rows in.
NEGLIGIBLE = 1e-3
MOST_ROWS = 0.8
# A softmax of float32 probabilities has errors of 1e-7 in its curvature; from this mean on they are small.
LEAST_CURVATURE = 1e-5
# Magnitudes of columns, and of curvature, whose products float32 can represent.
SMALLEST, LARGEST = 1e-12, 1e12


class CurvedRows:
    """A copy of X from which the rows with nearly all of the curvature are taken, point after point.

    The Hessian over these rows is never larger than that over all rows, but for rounding, so an estimated
    decrease is never too small for it.

    Parameters
    ----------
    X : ndarray of shape (n, features)
    center : ndarray of shape (features,)
        Subtracted from the rows.
    maxima : ndarray of shape (features,)
        The largest absolute values of the centered columns, which decide whether float32 represents them.
    """

    def __init__(self, X: NDArray[Any], center: NDArray[np.float64], maxima: NDArray[np.float64]) -> None:
        self._X, self._center = X, center if center.any() else None
        self._rounded: NDArray[np.float32] | None = None
        if _suits_float32(maxima[maxima > 0]):
            centered = X if self._center is None else X - center
            self._rounded = np.asarray(centered, dtype=np.float32, order="C")

    def choose(
        self, data: Dataset, curvature: NDArray[Any], *, softmax: bool
    ) -> tuple[Dataset, NDArray[Any]] | None:
        """The rows that matter, less the center, and their part of a stored curvature; None for all as given.

        Parameters
        ----------
        data : Dataset
            Targets and weights of all rows.
        curvature : ndarray of shape (n, outputs)
            See `Passes.value_and_gradient`.
        softmax : bool
            Whether it is the probabilities of a softmax.
        """
        n = len(curvature)
        rows = np.empty(n, dtype=np.intp)
        weight = data.weight if softmax else None
        count, mean, largest = select_rows(curvature, weight, softmax, NEGLIGIBLE, rows)
        # False for a NaN, too
        single = mean > (LEAST_CURVATURE if softmax else 0.0) and SMALLEST < largest < LARGEST
        single = single and self._rounded is not None
        every = not 0 < count <= MOST_ROWS * n
        rows = rows[:count]
        dtype = np.dtype(np.float32) if single else data.dtype
        if every and dtype == data.dtype:
            return None
        X = self._rounded if single else self._X
        assert X is not None
        if not every:
            X, curvature = X.take(rows, axis=0), curvature.take(rows, axis=0)
        if not single and self._center is not None:
            X -= self._center.astype(dtype)

        def part(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return array if array is None or every else array.take(rows, axis=0)

        values, weight, offset = (
            found if found is None else found.astype(dtype, copy=False)
            for found in (part(data.values), part(data.weight), part(data.offset))
        )
        chosen = replace(data, X=X, values=values, codes=part(data.codes), weight=weight, offset=offset)
        return chosen, curvature.astype(dtype, copy=False)


def _suits_float32(magnitudes: NDArray[Any]) -> bool:
    return bool(((magnitudes > SMALLEST) & (magnitudes < LARGEST)).all())
