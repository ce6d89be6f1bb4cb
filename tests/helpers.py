"""Data, models and comparisons that several test files use."""

import importlib
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

import sklloss
from sklloss import MLPClassifier, MLPRegressor, kernels
from sklloss.data.dataset import Dataset
from sklloss.kernels import data as data_kernels
from sklloss.losses import Loss

# Datasets of networks ----------------------------------------------------------------------------------


def dataset(X, target=None, weight=None, codes=None, outputs=None):
    """A `Dataset` with as many outputs as the target, unless ``outputs`` says otherwise."""
    return Dataset(X, target, codes, weight, outputs=_outputs(target, codes, outputs))


def compiled(X, target=None, weight=None, codes=None, outputs=None):
    """The same for kernels."""
    return data_kernels.Dataset(X, target, codes, weight, outputs=_outputs(target, codes, outputs))


def layer_kernels(dtype, build=kernels.chosen):
    """The kernels of a network's layers, in a dtype and a build."""
    return importlib.import_module(f"sklloss.kernels.isa.{build}").network_table()[np.dtype(dtype).name]


def _outputs(target, codes, outputs):
    if outputs is not None:
        return outputs
    if target is not None:
        return target.shape[1]
    return 1 if codes is None else int(codes.max()) + 1


# Data and models ---------------------------------------------------------------------------------------


def regression_data(n=150, p=6, outputs=None, dtype=np.float64, seed=0):
    """X, a y that is not linear in X, (n,) or (n, outputs), and weights."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    y = np.sin(X[:, 0]) + X[:, 1] * X[:, 2] + 0.1 * rng.standard_normal(n)
    if outputs is not None:
        y = np.stack([y * (k + 1) + X[:, k] for k in range(outputs)], axis=1)
    return X.astype(dtype), y.astype(dtype), rng.uniform(0.2, 2.0, n)


def class_data(n=150, p=6, K=3, seed=0):
    """X, labels of K classes, their probabilities and weights."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    shares = np.exp(2 * np.sin(X[:, :K]) + 2 * X[:, 1 : K + 1] * X[:, 2 : K + 2])
    shares /= shares.sum(axis=1, keepdims=True)
    y = (shares.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return X, y, shares, rng.uniform(0.2, 2.0, n)


def small_regressor(**parameters):
    """A network that trains in a few milliseconds."""
    return MLPRegressor(**{"hidden_layer_sizes": (8,), "max_iter": 8, "random_state": 0, **parameters})


def small_classifier(**parameters):
    """A network that trains in a few milliseconds."""
    return MLPClassifier(**{"hidden_layer_sizes": (8,), "max_iter": 8, "random_state": 0, **parameters})


@dataclass(frozen=True)
class OwnLog(Loss):
    """The log loss as a user might write it, by its formula alone."""

    target: ClassVar[str] = "probabilities"
    reduction: ClassVar[str] = "sum"

    def formula(self, xp, y, raw):
        return xp.logaddexp(xp.zeros_like(raw), raw) - y * raw, 1 / (1 + xp.exp(-raw)) - y


# Comparisons -------------------------------------------------------------------------------------------


def learned(model):
    """The arrays that a model has learned."""
    return [model.coef_, model.intercept_] if hasattr(model, "coef_") else [*model.coefs_, *model.intercepts_]


def assert_same_model(one, other, **tolerance):
    """Assert that two linear models have about the same coefficients and intercepts."""
    tolerance = tolerance or {"rtol": 1e-6, "atol": 1e-8}
    np.testing.assert_allclose(one.coef_, other.coef_, **tolerance)
    np.testing.assert_allclose(one.intercept_, other.intercept_, **tolerance)


def assert_same_probabilities(one, other, X, tolerance=1e-9):
    """Assert that two classifiers predict about the same probabilities."""
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=0, atol=tolerance)


def numeric_gradient(loss, y, raw, weight=None, step=1e-3):
    """The gradient of a loss by differences of fourth order."""
    gradient = np.empty_like(raw)
    for i in np.ndindex(raw.shape):
        values = []
        for steps in (-2, -1, 1, 2):
            moved = raw.copy()
            moved[i] += steps * step
            values.append(loss(y, moved, weight))
        gradient[i] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return gradient


def run(code, **environment):
    """Run a program in a process of its own, so that a deadlock is a failure and not the end of the tests."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(sklloss.__file__).parents[1],
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def epoch(net, rows, order, batch_rows, parameters, steps, penalty=0.0):
    """One epoch of a compiled network, and its loss."""
    return net.epochs(rows, order, 1, batch_rows, parameters, steps, penalty)[0]
