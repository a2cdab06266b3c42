"""The library obstore, which is the object_store of Rust."""

from __future__ import annotations

import importlib
import io
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ..work import Job, UnsupportedWorkError, Work
from .client import Client, Done, Sink, Source

if TYPE_CHECKING:
    from collections.abc import Buffer

__all__ = ("make",)

_LIFETIME = timedelta(seconds=300)


class _Obstore(Client):
    def connect(self, job: Job) -> None:
        try:
            self._obstore: Any = importlib.import_module("obstore")
        except ModuleNotFoundError as error:
            raise UnsupportedWorkError("obstore is not installed") from error
        self._store = _store(job)
        if job.contact:
            self._obstore.head(self._store, job.contact)

    def notes(self, work: Work) -> list[str]:
        return ["obstore compares no checksum"] if work.digest and work.operation == "get" else []

    def get(self, name: str, sink: Sink) -> Done:
        begun = time.perf_counter()
        answer = self._obstore.get(self._store, name)
        if sink.kind == "memory":
            return Done(len(answer.bytes()))
        moved, first = 0, None
        with open(sink.path or os.devnull, "wb") as file:
            for piece in answer.stream():
                first = first or time.perf_counter() - begun
                moved += file.write(piece) if sink.path else len(piece)
        return Done(moved, first)

    def put(self, name: str, source: Source) -> Done:
        self._obstore.put(self._store, name, source.data or Path(source.path))
        return Done(source.size)

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, _Reader(self._obstore.open_reader(self._store, name)))

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Done:
        begins, ends = zip(*ranges, strict=True)
        parts = self._obstore.get_ranges(self._store, name, starts=begins, ends=ends)
        return Done(sum(map(len, parts)))

    def exists(self, name: str) -> bool:
        try:
            self._obstore.head(self._store, name)
        except FileNotFoundError:
            return False
        return True

    def walk(self, directory: str) -> int:
        return sum(map(len, self._obstore.list(self._store, f"{directory}/")))

    def remove(self, name: str) -> None:
        self._obstore.delete(self._store, name)

    def remove_many(self, names: Sequence[str]) -> int:
        self._obstore.delete(self._store, list(names))
        return len(names)

    def rename(self, name: str, new: str) -> None:
        self._obstore.rename(self._store, name, new)

    def presign(self, name: str) -> None:
        self._obstore.sign(self._store, "GET", name, _LIFETIME)


class _Reader(io.RawIOBase):
    """Its reader, which returns something else than bytes."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        memory = memoryview(buffer)
        data = self._file.read(len(memory))
        memory[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())


def _store(job: Job) -> Any:
    access = job.access
    options: dict[str, Any] = {"allow_http": True}
    if access.ca_file is not None:
        options["root_certificate"] = Path(access.ca_file).read_text()
    return importlib.import_module("obstore.store").S3Store(
        access.bucket,
        endpoint=access.url.removesuffix("/"),
        region="us-east-1",
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        virtual_hosted_style_request=False,
        client_options=options,
    )


def make(name: str) -> _Obstore:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Obstore(name)
