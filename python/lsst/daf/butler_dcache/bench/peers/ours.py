"""Our own client: whole files and names through its store, parts of files through its file system."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from ...errors import UnsupportedError
from ...filesystem import DcacheFileSystem
from ...model import ByteRange
from ...store.protocol import Store
from ...store.registry import reset_stores, store_for
from ..work import Job, UnsupportedWorkError
from .client import Client, Done, Sink, Source
from .receiving import receive

__all__ = ("Ours", "make")

_LIFETIME_SECONDS = 300


class Ours(Client):
    """Store and file system; see `~.client.Client` for what the methods do."""

    def connect(self, job: Job) -> None:
        if not job.work.digest:
            raise UnsupportedWorkError("the store always verifies; see the peer plane")
        self._root = job.access.root
        self._store = self._make_store(self._root)
        # First contact: what the server is, and a connection to it.
        if job.contact:
            self._store.exists(self._url(job.contact))

    def close(self) -> None:
        DcacheFileSystem.clear_instance_cache()
        reset_stores()

    def _make_store(self, root: str) -> Store:
        return store_for(root)

    def _url(self, name: str) -> str:
        return f"{self._root}{name}"

    def get(self, name: str, sink: Sink) -> Done:
        url = self._url(name)
        match sink.kind:
            case "memory":
                return Done(len(self._store.read(url)))
            case "file":
                with open(sink.path, "wb") as target:
                    return Done(self._store.download(url, target).size or 0)
        return receive(sink, lambda target: self._store.download(url, target))

    def put(self, name: str, source: Source) -> Done:
        if source.data is not None:
            return Done(self._store.write(self._url(name), source.data).size or 0)
        with open(source.path, "rb") as file:
            return Done(self._store.write(self._url(name), file).size or 0)

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, DcacheFileSystem().open(self._url(name), "rb"))

    def create(self, name: str) -> BinaryIO:
        return cast(BinaryIO, DcacheFileSystem().open(self._url(name), "wb"))

    def filesystem(self, name: str) -> tuple[Any, str]:
        return DcacheFileSystem(), self._url(name)

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Done:
        wanted = [ByteRange(begin, end) for begin, end in ranges]
        return Done(sum(map(len, self._store.read_ranges(self._url(name), wanted))))

    def exists(self, name: str) -> bool:
        return self._store.exists(self._url(name))

    def exists_many(self, names: Sequence[str]) -> int:
        return sum(self._store.exists_many(map(self._url, names)).values())

    def walk(self, directory: str) -> int:
        return len(DcacheFileSystem().find(self._url(directory), refresh=True))

    def remove(self, name: str) -> None:
        self._store.remove(self._url(name))

    def remove_many(self, names: Sequence[str]) -> int:
        return sum(error is None for error in self._store.remove_many(map(self._url, names)).values())

    def rename(self, name: str, new: str) -> None:
        self._store.move(self._url(name), self._url(new))

    def mint(self, directory: str) -> None:
        with _as_unsupported_work():
            self._store.mint(f"{self._url(directory)}/", lifetime_seconds=_LIFETIME_SECONDS)

    def presign(self, name: str) -> None:
        with _as_unsupported_work():
            self._store.presign(self._url(name), "GET", _LIFETIME_SECONDS)


@contextlib.contextmanager
def _as_unsupported_work() -> Iterator[None]:
    """Not every server does that, and none without TLS."""
    try:
        yield
    except UnsupportedError as error:
        raise UnsupportedWorkError(str(error)) from error


def make(name: str) -> Ours:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return Ours(name)
