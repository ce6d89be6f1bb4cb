"""The offset of MLPRegressor: a known term of the raw scores."""

import numpy as np
import pytest
import scipy.sparse

from sklloss import MLPRegressor, losses


def data(n=300):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4))
    return X, X @ [1.0, -0.5, 0.2, 0.0], rng


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("layout", [np.asarray, scipy.sparse.csr_array, lambda X: X.astype(np.float32)])
@pytest.mark.parametrize("hidden", [(), (8,)])
def test_an_offset_of_a_loss_of_the_error_shifts_the_targets(solver, layout, hidden):
    X, eta, rng = data()
    offset = rng.normal(size=(300, 2))
    Y = np.column_stack([eta, eta**2])
    options = {
        "hidden_layer_sizes": hidden,
        "max_iter": 5,
        "random_state": 0,
        "solver": solver,
        "batch_size": 64,
    }
    shifted = MLPRegressor("huber", **options).fit(layout(X), Y)
    model = MLPRegressor("huber", **options).fit(layout(X), Y + offset, offset=offset)
    single = layout(X).dtype == np.float32
    np.testing.assert_allclose(model.loss_curve_, shifted.loss_curve_, rtol=1e-4 if single else 1e-9)
    predicted = model.predict(layout(X), offset=offset) - offset
    np.testing.assert_allclose(predicted, shifted.predict(layout(X)), atol=1e-2 if single else 1e-6)


@pytest.mark.parametrize("device", [None, "torch"])
def test_the_gradient_is_that_of_scores_with_the_offset(device):
    X, eta, rng = data()
    offset = rng.normal(size=300)
    y = rng.poisson(np.exp(0.5 * eta + offset)).astype(float)
    target, given = None, X
    if device:
        torch = pytest.importorskip("torch")
        target, given = torch.device("cpu"), torch.tensor(X)
    model = MLPRegressor(
        "poisson", hidden_layer_sizes=(), solver="lbfgs", alpha=0.0, max_iter=500, tol=1e-10, device=target
    )
    model.fit(given, y, offset=offset)
    coef, intercept = (np.asarray(part[0]).ravel() for part in (model.coefs_, model.intercepts_))
    raw = X @ coef + intercept + offset
    slope = losses.Poisson().gradient(y, raw)
    assert np.abs(X.T @ slope).max() < 1e-3
    assert abs(slope.sum()) < 1e-3
    predicted = np.asarray(model.predict(given, offset=offset))
    np.testing.assert_allclose(predicted, np.exp(raw), rtol=1e-6)


def test_validation_rows_have_their_offset():
    X, eta, rng = data()
    offset = 10 * rng.normal(size=300)
    options = {"hidden_layer_sizes": (5,), "max_iter": 5, "random_state": 0}
    plain = MLPRegressor(**options).fit(X, eta, X_val=X[:50], y_val=eta[:50])
    model = MLPRegressor(**options).fit(
        X, eta + offset, offset=offset, X_val=X[:50], y_val=eta[:50] + offset[:50], offset_val=offset[:50]
    )
    np.testing.assert_allclose(model.validation_loss_curve_, plain.validation_loss_curve_, rtol=1e-6)
    early = MLPRegressor(early_stopping=True, **options).fit(X, eta + offset, offset=offset)
    shifted = MLPRegressor(early_stopping=True, **options).fit(X, eta)
    np.testing.assert_allclose(early.coefs_[0], shifted.coefs_[0], atol=1e-6)
    assert early.best_validation_score_ > shifted.best_validation_score_
    with pytest.raises(ValueError, match="given together"):
        MLPRegressor(**options).fit(X, eta, offset=offset, X_val=X, y_val=eta)


def test_an_offset_is_needed_again():
    X, eta, _ = data()
    model = MLPRegressor(max_iter=2, random_state=0).fit(X, eta, offset=np.zeros(300))
    with pytest.raises(ValueError, match="was fitted with an offset"):
        model.predict(X)
    with pytest.raises(ValueError, match="does not continue"):
        model.partial_fit(X, eta)
    with pytest.raises(ValueError, match="offset must have shape"):
        model.fit(X, eta, offset=np.zeros(299))
    assert model.predict(X, offset=np.ones(300)).shape == (300,)
