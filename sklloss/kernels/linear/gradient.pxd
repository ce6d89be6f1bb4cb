# What the passes over the rows of X share: working memory, a block of rows as a batch, sparse products.

from cython cimport floating as real
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport malloc
from libc.string cimport memset

from sklloss.kernels.data cimport Batch
from sklloss.kernels.common cimport gemm, gemv
from sklloss.kernels.products cimport current

ctypedef fused index:
    int32_t
    int64_t


cdef struct Space:
    # working memory of one call, for blocks of up to ``rows`` rows
    char* memory
    void* raw
    void* target
    void* curvature
    void* scratch
    void* weight
    double* sums


cdef inline bint take_space(
    Space* space, Py_ssize_t rows, Py_ssize_t outputs, Py_ssize_t size
) noexcept nogil:
    """Allocate for numbers of ``size`` bytes; False if there is no memory."""
    cdef Py_ssize_t block = (rows * outputs * size + 63) // 64 * 64
    cdef Py_ssize_t scratch = ((2 * outputs + 64) * size + 63) // 64 * 64
    space.memory = <char*>malloc(4 * block + scratch + 2 * outputs * sizeof(double) + 64)
    if space.memory == NULL:
        return False
    space.raw = space.memory
    space.target = space.memory + block
    space.curvature = space.memory + 2 * block
    space.weight = space.memory + 3 * block
    space.scratch = space.memory + 4 * block
    space.sums = <double*>(space.memory + 4 * block + scratch)
    return True


cdef inline Py_ssize_t one_hot(
    const Py_ssize_t* codes, real* target, Py_ssize_t rows, Py_ssize_t outputs
) noexcept nogil:
    """Write codes as rows of zeros with a one. Returns -1, or the first row whose code is out of range."""
    cdef Py_ssize_t i
    memset(target, 0, rows * outputs * sizeof(real))
    for i in range(rows):
        if <size_t>codes[i] >= <size_t>outputs:
            return i
        target[i * outputs + codes[i]] = 1.0
    return -1


cdef inline void gather_sums(const double* block, double* chunk, Py_ssize_t outputs) noexcept nogil:
    """Add a block's sums to its chunk's, the rounding carried in the second half (Kahan)."""
    cdef double y, t
    cdef Py_ssize_t k
    for k in range(outputs):
        y = block[k] - chunk[outputs + k]
        t = chunk[k] + y
        chunk[outputs + k] = (t - chunk[k]) - y if t - t == 0.0 else 0.0
        chunk[k] = t


cdef inline void column_sums(
    const real* x, double* total, Py_ssize_t rows, Py_ssize_t columns
) noexcept nogil:
    cdef Py_ssize_t i, k
    cdef double part[8]
    if columns == 1:
        # several sums side by side: one would wait for itself
        for k in range(8):
            part[k] = 0.0
        for i in range(0, rows - 7, 8):
            for k in range(8):
                part[k] += <double>x[i + k]
        for i in range(rows // 8 * 8, rows):
            part[0] += <double>x[i]
        for k in range(8):
            total[0] += part[k]
        return
    for i in range(rows):
        for k in range(columns):
            total[k] += <double>x[i * columns + k]


cdef inline Py_ssize_t aim(
    Batch* batch, Space* space, const real* target, const Py_ssize_t* codes, const real* weight,
    bint weight_per_output, bint expand, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t outputs,
) noexcept nogil:
    """Point a batch at the rows [first, first + rows). Returns -1, or the first row with a bad code."""
    cdef Py_ssize_t bad = -1
    batch.raw = space.raw
    batch.target = NULL
    batch.codes = NULL
    if codes == NULL and target == NULL:
        pass
    elif target != NULL:
        batch.target = target + first * outputs
    elif expand:
        bad = one_hot(codes + first, <real*>space.target, rows, outputs)
        batch.target = space.target
    else:
        batch.codes = codes + first
    batch.weight = NULL
    if weight != NULL:
        batch.weight = weight + (first * outputs if weight_per_output else first)
    batch.weight_per_output = weight_per_output
    batch.rows = rows
    batch.outputs = outputs
    batch.sums = space.sums
    batch.scratch = space.scratch
    batch.per_sample = NULL
    batch.curvature = NULL
    return bad


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


cdef inline bint has_products(const real* x, bint by_rows, Py_ssize_t features) noexcept nogil:
    """Whether the build in use has products of its own for such rows."""
    cdef Py_ssize_t lanes = current.lanes_f64 if real is double else current.lanes_f32
    return by_rows and lanes > 0 and features >= lanes


cdef inline void dense_scores(
    real* x, bint by_rows, int step, real* w, const real* intercept, real* raw,
    int rows, int features, int outputs,
) noexcept nogil:
    """raw = X w' + intercept for a block of rows; w is (outputs, features)."""
    cdef int i, k
    if has_products(x, by_rows, features):
        if real is double:
            current.scores_f64(x, step, w, features, intercept, raw, rows, outputs)
        else:
            current.scores_f32(x, step, w, features, intercept, raw, rows, outputs)
        return
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


cdef inline void dense_scatter(
    real* x, bint by_rows, int step, real* raw, real* part, double* gradient,
    int rows, int features, int outputs,
) noexcept nogil:
    """gradient += raw' X for a block of rows, in double: a float block is added up by itself first."""
    cdef real* target = part
    cdef real keep = 0.0
    cdef Py_ssize_t i
    if has_products(x, by_rows, features):
        if real is double:
            current.scatter_f64(x, step, raw, gradient, rows, features, outputs)
        else:
            current.scatter_f32(x, step, raw, gradient, rows, features, outputs)
        return
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
