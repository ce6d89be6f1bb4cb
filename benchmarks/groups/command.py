"""``python -m sklloss``, whose own table has the times and the ratio."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(session):
    for spec in session.specs("command"):
        one(session, spec)


def one(session, spec):
    """Both rows of one data set."""
    problem = session.problem(spec)
    session.say(f"{spec.name}: python -m sklloss")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "sklloss", "--only", problem.dataset, "--json", str(file)]
        command += ["--threads", str(problem.threads)]
        paths = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
        ran = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
        )
        row = {"group": "command", "problem": spec.name, "target": ""}
        if ran.returncode:
            last = ran.stderr.strip().splitlines()[-1:]
            session.add(**row, rival="sklloss", way="", role="base", error="".join(last))
            return
        rows = json.loads(file.read_text())["results"]
    bound = session.bound(spec.name, "")
    for found in rows:
        ours = found["library"] == "sklloss"
        row |= {"rival": "sklloss" if ours else "scikit-learn", "role": "base" if ours else "default"}
        row |= {"way": found["estimator"], "times": [found["seconds"]], "seconds": found["seconds"]}
        row |= {"score": found["score"], "warned": []}
        row["ratio"] = [1.0 if ours else found["seconds"] / rows[0]["seconds"]] * 3
        if ours:
            row["bound"] = bound
        session.add(**row)
