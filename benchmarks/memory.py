"""This process's resident memory, now and at its peak, as Linux tells it."""

from pathlib import Path

STATUS = Path("/proc/self/status")


def _read(name):
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS} has no {name}")


def resident():
    """Bytes held now."""
    return _read("VmRSS")


def peak():
    """Bytes held at most since the peak was last reset."""
    return _read("VmHWM")


def reset_peak():
    """Let the peak start again from what is held now, which is returned."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident()
