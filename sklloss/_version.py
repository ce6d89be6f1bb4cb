"""The version of sklloss, and `show_versions`."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

import sklearn

__version__ = "0.1.0"

# Those that scikit-learn's `show_versions` leaves out.
PACKAGES = ("array-api-compat", "torch", "polars")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "SCIPY_ARRAY_API")

# Run in a separate process: importing torch takes seconds and loads a second OpenMP runtime, which would slow
# down whatever the caller does next.
_LIST_TORCH_DEVICES = """
import torch
for index in range(torch.cuda.device_count()):
    print(f"cuda:{index} {torch.cuda.get_device_name(index)}")
if torch.backends.mps.is_available():
    print("mps")
"""


def version_of(package: str) -> str:
    """The installed version of a package, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _packages() -> Iterator[tuple[str, str]]:
    # Not from the metadata: a source tree need not be installed, and another copy may be.
    yield "sklloss", f"{__version__} [{os.path.dirname(__file__)}]"
    for package in PACKAGES:
        yield package, version_of(package)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _kernels() -> Iterator[tuple[str, str]]:
    from sklloss import kernels
    from sklloss.kernels.common import supported

    usable = kernels.available()
    on_this_cpu = supported()
    yield "processor", _processor()
    yield "in use", f"{kernels.chosen} ({kernels.reason})"
    for build in kernels.BUILDS:
        if build in usable:
            state = "usable"
        elif build in on_this_cpu:
            state = "missing: this CPU could run it, but it was not built"
        else:
            state = "not for this CPU"
        yield build, state
    yield "SKLLOSS_CPU", os.environ.get("SKLLOSS_CPU") or "not set"


def _threads() -> Iterator[tuple[str, str]]:
    cores = os.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    yield "cores", f"{cores}, of which this process may use {usable}"
    for name in THREAD_VARIABLES:
        yield name, os.environ.get(name) or "not set"


def _devices() -> Iterator[tuple[str, str]]:
    yield "cpu", "always"
    if version_of("torch") == "not installed":
        yield "torch", "not installed, so there is no other device"
        return
    command = [sys.executable, "-c", _LIST_TORCH_DEVICES]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        yield "torch", f"installed, but its devices could not be listed: {error}"
        return
    found = listed.stdout.splitlines()
    for line in found:
        device, _, name = line.partition(" ")
        yield device, name or "through torch"
    if not found:
        yield "torch", "finds no accelerator"


def show_versions() -> None:
    """Print what a bug report needs to say.

    First what `sklearn.show_versions` prints: versions of Python and packages, and the BLAS and OpenMP
    libraries in this process with their kernels and thread counts. Then the version of sklloss and of further
    packages that it uses, which build of the compiled kernels is in use and why, the environment variables
    that set thread counts, and the devices that torch finds, where it is installed.

    Examples
    --------
    >>> import sklloss
    >>> sklloss.show_versions()  # doctest: +SKIP
    """
    sklearn.show_versions()
    sections = {"sklloss": _packages, "Kernels": _kernels, "Threads": _threads, "Devices": _devices}
    for title, lines in sections.items():
        print(f"\n{title}:")
        for name, value in lines():
            print(f"{name:>20}: {value}")
