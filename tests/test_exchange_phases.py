"""Where the time of a request goes, as its record says; the clock is put forward, nobody waits."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from lsst.daf.butler_dcache.auth.credential import ANONYMOUS
from lsst.daf.butler_dcache.auth.sources import StaticSource
from lsst.daf.butler_dcache.config.loading import settings_for
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.errors import DcacheError
from lsst.daf.butler_dcache.store.webdav_store import WebdavStore
from lsst.daf.butler_dcache.transport import adapter, control, request
from lsst.daf.butler_dcache.transport.connection import Connection
from lsst.daf.butler_dcache.transport.control import ControlPlane
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.encrypted_connection import EncryptedConnection
from lsst.daf.butler_dcache.transport.exchange import Course, Exchange, Opening, add_observer, remove_observer
from lsst.daf.butler_dcache.transport.outgoing import Outgoing
from lsst.daf.butler_dcache.transport.pacing import Pacer
from lsst.daf.butler_dcache.transport.tls import ResumingContext, tls_context
from scripted_server import ScriptedServer, Talk, answering, ok

SECRET = "TOPSECRETTOKEN"
REAL_SECONDS = 0.9
"""What a phase may last beyond the seconds by which the clock was put forward."""


class Way:
    """The clock, and what it is put forward by when the client comes to each phase."""

    def __init__(self) -> None:
        self._real = time.monotonic
        self._ahead = 0.0
        self._asked = threading.Semaphore(0)
        self.name = self.tcp = self.tls = self.turn = self.sending = 0.0
        self.pieces: list[float] = []
        """For each piece of the answers that the client waits for."""

    def clock(self) -> float:
        """Take the place of `time.monotonic`."""
        return self._real() + self._ahead

    def move(self, seconds: float) -> None:
        """Put the clock forward."""
        self._ahead += seconds

    def awaits(self) -> None:
        """The client begins to wait for a piece."""
        self.move(self.pieces.pop(0) if self.pieces else 0.0)
        self._asked.release()

    def say(self, talk: Talk, *pieces: bytes) -> None:
        """Say pieces, each when the client waits for it."""
        for piece in pieces:
            self._asked.acquire()
            talk.say(piece)


@pytest.fixture
def course(monkeypatch: pytest.MonkeyPatch) -> Way:
    """Have the client come to its phases under a clock that is put forward there."""
    course = Way()
    monkeypatch.setattr(time, "monotonic", course.clock)

    def before(place: Any, name: str, step: Callable[[], object]) -> None:
        original = getattr(place, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            step()
            return original(*args, **kwargs)

        monkeypatch.setattr(place, name, wrapped)

    before(socket, "getaddrinfo", lambda: course.move(course.name))
    before(socket.socket, "connect", lambda: course.move(course.tcp))
    before(EncryptedConnection, "_shake_hands", lambda: course.move(course.tls))
    before(ResumingContext, "wrap_socket", lambda: course.move(course.tls))
    before(Pacer, "slot", lambda: course.move(course.turn))
    before(Connection, "_transmit", lambda: course.move(course.sending))
    before(adapter.HTTPConnection, "request", lambda: course.move(course.sending))
    before(Connection, "_receive", course.awaits)
    before(adapter._BoundedReader, "readinto", course.awaits)
    return course


@pytest.fixture
def exchanges() -> Iterator[list[Exchange]]:
    seen: list[Exchange] = []
    observer: Callable[[Exchange], None] = seen.append
    add_observer(observer)
    yield seen
    remove_observer(observer)


def data_plane(url: str = "http://door.invalid:80/") -> DataPlane:
    return DataPlane(EndpointSettings(url, stall_bytes_per_second=0), sleep=[].append)


def control_plane(url: str) -> ControlPlane:
    endpoint = EndpointSettings(url)
    return ControlPlane(endpoint, StaticSource(ANONYMOUS), Pacer(0), [].append)


def deadline() -> Deadline:
    return Deadline(10_000)


def after(seconds: float) -> Any:
    """Match so many seconds, and the real time on top."""
    return pytest.approx(seconds + REAL_SECONDS / 2, abs=REAL_SECONDS / 2)


NONE = pytest.approx(0.0, abs=REAL_SECONDS)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"


def three_pieces(course: Way) -> Callable[[Talk], None]:
    def script(talk: Talk) -> None:
        while talk.head():
            course.say(talk, HEAD, b"abc", b"def")

    return script


@pytest.mark.parametrize("own", [True, False])
def test_a_read_by_the_data_plane(course: Way, exchanges: list[Exchange], own: bool) -> None:
    course.name, course.tcp, course.turn, course.sending = 1, 2, 3, 4
    course.pieces = [5, 6, 7]
    with ScriptedServer(three_pieces(course)) as server:
        data = data_plane(server.url) if own else data_plane()
        for _ in range(2):
            with data.open("GET", server.url, deadline=deadline()) as answer:
                assert answer.read() == b"abcdef"
            course.pieces = [8, 9, 10]
    first, second = exchanges
    assert (first.role, first.reused) == ("door" if own else "pool", False)
    assert first.opening is not None
    assert (first.opening.name_seconds, first.opening.tcp_seconds) == (after(1), after(2))
    assert first.opening.tls_seconds is None
    assert first.turn_seconds == after(3 if own else 0)
    assert (first.sending_seconds, first.waiting_seconds) == (after(4), after(5))
    assert (first.first_byte_seconds, first.reading_seconds) == (after(6), after(6 + 7))
    assert first.commit_seconds == 0
    assert first.seconds == after(1 + 2 + 4 + 5 + 6 + 7)  # its turn does not count
    assert second.opening is None
    assert (second.waiting_seconds, second.first_byte_seconds, second.reading_seconds) == (
        after(8),
        after(9),
        after(9 + 10),
    )


def test_what_the_reader_does_in_between_is_not_reading(course: Way, exchanges: list[Exchange]) -> None:
    with (
        ScriptedServer(three_pieces(course)) as server,
        data_plane().open("GET", server.url, deadline=deadline()) as answer,
    ):
        while answer.read_some():
            course.move(100)
    (only,) = exchanges
    assert (only.seconds, only.reading_seconds) == (after(200), NONE)


def test_a_question_by_the_control_plane(course: Way, exchanges: list[Exchange]) -> None:
    course.name, course.tcp, course.turn, course.sending = 1, 2, 3, 4
    course.pieces = [5, 6, 7]
    with ScriptedServer(three_pieces(course)) as server:
        plane = control_plane(server.url)
        for _ in range(2):
            assert plane.request("PROPFIND", server.url, deadline=deadline()).body == b"abcdef"
            course.pieces = [8, 9, 10]
    first, second = exchanges
    assert (first.role, first.plane) == ("door", "control")
    assert first.opening is not None
    assert (first.opening.name_seconds, first.opening.tcp_seconds) == (after(1), after(2))
    assert (first.turn_seconds, first.sending_seconds, first.waiting_seconds) == (
        after(3),
        after(4),
        after(5),
    )
    assert (first.reading_seconds, first.seconds) == (after(6 + 7), after(1 + 2 + 4 + 5 + 6 + 7))
    assert (second.opening, second.reused) == (None, True)
    assert (second.waiting_seconds, second.reading_seconds) == (after(8), after(9 + 10))


@pytest.mark.parametrize("expect", [True, False])
def test_an_upload(course: Way, exchanges: list[Exchange], expect: bool) -> None:
    def script(talk: Talk) -> None:
        talk.head()
        if expect:
            course.say(talk, b"HTTP/1.1 100 Continue\r\n\r\n")
        talk.body(4)
        course.say(talk, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    course.sending = 3
    course.pieces = [5, 7] if expect else [7]
    with ScriptedServer(script) as server:
        data_plane().open("PUT", server.url, body=b"body", expect=expect, deadline=deadline()).close()
    (only,) = exchanges
    assert only.waiting_seconds == (after(5) if expect else 0)
    assert (only.sending_seconds, only.commit_seconds) == (after(6 if expect else 3), after(7))


def test_a_pushed_upload(course: Way, exchanges: list[Exchange]) -> None:
    def script(talk: Talk) -> None:
        talk.head()
        course.say(talk, b"HTTP/1.1 100 Continue\r\n\r\n")
        talk.body(4)
        course.say(talk, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    course.pieces = [5, 7]
    with ScriptedServer(script) as server:
        outgoing = data_plane().begin("PUT", server.url, length=4, deadline=deadline())
        assert isinstance(outgoing, Outgoing)
        course.sending = 3
        for piece in (b"bo", b"dy"):
            course.move(100)
            assert outgoing.send(piece, deadline())
        outgoing.finish(deadline()).close()
    (only,) = exchanges
    assert (only.status, only.sent) == (201, 4)
    assert (only.waiting_seconds, only.sending_seconds, only.commit_seconds) == (after(5), after(6), after(7))


def test_an_abandoned_upload_has_a_record(exchanges: list[Exchange]) -> None:
    def script(talk: Talk) -> None:
        talk.head()
        talk.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        talk.head()

    with ScriptedServer(script) as server:
        outgoing = data_plane().begin("PUT", server.url, length=4, deadline=deadline())
        assert isinstance(outgoing, Outgoing)
        for _ in range(2):
            outgoing.abandon()
    assert [(one.method, one.status, one.reason, one.connection > 0) for one in exchanges] == [
        ("PUT", None, "abandoned", True)
    ]


def test_a_wait_in_vain_is_told(course: Way, exchanges: list[Exchange]) -> None:
    def hang_up(talk: Talk) -> None:
        talk.head()

    course.pieces = [5]
    with ScriptedServer(hang_up, answering(ok(b"x"))) as server:
        data_plane().open("GET", server.url, deadline=deadline()).close()
    assert [(one.status, one.attempt, one.waiting_seconds) for one in exchanges] == [
        (None, 1, after(5)),
        (200, 2, NONE),
    ]


def test_each_attempt_to_connect_has_a_record(exchanges: list[Exchange]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x?authz={SECRET}"
    with pytest.raises(DcacheError):
        data_plane().open("GET", url, deadline=deadline())
    assert [one.attempt for one in exchanges] == [1, 2, 3, 4]
    assert {(one.connection, one.status) for one in exchanges} == {(0, None)}
    assert SECRET not in repr(exchanges)


def test_handshakes(embedded: EmbeddedDcache, course: Way, exchanges: list[Exchange]) -> None:
    course.name, course.tcp, course.tls = 1, 2, 4
    url = f"{embedded.url}phases"
    endpoint = settings_for(url)
    for presents in (True, False):
        tls_context(endpoint, client_certificate=presents)._sessions.clear()
    store = WebdavStore(endpoint)
    store.write(url, b"x")
    for _ in range(3):
        assert store.read(url) == b"x"
        assert store.exists(url)
    store._door.control.request("OPTIONS", url.replace("davs:", "https:"), deadline=deadline())
    opened: dict[str, list[Opening]] = {}
    for one in exchanges:
        if one.opening is not None:
            opened.setdefault(f"{one.plane} {one.url.split('/')[2]}", []).append(one.opening)
    assert {name.split()[0] for name in opened} == {"control", "data"}
    for openings in opened.values():
        for one in openings:
            assert (one.name_seconds, one.tcp_seconds, one.tls_seconds) == (after(1), after(2), after(4))
    at_door = opened[f"data {urlsplit(url).netloc}"]
    assert [one.is_resumed for one in at_door] == [False] + [True] * (len(at_door) - 1)
    assert len(at_door) > 1  # each redirect of an upload costs the connection to the door


@pytest.mark.parametrize("looks", [True, False])
def test_nobody_looks(looks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the clock is not looked at either, by neither plane."""
    followed: list[Course] = []

    def follow() -> Course:
        followed.append(Course())
        return followed[-1]

    for module in (request, control):
        monkeypatch.setattr(module, "is_observed", lambda: looks)
        monkeypatch.setattr(module, "Course", follow)
    with ScriptedServer(answering(ok(b"x"))) as server:
        data_plane().open("GET", server.url, deadline=deadline()).close()
        control_plane(server.url).request("GET", server.url, deadline=deadline())
    assert len(followed) == (2 if looks else 0)
