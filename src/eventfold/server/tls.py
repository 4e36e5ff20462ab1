"""TLS: certificates that are loaded again when their files change, without a restart.

Each handshake uses the context that is current: a whole one, made and checked before it is used. A pair of files that
does not fit, for example while only one of them was replaced, is reported and not used.
Knows: ssl, files. Does not know: sockets, HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
from pathlib import Path

from eventfold.concurrency import in_thread
from eventfold.errors import InvalidInput
from eventfold.server.settings import TlsSettings

log = logging.getLogger("eventfold.server")


class Certificates:
    """The certificate of a server, and those of clients that it accepts. Raises InvalidInput if it cannot be used."""

    def __init__(self, settings: TlsSettings) -> None:
        if settings.certificate is None:
            raise InvalidInput("TLS is configured without a certificate.", "Set tls.certificate and tls.key.")
        self._settings = settings
        self._paths = [Path(each) for each in (settings.certificate, settings.key, settings.client_ca) if each]
        self._state = self._file_state()
        self._current = self._context()
        self.context = self._context()
        self.context.sni_callback = self._choose  # called for every handshake, also without a name

    def reload(self) -> bool:
        """Use the files as they are now for new handshakes. False if they cannot be used: the ones before stay."""
        state = self._file_state()
        try:
            self._current = self._context()
        except InvalidInput as error:
            log.error("The certificate was not loaded again, and the one before stays in use: %s", error)
            return False
        self._state = state
        log.info("The certificate was loaded again.")
        return True

    def is_changed(self) -> bool:
        """Whether a file is another one than when it was loaded."""
        return self._file_state() != self._state

    async def watch(self) -> None:
        """Load the files again when they have changed, and at SIGHUP, until cancelled."""
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread; Windows
            loop.add_signal_handler(signal.SIGHUP, asked.set)
        refused: object = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.check_seconds):
                    await asked.wait()
            was_asked = asked.is_set()
            asked.clear()
            state = await in_thread(self._file_state)
            if was_asked or (state not in (self._state, refused)):
                refused = None if await in_thread(self.reload) else state

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, own: ssl.SSLContext) -> None:
        connection.context = self._current

    def _context(self) -> ssl.SSLContext:
        settings = self._settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(str(settings.certificate), settings.key, password=lambda: "")
            if settings.client_ca is not None:
                context.load_verify_locations(settings.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            reason = "it does not fit its key, has a password, or is not PEM"
            if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
                reason = error.strerror or str(error)
            raise InvalidInput(
                f"The certificate {settings.certificate} cannot be used: {reason}.",
                "Give a chain of certificates and its private key, without a password, in PEM files.",
            ) from error
        return context

    def _file_state(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_state_of(path) for path in self._paths)


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
