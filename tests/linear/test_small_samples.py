"""Newton's method over a few thousand rows starts from a sample that has few rows for each parameter."""

import numpy as np
import pytest

from sklloss import LogisticClassifier, SoftmaxClassifier
from sklloss.objectives.linear import LinearObjective
from sklloss.solvers import newton


@pytest.fixture
def hessians(monkeypatch):
    """The rows of each Hessian."""
    rows = []
    hessian = LinearObjective.hessian

    def recorded(self, w):
        rows.append(self.passes.n)
        return hessian(self, w)

    monkeypatch.setattr(LinearObjective, "hessian", recorded)
    return rows


@pytest.mark.parametrize("kind", [LogisticClassifier, SoftmaxClassifier])
@pytest.mark.parametrize("heavy", [False, True])
def test_a_fit_from_a_small_sample_ends_at_the_optimum_with_fewer_hessians(
    kind, heavy, rng, monkeypatch, hessians
):
    n, p, classes = (9000, 90, 2) if kind is LogisticClassifier else (9000, 25, 4)
    X = rng.normal(size=(n, p))
    if heavy:
        X = np.exp(X) * 10.0 ** rng.integers(-3, 3, p)
    scores = (X / X.std(axis=0)) @ rng.normal(size=(p, classes)) + rng.gumbel(size=(n, classes))
    y = scores.argmax(axis=1)
    found = kind(solver="newton-cholesky").fit(X, y)
    over_all = hessians.count(n)
    assert min(hessians) < n
    monkeypatch.setattr(newton, "SMALL_SAMPLE", (n, 0.4))
    hessians.clear()
    expected = kind(solver="newton-cholesky", tol=1e-7).fit(X, y)
    assert min(hessians) == n
    assert over_all < hessians.count(n)
    np.testing.assert_allclose(found.loss_, expected.loss_, rtol=1e-8)


def test_a_small_hessian_needs_no_small_sample(rng, hessians):
    X = rng.normal(size=(3000, 5))
    LogisticClassifier(solver="newton-cholesky").fit(X, X[:, 0] + rng.normal(size=3000) > 0)
    assert set(hessians) <= {3000}
