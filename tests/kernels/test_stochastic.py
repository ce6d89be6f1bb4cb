"""The stochastic pass: its steps against a formula, and delayed updates of columns against immediate ones."""

import numpy as np
import pytest
import scipy.sparse

from sklloss import losses
from sklloss.data.dataset import Dataset
from sklloss.objectives.numpy_passes import NumPyPasses
from sklloss.objectives.passes import EpochPlan

N, P, K, BATCH = 90, 7, 3, 8


def arguments(rng, *, weighted=True, K=K):
    order = rng.permutation(N).astype(np.intp)
    batches = -(-N // BATCH)
    return {
        "X": np.where(rng.uniform(size=(N, P)) < 0.7, 0.0, rng.normal(size=(N, P))),
        "y": rng.dirichlet(np.ones(K), size=N) if K > 1 else rng.uniform(size=(N, 1)),
        "weight": rng.uniform(size=N) if weighted else None,
        "w": rng.normal(size=(K, P + 1)),
        "order": order,
        "ridge": np.where(np.arange(P + 1) < P, 1.0, 0.0) * np.ones((K, 1)),
        "gains": rng.uniform(3, 4, size=batches),
        "rates": np.repeat(rng.uniform(0.01, 0.02), batches)[:, None] * np.ones(K),
        "kept": rng.normal(size=(N, K)),
        "anchor": rng.normal(size=(K, P + 1)),
        "units": rng.uniform(1, 3, size=(1, P + 1)),
    }


def run(a, *, container=np.asarray, factors=None, dtype=np.float64, **further):
    """Parameters after an epoch."""
    loss = losses.CrossEntropy() if a["w"].shape[0] > 1 else losses.LogLoss()
    cast = [None if v is None else v.astype(dtype) for v in (a["y"], a["weight"], a["kept"])]
    rows = NumPyPasses(
        Dataset(container(a["X"].astype(dtype)), cast[0], None, cast[1], a["w"].shape[0]),
        loss,
        fit_intercept=True,
    )
    w = a["w"].copy()
    plan = EpochPlan(
        a["order"], BATCH, coordinates=(factors, a["units"]), ridge=a["ridge"], gains=a["gains"],
        rates=a["rates"], anchor_slopes=cast[2], anchor=a["anchor"], **further,
    )  # fmt: skip
    rows.epoch(w, plan)
    return w


def expected(a, *, factors=None, together=False, adam=None):
    """The same with NumPy."""
    w = a["w"].copy()
    K = len(w)
    A = np.column_stack([a["X"], np.ones(N)])
    upper = [np.eye(P + 1)] * K if factors is None else [np.triu(f.T) for f in factors] * (K // len(factors))
    whiten = [np.linalg.inv(u * a["units"][k % len(a["units"])]) for k, u in enumerate(upper)]
    first, second = np.zeros_like(w), np.zeros_like(w)
    for b in range(len(a["gains"])):
        i = a["order"][b * BATCH : (b + 1) * BATCH]
        z = A[i] @ w.T
        if K > 1:
            slope = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) - a["y"][i]
        else:
            slope = 1 / (1 + np.exp(-z)) - a["y"][i]
        if a["weight"] is not None:
            slope *= a["weight"][i, None]
        g = a["gains"][b] * (slope - a["kept"][i]).T @ A[i] + a["anchor"] + a["ridge"] * w
        u = np.stack([whiten[k].T @ g[k] for k in range(K)])
        if adam is not None:
            first = adam[0] * first + (1 - adam[0]) * u
            second = adam[1] * second + (1 - adam[1]) * u**2
            u = first / (np.sqrt(second) + adam[2])
        step = a["rates"][b][:, None] * np.stack([whiten[k] @ u[k] for k in range(K)])
        w -= step - step.mean(axis=0) if together else step
    return w


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("container", [np.asarray, np.asfortranarray, scipy.sparse.csr_array])
@pytest.mark.parametrize("blocks", [1, K])
@pytest.mark.parametrize("adam", [None, (0.9, 0.99, 1e-3)])
def test_steps_are_those_of_the_formula(adam, blocks, container, dtype, rng):
    a = arguments(rng)
    a["units"] = rng.uniform(1, 3, size=(blocks, P + 1))
    factors = np.tril(rng.normal(size=(blocks, P + 1, P + 1))) + 3 * np.eye(P + 1)
    further = {} if adam is None else {"decays": adam}
    for together in (False, True):
        if adam is not None:
            further["moments"] = (np.zeros_like(a["w"]), np.zeros_like(a["w"]))
        w = run(a, container=container, factors=factors, dtype=dtype, keep_mean=together, **further)
        reference = expected(a, factors=factors, together=together, adam=adam)
        np.testing.assert_allclose(w, reference, rtol=1e-10 if dtype == np.float64 else 1e-4, atol=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_columns_that_step_late_end_where_they_would_have(outputs, weighted, rng):
    a = arguments(rng, weighted=weighted, K=outputs)
    a["X"][:, 2] = 0.0  # never occurs
    a["X"][:, 3] = np.arange(N) == 40  # occurs once
    for together in (False, True)[:outputs]:
        if together:
            for name in ("w", "anchor"):  # as they are where this is asked for
                a[name] -= a[name].mean(axis=0)
        w = run(a, container=scipy.sparse.csr_array, keep_mean=together)
        np.testing.assert_allclose(w, expected(a, together=together), rtol=1e-10, atol=1e-12)


def test_a_mean_is_kept_of_the_parameters(rng):
    a = arguments(rng)
    factors = np.eye(P + 1)[None]
    mean, mixing = a["w"].copy(), np.full(len(a["gains"]), 1.0)
    w = run(a, factors=factors, mean=mean, mixing=mixing)
    np.testing.assert_array_equal(mean, w)
    mean = np.zeros_like(w)
    run(a, factors=factors, mean=mean, mixing=1 / np.arange(1, len(mixing) + 1))
    halves = []
    for count in range(1, len(mixing) + 1):
        short = {**a, "order": a["order"][: count * BATCH]}
        short.update({name: a[name][:count] for name in ("gains", "rates")})
        halves.append(run(short, factors=factors))
    np.testing.assert_allclose(mean, np.mean(halves, axis=0), rtol=1e-10)


def test_no_step_goes_far_beyond_where_a_batch_has_its_least_loss(rng):
    a = arguments(rng, weighted=False)
    a.update(kept=None, anchor=None, ridge=np.zeros((K, P + 1)), gains=np.full_like(a["gains"], 1e6))
    for container in (np.asarray, scipy.sparse.csr_array):
        free = run({**a, "kept": np.zeros((N, K))}, container=container)
        loss = losses.CrossEntropy()
        rows = NumPyPasses(Dataset(container(a["X"]), a["y"], None, None, K), loss, fit_intercept=True)
        w = a["w"].copy()
        plan = EpochPlan(
            a["order"], BATCH, coordinates=(None, a["units"]), ridge=a["ridge"], gains=a["gains"],
            rates=a["rates"], curvature_bound=0.25,
        )  # fmt: skip
        rows.epoch(w, plan)
        assert np.abs(w).max() < 100 < np.abs(free).max()


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_array])
def test_a_code_out_of_range_is_an_error_that_names_the_row(container, rng):
    a = arguments(rng)
    codes = np.zeros(N, dtype=np.intp)
    codes[33] = 7
    rows = NumPyPasses(
        Dataset(container(a["X"]), None, codes, None, K), losses.CrossEntropy(), fit_intercept=True
    )
    plan = EpochPlan(
        a["order"], BATCH, coordinates=(None, a["units"]), ridge=a["ridge"], gains=a["gains"],
        rates=a["rates"],
    )  # fmt: skip
    with pytest.raises(ValueError, match="code 7 in row 33 "):
        rows.epoch(a["w"].copy(), plan)
