"""`eventfold append`: one event from flags, or many from JSON lines, under a condition.

Knows: how flags and lines become events. Does not know: user classes. It checks that an event is valid, not that it
fits the class that will read it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Annotated, Any
from uuid import UUID

import msgspec
import typer

from eventfold.cli.exit_codes import print_note
from eventfold.cli.formatting import format_second
from eventfold.cli.jsonl import read_all_events, read_batches
from eventfold.cli.options import (
    STORE_VARIABLE,
    Json,
    Url,
    open_store,
    parse_position_or_cursor,
    split_store_argument,
)
from eventfold.cli.output import Output
from eventfold.core.codec import encode_metadata
from eventfold.core.counted import count_of
from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, Receipt
from eventfold.core.event_json import build_event, format_id
from eventfold.core.moments import parse_time
from eventfold.core.query import Query
from eventfold.core.wire import from_receipt
from eventfold.errors import EventfoldError, InvalidInput
from eventfold.store import Store

CONDITION, LINES = "Condition", "Lines"
STANDARD_INPUT = "-"
DATA_HELP = "The payload; - reads it from standard input. Default: {}."
AFTER_HELP = "… was written after this position (default: 0)."

Type = Annotated[
    str | None,
    typer.Argument(metavar="TYPE", help="The event's type. Without it, or -: JSON lines are read.", show_default=False),
]
Data = Annotated[str | None, typer.Option("--data", "-d", metavar="JSON|@FILE|-", help=DATA_HELP)]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag. Repeat it for more.")]
Id = Annotated[
    UUID | None,
    typer.Option("--id", metavar="UUID", help="The event's id; an append that is repeated with it writes nothing."),
]
Occurred = Annotated[str | None, typer.Option("--occurred", metavar="TIME", help="When it happened, if not now.")]
Meta = Annotated[list[str] | None, typer.Option("--meta", metavar="KEY=VALUE", help="Metadata, like actor=teller-7.")]
UnlessTypes = Annotated[
    list[str] | None,
    typer.Option("--unless-type", metavar="TYPE", help="Refuse if an event of this type …", rich_help_panel=CONDITION),
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
        help="A request key; a second append with it writes nothing.",
        rich_help_panel=CONDITION,
    ),
]
Atomic = Annotated[
    bool, typer.Option("--atomic", help="Write all lines in one append, at most 1,000.", rich_help_panel=LINES)
]
Batch = Annotated[
    int,
    typer.Option(
        "--batch",
        min=1,
        max=MAX_EVENTS_PER_APPEND,
        metavar="N",
        help="Lines per append; 1 writes each line as it arrives.",
        rich_help_panel=LINES,
    ),
]
Create = Annotated[bool, typer.Option("--create", help="Create the store if there is none.")]


def append(
    url: Url = None,
    event_type: Type = None,
    data: Data = None,
    tags: Tags = None,
    event_id: Id = None,
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

    Without a TYPE, or with -, JSON lines are read from standard input, as `eventfold read --json` writes them. A line
    needs only `type`; `position` and `time` are assigned again. Lines are written in appends of up to 1,000, each
    of which is atomic. Lines with ids can be repeated: an event that is in the log is not written again.
    """
    url, event_type = split_arguments(url, event_type)
    output = Output(as_json)
    condition = build_condition(unless_types, unless_tags)
    if after is not None and condition is None:
        raise typer.BadParameter(
            "name the events that must not exist: --unless-tag or --unless-type.", param_hint="--after"
        )
    if event_type is not None:
        event = build_event(
            event_type,
            read_payload(data),
            tags=tags or [],
            event_id=event_id,
            occurred=None if occurred is None else parse_time(occurred),
            metadata=build_metadata(meta or []),
        )
        with open_store(url, create=create) as store:
            receipt = store.append_encoded(event, unless=condition, after=parse_position_or_cursor(after), key=key)
            print_receipt(output, receipt)
        return
    refuse_event_options(data=data, tag=tags, id=event_id, occurred=occurred, meta=meta)
    if not atomic and (condition is not None or key is not None):
        raise typer.BadParameter("a condition or key applies to one append. Add --atomic.", param_hint="--atomic")
    with open_store(url, create=create) as store:
        if atomic:
            events = read_all_events(stdin())
            where = parse_position_or_cursor(after)
            print_receipt(output, store.append_encoded(*events, unless=condition, after=where, key=key))
        else:
            append_lines(output, store, batch)


def split_arguments(url: str | None, event_type: str | None) -> tuple[str | None, str | None]:
    """The store, and the type of the one event; no type, or -, stands for JSON lines on standard input."""
    url, others = split_store_argument(url, [] if event_type is None else [event_type])
    if len(others) > 1:
        raise typer.BadParameter(f"{others[1]!r} is one argument too many.", param_hint="TYPE")
    if url == STANDARD_INPUT:
        hint = f"- is standard input. Name the store before it, or set {STORE_VARIABLE}."
        raise typer.BadParameter(hint, param_hint="STORE")
    return url, None if others in ([], [STANDARD_INPUT]) else others[0]


def refuse_event_options(**of_one_event: Any) -> None:
    """Refuse options of a single event for JSON lines, and lines from a terminal."""
    for name, value in of_one_event.items():
        if value:
            raise typer.BadParameter(f"--{name} applies to a single event. Name its TYPE.", param_hint="TYPE")
    if sys.stdin.isatty():
        raise typer.BadParameter("name the event's type, or pipe JSON lines in.", param_hint="TYPE")


def stdin() -> IO[bytes]:
    """The bytes of standard input."""
    return sys.stdin.buffer


def append_lines(output: Output, store: Store, batch: int) -> None:
    """Append the lines of standard input in batches. On an error or Ctrl-C, print how many were appended."""
    read, written, repeated = 0, 0, 0
    try:
        for events in read_batches(stdin(), batch):
            receipt = store.append_encoded(*events)
            read += len(events)
            written += 0 if receipt.repeated else len(events)
            repeated += len(events) if receipt.repeated else 0
            if output.is_json:
                output.write_value(msgspec.to_builtins(from_receipt(receipt)))
                output.flush()
    except (EventfoldError, KeyboardInterrupt):
        if read:
            print_note(f"The first {count_of(read, 'event')} of the input {'is' if read == 1 else 'are'} in the log.")
        raise
    if not output.is_json:
        again = (
            f" {count_of(repeated, 'event')} {'was' if repeated == 1 else 'were'} already in the log."
            if repeated
            else ""
        )
        output.print(f"Appended {count_of(written, 'event')}; the log ends at position {store.head():,}.{again}")


def build_condition(types: list[str] | None, tags: list[str] | None) -> Query | None:
    """The query of events whose existence refuses the append."""
    return Query.of(types or (), tags or ()) if types or tags else None


def read_payload(text: str | None) -> bytes:
    """The payload of `--data`, without whitespace. Raises InvalidInput."""
    if text is None:
        return b"{}"
    if text == STANDARD_INPUT:
        raw = stdin().read()
    elif text.startswith("@"):
        try:
            raw = Path(text[1:]).read_bytes()
        except OSError as error:
            raise InvalidInput(
                f"{text[1:]} cannot be read: {error.strerror}.", "Name a readable file of JSON."
            ) from error
    else:
        raw = text.encode("utf-8", "surrogateescape")
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"The data is not JSON: {error}.",
            """Write a JSON object in quotes, for example --data '{"amount": "80"}'.""",
        ) from error
    return msgspec.json.format(raw, indent=-1)


def build_metadata(pairs: list[str]) -> bytes:
    """The metadata of `--meta`, as JSON. Raises InvalidInput."""
    metadata: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidInput(f"--meta {pair!r} is not a pair.", "Write KEY=VALUE, as in --meta actor=teller-7.")
        metadata[key] = value
    return encode_metadata(metadata) or b"{}"


def print_receipt(output: Output, receipt: Receipt) -> None:
    """Print a receipt."""
    if output.is_json:
        output.write_value(msgspec.to_builtins(from_receipt(receipt)))
        return
    many = receipt.last > receipt.first
    where = f"positions {receipt.first:,} to {receipt.last:,}" if many else f"position {receipt.first:,}"
    name = "" if many else f", id {format_id(receipt.ids[0])}"
    done = "Nothing written: already in the log at" if receipt.repeated else "Appended at"
    output.print(f"{done} {where}, recorded {format_second(receipt.time)} UTC{name}.")
