"""The data of a test of networks, as an objective and as a kernel take them."""

from sklloss.data.dataset import Dataset
from sklloss.kernels import data as data_kernels


def dataset(X, target=None, weight=None, codes=None, outputs=None):
    """A `Dataset` with as many outputs as the target, unless it says otherwise."""
    return Dataset(X, target, codes, weight, outputs=outputs_of(target, codes, outputs))


def compiled(X, target=None, weight=None, codes=None, outputs=None):
    """The same for kernels."""
    return data_kernels.Dataset(X, target, codes, weight, outputs=outputs_of(target, codes, outputs))


def outputs_of(target, codes, outputs):
    if outputs is not None:
        return outputs
    if target is not None:
        return target.shape[1]
    return 1 if codes is None else int(codes.max()) + 1
