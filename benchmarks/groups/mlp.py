"""Networks: seconds for an epoch, and the training loss after the same epochs over several seeds."""

import kinds
import measure
import reference

from groups import kernels, linear_other
from groups.session import OURS, finish


def run(session):
    for spec in session.specs("mlp"):
        one(session, spec)


def one(session, spec):
    """The rows of one problem."""
    problem = session.problem(spec)
    if isinstance(problem, kinds.NetworkSearchProblem):
        linear_other.search(session, spec.name)
    elif isinstance(problem, kinds.EnsembleProblem):
        kernels.one(session, spec, number=1)
    elif problem is not None:
        train(session, problem)


def train(session, problem, group="mlp"):
    """Time epochs, one problem's rows of the table that ``group`` names."""
    name = problem.name
    epochs = problem.quick_epochs if session.quick else problem.epochs
    rounds = session.options["repeat"] or (3 if session.quick else 5)
    entrants = session.entrants(name)
    session.say(f"{name}: {epochs} epochs, {', '.join(f'{rival} {way}' for rival, way in entrants)}")

    def turn(rival, way, epochs):
        def take(seed):
            answer = session.time(
                rival, name, way, {"epochs": epochs, "seed": seed}, limit=60.0 if session.quick else 300.0
            )
            answer["loss"] = reference.network_loss(problem, answer.pop("coefs"), answer.pop("intercepts"))
            answer["seconds"] /= epochs
            return answer

        return take

    measure.alternate({key: turn(*key, 1) for key in entrants}, 1, {})
    turns = {key: turn(*key, epochs) for key in entrants}
    results = measure.alternate(turns, rounds, {}, lambda line: session.say(f"{name}: {line}"))
    ours = next((key for key in entrants if key[0] == OURS), None)
    base = [a["seconds"] for a in results.get(ours, []) if isinstance(a, dict)]
    for (rival, way), answers in results.items():
        row = {"group": group, "problem": name, "target": f"{epochs} epochs", "rival": rival, "way": way}
        row["role"] = "base" if (rival, way) == ours else "best"
        if row["role"] == "base" and group == "mlp":
            row["bound"] = session.bound(name, way, {"epochs": 1, "seed": 0})
        losses = [a["loss"] for a in answers if isinstance(a, dict)]
        for answer in answers:
            if isinstance(answer, dict):  # all stop after a fixed number of epochs: that warning says nothing
                answer["warned"] = [kind for kind in answer["warned"] if kind != "ConvergenceWarning"]
        if losses:
            row["loss"] = list(measure.spread(losses))
        session.add(**finish(row, answers, base))
