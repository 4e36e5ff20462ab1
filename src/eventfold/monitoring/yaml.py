"""Nested dicts, lists and texts as YAML: every text is quoted as in JSON, so that no word means anything else.

Knows: the part of YAML that files of rules need. Does not know: rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def to_yaml(value: Any) -> str:
    """Return a dict of dicts, lists and texts as a YAML document."""
    return "\n".join(_lines(value, "")) + "\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():  # pyright: ignore[reportUnknownVariableType]
            if isinstance(each, str):
                yield f"{indent}{key}: {json.dumps(each, ensure_ascii=False)}"
            else:
                yield f"{indent}{key}:"
                yield from _lines(each, indent + "  ")
    else:
        for each in value:
            first, *rest = _lines(each, indent + "  ")
            yield f"{indent}- {first.lstrip()}"
            yield from rest
