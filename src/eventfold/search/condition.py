"""A part of a filter: its test, what the index answers of it, and how parts are combined.

Knows: covers, trees. Does not know: what a clause means (conditions.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from eventfold.core.envelope import StoredEvent
from eventfold.search.cover import EVERYTHING, MAX_ALTERNATIVES, Cover, both, either
from eventfold.search.grammar import Clause, Node, Not, Word, print_tree
from eventfold.search.subject import Subject
from eventfold.search.values import any_of

Test = Callable[[Subject], bool]


class Condition(NamedTuple):
    """A part of a filter.

    `test`: whether an event satisfies it. `cover`: the events that the index returns for it; `is_exact`: these and no
    others satisfy it. `left`: the parts that must still be tested on the events of the cover, as (text, test).
    """

    test: Test
    cover: Cover
    is_exact: bool
    left: tuple[tuple[str, Test], ...]


def scanned(node: Node, test: Test, cover: Cover = EVERYTHING) -> Condition:
    """A condition that is tested on every event of its cover."""
    return Condition(test, cover, False, ((print_tree(node), test),))


def indexed(test: Test, cover: Cover) -> Condition:
    """A condition that the index answers."""
    return Condition(test, cover, True, ())


def conjunction(nodes: Sequence[Node], parts: Sequence[Condition]) -> Condition:
    """All parts. What the index answers exactly need not be tested again."""
    tests = tuple(part.test for part in parts)
    cover = EVERYTHING
    left: dict[int, tuple[tuple[str, Test], ...]] = {}
    for number in sorted(range(len(parts)), key=lambda number: len(parts[number].cover)):
        part = parts[number]
        joined = both(cover, part.cover)
        if joined is None:  # too many alternatives
            left[number] = ((_part_text(nodes[number]), part.test),)
        else:
            cover = joined
            left[number] = part.left
    in_order = tuple(each for number in range(len(parts)) for each in left[number])

    def test(subject: Subject) -> bool:
        return all(each(subject) for each in tests)

    return Condition(test, cover, not in_order, in_order)


def disjunction(node: Node, parts: Sequence[Condition]) -> Condition:
    """Any of the parts."""
    test = any_of([part.test for part in parts])
    cover = either([part.cover for part in parts])
    if len(cover) > MAX_ALTERNATIVES:
        return Condition(test, EVERYTHING, False, ((f"({print_tree(node)})", test),))
    if all(part.is_exact for part in parts):
        return indexed(test, cover)
    return Condition(test, cover, False, ((f"({print_tree(node)})", test),))


def _part_text(node: Node) -> str:
    text = print_tree(node)
    return text if isinstance(node, (Clause, Word, Not)) else f"({text})"


def matcher(test: Test) -> Callable[[StoredEvent], bool]:
    """Return a test of a stored event."""
    return lambda stored: test(Subject(stored))
