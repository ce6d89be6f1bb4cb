"""Checks of what estimators are given, in one place for all of them.

Other modules rely on what these checks ensure: shapes agree, numbers are finite, weights are not negative,
codes are in range, and X, targets and weights share one dtype.
"""
