"""SciPy's L-BFGS-B, for objectives without a Hessian: a network's loss over all rows at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from sklloss._warnings import warn
from sklloss.arrays.threads import single_threaded_blas


def lbfgsb(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    parameters: np.ndarray,
    *,
    tol: float,
    max_iter: int,
    max_fun: int,
    callback: Callable[[float, np.ndarray], bool | None] | None = None,
) -> tuple[np.ndarray, float, int]:
    """Minimise a smooth function, with the stopping rules of scikit-learn's networks.

    Parameters
    ----------
    function : callable
        Takes a vector like ``parameters``; returns value and gradient.
    parameters : ndarray of shape (size,)
        Start.
    tol : float
        The largest component of the gradient at the end.
    max_iter, max_fun : int
        Most iterations and most calls of ``function``.
    callback : callable, optional
        Called with value and parameters after each iteration; ends the search by returning True.

    Returns
    -------
    parameters : ndarray
        Of the start's dtype.
    value : float
    n_iter : int

    Raises
    ------
    ValueError
        If the value is NaN or infinite at the end.
    """
    dtype = parameters.dtype
    last: list[float] = [np.nan]
    ended: list[bool] = []

    def evaluate(w: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = function(w.astype(dtype, copy=False))
        last[0] = value
        return value, gradient.astype(np.float64, copy=False)

    def after_iteration(w: np.ndarray) -> None:
        assert callback is not None
        # The line search accepts the last point that it tried.
        if callback(last[0], w.astype(dtype, copy=False)):
            ended.append(True)
            raise StopIteration

    notify: Any = None if callback is None else after_iteration
    options: Any = {"gtol": tol, "maxiter": max_iter, "maxfun": max_fun}
    with single_threaded_blas():
        found = minimize(
            evaluate,
            parameters.astype(np.float64),
            jac=True,
            method="L-BFGS-B",
            callback=notify,
            options=options,
        )
    value = float(found.fun)
    if not np.isfinite(value) or not np.isfinite(found.x).all():
        raise ValueError(
            f"the training loss became {value} after {found.nit} iterations of L-BFGS: bring the "
            "columns of X (in a regression y too) to a common scale, such as with StandardScaler"
        )
    n_iter = min(int(found.nit), max_iter)
    # In float32 a line search ends where rounding hides any further decrease: that counts as converged.
    rounded = found.status == 2 and dtype == np.float32 and n_iter > 0
    if found.status != 0 and not rounded and not ended:
        warn(
            f"lbfgs failed to converge after {n_iter} iteration(s) (status={found.status}): {found.message}. "
            "Increase max_iter or max_fun, or scale the data",
            ConvergenceWarning,
        )
    return found.x.astype(dtype, copy=False), value, n_iter
