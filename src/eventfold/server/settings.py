"""The settings of a server: sections of values with their defaults.

Knows: names, types, limits and defaults of settings. Does not know: where a value comes from (settings_sources.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from eventfold.alerts.delivery.settings import TargetSettings
from eventfold.server.access.settings import AccessSettings as AccessSettings

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Bytes = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65_535)]


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server listens, and how it ends."""

    host: str = "127.0.0.1"
    port: Port = 8000  # 0: the system chooses a free one
    unix_socket: str | None = None  # a path; host and port are then not used
    root_path: str = ""  # the path of the server behind a proxy that removes it
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")  # whose X-Forwarded-For and -Proto are used
    create: bool = False  # create stores that do not exist
    shutdown_seconds: Seconds = 20.0  # how long requests in progress may still run after SIGTERM


class EventSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What clients may write."""

    accept_unknown: bool = False  # also types that are neither registered in Python nor by a JSON Schema


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of connections and requests. What is larger or slower is refused or ended."""

    connections: Count = 10_000  # at most; fewer if the process may open fewer files
    header_bytes: Bytes = 32_768  # of the request line and the headers together
    header_count: Count = 128
    header_seconds: Seconds = 10.0  # from the first byte (or the connection) to the end of the headers
    body_bytes: Bytes = 32 * 1024 * 1024
    bodies_bytes: Bytes = 512 * 1024 * 1024  # of bodies that are held at once; one caller may have half of it
    body_bytes_per_second: Bytes = 1_024  # a body that comes more slowly is refused, after body_grace_seconds
    body_grace_seconds: Seconds = 20.0
    idle_seconds: Seconds = 30.0  # how long a connection stays open between two requests
    calls: Count = 1_000  # handled at once, health and followers apart; more wait
    waiting_calls: Count = 4_000  # more are refused with 503
    wait_seconds: Seconds = 5.0  # how long a call may wait before it is refused with 503
    stall_seconds: Seconds = 30.0  # how long a client may read nothing of a response that waits for it


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """TLS, from 1.2 on. Without a certificate the server speaks plain HTTP."""

    certificate: str | None = None  # a PEM file: the certificate and those that lead to its authority
    key: str | None = None  # a PEM file with the private key; by default in the file of the certificate
    client_ca: str | None = None  # a PEM file: only clients with a certificate of these authorities may connect
    check_seconds: Seconds = 10.0  # how often is checked whether a file has changed; SIGHUP checks at once


class LiveSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Followers: streams of Server-Sent Events."""

    reader_bytes: Annotated[int, Meta(ge=65_536)] = 1_048_576  # may wait for one reader; a slower one is dropped
    streams: Count = 10_000  # at a time; further clients are asked to connect again later
    heartbeat_seconds: Seconds = 15.0  # after so long without an event a reader gets a comment
    check_seconds: Annotated[float, Meta(gt=0, le=25)] = 20.0  # how often the credential of a reader is verified again
    spread_seconds: Seconds = 10.0  # on shutdown clients are asked to connect again at random moments within this time
    pause_seconds: Annotated[float, Meta(ge=0, le=1)] = 0.005  # what is appended meanwhile is sent in one write


class HealthSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When the server says that it is not ready."""

    check_seconds: Seconds = 2.0  # a store that has not answered by then is not reachable
    free_disk_bytes: Annotated[int, Meta(ge=0)] = 100 * 1024 * 1024  # less: not ready


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the server logs, on standard error."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: bool = True  # one line for each request


class MetricsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics for Prometheus, at /metrics."""

    record: bool = True  # count calls, appends and reads; without it /metrics has the state of the stores only
    loopback_without_key: bool = False  # programs of this machine may read /metrics without a credential


class BackupSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Backups over HTTP."""

    folder: str | None = None  # where the copy is made, and removed afterwards; by default beside the store


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a server."""

    stores: dict[str, str] = {}  # name → address
    modules: tuple[str, ...] = ()  # import paths of modules with events, States, projections and processes
    read_only: bool = False  # every route that writes is refused
    server: ServerSettings = ServerSettings()
    events: EventSettings = EventSettings()
    limits: LimitSettings = LimitSettings()
    access: AccessSettings = AccessSettings()
    tls: TlsSettings = TlsSettings()
    live: LiveSettings = LiveSettings()
    health: HealthSettings = HealthSettings()
    logs: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    backup: BackupSettings = BackupSettings()
    deliver: dict[str, TargetSettings] = {}  # name → a target that is sent messages about alerts
