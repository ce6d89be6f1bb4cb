"""Stochastic passes over the rows of X: mini-batches, each with a step of the parameters."""

import numpy as np

from sklloss.kernels.linear import sgd as sgd_kernels
from sklloss.kernels.linear import sgd_sparse as sgd_sparse_kernels
from sklloss.objectives.numpy_passes import PYTHON_ROWS, Rows

# Rows of a batch that are worked on at a time should stay in cache.
BLOCK_BYTES = 1 << 19


def epoch(
    rows, w, order, batch_rows, *, coordinates, ridge, gains, rates, kept=None, anchor=None, bend=0.0,
    together=False, moments=None, decays=(0.0, 0.0, 0.0), mean=None, mixing=None,
):  # fmt: skip
    """One step for each batch of rows; ``w`` changes in place.

    A sparse X of few columns is worked on in small dense blocks of rows; with many, where ``coordinates``
    have no matrices, only the columns that occur in a batch are touched.

    Parameters
    ----------
    rows : Rows
    w : ndarray of shape (outputs, width)
    order : ndarray of intp
        The rows, batch after batch.
    batch_rows : int
    coordinates : tuple
        ``factors`` (1 or outputs, width, width) or None, and ``units`` (1 or outputs, width): the curvature
        is taken to be ``units U' U units``.
    ridge : ndarray of shape (outputs, width)
    gains : ndarray of shape (batches,)
        By what the sum over a batch is multiplied to stand for the whole.
    rates : ndarray of shape (batches, outputs)
        The share of the step that the curvature suggests; for Adam its learning rate in ``coordinates``.
    kept, anchor : ndarray of shape (n, outputs) and (outputs, width), optional
        Slopes at an earlier point, and the whole gradient there.
    bend : float
        0, or a bound on the loss's second derivative by the scores: then no step goes beyond where a batch's
        own loss would be least by that bound.
    together : bool
        Keep the sum of the parameters over outputs as it is.
    moments : tuple of two ndarrays like w, optional
        Adam's, changed in place.
    decays : tuple
        Adam's two decays, and its epsilon.
    mean, mixing : ndarray like w, ndarray of shape (batches,), optional
        A running mean of the parameters, changed in place.
    """
    if not isinstance(rows, Rows):
        from sklloss.objectives import device_epoch

        return device_epoch.epoch(
            rows, w, order, batch_rows, coordinates=coordinates, ridge=ridge, gains=gains, rates=rates,
            kept=kept, anchor=anchor, bend=bend, together=together, moments=moments, decays=decays,
            mean=mean, mixing=mixing,
        )  # fmt: skip
    factors, units = coordinates
    gains, rates = np.ascontiguousarray(gains), np.ascontiguousarray(rates)
    targets = (rows._values, rows._codes, rows._weight, rows._per_output, rows._expand, rows._parameter)
    first, second = moments if moments is not None else (None, None)
    if rows.sparse and factors is None:
        turned = [None if a is None else np.ascontiguousarray(a.T) for a in (w, anchor, ridge, first, second)]
        bad = sgd_sparse_kernels.sparse_epoch(
            rows._kernel, *rows._arrays, order, batch_rows, turned[0], rows.fit_intercept, *targets, kept,
            turned[1], turned[2], units[0], gains, rates, bend, together, turned[3], turned[4], *decays,
        )  # fmt: skip
        w[:] = turned[0].T
        if moments is not None:
            first[:], second[:] = turned[3].T, turned[4].T
        if mean is not None:
            mean += (1.0 - np.prod(1.0 - mixing)) * (w - mean)
    else:
        no_index = np.empty(0, dtype=np.int32)
        arrays = (np.empty((0, 0), dtype=rows.dtype), *rows._arrays)
        if not rows.sparse:
            arrays = (rows._arrays[0], np.empty(0, dtype=rows.dtype), no_index, no_index)
        block = BLOCK_BYTES // (rows.dtype.itemsize * (rows.width + 4 * rows.outputs))
        bad = sgd_kernels.block_epoch(
            rows._kernel, *arrays, rows.center if rows.center.any() else None, order, batch_rows,
            max(32 if rows.compiled else PYTHON_ROWS, min(block, 1024)), w, rows.fit_intercept, *targets,
            kept, anchor, ridge, factors, units, gains, rates, bend, together, first, second, *decays, mean,
            mixing,
        )  # fmt: skip
    if bad >= 0:
        raise ValueError(f"class code {rows._codes[bad]} in row {bad} is not in [0, {rows.outputs})")


def room_for_slopes(rows):
    """An array (n, outputs) beside X for `Rows.value_and_gradient` to fill."""
    if isinstance(rows, Rows):
        return np.empty((rows.n, rows.outputs), dtype=rows.dtype)
    device = rows.device
    return device.xp.empty((rows.n, rows.outputs), dtype=device.real(rows.dtype), device=device.native)


def slopes_sum_to_zero(rows, slopes):
    """Whether the slopes of each row cancel out: then a shift of all outputs alike changes no loss."""
    if not isinstance(rows, Rows):
        from sklloss.objectives import device_epoch

        return device_epoch.slopes_sum_to_zero(rows, slopes)
    total = float(np.abs(slopes.sum(axis=1)).sum(dtype=np.float64))
    return total <= 1e-4 * float(np.abs(slopes).sum(dtype=np.float64))
