"""The page On call: each alert that this project ships has a section, and each command on it exists."""

from __future__ import annotations

import re

import pytest

from eventfold.alerts import builtin
from eventfold.monitoring.rules import rules
from tests.alerts import on_call
from tests.cli.reference import commands

TEXT = on_call.PAGE.read_text("utf-8")


def sections() -> dict[str, str]:
    """The text of each section by its heading."""
    parts = re.split(r"^### (\w+)$", TEXT, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("cls", builtin.BuiltIn.__subclasses__(), ids=lambda cls: cls.kind)
def test_each_built_in_alert_says_what_it_means_and_what_to_type(cls: type[builtin.BuiltIn]) -> None:
    """Its section has a command, and the class is in the example and among the exported names."""
    assert "`eventfold " in sections()[cls.kind]
    assert cls.__name__ in builtin.__all__
    assert re.search(rf"^ +{cls.__name__}\(", TEXT, flags=re.M)


def test_each_rule_for_prometheus_has_its_section() -> None:
    """The part about them is written by `python -m tests.alerts.on_call`."""
    assert on_call.page(TEXT) == TEXT
    assert {rule.alert for rule in rules()} <= set(sections())


def test_each_command_on_the_page_exists() -> None:
    """`eventfold NAME …` and its options, as `eventfold --help` has them."""
    known = dict(commands())
    for line in re.findall(r"`(eventfold [^`]+)`", TEXT) + re.findall(r"^(eventfold .*?)(?:  |$)", TEXT, flags=re.M):
        words = line.split()
        path = next((" ".join(words[:size]) for size in (3, 2) if " ".join(words[:size]) in known), None)
        assert path is not None, line
        options = {name for each in known[path].params for name in each.opts}
        assert {word for word in words if word.startswith("--")} <= options, line
