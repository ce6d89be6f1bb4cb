# Products of a block of rows with few outputs, from the build of the kernels in use. See skinny_gemm.h.

cdef struct Products:
    # Numbers per vector; 0 where this build has no products of its own, and BLAS serves. No product takes
    # rows of fewer numbers than a vector holds.
    Py_ssize_t lanes_f32
    Py_ssize_t lanes_f64
    # raw (rows, outputs) = x w' + bias: x (rows, p) by its step, w (outputs, p), bias (outputs,)
    void (*scores_f32)(
        const float* x, Py_ssize_t step, const float* w, Py_ssize_t p, const float* bias, float* raw,
        Py_ssize_t rows, Py_ssize_t outputs,
    ) noexcept nogil
    void (*scores_f64)(
        const double* x, Py_ssize_t step, const double* w, Py_ssize_t p, const double* bias, double* raw,
        Py_ssize_t rows, Py_ssize_t outputs,
    ) noexcept nogil
    # total (outputs, p) += raw' x, added up over the rows in x's dtype
    void (*scatter_f32)(
        const float* x, Py_ssize_t step, const float* raw, double* total, Py_ssize_t rows, Py_ssize_t p,
        Py_ssize_t outputs,
    ) noexcept nogil
    void (*scatter_f64)(
        const double* x, Py_ssize_t step, const double* raw, double* total, Py_ssize_t rows, Py_ssize_t p,
        Py_ssize_t outputs,
    ) noexcept nogil
    # h (step, step) += u' z, its lower triangle at least: u and z (rows, step), step a multiple of 8
    void (*gram_f64)(
        const double* u, const double* z, Py_ssize_t step, Py_ssize_t rows, double* h
    ) noexcept nogil
    # raw (rows, outputs) = X w + bias and total (features, step) += X' raw for CSR rows and up to 32 outputs;
    # the rows of w and total are padded to lines of 64 bytes. Indices have 32 bits, or 64 if long_index.
    void (*sparse_scores_f32)(
        const float* value, const void* column, const void* indptr, int long_index, const float* w,
        const float* bias, float* raw, Py_ssize_t rows, Py_ssize_t outputs,
    ) noexcept nogil
    void (*sparse_scatter_f32)(
        const float* value, const void* column, const void* indptr, int long_index, const float* raw,
        double* total, Py_ssize_t rows, Py_ssize_t outputs,
    ) noexcept nogil
    void (*sparse_scores_f64)(
        const double* value, const void* column, const void* indptr, int long_index, const double* w,
        const double* bias, double* raw, Py_ssize_t rows, Py_ssize_t outputs,
    ) noexcept nogil
    void (*sparse_scatter_f64)(
        const double* value, const void* column, const void* indptr, int long_index, const double* raw,
        double* total, Py_ssize_t rows, Py_ssize_t outputs,
    ) noexcept nogil


cdef Products current

cdef bint for_sparse(Py_ssize_t outputs) noexcept nogil
