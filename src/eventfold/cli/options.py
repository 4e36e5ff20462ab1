"""Parameters that several commands share, and how a command turns them into a store, a query, a position or a time.

    --type A --type B --tag x:1 --tag y:2      any of the types, all of the tags
    --where "type=A,B tag=x:1 tag=y:2"         the same as one alternative; each further --where is another

Knows: names and help of the parameters, EVENTFOLD_URL, the syntax of --where, shell completion.
Does not know: what any command does with them.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import typer

from eventfold.cli.exit_codes import JSON_REQUESTED
from eventfold.core.moments import parse_time
from eventfold.core.query import Cursor, Query
from eventfold.engines.addresses import without_secrets
from eventfold.engines.entry_points import has_registered_scheme
from eventfold.errors import EventfoldError, InvalidInput, InvalidQuery, StoreNotFound, TargetUnavailable
from eventfold.store import Store
from eventfold.targets import file_of


def parse_since(text: str | None) -> datetime | None:
    """The time of `--since`: a date counts from its first instant."""
    return None if text is None else parse_time(text)


def parse_until(text: str | None) -> datetime | None:
    """The time of `--occurred-until`: a date counts up to its last instant."""
    return None if text is None else parse_time(text, end_of_day=True)


WHERE_SYNTAX = 'Write type=A,B and tag=x:1, separated by spaces: --where "type=Opened,Closed tag=account:a-1".'


def build_query(types: list[str] | None, tags: list[str] | None, where: list[str] | None) -> Query:
    """The query of --type, --tag and --where; the one for all events if none is given. Raises InvalidQuery."""
    queries = [parse_where(text) for text in where or ()]
    if types or tags:
        queries.insert(0, Query.of(types or (), tags or ()))
    if not queries:
        return Query()
    query = queries[0]
    for each in queries[1:]:
        query |= each
    return query


def parse_where(text: str) -> Query:
    """One `--where` as a query. Raises InvalidQuery if it cannot be parsed or is empty."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidQuery(f"--where {text!r} cannot be parsed: {str(error).lower()}.", WHERE_SYNTAX) from error
    types: list[str] = []
    tags: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value or key not in ("type", "tag"):
            raise InvalidQuery(f"--where {text!r} has {word!r}, which is neither type=… nor tag=….", WHERE_SYNTAX)
        if key == "tag":
            tags.append(value)
        else:
            types.extend(value.split(","))
    if not types and not tags:
        raise InvalidQuery("A --where is empty.", WHERE_SYNTAX)
    return Query.of(types, tags)


MAX_COMPLETIONS = 50


def complete_type(ctx: typer.Context, incomplete: str) -> list[str]:
    """Shell completion: event types in the store with this prefix."""

    def matching_types(store: Store) -> Iterable[str]:
        return (each.type for each in store.types() if each.type.startswith(incomplete))

    return _complete(ctx, matching_types)


def complete_tag(ctx: typer.Context, incomplete: str) -> list[str]:
    """Shell completion: tags in the store with this prefix."""
    return _complete(ctx, lambda store: (each.tag for each in store.tags(incomplete, limit=MAX_COMPLETIONS)))


def _complete(ctx: typer.Context, find: Callable[[Store], Iterable[str]]) -> list[str]:
    words = [word for word in ctx.args if not word.startswith("-")]  # of a line that is not finished yet
    url = ctx.params.get("url") or next(iter(words), None) or os.environ.get("EVENTFOLD_URL")
    if not url:
        return []
    try:
        with Store(url, create=False) as store:
            return list(find(store))[:MAX_COMPLETIONS]
    except EventfoldError:
        return []


STORE_VARIABLE = "EVENTFOLD_URL"
STORE_PATTERN = re.compile(
    r"(?:memory|sqlite|file|postgres|postgresql|https?|nats|tls):.*|.*[/\\].*|.*\.(?:db|sqlite3?)|:memory:"
)


def _remember_json(context: typer.Context, value: bool | None) -> bool | None:
    context.meta[JSON_REQUESTED] = value is True
    return value


Url = Annotated[
    str | None,
    typer.Argument(
        metavar="STORE",
        envvar=STORE_VARIABLE,
        help="A path, sqlite:PATH, memory:NAME, postgresql://…, nats://… or http://…",
        show_default=False,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="URL",
        help="The database of read models and of progress. Default: the store's own; a server needs one.",
        show_default=False,
    ),
]
Json = Annotated[
    bool | None,
    typer.Option(
        "--json/--no-json",
        " /--table",
        help="JSON lines, or tables. Default: tables on a terminal, JSON lines in a pipe.",
        callback=_remember_json,
        is_eager=True,
        show_default=False,
        rich_help_panel="Output",
    ),
]
Wide = Annotated[
    bool,
    typer.Option("--wide", help="Do not truncate; lines may be longer than the terminal.", rich_help_panel="Output"),
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        help="Events of this type. Repeated: of any of these types.",
        rich_help_panel="Which",
        autocompletion=complete_type,
    ),
]
Tags = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="TAG",
        help="Events with this tag. Repeated: with all of these tags.",
        rich_help_panel="Which",
        autocompletion=complete_tag,
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="ITEM",
        help="An alternative, like 'type=A,B tag=x:1 tag=y:2'. Repeated: events that match any.",
        rich_help_panel="Which",
    ),
]
After = Annotated[
    str | None,
    typer.Option("--after", metavar="POSITION|CURSOR", help="Only events after it.", rich_help_panel="Which"),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Only events recorded at this time or later.", rich_help_panel="Which"
    ),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="POSITION|TIME", help="Only events up to it, inclusive.", rich_help_panel="Which"),
]
OccurredSince = Annotated[
    str | None,
    typer.Option(
        "--occurred-since",
        metavar="TIME",
        help="Occurred (else recorded) at this time or later; still in log order.",
        rich_help_panel="Which",
    ),
]
OccurredUntil = Annotated[
    str | None,
    typer.Option(
        "--occurred-until",
        metavar="TIME",
        help="Occurred (else recorded) by this time, inclusive; still in log order.",
        rich_help_panel="Which",
    ),
]


def split_store_argument(url: str | None, others: list[str], needed: int = 0) -> tuple[str | None, list[str]]:
    """Split the arguments into the store and the rest.

    The first argument is the store, unless EVENTFOLD_URL is set and the argument does not look like a store, or fewer
    than `needed` arguments would be left. It looks like a store if it has a scheme, a slash, or ends in .db, .sqlite
    or .sqlite3.
    """
    default = os.environ.get(STORE_VARIABLE)
    if url and default and url != default and (len(others) < needed or not _looks_like_a_store(url)):
        return default, [url, *others]
    return url, others


def _looks_like_a_store(text: str) -> bool:
    return STORE_PATTERN.fullmatch(text) is not None or has_registered_scheme(text)


@contextmanager
def open_store(
    url: str | None, *, create: bool = False, target: str | None = None, creates_target: bool = False
) -> Generator[Store, None, None]:
    """Open the store at an address, and close it afterwards. It is created only if `create`. Raises StoreNotFound.

    `target`: the address of the database of its read models; None: its own. A file that does not exist is created only
    if `creates_target`: a command that only looks would leave an empty database. Raises TargetUnavailable.
    """
    if not url:
        raise typer.BadParameter(f"name the store, or set {STORE_VARIABLE}.", param_hint="STORE")
    if target and not creates_target and (path := file_of(target)) is not None and not os.path.exists(path):
        raise TargetUnavailable(
            f"There is no database of read models at {path}.",
            "Correct --target. `eventfold run` creates it when it runs read models there.",
            address=hide_password(target),
        )
    try:
        store = Store(url, create=create, target=target)
    except StoreNotFound as error:
        if create or not error.fields.get("creatable"):  # `eventfold init` would fail for the same reason
            raise
        raise StoreNotFound(
            error.what,
            f"Check the address, or create a store there: eventfold init {shlex.quote(hide_password(url))}",
            **error.fields,
        ) from error
    with store:
        try:
            yield store
        except EventfoldError as error:
            store.projections.catalog.address.in_error(error)
            raise


def hide_password(url: str) -> str:
    """An address without its password or key."""
    return without_secrets(url)


def parse_position_or_cursor(text: str | None) -> int | Cursor:
    """The value of `--after`; None is the beginning of the log. Raises InvalidInput, CursorMismatch."""
    if text is None:
        return 0
    plain = text.strip().replace(",", "").replace("_", "")
    if plain.isdecimal() and len(plain) < 19:
        return int(plain)
    if text.startswith("efc"):
        return Cursor.parse(text.strip())
    raise InvalidInput(
        f"--after {text[:60]!r} is neither a position nor a cursor.",
        "Write a number, or the text that `eventfold cursor` or `eventfold tail` printed.",
    )


def resolve_after(store: Store, after: str | None) -> int:
    """`--after` as a position of this store. Raises CursorMismatch."""
    given = parse_position_or_cursor(after)
    return store.verify(given) if isinstance(given, Cursor) else given
