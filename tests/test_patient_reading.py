"""Readers that pause, try again, or find themselves in another process, and answers without an end."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.embedded import Fault
from lsst.daf.butler_dcache.model import ByteRange
from lsst.daf.butler_dcache.remote_file import RemoteFile
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport.ranges import pick
from scripted_server import ScriptedServer, Talk, answering
from test_fork import in_child
from test_store_webdav import endpoint

DATA = bytes(range(256)) * 80_000


@pytest.fixture
def url(embedded: Any) -> Iterator[str]:
    url = f"{embedded.url}patient/file"
    embedded.place(urlsplit(url).path, DATA)
    yield url
    embedded.faults.clear()


def test_pause_between_two_reads_is_the_callers_own(embedded: Any, url: str, tmp_path: Path) -> None:
    limits = {"total_timeout_seconds": 1.0}
    with endpoint(embedded, tmp_path, dcache=limits) as store:
        reader = store.open_reader(url)
        pieces = iter(reader.stream())
        begun = time.monotonic()
        first = next(pieces)
        threading.Event().wait(begun + 1.1 - time.monotonic())
        assert first + b"".join(pieces) == DATA
        reader.close()


@pytest.mark.parametrize("into", [False, True], ids=["read", "readinto"])
def test_read_that_failed_can_be_tried_again(embedded: Any, url: str, tmp_path: Path, into: bool) -> None:
    # A position that had moved would leave a gap in what a patient caller gets.
    limits = {"idle_timeout_seconds": 0.5}
    with (
        endpoint(embedded, tmp_path, dcache=limits) as store,
        RemoteFile(store.open_reader(url), url, sequential=True) as file,
    ):
        embedded.faults.add(Fault("stall_download", server="pool", at_byte=3_000_000, seconds=3))
        # Wherever it is asked for then, nothing comes: the read fails after all.
        embedded.faults.add(Fault("stall_download", server="pool", at_byte=0, seconds=3, times=3))
        found = bytearray()
        failures = 0
        while len(found) < len(DATA) and failures < 2:
            piece = bytearray(2_500_000)
            try:
                if into:
                    del piece[file.readinto(piece) :]
                else:
                    piece[:] = file.read(len(piece))
            except errors.DeadlineError:
                failures += 1
            else:
                assert piece, "the file ended early"
                found += piece
        assert found == DATA
        assert failures == 1


def test_file_that_another_thread_reads_can_be_read_in_a_child(url: str) -> None:
    reader = store_for(url).open_reader(url)
    assert reader.read_ranges([ByteRange(0, 10)]) == [DATA[:10]]
    busy, done = threading.Event(), threading.Event()

    def read() -> None:
        with reader._session.lock:  # type: ignore[attr-defined]
            busy.set()
            done.wait(60)

    thread = threading.Thread(target=read)
    thread.start()
    busy.wait(60)
    try:

        def work() -> str:
            (data,) = reader.read_ranges([ByteRange(1000, 1010)])
            reader.close()
            return data.hex()

        assert in_child(work)() == DATA[1000:1010].hex()
    finally:
        done.set()
        thread.join()
        reader.close()


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"HTTP/1.1 500 No\r\n\r\n", errors.ServerError),
        (b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-9/10000\r\n\r\n", errors.ProtocolError),
        (b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-99/100\r\n\r\n", errors.ProtocolError),
    ],
)
def test_answer_without_end_is_not_kept(head: bytes, expected: type[Exception]) -> None:
    def pool(talk: Talk) -> None:
        talk.head()
        talk.say(head)
        for _ in range(30):
            talk.say(bytes(1_000_000))

    with ScriptedServer(pool) as data:
        location = b"http://127.0.0.1:%d/file?dcache-http-uuid=1" % data.port
        redirect = b"HTTP/1.1 302 Found\r\nServer: dCache/11.2.4\r\nContent-Length: 0\r\nLocation: "
        with ScriptedServer(answering(redirect + location + b"\r\n\r\n")) as door:
            name = f"dav://127.0.0.1:{door.port}/file"
            with pytest.MonkeyPatch.context() as patch:
                patch.delenv("LSST_RESOURCES_WEBDAV_CONFIG", raising=False)
                reader = store_for(name).open_reader(name)
                tracemalloc.start()
                try:
                    with pytest.raises(expected):
                        reader.read_ranges([ByteRange(0, 10)])
                    assert tracemalloc.get_traced_memory()[1] < 5_000_000
                finally:
                    tracemalloc.stop()
                    reader.close()


class _Counting(ByteRange):
    """A range that counts how often it is looked at."""

    looks = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "stop":
            _Counting.looks += 1
        return super().__getattribute__(name)


def test_many_ranges_are_found_without_trying_each_part() -> None:
    spans = [_Counting(number * 100, number * 100 + 10) for number in range(1000)]
    parts = [(span, memoryview(b"%010d" % span.start)) for span in spans]
    wanted = [ByteRange(span.start, span.start + 10) for span in reversed(spans)]
    _Counting.looks = 0
    assert pick(parts, wanted, "url") == [b"%010d" % one.start for one in wanted]
    assert _Counting.looks < 5000
