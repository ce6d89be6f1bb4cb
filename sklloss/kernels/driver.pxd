from sklloss.kernels.data cimport batch_kernel

cdef batch_kernel kernel_of(capsule) except NULL
