"""A loss that is Python code, called by the loops over X and by the network as if it were a kernel.

The GIL is taken once per block of rows. The function sees arrays of its own: whatever it keeps or overwrites
is neither the caller's data nor memory that is given back.
"""

import numpy as np

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.pycapsule cimport PyCapsule_CheckExact

from sklloss.kernels.data cimport Batch, batch_kernel
from sklloss.kernels.driver cimport kernel_of


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
    """The use of such a loss by one thread: what it is called with, and the error that it raised."""

    cdef int raise_error(self) except -1:
        error, self.error = self.error, None
        raise error


cdef Call bind(object loss, bint single, Batch* batch, batch_kernel* kernel):
    """Point a kernel at a loss: a PyCapsule, a `PythonLoss`, or a plain function (see there).

    Returns None for a capsule, else what the caller must keep for as long as the kernel is used, and ask for
    the error where the kernel returns FAILED.
    """
    cdef Call call
    batch.context = NULL
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
