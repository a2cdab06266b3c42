"""Our own client: whole files through its store, parts of files through its file system."""

from __future__ import annotations

import importlib
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from ...filesystem import DcacheFileSystem
from ...model import ByteRange
from ...store.protocol import Store
from ...store.registry import store_for
from ..work import Job, Outcome, UnsupportedWorkError, pieces
from .parallel import add_up
from .sink import Discard

__all__ = ("make",)


class _Ours:
    who = resource.RUSAGE_SELF
    idle: Callable[[], Outcome] | None = None

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        if not job.work.digest:
            raise UnsupportedWorkError("the store always verifies; see the peer plane")
        store = store_for(job.access.root)
        # First contact: what the server is, and a connection to it.
        if job.contact:
            store.exists(f"{job.access.root}{job.contact}")
        urls = [f"{job.access.root}{name}" for name in job.names]
        match job.work.operation:
            case "look":
                return lambda: Outcome(sum(store.exists(urls[0]) for _ in range(job.work.count)))
            case "delete":
                return lambda: _delete(store, urls)
            case "get":
                return lambda: _get(store, urls, job)
            case "put":
                return lambda: _put(store, urls, job)
            case "read_random" | "read_vector" | "read_scattered":
                return lambda: _read_pieces(store, urls[0], job)
            case "read_sequential":
                return lambda: _read_sequential(urls[0], job)
            case "write_sequential":
                return lambda: _write_sequential(urls[0], job)
            case "column" | "column_by_name":
                return _column(urls[0], job)
            case "member":
                return lambda: _member(urls[0], job)
        raise UnsupportedWorkError(f"no way to {job.work.operation}")


def _delete(store: Store, urls: list[str]) -> Outcome:
    return Outcome(sum(error is None for error in store.remove_many(urls).values()))


def _get(store: Store, urls: list[str], job: Job) -> Outcome:
    work = job.work

    def one(numbered: tuple[int, str]) -> int:
        number, url = numbered
        if work.sink == "memory":
            return len(store.read(url))
        if work.sink == "file":
            with open(f"{job.scratch}/{number}", "wb") as target:
                return store.download(url, target).size or 0
        return store.download(url, cast(BinaryIO, Discard())).size or 0

    return Outcome(add_up(one, enumerate(urls), work.threads))


def _put(store: Store, urls: list[str], job: Job) -> Outcome:
    work = job.work

    def one(url: str) -> int:
        with open(job.source, "rb") as file:
            return store.write(url, file).size or 0

    if work.size_bytes <= 1024 * 1024:
        data = Path(job.source).read_bytes()
        return Outcome(add_up(lambda url: store.write(url, data).size or 0, urls, work.threads))
    return Outcome(add_up(one, urls, work.threads))


def _read_pieces(store: Store, url: str, job: Job) -> Outcome:
    work = job.work
    offsets = work.offsets()
    if work.operation == "read_vector":
        ranges = [ByteRange(offset, offset + work.piece_bytes) for offset in offsets]
        return Outcome(sum(map(len, store.read_ranges(url, ranges))))
    if work.operation == "read_scattered":
        stops = [offset + work.piece_bytes for offset in offsets]
        pieces = DcacheFileSystem().cat_ranges([url] * len(offsets), offsets, stops)
        return Outcome(sum(map(len, pieces)))
    moved, seconds = 0, []
    with DcacheFileSystem().open(url, "rb") as file:
        for offset in offsets:
            begun = time.perf_counter()
            file.seek(offset)
            moved += len(file.read(work.piece_bytes))
            seconds.append(time.perf_counter() - begun)
    return Outcome(moved, seconds_each=seconds)


def _read_sequential(url: str, job: Job) -> Outcome:
    moved = 0
    with DcacheFileSystem().open(url, "rb") as file:
        while piece := file.read(job.work.piece_bytes):
            moved += len(piece)
    return Outcome(moved)


def _write_sequential(url: str, job: Job) -> Outcome:
    moved = 0
    with DcacheFileSystem().open(url, "wb") as file:
        for piece in pieces(job.work.size_bytes, job.work.piece_bytes):
            moved += file.write(piece)
    return Outcome(moved)


def _column(url: str, job: Job) -> Callable[[], Outcome]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise UnsupportedWorkError(f"needs {error.name}") from error

    def run() -> Outcome:
        filesystem = DcacheFileSystem()
        if job.work.operation == "column_by_name":
            table = parquet.read_table(url, columns=["c3"], filesystem=filesystem)
        else:
            with filesystem.open(url, "rb") as file:
                table = parquet.read_table(file, columns=["c3"])
        return Outcome(job.work.total_bytes, [f"{table.num_rows} rows, {table.nbytes} bytes in memory"])

    return run


def _member(url: str, job: Job) -> Outcome:
    with DcacheFileSystem().open(url, "rb") as file, zipfile.ZipFile(file) as archive:
        data = archive.read(archive.namelist()[-2])
    return Outcome(job.work.total_bytes, [f"a member of {len(data)} bytes"])


def make(name: str) -> _Ours:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Ours()
