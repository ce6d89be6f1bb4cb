"""Builds the kernels; everything else about the project is in pyproject.toml."""

import os
import platform
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,  # a check for division by zero in a formula would keep its loop scalar
    "initializedcheck": False,
}

# -O3 vectorises. The -fno flags let the compiler drop bookkeeping (errno, floating-point traps) that
# blocks vector code; neither changes a result. Never -ffast-math: it would, for the whole process.
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math"]

KERNELS = Path(__file__).parent / "sklloss" / "kernels"

X86_64 = {
    "baseline": ["-march=x86-64-v2"],
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}


def targets():
    """Name and flags of each build of the kernels for this machine's architecture."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return X86_64
    return {"baseline": []}


def extensions():
    found = [
        Extension(
            f"sklloss.kernels._build_{name}",
            [f"sklloss/kernels/_build_{name}.pyx"],
            extra_compile_args=FLAGS + flags,
            # A compiler too old for an instruction set costs that build, not the installation.
            optional=name != "baseline",
        )
        for name, flags in targets().items()
    ]
    found += [
        Extension(f"sklloss.kernels.{path.stem}", [f"sklloss/kernels/{path.name}"], extra_compile_args=FLAGS)
        for path in sorted(KERNELS.glob("*.pyx"))
        if not path.stem.startswith("_build_")
    ]
    return found


class BuildKernels(build_ext):
    """build_ext, with the files compiled side by side and flags that the compiler knows."""

    def finalize_options(self):
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()

    def build_extension(self, ext):
        if self.compiler.compiler_type == "msvc":
            ext.extra_compile_args = ["/O2"]
        super().build_extension(ext)


if __name__ == "__main__":
    setup(
        ext_modules=cythonize(extensions(), compiler_directives=DIRECTIVES, nthreads=os.cpu_count() or 1),
        cmdclass={"build_ext": BuildKernels},
    )
