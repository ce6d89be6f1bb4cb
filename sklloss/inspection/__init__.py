"""What a fitted model says about its coefficients."""

from sklloss.inspection.coefficients import coefficient_table

__all__ = ["coefficient_table"]
