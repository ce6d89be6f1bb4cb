# What every loop over rows works with: a batch of rows as a loss kernel sees it, the loss, and the data.

from libc.stdint cimport int32_t, int64_t

cdef struct Batch:
    # One structure for both dtypes, so that any loop can call any loss through one type of pointer.
    void* raw                # (rows, outputs) C order: raw scores in; d loss / d score times weight out
    const void* target       # values or probabilities (rows, outputs), of raw's dtype; or NULL
    const Py_ssize_t* codes  # class codes (rows,), where target is NULL
    const void* weight       # (rows,), or (rows, outputs) if weight_per_output; or NULL for 1
    void* curvature          # (rows, outputs) out, or NULL; see each kernel
    void* per_sample         # (rows,) out: the unweighted loss of a row; or NULL
    # out: the weighted loss summed over rows, per output if the loss is separable, else in sums[0]. It holds
    # 2 * outputs numbers; the second half is what rounding left over.
    double* sums
    void* scratch            # 2 * outputs + 64 numbers of raw's dtype
    Py_ssize_t rows
    Py_ssize_t outputs
    bint weight_per_output
    double parameter         # what the loss is parametrised by (label smoothing, ...)
    void* context            # for a loss that is Python code: the object that calls it; else NULL

# Returns -1, or the first row whose code is not in [0, outputs); or FAILED, if Python code raised.
ctypedef Py_ssize_t (*batch_kernel)(Batch* batch) noexcept nogil

cdef enum:
    FAILED = -2


cdef batch_kernel kernel_of(capsule) except NULL


cdef class CompiledLoss:
    cdef object capsule
    cdef double parameter


cdef class PythonLoss:
    cdef object function
    cdef bint separable


cdef class Call:
    cdef object function
    cdef object dtype
    cdef bint separable
    cdef object error
    cdef int raise_error(self) except -1


cdef Call bind(object loss, bint single, Batch* batch, batch_kernel* kernel)


cdef struct Workspace:
    # The buffers of one thread for batches of up to so many rows, in the dtype the loss is computed in.
    char* memory             # of all the others; the caller frees it
    void* raw
    void* target
    void* curvature
    void* weight
    void* scratch
    double* sums
    Py_ssize_t* codes
    bint single              # float32, else float64


cdef bint allocate(Workspace* work, Py_ssize_t rows, Py_ssize_t outputs, bint single) noexcept nogil


cdef class Dataset:
    cdef readonly Py_ssize_t rows
    cdef readonly Py_ssize_t features
    cdef readonly Py_ssize_t outputs
    cdef readonly tuple arrays    # of X: itself, or data, indices and indptr
    cdef readonly bint sparse
    cdef bint single              # X, targets and weights are float32, else float64
    cdef const void* x            # dense: the first number; sparse: the stored numbers
    # dense X, in numbers
    cdef Py_ssize_t row_step
    cdef Py_ssize_t column_step
    cdef bint by_rows             # rows are contiguous, else columns are
    cdef const double* center     # (features,), to be subtracted where dense rows are copied
    cdef bint centered            # whether that is not all 0
    # sparse X
    cdef const void* columns
    cdef const void* row_starts
    cdef bint long_index          # they have 64 bits, else 32
    cdef const void* target       # (rows, outputs) or NULL
    cdef const Py_ssize_t* codes  # (rows,) or NULL
    cdef bint expand              # codes stand for rows of zeros with a one
    cdef const void* weight       # (rows,), or (rows, outputs) if weight_per_output; or NULL
    cdef bint weight_per_output
    cdef const void* offset       # (rows, outputs), to be added to raw scores; or NULL
    cdef object references        # to what the pointers lead to

    cdef Py_ssize_t set_batch(
        self, Batch* batch, Workspace* work, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t rows
    ) noexcept nogil
    cdef void copy(
        self, const void* source, Py_ssize_t per_row, bint single, const Py_ssize_t* order, Py_ssize_t first,
        Py_ssize_t rows, void* out,
    ) noexcept nogil
    cdef void load_rows(
        self, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t rows, void* out, Py_ssize_t step,
        bint single,
    ) noexcept nogil


# What a CSR X stores, whatever its dtypes: the numbers at row_start(i) to row_start(i + 1) belong to row i.

cdef inline Py_ssize_t row_start(Dataset data, Py_ssize_t row) noexcept nogil:
    if data.long_index:
        return (<const int64_t*>data.row_starts)[row]
    return (<const int32_t*>data.row_starts)[row]


cdef inline Py_ssize_t column_at(Dataset data, Py_ssize_t j) noexcept nogil:
    return (<const int64_t*>data.columns)[j] if data.long_index else (<const int32_t*>data.columns)[j]


cdef inline double value_at(Dataset data, Py_ssize_t j) noexcept nogil:
    return (<const float*>data.x)[j] if data.single else (<const double*>data.x)[j]
