"""A loss that is Python code, called by the passes over X: blocks, threads, and its errors."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse
import threadpoolctl
from helpers import OwnLog

from sklloss import LogisticClassifier, SoftmaxClassifier
from sklloss.losses import CrossEntropy, LogLoss


class OwnLogWithCurvature(LogLoss):
    """Without its kernel."""

    kernel = None


class OwnCrossEntropy(CrossEntropy):
    """Without its kernel."""

    kernel = None


@dataclass(frozen=True)
class Fails(OwnLog):
    """Raises after some calls."""

    error: type = RuntimeError
    after: int = 3

    calls: ClassVar[list] = []

    def formula(self, xp, y, raw):
        self.calls.append(1)
        if len(self.calls) > self.after:
            raise self.error("as it is")
        return super().formula(xp, y, raw)


def problem(rng, n=120, p=4, K=3):
    X = rng.normal(size=(n, p))
    return X, (X[:, :1] @ np.linspace(-1, 1, K)[None] + rng.gumbel(size=(n, K))).argmax(axis=1)


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize(
    ("loss", "solver"),
    [(OwnLog(), "lbfgs"), (OwnLogWithCurvature(), "newton-cholesky"), (OwnCrossEntropy(), "lbfgs")],
)
def test_any_number_of_threads_gives_the_same_bits(rng, loss, solver, container):
    X, y = problem(rng, n=60_000, p=15)
    estimator = SoftmaxClassifier if loss == OwnCrossEntropy() else LogisticClassifier
    few = {"max_iter": 50, "tol": 0.1}
    models = [estimator(loss=loss, solver=solver, n_threads=n, **few).fit(container(X), y) for n in (1, 2, 5)]
    for model in models[1:]:
        np.testing.assert_array_equal(model.coef_, models[0].coef_)
        np.testing.assert_array_equal(model.intercept_, models[0].intercept_)
        assert model.loss_ == models[0].loss_


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("after", [0, 30])
def test_an_error_in_the_formula_comes_out_as_it_is_and_changes_nothing(rng, error, n_threads, after):
    X, y = problem(rng, n=60_000, p=15)
    model = LogisticClassifier(n_threads=n_threads).fit(X[:100], y[:100])
    before = {name: np.copy(value) for name, value in vars(model).items() if name != "loss"}
    blas = [library["num_threads"] for library in threadpoolctl.threadpool_info()]
    Fails.calls.clear()
    model.set_params(loss=Fails(error=error, after=after))
    with pytest.raises(error, match="as it is"):
        model.fit(X, y)
    assert [library["num_threads"] for library in threadpoolctl.threadpool_info()] == blas
    assert set(vars(model)) == {*before, "loss"}
    for name, value in before.items():
        np.testing.assert_array_equal(vars(model)[name], value)
    model.set_params(loss="log_loss").fit(X[:100], y[:100])
    np.testing.assert_array_equal(model.coef_, before["coef_"])


def test_a_formula_may_keep_and_overwrite_what_it_is_given(rng):
    kept = []

    class Greedy(OwnLog):
        def formula(self, xp, y, raw):
            value, gradient = super().formula(xp, y, raw)
            kept.append((y, y.copy() - 1))
            y -= 1
            raw[...] = np.nan
            return value, gradient

    X, _ = problem(rng)
    soft, weight = arrays = rng.uniform(size=120), rng.uniform(size=120)
    copy = [a.copy() for a in arrays]
    reference = LogisticClassifier(loss=OwnLog()).fit(X, soft, weight)
    model = LogisticClassifier(loss=Greedy()).fit(X, soft, weight)
    np.testing.assert_array_equal(model.coef_, reference.coef_)
    for now, before in zip(arrays, copy):
        np.testing.assert_array_equal(now, before)
    for array, expected in kept:
        np.testing.assert_array_equal(array, expected)


def test_a_loss_that_is_not_finite_is_an_error(rng):
    class Broken(OwnLog):
        def formula(self, xp, y, raw):
            value, gradient = super().formula(xp, y, raw)
            return value * np.nan, gradient

    X, y = problem(rng, K=2)
    with pytest.raises(ValueError, match="not finite"):
        LogisticClassifier(loss=Broken()).fit(X, y)


@pytest.mark.parametrize("wrong", ["value", "gradient", "curvature"])
def test_a_formula_of_the_wrong_shape_is_an_error(rng, wrong):
    class Broken(OwnLog):
        def formula(self, xp, y, raw):
            value, gradient = super().formula(xp, y, raw)
            if wrong == "value":
                value = value.mean()
            return value, gradient[:, :1] if wrong == "gradient" else gradient

        def curvature(self, xp, y, raw):
            return xp.full((3,), 0.25) if wrong == "curvature" else xp.full_like(raw, 0.25)

    X, y = problem(rng)
    with pytest.raises(ValueError, match=rf"Broken: the {wrong}.* shape \(120, 3\)"):
        LogisticClassifier(loss=Broken(), solver="newton-cholesky").fit(X, y)
