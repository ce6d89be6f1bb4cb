"""Fixtures of all tests, and the choice of the cases that run by default."""

import itertools
import os
import signal
import sys
import zlib
from pathlib import Path

# Read by SciPy when it is first imported: scikit-learn's array API checks need it, instead of being skipped.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import numpy as np
import pytest
from simulated_device import simulated_device

from sklloss.arrays.device import Device, device_of

# A shell's background job starts with Ctrl-C ignored; the tests of interrupts need Python's own handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# A test function with at most this many cases runs all of them by default.
FEW_CASES = 4


def _values(item):
    """What the parameters of a test are in this case: one entry per decorator, one per fixture."""
    if not hasattr(item, "callspec"):
        return set()
    params = {name: id(value) for name, value in item.callspec.params.items()}
    values = set()
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0]
        names = tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else tuple(names)
        values.add((names, tuple(params.pop(name, None) for name in names)))
    return values | set(params.items())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark as exhaustive the cases that a test needs only to walk the whole product of its parameters.

    Many tests walk products such as loss x dtype x build x namespace. By default enough of their cases run
    that no value is missed; ``pytest -m ""`` runs the whole product. The choice depends on the names of the
    cases alone, so that all workers of pytest-xdist make the same.
    """
    by_function = {}
    for item in items:
        by_function.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in by_function.values():
        if len(cases) <= FEW_CASES:
            continue
        seen = set()
        # Ordered by a hash, so that the values of all parameters vary together from case to case.
        for item in sorted(cases, key=lambda item: zlib.crc32(item.nodeid.encode())):
            values = _values(item)
            if values <= seen:
                item.add_marker(pytest.mark.exhaustive)
            seen |= values


@pytest.fixture
def rng():
    """A generator with a fixed seed, fresh for each test."""
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def one_thread_of_torch():
    """Small operations on several threads wait for each other."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def device_named(name):
    """The `Device` of that name; the test is skipped where its library is missing."""
    if name.startswith("torch"):
        torch, device = pytest.importorskip("torch"), name.partition(" ")[2] or "cpu"
        if device == "simulated":
            device = simulated_device()
        elif device == "cuda" and not torch.cuda.is_available():
            pytest.skip("PyTorch sees no CUDA device")
        return device_of(torch.zeros(1, device=device))
    strict = pytest.importorskip("array_api_strict")
    return Device(strict, strict.Device(name.partition(" ")[2] or "CPU_DEVICE"))


# With an NVIDIA driver the tests of arrays run on its first device, else on a simulated one: torch would
# take that for the machine's own. Asking torch would take seconds here.
DEVICE = "torch cuda" if Path("/dev/nvidia0").exists() else "torch simulated"


@pytest.fixture
def device():
    """A ``torch.device`` whose tensors are not in main memory."""
    return device_named(DEVICE).native


@pytest.fixture(params=["strict", "strict device1", "torch", DEVICE])
def other_device(request):
    """A namespace and device other than NumPy's."""
    return device_named(request.param)


@pytest.fixture(scope="session")
def find_device():
    """`device_named`, for tests that want other devices."""
    return device_named


@pytest.fixture(
    params=[
        *((name, dtype) for name in (DEVICE, "strict device1") for dtype in ("float64", "float32")),
        ("strict no_float64", "float32"),
    ],
    ids="-".join,
)
def device_and_dtype(request):
    """A device, and the NumPy dtype of the arrays on it."""
    name, dtype = request.param
    return device_named(name), np.dtype(dtype)


@pytest.fixture
def strict():
    """A device of the namespace that has nothing beyond the standard."""
    return device_named("strict")


@pytest.fixture
def float32_alone(strict):
    """A device without float64."""
    return Device(strict.xp, strict.xp.Device("no_float64"))


@pytest.fixture
def press_ctrl_c(monkeypatch):
    """``press_ctrl_c(loss class, call)``: Ctrl-C comes at that call of its formula, counted from now on."""
    formulas = {}

    def press(owner, call):
        formula = formulas.setdefault(owner, owner.formula)
        calls = itertools.count(1)

        def struck(self, xp, y, raw):
            if next(calls) == call:
                signal.raise_signal(signal.SIGINT)
            return formula(self, xp, y, raw)

        monkeypatch.setattr(owner, "formula", struck)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield press
    signal.signal(signal.SIGINT, handler)
