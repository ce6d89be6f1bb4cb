"""The report: rows as JSON, and as Markdown tables that read as text."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path

OURS = "sklloss"
SKLEARN = ("scikit-learn", "scikit-learn-array-api")

TITLES = {
    "kernels": "Kernels: loss and gradient of one batch, one thread",
    "passes": "One pass over X",
    "linear": "Linear classifiers: time to a gap of the optimum, (F - F*) / F*",
    "regression": "Regressions: time to a gap of the optimum, (F - F*) / F*, and the targets",
    "defaults": "Linear classifiers at their defaults: time, and the gap that it bought",
    "memory": "Peak resident memory of a fit at the defaults, above what there was before it",
    "predict": "predict_proba of one row",
    "search": "GridSearchCV",
    "command": "python -m sklloss",
    "mlp": "Networks: one epoch, Adam, the same number of epochs for all",
    "gpu": "Linear classifiers on {device}: time to a gap of the optimum, (F - F*) / F*",
    "gpu-mlp": "Networks on {device}: one epoch, Adam, the same number of epochs for all",
}


def machine():
    """What the figures were measured on."""
    said = {"system": f"{platform.system()} {platform.machine()}", "python": platform.python_version()}
    said["cpus"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    said["cpu"] = platform.processor() or "unknown"
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line.partition(":")[::2] for line in info.read_text().splitlines()]
        facts = {key.strip(): value.strip() for key, value in lines}
        said["cpu"] = facts.get("model name", said["cpu"])
        flags = facts.get("flags", "").split()
        best = next((name for name in ("avx512f", "avx2", "avx") if name in flags), None)
        if best:
            said["cpu"] += f" ({best})"
    for package in ("numpy", "scipy"):
        said[package] = importlib.metadata.version(package)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "SKLLOSS_CPU"):
        if os.environ.get(name):
            said[name] = os.environ[name]
    return said


def document(session, about):
    """All that is kept of a run."""
    options = {key: value for key, value in session.options.items() if key != "data"}
    said = {**machine(), "load at start": round(session.load, 2)}
    if session.held:
        said["rivals held by"] = ", ".join(session.held)
    if session.limits is not None:
        said |= session.limits.lines()
    return {
        "machine": said,
        "build": session.build,
        "others": session.others(),
        "options": options,
        "device": session.device,
        "rivals": about,
        "notes": session.notes,
        "rows": session.rows,
    }


def write_json(document, path):
    """Write the document for programs."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(document, indent=1, default=str) + "\n")


def duration(seconds):
    """Seconds in the unit that reads well."""
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1 or unit == "µs":
            return f"{seconds * scale:.3g} {unit}"
    return None


def _spread(row):
    if "seconds" not in row:
        return f"> {duration(row['over'])}" if row.get("over") else "-"
    text = duration(row["seconds"])
    if len(row["times"]) > 1:
        text += f" ({duration(row['least'])}-{duration(row['most'])})"
    return text


def _ratio(row):
    if row is None or "ratio" not in row:
        return "-"
    middle, least, most = row["ratio"]
    text = f"{middle:.3g}x"
    return text if len(row["times"]) == 1 else f"{text} ({least:.3g}-{most:.3g})"


def table(header, rows):
    """A Markdown table with its columns aligned."""
    cells = [[str(c).replace("|", "/") for c in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def _questions(rows):
    """Rows by (problem, target), in the order measured."""
    found = {}
    for row in rows:
        found.setdefault((row["problem"], row.get("target", "")), []).append(row)
    return found


def _timed(rows):
    return [row for row in rows if "seconds" in row and "error" not in row]


def _ours(rows):
    return next((row for row in rows if row["rival"] == OURS and row.get("role") == "base"), None)


def _fastest(rows, *, sklearn):
    """The fastest rival's row: among scikit-learn's, or among the others'."""
    theirs = [r for r in _timed(rows) if r["rival"] != OURS and (r["rival"] in SKLEARN) == sklearn]
    return min(theirs, key=lambda row: row["seconds"], default=None)


def _named(row):
    return "-" if row is None else f"{duration(row['seconds'])} {row['rival']} {row['way']}".strip()


def _short(row):
    if row is None:
        return "-"
    if "error" in row:
        return f"> {duration(row['over'])}" if row.get("over") else "fails"
    return f"{duration(row['seconds'])}, {_ratio(row)}"


def _bound(row):
    """What the machine allows at least, and how much of the row's time that is."""
    if row is None or not row.get("bound") or "seconds" not in row:
        return ["-", "-"]
    return [duration(row["bound"]), f"{100 * row['bound'] / row['seconds']:.0f}%"]


def the_table(document):
    """Each problem once: ours, its limit, and the fastest of the rivals that it names."""
    lines = []
    for (problem, target), these in _questions(document["rows"]).items():
        ours = _ours(these)
        theirs = [row for row in these if row is not ours]
        best = min(_timed(theirs), key=lambda row: row["seconds"], default=None)
        over = max((row["over"] for row in theirs if row.get("over")), default=None)
        named, ratio = _named(best), _ratio(best)
        beside = [row for row in _timed(theirs) if row.get("beside") and row is not best]
        if beside:
            ratio += "; " + ", ".join(f"{_ratio(row)} {row['way']}" for row in beside)
        if best is None and over:
            named = f"> {duration(over)}"
            ratio = f"> {over / ours['seconds']:.3g}x" if ours and "seconds" in ours else "-"
        busy = max((row["others"] for row in these if row.get("others")), default=0.0)
        mine = "-" if ours is None else "fails" if "error" in ours else _spread(ours)
        lines.append([problem, target, mine, *_bound(ours), named, ratio, f"{busy:.2f}"])
    header = ["work", "at", "sklloss", "limit", "share", "fastest rival", "ratio", "others"]
    about = document["machine"]
    title = f"## Build {document['build']}, {about['cpu']}, {about['cpus']} threads"
    others = document["others"]
    if others is not None:
        title += f"; others kept {others:.2f} CPUs busy"
    return f"{title}\n\n{table(header, lines)}"


def summary(rows):
    """One line per question: ours, the best of scikit-learn, the fastest of all others, and the ratios."""
    lines = []
    for (problem, target), these in _questions(rows).items():
        ours, sk, other = _ours(these), _fastest(these, sklearn=True), _fastest(these, sklearn=False)
        default = next(
            (r for r in these if r["rival"] == "scikit-learn" and r.get("role") == "default"), None
        )
        mine = "-" if ours is None else "fails" if "error" in ours else duration(ours["seconds"])
        sk_way = "-" if sk is None else f"{duration(sk['seconds'])} {sk['way']}"
        ways = [_short(default), sk_way, _ratio(sk), _named(other), _ratio(other)]
        lines.append([problem, target, mine, *_bound(ours), *ways])
    header = ["problem", "at", "sklloss", "limit", "share", "scikit-learn's default", "its fastest", "ratio"]
    header += ["fastest other", "ratio"]
    if not any(line[5] != "-" for line in lines):
        header[6] = "scikit-learn"
        header, lines = header[:5] + header[6:], [line[:5] + line[6:] for line in lines]
    return table(header, lines)


def details(rows):
    """Every row of a group."""
    some = {key for row in rows for key in row}
    header = ["problem", "at", "who", "how", "median (min-max)", "runs", "ratio (min-max)"]
    extra = [key for key in ("gap", "loss", "score") if key in some]
    lines = []
    for row in rows:
        way = row["way"] + (f" {row['setting']}" if row.get("setting") else "")
        line = [row["problem"], row.get("target", ""), row["rival"], way, _spread(row)]
        line += [len(row.get("times", ())), _ratio(row)]
        for key in extra:
            value = row.get(key)
            if value is None:
                line.append("-")
            elif key == "gap":
                line.append(f"{value:.1e}" if value > 1e-15 else "0")
            elif key == "loss":
                line.append(f"{value[0]:.4g} ({value[1]:.4g}-{value[2]:.4g})")
            else:
                line.append(f"{value:.4f}")
        line.append("; ".join([*row.get("warned", ()), *([row["error"]] if "error" in row else ())]))
        lines.append(line)
    return table([*header, *extra, "notes"], lines)


def targets(rows):
    """Ours and each rival of a regression, with what the ratio, or our time, is to be."""
    lines, missed = [], []
    for row in rows:
        ours, wanted, met = row["rival"] == OURS, row.get("wanted"), "-"
        if wanted is not None and ("ratio" in row or (ours and "seconds" in row)):
            good = row["seconds"] <= wanted if ours else row["ratio"][0] >= wanted
            met = "yes" if good else "NO"
            if not good:
                what = _spread(row) if ours else f"{_ratio(row)} {row['rival']} {row['way']}"
                missed.append(f"{row['problem']}: {what}, wanted {_wanted(row)}")
        gap = row.get("gap")
        notes = [row["asked"]] if row.get("asked") else []
        if row.get("once") is not None:
            notes.append(f"of an earlier run, while others kept {row['once']:.1f} CPUs busy")
        if gap is not None and gap > float(row["target"]):
            notes.append("comes no nearer")
        notes += [*row.get("warned", ()), *([row["error"]] if "error" in row else ())]
        line = [row["problem"], row["rival"], f"{row['way']} {row.get('setting', '')}".strip(), _spread(row)]
        line += [_ratio(row) if not ours else "", _wanted(row), met]
        line += ["-" if gap is None else f"{gap:.1e}" if gap > 1e-15 else "0", "; ".join(notes)]
        lines.append(line)
    header = ["problem", "who", "how", "median (min-max)", "ratio (min-max)", "target", "met", "gap", "notes"]
    says = ["Targets missed:", *missed] if missed else ["Every target that was measured is met."]
    return table(header, lines) + "\n\n" + "\n- ".join(says)


def _wanted(row):
    wanted = row.get("wanted")
    return "-" if wanted is None else f"{wanted:g} s" if row["rival"] == OURS else f"{wanted:g}x"


def memory(rows):
    """Peak memory: MiB, and by what X takes."""
    lines = []
    for row in rows:
        line = [row["problem"], row["rival"], row["way"], f"{row['X'] / 2**20:.0f}"]
        if "peak" in row:
            line += [f"{row['peak'] / 2**20:.1f}", f"{100 * row['peak'] / row['X']:.1f}%"]
        else:
            line += ["-", row["error"]]
        wanted = row.get("wanted")
        line.append("-" if wanted is None else f"{100 * wanted:g}%")
        lines.append(line)
    return table(["problem", "who", "how", "X, MiB", "peak above, MiB", "of X", "target"], lines)


def losses(rows):
    """Where sklloss is slower than a rival, or fails: a line each."""
    lines = []
    for (problem, target), these in _questions(rows).items():
        ours = _ours(these)
        where = f"{problem} at {target}" if target else problem
        if ours is not None and "error" in ours:
            lines.append(f"- {where}: sklloss: {ours['error']}")
            continue
        for row in _timed(these):
            ratio = row.get("ratio", [1.0])[0]
            if row["rival"] == OURS:
                if row["group"] == "linear" and ratio < 0.9:
                    lines.append(
                        f"- {where}: our {row['way']} takes {ratio:.2f} of the default solver's time"
                    )
            elif ratio < 1:
                share = f"{row['rival']} {row['way']} takes {ratio:.2f} of our time"
                if row["target"] == "defaults" and "gap" in row:
                    share += f", gap {row['gap']:.0e} against {ours['gap']:.0e}"
                lines.append(f"- {where}: {share}")
    return lines


def markdown(document):
    """The whole report."""
    rows = document["rows"]
    in_table = document["options"]["group"] == "table"
    parts = [the_table(document)] if in_table else []
    for group, title in () if in_table else TITLES.items():
        these = [row for row in rows if row.get("group") == group]
        title = title.format(device=document["device"])
        if these and group == "memory":
            parts += [f"## {title}", memory(these)]
        elif these and group == "regression":
            parts += [f"## {title}", targets(these)]
        elif these:
            parts += [f"## {title}", summary(these), details(these)]
    slower = [line for group in TITLES for line in losses([r for r in rows if r.get("group") == group])]
    if any(row["rival"] == OURS and "seconds" in row for row in rows):
        parts.append("## Where sklloss is slower or fails")
        parts.append("\n".join(slower) if slower else "Nowhere in this run.")
    failed = [row for row in rows if not row.get("group")]
    notes = [f"- {line}" for line in document["notes"]]
    notes += [f"- {row['rival']} on {row['problem']}: {row['error']}" for row in failed]
    if notes:
        parts += ["## Notes", "\n".join(dict.fromkeys(notes))]
    parts.append("## Machine")
    facts = [f"- {key}: {value}" for key, value in document["machine"].items()]
    for rival, said in document["rivals"].items():
        facts.append(f"- {rival}: " + ", ".join(f"{key} {value}" for key, value in said.items()))
    parts.append("\n".join(facts))
    parts.append(
        "A ratio is a rival's time by ours of the same round: above 1, sklloss is faster. Given are the "
        "median over the rounds and, in brackets, the least and the largest. The limit is what the machine "
        "takes at least for the operations and bytes of ours; the share is how near we come to it."
    )
    return "\n\n".join(parts) + "\n"
