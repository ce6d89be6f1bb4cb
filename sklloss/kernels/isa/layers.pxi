# The arithmetic of a network between its matrix products, included by each the builds: activations and
# their derivatives, layers of one output, sparse rows, and the steps of the optimisers.

from libc.math cimport sqrtf
from libc.stdint cimport int32_t, int64_t

from sklloss.kernels.network.types cimport Ahead, LayerKernels, Step

include "activations.pxi"

cdef extern from "gemm.h" nogil:
    enum:
        SKLLOSS_PANEL
        SKLLOSS_TALL
    void sklloss_product_f32(
        const void* a, Py_ssize_t lda, const void* b, Py_ssize_t ldb, bint transposed, void* c,
        Py_ssize_t ldc, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k
    ) noexcept
    void sklloss_product_f64(
        const void* a, Py_ssize_t lda, const void* b, Py_ssize_t ldb, bint transposed, void* c,
        Py_ssize_t ldc, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k
    ) noexcept
    void sklloss_pack_f32(const void* b, Py_ssize_t ldb, Py_ssize_t k, Py_ssize_t n, void* out) noexcept
    void sklloss_pack_f64(const void* b, Py_ssize_t ldb, Py_ssize_t k, Py_ssize_t n, void* out) noexcept
    void sklloss_outer_f32(
        const void* a, Py_ssize_t lda, const void* packed, void* c, Py_ssize_t ldc, Py_ssize_t m,
        Py_ssize_t n, Py_ssize_t k, bint add, Ahead* ahead
    ) noexcept
    void sklloss_outer_f64(
        const void* a, Py_ssize_t lda, const void* packed, void* c, Py_ssize_t ldc, Py_ssize_t m,
        Py_ssize_t n, Py_ssize_t k, bint add, Ahead* ahead
    ) noexcept

cdef enum:
    STRIP = 256        # numbers that are summed in the dtype itself before they enter a sum in double
    WIDE = 16          # running sums of a dot product


# Layers of one output: a matrix product would run at the speed of its shortest side ---------------------

cdef inline void forward_one(
    const real* x, Py_ssize_t step, const real* coef, real* out, Py_ssize_t rows, Py_ssize_t width,
) noexcept nogil:
    cdef real lane[WIDE]
    cdef Py_ssize_t i, j, k
    cdef Py_ssize_t whole = width - width % WIDE
    for i in range(rows):
        for k in range(WIDE):
            lane[k] = 0.0
        for j in range(0, whole, 16):
            for k in range(WIDE):
                lane[k] += x[j + k] * coef[j + k]
        for j in range(whole, width):
            lane[j - whole] += x[j] * coef[j]
        for k in range(8):
            lane[k] += lane[k + 8]
        for k in range(4):
            lane[k] += lane[k + 4]
        out[i] = (lane[0] + lane[2]) + (lane[1] + lane[3])
        x += step


cdef inline void backward_one(
    const real* x, Py_ssize_t step, const real* delta, const real* coef, real* gradient, real* below,
    Py_ssize_t rows, Py_ssize_t width,
) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef real d
    for i in range(rows):
        d = delta[i]
        if below != NULL:
            for j in range(width):
                gradient[j] += x[j] * d
                below[j] = d * coef[j]
            below += width
        else:
            for j in range(width):
                gradient[j] += x[j] * d
        x += step


# Sparse rows -------------------------------------------------------------------------------------------

cdef inline void sparse_forward(
    const real* values, const int32_t* columns, const int64_t* starts, const Py_ssize_t* rows_at,
    Py_ssize_t first, Py_ssize_t rows, const real* coef, Py_ssize_t width, real* out,
) noexcept nogil:
    cdef Py_ssize_t i, j, k, row
    cdef const real* line
    cdef real x
    for i in range(rows):
        row = rows_at[i] if rows_at != NULL else first + i
        for j in range(width):
            out[j] = 0.0
        for k in range(starts[row], starts[row + 1]):
            line = coef + <Py_ssize_t>columns[k] * width
            x = values[k]
            for j in range(width):
                out[j] += x * line[j]
        out += width


cdef inline void sparse_backward(
    const real* values, const int32_t* columns, const int64_t* starts, const Py_ssize_t* rows_at,
    Py_ssize_t first, Py_ssize_t rows, const real* delta, Py_ssize_t width, real* gradient,
) noexcept nogil:
    cdef Py_ssize_t i, j, k, row
    cdef real* line
    cdef real x
    for i in range(rows):
        row = rows_at[i] if rows_at != NULL else first + i
        for k in range(starts[row], starts[row + 1]):
            line = gradient + <Py_ssize_t>columns[k] * width
            x = values[k]
            for j in range(width):
                line[j] += x * delta[j]
        delta += width


# Steps of the optimisers ---------------------------------------------------------------------------------

cdef inline double squares(const real* x, Py_ssize_t n) noexcept nogil:
    """The sum of squares: in strips in the dtype itself, the strips in double."""
    cdef real lane[WIDE]
    cdef double total = 0.0
    cdef Py_ssize_t first = 0, i, k, m, whole
    while first < n:
        m = min(<Py_ssize_t>STRIP, n - first)
        whole = m - m % WIDE
        for k in range(WIDE):
            lane[k] = 0.0
        for i in range(0, whole, 16):
            for k in range(WIDE):
                lane[k] += x[first + i + k] * x[first + i + k]
        for i in range(whole, m):
            lane[i - whole] += x[first + i] * x[first + i]
        for k in range(WIDE):
            total += <double>lane[k]
        first += STRIP
    return total


cdef inline real root(real x) noexcept nogil:
    if real is double:
        return sqrt(x)
    else:
        return sqrtf(x)


cdef inline void adam_range(
    const Step* step, Py_ssize_t low, Py_ssize_t high, real penalty, real kept,
) noexcept nogil:
    cdef real* p = <real*>step.parameters
    cdef const real* gradient = <const real*>step.gradient
    cdef real* first = <real*>step.first
    cdef real* second = <real*>step.second
    cdef real inverse = <real>step.inverse, rate = <real>step.rate, epsilon = <real>step.epsilon
    cdef real keep = <real>step.decay, take = <real>(1.0 - step.decay)
    cdef real keep_second = <real>step.decay_second, take_second = <real>(1.0 - step.decay_second)
    cdef real g, m, v
    cdef Py_ssize_t i
    for i in range(low, high):
        g = (gradient[i] + penalty * p[i]) * inverse
        m = keep * first[i] + take * g
        v = keep_second * second[i] + take_second * (g * g)
        first[i] = m
        second[i] = v
        p[i] = kept * p[i] - rate * m / (root(v) + epsilon)


cdef inline void adam(const Step* step, Py_ssize_t low, Py_ssize_t high, real* unused) noexcept nogil:
    """Adam (Kingma and Ba 2015); the bias correction is part of the rate, as in its section 2.

    With a shrinkage of the weights it is AdamW (Loshchilov and Hutter 2019).
    """
    cdef Py_ssize_t middle = min(max(low, step.penalised), high)
    adam_range(step, low, middle, <real>step.penalty, <real>(1.0 - step.shrink))
    adam_range(step, middle, high, <real>0.0, <real>1.0)


cdef inline void sgd_range(
    const Step* step, Py_ssize_t low, Py_ssize_t high, real penalty,
) noexcept nogil:
    cdef real* p = <real*>step.parameters
    cdef const real* gradient = <const real*>step.gradient
    cdef real* velocity = <real*>step.first
    cdef real inverse = <real>step.inverse, rate = <real>step.rate, momentum = <real>step.decay
    cdef real g, v
    cdef Py_ssize_t i
    if step.nesterov:
        for i in range(low, high):
            g = rate * ((gradient[i] + penalty * p[i]) * inverse)
            v = momentum * velocity[i] - g
            velocity[i] = v
            p[i] = p[i] + (momentum * v - g)
    else:
        for i in range(low, high):
            g = rate * ((gradient[i] + penalty * p[i]) * inverse)
            v = momentum * velocity[i] - g
            velocity[i] = v
            p[i] = p[i] + v


cdef inline void sgd(const Step* step, Py_ssize_t low, Py_ssize_t high, real* unused) noexcept nogil:
    """Gradient descent with momentum, Nesterov's where the step says so."""
    cdef Py_ssize_t middle = min(max(low, step.penalised), high)
    sgd_range(step, low, middle, <real>step.penalty)
    sgd_range(step, middle, high, <real>0.0)


# The table -----------------------------------------------------------------------------------------------

cdef void activate_f32(
    void* z, void* slope, const void* bias, Py_ssize_t rows, Py_ssize_t width, int activation
) noexcept nogil:
    activate(<float*>z, <float*>slope, <const float*>bias, rows, width, activation)


cdef void backward_f32(
    void* delta, const void* active, void* bias_gradient, Py_ssize_t rows, Py_ssize_t width, int activation
) noexcept nogil:
    backward(<float*>delta, <const float*>active, <float*>bias_gradient, rows, width, activation)


cdef void sparse_forward_f32(
    const void* values, const int32_t* columns, const int64_t* starts, const Py_ssize_t* rows_at,
    Py_ssize_t first, Py_ssize_t rows, const void* coef, Py_ssize_t width, void* out
) noexcept nogil:
    sparse_forward(
        <const float*>values, columns, starts, rows_at, first, rows, <const float*>coef, width, <float*>out
    )


cdef void sparse_backward_f32(
    const void* values, const int32_t* columns, const int64_t* starts, const Py_ssize_t* rows_at,
    Py_ssize_t first, Py_ssize_t rows, const void* delta, Py_ssize_t width, void* gradient
) noexcept nogil:
    sparse_backward(
        <const float*>values, columns, starts, rows_at, first, rows, <const float*>delta, width,
        <float*>gradient,
    )


cdef void forward_one_f32(
    const void* x, Py_ssize_t step, const void* coef, void* out, Py_ssize_t rows, Py_ssize_t width
) noexcept nogil:
    forward_one(<const float*>x, step, <const float*>coef, <float*>out, rows, width)


cdef void backward_one_f32(
    const void* x, Py_ssize_t step, const void* delta, const void* coef, void* gradient, void* below,
    Py_ssize_t rows, Py_ssize_t width
) noexcept nogil:
    backward_one(
        <const float*>x, step, <const float*>delta, <const float*>coef, <float*>gradient, <float*>below,
        rows, width,
    )


cdef double squares_f32(const void* x, Py_ssize_t n) noexcept nogil:
    return squares(<const float*>x, n)


cdef void adam_f32(const Step* step, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    adam(step, low, high, <float*>NULL)


cdef void sgd_f32(const Step* step, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    sgd(step, low, high, <float*>NULL)


cdef void activate_f64(
    void* z, void* slope, const void* bias, Py_ssize_t rows, Py_ssize_t width, int activation
) noexcept nogil:
    activate(<double*>z, <double*>slope, <const double*>bias, rows, width, activation)


cdef void backward_f64(
    void* delta, const void* active, void* bias_gradient, Py_ssize_t rows, Py_ssize_t width, int activation
) noexcept nogil:
    backward(<double*>delta, <const double*>active, <double*>bias_gradient, rows, width, activation)


cdef void sparse_forward_f64(
    const void* values, const int32_t* columns, const int64_t* starts, const Py_ssize_t* rows_at,
    Py_ssize_t first, Py_ssize_t rows, const void* coef, Py_ssize_t width, void* out
) noexcept nogil:
    sparse_forward(
        <const double*>values, columns, starts, rows_at, first, rows, <const double*>coef, width, <double*>out
    )


cdef void sparse_backward_f64(
    const void* values, const int32_t* columns, const int64_t* starts, const Py_ssize_t* rows_at,
    Py_ssize_t first, Py_ssize_t rows, const void* delta, Py_ssize_t width, void* gradient
) noexcept nogil:
    sparse_backward(
        <const double*>values, columns, starts, rows_at, first, rows, <const double*>delta, width,
        <double*>gradient,
    )


cdef void forward_one_f64(
    const void* x, Py_ssize_t step, const void* coef, void* out, Py_ssize_t rows, Py_ssize_t width
) noexcept nogil:
    forward_one(<const double*>x, step, <const double*>coef, <double*>out, rows, width)


cdef void backward_one_f64(
    const void* x, Py_ssize_t step, const void* delta, const void* coef, void* gradient, void* below,
    Py_ssize_t rows, Py_ssize_t width
) noexcept nogil:
    backward_one(
        <const double*>x, step, <const double*>delta, <const double*>coef, <double*>gradient, <double*>below,
        rows, width,
    )


cdef double squares_f64(const void* x, Py_ssize_t n) noexcept nogil:
    return squares(<const double*>x, n)


cdef void adam_f64(const Step* step, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    adam(step, low, high, <double*>NULL)


cdef void sgd_f64(const Step* step, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    sgd(step, low, high, <double*>NULL)


cdef LayerKernels layers_f32
cdef LayerKernels layers_f64
layers_f32.activate = activate_f32
layers_f32.backward = backward_f32
layers_f32.sparse_forward = sparse_forward_f32
layers_f32.sparse_backward = sparse_backward_f32
layers_f32.forward_one = forward_one_f32
layers_f32.backward_one = backward_one_f32
layers_f32.panel = SKLLOSS_PANEL // 4
layers_f32.tall = SKLLOSS_TALL
layers_f32.product = sklloss_product_f32
layers_f32.pack = sklloss_pack_f32
layers_f32.outer = sklloss_outer_f32
layers_f32.squares = squares_f32
layers_f32.adam = adam_f32
layers_f32.sgd = sgd_f32
layers_f64.activate = activate_f64
layers_f64.backward = backward_f64
layers_f64.sparse_forward = sparse_forward_f64
layers_f64.sparse_backward = sparse_backward_f64
layers_f64.forward_one = forward_one_f64
layers_f64.backward_one = backward_one_f64
layers_f64.panel = SKLLOSS_PANEL // 8
layers_f64.tall = SKLLOSS_TALL
layers_f64.product = sklloss_product_f64
layers_f64.pack = sklloss_pack_f64
layers_f64.outer = sklloss_outer_f64
layers_f64.squares = squares_f64
layers_f64.adam = adam_f64
layers_f64.sgd = sgd_f64


def network_table():
    """The kernels of a network by dtype, as capsules that sklloss.kernels.network.network can call."""
    return {
        "float32": PyCapsule_New(<void*>&layers_f32, "sklloss.layer_kernels", NULL),
        "float64": PyCapsule_New(<void*>&layers_f64, "sklloss.layer_kernels", NULL),
    }
