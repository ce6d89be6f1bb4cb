# Losses of a softmax that are functions f of the cross-entropy l = -log p_c of a row's class c. With class
# probabilities y a row costs sum_k y_k f(l_k). See formulas.pxd.
#
# Each loss has two formulas. In both m is the largest score z of the row and S the sum of exp(z - m) over all
# but one maximum, so that l_k = log(1 + S) + m - z_k:
#
# * <name>_code(parameter, below_max, e, others, others_low, inverse, inverse_low, value), for a code c:
#   below_max is m - z_c, e is exp(z_c - m), and others + others_low the sum of exp(z - m) over all classes
#   but c. On entry value is l and inverse + inverse_low is 1 / (1 + S). On return value is f(l) and inverse
#   + inverse_low is multiplied by f'(l), which turns the gradient of the cross-entropy into that of f.
# * <name>_terms(parameter, row, n, below_max, e, others, others_low, value, slope), for n classes of a row of
#   probabilities, in double: below_max is m - z (0 for a class of probability 0), e is exp(z - m), and others
#   + others_low is 1 - p. On return value is f(l) and slope f'(l).

from sklloss.kernels.isa.formulas cimport exp_nonpositive, real, two_product
from sklloss.kernels.isa.formulas_focal cimport fraction_power, power_parts, times

# What the classes of a row share, with 1 / (1 + S) in two parts.
cdef struct SoftmaxRow:
    double log_total           # log(1 + S)
    double inverse
    double inverse_low


# The focal loss (1 - p)**gamma l.
#
# Error on top of the rounding of z - m, gamma up to 3, of the larger term for probabilities. double: loss
# 2.6 ULP (codes, gamma = 3, K = 2), gradient 3.8 (probabilities, gamma = 2.5, K = 2). float: 2.4 and 2.6
# for codes, 0.5 and 1.5 for probabilities, which are computed in double. At gamma = 5 with codes 4.1 and
# 4.0.

cdef inline void softmax_focal_code(
    double gamma, real below_max, real e, real others, real others_low,
    real* inverse, real* inverse_low, real* value,
) noexcept nogil:
    """f' is (1 - p)**gamma times 1 + gamma p l / (1 - p)."""
    cdef double power, power_lo, f, p, hi, lo, other, other_lo
    cdef double cost = <double>value[0]
    hi = <double>inverse[0]
    lo = <double>inverse_low[0]
    two_product(<double>others, hi, &p, &other_lo)
    other_lo = other_lo + (<double>others_low * hi + <double>others * lo)
    other = p + other_lo
    other_lo = (p - other) + other_lo
    fraction_power(other, other_lo, gamma, &power, &power_lo)
    p = <double>e * hi
    # Where 1 - p is 0 the quotient l / (1 - p) has the limit 1. Where l is infinite p is 0, and so is p l.
    f = gamma * p * (cost / other) if other > 0.0 and cost - cost == 0.0 else gamma * p
    value[0] = <real>(power * cost + (power_lo * cost if cost - cost == 0.0 else 0.0))
    times(&power, &power_lo, 1.0 + f, ((1.0 - (1.0 + f)) + f) if f < 1.0 else ((f - (1.0 + f)) + 1.0))
    times(&hi, &lo, power, power_lo)
    inverse[0] = <real>hi
    inverse_low[0] = <real>((hi - <double>inverse[0]) + lo)


cdef inline void softmax_focal_terms(
    double gamma, const SoftmaxRow* row, Py_ssize_t n, const double* below_max, const double* e,
    const double* others, const double* others_low, double* value, double* slope,
) noexcept nogil:
    """f' as above. value and slope first hold (1 - p)**gamma, in two parts."""
    cdef int _factor
    cdef int whole = <int>min(gamma, 16.0)
    cdef double left = gamma - <double>whole
    cdef double p, x, o, power
    cdef Py_ssize_t k
    for k in range(n):
        value[k] = 1.0
        slope[k] = 0.0
    if left > 0.0:
        for k in range(n):
            fraction_power(others[k], others_low[k], left, &value[k], &slope[k])
    for _factor in range(whole):
        for k in range(n):
            times(&value[k], &slope[k], others[k], others_low[k])
    for k in range(n):
        x = row.log_total + below_max[k]
        power = value[k]
        value[k] = power * x
        # The same limits.
        x = x if x - x == 0.0 else 0.0
        o = others[k] if others[k] > 0.0 else 1.0
        x = x if others[k] > 0.0 else 1.0
        p = e[k] * row.inverse
        slope[k] = power + (slope[k] + gamma * p * (x / o) * power)


# The generalized cross-entropy (1 - p**q) / q.
#
# Error on top of the rounding of z - m, of the larger term for probabilities. double: loss 2.7 ULP (codes,
# q = 0.7, K = 100), gradient 3.8 (probabilities, q = 0.9, K = 33; codes: 2.0). float: 1.6 and 1.5 for codes,
# 0.5 and 1.6 for probabilities, which are computed in double.

cdef inline double generalized_value(double q, double cost) noexcept nogil:
    """(1 - exp(-q l)) / q for the cross-entropy l, to the relative accuracy of l."""
    cdef double hi, lo
    exp_nonpositive(-q * cost, &hi, &lo)
    return ((1.0 - hi) - lo) / q


cdef inline void generalized_slope(
    double q, double below_max, double factor, double factor_low, double* hi, double* lo,
) noexcept nogil:
    """f' = p**q = exp(-q (m - z)) (1 + S)**-q in two parts, given the second factor."""
    # Beyond, the first factor is 0; infinity has no low part.
    power_parts(1e300 if below_max > 1e300 else below_max, 0.0, q, hi, lo)
    times(hi, lo, factor, factor_low)


cdef inline void generalized_cross_entropy_code(
    double q, real below_max, real e, real others, real others_low,
    real* inverse, real* inverse_low, real* value,
) noexcept nogil:
    cdef double hi = <double>inverse[0]
    cdef double lo = <double>inverse_low[0]
    cdef double factor, factor_low, slope, slope_low
    fraction_power(hi, lo, q, &factor, &factor_low)
    generalized_slope(q, <double>below_max, factor, factor_low, &slope, &slope_low)
    times(&hi, &lo, slope, slope_low)
    inverse[0] = <real>hi
    inverse_low[0] = <real>((hi - <double>inverse[0]) + lo)
    value[0] = <real>generalized_value(q, <double>value[0])


cdef inline void generalized_cross_entropy_terms(
    double q, const SoftmaxRow* row, Py_ssize_t n, const double* below_max, const double* e,
    const double* others, const double* others_low, double* value, double* slope,
) noexcept nogil:
    cdef double factor, factor_low, low
    cdef Py_ssize_t k
    fraction_power(row.inverse, row.inverse_low, q, &factor, &factor_low)
    for k in range(n):
        value[k] = generalized_value(q, row.log_total + below_max[k])
    for k in range(n):
        generalized_slope(q, below_max[k], factor, factor_low, &slope[k], &low)
