"""MLPClassifier.partial_fit: targets, classes and their order."""

import numpy as np
import pytest
from helpers import assert_same_probabilities, class_data, small_classifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


X, Y, P, W = class_data()
LABELS = (P > 0.3).astype(int)


@pytest.mark.parametrize(
    ("y", "output", "classes"),
    [(Y, "auto", [0, 1, 2]), (LABELS, "auto", None), (P, "softmax", None), (P, "sigmoid", None)],
)
def test_passes_of_partial_fit_are_the_epochs_of_fit(y, output, classes):
    fitted = small_classifier(output=output, shuffle=False, batch_size=30).fit(X, y, W)
    stream = small_classifier(output=output, shuffle=False, batch_size=30)
    for _ in range(8):
        stream.partial_fit(X, y, W, classes=classes)
    assert_same_probabilities(stream, fitted, X, 1e-12)
    np.testing.assert_allclose(stream.loss_curve_, fitted.loss_curve_, rtol=1e-12)


def test_a_stream_may_see_few_classes_at_a_time():
    model = small_classifier().partial_fit(X[Y == 2], Y[Y == 2], classes=[0, 1, 2])
    model.partial_fit(X[Y == 0], Y[Y == 0]).partial_fit(X[:1], Y[:1])
    assert model.predict_proba(X).shape == (150, 3)


@pytest.mark.parametrize(("y", "output"), [(LABELS, "auto"), (P, "softmax"), (P, "sigmoid")])
def test_columns_without_names_are_the_sorted_classes_of_a_stream(y, output):
    model = small_classifier(output=output).partial_fit(X, y, classes=["a", "b", "c"]).partial_fit(X, y)
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert_same_probabilities(model, small_classifier(output=output).partial_fit(X, y).partial_fit(X, y), X)
    expected = model.predict_proba(X)
    for classes in (["c", "a", "b"], ["a", "b", "c", "a"]):
        for stream in (model, small_classifier(output=output)):
            with pytest.raises(
                ValueError, match=r"classes=\[.*\] must be sorted and distinct where y is a matrix"
            ):
                stream.partial_fit(X, y, classes=classes)
    np.testing.assert_array_equal(model.predict_proba(X), expected)


def test_a_column_of_a_stream_keeps_its_name():
    # labels that X tells apart, under names that are not in their order
    y = np.eye(3)[np.arange(150) % 3]
    rows = 3 * y + 0.1 * X[:, :3]
    model = small_classifier(output="softmax", learning_rate_init=0.1)
    with pytest.raises(ValueError, match="sort them, and the columns of y with them"):
        model.partial_fit(rows, y, classes=["c", "a", "b"])
    for _ in range(30):
        model.partial_fit(rows, y[:, [1, 2, 0]], classes=["a", "b", "c"])
    assert model.predict(rows[:3]).tolist() == ["c", "a", "b"]


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize(("y", "output"), [(LABELS, "auto"), (P, "softmax"), (P, "sigmoid")])
def test_columns_with_names_are_found_among_the_classes_of_a_stream(y, output, library):
    frames = pytest.importorskip(library)
    named = frames.DataFrame(dict(zip(["c", "a", "b"], y.T)))
    model = small_classifier(output=output)
    for _ in range(5):
        model.partial_fit(X, named, classes=["b", "c", "a"])
    assert model.classes_.tolist() == ["a", "b", "c"]
    expected = small_classifier(output=output)
    for _ in range(5):
        expected.partial_fit(X, y[:, [1, 2, 0]])
    assert_same_probabilities(model, expected, X)
    assert model.score(X, named) == expected.score(X, y[:, [1, 2, 0]])
    with pytest.raises(ValueError, match=r"the columns of y are .*, but the classes are"):
        model.partial_fit(X, frames.DataFrame(dict(zip(["c", "a", "d"], y.T))))


@pytest.mark.parametrize("output", ["auto", "sigmoid"])
def test_probabilities_of_two_classes_are_not_of_three(output):
    with pytest.raises(
        ValueError, match="y holds probabilities of the second of two classes, but there are 3"
    ):
        small_classifier(output=output).partial_fit(X, P[:, 0], classes=[0, 1, 2])
    assert small_classifier(output=output).partial_fit(X, P[:, 0], classes=["a", "b"]).classes_.tolist() == [
        "a",
        "b",
    ]


def test_partial_fit_refuses_what_does_not_go_on():
    model = small_classifier().partial_fit(X, Y, classes=[0, 1, 2])
    expected = model.predict_proba(X)
    for rows, message in [
        ((X[:, :4], Y), "4 features"),
        ((X, Y + 1), r"y contains labels that are not among the classes: \[3\]"),
        ((X, np.eye(4)[Y]), "y has 4 columns, but there are 3 classes"),
        ((X, P[:, 0]), "Unknown label type: continuous"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.partial_fit(*rows)
    with pytest.raises(ValueError, match="is not the same as on last call"):
        model.partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match="hidden_layer_sizes=3 does not fit"):
        model.set_params(hidden_layer_sizes=3).partial_fit(X, Y)
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    with pytest.raises(ValueError, match="classes must hold at least 2 labels"):
        small_classifier().partial_fit(X, Y * 0, classes=[0])
    labels = small_classifier().partial_fit(X, LABELS)
    with pytest.raises(ValueError, match=r"y must have shape \(n, 3\) as in training"):
        labels.partial_fit(X, Y)
