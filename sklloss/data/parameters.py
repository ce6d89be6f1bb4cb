"""Checks of estimator parameters, and the state that an estimator keeps when one fails."""

import contextlib
import math
import numbers
import traceback
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from sklloss.arrays.device import is_out_of_memory


def check_real(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """A real number within bounds, as a float; TypeError or ValueError names the parameter."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} is out of the range of a float") from None
    below = number <= low if open_low else number < low
    above = number >= high if open_high else number > high
    if below or above or math.isnan(number):
        bounds = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
        raise ValueError(f"{name} must be in {bounds}, got {value!r}")
    return number


def check_integer(name: str, value: Any, low: int, *, infinity: bool = False) -> Any:
    """A whole number of at least ``low`` (or infinity, where it has a meaning)."""
    if infinity and isinstance(value, numbers.Real) and value == math.inf:
        return math.inf
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value!r}")
    return int(value)


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """One of a few strings."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def check_flag(name: str, value: Any) -> bool:
    """True or False, also as NumPy's or as 0 and 1."""
    if not isinstance(value, (bool, np.bool_, numbers.Integral)) or value not in (0, 1):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


class KeepState(Exception):  # noqa: N818 - not an error, but what carries one
    """Raised within `unchanged_on_error` to raise ``error`` from it, with the attributes set so far kept."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


@contextlib.contextmanager
def unchanged_on_error(estimator: Any) -> Iterator[None]:
    """Give an estimator back the attributes that it had, whatever ends the block early but `KeepState`.

    Fitted arrays are replaced and never written to, so a shallow copy holds the whole state.
    """
    before = vars(estimator).copy()
    try:
        yield
    except KeepState as kept:
        raise kept.error from kept.error.__cause__
    except BaseException as error:
        vars(estimator).clear()
        vars(estimator).update(before)
        if isinstance(error, MemoryError) or not is_out_of_memory(error):
            raise
        # What fills the device's memory hangs on the frames that the error has come through.
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        raise MemoryError(f"{type(estimator).__name__} ran out of memory: {error}") from None
