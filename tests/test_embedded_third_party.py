"""Third-party copies of the embedded dCache: rights, verdicts, progress, cancellation."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Literal
from urllib.parse import urlsplit

import pytest
from embedded_client import DATA, Client
from lsst.daf.butler_dcache.embedded import EmbeddedDcache, Fault

DIGEST = {"Digest": f"adler32={zlib.adler32(DATA):08x}"}


class Remote(http.server.BaseHTTPRequestHandler):
    """The other side; what it was asked is remembered on the server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._remember()
        if self.path == "/redirect":
            elsewhere = f"http://127.0.0.1:{self.server.server_port}/file"  # type: ignore[attr-defined]
            self._answer(302, {"Location": elsewhere})
        elif self.path == "/slow":
            self.server.proceed.wait(30)  # type: ignore[attr-defined]
            self._answer(200, DIGEST, DATA)
        else:
            self._answer(200, DIGEST, DATA)

    def do_HEAD(self) -> None:
        self._remember()
        if self.server.refuses_head:  # type: ignore[attr-defined]
            self._answer(403, {})
        else:
            self._answer(200, {"Content-Length": str(len(DATA)), "Digest": "adler32=00000001"})

    def do_PUT(self) -> None:
        self._remember()
        self.server.stored = self.rfile.read(int(self.headers["Content-Length"]))  # type: ignore[attr-defined]
        self._answer(201, {})

    def do_DELETE(self) -> None:
        self._remember()
        self._answer(204, {})

    def _remember(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers)))  # type: ignore[attr-defined]

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):  # the copy may have been cancelled
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class RemoteServer(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Remote)
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.refuses_head = False
        self.proceed = threading.Event()
        self.stored = b""

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that was cut is what a test wanted."""


@pytest.fixture
def remote() -> Iterator[RemoteServer]:
    with RemoteServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.proceed.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def dcache() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(time_scale=0.02) as running:
        running.place("source", DATA)
        yield running


@pytest.fixture
def client(dcache: EmbeddedDcache) -> Iterator[Client]:
    client = Client(dcache)
    yield client
    client.close()


def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")


def mint(client: Client, path: str, *activities: str) -> str:
    body = json.dumps({"caveats": [f"activity:{','.join(activities)}"]}).encode()
    answer = client.ask("POST", path, body, Content_Type="application/macaroon-request")
    return f"Bearer {json.loads(answer.body)['macaroon']}"


def test_copies_within_one_dcache(dcache: EmbeddedDcache, client: Client) -> None:
    token = mint(client, "source", "DOWNLOAD")
    answer = client.ask("COPY", "copy", Source=f"{client.base}source", TransferHeaderAuthorization=token)
    assert answer.body.endswith(b"success: Created\n")  # a marker may come before it
    assert client.ask("HEAD", "copy", Want_Digest="adler32").headers["digest"] == (
        f"adler32={zlib.adler32(DATA):08x}"
    )
    token = mint(client, "pushed", "UPLOAD")
    answer = client.ask(
        "COPY", "source", Destination=f"{client.base}pushed", TransferHeaderAuthorization=token
    )
    # the check after the transfer is a HEAD, and UPLOAD implies the right to look
    assert answer.body.endswith(b"success: Created\n")


def test_credentials_stay_with_the_host_they_were_meant_for(client: Client, remote: RemoteServer) -> None:
    answer = client.ask(
        "COPY",
        "copy",
        Source=f"{remote.url}/redirect",
        TransferHeaderAuthorization="Bearer secret",
        TransferHeaderX_Other="kept",
    )
    assert answer.body == b"success: Created\n"
    (_, _, first), (_, path, second) = remote.seen
    assert (first["Authorization"], first["X-Other"]) == ("Bearer secret", "kept")
    assert (path, second.get("Authorization"), second["X-Other"]) == ("/file", None, "kept")


def test_a_push_that_does_not_verify_is_removed_there(client: Client, remote: RemoteServer) -> None:
    answer = client.ask("COPY", "source", Destination=f"{remote.url}/there")
    assert answer.body.startswith(b"failure: verification failed: checksum mismatch")
    assert [method for method, _, _ in remote.seen] == ["PUT", "HEAD", "DELETE"]
    assert remote.stored == DATA


def test_a_push_that_cannot_be_verified(dcache: EmbeddedDcache, client: Client, remote: RemoteServer) -> None:
    """Who does not require a verification is not told of one that the other side refuses."""
    remote.refuses_head = True
    answer = client.ask("COPY", "source", Destination=f"{remote.url}/there")
    assert answer.body == b"failure: verification failed: rejected HEAD: 403 Forbidden\n"
    remote.seen.clear()
    answer = client.ask(
        "COPY", "source", Destination=f"{remote.url}/there", RequireChecksumVerification="false"
    )
    assert answer.body == b"success: Created\n"
    assert [method for method, _, _ in remote.seen] == ["PUT", "HEAD"]
    entry = dcache.site.namespace.find("/data/source")
    assert entry is not None
    entry.checksums = {}
    answer = client.ask("COPY", "source", Destination=f"{remote.url}/there")
    assert answer.body == b"failure: checksum verification failed: file has no checksum\n"


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [("over_quota", 507, b"quota-not-exceeded"), ("full", 202, b"failure: All pools are full\n")],
)
def test_a_pull_without_space_leaves_nothing(
    dcache: EmbeddedDcache, client: Client, kind: Literal["over_quota", "full"], status: int, text: bytes
) -> None:
    token = mint(client, "source", "DOWNLOAD")
    dcache.faults.add(Fault(kind, method="COPY"))
    answer = client.ask("COPY", "copy", Source=f"{client.base}source", TransferHeaderAuthorization=token)
    assert answer.status == status
    assert text in answer.body
    assert client.ask("HEAD", "copy").status == 404


def test_instances_of_one_process_trust_one_another(dcache: EmbeddedDcache, client: Client) -> None:
    with EmbeddedDcache(time_scale=0.02) as later:
        later.place("source", DATA)
        other = Client(later)
        for reader, writer in ((client, other), (other, client)):
            token = mint(reader, "source", "DOWNLOAD")
            answer = writer.ask(
                "COPY", "copy", Source=f"{reader.base}source", TransferHeaderAuthorization=token
            )
            assert answer.body == b"success: Created\n"
        other.close()


def test_missing_rights_are_401_and_count_for_the_block(dcache: EmbeddedDcache, client: Client) -> None:
    token = mint(client, "", "DOWNLOAD", "LIST")
    me = {"Source": f"{client.base}source", "X_Forwarded_For": "198.18.1.1"}
    for _ in range(3):
        answer = client.ask("COPY", "copy", login=token, **me)
        assert (answer.status, answer.reason) == (401, "Permission denied")
        time.sleep(0.01)
    assert client.ask("HEAD", "source", X_Forwarded_For="198.18.1.1").status == 429
    assert client.ask("HEAD", "copy").status == 404


def test_what_is_still_being_written_cannot_be_pushed(client: Client, remote: RemoteServer) -> None:
    assert client.redirect("upload", 10).status == 307
    answer = client.ask("COPY", "upload", Destination=f"{remote.url}/there")
    assert (answer.status, answer.reason) == (409, "File upload in progress")
    assert remote.seen == []


def test_a_broken_file_is_found_out_late(
    dcache: EmbeddedDcache, client: Client, remote: RemoteServer
) -> None:
    entry = dcache.site.namespace.find("/data/source")
    assert entry is not None
    entry.broken = True
    text = client.ask("COPY", "source", Destination=f"{remote.url}/there").body.decode()
    assert text.count("State: Requesting mover") > 2
    assert "Stripe Bytes Transferred" not in text
    assert text.splitlines()[-1].startswith("failure: Too many attempts to select pool; last pool pool")
    assert remote.seen == []


def test_a_pull_keeps_attributes_and_origin(
    client: Client, dcache: EmbeddedDcache, remote: RemoteServer
) -> None:
    client.ask("COPY", "copy?xattr.colour=blue", Source=f"{remote.url}/file")
    entry = dcache.site.namespace.find("/data/copy")
    assert entry is not None
    assert entry.xattrs == {"colour": "blue", "xdg.origin.url": f"{remote.url}/file"}


def start_copy(client: Client, path: str, source: str) -> socket.socket:
    """Begin a copy; return the connection, its answer unread."""
    connection = client.connection(client.base)
    connection.request(
        "COPY", urlsplit(client.base + path).path, headers={"Authorization": client.login, "Source": source}
    )
    assert connection.sock is not None
    return connection.sock


def test_closing_the_connection_cancels(dcache: EmbeddedDcache, client: Client, remote: RemoteServer) -> None:
    start_copy(client, "copy", f"{remote.url}/slow")
    eventually(lambda: bool(remote.seen))
    client.close()
    eventually(lambda: dcache.site.namespace.find("/data/copy") is None)


def test_a_copy_may_end_before_anybody_notices_that_its_client_went(
    dcache: EmbeddedDcache, client: Client, remote: RemoteServer
) -> None:
    dcache.site.time_scale = 1.0  # the next marker is five seconds away
    start_copy(client, "copy", f"{remote.url}/slow")
    eventually(lambda: bool(remote.seen))
    client.close()
    remote.proceed.set()

    def is_complete() -> bool:
        entry = dcache.site.namespace.find("/data/copy")
        return entry is not None and entry.size == len(DATA)

    eventually(is_complete)


def test_copies_come_to_no_verdict_in_12_0_1(remote: RemoteServer) -> None:
    with EmbeddedDcache(version="12.0.1", time_scale=0.01) as newer:
        answer = Client(newer).ask("COPY", "copy", Source=f"{remote.url}/file")
        assert answer.status == 202
        assert answer.body.count(b"Perf Marker") == 2
        assert answer.body.endswith(b"\nEnd\n")
        assert newer.site.namespace.find("/data/copy") is None
    assert remote.seen == []


def test_a_stopping_door_ends_the_stream_without_a_verdict(remote: RemoteServer) -> None:
    with EmbeddedDcache(time_scale=0.01) as stopping:
        client = Client(stopping)
        sock = start_copy(client, "copy", f"{remote.url}/slow")
        seen = sock.recv(4096)
        while b"Perf Marker" not in seen:
            seen += sock.recv(4096)
    with contextlib.suppress(OSError, http.client.HTTPException):
        while data := sock.recv(4096):
            seen += data
    assert b"success" not in seen
    assert b"failure" not in seen
