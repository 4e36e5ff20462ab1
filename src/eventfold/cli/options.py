"""Room: the parameters that several commands share, and how a command comes to its store.

Knows: their names, their help, EVENTFOLD_URL. Does not know: what any command does with them.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer

from eventfold.cli.completing import stored_tags, stored_types
from eventfold.cli.ending import ASKED_FOR_JSON
from eventfold.core.query import Cursor
from eventfold.errors import InvalidInput, StoreNotFound
from eventfold.store import Store

VARIABLE = "EVENTFOLD_URL"
LOOKS_LIKE_A_STORE = re.compile(
    r"(?:memory|sqlite|file|postgres|postgresql|https?|nats):.*|.*[/\\].*|.*\.(?:db|sqlite3?)|:memory:"
)


def _remember(context: typer.Context, value: bool | None) -> bool | None:
    context.meta[ASKED_FOR_JSON] = value is True
    return value


Url = Annotated[
    str | None,
    typer.Argument(
        metavar="STORE",
        envvar=VARIABLE,
        help="A path, sqlite:PATH, memory:NAME or postgresql://…",
        show_default=False,
    ),
]
Json = Annotated[
    bool | None,
    typer.Option(
        "--json/--no-json",
        " /--table",
        help="JSON lines, or tables. Without either: tables on a terminal, JSON lines in a pipe.",
        callback=_remember,
        is_eager=True,
        show_default=False,
        rich_help_panel="Output",
    ),
]
Wide = Annotated[
    bool, typer.Option("--wide", help="Cut nothing; lines may be longer than the terminal.", rich_help_panel="Output")
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        help="Events of this type. Repeat it: any of them.",
        rich_help_panel="Which",
        autocompletion=stored_types,
    ),
]
Tags = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="TAG",
        help="Events with this tag. Repeat it: all of them.",
        rich_help_panel="Which",
        autocompletion=stored_tags,
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="ITEM",
        help="Another alternative, like 'type=A,B tag=x:1 tag=y:2'. Repeat it: either of them.",
        rich_help_panel="Which",
    ),
]
After = Annotated[
    str | None,
    typer.Option("--after", metavar="POSITION|CURSOR", help="Only what comes after it.", rich_help_panel="Which"),
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Recorded at this time or later.", rich_help_panel="Which"),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="POSITION|TIME", help="Up to and including it.", rich_help_panel="Which"),
]
OccurredSince = Annotated[
    str | None,
    typer.Option(
        "--occurred-since",
        metavar="TIME",
        help="Occurred at this time or later (else recorded); the order stays that of recording.",
        rich_help_panel="Which",
    ),
]
OccurredUntil = Annotated[
    str | None,
    typer.Option(
        "--occurred-until",
        metavar="TIME",
        help="Occurred by this time, inclusive (else recorded); the order stays that of recording.",
        rich_help_panel="Which",
    ),
]


def addressed(url: str | None, others: list[str], needed: int = 0) -> tuple[str | None, list[str]]:
    """Which of the arguments names the store, and which are left.

    The first does, unless EVENTFOLD_URL is set and it does not look like a store (`needed`: how many others
    there must be at least). It looks like one with a scheme, a slash, or .db, .sqlite or .sqlite3 at its end.
    """
    default = os.environ.get(VARIABLE)
    if url and default and url != default and (len(others) < needed or not LOOKS_LIKE_A_STORE.fullmatch(url)):
        return default, [url, *others]
    return url, others


@contextmanager
def opened(url: str | None, *, create: bool = False) -> Generator[Store, None, None]:
    """The store at an address, closed afterwards. It is made only if `create`. Raises StoreNotFound and its kin."""
    if not url:
        raise typer.BadParameter(f"name the store, or set {VARIABLE}.", param_hint="STORE")
    try:
        store = Store(url, create=create)
    except StoreNotFound as error:
        if create or not error.fields.get("creatable"):  # `init` would fail for the same reason
            raise
        raise StoreNotFound(
            error.what,
            f"Check the address, or make a store there: eventfold init {shlex.quote(without_password(url))}",
            **error.fields,
        ) from error
    with store:
        yield store


def without_password(url: str) -> str:
    """An address as it may be shown."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:…@", url)


def position_or_cursor(text: str | None) -> int | Cursor:
    """What `--after` means; nothing given is the beginning. Raises InvalidInput, CursorMismatch."""
    if text is None:
        return 0
    plain = text.strip().replace(",", "").replace("_", "")
    if plain.isdecimal() and len(plain) < 19:
        return int(plain)
    if text.startswith("efc"):
        return Cursor.parse(text.strip())
    raise InvalidInput(
        f"--after {text[:60]!r} is neither a position nor a cursor.",
        "Write a number, or the text that `eventfold cursor` or `eventfold tail` gave.",
    )


def position_in(store: Store, after: str | None) -> int:
    """`--after` as a position of this store. Raises CursorMismatch."""
    given = position_or_cursor(after)
    return store.verify(given) if isinstance(given, Cursor) else given
