"""Columns that are constant and far from 0: after centering, only rounding errors are left of them."""

import numpy as np
import pytest

from sklloss import LogisticClassifier, SoftmaxClassifier
from sklloss.data.dataset import Dataset
from sklloss.losses import LogLoss
from sklloss.objectives.passes import CONSTANT_STEP_ROWS, make_passes


@pytest.fixture
def data(rng):
    X = rng.normal(size=(2000, 60))
    scores = X[:, :3].sum(axis=1) + 3 * rng.normal(size=2000)
    return X, np.digitize(scores, [-1.0, 1.0])


@pytest.mark.parametrize("device", ["numpy", "strict", "torch simulated"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
@pytest.mark.parametrize("kind", [LogisticClassifier, SoftmaxClassifier])
@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("value", [2013.0, 1e6])
def test_constant_columns_change_nothing(kind, solver, dtype, C, value, device, data, find_device, recwarn):
    X, y = data[0].astype(dtype), data[1]
    X[:, 9] = value
    without = np.delete(X, 9, axis=1)
    if device != "numpy":
        there = find_device(device)
        X, without = there.put(X), there.put(without)
    model, other = (kind(solver=solver, C=C, max_iter=300).fit(rows, y) for rows in (X, without))
    coef = np.asarray(model.to("numpy").coef_)
    assert not coef[:, 9].any()
    np.testing.assert_allclose(model.loss_, other.loss_, rtol=2e-7)
    np.testing.assert_allclose(
        np.delete(coef, 9, axis=1), np.asarray(other.to("numpy").coef_), rtol=5e-3, atol=5e-4
    )
    assert not recwarn.list


@pytest.mark.parametrize("device", ["numpy", "strict"])
def test_a_column_counts_as_constant_if_every_row_says_so(device, rng, strict):
    X = rng.normal(size=(CONSTANT_STEP_ROWS + 1000, 6))
    X[:, [1, 2, 3]], X[:, 4] = 50.0, 0.0
    X[CONSTANT_STEP_ROWS + 501, 2] = 50.5  # in a row that is compared last
    X[:, 5] += 100
    given = X if device == "numpy" else strict.put(X)
    y = (X[:, :1] > 0).astype(float)
    rows = make_passes(
        Dataset(given, y, None, None, 1), LogLoss(), fit_intercept=True, n_threads=1, center=True
    )
    assert rows.constant_columns().tolist() == [1, 3]
    rows = make_passes(
        Dataset(given, y, None, None, 1), LogLoss(), fit_intercept=False, n_threads=1, center=True
    )
    assert rows.constant_columns().size == 0
