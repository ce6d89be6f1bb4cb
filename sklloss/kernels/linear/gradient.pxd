# What the passes over the rows of X use: chunks of rows, their sums, and products of a block of rows.

from cython cimport floating as real
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport malloc
from libc.string cimport memset

from sklloss.kernels.common cimport column_sums, current, gemm, gemv, prefetch_l2
from sklloss.kernels.data cimport Dataset

ctypedef fused index:
    int32_t
    int64_t


cdef class Chunks:
    cdef const Py_ssize_t[::1] bounds
    cdef Py_ssize_t block
    cdef readonly Py_ssize_t count
    cdef Py_ssize_t n_threads


cdef class PassBuffers:
    cdef readonly Py_ssize_t chunks, outputs
    cdef Py_ssize_t numbers
    cdef bint padded
    cdef char* memory      # of all the others
    cdef void* coef        # in X's dtype: (outputs, features), or for a sparse X (features, outputs), padded
    cdef void* intercept   # (outputs,), in X's dtype
    cdef double* gradient  # (chunks, numbers), laid out as coef
    cdef double* shift     # (chunks, outputs): the gradient by the intercepts
    cdef double* loss      # (chunks, 2 * outputs): weighted losses, and what rounding left over
    cdef void set_coef(self, Dataset data, const double[:, :] coef) noexcept nogil
    cdef void add_up(self, Dataset data, double[:, ::1] total) noexcept nogil


cdef inline void sparse_scores(
    const real* value, const index* column, const index* indptr, const real* w, const real* intercept,
    real* raw, Py_ssize_t rows, Py_ssize_t outputs, bint padded,
) noexcept nogil:
    """raw = X w + intercept for CSR rows; w is (features, outputs), ``padded`` for a build's own product."""
    cdef Py_ssize_t i, j, k
    cdef real x, total
    cdef real* row
    if padded:
        if real is double:
            current.sparse_scores_f64(
                value, column, indptr, index is int64_t, w, intercept, raw, rows, outputs
            )
        else:
            current.sparse_scores_f32(
                value, column, indptr, index is int64_t, w, intercept, raw, rows, outputs
            )
        return
    if outputs == 1:
        for i in range(rows):
            total = intercept[0]
            for j in range(<Py_ssize_t>indptr[i], <Py_ssize_t>indptr[i + 1]):
                total = total + value[j] * w[column[j]]
            raw[i] = total
        return
    for i in range(rows):
        row = raw + i * outputs
        for k in range(outputs):
            row[k] = intercept[k]
        for j in range(<Py_ssize_t>indptr[i], <Py_ssize_t>indptr[i + 1]):
            x = value[j]
            for k in range(outputs):
                row[k] += x * w[<Py_ssize_t>column[j] * outputs + k]


cdef inline void sparse_scatter(
    const real* value, const index* column, const index* indptr, const real* raw, double* gradient,
    Py_ssize_t rows, Py_ssize_t outputs, bint padded,
) noexcept nogil:
    """gradient += X' raw for CSR rows; gradient is (features, outputs), or padded as w is."""
    cdef Py_ssize_t i, j, k
    cdef double r
    cdef const real* row
    if padded:
        if real is double:
            current.sparse_scatter_f64(value, column, indptr, index is int64_t, raw, gradient, rows, outputs)
        else:
            current.sparse_scatter_f32(value, column, indptr, index is int64_t, raw, gradient, rows, outputs)
        return
    for i in range(rows):
        row = raw + i * outputs
        if outputs == 1:
            r = <double>row[0]
            for j in range(<Py_ssize_t>indptr[i], <Py_ssize_t>indptr[i + 1]):
                gradient[column[j]] += r * <double>value[j]
        else:
            for j in range(<Py_ssize_t>indptr[i], <Py_ssize_t>indptr[i + 1]):
                r = <double>value[j]
                for k in range(outputs):
                    gradient[<Py_ssize_t>column[j] * outputs + k] += r * <double>row[k]


cdef enum:
    # Bytes of coefficients above which BLAS has the faster products.
    LARGE_COEF = 640 * 1024
    # Rows of the next block are asked for, so many at a time, if they have so many bytes, and X more than a
    # cache holds.
    ROWS_AHEAD = 4
    LEAST_AHEAD = 384
    MOST_AHEAD = 1024
    CACHE_BYTES = 1 << 25


cdef struct DenseBuffers:
    # What the products of a dense X need beside its rows.
    void* memory  # of all the others; the caller frees it
    void* packed  # the coefficients as the build's own products read them; NULL where BLAS serves
    void* rows    # a block of rows, if those of X are not contiguous
    void* part    # the gradient of a block in float32, where BLAS serves


cdef inline bint own_products(Dataset data) noexcept nogil:
    """Whether a dense X is multiplied by the build's own products, else by BLAS."""
    cdef Py_ssize_t size = sizeof(float) if data.single else sizeof(double)
    if data.sparse or current.lanes_f64 == 0 or data.outputs * data.features * size > LARGE_COEF:
        return False
    # BLAS has a product of a vector with contiguous columns
    return data.by_rows or data.outputs > 1


cdef inline bint allocate_dense(DenseBuffers* buffers, Dataset data, Py_ssize_t block) noexcept nogil:
    """Allocate what the products of a dense X need; False if there is no memory."""
    cdef Py_ssize_t size = sizeof(float) if data.single else sizeof(double)
    cdef Py_ssize_t coef = data.outputs * data.features * size, packed = 0, rows = 0
    memset(buffers, 0, sizeof(DenseBuffers))
    if data.sparse:
        return True
    if own_products(data):
        packed = (data.outputs * size + 63) // 64 * 64 * (data.features + 1)
        rows = 0 if data.by_rows else block * data.features * size
    buffers.memory = malloc(packed + rows if packed else coef)
    if buffers.memory == NULL:
        return False
    if packed:
        buffers.packed = buffers.memory
        buffers.rows = <char*>buffers.memory + packed
    else:
        buffers.part = buffers.memory
    return True


cdef inline bint has_products(const real* x, bint by_rows, Py_ssize_t features) noexcept nogil:
    """Whether the build in use has products of its own for such rows, if coefficients are not packed."""
    cdef Py_ssize_t lanes = current.lanes_f64 if real is double else current.lanes_f32
    return by_rows and lanes > 0 and features >= lanes


cdef inline void dense_scores(
    real* x, bint by_rows, int step, real* w, const real* intercept, real* raw,
    int rows, int features, int outputs,
) noexcept nogil:
    """raw = X w' + intercept for a block of rows; w is (outputs, features)."""
    if not has_products(x, by_rows, features):
        blas_scores(x, by_rows, step, w, intercept, raw, rows, features, outputs)
    elif real is double:
        current.scores_f64(x, step, w, NULL, features, intercept, raw, rows, outputs)
    else:
        current.scores_f32(x, step, w, NULL, features, intercept, raw, rows, outputs)


cdef inline void dense_scatter(
    real* x, bint by_rows, int step, real* raw, real* part, double* gradient,
    int rows, int features, int outputs,
) noexcept nogil:
    """gradient += raw' X for a block of rows, in double: a float block is added up by itself first."""
    if not has_products(x, by_rows, features):
        blas_scatter(x, by_rows, step, raw, part, gradient, rows, features, outputs)
    elif real is double:
        current.scatter_f64(x, step, raw, gradient, rows, features, outputs)
    else:
        current.scatter_f32(x, step, raw, gradient, rows, features, outputs)


cdef inline void blas_scores(
    real* x, bint by_rows, int step, real* w, const real* intercept, real* raw,
    int rows, int features, int outputs,
) noexcept nogil:
    cdef int i, k
    for i in range(rows):
        for k in range(outputs):
            raw[i * outputs + k] = intercept[k]
    if outputs > 1:
        gemm(
            b"T", b"N" if by_rows else b"T", outputs, rows, features, w, features, x, step, <real>1.0,
            raw, outputs,
        )
    elif by_rows:
        gemv(b"T", features, rows, x, step, w, <real>1.0, raw)
    else:
        gemv(b"N", rows, features, x, step, w, <real>1.0, raw)


cdef inline void blas_scatter(
    real* x, bint by_rows, int step, real* raw, real* part, double* gradient,
    int rows, int features, int outputs,
) noexcept nogil:
    cdef real* target = part
    cdef real keep = 0.0
    cdef Py_ssize_t i
    if real is double:
        target = gradient
        keep = 1.0
    if outputs > 1:
        gemm(
            b"N" if by_rows else b"T", b"T", features, outputs, rows, x, step, raw, outputs, keep,
            target, features,
        )
    elif by_rows:
        gemv(b"N", features, rows, x, step, raw, keep, target)
    else:
        gemv(b"T", rows, features, x, step, raw, keep, target)
    if real is float:
        for i in range(<Py_ssize_t>outputs * features):
            gradient[i] += <double>part[i]


cdef inline int line_step(Dataset data) noexcept nogil:
    """From one row of a dense X to the next, or from one column to the next, in numbers."""
    return <int>max(data.row_step if data.by_rows else data.column_step, 1)


cdef inline void pack_coef(
    Dataset data, DenseBuffers* buffers, const real* coef, const real* intercept
) noexcept nogil:
    """Set the coefficients of the `block_scores` that follow."""
    if buffers.packed == NULL:
        return
    if real is double:
        current.pack_outputs_f64(coef, intercept, data.features, data.outputs, buffers.packed)
    else:
        current.pack_outputs_f32(coef, intercept, data.features, data.outputs, buffers.packed)


cdef inline void block_scores(
    Dataset data, DenseBuffers* buffers, const real* coef, const real* intercept, real* raw, Py_ssize_t first,
    Py_ssize_t rows, Py_ssize_t outputs, bint padded,
) noexcept nogil:
    """raw = X coef' + intercept for the rows [first, first + rows); a sparse X takes coef transposed."""
    cdef const real* x = <const real*>data.x
    cdef Py_ssize_t step = line_step(data)
    if not data.sparse:
        x += first * data.row_step if data.by_rows else first
        if buffers.packed == NULL:
            blas_scores(
                <real*>x, data.by_rows, <int>step, <real*>coef, intercept, raw, <int>rows, <int>data.features,
                <int>outputs,
            )
            return
        if not data.by_rows:
            if real is double:
                current.transposed_f64(x, step, rows, data.features, buffers.rows)
            else:
                current.transposed_f32(x, step, rows, data.features, buffers.rows)
            x = <const real*>buffers.rows
            step = data.features
        if real is double:
            current.scores_f64(x, step, coef, buffers.packed, data.features, intercept, raw, rows, outputs)
        else:
            current.scores_f32(x, step, coef, buffers.packed, data.features, intercept, raw, rows, outputs)
    elif data.long_index:
        sparse_scores(
            x, <const int64_t*>data.columns, <const int64_t*>data.row_starts + first, coef, intercept, raw,
            rows, outputs, padded,
        )
    else:
        sparse_scores(
            x, <const int32_t*>data.columns, <const int32_t*>data.row_starts + first, coef, intercept, raw,
            rows, outputs, padded,
        )


cdef inline bint asks_ahead(Dataset data, Py_ssize_t outputs, Py_ssize_t row_bytes) noexcept nogil:
    """Whether rows of the next block are asked for, as the hardware does not do so for rows of such lengths.

    The products themselves ask for longer rows, and for all rows where there are several outputs.
    """
    return (
        outputs == 1 and data.by_rows and data.row_step == data.features
        and LEAST_AHEAD <= row_bytes < MOST_AHEAD and data.rows * row_bytes > CACHE_BYTES
    )


cdef inline void scatter_ahead(
    Dataset data, const real* x, Py_ssize_t step, const real* raw, double* gradient, Py_ssize_t first,
    Py_ssize_t rows,
) noexcept nogil:
    """`block_scatter` of one output, which asks for the rows of the next block as it goes along."""
    cdef Py_ssize_t i = 0, count
    while i < rows:
        count = min(<Py_ssize_t>ROWS_AHEAD, rows - i)
        if first + rows + i + count <= data.rows:
            prefetch_l2(x + (rows + i) * step, count * step * sizeof(real))
        if real is double:
            current.scatter_f64(x + i * step, step, raw + i, gradient, count, data.features, 1)
        else:
            current.scatter_f32(x + i * step, step, raw + i, gradient, count, data.features, 1)
        i += count


cdef inline void block_scatter(
    Dataset data, DenseBuffers* buffers, real* raw, double* gradient, Py_ssize_t first, Py_ssize_t rows,
    Py_ssize_t outputs, bint padded,
) noexcept nogil:
    """gradient += raw' X for the rows of the `block_scores` before."""
    cdef const real* x = <const real*>data.x
    cdef Py_ssize_t step = line_step(data)
    if not data.sparse:
        x += first * data.row_step if data.by_rows else first
        if buffers.packed == NULL:
            blas_scatter(
                <real*>x, data.by_rows, <int>step, raw, <real*>buffers.part, gradient, <int>rows,
                <int>data.features, <int>outputs,
            )
            return
        if not data.by_rows:
            x = <const real*>buffers.rows
            step = data.features
        if asks_ahead(data, outputs, step * sizeof(real)):
            scatter_ahead(data, x, step, raw, gradient, first, rows)
        elif real is double:
            current.scatter_f64(x, step, raw, gradient, rows, data.features, outputs)
        else:
            current.scatter_f32(x, step, raw, gradient, rows, data.features, outputs)
    elif data.long_index:
        sparse_scatter(
            x, <const int64_t*>data.columns, <const int64_t*>data.row_starts + first, raw, gradient, rows,
            outputs, padded,
        )
    else:
        sparse_scatter(
            x, <const int32_t*>data.columns, <const int32_t*>data.row_starts + first, raw, gradient, rows,
            outputs, padded,
        )


cdef inline void add_column_sums(
    const real* raw, double* total, Py_ssize_t rows, Py_ssize_t outputs
) noexcept nogil:
    """Add the sums of the columns of raw (rows, outputs) to ``total``."""
    if outputs == 1 or current.lanes_f64 == 0:
        column_sums(raw, total, rows, outputs)
    elif real is double:
        current.column_sums_f64(raw, total, rows, outputs)
    else:
        current.column_sums_f32(raw, total, rows, outputs)
