"""What users pass to estimators, for annotations."""

from typing import Any, Protocol, TypeAlias

from numpy.typing import ArrayLike


class HasShape(Protocol):
    """A data frame, a sparse matrix or an array of any namespace."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows, and of columns."""


# X, and y where it may be a matrix.
MatrixLike: TypeAlias = ArrayLike | HasShape
# What comes back: an array of NumPy's, or of the namespace that the model lives in.
Array: TypeAlias = Any
ClassWeight: TypeAlias = dict[Any, float] | str | list[dict[Any, float] | str | None] | None
