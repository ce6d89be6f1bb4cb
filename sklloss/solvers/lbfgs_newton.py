"""L-BFGS as long as it promises to be short, then Newton's method with conjugate gradients."""

import dataclasses

import numpy as np

from sklloss.solvers.lbfgs import lbfgs
from sklloss.solvers.newton_cg import newton_cg

# Where L-BFGS needs no more iterations, it reads X half as often as Newton's method does. What needs more may
# need very many, and Newton's method goes on from there.
SHORT, SHARE = 30, 0.3


def lbfgs_newton_cg(objective, w, *, tol, max_iter, callback=None, begins=None):
    """Minimise a convex objective by `lbfgs`, and from where that has got to by `newton_cg`.

    Parameters
    ----------
    objective, w, tol, callback
        See `newton_cg`.
    max_iter : int
        Most iterations of both; of these `lbfgs` has 30, or three out of ten if that is less.
    begins : callable, optional
        Called with the name of each solver that begins.

    Returns
    -------
    Result
    """
    begins = begins or (lambda name: None)
    short = min(SHORT, int(SHARE * max_iter))
    if not short:
        begins("newton-cg")
        return newton_cg(objective, w, tol=tol, max_iter=max_iter, callback=callback)
    begins("lbfgs")
    first = lbfgs(objective, w, tol=tol, max_iter=short, callback=callback)
    if (first.converged | first.vanished).all():
        return first
    begins("newton-cg")
    done = len(first.curve) - 1
    then = newton_cg(
        objective,
        first.w,
        tol=tol,
        max_iter=max_iter - done,
        callback=callback and (lambda iteration, *where: callback(done + iteration, *where)),
        start=np.fmax(objective.null_value(), first.value),
    )
    n_iter = np.where(then.n_iter > 0, done + then.n_iter, first.n_iter)
    return dataclasses.replace(then, n_iter=n_iter, curve=[*first.curve, *then.curve[1:]])
