"""Calls a kernel on one batch that lives in Python."""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdlib cimport free, malloc

from sklloss.kernels.data cimport Batch, batch_kernel

ctypedef fused real:
    float
    double


cdef batch_kernel kernel_of(capsule) except NULL:
    return <batch_kernel>PyCapsule_GetPointer(capsule, "sklloss.batch_kernel")


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
