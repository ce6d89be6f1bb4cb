"""Linear classifiers and networks on a device of torch's, against scikit-learn's dispatch and torch's loops.

The linear ones are timed to a gap of the optimum, the networks by the epoch, as in the groups of those names.
"""

import json
import subprocess
import sys

import kinds
import report

from groups import linear, mlp

ROWS, CPU_ROWS = 2_000_000, 200_000
NEEDS_GPU = "gpu-1e6x784-softmax10"

_PROBE = """
import json, sys, torch
device = sys.argv[1] or ("cuda" if torch.cuda.is_available() else "cpu")
torch.zeros(1, device=device)
kind = torch.device(device).type
name = torch.cuda.get_device_name(device) if kind == "cuda" else "" if kind == "cpu" else kind
print(json.dumps([device, name]))
"""


def find_device(given):
    """Torch's name of the requested device, or of the best one, and the name that people know it by."""
    probe = subprocess.run(
        [sys.executable, "-c", _PROBE, given or ""], capture_output=True, text=True, check=False
    )
    if probe.returncode:
        raise RuntimeError(f"torch has no device {given or 'cpu'}: {probe.stderr.strip().splitlines()[-1]}")
    device, name = json.loads(probe.stdout)
    if not name:
        about = report.machine()
        name = f"the CPU, {about['cpu']}, {about['cpus']} cores"
    return device, name


def run(session):
    options = session.options
    try:
        options["device"], session.device = find_device(options["device"])
    except RuntimeError as error:
        session.note(f"gpu: left out: {error}")
        return
    on_cpu = options["device"] == "cpu"
    if not options["rows"]:
        options["rows"] = 20_000 if session.quick else CPU_ROWS if on_cpu else ROWS
        if on_cpu:
            session.note(f"gpu: no GPU: the tables have {options['rows']:,} rows, where a GPU gets {ROWS:,}")
    for spec in session.specs("gpu"):
        if spec.name == NEEDS_GPU and on_cpu:
            session.note(f"left out {spec.name}: it is for a GPU")
            continue
        problem = session.problem(spec)
        if isinstance(problem, kinds.DeviceNetworkProblem):
            mlp.train(session, problem, "gpu-mlp")
        elif problem is not None:
            linear.to_gaps(session, problem, "gpu")
