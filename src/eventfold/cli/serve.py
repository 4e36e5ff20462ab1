"""`eventfold serve`: stores over HTTP.

Knows: flags, and which settings they set. Does not know: settings of files and variables, sockets, routes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventfold.cli.options import STORE_VARIABLE, Json, hide_password
from eventfold.cli.output import Output
from eventfold.cli.run import import_projections
from eventfold.cli.state import ImportPath
from eventfold.errors import InvalidInput, MissingExtra, StoreNotFound

if TYPE_CHECKING:
    from eventfold.server.asgi import Application
    from eventfold.server.settings_sources import Key, Loaded

LISTEN, WHAT, ACCESS = "Where", "What", "Who"


Stores = Annotated[
    list[str] | None,
    typer.Option("--store", metavar="NAME=STORE", help="A store by name. Repeated: several.", rich_help_panel=WHAT),
]
Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--module",
        metavar="MODULE",
        help="A module with events, States, read models and processes. Repeated: several.",
        rich_help_panel=WHAT,
    ),
]
AcceptUnknown = Annotated[
    bool | None, typer.Option("--accept-unknown", help="Also accept events of unknown types.", rich_help_panel=WHAT)
]
ReadOnly = Annotated[
    bool | None, typer.Option("--read-only", help="Refuse everything that writes.", rich_help_panel=WHAT)
]
Create = Annotated[bool | None, typer.Option("--create", help="Create stores that do not exist.", rich_help_panel=WHAT)]
Host = Annotated[
    str | None,
    typer.Option("--host", metavar="HOST", help="Default: 127.0.0.1.", rich_help_panel=LISTEN, show_default=False),
]
Port = Annotated[
    int | None, typer.Option("--port", help="Default: 8000. 0: a free one.", rich_help_panel=LISTEN, show_default=False)
]
UnixSocket = Annotated[
    str | None, typer.Option("--unix-socket", metavar="PATH", help="A socket file instead.", rich_help_panel=LISTEN)
]
KeyLog = Annotated[
    str | None,
    typer.Option("--keys", metavar="ADDRESS", help="The log of API keys: callers need one.", rich_help_panel=ACCESS),
]
NoAuth = Annotated[
    bool | None,
    typer.Option("--no-auth", help="Every caller has every right, also off loopback.", rich_help_panel=ACCESS),
]
TlsCertificate = Annotated[
    str | None,
    typer.Option("--tls-certificate", metavar="FILE", help="Speak TLS: the chain, as PEM.", rich_help_panel=LISTEN),
]
TlsKey = Annotated[
    str | None, typer.Option("--tls-key", metavar="FILE", help="Its private key, as PEM.", rich_help_panel=LISTEN)
]
ServedStore = Annotated[
    str | None,
    typer.Argument(
        metavar="STORE",
        help="A path, sqlite:PATH, memory:NAME or postgresql://… Without it and --store: EVENTFOLD_URL.",
        show_default=False,
    ),
]


def serve(
    url: ServedStore = None,
    stores: Stores = None,
    modules: Modules = None,
    accept_unknown: AcceptUnknown = None,
    read_only: ReadOnly = None,
    create: Create = None,
    host: Host = None,
    port: Port = None,
    unix_socket: UnixSocket = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    keys: KeyLog = None,
    no_auth: NoAuth = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings in a TOML file.", show_default=False)
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings and where they come from, and exit.")
    ] = False,
    import_path: ImportPath = ".",
    as_json: Json = None,
) -> None:
    """Serve stores over HTTP.

    Settings are read from --config, then from variables like EVENTFOLD_SERVER__PORT, then from these options: a later
    one overrides. On Ctrl-C or SIGTERM it finishes requests in progress and exits with 0; on a second signal it exits
    at once, with 130 or 143. It is one process; several may serve one store.
    """
    flags: dict[Key, tuple[str, Any]] = {
        key: (name, value)
        for key, name, value in (
            (("modules",), "--module", modules or None),
            (("events", "accept_unknown"), "--accept-unknown", accept_unknown),
            (("read_only",), "--read-only", read_only),
            (("server", "create"), "--create", create),
            (("server", "host"), "--host", host),
            (("server", "port"), "--port", port),
            (("server", "unix_socket"), "--unix-socket", unix_socket),
            (("tls", "certificate"), "--tls-certificate", tls_certificate),
            (("tls", "key"), "--tls-key", tls_key),
            (("access", "keys"), "--keys", keys),
            (("access", "no_auth"), "--no-auth", no_auth),
        )
        if value is not None
    }
    flags |= {("stores", name): ("--store", address) for name, address in _named(stores or [])}
    if url is not None:
        flags[("stores", "default")] = ("STORE", url)
    loaded = _load(config, flags)
    if print_config:
        from eventfold.server.settings_text import settings_text

        sys.stdout.write(settings_text(loaded))
        return
    settings = loaded.settings
    if not settings.stores:
        raise typer.BadParameter(f"name the store, or set {STORE_VARIABLE}.", param_hint="STORE")
    import_projections([], import_path)
    _serve(loaded, Output(as_json))


def _load(config: Path | None, flags: dict[Key, tuple[str, Any]]) -> Loaded:
    from eventfold.server.settings_sources import load_settings

    loaded = load_settings(config, os.environ, flags)
    if not loaded.settings.stores and os.environ.get(STORE_VARIABLE):
        flags[("stores", "default")] = (STORE_VARIABLE, os.environ[STORE_VARIABLE])
        loaded = load_settings(config, os.environ, flags)
    return loaded


def _serve(loaded: Loaded, output: Output) -> None:
    from eventfold.server import application

    try:
        from eventfold.server.serve import serve as run_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "eventfold":
            raise
        raise MissingExtra(
            f"The server needs the package {error.name!r}, which is not installed.",
            "Install the extra: pip install 'eventfold[server]'",
            extra="server",
        ) from error
    settings = loaded.settings

    def make() -> Application:
        return application(settings.stores, modules=settings.modules, settings=settings)

    def announce(address: str) -> None:
        path = f"{address}{settings.server.root_path}"
        if output.is_json:
            output.write_value({"url": address, "docs": f"{path}/v1/docs", "stores": list(settings.stores)})
        else:
            shown = ", ".join(f"{name} ({hide_password(store)})" for name, store in settings.stores.items())
            output.print(f"Serving {shown} at {address}. Documentation: {path}/v1/docs. Press Ctrl-C to stop.")
        sys.stdout.flush()

    try:
        run_server(make, announce)
    except StoreNotFound as error:
        raise StoreNotFound(
            error.what, f"{error.remedy} Or let the server create it: --create.", **error.fields
        ) from error


def _named(stores: list[str]) -> Iterator[tuple[str, str]]:
    for each in stores:
        name, equals, address = each.partition("=")
        if not equals or not name or not address or "/" in name:
            raise InvalidInput(
                f"--store {hide_password(each)!r} is not NAME=STORE.",
                "Write, for example, --store bank=bank.db",
                given=name,
            )
        yield name, address
