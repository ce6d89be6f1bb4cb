# The rows that a network reads, and the addresses of arrays, included by network/network.pyx.

cdef const void* matrix(array, bint single, Py_ssize_t rows, Py_ssize_t columns, name) except? NULL:
    """The address of a C-contiguous (rows, columns) array of the right dtype."""
    cdef const float[:, ::1] floats
    cdef const double[:, ::1] doubles
    if array.shape != (rows, columns):
        raise ValueError(f"{name} must have shape {(rows, columns)}, got {array.shape}")
    if single:
        floats = array
        return &floats[0, 0]
    doubles = array
    return &doubles[0, 0]


cdef void* vector(array, bint single, Py_ssize_t size, name) except? NULL:
    """The address of a writable, contiguous array of that many numbers of the right dtype."""
    cdef float[::1] floats
    cdef double[::1] doubles
    if array.shape != (size,):
        raise ValueError(f"{name} must have shape {(size,)}, got {array.shape}")
    if single:
        floats = array
        return &floats[0]
    doubles = array
    return &doubles[0]


cdef class Rows:
    """The rows of X with targets and weights, held for the networks that read them.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (n, features), float32 or float64
    target : ndarray of shape (n, outputs), optional
        Values or probabilities, of X's dtype, C-contiguous.
    weight : ndarray of shape (n,) or, for a loss that is separable, (n, outputs), optional
        Of X's dtype. A row's weight is the mean of those of its outputs.
    codes : ndarray of intp of shape (n,), optional
        Class codes, for a loss that takes them in place of ``target``.
    """

    cdef Table table
    cdef readonly Py_ssize_t n
    cdef readonly Py_ssize_t features
    cdef readonly Py_ssize_t outputs
    cdef readonly object dtype
    cdef bint single
    cdef object keep

    def __init__(self, X, target=None, weight=None, codes=None):
        cdef const float[:, :] floats
        cdef const double[:, :] doubles
        cdef const float[::1] float_values
        cdef const double[::1] double_values
        cdef const int32_t[::1] columns
        cdef const int64_t[::1] starts
        cdef const Py_ssize_t[::1] classes
        cdef Table* table = &self.table
        self.n, self.features = X.shape
        self.dtype = X.dtype
        if X.dtype not in (np.float32, np.float64):
            raise ValueError(f"X must be float32 or float64, got {X.dtype}")
        self.single = X.dtype == np.float32
        memset(table, 0, sizeof(Table))
        table.sparse = scipy.sparse.issparse(X)
        if table.sparse:
            index = np.ascontiguousarray(X.indices, dtype=np.int32)
            pointer = np.ascontiguousarray(X.indptr, dtype=np.int64)
            values = np.ascontiguousarray(X.data)
            stored = min(len(index), len(values))
            if pointer[0] != 0 or pointer[self.n] > stored or np.any(np.diff(pointer) < 0):
                raise ValueError("X is not a valid CSR matrix: its row pointers do not fit its values")
            if len(index) and (index.min() < 0 or index.max() >= self.features):
                raise ValueError("X is not a valid CSR matrix: a column index is out of range")
            columns = index
            starts = pointer
            table.columns = &columns[0]
            table.starts = &starts[0]
            if self.single:
                float_values = values
                table.x = &float_values[0]
            else:
                double_values = values
                table.x = &double_values[0]
            X = (index, pointer, values)
        elif self.single:
            floats = X
            table.x = &floats[0, 0]
            table.row_step = floats.strides[0] // <Py_ssize_t>sizeof(float)
            table.column_step = floats.strides[1] // <Py_ssize_t>sizeof(float)
        else:
            doubles = X
            table.x = &doubles[0, 0]
            table.row_step = doubles.strides[0] // <Py_ssize_t>sizeof(double)
            table.column_step = doubles.strides[1] // <Py_ssize_t>sizeof(double)
        self.outputs = 0
        if target is not None:
            self.outputs = target.shape[1]
            table.target = matrix(target, self.single, self.n, self.outputs, "target")
        if codes is not None:
            if codes.shape != (self.n,):
                raise ValueError(f"codes must have shape {(self.n,)}, got {codes.shape}")
            classes = codes
            table.codes = &classes[0]
        if weight is not None:
            table.weight_per_output = weight.ndim == 2
            table.weights = self.outputs if table.weight_per_output else 1
            weight = weight if table.weight_per_output else weight[:, None]
            table.weight = matrix(weight, self.single, self.n, table.weights, "weight")
        self.keep = (X, target, weight, codes)
