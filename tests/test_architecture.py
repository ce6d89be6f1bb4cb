"""The import rule: a room imports only from the rooms below it, and only public names of other packages.

Read from the source, so that an import inside a function, under TYPE_CHECKING or by a constant name
counts too.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "sklloss"

# What each room may import, besides itself. A new file or folder directly under sklloss/ needs a line.
BELOW_ESTIMATORS = {"kernels", "losses", "arrays", "data", "objectives", "solvers"}
# What the estimators' rooms share.
SHARED = {"_base", "_class_predictions"}
MAY_IMPORT = {
    "kernels": set(),
    "losses": {"kernels"},
    "arrays": {"kernels", "losses"},
    "data": {"kernels", "losses", "arrays"},
    "objectives": {"kernels", "losses", "arrays", "data"},
    # a solver sees an objective through the Protocols of solvers/base.py
    "solvers": {"kernels", "arrays"},
    "_base": {"arrays", "_version"},
    "_class_predictions": {"losses", "arrays", "data"},
    "metrics": {"losses", "data"},  # sees estimators through scikit-learn's interface
    "model_selection": {"data", "arrays", "_base"},
    "linear": BELOW_ESTIMATORS | SHARED | {"metrics", "model_selection"},
    "mlp": BELOW_ESTIMATORS | SHARED,
    "inspection": BELOW_ESTIMATORS | SHARED | {"linear"},
}
# What the parts of kernels/ may import of each other, besides its common files, which import none of them.
KERNELS_MAY_IMPORT = {"isa": {"network.types"}, "linear": {"solve"}, "network": {"solve"}, "solve": set()}
TOP = {"__init__", "__main__", "_version"}  # these may import everything
# The package itself: `from sklloss import LogLoss` in a room reaches up into __init__.
PACKAGE = "__init__"

_CYTHON_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<source>\.*[\w.]*)[ \t]+)?(?P<kind>c?import)[ \t]+"
    r"(?P<names>\([^)]*\)|[^\n#]+)",
    re.MULTILINE,
)
_TEXT = re.compile(r"#[^\n]*|(\"\"\"|''')[\s\S]*?\1")


def _python_imports(text):
    """(line, module, name or None, kind) of every import; relative modules keep their dots."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None, "import"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, "." * node.level + (node.module or ""), alias.name, "import"
        elif isinstance(node, ast.Attribute):
            chain = _dotted(node)
            if chain.startswith("sklearn."):
                yield node.lineno, chain, None, "attribute"
        elif isinstance(node, ast.Call) and _dotted(node.func).endswith(("import_module", "__import__")):
            name = _leading_constant(node.args[0]) if node.args else ""
            if name:
                yield node.lineno, name.rstrip("."), None, "import"


def _dotted(node):
    """``a.b.c`` of an attribute chain, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _leading_constant(node):
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _cython_imports(text):
    blank = _TEXT.sub(lambda match: "\n" * match.group().count("\n"), text)
    for match in _CYTHON_IMPORT.finditer(blank):
        line = blank.count("\n", 0, match.start("kind")) + 1
        names = [part.split()[0] for part in match["names"].strip("()").split(",") if part.strip()]
        for name in names:
            if match["source"] is None:
                yield line, name, None, match["kind"]
            else:
                yield line, match["source"], name, match["kind"]


def _absolute(module, path, root):
    """A relative module as an absolute one."""
    dots = len(module) - len(module.lstrip("."))
    if not dots:
        return module
    package = [root.name, *path.relative_to(root).parent.parts]
    base = package[: len(package) - dots + 1]
    return ".".join([*base, module.lstrip(".")]).rstrip(".")


def _room(path, root):
    return path.relative_to(root).parts[0].split(".")[0]


def _imported_room(module, name, root):
    """The room of this package that an import reaches, or None when it leaves the package."""
    parts = module.split(".") + ([name] if name else [])
    if parts[0] != root.name:
        return None
    if len(parts) > 1 and ((root / parts[1]).is_dir() or (root / f"{parts[1]}.py").is_file()):
        return parts[1]
    return PACKAGE


def _imported_part(module, name, root):
    """The part of kernels/ that an import reaches, and the module in it; None when it reaches none."""
    parts = module.split(".") + ([name] if name else [])
    if parts[:2] == [root.name, "kernels"] and len(parts) > 2 and parts[2] in KERNELS_MAY_IMPORT:
        return parts[2], ".".join(parts[2:4])
    return None


def _crosses_parts(module, name, path, root):
    """Whether a file of kernels/ imports a part of it that is not below its own."""
    within = path.relative_to(root).parts[1:]
    reached = _imported_part(module, name, root)
    if reached is None or within == ("__init__.py",):  # which chooses the build
        return False
    own = within[0] if len(within) > 1 else None
    return reached[0] != own and not KERNELS_MAY_IMPORT.get(own, set()) & set(reached)


def _is_private(module, name):
    parts = module.split(".") + ([name] if name else [])
    return any(part.startswith("_") and not part.startswith("__") for part in parts)


def violations(root):
    """What breaks the rule in a source tree, as ``file:line: why``."""
    found = []
    for path in sorted(root.rglob("*")):
        if path.suffix not in {".py", ".pyx", ".pxd", ".pxi", ".tp"}:
            continue
        room = _room(path, root)
        where = path.relative_to(root.parent).as_posix()
        if room not in MAY_IMPORT and room not in TOP:
            found.append(f"{where}:1: {room} is in no room; give it a line in {Path(__file__).name}")
            continue
        read = _python_imports if path.suffix == ".py" else _cython_imports
        for line, written, name, kind in read(path.read_text(encoding="utf-8")):
            module = _absolute(written, path, root)
            at = f"{where}:{line}"
            what = f"{module}.{name}" if name else module
            target = _imported_room(module, name, root)
            if target is not None and room not in TOP and target != room and target not in MAY_IMPORT[room]:
                found.append(f"{at}: {room} must not import {what}")
            if room == "kernels" and _crosses_parts(module, name, path, root):
                found.append(f"{at}: {path.relative_to(root / 'kernels').parts[0]} must not import {what}")
            if module.split(".")[0] == "sklearn" and _is_private(module, name):
                found.append(f"{at}: {what} is private to scikit-learn")
            if kind == "cimport" and module.split(".")[0] == "numpy":
                found.append(f"{at}: {what} ties the build to one NumPy")
    return found


def test_no_room_imports_upwards_or_what_is_private():
    assert violations(ROOT) == []


def test_every_room_is_there_to_be_checked():
    checked = {_room(path, ROOT) for path in ROOT.rglob("*") if path.suffix in {".py", ".pyx"}}
    assert checked >= set(MAY_IMPORT)


def test_the_tests_have_a_folder_for_each_room():
    tests = Path(__file__).parent
    folders = {path.parent.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")} - {"."}
    assert folders == {path.parent.name for path in ROOT.glob("*/__init__.py")}


@pytest.fixture
def tree(tmp_path):
    """A package with every room in it and nothing wrong; `plant` puts a text into one of its files."""
    root = tmp_path / "sklloss"
    for room in ("kernels", "losses", "arrays", "data", "objectives", "solvers", "linear", "mlp"):
        (root / room).mkdir(parents=True)
        (root / room / "__init__.py").touch()
    for module in ("__init__", "__main__"):
        (root / f"{module}.py").touch()
    for part in KERNELS_MAY_IMPORT:
        (root / "kernels" / part).mkdir()
    (root / "linear" / "base.py").write_text("from sklloss import kernels, losses\nfrom .. import data\n")
    (root / "__main__.py").write_text("import sklloss\nfrom sklloss import LogisticClassifier\n")

    def plant(file, text):
        (root / file).write_text(text)
        return violations(root)

    assert violations(root) == []
    return plant


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("kernels/a.py", "import sklloss.losses", 1),
        ("kernels/a.py", "import numpy\nfrom sklloss import losses", 2),
        ("kernels/a.py", "from .. import losses", 1),
        ("kernels/__init__.py", "from ..losses import LogLoss", 1),
        ("losses/a.py", "def f():\n    from ..objectives import x", 2),
        ("losses/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sklloss.mlp", 3),
        ("arrays/a.py", "import importlib\nimportlib.import_module('sklloss.solvers.adam')", 2),
        ("arrays/a.py", "import importlib\nimportlib.import_module(f'sklloss.solvers.{1}')", 2),
        ("objectives/a.py", "from sklloss import LogisticClassifier", 1),
        ("objectives/a.py", "import sklloss", 1),
        ("solvers/a.py", "from sklloss.losses import LogLoss", 1),
        ("solvers/a.py", "from sklloss import data", 1),
        ("solvers/a.py", "from sklloss.objectives import linear", 1),
        ("data/a.py", "from sklloss.objectives import linear", 1),
        ("linear/a.py", "from .. import mlp", 1),
        ("mlp/a.py", "from ..linear import LogisticClassifier", 1),
        ("mlp/a.py", "import sklloss.__main__", 1),
        ("kernels/a.pyx", '"""\nfrom sklloss.kernels import b"""\nfrom sklloss.losses cimport c', 3),
        ("kernels/a.pxd", "from ..solvers.gradient cimport (\n    a,\n    b,\n)", 1),
        ("kernels/a.pxi", "cimport sklloss.objectives", 1),
        ("kernels/linear/a.pyx", "from sklloss.kernels.network.types cimport a", 1),
        ("kernels/isa/a.pxi.tp", "\nfrom sklloss.kernels.linear.gradient cimport a", 2),
        ("kernels/isa/a.pxi", "from sklloss.kernels.network.network cimport a", 1),
        ("kernels/solve/a.pyx", "from sklloss.kernels.linear cimport a", 1),
        ("kernels/data.pxd", "from sklloss.kernels.isa.formulas cimport a", 1),
        ("linear/a.py", "from sklearn._loss import HalfBinomialLoss", 1),
        ("linear/a.py", "from sklearn.utils.validation import (\n    _check_sample_weight)", 1),
        ("linear/a.py", "import sklearn.linear_model._base as b", 1),
        ("__main__.py", "import sklearn\nsklearn.utils._param_validation.Interval", 2),
        ("kernels/a.pyx", "cimport numpy as cnp", 1),
        ("kernels/a.pyx", "from numpy cimport ndarray", 1),
        ("kernels/a.pyx", "cdef f():\n    from sklloss.losses import LogLoss", 2),
        ("stray.py", "", 1),
    ],
)
def test_a_planted_violation_is_found_with_its_line(tree, file, text, line):
    found = tree(file, text)
    assert found, "nothing was found"
    assert all(entry.startswith(f"sklloss/{file}:{line}: ") for entry in found)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("losses/a.py", "from ..kernels import get\nfrom . import b\nimport numpy as np"),
        ("solvers/a.pyx", "from scipy.linalg.cython_blas cimport dgemm\nfrom libc.math cimport sqrt"),
        ("kernels/a.pyx", "import numpy as np\nfrom cython cimport floating"),
        (
            "kernels/linear/a.pyx",
            "from sklloss.kernels.solve.a cimport b\nfrom sklloss.kernels.data cimport c",
        ),
        ("kernels/isa/a.pxi", "from sklloss.kernels.network.types cimport Step"),
        ("kernels/__init__.py", "import importlib\nimportlib.import_module(f'sklloss.kernels.isa.{1}')"),
        ("objectives/a.pyx", "from sklloss.kernels.data cimport a, b  # from sklloss import mlp"),
        ("linear/a.py", "from sklearn.utils import check_array\nfrom sklearn import __version__"),
        ("mlp/a.py", '"""\nimport sklloss.linear\n"""\nfrom sklloss.solvers import adam'),
    ],
)
def test_what_the_rule_allows_is_let_through(tree, file, text):
    assert tree(file, text) == []


MOST_PARAMETERS = 10
MOST_LINES = 80
# Files whose functions still exceed a limit; none may be added.
TOO_MANY_PARAMETERS: set[str] = set()
# Compiled functions that take more: BLAS has that many, and the focal losses of one formula.
MAY_TAKE_MORE = {"gemm", "blas_product", "focal"}
TOO_MANY_LINES: set[str] = set()


def _functions(root):
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield path.relative_to(root).as_posix(), node


def _parameters(function):
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def _lines(function):
    """Lines of a function without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function):
        lines -= function.body[0].end_lineno - function.body[0].lineno + 1
    return lines


def test_no_function_below_the_estimators_takes_more_parameters_than_one_can_keep_in_mind():
    found = {file for file, function in _functions(ROOT) if _parameters(function) > MOST_PARAMETERS}
    assert {file for file in found if file.split("/")[0] in BELOW_ESTIMATORS} <= TOO_MANY_PARAMETERS


_COMPILED_FUNCTION = re.compile(
    r"^[ \t]*(?:c?p?def\b[^\n(=]*?|ctypedef [^\n(]*\(\*)(?P<name>\w+)\)?[ ]*"
    r"\((?P<parameters>[^()]*(?:\([^()]*\)[^()]*)*)\)",
    re.MULTILINE,
)


def _compiled_functions(text):
    """The name and the number of parameters of each function in Cython's language."""
    for match in _COMPILED_FUNCTION.finditer(_TEXT.sub("", text)):
        parameters = re.sub(r"\[[^\]]*\]|\([^()]*\)", "", match["parameters"]).split(",")
        yield match["name"], sum(name.strip() not in {"", "self", "*"} for name in parameters)


def test_compiled_functions_are_counted_with_their_parameters():
    text = "cdef inline void f(int a, double[:, ::1] b, void (*c)(int, int)) noexcept nogil:\n    g(1, 2)\n"
    text += "def g(\n    self,  # a, b, c\n    real[:, ::1] x=None,\n    *,\n    y=h(1),\n):\n"
    text += "ctypedef void (*kernel)(int a, int b) noexcept nogil\n"
    assert list(_compiled_functions(text)) == [("f", 3), ("g", 2), ("kernel", 2)]


def test_no_compiled_function_takes_more_parameters_than_one_can_keep_in_mind():
    found = {
        name
        for path in (ROOT / "kernels").rglob("*")
        if path.suffix in {".pyx", ".pxd", ".pxi", ".tp"}
        for name, parameters in _compiled_functions(path.read_text(encoding="utf-8"))
        if parameters > MOST_PARAMETERS
    }
    assert found == MAY_TAKE_MORE


def test_no_function_is_longer_than_a_screen_or_two():
    found = {file for file, function in _functions(ROOT) if _lines(function) > MOST_LINES}
    assert {file for file in found if file.split("/")[0] != "kernels"} <= TOO_MANY_LINES
