"""A round: one seed, one folder, one kind of fault; and the family that a round belongs to.

Knows: what a family needs, and its number of faults. Does not know: processes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from soak.check import Findings


@dataclass
class Round:
    """What a round works with, and what it reports: counts of faults and other things, and problems."""

    family: str
    index: int
    seed: str
    folder: Path
    server: str = ""  # the address of the PostgreSQL server that all rounds share; "" where there is none
    counts: Counter[str] = field(default_factory=Counter[str])
    findings: Findings = field(default_factory=Findings)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a count."""
        self.counts[what] += number

    def schema(self) -> str:
        """Return the address of a schema of this round's own, on the shared server."""
        name = f"{self.family}_{self.index}_{self.dice.getrandbits(24):x}".replace("-", "_")
        return f"{self.server}?schema={name}"


@dataclass(frozen=True)
class Family:
    """Rounds of one kind. `unit`: the count that gives the number of faults; `total`: that number, at scale 1."""

    name: str
    unit: str
    total: int
    run: Callable[[Round], None]
    root: bool = False
    postgres: bool = False
    nats: bool = False
    program: str = ""  # a program that Debian has in a package of the same name
    longest: float = 120.0  # seconds a round may take before it counts as hung
