"""Rows of data, and a loss over a batch of them: what every loop over rows works with.

A loss may be Python code, called as if it were a kernel. The GIL is taken once per batch then. The function
sees arrays of its own: whatever it keeps or overwrites is neither the caller's data nor memory that is freed.
"""

import numpy as np
import scipy.sparse

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.pycapsule cimport PyCapsule_CheckExact, PyCapsule_GetPointer
from cython cimport floating as real
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from sklloss.kernels.common cimport one_hot, prefetch

cdef enum:
    ROWS_AHEAD = 4  # rows prefetched ahead of the one that is copied, where an order scatters them


cdef batch_kernel kernel_of(capsule) except NULL:
    return <batch_kernel>PyCapsule_GetPointer(capsule, "sklloss.batch_kernel")


cdef class CompiledLoss:
    """A loss with a compiled kernel.

    Parameters
    ----------
    capsule : PyCapsule
        From ``sklloss.kernels.get``, for the dtype in which the loss is to be computed.
    parameter : float
        What the loss is parametrised by.
    """

    def __init__(self, capsule, double parameter=0.0):
        self.capsule = capsule
        self.parameter = parameter


cdef class PythonLoss:
    """A loss without a compiled kernel.

    Parameters
    ----------
    function : callable
        ``Loss.evaluate_batch`` or alike: it overwrites raw scores with the gradient of the weighted sum of
        losses and returns that sum, and fills ``curvature`` where one is asked for.
    separable : bool
        True to ask for the sum of each output too, in ``sums``.
    """

    def __init__(self, function, bint separable):
        self.function = function
        self.separable = separable


cdef class Call:
    """The use of such a loss in a pass: what it is called with, and the first error that it raised."""

    cdef int raise_error(self) except -1:
        error, self.error = self.error, None
        raise error


cdef Call bind(object loss, bint single, Batch* batch, batch_kernel* kernel):
    """Point a kernel at a loss: a `CompiledLoss`, a `PythonLoss`, a PyCapsule, or a plain function.

    Returns None for a compiled loss, else what the caller must keep for as long as the kernel is used, and
    ask for the error where the kernel returns FAILED.
    """
    cdef Call call
    batch.context = NULL
    if isinstance(loss, CompiledLoss):
        batch.parameter = (<CompiledLoss>loss).parameter
        kernel[0] = kernel_of((<CompiledLoss>loss).capsule)
        return None
    if PyCapsule_CheckExact(loss):
        kernel[0] = kernel_of(loss)
        return None
    call = Call.__new__(Call)
    call.dtype = np.dtype(np.float32 if single else np.float64)
    if isinstance(loss, PythonLoss):
        call.function = (<PythonLoss>loss).function
        call.separable = (<PythonLoss>loss).separable
    else:
        call.function = loss
        call.separable = False
    batch.context = <void*>call
    kernel[0] = run
    return call


cdef Py_ssize_t run(Batch* batch) noexcept nogil:
    with gil:
        return run_python(batch)


cdef Py_ssize_t run_python(Batch* batch) noexcept:
    """-1, or FAILED if the loss raised; the error then waits in the call."""
    cdef Call call = <Call>batch.context
    cdef Py_ssize_t i, n = batch.rows * batch.outputs
    for i in range(batch.outputs):
        batch.sums[i] = 0.0
    try:
        shape = (batch.rows, batch.outputs)
        target = codes = weight = None
        raw = copied(batch.raw, n, call.dtype).reshape(shape)
        if batch.target != NULL:
            target = copied(batch.target, n, call.dtype).reshape(shape)
        if batch.codes != NULL:
            codes = copied(batch.codes, batch.rows, np.dtype(np.intp))
        if batch.weight != NULL and batch.weight_per_output:
            weight = copied(batch.weight, n, call.dtype).reshape(shape)
        elif batch.weight != NULL:
            weight = copied(batch.weight, batch.rows, call.dtype)
        wanted = {}
        if batch.curvature != NULL:
            wanted["curvature"] = np.empty(shape, call.dtype)
        if call.separable:
            wanted["sums"] = np.zeros(batch.outputs)
        total = call.function(raw, target, codes, weight, **wanted)
        if call.separable:
            for i in range(batch.outputs):
                batch.sums[i] = wanted["sums"][i]
        else:
            batch.sums[0] = total
        give_back(raw, batch.raw, n, call.dtype)
        if batch.curvature != NULL:
            give_back(wanted["curvature"], batch.curvature, n, call.dtype)
    except BaseException as error:
        if call.error is None:
            call.error = error
        return FAILED
    return -1


cdef object copied(const void* memory, Py_ssize_t count, object dtype):
    cdef Py_ssize_t size = count * <Py_ssize_t>dtype.itemsize
    return np.frombuffer(PyMemoryView_FromMemory(<char*>memory, size, PyBUF_READ), dtype).copy()


cdef int give_back(object array, void* memory, Py_ssize_t count, object dtype) except -1:
    cdef Py_ssize_t size = count * <Py_ssize_t>dtype.itemsize
    np.frombuffer(PyMemoryView_FromMemory(<char*>memory, size, PyBUF_WRITE), dtype)[:] = array.reshape(-1)
    return 0


cdef bint allocate(Workspace* work, Py_ssize_t rows, Py_ssize_t outputs, bint single) noexcept nogil:
    """Allocate the buffers of a workspace; False if there is no memory."""
    cdef Py_ssize_t size = sizeof(float) if single else sizeof(double)
    # behind raw there is memory for a vector, which the products of a build read and write
    cdef Py_ssize_t block = (rows * outputs * size + 127) // 64 * 64
    cdef Py_ssize_t scratch = ((2 * outputs + 64) * size + 63) // 64 * 64
    work.memory = <char*>malloc(
        4 * block + scratch + 2 * outputs * sizeof(double) + rows * sizeof(Py_ssize_t) + 64
    )
    if work.memory == NULL:
        return False
    work.raw = work.memory
    work.target = work.memory + block
    work.curvature = work.memory + 2 * block
    work.weight = work.memory + 3 * block
    work.scratch = work.memory + 4 * block
    work.sums = <double*>(work.memory + 4 * block + scratch)
    work.codes = <Py_ssize_t*>(work.sums + 2 * outputs)
    work.single = single
    return True


ctypedef fused wide:
    float
    double


cdef inline void copy_rows(
    const real* source, Py_ssize_t per_row, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t rows,
    wide* out,
) noexcept nogil:
    """out[i] = source[first + i], or source[order[first + i]], for rows of ``per_row`` numbers."""
    cdef Py_ssize_t i, k
    cdef const real* row
    if order == NULL:
        source += first * per_row
        for i in range(rows * per_row):
            out[i] = <wide>source[i]
        return
    for i in range(rows):
        row = source + order[first + i] * per_row
        for k in range(per_row):
            out[i * per_row + k] = <wide>row[k]


cdef inline void add_rows(
    const real* source, Py_ssize_t per_row, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t rows,
    wide* out,
) noexcept nogil:
    """out[i] += source[first + i], or source[order[first + i]], for rows of ``per_row`` numbers."""
    cdef Py_ssize_t i, k, row
    for i in range(rows):
        row = order[first + i] if order != NULL else first + i
        for k in range(per_row):
            out[i * per_row + k] += <wide>source[row * per_row + k]


cdef inline void copy_dense(
    const real* x, Dataset data, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t rows, wide* out,
    Py_ssize_t step,
) noexcept nogil:
    """Copy dense rows to ``out``, ``step`` apart, less the center."""
    cdef Py_ssize_t features = data.features, column_step = data.column_step, i, j
    cdef double offset
    cdef const real* row
    if order == NULL and column_step != 1:
        for j in range(features):
            row = x + first * data.row_step + j * column_step
            offset = data.center[j] if data.centered else 0.0
            for i in range(rows):
                out[i * step + j] = <wide>(<double>row[i * data.row_step] - offset)
        return
    for i in range(rows):
        if order != NULL and i + ROWS_AHEAD < rows and column_step == 1:
            prefetch(x + order[first + i + ROWS_AHEAD] * data.row_step, features * sizeof(real))
        row = x + (first + i if order == NULL else order[first + i]) * data.row_step
        if not data.centered and sizeof(real) == sizeof(wide) and column_step == 1:
            memcpy(out + i * step, row, features * sizeof(real))
        elif not data.centered:
            for j in range(features):
                out[i * step + j] = <wide>row[j * column_step]
        else:
            for j in range(features):
                out[i * step + j] = <wide>(<double>row[j * column_step] - data.center[j])


cdef inline void copy_sparse(
    Dataset data, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t rows, wide* out, Py_ssize_t step
) noexcept nogil:
    """Copy CSR rows to ``out``, ``step`` apart; what lies between two rows stays as it is."""
    cdef Py_ssize_t i, j, row
    for i in range(rows):
        row = first + i if order == NULL else order[first + i]
        memset(out + i * step, 0, data.features * sizeof(wide))
        for j in range(row_start(data, row), row_start(data, row + 1)):
            out[i * step + column_at(data, j)] = <wide>value_at(data, j)


cdef class Dataset:
    """X, targets and weights, made once per fit for all passes over the rows.

    Values are trusted, and so are the indices of a CSR matrix: they are checked where the data comes in.
    Class codes and the indices of rows are read unchecked here; the loss kernel, or the expansion into 0/1
    targets, checks each code.

    Parameters
    ----------
    X : ndarray, rows or columns contiguous, or CSR matrix, of shape (rows, features); float32 or float64
    target : ndarray of shape (rows, outputs), optional
        Values or probabilities, of X's dtype, C-contiguous.
    codes : ndarray of intp of shape (rows,), optional
        Class codes, where there is no ``target``.
    weight : ndarray of shape (rows,) or (rows, outputs), optional
        Of X's dtype, C-contiguous.
    outputs : int
    expand : bool
        Whether the loss is given codes as 0/1 targets.
    center : ndarray of float64 of shape (features,), optional
        What is subtracted from the rows of a dense X where they are copied in double precision.
    offset : ndarray of shape (rows, outputs), optional
        What `set_batch` adds to raw scores, of X's dtype, C-contiguous.
    """

    def __init__(
        self, X, target=None, codes=None, weight=None, *, Py_ssize_t outputs, expand=False, center=None,
        offset=None,
    ):
        cdef const float[:, :] floats
        cdef const double[:, :] doubles
        cdef const double[::1] offsets
        cdef const Py_ssize_t[::1] labels
        cdef Py_ssize_t size = X.dtype.itemsize, i
        self.rows, self.features = X.shape
        self.outputs = outputs
        self.single = size == sizeof(float)
        self.sparse = scipy.sparse.issparse(X)
        if self.sparse:
            # one integer type for both, whichever SciPy chose
            index = np.result_type(X.indices.dtype, X.indptr.dtype)
            self.arrays = (X.data, X.indices.astype(index, copy=False), X.indptr.astype(index, copy=False))
            self.long_index = index.itemsize == 8
            self.x = numbers(self.arrays[0], self.single)
            self.columns = integers(self.arrays[1], self.long_index)
            self.row_starts = integers(self.arrays[2], self.long_index)
        else:
            self.arrays = (X,)
            if self.single:
                floats = X
                self.x = &floats[0, 0]
                self.row_step, self.column_step = floats.strides[0] // size, floats.strides[1] // size
            else:
                doubles = X
                self.x = &doubles[0, 0]
                self.row_step, self.column_step = doubles.strides[0] // size, doubles.strides[1] // size
            self.by_rows = self.column_step == 1 and self.row_step >= self.features
        if target is not None:
            check_shape(target, (self.rows, outputs), "target")
            target = target.reshape(-1)
            self.target = numbers(target, self.single)
        if codes is not None:
            check_shape(codes, (self.rows,), "codes")
            labels = codes
            self.codes = &labels[0]
        self.expand = expand
        if weight is not None:
            self.weight_per_output = weight.ndim == 2
            if self.weight_per_output:
                check_shape(weight, (self.rows, outputs), "weight")
            else:
                check_shape(weight, (self.rows,), "weight")
            weight = weight.reshape(-1)
            self.weight = numbers(weight, self.single)
        if center is not None:
            check_shape(center, (self.features,), "center")
            offsets = center
            self.center = &offsets[0]
            for i in range(offsets.shape[0]):
                self.centered = self.centered or offsets[i] != 0.0
        if offset is not None:
            check_shape(offset, (self.rows, outputs), "offset")
            offset = offset.reshape(-1)
            self.offset = numbers(offset, self.single)
        self.references = (target, codes, weight, center, offset)

    cdef Py_ssize_t set_batch(
        self, Batch* batch, Workspace* work, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t rows
    ) noexcept nogil:
        """Point a batch at the rows [first, first + rows), or at those that ``order`` names in these places.

        An offset is added to the raw scores that the workspace has, if any. Targets and weights are read in
        place if the rows follow each other and the workspace has their dtype, else they are copied to it.
        Returns -1, or the first row of the batch with a code out of range, where codes are expanded.
        """
        cdef bint in_place = order == NULL and self.single == work.single
        cdef const Py_ssize_t* codes
        cdef Py_ssize_t i, size = sizeof(float) if self.single else sizeof(double), bad = -1
        cdef Py_ssize_t per_row = self.outputs if self.weight_per_output else 1
        batch.raw = work.raw
        batch.sums = work.sums
        batch.scratch = work.scratch
        batch.rows = rows
        batch.outputs = self.outputs
        batch.target = NULL
        batch.codes = NULL
        batch.weight = NULL
        batch.weight_per_output = self.weight_per_output
        batch.per_sample = NULL
        batch.curvature = NULL
        if self.target != NULL:
            if in_place:
                batch.target = <const char*>self.target + first * self.outputs * size
            else:
                self.copy(self.target, self.outputs, work.single, order, first, rows, work.target)
                batch.target = work.target
        elif self.codes != NULL:
            codes = self.codes + first
            if order != NULL:
                for i in range(rows):
                    work.codes[i] = self.codes[order[first + i]]
                codes = work.codes
            if not self.expand:
                batch.codes = codes
            else:
                if work.single:
                    bad = one_hot(codes, <float*>work.target, rows, self.outputs)
                else:
                    bad = one_hot(codes, <double*>work.target, rows, self.outputs)
                batch.target = work.target
        if self.weight != NULL:
            if in_place:
                batch.weight = <const char*>self.weight + first * per_row * size
            else:
                self.copy(self.weight, per_row, work.single, order, first, rows, work.weight)
                batch.weight = work.weight
        if self.offset != NULL and work.raw != NULL:
            if work.single:
                add_rows(<const float*>self.offset, self.outputs, order, first, rows, <float*>work.raw)
            elif self.single:
                add_rows(<const float*>self.offset, self.outputs, order, first, rows, <double*>work.raw)
            else:
                add_rows(<const double*>self.offset, self.outputs, order, first, rows, <double*>work.raw)
        return bad

    cdef void copy(
        self, const void* source, Py_ssize_t per_row, bint single, const Py_ssize_t* order, Py_ssize_t first,
        Py_ssize_t rows, void* out,
    ) noexcept nogil:
        """Copy targets or weights, of X's dtype, into the dtype of a workspace."""
        if single:
            copy_rows(<const float*>source, per_row, order, first, rows, <float*>out)
        elif self.single:
            copy_rows(<const float*>source, per_row, order, first, rows, <double*>out)
        else:
            copy_rows(<const double*>source, per_row, order, first, rows, <double*>out)

    cdef void load_rows(
        self, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t rows, void* out, Py_ssize_t step,
        bint single,
    ) noexcept nogil:
        """Copy rows of X to ``out``, ``step`` numbers apart: float32 if ``single``, which X must be then too.

        They are those of `set_batch`; of a dense X less the center.
        """
        if self.sparse:
            if single:
                copy_sparse(self, order, first, rows, <float*>out, step)
            else:
                copy_sparse(self, order, first, rows, <double*>out, step)
        elif single:
            copy_dense(<const float*>self.x, self, order, first, rows, <float*>out, step)
        elif self.single:
            copy_dense(<const float*>self.x, self, order, first, rows, <double*>out, step)
        else:
            copy_dense(<const double*>self.x, self, order, first, rows, <double*>out, step)


cdef int check_shape(array, tuple shape, name) except -1:
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return 0


cdef const void* numbers(array, bint single) except? NULL:
    """The address of a contiguous array of float32 or float64; NULL if it is empty."""
    cdef const float[::1] floats
    cdef const double[::1] doubles
    if single:
        floats = array
        return &floats[0] if floats.shape[0] else NULL
    doubles = array
    return &doubles[0] if doubles.shape[0] else NULL


cdef const void* integers(array, bint long_index) except? NULL:
    """The address of a contiguous array of int32 or int64; NULL if it is empty."""
    cdef const int32_t[::1] short_numbers
    cdef const int64_t[::1] long_numbers
    if long_index:
        long_numbers = array
        return &long_numbers[0] if long_numbers.shape[0] else NULL
    short_numbers = array
    return &short_numbers[0] if short_numbers.shape[0] else NULL


def evaluate(
    capsule,
    real[:, ::1] raw,
    const real[:, ::1] target=None,
    const Py_ssize_t[::1] codes=None,
    const real[::1] weight=None,
    double parameter=0.0,
    real[::1] per_sample=None,
    real[:, ::1] curvature=None,
):
    """Run one kernel over a batch: raw becomes weight * d loss / d raw.

    Parameters
    ----------
    capsule : PyCapsule
        A kernel of raw's dtype, from ``sklloss.kernels.get``.
    raw : float32 or float64 array of shape (rows, outputs), C-contiguous
        Raw scores in, gradient out.
    target : array like raw, optional
        Values or probabilities.
    codes : intp array of shape (rows,), optional
        Class codes, for a softmax kernel without ``target``.
    weight : array of shape (rows,), optional
    parameter : float
        What the loss is parametrised by.
    per_sample : array of shape (rows,), optional
        Filled with the unweighted loss of each row.
    curvature : array like raw, optional
        Filled as the kernel says.

    Returns
    -------
    float
        The weighted loss, summed over rows and outputs.

    Raises
    ------
    ValueError
        If shapes differ or a code is outside [0, outputs).
    """
    cdef batch_kernel kernel = kernel_of(capsule)
    cdef Batch batch
    cdef Py_ssize_t rows = raw.shape[0], outputs = raw.shape[1]
    cdef Py_ssize_t bad, i
    cdef double total = 0.0
    if (target is None) == (codes is None):
        raise ValueError("give either target or codes")
    if target is not None and (target.shape[0] != rows or target.shape[1] != outputs):
        raise ValueError(
            f"target has shape {(target.shape[0], target.shape[1])}, raw has shape {(rows, outputs)}"
        )
    if codes is not None and codes.shape[0] != rows:
        raise ValueError(f"codes has {codes.shape[0]} rows, raw has {rows}")
    if weight is not None and weight.shape[0] != rows:
        raise ValueError(f"weight has {weight.shape[0]} rows, raw has {rows}")
    if per_sample is not None and per_sample.shape[0] != rows:
        raise ValueError(f"per_sample has {per_sample.shape[0]} rows, raw has {rows}")
    if curvature is not None and (curvature.shape[0] != rows or curvature.shape[1] != outputs):
        raise ValueError("curvature must have the shape of raw")
    if rows == 0 or outputs == 0:
        return 0.0
    batch.raw = &raw[0, 0]
    batch.target = &target[0, 0] if target is not None else NULL
    batch.codes = &codes[0] if codes is not None else NULL
    batch.weight = &weight[0] if weight is not None else NULL
    batch.per_sample = &per_sample[0] if per_sample is not None else NULL
    batch.curvature = &curvature[0, 0] if curvature is not None else NULL
    batch.rows = rows
    batch.outputs = outputs
    batch.weight_per_output = False
    batch.parameter = parameter
    batch.context = NULL
    batch.sums = <double*>malloc(2 * outputs * sizeof(double))
    batch.scratch = malloc((2 * outputs + 64) * sizeof(real))
    if batch.sums == NULL or batch.scratch == NULL:
        free(batch.sums)
        free(batch.scratch)
        raise MemoryError()
    with nogil:
        bad = kernel(&batch)
    for i in range(outputs):
        total += batch.sums[i]
    free(batch.sums)
    free(batch.scratch)
    if bad >= 0:
        raise ValueError(f"class code {codes[bad]} in row {bad} is not in [0, {outputs})")
    return total
