# The products of this build, for common.pyx. Included by every build.

from cpython.pycapsule cimport PyCapsule_New

from sklloss.kernels.common cimport (
    Products,
    gram_kernel,
    scatter_kernel,
    scores_kernel,
    sparse_scatter_kernel,
    sparse_scores_kernel,
)

cdef extern from "skinny_gemm.h" nogil:
    enum:
        SKLLOSS_VECTOR
    scores_kernel scores_f32 "sklloss_scores_f32"
    scores_kernel scores_f64 "sklloss_scores_f64"
    scatter_kernel scatter_f32 "sklloss_scatter_f32"
    scatter_kernel scatter_f64 "sklloss_scatter_f64"
    gram_kernel gram_f64 "sklloss_gram_f64"
    sparse_scores_kernel sparse_scores_f32 "sklloss_sparse_scores_f32"
    sparse_scores_kernel sparse_scores_f64 "sklloss_sparse_scores_f64"
    sparse_scatter_kernel sparse_scatter_f32 "sklloss_sparse_scatter_f32"
    sparse_scatter_kernel sparse_scatter_f64 "sklloss_sparse_scatter_f64"

cdef Products _products
_products.lanes_f32 = SKLLOSS_VECTOR // 4
_products.lanes_f64 = SKLLOSS_VECTOR // 8
_products.scores_f32 = scores_f32
_products.scores_f64 = scores_f64
_products.scatter_f32 = scatter_f32
_products.scatter_f64 = scatter_f64
_products.gram_f64 = gram_f64
_products.sparse_scores_f32 = sparse_scores_f32
_products.sparse_scores_f64 = sparse_scores_f64
_products.sparse_scatter_f32 = sparse_scatter_f32
_products.sparse_scatter_f64 = sparse_scatter_f64


def products():
    """The products of this build, as a capsule."""
    return PyCapsule_New(<void*>&_products, "sklloss.products", NULL)
