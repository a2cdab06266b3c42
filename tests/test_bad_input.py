"""Answers that a server must not give: an error of the right class, and never wrong bytes, however one reads.

The upstream client (lsst.resources 30.2026.2800) has no checksum on any read, and takes whatever comes.
"""

from __future__ import annotations

import contextlib
import re
import tracemalloc
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler_dcache import DcacheFileSystem, errors
from lsst.daf.butler_dcache.model import ByteRange
from lsst.daf.butler_dcache.remote_file import RemoteFile
from lsst.daf.butler_dcache.store.registry import reset_stores, store_for
from lsst.daf.butler_dcache.transport.upload_body import UploadBody
from lsst.resources import ResourcePath
from scripted_server import Script, ScriptedServer, Talk, answering, ok

DATA = bytes(range(256)) * 4


@contextlib.contextmanager
def site(folder: Path, door: ScriptedServer, **settings: Any) -> Iterator[str]:
    """Set up the client for a scripted door, and give the URL of a file there."""
    base = door.url.replace("http", "dav", 1)
    config = folder / f"{uuid.uuid4().hex}.yaml"
    own = {"idle_timeout_seconds": 0.3, "requests_per_second": 0, **settings}
    config.write_text(f"- base_url: {base}\n  dcache: {own}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(config))
        patch.delenv("BEARER_TOKEN_FILE", raising=False)
        yield f"{base}file"
    reset_stores()


def by_method(**answers: bytes) -> Script:
    """Give one answer per method, and end the connection after one that does not say where it ends."""

    def script(talk: Talk) -> None:
        while head := talk.head():
            method = head.partition(b" ")[0].decode()
            if method == "PROPFIND":
                talk.body(int(head.lower().partition(b"content-length:")[2].split()[0]))
            answer = answers.get(method, b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n")
            talk.say(answer)
            if b"ontent-" not in answer and b"hunked" not in answer:
                return

    return script


def multistatus(size: int) -> bytes:
    text = (
        '<?xml version="1.0"?><D:multistatus xmlns:D="DAV:"><D:response>'
        f"<D:href>/file</D:href><D:propstat><D:prop><D:getcontentlength>{size}</D:getcontentlength><D:resourcetype/></D:prop>"
        "<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>"
    ).encode()
    head = f"HTTP/1.1 207 Multi-Status\r\nContent-Type: text/xml\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


# A body whose end nothing announces


def until_close(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", "Server: some", *headers, "", ""]).encode() + body


def read_by_store(url: str, folder: Path) -> bytes:
    return store_for(url).read(url)


def download_by_store(url: str, folder: Path) -> bytes:
    with open(folder / "copy", "w+b") as file:
        store_for(url).download(url, file)
        file.seek(0)
        return file.read()


WHOLE = pytest.mark.parametrize("read", [read_by_store, download_by_store])


@WHOLE
def test_a_body_without_announced_end_is_compared_with_the_size(tmp_path: Path, read: Any) -> None:
    door = by_method(GET=until_close(DATA), PROPFIND=multistatus(len(DATA)))
    with ScriptedServer(door) as server, site(tmp_path, server) as url:
        assert read(url, tmp_path) == DATA
    door = by_method(GET=until_close(DATA[:-1]), PROPFIND=multistatus(len(DATA)))
    with (
        ScriptedServer(door) as server,
        site(tmp_path, server) as url,
        pytest.raises(errors.IntegrityError, match="1023 bytes arrived"),
    ):
        read(url, tmp_path)


@WHOLE
def test_a_body_without_announced_end_is_proved_by_its_checksum(tmp_path: Path, read: Any) -> None:
    checksum = f"Digest: adler32={zlib.adler32(DATA):08x}"
    with ScriptedServer(by_method(GET=until_close(DATA, checksum))) as server, site(tmp_path, server) as url:
        assert read(url, tmp_path) == DATA
    with (
        ScriptedServer(by_method(GET=until_close(DATA[:-1], checksum))) as server,
        site(tmp_path, server) as url,
        pytest.raises(errors.IntegrityError, match="adler32"),
    ):
        read(url, tmp_path)


@WHOLE
def test_a_body_of_which_nothing_proves_the_end_is_refused(tmp_path: Path, read: Any) -> None:
    with (
        ScriptedServer(by_method(GET=until_close(DATA))) as server,
        site(tmp_path, server) as url,
        pytest.raises(errors.IntegrityError, match="neither length nor checksum"),
    ):
        read(url, tmp_path)


@WHOLE
def test_chunks_prove_the_end(tmp_path: Path, read: Any) -> None:
    chunked = until_close(b"400\r\n" + DATA + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    with ScriptedServer(by_method(GET=chunked)) as server, site(tmp_path, server) as url:
        assert read(url, tmp_path) == DATA


# Answers that would not fit into memory


def redirected(folder: Path, pool: ScriptedServer) -> Any:
    """Set up the client for a dCache door that sends every read to a scripted pool."""
    redirect = (
        "HTTP/1.1 302 Found\r\nServer: dCache/11.2.4\r\nContent-Length: 0\r\n"
        f"Location: {pool.url}f?dcache-http-uuid=1\r\n\r\n"
    ).encode()

    @contextlib.contextmanager
    def run() -> Iterator[str]:
        with ScriptedServer(answering(redirect)) as door, site(folder, door) as url:
            yield url

    return run()


def peak_of(action: Any) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


CHUNK = b"100000\r\n" + bytes(1 << 20) + b"\r\n"


@pytest.mark.parametrize("kind", ["whole", "parts", "one part"])
def test_an_answer_of_any_length_takes_no_more_memory_than_what_was_asked_for(
    tmp_path: Path, kind: str
) -> None:
    size = 64 << 20
    head = {
        "whole": "HTTP/1.1 200 OK",
        "parts": 'HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary="x"',
        "one part": f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-{size - 1}/{size}",
    }[kind]
    first = f"\r\n--x\r\nContent-Range: bytes 0-{size - 1}/{size}\r\n\r\n".encode()

    def pool(talk: Talk) -> None:
        talk.head()
        talk.say(head.encode() + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        if kind == "parts":
            talk.say(b"%x\r\n%s\r\n" % (len(first), first))
        at_first = (1 << 20) - 5 if kind == "one part" else 1 << 20
        talk.say(b"%x\r\n%s\r\n" % (at_first, bytes(at_first)))
        for _ in range(63):
            talk.say(CHUNK)
        if kind == "parts":
            talk.say(b"9\r\n\r\n--x--\r\n\r\n")
        talk.say(b"0\r\n\r\n")
        talk.head()

    with ScriptedServer(pool) as server, redirected(tmp_path, server) as url:
        found: list[bytes] = []
        ranges = [ByteRange(5, 10), ByteRange(size - 10, size)]
        assert peak_of(lambda: found.extend(store_for(url).read_ranges(url, ranges))) < 8 << 20
        assert found == [bytes(5), bytes(10)]


def test_a_range_of_any_length_takes_no_more_memory_than_what_comes(tmp_path: Path) -> None:
    answer = until_close(b"400\r\n" + DATA + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    with ScriptedServer(answering(answer)) as server, redirected(tmp_path, server) as url:
        with RemoteFile(store_for(url).open_reader(url), url) as file:
            assert peak_of(lambda: file.read(1 << 50)) < 128 << 20
        with RemoteFile(store_for(url).open_reader(url), url) as file:
            assert file.read(1 << 50) == DATA


@pytest.mark.parametrize("proof", ["Digest: adler32=00000001", ""])
def test_a_range_that_breaks_off_is_had_anew_if_the_file_is_proved(tmp_path: Path, proof: str) -> None:
    whole = "\r\n".join(
        ["HTTP/1.1 206 Partial Content", "Content-Range: bytes 0-1023/2000", "Content-Length: 1024", proof]
    ).encode() + (b"\r\n\r\n" if proof else b"\r\n")
    scripts = [answering(whole + DATA[:-1], again=False), answering(whole + DATA)]
    expected = contextlib.nullcontext() if proof else pytest.raises(errors.IntegrityError, match="proves")
    with ScriptedServer(*scripts) as server, redirected(tmp_path, server) as url, expected:
        assert store_for(url).read_ranges(url, [ByteRange(0, 1024)]) == [DATA]


# Every way of reading, for everything that can be wrong


def parts_of_path(url: str) -> bytes:
    with ResourcePath(url).open("rb") as file:
        content = b""
        for start in (100, 600):
            file.seek(start)
            content += file.read(50)
        file.seek(5000)
        assert file.read(10) == b""
        return content


def all_of_path(url: str) -> bytes:
    with ResourcePath(url).open("rb") as file:
        return file.read()


def blocks_of_path(url: str) -> bytes:
    with ResourcePath(url).open("rb") as file:
        return b"".join(iter(lambda: file.read(100), b""))


def local_copy(url: str) -> bytes:
    with ResourcePath(url).as_local() as local:
        return Path(local.ospath).read_bytes()


def ranges_of_filesystem(url: str) -> bytes:
    starts, ends = [100, 600, 5000], [150, 650, 5010]
    return b"".join(DcacheFileSystem().cat_ranges([url] * 3, starts, ends, on_error="raise"))


WHOLE_WAYS = (lambda url: ResourcePath(url).read(), local_copy)
OPEN_WAYS = (all_of_path, blocks_of_path)
PART_WAYS = (parts_of_path, ranges_of_filesystem)


class Pool:
    """Answers reads of `content` as a pool of dCache does, until a test changes a method."""

    content = DATA

    def __call__(self, talk: Talk) -> None:
        while head := talk.head():
            found = re.search(rb"\r\nrange: bytes=([^\r]+)", head, re.IGNORECASE)
            spans = [] if found is None else [self.span(text) for text in found[1].decode().split(",")]
            answer = self.answer([span for span in spans if span], asked=found is not None)
            talk.say(answer)
            if not self.is_complete(answer):
                return

    def span(self, text: str) -> tuple[int, int] | None:
        first, _, last = text.partition("-")
        size = len(self.content)
        if not first:
            return (max(0, size - int(last)), size) if size else None
        return (int(first), min(int(last) + 1 if last else size, size)) if int(first) < size else None

    def answer(self, spans: list[tuple[int, int]], asked: bool) -> bytes:
        if not asked:
            return self.message("200 OK", self.content, f"Digest: {self.digest()}")
        if not spans:
            return self.message("416 Requested Range Not Satisfiable", b"")
        if len(spans) == 1:
            start, stop = spans[0]
            where = f"Content-Range: {self.content_range(start, stop)}"
            return self.message(
                "206 Partial Content", self.part(start, stop), where, f"Digest: {self.digest()}"
            )
        body = b"".join(
            f"\r\n--x\r\nContent-Range: {self.content_range(start, stop)}\r\n\r\n".encode()
            + self.part(start, stop)
            for start, stop in spans
        )
        kind = 'Content-Type: multipart/byteranges; boundary="x"'
        return self.message("206 Partial Content", body + b"\r\n--x--\r\n", kind, f"Digest: {self.digest()}")

    def part(self, start: int, stop: int) -> bytes:
        return self.content[start:stop]

    def content_range(self, start: int, stop: int) -> str:
        return f"bytes {start}-{stop - 1}/{len(self.content)}"

    def digest(self) -> str:
        return f"adler32={zlib.adler32(self.content):08x}"

    def message(self, status: str, body: bytes, *headers: str) -> bytes:
        lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body

    @staticmethod
    def is_complete(answer: bytes) -> bool:
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.rpartition(b"Content-Length: ")[2]) == len(body)


class IgnoringRanges(Pool):
    def answer(self, spans: list[tuple[int, int]], asked: bool) -> bytes:
        return super().answer([], asked=False)


class Empty(Pool):
    content = b""


class WithoutContentRange(Pool):
    def content_range(self, start: int, stop: int) -> str:
        return ""


class OfAnotherPlace(Pool):
    def content_range(self, start: int, stop: int) -> str:
        return super().content_range(start + 1, stop + 1)


class Longer(Pool):
    def part(self, start: int, stop: int) -> bytes:
        return super().part(start, stop) + b"x"

    def answer(self, spans: list[tuple[int, int]], asked: bool) -> bytes:
        if asked:
            return super().answer(spans, asked)
        return self.message("200 OK", self.content + b"x", f"Digest: {self.digest()}")


class Shorter(Longer):
    def part(self, start: int, stop: int) -> bytes:
        return self.content[start : stop - 1]

    def answer(self, spans: list[tuple[int, int]], asked: bool) -> bytes:
        if asked:
            return super().answer(spans, asked)
        return self.message("200 OK", self.content[:-1], f"Digest: {self.digest()}")


class Cut(Pool):
    def message(self, status: str, body: bytes, *headers: str) -> bytes:
        return super().message(status, body, *headers)[:-1]


class Flipped(Pool):
    def digest(self) -> str:
        return f"adler32={zlib.adler32(DATA[::-1]):08x}"


LONG = DATA * 4


class Replaced(Pool):
    """The second answer, and each after it, is of another file of the same size."""

    answers = 0

    def answer(self, spans: list[tuple[int, int]], asked: bool) -> bytes:
        self.answers += 1
        self.content = LONG if self.answers == 1 else LONG[::-1]
        return super().answer(spans, asked)


class Shrunk(Replaced):
    def answer(self, spans: list[tuple[int, int]], asked: bool) -> bytes:
        self.answers += 1
        self.content = LONG if self.answers == 1 else LONG[:-10]
        return Pool.answer(self, spans, asked)


class Silent(Pool):
    def __call__(self, talk: Talk) -> None:
        while talk.head():
            pass


RIGHT = None
WRONG = (errors.ProtocolError, errors.IntegrityError)
PARTS = DATA[100:150] + DATA[600:650]


@pytest.mark.parametrize(
    ("pool", "whole", "opened", "parts"),
    [
        (Pool, RIGHT, RIGHT, RIGHT),
        (IgnoringRanges, RIGHT, RIGHT, RIGHT),
        (Empty, RIGHT, RIGHT, RIGHT),
        (WithoutContentRange, RIGHT, WRONG, WRONG),
        (OfAnotherPlace, RIGHT, WRONG, WRONG),
        (Longer, WRONG, WRONG, WRONG),
        (Shorter, WRONG, WRONG, WRONG),
        (Cut, errors.DoorUnavailableError, errors.DoorUnavailableError, errors.DoorUnavailableError),
        (Flipped, errors.IntegrityError, errors.IntegrityError, RIGHT),
        (Silent, errors.DeadlineError, errors.DeadlineError, errors.DeadlineError),
    ],
)
def test_every_way_of_reading(tmp_path: Path, pool: type[Pool], whole: Any, opened: Any, parts: Any) -> None:
    for ways, error, content in (
        (WHOLE_WAYS, whole, pool.content),
        (OPEN_WAYS, opened, pool.content),
        (PART_WAYS, parts, PARTS if pool.content else b""),
    ):
        for way in ways:
            with ScriptedServer(pool()) as server, redirected(tmp_path, server) as url:
                if error is RIGHT:
                    assert way(url) == content
                else:
                    with pytest.raises(error):
                        way(url)


@pytest.mark.parametrize("pool", [Replaced, Shrunk])
def test_a_file_that_is_replaced_while_it_is_read(tmp_path: Path, pool: type[Pool]) -> None:
    with (
        ScriptedServer(pool()) as server,
        redirected(tmp_path, server) as url,
        ResourcePath(url).open("rb") as file,
    ):
        assert file.read(600) == LONG[:600]
        file.seek(2000)
        with pytest.raises(WRONG, match="replaced"):
            file.read(600)
        assert file.tell() == 2000


# Writing


@pytest.mark.parametrize("server", ["XrootD/v6.2.1", "dCache/11.2.4", "some"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_that_says_created_before_it_has_the_body(
    tmp_path: Path, server: str, streamed: bool
) -> None:
    """The upstream client takes the 201 for a success."""
    created = f"HTTP/1.1 201 Created\r\nServer: {server}\r\nContent-Length: 0\r\n\r\n".encode()
    door = by_method(PUT=created, MOVE=created, DELETE=created, PROPFIND=multistatus(3_000_000))

    def write(url: str) -> None:
        if streamed:
            with DcacheFileSystem().open(url, "wb") as file:
                file.write(bytes(3_000_000))
        else:
            store_for(url).write(url, bytes(3_000_000))

    with ScriptedServer(door) as scripted, site(tmp_path, scripted) as url:
        with pytest.raises(errors.ProtocolError, match="does not wait"):
            write(url)
        assert not [head for head in scripted.heads if head.startswith(b"MOVE")]


@pytest.mark.parametrize("change", [b"", b"more"])
def test_a_local_file_that_changes_while_it_is_sent(embedded: Any, tmp_path: Path, change: bytes) -> None:
    """One that shrinks is an error; of one that grows, as much is sent as was announced."""
    source, target = tmp_path / "source", ResourcePath(f"{embedded.url}{uuid.uuid4().hex}/target")
    source.write_bytes(DATA * 1000)
    original = UploadBody.rewind

    def rewind(self: UploadBody) -> None:
        with open(source, "r+b") as file:
            if change:
                file.seek(0, 2)
                file.write(change)
            else:
                file.truncate(100_000)
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UploadBody, "rewind", rewind)
        if change:
            target.transfer_from(ResourcePath(source), "copy")
            assert target.read() == DATA * 1000
        else:
            with pytest.raises(errors.IntegrityError, match="local file"):
                target.transfer_from(ResourcePath(source), "copy")
            assert not target.exists()
            assert list(target.dirname().walk()) == []


@pytest.mark.parametrize(
    "location",
    [
        b"https://[::1/x",
        b"http://127.0.0.1:99999/x",
        b"http://127.0.0.1:\xb2/x",
        b"http://\xe9/x",
        b"http://a b/x",
        b"http://a..b/x",
        b"http://[v1.x]:1/x",
        b"ftp://127.0.0.1/x",
        b"",
    ],
)
def test_a_redirect_that_leads_nowhere(tmp_path: Path, location: bytes) -> None:
    answer = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n" % location
    with (
        ScriptedServer(answering(answer)) as door,
        site(tmp_path, door, total_timeout_seconds=1) as url,
    ):
        store = store_for(url)
        with pytest.raises(errors.DcacheError):
            store.read(url)
        with pytest.raises(errors.DcacheError):
            store.write(url, b"x")
        with pytest.raises(errors.DcacheError):
            store.stat(url)


@pytest.mark.parametrize("number", ["\xb2", "9" * 5000, "-1", ""])
def test_sizes_that_are_no_numbers(tmp_path: Path, number: str) -> None:
    def script(talk: Talk) -> None:
        while head := talk.head():
            if head.startswith(b"PROPFIND"):
                talk.body(int(head.lower().partition(b"content-length:")[2].split()[0]))
                talk.say(
                    multistatus(77).replace(b">77<", b">%s<" % number.encode()).replace(b"Content-L", b"X-L")
                )
                return
            if b"/pool" in head.partition(b"\r\n")[0]:
                said = b"bytes 0-0/%s" % number.encode("latin-1")
                talk.say(b"HTTP/1.1 206 P\r\nContent-Range: %s\r\nContent-Length: 1\r\n\r\nx" % said)
            else:
                place = b"/pool?dcache-http-uuid=1"
                talk.say(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n" % place)

    with ScriptedServer(script) as door, site(tmp_path, door) as url:
        store = store_for(url)
        assert store.stat(url).size is None
        with pytest.raises(errors.ProtocolError):
            store.read_ranges(url, [ByteRange(0, 1)])


def test_a_moment_beyond_all_calendars(tmp_path: Path) -> None:
    moment = b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT"
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: %s\r\n\r\n" % moment
    found = ok(b"x", b"Last-Modified: " + moment)
    with ScriptedServer(answering(busy, found)) as door, site(tmp_path, door) as url:
        assert store_for(url).read(url) == b"x"
