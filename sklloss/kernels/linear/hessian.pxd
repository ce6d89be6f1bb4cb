# The part of a Hessian that one block of rows adds. See the .pyx.

from sklloss.kernels.data cimport Batch

cdef void add_curvature(
    Batch* batch, const double* z, Py_ssize_t step, double* work, Py_ssize_t width, bint coupled, double* h
) noexcept nogil
