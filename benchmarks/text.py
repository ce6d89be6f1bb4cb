"""A sparse problem that every Python holds: the source text of its standard library, by package."""

import collections
import os
import sys
import sysconfig
from pathlib import Path

import numpy as np
import scipy.sparse

LINES = 5  # of a file make one row
SHORTEST = 20  # characters that a row has more than, or it is left out
CLASSES = 20  # the packages with most rows
FOLDER = Path(__file__).resolve().parent / "results"


def stdlib():
    """TF-IDF of the library's lines in groups of five, CSR float64, and the package of each as a code.

    Made once for each version of Python and scikit-learn, then read from the folder of results.
    """
    import sklearn

    python = ".".join(map(str, sys.version_info[:3]))
    file = FOLDER / f"stdlib-text-{python}-{sklearn.__version__}.npz"
    if not file.is_file():
        X, y = _make()
        FOLDER.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{os.getpid()}.npz")
        np.savez(draft, data=X.data, indices=X.indices, indptr=X.indptr, shape=X.shape, y=y)
        draft.replace(file)
    with np.load(file) as a:
        X = scipy.sparse.csr_matrix((a["data"], a["indices"], a["indptr"]), shape=tuple(a["shape"]))
        return X, a["y"].astype(np.intp)


def _make():
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows, packages = [], []
    library = Path(sysconfig.get_path("stdlib"))
    for file in sorted(library.rglob("*.py")):
        parts = file.relative_to(library).parts
        # a module of its own is no package; "test" alone is larger than all others together
        if len(parts) == 1 or parts[0] == "test" or "site-packages" in parts or "dist-packages" in parts:
            continue
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        groups = ["\n".join(lines[i : i + LINES]) for i in range(0, len(lines), LINES)]
        rows += groups
        packages += [parts[0]] * len(groups)
    largest = sorted(name for name, _ in collections.Counter(packages).most_common(CLASSES))
    code = {name: i for i, name in enumerate(largest)}
    kept = [i for i, row in enumerate(rows) if packages[i] in code and len(row.strip()) > SHORTEST]
    X = TfidfVectorizer().fit_transform([rows[i] for i in kept]).tocsr()
    return X, np.array([code[packages[i]] for i in kept])
