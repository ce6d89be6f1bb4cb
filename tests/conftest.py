"""What every test may use."""

import os

import numpy as np
import pytest

# Small problems on a shared machine: more BLAS threads only add noise. Must stand before BLAS is loaded,
# hence for the processes that tests start; this one holds what the caller chose.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture
def rng():
    """A generator with a fixed seed, fresh for each test."""
    return np.random.default_rng(0)
