"""Whole files: where the bytes go, by how many connections, and that they are the right ones."""

from __future__ import annotations

import dataclasses
import io
import random
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.config.loading import settings_for
from lsst.daf.butler_dcache.embedded import Fault
from lsst.daf.butler_dcache.model import Adler32
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.webdav import download, parallel
from lsst.daf.butler_dcache.webdav.parallel import ParallelDownload
from lsst.resources import ResourcePath
from request_counter import counted
from scripted_server import ScriptedServer, Talk

DATA = random.Random(3).randbytes(5_000_001)


@pytest.fixture
def url(embedded: Any) -> str:
    url = f"{embedded.url}whole/file"
    embedded.place(urlsplit(url).path, DATA)
    return url


@pytest.fixture
def parallel_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PARALLEL_BYTES", 1_000_000)
    monkeypatch.setattr(parallel, "_SEGMENT_BYTES", 700_000)


@pytest.fixture
def faults(embedded: Any) -> Any:
    yield embedded.faults
    embedded.faults.clear()


@pytest.mark.parametrize("lengths", [[], [0], [1], [0, 5, 0], [65521, 65521], [5552, 1, 100_000, 3]])
def test_checksum_of_parts_is_that_of_the_whole(lengths: list[int]) -> None:
    for fill in (b"\xff", b"\0", DATA):
        whole, data, position = Adler32(), b"", 0
        for length in lengths:
            part = (fill * length)[position % 7 :][:length] if len(fill) == 1 else fill[position:][:length]
            seen = Adler32()
            seen.update(part)
            whole.append(seen)
            data += part
            position += length
        assert whole.size == len(data)
        assert whole.hexdigest() == f"{zlib.adler32(data):08x}"


def read(url: str) -> bytes:
    return store_for(url).read(url)


def to_file(url: str, path: Path) -> bytes:
    """Copy behind what the file holds already."""
    with open(path, "w+b") as target:
        target.write(b"head")
        info = store_for(url).download(url, target)
        assert (info.size, info.checksums["adler32"]) == (len(DATA), f"{zlib.adler32(DATA):08x}")
        assert target.tell() == 4 + len(DATA)
        target.write(b"tail")
        target.seek(0)
        content = target.read()
    assert content[:4] + content[-4:] == b"headtail"
    return content[4:-4]


def test_several_connections(embedded: Any, url: str, parallel_reads: None, tmp_path: Path) -> None:
    """One more question to the door; at the new URL nothing but ranges (protocol page, section 2.5)."""
    for take in (read, lambda url: to_file(url, tmp_path / "file")):
        with counted(embedded) as counter:
            assert take(url) == DATA
        assert counter.at_door == 2
        first, *rest = [record for record in counter.records if record["server"] == "pool"]
        assert first["status"] == 200
        assert len(rest) == 8
        assert {(record["method"], record["status"]) for record in rest} == {("GET", 206)}
        assert len({record["connection"] for record in rest} - {first["connection"]}) <= 4


def test_target_that_takes_bytes_in_order(embedded: Any, url: str, parallel_reads: None) -> None:
    for target in (io.BytesIO(), io.BytesIO(b"longer than nothing")):
        with counted(embedded) as counter:
            store_for(url).download(url, target)
        assert target.getvalue() == DATA
        assert (counter.at_door, counter.at_pool) == (1, 1)


@pytest.fixture
def before_the_ranges(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What happens after the first answer of the pool, which tells the size."""
    happenings: list[Callable[[], object]] = []
    original = download.Downloads._by_several

    def by_several(self: Any, *args: Any) -> None:
        for happening in happenings:
            happening()
        original(self, *args)

    monkeypatch.setattr(download.Downloads, "_by_several", by_several)
    return happenings


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut_download", server="pool", at_byte=600_000),
        Fault("corrupt_download", server="pool", at_byte=600_000),
        Fault("status", server="pool", status=503, reason="Busy"),
        Fault("ignore_range", server="pool"),
        Fault("drop", server="pool"),
        Fault("refuse_pool"),
    ],
    ids=lambda fault: fault.kind,
)
def test_what_goes_wrong_in_parallel_is_read_anew(
    embedded: Any,
    faults: Any,
    url: str,
    parallel_reads: None,
    tmp_path: Path,
    before_the_ranges: Any,
    fault: Any,
) -> None:
    """Upstream: the body of `as_local` is not repeated, and flipped bytes are returned as if right."""
    added = []
    before_the_ranges.append(lambda: added.append(faults.add(dataclasses.replace(fault, hits=0))))
    for take in (read, lambda url: to_file(url, tmp_path / "file")):
        assert take(url) == DATA
    assert [one.hits for one in added] == [1, 1]


def test_file_that_was_replaced_before_the_ranges(
    embedded: Any, url: str, parallel_reads: None, before_the_ranges: Any
) -> None:
    for other in (DATA[::-1], DATA[:3_000_000]):
        before_the_ranges[:] = [lambda other=other: embedded.place(urlsplit(url).path, other)]
        assert read(url) == other


def test_wrong_bytes_everywhere(embedded: Any, faults: Any, url: str, parallel_reads: None) -> None:
    faults.add(Fault("corrupt_download", server="pool", at_byte=3, times=None))
    with pytest.raises(errors.IntegrityError, match="adler32"):
        read(url)


@pytest.mark.parametrize("error", [KeyboardInterrupt, errors.DoorUnavailableError])
def test_nobody_waits_for_the_others_after_an_error(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three connections would be silent for a minute when the fourth fails, or the user interrupts."""
    interrupts = error is KeyboardInterrupt
    waiting = threading.Barrier(5 if interrupts else 4, timeout=60)

    def interrupted(*_: object, **__: object) -> None:
        # Where a signal would find the thread; a real one may get lost in a finaliser.
        waiting.wait()
        raise KeyboardInterrupt

    if interrupts:
        monkeypatch.setattr(parallel, "wait", interrupted)

    def silent(talk: Talk) -> None:
        talk.head()
        waiting.wait()
        talk.head()

    def failing(talk: Talk) -> None:
        talk.head()
        waiting.wait()
        if interrupts:
            talk.head()

    with ScriptedServer(silent, silent, silent, failing) as pool:
        settings = settings_for(pool.url.replace("http", "dav"))
        download = ParallelDownload(DataPlane(settings), pool.url, "url", 1 << 30, lambda at, piece: None)
        begun = time.monotonic()
        with pytest.raises(error):
            download.run(4, Deadline(600))
        assert time.monotonic() - begun < settings.idle_timeout_seconds / 2


@pytest.mark.parametrize("mode", ["copy", "auto"])
def test_transfer_to_a_local_file(embedded: Any, url: str, tmp_path: Path, mode: str) -> None:
    """No second copy: the bytes are written beside the target, which is then renamed."""
    target = ResourcePath(tmp_path / "file")
    with counted(embedded) as counter:
        target.transfer_from(ResourcePath(url), mode)
    assert (tmp_path / "file").read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (counter.at_door, counter.at_pool) == (1, 1), counter
