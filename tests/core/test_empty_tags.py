"""An empty text in a tag field is a value as any other, in appends, queries, states and conditions; None is no tag."""

from __future__ import annotations

import pytest

import eventfold as ef
from eventfold.errors import AppendConflict


class Lent(ef.Event, type="empty-tags.lent"):
    """A tool was lent, perhaps to no member that is known."""

    tool: ef.Tag
    member: ef.Tag[str] | None = None


class Member(ef.State):
    """What a member has."""

    member: ef.Tag
    tools: int = 0

    def evolve(self, event: Lent) -> None:
        """Count."""
        self.tools += 1


def test_an_empty_tag_value_is_a_value_and_none_is_no_tag() -> None:
    """Logs have such tags: they are read, found, folded and excluded by conditions as all others are."""
    with ef.Store("memory:") as store:
        store.append(Lent("saw", ""), Lent("saw"), Lent("drill", "m-1"))
        assert [recorded.tags for recorded in store.read()] == [
            ("member:", "tool:saw"),
            ("tool:saw",),
            ("member:m-1", "tool:drill"),
        ]
        assert store.tag("member:").count == 1
        assert store.state(Member("")).tools == 1
        with pytest.raises(AppendConflict):
            store.append(Lent("saw", ""), unless=Member(""), after=0)
        store.append(Lent("saw", "m-2"), unless=Member("m-2"), after=0)
