"""Metrics as text: the format of Prometheus, or OpenMetrics if the scraper asks for it.

The state of a store, which may be long, is written by ourselves, in a tenth of the time and before it is asked for.
Knows: prometheus_client's writers. Does not know: what is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from eventfold.monitoring.state import Sample
from eventfold.monitoring.table import BY_NAME, METRICS, PREFIX

OTHER_VERSION = re.compile(r"version=(?!(?:0\.0\.[14]|1\.0\.0|\s*)(?:;|$))")

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family


class Collecting(Protocol):
    """Something whose families can be written."""

    def collect(self) -> Iterable[Family]:
        """Return the families."""
        ...


def lines_of(store: str, samples: Iterable[Sample]) -> dict[str, bytes]:
    """Return samples of a store's state as lines, by metric: the same in both formats."""
    lines: dict[str, list[str]] = {}
    first = f'store="{_escaped(store)}"'
    for metric, values, value in samples:
        names = BY_NAME[metric].labels
        rest = "".join([f',{name}="{_escaped(each)}"' for name, each in zip(names, values, strict=True)])
        lines.setdefault(metric, []).append(f"{PREFIX}{metric}{{{first}{rest}}} {float(value)!r}\n")
    return {metric: "".join(each).encode() for metric, each in lines.items()}


def _escaped(text: str) -> str:
    if "\\" in text or '"' in text or "\n" in text:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return text


def add_lines(text: bytes, states: Sequence[Mapping[str, bytes]]) -> bytes:
    """Return a text with the lines of states after its families, each metric with its help and type."""
    end = b"# EOF\n"
    parts = [text.removesuffix(end)]
    for metric in METRICS:
        found = [each[metric.name] for each in states if metric.name in each]
        if found:
            parts.append(f"# HELP {metric.full_name} {metric.help}\n# TYPE {metric.full_name} gauge\n".encode())
            parts += found
    return b"".join(parts) + (end if text.endswith(end) else b"")


class Families:
    """Families as a registry, which is what the writers take."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        """Yield the families."""
        yield from self._families


def encode(collecting: Collecting, accept: str = "") -> tuple[bytes, str]:
    """Return the text and its media type.

    `accept`: the header Accept of the scraper. Formats of versions that are not known are left out of it, since
    prometheus_client fails for those that are no numbers, and gives the others its own text.
    """
    from prometheus_client.exposition import choose_encoder

    writer, media = choose_encoder(",".join(each for each in accept.split(",") if not OTHER_VERSION.search(each)))
    return writer(collecting), media  # pyright: ignore[reportArgumentType] (it needs `collect` only)
