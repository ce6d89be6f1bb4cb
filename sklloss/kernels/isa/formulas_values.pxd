# Separable losses, one element at a time. See formulas.pxd for the accuracy of what they are made of.
#
# Each formula has the signature that the table of losses.pxi.tp calls: it returns the loss of the raw score z
# and overwrites z with the derivative and `curvature` with the second derivative. `parameter` is that of the
# loss, in double for both dtypes. Where `wide` is an argument, see exp_scaled of formulas.pxd. Where the
# exponential of the table is one, it is the second derivative, and a second formula, named <name>_wide, is
# for scores whose exp is no normal number, in double for both dtypes.

from sklloss.kernels.isa.formulas cimport (
    exp_reduced,
    exp_scaled,
    power_of_two,
    real,
    signed,
    two_product,
    two_sum,
)


# Losses of an error d = raw - y. With its rounding error, d + low is raw - y exactly.

cdef inline real difference(real z, real y, real* low) noexcept nogil:
    """z - y and its rounding error, which is 0 where the difference overflows."""
    cdef real d, lo
    two_sum(z, -y, &d, &lo)
    low[0] = lo if lo - lo == <real>0.0 else <real>0.0
    return d


cdef inline real sign_of(real d) noexcept nogil:
    """1, 0 or -1 as d is positive, zero or negative; NaN for NaN."""
    return <real>1.0 if d > <real>0.0 else (<real>-1.0 if d < <real>0.0 else d)


cdef inline real squared_error(real* z, real y, double parameter, real* curvature) noexcept nogil:
    """parameter (z - y)**2."""
    cdef real twice = <real>(2.0 * parameter)
    cdef real d = z[0] - y
    curvature[0] = twice
    z[0] = twice * d
    return <real>parameter * d * d


cdef inline real absolute_error(real* z, real y, double parameter, real* curvature) noexcept nogil:
    """|z - y|, with the sign of z - y as derivative. Error: 0.5 ULP, and 0."""
    cdef real d = z[0] - y
    z[0] = sign_of(d)
    curvature[0] = <real>0.0
    return abs(d)


cdef inline real quantile(real* z, real y, double parameter, real* curvature) noexcept nogil:
    """The pinball loss q (y - z) below y and p (z - y) above, for the quantile q and p = 1 - q.

    The derivative is -q or p, and 0 at z = y. q and p are carried in two parts, because a float rounds them.

    Error: 1.0 ULP (double, z = -192.08, y = -0.0291, q = 0.3, baseline; 0.5 with fused multiply-add),
    derivative 0.
    """
    cdef real q = <real>parameter
    cdef real q_low = <real>(parameter - <double>q)
    cdef real p = <real>(1.0 - parameter)
    cdef real p_low = <real>((1.0 - <double>p) - parameter)
    cdef real low
    cdef real d = difference(z[0], y, &low)
    cdef real slope = -q if d < <real>0.0 else p
    cdef real rest = -q_low if d < <real>0.0 else p_low
    cdef real value = slope * d + (rest * d + slope * low)
    # Where z - y overflows, a fraction of it need not.
    value = value if value - value == <real>0.0 else slope * z[0] - slope * y
    z[0] = p if d > <real>0.0 else (-q if d < <real>0.0 else d)
    curvature[0] = <real>0.0
    return value


cdef inline real huber(real* z, real y, double parameter, real* curvature) noexcept nogil:
    """d**2 / 2 for |d| <= delta, else delta (|d| - delta / 2), where d = z - y and delta is the parameter.

    Both are c (|d| - c / 2) with c = min(|d|, delta). The derivative is c with the sign of d, the second
    derivative 1 up to delta and 0 beyond.

    Error: 1.0 ULP (double, z = 592.0, y = -0.360, delta = 20, baseline; 0.5 with fused multiply-add),
    derivative 0.5 ULP.
    """
    cdef real delta = <real>parameter
    cdef real delta_low = <real>(parameter - <double>delta)
    cdef real low, c, c_low, m, m_low, value
    cdef real d = difference(z[0], y, &low)
    cdef real a = abs(d)
    low = signed(low, d)
    c = delta if a > delta else a
    c_low = delta_low if a > delta else low
    m = a - <real>0.5 * c
    m_low = ((a - m) - <real>0.5 * c) + (low - <real>0.5 * c_low)
    m_low = m_low if m_low - m_low == <real>0.0 else <real>0.0
    value = c * m + (c_low * m + c * m_low)
    value = value if a - a == <real>0.0 else c * abs(z[0]) + c * abs(y)
    curvature[0] = <real>1.0 if a <= delta else <real>0.0
    z[0] = signed(c, d)
    return value


cdef inline real log_cosh(real* z, real y, double parameter, real* curvature) noexcept nogil:
    """log(cosh d) for d = z - y, with the derivatives tanh d and 1 - tanh(d)**2.

    With a = |d|, e = exp(-2 a) and u = 1 - e in two parts: tanh a = u / (2 - u). Below a = 0.75 the value is
    q / 2 - q**2 C(q), q = a**2, beyond it a - log 2 + e - e**2 P(e), the sums in two parts. C and P are
    minimax: degree 11 and 10 (double; relative error 2**-58.7, absolute 2**-58.3), 4 and 4 (float; 2**-27.7
    and 2**-31.2). The rounding error of d is corrected to first order.

    Error: 1.6 ULP (double, z = 2.6e-7, y = 0.734, baseline), derivative 1.8 (double, z = 9.2e-11,
    y = -0.0292, baseline), second derivative 4.2.
    """
    cdef real k, r, rest, scale, one, e, e_low, u, u_low, v, t, n, n_low, q, w, odd, even, s
    cdef real small, large, low
    cdef real d = difference(z[0], y, &low)
    cdef real a = abs(d)
    cdef real x = <real>-2.0 * a
    low = signed(low, d)
    if real is double:
        x = -746.0 if x < -746.0 else x
    else:
        x = <float>-104.5 if x < <float>-104.5 else x
    scale = power_of_two(x, &k)
    r = exp_reduced(x, k, &rest)
    v = r + rest
    rest = (r - v) + rest
    one = <real>1.0 + v
    e = one * scale
    e_low = ((v - (one - <real>1.0)) + rest) * scale
    v = v * scale
    n = <real>1.0 - scale
    u = n - v
    u_low = ((n - u) - v) - rest * scale
    # 2 - u = n + n_low; half of 1 + t is 1 / (2 - u)
    n = <real>2.0 - u
    n_low = ((<real>2.0 - n) - u) - u_low
    t = u / n
    t = t + (u_low - t * n_low) * (<real>0.5 + <real>0.5 * t)
    v = (<real>1.0 + t) * (<real>1.0 + t)
    curvature[0] = e * v * (<real>1.0 - <real>2.0 * t * low)
    q = a * a
    w = q * q
    if real is double:
        odd = -1.728981303913022657e-7
        even = 1.093237277239660234e-6
        odd = odd * w - 3.961541518720169284e-6
        even = even * w + 1.171001139621347439e-5
        odd = odd * w - 3.268449725027225035e-5
        even = even * w + 9.096428396969792378e-5
        odd = odd * w - 2.565759012185721321e-4
        even = even * w + 7.386023834678552084e-4
        odd = odd * w - 2.186948808025975188e-3
        even = even * w + 6.746031743916862265e-3
        odd = odd * w - 2.222222222217293991e-2
        even = even * w + 8.333333333333293246e-2
    else:
        even = <float>4.34569133486529318e-4
        odd = <float>-2.021454577695882077e-3
        even = even * w + <float>6.702654110452585749e-3
        odd = odd * w - <float>2.221714138881523713e-2
        even = even * w + <float>8.333313849453555466e-2
    small = <real>0.5 * q + (low * t - w * (odd * q + even))
    w = e * e
    if real is double:
        even = 2.481812769556673537e-2
        odd = -6.245122251100525183e-2
        even = even * w + 9.094234907338404077e-2
        odd = odd * w - 1.091648416751901054e-1
        even = even * w + 1.247127184110183153e-1
        odd = odd * w - 1.428279625562339374e-1
        even = even * w + 1.666646567720660415e-1
        odd = odd * w - 1.999999093520120177e-1
        even = even * w + 2.499999974946447646e-1
        odd = odd * w - 3.333333332960090314e-1
        even = even * w + 4.999999999997802707e-1
        n = a - 0.693147180559663
        n_low = ((a - n) - 0.693147180559663) - 2.8235290563031577e-13
    else:
        even = <float>9.390958373908041653e-2
        odd = <float>-1.823224599979122129e-1
        even = even * w + <float>2.478410832611149733e-1
        odd = odd * w - <float>3.332078632636613682e-1
        even = even * w + <float>4.999973305033315161e-1
        n = a - <float>0.693145751953125
        n_low = ((a - n) - <float>0.693145751953125) - <float>1.4286068203094173e-06
    two_sum(n, e, &s, &u)
    large = s + (u + (n_low + (e_low + low * t) - w * (odd * e + even)))
    # Beyond 2**60 log 2 is nothing, and infinity has no low part.
    if real is double:
        large = a if a > 1152921504606846976.0 else large
        small = large if a > 0.75 else small
    else:
        large = a if a > <float>1073741824.0 else large
        small = large if a > <float>0.75 else small
    z[0] = signed(t + (<real>1.0 - t) * (<real>1.0 + t) * low, d)
    return small


# Losses of a mean exp(z), the log link.

cdef inline real poisson(real* z, real y, real e) noexcept nogil:
    """e - y z for e = exp(z), with the derivatives e - y and e, which is given.

    At z = -inf the loss is 0 for y = 0, else infinite; where exp(z) overflows it is infinite.

    Error in ULP of the largest of the terms and their sum: 1.6 (float, z = 3.841, y = 3, baseline),
    derivative 1.5 (double, z = -1.04, y = 1.5e-6), second derivative 1.1.
    """
    cdef real value = e - y * z[0]
    z[0] = e - y
    return value


cdef inline double poisson_wide(double* z, double y, double* curvature) noexcept nogil:
    cdef double low, first, last, yz, value
    cdef double x = z[0]
    cdef double e = exp_scaled(x, True, &low, &first, &last) * first * last
    low = low * first * last
    yz = y * x if y != 0.0 else 0.0
    value = (e - yz) + low if e - e == 0.0 else e
    z[0] = (e - y) + low if e - e == 0.0 else e
    curvature[0] = e
    return value


cdef inline real gamma(real* z, real y, real w) noexcept nogil:
    """z + w for w = y exp(-z), with the derivatives 1 - w and w, which is given.

    The loss is infinite at both infinities, the derivative 1 and -inf there.

    Error in ULP of the largest of the terms and their sum: 1.7 (double, z = -3.835, y = 5, baseline),
    derivative 1.6 (double, z = -25.3, y = 1.2e5, baseline), second derivative 1.4.
    """
    cdef real value = z[0] + w
    z[0] = <real>1.0 - w
    return value


cdef inline double gamma_wide(double* z, double y, double* curvature) noexcept nogil:
    cdef double low, first, last, value
    cdef double x = z[0]
    cdef double w = y * exp_scaled(-x, True, &low, &first, &last) * first * last
    low = low * y * first * last
    low = low if w - w == 0.0 else 0.0
    value = (x + w) + low if w - w == 0.0 else w
    z[0] = (1.0 - w) - low
    curvature[0] = w
    return value


cdef inline double exp_of_product(
    double a, double z, bint wide, double* low, double* first, double* last,
) noexcept nogil:
    """exp(a z) in the parts of exp_scaled, for |a| <= 1, corrected for the rounding error of a z."""
    cdef double x, rest, one
    two_product(a, z, &x, &rest)
    if wide:
        # Otherwise the result is infinite or 0; infinity has no low part.
        rest = rest if -1400.0 < x and x < 1400.0 else 0.0
    one = exp_scaled(x, wide, low, first, last)
    low[0] = low[0] + one * rest
    return one


cdef inline real tweedie(real* z, real y, double parameter, bint wide, real* curvature) noexcept nogil:
    """exp(a z) / a + y exp(-b z) / b for a = 2 - power and b = power - 1, power in (1, 2) the parameter.

    The derivatives are exp(a z) - y exp(-b z) and a exp(a z) + b y exp(-b z). At z = -inf the loss is 0 for
    y = 0, else infinite. In double for both dtypes, a and b being exact; quotients and products are in two
    parts, so that the terms are rounded only where they are added.

    Error: 1.1 ULP, derivative 1.1 ULP of the larger term, second derivative 2 ULP, for a y that is no
    subnormal number.
    """
    cdef double a = 2.0 - parameter, b = parameter - 1.0
    cdef double inverse_a = 1.0 / a, inverse_b = 1.0 / b
    cdef double target = y, x = z[0]
    cdef double first, last, one, low, q, q_low, t, t_low
    cdef double grown, grown_low, grown_value, shrunk, shrunk_low, shrunk_value, rest, second_low
    one = exp_of_product(a, x, wide, &low, &first, &last)
    q = one * inverse_a
    two_product(q, a, &t, &t_low)
    q_low = (((one - t) - t_low) + low) * inverse_a
    grown = one * first
    grown_low = low * first
    grown_value = q * first
    rest = q_low * first
    if wide:
        grown = grown * last
        grown_low = grown_low * last
        grown_value = grown_value * last
        rest = rest * last
    one = exp_of_product(-b, x, wide, &low, &first, &last)
    two_product(target, one, &t, &t_low)
    low = low * target + t_low
    one = t
    q = one * inverse_b
    two_product(q, b, &t, &t_low)
    q_low = (((one - t) - t_low) + low) * inverse_b
    shrunk = one * first
    shrunk_low = low * first
    shrunk_value = q * first
    q_low = q_low * first
    if wide:
        shrunk = shrunk * last
        shrunk_low = shrunk_low * last
        shrunk_value = shrunk_value * last
        q_low = q_low * last
        # 0 * inf is NaN
        if target == 0.0 and x == x:
            shrunk = 0.0
            shrunk_low = 0.0
            shrunk_value = 0.0
            q_low = 0.0
    rest = rest + q_low
    two_sum(grown_value, shrunk_value, &t, &q)
    rest = rest + q
    two_sum(grown, -shrunk, &one, &q)
    low = (grown_low - shrunk_low) + q
    second_low = a * grown_low + b * shrunk_low
    if wide:
        rest = rest if rest - rest == 0.0 else 0.0
        low = low if low - low == 0.0 else 0.0
        second_low = second_low if second_low - second_low == 0.0 else 0.0
    curvature[0] = <real>((a * grown + b * shrunk) + second_low)
    z[0] = <real>(one + low)
    return <real>(t + rest)


# Losses of a margin: the score, with its sign changed for label 0.

cdef inline real squared_hinge(real* z, real y, double parameter, real* curvature) noexcept nogil:
    """max(0, 1 - s z)**2 for s = 2 y - 1, y in {0, 1}; second derivative 2 where s z < 1, else 0.

    Error: 1.5 ULP, derivative 0.5 ULP.
    """
    cdef real sign = y + y - <real>1.0
    cdef real margin = sign * z[0]
    cdef real shortfall = <real>0.0 if margin >= <real>1.0 else <real>1.0 - margin
    curvature[0] = <real>0.0 if margin >= <real>1.0 else <real>2.0
    z[0] = <real>-2.0 * sign * shortfall
    return shortfall * shortfall
