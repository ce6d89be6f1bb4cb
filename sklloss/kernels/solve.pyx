"""Minimisation of quadratics: conjugate gradients, block solves, and coordinate descent with an L1 norm."""

import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from cython cimport floating as real
from libc.math cimport fabs, isfinite, sqrt
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset
from scipy.linalg.cython_blas cimport daxpy, ddot, dgemm, dscal, dsyrk, dtrsv, ssyrk, strsv
from scipy.linalg.cython_lapack cimport dpotrf, dpotri, dpotrs, spotrf, spotrs

from sklloss.kernels.common cimport coordinate_minimum, shift_minimum


cdef enum:
    HISTORY = 64  # products that are remembered
    WIDEST_INVERSE = 256  # most columns of a matrix that is inverted


cdef class SystemProgress


cdef class Operator:
    """A symmetric linear map of vectors (systems, size): a Hessian, or a preconditioner."""

    cdef int apply(self, const double[:, ::1] x, double[:, ::1] out) except -1:
        """Set ``out`` to the image of x."""
        raise NotImplementedError

    def __call__(self, x):
        """The image of x, an array of any shape whose numbers are those of the vectors."""
        out = np.empty(x.shape)
        self.apply(np.ascontiguousarray(x, dtype=float).reshape(1, -1), out.reshape(1, -1))
        return out


cdef class FunctionOperator(Operator):
    """An `Operator` by a Python function that takes and returns arrays."""

    cdef object function

    def __init__(self, function):
        self.function = function

    cdef int apply(self, const double[:, ::1] x, double[:, ::1] out) except -1:
        cdef const double[:, ::1] image = np.ascontiguousarray(self.function(np.asarray(x)))
        out[...] = image
        return 0


def as_operator(solve):
    """An operator from one, or from a function."""
    return solve if isinstance(solve, Operator) else FunctionOperator(solve)


def conjugate_gradients(
    Operator matrix,
    Operator preconditioner,
    double[:, ::1] residual,
    const double[:, ::1] first,
    SystemProgress systems,
    Py_ssize_t most,
):
    """Solve with a positive definite matrix for several independent right-hand sides.

    Systems that do not run at the start, and those without positive curvature along their first direction,
    have a solution of 0.

    Parameters
    ----------
    matrix, preconditioner : Operator
    residual : ndarray of shape (systems, size)
        The right-hand sides, which are overwritten.
    first : ndarray of shape (systems, size)
        What the preconditioner makes of them.
    systems : SystemProgress
    most : int
        The largest number of products with the matrix.

    Returns
    -------
    solution : ndarray of shape (systems, size)
    products : int
    """
    cdef Py_ssize_t products = 0, b
    solution = np.zeros_like(residual)
    cdef double[:, ::1] d = solution, p = first.copy(), product = np.empty_like(residual)
    cdef double[:, ::1] z = np.empty_like(residual)
    cdef bint some = False
    for b in range(p.shape[0]):
        if systems.running[b]:
            some = True
        else:
            p[b] = 0.0
    while some and products < most:
        products += 1
        PyErr_CheckSignals()
        matrix.apply(p, product)
        with nogil:
            advance(p, product, d, residual, systems)
        preconditioner.apply(residual, z)
        with nogil:
            some = turn(p, z, residual, systems, products)
    return solution, products


cdef class SystemProgress:
    """How far several independent systems have come, and the rule by which each of them ends.

    Each product lowers the quadratic. Two estimates tell what is left to gain. One takes as many times the
    last decrease as there were products (Nash and Sofer): it does not depend on how good the preconditioner
    is, but one small decrease may be an accident of the spectrum, so two in a row are needed. The other takes
    the residual as the preconditioner sees it, times the most by which that has turned out to underestimate
    what was gained later; it is trusted where the first is no more than ``trust`` times as much.

    A system ends where either is at most ``loosest`` of what has been lowered, the closer to the end the
    less: the fourth root of the gap relative to ``size``. And ``closest`` of the allowed ``gap`` is never too
    much. It also ends at a residual of mere rounding, ``floor`` times the ``first``: to go on would follow it
    along directions that do not matter.

    Parameters
    ----------
    first : ndarray of shape (systems,)
        The residual times its preconditioned self at the start.
    size, gap : ndarray of shape (systems,)
        The value of the objective, and how far from its minimum it may end.
    running, reached : ndarray of bool of shape (systems,)
        Which systems still run, and which are solved well enough. They change in place.
    excess : ndarray of shape (systems,)
        Filled with the most, and at least 1, by which a residual underestimated what was left.
    loosest, closest, floor, trust : float
    """

    cdef const double[::1] first, size, gap
    cdef double[::1] rz, decrease, lowered
    cdef double[:, :, ::1] history  # of each system: the residual's measure and what had been lowered
    cdef double[::1] excess
    cdef unsigned char[::1] running, reached, before
    cdef double loosest, closest, floor, trust

    def __init__(
        self, first, size, gap, running, reached, excess, double loosest, double closest, double floor,
        double trust,
    ):
        self.excess = excess
        self.history = np.empty((len(first), HISTORY, 2))
        self.first, self.size, self.gap = first, size, gap
        self.rz, self.decrease, self.lowered = first.copy(), np.zeros(len(first)), np.zeros(len(first))
        self.running, self.reached, self.before = running, reached, np.zeros(len(first), dtype=bool)
        self.loosest, self.closest, self.floor, self.trust = loosest, closest, floor, trust

    cdef bint ends(self, Py_ssize_t b, double newer, Py_ssize_t products) noexcept nogil:
        """Whether a system ends, with the residual ``newer`` times its preconditioned self."""
        cdef double enough, share
        cdef bint small, close
        cdef Py_ssize_t j, k = min(products, HISTORY) - 1
        cdef double* past = &self.history[b, 0, 0]
        past[2 * k] = self.rz[b]
        past[2 * k + 1] = self.lowered[b]
        self.lowered[b] += self.decrease[b]
        self.excess[b] = 1.0
        for j in range(k + 1):
            self.excess[b] = max(self.excess[b], 2.0 * (self.lowered[b] - past[2 * j + 1]) / past[2 * j])
        share = min(self.loosest, sqrt(sqrt(min(self.lowered[b], self.size[b]) / self.size[b])))
        enough = max(share * self.lowered[b], self.closest * self.gap[b])
        small = products * self.decrease[b] <= enough
        close = products > 1 and self.excess[b] * newer <= enough
        close = close and products * self.decrease[b] <= self.trust * enough
        if (small and self.before[b]) or close or newer <= self.floor * self.first[b]:
            self.reached[b] = True
        self.before[b] = small
        return self.reached[b] or not newer > 0.0


cdef void advance(
    const double[:, ::1] p,
    const double[:, ::1] product,
    double[:, ::1] d,
    double[:, ::1] residual,
    SystemProgress systems,
) noexcept nogil:
    """Go along each direction p to the minimum, given its product with the matrix.

    ``d`` and ``residual`` change. A system without positive curvature along its direction stops running.
    """
    cdef Py_ssize_t b
    cdef int size = <int>p.shape[1], one = 1
    cdef double curvature, length, back
    for b in range(p.shape[0]):
        systems.decrease[b] = 0.0
        if not systems.running[b]:
            continue
        curvature = ddot(&size, <double*>&p[b, 0], &one, <double*>&product[b, 0], &one)
        if not curvature > 0.0:
            systems.running[b] = False
            continue
        length = systems.rz[b] / curvature
        back = -length
        daxpy(&size, &length, <double*>&p[b, 0], &one, &d[b, 0], &one)
        daxpy(&size, &back, <double*>&product[b, 0], &one, &residual[b, 0], &one)
        systems.decrease[b] = 0.5 * length * systems.rz[b]


cdef bint turn(
    double[:, ::1] p,
    const double[:, ::1] z,
    const double[:, ::1] residual,
    SystemProgress systems,
    Py_ssize_t products,
) noexcept nogil:
    """End the systems that are solved well enough and give the others their next direction, from z.

    Returns whether a system still runs.
    """
    cdef Py_ssize_t b
    cdef int width = <int>p.shape[1], one = 1
    cdef double newer, ratio, scale = 1.0
    cdef bint some = False
    for b in range(p.shape[0]):
        if systems.running[b]:
            newer = ddot(&width, <double*>&residual[b, 0], &one, <double*>&z[b, 0], &one)
            systems.running[b] = not systems.ends(b, newer, products)
        if not systems.running[b]:
            memset(&p[b, 0], 0, width * sizeof(double))
            continue
        some = True
        ratio = newer / systems.rz[b]
        systems.rz[b] = newer
        dscal(&width, &ratio, &p[b, 0], &one)
        daxpy(&width, &scale, <double*>&z[b, 0], &one, &p[b, 0], &one)
    return some


def settle(
    const double[::1] curvature, const double[::1] newer, SystemProgress systems, Py_ssize_t products
):
    """What `advance` and `turn` decide, for systems whose vectors are on a device.

    ``curvature`` is each direction times its product with the matrix, ``newer`` the residual after the step
    times its preconditioned self. Returns whether a system still runs.
    """
    cdef Py_ssize_t b
    cdef bint some = False
    with nogil:
        for b in range(curvature.shape[0]):
            systems.decrease[b] = 0.0
            if not systems.running[b]:
                continue
            if not curvature[b] > 0.0:
                systems.running[b] = False
                continue
            systems.decrease[b] = 0.5 * (systems.rz[b] / curvature[b]) * systems.rz[b]
            systems.running[b] = not systems.ends(b, newer[b], products)
            if systems.running[b]:
                some = True
                systems.rz[b] = newer[b]
    return some


cdef char stored_triangle(real[:, :] matrix) noexcept nogil:
    """What LAPACK calls the lower triangle of a matrix that is contiguous by rows (U) or by columns (L)."""
    return b"U" if matrix.strides[1] == sizeof(real) else b"L"


cdef int stored_width(real[:, :] matrix) noexcept nogil:
    """The distance of its rows or columns, in numbers."""
    return <int>(max(matrix.strides[0], matrix.strides[1]) // sizeof(real))


def add_gram(const real[:, ::1] rows, real[:, :] matrix, real factor, bint first):
    """Add ``factor * rows' rows`` to the lower triangle of a matrix, or set it to that if ``first``."""
    cdef int n = <int>matrix.shape[0], k = <int>rows.shape[0], width = stored_width(matrix)
    cdef char triangle = stored_triangle(matrix)
    cdef real old = 0 if first else 1
    with nogil:
        if real is float:
            ssyrk(
                &triangle, b"N", &n, &k, &factor, <float*>&rows[0, 0], &n, &old, &matrix[0, 0], &width
            )
        else:
            dsyrk(
                &triangle, b"N", &n, &k, &factor, <double*>&rows[0, 0], &n, &old, &matrix[0, 0], &width
            )


def factorise(real[:, :] matrix, double[::1] units, double ridge):
    """Scale a symmetric matrix to a unit diagonal plus a ridge, and replace it by its Cholesky factor.

    Only the lower triangle is read and written. ``units`` is filled with the scales, the roots of the
    diagonal, or 1 where that is not positive. Returns whether there is a factor.
    """
    cdef int n = <int>matrix.shape[0], failed = 0, width = stored_width(matrix)
    cdef char triangle = stored_triangle(matrix)
    cdef bint by_rows = triangle == b"U"
    cdef Py_ssize_t i, j
    cdef real unit
    cdef real* part
    with nogil:
        for i in range(n):
            if not isfinite(matrix[i, i]):
                with gil:
                    return False
            units[i] = sqrt(<double>matrix[i, i]) if matrix[i, i] > 0 else 1.0
        for i in range(n):
            unit = <real>units[i]
            part = &matrix[0, 0] + i * width
            for j in range(0 if by_rows else i, i + 1 if by_rows else n):
                part[j] = part[j] / <real>units[j] / unit
            part[i] = <real>(1.0 + ridge)
        if real is float:
            spotrf(&triangle, &n, &matrix[0, 0], &width, &failed)
        else:
            dpotrf(&triangle, &n, &matrix[0, 0], &width, &failed)
    return failed == 0


cdef class BlockOperator(Operator):
    """Solves with ``units[k] U' U units[k]``, one for all rows or one for each; U is triangular for LAPACK.

    A single small matrix in float64 is inverted, which many solutions outweigh. The inverse remains positive,
    because the diagonal of U' U is 1 plus a ridge of 1e-10.

    With ``ridge``, what all rows have in common, their mean, is treated apart: the matrix for that is
    diagonal, and ``ridge`` is its pseudo-inverse.

    Parameters
    ----------
    factors : ndarray of shape (matrices, width, width)
        In float32 or float64; or a rectangle for two of them, see `PairedBlockSolver`.
    units : ndarray of shape (matrices, width)
    ridge : ndarray of shape (width,), optional
    """

    cdef const float[:, :, ::1] factors32
    cdef const double[:, :, ::1] factors64
    cdef const double[:, ::1] units
    cdef const double[::1] ridge
    cdef Py_ssize_t line  # the numbers in a row of ``factors``
    cdef bint single, inverse, apart

    def __init__(self, factors, units, ridge=None):
        self.single = factors.dtype == np.float32
        self.line = factors.shape[2]
        self.inverse = not self.single and len(units) == 1 and self.line == units.shape[1] <= WIDEST_INVERSE
        if self.inverse:
            factors = factors.copy()
            invert(factors[0])
        if self.single:
            self.factors32 = factors
        else:
            self.factors64 = factors
        self.units, self.ridge, self.apart = units, ridge, ridge is not None

    cdef int apply(self, const double[:, ::1] x, double[:, ::1] out) except -1:
        cdef Py_ssize_t width = self.units.shape[1], rows = x.shape[0] * x.shape[1] // max(width, 1)
        cdef bint enough
        if rows == 0:
            return 0
        with nogil:
            if self.single:
                enough = solve_blocks(self, &self.factors32[0, 0, 0], &x[0, 0], rows, &out[0, 0])
            else:
                enough = solve_blocks(self, &self.factors64[0, 0, 0], &x[0, 0], rows, &out[0, 0])
        if not enough:
            raise MemoryError()
        return 0


cdef int invert(double[:, ::1] factor) except -1:
    """Replace the factor in a lower triangle by the inverse of the matrix, in both triangles."""
    cdef int n = <int>factor.shape[0], failed = 0
    cdef Py_ssize_t i, j
    if n > 0:
        dpotri(b"U", &n, &factor[0, 0], &n, &failed)
    for i in range(n):
        for j in range(i):
            factor[j, i] = factor[i, j]
    return 0


cdef bint solve_blocks(
    BlockOperator blocks, const real* factors, const double* x, Py_ssize_t rows, double* out
) noexcept nogil:
    """What `BlockOperator` does; False if there is no memory."""
    cdef Py_ssize_t k, j, width = blocks.units.shape[1], last = blocks.units.shape[0] - 1
    cdef int n = <int>width, line = <int>blocks.line, one = 1, count = <int>rows, failed
    cdef bint paired = line > n, together = last == 0 and not paired and (rows > 1 or blocks.inverse)
    cdef char triangle = b"U", first = b"T", second = b"N"
    cdef double* shift = <double*>calloc(2 * width, sizeof(double))
    cdef double* mean = shift + width
    cdef double weight = 1.0, keep = 0.0
    cdef real* part = <real*>malloc((2 if blocks.inverse else 1) * rows * width * sizeof(real))
    cdef real* factor = <real*>factors
    cdef real* vector = part
    cdef real* solved = part
    cdef const double* units
    if shift == NULL or part == NULL:
        free(shift)
        free(part)
        return False
    if blocks.apart:
        for k in range(rows):
            for j in range(width):
                shift[j] += x[k * width + j]
        for j in range(width):
            shift[j] /= rows
    for k in range(rows):
        units = &blocks.units[min(k, last), 0]
        vector = part + k * width
        for j in range(width):
            vector[j] = <real>((x[k * width + j] - shift[j]) / units[j])
        if together:
            continue
        if paired:
            factor = <real*>factors + k // 2 * width * line + k % 2
            triangle, first, second = b"U", b"T", b"N"
            if k % 2:
                triangle, first, second = b"L", b"N", b"T"
        else:
            factor = <real*>factors + k * width * width
        if real is float:
            strsv(&triangle, &first, b"N", &n, factor, &line, vector, &one)
            strsv(&triangle, &second, b"N", &n, factor, &line, vector, &one)
        else:
            dtrsv(&triangle, &first, b"N", &n, factor, &line, vector, &one)
            dtrsv(&triangle, &second, b"N", &n, factor, &line, vector, &one)
    if together:
        if real is float:
            spotrs(b"U", &n, &count, factor, &n, part, &n, &failed)
        elif blocks.inverse:
            vector = part + rows * width
            dgemm(b"N", b"N", &n, &count, &n, &weight, factor, &n, part, &n, &keep, vector, &n)
            solved = vector
        else:
            dpotrs(b"U", &n, &count, factor, &n, part, &n, &failed)
    for k in range(rows):
        units = &blocks.units[min(k, last), 0]
        for j in range(width):
            out[k * width + j] = solved[k * width + j] / units[j]
            mean[j] += out[k * width + j]
    if blocks.apart:
        for j in range(width):
            shift[j] = blocks.ridge[j] * shift[j] - mean[j] / rows
        for k in range(rows):
            for j in range(width):
                out[k * width + j] += shift[j]
    free(shift)
    free(part)
    return True


def descend(
    const double[:, ::1] matrix,
    double[::1] gradient,
    double[::1] z,
    const double[::1] l1,
    const double[::1] low,
    const double[::1] high,
    double[::1] decrease,
    const Py_ssize_t[:, ::1] shifts,
    const double[::1] shifted,
):
    """Minimise a quadratic plus an L1 norm coordinate by coordinate, between ``low`` and ``high``.

    There is one sweep per entry of ``decrease``, which is filled with what each sweep gained. ``matrix`` is
    symmetric, both triangles filled; ``gradient`` is the quadratic's at z, and both are kept up to date. A
    coordinate that does not move costs nothing. A sweep ends with common shifts of the coordinates in each
    row of ``shifts``, which have the same ``l1``. The product of the matrix with such a shift is ``shifted``
    at its coordinates and 0 elsewhere, if not for rounding.
    """
    cdef Py_ssize_t size = matrix.shape[0], sweep, i, j, a, count = shifts.shape[1]
    cdef double h, t, g, moved, gained
    cdef const double* row
    cdef const Py_ssize_t* at
    with nogil:
        for sweep in range(decrease.shape[0]):
            gained = 0.0
            for j in range(size):
                h = matrix[j, j]
                g = gradient[j]
                t = coordinate_minimum(z[j], g, h, l1[j], low[j], high[j])
                moved = t - z[j]
                if moved == 0.0:
                    continue
                gained -= moved * (g + 0.5 * h * moved) + l1[j] * (fabs(t) - fabs(z[j]))
                z[j] = t
                row = &matrix[j, 0]
                for i in range(size):
                    gradient[i] += moved * row[i]
            for j in range(shifts.shape[0]):
                at = &shifts[j, 0]
                g = h = 0.0
                for a in range(count):
                    g += gradient[at[a]]
                    h += shifted[at[a]]
                moved = shift_minimum(&z[0], at, count, g, h, l1[at[0]], &low[0], &high[0])
                if moved == 0.0:
                    continue
                gained -= moved * (g + 0.5 * h * moved)
                for a in range(count):
                    gained -= l1[at[a]] * (fabs(z[at[a]] + moved) - fabs(z[at[a]]))
                    z[at[a]] += moved
                    gradient[at[a]] += moved * shifted[at[a]]
            decrease[sweep] = gained
            if gained <= 0.0:
                for j in range(sweep + 1, decrease.shape[0]):
                    decrease[j] = 0.0
                break
