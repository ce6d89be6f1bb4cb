"""One stochastic pass over the rows of X for a linear model: mini-batches, with a step after each.

The gradient of a batch is ``gain * sum(slope_i x_i) + anchor + ridge * w``. With the slopes at an earlier
point, of which ``anchor`` is the whole gradient, slope_i is the change since (variance reduction: Johnson and
Zhang, 2013); without, it is the slope itself. Steps are taken in coordinates in
which the objective is about as curved in every direction. No loop over batches holds the GIL, allocates or
meets a Python object, but for a loss that is one; every so often it asks whether the user pressed Ctrl-C.
"""

import numpy as np

from cython cimport floating as real
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from scipy.linalg.cython_blas cimport dtrsm, dtrsv

from sklloss.kernels.common cimport adam_step, check_signals, column_sums
from sklloss.kernels.data cimport FAILED, Batch, Call, Dataset, Workspace, allocate, batch_kernel, bind
from sklloss.kernels.linear.gradient cimport dense_scatter, dense_scores, index

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define SKLLOSS_PREFETCH(address) __builtin_prefetch(address)
    #else
    #define SKLLOSS_PREFETCH(address) ((void)0)
    #endif
    """
    void prefetch "SKLLOSS_PREFETCH"(const void* address) noexcept nogil

cdef enum:
    AHEAD = 4  # rows to ask for before they are needed, as they lie anywhere


cdef inline void load_row(
    const real* x, Py_ssize_t step, const double* center, bint centered, real* out, Py_ssize_t features
) noexcept nogil:
    cdef Py_ssize_t j
    if centered:
        for j in range(features):
            out[j] = <real>(<double>x[j * step] - center[j])
    elif step == 1:
        memcpy(out, x, features * sizeof(real))
    else:
        for j in range(features):
            out[j] = x[j * step]


cdef inline void load_sparse_row(
    const real* value, const index* columns, const index* row_starts, Py_ssize_t row, real* out
) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(<Py_ssize_t>row_starts[row], <Py_ssize_t>row_starts[row + 1]):
        out[columns[j]] = value[j]


cdef inline void load_rows(
    Dataset data, const Py_ssize_t* order, Py_ssize_t rows, real* out
) noexcept nogil:
    """Copy the rows that ``order`` names to ``out`` (rows, features), less the center."""
    cdef const real* x = <const real*>data.x
    cdef Py_ssize_t features = data.features, i, j
    cdef Py_ssize_t lines = (features * <Py_ssize_t>sizeof(real) + 63) // 64
    if data.sparse:
        memset(out, 0, rows * features * sizeof(real))
    for i in range(rows):
        if not data.sparse:
            if i + AHEAD < rows and data.column_step == 1:
                for j in range(lines):
                    prefetch(<const char*>(x + order[i + AHEAD] * data.row_step) + 64 * j)
            load_row(
                x + order[i] * data.row_step, data.column_step, data.center, data.centered,
                out + i * features, features,
            )
        elif data.long_index:
            load_sparse_row(
                x, <const int64_t*>data.columns, <const int64_t*>data.row_starts, order[i], out + i * features
            )
        else:
            load_sparse_row(
                x, <const int32_t*>data.columns, <const int32_t*>data.row_starts, order[i], out + i * features
            )


cdef inline void into_units(
    double* g, double* factors, Py_ssize_t count, const double* units, Py_ssize_t K, Py_ssize_t width,
    bint back,
) noexcept nogil:
    """Gradient to the coordinates of the steps, or ``back``: a step from them. g is (K, width).

    The curvature is ``units U' U units`` with U upper triangular (or 1): one for all outputs or one for each.
    """
    cdef Py_ssize_t k, j
    cdef const double* unit
    cdef int p = <int>width, columns = <int>K, one = 1
    cdef double alpha = 1.0
    cdef char* transposed = b"N" if back else b"T"
    if not back:
        for k in range(K):
            unit = units + (k * width if count > 1 else 0)
            for j in range(width):
                g[k * width + j] /= unit[j]
    if factors != NULL and count == 1 and K > 1:
        dtrsm(b"L", b"U", transposed, b"N", &p, &columns, &alpha, factors, &p, g, &p)
    elif factors != NULL:
        for k in range(K):
            dtrsv(
                b"U", transposed, b"N", &p, factors + (k * width * width if count > 1 else 0), &p,
                g + k * width, &one,
            )
    if back:
        for k in range(K):
            unit = units + (k * width if count > 1 else 0)
            for j in range(width):
                g[k * width + j] /= unit[j]


def block_epoch(
    loss,
    Dataset data,
    double[:, ::1] w,
    batches,
    coordinates,
    const double[:, ::1] ridge,
    steps,
    reference=None,
    adam=None,
    average=None,
):
    """A step for each batch, with rows gathered as small dense blocks; ``w`` changes in place.

    Parameters
    ----------
    loss : CompiledLoss or PythonLoss
        Of X's dtype.
    data : Dataset
        The center, if any, is subtracted from each row of a dense X.
    w : array of shape (outputs, width)
        The intercept last, if width is one more than the features.
    batches : tuple
        ``order``, an array of intp: the rows, batch after batch; ``batch_rows``, the rows per batch, the last
        may be shorter; and ``block``, the rows worked on at a time.
    coordinates : tuple
        ``factors`` of shape (1 or outputs, width, width), or None, and ``units`` of shape (1 or outputs,
        width): see `into_units`.
    ridge : array of shape (outputs, width)
        What the penalty's gradient is of w.
    steps : tuple
        ``gains`` of shape (batches,); ``rates`` of shape (batches, outputs); ``curvature_bound``, 0 or a
        bound on the second derivative of the loss: then no step goes beyond where a batch's own loss would be
        least by that bound, along the step; and ``keep_sums``, whether the sum of the parameters over
        outputs is to stay as it is.
    reference : tuple, optional
        ``slopes`` of shape (rows, outputs), or None, at an earlier point, and ``anchor`` of shape (outputs,
        width), or None, the whole gradient there without the penalty's.
    adam : tuple, optional
        The moments ``first`` and ``second``, arrays like w in the coordinates of the steps, changed in place;
        ``decay``, ``decay_second`` and ``epsilon``. Without it the steps are plain descent.
    average : tuple, optional
        ``mean``, an array like w changed in place, and ``mixing`` of shape (batches,): a running mean of the
        parameters, which takes in each batch's with the weight ``mixing[batch]``.

    Returns
    -------
    int
        -1, or the first row whose code is out of range.
    """
    if data.single:
        return _block_epoch(
            <float*>NULL, loss, data, w, batches, coordinates, ridge, steps, reference, adam, average
        )
    return _block_epoch(
        <double*>NULL, loss, data, w, batches, coordinates, ridge, steps, reference, adam, average
    )


cdef object _block_epoch(
    real* rows_of_x, object loss, Dataset data, double[:, ::1] w, tuple batches, tuple coordinates,
    const double[:, ::1] ridge, tuple steps, tuple reference, tuple adam, tuple average,
):
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, data.single, &batch, &kernel)
    cdef Workspace space
    cdef const Py_ssize_t[::1] order = batches[0]
    cdef Py_ssize_t batch_rows = batches[1], block = max(1, min(<Py_ssize_t>batches[2], batch_rows))
    cdef const double[:, :, ::1] factors = coordinates[0]
    cdef const double[:, ::1] units = coordinates[1]
    cdef const double[::1] gains = steps[0]
    cdef const double[:, ::1] rates = steps[1]
    cdef double curvature_bound = steps[2]
    cdef bint keep_sums = steps[3]
    cdef const real[:, ::1] slopes = None
    cdef const double[:, ::1] anchor = None
    cdef double[:, ::1] first = None, second = None, mean = None
    cdef const double[::1] mixing = None
    cdef double decay = 0.0, decay_second = 0.0, epsilon = 0.0
    if reference is not None:
        slopes, anchor = reference
    if adam is not None:
        first, second, decay, decay_second, epsilon = adam
    if average is not None:
        mean, mixing = average
    cdef Py_ssize_t K = w.shape[0], width = w.shape[1], p = data.features
    cdef bint fit_intercept = width > p
    cdef Py_ssize_t n = order.shape[0], b, start, count, done, rows, j, k, bad = -1
    cdef real[::1] memory = np.zeros(block * p + 2 * K * p + K, np.float32 if real is float else np.float64)
    cdef double[::1] numbers = np.zeros(2 * K * width + K)
    cdef real* raw
    cdef real* coef
    cdef real* part
    cdef real* intercept
    cdef double* g = &numbers[0]
    cdef double* coef_gradient = g + K * width
    cdef double* shift = coef_gradient + K * p
    cdef double* matrices = <double*>&factors[0, 0, 0] if factors is not None else NULL
    cdef double work = 0.0, total, curvature, fraction
    rows_of_x = &memory[0]
    coef = rows_of_x + block * p
    part = coef + K * p
    intercept = part + K * p
    if not allocate(&space, block, K, data.single):
        raise MemoryError()
    raw = <real*>space.raw
    try:
        with nogil:
            for b in range(gains.shape[0]):
                start = b * batch_rows
                count = min(batch_rows, n - start)
                memset(g, 0, (2 * K * width + K) * sizeof(double))
                for k in range(K):
                    for j in range(p):
                        coef[k * p + j] = <real>w[k, j]
                    intercept[k] = <real>w[k, p] if fit_intercept else <real>0.0
                done = 0
                while done < count:
                    rows = min(block, count - done)
                    load_rows(data, &order[start + done], rows, rows_of_x)
                    dense_scores(rows_of_x, True, <int>p, coef, intercept, raw, <int>rows, <int>p, <int>K)
                    bad = data.set_batch(&batch, &space, &order[0], start + done, rows)
                    if bad < 0:
                        bad = kernel(&batch)
                    if bad != -1:
                        break
                    if slopes is not None:
                        subtract_reference(raw, &slopes[0, 0], &order[start + done], rows, K)
                    dense_scatter(
                        rows_of_x, True, <int>p, raw, part, coef_gradient, <int>rows, <int>p, <int>K
                    )
                    column_sums(raw, shift, rows, K)
                    done += rows
                    work += 3.0 * <double>rows * <double>(K * width)
                    check_signals(&work)
                if bad != -1:
                    bad = order[start + done + bad] if bad >= 0 else bad
                    break
                for k in range(K):
                    for j in range(p):
                        g[k * width + j] = gains[b] * coef_gradient[k * p + j]
                    if fit_intercept:
                        g[k * width + p] = gains[b] * shift[k]
                    for j in range(width):
                        g[k * width + j] += ridge[k, j] * w[k, j]
                    if anchor is not None:
                        for j in range(width):
                            g[k * width + j] += anchor[k, j]
                into_units(g, matrices, units.shape[0], &units[0, 0], K, width, False)
                for k in range(K):
                    if first is not None:
                        for j in range(width):
                            g[k * width + j] = adam_step(
                                g[k * width + j], &first[k, j], &second[k, j], decay, decay_second,
                                rates[b, k], epsilon,
                            )
                    else:
                        for j in range(width):
                            g[k * width + j] *= rates[b, k]
                into_units(g, matrices, units.shape[0], &units[0, 0], K, width, True)
                if keep_sums:
                    for j in range(width):
                        total = 0.0
                        for k in range(K):
                            total += g[k * width + j]
                        for k in range(K):
                            g[k * width + j] -= total / <double>K
                fraction = 1.0
                if curvature_bound > 0.0:
                    # along the step: the decrease of the batch's loss to first order, and its curvature
                    total = 0.0
                    for k in range(K):
                        for j in range(p):
                            total += coef_gradient[k * p + j] * g[k * width + j]
                            coef[k * p + j] = <real>g[k * width + j]
                        intercept[k] = <real>0.0
                        if fit_intercept:
                            total += shift[k] * g[k * width + p]
                            intercept[k] = <real>g[k * width + p]
                    dense_scores(rows_of_x, True, <int>p, coef, intercept, raw, <int>rows, <int>p, <int>K)
                    curvature = curvature_bound * squares(
                        raw, <const real*>batch.weight, data.weight_per_output, rows, K
                    )
                    fraction = damping(total, curvature * <double>count / <double>rows)
                for k in range(K):
                    for j in range(width):
                        w[k, j] -= fraction * g[k * width + j]
                    if mean is not None:
                        for j in range(width):
                            mean[k, j] += mixing[b] * (w[k, j] - mean[k, j])
                if matrices != NULL:
                    work += 2.0 * <double>K * <double>width * <double>width
                work += 10.0 * <double>K * <double>width
                check_signals(&work)
    finally:
        free(space.memory)
    if bad == FAILED:
        call.raise_error()
    return bad
