"""The table at the end of a run.

Knows: results. Does not know: how they were obtained.
"""

from __future__ import annotations

from collections.abc import Sequence

from soak.rounds import Family
from soak.schedule import Line, totals


def table(families: Sequence[Family], lines: Sequence[Line], skipped: dict[str, str]) -> str:
    """Return a row for each family: planned and actual faults, rounds, violations, minutes of its rounds."""
    found = totals(lines)
    head = f"{'family':<20}{'faults':>8}  {'of':<18}{'rounds':>7}{'events':>9}{'violations':>12}{'minutes':>9}"
    rows = [head, "-" * len(head)]
    for family in families:
        if family.name in skipped:
            rows.append(f"{family.name:<20} skipped: {skipped[family.name]}")
            continue
        count = found.get(family.name)
        if count is None:
            rows.append(f"{family.name:<20} not reached")
            continue
        minutes = count["milliseconds"] / 60_000
        rows.append(
            f"{family.name:<20}{count[family.unit]:>8}  {family.unit:<18}{count['rounds']:>7}{count['events']:>9}"
            f"{count['violations']:>12}{minutes:>9.1f}"
        )
    kills = sum(count["kills"] for count in found.values())
    rows.append(f"kills in all: {kills}; rounds with violations: {sum(c['violations'] for c in found.values())}")
    return "\n".join(rows)


def violations(lines: Sequence[Line], seed: int) -> list[str]:
    """Return each round with problems: what they are, where its files are, and how to repeat it."""
    return [
        f"{line['family']} {line['index']}: {'; '.join(line['violations'])}\n"
        f"    kept: {line.get('kept', '-')}\n"
        f"    again: python -m soak --only {line['family']} --seed {seed} --round {line['index']}"
        for line in lines
        if line["violations"]
    ]
