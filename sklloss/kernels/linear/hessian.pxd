# A block of rows in double, and the part of a Hessian that it adds. See the .pyx.

from cython cimport floating as real

from sklloss.kernels.data cimport Batch


cdef inline void load_dense(
    const real* x, Py_ssize_t row_step, Py_ssize_t column_step, const double* center, bint shifted, double* z,
    Py_ssize_t rows, Py_ssize_t features, Py_ssize_t width,
) noexcept nogil:
    """Rows of X less the center in double, ``width`` apart; with an intercept, a column of ones."""
    cdef Py_ssize_t i, j
    if column_step == 1:
        for i in range(rows):
            for j in range(features):
                z[i * width + j] = <double>x[i * row_step + j] - center[j]
    else:
        for j in range(features):
            for i in range(rows):
                z[i * width + j] = <double>x[i * row_step + j * column_step] - center[j]
    if shifted:
        for i in range(rows):
            z[i * width + features] = 1.0


cdef void add_curvature(
    Batch* batch, const double* z, Py_ssize_t step, double* work, Py_ssize_t width, bint coupled, double* h
) noexcept nogil
