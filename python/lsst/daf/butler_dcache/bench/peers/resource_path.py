"""``lsst.resources``: a `ResourcePath` of this package, or of its own for ``davs`` or ``s3``.

Both are the same calls. Which class answers them depends on whether this package claims the scheme, so each
has a process of its own.
"""

from __future__ import annotations

import importlib
import os
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...registration import register, registered, unregister
from ..work import Job, Outcome, UnsupportedWorkError, pieces
from .parallel import add_up

__all__ = ("make",)


class _Path:
    who = resource.RUSAGE_SELF
    idle: Callable[[], Outcome] | None = None

    def __init__(self, own: bool) -> None:
        self._own = own

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        work = job.work
        make_path = self._resource_path()
        if not work.digest and self._own:
            raise UnsupportedWorkError("a ResourcePath of this package always verifies; see the peer plane")
        is_s3 = bool(job.access.bucket)  # there boto3 compares what the server has
        notes = ["upstream compares no checksum"] if work.digest and not self._own and not is_s3 else []
        if work.operation.startswith("column"):
            try:
                importlib.import_module("pyarrow.parquet")
            except ModuleNotFoundError as error:
                raise UnsupportedWorkError(f"needs {error.name}") from error
        # First contact: which server this is.
        if job.contact:
            make_path(f"{job.access.root}{job.contact}").exists()
        paths = [make_path(f"{job.access.root}{name}") for name in job.names]
        runs: dict[str, Callable[[], int]] = {
            "look": lambda: sum(paths[0].exists() for _ in range(work.count)),
            "delete": lambda: _delete(paths),
            "get": lambda: add_up(lambda path: _get(path, work.sink), paths, work.threads),
            "put": _put(make_path, paths, job),
            "read_random": lambda: _read_random(paths[0], job),
            "read_scattered": lambda: _read_scattered(paths[0], job),
            "read_vector": lambda: _read_scattered(paths[0], job),
            "read_sequential": lambda: _read_sequential(paths[0], job),
            "write_sequential": lambda: _write_sequential(paths[0], job),
            "column": lambda: _column(paths[0], job),
            "column_by_name": lambda: _column(paths[0], job),
            "member": lambda: _member(paths[0], job),
        }
        run = runs[work.operation]
        return lambda: Outcome(run(), notes)

    def _resource_path(self) -> Callable[..., Any]:
        try:
            module = importlib.import_module("lsst.resources")
        except ModuleNotFoundError as error:
            raise UnsupportedWorkError("lsst.resources is not installed") from error
        register() if self._own else unregister()
        if registered() != self._own:
            raise UnsupportedWorkError("the scheme davs has another owner in this process")
        path: Callable[..., Any] = module.ResourcePath
        return path


def _delete(paths: list[Any]) -> int:
    return sum(result.success for result in type(paths[0]).mremove(paths).values())


def _get(path: Any, sink: str) -> int:
    if sink == "memory":
        return len(path.read())
    with path.as_local() as local:
        return os.stat(local.ospath).st_size


def _put(make_path: Callable[..., Any], paths: list[Any], job: Job) -> Callable[[], int]:
    work = job.work
    if work.operation != "put":
        return lambda: 0
    if work.size_bytes <= 1024 * 1024:
        data = Path(job.source).read_bytes()

        def write(path: Any) -> int:
            path.write(data)
            return len(data)

        return lambda: add_up(write, paths, work.threads)
    source = make_path(job.source)

    def send(path: Any) -> int:
        path.transfer_from(source, transfer="copy", overwrite=True)
        return work.size_bytes

    return lambda: add_up(send, paths, work.threads)


def _read_random(path: Any, job: Job) -> int:
    moved = 0
    with path.open("rb") as file:
        for offset in job.work.offsets():
            file.seek(offset)
            moved += len(file.read(job.work.piece_bytes))
    return moved


def _read_scattered(path: Any, job: Job) -> int:
    work = job.work
    filesystem, place = path.to_fsspec()
    offsets = work.offsets()
    stops = [offset + work.piece_bytes for offset in offsets]
    return sum(map(len, filesystem.cat_ranges([place] * len(offsets), offsets, stops)))


def _read_sequential(path: Any, job: Job) -> int:
    moved = 0
    with path.open("rb") as file:
        while piece := file.read(job.work.piece_bytes):
            moved += len(piece)
    return moved


def _write_sequential(path: Any, job: Job) -> int:
    moved = 0
    with path.open("wb") as file:
        for piece in pieces(job.work.size_bytes, job.work.piece_bytes):
            moved += file.write(piece)
    return moved


def _column(path: Any, job: Job) -> int:
    parquet = importlib.import_module("pyarrow.parquet")
    if job.work.operation == "column_by_name":
        filesystem, place = path.to_fsspec()
        parquet.read_table(place, columns=["c3"], filesystem=filesystem)
    else:
        with path.open("rb") as file:
            parquet.read_table(file, columns=["c3"])
    return job.work.total_bytes


def _member(path: Any, job: Job) -> int:
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        archive.read(archive.namelist()[-2])
    return job.work.total_bytes


def make(name: str) -> _Path:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Path(own=name == "path")
