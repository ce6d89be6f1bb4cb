# The functions that the formulas of the losses are made of, each written once for float and double.
#
# Everything here is branch-free straight-line arithmetic, so that the compiler turns a loop over it
# into vector code. Two rules keep it exact:
#
# * A value that later steps depend on is carried as an unevaluated sum ``hi + lo``, with ``lo`` below
#   half a unit in the last place (ULP) of ``hi``; the last operation is the only one that rounds.
# * A literal is cast to the fused type. An untyped literal is a C double and would silently promote
#   a float32 loop to float64, at half the speed.
#
# The bounds below are in ULP of the result, over all builds: the largest error and where it was met in
# 600 000 scores a dtype. tests/kernels/test_accuracy.py holds 2 ULP (softmax: 4), tests/losses/
# test_accuracy.py compares extremes with mpmath. Fused multiply-add, where a build has it, changes
# results within these bounds.

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
    #if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    #define SKLLOSS_FUSED 1
    #else
    #define SKLLOSS_FUSED 0
    #endif
    /* The rounding error of p = a * b: by a fused operation, or from 26-bit halves (Dekker). A mask splits
       the numbers, because a compiler could fuse a multiplication without defining a macro that says so. */
    static inline double sklloss_product_error(double a, double b, double p) {
    #if SKLLOSS_FUSED
        return __builtin_fma(a, b, -p);
    #else
        double ah = sklloss_as_double(sklloss_double_bits(a) & -134217728LL), al = a - ah;
        double bh = sklloss_as_double(sklloss_double_bits(b) & -134217728LL), bl = b - bh;
        return (((ah * bh - p) + ah * bl) + al * bh) + al * bl;
    #endif
    }
    """
    enum:
        FUSED "SKLLOSS_FUSED"  # whether a * b + c is rounded once
    double as_double "sklloss_as_double"(int64_t bits) noexcept nogil
    int64_t double_bits "sklloss_double_bits"(double value) noexcept nogil
    float as_float "sklloss_as_float"(int32_t bits) noexcept nogil
    int32_t float_bits "sklloss_float_bits"(float value) noexcept nogil
    double product_error "sklloss_product_error"(double a, double b, double p) noexcept nogil


cdef inline bint negative(real x) noexcept nogil:
    """Whether the sign bit of x is set, as it is in -0.0."""
    if real is double:
        return double_bits(x) < 0
    else:
        return float_bits(x) < 0


cdef inline real signed(real x, real sign) noexcept nogil:
    """x, or -x where the sign bit of sign is set."""
    if real is double:
        return as_double(double_bits(x) ^ (double_bits(sign) & <int64_t>(<uint64_t>1 << 63)))
    else:
        return as_float(float_bits(x) ^ (float_bits(sign) & <int32_t>(<uint32_t>1 << 31)))


cdef inline real exp_polynomial(real x) noexcept nogil:
    """P with exp(x) = 1 + x + x**2 P(x) for |x| <= ln(2) / 2.

    Minimax, of degree 9 (double, error of exp 2**-58) or 4 (float, 2**-28), its even and odd powers apart as
    two short chains.
    """
    cdef real q = x * x
    cdef real p, odd
    if real is double:
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
    else:
        p = <float>1.395049179012834682e-3
        p = p * q + <float>4.166620579266972666e-2
        p = p * q + <float>5.000000095187440471e-1
        odd = <float>8.368889283487148576e-3
        odd = odd * q + <float>1.6666518840438951e-1
    return odd * x + p


cdef inline real exp_reduced(real x, real k, real* rest) noexcept nogil:
    """r and rest, the smaller part, with exp(x - k ln 2) = 1 + (r + rest) for k = round(x / ln 2).

    r - low = x - k ln 2, with ln 2 in two parts so that r is exact for |k| below 2047 (float: 255); then
    rest = r**2 P(r) - low.
    """
    cdef real low, r
    if real is double:
        r = x - k * 0.693147180559663
        low = k * 2.8235290563031577e-13
    else:
        r = x - k * <float>0.693145751953125
        low = k * <float>1.4286068203094173e-06
    x = r - low
    rest[0] = exp_polynomial(x) * (x * x) - low
    return r


cdef inline real power_of_two(real x, real* k) noexcept nogil:
    """2**k for k = round(x / ln 2), x in [-746, 0] (float: [-104.5, 0]).

    Adding 1.5 * 2**52 (float: 1.5 * 2**23) rounds to a whole number and leaves it in the low bits, from
    where a shift moves it into the exponent. 100 (25) is added to the exponent and removed again by a
    multiplication, so that 2**k is exact down to the smallest subnormal.
    """
    cdef real t, scale
    if real is double:
        t = x * 1.4426950408889634 + (6755399441055744.0 + 1023.0 + 100.0)
        scale = as_double(<int64_t>(<uint64_t>double_bits(t) << 52)) * 7.888609052210118e-31
        k[0] = t - (6755399441055744.0 + 1023.0 + 100.0)
    else:
        t = x * <float>1.4426950408889634 + <float>(12582912.0 + 127.0 + 25.0)
        scale = as_float(<int32_t>(<uint32_t>float_bits(t) << 23)) * <float>2.9802322387695312e-08
        k[0] = t - <float>(12582912.0 + 127.0 + 25.0)
    return scale


cdef inline void exp_nonpositive(real x, real* hi, real* lo) noexcept nogil:
    """exp(x) for x <= 0 as hi + lo, with hi the nearest number to the sum.

    x is clamped where exp(x) is less than half of the smallest subnormal. NaN stays NaN (each comparison with
    it is false). Where x > -0.34, (hi - 1) + lo is exp(x) - 1 to its own last places.

    Error of hi + lo: 0.3 ULP; of hi alone: 0.8 ULP.
    """
    cdef real k, r, rest, one, scale
    if real is double:
        x = -746.0 if x < -746.0 else x
    else:
        x = <float>-104.5 if x < <float>-104.5 else x
    scale = power_of_two(x, &k)
    r = exp_reduced(x, k, &rest)
    r = r + rest
    one = <real>1.0 + r
    hi[0] = one * scale
    lo[0] = (r - (one - <real>1.0)) * scale


cdef inline real exp_scaled(real x, bint wide, real* low, real* first, real* last) noexcept nogil:
    """exp(x) as (one + low) * first * last, one in [0.7, 1.42]; one is returned. wide is a constant.

    first and last are powers of two. Multiplied in that order, and after any other factor, they make the
    product overflow and underflow (gradually) only where its true value does. If not wide, |x| is at most 708
    (float: 87) and last is 1. If wide, x is any number, in double only; beyond 1400 exp(x) counts as infinite
    whatever it is multiplied by, below -1400 as 0.
    """
    cdef real t, k, r, rest, one
    cdef real bias = <real>0.0
    last[0] = <real>1.0
    if real is double:
        if wide:
            last[0] = 1.0715086071862673e+301 if x > 700.0 else 1.0
            last[0] = 9.332636185032189e-302 if x < -700.0 else last[0]
            last[0] = last[0] * (1e308 if x > 1400.0 else 1.0)
            bias = 1000.0 if x < -700.0 else (-1000.0 if x > 700.0 else 0.0)
            x = -1400.0 if x < -1400.0 else x
            x = 1400.0 if x > 1400.0 else x
        bias = bias + (6755399441055744.0 + 1023.0)
        t = x * 1.4426950408889634 + bias
        first[0] = as_double(<int64_t>(<uint64_t>double_bits(t) << 52))
    else:
        bias = <float>(12582912.0 + 127.0)
        t = x * <float>1.4426950408889634 + bias
        first[0] = as_float(<int32_t>(<uint32_t>float_bits(t) << 23))
    k = t - bias
    r = exp_reduced(x, k, &rest)
    r = r + rest
    one = <real>1.0 + r
    low[0] = r - (one - <real>1.0)
    return one


cdef inline real log1p_rest(real f, real t) noexcept nogil:
    """f - log(1 + f) = t (f - R) for t = f / (2 + f) and f in [-0.293, 0.5].

    log(1 + f) = 2 atanh(t) = 2 t + t R, where R = 2/3 t**2 + 2/5 t**4 + ... and 2 t = f - t f. R is
    minimax: degree 7 in t**2 (double, error of log(1 + f): 2**-55.8) or 3 (float, 2**-28.4).
    """
    cdef real z = t * t
    cdef real q = z * z
    cdef real p, even
    if real is double:
        p = 1.524962419713143929e-1
        p = p * q + 2.222213781553566144e-1
        p = p * q + 3.999999999611524651e-1
        even = 1.53725864158863178e-1
        even = even * q + 1.818638422899363835e-1
        even = even * q + 2.857142940366250627e-1
        even = even * q + 6.666666666667279514e-1
    else:
        p = <float>3.995765300509320107e-1
        even = <float>3.036428570904020102e-1
        even = even * q + <float>6.666694905519488061e-1
    return t * (f - z * (p * z + even))


cdef inline real exp_split(real x, real* scale) noexcept nogil:
    """r and a power of two, scale, with exp(x) = scale exp(r) for x <= 0, clamped as in exp_nonpositive."""
    cdef real k
    if real is double:
        x = -746.0 if x < -746.0 else x
        scale[0] = power_of_two(x, &k)
        return (x - k * 0.693147180559663) - k * 2.8235290563031577e-13
    else:
        x = <float>-104.5 if x < <float>-104.5 else x
        scale[0] = power_of_two(x, &k)
        return (x - k * <float>0.693145751953125) - k * <float>1.4286068203094173e-06


cdef inline real exp_join(real r, real scale) noexcept nogil:
    """scale exp(r), given r and scale by exp_split. What 1 + r rounds off is added. Error: 0.7 ULP."""
    cdef real one = <real>1.0 + r
    return (one + ((r - (one - <real>1.0)) + exp_polynomial(r) * (r * r))) * scale


cdef inline real exp_rounded(real x) noexcept nogil:
    """exp(x) for x <= 0: exp_nonpositive without the smaller part, in fewer operations. Error: 0.9 ULP."""
    cdef real scale
    cdef real r = exp_split(x, &scale)
    return (<real>1.0 + (r + exp_polynomial(r) * (r * r))) * scale


cdef inline real times_exp(real y, real x) noexcept nogil:
    """y exp(x) for |x| <= 708 (float: 87), where exp(x) is a normal number. Error: 1.2 ULP (y = 1: 0.9)."""
    cdef real t, k, scale
    if real is double:
        t = x * 1.4426950408889634 + (6755399441055744.0 + 1023.0)
        scale = as_double(<int64_t>(<uint64_t>double_bits(t) << 52))
        k = t - (6755399441055744.0 + 1023.0)
        x = (x - k * 0.693147180559663) - k * 2.8235290563031577e-13
    else:
        t = x * <float>1.4426950408889634 + <float>(12582912.0 + 127.0)
        scale = as_float(<int32_t>(<uint32_t>float_bits(t) << 23))
        k = t - <float>(12582912.0 + 127.0)
        x = (x - k * <float>0.693145751953125) - k * <float>1.4286068203094173e-06
    return (y + y * (x + exp_polynomial(x) * (x * x))) * scale


# For e = exp(-|z|) the three functions below make, one after the other, e, the share e / (1 + e) and
# log(1 + e). What one hands to the next beside e is `rest`: in float the smaller part of e, in double, where
# e alone is exact enough, e / (2 + e).

cdef inline real exp_of_minus(real size, real* rest) noexcept nogil:
    """exp(-size) for size >= 0."""
    cdef real e
    if real is double:
        return exp_rounded(-size)
    else:
        exp_nonpositive(-size, &e, rest)
        return e


cdef inline real share_of(real e, real* rest) noexcept nogil:
    """The share e / (1 + e), for e in [0, 1].

    The quotient s is corrected by its residual e - s - s e, in which e - s is exact. In double one reciprocal
    serves both quotients, and rest is corrected likewise.

    Error: 1.5 ULP (float: 1.2).
    """
    cdef real d = <real>1.0 + e
    cdef real g, r, s
    if real is double:
        g = 2.0 + e
        r = 1.0 / (d * g)
        d = d * r
        s = e * d
        rest[0] = s + ((e - 2.0 * s) - s * e) * d
        g = g * r
        s = e * g
        return s + ((e - s) - s * e) * g
    else:
        s = e / d
        d = <float>1.0 - s
        s = s + (((e - s) - s * e) + rest[0] * d) * d
        rest[0] = rest[0] * d
        return s


cdef inline real log1p_of(real e, real rest, real extra) noexcept nogil:
    """log(1 + e) + extra for e in [0, 1] and extra >= 0.

    double: with t = e / (2 + e), log(1 + e) = 2 atanh(t) = 2 t + t z R for z = t**2, where 2 t = e - t e and
    R = 2/3 + 2/5 z + ... is a polynomial of degree 9, fitted at Chebyshev's nodes (error of log(1 + e):
    2**-56.9). float: e - e**2 p(e - 1/2) costs less than a division, p a minimax polynomial of degree 8 with
    float coefficients (error 2**-27).

    Error: 1.5 ULP.
    """
    cdef real z, q, p, even
    if real is double:
        z = rest * rest
        q = z * z
        p = 0.1616404561194353
        p = p * q + 0.12001072809590713
        p = p * q + 0.15385570064958623
        p = p * q + 0.22222222717427864
        p = p * q + 0.40000000000014585
        even = 0.08800738486144674
        even = even * q + 0.13314144209654935
        even = even * q + 0.18181789436132859
        even = even * q + 0.2857142856710876
        even = even * q + 0.6666666666666666
        return (e - rest * (e - z * (p * z + even))) + extra
    else:
        z = e - <float>0.5
        p = <float>0.0033184706699103117
        p = p * z - <float>0.006930694915354252
        p = p * z + <float>0.01017770729959011
        p = p * z - <float>0.016657153144478798
        p = p * z + <float>0.028905166313052177
        p = p * z - <float>0.05108918622136116
        p = p * z + <float>0.09323189407587051
        p = p * z - <float>0.1792248785495758
        p = p * z + <float>0.37813955545425415
        return (e - p * (e * e)) + (rest + extra)


cdef inline void logistic_parts(real z, real* small, real* large) noexcept nogil:
    """e / (1 + e) and 1 / (1 + e) for e = exp(-|z|).

    The larger of sigmoid(z) and sigmoid(-z) is 1 / (1 + e), the smaller e / (1 + e): both keep their
    relative accuracy.

    Error: small 1.5 ULP (float: 1.2), large 1.1 ULP.
    """
    cdef real rest
    cdef real e = exp_of_minus(abs(z), &rest)
    small[0] = share_of(e, &rest)
    large[0] = <real>1.0 - small[0]


# Log loss: -y log p - (1 - y) log(1 - p) for p = sigmoid(z). With the target probability a of the label that
# z speaks against it is log(1 + e) + a |z|, for e = exp(-|z|). All terms are positive and nothing cancels; a
# certain wrong prediction costs |z|. At infinite z the loss is 0 where y is certain and predicted, else
# infinite, never NaN.
#
# Error: loss 1.9 ULP (float, z = 1.112, y = 0.380; hard y: 1.8, double, z = 0.436, y = 1, baseline), gradient
# 1.5 ULP for y in {0, 1} (double, z = 3.440, y = 1, baseline) and 1.6 ULP of the larger of p and y between
# (float, z = -0.346, y = 0.15).

cdef inline real log_loss_slope(real* z, real y, real not_y, real share) noexcept nogil:
    """a |z|, given not_y = 1 - y and share = e / (1 + e), the probability of the label that z speaks against.

    z becomes the derivative p - y, which is a - share, signed as z.
    """
    cdef real a = y if negative(z[0]) else not_y
    # 0 * inf is NaN: a label of probability 0 costs nothing, however large the score.
    cdef real cost = a * (abs(z[0]) if a != <real>0.0 else <real>0.0)
    z[0] = signed(a - share, z[0])
    return cost


cdef inline void two_sum(real a, real b, real* hi, real* lo) noexcept nogil:
    """a + b = hi + lo exactly (Knuth), whatever the order of a and b."""
    cdef real s = a + b
    cdef real t = s - a
    lo[0] = (a - (s - t)) + (b - t)
    hi[0] = s


cdef inline void two_product(double a, double b, double* hi, double* lo) noexcept nogil:
    """a * b = hi + lo exactly, unless it underflows."""
    cdef double p = a * b
    lo[0] = product_error(a, b, p)
    hi[0] = p


cdef inline real times_sum(real x, real hi, real lo) noexcept nogil:
    """x (hi + lo), little more than one rounding away."""
    cdef double p, p_lo
    if FUSED:
        return x * hi + x * lo
    if real is double:
        two_product(x, hi, &p, &p_lo)
        return p + (p_lo + x * lo)
    else:
        return <float>(<double>x * (<double>hi + <double>lo))


cdef inline real times_sum_less(real x, real hi, real lo, real y) noexcept nogil:
    """x (hi + lo) - y, little more than one rounding of the larger term away."""
    cdef double p, p_lo
    if FUSED:
        return x * hi + (x * lo - y)
    if real is double:
        two_product(x, hi, &p, &p_lo)
        return (p - y) + (p_lo + x * lo)
    else:
        return <float>(<double>x * (<double>hi + <double>lo) - <double>y)


cdef inline void compensated_add(real x, real* total, real* error) noexcept nogil:
    """Add x >= 0 to a sum that is total + error. An infinite x leaves total infinite and error NaN."""
    cdef real t = total[0] + x
    error[0] = error[0] + (x - (t - total[0]))
    total[0] = t


cdef inline void reciprocal(real d, real d_lo, real* hi, real* lo) noexcept nogil:
    """1 / (d + d_lo) as hi + lo. In double the residual 1 - d hi is formed exactly."""
    cdef double wide, p, p_lo
    if real is double:
        hi[0] = 1.0 / d
        two_product(d, hi[0], &p, &p_lo)
        lo[0] = (((1.0 - p) - p_lo) - d_lo * hi[0]) * hi[0]
    else:
        wide = 1.0 / (<double>d + <double>d_lo)
        hi[0] = <float>wide
        lo[0] = <float>(wide - <double>hi[0])


cdef inline real log_sum(real d, real d_lo, real inverse) noexcept nogil:
    """log(d + d_lo) for d >= 1, d_lo below one ULP of it and inverse close to 1 / d.

    With d = 2**k m, m in [0.71, 1.42), it is k ln 2 + log(1 + f) for f = m - 1, which is exact. Close to
    d = 1 it is f + d_lo, to full relative accuracy. Error: 1.2 ULP.
    """
    cdef real c, k, f, t
    cdef uint64_t bits
    cdef uint32_t bits32
    if real is double:
        bits = <uint64_t>double_bits(d) + <uint64_t>0x00095F6400000000
        k = as_double(<int64_t>((bits >> 52) + <uint64_t>0x4338000000000000)) - (6755399441055744.0 + 1023.0)
        f = as_double(<int64_t>((bits & <uint64_t>0x000FFFFFFFFFFFFF) + <uint64_t>0x3FE6A09C00000000)) - 1.0
    else:
        bits32 = <uint32_t>float_bits(d) + <uint32_t>0x004AFB20
        k = as_float(<int32_t>((bits32 >> 23) + <uint32_t>0x4B400000)) - (<float>12582912.0 + <float>127.0)
        f = as_float(<int32_t>((bits32 & <uint32_t>0x007FFFFF) + <uint32_t>0x3F3504E0)) - <float>1.0
    c = d_lo * inverse
    t = f / (<real>2.0 + f)
    if real is double:
        return k * 0.693147180559663 + (f - (log1p_rest(f, t) - (c + k * 2.8235290563031577e-13)))
    else:
        c = c + k * <float>1.4286068203094173e-06
        return k * <float>0.693145751953125 + (f - (log1p_rest(f, t) - c))
