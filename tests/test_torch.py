"""Estimators under torch's global switches, and with its special tensors."""

import numpy as np
import pytest
import scipy.sparse
import sklearn
from array_api_compat import array_namespace
from sklearn.base import clone

from sklloss import LogisticClassifier, MLPClassifier, MLPRegressor, SoftmaxClassifier
from sklloss.arrays.device import full_precision, requested_device
from sklloss.data.dataset import move_to_device

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer", "ignore:lbfgs failed to converge")

NETWORK = {"hidden_layer_sizes": (4,), "max_iter": 2, "random_state": 0}
MODELS = [
    *(LogisticClassifier(solver=name) for name in ("newton-cholesky", "newton-cg", "lbfgs", "sgd")),
    *(SoftmaxClassifier(solver=name) for name in ("newton-cholesky", "newton-cg", "lbfgs", "adam")),
    *(MLPClassifier(solver=name, **NETWORK) for name in ("adam", "sgd", "lbfgs")),
    MLPRegressor(**NETWORK),
]
ALL = [LogisticClassifier(), SoftmaxClassifier(), MLPClassifier(**NETWORK), MLPRegressor(**NETWORK)]


@pytest.fixture
def rows(rng):
    X = rng.normal(size=(60, 3))
    return torch.asarray(X), (X @ [1.0, -2.0, 0.5] > 0).astype(int) + (X[:, 0] > 1)


def name_of(model):
    return type(model).__name__ + getattr(model, "solver", "")


def numbers(model, X, y):
    """The fitted attributes of a fresh fit, and its predictions."""
    model = clone(model).set_params(random_state=0).fit(X, y)
    learned = [model.coef_, model.intercept_] if hasattr(model, "coef_") else model.coefs_
    return [np.asarray(part) for part in (*learned, model.predict(X))]


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("model", MODELS, ids=name_of)
@pytest.mark.parametrize("form", ["tensor", "array", "csr"])
def test_neither_a_default_device_nor_autocast_changes_a_fit(model, form, rows):
    X, y = rows
    X = {"tensor": X.float(), "array": X.numpy(), "csr": scipy.sparse.csr_matrix(X.numpy())}[form]
    if form != "tensor":
        model = clone(model).set_params(device=torch.device("cpu"))
    expected = numbers(model, X, y)
    # on that device nothing has a value: whatever is made there by mistake fails
    with torch.device("meta"):
        # array-api-compat 1.9 itself brings all arrays to a default device
        if array_namespace(rows[0]).sum(rows[0]).device == rows[0].device:
            assert_equal(numbers(model, X, y), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_equal(numbers(model, X, y), expected)


@pytest.mark.parametrize("model", MODELS, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_in_main_memory_are_fitted_to_the_bits_of_numpy(model, dtype, rng):
    X = torch.asarray(rng.normal(size=(120, 6)), dtype=dtype)
    forms = {
        "rows": X,
        "columns": X.T.contiguous().T,
        "every other": X.repeat(1, 2)[::2, ::2],
        "expanded": X[:, :1].expand(-1, 3),
    }
    for form, there in forms.items():
        y = (there[:, 0] > 0.1).int() + (there[:, -1] > 1)
        kept = there.clone()
        shared = move_to_device(there, model)[0]
        assert np.shares_memory(shared, there.numpy()) == (form in ("rows", "columns"))
        here = [clone(model).set_params(random_state=0) for _ in range(2)]
        for own, rows in zip(here, (there, there.numpy().copy()), strict=True):
            own.fit(rows, y, torch.arange(len(y)) % 3)
            if hasattr(own, "partial_fit"):
                own.partial_fit(rows, y).partial_fit(
                    rows.astype(float) if own is here[1] else rows.double(), y
                )
        assert torch.equal(there, kept)
        names = ["coef_", "intercept_", "loss_curve_", "coefs_", "intercepts_"]
        for name in filter(lambda name: hasattr(here[1], name), names):
            theirs = [getattr(own, name) for own in here]
            theirs = theirs if isinstance(theirs[0], list) else [[part] for part in theirs]
            for one, other in zip(*theirs, strict=True):
                np.testing.assert_array_equal(np.asarray(one), other)
                assert name == "loss_curve_" or (one.dtype == dtype and one.device == X.device)


def test_precision_that_is_set_for_all_operations_can_be_changed_after_a_fit():
    pytest.importorskip("torch", minversion="2.9")
    cpu = requested_device(torch.device("cpu"))
    levels = (torch.backends, torch.backends.mkldnn, torch.backends.mkldnn.matmul)
    before = [level.fp32_precision for level in levels]
    product = levels[-1]
    try:
        for level in levels[:2]:
            level.fp32_precision = "bf16" if level is levels[1] else "tf32"
            chosen = product.fp32_precision
            with full_precision(cpu):
                assert product.fp32_precision == "ieee"
            assert product.fp32_precision == chosen
            level.fp32_precision = "ieee"
            assert product.fp32_precision == "ieee"
            level.fp32_precision = "none"
        product.fp32_precision = "bf16"
        with full_precision(cpu), full_precision(cpu):
            assert product.fp32_precision == "ieee"
        assert product.fp32_precision == "bf16"
    finally:
        for level, value in zip(levels, before, strict=True):
            level.fp32_precision = value


@pytest.mark.parametrize("model", ALL, ids=name_of)
def test_tensors_without_numbers_of_their_own_are_named(model, rows):
    X, y = rows
    model = clone(model)
    for name, arguments in {
        "X": (X.to("meta"), y),
        "y": (X, torch.asarray(y).to("meta")),
        "sample_weight": (X, y, torch.ones(60, device="meta")),
    }.items():
        with pytest.raises(ValueError, match=f"^{name} is a tensor on the device meta"):
            model.fit(*arguments)
    with pytest.raises(TypeError, match=r"^y is a tensor of layout torch.sparse_coo: pass y.to_dense\(\)"):
        model.fit(X, torch.asarray(y).to_sparse())
    with pytest.raises(TypeError, match="^X is a nested tensor"):
        model.fit(torch.nested.nested_tensor([X[0], X[1]], layout=torch.jagged), y[:2])
    with pytest.raises(ValueError, match="device='meta' stores no values"):
        clone(model).set_params(device="meta").fit(X.numpy(), y)
    with pytest.raises(ValueError, match="device='meta' stores no values"):
        model.fit(X, y).to("meta")
    with pytest.raises(TypeError, match="device must be 'numpy', the name.*got torch.float32"):
        model.to(torch.float32)


@pytest.mark.parametrize("model", ALL, ids=name_of)
def test_views_and_dtypes_that_only_torch_has_count_as_their_numbers(model, rows):
    X, y = rows
    expected = numbers(model, -X, y)
    assert_equal(numbers(model, torch._neg_view(X), y), expected)
    weight = torch.ones(60, dtype=torch.bfloat16)
    learned = clone(model).fit(-X, torch.asarray(y).bfloat16(), weight).predict(-X)
    np.testing.assert_allclose(learned, expected[-1], rtol=1e-12)
    if model is not ALL[-1]:
        for dtype in (torch.uint16, torch.uint32, torch.uint64):
            predicted = clone(model).fit(-X, torch.asarray(y).to(dtype)).predict(-X)
            assert predicted.dtype == torch.int64  # torch has few operations for unsigned integers
            np.testing.assert_array_equal(predicted, expected[-1])


@pytest.mark.parametrize("model", ALL, ids=name_of)
def test_a_stream_does_not_go_on_elsewhere(model, rows):
    X, y = rows
    model = clone(model).fit(X.numpy(), y)
    before = vars(model).copy()
    with pytest.raises(ValueError, match=r"\.partial_fit\(\) must use the same namespace"):
        model.partial_fit(X, y)
    assert all(vars(model)[name] is before[name] for name in before if name.endswith("_"))
    model.to(X).partial_fit(X, y)


@pytest.mark.parametrize("model", ALL, ids=name_of)
def test_numbers_too_large_for_a_device_are_named_in_predictions_and_validation_too(model, rows):
    X, y = rows[0].numpy(), rows[1]
    model = clone(model).set_params(device=torch.device("cpu"))
    with pytest.raises(ValueError, match="Input X_val contains infinity .* for dtype..float32"):
        model.fit(X, y, X_val=X * 1e39, y_val=y)
    model.fit(X, y)
    if hasattr(model, "coefs_"):
        for large in (X * 1e39, scipy.sparse.csr_matrix(X * 1e39)):
            with pytest.raises(ValueError, match="Input X contains infinity .* for dtype..float32"):
                model.predict(large)
    else:
        # the scores are NumPy's
        assert (model.predict(X * 1e39) == model.predict(X * 1e30)).all()


@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd"])
def test_a_stream_goes_on_without_the_device_that_it_began_on(solver, rows):
    X, y = rows[0].numpy(), rows[1].astype(float)
    stay, leave = (MLPRegressor(**NETWORK, solver=solver) for _ in range(2))
    leave.set_params(device=torch.device("cpu"))  # in float32
    for _ in range(2):
        stay.partial_fit(X, y)
        leave.partial_fit(X, y)
        leave.set_params(device=None)
    assert leave.coefs_[0].dtype == np.float64
    np.testing.assert_allclose(leave.coefs_[0], stay.coefs_[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("model", ALL, ids=name_of)
def test_assume_finite_leaves_out_the_search_for_nan_and_no_check_of_a_cast(model, rows, monkeypatch):
    X, y = rows
    looked = []
    monkeypatch.setattr("sklloss.data.checks.check_finite", lambda *given: looked.append(given))
    with sklearn.config_context(assume_finite=True):
        clone(model).fit(X, y)
        assert not looked
        large = X.numpy().copy()
        large[0, 0] = 1e300
        with pytest.raises(ValueError, match="too large for dtype"):
            clone(model).set_params(device=torch.device("cpu")).fit(large, y)
    clone(model).fit(X, y)
    assert len(looked) == 1
