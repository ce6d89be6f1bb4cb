"""Private names of other packages that sklloss uses: each is used in one file, and still exists.

If one of these tests fails after an upgrade, look for a public way first.
"""

import inspect
from pathlib import Path

import pytest
import threadpoolctl

ROOT = Path(__file__).resolve().parents[1] / "sklloss"


@pytest.mark.parametrize(
    ("name", "file"),
    [("_init_callback_context", "_base.py"), ("_real_set_num_threads", "arrays/threads.py")],
)
def test_a_private_name_stands_in_one_file(name, file):
    using = [path for path in ROOT.rglob("*.py") if name in path.read_text(encoding="utf-8")]
    assert using == [ROOT / file]


def test_scikit_learn_still_makes_a_callback_context_by_this_method():
    callback = pytest.importorskip("sklearn.callback")
    parameters = inspect.signature(callback.CallbackSupportMixin._init_callback_context).parameters
    assert "max_subtasks" in parameters


def test_threadpoolctl_still_sets_the_threads_of_OpenBLAS_from_any_thread():
    controllers = threadpoolctl.ThreadpoolController().select(internal_api="openblas").lib_controllers
    if not controllers:
        pytest.skip("no OpenBLAS in this process")
    version = tuple(int(part) for part in threadpoolctl.__version__.split(".")[:2])
    for library in controllers:
        # before 3.7 the public method did so itself
        assert version < (3, 7) or callable(getattr(library, "_real_set_num_threads", None))
