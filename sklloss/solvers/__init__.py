"""Solvers: each sees a parameter array and an objective, and nothing of losses or classes.

Parameters have shape (problems, size): independent problems that are minimised side by side, each with
its own step and its own end. One problem is the usual case.
"""
