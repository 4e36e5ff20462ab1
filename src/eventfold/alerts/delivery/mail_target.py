"""A target that is e-mail, by SMTP. STARTTLS is required unless the user chooses otherwise.

A message's `Message-ID` is derived from its id, and it refers to the message that announced the episode: so repeats,
reminders and the end are one thread, and a repeated delivery is recognised.
Knows: SMTP (the standard library's), mail headers. Does not know: when a message is sent.
"""

from __future__ import annotations

import base64
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import format_datetime, getaddresses, parseaddr
from typing import Literal

from eventfold.alerts.delivery.message import Message
from eventfold.alerts.delivery.target import RETRIED
from eventfold.core.envelope import from_micros
from eventfold.errors import DeliveryFailed, InvalidProcess

Tls = Literal["starttls", "implicit", "none"]
PORTS: dict[Tls, int] = {"starttls": 587, "implicit": 465, "none": 25}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LONGEST_SUBJECT = 200  # characters


class Mail:
    """E-mail to `to`, by the SMTP server `server` (HOST or HOST:PORT)."""

    def __init__(
        self,
        server: str,
        sender: str,
        to: str | Sequence[str],
        user: str | None,
        password: str | None,
        tls: Tls,
        ca_file: str | None,
        timeout: float,
    ) -> None:
        self._host, self._port = _host_and_port(server, tls)
        self._sender, self._to = sender, (to,) if isinstance(to, str) else tuple(to)
        self._user, self._password, self._tls, self._ca_file, self._timeout = user, password, tls, ca_file, timeout
        self.secrets: tuple[str, ...] = () if password is None else (password, *_as_sent(user or "", password))
        for address in (sender, *self._to):
            found = getaddresses([address])
            if len(found) != 1 or "@" not in found[0][1] or not address.isprintable():
                raise InvalidProcess(
                    f"{address[:80]!r} is not one e-mail address.",
                    "Give sender=, and each of to=, as name@example.com.",
                )
        if not self._to:
            raise InvalidProcess("The e-mail target has no recipient.", "Give to=, one address or several.")
        if (user is None) != (password is None):
            raise InvalidProcess("The e-mail target has a user or a password, not both.", "Give both, or none.")
        if not f"{user or ''}{password or ''}".isascii():
            raise InvalidProcess(
                "The user or the password of the e-mail target has letters that cannot be sent.", "Use ASCII."
            )
        if tls == "none" and password is not None and self._host not in LOOPBACK:
            raise InvalidProcess(
                f"The password for {self._host} would be sent unencrypted.", 'Leave tls="none" out: STARTTLS is used.'
            )

    @property
    def description(self) -> str:
        """The server and the recipients."""
        return f"e-mail to {', '.join(self._to)} by {self._host}:{self._port}"

    def send(self, message: Message) -> None:
        """Send a message. Raises DeliveryFailed unless the server accepted it for at least one recipient."""
        try:
            with self._connected() as smtp:
                refused = smtp.send_message(self._mail(message), self._sender, self._to)
        except smtplib.SMTPRecipientsRefused as error:
            raise self._failed(f"refused every recipient: {_refusals(error.recipients)}", message) from None
        except smtplib.SMTPResponseException as error:
            raise self._failed(f"answered {error.smtp_code} {_text(error.smtp_error)}", message) from None
        except smtplib.SMTPNotSupportedError as error:
            raise self._failed(f"cannot do it: {str(error).rstrip('.')}", message, self._unsupported()) from None
        except (OSError, smtplib.SMTPException) as error:
            raise self._failed(f"could not be reached ({type(error).__name__}: {error})", message) from None
        if refused and message.kind == "test":
            raise self._failed(f"refused recipients: {_refusals(refused)}", message)

    def _connected(self) -> smtplib.SMTP:
        context = ssl.create_default_context(cafile=self._ca_file)
        if self._tls == "implicit":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=self._timeout, context=context)
        else:
            smtp = smtplib.SMTP(self._host, self._port, timeout=self._timeout)
        try:
            if self._tls == "starttls":
                smtp.starttls(context=context)
            if self._user is not None and self._password is not None:
                smtp.login(self._user, self._password)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _mail(self, message: Message) -> EmailMessage:
        domain = parseaddr(self._sender)[1].rpartition("@")[2]
        mail = EmailMessage()
        mail["Subject"] = message.title[:LONGEST_SUBJECT]
        mail["From"], mail["To"] = self._sender, ", ".join(self._to)
        mail["Date"] = format_datetime(from_micros(message.at))
        mail["Message-ID"] = f"<{message.id}@{domain}>"
        if message.root != message.id:
            mail["In-Reply-To"] = mail["References"] = f"<{message.root}@{domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.body + "\n")
        return mail

    def _failed(self, what: str, message: Message, remedy: str = RETRIED) -> DeliveryFailed:
        return DeliveryFailed(f"{self._host}:{self._port} {what}.", remedy, event_id=message.id)

    def _unsupported(self) -> str:
        if self._tls != "starttls":
            return RETRIED
        return 'Give tls="implicit" for a server that begins with TLS; tls="none" sends the text unencrypted.'


def _host_and_port(server: str, tls: Tls) -> tuple[str, int]:
    if tls not in PORTS:
        raise InvalidProcess(f"tls={tls!r} is not known.", f"Write one of {', '.join(PORTS)}.")
    host, colon, port = server.rpartition(":") if server.count(":") == 1 else (server, "", "")
    if not host or not host.isprintable() or " " in host or "/" in host or "@" in host:
        raise InvalidProcess("The e-mail target has no server.", 'Give server="mail.example.com:587".')
    if colon and not (port.isdecimal() and 0 < int(port) < 65_536):
        raise InvalidProcess(f"{port[:20]!r} is no port.", 'Give server="mail.example.com:587".')
    return host.strip("[]"), int(port) if colon else PORTS[tls]


def _as_sent(user: str, password: str) -> tuple[str, str]:
    """Return a password as AUTH LOGIN and AUTH PLAIN send it: a server may quote the line."""
    plain = f"\0{user}\0{password}"
    return base64.b64encode(password.encode()).decode(), base64.b64encode(plain.encode()).decode()


def _refusals(refused: dict[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{address} ({code} {_text(said)})" for address, (code, said) in refused.items())[:500]


def _text(said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return " ".join(text.split())[:200]
