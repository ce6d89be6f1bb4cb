"""The products of the build in use: what the passes over X call where BLAS is slow."""

from cpython.pycapsule cimport PyCapsule_GetPointer


def use(capsule):
    """Make the products of a build, from its ``products()``, those that every pass over X calls."""
    global current
    current = (<Products*>PyCapsule_GetPointer(capsule, "sklloss.products"))[0]


cdef bint for_sparse(Py_ssize_t outputs) noexcept nogil:
    """Whether the products in use take CSR rows and so many outputs."""
    return current.lanes_f64 > 0 and 2 <= outputs <= 32


def padded(Py_ssize_t outputs, Py_ssize_t size):
    """How many numbers of ``size`` bytes a sparse pass wants for each feature: whole lines, or outputs."""
    cdef Py_ssize_t line = 64 // size
    return (outputs + line - 1) // line * line if for_sparse(outputs) else outputs
