"""One adapter per rival. To add one, write its file and list an instance of it here."""

from rivals import (
    celer_,
    gram_cd_,
    liblinear_,
    numpy_,
    skglm_,
    sklearn_,
    sklearnex_,
    sklloss_,
    snapml_,
    torch_,
)

_ALL = (
    sklloss_.Sklloss(),
    numpy_.NumPy(),
    sklearn_.ScikitLearn(),
    sklearn_.ScikitLearnOneThread(),
    sklearn_.ScikitLearnArrays(),
    sklearnex_.Sklearnex(),
    torch_.Torch(),
    snapml_.SnapML(),
    liblinear_.Liblinear(),
    gram_cd_.GramDescent(),
    skglm_.Skglm(),
    celer_.Celer(),
)
RIVALS = {rival.name: rival for rival in _ALL}
OURS = _ALL[0].name


def get(name):
    """The adapter of that name."""
    return RIVALS[name]
