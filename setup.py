"""Builds the kernels; everything else about the project is in pyproject.toml."""

import os
import platform
import runpy
import tempfile
from pathlib import Path

from Cython import Tempita
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,  # a check for division by zero in a formula would keep its loop scalar
    "initializedcheck": False,
}

# -O3 vectorises. gcc vectorises more loops, and better, if it need not set errno, preserve floating-point
# traps, or split paths at conditionals (-fno-thread-jumps); none of these changes a result. -ffast-math
# would, and in the whole process. -g0 undoes the -g that Python was built with: debug information takes a
# quarter of the compile time and four fifths of the size of the modules.
FLAGS = ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-fno-thread-jumps"]

ROOT = Path(__file__).parent
KERNELS = ROOT / "sklloss" / "kernels"

# Cython's own functions, of memoryviews above all, in one module for all.
SHARED_UTILITY = "sklloss.kernels._cyutility"

ISA = KERNELS / "isa"

# Name, target and flags of each build of kernels/isa.
X86_64 = {
    "baseline": ("x86-64-v2", ["-march=x86-64-v2"]),
    "avx2": ("x86-64-v3: AVX2 and fused multiply-add", ["-march=x86-64-v3"]),
    "avx512": ("x86-64-v4: AVX-512", ["-march=x86-64-v4", "-mprefer-vector-width=512"]),
}
ELSEWHERE = {"baseline": ("the compiler's own target", [])}


def builds():
    """Name, target and flags of each build of the kernels for this machine's architecture."""
    return X86_64 if platform.machine().lower() in ("x86_64", "amd64") else ELSEWHERE


def render_templates():
    """Write the Cython sources that templates (*.tp) make, where they have changed."""
    constants = runpy.run_path(str(ISA / "constants.py"))
    for template in sorted(KERNELS.rglob("*.tp")):
        source = Tempita.Template(template.read_text(encoding="utf-8"), name=str(template))
        if template.name == "build.pyx.tp":
            for name, (target, _) in builds().items():
                _write(ISA / f"{name}.pyx", source.substitute(target=target))
        else:
            _write(template.with_suffix(""), source.substitute(constants))


def _write(path, text):
    """Write a file, unless it holds just that: its date tells Cython and the compiler whether to work."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def extensions():
    found = [
        Extension(
            f"sklloss.kernels.isa.{name}",
            [f"sklloss/kernels/isa/{name}.pyx"],
            include_dirs=["sklloss/kernels/isa"],
            depends=[str(path.relative_to(ROOT)) for path in sorted(KERNELS.rglob("*.h"))],
            extra_compile_args=FLAGS + flags,
            # A compiler too old for an instruction set costs that build, not the installation.
            optional=name != "baseline",
        )
        for name, (_, flags) in builds().items()
    ]
    for path in sorted(KERNELS.rglob("*.pyx")):
        if path.parent.name != "isa":
            source = path.relative_to(ROOT)
            found.append(
                Extension(
                    ".".join(source.with_suffix("").parts),
                    [str(source)],
                    include_dirs=["sklloss/kernels/isa"],
                    extra_compile_args=FLAGS,
                )
            )
    found.append(Extension(SHARED_UTILITY, ["sklloss/kernels/_cyutility.c"], extra_compile_args=FLAGS))
    return found


class BuildKernels(build_ext):
    """build_ext, with the files compiled side by side and flags that the compiler knows."""

    def finalize_options(self):
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            # No flags for the instruction sets are known to work there; the baseline serves.
            self.extensions = [ext for ext in self.extensions if _build_name(ext) in (None, "baseline")]
        # The longest first, so that no processor waits for them at the end.
        self.extensions.sort(key=lambda ext: _build_name(ext) is None)
        super().build_extensions()

    def build_extension(self, ext):
        if self.compiler.compiler_type == "msvc":
            ext.extra_compile_args = ["/O2"]
        elif _build_name(ext) == "baseline":
            # Compilers before gcc 11 do not know the levels of x86-64: they take their own default.
            flags = ext.extra_compile_args
            ext.extra_compile_args = [
                flag for flag in flags if not flag.startswith("-march") or self._takes(flag)
            ]
        super().build_extension(ext)

    def _takes(self, flag):
        """Whether the compiler accepts a flag."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.c"
            source.write_text("int main(void) { return 0; }\n")
            try:
                self.compiler.compile([str(source)], output_dir=folder, extra_postargs=[flag])
            except CompileError:
                return False
        return True


def _build_name(ext):
    """The instruction set of a build of the kernels; None for another extension."""
    _, found, name = ext.name.partition(".isa.")
    return name if found else None


if __name__ == "__main__":
    render_templates()
    setup(
        ext_modules=cythonize(
            extensions(),
            compiler_directives=DIRECTIVES,
            nthreads=os.cpu_count() or 1,
            shared_utility_qualified_name=SHARED_UTILITY,
        ),
        cmdclass={"build_ext": BuildKernels},
    )
