"""Newton steps over few rows of X, where what surrounds the arithmetic would cost more than that."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cython cimport floating as real
from libc.math cimport fabs, isfinite, sqrt
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from scipy.linalg.cython_lapack cimport dpotrf, dpotrs

from sklloss.kernels.data cimport Batch, batch_kernel
from sklloss.kernels.common cimport gemm
from sklloss.kernels.linear.hessian cimport add_curvature
from sklloss.kernels.products cimport current
from sklloss.kernels.python_loss cimport bind
from sklloss.kernels.linear.gradient cimport Space, aim, gather_sums, has_products, one_hot, take_space


cdef struct Rows:
    # What a pass reads, all of it in double.
    Batch batch
    batch_kernel kernel
    Space space
    const Py_ssize_t* codes
    double* z        # X less its center, with the column of ones, in rows of ``step`` numbers
    double* target   # or NULL
    double* weight   # or NULL
    double* ridge    # the penalty's second derivatives, of which it is made
    double* zero
    double* work
    Py_ssize_t n, step, width, outputs, size, block
    bint per_output, coupled
    double scale


cdef bint evaluate(Rows* rows, double* w, double* value, double* gradient, double* hessian) noexcept nogil:
    """Objective, gradient and, unless it is NULL, the Hessian in its lower triangle; False for bad codes.

    The same numbers as the passes of ``_hessian`` give, and in the same order.
    """
    cdef Batch* batch = &rows.batch
    cdef Py_ssize_t K = rows.outputs, width = rows.width, step = rows.step, size = rows.size
    cdef Py_ssize_t first = 0, part, i, j, k, a
    # the rows of a single output's Hessian are padded
    cdef Py_ssize_t line = size if rows.coupled else step
    cdef bint own = has_products(<double*>NULL, True, width)
    cdef double* raw = <double*>rows.space.raw
    cdef double total = 0.0, pull, mean
    memset(gradient, 0, size * sizeof(double))
    memset(rows.zero + K, 0, 2 * K * sizeof(double))
    if hessian != NULL:
        memset(hessian, 0, line * line * sizeof(double))
    while first < rows.n:
        part = min(rows.block, rows.n - first)
        if own:
            current.scores_f64(rows.z + first * step, step, w, width, rows.zero, raw, part, K)
        else:
            gemm(
                b"T", b"N", <int>K, <int>part, <int>width, w, <int>width, rows.z + first * step, <int>step,
                <double>0.0, raw, <int>K,
            )
        aim(
            batch, &rows.space, rows.target, rows.codes, rows.weight, rows.per_output, False, first, part, K
        )
        if hessian != NULL:
            batch.curvature = rows.space.curvature
        if rows.kernel(batch) != -1:
            return False
        gather_sums(rows.space.sums, rows.zero + K, K)
        if own:
            current.scatter_f64(rows.z + first * step, step, raw, gradient, part, width, K)
        else:
            gemm(
                b"N", b"T", <int>width, <int>K, <int>part, rows.z + first * step, <int>step, raw, <int>K,
                <double>1.0, gradient, <int>width,
            )
        if hessian != NULL:
            add_curvature(batch, rows.z + first * step, step, rows.work, width, rows.coupled, hessian)
        first += part
    value[0] = rows.scale * rows.zero[K]
    for i in range(size):
        pull = rows.ridge[i] * w[i]
        total += pull * w[i]
        gradient[i] = gradient[i] * rows.scale + pull
    value[0] += 0.5 * total
    if hessian == NULL:
        return True
    for i in range(size):
        for j in range(i + 1):
            hessian[i * line + j] *= rows.scale
    if rows.coupled:
        for j in range(width):
            if rows.ridge[j] == 0.0:
                # nothing holds what the outputs share: a multiple of its square does, see LinearObjective
                mean = 0.0
                for k in range(K):
                    i = k * width + j
                    mean += hessian[i * line + i]
                mean /= K
                for k in range(K):
                    for a in range(k + 1):
                        hessian[(k * width + j) * line + a * width + j] += mean
    for i in range(size):
        hessian[i * line + i] += rows.ridge[i]
    return True


cdef bint newton_direction(
    double* hessian, Py_ssize_t line, const double* gradient, Py_ssize_t size, double* root, double* d
) noexcept nogil:
    """d = -hessian**-1 gradient, by a factor made in place; False if there is none or d is not finite.

    The matrix is first scaled to a unit diagonal.
    """
    cdef Py_ssize_t i, j
    cdef int failed = 0, n = <int>size, lda = <int>line, one = 1
    cdef double f
    for i in range(size):
        f = hessian[i * line + i]
        if not f > 0.0 and gradient[i] != 0.0:
            return False
        root[i] = 1.0 / sqrt(f) if f > 0.0 else 1.0
    for i in range(size):
        for j in range(i):
            hessian[i * line + j] *= root[i] * root[j]
        hessian[i * line + i] = 1.0
        d[i] = -gradient[i] * root[i]
    # row-major lower is column-major upper
    dpotrf(b"U", &n, hessian, &lda, &failed)
    if failed:
        return False
    dpotrs(b"U", &n, &one, hessian, &lda, d, &n, &failed)
    for i in range(size):
        d[i] *= root[i]
        if not isfinite(d[i]):
            return False
    return True


def steps(
    loss,
    const real[:, :] X,
    const double[::1] center,
    const real[:, ::1] target,
    const Py_ssize_t[::1] codes,
    const real[::1] weight,
    bint weight_per_output,
    bint expand,
    bint shifted,
    bint coupled,
    double parameter,
    Py_ssize_t block,
    Py_ssize_t outputs,
    double scale,
    const double[::1] ridge,
    double[::1] w,
    double[::1] curve,
    double gap,
    double vanished,
    double start,
    double enough,
    double noise,
):
    """Whole Newton steps from ``w``, which they change, as long as all goes well.

    That is: a problem counts as solved where half its Newton decrement is no more than ``gap`` times its
    value, and a step is taken that lowers the value by ``enough`` of what its slope promises, less the
    relative ``noise``. What is not as plain as that ends the steps: a value that is more than ``start``
    before the first, a Hessian without a factor, a slope along which there is no curvature, a step that is
    too long, a value of ``vanished`` times the first or less (or times ``start``, if that is lower), a number
    that is not finite.

    The arguments up to ``outputs`` are those of `_hessian.hessian`, for a single problem with dense X and a
    compiled loss; ``scale`` and ``ridge`` make the objective of the loss. ``curve`` has room for the value at
    the start and after each of as many steps as may be taken.

    Returns the number of steps, and whether the problem is solved.
    """
    cdef Rows rows
    cdef Py_ssize_t n = X.shape[0], features = X.shape[1], most = curve.shape[0] - 1
    cdef Py_ssize_t width = features + shifted, step = (width + 7) // 8 * 8, size = outputs * width
    cdef Py_ssize_t line = size if coupled else step, per_row = outputs if weight_per_output else 1
    cdef Py_ssize_t targets = n * outputs if target is not None or expand else 0
    cdef Py_ssize_t weights = n * per_row if weight is not None else 0
    cdef Py_ssize_t taken = 0, i, j
    cdef double value, new_value, decrement, least
    cdef double *memory, *hessian, *gradient, *new_gradient, *direction, *point, *root
    cdef bint solved = False
    # a compiled kernel, which keeps no Python object
    bind(loss, False, &rows.batch, &rows.kernel)
    if not take_space(&rows.space, block, outputs, sizeof(double)):
        raise MemoryError()
    memory = <double*>PyMem_Calloc(
        n * step + block * line + line * line + targets + weights + 5 * size + 3 * outputs, sizeof(double)
    )
    if memory == NULL:
        free(rows.space.memory)
        raise MemoryError()
    with nogil:
        rows.batch.parameter = parameter
        rows.codes = &codes[0] if codes is not None and not expand else NULL
        rows.n, rows.block, rows.outputs = n, block, outputs
        rows.step, rows.width, rows.size = step, width, size
        rows.per_output, rows.coupled, rows.scale = weight_per_output, coupled, scale
        rows.ridge = <double*>&ridge[0]
        rows.z = memory
        rows.work = rows.z + n * step
        hessian = rows.work + block * line
        rows.target = hessian + line * line
        rows.weight = rows.target + targets
        gradient = rows.weight + weights
        new_gradient = gradient + size
        direction = new_gradient + size
        point = direction + size
        root = point + size
        rows.zero = root + size
        for i in range(n):
            for j in range(features):
                rows.z[i * step + j] = <double>X[i, j] - center[j]
            if shifted:
                rows.z[i * step + features] = 1.0
        if target is not None:
            for i in range(n):
                for j in range(outputs):
                    rows.target[i * outputs + j] = <double>target[i, j]
        elif expand:
            if one_hot(&codes[0], rows.target, n, outputs) != -1:
                most = -1
        else:
            rows.target = NULL
        if weight is not None:
            for i in range(weights):
                rows.weight[i] = <double>weight[i]
        else:
            rows.weight = NULL
        if most >= 0 and evaluate(&rows, &w[0], &value, gradient, hessian):
            curve[0] = value
            least = vanished * min(value, start)
            if not value <= start:
                most = 0
            while taken < most and not solved and value > least and isfinite(value):
                if not newton_direction(hessian, line, gradient, size, root, direction):
                    break
                decrement = 0.0
                for i in range(size):
                    decrement -= gradient[i] * direction[i]
                    point[i] = w[i] + direction[i]
                solved = decrement / 2 <= gap * fabs(value)
                # near the end a step squares the error, so the last one is taken too
                if not (
                    evaluate(&rows, point, &new_value, new_gradient, NULL if solved else hessian)
                    and new_value <= value - enough * decrement + noise * fabs(value)
                ):
                    solved = False
                    break
                taken += 1
                value = curve[taken] = new_value
                memcpy(&w[0], point, size * sizeof(double))
                memcpy(gradient, new_gradient, size * sizeof(double))
    free(rows.space.memory)
    PyMem_Free(memory)
    return taken, solved
