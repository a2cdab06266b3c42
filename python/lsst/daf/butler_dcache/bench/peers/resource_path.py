"""``lsst.resources``: a `ResourcePath` of this package, or of its own for ``davs`` or ``s3``.

Both are the same calls. Which class answers them depends on whether this package claims the scheme, so each
has a process of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Self, cast

from ...errors import UnsupportedError
from ...filesystem import DcacheFileSystem
from ...registration import register, registered, unregister
from ...store.registry import reset_stores
from ..work import Job, UnsupportedWorkError, Work
from .client import Client, Done, Sink, Source

__all__ = ("PathClient", "make")

_LIFETIME_SECONDS = 300
_SIGNS_NOTHING = re.compile(r"status: (400|405|501)\b")
"""Answers to a request for a macaroon: dCache without TLS, nginx, XRootD without authorisation."""


def _forget_http(module: Any) -> None:
    for store in (
        module.HttpResourcePath._metadata_session_store,
        module.HttpResourcePath._data_session_store,
    ):
        store.clear()


_FORGET: dict[str, tuple[str, Callable[[Any], object]]] = {
    "dav": ("lsst.resources.dav", lambda module: module.dav_globals._reset()),
    "http": ("lsst.resources.http", _forget_http),
    "s3": ("lsst.resources.s3utils", lambda module: module._get_s3_client.cache_clear()),
}
"""By scheme: how the modules of `lsst.resources` lose their sessions, as its own tests have them do it."""


class PathClient(Client):
    """Calls of `ResourcePath`; see `~.client.Client` for what its methods do."""

    _root = ""

    def connect(self, job: Job) -> None:
        own = self.name == "path"
        if not job.work.digest and own:
            raise UnsupportedWorkError("a ResourcePath of this package always verifies; see the peer plane")
        try:
            module = importlib.import_module("lsst.resources")
        except ModuleNotFoundError as error:
            raise UnsupportedWorkError("lsst.resources is not installed") from error
        register() if own else unregister()
        if registered() != own:
            raise UnsupportedWorkError("the scheme davs has another owner in this process")
        self._make: Any = module.ResourcePath
        self._root = self._root_of(job)
        self._compares = own or bool(job.access.bucket)  # there boto3 compares what the server has
        # First contact: which server this is.
        if job.contact:
            self._path(job.contact).exists()

    def close(self) -> None:
        if self.name == "path":
            DcacheFileSystem.clear_instance_cache()
            reset_stores()
            return
        name, forget = _FORGET.get(self._root.partition(":")[0].removesuffix("s"), ("", str))
        if name in sys.modules:
            forget(sys.modules[name])

    def _root_of(self, job: Job) -> str:
        return job.access.root

    def _path(self, name: str) -> Any:
        return self._make(f"{self._root}{name}")

    def notes(self, work: Work) -> list[str]:
        is_about_bytes = work.digest and work.operation_bytes
        return ["upstream compares no checksum"] if is_about_bytes and not self._compares else []

    def get(self, name: str, sink: Sink) -> Done:
        path = self._path(name)
        if sink.kind == "memory":
            return Done(len(path.read()))
        with path.as_local() as local:
            return Done(os.stat(local.ospath).st_size)

    def put(self, name: str, source: Source) -> Done:
        path = self._path(name)
        if source.data is not None:
            path.write(source.data)
        else:
            path.transfer_from(self._make(source.path), transfer="copy", overwrite=True)
        return Done(source.size)

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, _Opened(self._path(name).open("rb")))

    def create(self, name: str) -> BinaryIO:
        return cast(BinaryIO, _Opened(self._path(name).open("wb")))

    def filesystem(self, name: str) -> tuple[Any, str]:
        filesystem, place = self._path(name).to_fsspec()
        return filesystem, place

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Done:
        filesystem, place = self.filesystem(name)
        begins, ends = zip(*ranges, strict=True)
        return Done(sum(map(len, filesystem.cat_ranges([place] * len(ranges), list(begins), list(ends)))))

    def exists(self, name: str) -> bool:
        return bool(self._path(name).exists())

    def exists_many(self, names: Sequence[str]) -> int:
        return sum(self._make.mexists(map(self._path, names)).values())

    def walk(self, directory: str) -> int:
        top = self._make(f"{self._root}{directory}/", forceDirectory=True)
        return sum(len(files) for _, _, files in top.walk())

    def remove(self, name: str) -> None:
        self._path(name).remove()

    def remove_many(self, names: Sequence[str]) -> int:
        paths = list(map(self._path, names))
        return sum(result.success for result in self._make.mremove(paths).values())

    def rename(self, name: str, new: str) -> None:
        self._path(new).transfer_from(self._path(name), transfer="move")

    def presign(self, name: str) -> None:
        with self.told_of_signing():
            self._path(name).generate_presigned_get_url(expiration_time_seconds=_LIFETIME_SECONDS)

    @contextlib.contextmanager
    def told_of_signing(self) -> Iterator[None]:
        """Tell a server that signs no URLs, as none does without TLS, apart from a failure."""
        try:
            yield
        except (UnsupportedError, ValueError) as error:  # the latter is upstream's word for every status
            if isinstance(error, UnsupportedError) or _SIGNS_NOTHING.search(str(error)):
                raise UnsupportedWorkError(f"this server signs no URLs: {error}") from error
            raise


class _Opened:
    """A file that `ResourcePath.open` yields, with a way to close it that is no ``with``."""

    def __init__(self, context: AbstractContextManager[BinaryIO]) -> None:
        self._context = context
        self._file = context.__enter__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._context.__exit__(*error)

    def close(self) -> None:
        """Close the file."""
        self._context.__exit__(None, None, None)


def make(name: str) -> PathClient:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return PathClient(name)
