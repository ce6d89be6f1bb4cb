# A loss that is Python code, called as if it were a kernel. See the .pyx.

from sklloss.kernels.data cimport Batch, batch_kernel

# What the kernel returns where the loss raised.
cdef enum:
    FAILED = -2


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
