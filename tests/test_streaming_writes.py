"""New files that are sent as they are written.

Each defect of the incumbent client (lsst.resources 30.2026.2800, `davs`) that its writing has is met here by
a test that ours passes; what the incumbent does stands beside it, as measured against a dCache 11.2.4 or a
stand-in.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import subprocess
import sys
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pytest
from embedded_client import Client
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.embedded.faults import Fault
from lsst.daf.butler_dcache.spooled_upload import SpooledUpload
from lsst.daf.butler_dcache.store.writer import StreamingWriter
from lsst.daf.butler_dcache.streamed_upload import StreamedUpload
from lsst.daf.butler_dcache.transport.deadline import Deadline
from pyarrow import parquet as pq
from request_counter import counted
from scripted_server import ScriptedServer, Talk
from test_store_webdav import endpoint

PIECE = bytes(range(256)) * 400
LARGE = PIECE * 30
OLD = b"what was there before"
TEMPORARY = ".dcb-"


@pytest.fixture
def store(embedded: Any, tmp_path: Path) -> Iterator[Any]:
    embedded.faults.clear()
    with endpoint(embedded, tmp_path) as made:
        yield made
    embedded.faults.clear()


@pytest.fixture
def url(store: Any, embedded: Any) -> str:
    """A file that exists, beside which nothing must stay."""
    name = f"{embedded.url}{uuid.uuid4().hex[:12]}/file"
    store.write(name, OLD)
    return name


def names_beside(store: Any, url: str) -> set[str]:
    return {entry.name for entry in store.list_directory(url.rpartition("/")[0] + "/")}


def assert_untouched(store: Any, url: str) -> None:
    assert store.read(url) == OLD
    assert names_beside(store, url) == {"file"}


def write_pieces(file: Any, count: int = 30) -> None:
    for _ in range(count):
        file.write(PIECE)


# Streaming


def test_the_pool_gets_it_as_it_is_written(store: Any, embedded: Any, url: str) -> None:
    # The incumbent keeps all of it in memory until close (256 MiB: +257 MiB).
    with counted(embedded) as count, StreamedUpload(store, url) as file:
        write_pieces(file)
        (pool,) = [record for record in embedded.transcript()[-1:] if record["server"] == "pool"]
        assert pool["status"] == 0, "the upload must still be running"
        assert TEMPORARY in pool["path"]
        assert store.read(url) == OLD
        assert file.tell() == len(LARGE)
        assert not file.seekable()
        with pytest.raises(io.UnsupportedOperation):
            file.seek(0)
    assert store.read(url) == LARGE
    writing = [line for line in count.methods() if "GET" not in line]
    assert writing == ["door PUT", "pool PUT", "door MOVE"], count
    assert file.info is not None
    assert file.info.size == len(LARGE)
    assert store.size(url) == len(LARGE)
    assert names_beside(store, url) == {"file"}


@pytest.mark.parametrize(("size", "at_door", "at_pool"), [(0, 2, 0), (60_000, 2, 0), (900_000, 2, 1)])
def test_small_files_are_uploads_of_known_length(
    store: Any, embedded: Any, url: str, size: int, at_door: int, at_pool: int
) -> None:
    with counted(embedded) as count, StreamedUpload(store, url) as file:
        for at in range(0, size, 1000):
            file.write(LARGE[at : at + 1000])
            file.flush()
        assert count.records == []
    assert (count.at_door, count.at_pool) == (at_door, at_pool)
    assert store.read(url) == LARGE[:size]


@pytest.mark.parametrize("size", [None, len(LARGE)])
def test_length_is_announced_where_it_is_known(size: int | None, tmp_path: Path) -> None:
    # The incumbent tells the door that the length is 0, and sends files without one.
    heads: list[bytes] = []
    body: list[bytes] = []

    def door(talk: Talk) -> None:
        talk.head()
        talk.say(
            b"HTTP/1.1 307 Temporary Redirect\r\nServer: dCache/11.2.4\r\nConnection: close\r\n"
            b"Location: http://127.0.0.1:%d/file?dcache-http-uuid=1\r\n\r\n" % pool.port
        )

    def mover(talk: Talk) -> None:
        heads.append(talk.head())
        talk.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        body.append(talk.body(len(LARGE)) if size else talk.until(b"\r\n0\r\n\r\n"))
        talk.say(b"HTTP/1.1 507 Enough\r\nContent-Length: 0\r\n\r\n")

    def then(talk: Talk) -> None:
        talk.head()
        talk.say(b"HTTP/1.1 204 No Content\r\n\r\n")

    with ScriptedServer(mover) as pool, ScriptedServer(door, then) as server:
        server_like = _Endpoint(server.url.replace("http", "dav", 1), tmp_path)
        with endpoint(server_like, tmp_path) as store:
            file = StreamedUpload(store, server_like.url + "file", size=size)
            write_pieces(file)
            with pytest.raises(errors.StoreFullError):
                file.close()
    announced = b"\r\nContent-Length: %d\r\n" % len(LARGE) if size else b"\r\nTransfer-Encoding: chunked\r\n"
    for head in (server.heads[0], heads[0]):
        assert announced in head + b"\r\n"
        assert b"\r\nExpect: 100-continue" in head
        assert b"\r\nContent-Type" not in head
    assert b"\r\nAuthorization" not in heads[0]
    assert server.heads[1].startswith(b"DELETE /.dcb-")
    if size:
        assert body == [LARGE]


class _Endpoint:
    """What `endpoint` wants of a server."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        path = folder / "scripted.yaml"
        path.write_text(f"- base_url: {url}\n")
        self.environment = {"LSST_RESOURCES_WEBDAV_CONFIG": str(path)}


@pytest.mark.parametrize("written", [29, 31, 1])
def test_another_size_than_announced(store: Any, url: str, written: int) -> None:
    file = StreamedUpload(store, url, size=len(LARGE))
    with pytest.raises(errors.IntegrityError, match="announced"), file:
        write_pieces(file, written)
    assert_untouched(store, url)


@pytest.mark.parametrize("mode", ["w", "wb", "x", "xb"])
def test_file_system_and_resource_path_stream(store: Any, embedded: Any, url: str, mode: str) -> None:
    resources = pytest.importorskip("lsst.resources")
    filesystem = fsspec.filesystem("davs")
    text = "größe\n" * 300_000
    openers: list[Callable[[str], Any]] = [
        lambda name: filesystem.open(name, mode),
        lambda name: resources.ResourcePath(name).open(mode),
    ]
    for number, opener in enumerate(openers):
        name = f"{url}-{number}"
        with counted(embedded) as count, opener(name) as file:
            file.write(text if "b" not in mode else text.encode())
        assert count.methods()[-3:] == ["door PUT", "pool PUT", "door MOVE"]
        assert store.read(name) == text.encode()
        if "x" in mode:
            with pytest.raises(FileExistsError), opener(name) as file:
                file.write("other" if "b" not in mode else b"other")
            assert store.read(name) == text.encode()


def test_creating_loses_against_who_came_first(store: Any, url: str) -> None:
    # With the incumbent both were told success in 20 of 20 races.
    file = StreamedUpload(store, url, overwrite=False)
    with pytest.raises(errors.ResourceExistsError), file:
        write_pieces(file)
    assert_untouched(store, url)


def test_writers_that_go_back(store: Any, url: str) -> None:
    with StreamedUpload(store, url) as file, zipfile.ZipFile(file, "w") as archive:  # type: ignore[arg-type]
        archive.writestr("one", LARGE)
        archive.writestr("two", OLD)
    with zipfile.ZipFile(io.BytesIO(store.read(url))) as archive:
        assert archive.testzip() is None
        assert archive.read("one") == LARGE
    with StreamedUpload(store, url) as file:
        file.write(b"xxcdef")
        file.seek(0)
        file.write(b"ab")
        assert file.read() == b"cdef"
        file.truncate(5)
    assert store.read(url) == b"abcde"


def test_byte_order_mark(store: Any, url: str) -> None:
    with io.TextIOWrapper(StreamedUpload(store, url), encoding="utf-16") as file:
        file.write("ä")
    assert store.read(url) == "ä".encode("utf-16")


def test_every_kind_of_bytes_in_every_size(store: Any, url: str) -> None:
    sizes = [1, 255 * 1024, 256 * 1024, 1, 700_000, 256 * 1024 - 1, 0, 1_500_000, 3]
    expected = b""
    with StreamedUpload(store, url) as file:
        for number, size in enumerate(sizes):
            data = bytearray(os.urandom(size))
            expected += data
            kinds: list[Any] = [bytes(data), data, memoryview(data)]
            assert file.write(kinds[number % 3]) == size
            data[:] = bytes(size)  # the caller may use its memory again
    assert store.read(url) == expected


@pytest.mark.parametrize("redirects", [True, False])
def test_door_that_relays(tmp_path: Path, redirects: bool) -> None:
    from lsst.daf.butler_dcache.embedded import EmbeddedDcache

    with EmbeddedDcache(redirect=redirects) as server, endpoint(server, tmp_path) as store:
        name = server.url + "file"
        with StreamedUpload(store, name) as file:
            write_pieces(file)
        assert store.read(name) == LARGE
        with pytest.raises(InterruptError):
            raising(StreamedUpload(store, name))
        assert store.read(name) == LARGE
        assert {entry.name for entry in store.list_directory(server.url)} == {"file"}


# Errors


class InterruptError(BaseException):
    """As little an `Exception` as a `KeyboardInterrupt`, which would end the test run."""


def raising(file: Any) -> None:
    with file as stream:
        stream.write(LARGE)
        raise InterruptError


def closing(file: Any) -> None:
    with contextlib.closing(file):
        raising_inside(file)


def raising_inside(file: Any) -> None:
    file.write(LARGE)
    raise InterruptError


@contextlib.contextmanager
def opened(file: Any) -> Iterator[Any]:
    try:
        yield file
    finally:
        file.close()


def test_exception_in_the_block(store: Any, url: str) -> None:
    # The incumbent cleans up in `except Exception`: a KeyboardInterrupt leaves its temporary file.
    with pytest.raises(InterruptError):
        raising(StreamedUpload(store, url))
    assert_untouched(store, url)
    with pytest.raises(InterruptError):
        raising(fsspec.open(url, "wb"))
    assert_untouched(store, url)
    with pytest.raises(InterruptError):
        closing(StreamedUpload(store, url))
    assert_untouched(store, url)
    with pytest.raises(InterruptError):
        raising(opened(StreamedUpload(store, url)))
    assert_untouched(store, url)
    with pytest.raises(TypeError):
        raising(fsspec.open(url, "w"))
    assert_untouched(store, url)


def raising_text(file: Any) -> None:
    with file as stream:
        stream.write("half a line")
        stream.write("a" * 3_000_000)
        raise InterruptError


def closing_later(file: Any) -> None:
    with contextlib.ExitStack() as stack:
        stack.callback(file.close)
        raising_inside(file)


def writing_a_table(url: str, table: pa.Table) -> None:
    with pq.ParquetWriter(url, table.schema, filesystem=fsspec.filesystem("davs")) as writer:
        writer.write_table(table)
        raise InterruptError


def test_exception_in_the_block_of_another_file(store: Any, url: str) -> None:
    # The ``__exit__`` of these is written in C, and knows nothing but how to close.
    for make in (StreamedUpload, SpooledUpload):
        with pytest.raises(InterruptError):
            raising_text(io.TextIOWrapper(make(store, url)))
        assert_untouched(store, url)
        with pytest.raises(InterruptError):
            raising(io.BufferedWriter(make(store, url)))
        assert_untouched(store, url)
    with pytest.raises(InterruptError):
        closing_later(StreamedUpload(store, url))
    assert_untouched(store, url)


class _Unwritable:
    def __str__(self) -> str:
        raise InterruptError


def test_table_that_cannot_be_written_to_its_end(store: Any, url: str) -> None:
    good = ["a" * 1000] * 3000
    frame = pd.DataFrame({"column": [*good, _Unwritable()]})
    with pytest.raises(InterruptError):
        frame.to_csv(url)
    assert_untouched(store, url)
    with pytest.raises(InterruptError):
        writing_a_table(url, pa.table({"column": good}))
    assert_untouched(store, url)


def test_a_file_that_the_program_closes_is_published(store: Any, url: str) -> None:
    """Also while it deals with an error: what was not published must not look as if it were."""

    def in_except() -> None:
        file = StreamedUpload(store, url)
        try:
            raise KeyError
        except KeyError:
            file.write(LARGE)
            file.close()

    def in_a_block_of_its_own() -> None:
        class Reporting:
            def __enter__(self) -> Reporting:
                self.file = StreamedUpload(store, url)
                return self

            def __exit__(self, *error: object) -> None:
                with self.file:
                    self.file.write(LARGE)

        with contextlib.suppress(KeyError), Reporting():
            raise KeyError

    for publish in (in_except, in_a_block_of_its_own):
        store.write(url, OLD)
        publish()
        assert store.read(url) == LARGE


@pytest.mark.parametrize("compression", ["gzip", "bz2", "xz"])
def test_compressed_files(store: Any, url: str, compression: str) -> None:
    filesystem = fsspec.filesystem("davs")
    with filesystem.open(url, "wb", compression=compression) as file:
        write_pieces(file)
    with filesystem.open(url, "rb", compression=compression) as file:
        assert file.read() == LARGE
    with filesystem.open(url, "w", compression=compression) as file:
        file.write("größe")
    with filesystem.open(url, "r", compression=compression) as file:
        assert file.read() == "größe"
    store.write(url, OLD)
    with pytest.raises(InterruptError):
        raising(filesystem.open(url, "wb", compression=compression))
    assert_untouched(store, url)


def test_files_that_are_closed_while_an_error_is_dealt_with(store: Any, url: str) -> None:
    class Reporting:
        def __enter__(self) -> Reporting:
            return self

        def __exit__(self, *error: object) -> None:
            file = StreamedUpload(store, url + "-report")
            file.write(LARGE)
            file.close()

    with pytest.raises(KeyError), Reporting():
        raise KeyError
    assert store.read(url + "-report") == LARGE
    try:
        raise KeyError
    except KeyError:
        file = StreamedUpload(store, url)
        file.write(LARGE)
        file.close()
    assert store.read(url) == LARGE


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("cut_upload", server="pool", at_byte=2_000_000), errors.DcacheError),
        (Fault("cut_upload", server="pool", at_byte=10), errors.DcacheError),
        (Fault("corrupt_upload", server="pool", at_byte=1_000_000), errors.IntegrityError),
        (Fault("keep", server="pool", at_byte=1000), errors.IntegrityError),
        (Fault("wrong_digest", server="pool"), errors.IntegrityError),
        (Fault("full", server="pool"), errors.StoreFullError),
        (Fault("full", server="door"), errors.StoreFullError),
        (Fault("status", server="pool", method="PUT", status=500, times=None), errors.ServerError),
        (Fault("lose_answer", server="pool", method="PUT"), errors.DoorUnavailableError),
        (Fault("status", server="door", method="MOVE", status=403, times=None), errors.AccessDeniedError),
    ],
)
def test_whatever_fails_leaves_the_old_file(
    store: Any, embedded: Any, url: str, fault: Fault, error: type[Exception]
) -> None:
    # A flipped byte, or a pool that keeps 1000 bytes of a file, goes unnoticed by the incumbent.
    fault.hits = 0
    embedded.faults.add(fault)
    file = StreamedUpload(store, url)
    with pytest.raises(error) as caught, file:
        write_pieces(file)
    assert fault.hits >= 1
    assert url.rpartition("/")[2] in str(caught.value)
    embedded.faults.clear()
    assert_untouched(store, url)


def test_zeros_of_another_length_have_the_same_checksum(store: Any, embedded: Any, url: str) -> None:
    size = 65521 * 32
    for write in (
        lambda: store.write(url, bytes(size)),
        lambda: write_zeros(StreamedUpload(store, url), size),
    ):
        embedded.faults.add(Fault("keep", server="pool", at_byte=65521))
        with pytest.raises(errors.IntegrityError, match="the server holds 65521"):
            write()
        assert_untouched(store, url)


def write_zeros(file: StreamedUpload, size: int) -> None:
    with file:
        file.write(bytes(size))


def test_what_precedes_the_first_byte_is_repeated(store: Any, embedded: Any, url: str) -> None:
    embedded.faults.add(Fault("drop", server="pool", method="PUT"))
    with StreamedUpload(store, url) as file:
        write_pieces(file)
    assert store.read(url) == LARGE


def test_answer_to_the_rename_is_lost(store: Any, embedded: Any, url: str) -> None:
    # The incumbent reports an error, although the file is published.
    embedded.faults.add(Fault("lose_answer", server="door", method="MOVE"))
    with StreamedUpload(store, url) as file:
        write_pieces(file)
    assert store.read(url) == LARGE
    assert names_beside(store, url) == {"file"}


def test_error_of_the_cleaning_up_does_not_take_the_place_of_the_cause(
    store: Any, embedded: Any, url: str
) -> None:
    # With the incumbent it does.
    embedded.faults.add(Fault("corrupt_upload", server="pool", at_byte=5))
    embedded.faults.add(Fault("status", server="door", method="DELETE", status=403))
    file = StreamedUpload(store, url)
    with pytest.raises(errors.IntegrityError, match="adler32") as caught, file:
        write_pieces(file)
    assert any("could not be removed" in note for note in caught.value.__notes__)
    assert store.read(url) == OLD


def test_failed_write_is_never_published(store: Any, embedded: Any, url: str) -> None:
    embedded.faults.add(Fault("cut_upload", server="pool", at_byte=10))
    file = StreamedUpload(store, url)
    with pytest.raises(errors.DcacheError):
        write_pieces(file, 10_000)  # the kernel takes a few MB before it tells that nobody reads them
    with pytest.raises(errors.DcacheError):
        file.write(PIECE)
    with pytest.raises(errors.DcacheError):
        file.close()
    file.close()
    embedded.faults.clear()
    assert_untouched(store, url)


def test_server_that_takes_no_more(tmp_path: Path) -> None:
    over = threading.Event()

    def door(talk: Talk) -> None:
        talk.head()
        talk.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        over.wait(30)

    def then(talk: Talk) -> None:
        talk.head()
        talk.say(b"HTTP/1.1 204 No Content\r\n\r\n")

    with ScriptedServer(door, then) as server:
        url = server.url.replace("http", "dav", 1)
        limits = {"total_timeout_seconds": 0.5, "idle_timeout_seconds": 0.3}
        with endpoint(_Endpoint(url, tmp_path), tmp_path, dcache=limits) as store:
            file = StreamedUpload(store, url + "file")
            with pytest.raises((errors.DoorUnavailableError, errors.DeadlineError)):
                write_pieces(file, 3000)
            over.set()
            file.discard()
    assert server.heads[1].startswith(b"DELETE /.dcb-")


def test_time_between_two_writes_is_the_callers(store: Any, url: str) -> None:
    now = [0.0]
    writer = store.open_writer(url)
    assert isinstance(writer, StreamingWriter)
    writer._deadline = lambda: Deadline(5.0, lambda: now[0])
    for _ in range(30):
        writer.write(PIECE)
        now[0] += 3600.0
    writer.commit()
    assert store.read(url) == LARGE


# Processes


def in_process(code: str, server: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **server.environment}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_killed_client_leaves_nothing_but_a_temporary_name(store: Any, embedded: Any, url: str) -> None:
    # So does the incumbent, whose chunked file of unknown length then passes for a good one. Here a sweep
    # finds it by its name, and the name of the file holds what it held.
    code = (
        "import fsspec, os, sys\n"
        "file = fsspec.filesystem('davs').open(sys.argv[1], 'wb')\n"
        "file.write(bytes(3000000))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert in_process(code, embedded, url).returncode == -9
    assert store.read(url) == OLD
    left = names_beside(store, url) - {"file"}
    assert len(left) == 1
    assert left.pop().startswith(TEMPORARY)


FORGOTTEN: dict[str, Callable[[Any, str], Any]] = {
    "itself": StreamedUpload,
    "io.TextIOWrapper": lambda store, url: io.TextIOWrapper(StreamedUpload(store, url)),
    "io.BufferedWriter": lambda store, url: io.BufferedWriter(StreamedUpload(store, url)),  # type: ignore[type-var]
    "kept here": lambda store, url: io.TextIOWrapper(SpooledUpload(store, url)),
    "fs, binary": lambda store, url: fsspec.filesystem("davs").open(url, "wb"),
    "fs, text": lambda store, url: fsspec.filesystem("davs").open(url, "w"),
    "fs, gzip": lambda store, url: fsspec.filesystem("davs").open(url, "wb", compression="gzip"),
    "fs, gzip, text": lambda store, url: fsspec.filesystem("davs").open(url, "w", compression="gzip"),
    "fsspec.open": lambda store, url: fsspec.open(url, "w").open(),
    "a finaliser": lambda store, url: _ClosedByFinaliser(store, url),
    "zip": lambda store, url: zipfile.ZipFile(StreamedUpload(store, url), "w").open("member", "w"),  # noqa: SIM115
}


class _ClosedByFinaliser:
    """What `pyarrow.parquet.ParquetWriter` does."""

    def __init__(self, store: Any, url: str) -> None:
        self.file = StreamedUpload(store, url)
        self.write = self.file.write

    def __del__(self) -> None:
        self.file.close()


@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.parametrize("kind", FORGOTTEN)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_what_is_forgotten_publishes_nothing(store: Any, url: str, kind: str, size: int) -> None:
    # A text file or a writer of a library closes the file below it when the collector finds it.
    def forget() -> None:
        file = FORGOTTEN[kind](store, url)
        data = os.urandom(size // 2).hex()  # which no compression keeps from being sent
        file.write(data if isinstance(file, io.TextIOBase) else data.encode())
        del file

    forget()
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "dcache-forgotten-upload":
            thread.join()
    assert_untouched(store, url)


def test_what_is_forgotten_is_told(store: Any, url: str) -> None:
    def forget() -> None:
        StreamedUpload(store, url).write(PIECE)
        gc.collect()

    with pytest.warns(ResourceWarning, match="not published"):
        forget()


@pytest.mark.parametrize(
    ("mode", "forgotten"),
    [("w", ""), ("wb", "holder.append(holder)"), ("w", "del file, holder"), ("wb", "raise KeyError")],
)
def test_program_that_ends_without_closing(
    store: Any, embedded: Any, url: str, mode: str, forgotten: str
) -> None:
    code = (
        "import fsspec, sys\n"
        f"holder = [fsspec.open(sys.argv[1], {mode!r})]\n"
        "file = holder[0].open()\n"
        f"file.write({'b' if 'b' in mode else ''}'a' * 3000000)\n"
        f"{forgotten}\n"
    )
    result = in_process(code, embedded, url)
    assert result.returncode == (1 if "raise" in forgotten else 0), result.stderr
    assert_untouched(store, url)


def test_forked_child_does_not_touch_the_upload(store: Any, embedded: Any, url: str) -> None:
    file = StreamedUpload(store, url)
    write_pieces(file, 15)
    child = os.fork()
    if child == 0:
        try:
            file.write(PIECE)
        except errors.UnsupportedError:
            file.discard()
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    write_pieces(file, 15)
    file.close()
    assert store.read(url) == LARGE


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="VmHWM is Linux's")
def test_memory_does_not_grow_with_the_file(embedded: Any, store: Any, url: str) -> None:
    code = """
import sys
import fsspec
from lsst.daf.butler_dcache.store.registry import store_for
def peak():
    return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])
url, way, pieces = sys.argv[1], sys.argv[2], int(sys.argv[3])
filesystem = fsspec.filesystem('davs')
filesystem.pipe_file(url, bytes(100000))
piece = bytes(range(256)) * 256
before = peak()
if way == 'small writes':
    with filesystem.open(url, 'wb') as file:
        for _ in range(pieces):
            for at in range(0, 65536, 4096):
                file.write(piece[at:at + 4096])
elif way == 'writes':
    with filesystem.open(url, 'wb') as file:
        for _ in range(pieces):
            file.write(piece)
elif way == 'text':
    with filesystem.open(url, 'w') as file:
        for _ in range(pieces):
            file.write('a' * 65536)
else:
    with open(sys.argv[4], 'rb') as file:
        store_for(url).write(url, file)
print(peak() - before)
"""
    pieces = 1500
    local = Path(embedded.environment["LSST_RESOURCES_WEBDAV_CONFIG"]).with_name(f"large-{uuid.uuid4().hex}")
    local.write_bytes(bytes(65536 * pieces))
    try:
        for way in ("small writes", "writes", "text", "file"):
            done = in_process(code, embedded, url, way, str(pieces), str(local))
            assert done.returncode == 0, done.stderr
            assert int(done.stdout) <= 12 * 1024, f"{way}: {done.stdout} kB"
    finally:
        local.unlink()


def test_nothing_of_the_credential_reaches_the_pool(embedded: Any, store: Any, url: str) -> None:
    with counted(embedded) as count, StreamedUpload(store, url) as file:
        write_pieces(file)
    assert [record["authorization"] for record in count.records if record["server"] == "pool"] == [False]


def test_plain_client_reads_what_was_streamed(embedded: Any, store: Any, url: str) -> None:
    with StreamedUpload(store, url) as file:
        write_pieces(file)
    client = Client(embedded)
    path = url.removeprefix(embedded.url)
    answer = client.ask("GET", client.ask("GET", path).location)
    client.close()
    assert answer.body == LARGE
