"""The products of the build in use: what the passes over X call where BLAS is slow."""

from cpython.pycapsule cimport PyCapsule_GetPointer


def use(capsule):
    """Make the products of a build, from its ``products()``, those that every pass over X calls."""
    global current
    current = (<Products*>PyCapsule_GetPointer(capsule, "sklloss.products"))[0]
