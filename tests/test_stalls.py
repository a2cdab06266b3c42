"""Transfers that have not quite stopped: abandoned, and gone on with elsewhere or begun again."""

from __future__ import annotations

import io
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.embedded.faults import Fault
from lsst.daf.butler_dcache.model import ByteRange
from lsst.daf.butler_dcache.transport.connection import Connection
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.stalls import Floor, Progress, floor_of
from scripted_server import ScriptedServer, Talk
from test_store_webdav import endpoint

LARGE = bytes(range(256)) * 8192
FLOOR = {"stall_bytes_per_second": 1_000_000, "stall_seconds": 0.3}
LONG = 30.0
"""What a stall would take if nobody noticed it; no test waits for it."""


@pytest.fixture(scope="module")
def site() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(limiter=False) as dcache:
        yield dcache
        dcache.faults.clear()


def test_only_time_that_is_waited_counts() -> None:
    progress = Progress(Floor(100, 10.0))
    assert not progress.has_stalled(9.9)
    progress.moved(1000)
    assert not progress.has_stalled(0.1), "exactly at the floor"
    progress.moved(1000)
    assert not progress.has_stalled(9.0)
    assert progress.has_stalled(2.0)


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 5)), max_size=100))
def test_a_stall_is_below_the_floor_for_its_time(steps: list[tuple[int, float]]) -> None:
    progress = Progress(Floor(100, 10.0))
    moved, waited = 0, 0.0
    for count, seconds in steps:
        progress.moved(count)
        moved, waited = moved + count, waited + seconds
        if progress.has_stalled(seconds):
            assert waited >= 10.0
            assert moved < 100 * waited
            return
        if waited >= 10.0:
            assert moved >= 100 * waited
            moved, waited = 0, 0.0


def test_no_floor() -> None:
    assert floor_of(EndpointSettings("https://x:1/", stall_bytes_per_second=0)) is None


def trickle(over: threading.Event) -> Any:
    def script(talk: Talk) -> None:
        talk.head()
        talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not over.wait(0.01):
            talk.say(b"x")

    return script


def test_trickle() -> None:
    """Each byte comes in time, and all of them would take a quarter of an hour."""
    over = threading.Event()
    with ScriptedServer(trickle(over)) as server:
        from_server = EndpointSettings(server.url, stall_bytes_per_second=10_000, stall_seconds=0.2)
        begun = time.monotonic()
        with DataPlane(from_server).open("GET", server.url, deadline=Deadline(60)) as answer:
            with pytest.raises(errors.DeadlineError, match="fewer than 10000 bytes"):
                answer.read()
            assert 0 < answer.received < 1000
        over.set()
    assert time.monotonic() - begun < LONG / 2


def test_a_reader_who_takes_long_is_no_stall() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection = Connection(ours, ("http", "x", 1))
        connection.progress = Progress(Floor(10**9, 0.05))
        view = memoryview(bytearray(10))
        for _ in range(5):
            theirs.send(b"0123456789")
            threading.Event().wait(0.03)  # the reader is busy with something else
            assert connection.read_into(view, Deadline(5), 5) == 10


def test_a_server_that_takes_too_little() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection = Connection(ours, ("http", "x", 1))
        connection.progress = Progress(Floor(10**9, 0.5))
        over = threading.Event()

        def take_little() -> None:
            while not over.wait(0.01):
                theirs.recv(65536)

        thread = threading.Thread(target=take_little)
        thread.start()
        with pytest.raises(errors.DeadlineError, match="stalled"):
            connection.send(bytes(1 << 26), Deadline(LONG), LONG)
        over.set()
        ours.close()  # or the other one waits for bytes
        thread.join()


@pytest.mark.parametrize("how", ["read", "stream", "ranges", "download"])
def test_a_stalled_read_goes_on_by_another_url(site: EmbeddedDcache, tmp_path: Path, how: str) -> None:
    with endpoint(site, tmp_path, dcache=FLOOR) as store:
        url = site.url + how
        store.write(url, LARGE)
        stalled = site.faults.add(Fault("stall_download", server="pool", at_byte=600_000, seconds=LONG))
        before = len(site.transcript())
        begun = time.monotonic()
        if how == "read":
            assert store.read(url) == LARGE
        elif how == "download":
            with open(tmp_path / "file", "w+b") as file:
                store.download(url, file)
            assert (tmp_path / "file").read_bytes() == LARGE
        else:
            reader = store.open_reader(url)
            if how == "stream":
                assert b"".join(reader.stream()) == LARGE
            else:
                wanted = [ByteRange(0, 700_000), ByteRange(900_000, 1_600_000)]
                assert reader.read_ranges(wanted) == [LARGE[one.start : one.stop] for one in wanted]
            reader.close()
        assert time.monotonic() - begun < LONG / 2
        assert stalled.hits == 1
        asked = [one.server for one in site.transcript()[before:] if one.method == "GET"]
        assert asked == ["door", "pool"] * 2, "no URL is used twice"
    site.faults.clear()


def test_an_upload_that_stalls_begins_again(site: EmbeddedDcache, tmp_path: Path) -> None:
    with endpoint(site, tmp_path, dcache=FLOOR) as store:
        body = bytes(1 << 25)
        stalled = site.faults.add(Fault("stall_upload", server="pool", at_byte=1 << 20, seconds=LONG))
        begun = time.monotonic()
        store.write(site.url + "again", body)
        assert time.monotonic() - begun < LONG / 2
        assert stalled.hits == 1
        assert store.read(site.url + "again") == body
    site.faults.clear()


def test_a_stream_that_stalls_fails_and_says_why(site: EmbeddedDcache, tmp_path: Path) -> None:
    with endpoint(site, tmp_path, dcache=FLOOR) as store:
        url = site.url + "stream"
        store.write(url, b"before")
        site.faults.add(Fault("stall_upload", server="pool", at_byte=1 << 20, seconds=LONG))
        writer = store.open_writer(url)
        body = io.BytesIO(bytes(1 << 26))
        with pytest.raises(errors.DoorUnavailableError, match="stopped taking bytes"):
            shutil.copyfileobj(body, writer, 1 << 20)  # type: ignore[misc]
        assert store.read(url) == b"before"
    site.faults.clear()
