"""What a bug report needs to know: versions, compiled kernels, BLAS, threads and devices."""

import os
import platform
import subprocess
import sys
from importlib import metadata

PACKAGES = ("scikit-learn", "numpy", "scipy", "array-api-compat", "joblib", "threadpoolctl")
OPTIONAL = ("torch", "pandas", "polars")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "SCIPY_ARRAY_API")

# In a process of its own: importing torch takes seconds and loads a second OpenMP runtime, which would
# slow down whatever the caller does next.
_ASK_TORCH = """
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


def _system():
    yield "python", sys.version.replace("\n", " ")
    yield "executable", sys.executable
    yield "machine", platform.platform()
    yield "processor", f"{_processor()}, {_cores()}"


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores():
    cores = os.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return f"{cores} cores" if usable == cores else f"{usable} of {cores} cores usable by this process"


def _packages():
    import sklloss

    # Not asked of the installer: a source tree need not be installed, and may not be what is.
    yield "sklloss", f"{sklloss.__version__} [{os.path.dirname(sklloss.__file__)}]"
    for package in PACKAGES:
        yield package, version_of(package)
    for package in OPTIONAL:
        yield package, f"{version_of(package)} (optional)"


def _kernels():
    from sklloss import kernels

    usable = kernels.available()
    on_this_cpu = kernels.dispatch.supported()
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


def _threads():
    from threadpoolctl import threadpool_info

    for pool in threadpool_info():
        parts = [pool["internal_api"], pool["version"] or "unknown version", f"{pool['num_threads']} threads"]
        if pool.get("architecture"):
            parts.append(f"{pool['architecture']} kernels")
        if pool.get("threading_layer"):
            parts.append(pool["threading_layer"])
        yield pool["user_api"], ", ".join(parts) + f" [{os.path.basename(pool['filepath'])}]"
    for name in THREAD_VARIABLES:
        yield name, os.environ.get(name) or "not set"


def _devices():
    yield "cpu", "always"
    if version_of("torch") == "not installed":
        yield "torch", "not installed, so no other device"
        return
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=120, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        yield "torch", f"installed, but could not be asked: {error}"
        return
    found = asked.stdout.splitlines()
    for line in found:
        device, _, name = line.partition(" ")
        yield device, name or "through torch"
    if not found:
        yield "torch", "sees no accelerator"


def show_versions() -> None:
    """Print what a bug report needs to know.

    Versions of Python and of the packages that sklloss uses, which build of the compiled kernels is in use
    and why, the BLAS and OpenMP libraries in this process with their kernels and thread counts, and the
    devices that torch sees, where it is installed.

    Examples
    --------
    >>> import sklloss
    >>> sklloss.show_versions()  # doctest: +SKIP
    """
    sections = {
        "System": _system,
        "Packages": _packages,
        "Kernels": _kernels,
        "Threads": _threads,
        "Devices": _devices,
    }
    for number, (title, lines) in enumerate(sections.items()):
        print(("\n" if number else "") + f"{title}:")
        for name, value in lines():
            print(f"{name:>20}: {value}")
