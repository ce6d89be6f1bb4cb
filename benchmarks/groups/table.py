"""The table: every row of it, from the groups of their problems, against the rivals that a row names."""

from groups import command, kernels, linear, mlp, passes

GROUPS = {"kernels": kernels, "passes": passes, "command": command, "linear": linear, "mlp": mlp}


def run(session):
    for spec in session.specs("table"):
        session.against, session.beside = spec.against, spec.beside
        GROUPS[spec.group].one(session, spec)
