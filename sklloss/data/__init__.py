"""Checks and codes X, y, sample weights and a validation set, in one place for all estimators.

Other modules rely on what these checks ensure: shapes agree, numbers are finite, weights are not negative,
codes are in range, and X, targets and weights share one dtype.
"""

from sklloss.data.checks import (
    Array,
    ClassWeight,
    MatrixLike,
    check_same_device,
    check_weight,
    check_X,
    dtype_of,
    in_dtype,
    on_host,
    row_major,
    usable_layout,
)
from sklloss.data.dataset import (
    DEVICE_DTYPES,
    Dataset,
    Labels,
    Origin,
    check_data,
    check_rows,
    check_stream_data,
    check_validation_data,
    move_to_device,
)
from sklloss.data.parameters import (
    KeepState,
    check_choice,
    check_flag,
    check_integer,
    check_real,
    unchanged_on_error,
)
from sklloss.data.targets import (
    check_column_order,
    code_classes,
    code_values,
    hard_labels,
    is_label_column,
    scored_classes,
    stream_classes,
)

__all__ = [
    "DEVICE_DTYPES",
    "Array",
    "ClassWeight",
    "Dataset",
    "KeepState",
    "Labels",
    "MatrixLike",
    "Origin",
    "check_X",
    "check_choice",
    "check_column_order",
    "check_data",
    "check_flag",
    "check_integer",
    "check_real",
    "check_rows",
    "check_same_device",
    "check_stream_data",
    "check_validation_data",
    "check_weight",
    "code_classes",
    "code_values",
    "dtype_of",
    "hard_labels",
    "in_dtype",
    "is_label_column",
    "move_to_device",
    "on_host",
    "row_major",
    "scored_classes",
    "stream_classes",
    "unchanged_on_error",
    "usable_layout",
]
