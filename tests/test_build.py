"""Which build of the kernels is used, how it is forced, and what show_versions says of it."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sklloss import kernels
from sklloss._version import _kernels, show_versions, version_of


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )


ASK = "from sklloss import kernels; print(kernels.chosen, kernels.reason, sep='|')"


@pytest.mark.parametrize("build", kernels.BUILDS)
def test_SKLLOSS_CPU_forces_a_build_or_says_why_it_cannot(build):
    done = run(ASK, SKLLOSS_CPU=build)
    if build in kernels.available():
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"{build}|SKLLOSS_CPU asks for it"
    else:
        assert done.returncode != 0
        assert f"ValueError: SKLLOSS_CPU={build!r} cannot be used" in done.stderr


def test_the_forced_build_is_the_one_that_computes():
    code = """
import ctypes
from sklloss import kernels

address, name = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_GetName
name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]

for build in kernels.available():
    for key, kernel in kernels.table_of(build).items():
        used = kernels.get(*key)
        assert (address(kernel, name(kernel)) == address(used, name(used))) == (build == "baseline")
"""
    done = run(code, SKLLOSS_CPU=" Baseline ")
    assert done.returncode == 0, done.stderr


def test_an_unknown_build_is_named_with_the_known_ones():
    done = run(ASK, SKLLOSS_CPU="sse9")
    assert done.returncode != 0
    assert "ValueError: SKLLOSS_CPU='sse9' is not one of baseline, avx2, avx512" in done.stderr


def test_without_SKLLOSS_CPU_the_best_usable_build_is_chosen():
    done = run(ASK, SKLLOSS_CPU="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.partition("|")[0] == kernels.available()[0]


def test_baseline_is_always_usable():
    assert kernels.available()[-1] == "baseline"


def test_every_build_has_the_same_kernels_in_both_dtypes():
    names = {build: set(kernels.table_of(build)) for build in kernels.available()}
    assert len(set(map(frozenset, names.values()))) == 1
    every = names["baseline"]
    assert every == {(name, dtype) for name, _ in every for dtype in ("float32", "float64")}


def test_a_build_that_the_compiler_could_not_make_is_done_without_and_reported(monkeypatch):
    monkeypatch.delenv("SKLLOSS_CPU", raising=False)
    monkeypatch.setattr(kernels.common, "supported", lambda: ["avx512", "avx2", "baseline"])
    monkeypatch.setattr(kernels, "_installed", lambda build: build == "baseline")
    chosen, reason = kernels._choose()
    assert chosen == "baseline"
    assert "could not build avx512, avx2" in reason
    assert dict(_kernels())["avx512"] == "missing: this CPU could run it, but it was not built"


def test_python_started_among_sources_without_kernels_is_told_in_one_line_what_to_do(tmp_path):
    package = tmp_path / "sklloss"
    shutil.copytree(
        Path(kernels.__file__).parents[1], package, ignore=shutil.ignore_patterns("*.so", "*.pyd", "*.c")
    )
    done = subprocess.run(
        [sys.executable, "-c", "import sklloss"], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {package} holds sklloss's sources without compiled kernels")
    assert "start Python in another folder" in last
    assert "pip install --editable ." in last
    assert "partially initialized" not in done.stderr


def test_show_versions_tells_versions_kernels_threads_and_devices(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert show_versions() is None
    shown = {}
    for line in capsys.readouterr().out.splitlines():
        name, _, value = line.partition(":")
        shown.setdefault(name.strip(), value.strip())
    assert {"System", "sklloss", "Kernels", "Threads", "Devices"} <= set(shown)
    assert shown["python"].startswith(sys.version.split()[0])
    for package in ("numpy", "scipy", "joblib", "threadpoolctl", "array-api-compat"):
        assert shown[package] == importlib.metadata.version(package)
    assert shown["sklearn"] == importlib.metadata.version("scikit-learn")
    assert {"internal_api", "num_threads"} <= set(shown)  # of BLAS
    assert shown["in use"] == f"{kernels.chosen} ({kernels.reason})"
    assert all(shown[build] == "usable" for build in kernels.available())
    assert shown["OMP_NUM_THREADS"] == "3"
    assert shown["cpu"] == "always"


def test_show_versions_does_not_import_torch():
    pytest.importorskip("torch")
    done = run("import sys; from sklloss._version import show_versions; show_versions(); "
               "assert 'torch' not in sys.modules")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "torch" in done.stdout


def test_a_package_that_is_missing_is_called_not_installed():
    assert version_of("no-such-package-of-any-name") == "not installed"
