"""Inverse links, over a namespace and in place by a kernel, and what losses compute on the way to them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import device

from sklloss import kernels


def sigmoid(xp: Any, raw: Any) -> Any:
    """The probability of label 1, over an array namespace."""
    above, _, e = signed_parts(xp, raw)
    return sigmoid_pair(above, e)[0]


def sigmoid_in_place(scores: Any) -> None:
    """Replace C-contiguous NumPy scores (n, outputs) by probabilities, using the kernel."""
    # The gradient at y = 0 is the probability.
    kernels.evaluate(kernels.get("log_loss", scores.dtype), scores, target=np.zeros_like(scores))


def signed_parts(xp: Any, raw: Any) -> tuple[Any, Any, Any]:
    """1 where raw >= 0, else 0; then |raw| and exp(-|raw|).

    |raw| is raw times its sign and not ``abs``, whose automatic derivative at 0 is 0: the derivative of the
    loss at 0 is 1/2 - y.
    """
    above = xp.astype(raw >= 0, raw.dtype)
    size = (2.0 * above - 1.0) * raw
    return above, size, xp.exp(-size)


def select(above: Any, this: Any, other: Any) -> Any:
    """One of two finite arrays: ``this`` where above is 1, ``other`` where it is 0.

    Exact, and on a CPU faster than ``where``, which branches at every element.
    """
    return above * this + (1.0 - above) * other


def sigmoid_pair(above: Any, e: Any) -> tuple[Any, Any]:
    """The sigmoids of raw and of -raw, each with its relative accuracy."""
    small, large = e / (1.0 + e), 1.0 / (1.0 + e)
    return select(above, large, small), select(above, small, large)


def softmax(xp: Any, raw: Any) -> Any:
    """Class probabilities (n, K), over an array namespace."""
    _, e, rest = softmax_parts(xp, raw)
    return e / (1.0 + rest)


def softmax_in_place(scores: Any) -> None:
    """Replace C-contiguous NumPy scores (n, K) by class probabilities, using the kernel."""
    # The kernel returns the probabilities as curvature; the codes do not matter.
    codes = np.zeros(scores.shape[0], dtype=np.intp)
    p = np.empty_like(scores)
    kernels.evaluate(kernels.get("cross_entropy", scores.dtype), scores, codes=codes, curvature=p)
    scores[...] = p


def one_hot(xp: Any, codes: Any, raw: Any) -> Any:
    """A boolean array of raw's shape, true at the code of each row."""
    classes = xp.arange(raw.shape[1], dtype=codes.dtype, device=device(raw))
    return codes[:, None] == classes[None, :]


def at_codes(xp: Any, array: Any, codes: Any) -> Any:
    """The entry at the code of each row of an (n, K) array, of shape (n,)."""
    if hasattr(xp, "take_along_axis"):  # not in the oldest namespaces
        return xp.take_along_axis(array, codes[:, None], axis=1)[:, 0]
    n, K = array.shape
    place = xp.arange(n, dtype=codes.dtype, device=device(array)) * K + codes
    return xp.take(xp.reshape(array, (-1,)), place, axis=0)


def softmax_parts(xp: Any, raw: Any) -> tuple[Any, Any, Any]:
    """For m the largest score of a row: m - raw and exp(raw - m), (n, K); S = sum exp(raw - m) - 1, (n, 1).

    m is the score of one class, the first that is largest; S is the sum over all the others. Automatic
    differentiation takes the same steps, and that choice keeps it right: m's own distance to m is the
    constant 0, so that the derivative of m never meets its own negative, while a class that ties with it is
    one of the others.
    """
    first = xp.argmax(raw, axis=1)
    top = at_codes(xp, raw, first)[:, None]
    alone = one_hot(xp, first, raw)
    gap = xp.where(alone | (xp.isinf(top) & (raw == top)), 0.0, top - raw)
    e = xp.exp(-gap)
    return gap, e, xp.sum(xp.where(alone, 0.0, e), axis=1, keepdims=True)


def centred(xp: Any, gap: Any, p: Any, direction: Any) -> Any:
    """``v - sum_k p_k v_k`` for a direction v; ``gap`` is 0 at the largest scores.

    v is first shifted to 0 at the largest score, so that the difference keeps its digits where p is near 1.
    """
    at_top = gap == 0
    ties = xp.sum(xp.astype(at_top, p.dtype), axis=1, keepdims=True)
    v = direction - xp.sum(xp.where(at_top, direction, 0.0), axis=1, keepdims=True) / ties
    return v - xp.sum(p * v, axis=1, keepdims=True)


#: The inverse links that have a name in scikit-learn.
INVERSE_LINKS: dict[str, Callable[[Any, Any], Any]] = {
    "identity": lambda xp, raw: raw,
    "logistic": sigmoid,
    "softmax": softmax,
    "exp": lambda xp, raw: xp.exp(raw),
}

#: Those that a kernel computes.
INVERSE_LINKS_IN_PLACE: dict[str, Callable[[Any], None]] = {
    "logistic": sigmoid_in_place,
    "softmax": softmax_in_place,
}
