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
    ours, theirs = rows
    ours |= {"rival": "sklloss", "role": "base", "bound": session.bound(spec.name, "")}
    theirs |= {"rival": "scikit-learn", "role": "default"}
    for found in rows:
        kept = {key: found.get(key) for key in ("rival", "role", "bound", "seconds", "score")}
        ratio = [found["seconds"] / ours["seconds"]] * 3
        session.add(**row, **kept, way=found["estimator"], times=[found["seconds"]], ratio=ratio)
    same = ours["best_params"] == theirs["best_params"] and ours["objective"] is not None
    if same and ours["objective"] > theirs["objective"]:
        session.note(
            f"{spec.name}: our objective is {ours['objective']:.8g}, theirs {theirs['objective']:.8g}"
        )
