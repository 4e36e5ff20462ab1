"""Runs an application on a socket until a signal ends it: binding, uvicorn, graceful shutdown.

Knows: sockets, signals, uvicorn. Does not know: routes, where settings come from.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import signal
import socket
import stat
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.lifespan.off import LifespanOff

from eventfold.errors import InvalidInput
from eventfold.server.access.reachable import check_reachable
from eventfold.server.asgi import Application
from eventfold.server.known_heads import KnownHeads
from eventfold.server.logs import configure_logs
from eventfold.server.protocol import LimitedConfig, LimitedProtocol
from eventfold.server.reopening import Reopening
from eventfold.server.settings import ServerSettings, Settings, TlsSettings
from eventfold.server.short_path import ShortPath
from eventfold.server.tls import Certificates

log = logging.getLogger("eventfold.server")
NEW_OBJECTS = 10_000  # that are made until they are looked through; 700 by default
RESERVED_FILES = 256  # of the process's limit: for stores, their temporary files, logs
Announce = Callable[[str], None]


def serve(make: Callable[[], Application], announce: Announce) -> None:
    """Serve an application until SIGTERM or SIGINT; `announce` is called with its address once it accepts connections.

    `make` returns the application; it is called again if a file of a store was replaced, for a new one over the same
    addresses.

    The first signal ends it in order: no new connections, requests in progress are finished for at most
    `server.shutdown_seconds`. A second signal ends the process at once, with 128 plus its number. Raises what opening
    a store raises, and InvalidInput if the address cannot be used.
    """
    app = Reopening(make, freeze_objects)
    settings = app.app.server.settings
    configure_logs(settings.logs)
    check_reachable(settings.access, None if settings.server.unix_socket else settings.server.host)
    certificates = Certificates(settings.tls) if settings.tls != TlsSettings() else None
    with listening(settings.server) as (listener, url):
        config = config_of(app, settings)
        config.certificates = certificates
        url = url if certificates is None else url.replace("http:", "https:", 1)
        server = SignalledServer(config, app, lambda: announce(url))
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(app, server, listener, certificates))


async def _run(
    app: Reopening, server: SignalledServer, listener: socket.socket, certificates: Certificates | None
) -> None:
    watching = None if certificates is None else asyncio.create_task(certificates.watch())
    async with app.lifespan():
        await server.serve(sockets=[listener])
    if watching is not None:
        watching.cancel()
    log.info("The server has ended.")


def freeze_objects() -> None:
    """Exclude from garbage collection what exists now: modules, routes, stores that were opened.

    It would look through all of it again and again, which took a quarter of the CPU time of an append. New objects are
    looked through less often than by default: a hundred requests in progress have thousands, and few are garbage.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 10, 10)


def config_of(app: Reopening, settings: Settings) -> LimitedConfig:
    """Return the configuration of uvicorn for an application, with our limits and the short path of appends."""
    config = LimitedConfig(
        app,
        http=LimitedProtocol,
        ws="none",
        lifespan="off",  # entered by _run, so that an error keeps its class
        log_config=None,
        access_log=False,
        server_header=False,
        root_path=settings.server.root_path,
        forwarded_allow_ips=list(settings.server.trusted_proxies),
        timeout_keep_alive=math.ceil(settings.limits.idle_seconds),
        timeout_graceful_shutdown=math.ceil(settings.server.shutdown_seconds),
    )
    config.limits = settings.limits
    heads = KnownHeads(settings.limits.header_bytes, settings.limits.header_count, config.root_path)
    config.short_path = ShortPath(app, heads)
    config.max_connections = min(settings.limits.connections, max(1, raise_file_limit() - RESERVED_FILES))
    return config


def raise_file_limit() -> int:
    """Raise the number of files that this process may open to what the system allows, and return it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


class SignalledServer(uvicorn.Server):
    """uvicorn's server: it ends with exit code 0 after a signal, and notifies followers before it waits for them."""

    def __init__(self, config: LimitedConfig, app: Reopening, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._app, self._announce = app, started

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals while the server runs; uvicorn would raise them again afterwards."""
        earlier = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in order at the first signal, at once at the second."""
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections. A TLS handshake has as much time as the head of a request."""
        config = self.config
        assert isinstance(config, LimitedConfig)
        assert isinstance(self.lifespan, LifespanOff)

        def connection() -> asyncio.Protocol:
            return LimitedProtocol(config, self.server_state, {})

        loop, handshake = asyncio.get_running_loop(), config.limits.header_seconds if config.ssl else None
        self.servers = [
            await loop.create_server(
                connection, sock=each, ssl=config.ssl, backlog=config.backlog, ssl_handshake_timeout=handshake
            )
            for each in sockets or []
        ]
        self.started = True
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, notify followers, wait for requests in progress."""
        log.info("The server ends: it finishes requests in progress and accepts no others.")
        for server in self.servers:
            server.close()
        self._app.app.server.running.stopping.set()
        await super().shutdown(sockets)


@contextlib.contextmanager
def listening(settings: ServerSettings) -> Generator[tuple[socket.socket, str], None, None]:
    """A bound socket and its address. Raises InvalidInput if the address cannot be used."""
    if settings.unix_socket is not None:
        path = Path(settings.unix_socket)
        with _bound_unix(path) as listener:
            yield listener, f"unix:{path}"
            with contextlib.suppress(OSError):
                path.unlink()
        return
    with _bound_tcp(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        yield listener, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bound_tcp(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidInput(
            f"The host {host!r} is not known here: {error.strerror}.", "Name an address of this machine in --host."
        ) from error
    family, kind, protocol, _name, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"The server cannot listen at {host}, port {port}: {(error.strerror or str(error)).lower()}.",
            "Choose another port by --port (0: a free one), or end the program that uses it.",
            host=host,
            port=port,
        ) from error
    return listener


def _bound_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_unused(path)
        listener.bind(str(path))
        path.chmod(0o660)
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"The server cannot listen at {path}: {(error.strerror or str(error)).lower()}.",
            "Choose another path by --unix-socket, or end the program that uses it.",
            path=str(path),
        ) from error
    return listener


def _remove_unused(path: Path) -> None:
    """Remove a socket that a server left behind, for example after kill -9. Raises OSError if a server listens."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(98, "address already in use")
