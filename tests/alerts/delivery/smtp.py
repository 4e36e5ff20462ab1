"""A small SMTP server on loopback, a thread for each connection: STARTTLS, AUTH PLAIN, refusals that a test sets."""

from __future__ import annotations

import base64
import socketserver
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from email.policy import default
from pathlib import Path
from typing import Any

PASSWORD = "correct-horse-battery"


class Smtp:
    """`mails`: what was accepted; `encrypted`: for each whether the connection was; `refuse`: an answer to RCPT."""

    def __init__(self, certificate: Path | None, key: Path | None) -> None:
        self.mails: list[Message] = []
        self.encrypted: list[bool] = []
        self.users: list[str] = []
        self.refuse: dict[str, str] = {}
        self.broken = 0
        self.context: ssl.SSLContext | None = None
        if certificate is not None and key is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate, key)
        smtp = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                Conversation(smtp, self.request).run()

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                smtp.broken += 1  # the client did not accept the certificate

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Conversation:
    """One connection."""

    def __init__(self, smtp: Smtp, connection: Any) -> None:
        self._smtp, self._connection = smtp, connection
        self._lines = connection.makefile("rb")
        self._is_encrypted = False

    def run(self) -> None:
        """Answer until the client leaves."""
        try:
            self._talk()
        finally:
            self._lines.close()
            self._connection.close()

    def _talk(self) -> None:
        self._say("220 test")
        while line := self._lines.readline():
            word = line.decode().split(" ")[0].strip().upper()
            if word == "QUIT":
                self._say("221 bye")
                return
            if word == "DATA":
                self._take()
            elif word == "STARTTLS":
                self._encrypt()
            else:
                self._say(self._answer(word, line.decode().strip()))

    def _answer(self, word: str, line: str) -> str:
        match word:
            case "EHLO":
                extensions = ["AUTH PLAIN"] if self._is_encrypted else ["STARTTLS"] if self._smtp.context else []
                return "\r\n".join([*(f"250-{each}" for each in ["test", *extensions]), "250 8BITMIME"])
            case "AUTH":
                _, user, password = base64.b64decode(line.split(" ")[2]).decode().split("\0")
                if password != PASSWORD:
                    return f"535 5.7.8 {password} is not the password of {user}"
                self._smtp.users.append(user)
                return "235 welcome"
            case "RCPT":
                return next((said for to, said in self._smtp.refuse.items() if to in line), "250 ok")
            case _:
                return "250 ok"

    def _take(self) -> None:
        self._say("354 go on")
        data = b""
        while (line := self._lines.readline()) != b".\r\n":
            data += line.removeprefix(b".")
        self._smtp.mails.append(message_from_bytes(data, policy=default))
        self._smtp.encrypted.append(self._is_encrypted)
        self._say("250 taken")

    def _encrypt(self) -> None:
        assert self._smtp.context is not None
        self._say("220 begin")
        self._lines.close()
        self._connection = self._smtp.context.wrap_socket(self._connection, server_side=True)
        self._lines = self._connection.makefile("rb")
        self._is_encrypted = True

    def _say(self, text: str) -> None:
        self._connection.sendall(text.encode() + b"\r\n")


@contextmanager
def smtp_server(certificate: Path | None = None, key: Path | None = None) -> Generator[Smtp]:
    """Run a server; with a certificate it offers STARTTLS."""
    smtp = Smtp(certificate, key)
    try:
        yield smtp
    finally:
        smtp.close()
