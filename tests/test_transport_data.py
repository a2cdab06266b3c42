"""The data plane: framing, uploads, connections, and what never happens to a credential."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lsst.daf.butler_dcache.auth.credential import ANONYMOUS, Credential, refused
from lsst.daf.butler_dcache.auth.sources import StaticSource, source_for
from lsst.daf.butler_dcache.config.loading import settings_for
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.embedded import EmbeddedDcache, Fault
from lsst.daf.butler_dcache.errors import (
    ConfigurationError,
    CredentialError,
    DeadlineError,
    DoorUnavailableError,
    OutcomeUnknownError,
    ProtocolError,
    ServerBusyError,
)
from lsst.daf.butler_dcache.model import Adler32
from lsst.daf.butler_dcache.transport.control import ControlPlane
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.encrypted_connection import EncryptedConnection
from lsst.daf.butler_dcache.transport.exchange import Exchange, add_observer, remove_observer
from lsst.daf.butler_dcache.transport.http1 import Headers, write_head
from lsst.daf.butler_dcache.transport.pacing import pacer_for
from scripted_server import ScriptedServer, Talk, answering, ok

SECRET = "TOPSECRETTOKEN"
DATA = random.Random(5).randbytes(300_000)


@pytest.fixture(autouse=True)
def forget_refusals() -> Iterator[None]:
    refused.clear()
    yield
    refused.clear()


@pytest.fixture
def exchanges() -> Iterator[list[Exchange]]:
    seen: list[Exchange] = []
    observer: Callable[[Exchange], None] = seen.append
    add_observer(observer)
    yield seen
    remove_observer(observer)


def plane(base_url: str = "http://door.invalid:80/", **settings: object) -> DataPlane:
    endpoint = EndpointSettings(base_url, **settings)  # type: ignore[arg-type]
    return DataPlane(endpoint, StaticSource(Credential.basic("u", SECRET)), None, [].append)


def deadline(seconds: float = 30) -> Deadline:
    return Deadline(seconds)


def chunked(*pieces: bytes, trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n" + trailer + b"\r\n"


# Framing


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (ok(b"data"), b"data"),
        (ok(DATA), DATA),
        (ok(), b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\ndata", b"data"),
        (chunked(b"da", b"ta"), b"data"),
        (chunked(DATA[:70_000], DATA[70_000:]), DATA),
        (chunked(b"data", trailer=b"Digest: x\r\nX: y\r\n"), b"data"),
        (chunked(), b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b""),
        (b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + ok(b"data"), b"data"),
    ],
)
def test_bodies_and_kept_connections(answer: bytes, body: bytes) -> None:
    with ScriptedServer(answering(answer)) as server:
        data = plane()
        for _ in range(2):
            with data.open("GET", server.url, deadline=deadline()) as got:
                assert got.read() == body
                assert got.read() == b""
    assert server.connections == 1


@pytest.mark.parametrize(
    "head", [b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nConnection: close"]
)
def test_bodies_until_the_end_of_the_connection(head: bytes) -> None:
    with ScriptedServer(answering(head + b"\r\n\r\n" + DATA, again=False)) as server:
        data = plane()
        for _ in range(2):
            with data.open("GET", server.url, deadline=deadline()) as got:
                assert got.length is None
                assert got.read() == DATA
    assert server.connections == 2


def test_answers_to_head_have_no_body() -> None:
    with ScriptedServer(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")) as server:
        data = plane()
        for _ in range(3):
            with data.open("HEAD", server.url, deadline=deadline()) as got:
                assert (got.read(), got.headers["content-length"]) == (b"", "5")
    assert server.connections == 1


@pytest.mark.parametrize("answer", [ok(DATA), chunked(DATA[:5], DATA[5:200_000], DATA[200_000:])])
def test_ways_of_reading(answer: bytes) -> None:
    def dribble(talk: Talk) -> None:
        while talk.head():
            for at in range(0, len(answer), 7919):
                talk.say(answer[at : at + 7919])

    with ScriptedServer(dribble) as server:
        data = plane()
        with data.open("GET", server.url, deadline=deadline()) as got:
            memory = bytearray(len(DATA) + 10)
            assert got.fill(memoryview(memory)) == len(DATA)
            assert memory[: len(DATA)] == DATA
            assert got.readinto(memoryview(memory)) == 0
        with data.open("GET", server.url, deadline=deadline()) as got:
            pieces = list(got.iter_chunks(65536))
            assert b"".join(pieces) == DATA
            assert [len(piece) for piece in pieces[:-1]] == [65536] * 4
        with data.open("GET", server.url, deadline=deadline()) as got:
            first = got.read_some(10)
            assert first == DATA[: len(first)]
            assert first + got.read() == DATA
    assert server.connections == 1


def test_what_is_there_is_given_at_once() -> None:
    first_seen = threading.Event()

    def markers(talk: Talk) -> None:
        talk.head()
        talk.say(b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nmarker\r\n")
        assert first_seen.wait(10)
        talk.say(b"7\r\nsuccess\r\n0\r\n\r\n")

    with ScriptedServer(markers) as server, plane().open("COPY", server.url, deadline=deadline()) as got:
        assert got.read_some() == b"marker"
        first_seen.set()
        assert got.read_some() == b"success"
        assert got.read_some() == b""


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    ],
)
def test_malformed_heads(answer: bytes) -> None:
    with ScriptedServer(answering(answer)) as server, pytest.raises(ProtocolError):
        plane().open("GET", server.url, deadline=deadline())


@pytest.mark.parametrize(
    "body", [b"x\r\n", b"-4\r\n", b"4\r\ndataX\r\n", b"4" * 10_000, b"1234567890123456\r\n"]
)
def test_malformed_chunks(body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        ScriptedServer(answering(head + body)) as server,
        plane().open("GET", server.url, deadline=deadline()) as got,
        pytest.raises(ProtocolError, match=r"GET http://127\.0\.0\.1"),
    ):
        got.read()


@pytest.mark.parametrize("answer", [ok(DATA)[:-1], chunked(DATA)[:-5], chunked(DATA)[:-100]])
def test_a_cut_body_is_an_error_and_its_connection_is_not_kept(answer: bytes) -> None:
    with ScriptedServer(answering(answer, again=False), answering(ok(b"x"))) as server:
        data = plane()
        with data.open("GET", server.url, deadline=deadline()) as got, pytest.raises(DoorUnavailableError):
            got.read()
        with data.open("GET", server.url, deadline=deadline()) as got:
            assert got.read() == b"x"
    assert server.connections == 2


def test_a_body_left_unread_costs_the_connection_unless_it_is_small() -> None:
    with ScriptedServer(answering(ok(b"x" * 1000), ok(DATA), ok(b"y"))) as server:
        data = plane()
        data.open("GET", server.url, deadline=deadline()).close()
        with data.open("GET", server.url, deadline=deadline()) as got:
            assert got.read_some(10) == DATA[:10]
        assert server.connections == 1
        data.open("GET", server.url, deadline=deadline()).close()
    assert server.connections == 2


def test_close_without_reuse() -> None:
    with ScriptedServer(answering(ok(b"x"))) as server:
        data = plane()
        for _ in range(2):
            got = data.open("GET", server.url, deadline=deadline())
            got.read()
            got.close(reuse=False)
            got.close()
        with data.open("GET", server.url, deadline=deadline(), keep=False) as got:
            got.read()
        data.open("GET", server.url, deadline=deadline()).close()
    assert server.connections == 4
    assert b"\r\nConnection: close" in server.heads[2]


def test_heads_cannot_be_smuggled() -> None:
    for method, target, headers in (
        ("GET", "/a b", {}),
        ("GET", "/a\r\nX: y", {}),
        ("G T", "/", {}),
        ("GET", "/", {"X": "a\r\nY: b"}),
        ("GET", "/", {"X Y": "a"}),
        ("GET", "/", {"X": "\u20ac"}),
        ("GET", "/\u00e9", {}),
    ):
        with pytest.raises(ConfigurationError):
            write_head(method, target, headers)


def test_headers_are_looked_up_without_case() -> None:
    headers = Headers([("ETag", '"e"'), ("X-A", "1"), ("x-a", "2")])
    assert (headers["etag"], headers.get("X-a"), len(headers), list(headers)) == (
        '"e"',
        "1, 2",
        2,
        ["ETag", "x-a"],
    )
    assert "nothing" not in headers
    assert '"e"' not in repr(headers)


# Uploads


def uploads(
    bodies: list[bytes],
    first: bytes = b"",
    final: bytes = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
):
    def script(talk: Talk) -> None:
        while head := talk.head():
            if b"\r\nExpect: 100-continue" in head:
                talk.say(first or b"HTTP/1.1 100 Continue\r\n\r\n")
            if b"\r\nTransfer-Encoding: chunked" in head:
                bodies.append(talk.until(b"\r\n0\r\n\r\n"))
            else:
                length = int(head.split(b"\r\nContent-Length: ")[1].split(b"\r\n")[0])
                bodies.append(talk.body(length))
            talk.say(final)

    return script


@pytest.mark.parametrize("expect", [False, True])
def test_every_kind_of_body(tmp_path: Path, expect: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    bodies: list[bytes] = []
    with (
        ScriptedServer(uploads(bodies)) as server,
        path.open("rb") as file,
        path.open("rb", buffering=0) as raw,
    ):
        data = plane()
        file.seek(1000)
        kinds = [b"", b"small", DATA, bytearray(DATA), memoryview(DATA), io.BytesIO(DATA), file, raw]
        for body in kinds:
            with data.open("PUT", server.url, body=body, expect=expect, deadline=deadline()) as got:
                assert (got.status, got.body_sent, got.continued) == (201, True, expect)
        pieces = iter([DATA[:100_000], b"", memoryview(DATA)[100_000:]])
        length = {"Content-Length": str(len(DATA))}
        with data.open(
            "PUT", server.url, body=pieces, headers=length, expect=expect, deadline=deadline()
        ) as got:
            assert got.body_sent
        assert file.tell() == len(DATA)
    assert bodies == [b"", b"small", *[DATA] * 4, DATA[1000:], DATA, DATA]
    assert server.connections == 1
    assert all(b"Transfer-Encoding" not in head for head in server.heads)


def test_pieces_of_unknown_length_are_chunked() -> None:
    bodies: list[bytes] = []
    reader, writer = os.pipe()
    os.write(writer, b"from a pipe")
    os.close(writer)
    with ScriptedServer(uploads(bodies)) as server, os.fdopen(reader, "rb") as pipe:
        data = plane()
        data.open("PUT", server.url, body=iter([b"abc", b"", b"defg"]), deadline=deadline()).close()
        data.open("PUT", server.url, body=pipe, deadline=deadline()).close()
    assert bodies == [b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n", b"b\r\nfrom a pipe\r\n0\r\n\r\n"]


@pytest.mark.parametrize("pieces", [[b"abc"], [b"abcdef"]])
def test_pieces_that_break_their_promise(pieces: list[bytes]) -> None:
    bodies: list[bytes] = []
    with ScriptedServer(uploads(bodies)) as server, pytest.raises(ValueError, match="4"):
        plane().open(
            "PUT", server.url, body=iter(pieces), headers={"Content-Length": "4"}, deadline=deadline()
        )
    assert len(bodies[0]) < 4  # a server that counts does not take it for a whole file


def test_an_error_of_the_caller_ends_the_upload() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"abc"
        raise KeyError("mine")

    bodies: list[bytes] = []
    with ScriptedServer(uploads(bodies)) as server, pytest.raises(KeyError, match="mine"):
        plane().open("PUT", server.url, body=pieces(), headers={"Content-Length": "9"}, deadline=deadline())
    assert bodies == [b"abc"]


def test_a_final_answer_leaves_the_body_untouched() -> None:
    redirect = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://pool/\r\nContent-Length: 0\r\n\r\n"
    rest: list[bytes] = []

    def door(talk: Talk) -> None:
        talk.head()
        talk.say(redirect)
        rest.append(talk.body(1))

    with ScriptedServer(door) as server:
        data = plane()
        pieces = iter([b"abc"])
        file = io.BytesIO(DATA)
        for body, length in ((pieces, {"Content-Length": "3"}), (file, {}), (DATA, {})):
            with data.open(
                "PUT", server.url, body=body, headers=length, expect=True, deadline=deadline()
            ) as got:
                assert (got.status, got.continued, got.body_sent) == (307, False, False)
                assert got.headers["Location"] == "http://pool/"
        assert (list(pieces), file.tell()) == ([b"abc"], 0)
    assert rest == [b""] * 3
    assert server.connections == 3  # although the server said nothing of closing
    assert [b"Content-Length: 300000" in head for head in server.heads] == [False, True, True]


def test_the_answer_is_read_after_a_failed_send() -> None:
    def refuse(talk: Talk) -> None:
        talk.head()
        talk.say(b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 4\r\n\r\nlate")
        talk.sock.shutdown(socket.SHUT_WR)
        talk.body(500_000)

    with ScriptedServer(refuse) as server:
        big = bytes(64 * 1024 * 1024)
        with plane().open("PUT", server.url, body=big, deadline=deadline()) as got:
            assert (got.status, got.body_sent) == (412, False)


def test_a_lost_upload_is_not_repeated() -> None:
    def lost(talk: Talk) -> None:
        talk.head()
        talk.body(1000)

    with ScriptedServer(lost) as server, pytest.raises(OutcomeUnknownError) as caught:
        plane().open("PUT", server.url, body=b"x" * 1000, deadline=deadline())
    assert (server.connections, caught.value.attempts) == (1, 1)


def test_busy_doors_are_asked_again() -> None:
    busy = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nbusy"
    bodies: list[bytes] = []

    def first(talk: Talk) -> None:
        talk.head()
        talk.say(busy)

    with ScriptedServer(first, first, uploads(bodies)) as server:
        data = plane(server.url)
        with data.open("PUT", server.url, body=io.BytesIO(DATA), expect=True, deadline=deadline()) as got:
            assert (got.status, got.attempts) == (201, 3)
    assert bodies == [DATA]
    with ScriptedServer(answering(busy)) as server:
        with pytest.raises(ServerBusyError):
            plane(server.url).open("PUT", server.url, body=b"x", deadline=deadline(1000))
        assert len(server.heads) == 20
        assert plane().open("GET", server.url, deadline=deadline()).status == 429  # of a pool: an answer


# Connections


def test_a_connection_that_the_pool_closed_is_replaced(exchanges: list[Exchange]) -> None:
    with ScriptedServer(answering(ok(b"x"), again=False), answering(ok(b"x"))) as server:
        data = plane()
        for _ in range(2):
            with data.open("PUT", server.url, body=b"", deadline=deadline()) as got:
                got.read()
                connection = got.connection
            end = time.monotonic() + 5
            while server.connections == 1 and connection.is_alive and time.monotonic() < end:
                time.sleep(0.001)
    assert server.connections == 2
    assert [exchange.attempt for exchange in exchanges] == [1, 1]


def test_a_read_on_a_connection_that_dies_at_that_moment_is_repeated(exchanges: list[Exchange]) -> None:
    def once(talk: Talk) -> None:
        talk.head()
        talk.say(ok(b"x"))
        talk.head()

    with ScriptedServer(once, answering(ok(b"y"))) as server:
        data = plane()
        data.open("GET", server.url, deadline=deadline()).close()
        with data.open("GET", server.url, deadline=deadline()) as got:
            assert (got.read(), got.attempts) == (b"y", 2)
    assert server.connections == 2
    kept = [(exchange.attempt, exchange.reused, exchange.status) for exchange in exchanges]
    assert kept == [(1, False, 200), (1, True, None), (2, False, 200)]


def test_a_held_connection_serves_one_after_the_other() -> None:
    with ScriptedServer(answering(ok(b"x"))) as server:
        data = plane()
        with data.open("GET", server.url, deadline=deadline()) as got:
            connection = got.hold()
            got.read()
        with data.open("GET", server.url, deadline=deadline()) as other:
            other.read()
            assert other.connection is not connection
        for _ in range(3):
            with data.open("GET", server.url, deadline=deadline(), connection=connection) as got:
                assert got.read() == b"x"
        assert server.connections == 2
        connection.close()
        with pytest.raises(DoorUnavailableError):
            data.open("GET", server.url, deadline=deadline(), connection=connection)


def test_a_held_connection_whose_answer_was_forgotten_takes_no_request() -> None:
    other = ok(b"contents that look like an answer")

    def body_behind_the_next_request(talk: Talk) -> None:
        talk.head()
        talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(other))
        if talk.head():
            talk.say(other)

    with ScriptedServer(body_behind_the_next_request) as server:
        data = plane()
        connection = data.open("GET", server.url, deadline=deadline()).hold()
        with pytest.raises(DoorUnavailableError):
            data.open("GET", server.url, deadline=deadline(), connection=connection)


def test_idle_connections_do_not_live_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(answering(ok(b"x"))) as server:
        data = plane()
        data.open("GET", server.url, deadline=deadline()).close()
        monkeypatch.setattr("lsst.daf.butler_dcache.transport.connection_pool._POOL_IDLE_SECONDS", -1.0)
        data.open("GET", server.url, deadline=deadline()).close()
        assert server.connections == 2
        data.close()


def test_no_pool(exchanges: list[Exchange]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x?dcache-http-uuid=capability"
    with pytest.raises(DoorUnavailableError, match="refused") as caught:
        plane().open("PUT", url, body=b"x", deadline=deadline())
    assert caught.value.attempts == 4
    assert "capability" not in str(caught.value)
    assert exchanges[-1].status is None


def test_addresses_that_are_silent_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        deaf_address = deaf.getsockname()
        for _ in range(2):  # more than it has room for
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(deaf_address)
        server = stack.enter_context(ScriptedServer(answering(ok(b"x"))))
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        addresses = [(*kind, deaf_address)] * 4
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        data = plane(connect_timeout_seconds=0.4)
        begun = time.monotonic()
        with pytest.raises(DoorUnavailableError):
            data.connect(server.url, deadline=deadline())
        assert time.monotonic() - begun < 0.8
        addresses.append((*kind, ("127.0.0.1", server.port)))
        data.connect(server.url, deadline=deadline()).close()
        endpoint = EndpointSettings(server.url, connect_timeout_seconds=0.5)
        control = ControlPlane(endpoint, StaticSource(ANONYMOUS), pacer_for(endpoint))
        begun = time.monotonic()
        assert control.request("MKCOL", server.url, deadline=deadline()).body == b"x"
        assert time.monotonic() - begun < 0.8


def test_a_body_that_comes_too_late_ends_its_connection() -> None:
    ends: list[bytes] = []

    def script(talk: Talk) -> None:
        talk.head()
        talk.say(b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\n")
        ends.append(talk.head())

    with ScriptedServer(script) as server:
        answer = plane().open("GET", server.url, deadline=deadline(0.3))
        with pytest.raises(DeadlineError):
            answer.read_short()
        assert answer.connection.sock.fileno() < 0
    assert ends == [b""]


def test_silence_and_deadlines() -> None:
    def silent(talk: Talk) -> None:
        if b"half" in talk.head():
            talk.say(ok(b"data")[:-2])
        talk.head()

    with ScriptedServer(silent) as server:
        data = plane(idle_timeout_seconds=0.05)
        with pytest.raises(DeadlineError, match="nothing came"):
            data.open("GET", server.url, deadline=deadline())
        with data.open("GET", server.url + "half", deadline=deadline()) as got, pytest.raises(DeadlineError):
            got.read()
        with pytest.raises(DeadlineError):
            plane().open("GET", server.url, deadline=deadline(0.05))
        with pytest.raises(OutcomeUnknownError) as caught:
            plane().open("PUT", server.url, body=b"x", deadline=deadline(0.05))
        assert isinstance(caught.value.__cause__, DeadlineError)


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_a_server_that_stops_taking_bytes(kind: str, tmp_path: Path) -> None:
    done = threading.Event()
    (tmp_path / "body").write_bytes(bytes(64 * 1024 * 1024))

    def stuck(talk: Talk) -> None:
        talk.head()
        done.wait(10)

    with ScriptedServer(stuck) as server, open(tmp_path / "body", "rb") as file:
        body = file if kind == "file" else file.read()
        with pytest.raises(OutcomeUnknownError, match=r"stopped taking bytes|are over"):
            plane().open("PUT", server.url, body=body, deadline=deadline(0.2))
        done.set()


# Credentials


def test_no_credential_for_a_pool() -> None:
    with ScriptedServer(answering(ok())) as server:
        data = plane("https://door.example.org:2880/", http_pools="allow")
        for kind in ({"credential": Credential.bearer(SECRET)}, {"authenticate": True}):
            with pytest.raises(CredentialError):
                data.open("GET", server.url, deadline=deadline(), **kind)  # type: ignore[arg-type]
        with pytest.raises(CredentialError):
            data.open("GET", server.url, headers={"AUTHORIZATION": "x"}, deadline=deadline())
        assert server.connections == 0
        data.open("GET", server.url, deadline=deadline()).close()
    assert b"uthorization" not in server.heads[0]


def test_an_unencrypted_pool_behind_an_encrypted_door_is_a_choice() -> None:
    with ScriptedServer(answering(ok())) as server:
        door = "https://door.example.org:2880/"
        for policy, url in (
            ("refuse", server.url),
            ("refuse", f"{server.url}a?dcache-http-uuid=1"),
            ("without_credential", f"{server.url}a?dcache-http-uuid=1&authz=1"),
            ("without_credential", f"{server.url}a?xrdhttptk=1"),
            ("without_credential", server.url.replace("//", "//me:word@")),
        ):
            with pytest.raises(ConfigurationError, match="http_pools: allow"):
                plane(door, http_pools=policy).open("GET", url, deadline=deadline())
        assert server.connections == 0
        for policy, url in (
            ("without_credential", server.url),
            ("without_credential", f"{server.url}a?dcache-http-uuid=1&dcache-http-ref=2"),
            ("allow", f"{server.url}a?xrdhttptk=1"),
        ):
            plane(door, http_pools=policy).open("GET", url, deadline=deadline()).close()
    assert not any(b"uthorization" in head for head in server.heads)


def test_the_credential_of_the_door_and_its_refusal() -> None:
    no = b"HTTP/1.1 401 macaroon login denied\r\nContent-Length: 0\r\n\r\n"
    with ScriptedServer(answering(ok(), no)) as server:
        data = plane(server.url)
        data.open("PUT", server.url, body=b"", authenticate=True, deadline=deadline()).close()
        assert b"\r\nAuthorization: Basic " in server.heads[0]
        with pytest.raises(CredentialError, match="macaroon login denied"):
            data.open("PUT", server.url, body=b"", authenticate=True, deadline=deadline())
        with pytest.raises(CredentialError, match="before"):
            data.open("PUT", server.url, body=b"", authenticate=True, deadline=deadline())
        assert len(server.heads) == 2
        with pytest.raises(CredentialError, match="unencrypted"):
            data.open("PUT", server.url, body=b"", credential=Credential.bearer("x"), deadline=deadline())


# Against the embedded dCache


@pytest.fixture(scope="module")
def plain() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(tls=False) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


class Client:
    """Both planes on one endpoint."""

    def __init__(self, server: EmbeddedDcache) -> None:
        endpoint = settings_for(server.url)
        source = source_for(endpoint)
        self.data = DataPlane(endpoint, source, pacer_for(endpoint))
        self.control = ControlPlane(endpoint, source, pacer_for(endpoint))
        self.base = server.url.replace("dav", "http", 1)

    def write(self, name: str, body: bytes) -> None:
        want = {"Want-Digest": "adler32"}
        url = self.base + name
        with self.data.open(
            "PUT", url, body=body, headers=want, expect=True, authenticate=True, deadline=deadline()
        ) as door:
            assert (door.status, door.continued) == (307, False)
            pool = door.headers["Location"]
        with self.data.open("PUT", pool, body=body, headers=want, deadline=deadline()) as answer:
            assert answer.status == 201
            digest = Adler32()
            digest.update(body)
            assert answer.headers["Digest"] == f"adler32={digest.hexdigest()}"

    def pool_url(self, name: str) -> str:
        answer = self.control.request("GET", self.base + name, deadline=deadline())
        assert answer.status == 302
        return answer.headers["Location"]

    def read(self, name: str) -> bytes:
        with self.data.open("GET", self.pool_url(name), deadline=deadline()) as answer:
            assert answer.status == 200
            return answer.read()


@pytest.mark.parametrize("tls", [False, True])
def test_write_and_read_by_redirect(
    tls: bool, plain: EmbeddedDcache, embedded: EmbeddedDcache, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = embedded if tls else plain
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    client = Client(server)
    before = len(server.transcript())
    for size in (1, 70_000, 3_000_000):
        body = random.Random(size).randbytes(size)
        client.write(f"redirect/{size}", body)
        assert client.read(f"redirect/{size}") == body
    records = server.transcript()[before:]
    assert {record.authorization for record in records if record.server == "pool"} == {False}
    assert {record.authorization for record in records if record.server == "door"} == {True}


@pytest.mark.parametrize("tls", [False, True])
def test_small_ranges_on_one_kept_connection_are_fast(
    tls: bool, plain: EmbeddedDcache, embedded: EmbeddedDcache, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = embedded if tls else plain
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    client = Client(server)
    client.write("ranges", DATA)
    url = client.pool_url("ranges")
    begun = time.monotonic()
    connections = set()
    for at in range(0, 50 * 4096, 4096):
        header = {"Range": f"bytes={at}-{at + 4095}"}
        with client.data.open("GET", url, headers=header, deadline=deadline()) as answer:
            assert answer.status == 206
            assert answer.read() == DATA[at : at + 4096]
            connections.add(answer.connection_id)
    took = time.monotonic() - begun
    assert len(connections) == 1
    assert took < 0.5


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="the trap is Linux's delayed acknowledgement")
def test_the_naive_way_is_slow(plain: EmbeddedDcache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool has the trap, so the test above shows something."""
    for name, value in plain.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lsst.daf.butler_dcache.transport.connection._QUICKACK", None)
    client = Client(plain)
    client.write("naive", DATA)
    url = client.pool_url("naive")
    times = []
    for at in range(0, 30 * 4096, 4096):
        begun = time.monotonic()
        with client.data.open(
            "GET", url, headers={"Range": f"bytes={at}-{at + 4095}"}, deadline=deadline()
        ) as got:
            got.read()
        times.append(time.monotonic() - begun)
    # The kernel acknowledges at once for the first segments of a connection only.
    assert sorted(times)[len(times) // 2] > 0.02


def test_tls_sessions_are_resumed(embedded: EmbeddedDcache) -> None:
    client = Client(embedded)
    client.write("session", b"x")
    for _ in range(2):
        url = client.pool_url("session")
        answer = client.data.open("GET", url, deadline=deadline())
        answer.read()
        resumed = answer.connection
        answer.close(reuse=False)
    assert isinstance(resumed, EncryptedConnection)
    assert resumed.tls.session_reused
    # Every redirect of a PUT costs the door's connection; the next handshake is a short one.
    sessions = []
    for _ in range(2):
        answer = client.data.open(
            "PUT", client.base + "session", body=b"y", expect=True, authenticate=True, deadline=deadline()
        )
        assert isinstance(answer.connection, EncryptedConnection)
        sessions.append(answer.connection.tls.session_reused)
        answer.close()
    assert sessions[-1] is True


def test_a_cut_by_the_pool_is_an_error(embedded: EmbeddedDcache) -> None:
    client = Client(embedded)
    client.write("cut", DATA)
    embedded.faults.add(Fault("cut_download", "*/cut", server="pool", at_byte=100_000))
    url = client.pool_url("cut")
    with (
        client.data.open("GET", url, deadline=deadline()) as answer,
        pytest.raises(DoorUnavailableError, match="100000 bytes"),
    ):
        answer.read()
    assert client.read("cut") == DATA


def test_memory_is_the_callers_alone() -> None:
    """Reading into given memory allocates next to nothing, whatever the size."""
    body = bytes(8 * 1024 * 1024)
    with ScriptedServer(answering(ok(body))) as server:
        data = plane()
        memory = memoryview(bytearray(len(body)))
        data.open("GET", server.url, deadline=deadline()).close()
        with data.open("GET", server.url, deadline=deadline()) as got:
            tracemalloc.start()
            assert got.fill(memory) == len(body)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peak < 256 * 1024


def test_signals_do_not_put_off_the_deadline() -> None:
    """Python repeats a call that a signal interrupts, and the kernel's time limit begins anew each time."""

    def fall_silent(talk: Talk) -> None:
        talk.head()
        talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        talk.sock.recv(1)

    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    begun = time.monotonic()
    try:
        with (
            ScriptedServer(fall_silent) as server,
            DataPlane(EndpointSettings(server.url)).open(
                "GET", server.url + "a", deadline=Deadline(0.3)
            ) as answer,
            pytest.raises(DeadlineError),
        ):
            answer.read()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begun < 20
