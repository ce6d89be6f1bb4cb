# What several kernels use: the matrix products of the build in use; BLAS through SciPy, with the arguments by
# value; sums; Adam; prefetching; signals.

from cpython.exc cimport PyErr_CheckSignals
from cython cimport floating as real
from libc.math cimport HUGE_VAL, fabs, isfinite, sqrt
from libc.string cimport memset
from scipy.linalg.cython_blas cimport dgemm, dgemv, dsyrk, sgemm, sgemv

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define SKLLOSS_PREFETCH(address) __builtin_prefetch(address)
    #define SKLLOSS_PREFETCH_L2(address) __builtin_prefetch(address, 0, 2)
    #else
    #define SKLLOSS_PREFETCH(address) ((void)(address))
    #define SKLLOSS_PREFETCH_L2(address) ((void)(address))
    #endif
    """
    void SKLLOSS_PREFETCH(const void* address) noexcept nogil
    void SKLLOSS_PREFETCH_L2(const void* address) noexcept nogil


cdef inline double coordinate_minimum(
    double z, double g, double h, double l1, double low, double high
) noexcept nogil:
    """Where g (t - z) + h (t - z)**2 / 2 + l1 |t| is least for t between low and high.

    Without curvature the quadratic does not know the coordinate: it stays, or goes to 0 if l1 outweighs g.
    """
    cdef double u, t
    if h > 0.0:
        u = z * h - g
        t = fabs(u) - l1
        if t <= 0.0:
            t = 0.0
        elif u < 0.0:
            t = -t
        t = t / h
    else:
        t = 0.0 if l1 > 0.0 and fabs(g) <= l1 else z
    return min(max(t, low), high)


cdef inline double shift_minimum(
    const double* z, const Py_ssize_t* at, Py_ssize_t count, double g, double h, double l1, const double* low,
    const double* high,
) noexcept nogil:
    """Where g s + h s**2 / 2 + l1 sum_k |z_k + s| is least, for the coordinates z_k that ``at`` names.

    All z_k + s are between their bounds. Where there is no minimum, s is 0.
    """
    cdef Py_ssize_t k
    cdef double slope = g, zeros = 0.0, side = 1.0, s = 0.0, limit = HUGE_VAL, next_zero, t, least
    for k in range(count):
        t = z[at[k]]
        slope += l1 if t > 0.0 else -l1 if t < 0.0 else 0.0
        zeros += l1 if t == 0.0 else 0.0
    if not fabs(slope) > zeros:
        return 0.0
    if slope > 0.0:
        side = -1.0
        slope = -slope
    for k in range(count):
        t = high[at[k]] - z[at[k]] if side > 0.0 else z[at[k]] - low[at[k]]
        limit = min(limit, t)
    slope += zeros
    # from one coordinate's zero to the next, while the slope, now that behind them, is negative
    while True:
        next_zero = HUGE_VAL
        zeros = 0.0
        for k in range(count):
            t = -side * z[at[k]]
            if t > s and t < next_zero:
                next_zero = t
        least = s - slope / h if h > 0.0 else HUGE_VAL
        if least <= next_zero:
            s = least
            break
        for k in range(count):
            zeros += 2.0 * l1 if -side * z[at[k]] == next_zero else 0.0
        slope += h * (next_zero - s)
        s = next_zero
        if slope + zeros >= 0.0:
            break
        slope += zeros
    s = max(0.0, min(s, limit))
    return side * s if isfinite(s) else 0.0


cdef inline void prefetch(const void* start, Py_ssize_t size) noexcept nogil:
    """Ask for ``size`` bytes of memory before they are needed."""
    cdef Py_ssize_t at = 0
    while at < size:
        SKLLOSS_PREFETCH(<const char*>start + at)
        at += 64


cdef inline void prefetch_l2(const void* start, Py_ssize_t size) noexcept nogil:
    """The same into the L2 cache, for what would leave too little of L1."""
    cdef Py_ssize_t at = 0
    while at < size:
        SKLLOSS_PREFETCH_L2(<const char*>start + at)
        at += 64


# Products of a block of rows with few outputs, see isa/skinny_gemm.h. Pointers without a type are to float or
# to double, as the name of the member of Products says.

# Behind every raw there is memory for another vector, 64 bytes: whoever allocates it sees to that.

# w (outputs, p) and bias as `scores` reads them: (p + 1) times the outputs, padded to whole vectors
ctypedef void (*pack_outputs_kernel)(
    const void* w, const void* bias, Py_ssize_t p, Py_ssize_t outputs, void* out
) noexcept nogil
# raw (rows, outputs) = x w' + bias: x (rows, p) by its step, w (outputs, p), bias (outputs,). ``packed`` is
# NULL where w is new for each block; then p is at least the numbers of a vector.
ctypedef void (*scores_kernel)(
    const void* x, Py_ssize_t step, const void* w, const void* packed, Py_ssize_t p, const void* bias,
    void* raw, Py_ssize_t rows, Py_ssize_t outputs,
) noexcept nogil
# out (rows, p) = x, of which columns are contiguous, and ``step`` numbers apart
ctypedef void (*transposed_kernel)(
    const void* x, Py_ssize_t step, Py_ssize_t rows, Py_ssize_t p, void* out
) noexcept nogil
# total (outputs,) += the sums of the columns of raw, for two outputs or more
ctypedef void (*column_sums_kernel)(
    const void* raw, double* total, Py_ssize_t rows, Py_ssize_t outputs
) noexcept nogil
# out = the Hessian of each row's loss by its scores times the direction raw; coupled is softmax
ctypedef void (*curvature_product_kernel)(
    const void* raw, const void* curvature, const void* weight, int coupled, void* out, Py_ssize_t rows,
    Py_ssize_t outputs,
) noexcept nogil
# total (outputs, p) += raw' x, added up over the rows in x's dtype
ctypedef void (*scatter_kernel)(
    const void* x, Py_ssize_t step, const void* raw, double* total, Py_ssize_t rows, Py_ssize_t p,
    Py_ssize_t outputs,
) noexcept nogil
# see isa/gram.h, and add_gram and add_pair_sums below
ctypedef void (*gram_kernel)(
    double alpha, const double* z, Py_ssize_t ldz, Py_ssize_t rows, Py_ssize_t width, const double* factor,
    Py_ssize_t factor_step, double* h, Py_ssize_t ldh, double* packed,
) noexcept nogil
ctypedef void (*pair_sums_kernel)(
    const double* z, Py_ssize_t ldz, Py_ssize_t rows, Py_ssize_t width, const double* weight,
    Py_ssize_t outputs, double* total, double* packed,
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
    # Numbers per vector; 0 where this build has no products of its own, and BLAS serves.
    Py_ssize_t lanes_f32, lanes_f64
    pack_outputs_kernel pack_outputs_f32, pack_outputs_f64
    scores_kernel scores_f32, scores_f64
    transposed_kernel transposed_f32, transposed_f64
    column_sums_kernel column_sums_f32, column_sums_f64
    curvature_product_kernel curvature_product_f32, curvature_product_f64
    scatter_kernel scatter_f32, scatter_f64
    Py_ssize_t gram_wide     # numbers in a row of a packed panel; 0 where BLAS makes Gram matrices
    gram_kernel gram
    pair_sums_kernel pair_sums
    sparse_scores_kernel sparse_scores_f32, sparse_scores_f64
    sparse_scatter_kernel sparse_scatter_f32, sparse_scatter_f64


cdef Products current

cdef bint for_sparse(Py_ssize_t outputs) noexcept nogil
cpdef Py_ssize_t padded(Py_ssize_t outputs, Py_ssize_t size) noexcept nogil


cdef inline void gemm(
    char* ta, char* tb, int m, int n, int k, real* a, int lda, real* b, int ldb, real beta, real* c, int ldc
) noexcept nogil:
    """c = op(a) op(b) + beta c, column-major as BLAS has it."""
    cdef real one = 1.0
    if real is double:
        dgemm(ta, tb, &m, &n, &k, &one, a, &lda, b, &ldb, &beta, c, &ldc)
    else:
        sgemm(ta, tb, &m, &n, &k, &one, a, &lda, b, &ldb, &beta, c, &ldc)


cdef inline void gemv(
    char* ta, int m, int n, real* a, int lda, real* x, real beta, real* y
) noexcept nogil:
    """y = op(a) x + beta y, column-major as BLAS has it."""
    cdef real one = 1.0
    cdef int step = 1
    if real is double:
        dgemv(ta, &m, &n, &one, a, &lda, x, &step, &beta, y, &step)
    else:
        sgemv(ta, &m, &n, &one, a, &lda, x, &step, &beta, y, &step)


cdef inline Py_ssize_t packed_width(Py_ssize_t width) noexcept nogil:
    """Numbers of ``packed`` per row of a block that `add_gram` and `add_pair_sums` need."""
    return width + current.gram_wide


cdef inline void add_gram(
    double alpha, const double* z, Py_ssize_t ldz, Py_ssize_t rows, Py_ssize_t width, const double* factor,
    Py_ssize_t factor_step, double* h, Py_ssize_t ldh, double* packed,
) noexcept nogil:
    """h (width, width) += alpha z' diag(factor) z, its lower triangle at least; negative factors count as 0.

    Rows of z are padded with zeros to a multiple of 8.
    """
    cdef Py_ssize_t i, j
    cdef double f, one = 1.0
    cdef int n = <int>width, m = <int>rows, out = <int>ldh
    if current.gram_wide > 0:
        current.gram(alpha, z, ldz, rows, width, factor, factor_step, h, ldh, packed)
        return
    for i in range(rows):
        f = factor[i * factor_step]
        f = sqrt(f) if f > 0.0 else 0.0
        for j in range(width):
            packed[i * width + j] = f * z[i * ldz + j]
    if width > 0:
        # row-major lower is column-major upper
        dsyrk(b"U", b"N", &n, &m, &alpha, packed, &n, &one, h, &out)


cdef inline void add_pair_sums(
    const double* z, Py_ssize_t ldz, Py_ssize_t rows, Py_ssize_t width, const double* weight,
    Py_ssize_t outputs, double* total, double* packed,
) noexcept nogil:
    """total (outputs, pairs) += weight' u, where u[i] are the products z[i, a] z[i, b] of all pairs b <= a.

    They come in the order of the rows of a lower triangle; ``weight`` is (rows, outputs). Rows of z are
    padded to a multiple of 8.
    """
    cdef Py_ssize_t i, a, b, pairs = width * (width + 1) // 2
    if current.gram_wide > 0:
        current.pair_sums(z, ldz, rows, width, weight, outputs, total, packed)
        return
    for a in range(width):
        for i in range(rows):
            for b in range(a + 1):
                packed[i * (a + 1) + b] = z[i * ldz + a] * z[i * ldz + b]
        gemm(
            b"N", b"T", <int>a + 1, <int>outputs, <int>rows, packed, <int>a + 1, <double*>weight,
            <int>outputs, <double>1.0, total + a * (a + 1) // 2, <int>pairs,
        )


cdef inline double adam_step(
    double gradient, double* first, double* second, double decay, double decay_second, double rate,
    double epsilon,
) noexcept nogil:
    """The step to go against a number's gradient; its moments are updated.

    The kernel of networks in isa/layers.pxi.tp squares the gradient first: to share one formula would change
    the last bits of either.
    """
    first[0] = decay * first[0] + (1.0 - decay) * gradient
    second[0] = decay_second * second[0] + (1.0 - decay_second) * gradient * gradient
    return rate * first[0] / (sqrt(second[0]) + epsilon)


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
    """Add a block's sums to its chunk's, the rounding error carried in the second half (Kahan)."""
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
    """Add the sums of the columns of x (rows, columns) to ``total``."""
    cdef Py_ssize_t i, k
    cdef double part[8]
    if columns == 1:
        # eight sums side by side, as each addition to a single one would wait for the last
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


cdef enum:
    SIGNAL_WORK = 50000000  # multiplications between two checks, some 20 ms


cdef inline int check_signals(double* work) except -1 nogil:
    """After some 20 ms of work, let a pending Ctrl-C raise KeyboardInterrupt."""
    if work[0] > SIGNAL_WORK:
        work[0] = 0.0
        with gil:
            PyErr_CheckSignals()
    return 0
