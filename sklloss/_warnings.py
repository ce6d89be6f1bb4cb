"""Warnings that name the user's line, however deep in the package they arise."""

import os
import sys
import warnings

import sklearn

# scikit-learn's frames are skipped too: where it has callbacks, it wraps `fit`.
_SKIPPED = (os.path.dirname(__file__) + os.sep, os.path.dirname(sklearn.__file__) + os.sep)


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Issue a warning that is attributed to the innermost caller outside sklloss and scikit-learn.

    Parameters
    ----------
    message : str or Warning
    category : type, default=UserWarning
        Ignored where ``message`` is a Warning.
    """
    if sys.version_info >= (3, 12):
        warnings.warn(message, category, skip_file_prefixes=_SKIPPED)
    else:
        frame, stacklevel = sys._getframe(1), 2
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_SKIPPED):
            frame, stacklevel = frame.f_back, stacklevel + 1
        warnings.warn(message, category, stacklevel=stacklevel)
