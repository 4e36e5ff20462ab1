"""Room: `eventfold append`: one event from flags, or many from JSON lines, under a condition.

Knows: how flags and lines become events. Does not know: user classes: what is appended here is checked to be a
sound event, not to fit the class that will read it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Annotated, Any
from uuid import UUID

import msgspec
import typer

from eventfold.cli.batches import batches, read_all
from eventfold.cli.ending import note
from eventfold.cli.lines import id_text, new_event, time_text
from eventfold.cli.moments import moment_of
from eventfold.cli.options import Json, Url, addressed, opened, position_or_cursor
from eventfold.cli.screen import Screen
from eventfold.cli.shown import counted, second_text
from eventfold.core.codec import encode_metadata
from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, Receipt
from eventfold.core.query import Query
from eventfold.errors import EventfoldError, InvalidInput
from eventfold.store import Store

CONDITION, LINES = "Condition", "Lines"
DATA_HELP = "The payload; - reads it from the input. Without it: {}."
AFTER_HELP = "… stands after this position (else anywhere)."

Type = Annotated[
    str | None,
    typer.Argument(metavar="TYPE", help="The event's type; without it, JSON lines are read.", show_default=False),
]
Data = Annotated[str | None, typer.Option("--data", "-d", metavar="JSON|@FILE|-", help=DATA_HELP)]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag. Repeat it for more.")]
Id = Annotated[
    UUID | None, typer.Option("--id", metavar="UUID", help="Your own id: then repeating it writes nothing twice.")
]
Occurred = Annotated[str | None, typer.Option("--occurred", metavar="TIME", help="When it happened, if not now.")]
Meta = Annotated[list[str] | None, typer.Option("--meta", metavar="KEY=VALUE", help="Metadata, like actor=teller-7.")]
UnlessTypes = Annotated[
    list[str] | None,
    typer.Option("--unless-type", metavar="TYPE", help="Refuse if one of this type …", rich_help_panel=CONDITION),
]
UnlessTags = Annotated[
    list[str] | None,
    typer.Option("--unless-tag", metavar="TAG", help="… with all these tags …", rich_help_panel=CONDITION),
]
After = Annotated[
    str | None,
    typer.Option("--after", metavar="POSITION|CURSOR", help=AFTER_HELP, rich_help_panel=CONDITION),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        help="A request key: a second append under it writes nothing.",
        rich_help_panel=CONDITION,
    ),
]
Atomic = Annotated[
    bool, typer.Option("--atomic", help="All lines in one append, 1,000 at the most.", rich_help_panel=LINES)
]
Batch = Annotated[
    int,
    typer.Option(
        "--batch",
        min=1,
        max=MAX_EVENTS_PER_APPEND,
        metavar="N",
        help="Lines in one append; 1 writes each as it comes.",
        rich_help_panel=LINES,
    ),
]
Create = Annotated[bool, typer.Option("--create", help="Make the store if there is none.")]


def append(
    url: Url = None,
    kind: Type = None,
    data: Data = None,
    tags: Tags = None,
    identity: Id = None,
    occurred: Occurred = None,
    meta: Meta = None,
    unless_types: UnlessTypes = None,
    unless_tags: UnlessTags = None,
    after: After = None,
    key: Key = None,
    atomic: Atomic = False,
    batch: Batch = MAX_EVENTS_PER_APPEND,
    create: Create = False,
    as_json: Json = None,
) -> None:
    """Append one event, or those of JSON lines.

    Without a TYPE, JSON lines are read from the input, as `eventfold read --json` writes them. Of a line only `type`
    is needed; `position` and `time` are given anew. They are written in appends of up to 1,000, each of them whole or
    not at all. Lines with ids can be given again: what is there is not written twice.
    """
    url, others = addressed(url, [] if kind is None else [kind])
    if len(others) > 1:
        raise typer.BadParameter(f"{others[1]!r} is one argument too many.", param_hint="TYPE")
    screen = Screen(as_json)
    condition = condition_of(unless_types, unless_tags)
    if after is not None and condition is None:
        raise typer.BadParameter("say what must not stand there: --unless-tag or --unless-type.", param_hint="--after")
    if others:
        event = new_event(
            others[0],
            payload_of(data),
            tags=tags or [],
            identity=identity,
            occurred=None if occurred is None else moment_of(occurred),
            metadata=metadata_of(meta or []),
        )
        with opened(url, create=create) as store:
            receipt = store.append_encoded(event, unless=condition, after=position_or_cursor(after), key=key)
            tell_receipt(screen, receipt)
        return
    refuse_for_lines(data=data, tag=tags, id=identity, occurred=occurred, meta=meta)
    if not atomic and (condition is not None or key is not None):
        raise typer.BadParameter("a condition or key holds for one append: add --atomic.", param_hint="--atomic")
    with opened(url, create=create) as store:
        if atomic:
            events = read_all(stdin())
            where = position_or_cursor(after)
            tell_receipt(screen, store.append_encoded(*events, unless=condition, after=where, key=key))
        else:
            append_lines(screen, store, batch)


def refuse_for_lines(**of_one_event: Any) -> None:
    """What belongs to one event cannot be given for lines, and lines come from a pipe."""
    for name, value in of_one_event.items():
        if value:
            raise typer.BadParameter(f"--{name} belongs to one event: name its TYPE.", param_hint="TYPE")
    if sys.stdin.isatty():
        raise typer.BadParameter("name the event's type, or pipe JSON lines in.", param_hint="TYPE")


def stdin() -> IO[bytes]:
    """The bytes of standard input."""
    return sys.stdin.buffer


def append_lines(screen: Screen, store: Store, batch: int) -> None:
    """Append the lines of the input, batch after batch. Whatever ends it early says how far it came."""
    read, written, repeated = 0, 0, 0
    try:
        for events in batches(stdin(), batch):
            receipt = store.append_encoded(*events)
            read += len(events)
            written += 0 if receipt.repeated else len(events)
            repeated += len(events) if receipt.repeated else 0
            if screen.json:
                screen.value(receipt_line(receipt))
                screen.flush()
    except (EventfoldError, KeyboardInterrupt):
        if read:
            note(f"Of the input, the first {counted(read, 'event')} stand in the log.")
        raise
    if not screen.json:
        again = f" {counted(repeated, 'event')} stood there already." if repeated else ""
        screen.say(f"Appended {counted(written, 'event')}; the log ends at position {store.head():,}.{again}")


def condition_of(types: list[str] | None, tags: list[str] | None) -> Query | None:
    """The events whose existence forbids the append."""
    return Query.of(types or (), tags or ()) if types or tags else None


def payload_of(text: str | None) -> bytes:
    """The payload of `--data`, without blanks. Raises InvalidInput."""
    if text is None:
        return b"{}"
    if text == "-":
        raw = stdin().read()
    elif text.startswith("@"):
        try:
            raw = Path(text[1:]).read_bytes()
        except OSError as error:
            raise InvalidInput(f"{text[1:]} cannot be read: {error.strerror}.", "Name a file of JSON.") from error
    else:
        raw = text.encode("utf-8", "surrogateescape")
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"The data is no JSON: {error}.",
            """Write a JSON object in quotes, for example --data '{"amount": "80"}'.""",
        ) from error
    return msgspec.json.format(raw, indent=-1)


def metadata_of(pairs: list[str]) -> bytes:
    """The metadata of `--meta`: text, by key. Raises InvalidInput."""
    metadata: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidInput(f"--meta {pair!r} is no pair.", "Write --meta actor=teller-7.")
        metadata[key] = value
    return encode_metadata(metadata) or b"{}"


def receipt_line(receipt: Receipt) -> dict[str, Any]:
    """A receipt in JSON: with it, its holder can prove later what was acknowledged."""
    return {
        "store": receipt.store,
        "epoch": receipt.epoch,
        "first": receipt.first,
        "last": receipt.last,
        "time": time_text(receipt.time),
        "ids": [id_text(identity) for identity in receipt.ids],
        "digest": receipt.digest,
        "repeated": receipt.repeated,
    }


def tell_receipt(screen: Screen, receipt: Receipt) -> None:
    """What was written, and where."""
    if screen.json:
        screen.value(receipt_line(receipt))
        return
    many = receipt.last > receipt.first
    where = f"positions {receipt.first:,} to {receipt.last:,}" if many else f"position {receipt.first:,}"
    name = "" if many else f", id {id_text(receipt.ids[0])}"
    done = "Nothing written: it stood there already, at" if receipt.repeated else "Appended at"
    screen.say(f"{done} {where}, recorded {second_text(receipt.time)} UTC{name}.")
