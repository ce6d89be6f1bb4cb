"""One pass over X: the gradient, Hessian product or Hessian of a linear model, against NumPy's products."""

from groups import kernels


def run(session):
    for spec in session.specs("passes"):
        kernels.one(session, spec)


one = kernels.one
