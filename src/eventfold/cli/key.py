"""`eventfold key create`, `list`, `rotate` and `revoke`: the API keys of a server, in the log that keeps them.

Knows: flags, what is printed. Does not know: how keys are stored and recognised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from eventfold.cli.command import Command, Group, help_text
from eventfold.cli.exit_codes import print_note
from eventfold.cli.formatting import escape_control
from eventfold.cli.options import Json, Wide
from eventfold.cli.output import Column, Output
from eventfold.core.moments import AGO_PATTERN, AGO_UNITS, TIME_SYNTAX, parse_time
from eventfold.errors import InvalidInput
from eventfold.log.lock_holders import whoami
from eventfold.server.access.settings import AccessSettings
from eventfold.server.scopes import Scope

if TYPE_CHECKING:
    from eventfold.server.access.key_facts import ApiKey
    from eventfold.server.access.keyring import Issued, Keyring

R = TypeVar("R")
COLUMNS = (
    Column("id", style="bold"),
    Column("name", elastic=True, style="green", min_width=8),
    Column("state"),
    Column("grants", elastic=True, min_width=20),
    Column("last used"),
)

key = typer.Typer(name="key", cls=Group, help="API keys of a server.", no_args_is_help=True)

Keys = Annotated[
    str,
    typer.Option("--keys", metavar="ADDRESS", envvar="EVENTFOLD_ACCESS__KEYS", help="The log that keeps the keys."),
]
SecretFile = Annotated[
    str | None,
    typer.Option(
        "--secret-file",
        metavar="FILE",
        envvar="EVENTFOLD_ACCESS__SECRET_FILE",
        help="The secret of the hashes. Default: beside the keys, with .secret after the name.",
        show_default=False,
    ),
]
Which = Annotated[str, typer.Argument(metavar="KEY", help="Its id, or its name if one active key has it.")]
DEFAULT_KEYS = "keys.db"


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who uses it: the actor of its events.")],
    scopes: Annotated[
        list[Scope], typer.Option("--scope", metavar="SCOPE", help=f"A right: {', '.join(Scope)}. Repeated: all.")
    ],
    stores: Annotated[
        list[str] | None, typer.Option("--store", metavar="NAME", help="Only this store. Repeated: these.")
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Only events with this tag. Repeated: or this.")
    ] = None,
    prefixes: Annotated[
        list[str] | None,
        typer.Option("--tag-prefix", metavar="PREFIX", help="Only events with a tag that begins so. Repeated: or so."),
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Only events of this type. Repeated: or this.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="TIME", help="Not valid from then on: 90d, or a time.", show_default=False),
    ] = None,
    duplicate: Annotated[bool, typer.Option("--duplicate", help="Also if an active key has this name.")] = False,
    keys: Keys = DEFAULT_KEYS,
    secret_file: SecretFile = None,
    as_json: Json = None,
) -> None:
    """Create a key, and print it: it is shown once, and only its hash is stored.

    The log of keys and its secret are created with the first key.
    """
    from eventfold.server.access.key_facts import Grant

    grant = Grant(
        scopes=tuple(dict.fromkeys(scopes)),
        stores=tuple(stores) if stores else None,
        tags=tuple(tags or ()),
        tag_prefixes=tuple(prefixes or ()),
        types=tuple(types or ()),
    )
    end = None if expires is None else parse_end(expires)

    async def act(keyring: Keyring) -> Issued:
        return await keyring.create(name, grant, actor=whoami(), expires=end, duplicate=duplicate)

    _print_key(_with_keyring(keys, secret_file, act, new=True), as_json)


def list_keys(
    keys: Keys = DEFAULT_KEYS, secret_file: SecretFile = None, as_json: Json = None, wide: Wide = False
) -> None:
    """List the keys: what each grants, whether it is active, and when it was used last."""

    async def act(keyring: Keyring) -> list[ApiKey]:
        return await keyring.list()

    found, output, now = _with_keyring(keys, secret_file, act), Output(as_json, wide), datetime.now(UTC)
    if output.is_json:
        from eventfold.server.access.key_info import key_info

        for each in found:
            output.write_value(key_info(each))
    elif not found:
        output.print("There are no keys.")
    else:
        output.print_table(
            COLUMNS,
            [
                (each.key, escape_control(each.name), each.state(now), escape_control(_grants(each)), _used(each))
                for each in found
            ],
        )


def rotate(
    which: Which,
    grace: Annotated[
        str, typer.Option("--grace", metavar="TIME", help="How long the key from before is valid, too: 24h.")
    ] = "0s",
    keys: Keys = DEFAULT_KEYS,
    secret_file: SecretFile = None,
    as_json: Json = None,
) -> None:
    """Give a key a new secret, and print it. What the key grants, and its id, stay as they are."""
    seconds = parse_duration(grace).total_seconds()

    async def act(keyring: Keyring) -> Issued:
        return await keyring.rotate(await _id_of(keyring, which), actor=whoami(), grace_s=seconds)

    _print_key(_with_keyring(keys, secret_file, act), as_json)


def revoke(which: Which, keys: Keys = DEFAULT_KEYS, secret_file: SecretFile = None, as_json: Json = None) -> None:
    """Make a key invalid for good. Servers notice within 30 seconds."""

    async def act(keyring: Keyring) -> str:
        id = await _id_of(keyring, which)
        await keyring.revoke(id, actor=whoami())
        return id

    id, output = _with_keyring(keys, secret_file, act), Output(as_json)
    if output.is_json:
        output.write_value({"id": id, "state": "revoked"})
    else:
        output.print(f"The key {id} is revoked. Servers that run notice within 30 seconds.")


for _name, _command in (("create", create), ("list", list_keys), ("rotate", rotate), ("revoke", revoke)):
    key.command(_name, cls=Command, help=help_text(_command.__doc__))(_command)


def parse_duration(text: str) -> timedelta:
    """A duration: a number and s, m, h, d or w. Raises InvalidInput."""
    found = AGO_PATTERN.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(f"{text[:60]!r} is not a duration.", "Write a number and s, m, h, d or w, for example 24h.")
    return timedelta(**{AGO_UNITS[found[2]]: int(found[1])})


def parse_end(text: str) -> datetime:
    """A moment in the future: a duration from now, or a time; a date counts up to its last instant.

    Raises InvalidInput.
    """
    if AGO_PATTERN.fullmatch(text.strip()):
        return datetime.now(UTC) + parse_duration(text)
    try:
        end = parse_time(text, end_of_day=True)
    except InvalidInput as error:
        if error.remedy != TIME_SYNTAX:
            raise
        raise InvalidInput(
            error.what, "Write a duration from now, such as 90d, or a time: 2030-01-31T10:15Z."
        ) from error
    if end <= datetime.now(UTC):
        raise InvalidInput(f"{text[:60]!r} has passed already.", "Give a time in the future, or a duration: 90d.")
    return end


def _with_keyring(
    keys: str, secret_file: str | None, act: Callable[[Keyring], Awaitable[R]], *, new: bool = False
) -> R:
    import asyncio
    import os

    from eventfold.server.access.key_files import open_keyring

    settings = AccessSettings(
        keys=keys, secret_file=secret_file, secret=os.environ.get("EVENTFOLD_ACCESS__SECRET") or None
    )

    async def acting() -> R:
        keyring = open_keyring(settings, create=new)
        await keyring.open()
        try:
            return await act(keyring)
        finally:
            await keyring.close()

    return asyncio.run(acting())


async def _id_of(keyring: Keyring, which: str) -> str:
    now = datetime.now(UTC)
    found = await keyring.list()
    if any(each.key == which for each in found):
        return which
    named = [each.key for each in found if each.name == which and each.state(now) == "active"]
    if len(named) == 1:
        return named[0]
    what = "several active keys have" if named else "no active key has"
    raise InvalidInput(f"{what.capitalize()} the name or id {which[:60]!r}.", "Give an id: eventfold key list.")


def _print_key(issued: Issued, as_json: bool | None) -> None:
    output = Output(as_json)
    if output.is_json:
        output.write_value({"id": issued.id, "key": issued.key})
    else:
        output.write_text(issued.key)
        print_note(f"This is the key {issued.id}. Store it now: it is not shown again.")


def _grants(key: ApiKey) -> str:
    grant = key.grant
    parts = [", ".join(grant.scopes)]
    parts += [f"store {name}" for name in grant.stores or ()]
    parts += [*grant.tags, *(f"{prefix}…" for prefix in grant.tag_prefixes), *grant.types]
    return "; ".join(parts)


def _used(key: ApiKey) -> str:
    return "never" if key.last_used is None else f"{key.last_used:%Y-%m-%d %H:%M}"
