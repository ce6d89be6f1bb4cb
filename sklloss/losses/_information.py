"""Entropy, cross-entropy and Kullback-Leibler divergence of distributions given by their probabilities."""

from numbers import Integral
from typing import Any

import numpy as np

from sklloss.losses import _checks
from sklloss.losses._base import ignored_errors


def entropy(p: Any, axis: int = -1) -> Any:
    """The entropy ``-sum_k p_k log p_k``, in nats.

    It is 0 only for a certain p, and log K for the uniform one.

    Parameters
    ----------
    p : array of float32 or float64, or of integers or bools
        Probabilities, which sum to 1 along ``axis`` within the square root of the dtype's machine epsilon.
    axis : int, default=-1

    Returns
    -------
    float or array
        Of p's shape without ``axis``. A float for one distribution in NumPy, otherwise an array of p's
        namespace, device and dtype. Sums are carried in float64 where the device has it.

    Raises
    ------
    ValueError, TypeError
        Naming the row where probabilities are negative or not finite, or do not sum to 1.

    Examples
    --------
    >>> from sklloss import losses
    >>> losses.entropy([0.5, 0.25, 0.25]) / losses.entropy([0.5, 0.5])
    1.5
    >>> losses.entropy([0.0, 1.0])
    0.0
    """
    return cross_entropy(p, p, axis=axis)


def cross_entropy(p: Any, q: Any, axis: int = -1) -> Any:
    """The cross-entropy ``-sum_k p_k log q_k``, in nats, of predictions q where p is the true distribution.

    It is `entropy` of p plus `kl_divergence` of p and q, and so smallest at q = p, where it is not 0 but
    exactly the entropy of p.

    Parameters
    ----------
    p, q : arrays of one shape, as for `entropy`
    axis : int, default=-1

    Returns
    -------
    float or array
        As `entropy` returns it. Infinite if q is 0 where p is not. Terms with p = 0 are 0, whatever q is.

    Raises
    ------
    ValueError, TypeError
        As for `entropy`, and for different shapes: nothing is broadcast.

    See Also
    --------
    CrossEntropy : The loss, from logits. Use it for training: rounded probabilities lose the digits of small
        and of nearly certain ones.

    Examples
    --------
    >>> from sklloss import losses
    >>> losses.cross_entropy([0.5, 0.5], [0.5, 0.5]) == losses.entropy([0.5, 0.5])
    True
    >>> losses.cross_entropy([0.5, 0.5], [1.0, 0.0])
    inf
    """
    xp, p, q, finish = _accept(p, q, axis)
    with ignored_errors(xp):
        possible = p > 0
        # 0 - log, so that the result for a certain p is 0 and not -0.
        surprisal = xp.where(q > 0, 0.0 - xp.log(xp.where(q > 0, q, 1.0)), xp.inf)
        terms = xp.where(possible, p * xp.where(possible, surprisal, 0.0), 0.0)
        return finish(xp.sum(terms, axis=axis))


def kl_divergence(p: Any, q: Any, axis: int = -1) -> Any:
    """The Kullback-Leibler divergence ``sum_k p_k log(p_k / q_k)``, in nats.

    Never negative, and 0 only for equal distributions.

    Parameters
    ----------
    p, q : arrays of one shape, as for `entropy`
    axis : int, default=-1

    Returns
    -------
    float or array
        As `entropy` returns it. Infinite if q is 0 where p is not.

    Raises
    ------
    ValueError, TypeError
        As for `cross_entropy`.

    Notes
    -----
    The sum is of ``p log(p / q) - p + q``. The last two terms add up to 0 for probabilities that sum to 1
    exactly; with them no term is negative, and nothing cancels where p is close to q, however the
    probabilities were rounded.

    Examples
    --------
    >>> from sklloss import losses
    >>> losses.kl_divergence([0.5, 0.5], [0.5, 0.5])
    0.0
    >>> losses.kl_divergence([0.5, 0.5], [0.5 + 2**-30, 0.5 - 2**-30]) / 2**-59
    1.0
    """
    xp, p, q, finish = _accept(p, q, axis)
    with ignored_errors(xp):
        return finish(xp.sum(_divergence_terms(xp, p, q), axis=axis))


def _divergence_terms(xp: Any, p: Any, q: Any) -> Any:
    """``p log(p / q) - p + q``, each to a few ULP.

    With s = (p - q) / (p + q), log(p / q) is 2 atanh(s), and the term is
    (p + q) (s**2 + (1 + s) (atanh(s) - s)). For p and q within a factor 2, p - q is exact and |s| <= 1/3:
    17 terms of the series give atanh(s) - s.
    """
    difference, total = p - q, p + q
    both = (p > 0) & (q > 0)
    near = both & (p <= 2.0 * q) & (q <= 2.0 * p)
    s = xp.where(near, difference / xp.where(near, total, 1.0), 0.0)
    square = s * s
    series = xp.zeros_like(s)
    for k in range(35, 1, -2):
        series = series * square + 1.0 / k
    close = total * (square + (1.0 + s) * (s * square * series))
    # The quotient overflows only for a subnormal q.
    ratio = xp.where(both, p, 1.0) / xp.where(both, q, 1.0)
    wide = xp.isinf(ratio)
    log = xp.where(wide, _log(xp, p, both & wide) - _log(xp, q, both & wide), _log(xp, ratio, ~wide))
    apart = xp.where(p == 0, 0.0, p * xp.where(both, log, xp.where(p == 0, p, xp.inf))) - difference
    return xp.where(near, close, apart)


def _log(xp: Any, x: Any, where: Any) -> Any:
    """The logarithm where the mask is true, 0 elsewhere."""
    return xp.log(xp.where(where, x, 1.0))


def _accept(p: Any, q: Any, axis: int) -> Any:
    """The namespace; p and q, checked, in the widest float; and a function that converts sums to results."""
    same = q is p
    xp = _checks.namespace(p)
    p = _checks.numpy_array(p, "p") if xp is np else p
    p = _checks.matching_array(xp, p, p, "p", "p")
    q = p if same else _checks.matching_array(xp, p, q, "q", "p")
    _checks.same_shape(q, p, "q", "p")
    if p.ndim == 0:
        raise ValueError("p must be an array of probabilities, not a single number")
    whole = isinstance(axis, Integral) and not isinstance(axis, bool)
    if not whole or not -p.ndim <= axis < p.ndim:
        raise ValueError(f"axis must be an integer in [{-p.ndim}, {p.ndim}), got {axis!r}")
    floats = [_float_type(xp, array, name) for array, name in ((p, "p"), (q, "q"))]
    single = xp.float32 in floats and xp.float64 not in floats
    wide = _checks.widest(xp, xp.astype(p, xp.float32))
    out = xp.float32 if single else wide
    tolerances = [float(xp.finfo(own or wide).eps) ** 0.5 for own in floats]
    p, q = xp.astype(p, wide), (None if same else xp.astype(q, wide))
    _distributions(xp, p, "p", axis, tolerances[0])
    if same:
        q = p
    else:
        _distributions(xp, q, "q", axis, tolerances[1])

    def finish(total: Any) -> Any:
        return float(total) if xp is np and total.ndim == 0 else xp.astype(total, out)

    return xp, p, q, finish


def _float_type(xp: Any, array: Any, name: str) -> Any:
    """float32 or float64, or None for integers and bools."""
    if xp.isdtype(array.dtype, ("bool", "integral")):
        return None
    for dtype in (xp.float32, xp.float64):
        if array.dtype == dtype:
            return dtype
    raise TypeError(f"{name} must be float32 or float64, got {array.dtype}")


def _distributions(xp: Any, array: Any, name: str, axis: int, tolerance: float) -> Any:
    """Raise a ValueError for values outside [0, 1] and for rows that do not sum to 1."""
    total = xp.sum(array, axis=axis)
    bad = xp.any(~(array >= 0), axis=axis) | ~(xp.abs(total - 1.0) <= tolerance)
    if not bool(xp.any(bad)):
        return
    first = int(xp.argmax(xp.astype(xp.reshape(bad, (-1,)), xp.int32)))
    place = tuple(int(i) for i in np.unravel_index(first, tuple(bad.shape)))
    who = "it" if not place else f"row {place[0] if len(place) == 1 else place}"
    axis %= array.ndim
    row = array[(*place[:axis], slice(None), *place[axis:])]
    for k in range(row.shape[0]):
        value = float(row[k])
        if not 0.0 <= value <= 1.0 + tolerance:
            raise ValueError(f"{name} must hold probabilities in [0, 1]; {who} has {value}")
    raise ValueError(
        f"{name} must hold probabilities that sum to 1; {who} sums to {float(total[place])}. "
        "Divide by the sums"
    )
