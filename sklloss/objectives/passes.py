"""The rows of X bound to a loss, in the backend that X belongs to."""

from sklloss.arrays.device import device_of
from sklloss.objectives.numpy_passes import Rows


def make_passes(X, loss, values, codes, weight, outputs, *, fit_intercept, n_threads=1, center=False):
    """`Rows` of NumPy's arrays and of CSR, else their equal for arrays elsewhere; arguments are its.

    Targets, codes and weights are NumPy's in either case: they are put beside X here, once.
    """
    kind = Rows
    if device_of(X) is not None:
        from sklloss.objectives.device_passes import ArrayRows

        kind = ArrayRows
    return kind(
        X, loss, values, codes, weight, outputs,
        fit_intercept=fit_intercept, n_threads=n_threads, center=center,
    )  # fmt: skip
