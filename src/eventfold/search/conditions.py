"""The filter language applied to events: each clause as a condition, by its key.

Knows: what each key means, what is looked up in a log. Does not know: how a log is scanned (find.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from eventfold.core.envelope import to_micros
from eventfold.core.moments import AGO_PATTERN, parse_time
from eventfold.core.query import Query
from eventfold.core.tags import check_name, in_utc, is_moment
from eventfold.errors import InvalidFilter, InvalidInput
from eventfold.ports.engine import Engine
from eventfold.ports.messages import Span
from eventfold.search.condition import Condition, Test, conjunction, disjunction, indexed, scanned
from eventfold.search.cover import (
    LAST_POSITION,
    MAX_ALTERNATIVES,
    of_positions,
    of_tags,
    of_types,
)
from eventfold.search.grammar import Clause, Node, Not, Value, Word
from eventfold.search.keys import KEYS, METADATA, PATHS, STATES
from eventfold.search.names import MAX_KEYS, Names, nearest
from eventfold.search.subject import Step, Subject, has_value, leaves, parse_path, values_at
from eventfold.search.values import (
    any_of,
    is_any,
    prefix_of,
    range_of,
    single_value,
    test_of,
    text_of,
)

MAX_EXPANDED_TAGS = 100  # a prefix of tags that means more of them is scanned


class Binding:
    """Makes conditions of trees, by looking up names and positions in a log.

    `now`: the moment before which 2h means two hours. `live`: for events that are not written yet, so that no prefix is
    replaced by the names that the log has now, and no moment or id by a position. `names` None: every key is taken for
    a key of tags. `reads_payloads` becomes true if a condition depends on payloads or metadata, `depends_on_now` if on
    `now`; `unindexed` gets the keys that would need an index of metadata.
    """

    def __init__(self, engine: Engine, names: Names | None, now: datetime, live: bool) -> None:
        self._engine, self._names, self._now, self._live = engine, names, now, live
        self.reads_payloads = self.depends_on_now = False
        self.unindexed: dict[str, None] = {}
        self._known: dict[str, bool] = {}  # keys of tags

    async def condition(self, node: Node) -> Condition:
        """Return the condition of a tree. Raises InvalidFilter."""
        if isinstance(node, Clause):
            return await self._clause(node)
        if isinstance(node, Word):
            return await self._word(node)
        if isinstance(node, Not):
            if isinstance(node.part, Not):
                return await self.condition(node.part.part)
            inner = (await self.condition(node.part)).test
            return scanned(node, lambda subject: not inner(subject))
        parts = [await self.condition(part) for part in node.parts]
        return conjunction(node.parts, parts) if node.operator == "and" else disjunction(node, parts)

    async def _word(self, word: Word) -> Condition:
        text = word.text
        if not word.quoted:
            if text.isascii() and text.isdigit() and len(text) < 19:
                return await self._clause(Clause("pos", ":", (Value(text, at=word.at),), word.at))
            if _uuid(text) is not None:
                return await self._clause(Clause("id", ":", (Value(text, at=word.at),), word.at))
            if "*" in text:
                raise InvalidFilter(
                    f"The word {text[:60]} has a *, at character {word.at}.",
                    "A word is found anywhere in a payload: omit the *, or put quotes around a text that contains one.",
                    at=word.at,
                )
        self.reads_payloads = True
        part = text.casefold()
        return scanned(word, lambda subject: _contains(subject, part))

    async def _clause(self, clause: Clause) -> Condition:
        root, dot, path = clause.key.partition(".")
        if dot and root in PATHS:
            return self._field(clause, root, path)
        key = KEYS.get(clause.key)
        if key is None:
            return await self._tag_key(clause)
        if clause.key in PATHS:
            raise InvalidFilter(
                f"The key {clause.key} needs a field, at character {clause.at}.",
                f"Write its path: {key.example}.",
                at=clause.at,
            )
        if clause.operator not in key.operators:
            raise InvalidFilter(
                f"The key {clause.key} is not compared by {clause.operator}, at character {clause.at}.",
                f"Its operators are {' '.join(key.operators)}. Example: {key.example}.",
                at=clause.at,
            )
        if (metadata := METADATA.get(clause.key)) is not None:
            if clause.key != "actor":
                self.unindexed[clause.key] = None
            return self._field(clause, "meta", metadata)
        match clause.key:
            case "type":
                return await self._type(clause)
            case "tag":
                return await self._tag(clause, "")
            case "id":
                return await self._id(clause)
            case "pos":
                return self._position(clause)
            case "append":
                return await self._append(clause)
            case "since" | "until":
                return await self._recorded(clause)
            case "occurred":
                return self._occurred(clause)
            case "version":
                return self._version(clause)
            case "has":
                return await self._has(clause)
            case _:
                return self._is(clause)

    # Names

    async def _type(self, clause: Clause) -> Condition:
        if clause.operator == "~":
            parts = [value.text.casefold() for value in clause.values]
            return await self._types_by(clause, lambda name: any(part in name.casefold() for part in parts))
        prefixes = [prefix for value in clause.values if (prefix := prefix_of(clause, value)) is not None]
        plain = frozenset(
            _name("type", value) for value in clause.values if value.quoted or not value.text.endswith("*")
        )
        if clause.operator == "!=":
            return scanned(
                clause,
                lambda subject: subject.stored.type not in plain and not _starts(subject.stored.type, prefixes),
            )
        if prefixes:
            return await self._types_by(clause, lambda name: name in plain or _starts(name, prefixes))
        return indexed(lambda subject: subject.stored.type in plain, of_types(plain))

    async def _types_by(self, clause: Clause, accepts: Callable[[str], bool]) -> Condition:
        def test(subject: Subject) -> bool:
            return accepts(subject.stored.type)

        if self._live or self._names is None:
            return scanned(clause, test)
        return indexed(test, of_types(filter(accepts, await self._names.types())))

    async def _tag_key(self, clause: Clause) -> Condition:
        key = f"{clause.key}:"
        if not await self._is_known(key):
            raise await self._unknown(clause.key, clause.at)
        return await self._tag(clause, key)

    async def _is_known(self, key: str) -> bool:
        if self._names is None:
            return _is_storable(key)
        if key not in self._known:
            self._known[key] = _is_storable(key) and key in await self._names.tag_keys(key, 1)
        return self._known[key]

    async def _unknown(self, key: str, at: int) -> InvalidFilter:
        known = [] if self._names is None else await self._names.tag_keys("", MAX_KEYS)
        candidates = [*KEYS, *(each.removesuffix(":") for each in known)]
        root, dot, path = key.partition(".")
        near = nearest(root if dot else key, candidates)
        if near is not None:
            near = f"{near}.{path}" if dot and near in PATHS else near
        meant = "" if near is None else f" Did you mean {near}?"
        return InvalidFilter(
            f"There is no key {key[:60]!r}, at character {at}.{meant}",
            "Use a key of the tags of this store, data.… for a field of the payload, or put quotes around a text; the "
            f"other keys are {', '.join(each for each in KEYS if each not in PATHS)}. A tag of a key that no event has "
            f"yet is written tag:{key[:60]}:….",
            at=at,
            key=key[:60],
        )

    async def _tag(self, clause: Clause, key: str) -> Condition:
        """A clause over whole tags, or over the values of the tags of a key (with its colon)."""

        def found(subject: Subject) -> Iterable[str]:
            return (tag[len(key) :] for tag in subject.tags if tag.startswith(key))

        is_negated = clause.operator == "!="
        if clause.operator not in (":", "=", "!=") or any(range_of(clause, value) for value in clause.values if key):
            matches = test_of(clause)
            return scanned(clause, lambda subject: is_any(matches, found(subject), negated=is_negated))
        prefixes = [key + prefix for value in clause.values if (prefix := prefix_of(clause, value)) is not None]
        plain = frozenset(
            in_utc(_name("tag", value, key)) for value in clause.values if value.quoted or not value.text.endswith("*")
        )
        test = _tag_test(plain, prefixes)
        if is_negated:
            return scanned(clause, lambda subject: any(True for _ in found(subject)) and not test(subject))
        names = None if self._live and prefixes else await self._expanded(prefixes)
        if names is None:
            return scanned(clause, test)
        return indexed(test, of_tags([*plain, *map(in_utc, names)]))

    async def _expanded(self, prefixes: Sequence[str]) -> list[str] | None:
        """The tags that begin with any of some texts; None if they are too many."""
        found: list[str] = []
        if self._names is None:
            return None if prefixes else found
        for prefix in prefixes[:MAX_EXPANDED_TAGS]:
            if prefix and not _is_storable(prefix):
                continue
            found += await self._names.tags(prefix, MAX_EXPANDED_TAGS + 1 - len(found))
            if len(found) > MAX_EXPANDED_TAGS:
                return None
        return found if len(prefixes) <= MAX_EXPANDED_TAGS else None

    # Positions and times

    async def _id(self, clause: Clause) -> Condition:
        ids: dict[bytes, None] = {}
        for value in clause.values:
            identity = _uuid(value.text)
            if identity is None:
                raise InvalidFilter(
                    f"{value.text[:60]!r} is no event id, at character {value.at}.",
                    f"Write a UUID: {KEYS['id'].example}.",
                    at=value.at,
                )
            ids[identity] = None
        if clause.operator == "!=":
            return scanned(clause, lambda subject: subject.stored.id not in ids)

        def test(subject: Subject) -> bool:
            return subject.stored.id in ids

        lookups = None if self._live else self._engine.services.lookups
        if lookups is None or len(ids) > MAX_ALTERNATIVES:
            return scanned(clause, test)
        places = [place for each in ids if (place := await lookups.position_of(each)) is not None]
        return indexed(test, of_positions((place - 1, place) for place in places))

    def _position(self, clause: Clause) -> Condition:
        spans: list[tuple[int, int]] = []
        for value in clause.values:
            low, high = range_of(clause, value) or (value.text, value.text)
            spans.append((_whole_number(low, value.at) - 1, _whole_number(high, value.at)))
        after, until = spans[0]
        if clause.operator in (">", ">=", "<", "<="):
            test_of(clause)  # raises InvalidFilter on a list or a range
            bounds = {">": (until, LAST_POSITION), ">=": (after, LAST_POSITION), "<": (0, after), "<=": (0, until)}
            spans = [bounds[clause.operator]]

        def test(subject: Subject) -> bool:
            place = subject.stored.position
            return any(low < place <= high for low, high in spans)

        if clause.operator == "!=":
            return scanned(clause, lambda subject: not test(subject))
        return scanned(clause, test) if len(spans) > MAX_ALTERNATIVES else indexed(test, of_positions(spans))

    async def _append(self, clause: Clause) -> Condition:
        position = _whole_number(single_value(clause), clause.values[0].at)

        def test(subject: Subject) -> bool:
            return subject.stored.first <= position <= subject.stored.last

        if self._live:
            return scanned(clause, test)
        page = await self._engine.read(Query(), Span(after=max(0, position - 1), until=position, limit=1))
        there = [each for each in page.events if each.position == position]
        return indexed(test, of_positions((each.first - 1, each.last) for each in there))

    async def _recorded(self, clause: Clause) -> Condition:
        is_since = clause.key == "since"
        moment = self._moment(single_value(clause), clause.values[0].at, end_of_day=not is_since)

        def test(subject: Subject) -> bool:
            return subject.stored.time >= moment if is_since else subject.stored.time <= moment

        if self._live:
            return scanned(clause, test)
        place = await self._engine.position_at(moment - is_since)
        return indexed(test, of_positions([(place, LAST_POSITION) if is_since else (0, place)]))

    def _occurred(self, clause: Clause) -> Condition:
        spans: list[tuple[int, int]] = []
        for value in clause.values:
            low, high = range_of(clause, value) or (value.text, value.text)
            first = self._moment(low, value.at, end_of_day=False)
            spans.append((first, self._moment(high, value.at, end_of_day=True)))
        if clause.operator not in (":", "=", "!="):
            test_of(clause)  # raises InvalidFilter on a list or a range
            first, last = spans[0]
            most = 2**63
            bounds = {">": (last + 1, most), ">=": (first, most), "<": (-most, first - 1), "<=": (-most, last)}
            spans = [bounds[clause.operator]]
        is_negated = clause.operator == "!="

        def test(subject: Subject) -> bool:
            stored = subject.stored
            moment = stored.time if stored.occurred is None else stored.occurred
            return any(first <= moment <= last for first, last in spans) is not is_negated

        return scanned(clause, test)

    def _moment(self, text: str, at: int, *, end_of_day: bool) -> int:
        self.depends_on_now = self.depends_on_now or AGO_PATTERN.fullmatch(text.strip()) is not None
        try:
            return to_micros(parse_time(text, end_of_day=end_of_day, now=self._now))
        except InvalidInput as error:
            what = f"{text[:60]!r} is no moment, at character {at}."
            raise InvalidFilter(what, error.remedy, at=at) from None

    def _version(self, clause: Clause) -> Condition:
        for value in clause.values:
            for end in range_of(clause, value) or (value.text,):
                _whole_number(end, value.at)
        matches, is_negated = test_of(clause), clause.operator == "!="
        return scanned(clause, lambda subject: matches(subject.stored.version) is not is_negated)

    # Payloads and metadata

    def _field(self, clause: Clause, root: str, path: str) -> Condition:
        self.reads_payloads = True
        steps, values = self._path(root, path, clause.at), test_of(clause)
        is_negated = clause.operator == "!="
        return scanned(
            clause, lambda subject: is_any(values, values_at(_root(subject, root), steps), negated=is_negated)
        )

    def _path(self, root: str, path: str, at: int) -> tuple[Step, ...]:
        steps = parse_path(path)
        if steps is None:
            raise InvalidFilter(
                f"{f'{root}.{path}'[:60]!r} is no path of a field, at character {at}.",
                f"Write names with dots between them, and [] for every element: {KEYS['data'].example}.",
                at=at,
            )
        return steps

    async def _has(self, clause: Clause) -> Condition:
        tests = [await self._presence(value) for value in clause.values]
        one = any_of(tests)
        if clause.operator == "!=":
            return scanned(clause, lambda subject: not one(subject))
        prefixes = [f"{value.text}:" for value in clause.values]
        if not self._live and not any(value.text in KEYS or "." in value.text for value in clause.values):
            names = await self._expanded(prefixes)
            if names is not None:
                alone = [value.text for value in clause.values if _is_storable(value.text)]
                return indexed(one, of_tags([*map(in_utc, names), *alone]))
        return scanned(clause, one)

    async def _presence(self, value: Value) -> Test:
        text = value.text
        root, dot, path = text.partition(".")
        if (metadata := METADATA.get(text)) is not None:
            root, dot, path = "meta", ".", metadata
        if dot and root in PATHS:
            self.reads_payloads = True
            steps = self._path(root, path, value.at)
            return lambda subject: has_value(_root(subject, root), steps)
        if text == "occurred":
            return lambda subject: subject.stored.occurred is not None
        if text in KEYS:
            raise InvalidFilter(
                f"{text!r} is nothing that only some events have, at character {value.at}.",
                "Write has: with data.…, meta.…, occurred, actor, correlation, cause, or a key of tags.",
                at=value.at,
            )
        key = f"{text}:"
        if not await self._is_known(key) and not await self._is_known(text):
            raise await self._unknown(text, value.at)
        return lambda subject: any(tag == text or tag.startswith(key) for tag in subject.tags)

    def _is(self, clause: Clause) -> Condition:
        tests: list[Test] = []
        for value in clause.values:
            if value.text == "undecodable":
                tests.append(lambda subject: subject.is_undecodable)
            elif value.text == "encrypted":
                tests.append(lambda subject: subject.stored.key is not None)
            elif value.text == "internal":
                tests.append(lambda subject: subject.stored.type.startswith("$"))
            else:
                near = nearest(value.text, STATES)
                meant = "" if near is None else f" Did you mean {near}?"
                raise InvalidFilter(
                    f"An event is never {value.text[:60]!r}, at character {value.at}.{meant}",
                    f"Write is: with {', '.join(STATES)}.",
                    at=value.at,
                )
        one, is_negated = any_of(tests), clause.operator == "!="
        return scanned(clause, lambda subject: one(subject) is not is_negated)


def _tag_test(plain: frozenset[str], prefixes: Sequence[str]) -> Test:
    if any(map(is_moment, plain)):
        return lambda subject: not plain.isdisjoint(subject.utc_tags) or _any_starts(subject.tags, prefixes)
    if prefixes:
        return lambda subject: not plain.isdisjoint(subject.tags) or _any_starts(subject.tags, prefixes)
    return lambda subject: not plain.isdisjoint(subject.tags)


def _any_starts(tags: Iterable[str], prefixes: Sequence[str]) -> bool:
    return any(_starts(tag, prefixes) for tag in tags)


def _starts(name: str, prefixes: Sequence[str]) -> bool:
    return any(name.startswith(prefix) for prefix in prefixes)


def _root(subject: Subject, root: str) -> Any:
    return subject.data if root == "data" else subject.metadata


def _contains(subject: Subject, part: str) -> bool:
    data = subject.stored.data
    if b"\\" not in data:  # a quick answer: what is not in the bytes is in no text of them
        try:
            if part not in data.decode().casefold():
                return _is_looked_into(subject)
        except UnicodeDecodeError:
            return _is_looked_into(subject)
    return not subject.is_undecodable and any(part in text_of(leaf).casefold() for leaf in leaves(subject.data))


def _is_looked_into(subject: Subject) -> bool:
    """False; payloads that cannot be looked into are noted."""
    if subject.stored.codec != "json" or subject.stored.key is not None:
        subject.was_undecodable = True
    return False


def _uuid(text: str) -> bytes | None:
    if len(text) != 36 or text.count("-") != 4:
        return None
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found.bytes if str(found) == text.lower() else None


def _is_storable(name: str) -> bool:
    return bool(name) and name.isprintable() and len(name.encode()) <= 255


def _name(kind: str, value: Value, key: str = "") -> str:
    try:
        return check_name(kind, key + value.text, reserved=True, error=InvalidFilter)
    except InvalidFilter as error:
        what = f"No event can match this filter, at character {value.at}. {error.what}"
        raise InvalidFilter(what, error.remedy, at=value.at) from None


def _whole_number(text: str, at: int) -> int:
    plain = text.replace(",", "").replace("_", "")
    if not plain.isascii() or not plain.isdigit() or len(plain) > 19 or int(plain) > LAST_POSITION:
        raise InvalidFilter(
            f"{text[:60]!r} is no number, at character {at}.", "Write a whole number of 0 or more, such as 1000.", at=at
        )
    return int(plain)
