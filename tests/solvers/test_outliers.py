"""Fits of rows with values far larger than all others, which hide the curvature of the rest."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from sklloss import LogisticClassifier, SoftmaxClassifier

SETTINGS = [{"solver": "newton-cholesky"}, {"solver": "lbfgs"}, {"l1_ratio": 0.5}]


@pytest.mark.parametrize("n", [40, 20_000])
@pytest.mark.parametrize("settings", SETTINGS, ids=["newton-cholesky", "lbfgs", "l1"])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array], ids=["dense", "sparse"])
@pytest.mark.parametrize("kind", [LogisticClassifier, SoftmaxClassifier])
def test_a_row_that_any_small_coefficient_fits_hides_no_slope(n, settings, container, kind, rng):
    """Near 0 the outlier has nearly all curvature, so that a step of 1e-10 seems to be the last one."""
    X = rng.standard_normal((n, 2))
    y = (X[:, 0] + rng.standard_normal(n) > 0).astype(int)
    others = kind(**settings).fit(X[1:], y[1:])
    X[0], y[0] = [1e10, 0.0], 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = kind(**settings).fit(container(X), y)
    assert model.loss_ == pytest.approx(others.loss_, rel=1e-6)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array], ids=["dense", "sparse"])
@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_a_column_that_a_sample_of_the_rows_misses_has_its_curvature(container, solver, rng):
    X = np.zeros((3000, 1))
    rows = rng.choice(np.arange(3000)[np.arange(3000) % 13 != 0], 60, replace=False)
    X[rows, 0] = 100.0 * rng.standard_normal(60)
    y = (X[:, 0] * 0.03 + rng.logistic(size=3000) > 0.1).astype(int)
    best = SoftmaxClassifier(solver="newton-cholesky", C=1e6).fit(X, y)
    model = SoftmaxClassifier(solver=solver, C=1e6).fit(container(X), y)
    assert model.loss_ == pytest.approx(best.loss_, rel=1e-6)
