"""Newton steps over few rows of X, where what surrounds the arithmetic would cost more than that."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.math cimport fabs, isfinite, sqrt
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from scipy.linalg.cython_lapack cimport dpotrf, dpotrs

from sklloss.kernels.common cimport gather_sums, gemm
from sklloss.kernels.data cimport Batch, Dataset, Workspace, allocate, batch_kernel, bind
from sklloss.kernels.linear.gradient cimport has_products
from sklloss.kernels.linear.hessian cimport add_curvature, load_dense
from sklloss.kernels.dispatch cimport current


cdef struct Problem:
    # The objective and what its evaluation works with, all of it in double.
    Batch batch
    batch_kernel kernel
    Workspace work
    double* z        # X less its center, with the column of ones, in rows of ``step`` numbers
    double* ridge    # the penalty's second derivatives, of which it is made
    double* zero     # ``outputs`` zeros, then the sums of the losses
    double* scaled   # rows of z times their curvature
    Py_ssize_t step, width, outputs, size, block
    bint coupled
    double scale


cdef bint evaluate(
    Dataset data, Problem* problem, double* w, double* value, double* gradient, double* hessian
) noexcept nogil:
    """Objective, gradient and, unless it is NULL, the Hessian in its lower triangle; False for bad codes.

    The same numbers as the passes of ``hessian.pyx`` give, and in the same order.
    """
    cdef Batch* batch = &problem.batch
    cdef Py_ssize_t K = problem.outputs, width = problem.width, step = problem.step, size = problem.size
    cdef Py_ssize_t first = 0, part, i, j, k, a
    # the rows of a single output's Hessian are padded
    cdef Py_ssize_t line = size if problem.coupled else step
    cdef bint skinny = has_products(<double*>NULL, True, width)
    cdef double* raw = <double*>problem.work.raw
    cdef double total = 0.0, penalty_slope, mean
    memset(gradient, 0, size * sizeof(double))
    memset(problem.zero + K, 0, 2 * K * sizeof(double))
    if hessian != NULL:
        memset(hessian, 0, line * line * sizeof(double))
    while first < data.rows:
        part = min(problem.block, data.rows - first)
        if skinny:
            current.scores_f64(problem.z + first * step, step, w, width, problem.zero, raw, part, K)
        else:
            gemm(
                b"T", b"N", <int>K, <int>part, <int>width, w, <int>width, problem.z + first * step, <int>step,
                <double>0.0, raw, <int>K,
            )
        if data.set_batch(batch, &problem.work, NULL, first, part) != -1:
            return False
        if hessian != NULL:
            batch.curvature = problem.work.curvature
        if problem.kernel(batch) != -1:
            return False
        gather_sums(problem.work.sums, problem.zero + K, K)
        if skinny:
            current.scatter_f64(problem.z + first * step, step, raw, gradient, part, width, K)
        else:
            gemm(
                b"N", b"T", <int>width, <int>K, <int>part, problem.z + first * step, <int>step, raw, <int>K,
                <double>1.0, gradient, <int>width,
            )
        if hessian != NULL:
            add_curvature(
                batch, problem.z + first * step, step, problem.scaled, width, problem.coupled, hessian
            )
        first += part
    value[0] = problem.scale * problem.zero[K]
    for i in range(size):
        penalty_slope = problem.ridge[i] * w[i]
        total += penalty_slope * w[i]
        gradient[i] = gradient[i] * problem.scale + penalty_slope
    value[0] += 0.5 * total
    if hessian == NULL:
        return True
    for i in range(size):
        for j in range(i + 1):
            hessian[i * line + j] *= problem.scale
    if problem.coupled:
        for j in range(width):
            if problem.ridge[j] == 0.0:
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
        hessian[i * line + i] += problem.ridge[i]
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
    Dataset data,
    bint coupled,
    Py_ssize_t block,
    double scale,
    const double[::1] ridge,
    double[::1] w,
    double[::1] values,
    rule,
):
    """Whole Newton steps from ``w``, which they change, as long as all goes well.

    ``rule`` is (gap, vanished, start, enough, noise). A problem counts as solved where half its Newton
    decrement is no more than ``gap`` times its value, and a step is taken that lowers the value by ``enough``
    of what its slope predicts, less the relative ``noise``. Anything less simple ends the steps: a value that
    is more than ``start`` before the first, a Hessian without a factor, a slope along which there is no
    curvature, a step that is too long, a value of ``vanished`` times the first or less (or times ``start``,
    if that is lower), a number that is not finite.

    ``loss`` is a `CompiledLoss` for double, X is dense with a center, and there is a single problem: one
    output, or ``coupled`` ones. ``block`` is the number of rows per block. ``scale`` and ``ridge`` make the
    objective of the loss. ``values`` is filled with the value at the start and after each step; no more steps
    are taken than it has places for.

    Returns the number of steps, and whether the problem is solved.
    """
    cdef double gap, vanished, start, enough, noise
    gap, vanished, start, enough, noise = rule
    cdef Problem problem
    cdef Py_ssize_t n = data.rows, features = data.features, outputs = data.outputs
    cdef Py_ssize_t most = values.shape[0] - 1
    cdef Py_ssize_t width = ridge.shape[0] // outputs, step = (width + 7) // 8 * 8, size = outputs * width
    cdef Py_ssize_t line = size if coupled else step
    cdef Py_ssize_t taken = 0, i
    cdef bint shifted = width > features, solved = False
    cdef double value, new_value, decrement, least
    cdef double* memory
    cdef double* hessian
    cdef double* gradient
    cdef double* new_gradient
    cdef double* direction
    cdef double* point
    cdef double* root
    # a compiled kernel, which keeps no Python object
    bind(loss, False, &problem.batch, &problem.kernel)
    if not allocate(&problem.work, block, outputs, False):
        raise MemoryError()
    memory = <double*>PyMem_Calloc(
        n * step + block * line + line * line + 5 * size + 3 * outputs, sizeof(double)
    )
    if memory == NULL:
        free(problem.work.memory)
        raise MemoryError()
    with nogil:
        problem.block, problem.outputs = block, outputs
        problem.step, problem.width, problem.size = step, width, size
        problem.coupled, problem.scale = coupled, scale
        problem.ridge = <double*>&ridge[0]
        problem.z = memory
        problem.scaled = problem.z + n * step
        hessian = problem.scaled + block * line
        gradient = hessian + line * line
        new_gradient = gradient + size
        direction = new_gradient + size
        point = direction + size
        root = point + size
        problem.zero = root + size
        if data.single:
            load_dense(
                <const float*>data.x, data.row_step, data.column_step, data.center, shifted, problem.z, n,
                features, step,
            )
        else:
            load_dense(
                <const double*>data.x, data.row_step, data.column_step, data.center, shifted, problem.z, n,
                features, step,
            )
        if evaluate(data, &problem, &w[0], &value, gradient, hessian):
            values[0] = value
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
                    evaluate(data, &problem, point, &new_value, new_gradient, NULL if solved else hessian)
                    and new_value <= value - enough * decrement + noise * fabs(value)
                ):
                    solved = False
                    break
                taken += 1
                value = values[taken] = new_value
                memcpy(&w[0], point, size * sizeof(double))
                memcpy(gradient, new_gradient, size * sizeof(double))
    free(problem.work.memory)
    PyMem_Free(memory)
    return taken, solved
