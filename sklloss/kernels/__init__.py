"""Compiled loss kernels, one build per instruction set, chosen here at import.

``get(name, dtype)`` returns a kernel as a capsule, which `evaluate` and the passes over X call.
"""

import importlib
import importlib.util
import os
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

if importlib.util.find_spec("sklloss.kernels.common") is None:
    raise ImportError(
        f"{os.path.dirname(os.path.dirname(__file__))} holds sklloss's sources without compiled kernels: "
        "start Python in another folder to use the installed sklloss, or run `pip install --editable .` "
        "beside it"
    )

from sklloss.kernels import common
from sklloss.kernels.data import evaluate

__all__ = ["BUILDS", "available", "chosen", "evaluate", "get", "reason", "table_of"]

BUILDS = ("avx512", "avx2", "baseline")


def _installed(build: str) -> bool:
    return importlib.util.find_spec(f"sklloss.kernels.isa.{build}") is not None


def available() -> list[str]:
    """The builds that are installed and that this CPU can run, best first."""
    return [build for build in common.supported() if _installed(build)]


def table_of(build: str) -> dict[tuple[str, str], Any]:
    """All kernels of one build, by (name, dtype name)."""
    return importlib.import_module(f"sklloss.kernels.isa.{build}").table()


def _choose() -> tuple[str, str]:
    forced = os.environ.get("SKLLOSS_CPU", "").strip().lower()
    usable = available()
    if forced:
        if forced not in BUILDS:
            raise ValueError(f"SKLLOSS_CPU={forced!r} is not one of {', '.join(reversed(BUILDS))}")
        if forced not in usable:
            why = "this CPU does not have it" if _installed(forced) else "it was not built"
            raise ValueError(
                f"SKLLOSS_CPU={forced!r} cannot be used: {why}; usable here: {', '.join(usable)}"
            )
        return forced, "SKLLOSS_CPU asks for it"
    missing = [build for build in common.supported() if build not in usable]
    if missing:
        return usable[0], f"the best that was built; the compiler could not build {', '.join(missing)}"
    return usable[0], "the best that this CPU has"


chosen: str
reason: str
chosen, reason = _choose()
_table = table_of(chosen)
_names = {np.dtype(name): name for _, name in _table}  # faster than `dtype.name`
common.use_products(importlib.import_module(f"sklloss.kernels.isa.{chosen}").products())


def get(name: str, dtype: DTypeLike) -> Any:
    """The chosen build's kernel of that name for float32 or float64.

    Raises
    ------
    KeyError
        If there is no such kernel.
    """
    return _table[name, _names[np.dtype(dtype)]]
