"""Invalid input is an error that names the argument and what is wrong with it."""

import re

import numpy as np
import pytest

from sklloss import losses

LOG, CROSS, HALF = losses.LogLoss(), losses.CrossEntropy(), losses.HalfSquaredError()
ROOT = losses.RootMeanSquaredError()
Z = np.array([0.5, -1.0, 2.0])
Z2 = np.array([[0.5, -1.0, 2.0], [1.0, 0.0, 0.0]])

BAD = {
    "column against vector": (LOG, (Z[:, None] > 0, Z), ValueError, "y_true has (3, 1), raw has (3,)"),
    "vector against column": (HALF, (Z, Z[:, None]), ValueError, "y_true has (3,), raw has (3, 1)"),
    "lengths": (ROOT, (Z[:2], Z), ValueError, "y_true has (2,), raw has (3,)"),
    "scalar target": (HALF, (1.0, Z), ValueError, "y_true has (), raw has (3,)"),
    "scalar raw": (HALF, (1.0, 2.0), ValueError, "raw must have shape (n,) or (n, outputs), got ()"),
    "ragged raw": (
        CROSS,
        ([0, 1], [[1.0, 2.0], [3.0]]),
        ValueError,
        "raw is no array of numbers: setting an array element with a sequence",
    ),
    "ragged target": (HALF, ([[1.0], [1.0, 2.0]], Z2), ValueError, "y_true is no array of numbers"),
    "ragged weight": (LOG, ([0, 1], Z[:2], [[1.0], [1.0, 2.0]]), ValueError, "sample_weight is no array"),
    "ragged focal": (losses.Focal(), ([0, 1], [[1.0, 2.0], [3.0]]), ValueError, "raw is no array of numbers"),
    "no target": (losses.Focal(), (None, Z2), TypeError, "y_true must hold real numbers, got dtype object"),
    "three dimensions": (HALF, (np.zeros((2, 2, 2)),) * 2, ValueError, "raw must have shape"),
    "no rows": (LOG, ([], []), ValueError, "have no rows"),
    "no outputs": (LOG, (np.zeros((3, 0)),) * 2, ValueError, "raw has no outputs"),
    "no rows of classes": (CROSS, (np.zeros(0, int), np.zeros((0, 3))), ValueError, "have no rows"),
    "float16 raw": (
        LOG,
        ([0, 1, 1], Z.astype(np.float16)),
        TypeError,
        "raw must be float32 or float64, got float16",
    ),
    "long double raw": (HALF, (Z, Z.astype(np.longdouble)), TypeError, "raw must be float32 or float64"),
    "complex raw": (HALF, (Z, Z + 1j), TypeError, "raw must be float32 or float64, got complex128"),
    "object raw": (HALF, (Z, Z.astype(object)), TypeError, "raw must be float32 or float64, got object"),
    "string target": (LOG, (["a", "b", "c"], Z), TypeError, "y_true must hold real numbers, got dtype <U1"),
    "complex target": (HALF, (Z + 1j, Z), TypeError, "y_true must hold real numbers, got dtype complex128"),
    "label 2": (LOG, ([0, 1, 2], Z), ValueError, "in [0, 1]; row 2 has 2"),
    "label -1": (LOG, ([-1, 1, 1], Z), ValueError, "in [0, 1]; row 0 has -1"),
    "probability over 1": (LOG, ([0, 1 + 1e-15, 0], Z), ValueError, "row 1 has 1.000000000000001"),
    "probability NaN": (LOG, ([0, np.nan, 0], Z), ValueError, "row 1 has nan"),
    "label matrix": (LOG, (np.full((2, 3), 3.0), Z2), ValueError, "row 0 has 3.0"),
    "value NaN": (HALF, ([0, 0, np.nan], Z), ValueError, "y_true must be finite; row 2 has nan"),
    "value infinite": (ROOT, ([0, -np.inf, 1], Z), ValueError, "y_true must be finite; row 1 has -inf"),
    "value too large": (
        HALF,
        ([0, 1e300, 0], Z.astype("f4")),
        ValueError,
        "finite in raw's dtype, float32; row 1",
    ),
    "one column": (CROSS, ([0, 0], Z2[:, :1]), ValueError, "raw must have shape (n, K), K >= 2"),
    "vector of scores": (CROSS, ([0, 1, 1], Z), ValueError, "raw must have shape (n, K), K >= 2"),
    "code K": (CROSS, ([0, 3], Z2), ValueError, "class codes in [0, 3); row 1 has 3"),
    "code -1": (CROSS, ([-1, 0], Z2), ValueError, "class codes in [0, 3); row 0 has -1"),
    "huge code": (
        CROSS,
        (np.array([0, 2**64 - 1], np.uint64), Z2),
        ValueError,
        "row 1 has 18446744073709551615",
    ),
    "float codes": (CROSS, ([0.0, 1.0], Z2), TypeError, "must hold integer class codes, got dtype float64"),
    "column of codes": (CROSS, ([[0], [1]], Z2), ValueError, "it has shape (2, 1)"),
    "codes of other length": (CROSS, ([0, 1, 1], Z2), ValueError, "class codes of shape (2,)"),
    "rows of other width": (CROSS, (np.full((2, 2), 0.5), Z2), ValueError, "it has shape (2, 2)"),
    "counts": (
        CROSS,
        ([[1, 0, 0], [2, 1, 1]], Z2),
        ValueError,
        "row 1 sums to 4.0. Normalise the rows and pass their",
    ),
    "sum misses": (CROSS, ([[0.5, 0.5, 1e-6], [1, 0, 0]], Z2), ValueError, "row 0 sums to 1.000001"),
    "negative share": (CROSS, ([[1.5, -0.5, 0], [1, 0, 0]], Z2), ValueError, "not negative; row 0 has -0.5"),
    "NaN share": (CROSS, ([[1, 0, 0], [np.nan, 1, 0]], Z2), ValueError, "row 1 has nan"),
    "infinite share": (CROSS, ([[1, 0, 0], [np.inf, 1, 0]], Z2), ValueError, "row 1 has inf"),
    "weight shape": (HALF, (Z, Z, [[1.0], [1.0], [1.0]]), ValueError, "sample_weight must have shape (3,)"),
    "scalar weight": (
        HALF,
        (Z, Z, 1.0),
        ValueError,
        "sample_weight must have shape (3,), one weight for each row",
    ),
    "weight for each output": (
        HALF,
        (Z2, Z2, np.ones((2, 3))),
        ValueError,
        "sample_weight must have shape (2,)",
    ),
    "negative weight": (LOG, ([0, 1, 1], Z, [1, 1, -1]), ValueError, "not negative; row 2 has -1"),
    "NaN weight": (CROSS, ([0, 1], Z2, [1, np.nan]), ValueError, "sample_weight must be finite"),
    "infinite weight": (ROOT, (Z, Z, [1, np.inf, 1]), ValueError, "sample_weight must be finite"),
    "no weight": (HALF, (Z, Z, np.zeros(3)), ValueError, "sample_weight is zero for all rows"),
    "negative count": (
        losses.Poisson(),
        ([0, 1, -2], Z),
        ValueError,
        "Poisson needs y_true >= 0; row 2 has -2",
    ),
    "negative rate": (
        losses.Poisson(),
        ([[0, 0.5, 1], [1, -0.25, -1]], Z2),
        ValueError,
        "Poisson needs y_true >= 0; row 1 has -0.25",
    ),
    "infinite count": (
        losses.Poisson(),
        ([0, np.inf, 2], Z),
        ValueError,
        "y_true must be finite; row 1 has inf",
    ),
    "negative claim": (
        losses.Tweedie(),
        ([1, 0, -2], Z),
        ValueError,
        "Tweedie needs y_true >= 0; row 2 has -2",
    ),
    "label between": (
        losses.SquaredHinge(),
        ([0, 1, 0.5], Z),
        ValueError,
        "y_true must hold the labels 0 and 1; row 2 has 0.5",
    ),
    "no amount": (losses.Gamma(), ([1, 0, 2], Z), ValueError, "Gamma needs y_true > 0; row 1 has 0"),
    "negative amount": (
        losses.Gamma(),
        ([1.0, 2.0, -3.0], Z),
        ValueError,
        "Gamma needs y_true > 0; row 2 has -3.0",
    ),
    "no amount in bool": (
        losses.Gamma(),
        ([True, False, True], Z),
        ValueError,
        "Gamma needs y_true > 0; row 1 has False",
    ),
    "amount too small": (
        losses.Gamma(),
        ([1.0, 1e-300, 2.0], Z.astype("f4")),
        ValueError,
        "Gamma needs y_true > 0; row 1 has 0.0 in raw's dtype, float32",
    ),
    "NaN amount": (losses.Gamma(), ([1, np.nan, 2], Z), ValueError, "y_true must be finite; row 1 has nan"),
    "robust shapes": (losses.Huber(), (Z[:, None], Z), ValueError, "y_true has (3, 1), raw has (3,)"),
    "quantile NaN": (
        losses.Quantile(),
        ([0, 0, np.nan], Z),
        ValueError,
        "y_true must be finite; row 2 has nan",
    ),
    "focal probability": (losses.Focal(), ([0, 1, 1.5], Z), ValueError, "in [0, 1]; row 2 has 1.5"),
    "focal rows": (losses.SoftmaxFocal(), (np.ones((2, 3)), Z2), ValueError, "row 0 sums to 3.0"),
    "generalized rows": (
        losses.GeneralizedCrossEntropy(),
        (np.ones((2, 3)), Z2),
        ValueError,
        "row 0 sums to 3.0",
    ),
    "string weight": (HALF, (Z, Z, ["1", "1", "1"]), TypeError, "sample_weight must hold real numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    loss, arguments, error, message = BAD[case]
    for method in (loss, loss.gradient, loss.value_and_gradient):
        with pytest.raises(error, match=re.escape(message)):
            method(*arguments)
    if len(arguments) == 2 and loss.additive:
        with pytest.raises(error, match=re.escape(message)):
            loss.per_sample(*arguments)


def test_rows_may_miss_1_by_the_rounding_of_their_dtype():
    third = np.full((2, 3), np.float32(1 / 3))
    tenths = np.float32([[0.1, 0.7, 0.2], [0.2, 0.2, 0.6]])
    for rows in (third, tenths, tenths.astype(np.float16)):
        assert np.isfinite(CROSS(rows, Z2))
        assert np.isfinite(CROSS(rows, Z2.astype(np.float32)))
    assert np.isfinite(CROSS(np.array([[0.1, 0.7, 0.2], [1 / 3, 1 / 3, 1 / 3]]), Z2.astype(np.float32)))


OUTSIDE = {
    (losses.LogLoss, "label_smoothing", "in [0, 1)"): (-0.1, 1.0, 2, np.nan, np.inf),
    (losses.CrossEntropy, "label_smoothing", "in [0, 1)"): (-0.1, 1.0, 2, np.nan, np.inf),
    (losses.Huber, "delta", "finite and greater than 0"): (0.0, -1, np.nan, np.inf, -np.inf),
    (losses.Quantile, "quantile", "in (0, 1)"): (0.0, 1.0, -0.5, 50, np.nan),
    (losses.Tweedie, "power", "in (1, 2)"): (1.0, 2.0, 0, 3.5, np.nan),
    (losses.Focal, "gamma", "finite and not negative"): (-1e-9, -2, np.nan, np.inf),
    (losses.SoftmaxFocal, "gamma", "finite and not negative"): (-1e-9, -2, np.nan, np.inf),
    (losses.GeneralizedCrossEntropy, "q", "in (0, 1]"): (0.0, -0.5, 1.01, np.nan, np.inf),
}


@pytest.mark.parametrize("case", OUTSIDE, ids=lambda case: case[0].__name__)
def test_a_parameter_outside_its_range_is_refused_at_construction(case):
    kind, name, allowed = case
    for value in OUTSIDE[case]:
        with pytest.raises(ValueError, match=re.escape(f"{name} must be {allowed}, got {value!r}")):
            kind(**{name: value})
    # Quantile alone takes a list.
    for value in ("a", "0.5", None, 1j, *([] if kind is losses.Quantile else [[0.1, 0.2]])):
        with pytest.raises(TypeError, match=re.escape(f"{name} must be a number {allowed}, got {value!r}")):
            kind(**{name: value})
    inside = 1.25 if kind is losses.Tweedie else 0.5
    good = kind(**{name: np.float32(inside)})
    assert type(getattr(good, name)) is float
    assert good == kind(**{name: inside})
    assert good.kernel_parameter == inside


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown loss 'hinge'; known losses: .*cross_entropy, .*log_loss"):
        losses.get("hinge")


def test_a_class_is_not_a_loss():
    with pytest.raises(TypeError, match=r"loss is the class LogLoss; give an object, LogLoss\(...\)"):
        losses.get(losses.LogLoss)
    with pytest.raises(TypeError, match=r"loss must be a name or a losses.Loss, got int: 3"):
        losses.get(3)
    with pytest.raises(TypeError, match=r"NoneType"):
        losses.get(None)


def test_predict_checks_its_scores():
    with pytest.raises(TypeError, match=r"raw must be float32 or float64, got float16"):
        LOG.predict(Z.astype(np.float16))
    with pytest.raises(ValueError, match=r"raw must have shape \(n, K\)"):
        CROSS.predict(Z)
    assert CROSS.predict(np.zeros((0, 3))).shape == (0, 3)
