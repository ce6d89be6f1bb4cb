"""Devices: moving arrays there and back, and the switches of torch during a fit."""

import numpy as np
import pytest
import scipy.sparse

from sklloss.arrays import matrices
from sklloss.arrays.device import Device, device_of, full_precision
from sklloss.arrays.matrices import transfer


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("layout", ["read-only", "reversed", "big endian", "column-major"])
def test_what_is_put_shares_no_memory(other_device, layout, rng):
    array = rng.normal(size=(6, 4))
    array = {
        "read-only": array, "reversed": array[::-1], "big endian": array.astype(">f8"),
        "column-major": np.asfortranarray(array),
    }[layout]  # fmt: skip
    before = array.copy()
    array.setflags(write=layout != "read-only")
    moved = other_device.put(array)
    assert device_of(moved) == other_device
    if layout != "read-only":
        array[...] = 0.0
    np.testing.assert_array_equal(other_device.get(moved), before)


def test_floats_that_a_device_does_not_have_become_float32(float32_alone, rng):
    moved = float32_alone.put(rng.normal(size=3))
    assert float32_alone.numpy_dtype(moved) == np.float32


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [
        (np.array([0.0, 1.0]), "float32"),
        (np.array([0.1, 1.0]), None),
        (np.array([0.5], dtype=np.float16), "float32"),
        (np.array([7], dtype=np.uint32), "uint32"),
        (np.array([True]), "bool"),
    ],
)
def test_a_device_holds_what_it_does_not_round(float32_alone, numbers, dtype):
    assert float32_alone.holds(numbers) == (None if dtype is None else np.dtype(dtype))


def test_torch_holds_unsigned_numbers_as_signed_ones(torch):
    here = device_of(torch.zeros(1))
    assert here.holds(np.array([7], dtype=np.uint8)) == np.uint8
    assert here.holds(np.array([7], dtype=np.uint64)) == np.int64
    assert here.holds(np.array([2**63], dtype=np.uint64)) is None


def test_rows_change_their_dtype_part_by_part(other_device, rng, monkeypatch):
    monkeypatch.setattr(matrices, "PART_BYTES", 100)
    X = rng.normal(size=(37, 5))
    sizes = []
    put = Device.put
    monkeypatch.setattr(
        Device, "put", lambda device, array, *rest: sizes.append(array.nbytes) or put(device, array, *rest)
    )
    moved = transfer(X, other_device, np.dtype(np.float32))
    assert max(sizes) <= 200  # of float64
    np.testing.assert_array_equal(other_device.get(moved), X.astype(np.float32))


def test_torchs_default_device_does_not_matter(torch, rng):
    X = rng.normal(size=(5, 3))
    here = device_of(torch.zeros(1))
    torch.set_default_device("meta")
    try:
        dense, sparse = transfer(X, here), transfer(scipy.sparse.csr_array(X), here)
        product = sparse @ dense.T
    finally:
        torch.set_default_device(None)
    np.testing.assert_allclose(here.get(product), X @ X.T, rtol=1e-12)


def test_float32_means_float32_within_autocasting(torch, rng):
    X = torch.asarray(rng.normal(size=(8, 8)).astype(np.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (X @ X).dtype == torch.bfloat16
        with full_precision(device_of(X)):
            assert (X @ X).dtype == torch.float32
        assert (X @ X).dtype == torch.bfloat16
