"""Large temporary arrays: they are arrays as any other, and their memory goes back to the system."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from sklloss.arrays import memory


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 5), (0, 5), (1 << 10, 1 << 11)])
def test_arrays_have_their_shape_and_can_be_written(shape, dtype):
    array = memory.empty(shape, dtype)
    array[:] = 1
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.sum() == array.size


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_goes_back_though_a_later_array_is_in_use():
    def pages():
        return int(Path("/proc/self/statm").read_text().split()[1])

    array = memory.empty((1 << 21,))
    array[:] = 1.0
    later = np.ones(1 << 16)
    held = pages()
    del array
    assert held - pages() > 0.9 * (1 << 24) / 4096
    assert later[-1] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_write_to_arrays_of_its_parent():
    array = memory.empty((memory.LARGE,), np.uint8)
    array[:] = 1
    child = os.fork()
    if child == 0:
        array[:] = 2
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (array == 1).all()


def test_an_array_that_memory_has_no_room_for_is_a_memory_error():
    with pytest.raises(MemoryError):
        memory.empty((1 << 45,))
