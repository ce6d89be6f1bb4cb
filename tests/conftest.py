"""What every test may use."""

import os

# Read by SciPy when it is first imported: scikit-learn's array API checks need it, instead of being skipped.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import numpy as np
import pytest


@pytest.fixture
def rng():
    """A generator with a fixed seed, fresh for each test."""
    return np.random.default_rng(0)
