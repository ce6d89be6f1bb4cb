# The focal loss. See formulas.pxd.
#
# In double for both dtypes. A power multiplies relative errors, so its operands are carried in two parts.
#
# Error for independent sigmoids. float: loss and gradient 0.5 ULP. double: loss 1.9 ULP up to gamma = 3
# (gamma = 0.5, z = 2.9e-6, y = 0.515, baseline), gradient 1.9 (gamma = 1, z = 354.3, y = 1, baseline); for a
# soft y of the larger of its two terms. Each unit of gamma beyond 3 adds up to 0.2 ULP: 2.3 at gamma = 5
# (z = -6.584, y = 0), 4.8 at gamma = 20.3. The second derivative keeps 8 ULP of its largest term up to
# |z| = 700, where the smaller probability becomes subnormal. Softmax: see formulas_softmax.pxd.

from libc.math cimport pow

from sklloss.kernels.isa.formulas cimport (
    exp_reduced,
    log1p_rest,
    negative,
    power_of_two,
    signed,
    two_product,
    two_sum,
)

cdef inline void exp_parts(double x, double* hi, double* lo) noexcept nogil:
    """exp(x) for x <= 0 as hi + lo, as exp_nonpositive but with an error of 2**-56."""
    cdef double k, r, rest, sum, one, scale
    x = -746.0 if x < -746.0 else x
    scale = power_of_two(x, &k)
    r = exp_reduced(x, k, &rest)
    sum = r + rest
    rest = (r - sum) + rest
    one = 1.0 + sum
    hi[0] = one * scale
    lo[0] = ((sum - (one - 1.0)) + rest) * scale


cdef inline void log1p_parts(
    double e, double low, double* log1p_hi, double* log1p_lo, double* share_hi, double* share_lo,
) noexcept nogil:
    """log(1 + e + low) and e / (1 + e), each as hi + lo, for e + low = exp(-|z|) in [0, 1].

    As log1p_and_share, with exact residuals of the quotients: e - s and f - 2 t are exact.
    Error of hi + lo: logarithm 0.6 ULP, share 2**-60.
    """
    cdef double d = 1.0 + e
    cdef double half = 0.5 if e > 0.5 else 0.0
    cdef double f = (e - half * e) - half
    cdef double g = 2.0 + f
    cdef double r = 1.0 / (d * g)
    cdef double t = f * d * r
    cdef double s = e * g * r
    cdef double p, p_lo, rest
    two_product(s, e, &p, &p_lo)
    d = 1.0 - s
    rest = (((e - s) - p) - p_lo + low * d) * d
    p = s + rest
    share_lo[0] = (s - p) + rest
    share_hi[0] = p
    t = t + ((f - 2.0 * t) - t * f) * (0.5 - 0.5 * t)
    low = low * (1.0 - p) + half * 5.6470580063126314e-13
    rest = log1p_rest(f, t) - low
    p = f - rest
    rest = (f - p) - rest
    half = half * 1.386294361119326
    s = half + p
    log1p_lo[0] = ((half - s) + p) + rest
    log1p_hi[0] = s


cdef inline void power_parts(double x, double x_lo, double g, double* hi, double* lo) noexcept nogil:
    """exp(-g (x + x_lo)) as hi + lo, for x >= 0 and g in [0, 1)."""
    cdef double p, p_lo
    two_product(g, x, &p, &p_lo)
    p_lo = p_lo + g * x_lo
    exp_parts(-p, hi, lo)
    p = hi[0]
    p_lo = lo[0] - p * p_lo
    hi[0] = p + p_lo
    lo[0] = (p - hi[0]) + p_lo


cdef inline void times(double* hi, double* lo, double x, double x_lo) noexcept nogil:
    """Multiply hi + lo by x + x_lo."""
    cdef double p, p_lo
    two_product(hi[0], x, &p, &p_lo)
    p_lo = p_lo + (hi[0] * x_lo + lo[0] * x)
    hi[0] = p + p_lo
    lo[0] = (p - hi[0]) + p_lo


cdef inline void fraction_power(double x, double x_lo, double g, double* hi, double* lo) noexcept nogil:
    """(x + x_lo)**g as hi + lo, for x in [0, 1] and g >= 0: a whole power up to 16 by multiplications."""
    cdef int _factor
    cdef int whole = <int>min(g, 16.0)
    cdef double left = g - <double>whole
    hi[0] = 1.0
    lo[0] = 0.0
    if left > 0.0:
        hi[0] = pow(x, left)
        lo[0] = hi[0] * (left * (x_lo / x)) if x > 0.0 else 0.0
    for _factor in range(whole):
        times(hi, lo, x, x_lo)


cdef inline double focal(
    double* z, double y, double g, double l, double l_lo, double s, double s_lo,
    double right, double right_lo, double wrong, double wrong_lo, double* curvature,
) noexcept nogil:
    """-y q**g log p - (1 - y) p**g log q for p = sigmoid(z) and q = 1 - p; z becomes the derivative.

    s is the smaller of p and q and l = -log(1 - s); right is s**g and wrong (1 - s)**g; each is in two parts.
    The target probability of the label that z speaks for is multiplied by right * l, that of the other label
    by wrong * (l + |z|). curvature becomes the second derivative. All terms of the loss are positive, and the
    derivative of each has one sign: nothing cancels for a hard y. At infinite z the loss is 0 where y is
    certain and predicted, else infinite.
    """
    cdef double x = z[0]
    cdef double not_y = 1.0 - y
    cdef double not_y_lo = (1.0 - not_y) - y
    cdef double against = y if negative(x) else not_y
    cdef double against_lo = 0.0 if negative(x) else not_y_lo
    cdef double side = not_y if negative(x) else y
    cdef double side_lo = not_y_lo if negative(x) else 0.0
    cdef double size = abs(x)
    cdef double a = 1000.0 if size > 1000.0 else size    # s is 0 there, and 0 * inf is NaN
    cdef double big, big_lo, far, far_lo, m, m_lo, i, i_lo, j, j_lo, value
    big = 1.0 - s
    big_lo = ((1.0 - big) - s) - s_lo
    two_sum(a, l, &far, &far_lo)
    far_lo = far_lo + l_lo
    curvature[0] = (
        side * right * (big * (g * l * (g * big - s) + (2.0 * g + 1.0) * s))
        + against * wrong * (s * (g * far * (g * s - big) + (2.0 * g + 1.0) * big))
    )
    two_product(wrong, far, &i, &i_lo)
    i_lo = i_lo + (wrong * far_lo + wrong_lo * far)
    two_product(right, l, &j, &j_lo)
    j_lo = j_lo + (right * l_lo + right_lo * l)
    value = (against * i_lo + against_lo * i) + (side * j_lo + side_lo * j)
    value = against * i + (side * j + value)
    value = against * (size if against != 0.0 else 0.0) if size > 1000.0 else value
    two_product(s, far, &m, &m_lo)
    m_lo = g * (m_lo + (s * far_lo + s_lo * far)) + big_lo
    two_product(g, m, &m, &j_lo)
    two_sum(m, big, &i, &i_lo)
    i_lo = i_lo + (m_lo + j_lo)
    two_product(wrong, i, &far, &far_lo)
    far_lo = far_lo + (wrong * i_lo + wrong_lo * i)
    two_product(big, l, &m, &m_lo)
    m_lo = g * (m_lo + (big * l_lo + big_lo * l)) + s_lo
    two_product(g, m, &m, &j_lo)
    two_sum(m, s, &i, &i_lo)
    i_lo = i_lo + (m_lo + j_lo)
    two_product(right, i, &j, &j_lo)
    j_lo = j_lo + (right * i_lo + right_lo * i)
    far_lo = (against * far_lo + against_lo * far) - (side * j_lo + side_lo * j)
    z[0] = signed((against * far - side * j) + far_lo, x)
    return value
