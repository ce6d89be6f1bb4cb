# Blocks of rows of a linear model, of which Hessians are made.

from sklloss.kernels.data cimport Batch, Dataset, Workspace, batch_kernel


cdef struct Model:
    # A loss, the shape of its parameters, and the buffers for blocks of rows.
    Batch batch
    batch_kernel kernel
    Workspace work
    double* memory       # of the following four; the caller frees it
    double* zero         # ``outputs`` zeros
    double* packed       # what `add_gram` and `add_pair_sums` use
    double* curvature    # (block, pairs of outputs) if coupled
    double* z            # rows of X less its center, with an intercept a column of ones, ``step`` apart
    Py_ssize_t outputs, features, width, step
    Py_ssize_t pairs     # of outputs, each with itself too
    bint coupled, softmax
    double negligible    # see `hessian`; 0 for all rows


cdef bint make_model(
    Model* model, const Batch* batch, batch_kernel kernel, Dataset data, Py_ssize_t width, bint coupled,
    bint softmax, Py_ssize_t block, Py_ssize_t z_rows,
) noexcept nogil
cdef void free_model(Model* model) noexcept nogil
cdef Py_ssize_t add_block(
    Dataset data, Model* model, const double* w, const double* z, Py_ssize_t first, Py_ssize_t rows,
    double* loss, double* gradient, double* hessian,
) noexcept nogil
cdef void unfold_pairs(const double* sums, double* h, Py_ssize_t outputs, Py_ssize_t width) noexcept nogil
