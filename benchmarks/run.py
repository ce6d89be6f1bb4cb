"""Measure sklloss against its rivals: ``python benchmarks/run.py [table|kernels|...|all]``.

Progress goes to stderr, the tables to stdout. See README.md beside this file for what is measured and how.
"""

import argparse
import sys
from pathlib import Path

import problems
import report
import rivals
from groups import command, gpu, kernels, linear, mlp, passes, products, regression, table
from groups.session import Session

GROUPS = {"table": table, "kernels": kernels, "passes": passes, "linear": linear, "mlp": mlp}
GROUPS |= {"products": products, "command": command, "gpu": gpu, "regression": regression}
ALL = ("kernels", "passes", "linear", "mlp")  # what runs where nothing else is asked for
RESULTS = Path(__file__).resolve().parent / "results"


def parse(arguments):
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "group",
        nargs="?",
        default="all",
        choices=[*GROUPS, "all"],
        help="all: all but table, regression, products, command and gpu, the default",
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder of mnist.npz, flights.npz, ... (or SKLLOSS_DATA)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small problems and few rounds: under 90 seconds"
    )
    parser.add_argument(
        "--limit", type=float, metavar="S", help="seconds for a fit and for a solver's climb (default: 150)"
    )
    parser.add_argument(
        "--memory", action="store_true", help="linear: the peak memory of a fit, on some problems"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="linear: do not start from settings found by earlier runs"
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds of turns (default: as time allows)")
    parser.add_argument(
        "--only", metavar="A,B", help="problems with this name, or else whose name contains it"
    )
    parser.add_argument(
        "--rivals", metavar="A,B", help=f"some of {', '.join(rivals.RIVALS)}; sklloss always runs"
    )
    parser.add_argument(
        "--device", metavar="D", help="gpu: what torch calls it (default: cuda where there is one, else cpu)"
    )
    parser.add_argument("--rows", type=int, metavar="N", help="gpu: of the tables with 256 columns")
    parser.add_argument(
        "--tables", action="store_true", help="linear, table: also every other X, y of the --data folder"
    )
    parser.add_argument("--builds", action="store_true", help="kernels: every instruction set that runs here")
    parser.add_argument("--list", action="store_true", help="name the problems and stop")
    parser.add_argument("--out", metavar="FILE.json", help="where the rows go (default: results/latest.json)")
    parser.add_argument("--markdown", metavar="FILE.md", help="write the tables there too")
    options = parser.parse_args(arguments)
    options.only = _listed(options.only)
    options.rivals = _listed(options.rivals)
    unknown = [name for name in options.rivals if name not in rivals.RIVALS]
    if unknown:
        parser.error(f"no rival is called {', '.join(unknown)}; there are {', '.join(rivals.RIVALS)}")
    if options.repeat is not None and options.repeat < 1:
        parser.error(f"--repeat must be at least 1, got {options.repeat}")
    if options.rows is not None and options.rows < 1000:
        parser.error(f"--rows must be at least 1000, got {options.rows}")
    if options.limit is not None and not options.limit > 0:
        parser.error(f"--limit must be positive, got {options.limit:g}")
    try:
        options.data = problems.data_folder(options.data)
    except ValueError as error:
        parser.error(str(error))
    if options.tables:
        problems.add_tables(options.data)
    names = list(problems.PROBLEMS)
    for pattern in options.only:
        if not any(pattern in name for name in names):
            parser.error(f"--only: no problem's name contains {pattern!r}; there are {', '.join(names)}")
    return options


def _listed(text):
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def main(arguments=None):
    """Run what was asked for; 130 if interrupted."""
    options = parse(arguments)
    if options.list:
        for spec in problems.PROBLEMS.values():
            size = "" if spec.quick and spec.full else "quick only" if spec.quick else "full only"
            needs = f"needs {spec.needs}.npz" if spec.needs else ""
            print(f"{spec.group:10} {spec.name:32} {size:11} {needs}".rstrip())
        return 0
    keep = (
        "group",
        "data",
        "quick",
        "limit",
        "repeat",
        "only",
        "rivals",
        "builds",
        "memory",
        "fresh",
        "tables",
    )
    keep += ("device", "rows")
    session = Session({key: getattr(options, key) for key in keep}, RESULTS)
    status, about = 0, {}
    try:
        for name in ALL if options.group == "all" else (options.group,):
            GROUPS[name].run(session)
        about = session.about()
    except KeyboardInterrupt:
        session.note("interrupted: what follows was measured before")
        status = 130
    finally:
        session.close()
    document = report.document(session, about)
    report.write_json(document, options.out or RESULTS / "latest.json")
    text = report.markdown(document)
    if options.markdown:
        Path(options.markdown).write_text(text)
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
