"""Room: `eventfold state`: what is so now, what was so then, and what changed between.

Knows: that every state is a fold, and moments are positions in the end. Does not know: how folding is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, NamedTuple, cast

import typer

from eventfold.cli.asked import question_of, state_class, told
from eventfold.cli.changes import change_json, drawn, name_width, said
from eventfold.cli.filters import query_of
from eventfold.cli.lines import time_text
from eventfold.cli.merged import Merged
from eventfold.cli.moments import place_of, until
from eventfold.cli.nearest import tell_nearest
from eventfold.cli.options import Json, OccurredUntil, Tags, Types, Url, Where, Wide, addressed, opened
from eventfold.cli.screen import Column, Screen
from eventfold.cli.shown import builtin, counted, printable, second_text, value_text
from eventfold.core.envelope import Stored
from eventfold.core.query import Query
from eventfold.core.state import Change, State, diff, plan_of
from eventfold.store import Store

MOST_KEYS = 40  # of one dict, in a table that is not wide

Class = Annotated[
    str | None,
    typer.Argument(metavar="MODULE:STATE", help="A State to fold; without it, last values.", show_default=False),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Its question: pairs, values in order, or JSON.", show_default=False),
]
ImportPath = Annotated[
    str, typer.Option("--import-path", metavar="FOLDER", help="Where modules are looked for first.", file_okay=False)
]
FIELD = Column("field", style="bold", elastic=True, least=12)


class Asked(NamedTuple):
    """What is asked of a store: a State's question, or (without one) the last values of a query's events."""

    query: Query
    question: State | None = None
    spec: str = ""

    def title(self) -> dict[str, Any]:
        """What is asked, in JSON."""
        if self.question is None:
            return {"query": [{"types": each.types, "tags": each.tags} for each in self.query.items]}
        return {"state": self.spec, "question": question_values(self.question)}


def state(
    url: Url = None,
    cls: Class = None,
    words: Words = None,
    types: Types = None,
    tags: Tags = None,
    where: Where = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="POSITION|TIME", help="As it was then; else as it is now.")
    ] = None,
    occurred_until: OccurredUntil = None,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--diff", metavar="A B", help="What changed from A to B: positions, times or now.", show_default=False
        ),
    ] = None,
    import_path: ImportPath = ".",
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Fold events into a state, now or then.

    Into one of your State classes; or without a class, into the last value that the events of some tag (or --type,
    --where) gave to each field, and which event gave it. Events are folded in the order they were recorded: a late
    fact counts after later ones, and without --occurred-until one that is dated ahead counts at once.
    """
    screen = Screen(as_json, wide)
    url, asked = asked_for(url, cls, words, query_of(types, tags, where), import_path)
    if between is not None and at is not None:
        raise typer.BadParameter("it compares two moments: leave --at out.", param_hint="--diff")
    by = until(occurred_until)
    with opened(url) as store:
        if between is not None:
            first, last = (position_at(store, None if each == "now" else each) for each in between)
            tell_changes(screen, asked, first, last, changes_between(store, asked, first, last, by))
        elif asked.question is None:
            position = position_at(store, at)
            found = merged(store, asked.query, position, by)
            tell_merged(screen, asked, position, found)
            if not found.events:
                tell_nearest(store, asked.query)
        else:
            position = position_at(store, at)
            tell_state(screen, asked, position, folded(store, asked, position, by))


def asked_for(
    url: str | None, cls: str | None, words: list[str] | None, query: Query, import_path: str
) -> tuple[str | None, Asked]:
    """What the arguments ask for, and the store they name. Raises InvalidState, and usage errors."""
    url, others = addressed(url, [each for each in (cls, *(words or ())) if each is not None])
    if not others:
        if not query.items:
            raise typer.BadParameter("say what: MODULE:STATE, or --tag, --type or --where.", param_hint="MODULE:STATE")
        return url, Asked(query)
    if query.items:
        raise typer.BadParameter(
            "a State says itself which events it is folded from: leave it out.", param_hint="--tag"
        )
    question = question_of(state_class(others[0], import_path), others[1:])
    with told(f"{type(question).__name__}.query"):
        return url, Asked(question.query(), question, others[0])


def position_at(store: Store, text: str | None) -> int:
    """A moment as a position: the last one of the append that stood there then. Raises PositionBeyondHead."""
    if text is None:
        return store.head()
    place = place_of(text)
    last = next(store.read(until=place, backwards=True, limit=1, raw=True), None) if place else None
    return 0 if last is None else last.position


def folded(store: Store, asked: Asked, position: int, by: datetime | None) -> State:
    """The State at a position."""
    assert asked.question is not None
    with told(f"Folding {asked.spec}"):
        return store.state(asked.question, at=position, occurred_until=by)


def merged(store: Store, query: Query, position: int, by: datetime | None) -> Merged:
    """The last values at a position."""
    return Merged(store.read(query, raw=True, until=position, occurred_until=by))


def changes_between(store: Store, asked: Asked, first: int, last: int, by: datetime | None) -> Mapping[str, Change]:
    """What differs between two positions."""
    if asked.question is None:
        return merged(store, asked.query, first, by).until(merged(store, asked.query, last, by))
    return diff(folded(store, asked, first, by), folded(store, asked, last, by))


def question_values(question: State) -> dict[str, Any]:
    """The values asked by, in JSON."""
    return {name: builtin(getattr(question, name)) for name in plan_of(type(question)).question}


def answer_of(question: State) -> dict[str, Any]:
    """The fields that are the answer, as they are."""
    asked = plan_of(type(question)).question
    return {name: getattr(question, name) for name in question.__struct_fields__ if name not in asked}


def tell_state(screen: Screen, asked: Asked, position: int, found: State) -> None:
    """A folded State."""
    answer = answer_of(found)
    if screen.json:
        screen.value(asked.title() | {"at": position, "answer": {name: builtin(v) for name, v in answer.items()}})
        return
    tell_title(screen, asked, f"at position {position:,}")
    rows = [(name, text) for field, value in answer.items() for name, text in field_rows(screen, field, value)]
    screen.table((FIELD, Column("value", elastic=True, least=20)), rows)


def field_rows(screen: Screen, field: str, value: Any) -> list[tuple[str, str]]:
    """A field as rows: one, or of a dict one for each key."""
    if not isinstance(value, dict) or not value:
        return [(field, value_text(value))]
    items = list(cast("dict[Any, Any]", value).items())
    most = len(items) if screen.wide else MOST_KEYS
    rows = [(f"{field}[{key_text(key)}]", value_text(each)) for key, each in items[:most]]
    if len(items) > most:
        rows.append((f"{field} …", f"{len(items) - most:,} more: --wide or --json shows all"))
    return rows


def key_text(key: Any) -> str:
    """A dict's key."""
    return printable(key) if isinstance(key, str) else value_text(key)


def tell_merged(screen: Screen, asked: Asked, position: int, found: Merged) -> None:
    """Last values, each with the event that gave it."""
    if screen.json:
        screen.value(
            {
                **asked.title(),
                "at": position,
                "events": found.events,
                "fields": {
                    name: {"value": last.value, **origin_of(last.stored)} for name, last in found.fields.items()
                },
            }
        )
        return
    tell_title(screen, asked, f"{counted(found.events, 'event')} up to position {position:,}")
    if found.opaque:
        screen.hint(f"{counted(found.opaque, 'event')} among them have no fields to show.")
    screen.table(
        (
            FIELD,
            Column("last value", elastic=True, least=12),
            Column("position", right=True, style="cyan"),
            Column("by", elastic=True, least=10),
            Column("when UTC", style="dim"),
        ),
        [
            (
                printable(name),
                value_text(last.value),
                f"{last.stored.position:,}",
                printable(last.stored.type),
                second_text(last.stored.time if last.stored.occurred is None else last.stored.occurred),
            )
            for name, last in found.fields.items()
        ],
    )


def origin_of(stored: Stored) -> dict[str, Any]:
    """Which event it was, in JSON."""
    origin: dict[str, Any] = {"position": stored.position, "type": stored.type, "time": time_text(stored.time)}
    return origin if stored.occurred is None else origin | {"occurred": time_text(stored.occurred)}


def tell_title(screen: Screen, asked: Asked, where: str) -> None:
    """What is shown, and of which moment."""
    from rich.text import Text

    from eventfold.cli.shown import pairs_text

    if asked.question is None:
        title = Text(printable(repr(asked.query)[6:-1]), style="bold")
    else:
        title = Text(type(asked.question).__name__, style="bold")
        if values := question_values(asked.question):
            title = title + Text("  ") + pairs_text(values)
    screen.say(title + Text(f"  ({where})", style="dim"))


def tell_changes(screen: Screen, asked: Asked, first: int, last: int, changes: Mapping[str, Change]) -> None:
    """What differs between two moments."""
    if screen.json:
        told_changes = {name: change_json(change) for name, change in changes.items()}
        screen.value(asked.title() | {"from": first, "to": last, "changes": told_changes})
        return
    tell_title(screen, asked, f"{first:,} → {last:,}")
    if not changes:
        screen.hint("Nothing changed.")
        return
    lines = list(said(changes))
    screen.console.cut(drawn(lines, 0, name_width(lines, screen.wide)), screen.wide)
