# Work in numbered pieces, which threads share without the GIL.

cdef extern from *:
    """
    #ifndef SKLLOSS_SHARING
    #define SKLLOSS_SHARING
    struct sklloss_job;
    /* What one thread takes the pieces of a job from. */
    typedef struct {
        struct sklloss_job* job;
        int first;                /* the piece that this thread begins with; -1 if there is none */
    } sklloss_pieces;
    #endif
    """
    ctypedef struct Pieces "sklloss_pieces":
        pass


cdef enum:
    NO_MEMORY = -3


cdef class Task:
    # -1, NO_MEMORY, or what a subclass makes of it; see `fail`
    cdef Py_ssize_t status
    cdef void run(self, Pieces* pieces) noexcept nogil
    cdef void fail(self, Pieces* pieces, Py_ssize_t status) noexcept nogil


cdef Py_ssize_t next_piece(Pieces* pieces) noexcept nogil
cdef int share(Task task, Py_ssize_t pieces, Py_ssize_t n_threads) except -1
# The same in two parts, for a loop without the GIL
cdef int helpers_of(Py_ssize_t n_threads) except -1
cdef void share_with(Task task, Py_ssize_t pieces, int helpers) noexcept nogil
