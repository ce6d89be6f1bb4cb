# The loss kernels: loops over a batch around the formulas of _formulas.pxd.
#
# This file is not a module. Each _build_*.pyx includes it and is compiled for one instruction set, and
# the package picks one of them at import. A kernel overwrites raw scores with weight * d loss / d raw
# and adds up the weighted loss in double, in an order that depends on the shape alone.

from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport sqrt
from libc.string cimport memcpy

from sklloss.kernels._batch cimport Batch, batch_kernel
from sklloss.kernels._formulas cimport (
    compensated_add,
    exp_nonpositive,
    log_loss,
    log_sum,
    real,
    reciprocal,
    two_sum,
)

cdef enum:
    TILE = 512         # elements per pass of a separable loss: value and curvature stay in L1
    ROWS = 32          # rows side by side in the softmax of few classes
    FEW = 32           # up to here, softmax runs over rows side by side; beyond, along the row
    LANES = 16         # partial sums along a row
    SUMS = 32          # running sums of a tile

include "_sums.pxi"
include "_separable.pxi"
include "_lanes.pxi"
include "_softmax.pxi"


# The table: one entry per kernel and dtype ---------------------------------------------------------------

cdef Py_ssize_t log_loss_f32(Batch* batch) noexcept nogil:
    return log_loss_rows(<float*>batch.raw, batch)

cdef Py_ssize_t log_loss_f64(Batch* batch) noexcept nogil:
    return log_loss_rows(<double*>batch.raw, batch)

cdef Py_ssize_t cross_entropy_f32(Batch* batch) noexcept nogil:
    return cross_entropy_rows(<float*>batch.raw, batch)

cdef Py_ssize_t cross_entropy_f64(Batch* batch) noexcept nogil:
    return cross_entropy_rows(<double*>batch.raw, batch)

cdef Py_ssize_t squared_error_f32(Batch* batch) noexcept nogil:
    return squared_error_rows(<float*>batch.raw, batch)

cdef Py_ssize_t squared_error_f64(Batch* batch) noexcept nogil:
    return squared_error_rows(<double*>batch.raw, batch)

cdef Py_ssize_t root_mean_squared_error_f32(Batch* batch) noexcept nogil:
    return root_mean_squared_error_rows(<float*>batch.raw, batch)

cdef Py_ssize_t root_mean_squared_error_f64(Batch* batch) noexcept nogil:
    return root_mean_squared_error_rows(<double*>batch.raw, batch)


cdef object capsule(batch_kernel kernel):
    return PyCapsule_New(<void*>kernel, "sklloss.batch_kernel", NULL)


def table():
    """Kernels by name and dtype, as capsules that sklloss.kernels._driver can call."""
    return {
        ("log_loss", "float32"): capsule(log_loss_f32),
        ("log_loss", "float64"): capsule(log_loss_f64),
        ("cross_entropy", "float32"): capsule(cross_entropy_f32),
        ("cross_entropy", "float64"): capsule(cross_entropy_f64),
        ("squared_error", "float32"): capsule(squared_error_f32),
        ("squared_error", "float64"): capsule(squared_error_f64),
        ("root_mean_squared_error", "float32"): capsule(root_mean_squared_error_f32),
        ("root_mean_squared_error", "float64"): capsule(root_mean_squared_error_f64),
    }
