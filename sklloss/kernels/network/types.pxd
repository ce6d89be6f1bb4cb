# The interface between the training loop of network/network.pyx and the kernels of isa/layers.pxi.tp: one
# structure of function pointers per dtype and build. The loop is compiled once, the kernels once per build.

cdef extern from *:
    """
    #include <stddef.h>
    /* What a product of gemm.h prefetches for the optimiser step and the batch that follow it. */
    typedef struct {
        const void* same_shape[3]; /* arrays in the shape of the result; NULL ends the list */
        const char* rows;          /* base address of the rows to prefetch */
        const ptrdiff_t* order;    /* their numbers */
        ptrdiff_t left;            /* rows not yet prefetched */
        ptrdiff_t step;            /* bytes from one row to the next */
        ptrdiff_t size;            /* bytes in a row */
        ptrdiff_t done;            /* bytes of the current row already prefetched */
        ptrdiff_t lines;           /* cache lines to prefetch per tile */
    } sklloss_prefetch;
    """
    ctypedef struct Prefetch "sklloss_prefetch":
        const void* same_shape[3]
        const char* rows
        const Py_ssize_t* order
        Py_ssize_t left
        Py_ssize_t step
        Py_ssize_t size
        Py_ssize_t done
        Py_ssize_t lines

# An activation f of one dtype; the table of them is in isa/activations.pxi.tp.
cdef struct Activation:
    const char* name
    bint stores_slope        # f'(z) does not follow from f(z), so that the forward pass stores it
    # z = f(z + bias) in place; z is (rows, width). Where slope is not NULL and f stores it, it becomes f'(z).
    void (*forward)(
        void* z, void* slope, const void* bias, Py_ssize_t rows, Py_ssize_t width
    ) noexcept nogil
    # delta *= f'(z) in place for n numbers, given f(z), or f'(z) where it is stored
    void (*backward)(void* delta, const void* active, Py_ssize_t n) noexcept nogil


# One step of an optimiser over the flat vector of parameters. The gradient is that of the sum over a batch;
# the step descends along (gradient + penalty * parameters) * inverse.
cdef struct Step:
    void* parameters
    const void* gradient
    void* first              # first moments (adam) or velocities (sgd)
    void* second             # second moments (adam), or NULL
    Py_ssize_t size
    Py_ssize_t penalised     # the leading parameters that the penalty and the decay apply to
    double penalty
    double inverse           # 1 / sum of the batch's weights
    double rate
    double weight_decay      # the fraction by which this step shrinks the weights (adam)
    double decay             # beta_1 (adam) or momentum (sgd)
    double decay_second      # beta_2
    double epsilon
    bint nesterov

# Takes the step for the parameters [low, high).
ctypedef void (*step_kernel)(const Step* step, Py_ssize_t low, Py_ssize_t high) noexcept nogil

# Matrix products in C order. The order of each sum does not depend on how the work is split: see gemm.h.
# c (rows, n) = a b for a (rows, k) and b (k, n), or b (n, k) if transposed
ctypedef void (*product_kernel)(
    const void* a, Py_ssize_t lda, const void* b, Py_ssize_t ldb, bint transposed, void* c, Py_ssize_t ldc,
    Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k
) noexcept nogil
# b (rows, n) into the panels of a matrix (k, n), one panel after the other, as its rows from ``first`` on
ctypedef void (*pack_kernel)(
    const void* b, Py_ssize_t ldb, Py_ssize_t rows, Py_ssize_t n, void* out, Py_ssize_t first, Py_ssize_t k
) noexcept nogil
# c (m, n) = a.T b, or += if add, for a (k, m) and b (k, n): in panels if ldb is 0, else with memory of one
# panel after the last row; prefetch may be NULL
ctypedef void (*outer_kernel)(
    const void* a, Py_ssize_t lda, const void* b, Py_ssize_t ldb, void* c, Py_ssize_t m, Py_ssize_t n,
    Py_ssize_t k, bint add, Prefetch* prefetch
) noexcept nogil

# Rows of a CSR matrix
cdef struct SparseRows:
    const void* values
    const void* columns
    const void* row_starts
    bint long_index              # columns and row_starts have 64 bits, else 32
    const Py_ssize_t* order      # the numbers of the rows, or NULL for [first, first + rows)
    Py_ssize_t first
    Py_ssize_t rows


cdef struct LayerKernels:
    const Activation* activations    # up to one whose name is NULL
    # out = x @ coef
    void (*sparse_forward)(
        const SparseRows* x, const void* coef, Py_ssize_t width, void* out
    ) noexcept nogil
    # gradient += x.T @ delta
    void (*sparse_backward)(
        const SparseRows* x, const void* delta, Py_ssize_t width, void* gradient
    ) noexcept nogil
    # out = x @ coef for one output
    void (*forward_one)(
        const void* x, Py_ssize_t step, const void* coef, void* out, Py_ssize_t rows, Py_ssize_t width
    ) noexcept nogil
    # gradient += x.T @ delta for one output
    void (*gradient_one)(
        const void* x, Py_ssize_t step, const void* delta, void* gradient, Py_ssize_t rows, Py_ssize_t width
    ) noexcept nogil
    # out = outer(delta, coef)
    void (*outer_one)(
        const void* delta, const void* coef, void* out, Py_ssize_t rows, Py_ssize_t width
    ) noexcept nogil
    # total += the sums of the columns of x (rows, width)
    void (*add_rows)(const void* x, Py_ssize_t rows, Py_ssize_t width, void* total) noexcept nogil
    # Columns of a panel and rows of a tile. panel is 0 if this build has no matrix products and uses BLAS.
    Py_ssize_t panel
    Py_ssize_t tile_rows
    Py_ssize_t in_place      # bytes of a matrix that need not be packed
    product_kernel product
    pack_kernel pack
    outer_kernel outer
    double (*squares)(const void* x, Py_ssize_t n) noexcept nogil
    step_kernel adam
    step_kernel sgd
