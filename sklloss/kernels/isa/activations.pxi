# The activations of a layer and their derivatives, included by layers.pxi.

from sklloss.kernels.isa.formulas cimport logistic_parts, product_error
from sklloss.kernels.network.types cimport ELU, GELU, LOGISTIC, RELU, SILU, TANH, needs_slope

cdef extern from *:
    """
    /* What rounding took from p = z * z; sklloss_product_error of formulas.pxd for a float. */
    static inline float sklloss_square_error(float z, float p) {
    #if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
        return __builtin_fmaf(z, z, -p);
    #else
        float h = sklloss_as_float(sklloss_float_bits(z) & -4096), l = z - h;
        return ((h * h - p) + 2.0f * (h * l)) + l * l;
    #endif
    }
    """
    float square_error "sklloss_square_error"(float z, float p) noexcept nogil

cdef extern from *:
    """
    /* `backward` of relu for four rows, whose sum enters the gradient of the biases at once: to add to a
       number in memory takes longer than the rest. In C, to say that rows do not overlap. */
    #define SKLLOSS_RELU(real, name) \
        static inline void name(real* delta, const real* active, real* bias_gradient, ptrdiff_t width) { \
            real *d0 = delta, *d1 = d0 + width, *d2 = d1 + width, *d3 = d2 + width; \
            const real *a0 = active, *a1 = a0 + width, *a2 = a1 + width, *a3 = a2 + width; \
            _Pragma("GCC ivdep") \
            for (ptrdiff_t j = 0; j < width; j++) { \
                real x0 = a0[j] != 0 ? d0[j] : 0, x1 = a1[j] != 0 ? d1[j] : 0; \
                real x2 = a2[j] != 0 ? d2[j] : 0, x3 = a3[j] != 0 ? d3[j] : 0; \
                d0[j] = x0, d1[j] = x1, d2[j] = x2, d3[j] = x3; \
                bias_gradient[j] += (x0 + x1) + (x2 + x3); \
            } \
        }
    SKLLOSS_RELU(float, sklloss_relu_f32)
    SKLLOSS_RELU(double, sklloss_relu_f64)
    """
    void relu_f32 "sklloss_relu_f32"(
        float* delta, const float* active, float* bias_gradient, Py_ssize_t width
    ) noexcept nogil
    void relu_f64 "sklloss_relu_f64"(
        double* delta, const double* active, double* bias_gradient, Py_ssize_t width
    ) noexcept nogil


cdef inline real hyperbolic_tangent(real z) noexcept nogil:
    """tanh(z) = -m / (2 + m) with m = exp(-2|z|) - 1.

    exp_nonpositive gives exp as hi + lo, where (hi - 1) + lo is the polynomial itself while
    2|z| < ln(2) / 2, so m keeps its relative accuracy down to z = 0.

    Error: 2.5 ULP, from |z| = 3 on, where 2 + m and the quotient round in steps coarser than the result's.
    """
    cdef real e, lo, m
    exp_nonpositive(<real>-2.0 * z if z > <real>0.0 else <real>2.0 * z, &e, &lo)
    m = (e - <real>1.0) + lo
    m = m / (<real>2.0 + m)
    return -m if z > <real>0.0 else m


cdef inline real logistic(real z) noexcept nogil:
    """1 / (1 + exp(-z)). Error: 1.2 ULP."""
    cdef real small, large, unused
    logistic_parts(z, &small, &large, &unused)
    return large if z >= <real>0.0 else small


cdef inline real gelu(real z, real* slope) noexcept nogil:
    """z Phi(z), Phi the distribution function of the standard normal, and its derivative Phi(z) + z phi(z).

    With t = |z|, Phi(-t) = exp(-t**2 / 2) R(t). R(t) (t + c) is smooth in s = (t - c) / (t + c): a polynomial
    of degree 23 with c = 5 (double, error 2**-60) or 10 with c = 3 (float, 2**-29.6), fitted at Chebyshev's
    nodes for t up to 40 (float: 15), where Phi(-t) is 0. What rounding takes from t**2 is given back to
    the exponential, so that the left tail keeps its relative accuracy.

    Error: 3.8 ULP. The derivative: within 1.4 times the machine epsilon.
    """
    cdef real d, e, h, lo, p, s, t
    # below the clamp Phi is 0: infinity times it would be NaN
    if real is double:
        z = -40.0 if z < -40.0 else z
        t = 40.0 if z > 40.0 else abs(z)
        h = t * t
        d = 1.0 / (t + 5.0)
        s = 2.0 * t * d - 1.0
        p = -3.811591216859991484e-10
        p = p * s - 1.1587067068417079471e-9
        p = p * s + 2.2231550232580247395e-9
        p = p * s + 1.0793477810959655961e-8
        p = p * s - 8.5641200824097403945e-9
        p = p * s - 7.0141518552715186944e-8
        p = p * s + 4.0188502351482562872e-8
        p = p * s + 4.3629597769055443818e-7
        p = p * s - 3.3458070480827050267e-7
        p = p * s - 2.7707241725170538083e-6
        p = p * s + 3.9798074584623732325e-6
        p = p * s + 0.000016681641487337262026
        p = p * s - 0.00004976245671937835773
        p = p * s - 0.000059375807898063176878
        p = p * s + 0.00054489899282073360844
        p = p * s - 0.00079786938920602304452
        p = p * s - 0.002993376761871154401
        p = p * s + 0.020795066799251923221
        p = p * s - 0.069118638706878270499
        p = p * s + 0.16502036617040754393
        p = p * s - 0.31353315667128743441
        p = p * s + 0.49530561596997606653
        p = p * s - 0.66538250289005685197
        p = p * s + 0.76919304975006295954
        exp_nonpositive(-0.5 * h, &e, &lo)
        e = e + (lo - 0.5 * product_error(t, t, h) * e)
        s = e * 0.3989422804014327
    else:
        z = <float>-15.0 if z < <float>-15.0 else z
        t = <float>15.0 if z > <float>15.0 else abs(z)
        h = t * t
        d = <float>1.0 / (t + <float>3.0)
        s = <float>2.0 * t * d - <float>1.0
        p = <float>5.54918717168e-5
        p = p * s + <float>0.000133323954204
        p = p * s - <float>0.000244709320792
        p = p * s - <float>0.00103447655089
        p = p * s + <float>0.00102415732438
        p = p * s + <float>0.00696992015091
        p = p * s - <float>0.0104622889665
        p = p * s - <float>0.0472627619212
        p = p * s + <float>0.230017676674
        p = p * s - <float>0.509331988835
        p = p * s + <float>0.729083690714
        exp_nonpositive(<float>-0.5 * h, &e, &lo)
        e = e + (lo - <float>0.5 * square_error(t, h) * e)
        s = e * <float>0.3989422804014327
    d = d * p
    p = e * d
    p = p if z < <real>0.0 else <real>1.0 - p
    slope[0] = p + t * s if z > <real>0.0 else p - t * s
    return z * d * e if z < <real>0.0 else z * p


cdef inline real silu(real z, real* slope) noexcept nogil:
    """z p for p = 1 / (1 + exp(-z)), and its derivative p + z p (1 - p).

    Error: 2.1 ULP. The derivative: within the machine epsilon.
    """
    cdef real small, large, unused, p
    # below the clamp p is 0: infinity times it would be NaN
    if real is double:
        z = -800.0 if z < -800.0 else z
    else:
        z = <float>-120.0 if z < <float>-120.0 else z
    logistic_parts(z, &small, &large, &unused)
    p = large if z >= <real>0.0 else small
    slope[0] = p + (min(z, <real>800.0) * small) * large
    return z * p


cdef inline real elu(real z) noexcept nogil:
    """z, or exp(z) - 1 below 0, which keeps its relative accuracy. Error: 1.1 ULP."""
    cdef real e, lo
    exp_nonpositive(z if z < <real>0.0 else <real>0.0, &e, &lo)
    return (e - <real>1.0) + lo if z < <real>0.0 else z


cdef inline void activate(
    real* z, real* slope, const real* bias, Py_ssize_t rows, Py_ssize_t width, int activation,
) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef real unused
    for i in range(rows):
        if activation == RELU:
            for j in range(width):
                # written so that NaN stays NaN
                z[j] = <real>0.0 if z[j] + bias[j] < <real>0.0 else z[j] + bias[j]
        elif activation == TANH:
            for j in range(width):
                z[j] = hyperbolic_tangent(z[j] + bias[j])
        elif activation == LOGISTIC:
            for j in range(width):
                z[j] = logistic(z[j] + bias[j])
        elif activation == GELU:
            if slope != NULL:
                for j in range(width):
                    z[j] = gelu(z[j] + bias[j], slope + j)
                slope += width
            else:
                for j in range(width):
                    z[j] = gelu(z[j] + bias[j], &unused)
        elif activation == SILU:
            if slope != NULL:
                for j in range(width):
                    z[j] = silu(z[j] + bias[j], slope + j)
                slope += width
            else:
                for j in range(width):
                    z[j] = silu(z[j] + bias[j], &unused)
        elif activation == ELU:
            for j in range(width):
                z[j] = elu(z[j] + bias[j])
        else:
            for j in range(width):
                z[j] = z[j] + bias[j]
        z += width


cdef inline void backward(
    real* delta, const real* active, real* bias_gradient, Py_ssize_t rows, Py_ssize_t width, int activation,
) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef Py_ssize_t fours = rows // 4 if activation == RELU else 0
    cdef real d
    for i in range(fours):
        if real is double:
            relu_f64(delta, active, bias_gradient, width)
        else:
            relu_f32(delta, active, bias_gradient, width)
        delta += 4 * width
        active += 4 * width
    for i in range(4 * fours, rows):
        if activation == RELU:
            for j in range(width):
                d = delta[j] if active[j] != <real>0.0 else <real>0.0
                delta[j] = d
                bias_gradient[j] += d
        elif activation == TANH:
            for j in range(width):
                d = delta[j] * (<real>1.0 - active[j] * active[j])
                delta[j] = d
                bias_gradient[j] += d
        elif activation == LOGISTIC:
            for j in range(width):
                d = delta[j] * (active[j] * (<real>1.0 - active[j]))
                delta[j] = d
                bias_gradient[j] += d
        elif needs_slope(activation):
            for j in range(width):
                d = delta[j] * active[j]
                delta[j] = d
                bias_gradient[j] += d
        elif activation == ELU:
            for j in range(width):
                d = delta[j] * (<real>1.0 + active[j] if active[j] < <real>0.0 else <real>1.0)
                delta[j] = d
                bias_gradient[j] += d
        else:
            for j in range(width):
                bias_gradient[j] += delta[j]
        delta += width
        active += width
