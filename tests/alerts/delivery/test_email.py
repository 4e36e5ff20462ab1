"""E-mail: STARTTLS is required, an episode is one thread, a repeat is recognised, refusals are reported."""

from __future__ import annotations

import base64
import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.delivery.facts import HOUR, cleared, micros, raised, record, until
from tests.alerts.delivery.smtp import PASSWORD, smtp_server

x509 = pytest.importorskip("cryptography.x509")

from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.x509.oid import NameOID  # noqa: E402

import eventfold as ef  # noqa: E402
from eventfold.alerts import delivery  # noqa: E402
from eventfold.alerts.delivery import Delivery  # noqa: E402
from eventfold.alerts.delivery.target import without_secrets  # noqa: E402
from eventfold.errors import DeliveryFailed, InvalidProcess, ProcessError  # noqa: E402

TO = "on-call@example.com"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, that is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "localhost.pem", folder / "localhost.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


def mail(address: str, **options: Any) -> Delivery:
    """A delivery by e-mail without waiting."""
    given: dict[str, Any] = {"sender": "Shop <shop@example.com>", "to": TO, "group": 0, "group_page": 0, **options}
    return delivery.email(address, **given)


def test_an_episode_is_one_thread_of_mails(files: tuple[Path, Path]) -> None:
    """The reminder and the end refer to the first mail; each has an id of its own, derived from the message."""
    with smtp_server(*files) as smtp, ef.Store("memory:") as store:
        target = mail(smtp.address, ca_file=str(files[0]), user="shop", password=PASSWORD, store="shop")
        first, begin = raised("c-1", micros()), micros()
        record(store, first)
        store.run_until_idle(target, clock=lambda: begin + HOUR)
        store.run_until_idle(target, clock=lambda: begin + 6 * HOUR)
        record(store, cleared(first, begin))
        store.run_until_idle(target, clock=lambda: begin + 7 * HOUR)
    assert [each["Subject"] for each in smtp.mails] == [
        "[page] CardTesting c-1: c-1 fails.",
        "[page] CardTesting c-1 is still raised after 6 h",
        "CardTesting c-1 is cleared",
    ]
    identities = [each["Message-ID"] for each in smtp.mails]
    assert len(set(identities)) == 3 and all(each.endswith("@example.com>") for each in identities)
    assert [each["References"] for each in smtp.mails] == [None, identities[0], identities[0]]
    assert smtp.encrypted == [True] * 3 and smtp.users == ["shop"] * 3
    one = smtp.mails[0]
    assert one["To"] == TO and one["Auto-Submitted"] == "auto-generated"
    assert "- c-1: c-1 fails. (since " in str(one.get_payload()) and "in shop" in str(one.get_payload())


def test_a_server_without_starttls_or_with_another_certificate_gets_nothing(files: tuple[Path, Path]) -> None:
    """Unless the user chose to send unencrypted."""
    with smtp_server() as plain, smtp_server(*files) as other:
        with pytest.raises(DeliveryFailed, match="STARTTLS") as refused:
            mail(plain.address).send_test()
        assert "tls=" in str(refused.value)
        with pytest.raises(DeliveryFailed, match="certificate verify failed"):
            mail(other.address).send_test()
        until(lambda: other.broken == 1)
        assert plain.mails == other.mails == []
        mail(plain.address, tls="none").send_test()
        assert plain.mails[0]["Subject"] == "email: a test message; nothing is wrong"


def test_a_refusal_says_what_the_server_said_without_the_password(files: tuple[Path, Path]) -> None:
    """Of the login, of every recipient, of one of them in a test; a server that is away is named too."""
    with smtp_server(*files) as smtp:
        secure: dict[str, Any] = {"ca_file": str(files[0])}
        with pytest.raises(DeliveryFailed, match="535") as refused:
            mail(smtp.address, user="shop", password="hunter2hunter2", **secure).send_test()
        assert "hunter2hunter2" not in str(refused.value) + repr(refused.value)
        smtp.refuse["on-call"] = "550 no such user"
        with pytest.raises(DeliveryFailed, match=r"every recipient: on-call@example.com \(550 no such user\)"):
            mail(smtp.address, **secure).send_test()
        with pytest.raises(DeliveryFailed, match=r"refused recipients: on-call@example\.com"):
            mail(smtp.address, to=[TO, "boss@example.com"], **secure).send_test()
        address = smtp.address
    with pytest.raises(DeliveryFailed, match="could not be reached"):
        mail(address, timeout=1.0).send_test()


def test_a_password_that_the_server_quotes_as_it_was_sent_is_hidden() -> None:
    """AUTH sends it in base64."""
    secrets = mail("127.0.0.1:1", user="shop", password="hunter2hunter2", tls="none").target.secrets
    for line in ("aHVudGVyMmh1bnRlcjI=", base64.b64encode(b"\0shop\0hunter2hunter2").decode()):
        assert without_secrets(f"500 unknown command AUTH PLAIN {line}", secrets) == "500 unknown command AUTH PLAIN …"


def test_one_recipient_that_is_refused_does_not_repeat_the_mail_to_the_others(files: tuple[Path, Path]) -> None:
    """The mail counts as delivered; refusals of all are retried."""
    with smtp_server(*files) as smtp, ef.Store("memory:") as store:
        smtp.refuse["on-call"] = "550 no such user"
        target = mail(smtp.address, to=[TO, "boss@example.com"], ca_file=str(files[0]))
        record(store, raised("c-1", micros()))
        store.run_until_idle(target, clock=lambda: micros() + HOUR)
        assert len(smtp.mails) == 1
        alone = mail(smtp.address, ca_file=str(files[0]), name="alone")
        with pytest.raises(ProcessError, match="every recipient"):
            store.run_until_idle(alone, clock=lambda: micros() + HOUR)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sender": "shop"}, "not one e-mail address"),
        ({"to": []}, "no recipient"),
        ({"to": "a@b.example\nBcc: x@y.example"}, "not one e-mail address"),
        ({"to": "a@b.example, c@b.example"}, "not one e-mail address"),
        ({"user": "shop", "password": "hunter2é"}, "cannot be sent"),
        ({"server": "mail.example.com:smtp"}, "no port"),
        ({"server": ""}, "no server"),
        ({"server": "smtp://me:secret@mail.example.com"}, "no server"),
        ({"user": "shop"}, "not both"),
        ({"tls": "none", "user": "shop", "password": "hunter2"}, "sent unencrypted"),
        ({"tls": "ssl"}, "not known"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(options: dict[str, Any], says: str) -> None:
    """When it is declared; a password is not quoted."""
    given: dict[str, Any] = {"server": "mail.example.com", "sender": "shop@example.com", "to": TO, **options}
    with pytest.raises(InvalidProcess, match=says) as refused:
        delivery.email(given.pop("server"), **given)
    assert "hunter2" not in str(refused.value) and "secret" not in str(refused.value)
