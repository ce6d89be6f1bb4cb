"""The compiled Dataset: the rows of X, targets, codes and weights that a loss is given, batch by batch."""

import numpy as np
import pytest
import scipy.sparse
from sklloss.kernels.data import Dataset, PythonLoss
from sklloss.kernels.linear.gradient import Chunks, PassBuffers, gradient
from sklloss.kernels.linear.sgd import block_epoch

from sklloss.objectives.passes import EpochPlan

N, P, BLOCK = 23, 3, 5
DTYPES = [np.float64, np.float32]


def csr(index):
    def make(X):
        X = scipy.sparse.csr_array(X)
        X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
        return X

    return make


LAYOUTS = {
    "by rows": np.ascontiguousarray,
    "by columns": np.asfortranarray,
    "every second row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "CSR with int32": csr(np.int32),
    "CSR with int64": csr(np.int64),
}
# A model with an output for each column of X and the identity for coefficients: its scores are the rows of X.
IDENTITY = np.eye(P)


class Recorder:
    """A loss that keeps what it is called with, and has no gradient."""

    def __init__(self):
        self.batches = []

    def __call__(self, raw, target, codes, weight):
        self.batches.append((raw.copy(), target, codes, weight))
        raw[...] = 0.0
        return 0.0

    def joined(self):
        """X, target, codes and weight of all batches; None for what the loss was not given."""
        return [None if part[0] is None else np.concatenate(part) for part in zip(*self.batches, strict=True)]


def in_a_gradient_pass(data, dtype):
    """What a pass over the rows in their order gives the loss."""
    loss = Recorder()
    bad = gradient(
        PythonLoss(loss, False), data, Chunks(np.array([0, data.rows]), BLOCK), PassBuffers(data, 1, P),
        IDENTITY, np.empty(P), np.empty((P, P)),
    )  # fmt: skip
    assert bad == -1
    assert max(len(batch[0]) for batch in loss.batches) == BLOCK
    return loss.joined()


def in_a_stochastic_pass(data, order):
    """What mini-batches of rows in another order give the loss."""
    loss, batches = Recorder(), -(-len(order) // BLOCK)
    plan = EpochPlan(
        order, BLOCK, coordinates=(None, np.ones((1, P))), ridge=np.zeros((P, P)), gains=np.zeros(batches),
        rates=np.zeros((batches, P)),
    )  # fmt: skip
    assert block_epoch(PythonLoss(loss, False), data, IDENTITY.copy(), plan, 2) == -1
    return loss.joined()


def rows_of(rng, dtype):
    X = np.where(rng.uniform(size=(N, P)) < 0.4, 0.0, rng.normal(size=(N, P)))
    return X.astype(dtype)


def given(rng, dtype, kind):
    """Targets and weights, of as many kinds as a Dataset takes."""
    values = rng.normal(size=(N, P)).astype(dtype)
    probabilities = rng.dirichlet(np.ones(P), size=N).astype(dtype)
    codes = rng.integers(0, P, size=N)
    by_row, by_output = (rng.uniform(size=shape).astype(dtype) for shape in (N, (N, P)))
    return {
        "values": {"target": values},
        "probabilities": {"target": probabilities, "weight": by_row},
        "codes": {"codes": codes, "weight": by_row},
        "codes as 0/1 targets": {"codes": codes, "expand": True, "weight": by_output},
    }[kind]


KINDS = ["values", "probabilities", "codes", "codes as 0/1 targets"]


def check(found, X, parts, order=slice(None)):
    scores, target, codes, weight = found
    np.testing.assert_array_equal(scores, X[order])
    expected = parts.get("target")
    if parts.get("expand"):
        expected, parts = IDENTITY[parts["codes"]].astype(X.dtype), {**parts, "codes": None}
    for name, part, wanted in (
        ("target", target, expected),
        ("codes", codes, parts.get("codes")),
        ("weight", weight, parts.get("weight")),
    ):
        assert (part is None) == (wanted is None), name
        if wanted is not None:
            np.testing.assert_array_equal(part, wanted[order], err_msg=name)
            assert part.dtype == wanted.dtype, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches_in_order_have_the_rows_that_were_given(layout, kind, dtype, rng):
    X, parts = rows_of(rng, dtype), given(rng, dtype, kind)
    data = Dataset(LAYOUTS[layout](X), **parts, outputs=P)
    check(in_a_gradient_pass(data, dtype), X, parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches_in_another_order_have_the_rows_that_it_names(layout, kind, dtype, rng):
    X, parts = rows_of(rng, dtype), given(rng, dtype, kind)
    data = Dataset(LAYOUTS[layout](X), **parts, outputs=P)
    order = rng.integers(0, N, size=2 * N).astype(np.intp)
    check(in_a_stochastic_pass(data, order), X, parts, order)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["by rows", "by columns", "every second row"])
def test_offsets_are_subtracted_in_double_where_rows_are_copied(layout, dtype, rng):
    X, center = rows_of(rng, dtype) + dtype(100), np.array([100.0, 0.0, 0.1])
    data = Dataset(LAYOUTS[layout](X), np.zeros((N, P), dtype), outputs=P, center=center)
    scores = in_a_stochastic_pass(data, np.arange(N))[0]
    np.testing.assert_array_equal(scores, (X - center).astype(dtype))


def test_a_dataset_keeps_what_it_points_to(rng):
    parts = given(rng, np.float64, "probabilities")
    X = rows_of(rng, np.float64)
    data = Dataset(X.copy(), **{name: part.copy() for name, part in parts.items()}, outputs=P)
    rubbish = [np.full(part.shape, np.nan) for part in (X, *parts.values()) for _ in range(20)]
    check(in_a_gradient_pass(data, np.float64), X, parts)
    assert rubbish


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"X": np.zeros((N, P), dtype=np.int64)}, ValueError, "Buffer dtype mismatch"),
        ({"X": np.zeros((N, P), dtype=np.int32)}, ValueError, "Buffer dtype mismatch"),
        ({"target": np.zeros((N, P), dtype=np.float32)}, ValueError, "Buffer dtype mismatch"),
        ({"target": np.zeros((N, P + 1))}, ValueError, r"target must have shape \(23, 3\), got \(23, 4\)"),
        ({"target": np.zeros(N)}, ValueError, r"target must have shape \(23, 3\), got \(23,\)"),
        ({"target": None, "codes": np.zeros(N, np.int32)}, ValueError, "Buffer dtype mismatch"),
        ({"target": None, "codes": np.zeros(N - 1, np.intp)}, ValueError, r"codes must have shape \(23,\)"),
        ({"weight": np.ones(N, dtype=np.float32)}, ValueError, "Buffer dtype mismatch"),
        ({"weight": np.ones(N + 1)}, ValueError, r"weight must have shape \(23,\), got \(24,\)"),
        ({"weight": np.ones((N, 1))}, ValueError, r"weight must have shape \(23, 3\), got \(23, 1\)"),
        ({"center": np.zeros(P, dtype=np.float32)}, ValueError, "Buffer dtype mismatch"),
        ({"center": np.zeros(P - 1)}, ValueError, r"center must have shape \(3,\), got \(2,\)"),
    ],
)
def test_a_wrong_shape_or_dtype_is_an_error(changed, error, message):
    arguments = {"X": np.zeros((N, P)), "target": np.zeros((N, P)), **changed}
    X = arguments.pop("X")
    with pytest.raises(error, match=message):
        Dataset(X, **arguments, outputs=P)


@pytest.mark.parametrize("bad", [-1, P, 2**40])
def test_a_code_out_of_range_is_found_before_it_is_used(bad, rng):
    codes = np.zeros(N, dtype=np.intp)
    codes[17] = bad
    data = Dataset(rows_of(rng, np.float64), codes=codes, expand=True, outputs=P)
    found = gradient(
        PythonLoss(Recorder(), False), data, Chunks(np.array([0, N]), BLOCK), PassBuffers(data, 1, P),
        IDENTITY, np.empty(P), np.empty((P, P)),
    )  # fmt: skip
    assert found == 17
