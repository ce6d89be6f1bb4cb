"""One stochastic pass over the rows of X for a linear model: mini-batches, with a step after each.

The gradient of a batch is ``gain * sum(slope_i x_i) + anchor + ridge * w``. With slopes kept from an
earlier point, of which ``anchor`` is the whole gradient, slope_i is the change since (variance
reduction: Johnson and Zhang, 2013); without, it is the slope itself. Steps are taken in coordinates in
which the objective is about as curved in every direction. No loop over batches holds the GIL, allocates or
meets a Python object, but for a loss that is one; every so often it asks whether the user pressed Ctrl-C.
"""

import numpy as np

from cython cimport floating as real
from libc.math cimport sqrt
from libc.string cimport memcpy, memset
from scipy.linalg.cython_blas cimport dtrsm, dtrsv

from sklloss.kernels.data cimport Batch, batch_kernel
from sklloss.kernels.python_loss cimport FAILED, Call, bind
from sklloss.kernels.linear.gradient cimport column_sums, dense_scatter, dense_scores, index

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


cdef struct Moments:
    # Adam's: NULL for plain descent
    double* first
    double* second
    double decay
    double decay_second
    double epsilon


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


cdef inline void adam(
    double* g, double* first, double* second, const Moments* moments, double rate, Py_ssize_t size
) noexcept nogil:
    """Overwrite a gradient with the step to go against it, moments updated."""
    cdef Py_ssize_t i
    cdef double a = moments.decay, b = moments.decay_second
    for i in range(size):
        first[i] = a * first[i] + (1.0 - a) * g[i]
        second[i] = b * second[i] + (1.0 - b) * g[i] * g[i]
        g[i] = rate * first[i] / (sqrt(second[i]) + moments.epsilon)


def block_epoch(
    loss,
    const real[:, :] X,
    const real[::1] data,
    const index[::1] indices,
    const index[::1] indptr,
    const double[::1] center,
    const Py_ssize_t[::1] order,
    Py_ssize_t batch_rows,
    Py_ssize_t block,
    double[:, ::1] w,
    bint fit_intercept,
    const real[:, ::1] target,
    const Py_ssize_t[::1] codes,
    const real[::1] weight,
    bint weight_per_output,
    bint expand,
    double parameter,
    const real[:, ::1] kept,
    const double[:, ::1] anchor,
    const double[:, ::1] ridge,
    const double[:, :, ::1] factors,
    const double[:, ::1] units,
    const double[::1] gains,
    const double[:, ::1] rates,
    double bend,
    bint together,
    double[:, ::1] first,
    double[:, ::1] second,
    double decay,
    double decay_second,
    double epsilon,
    double[:, ::1] mean,
    const double[::1] mixing,
):
    """A step for each batch, with rows gathered as small dense blocks; ``w`` changes in place.

    Parameters
    ----------
    loss : PyCapsule or PythonLoss
    X : array of shape (n, features), or empty for CSR ``data``, ``indices``, ``indptr``
    center : array of shape (features,) or None
        Subtracted from each row of a dense X.
    order : array of intp
        The rows, batch after batch.
    batch_rows, block : int
        Rows per batch, the last may be shorter; rows worked on at a time.
    w : array of shape (outputs, width)
        The intercept last.
    target, codes, weight, weight_per_output, expand, parameter
        As for a sweep.
    kept : array of shape (n, outputs) or None
        Slopes at the anchor.
    anchor : array of shape (outputs, width) or None
        The whole gradient there, without the penalty's.
    ridge : array of shape (outputs, width)
        What the penalty's gradient is of w.
    factors : array of shape (1 or outputs, width, width) or None
    units : array of shape (1 or outputs, width)
        See `into_units`.
    gains : array of shape (batches,)
    rates : array of shape (batches, outputs)
    bend : double
        0, or a bound on the second derivative of the loss: then no step goes beyond where a batch's own loss
        would be least by that bound, along the step.
    together : bool
        Keep the sum of the parameters over outputs as it is.
    first, second : arrays like w, or None for plain descent
        Adam's moments, in the coordinates of the steps; changed in place.
    decay, decay_second, epsilon : float
        Adam's.
    mean : array like w, or None
        A running mean of the parameters, which takes in each batch's with the weight ``mixing[batch]``.

    Returns
    -------
    int
        -1, or the first row whose code is out of range.
    """
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, real is float, &batch, &kernel)
    cdef Py_ssize_t K = w.shape[0], width = w.shape[1], p = width - (1 if fit_intercept else 0)
    cdef Py_ssize_t n = order.shape[0], batches = gains.shape[0], b, start, count, done, rows, i, j, k
    cdef Py_ssize_t row_step = 0, column_step = 1, row, bad = -1
    cdef Py_ssize_t lines = (p * <Py_ssize_t>sizeof(real) + 63) // 64
    cdef const real* x = NULL
    dtype = np.float32 if real is float else np.float64
    block = max(1, min(block, batch_rows))
    cdef real[::1] memory = np.zeros(block * (p + 3 * K) + 2 * K * p + 3 * K + 64, dtype)
    cdef double[::1] numbers = np.zeros(2 * K * width + 3 * K)
    cdef Py_ssize_t[::1] row_codes = np.zeros(block, np.intp)
    cdef real* rows_of_x = &memory[0]
    cdef real* raw = rows_of_x + block * p
    cdef real* y = raw + block * K
    cdef real* s = y + block * K
    cdef real* coef = s + block * K
    cdef real* part = coef + K * p
    cdef real* intercept = part + K * p
    cdef double* g = &numbers[0]
    cdef double* coef_gradient = g + K * width
    cdef double* shift = coef_gradient + K * p
    cdef const real* targets = &target[0, 0] if target is not None else NULL
    cdef const Py_ssize_t* classes = &codes[0] if codes is not None else NULL
    cdef const real* weights = &weight[0] if weight is not None else NULL
    cdef const double* offsets = &center[0] if center is not None else NULL
    cdef bint centered = center is not None
    cdef double* matrices = <double*>&factors[0, 0, 0] if factors is not None else NULL
    cdef Moments moments
    cdef double work = 0.0, total, curve, fraction
    moments.decay, moments.decay_second, moments.epsilon = decay, decay_second, epsilon
    moments.first = &first[0, 0] if first is not None else NULL
    moments.second = &second[0, 0] if first is not None else NULL
    if X.shape[0] > 0:
        x = &X[0, 0]
        row_step = X.strides[0] // <Py_ssize_t>sizeof(real)
        column_step = X.strides[1] // <Py_ssize_t>sizeof(real)
    batch.parameter = parameter
    batch.outputs = K
    batch.raw = raw
    batch.sums = shift + K
    batch.scratch = intercept + K
    batch.per_sample = NULL
    batch.curvature = NULL
    with nogil:
        for b in range(batches):
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
                if x == NULL:
                    memset(rows_of_x, 0, rows * p * sizeof(real))
                for i in range(rows):
                    if x != NULL and i + AHEAD < rows and column_step == 1:
                        row = order[start + done + i + AHEAD]
                        for j in range(lines):
                            prefetch(<const char*>(x + row * row_step) + 64 * j)
                    row = order[start + done + i]
                    if x != NULL:
                        load_row(x + row * row_step, column_step, offsets, centered, rows_of_x + i * p, p)
                    else:
                        for j in range(<Py_ssize_t>indptr[row], <Py_ssize_t>indptr[row + 1]):
                            rows_of_x[i * p + indices[j]] = data[j]
                dense_scores(rows_of_x, True, <int>p, coef, intercept, raw, <int>rows, <int>p, <int>K)
                bad = load_targets(
                    &batch, &order[start + done], rows, targets, classes, weights, weight_per_output, expand,
                    y, &row_codes[0], s,
                )
                if bad < 0:
                    bad = kernel(&batch)
                if bad != -1:
                    break
                if kept is not None:
                    subtract_kept(raw, &kept[0, 0], &order[start + done], rows, K)
                dense_scatter(
                    rows_of_x, True, <int>p, raw, part, coef_gradient, <int>rows, <int>p, <int>K
                )
                column_sums(raw, shift, rows, K)
                done += rows
                work += 3.0 * <double>rows * <double>(K * width)
                look_up(&work)
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
                if moments.first != NULL:
                    adam(
                        g + k * width, moments.first + k * width, moments.second + k * width, &moments,
                        rates[b, k], width,
                    )
                else:
                    for j in range(width):
                        g[k * width + j] *= rates[b, k]
            into_units(g, matrices, units.shape[0], &units[0, 0], K, width, True)
            if together:
                for j in range(width):
                    total = 0.0
                    for k in range(K):
                        total += g[k * width + j]
                    for k in range(K):
                        g[k * width + j] -= total / <double>K
            fraction = 1.0
            if bend > 0.0:
                # along the step: the decrease of the batch's loss to first order, and its second derivative
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
                curve = squares(raw, <const real*>batch.weight, weight_per_output, rows, K)
                fraction = held(total, bend * curve * <double>count / <double>rows)
            for k in range(K):
                for j in range(width):
                    w[k, j] -= fraction * g[k * width + j]
                if mean is not None:
                    for j in range(width):
                        mean[k, j] += mixing[b] * (w[k, j] - mean[k, j])
            if matrices != NULL:
                work += 2.0 * <double>K * <double>width * <double>width
            work += 10.0 * <double>K * <double>width
            look_up(&work)
    if bad == FAILED:
        call.raise_error()
    return bad
