"""Learning-rate schedules over a training of known length, as factors of the highest rate."""

import functools
from collections.abc import Callable

import numpy as np

# What a one-cycle course divides the highest rate by in its first step, and the rate of its first step in its
# last: those of torch's OneCycleLR.
FIRST_DIVISOR = 25.0
LAST_DIVISOR = 1e4


def cosine(steps: np.ndarray, total: int, warmup_fraction: float) -> np.ndarray:
    """A linear rise, then half a cosine down towards 0.

    Parameters
    ----------
    steps : ndarray
        Numbers of steps, the first of which is 0.
    total : int
        How many steps the training has.
    warmup_fraction : float
        The share of them, rounded to whole steps, in which the rate rises.

    Returns
    -------
    ndarray
        With w steps of warm-up, step s has the factor ``(s + 1) / (w + 1)`` while ``s < w``, from then on
        ``(1 + cos(pi * (s - w) / (total - w))) / 2``.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5.
    Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2, for the linear warm-up.
    """
    warmup = round(warmup_fraction * total)
    fall = _half_cosine(1.0, 0.0, (steps - warmup) / max(total - warmup, 1))
    return np.where(steps < warmup, (steps + 1) / (warmup + 1), fall)


def one_cycle(steps: np.ndarray, total: int, warmup_fraction: float) -> np.ndarray:
    """Half a cosine up from 1 / 25, then half a cosine down to 1 / 250000.

    Parameters
    ----------
    steps, total, warmup_fraction
        As in `cosine`. The rate is highest at step ``warmup_fraction * total - 1``, and no earlier than in
        the first.

    Returns
    -------
    ndarray
        Those of torch's ``OneCycleLR`` at its defaults, without the momentum's cycle.

    References
    ----------
    Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates",
    2018.
    """
    top, last = max(warmup_fraction * total - 1.0, 0.0), total - 1.0
    low, end = 1.0 / FIRST_DIVISOR, 1.0 / (FIRST_DIVISOR * LAST_DIVISOR)
    rise = _half_cosine(low, 1.0, steps / (top or 1.0))
    fall = _half_cosine(1.0, end, (steps - top) / ((last - top) or 1.0))
    return np.where(steps < top, rise, fall)


def _half_cosine(start: float, end: float, share: np.ndarray) -> np.ndarray:
    """From start, at share 0, to end, at share 1."""
    return end + (start - end) * 0.5 * (1.0 + np.cos(np.pi * share))


# The schedules, and the share of warm-up that each has by default.
SCHEDULES = {"cosine": (cosine, 0.05), "one-cycle": (one_cycle, 0.3)}


def schedule(
    name: str, warmup_fraction: float | None = None
) -> Callable[[np.ndarray, int], np.ndarray] | None:
    """The factors of the schedule of that name, as a function of steps and their total.

    Parameters
    ----------
    name : str
    warmup_fraction : float, optional
        None is the schedule's own.

    Returns
    -------
    callable or None
        None if no schedule has that name.
    """
    if name not in SCHEDULES:
        return None
    function, own = SCHEDULES[name]
    return functools.partial(function, warmup_fraction=own if warmup_fraction is None else warmup_fraction)
