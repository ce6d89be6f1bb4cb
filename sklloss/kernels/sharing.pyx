"""Work in numbered pieces, which threads share without the GIL.

The caller of `share` works on pieces itself, and workers join it. It waits only for those that have joined,
so one that is late, or asleep, or has lost its processor to another program, delays nobody.

A worker without work waits for some in a loop, because passes over X follow each other sooner than a thread
falls asleep and wakes up; after a while it sleeps. It takes the GIL only for a piece that needs it, and
touches no object unless it has joined the caller who holds it. So it may be left behind where the interpreter
ends.
"""

import _thread

cdef extern from *:
    """
    #include <string.h>
    #include "pythread.h"

    #ifdef _WIN32
    #define WIN32_LEAN_AND_MEAN
    #include <windows.h>
    #define LOAD(at) InterlockedOr((volatile LONG*)(at), 0)
    #define STORE(at, value) ((void)InterlockedExchange((volatile LONG*)(at), value))
    #define ADD(at, value) InterlockedExchangeAdd((volatile LONG*)(at), value)
    #define EXCHANGE(at, value) InterlockedExchange((volatile LONG*)(at), value)
    #define REPLACES(at, old, value) (InterlockedCompareExchange((volatile LONG*)(at), value, old) == (old))
    #define PAUSE() YieldProcessor()
    #define YIELD() SwitchToThread()
    static double sklloss_now(void)
    {
        LARGE_INTEGER count, per_second;
        QueryPerformanceCounter(&count);
        QueryPerformanceFrequency(&per_second);
        return (double)count.QuadPart / (double)per_second.QuadPart;
    }
    #else
    #include <sched.h>
    #include <time.h>
    #define LOAD(at) __atomic_load_n(at, __ATOMIC_SEQ_CST)
    #define STORE(at, value) __atomic_store_n(at, value, __ATOMIC_SEQ_CST)
    #define ADD(at, value) __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST)
    #define EXCHANGE(at, value) __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST)
    #define REPLACES(at, old, value) __sync_bool_compare_and_swap(at, old, value)
    #if defined(__x86_64__) || defined(__i386__)
    #define PAUSE() __builtin_ia32_pause()
    #else
    #define PAUSE() ((void)0)
    #endif
    #define YIELD() sched_yield()
    static double sklloss_now(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    }
    #endif

    #ifdef __linux__
    #include <sys/syscall.h>
    #include <unistd.h>
    typedef cpu_set_t sklloss_cpus;
    #else
    typedef char sklloss_cpus; /* not used */
    #endif

    /* Jobs at a time, and workers: where there are no more, a caller works alone. */
    enum { JOBS = 16, WORKERS = 127 };
    /* How long a thread waits in a loop before it sleeps: between passes lie up to 0.1 ms. */
    #define SPIN_SECONDS 2e-4
    /* How long a worker does so before it offers its processor to other threads, whenever it looks: longer
       than most pauses between passes. If it never did, it would lose the processor in the middle of a piece
       where other programs run. */
    #define KEEP_SECONDS 6e-5

    /* A use of `share`. Counts are int, for which every compiler has atomic operations. Padding keeps what
       the caller writes, what all write and what workers write as they leave in separate cache lines. */
    typedef struct sklloss_job {
        int entry;               /* 256 times the number of the job, plus how many workers may still join */
        int taken;               /* whether a caller has this place */
        void* task;
        int cpu;                 /* where the caller was as it began */
        char padding[108];
        int next;                /* pieces from this one on are not begun */
        int pieces;
        char more_padding[120];
        int left;                /* how many workers have left */
        int sleeps;              /* whether the caller waits for ``over`` */
        PyThread_type_lock over; /* locked */
        char last_padding[112];
    } sklloss_job;

    typedef struct {
        int sleeps;              /* whether the worker waits for ``bell`` */
        int thread;              /* the system's number of its thread */
        PyThread_type_lock bell; /* locked */
        int apart;               /* whether it was woken with other CPUs than those ``allowed`` */
        sklloss_cpus allowed;
        char padding[112];
    } sklloss_worker;

    static struct {
        sklloss_job jobs[JOBS];
        sklloss_worker workers[WORKERS];
        int published;           /* jobs so far */
        char padding[124];
        int waiting;             /* workers that wait in a loop */
        int serving;             /* workers that have begun to serve */
    } sklloss_team;

    /* Linux often runs a worker on its caller's CPU, where the two take turns: a new one, which it may leave
       there for 0.2 s, and one that wakes, as in a virtual machine a CPU that has been idle for a while
       counts as taken. So a worker is woken on another CPU, and one that joins its caller on the same CPU
       moves to another. For that the CPU is left out of those that the worker may use, until it has moved.
       Only the worker gives itself the CPU back: from then on it may use those of the caller who woke it.
       Where there is no other CPU, or this is refused, the system decides. */
    #ifdef __linux__
    static int sklloss_here(void)
    {
        return sched_getcpu();
    }

    static int sklloss_thread(void)
    {
        return (int)syscall(SYS_gettid);
    }

    /* Leaves a CPU out of those that this thread may use, which become ``allowed``, and gives the others to a
       worker, 0 for this thread; returns 0 if nothing has changed. */
    static int sklloss_leave_out(int cpu, int worker, cpu_set_t* allowed)
    {
        cpu_set_t others;
        if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof(*allowed), allowed) != 0)
            return 0;
        others = *allowed;
        CPU_CLR(cpu, &others);
        return CPU_COUNT(&others) > 0 && sched_setaffinity(worker, sizeof(others), &others) == 0;
    }

    static void sklloss_ring(sklloss_worker* worker)
    {
        worker->apart = sklloss_leave_out(sched_getcpu(), worker->thread, &worker->allowed);
        PyThread_release_lock(worker->bell);
    }

    /* What a worker does after it was woken. */
    static void sklloss_awake(sklloss_worker* me)
    {
        if (me->apart)
            sched_setaffinity(0, sizeof(me->allowed), &me->allowed);
    }

    /* Moves the thread that calls this. */
    static void sklloss_move_from(int cpu)
    {
        cpu_set_t allowed;
        if (sched_getcpu() == cpu && sklloss_leave_out(cpu, 0, &allowed))
            sched_setaffinity(0, sizeof(allowed), &allowed);
    }
    #else
    #define sklloss_here() 0
    #define sklloss_thread() 0
    #define sklloss_ring(worker) PyThread_release_lock((worker)->bell)
    #define sklloss_awake(me) ((void)(me))
    #define sklloss_move_from(cpu) ((void)(cpu))
    #endif

    /* Waits in a loop until a count is a value, and returns 1; or 0 if that takes too long. */
    static int sklloss_reaches(int* count, int value)
    {
        double end = sklloss_now() + SPIN_SECONDS;
        do {
            for (int turn = 0; turn < 16; turn++) {
                if (LOAD(count) == value)
                    return 1;
                PAUSE();
            }
        } while (sklloss_now() < end);
        return 0;
    }

    /* The same until it is another one. The processor is left to other threads after a while. */
    static int sklloss_changes(int* count, int value)
    {
        double start = sklloss_now(), passed = 0.0;
        do {
            for (int turn = 0; turn < 16; turn++) {
                if (LOAD(count) != value)
                    return 1;
                PAUSE();
            }
            if (passed > KEEP_SECONDS)
                YIELD();
            passed = sklloss_now() - start;
        } while (passed < SPIN_SECONDS);
        return 0;
    }

    static int sklloss_next_piece(sklloss_pieces* pieces)
    {
        sklloss_job* job = pieces->job;
        int piece = pieces->first;
        if (piece >= 0) {
            pieces->first = -1;
            return piece;
        }
        if (LOAD(&job->next) >= job->pieces)
            return -1;
        piece = ADD(&job->next, 1);
        return piece < job->pieces ? piece : -1;
    }

    static void sklloss_abandon(sklloss_pieces* pieces)
    {
        STORE(&pieces->job->next, pieces->job->pieces);
    }

    /* Until it leaves, a worker that has joined may use the job and its task: the caller waits. */
    static int sklloss_join(sklloss_job* job)
    {
        for (;;) {
            int entry = LOAD(&job->entry);
            if ((entry & 255) == 0 || LOAD(&job->next) >= LOAD(&job->pieces))
                return 0;
            if (REPLACES(&job->entry, entry, entry - 1))
                return 1;
        }
    }

    static void sklloss_leave(sklloss_job* job)
    {
        ADD(&job->left, 1);
        /* By now this may be another job in the same place, whose caller then looks once too often. */
        if (EXCHANGE(&job->sleeps, 0))
            PyThread_release_lock(job->over);
    }

    static void sklloss_wait_for_workers(sklloss_job* job, int joined)
    {
        if (sklloss_reaches(&job->left, joined))
            return;
        while (LOAD(&job->left) != joined) {
            STORE(&job->sleeps, 1);
            if (LOAD(&job->left) != joined || !EXCHANGE(&job->sleeps, 0))
                PyThread_acquire_lock(job->over, WAIT_LOCK);
        }
    }

    /* Wakes workers that sleep. */
    static void sklloss_wake(int most)
    {
        int serving = LOAD(&sklloss_team.serving);
        for (int k = 0; k < serving && k < WORKERS && most > 0; k++)
            if (LOAD(&sklloss_team.workers[k].sleeps) && EXCHANGE(&sklloss_team.workers[k].sleeps, 0)) {
                sklloss_ring(&sklloss_team.workers[k]);
                most--;
            }
    }

    typedef void (*sklloss_run)(void* task, sklloss_pieces* pieces);

    /* What a worker does, without end. */
    static void sklloss_serve(sklloss_worker* me, sklloss_run run)
    {
        for (;;) {
            int seen = LOAD(&sklloss_team.published), worked = 0, found;
            for (int k = 0; k < JOBS; k++) {
                sklloss_job* job = &sklloss_team.jobs[k];
                if (sklloss_join(job)) {
                    sklloss_pieces pieces = {job, -1};
                    sklloss_move_from(LOAD(&job->cpu));
                    run(job->task, &pieces);
                    sklloss_leave(job);
                    worked = 1;
                }
            }
            if (worked)
                continue;
            ADD(&sklloss_team.waiting, 1);
            found = sklloss_changes(&sklloss_team.published, seen);
            ADD(&sklloss_team.waiting, -1);
            if (!found) {
                STORE(&me->sleeps, 1);
                if (LOAD(&sklloss_team.published) == seen || !EXCHANGE(&me->sleeps, 0)) {
                    PyThread_acquire_lock(me->bell, WAIT_LOCK);
                    sklloss_awake(me);
                }
            }
        }
    }

    static sklloss_job* sklloss_take_job(void)
    {
        for (int k = 0; k < JOBS; k++)
            if (!LOAD(&sklloss_team.jobs[k].taken) && !EXCHANGE(&sklloss_team.jobs[k].taken, 1))
                return &sklloss_team.jobs[k];
        return NULL;
    }

    static void sklloss_share(void* task, int count, int workers, sklloss_run run)
    {
        sklloss_job alone, *job = workers > 0 ? sklloss_take_job() : NULL;
        sklloss_pieces pieces;
        int entry, joined;
        pieces.job = job ? job : &alone;
        pieces.first = 0;
        if (job == NULL) {
            alone.next = 1;
            alone.pieces = count;
            run(task, &pieces);
            return;
        }
        job->task = task;
        STORE(&job->cpu, sklloss_here());
        STORE(&job->left, 0);
        STORE(&job->next, 1);
        STORE(&job->pieces, count);
        entry = (int)(((unsigned)LOAD(&job->entry) & ~255u) + 256u);
        STORE(&job->entry, entry + workers);
        ADD(&sklloss_team.published, 1);
        sklloss_wake(workers - LOAD(&sklloss_team.waiting));
        run(task, &pieces);
        joined = workers - (EXCHANGE(&job->entry, entry) & 255);
        if (joined > 0)
            sklloss_wait_for_workers(job, joined);
        STORE(&job->taken, 0);
    }

    /* Forgets all workers and jobs, as a forked child has none of them; returns 0 if there is no memory. */
    static int sklloss_reset(void)
    {
        memset(&sklloss_team, 0, sizeof(sklloss_team));
        for (int k = 0; k < JOBS; k++) {
            PyThread_type_lock over = sklloss_team.jobs[k].over = PyThread_allocate_lock();
            if (over == NULL)
                return 0;
            PyThread_acquire_lock(over, WAIT_LOCK);
        }
        return 1;
    }

    /* A worker's own place; NULL if there are enough workers or no memory. */
    static sklloss_worker* sklloss_begin(void)
    {
        PyThread_type_lock bell = PyThread_allocate_lock();
        int me = ADD(&sklloss_team.serving, 1);
        if (bell == NULL || me >= WORKERS)
            return NULL;
        PyThread_acquire_lock(bell, WAIT_LOCK);
        sklloss_team.workers[me].bell = bell;
        sklloss_team.workers[me].thread = sklloss_thread();
        return &sklloss_team.workers[me];
    }
    """
    const int MOST_WORKERS "WORKERS"
    ctypedef struct Worker "sklloss_worker":
        pass
    ctypedef void (*run_function "sklloss_run")(void* task, Pieces* pieces) noexcept nogil
    int claim "sklloss_next_piece"(Pieces* pieces) noexcept nogil
    void claim_none "sklloss_abandon"(Pieces* pieces) noexcept nogil
    void work_and_wait "sklloss_share"(void* task, int pieces, int workers, run_function run) noexcept nogil
    Worker* begin "sklloss_begin"() noexcept nogil
    void serve_forever "sklloss_serve"(Worker* me, run_function run) noexcept nogil
    bint reset_team "sklloss_reset"() noexcept nogil

# Started, or about to be. Only changed with the GIL.
cdef int workers = 0


cdef class Task:
    """Work in numbered pieces. A subclass says in `run` what a piece is."""

    def __cinit__(self):
        self.status = -1

    cdef void run(self, Pieces* pieces) noexcept nogil:
        """Work on what `next_piece` gives until that is -1. Threads that share the task run this at once."""

    cdef void fail(self, Pieces* pieces, Py_ssize_t status) noexcept nogil:
        """Begin no further piece, and set the status, which ends as the least of those that pieces set."""
        claim_none(pieces)
        with gil:
            if self.status == -1 or status < self.status:
                self.status = status


cdef Py_ssize_t next_piece(Pieces* pieces) noexcept nogil:
    """The number of the next piece for this thread, or -1. They come in order; piece 0 is the caller's."""
    return claim(pieces)


cdef void run_task(void* task, Pieces* pieces) noexcept nogil:
    (<Task>task).run(pieces)


cdef int share(Task task, Py_ssize_t pieces, Py_ssize_t n_threads) except -1:
    """Work on a number of pieces, at least one and less than 2**31, on up to so many threads.

    Returns when all that were begun have ended. Raises MemoryError for NO_MEMORY; another status is for the
    caller to read.
    """
    cdef int helpers = helpers_of(min(pieces, n_threads))
    with nogil:
        share_with(task, pieces, helpers)
    if task.status == NO_MEMORY:
        raise MemoryError()
    return 0


cdef int helpers_of(Py_ssize_t n_threads) except -1:
    """How many workers to share with for that many threads in all; they are started where they are not."""
    cdef int helpers = <int>min(n_threads - 1, <Py_ssize_t>MOST_WORKERS)
    if helpers > workers:
        start_workers(helpers)
    return helpers


cdef void share_with(Task task, Py_ssize_t pieces, int helpers) noexcept nogil:
    """`share` with up to so many workers. What the status says is for the caller to read."""
    work_and_wait(<void*>task, <int>pieces, min(helpers, <int>pieces - 1), run_task)


cdef int start_workers(int most) except -1:
    """Start workers until there are so many; fewer if the system allows no more threads."""
    global workers
    while workers < most:
        workers += 1
        try:
            _thread.start_new_thread(serve, ())
        except RuntimeError:
            workers -= 1
            break
    return 0


def serve():
    """What a worker does, for as long as the process lives."""
    cdef Worker* me
    with nogil:
        me = begin()
        if me != NULL:
            serve_forever(me, run_task)


def reset():
    """Forget all workers and jobs: a forked child has none of its parent's threads."""
    global workers
    workers = 0
    if not reset_team():
        raise MemoryError()


reset()


cdef class Calls(Task):
    cdef object function
    cdef list arguments, results, errors

    cdef void run(self, Pieces* pieces) noexcept nogil:
        cdef Py_ssize_t piece = next_piece(pieces)
        while piece >= 0:
            with gil:
                if not self.call(piece):
                    claim_none(pieces)
            piece = next_piece(pieces)

    cdef bint call(self, Py_ssize_t piece) noexcept:
        """False after an error, after which no further call begins."""
        try:
            self.results[piece] = self.function(*self.arguments[piece])
        except BaseException as error:
            self.errors.append((piece, error))
            return False
        return True


def call_each(function, list arguments):
    """Call a Python function with each of these tuples of arguments, at best each on a thread of its own.

    The first call is the caller's. Returns the results in order, or raises the first error in that order.
    """
    cdef Calls calls = Calls()
    calls.function, calls.arguments = function, arguments
    calls.results, calls.errors = [None] * len(arguments), []
    share(calls, len(arguments), len(arguments))
    if calls.errors:
        raise min(calls.errors)[1]
    return calls.results
