"""TLS on the data plane: records through memory, the end of a stream, handshakes that fail."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.embedded.certificates import make_certificates
from lsst.daf.butler_dcache.errors import DeadlineError, DoorUnavailableError, OutcomeUnknownError
from lsst.daf.butler_dcache.transport.connection import ConnectionLostError
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.encrypted_connection import EncryptedConnection
from lsst.daf.butler_dcache.transport.tls import ResumingContext, tls_context
from scripted_server import ScriptedServer, Talk, ok

BODY = bytes(range(256)) * 400
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("authority"))[0]


@pytest.fixture
def server_context(authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.with_name("host.pem"))
    return context


def trusting(ca_file: Path) -> ResumingContext:
    settings = EndpointSettings("https://door.invalid:1/", trusted_authorities=str(ca_file))
    return tls_context(settings, client_certificate=False)


def plane(authority: Path, **settings: object) -> DataPlane:
    endpoint = EndpointSettings("https://door.invalid:1/", trusted_authorities=str(authority), **settings)  # type: ignore[arg-type]
    return DataPlane(endpoint, sleep=[].append)


# One connection whose other end is in our hands


class Peer:
    """The server's end of a connection, which says when which encrypted byte is sent."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def shake_hands(self) -> None:
        """Take part in the handshake, byte by byte; tickets that follow it (TLS 1.3) are not sent yet."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._say_slowly()
                self._incoming.write(self.sock.recv(65536))
        if self._tls.version() == "TLSv1.2":
            self._say_slowly()

    def _say_slowly(self) -> None:
        for byte in self._outgoing.read():
            self.sock.send(bytes([byte]))

    def encrypted(self, data: bytes) -> bytes:
        while data:
            data = data[self._tls.write(data) :]
        return self._outgoing.read()

    def hear(self) -> bytes:
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                self._incoming.write(self.sock.recv(65536))

    def farewell(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        return self._outgoing.read()


@contextlib.contextmanager
def connected(
    server_context: ssl.SSLContext, authority: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> Iterator[tuple[EncryptedConnection, Peer]]:
    server_context.minimum_version = server_context.maximum_version = version
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(20)
        peer = Peer(theirs, server_context)
        thread = threading.Thread(target=peer.shake_hands)
        thread.start()
        try:
            connection = EncryptedConnection(ours, ("https", "localhost", 443), trusting(authority), 20)
        finally:
            thread.join()
        yield connection, peer


def read(connection: EncryptedConnection, size: int) -> bytes:
    memory = memoryview(bytearray(size))
    at = 0
    while at < size and (count := connection.read_into(memory[at:], Deadline(20), 20)):
        at += count
    return bytes(memory[:at])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_record_may_be_cut_anywhere(
    version: ssl.TLSVersion, server_context: ssl.SSLContext, authority: Path
) -> None:
    with connected(server_context, authority, version) as (connection, peer):
        peer.sock.sendall(peer.encrypted(b"begin"))  # and the tickets before it
        assert read(connection, 5) == b"begin"
        for at in range(1, len(record := peer.encrypted(b"0123456789"))):
            peer.sock.sendall(record[:at])
            assert connection.is_alive  # a part of a record says nothing
            peer.sock.sendall(record[at:])
            assert read(connection, 10) == b"0123456789"
            record = peer.encrypted(b"0123456789")


def test_many_records_come_at_once(server_context: ssl.SSLContext, authority: Path) -> None:
    with connected(server_context, authority) as (connection, peer):
        sender = threading.Thread(target=lambda: peer.sock.sendall(peer.encrypted(BODY)))
        sender.start()
        # Whatever is asked for: less than a record, and more than is there.
        assert read(connection, 7) + read(connection, 40_000) == BODY[:40_007]
        assert read(connection, len(BODY) - 40_007) == BODY[40_007:]
        sender.join()


@pytest.mark.parametrize("version", VERSIONS)
def test_tickets_alone_do_not_end_a_connection_and_resume_the_next(
    version: ssl.TLSVersion, server_context: ssl.SSLContext, authority: Path
) -> None:
    resumed = []
    trusting(authority)._sessions.clear()
    for _ in range(2):
        with connected(server_context, authority, version) as (connection, peer):
            peer.sock.sendall(peer.encrypted(b""))  # the tickets of TLS 1.3, which were kept back
            assert connection.is_alive
            connection.send(b"question", Deadline(20), 20)
            assert peer.hear() == b"question"
            peer.sock.sendall(peer.encrypted(b"answer"))
            assert read(connection, 6) == b"answer"
            connection.answered()
            resumed.append(connection.tls.session_reused)
    assert resumed == [False, True]


@pytest.mark.parametrize("said", ["data", "farewell", "garbage", "end"])
def test_an_idle_connection_on_which_something_else_comes_is_dead(
    said: str, server_context: ssl.SSLContext, authority: Path
) -> None:
    with connected(server_context, authority) as (connection, peer):
        if said == "data":
            peer.sock.sendall(peer.encrypted(b"x"))
        elif said == "farewell":
            peer.sock.sendall(peer.farewell())
        elif said == "garbage":
            peer.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        else:
            peer.sock.close()
        assert not connection.is_alive


def test_a_farewell_behind_an_answer_is_remembered(server_context: ssl.SSLContext, authority: Path) -> None:
    """XRootD says it and leaves its socket open, so that nothing more is to be seen."""
    with connected(server_context, authority) as (connection, peer):
        peer.sock.sendall(peer.encrypted(b"answer") + peer.farewell())
        memory = memoryview(bytearray(100))
        assert connection.read_into(memory, Deadline(20), 20) == 6
        assert not connection.is_alive


def test_what_came_before_a_bad_record_is_given(server_context: ssl.SSLContext, authority: Path) -> None:
    with connected(server_context, authority) as (connection, peer):
        peer.sock.sendall(peer.encrypted(b"answer") + b"\x17\x03\x03\x00\x20" + bytes(32))
        memory = memoryview(bytearray(100))
        assert connection.read_into(memory, Deadline(20), 20) == 6
        with pytest.raises(ConnectionLostError):
            connection.read_into(memory, Deadline(20), 20)
        assert not connection.usable


def test_the_end_of_a_stream_is_what_the_server_says_it_is(
    server_context: ssl.SSLContext, authority: Path
) -> None:
    memory = memoryview(bytearray(100))
    with connected(server_context, authority) as (connection, peer):
        peer.sock.sendall(peer.encrypted(b"all") + peer.farewell())
        peer.sock.close()
        assert connection.read_into(memory, Deadline(20), 20) == 3
        assert connection.read_into(memory, Deadline(20), 20) == 0
        assert connection.read_into(memory, Deadline(20), 20) == 0
    with connected(server_context, authority) as (connection, peer):
        peer.sock.sendall(peer.encrypted(b"half"))
        peer.sock.close()
        assert connection.read_into(memory, Deadline(20), 20) == 4
        with pytest.raises(ConnectionLostError, match="cut"):
            connection.read_into(memory, Deadline(20), 20)


def test_a_peer_that_takes_nothing_is_seen(server_context: ssl.SSLContext, authority: Path) -> None:
    with connected(server_context, authority) as (connection, _):
        with pytest.raises(ConnectionLostError, match="stopped taking"):
            connection.send(bytes(8 << 20), Deadline(20), 0.05)
        assert not connection.usable
    with connected(server_context, authority) as (connection, _):
        with pytest.raises((ConnectionLostError, DeadlineError)):
            connection.send(bytes(8 << 20), Deadline(0.05), 20)
        assert not connection.usable


# Whole answers


def over_tls(context: ssl.SSLContext, script: Callable[[Talk], None]) -> Callable[[Talk], None]:
    def run(talk: Talk) -> None:
        with context.wrap_socket(talk.sock, server_side=True) as talk.sock:
            script(talk)

    return run


def farewell(talk: Talk) -> None:
    talk.sock.settimeout(0)
    with contextlib.suppress(OSError):
        talk.sock.unwrap()  # type: ignore[attr-defined]


@pytest.mark.parametrize("politely", [False, True])
@pytest.mark.parametrize("head", [b"", b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_cut_body_is_never_a_whole_one(
    head: bytes, politely: bool, server_context: ssl.SSLContext, authority: Path
) -> None:
    """Without a length the server's farewell is all that tells the end from a cut by somebody on the way."""

    def cut(talk: Talk) -> None:
        talk.head()
        chunk = b"a\r\n" if b"chunked" in head else b""
        talk.say(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + chunk + b"half ")
        if politely:
            farewell(talk)

    with (
        ScriptedServer(over_tls(server_context, cut)) as server,
        plane(authority).open("GET", f"https://localhost:{server.port}/", deadline=Deadline(20)) as answer,
    ):
        if politely and not head:
            assert answer.read() == b"half "
        else:
            with pytest.raises(DoorUnavailableError, match="after 5 bytes"):
                answer.read()


def test_a_kept_connection_that_was_cut_is_replaced(server_context: ssl.SSLContext, authority: Path) -> None:
    def once(talk: Talk) -> None:
        talk.head()
        talk.say(ok(b"first"))
        talk.head()

    with ScriptedServer(over_tls(server_context, once)) as server:
        data = plane(authority)
        for attempts in (1, 2):
            with data.open("GET", f"https://localhost:{server.port}/", deadline=Deadline(20)) as answer:
                assert (answer.read(), answer.attempts) == (b"first", attempts)
        assert server.connections == 2
        data.close()


def test_what_is_sent_arrives(server_context: ssl.SSLContext, authority: Path, tmp_path: Path) -> None:
    heard = []

    def take(talk: Talk) -> None:
        while talk.head():
            heard.append(talk.body(len(BODY)))
            talk.say(ok())

    (tmp_path / "body").write_bytes(BODY)
    with ScriptedServer(over_tls(server_context, take)) as server, open(tmp_path / "body", "rb") as file:
        data = plane(authority)
        for body in (BODY, file, iter([BODY[:1], BODY[1:]])):
            headers = {} if isinstance(body, bytes) or body is file else {"Content-Length": str(len(BODY))}
            data.open(
                "PUT",
                f"https://localhost:{server.port}/",
                body=body,
                headers=headers,
                deadline=Deadline(20),
            ).close()
        data.close()
    assert heard == [BODY] * 3


def test_an_upload_to_a_server_that_stops_has_an_end(server_context: ssl.SSLContext, authority: Path) -> None:
    done = threading.Event()

    def stuck(talk: Talk) -> None:
        talk.head()
        done.wait(20)

    with ScriptedServer(over_tls(server_context, stuck)) as server:
        with pytest.raises(OutcomeUnknownError):
            plane(authority).open(
                "PUT", f"https://localhost:{server.port}/", body=bytes(64 << 20), deadline=Deadline(0.3)
            )
        done.set()


# Handshakes


def certificate(folder: Path, name: str, days: int) -> Path:
    """Make a certificate that is its own authority, and return the file with it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.mark.parametrize(
    ("kind", "message", "alert"),
    [
        ("untrusted", "self-signed certificate", "UNKNOWN_CA"),
        ("wrong host", "Hostname mismatch, certificate is not valid for 'localhost'", "BAD_CERTIFICATE"),
        ("expired", "certificate has expired", "CERTIFICATE_EXPIRED"),
    ],
)
def test_a_server_that_is_not_the_right_one(
    kind: str, message: str, alert: str, authority: Path, tmp_path: Path
) -> None:
    """Both sides learn why; this holds for every server, a pool as well as a door."""
    name = "elsewhere.invalid" if kind == "wrong host" else "localhost"
    own = certificate(tmp_path, name, -1 if kind == "expired" else 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    told: list[str] = []

    def shake_hands(talk: Talk) -> None:
        try:
            with context.wrap_socket(talk.sock, server_side=True) as sock:
                sock.recv(1)  # TLS 1.3: the client's alert follows what the server takes for the end
        except ssl.SSLError as error:
            told.append(error.reason or "")
            raise

    with ScriptedServer(shake_hands) as server:
        data = plane(authority if kind == "untrusted" else own)
        with pytest.raises(DoorUnavailableError, match=f"no TLS connection: .*{message}"):
            data.open("GET", f"https://localhost:{server.port}/", deadline=Deadline(20))
    assert told
    assert all(alert in reason for reason in told)


@pytest.mark.parametrize("kind", ["silent", "slow", "closing", "not TLS"])
def test_a_handshake_has_an_end(kind: str, authority: Path) -> None:
    over = threading.Event()

    def stall(talk: Talk) -> None:
        talk.sock.recv(65536)
        if kind == "not TLS":
            talk.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        if kind == "slow":
            talk.say(b"\x16\x03\x03\x40\x00")  # a long record, of which a byte comes now and then
            while not over.wait(0.01):
                talk.say(b"\x02")
        elif kind == "silent":
            over.wait(20)

    text = {
        "silent": "nothing came for",
        "slow": r"are over|nothing came for",
        "closing": "EOF|closed|reset",
        "not TLS": r"WRONG_VERSION|wrong version|record layer",
    }[kind]
    with ScriptedServer(stall) as server:
        data = plane(authority, connect_timeout_seconds=0.2)
        with pytest.raises(DoorUnavailableError, match=f"no TLS connection: .*({text})"):
            data.open("GET", f"https://localhost:{server.port}/", deadline=Deadline(5))
        over.set()
