"""Which tables the text of a trigger or a routine changes.

Knows: statements of SQL that change rows. Does not know: catalogues. It reads words, not grammar: a name that a text
composes at run time is not found, and is reported as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NAME = r"(?:[`\"\[]?[\w$]+[`\"\]]?\.)?[`\"\[]?([\w$]+)[`\"\]]?"
CHANGES = re.compile(
    rf"\b(?:INSERT\s+(?:OR\s+\w+\s+|IGNORE\s+)?INTO|REPLACE\s+INTO|UPDATE(?:\s+ONLY|\s+OR\s+\w+|\s+IGNORE)?|"
    rf"DELETE\s+FROM(?:\s+ONLY)?|TRUNCATE(?:\s+TABLE)?|MERGE\s+INTO|COPY)\s+{NAME}",
    re.IGNORECASE,
)
DYNAMIC = re.compile(r"\bEXECUTE\s+(?!FUNCTION|PROCEDURE)(?:format\b|'|\w+)|\bPREPARE\s+\w+\s+FROM\b", re.IGNORECASE)
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
UNKNOWN = "?"


def written_tables(text: str | None, labels: Iterable[str]) -> tuple[str, ...]:
    """Return the labels of the tables that a text changes; "?" among them if it composes statements at run time."""
    if text is None:
        return (UNKNOWN,)
    by_name: dict[str, str] = {}
    for label in labels:
        by_name.setdefault(label.rpartition(".")[2].lower(), label)
        by_name[label.lower()] = label
    plain = COMMENT.sub(" ", text)
    found = {by_name[name.lower()] for name in CHANGES.findall(plain) if name.lower() in by_name}
    return tuple(sorted(found | ({UNKNOWN} if DYNAMIC.search(plain) else set())))
