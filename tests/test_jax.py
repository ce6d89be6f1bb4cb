"""Estimators over JAX's arrays, to which nothing can be written."""

import numpy as np
import pytest
from helpers import learned
from sklearn.base import clone

from sklloss import LogisticClassifier, MLPClassifier, MLPRegressor, SoftmaxClassifier
from sklloss.arrays.device import Device

jax = pytest.importorskip("jax")

NETWORK = {"hidden_layer_sizes": (4,), "max_iter": 3}
MODELS = [
    *(LogisticClassifier(solver=name) for name in ("newton-cholesky", "newton-cg", "lbfgs", "sgd")),
    *(SoftmaxClassifier(solver=name) for name in ("newton-cholesky", "newton-cg", "lbfgs", "adam")),
    SoftmaxClassifier(l1_ratio=0.5),
    *(MLPClassifier(solver=name, **NETWORK) for name in ("adam", "sgd", "lbfgs")),
    MLPRegressor(**NETWORK),
]

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer", "ignore:lbfgs failed to converge")


@pytest.fixture
def rows(rng):
    X = rng.normal(size=(80, 3)).astype(np.float32)
    return X, (X @ [1.0, -2.0, 0.5] > 0).astype(int) + (X[:, 0] > 1)


def name_of(model):
    return type(model).__name__ + model.solver


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_arrays_in_main_memory_are_fitted_to_the_bits_of_numpy(model, rows):
    X, y = rows
    there = jax.numpy.asarray(X)
    model, other = (clone(model).set_params(random_state=0).fit(rows, y) for rows in (X, there))
    for own, one in zip(learned(other), learned(model), strict=True):
        assert isinstance(own, jax.Array)
        assert own.dtype == np.float32
        np.testing.assert_array_equal(np.asarray(own), one)
    predicted = other.predict(there)
    assert isinstance(predicted, jax.Array)
    np.testing.assert_allclose(np.asarray(predicted), model.predict(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other.score(there, y), model.score(X, y), rtol=1e-6)
    if hasattr(model, "partial_fit"):
        model.partial_fit(X, y)
        other.partial_fit(there, y)
        for own, one in zip(learned(other), learned(model), strict=True):
            np.testing.assert_array_equal(np.asarray(own), one)


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_elsewhere_what_needs_no_writing_works_and_the_rest_is_named(model, rows, monkeypatch):
    # as if they were on a device
    monkeypatch.setattr(Device, "in_main_memory", property(lambda device: False))
    X, y = rows
    there = jax.numpy.asarray(X)
    other = clone(model).set_params(random_state=0)
    if model.solver in ("sgd", "adam") or hasattr(model, "hidden_layer_sizes"):
        with pytest.raises(TypeError, match="write to arrays, and JAX arrays are immutable: pass NumPy or"):
            other.fit(there, y)
        assert not hasattr(other, "n_features_in_")
    else:
        model = clone(model).fit(X, y)
        other.fit(there, y)
        assert isinstance(other.coef_, jax.Array)
        np.testing.assert_allclose(np.asarray(other.coef_), model.coef_, rtol=1e-2, atol=1e-3)
    fitted = clone(model).set_params(random_state=0).fit(X, y).to(there)
    np.testing.assert_allclose(
        np.asarray(fitted.predict(there)), fitted.to("numpy").predict(X), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    "model",
    [
        SoftmaxClassifier(),
        LogisticClassifier(solver="adam"),
        MLPClassifier(**NETWORK),
        MLPRegressor(**NETWORK),
    ],
    ids=name_of,
)
def test_a_stream_goes_on_where_it_is_moved(model, rows):
    X, y = rows
    there = jax.numpy.asarray(X)
    classes = {} if isinstance(model, MLPRegressor) else {"classes": [0, 1, 2]}
    stay, leave = (clone(model).set_params(random_state=0).partial_fit(X, y, **classes) for _ in range(2))
    leave = leave.to(there).partial_fit(there, y).to(there).to("numpy").partial_fit(X, y)
    stay.partial_fit(X, y).partial_fit(X, y)
    for own, one in zip(learned(leave), learned(stay), strict=True):
        np.testing.assert_allclose(own, one, rtol=1e-3, atol=1e-5)
