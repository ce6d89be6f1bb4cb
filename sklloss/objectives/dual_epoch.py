"""Dual coordinate ascent over the rows of a sparse X: one pass."""

import numpy as np

from sklloss.kernels.linear import dual as dual_kernels
from sklloss.kernels.linear import gradient as gradient_kernels

# The loss kernels take so many rows at a time. The rows of a block do not know of each other's steps, so
# there are fewer where rows are so much alike that a block would go more than this many times too far.
BLOCK = 32
TOO_FAR = 2.0


def takes(rows):
    """Whether a pass can be made: a CSR X, and a loss with a kernel that states its second derivative."""
    return rows.sparse and rows.compiled and rows.n > 0


def state(rows):
    """Coefficients, intercepts, sums and dual variables to begin with, all 0, as `epoch` takes them.

    The large ones lie where passes over X keep theirs: the next such pass ends them.
    """
    if rows._curvature is None:
        rows._curvature = np.empty((rows.n, rows.outputs), dtype=rows.dtype)
    bounds, _ = rows._gradient_cut(rows._split(np.zeros((rows.outputs, rows.width)))[0])
    w, dual = rows._room(len(bounds) - 1)[0], rows._curvature
    w[:] = 0.0
    dual[:] = 0.0
    return w, np.zeros(rows.outputs), np.zeros(rows.outputs), dual


def sizes(rows):
    """The mean weight of a row of X, its mean squared size, and the mean product of two as a share of it."""
    weight = rows.row_weights()
    squares, sums = np.zeros(rows.features), np.zeros(rows.features)
    gradient_kernels.weighted_columns(*rows._arrays, weight, squares, sums)
    total, squares = max(weight.sum(), np.finfo(float).tiny), squares.sum()
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return total / rows.n, squares / total, min(1.0, np.dot(sums, sums) / total / squares)


def parameters(rows, state):
    """The parameters, (outputs, width), that a state has come to."""
    w, intercept, _, _ = state
    total = np.empty((rows.outputs, rows.width))
    gradient_kernels.by_output(w[None], total)
    if rows.fit_intercept:
        total[:, -1] = intercept
    return total


def epoch(rows, state, order, *, scale, bias, overlap):
    """Take each of the rows once, in this order.

    Parameters
    ----------
    rows : Rows
    state : tuple of ndarrays
        See `state` and `dual_kernels.dual_epoch`, which changes them in place.
    order : ndarray of intp
    scale : float
        What the loss is multiplied by, where the penalty is ||w||**2 / 2.
    bias : float
        0 for no intercept.
    overlap : float
        The mean product of two rows, relatively to a row with itself.

    Returns
    -------
    sums, promise : ndarray of shape (outputs,)
        Losses as the rows were met, and by how much about the objective may yet fall; for outputs that are
        coupled the sum of the latter counts, and of the former the first.
    """
    w, intercept, balance, dual = state
    block = max(1, min(BLOCK, int(1 + (TOO_FAR - 1) / max(overlap, 1e-9))))
    sums, promise = np.zeros(rows.outputs), np.zeros(rows.outputs)
    bad = dual_kernels.dual_epoch(
        rows._kernel64, *rows._arrays, order, block, w, intercept, balance, rows._values, rows._codes,
        rows._weight, rows._per_output, rows._expand, rows._parameter, dual, scale, bias,
        1.0 + (block - 1) * overlap, not rows.separable, sums, promise,
    )  # fmt: skip
    if bad >= 0:
        raise ValueError(f"class code {rows._codes[bad]} in row {bad} is not in [0, {rows.outputs})")
    return sums, promise
