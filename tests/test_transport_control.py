"""The control plane: what is sent, what is repeated, what is said when it fails."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import responses
from lsst.daf.butler_dcache.auth.credential import ANONYMOUS, Credential, refused
from lsst.daf.butler_dcache.auth.sources import StaticSource, source_for
from lsst.daf.butler_dcache.config.loading import settings_for
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.errors import (
    CredentialError,
    DeadlineError,
    DoorUnavailableError,
    OutcomeUnknownError,
    ProtocolError,
    ServerBusyError,
)
from lsst.daf.butler_dcache.transport.control import ControlPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.exchange import Exchange, add_observer, remove_observer
from lsst.daf.butler_dcache.transport.pacing import Pacer, pacer_for
from scripted_server import ScriptedServer, Talk, answering, ok

DOOR = "https://door.example.org:2880/"
SECRET = "TOPSECRETTOKEN"


@pytest.fixture(autouse=True)
def forget_refusals() -> Iterator[None]:
    refused.clear()
    yield
    refused.clear()


PAUSES: list[float] = []


@pytest.fixture(autouse=True)
def pauses() -> list[float]:
    """Waits between attempts, which do not take place."""
    PAUSES.clear()
    return PAUSES


@pytest.fixture
def exchanges() -> Iterator[list[Exchange]]:
    seen: list[Exchange] = []
    observer: Callable[[Exchange], None] = seen.append
    add_observer(observer)
    yield seen
    remove_observer(observer)


def plane(base_url: str = DOOR, credential: Credential = ANONYMOUS, **settings: object) -> ControlPlane:
    endpoint = EndpointSettings(base_url, **settings)  # type: ignore[arg-type]
    return ControlPlane(endpoint, StaticSource(credential), Pacer(0), PAUSES.append)


def deadline(seconds: float = 30) -> Deadline:
    return Deadline(seconds)


# Unit tests on a mocked transport


@responses.activate
def test_the_credential_goes_along_at_once() -> None:
    responses.add("PROPFIND", DOOR + "d/", status=207, body=b"<x/>", headers={"ETag": '"e"'})
    answer = plane(credential=Credential.bearer(SECRET)).request(
        "PROPFIND", DOOR + "d/", headers={"Depth": "1"}, body=b"<p/>", deadline=deadline()
    )
    request = responses.calls[0].request
    assert request.headers["Authorization"] == f"Bearer {SECRET}"
    assert (request.headers["Depth"], request.body) == ("1", b"<p/>")
    assert "Content-Type" not in request.headers
    assert (answer.status, answer.body, answer.text, answer.headers["etag"]) == (207, b"<x/>", "<x/>", '"e"')
    assert answer.attempts == 1
    assert SECRET not in repr(answer)


@responses.activate
def test_the_endpoints_own_servers_only() -> None:
    other = "https://elsewhere.example.org/"
    for url in (DOOR, "https://door.example.org:3880/", other):
        responses.add("GET", url)
    control = plane(credential=Credential.bearer(SECRET), frontend_url="https://door.example.org:3880/")
    control.request("GET", DOOR, deadline=deadline())
    control.request("GET", "https://door.example.org:3880/", deadline=deadline())
    control.request("GET", other, deadline=deadline())
    control.request("GET", DOOR, deadline=deadline(), authenticate=False)
    assert ["Authorization" in call.request.headers for call in responses.calls] == [True, True, False, False]
    with pytest.raises(CredentialError):
        control.request("GET", other, deadline=deadline(), credential=Credential.bearer(SECRET))
    with pytest.raises(CredentialError):
        control.request("GET", DOOR, deadline=deadline(), headers={"authorization": "Bearer x"})
    assert len(responses.calls) == 4


@responses.activate
def test_redirects_are_answers() -> None:
    pool = "https://pool.example.org:20000/x?dcache-http-uuid=1"
    responses.add("GET", DOOR + "x", status=302, headers={"Location": pool})
    responses.add("GET", pool, body=b"data")
    answer = plane().request("GET", DOOR + "x", deadline=deadline())
    assert (answer.status, answer.headers["Location"]) == (302, pool)
    assert "uuid" not in repr(answer)
    assert len(responses.calls) == 1


@responses.activate
@pytest.mark.parametrize("method", ["GET", "MOVE"])
def test_too_many_requests_is_repeated_for_every_method(method: str, pauses: list[float]) -> None:
    responses.add(method, DOOR + "x", status=429)
    responses.add(method, DOOR + "x", status=429, headers={"Retry-After": "3"})
    responses.add(method, DOOR + "x", status=201)
    answer = plane().request(method, DOOR + "x", deadline=deadline())
    assert (answer.status, answer.attempts) == (201, 3)
    assert all(pause <= 0.05 for pause in pauses[:-1])
    assert 3 <= pauses[-1] < 3.2


@responses.activate
def test_a_server_that_stays_busy(pauses: list[float]) -> None:
    responses.add("DELETE", DOOR + "x", status=429)
    with pytest.raises(ServerBusyError) as caught:
        plane().request("DELETE", DOOR + "x", deadline=deadline(1000))
    assert caught.value.status == 429
    assert caught.value.attempts == len(responses.calls) == 20
    assert sum(pauses) < 200
    assert max(pauses) <= 10


@responses.activate
def test_unavailable_is_repeated_for_reads_only(pauses: list[float]) -> None:
    responses.add("PROPFIND", DOOR, status=503)
    responses.add("PROPFIND", DOOR, status=207)
    responses.add("MKCOL", DOOR, status=503)
    assert plane().request("PROPFIND", DOOR, deadline=deadline()).attempts == 2
    answer = plane().request("MKCOL", DOOR, deadline=deadline())
    assert (answer.status, answer.attempts) == (503, 1)
    assert len(pauses) == 1


@responses.activate
def test_statuses_that_are_wanted_are_answers() -> None:
    responses.add("COPY", DOOR, status=401)
    answer = plane(credential=Credential.bearer(SECRET)).request("COPY", DOOR, deadline=deadline(), ok=(401,))
    assert answer.status == 401
    assert refused._reasons == {}


@responses.activate
def test_a_refused_credential_is_not_sent_again() -> None:
    responses.add("GET", DOOR, status=401)
    with pytest.raises(CredentialError) as caught:
        plane(credential=Credential.bearer(SECRET, "token file")).request("GET", DOOR, deadline=deadline())
    assert (caught.value.status, caught.value.attempts) == (401, 1)
    assert "token file" in str(caught.value)
    assert isinstance(caught.value, PermissionError)
    with pytest.raises(CredentialError, match="before"):  # another plane of the process, another path
        plane(credential=Credential.bearer(SECRET)).request("GET", DOOR + "y", deadline=deadline())
    assert len(responses.calls) == 1
    responses.replace("GET", DOOR, status=200)
    assert (
        plane(credential=Credential.bearer("renewed")).request("GET", DOOR, deadline=deadline()).status == 200
    )


@responses.activate
def test_without_a_credential_the_way_to_one_is_told() -> None:
    responses.add("GET", DOOR, status=401)
    for _ in range(2):  # nobody is refused for good
        with pytest.raises(CredentialError, match="BEARER_TOKEN_FILE"):
            plane().request("GET", DOOR, deadline=deadline())
    assert len(responses.calls) == 2


@responses.activate
def test_expired_or_unencrypted_nothing_is_sent() -> None:
    expired = Credential("bearer", Credential.bearer(SECRET).secret, datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(CredentialError, match="expired"):
        plane(credential=expired).request("GET", DOOR, deadline=deadline())
    with pytest.raises(CredentialError, match="unencrypted"):
        plane("http://door:80/", Credential.bearer(SECRET)).request(
            "GET", "http://door:80/", deadline=deadline()
        )
    assert len(responses.calls) == 0


@responses.activate
def test_answers_are_bounded() -> None:
    responses.add("GET", DOOR, body=b"x" * 1001)
    with pytest.raises(ProtocolError, match="1000 bytes"):
        plane(max_body_bytes=1000).request("GET", DOOR, deadline=deadline())


@pytest.mark.parametrize("status", [b"200 OK", b"302 Found\r\nLocation: /x", b"302 Found\r\nLocation: /\xe9"])
def test_answers_without_end_take_no_more_memory(status: bytes) -> None:
    def script(talk: Talk) -> None:
        talk.head()
        talk.say(b"HTTP/1.1 %s\r\nTransfer-Encoding: chunked\r\n\r\n" % status)
        while True:
            talk.say(b"10000\r\n%s\r\n" % bytes(65536))

    with ScriptedServer(script) as server:
        own = plane(base_url=server.url, max_body_bytes=1000)
        with pytest.raises(ProtocolError, match="1000 bytes"):
            own.request("GET", server.url, deadline=deadline(2.0), authenticate=False)


@responses.activate
def test_one_record_per_exchange(exchanges: list[Exchange], pauses: list[float]) -> None:
    url = DOOR + "x?authz=" + SECRET
    responses.add("PUT", url, status=429)
    responses.add("PUT", url, status=201, body=b"done")
    plane().request("PUT", url, body=b"12345", deadline=deadline())
    assert [(e.plane, e.method, e.status, e.sent, e.attempt) for e in exchanges] == [
        ("control", "PUT", 429, 5, 1),
        ("control", "PUT", 201, 5, 2),
    ]
    assert exchanges[1].received == 4
    assert SECRET not in repr(exchanges)


# On real sockets


def test_the_url_is_sent_as_it_is() -> None:
    with ScriptedServer(answering(ok())) as server:
        path = "a%2Bb/%7Ec%26d+e%C3%A9;f=g,h?x=%2F&y"
        plane(server.url).request("GET", server.url + path, deadline=deadline())
    assert server.heads[0].startswith(f"GET /{path} HTTP/1.1\r\n".encode())


def test_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    with ScriptedServer(answering(ok(b"", b"Set-Cookie: DCACHE_API_SESSION=1; Path=/"))) as server:
        control = plane(server.url)
        for _ in range(2):
            control.request("GET", server.url, deadline=deadline())
    names = [{line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]} for head in server.heads]
    assert names == [{b"host", b"user-agent", b"accept-encoding"}] * 2


def test_a_name_in_a_url_is_no_credential() -> None:
    """And takes the place of none: what is refused then would be the credential that was not sent."""
    with ScriptedServer(answering(ok(b""))) as server:
        url = server.url.replace("://", "://me:word@")
        plane(server.url, Credential.basic("name", "password")).request("GET", url, deadline=deadline())
        plane(server.url).request("GET", url, deadline=deadline())
        heads = server.heads
    assert b"Authorization: Basic bmFtZTpwYXNzd29yZA==" in heads[0]
    assert b"authorization" not in heads[1].lower()


def test_connections_are_kept() -> None:
    with ScriptedServer(answering(ok(b"x" * 100_000))) as server:
        control = plane(server.url)
        for method in ("GET", "DELETE", "MKCOL", "PROPFIND"):
            assert len(control.request(method, server.url, deadline=deadline()).body) == 100_000
    assert server.connections == 1


def test_a_connection_that_the_server_closed_is_replaced(exchanges: list[Exchange]) -> None:
    with ScriptedServer(answering(ok(), again=False), answering(ok())) as server:
        control = plane(server.url)
        control.request("GET", server.url, deadline=deadline())
        wait_for_end(control)
        assert control.request("MOVE", server.url, deadline=deadline()).status == 200
    assert server.connections == 2
    assert [exchange.reused for exchange in exchanges] == [False, False]


def idle_connection(control: ControlPlane) -> Any:
    """The one connection that a plane keeps."""
    assert control._session is not None
    manager = control._session.adapters["https://"].poolmanager  # type: ignore[attr-defined]
    (key,) = manager.pools.keys()
    (connection,) = (item for item in manager.pools[key].pool.queue if item is not None)
    return connection


def wait_for_end(control: ControlPlane) -> None:
    """Wait until the end of the idle connection has reached this side."""
    connection = idle_connection(control)
    end = time.monotonic() + 5
    while connection.is_connected and time.monotonic() < end:
        time.sleep(0.001)
    assert not connection.is_connected


def lost(talk: Talk) -> None:
    talk.head()


def test_a_read_without_answer_is_repeated(pauses: list[float]) -> None:
    with ScriptedServer(lost, lost, answering(ok(b"data"))) as server:
        answer = plane(server.url).request("GET", server.url, deadline=deadline())
    assert (answer.body, answer.attempts) == (b"data", 3)


def test_a_cut_answer_is_repeated(pauses: list[float]) -> None:
    def cut(talk: Talk) -> None:
        talk.head()
        talk.say(ok(b"data")[:-1])

    with ScriptedServer(cut, answering(ok(b"data"))) as server:
        assert plane(server.url).request("PROPFIND", server.url, deadline=deadline()).body == b"data"
    assert server.connections == 2


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nDate: today\r\n"]
)
def test_an_answer_that_ends_within_its_head_is_none(pauses: list[float], head: bytes) -> None:
    def cut(talk: Talk) -> None:
        talk.head()
        talk.say(head)

    with ScriptedServer(cut, answering(ok(b"data"))) as server:
        assert plane(server.url).request("GET", server.url, deadline=deadline()).body == b"data"
    with ScriptedServer(cut) as server, pytest.raises(OutcomeUnknownError):
        plane(server.url).request("MKCOL", server.url, deadline=deadline())
    assert server.connections == 1


def test_a_write_without_answer_is_not_repeated() -> None:
    with ScriptedServer(lost) as server, pytest.raises(OutcomeUnknownError) as caught:
        plane(server.url).request("MOVE", server.url, deadline=deadline())
    assert server.connections == 1
    assert caught.value.attempts == 1
    assert caught.value.operation == "MOVE"


def test_no_door(pauses: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    with pytest.raises(DoorUnavailableError, match="refused") as caught:
        plane(url).request("MOVE", url, deadline=deadline())
    assert caught.value.attempts == 4
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.__cause__ is not None


def test_no_such_host(pauses: list[float]) -> None:
    url = "http://no-such-host.invalid:80/"
    with pytest.raises(DoorUnavailableError, match="no connection"):
        plane(url).request("GET", url, deadline=deadline())


def test_a_silent_server() -> None:
    def silent(talk: Talk) -> None:
        talk.head()
        talk.head()

    with ScriptedServer(silent) as server:
        with pytest.raises(DeadlineError) as caught:
            plane(server.url, read_timeout_seconds=0.05).request("GET", server.url, deadline=deadline())
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(DeadlineError):
            plane(server.url).request("GET", server.url, deadline=deadline(0.05))
        with pytest.raises(OutcomeUnknownError):
            plane(server.url).request("DELETE", server.url, deadline=deadline(0.05))


def test_a_dribbling_server_meets_the_deadline() -> None:
    def dribble(talk: Talk) -> None:
        talk.head()
        talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            talk.say(b"1\r\nx\r\n")
            time.sleep(0.01)

    with ScriptedServer(dribble) as server, pytest.raises(DeadlineError):
        plane(server.url).request("GET", server.url, deadline=deadline(0.1))


@pytest.mark.parametrize("part", ["head", "body", "chunks"])
@pytest.mark.parametrize(("method", "error"), [("PROPFIND", DeadlineError), ("MOVE", OutcomeUnknownError)])
def test_a_server_that_never_ends_meets_the_deadline(part: str, method: str, error: type[Exception]) -> None:
    """Each byte comes within every time limit of a single wait."""

    def dribble(talk: Talk) -> None:
        talk.head()
        if part == "head":
            talk.say(b"HTTP/1.1 200 OK\r\nX-Long: ")
        elif part == "body":
            talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        else:
            talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(200):
            talk.say(b"1\r\nx\r\n" if part == "chunks" else b"x")
            time.sleep(0.02)

    with ScriptedServer(dribble) as server:
        started = time.monotonic()
        with pytest.raises(error):
            plane(server.url).request(method, server.url, deadline=deadline(0.3))
        assert time.monotonic() - started < 1.5


def test_a_server_that_is_not_ours_to_trust(embedded: EmbeddedDcache, pauses: list[float]) -> None:
    url = embedded.url.replace("davs", "https", 1)
    with pytest.raises(DoorUnavailableError, match=r"(?i)certificate"):
        plane(url).request("HEAD", url, deadline=deadline())


def test_a_hundred_requests_over_tls_are_one_connection(
    embedded: EmbeddedDcache, exchanges: list[Exchange]
) -> None:
    endpoint = settings_for(embedded.url)
    control = ControlPlane(endpoint, source_for(endpoint), pacer_for(endpoint))
    url = embedded.url.replace("davs", "https", 1) + "there"
    assert control.request("PUT", url, body=b"x", deadline=deadline()).status == 201
    before = len(embedded.transcript())
    for _ in range(100):
        assert control.request("HEAD", url, deadline=deadline()).status == 200
    records = embedded.transcript()[before:]
    assert len(records) == 100
    assert len({record.connection for record in records}) == 1
    assert all(record.authorization for record in records)
    assert len({exchange.connection for exchange in exchanges}) == 1
    assert all(exchange.attempt == 1 for exchange in exchanges)


def test_new_connections_resume_their_session(embedded: EmbeddedDcache) -> None:
    endpoint = settings_for(embedded.url)
    url = embedded.url.replace("davs", "https", 1)
    reused = []
    for _ in range(3):
        control = ControlPlane(endpoint, source_for(endpoint), pacer_for(endpoint))
        control.request("PROPFIND", url, headers={"Depth": "0"}, deadline=deadline())
        reused.append(idle_connection(control).sock.session_reused)
    assert reused[1:] == [True, True]


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "no-server"])
def test_a_token_in_a_redirect_is_told_to_nobody(
    lost: bool, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by what `requests` raises nor by what urllib3 logs: XRootD's redirects carry a token."""
    caplog.set_level("DEBUG")
    query = f"?xrdhttptk={SECRET}&authz=Bearer%20{SECRET}"
    with ScriptedServer(answering(ok())) as server:
        plane(server.url).request("PROPFIND", server.url + query, deadline=deadline(), authenticate=False)
        port = server.port
    with ScriptedServer(lambda talk: talk.head() and None) as server:
        url = f"http://127.0.0.1:{server.port if lost else port}/{query}"
        with pytest.raises(DoorUnavailableError) as caught:
            plane(server.url).request("PROPFIND", url, deadline=deadline(), authenticate=False)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert "PROPFIND" in caplog.text
    assert SECRET not in caplog.text
