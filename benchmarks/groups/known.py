"""Settings found by earlier runs, which later runs try first."""

import importlib.metadata
import json

import rivals

# A row of the table leaves out ways that took this many times as long as the fastest, in earlier runs.
NEAR = 1.5


class Known:
    """For each problem and way: the setting that reached each gap, and the last one that did not.

    Those of sklloss are not kept, because sklloss is what changes.
    """

    def __init__(self, folder, fresh):
        self.file = folder / "settings.json"
        self.before = json.loads(self.file.read_text()) if self.file.is_file() else {}
        self.all = {} if fresh else dict(self.before)

    @staticmethod
    def _key(problem_key, rival, way):
        versions = [importlib.metadata.version(package) for package in rivals.get(rival).packages]
        return f"{problem_key} / {rival} {' '.join(versions)} / {way}"

    def order(self, problem_key, rival, way, ladder, gaps):
        """The settings to try, in order, each with the seconds that it took before, or None."""
        found = self.all.get(self._key(problem_key, rival, way), {})
        if found.get("nearest", {"setting": None})["setting"] in ladder:
            return [(found["nearest"]["setting"], found["nearest"]["seconds"])]
        first = [found[f"{gap:.0e}"] for gap in sorted(gaps, reverse=True) if f"{gap:.0e}" in found]
        if len(first) < len(gaps) and "failed" in found:
            first.append(found["failed"])
        first = [rung for i, rung in enumerate(first) if rung not in first[:i] and rung["setting"] in ladder]
        start = ladder.index(first[-1]["setting"]) + 1 if first else 0
        return [(r["setting"], r["seconds"]) for r in first] + [(setting, None) for setting in ladder[start:]]

    def fastest(self, problem_key, entrants, gap, beside=()):
        """The entrants without those that failed, or took NEAR times as long as the fastest rival, before.

        Those whose solver is one of ``beside`` stay in any case.
        """
        seconds = {}  # of a rival; 0: not tried yet
        for rival, way in entrants:
            if rival != rivals.OURS:
                found = self.all.get(self._key(problem_key, rival, way), {})
                if f"{gap:.0e}" in found or "failed" not in found:
                    seconds[rival, way] = found.get(f"{gap:.0e}", {"seconds": 0.0})["seconds"]
        if not seconds:  # all failed: the first shows after how long
            ours = [key for key in entrants if key[0] == rivals.OURS]
            return ours + [key for key in entrants if key[0] != rivals.OURS][:1]
        most = NEAR * min((s for s in seconds.values() if s > 0), default=0.0)
        chosen = [key for key, tried in seconds.items() if tried <= most or key[1] in beside]
        return [key for key in entrants if key in chosen or key[0] == rivals.OURS]

    def keep(self, problem_key, rival, way, reached, failed):
        """Keep the setting for each gap, and the last setting that reached none."""
        if rival == rivals.OURS:
            return
        found = {f"{gap:.0e}": {k: rung[k] for k in ("setting", "seconds")} for gap, rung in reached.items()}
        if failed is not None:
            found["failed"] = {"setting": failed, "seconds": None}
        if found:
            self._save(problem_key, rival, way, found)

    def keep_nearest(self, problem_key, rival, way, rung):
        """Keep the one setting that is worth a fit, of a way that reaches no gap."""
        self._save(problem_key, rival, way, {"nearest": {k: rung[k] for k in ("setting", "seconds")}})

    def once(self, problem_key, rival, way, build):
        """What is kept of a fit that is too long to be repeated, by the build that rivals are held to."""
        return self.all.get(self._key(problem_key, rival, way), {}).get(f"once {build}")

    def keep_once(self, problem_key, rival, way, build, entry):
        """Keep a fit that is too long to be repeated."""
        self._save(problem_key, rival, way, {f"once {build}": entry})

    def _save(self, problem_key, rival, way, found):
        key = self._key(problem_key, rival, way)
        once = {k: v for k, v in self.all.get(key, {}).items() if k.startswith("once ")}
        self.all[key] = once | found
        self.file.parent.mkdir(parents=True, exist_ok=True)
        draft = self.file.with_suffix(".tmp")
        draft.write_text(json.dumps(self.before | self.all, indent=1))
        draft.replace(self.file)
