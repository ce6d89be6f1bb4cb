"""The machine: the limits that it sets to a computation, the instructions that rivals may use, and its load.

`Limits` are measured: the peak of fused multiply-adds in registers, by dtype and number of threads, and the
speed at which memory and each level of the cache are read. A computation of so many operations on so many
bytes takes at least ``max(flops / peak, bytes / bandwidth)``: its limit.
"""

import ctypes
import os
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

# For each build: its flags, the bytes of a vector, and what holds the libraries beside it to the same
# instructions. oneDAL, which sklearnex calls, has no such variable, except for the part that is MKL's.
BUILDS = {
    "avx512": (("-march=x86-64-v4", "-mprefer-vector-width=512"), 64, {}),
    "avx2": (
        ("-march=x86-64-v3",),
        32,
        {
            "OPENBLAS_CORETYPE": "Haswell",
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "NUMBA_CPU_NAME": "haswell",
            "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2",
        },
    ),
    "baseline": (
        (),
        16,
        {
            "OPENBLAS_CORETYPE": "Nehalem",
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            "NUMBA_CPU_NAME": "nehalem",
            "NUMBA_CPU_FEATURES": "+sse4.2",
        },
    ),
}
SECONDS = 0.005  # of one measurement of a limit; the best of TURNS counts
TURNS = 25


def hold_to_build():
    """Let this process's children use no instructions that the build which SKLLOSS_CPU names has not.

    A variable that is set already is left alone.
    """
    held = BUILDS.get(os.environ.get("SKLLOSS_CPU", ""), ((), 0, {}))[2]
    for name, value in held.items():
        os.environ.setdefault(name, value)
    return [f"{name}={os.environ[name]}" for name in held]


@dataclass(frozen=True)
class Work:
    """The least that a computation has to do: operations, a fused multiply-add counting as two, and bytes.

    ``bytes`` are read (or written) ``times`` times; they come from the smallest level of the cache that holds
    them all. ``threads`` is the number of threads that may do it; None: as many as there are CPUs.
    """

    flops: float
    bytes: float
    dtype: str
    times: float = 1.0
    threads: int | None = None


class Limits:
    """What the machine allows a build at most."""

    def __init__(self, build):
        self.build = build
        self.peaks = {}  # (dtype, threads): operations a second
        self.levels = [(f"L{level}", size) for level, size in _caches()] + [("memory", float("inf"))]
        self.bandwidths = {}  # (level, threads): bytes a second
        with tempfile.TemporaryDirectory() as folder:
            for dtype, number in (("float32", "float"), ("float64", "double")):
                library = _compile(folder, build, number)
                for threads in {1, CPUS}:
                    self.peaks[dtype, threads] = _peak(library, number, BUILDS[build][1], threads)
            largest = max((size for _, size in self.levels[:-1]), default=1 << 25)
            for name, size in self.levels:
                numbers = int(min(size / 2, 4 * largest)) // 8 // 64 * 64  # whole steps of read_numbers
                for threads in {1, CPUS}:
                    self.bandwidths[name, threads] = _bandwidth(library, numbers, threads)

    def seconds(self, work):
        """The least time for some `Work`."""
        threads = work.threads or CPUS
        level = next(name for name, size in self.levels if work.bytes <= size)
        once = max(work.flops / self.peaks[work.dtype, threads], work.bytes / self.bandwidths[level, threads])
        return work.times * once

    def lines(self):
        """What was measured, for the report."""
        peaks = [
            f"{self.peaks[dtype, threads] / 1e9:.0f} GFlop/s {dtype}, {_threads(threads)}"
            for dtype, threads in sorted(self.peaks)
        ]
        reads = [
            f"{name} " + ", ".join(f"{self.bandwidths[name, n] / 1e9:.0f}" for n in sorted({1, CPUS}))
            for name, _ in self.levels
        ]
        counts = ", ".join(_threads(n) for n in sorted({1, CPUS}))
        return {
            f"peak, {self.build}": "; ".join(peaks),
            f"read in GB/s, {counts}": "; ".join(reads),
        }


def _threads(n):
    return f"{n} thread" + "s" * (n > 1)


def limits(build):
    """The limits of a build, and None; or None, and why they cannot be measured."""
    if build not in BUILDS:
        return None, f"no limits are known for the build {build}"
    if shutil.which(os.environ.get("CC", "cc").split()[0]) is None:
        return None, "limits are not measured without a C compiler"
    try:
        return Limits(build), None
    except (OSError, subprocess.CalledProcessError) as error:
        return None, f"limits are not measured: {error}"


def _caches():
    """Level and bytes of each cache for data, the smallest first."""
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if (folder / "type").read_text().strip() != "Instruction":
            size = (folder / "size").read_text().strip()
            scale = {"K": 1 << 10, "M": 1 << 20}[size[-1]]
            found.append((int((folder / "level").read_text()), int(size[:-1]) * scale))
    return found or [(1, 1 << 15), (2, 1 << 20), (3, 1 << 24)]


def _compile(folder, build, number):
    """The functions of peaks.h for one dtype."""
    flags, vector, _ = BUILDS[build]
    file = Path(folder) / f"{number}.so"
    command = [*os.environ.get("CC", "cc").split(), "-O3", "-shared", "-fPIC", "-x", "c", *flags]
    command += [f"-DNUMBER={number}", f"-DBYTES={vector}", str(Path(__file__).with_name("peaks.h"))]
    subprocess.run([*command, "-o", str(file)], check=True, capture_output=True)
    library = ctypes.CDLL(str(file))
    kind = getattr(ctypes, f"c_{number}")
    library.multiply_add.restype = library.read_numbers.restype = kind
    library.multiply_add.argtypes = [ctypes.c_long]
    library.read_numbers.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long]
    return library


def _rate(calls, amount):
    """``amount`` a second, done by all these calls side by side; each is a function of how often."""
    times = 1
    while min(_side_by_side(calls[:1], times) for _ in range(3)) < SECONDS / 2:
        times *= 2
    return max(amount * times / _side_by_side(calls, times) for _ in range(TURNS))


def _side_by_side(calls, times):
    """Seconds until all calls are back. ctypes lets go of the GIL."""
    threads = [threading.Thread(target=call, args=(times,)) for call in calls[1:]]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    calls[0](times)
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


def _peak(library, number, vector, threads):
    steps = 1000
    numbers = vector // (4 if number == "float" else 8)
    calls = [lambda times: library.multiply_add(times * steps)] * threads
    return _rate(calls, 2.0 * 12 * numbers * steps * threads)


def _bandwidth(library, numbers, threads):
    """The threads share a cache of the last level; the smaller ones are each CPU's own."""
    arrays = [np.ones(numbers + 8) for _ in range(threads)]  # zeros would all be one page
    starts = [-(-array.ctypes.data // 64) * 64 for array in arrays]
    calls = [lambda times, at=at: library.read_numbers(at, numbers, times) for at in starts]
    return _rate(calls, 8.0 * numbers * threads)


def snapshot(pids):
    """The time, and the ticks that all CPUs, and this process with these children, were busy; or None."""
    try:
        every = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        own = sum(_own(pid) for pid in (os.getpid(), *pids))
    except OSError:
        return None
    return time.perf_counter(), sum(every) - every[3] - every[4], own  # without idle, and waiting for a disk


def _own(pid):
    """Ticks of a process, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(x) for x in fields[11:15])


def others(before, after):
    """How many CPUs others kept busy between two snapshots; None if that is not known."""
    if before is None or after is None or after[0] - before[0] < 0.1:
        return None
    seconds, busy, own = (b - a for a, b in zip(before, after, strict=True))
    return max(0.0, (busy - own) / os.sysconf("SC_CLK_TCK") / seconds)
