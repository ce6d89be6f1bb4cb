"""Objectives: loss + model + penalty over the rows of X, as a function of one parameter array.

A solver sees ``value_and_gradient`` and, where there is one, ``hessian`` and ``precondition``.
"""
