"""What `MLPClassifier` adds to `BaseMLP`: class targets, the losses for them, and accuracy."""

import dataclasses

import numpy as np
from sklearn.base import ClassifierMixin

from sklloss import losses
from sklloss._class_predictions import ClassPredictions
from sklloss.arrays.transfer import to_device
from sklloss.data.checks import Array, check_choice, check_real, check_weight
from sklloss.data.dataset import check_data, check_stream_data, check_validation_data
from sklloss.data.targets import (
    check_column_order,
    code_classes,
    is_label_column,
    scored_classes,
    stream_classes,
)
from sklloss.losses import CrossEntropy, Focal, LogLoss
from sklloss.mlp.base import BaseMLP, output_activation
from sklloss.objectives.classification import bind_loss, check_classification_loss, has_custom_link

OUTPUTS = ("auto", "softmax", "sigmoid")


class BaseMLPClassifier(ClassPredictions, ClassifierMixin, BaseMLP):
    """The targets of `MLPClassifier`."""

    classes_: Array

    def _fit_data(self, X, y, sample_weight, X_val, y_val, sample_weight_val, first):
        """What `fit` trains on, with the class attributes set: arguments of `_train`."""
        known = {}
        if not first and not is_label_column(y):
            known = {"kind": self._kind, "classes": self._labels()}
        data = check_data(self, X, y, sample_weight, self._coder(self.class_weight, **known), reset=first)
        if not first:
            self._check_same_classes(data.labels)
        code = self._coder(None, kind=data.labels.kind, classes=data.labels.classes)
        held_out = check_validation_data(self, X_val, y_val, sample_weight_val, code, data)
        unweighted = None
        if held_out is not None:
            if held_out.labels.kind != data.labels.kind:
                raise ValueError(f"y_val is {held_out.labels.kind}, but y is {data.labels.kind}")
        elif self.early_stopping and self.class_weight is not None:
            weight = check_weight(sample_weight, data.n, data.dtype)
            unweighted = code(dataclasses.replace(data, weight=weight), y, name="y")
        self._set_classes(data.labels, data.origin.device)
        return {"data": data, "held_out": held_out, "unweighted": unweighted}

    def _stream_data(self, X, y, sample_weight, classes, first):
        """The training data of `partial_fit`, as `_fit_data` returns those of `fit`."""
        known = stream_classes(classes, None if first else self._labels(), self.class_weight)
        if known is None and is_label_column(y):
            raise ValueError("classes must be passed on the first call to partial_fit.")
        code = self._coder(self.class_weight, kind=None if first else self._kind, classes=known)
        learned = None if first else self._model_array()
        data = check_stream_data(self, X, y, sample_weight, code, learned)
        kind = data.labels.kind
        if not first and kind != self._kind:
            raise ValueError(f"y is {kind}, but the network was trained on {self._kind} targets")
        if classes is not None:
            check_column_order(classes, y, kind)
        self._set_classes(data.labels, data.origin.device)
        return {"data": data}

    def _check_parameters(self):
        check_choice("output", self.output, OUTPUTS)
        check_real("label_smoothing", self.label_smoothing, 0, 1, open_high=True)
        if not isinstance(self.loss, str) or self.loss != "auto":
            losses.get(self.loss)
        return super()._check_parameters()

    def _coder(self, class_weight, *, kind=None, classes=None):
        """A function that codes targets; ``kind`` and ``classes`` are those they must have, if known."""
        scored = self._early_stopping().scorer is not None

        def code(data, y, name):
            data = code_classes(
                data, y, self.output, class_weight=class_weight, kind=kind, classes=classes, name=name
            )
            y = scored_classes(y, data.n, data.labels) if scored else _likeliest(data)
            return dataclasses.replace(data, y=y)

        return code

    def _check_same_classes(self, labels):
        """Refuse to go on with other classes than before, in scikit-learn's words."""
        if labels.kind == self._kind and (
            labels.kind == "multilabel" or np.array_equal(labels.classes, self._labels())
        ):
            return
        raise ValueError(
            "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
            f"Previously got {self._labels()} ({self._kind}), `y` has {labels.classes} ({labels.kind})"
        )

    def _loss(self, kind):
        """The loss that the outputs of a target of this kind are trained on."""
        softmax = kind in ("binary", "softmax") and self.output != "sigmoid"
        if isinstance(self.loss, str) and self.loss == "auto":
            loss = CrossEntropy() if softmax else LogLoss()
        else:
            loss = losses.get(self.loss)
        if kind == "softmax" and isinstance(loss, LogLoss):
            raise ValueError(
                f"loss={self.loss!r} is for independent sigmoids, but y has {kind} classes of which each row "
                "has one; use loss='auto' or loss='cross_entropy', or output='sigmoid'"
            )
        return check_classification_loss(
            loss, self.label_smoothing, softmax=softmax, one_softmax="output='softmax'"
        ), softmax

    def _bind(self, data, name="y"):
        """The loss to train on, and the data with targets in the form that it takes."""
        loss, softmax = self._loss(data.labels.kind)
        loss, data = bind_loss(loss, data, self.label_smoothing, softmax=softmax, name=name)
        if data.codes is not None and loss.target != "classes":
            values = data.codes[:, None] == np.arange(data.outputs)
            data = dataclasses.replace(data, values=values.astype(data.dtype), codes=None)
        return loss, data

    def _strata(self, data):
        """What a split for validation keeps the shares of: two classes, if y holds labels."""
        hard = data.labels.kind == "binary" and bool(np.isin(data.values, (0, 1)).all())
        return _likeliest(data) if hard else None

    def _set_classes(self, labels, device):
        loss, softmax = self._loss(labels.kind)
        self.classes_ = to_device(labels.classes, device)
        self._kind = labels.kind
        plain = labels.kind == "binary" and isinstance(loss, (LogLoss, Focal))
        self._link = self.loss if has_custom_link(loss, softmax=softmax) and not plain else None

    def _measure(self):
        return (self.loss, self.label_smoothing)

    def _measures_alike(self):
        return self._trained_on == self._measure()

    def _of_scores(self, function, X):
        if self._kind == "binary":
            return self._of_outputs(lambda raw: function(raw[:, 0]), X)
        return self._of_outputs(function, X)

    def _on_host(self, objective):
        return {**super()._on_host(objective), "classes_": self._labels()}

    def _learned(self, parameters, **model):
        own = {"classes_": self.classes_, "_kind": self._kind, "_link": self._link}
        return {**super()._learned(parameters, **model), **own}

    def _output_activation(self, loss):
        if self._link is not None or not loss.has_probabilities:
            return output_activation(loss)
        return "softmax" if self._kind == "softmax" else "logistic"

    def _validation_score(self, held_out, loss, raw):
        """Accuracy on the held-out rows."""
        if not np.isfinite(raw).all():
            return float("nan")
        right = self._choose(raw[:, 0] if self._kind == "binary" else raw) == held_out.y
        if right.ndim == 2:
            right = right.all(axis=1)
        return float(np.average(right, weights=held_out.weight))


def _likeliest(data):
    """The likeliest class of each row as a code, or its likely labels as 0 and 1."""
    if data.labels.kind in ("binary", "multilabel"):
        likely = (data.values > 0.5).astype(int)
        return likely[:, 0] if data.labels.kind == "binary" else likely
    return data.values.argmax(axis=1) if data.codes is None else data.codes
