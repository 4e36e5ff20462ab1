"""The file of a run: one JSON document with every figure, written again after each, so that a stopped run is resumed.

Knows: the document, where runs are kept, which one is resumed. Does not know: how a figure is measured or shown.

A document: `began`, `ended` (None while groups are missing), `commit`, `modified`, `machine`, `versions`, `settings`,
and `groups`: by name, `complete`, `visits` (one for each time that the group was worked on: machine.py) and `figures`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.groups import BY_NAME
from benchmarks.measure import Figure, Sample, Settings

FORMAT = 1
RESULTS = machine.ROOT / "benchmarks" / "results"
DIGITS = 5  # significant digits of a value


class RunFile:
    """A run and its file."""

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path = path
        self.document = document

    @classmethod
    def begin(cls, path: Path, settings: Settings, scratch: Path) -> RunFile:
        """Return a run without figures. `scratch` is a folder on the disk that is measured."""
        commit, modified = machine.commit()
        document = {
            "format": FORMAT,
            "began": _now(),
            "ended": None,
            "commit": commit,
            "modified": modified,
            "machine": machine.machine(scratch),
            "versions": machine.versions(),
            "settings": _plain_settings(settings),
            "groups": {},
        }
        return cls(path, document)

    @classmethod
    def load(cls, path: Path) -> RunFile:
        """Read a run. Raises ValueError if the file is none of this format."""
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"{path.name} is not a run of these benchmarks. Make one with `make bench`.")
        return cls(path, document)

    def save(self) -> None:
        """Write the file; a reader sees the old document or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        other = self.path.with_suffix(".part")
        other.write_text(json.dumps(self.document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        other.replace(self.path)

    def is_resumable(self, settings: Settings) -> bool:
        """Return whether this run is unfinished, and of the code, the versions and the sizes of today."""
        today = (*machine.commit(), machine.versions(), _plain_settings(settings))
        of_run = tuple(self.document[key] for key in ("commit", "modified", "versions", "settings"))
        return self.document["ended"] is None and today == of_run

    def is_complete(self, group: str) -> bool:
        """Return whether all figures of a group are in the file."""
        return bool(self.document["groups"].get(group, {}).get("complete"))

    def add(self, group: str, figure: Figure) -> None:
        """Keep a figure, in the place of an earlier one of the same key, and write the file."""
        figures: list[dict[str, Any]] = self._group(group)["figures"]
        new = plain(figure)
        for index, old in enumerate(figures):
            if old["key"] == figure.key:
                figures[index] = new
                break
        else:
            figures.append(new)
        self.save()

    def visited(self, group: str, visit: dict[str, Any], *, complete: bool) -> None:
        """Note what a visit of a group took and whether it is complete, and write the file."""
        entry = self._group(group)
        entry["visits"].append(visit)
        entry["complete"] = complete
        if all(self.is_complete(name) for name in BY_NAME):
            self.document["ended"] = _now()
        self.save()

    def _group(self, name: str) -> dict[str, Any]:
        groups: dict[str, Any] = self.document["groups"]
        if name not in groups:
            groups[name] = {"complete": False, "visits": [], "figures": []}
            order = [*BY_NAME, *groups]
            self.document["groups"] = {known: groups[known] for known in dict.fromkeys(order) if known in groups}
        return self.document["groups"][name]

    def figures(self, group: str | None = None) -> list[Figure]:
        """Return the figures of a group, or all of them in the order of the groups."""
        groups: dict[str, Any] = self.document["groups"]
        names: Iterable[str] = groups if group is None else (group,)
        return [figure_of(each) for name in names for each in groups.get(name, {}).get("figures", ())]

    def visits(self) -> list[dict[str, Any]]:
        """Return the visits of all groups that need no server: a server is counted among the other processes."""
        groups = self.document["groups"].items()
        alone = [entry for name, entry in groups if not (name in BY_NAME and BY_NAME[name].server)]
        return [visit for entry in alone for visit in entry["visits"]]


def to_resume(settings: Settings, facts: dict[str, Any], folder: Path = RESULTS) -> RunFile | None:
    """Return the newest run of this machine that can be resumed."""
    for path in sorted(folder.glob(f"*-{machine.short_name(facts)}*.json"), key=os.path.getmtime, reverse=True):
        try:
            found = RunFile.load(path)
        except ValueError:
            continue
        if found.is_resumable(settings):
            return found
    return None


def new_path(facts: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Return a path for a run of today that no file has."""
    stem = f"{datetime.now(UTC):%Y-%m-%d}-{machine.short_name(facts)}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    return next(path for name in names if not (path := folder / f"{name}.json").exists())


def plain(figure: Figure) -> dict[str, Any]:
    """Return a figure as JSON's values."""
    return {
        "key": figure.key,
        "title": figure.group,
        "name": figure.name,
        "unit": figure.unit,
        "better": figure.better,
        "eventfold": _plain_sample(figure.ours),
        "others": {n: o if isinstance(o, str) else _plain_sample(o) for n, o in figure.others.items()},
        "ratios": {n: _rounded(r) for n, r in figure.ratios().items()},
        "details": {name: _rounded(value) for name, value in figure.details.items()},
        "target": figure.target,
        "met": figure.met,
        "aim": figure.aim_met,
        "note": figure.note,
    }


def figure_of(document: dict[str, Any]) -> Figure:
    """Return the figure that `plain` made these values of."""
    return Figure(
        document["title"],
        document["name"],
        document["unit"],
        _sample(document["eventfold"]),
        {name: other if isinstance(other, str) else _sample(other) for name, other in document["others"].items()},
        document["better"],
        document["target"],
        document["met"],
        document["note"],
        document["key"],
        document["aim"],
        {name: _number(value) for name, value in document["details"].items()},
    )


def _plain_sample(sample: Sample) -> dict[str, Any]:
    spread = None if math.isnan(sample.spread) else round(sample.spread, 3)
    return {"median": _rounded(sample.median), "spread": spread, "turns": [_rounded(v) for v in sample.values]}


def _sample(document: dict[str, Any]) -> Sample:
    return Sample(tuple(map(_number, document["turns"])))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _plain_settings(settings: Settings) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
