# The formulas behind the kernels, each written once for float and double.
#
# Everything here is branch-free straight-line arithmetic, so that the compiler turns a loop over it
# into vector code. Two habits keep it exact:
#
# * A value that later steps depend on is carried as an unevaluated sum ``hi + lo``, with ``lo`` below
#   half a unit in the last place (ULP) of ``hi``; the last operation is the only one that rounds.
# * A literal is cast to the fused type. An untyped literal is a C double and would silently promote
#   a float32 loop to float64, at half the speed.
#
# The bounds below are in ULP of the result and were measured by tests/kernels/test_accuracy.py, which
# compares every build with mpmath; fused multiply-add, where a build has it, changes results within them.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

ctypedef fused real:
    float
    double

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline double sklloss_as_double(int64_t bits) {
        double value; memcpy(&value, &bits, sizeof value); return value;
    }
    static inline int64_t sklloss_double_bits(double value) {
        int64_t bits; memcpy(&bits, &value, sizeof bits); return bits;
    }
    static inline float sklloss_as_float(int32_t bits) {
        float value; memcpy(&value, &bits, sizeof value); return value;
    }
    static inline int32_t sklloss_float_bits(float value) {
        int32_t bits; memcpy(&bits, &value, sizeof bits); return bits;
    }
    """
    double as_double "sklloss_as_double"(int64_t bits) noexcept nogil
    int64_t double_bits "sklloss_double_bits"(double value) noexcept nogil
    float as_float "sklloss_as_float"(int32_t bits) noexcept nogil
    int32_t float_bits "sklloss_float_bits"(float value) noexcept nogil


cdef inline real power_of_two(real k) noexcept nogil:
    """2**k for a whole number k from -1022 (double) or -126 (float) to 127, exactly.

    Adding 1.5 * 2**52 (2**23) leaves the biased exponent in the low bits of the significand, from
    where a shift moves it into place.
    """
    if real is double:
        return as_double(<int64_t>(<uint64_t>double_bits(k + 6755399441055744.0 + 1023.0) << 52))
    else:
        return as_float(<int32_t>(<uint32_t>float_bits(k + <float>12582912.0 + <float>127.0) << 23))


cdef inline void exp_nonpositive(real x, real* hi, real* lo) noexcept nogil:
    """exp(x) for x <= 0 as hi + lo, with hi the nearest number to the sum.

    Steps: k = round(x / ln 2); r = x - k ln 2, with ln 2 in two parts so that the first subtraction is
    exact; exp(r) = 1 + r + r**2 P(r), P the minimax polynomial of degree 9 (double, error 2**-58) or
    4 (float, 2**-28); then both parts are scaled by 2**k. x below the last subnormal is clamped, and
    2**k is made in two factors whose product is exact down to the last subnormal: no flush to zero.
    NaN stays NaN (each comparison with it is false).

    Error of hi + lo: 0.3 ULP; of hi alone: 0.8 ULP.
    """
    cdef real k, r, q, tail, p, odd, s, one
    if real is double:
        x = -746.0 if x < -746.0 else x
        k = (x * 1.4426950408889634 + 6755399441055744.0) - 6755399441055744.0
        s = x - k * 0.693147180559663
        r = s - k * 2.8235290563031577e-13
        tail = (s - r) - k * 2.8235290563031577e-13
        q = r * r
        p = 2.763127995141011949e-7
        p = p * q + 2.48014899433164824e-5
        p = p * q + 1.388888894701483535e-3
        p = p * q + 4.166666666651542275e-2
        p = p * q + 5.000000000000012741e-1
        odd = 2.511785094486902473e-8
        odd = odd * q + 2.75572163303929579e-6
        odd = odd * q + 1.984126991735374343e-4
        odd = odd * q + 8.333333333307216953e-3
        odd = odd * q + 1.666666666666669905e-1
        s = -960.0 if k < -960.0 else k
    else:
        x = <float>-104.5 if x < <float>-104.5 else x
        k = (x * <float>1.4426950408889634 + <float>12582912.0) - <float>12582912.0
        s = x - k * <float>0.693145751953125
        r = s - k * <float>1.4286068203094173e-06
        tail = (s - r) - k * <float>1.4286068203094173e-06
        q = r * r
        p = <float>1.395049179012834682e-3
        p = p * q + <float>4.166620579266972666e-2
        p = p * q + <float>5.000000095187440471e-1
        odd = <float>8.368889283487148576e-3
        odd = odd * q + <float>1.6666518840438951e-1
        s = <float>-96.0 if k < <float>-96.0 else k
    p = r + ((odd * r + p) * q + tail)
    one = <real>1.0 + p
    p = p - (one - <real>1.0)
    s = power_of_two(s) * power_of_two(k - s)
    hi[0] = one * s
    lo[0] = p * s


cdef inline real log1p_polynomial(real z) noexcept nogil:
    """R(z) = 2/3 z + 2/5 z**2 + ..., where log(1 + f) = 2 t + t R(t**2) and t = f / (2 + f).

    Even and odd powers apart, two short chains instead of a long one. Minimax on z in [0, 1/9], degree 9 (double, error of t R: 2**-60) or 3 (float, 2**-29).
    """
    cdef real q, p, even
    if real is double:
        q = z * z
        p = 1.738797904411092481e-1
        p = p * q + 1.215821075194242456e-1
        p = p * q + 1.538715323082244206e-1
        p = p * q + 2.222222495785452999e-1
        p = p * q + 4.000000000033331656e-1
        even = 8.127771835184240366e-2
        even = even * q + 1.329384648548945532e-1
        even = even * q + 1.818171307050766438e-1
        even = even * q + 2.857142852943447124e-1
        even = even * q + 6.666666666666567637e-1
    else:
        q = z * z
        p = <float>2.842995180079764178e-1
        p = p * q + <float>4.002830465455646779e-1
        even = <float>2.790639101907431831e-1
        even = even * q + <float>6.666627114628750315e-1
    return (p * z + even) * z


cdef inline real log1p_unit(real e, real correction) noexcept nogil:
    """log(1 + e) + correction for e in [0, 1] and a correction below one ULP.

    With h = e**2 / 2 and t = e / (2 + e): log1p(e) = e - (h - t (h + R(t**2))), so the leading term e
    is exact and what is rounded is small against it. Error: 1.2 ULP, near e = 1.
    """
    cdef real h = <real>0.5 * e * e
    cdef real t = e / (<real>2.0 + e)
    return e - (h - (t * (h + log1p_polynomial(t * t)) + correction))


cdef inline void logistic_parts(real z, real* small, real* large, real* log1p_e) noexcept nogil:
    """For e = exp(-|z|): e / (1 + e), 1 / (1 + e) and log(1 + e).

    The larger of sigmoid(z) and sigmoid(-z) is 1 / (1 + e), the smaller e / (1 + e): both keep
    their relative accuracy. The rounding of 1 + e is recovered (c) and enters as a correction.

    Error: small 1.2 ULP, large 1.1 ULP, log1p_e 1.3 ULP.
    """
    cdef real e, lo, d, c, s
    exp_nonpositive(-z if z > <real>0.0 else z, &e, &lo)
    d = <real>1.0 + e
    c = (e - (d - <real>1.0)) + lo
    s = e / d
    s = s + (lo - s * c) * (<real>1.0 - s)
    small[0] = s
    large[0] = <real>1.0 - s
    log1p_e[0] = log1p_unit(e, lo * (<real>1.0 - s))


cdef inline real log_loss(real z, real y, real* gradient, real* curvature) noexcept nogil:
    """-y log p - (1 - y) log(1 - p) for p = sigmoid(z), with its derivatives (1 - y) p - y (1 - p) and p (1 - p).

    Written as log1p(e) + |z| * (the probability that y gives to the losing side): all terms are
    positive and nothing cancels; a certain wrong answer costs |z|. At infinite z the loss is 0 where
    y is certain and right, else infinite, never NaN.

    Error: loss 1.9 ULP (hard y: 1.6, near z = +-0.7); gradient 1.3 ULP for y in {0, 1}, and 1.5 ULP
    of the larger of p and y between.
    """
    cdef real small, large, loss, p, q, against
    logistic_parts(z, &small, &large, &loss)
    p = large if z >= <real>0.0 else small
    q = small if z >= <real>0.0 else large
    gradient[0] = (<real>1.0 - y) * p - y * q
    curvature[0] = small * large
    against = (<real>1.0 - y) if z >= <real>0.0 else y
    z = z if z >= <real>0.0 else -z
    # 0 * inf is NaN: a side without probability costs nothing, however large the score.
    return loss + (against * z if against != <real>0.0 else <real>0.0)


cdef inline void two_sum(real a, real b, real* hi, real* lo) noexcept nogil:
    """a + b = hi + lo exactly (Knuth), whatever the order of a and b."""
    cdef real s = a + b
    cdef real t = s - a
    lo[0] = (a - (s - t)) + (b - t)
    hi[0] = s


cdef inline void compensated_add(real x, real x_lo, real* total, real* carry) noexcept nogil:
    """Kahan's summation of non-negative terms x + x_lo; the sum so far is total - carry."""
    cdef real y = x + (x_lo - carry[0])
    cdef real t = total[0] + y
    carry[0] = (t - total[0]) - y
    total[0] = t


cdef inline void reciprocal(real d, real d_lo, real* hi, real* lo) noexcept nogil:
    """1 / (d + d_lo) as hi + lo.

    In double the residual 1 - d hi is formed exactly from 26-bit halves (Dekker), which every build
    can do; the halves are cut with a mask because a multiplication could be fused.
    """
    cdef double wide, dh, dl, rh, rl
    if real is double:
        hi[0] = 1.0 / d
        dh = as_double(double_bits(d) & <int64_t>-134217728)
        rh = as_double(double_bits(hi[0]) & <int64_t>-134217728)
        dl = d - dh
        rl = hi[0] - rh
        lo[0] = ((((1.0 - dh * rh) - dh * rl) - dl * rh) - dl * rl - d_lo * hi[0]) * hi[0]
    else:
        wide = 1.0 / (<double>d + <double>d_lo)
        hi[0] = <float>wide
        lo[0] = <float>(wide - <double>hi[0])


cdef inline real log1p_positive(real s, real s_lo) noexcept nogil:
    """log(1 + s + s_lo) for s >= 0 and s_lo below one ULP of it.

    u = 1 + s (with what its rounding lost) is cut into 2**k m, m in [0.71, 1.42); then
    k ln 2 + log1p(m - 1) with the polynomial of log1p_unit. Error: 1.2 ULP.
    """
    cdef real u, c, k, f, h, t
    cdef uint64_t bits
    cdef uint32_t bits32
    two_sum(<real>1.0, s, &u, &c)
    c = c + s_lo
    if real is double:
        bits = <uint64_t>double_bits(u) + <uint64_t>0x00095F6400000000
        k = as_double(<int64_t>((bits >> 52) + <uint64_t>0x4338000000000000)) - (6755399441055744.0 + 1023.0)
        f = as_double(<int64_t>((bits & <uint64_t>0x000FFFFFFFFFFFFF) + <uint64_t>0x3FE6A09C00000000)) - 1.0
    else:
        bits32 = <uint32_t>float_bits(u) + <uint32_t>0x004AFB20
        k = as_float(<int32_t>((bits32 >> 23) + <uint32_t>0x4B400000)) - (<float>12582912.0 + <float>127.0)
        f = as_float(<int32_t>((bits32 & <uint32_t>0x007FFFFF) + <uint32_t>0x3F3504E0)) - <float>1.0
    c = c / u
    h = <real>0.5 * f * f
    t = f / (<real>2.0 + f)
    if real is double:
        return k * 0.693147180559663 + (f - (h - (t * (h + log1p_polynomial(t * t)) + (c + k * 2.8235290563031577e-13))))
    else:
        return k * <float>0.693145751953125 + (f - (h - (t * (h + log1p_polynomial(t * t)) + (c + k * <float>1.4286068203094173e-06))))
