"""What only a CUDA device can show: memory, and how precise its products are."""

import gc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from sklloss import LogisticClassifier, MLPClassifier, SoftmaxClassifier, losses

torch = pytest.importorskip("torch", reason="no CUDA device: PyTorch is not installed")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device that PyTorch sees", allow_module_level=True)

DEVICE = "cuda"

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def data(rng):
    """X and labels of four classes."""
    X = rng.normal(size=(4000, 20)) * np.logspace(-1, 1, 20) + 1
    scores = X / X.std(axis=0) @ rng.normal(size=(20, 4)) + rng.normal(size=(4000, 4))
    return X, scores.argmax(axis=1)


@dataclass(frozen=True)
class Broken(losses.Loss):
    """A loss that fails amid a fit, when there is much on the device."""

    target: ClassVar[str] = "probabilities"

    def formula(self, xp, y, raw):
        raise RuntimeError("broken")


def allocated():
    gc.collect()
    return torch.cuda.memory_allocated()


def test_an_error_leaves_nothing_on_the_device(data):
    X, y = data[0], data[1] > 1
    LogisticClassifier(device=DEVICE).fit(X, y)  # what libraries allocate once and keep
    before = allocated()
    with pytest.raises(RuntimeError, match="broken"):
        LogisticClassifier(loss=Broken(), device=DEVICE).fit(X, y)
    assert allocated() == before
    for kind in (LogisticClassifier, MLPClassifier):
        with pytest.raises(ValueError, match="NaN"):
            kind(device=DEVICE).fit(np.where(X > 10, np.nan, X), y)
        assert allocated() == before


@pytest.mark.parametrize("kind", [SoftmaxClassifier, MLPClassifier])
def test_rows_that_do_not_fit_are_a_memory_error_that_leaves_nothing_there(kind, rng):
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    X = np.zeros((1 << 14, 1 << 10), dtype=np.float32)  # 64 MiB
    y = np.arange(len(X)) % 3
    before = allocated()
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + (32 << 20)
    torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        with pytest.raises(MemoryError, match="room"):
            kind(device=DEVICE).fit(X, y)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert allocated() == before


def test_float32_means_float32_whatever_torch_was_told(data):
    X = data[0].astype(np.float32)
    X_there = torch.asarray(X, device=DEVICE)
    model = SoftmaxClassifier(tol=1e-3).fit(X_there, data[1])
    coef, intercept = (a.double().cpu().numpy() for a in (model.coef_, model.intercept_))
    precise = X.astype(np.float64) @ coef.T + intercept
    told = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        scores = model.decision_function(X_there).cpu().numpy()
        other = SoftmaxClassifier(tol=1e-3).fit(X_there, data[1])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(told)
    np.testing.assert_allclose(scores, precise, rtol=1e-4, atol=1e-5 * np.abs(precise).max())
    assert torch.equal(model.coef_, other.coef_)
