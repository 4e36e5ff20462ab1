"""TLS: which versions and certificates are accepted, and how a certificate is replaced while the server runs."""

from __future__ import annotations

import asyncio
import datetime
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import eventfold as ef
from eventfold.errors import InvalidInput
from eventfold.server.settings import TlsSettings
from eventfold.server.tls import Certificates
from tests.server.serving import Served, read_answer

PATIENCE_S = 80.0


def certificate(folder: Path, name: str) -> TlsSettings:
    """A certificate of its own authority, for loopback, and its key, in two files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return TlsSettings(certificate=str(folder / f"{name}.pem"), key=str(folder / f"{name}.key"))


def client_context(own: TlsSettings | None = None, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client's context that accepts every certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if newest is not None:
        context.maximum_version = newest
    if own is not None:
        context.load_cert_chain(str(own.certificate), own.key)
    return context


def name_shown(port: int, context: ssl.SSLContext | None = None, server_name: str | None = None) -> str:
    """The name in the certificate that a server shows."""
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain,
        (context or client_context()).wrap_socket(plain, server_hostname=server_name) as connection,
    ):
        shown = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
    return str(shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def replace(served: TlsSettings, by: TlsSettings) -> None:
    """Put another certificate and its key in the place of those that are served."""
    for target, source in ((served.key, by.key), (served.certificate, by.certificate)):
        assert target and source
        Path(target).write_bytes(Path(source).read_bytes())


def test_a_server_speaks_tls_and_shows_a_new_certificate_after_sighup(tmp_path: Path) -> None:
    """Connections from before stay; new handshakes use the new one; plain HTTP gets no answer."""
    first, second = certificate(tmp_path, "first"), certificate(tmp_path, "second")
    ef.Store(str(tmp_path / "bank.db")).close()
    words = ["bank.db", "--tls-certificate", str(first.certificate), "--tls-key", str(first.key)]
    with Served(tmp_path, *words, EVENTFOLD_TLS__CHECK_SECONDS="3600") as server:
        assert server.url.startswith("https://127.0.0.1:")
        port = int(server.url.rpartition(":")[2])
        assert name_shown(port) == name_shown(port, server_name="localhost") == "first"
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain,
            client_context().wrap_socket(plain) as connection,
        ):
            assert connection.version() in ("TLSv1.2", "TLSv1.3")
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
            while b'"ok"}' not in connection.recv(10_000):
                continue
            replace(first, second)
            assert name_shown(port) == "first"
            server.process.send_signal(signal.SIGHUP)
            ends = time.monotonic() + PATIENCE_S
            while name_shown(port) != "second":
                assert time.monotonic() < ends, server.log()
                time.sleep(0.05)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert read_answer(connection).status == 200
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP")
        assert server.stop() == 0


def test_a_pair_that_does_not_fit_is_not_used(tmp_path: Path) -> None:
    """While only one of the files is replaced, the pair from before stays in use."""
    first, second = certificate(tmp_path, "first"), certificate(tmp_path, "second")
    found = Certificates(first)
    assert found.context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert not found.is_changed()
    Path(str(first.certificate)).write_bytes(Path(str(second.certificate)).read_bytes())
    assert found.is_changed()
    assert not found.reload()
    assert handshake(found, client_context()) == "first"
    Path(str(first.key)).write_bytes(Path(str(second.key)).read_bytes())
    assert found.reload()
    assert not found.is_changed()
    assert handshake(found, client_context()) == "second"


def handshake(server: Certificates, client: ssl.SSLContext) -> str:
    """The name that a client sees in a handshake over two buffers. Raises SSLError if one side refuses the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.context.wrap_bio(to_server, to_client, server_side=True)
    other = client.wrap_bio(to_client, to_server)
    for _ in range(10):
        for side in (other, one):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    try:  # TLS 1.3: a client learns that its certificate was refused when it reads
        other.read(1)
    except ssl.SSLWantReadError:
        pass
    shown = x509.load_der_x509_certificate(other.getpeercert(binary_form=True) or b"")
    return str(shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


@pytest.mark.asyncio
async def test_changed_files_are_noticed_without_a_signal(tmp_path: Path) -> None:
    """At the next check; a pair that cannot be used is tried again when it changes again."""
    first, second = certificate(tmp_path, "first"), certificate(tmp_path, "second")
    found = Certificates(TlsSettings(certificate=first.certificate, key=first.key, check_seconds=0.02))
    watching = asyncio.create_task(found.watch())
    await asyncio.to_thread(Path(str(first.key)).write_text, "broken")
    await asyncio.sleep(0.1)
    assert handshake(found, client_context()) == "first"
    replace(first, second)
    async with asyncio.timeout(PATIENCE_S):
        while handshake(found, client_context()) != "second":  # noqa: ASYNC110 - nothing tells that it was loaded
            await asyncio.sleep(0.02)
    watching.cancel()


def test_only_clients_with_a_certificate_may_connect_if_an_authority_is_given(tmp_path: Path) -> None:
    """One of that authority; none and one of another authority are refused in the handshake."""
    server, friend, stranger = (certificate(tmp_path, name) for name in ("server", "friend", "stranger"))
    settings = TlsSettings(certificate=server.certificate, key=server.key, client_ca=friend.certificate)
    found = Certificates(settings)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        assert handshake(found, client_context(friend, version)) == "server"
        for refused in (client_context(None, version), client_context(stranger, version)):
            with pytest.raises(ssl.SSLError):
                handshake(found, refused)


@pytest.mark.parametrize("broken", ["no certificate", "no file", "no pem", "another key", "a password"])
def test_a_certificate_that_cannot_be_used_is_an_error_at_the_start(tmp_path: Path, broken: str) -> None:
    """In two sentences, and without asking for a password on the terminal."""
    first, second = certificate(tmp_path, "first"), certificate(tmp_path, "second")
    if broken == "a password":
        key = serialization.load_pem_private_key(Path(str(first.key)).read_bytes(), None)
        secret = serialization.BestAvailableEncryption(b"secret")
        (tmp_path / "first.key").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
        )
    settings = {
        "no certificate": TlsSettings(key=first.key),
        "no file": TlsSettings(certificate=str(tmp_path / "none.pem"), key=first.key),
        "no pem": TlsSettings(certificate=__file__),
        "another key": TlsSettings(certificate=first.certificate, key=second.key),
        "a password": first,
    }[broken]
    with pytest.raises(InvalidInput):
        Certificates(settings)


def test_handshakes_during_a_reload_use_one_pair_or_the_other(tmp_path: Path) -> None:
    """Never a certificate with the key of another one: every handshake succeeds."""
    pairs = [certificate(tmp_path, name) for name in ("first", "second")]
    served = certificate(tmp_path, "served")
    found, done = Certificates(served), threading.Event()

    def reload() -> None:
        for number in range(40):
            replace(served, pairs[number % 2])
            found.reload()
        done.set()

    thread = threading.Thread(target=reload)
    thread.start()
    seen = set[str]()
    while not done.is_set():
        seen.add(handshake(found, client_context()))
    thread.join()
    assert seen <= {"first", "second", "served"}
    assert handshake(found, client_context()) == "second"
