"""Checksums that XRootD is asked for with care: it may refuse, fail or be silent, and the file comes.

What real servers do is in `test_store_xrootd`; here scripted ones do it at once, each time.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from lsst.daf.butler_dcache.errors import DeadlineError
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.webdav import checksum_turns
from lsst.daf.butler_dcache.webdav.checksum_turns import ChecksumTurns
from scripted_server import Script, ScriptedServer, Talk
from test_bad_input import DATA, multistatus, site

SERVER = ("http", "data.example", 1094)


@pytest.fixture(autouse=True)
def as_if_new() -> None:
    checksum_turns.turns.forget()


def whole(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Server: XRootD", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def redirector(data: ScriptedServer, server: str = "XRootD") -> Script:
    def script(talk: Talk) -> None:
        while talk.head():
            place = f"http://127.0.0.1:{data.port}/file"
            talk.say(f"HTTP/1.1 302 Found\r\nServer: {server}\r\nLocation: {place}\r\n".encode())
            talk.say(b"Content-Length: 0\r\n\r\n")

    return script


def data_server(to_checksum: bytes | None, *, data: bytes = DATA) -> Script:
    """A data server of XRootD; without an answer to a wish for a checksum it is silent."""

    def script(talk: Talk) -> None:
        while head := talk.head():
            if b"Want-Digest" in head:
                if to_checksum is None:
                    talk.until(b"never")
                    return
                talk.say(to_checksum)
            elif b"Range: bytes=0-\r\n" not in head + b"\r\n":
                talk.say(whole(data))
            elif data:
                talk.say(
                    whole(data, "206 Partial Content", f"Content-Range: bytes 0-{len(data) - 1}/{len(data)}")
                )
            else:
                talk.say(whole(b"", "416 Range Not Satisfiable"))

    return script


FAILED = whole(b"Failed to determine checksum", "500 Internal Server Error")
UNCONFIGURED = whole(b"No HTTP-IANA compatible checksums have been configured.", "405 Method Not Allowed")


@pytest.mark.parametrize(
    ("answer", "asked"),
    [(None, 1), (UNCONFIGURED, 1), (FAILED, 3)],
    ids=["silent", "unconfigured", "failing"],
)
def test_a_file_comes_without_its_checksum(tmp_path: Path, answer: bytes | None, asked: int) -> None:
    with (
        ScriptedServer(data_server(answer)) as data,
        ScriptedServer(redirector(data)) as door,
        site(tmp_path, door) as url,
    ):
        for _ in range(3):
            assert store_for(url).read(url) == DATA
        # A server that is silent or computes none is not asked again for a while.
        assert sum(b"Want-Digest" in head for head in data.heads) == asked
        assert len(data.heads) == asked + 3, "nothing but the file is asked for"


def test_the_patience_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsst.daf.butler_dcache.webdav.download.PATIENCE_SECONDS", 0.05)
    with (
        ScriptedServer(data_server(None)) as data,
        ScriptedServer(redirector(data)) as door,
        site(tmp_path, door, idle_timeout_seconds=60) as url,
    ):
        assert store_for(url).read(url) == DATA


def test_many_threads_never_ask_at_once(tmp_path: Path) -> None:
    now, most = 0, 0
    guard = threading.Lock()

    def script(talk: Talk) -> None:
        nonlocal now, most
        while head := talk.head():
            if b"Want-Digest" in head:
                with guard:
                    now += 1
                    most = max(most, now)
                threading.Event().wait(0.002)
                with guard:
                    now -= 1
            talk.say(
                whole(DATA, "206 Partial Content", f"Content-Range: bytes 0-{len(DATA) - 1}/{len(DATA)}")
            )

    with (
        ScriptedServer(script) as data,
        ScriptedServer(redirector(data)) as door,
        site(tmp_path, door) as url,
    ):
        store = store_for(url)
        assert store.read(url) == DATA
        threads = [threading.Thread(target=store.read, args=(url,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == 1


def test_a_silent_pool_sends_back_to_the_door(tmp_path: Path) -> None:
    def silent(talk: Talk) -> None:
        talk.head()
        talk.until(b"never")

    def stops(talk: Talk) -> None:
        talk.head()
        talk.say(whole(DATA)[:-1])
        talk.until(b"never")

    def serves(talk: Talk) -> None:
        talk.head()
        talk.say(whole(DATA))

    with (
        ScriptedServer(silent, stops, serves) as data,
        ScriptedServer(redirector(data, "dCache/11.2.4")) as door,
        site(tmp_path, door) as url,
    ):
        assert store_for(url).read(url) == DATA

    with (
        ScriptedServer(silent) as data,
        ScriptedServer(redirector(data, "dCache/11.2.4")) as door,
        site(tmp_path, door) as url,
        pytest.raises(DeadlineError),
    ):
        store_for(url).read(url)
    assert 2 <= len(door.heads) <= 5, "again, but not for ever"


def test_turns() -> None:
    time = [0.0]
    turns = ChecksumTurns(lambda: time[0])
    with turns.turn(SERVER) as ours:
        assert ours
        with turns.turn(SERVER) as another, turns.turn(("http", "other.example", 1094)) as elsewhere:
            assert not another
            assert elsewhere
    turns.rest(SERVER)
    with turns.turn(SERVER) as rests:
        assert not rests
    time[0] = 301.0
    with turns.turn(SERVER) as again:
        assert again
        turns.forget()
        with turns.turn(SERVER) as child:
            assert child


def test_an_empty_file_has_no_range(tmp_path: Path) -> None:
    def door_script(data: ScriptedServer) -> Script:
        def script(talk: Talk) -> None:
            while head := talk.head():
                if head.startswith(b"PROPFIND"):
                    talk.body(int(head.lower().partition(b"content-length:")[2].split()[0]))
                    talk.say(multistatus(0))
                else:
                    place = f"http://127.0.0.1:{data.port}/file"
                    talk.say(whole(b"", "302 Found", f"Location: {place}"))

        return script

    with (
        ScriptedServer(data_server(UNCONFIGURED, data=b"")) as data,
        ScriptedServer(door_script(data)) as door,
        site(tmp_path, door) as url,
    ):
        assert store_for(url).read(url) == b""
