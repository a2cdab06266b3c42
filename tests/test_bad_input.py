"""Answers that a server must not give: an error of the right class, and never wrong bytes, however one reads.

The upstream client (lsst.resources 30.2026.2800) has no checksum on any read, and takes whatever comes.
"""

from __future__ import annotations

import contextlib
import tracemalloc
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.model import ByteRange
from lsst.daf.butler_dcache.remote_file import RemoteFile
from lsst.daf.butler_dcache.store.registry import reset_stores, store_for
from scripted_server import Script, ScriptedServer, Talk, answering

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
