"""The one place where X, y, weights and a validation set are checked and coded.

What leaves this room is trusted by everything below: shapes agree, numbers are finite, weights are not
negative, codes are in range, and X, targets and weights share one dtype.
"""

from sklloss.data.checks import (
    check_same_device,
    check_weight,
    check_X,
    dtype_of,
    in_dtype,
    on_host,
    row_major,
    usable_layout,
)
from sklloss.data.class_targets import (
    check_column_order,
    code_classes,
    hard_labels,
    is_label_column,
    scored_classes,
    stream_classes,
)
from sklloss.data.dataset import (
    Dataset,
    Labels,
    check_data,
    check_rows,
    check_stream_data,
    check_validation_data,
)
from sklloss.data.origin import DEVICE_DTYPES, Origin, move_to_device
from sklloss.data.parameters import (
    KeepState,
    check_choice,
    check_flag,
    check_integer,
    check_real,
    unchanged_on_error,
)
from sklloss.data.regression_targets import code_values

__all__ = [
    "DEVICE_DTYPES",
    "Dataset",
    "KeepState",
    "Labels",
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
