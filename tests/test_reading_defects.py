"""What upstream's client gets wrong when it reads, with ours beside it (upstream report, section 1.4)."""

from __future__ import annotations

import contextlib
import io
import pickle
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from lsst.daf.butler_dcache import DcacheFileSystem, errors
from lsst.daf.butler_dcache.embedded import Fault
from lsst.daf.butler_dcache.model import ByteRange
from lsst.daf.butler_dcache.remote_file import RemoteFile
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.webdav import held_urls
from lsst.resources import ResourcePath
from request_counter import Counter, counted
from scripted_server import Script, ScriptedServer, Talk
from test_store_webdav import endpoint

DATA = bytes(range(256)) * 8000


@pytest.fixture
def url(embedded: Any) -> Iterator[str]:
    url = f"{embedded.url}defects/file"
    embedded.place(urlsplit(url).path, DATA)
    yield url
    embedded.faults.clear()


def test_a_flipped_byte_is_noticed(embedded: Any, url: str, tmp_path: Path) -> None:
    """Upstream: no checksum on any download; the wrong bytes are returned."""
    path = ResourcePath(url)

    def as_local() -> None:
        with path.as_local():
            pass

    def in_order() -> None:
        with path.open("rb") as file:
            while file.read(100_000):
                pass

    def all_at_once() -> None:
        with DcacheFileSystem().open(url) as file:
            file.read()

    for operation in (path.read, as_local, in_order, all_at_once):
        embedded.faults.add(Fault("corrupt_download", server="pool", at_byte=5))
        with pytest.raises(errors.IntegrityError):
            operation()


def test_a_broken_body_is_repaired(embedded: Any, url: str) -> None:
    """Upstream: `as_local` raises at once, `read` asks the dead pool URL again."""
    path = ResourcePath(url)
    for at_byte in (10, 1_500_000):
        embedded.faults.add(Fault("cut_download", server="pool", at_byte=at_byte))
        with path.as_local() as local:
            assert Path(local.ospath).read_bytes() == DATA
        embedded.faults.add(Fault("cut_download", server="pool", at_byte=at_byte))
        with path.open("rb") as file:
            assert file.read() == DATA


def test_a_busy_door_does_not_become_the_url_none(embedded: Any, url: str) -> None:
    """Upstream: after one repeated 503 the next block is asked of ``http://none:80/``."""
    embedded.faults.add(Fault("status", server="door", status=503, reason="Busy"))
    with ResourcePath(url).open("rb") as file:
        for position in (0, 1_000_000):
            file.seek(position)
            assert file.read(10) == DATA[position : position + 10]


def test_blocks_share_one_redirect(embedded: Any, url: str) -> None:
    """Upstream: each block is a question to the door, one to the pool and a new connection."""
    with counted(embedded) as counter, ResourcePath(url).open("rb") as file:
        for position in range(1_900_000, 0, -100_000):
            file.seek(position)
            assert file.read(1000) == DATA[position : position + 1000]
    assert counter.at_door == 1
    assert pool_connections(counter) == 1


def pool_connections(counter: Counter) -> int:
    return len({record["connection"] for record in counter.records if record["server"] == "pool"})


def test_readinto_at_the_end(url: str) -> None:
    """Upstream: `readinto` shrinks the caller's `bytearray` and fails for a `memoryview`."""
    with ResourcePath(url).open("rb") as file:
        file.seek(-3, io.SEEK_END)
        buffer = bytearray(10)
        assert file.readinto(buffer) == 3  # type: ignore[attr-defined]
        assert buffer == DATA[-3:] + bytes(7)
        file.seek(-5, io.SEEK_END)
        assert io.BufferedReader(file).read() == DATA[-5:]  # type: ignore[type-var]


def test_complete_file_object(embedded: Any) -> None:
    """Upstream: not iterable, no `readline` in binary mode, `isatty` is a property."""
    url = f"{embedded.url}defects/lines"
    lines = [b"line %d\n" % number for number in range(3000)]
    embedded.place(urlsplit(url).path, b"".join(lines) + pickle.dumps({"a": 1}))
    with ResourcePath(url).open("rb") as file:
        assert file.readline() == lines[0]
        assert [next(iter(file)) for _ in range(2999)] == lines[1:]
        assert pickle.load(file) == {"a": 1}
        assert file.isatty() is False
        assert file.seekable()
        assert file.readable()
        assert not file.writable()
        assert file.seek(10**9) == 10**9
        assert file.read(1) == b""


def test_memory_stays_small(embedded: Any) -> None:
    """Upstream: `open("rb")` holds the whole file, as does `read`."""
    url = f"{embedded.url}defects/large"
    embedded.place(urlsplit(url).path, bytes(64 << 20))
    for step in (65_536, 5 << 20):
        with ResourcePath(url).open("rb") as file:
            tracemalloc.start()
            try:
                while file.read(step):
                    pass
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert peak < 32 << 20, peak


def test_empty_file(embedded: Any) -> None:
    url = f"{embedded.url}defects/empty"
    embedded.place(urlsplit(url).path, b"")
    with counted(embedded) as counter, ResourcePath(url).open("rb") as file:
        assert file.read(5) == b""
        assert file.seek(0, io.SEEK_END) == 0
        assert file.read() == b""
    assert "pool HEAD" not in counter.methods()
    with ResourcePath(url).open("rb") as file:
        assert file.seek(0, io.SEEK_END) == 0
    assert store_for(url).read(url) == b""


def test_mover_is_given_back(embedded: Any, url: str) -> None:
    with counted(embedded) as counter:
        for _ in range(3):
            with ResourcePath(url).open("rb") as file:
                file.read(10)
    assert pool_connections(counter) == 3


def test_only_so_many_urls_are_held(embedded: Any, url: str, tmp_path: Path) -> None:
    """One too many, and the one used longest ago goes back to the door when it is read on."""
    with endpoint(embedded, tmp_path, dcache={"held_pool_urls": 3}) as store, contextlib.ExitStack() as stack:
        readers = [store.open_reader(url) for _ in range(6)]
        for reader in readers:
            stack.callback(reader.close)
            assert reader.read_ranges([ByteRange(5, 9)]) == [DATA[5:9]]
        assert sum(reference() is not None for reference in held_urls._held.values()) == 3
        with counted(embedded) as counter:
            for reader in reversed(readers):
                assert reader.read_ranges([ByteRange(15, 19)]) == [DATA[15:19]]
        assert (counter.at_door, counter.at_pool) == (3, 6), counter


def test_stream_goes_on_after_its_url_was_given_back(embedded: Any, url: str, tmp_path: Path) -> None:
    with endpoint(embedded, tmp_path, dcache={"held_pool_urls": 1}) as store:
        reader = store.open_reader(url)
        stream = reader.stream()
        content = next(stream)
        other = store.open_reader(url)
        assert other.read_ranges([ByteRange(5, 9)]) == [DATA[5:9]]
        with counted(embedded) as counter:
            content += b"".join(stream)
        assert content == DATA
        assert (counter.at_door, counter.at_pool) == (1, 1), counter
        reader.close()
        other.close()


def test_url_that_dies_leads_to_the_door_twice_at_most(embedded: Any, url: str) -> None:
    gone = {"status": 307, "headers": {"Location": "/elsewhere"}, "reason": "Temporary Redirect"}
    store = store_for(url)
    for times in (1, 2, None):
        embedded.faults.add(Fault("status", server="pool", times=times, **gone))
        reader = store.open_reader(url)
        with counted(embedded) as counter:
            if times is None:
                with pytest.raises(errors.DcacheError):
                    reader.read_ranges([ByteRange(0, 4)])
            else:
                assert reader.read_ranges([ByteRange(0, 4)]) == [DATA[:4]]
        assert counter.at_door == (2 if times is None else times)
        reader.close()


# A server that says what it likes


def serve(*answers: bytes) -> Script:
    """Give one answer to each request of a connection, then no more."""

    def script(talk: Talk) -> None:
        for answer in answers:
            if not talk.head():
                return
            talk.say(answer)
        talk.head()

    return script


def partial(content_range: str, body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 206 Partial Content", f"Content-Range: {content_range}", *headers]
    return ("\r\n".join(lines) + f"\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


@contextlib.contextmanager
def opened(folder: Path, *pool_answers: bytes, then: bytes = b"") -> Iterator[Any]:
    """Open a file of which a pool says what the test wants; ``then`` is what its second connection says."""
    scripts = [serve(*pool_answers), serve(then)] if then else [serve(*pool_answers)]
    with ScriptedServer(*scripts) as pool:
        redirect = (
            "HTTP/1.1 302 Found\r\nServer: dCache/11.2.4\r\nContent-Length: 0\r\n"
            f"Location: {pool.url}f?dcache-http-uuid=1\r\n\r\n"
        ).encode()
        with ScriptedServer(serve(*[redirect] * 5)) as door, pytest.MonkeyPatch.context() as patch:
            config = folder / f"{threading.get_ident()}-{door.url.rpartition(':')[2].strip('/')}.yaml"
            config.write_text(
                f"- base_url: {door.url.replace('http', 'dav')}\n"
                "  dcache: {idle_timeout_seconds: 0.3, requests_per_second: 0}\n"
            )
            patch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(config))
            patch.delenv("BEARER_TOKEN_FILE", raising=False)
            url = door.url.replace("http", "dav") + "f"
            file = RemoteFile(store_for(url).open_reader(url), url)
            yield file
            file.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n\r\nabcd",
        partial("bytes 1-4/100", b"abcd"),
        partial("bytes 10-13/*", b"ab"),
        partial("bytes 10-13/100", b"abcde"),
        partial("bytes 13-10/100", b"abcd"),
        partial("bytes 10-113/100", b"abcd"),
        partial("octets 10-13/100", b"abcd"),
        partial("bytes 10-12/100", b"abc"),
    ],
    ids=["no range", "another", "cut", "long", "reversed", "beyond", "unit", "short"],
)
def test_a_range_that_is_not_the_one_asked_for(tmp_path: Path, answer: bytes) -> None:
    """Upstream (`http.py`): whatever comes is taken for the range."""
    with opened(tmp_path, answer) as file:
        file.seek(10)
        with pytest.raises((errors.ProtocolError, errors.IntegrityError)):
            file.read(4)


@pytest.mark.parametrize("header", ["Digest: adler32=%s", 'ETag: "%s"', "Last-Modified: %s"])
def test_a_file_that_is_replaced_between_two_ranges(tmp_path: Path, header: str) -> None:
    """Upstream: a mixture of both."""
    first = partial("bytes 0-599/2000", bytes(600), header % "00000001")
    second = partial("bytes 1000-1599/2000", bytes(600), header % "00000002")
    with opened(tmp_path, first, second) as file:
        file.read(600)
        file.seek(1000)
        with pytest.raises(errors.IntegrityError, match="replaced"):
            file.read(600)


@pytest.mark.parametrize("header", ["Digest: adler32=00000001", 'ETag: "1"', "Last-Modified: now"])
def test_a_lost_connection_is_made_up_for_with_proof(tmp_path: Path, header: str) -> None:
    first = partial("bytes 0-599/2000", bytes(600), header, "Connection: close")
    with opened(tmp_path, first, then=partial("bytes 1000-1599/2000", b"x" * 600, header)) as file:
        file.read(600)
        file.seek(1000)
        assert file.read(600) == b"x" * 600


def test_a_lost_connection_is_not_made_up_for_without_proof(tmp_path: Path) -> None:
    first = partial("bytes 0-599/2000", bytes(600), "Connection: close")
    with opened(tmp_path, first, then=partial("bytes 1000-1599/2000", b"x" * 600)) as file:
        file.read(600)
        file.seek(1000)
        with pytest.raises(errors.IntegrityError, match="proves"):
            file.read(600)


def test_a_pool_that_never_answers(tmp_path: Path) -> None:
    with opened(tmp_path, b"") as file, pytest.raises(errors.DeadlineError, match="nothing came"):
        file.read(600)
