"""The stochastic pass over arrays of other libraries: the same steps as over NumPy's."""

import numpy as np
import pytest
import scipy.sparse

from sklloss import losses
from sklloss.arrays import matrices
from sklloss.data.dataset import Dataset
from sklloss.objectives import device_batches
from sklloss.objectives.passes import EpochPlan, make_passes

N, P, K, BATCH = 90, 7, 3, 8


@pytest.fixture
def setting(device_and_dtype):
    """A device, X's dtype, and how close its results are to NumPy's."""
    device, dtype = device_and_dtype
    return device, dtype, 1e-10 if dtype == np.float64 else 1e-4


def arguments(rng, outputs=K, n=N):
    order = rng.permutation(n)[: n - 4].astype(np.intp)
    batches = -(-len(order) // BATCH)
    return {
        "order": order,
        "batch_rows": BATCH,
        "coordinates": (None, rng.uniform(1, 3, size=(1, P + 1))),
        "ridge": np.where(np.arange(P + 1) < P, 1.0, 0.0) * np.ones((outputs, 1)),
        "gains": rng.uniform(3, 4, size=batches),
        "rates": rng.uniform(0.01, 0.02, size=(batches, outputs)),
    }


def triangles(rng, blocks):
    """Factors as a solver holds them, with rubbish in the triangle that does not count."""
    return rng.normal(size=(blocks, P + 1, P + 1)) + 4 * np.eye(P + 1)


def epoch(rows, w, arguments, **further):
    """An epoch's results: parameters, moments and mean."""
    changed = {
        name: tuple(a.copy() for a in part) if isinstance(part, tuple) else part.copy()
        for name, part in further.items()
        if name in ("moments", "mean")
    }
    w = w.copy()
    kept = further.pop("kept", None)
    if kept is not None:
        slopes = rows.empty_slopes()
        slopes[...] = kept if isinstance(slopes, np.ndarray) else rows.device.put(kept)
        further["anchor_slopes"] = slopes
    rows.epoch(w, EpochPlan(**arguments, **{**further, **changed}))
    return [w, *changed.get("moments", ()), *([changed["mean"]] if "mean" in changed else [])]


def both(
    setting, rng, a, loss, *, values=None, codes=None, weight=None, outputs=K, center=False, sparse=False,
    **further,
):  # fmt: skip
    """The same epoch in NumPy and on the device."""
    device, dtype, close = setting
    X = rng.normal(size=(N, P)).astype(dtype) + dtype.type(100 * center)
    if sparse:
        X[rng.uniform(size=X.shape) < 0.7] = 0.0
        X[:, 0] = np.arange(N) == 40  # occurs once
    w = rng.normal(size=(outputs, P + 1)) / 3
    values, weight = (None if v is None else v.astype(dtype) for v in (values, weight))
    results = []
    for one in (X, matrices.transfer(scipy.sparse.csr_array(X) if sparse else X, device)):
        rows = make_passes(
            Dataset(one, values, codes, weight, outputs), loss, fit_intercept=True, center=center
        )
        results.append(epoch(rows, w, a, **further))
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=close, atol=close)
    return results


CASES = {
    "log_loss": (losses.LogLoss(), "values"),
    "smoothed": (losses.LogLoss(0.1), "codes"),
    "cross_entropy": (losses.CrossEntropy(), "codes"),
    "soft": (losses.CrossEntropy(0.1), "values"),
    "focal": (losses.Focal(), "values"),
    "huber": (losses.Huber(), "values"),
}


@pytest.mark.parametrize("weights", ["none", "rows", "outputs"])
@pytest.mark.parametrize("case", list(CASES))
def test_every_loss_takes_the_steps_of_numpy(setting, case, weights, rng):
    loss, form = CASES[case]
    outputs = 2 if case == "smoothed" else K
    target = {"codes": rng.integers(0, outputs, N)}
    if form == "values":
        target = {"values": rng.dirichlet(np.ones(outputs), size=N)}
    weight = None
    if weights != "none":
        by_output = weights == "outputs" and loss.separable
        weight = rng.uniform(size=(N, outputs) if by_output else N)
        weight[::5] = 0.0
    both(setting, rng, arguments(rng, outputs), loss, **target, weight=weight, outputs=outputs)


@pytest.mark.parametrize("blocks", [0, 1, K])
@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_steps_are_taken_in_the_coordinates(setting, blocks, adam, together, rng):
    a = arguments(rng)
    if blocks:
        a["coordinates"] = triangles(rng, blocks), rng.uniform(1, 3, size=(blocks, P + 1))
    further = {"kept": rng.normal(size=(N, K)).astype(setting[1]), "anchor": rng.normal(size=(K, P + 1))}
    if adam:
        further |= {"moments": (rng.normal(size=(K, P + 1)), rng.uniform(1, 2, size=(K, P + 1)))}
        further |= {"decays": (0.9, 0.99, 1e-3)}
    loss, codes = losses.CrossEntropy(), rng.integers(0, K, N)
    both(setting, rng, a, loss, codes=codes, weight=rng.uniform(size=N), keep_mean=together, **further)


def test_centered_columns_and_a_running_mean_give_the_steps_of_numpy(setting, rng):
    a = arguments(rng)
    a["batch_rows"] = 11  # the last batch is a short one
    a["gains"], a["rates"] = a["gains"][:8], a["rates"][:8]
    further = {"mean": rng.normal(size=(K, P + 1)), "mixing": rng.uniform(size=8)}
    both(setting, rng, a, losses.CrossEntropy(), codes=rng.integers(0, K, N), center=True, **further)


@pytest.mark.parametrize("weights", [0, 1, 2])
def test_no_step_goes_far_beyond_where_a_batch_has_its_least_loss(setting, weights, rng):
    a = arguments(rng)
    a["gains"] = a["gains"] * 1e4
    weight = rng.uniform(size=(N, K)[:weights]) if weights else None
    held, _ = both(
        setting,
        rng,
        a,
        losses.LogLoss(),
        values=rng.uniform(size=(N, K)),
        weight=weight,
        curvature_bound=0.25,
    )
    assert np.abs(held[0]).max() < 100


@pytest.mark.parametrize("room", [1, 200, 1000])
@pytest.mark.parametrize("batch", [BATCH, 37, 200])
def test_it_does_not_matter_how_many_rows_are_gathered_at_a_time(room, batch, find_device, rng, monkeypatch):
    setting = find_device("torch"), np.dtype(np.float64), 1e-10
    a = arguments(rng)
    batches = -(-len(a["order"]) // batch)
    a.update(batch_rows=batch, gains=a["gains"][:batches], rates=a["rates"][:batches])
    monkeypatch.setattr(device_batches, "GATHER_BYTES", room * 10)
    kept = rng.normal(size=(N, K))
    both(setting, rng, a, losses.CrossEntropy(), codes=rng.integers(0, K, N), kept=kept)


@pytest.mark.parametrize("blocks", [0, 1, K])
@pytest.mark.parametrize("outputs", [1, K])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_sparse_rows_take_the_steps_of_numpy(dtype, outputs, blocks, find_device, rng):
    close = 1e-10 if dtype == "float64" else 1e-4
    a = arguments(rng, outputs)
    if blocks:
        blocks = min(blocks, outputs)
        a["coordinates"] = triangles(rng, blocks), rng.uniform(1, 3, size=(blocks, P + 1))
    for further in ({}, {"curvature_bound": 0.25}, {"kept": rng.normal(size=(N, outputs)).astype(dtype)}):
        if "kept" in further:
            further["anchor"] = rng.normal(size=(outputs, P + 1))
        both(
            (find_device("torch"), np.dtype(dtype), close), rng, a, losses.LogLoss(),
            values=rng.uniform(size=(N, outputs)), weight=rng.uniform(size=N), outputs=outputs, sparse=True,
            **further,
        )  # fmt: skip


def test_slopes_that_sum_to_zero_are_recognised(setting, rng):
    device, dtype, _ = setting
    X = rng.normal(size=(N, P)).astype(dtype)
    slopes = rng.normal(size=(N, K)).astype(dtype)
    for one in (X, matrices.transfer(X, device)):
        rows = make_passes(
            Dataset(one, None, rng.integers(0, K, N), None, K), losses.CrossEntropy(), fit_intercept=True
        )
        for shift, cancels in ((slopes.mean(axis=1, keepdims=True), True), (0.0, False)):
            room = rows.empty_slopes()
            assert tuple(room.shape) == (N, K)
            part = slopes - shift
            room[...] = part if isinstance(room, np.ndarray) else device.put(part)
            assert rows.slopes_sum_to_zero(room) is cancels
