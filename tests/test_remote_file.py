"""`RemoteFile` and `SpooledUpload`, above a reader and a store that only remember."""

from __future__ import annotations

import gc
import io
import os
import sys
import threading
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO

import pytest
from lsst.daf.butler_dcache.errors import IntegrityError
from lsst.daf.butler_dcache.model import Adler32, ByteRange, EntryKind, FileInfo
from lsst.daf.butler_dcache.remote_file import RemoteFile
from lsst.daf.butler_dcache.spooled_upload import SpooledUpload

DATA = bytes(range(256)) * 4096  # 1 MiB


class Reader:
    """Serves bytes and remembers what was asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.info = FileInfo("davs://door/file", EntryKind.FILE, len(data))
        self.asked: list[tuple[str, int, int]] = []
        self.known_size: int | None = None
        self.verified = False
        self.closed = 0

    def read_ranges(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        self.asked += [("range", one.start, one.stop) for one in ranges]
        self.known_size = self.info.size
        return [self.data[one.start : one.stop] for one in ranges]

    def read_tail(self, count: int) -> tuple[int, bytes]:
        start = max(0, len(self.data) - count)
        self.asked.append(("tail", start, len(self.data)))
        self.known_size = self.info.size
        return start, self.data[start:]

    def stream(self, start: int = 0) -> Iterator[bytes]:
        self.known_size = self.info.size
        self.asked.append(("stream", start, len(self.data)))
        for position in range(start, len(self.data), 100_000):
            yield self.data[position : position + 100_000]
        self.verified = start == 0

    def close(self) -> None:
        self.closed += 1


class Store:
    """Takes files."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.overwrite: list[bool] = []

    def write(self, url: str, data: BinaryIO, *, overwrite: bool = True) -> FileInfo:
        self.overwrite.append(overwrite)
        self.files[url] = data.read()
        return FileInfo(url, EntryKind.FILE, len(self.files[url]))

    def download(self, url: str, target: BinaryIO) -> FileInfo:
        target.write(self.files[url])
        return FileInfo(url, EntryKind.FILE, len(self.files[url]))


def opened(data: bytes = DATA) -> tuple[RemoteFile, Reader]:
    reader = Reader(data)
    return RemoteFile(reader, "davs://door/file"), reader


def test_whole_file_is_one_verified_stream() -> None:
    file, reader = opened()
    assert file.read() == DATA
    assert reader.asked == [("stream", 0, len(DATA))]
    assert reader.verified
    assert file.read() == b""
    assert file.read(10) == b""


def test_small_file_is_read_and_verified_at_the_first_byte() -> None:
    reader = Reader(b"abc")
    reader.info = FileInfo("davs://door/file", EntryKind.FILE, 3, checksums={"adler32": "00000000"})
    file = RemoteFile(reader, "davs://door/file")
    with pytest.raises(IntegrityError, match="024d0127"):
        file.read(1)
    reader.info = FileInfo("davs://door/file", EntryKind.FILE, 3, checksums={"adler32": "024d0127"})
    file = RemoteFile(reader, "davs://door/file")
    assert file.read(1) == b"a"
    assert file.read() == b"bc"
    assert len(reader.asked) == 2


def test_file_that_is_read_in_order_is_verified() -> None:
    """Upstream's client compares no checksum on any read (upstream report, section 1.4)."""
    for chunk in (100, 5000, 300_000):
        reader = Reader(DATA)
        reader.info = FileInfo(
            "davs://door/file", EntryKind.FILE, len(DATA), checksums={"adler32": "00000000"}
        )
        file = RemoteFile(reader, "davs://door/file")
        for _ in range(2):  # who tries again gets nothing of it either
            with pytest.raises(IntegrityError, match="adler32"):
                list(iter(partial(file.read, chunk), b""))


def test_a_stream_that_is_found_wrong_at_its_end_stays_wrong() -> None:
    class Damaged(Reader):
        def stream(self, start: int = 0) -> Iterator[bytes]:
            yield from super().stream(start)
            raise IntegrityError("the bytes that arrived have another adler32")

    file = RemoteFile(Damaged(DATA), "davs://door/file")
    for _ in range(2):
        with pytest.raises(IntegrityError, match="adler32"):
            file.read()
    file.seek(-10, os.SEEK_END)
    with pytest.raises(IntegrityError, match="adler32"):
        file.read(10)


def test_reads_in_order_fetch_more_and_more_and_become_one_stream() -> None:
    data = DATA * 110
    file, reader = opened(data)
    seen = Adler32()
    while piece := file.read(65536):
        seen.update(piece)
    whole = Adler32()
    whole.update(data)
    assert seen.hexdigest() == whole.hexdigest()
    assert [kind for kind, *_ in reader.asked] == ["range"] * 5 + ["stream"]
    sizes = [stop - start for kind, start, stop in reader.asked if kind == "range"]
    assert sizes == [65536 * (2 * 3 ** (n - 1) if n else 1) for n in range(5)]


def test_reads_here_and_there_fetch_what_was_asked_for() -> None:
    file, reader = opened()
    for position in (900_000, 100_000, 500_000):
        file.seek(position)
        assert file.read(4096) == DATA[position : position + 4096]
    assert reader.asked == [("range", p, p + 4096) for p in (900_000, 100_000, 500_000)]
    file.seek(100_010)
    assert file.read(4000) == DATA[100_010:104_010]
    assert len(reader.asked) == 3


@pytest.mark.parametrize(("first", "step"), [(10_000, 8000), (1_010_000, -8000)])
@pytest.mark.parametrize("length", [400, 2000])
def test_rows_of_a_cutout_come_with_few_requests(first: int, step: int, length: int) -> None:
    file, reader = opened()
    requests = []
    for row in range(100):
        before = len(reader.asked)
        file.seek(first + row * step)
        assert file.read(length) == DATA[first + row * step :][:length]
        requests += [reader.asked[before:]] if len(reader.asked) > before else []
    assert len(requests) <= 9
    fetched = sum(stop - start for one in requests for _, start, stop in one)
    assert fetched <= 2 * 100 * length + 3 * 10_752  # at most as many rows in vain as were read


def test_equal_steps_end_with_the_file() -> None:
    file, reader = opened()
    for position in range(1000, len(DATA) + 20_000, 9000):
        file.seek(position)
        assert file.read(2000) == DATA[position : position + 2000]
    assert all(stop <= len(DATA) for _, _, stop in reader.asked)


def test_what_was_read_is_not_fetched_again() -> None:
    file, reader = opened()
    file.seek(10_000)
    file.read(1000)
    file.seek(20_000)
    file.read(1000)
    reader.asked.clear()
    file.seek(9000)
    assert file.read(15_000) == DATA[9000:24_000]
    assert reader.asked == [("range", 9000, 10_000), ("range", 11_000, 20_000), ("range", 21_000, 24_000)]


def test_memory_is_bounded() -> None:
    file, _ = opened(DATA * 40)
    for number in range(40):
        file.seek(number << 20)
        file.read(1_000_000)
    assert file._bytes._cache._bytes <= 16 << 20


def test_size_comes_with_the_end_of_the_file() -> None:
    file, reader = opened()
    assert file.seek(-22, io.SEEK_END) == len(DATA) - 22
    assert file.read() == DATA[-22:]
    assert file.size == len(DATA)
    assert reader.asked == [("tail", len(DATA) - 1024, len(DATA))]


def test_large_read_is_exactly_one_range() -> None:
    file, reader = opened()
    file.seek(1000)
    assert file.read(700_000) == DATA[1000:701_000]
    assert reader.asked == [("range", 1000, 701_000)]


def test_stream_is_left_when_the_reader_jumps_back() -> None:
    file, _ = opened()
    file.read(70_000)
    file.read(70_000)
    file.seek(5)
    assert file.read(3) == DATA[5:8]
    file.seek(-3, io.SEEK_END)
    assert file.read() == DATA[-3:]


def test_positions() -> None:
    file, _ = opened()
    assert file.seek(10) == 10
    assert file.seek(5, io.SEEK_CUR) == 15
    assert file.seek(2_000_000) == 2_000_000
    assert file.read() == b""
    assert file.tell() == 2_000_000
    with pytest.raises(ValueError, match="negative"):
        file.seek(-1)
    with pytest.raises(ValueError, match="whence"):
        file.seek(0, 7)


def test_readinto_at_the_end() -> None:
    file, _ = opened()
    buffer = memoryview(bytearray(10))
    file.seek(-4, io.SEEK_END)
    assert file.readinto(buffer) == 4
    assert bytes(buffer[:4]) == DATA[-4:]
    assert file.readinto(buffer) == 0
    assert file.readinto1(buffer) == 0
    assert file.read1() == b""
    assert file.peek() == b""


def test_lines_and_text() -> None:
    lines = [b"line %d\n" % number for number in range(20_000)]
    file, _ = opened(b"".join(lines))
    assert file.readline() == lines[0]
    assert list(file) == lines[1:]
    file.seek(0)
    with io.TextIOWrapper(file, encoding="ascii") as text:
        assert text.read() == b"".join(lines).decode()
    assert file.closed


def test_buffered_reader_and_zip() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number in range(20):
            archive.writestr(f"member{number}", bytes([number]) * 10_000)
    file, _ = opened(content.getvalue())
    with zipfile.ZipFile(io.BufferedReader(file)) as archive:
        assert archive.read("member7") == b"\7" * 10_000
        assert archive.testzip() is None


def test_closing() -> None:
    file, reader = opened()
    file.close()
    file.close()
    assert reader.closed == 1
    for operation in (
        file.read,
        file.tell,
        file.peek,
        lambda: file.seek(0),
        lambda: file.readinto(bytearray(1)),
    ):
        with pytest.raises(ValueError, match="closed"):
            operation()


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("lines", [False, True])
def test_threads_share_a_file(hasty_threads: None, lines: bool) -> None:
    """Each byte goes to one of them, and nobody gets an error; without a lock positions and streams clash."""
    blocks = [b"%0127d\n" % number for number in range(20_000)]
    file, _ = opened(b"".join(blocks))

    def read() -> list[bytes]:
        return list(file) if lines else list(iter(lambda: file.read(128), b""))

    with ThreadPoolExecutor(4) as executor:
        found = [task.result() for task in [executor.submit(read) for _ in range(4)]]
    assert sorted(piece for pieces in found for piece in pieces) == blocks


def test_forked_child_reads_a_file_that_a_thread_of_its_parent_reads() -> None:
    file, reader = opened()
    inside, leave = threading.Event(), threading.Event()

    def read_ranges(ranges: Sequence[ByteRange]) -> list[bytes]:
        inside.set()
        leave.wait(60)
        return [bytes(len(one)) for one in ranges]

    reader.read_ranges = read_ranges  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as executor:
        task = executor.submit(file.read, 10)
        inside.wait(60)
        child = os.fork()
        if child == 0:
            leave.set()
            os._exit(len(file.read(10)))
        leave.set()
        task.result()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10


def test_stream_that_is_too_short_is_an_error() -> None:
    reader = Reader(DATA)
    file = RemoteFile(reader, "davs://door/file")
    reader.data = DATA[:200_000]
    with pytest.raises(IntegrityError):
        file.read()


def test_upload_is_published_when_closed() -> None:
    store: Any = Store()
    with SpooledUpload(store, "u", overwrite=False) as file:
        file.write(b"xxcdef")
        file.seek(0)
        file.write(b"ab")
        assert store.files == {}
    assert store.files == {"u": b"abcdef"}
    assert store.overwrite == [False]
    file.close()
    assert len(store.overwrite) == 1
    assert file.info is not None


def fail_while_writing(file: Any, data: bytes | str) -> None:
    with file:
        file.write(data)
        raise RuntimeError


def test_nothing_is_published_after_an_error() -> None:
    store: Any = Store()
    file = SpooledUpload(store, "u")
    with pytest.raises(RuntimeError):
        fail_while_writing(file, b"half")
    with pytest.raises(RuntimeError):
        fail_while_writing(io.TextIOWrapper(SpooledUpload(store, "u"), encoding="utf-8"), "half")
    assert file.closed
    assert store.files == {}


def test_nothing_is_published_when_forgotten() -> None:
    store: Any = Store()
    file = SpooledUpload(store, "u")
    file.write(b"half")
    del file
    gc.collect()
    assert store.files == {}


def test_text_upload_is_published_when_closed() -> None:
    store: Any = Store()
    with io.TextIOWrapper(SpooledUpload(store, "u"), encoding="utf-16-le") as text:
        text.write("ä")
    assert store.files == {"u": "ä".encode("utf-16-le")}


def test_upload_that_changes_a_file() -> None:
    store: Any = Store()
    store.files["u"] = b"abc"
    with SpooledUpload(store, "u") as file:
        file.load()
        file.write(b"def")
    assert store.files["u"] == b"abcdef"


def test_commit_that_fails_is_not_repeated() -> None:
    class Refusing(Store):
        def write(self, url: str, data: BinaryIO, *, overwrite: bool = True) -> FileInfo:
            self.overwrite.append(overwrite)
            raise PermissionError

    store: Any = Refusing()
    file = SpooledUpload(store, "u")
    file.write(b"abc")
    with pytest.raises(PermissionError):
        file.close()
    file.close()
    del file
    gc.collect()
    assert len(store.overwrite) == 1
