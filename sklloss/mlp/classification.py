"""What is the classifier's own in a network: targets, losses that fit them, accuracy. No numerics."""

import numpy as np
from sklearn.base import ClassifierMixin

from sklloss import losses
from sklloss._class_predictions import ClassPredictions
from sklloss.arrays.device import to_device
from sklloss.data import (
    check_choice,
    check_column_order,
    check_real,
    check_same_device,
    check_same_device_as,
    check_validation_arguments,
    check_weight,
    check_X,
    dtype_of,
    is_label_column,
    move_to_device,
    network_target,
    plain_target,
    stream_classes,
)
from sklloss.losses import CrossEntropy, Focal, LogLoss
from sklloss.mlp.base import BaseMLP, output_activation
from sklloss.mlp.examples import Examples
from sklloss.objectives.classification import bind_target, check_classification_loss, has_own_link

OUTPUTS = ("auto", "softmax", "sigmoid")


class BaseMLPClassifier(ClassPredictions, ClassifierMixin, BaseMLP):
    """The targets of `MLPClassifier`."""

    def _fit_examples(self, X, y, sample_weight, X_val, y_val, sample_weight_val, first):
        """What `fit` trains on, with the class attributes set: arguments of `_train`."""
        X, origin = move_to_device(check_X(self, X, reset=first), self)
        weight = check_weight(sample_weight, X.shape[0], dtype_of(X))
        if first or is_label_column(y):
            target = self._target(y, X, weight, self.class_weight)
        else:
            target = self._target(y, X, weight, self.class_weight, kind=self._kind, classes=self._labels())
        if not first:
            self._check_same_classes(target)
        examples = self._examples(X, origin, target, y)
        held_out = unweighted = None
        like = {"kind": target.kind, "classes": target.classes}
        if check_validation_arguments(X_val, y_val, sample_weight_val):
            X_val = check_X(self, X_val, reset=False, name="X_val")
            check_same_device_as(X_val, origin.device)
            X_val, _ = move_to_device(X_val, self, "X_val")
            dtype = dtype_of(X_val)
            weight_val = check_weight(sample_weight_val, X_val.shape[0], dtype, "sample_weight_val")
            target_val = self._target(y_val, X_val, weight_val, None, **like, name="y_val")
            if target_val.kind != target.kind:
                raise ValueError(f"y_val is {target_val.kind}, but y is {target.kind}")
            held_out = self._examples(X_val, origin, target_val, y_val, "y_val")
        elif self.early_stopping and self.class_weight is not None:
            unweighted = self._examples(X, origin, self._target(y, X, weight, None, **like), y)
        self._set_classes(target, origin.device)
        return {"examples": examples, "held_out": held_out, "unweighted": unweighted}

    def _stream_examples(self, X, y, sample_weight, classes, first):
        """The same for `partial_fit`."""
        known = stream_classes(classes, None if first else self._labels(), self.class_weight)
        if known is None and is_label_column(y):
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if not first:
            check_same_device(self, X, self._model_array(), "partial_fit")
        X, origin = move_to_device(check_X(self, X, reset=first), self)
        weight = check_weight(sample_weight, X.shape[0], dtype_of(X))
        kind = None if first else self._kind
        target = self._target(y, X, weight, self.class_weight, kind=kind, classes=known)
        if not first and target.kind != self._kind:
            raise ValueError(f"y is {target.kind}, but the network was trained on {self._kind} targets")
        if classes is not None:
            check_column_order(classes, y, target.kind)
        examples = self._examples(X, origin, target, y)
        self._set_classes(target, origin.device)
        return {"examples": examples}

    def _check_parameters(self):
        check_choice("output", self.output, OUTPUTS)
        check_real("label_smoothing", self.label_smoothing, 0, 1, open_high=True)
        if not isinstance(self.loss, str) or self.loss != "auto":
            losses.get(self.loss)
        return super()._check_parameters()

    def _target(self, y, X, weight, class_weight, *, kind=None, classes=None, name="y"):
        return network_target(
            y, X.shape[0], weight, class_weight, dtype_of(X),
            output=self.output, kind=kind, classes=classes, name=name,
        )  # fmt: skip

    def _check_same_classes(self, target):
        """Refuse to go on with other classes than before, in scikit-learn's words."""
        if target.kind == self._kind and (
            target.kind == "multilabel" or np.array_equal(target.classes, self._labels())
        ):
            return
        raise ValueError(
            "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
            f"Previously got {self._labels()} ({self._kind}), `y` has {target.classes} ({target.kind})"
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

    def _examples(self, X, origin, target, y, name="y"):
        """Checked rows with the target in the form that the loss takes."""
        loss, softmax = self._loss(target.kind)
        truth, values = target.codes, target.values
        if target.kind in ("binary", "multilabel"):
            truth = (values > 0.5).astype(int)
            truth = truth if target.kind == "multilabel" else truth[:, 0]
        elif truth is None:
            truth = values.argmax(axis=1)
        strata = None
        if target.kind == "binary" and bool(np.isin(values, (0, 1)).all()):
            strata = truth
        scored = None
        if self._early_stopping()[1] is not None:
            scored = plain_target(y, X.shape[0], target)
        loss, target = bind_target(
            loss, target, self.label_smoothing, softmax=softmax, dtype=dtype_of(X), name=name
        )
        values, codes = target.values, target.codes
        if codes is not None and loss.target != "classes":
            values = codes[:, None] == np.arange(target.outputs)
            codes = None
        if values is not None:
            values = np.ascontiguousarray(values, dtype=dtype_of(X))
        return Examples(X, loss, values, codes, target.weight, truth, strata, scored, origin)

    def _set_classes(self, target, device):
        loss, softmax = self._loss(target.kind)
        self.classes_ = to_device(target.classes, device)
        self._kind = target.kind
        plain = target.kind == "binary" and isinstance(loss, (LogLoss, Focal))
        self._link = self.loss if has_own_link(loss, softmax=softmax) and not plain else None

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
        if self._link is not None:
            return output_activation(loss)
        return "softmax" if self._kind == "softmax" else "logistic"

    def _validation_score(self, held_out, raw):
        """Accuracy on the held-out rows."""
        if not np.isfinite(raw).all():
            return float("nan")
        right = self._choose(raw[:, 0] if self._kind == "binary" else raw) == held_out.truth
        if right.ndim == 2:
            right = right.all(axis=1)
        return float(np.average(right, weights=held_out.weight))
