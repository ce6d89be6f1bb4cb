"""One adapter per rival. To add one, write its file and list an instance of it here."""

from rivals import (
    adelie_,
    celer_,
    glum_,
    gram_cd_,
    liblinear_,
    numpy_,
    pinball_,
    rehline_,
    skglm_,
    sklearn_,
    sklearnex_,
    sklloss_,
    snapml_,
    statsmodels_,
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
    adelie_.Adelie(),
    glum_.Glum(),
    rehline_.Rehline(),
    pinball_.Pinball(),
    statsmodels_.Statsmodels(),
)
RIVALS = {rival.name: rival for rival in _ALL}
OURS = _ALL[0].name


def get(name):
    """The adapter of that name."""
    return RIVALS[name]
