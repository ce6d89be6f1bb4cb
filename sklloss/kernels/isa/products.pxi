# The products of this build, for products.pyx. Included by each the builds.

from cpython.pycapsule cimport PyCapsule_New

from sklloss.kernels.products cimport Products


cdef extern from "skinny_gemm.h" nogil:
    enum:
        SKLLOSS_VECTOR
    void sklloss_scores_f32(
        const float* x, Py_ssize_t step, const float* w, Py_ssize_t p, const float* bias, float* raw,
        Py_ssize_t rows, Py_ssize_t outputs,
    ) noexcept
    void sklloss_scores_f64(
        const double* x, Py_ssize_t step, const double* w, Py_ssize_t p, const double* bias, double* raw,
        Py_ssize_t rows, Py_ssize_t outputs,
    ) noexcept
    void sklloss_scatter_f32(
        const float* x, Py_ssize_t step, const float* raw, double* total, Py_ssize_t rows, Py_ssize_t p,
        Py_ssize_t outputs,
    ) noexcept
    void sklloss_scatter_f64(
        const double* x, Py_ssize_t step, const double* raw, double* total, Py_ssize_t rows, Py_ssize_t p,
        Py_ssize_t outputs,
    ) noexcept
    void sklloss_gram_f64(
        const double* u, const double* z, Py_ssize_t step, Py_ssize_t rows, double* h
    ) noexcept
    void sklloss_sparse_scores_f32(
        const float* value, const void* column, const void* indptr, int long_index, const float* w,
        const float* bias, float* raw, Py_ssize_t rows, Py_ssize_t outputs,
    ) noexcept
    void sklloss_sparse_scatter_f32(
        const float* value, const void* column, const void* indptr, int long_index, const float* raw,
        double* total, Py_ssize_t rows, Py_ssize_t outputs,
    ) noexcept
    void sklloss_sparse_scores_f64(
        const double* value, const void* column, const void* indptr, int long_index, const double* w,
        const double* bias, double* raw, Py_ssize_t rows, Py_ssize_t outputs,
    ) noexcept
    void sklloss_sparse_scatter_f64(
        const double* value, const void* column, const void* indptr, int long_index, const double* raw,
        double* total, Py_ssize_t rows, Py_ssize_t outputs,
    ) noexcept


cdef Products _products

_products.lanes_f32 = SKLLOSS_VECTOR // 4
_products.lanes_f64 = SKLLOSS_VECTOR // 8
_products.scores_f32 = sklloss_scores_f32
_products.scores_f64 = sklloss_scores_f64
_products.scatter_f32 = sklloss_scatter_f32
_products.scatter_f64 = sklloss_scatter_f64
_products.gram_f64 = sklloss_gram_f64
_products.sparse_scores_f32 = sklloss_sparse_scores_f32
_products.sparse_scatter_f32 = sklloss_sparse_scatter_f32
_products.sparse_scores_f64 = sklloss_sparse_scores_f64
_products.sparse_scatter_f64 = sklloss_sparse_scatter_f64


def products():
    """The products of this build, as a capsule."""
    return PyCapsule_New(<void*>&_products, "sklloss.products", NULL)
