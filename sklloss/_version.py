"""The version, and its stamp on pickled estimators."""

from typing import Any

from sklearn.exceptions import InconsistentVersionWarning

from sklloss._warnings import warn

__version__ = "0.1.0"


class VersionStamp:
    """Mixin: a pickle remembers which sklloss wrote it, and warns when another one reads it.

    scikit-learn stamps its own classes only.
    """

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_sklloss_version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        written_by = state.pop("_sklloss_version", "an unknown version")
        if written_by != __version__:
            warn(
                InconsistentVersionWarning(
                    estimator_name=type(self).__name__,
                    current_sklearn_version=f"sklloss {__version__}",
                    original_sklearn_version=f"sklloss {written_by}",
                )
            )
        super().__setstate__(state)
