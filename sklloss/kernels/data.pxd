# What a loss kernel is handed: one batch of rows. One structure for both dtypes, so that a pointer to
# a kernel fits a table and a driver (a sweep over X, a training loop) calls any loss without knowing it.

cdef struct Batch:
    void* raw                # (rows, outputs) C order: raw scores in; d loss / d score times weight out
    const void* target       # values or probabilities (rows, outputs), of raw's dtype; or NULL
    const Py_ssize_t* codes  # class codes (rows,), where target is NULL
    const void* weight       # (rows,), or (rows, outputs) if weight_per_output; or NULL for 1
    void* curvature          # (rows, outputs) out, or NULL; see each kernel
    void* per_sample         # (rows,) out: the unweighted loss of a row; or NULL
    # out: the weighted loss summed over rows, per output if the loss is separable, else in sums[0]. There is
    # room for 2 * outputs numbers; the second half holds what rounding left over.
    double* sums
    void* scratch            # room for 2 * outputs + 64 numbers of raw's dtype
    Py_ssize_t rows
    Py_ssize_t outputs
    bint weight_per_output
    double parameter         # what the loss is parametrised by (label smoothing, ...)
    void* context            # for a loss that is Python code: the object that calls it; else NULL

# Returns -1, or the first row whose code is not in [0, outputs); a loss that is Python code and raised: -2.
ctypedef Py_ssize_t (*batch_kernel)(Batch* batch) noexcept nogil
