"""Objectives: loss + model + penalty over the rows of X, as a function of one parameter array.

Every objective has ``value_and_gradient``; what else a solver requires, it names in `sklloss.solvers`.
"""
