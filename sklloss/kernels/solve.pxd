# Linear maps for conjugate gradients.

cdef class Operator:
    cdef int apply(self, const double[:, ::1] x, double[:, ::1] out) except -1
