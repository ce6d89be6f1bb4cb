"""What the project says of itself is true: dependencies, tools, and the paths that its documents name."""

import ast
import importlib.util
import inspect
import re
import sys
import tomllib
from pathlib import Path

import pytest

import sklloss
from sklloss import kernels

ROOT = Path(__file__).resolve().parents[1]
# Imported only if the user passes their arrays, or asks for a plot.
OPTIONAL = {"pandas", "torch", "matplotlib"}
# What a distribution is imported as, where that is not its name.
IMPORT_NAMES = {"scikit-learn": "sklearn"}

if not (ROOT / "sklloss" / "__init__.py").is_file():
    pytest.skip("the source is not at hand", allow_module_level=True)


@pytest.fixture(scope="module")
def project():
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def _imported_packages(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def test_every_imported_distribution_is_declared(project):
    declared = {re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]}
    declared = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in declared}
    imported = {package for path in (ROOT / "sklloss").rglob("*.py") for package in _imported_packages(path)}
    assert imported - sys.stdlib_module_names - OPTIONAL - {"sklloss"} == declared


def test_pre_commit_runs_the_versions_of_the_lint_extra(project):
    config = ROOT / ".pre-commit-config.yaml"
    if not config.is_file():
        pytest.skip("not a clone")
    hooks = re.findall(r"repo: \S*/(\S+)\n\s+rev: v(\S+)", config.read_text(encoding="utf-8"))
    names = {re.sub(r"^mirrors-|-pre-commit$", "", name): version for name, version in hooks}
    lint = dict(tool.split("==") for tool in project["optional-dependencies"]["lint"])
    del lint["basedpyright"]  # judges the package as a whole, not the files of a commit: .ci/run calls it
    assert names == lint


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "benchmarks/README.md"])
def test_every_path_that_a_page_names_exists(page):
    if not (ROOT / page).is_file():
        pytest.skip("not a clone")
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:sklloss|tests|benchmarks)/[\w./*-]*[\w*/]", text))
    assert [path for path in sorted(named) if not any(ROOT.glob(path.rstrip("/")))] == []


@pytest.mark.exhaustive
def test_the_python_code_of_the_readme_runs():
    if not (ROOT / "README.md").is_file():
        pytest.skip("not a clone")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) > 10
    has_torch = importlib.util.find_spec("torch") is not None
    namespace = {"__name__": "readme"}  # each block builds on those before it
    for block in blocks:
        if has_torch or not re.search(r"\btorch\b|\bdevice\b", block):
            exec(compile(block, "README.md", "exec"), namespace)


def test_every_compiled_loss_is_in_the_table_of_accuracies():
    path = ROOT / "benchmarks" / "accuracy.py"
    if not path.is_file():
        pytest.skip("not a clone")
    pytest.importorskip("mpmath")
    spec = importlib.util.spec_from_file_location("accuracy", path)
    accuracy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(accuracy)
    measured = {loss.kernel for _, loss, *_ in (*accuracy.CASES, *accuracy.SOFTMAX_CASES)}
    # the root of a mean over all rows is no kernel of a row's loss: tests/losses/test_accuracy.py
    assert measured == {name for name, _ in kernels.table_of(kernels.chosen)} - {"root_mean_squared_error"}
    rows = list(accuracy.rows(10, [3]))
    assert len(rows) == 2 * (len(accuracy.CASES) + len(accuracy.SOFTMAX_CASES))


@pytest.mark.parametrize(
    "name", sorted(set(sklloss.__all__) - {"__version__", "losses", "metrics", "model_selection"})
)
def test_signatures_show_types_by_the_names_that_the_code_gives_them(name):
    """Not expanded to what NumPy means by ArrayLike, which fills a screen of help()."""
    shown = getattr(sklloss, name)
    for function in [
        shown,
        *(getattr(shown, method, None) for method in ("fit", "partial_fit", "predict", "score")),
    ]:
        if function is not None:
            assert "numpy._typing" not in str(inspect.signature(function))
