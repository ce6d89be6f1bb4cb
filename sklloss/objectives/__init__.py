"""Objectives: loss + model + penalty over the rows of X, as a function of one parameter array.

For linear models, `linear.LinearObjective` is what solvers minimise. It adds the penalty to the sums of a
`passes.Passes`, which reads X: `numpy_passes` with compiled kernels, `device_passes` with `device_batches` in
the operations of another library. Solvers get `preconditioners` from it, and mini-batches and dual ascent of
`linear_stochastic`.

For networks, `network` and `device_network` have the objectives. `classification` adapts the loss of any
classifier to its coded targets.

Every objective has ``value_and_gradient``; what else a solver requires, it names in `sklloss.solvers`.
"""
