# Products of a block of rows with few outputs, from the build of the kernels in use. See skinny_gemm.h.

# Pointers without a type are to float or to double, as the name of the member of Products says.

# raw (rows, outputs) = x w' + bias: x (rows, p) by its step, w (outputs, p), bias (outputs,)
ctypedef void (*scores_kernel)(
    const void* x, Py_ssize_t step, const void* w, Py_ssize_t p, const void* bias, void* raw, Py_ssize_t rows,
    Py_ssize_t outputs,
) noexcept nogil
# total (outputs, p) += raw' x, added up over the rows in x's dtype
ctypedef void (*scatter_kernel)(
    const void* x, Py_ssize_t step, const void* raw, double* total, Py_ssize_t rows, Py_ssize_t p,
    Py_ssize_t outputs,
) noexcept nogil
# h (step, step) += u' z, its lower triangle at least: u and z (rows, step), step a multiple of 8
ctypedef void (*gram_kernel)(
    const void* u, const void* z, Py_ssize_t step, Py_ssize_t rows, void* h
) noexcept nogil
# raw (rows, outputs) = X w + bias and total (features, step) += X' raw for CSR rows and up to 32 outputs; the
# rows of w and total are padded to lines of 64 bytes. Indices have 32 bits, or 64 if long_index.
ctypedef void (*sparse_scores_kernel)(
    const void* value, const void* column, const void* indptr, int long_index, const void* w,
    const void* bias, void* raw, Py_ssize_t rows, Py_ssize_t outputs,
) noexcept nogil
ctypedef void (*sparse_scatter_kernel)(
    const void* value, const void* column, const void* indptr, int long_index, const void* raw,
    double* total, Py_ssize_t rows, Py_ssize_t outputs,
) noexcept nogil

cdef struct Products:
    # Numbers per vector; 0 where this build has no products of its own, and BLAS serves. No product takes
    # rows of fewer numbers than a vector holds.
    Py_ssize_t lanes_f32, lanes_f64
    scores_kernel scores_f32, scores_f64
    scatter_kernel scatter_f32, scatter_f64
    gram_kernel gram_f64
    sparse_scores_kernel sparse_scores_f32, sparse_scores_f64
    sparse_scatter_kernel sparse_scatter_f32, sparse_scatter_f64


cdef Products current

cdef bint for_sparse(Py_ssize_t outputs) noexcept nogil
