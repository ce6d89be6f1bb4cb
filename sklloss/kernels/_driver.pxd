from sklloss.kernels._batch cimport batch_kernel

cdef batch_kernel kernel_of(capsule) except NULL
