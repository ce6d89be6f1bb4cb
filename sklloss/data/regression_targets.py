"""Targets of a regression."""

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils import check_array

from sklloss.data.checks import target_array, target_in_dtype
from sklloss.data.dataset import Dataset
from sklloss.losses import Loss


def code_values(data: Dataset, y: Any, loss: Loss, name: str = "y") -> Dataset:
    """Take in the targets of a regression.

    Parameters
    ----------
    data : Dataset
        Rows and sample weights; their targets come in here.
    y : array-like of shape (n,) or (n, outputs)
    loss : Loss
        In whose domain y must be.
    name : str
        What errors call y.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If y is not numeric, out of the range of the dtype of X, or out of the loss's domain.
    """
    y = target_array(y, name, data.n)
    if y.dtype.kind not in "biufOUS":
        raise ValueError(f"{name} must be numeric, got dtype {y.dtype}")
    if y.dtype.kind not in "biuf":
        try:
            y = y.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must be numeric, got dtype {y.dtype}") from error
        y = check_array(y, ensure_2d=False, dtype=np.float64, input_name=name)
    values = target_in_dtype(y.reshape(y.shape[0], -1), data.dtype, loss, name, name.replace("y", "X"))
    outputs = values.shape[1]
    return replace(data, values=values, outputs=outputs, y=values.reshape(-1) if outputs == 1 else values)
