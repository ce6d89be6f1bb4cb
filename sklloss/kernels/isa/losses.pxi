# The loss kernels: loops over a batch around the formulas of formulas.pxd.
#
# This file is not a module. Each the builds includes it and is compiled for one instruction set, and
# the package picks one of them at import. A kernel overwrites raw scores with weight * d loss / d raw
# and adds up the weighted loss in double, in an order that depends on the shape alone.

from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport sqrt
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy

from sklloss.kernels.data cimport Batch, batch_kernel
from sklloss.kernels.isa.formulas cimport (
    compensated_add,
    double_bits,
    exp_nonpositive,
    float_bits,
    log_loss,
    log_sum,
    real,
    reciprocal,
    two_product,
    two_sum,
)
from sklloss.kernels.isa.formulas_focal cimport exp_parts, focal, focal_power, log1p_parts, power_parts, times
from sklloss.kernels.isa.formulas_values cimport absolute_error, gamma, huber, log_cosh, poisson, quantile

cdef enum:
    TILE = 512         # elements per pass of a separable loss: value and curvature stay in L1
    SMALL = 128        # elements per pass of the focal loss, which keeps many numbers of each
    ROWS = 32          # rows side by side in the softmax of few classes
    FEW = 32           # up to here, softmax runs over rows side by side; beyond, along the row
    LANES = 16         # partial sums along a row
    SUMS = 32          # running sums of a tile

include "sums.pxi"
include "lanes.pxi"
include "softmax.pxi"
include "focal.pxi"
include "separable.pxi"


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
    return separable_rows(SQUARED_ERROR, <float*>batch.raw, batch)

cdef Py_ssize_t squared_error_f64(Batch* batch) noexcept nogil:
    return separable_rows(SQUARED_ERROR, <double*>batch.raw, batch)

cdef Py_ssize_t absolute_error_f32(Batch* batch) noexcept nogil:
    return separable_rows(ABSOLUTE_ERROR, <float*>batch.raw, batch)

cdef Py_ssize_t absolute_error_f64(Batch* batch) noexcept nogil:
    return separable_rows(ABSOLUTE_ERROR, <double*>batch.raw, batch)

cdef Py_ssize_t quantile_f32(Batch* batch) noexcept nogil:
    return separable_rows(QUANTILE, <float*>batch.raw, batch)

cdef Py_ssize_t quantile_f64(Batch* batch) noexcept nogil:
    return separable_rows(QUANTILE, <double*>batch.raw, batch)

cdef Py_ssize_t huber_f32(Batch* batch) noexcept nogil:
    return separable_rows(HUBER, <float*>batch.raw, batch)

cdef Py_ssize_t huber_f64(Batch* batch) noexcept nogil:
    return separable_rows(HUBER, <double*>batch.raw, batch)

cdef Py_ssize_t log_cosh_f32(Batch* batch) noexcept nogil:
    return separable_rows(LOG_COSH, <float*>batch.raw, batch)

cdef Py_ssize_t log_cosh_f64(Batch* batch) noexcept nogil:
    return separable_rows(LOG_COSH, <double*>batch.raw, batch)

cdef Py_ssize_t poisson_f32(Batch* batch) noexcept nogil:
    return separable_rows(POISSON, <float*>batch.raw, batch)

cdef Py_ssize_t poisson_f64(Batch* batch) noexcept nogil:
    return separable_rows(POISSON, <double*>batch.raw, batch)

cdef Py_ssize_t gamma_f32(Batch* batch) noexcept nogil:
    return separable_rows(GAMMA, <float*>batch.raw, batch)

cdef Py_ssize_t gamma_f64(Batch* batch) noexcept nogil:
    return separable_rows(GAMMA, <double*>batch.raw, batch)

cdef Py_ssize_t focal_f32(Batch* batch) noexcept nogil:
    return separable_rows(FOCAL, <float*>batch.raw, batch)

cdef Py_ssize_t focal_f64(Batch* batch) noexcept nogil:
    return separable_rows(FOCAL, <double*>batch.raw, batch)

cdef Py_ssize_t softmax_focal_f32(Batch* batch) noexcept nogil:
    return softmax_focal_rows(<float*>batch.raw, batch)

cdef Py_ssize_t softmax_focal_f64(Batch* batch) noexcept nogil:
    return softmax_focal_rows(<double*>batch.raw, batch)

cdef Py_ssize_t root_mean_squared_error_f32(Batch* batch) noexcept nogil:
    return root_mean_squared_error_rows(<float*>batch.raw, batch)

cdef Py_ssize_t root_mean_squared_error_f64(Batch* batch) noexcept nogil:
    return root_mean_squared_error_rows(<double*>batch.raw, batch)


cdef object capsule(batch_kernel kernel):
    return PyCapsule_New(<void*>kernel, "sklloss.batch_kernel", NULL)


def table():
    """Kernels by name and dtype, as capsules that sklloss.kernels.driver can call."""
    return {
        ("log_loss", "float32"): capsule(log_loss_f32),
        ("log_loss", "float64"): capsule(log_loss_f64),
        ("cross_entropy", "float32"): capsule(cross_entropy_f32),
        ("cross_entropy", "float64"): capsule(cross_entropy_f64),
        ("squared_error", "float32"): capsule(squared_error_f32),
        ("squared_error", "float64"): capsule(squared_error_f64),
        ("absolute_error", "float32"): capsule(absolute_error_f32),
        ("absolute_error", "float64"): capsule(absolute_error_f64),
        ("quantile", "float32"): capsule(quantile_f32),
        ("quantile", "float64"): capsule(quantile_f64),
        ("huber", "float32"): capsule(huber_f32),
        ("huber", "float64"): capsule(huber_f64),
        ("log_cosh", "float32"): capsule(log_cosh_f32),
        ("log_cosh", "float64"): capsule(log_cosh_f64),
        ("poisson", "float32"): capsule(poisson_f32),
        ("poisson", "float64"): capsule(poisson_f64),
        ("gamma", "float32"): capsule(gamma_f32),
        ("gamma", "float64"): capsule(gamma_f64),
        ("focal", "float32"): capsule(focal_f32),
        ("focal", "float64"): capsule(focal_f64),
        ("softmax_focal", "float32"): capsule(softmax_focal_f32),
        ("softmax_focal", "float64"): capsule(softmax_focal_f64),
        ("root_mean_squared_error", "float32"): capsule(root_mean_squared_error_f32),
        ("root_mean_squared_error", "float64"): capsule(root_mean_squared_error_f64),
    }
