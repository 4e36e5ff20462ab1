"""The part of docs/how-to/on-call.md about the rules for Prometheus, written from their table.

    python -m tests.alerts.on_call

writes it; a test compares it. Knows: the rules, the page. Does not know: the built-in alerts, which the page describes
by hand.
"""

from __future__ import annotations

import re

from eventfold.monitoring.rules import Rule, rules
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "how-to" / "on-call.md"
BEGIN, END = "<!-- rules: python -m tests.alerts.on_call -->\n", "<!-- end -->"
COMMAND = re.compile(r"((?:eventfold|curl|fuser) [^;.,]*?)(?=;|, and|\.$|$)")


def in_words(text: str) -> str:
    """A text of a rule with the names of labels in capitals in place of their values."""
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: found[1].upper(), text)
    text = text.replace("{{ $value | humanize1024 }}B", "N bytes")
    return re.sub(r"\{\{ \$value[^}]*\}\}", "N", text)


def section(rule: Rule) -> str:
    """What one rule means and what to do."""
    wait = "at once" if rule.wait == "0s" else f"after {rule.wait}"
    act = COMMAND.sub(lambda found: f"`{found[1].strip()}`", in_words(rule.act))
    ended = act if act.endswith(".") else f"{act}."
    return f"### {rule.alert}\n\n{in_words(rule.what)} ({rule.severity}, {wait})\n\n{ended}\n"


def page(text: str) -> str:
    """The page with the rules of today."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + "\n".join(map(section, rules())) + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    print(f"{PAGE.name} is written")
