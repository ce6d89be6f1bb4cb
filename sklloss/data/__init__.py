"""The one place where X, y, weights and a validation set are checked and coded.

What leaves this room is trusted by everything below: shapes agree, numbers are finite, weights are not
negative, codes are in range, and X, targets and weights share one dtype.
"""

from sklloss.data.array_checks import check_same_device, check_same_device_as, dtype_of, on_host
from sklloss.data.checks import (
    check_validation_arguments,
    check_weight,
    check_X,
    in_dtype,
    row_major,
    usable_layout,
    weight_in_dtype,
)
from sklloss.data.class_targets import (
    ClassTarget,
    check_column_order,
    hard_labels,
    is_label_column,
    logistic_target,
    network_target,
    plain_target,
    softmax_target,
    stream_classes,
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
from sklloss.data.regression_targets import (
    RegressionData,
    regression_data,
    regression_validation,
    target_in_dtype,
)

__all__ = [
    "DEVICE_DTYPES",
    "ClassTarget",
    "KeepState",
    "Origin",
    "RegressionData",
    "check_X",
    "check_choice",
    "check_column_order",
    "check_flag",
    "check_integer",
    "check_real",
    "check_same_device",
    "check_same_device_as",
    "check_validation_arguments",
    "check_weight",
    "dtype_of",
    "hard_labels",
    "in_dtype",
    "is_label_column",
    "logistic_target",
    "move_to_device",
    "network_target",
    "on_host",
    "plain_target",
    "regression_data",
    "regression_validation",
    "row_major",
    "softmax_target",
    "stream_classes",
    "target_in_dtype",
    "unchanged_on_error",
    "usable_layout",
    "weight_in_dtype",
]
