"""The library s3fs, which is fsspec's file system for S3."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Sequence
from typing import BinaryIO, cast

from ..work import Job, UnsupportedWorkError, Work
from .client import Done, Sink, Source
from .plain import FsspecClient

__all__ = ("make",)

_LIFETIME_SECONDS = 300


class _S3fs(FsspecClient):
    def connect(self, job: Job) -> None:
        try:
            s3fs = importlib.import_module("s3fs")
        except ModuleNotFoundError as error:
            raise UnsupportedWorkError("s3fs is not installed") from error
        self.files = s3fs.S3FileSystem(
            endpoint_url=job.access.url.removesuffix("/"),
            client_kwargs={"verify": job.access.ca_file} if job.access.ca_file else {},
            config_kwargs={"s3": {"addressing_style": "path"}},
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self._scratch = job.scratch
        self.root = f"{job.access.bucket}/"
        if job.contact:
            self.files.info(self.root + job.contact)

    def notes(self, work: Work) -> list[str]:
        # The services compare, and publish at once.
        return (
            ["s3fs puts the bytes into files"] if work.operation == "get" and work.sink == "discard" else []
        )

    def get(self, name: str, sink: Sink) -> Done:
        if sink.kind == "memory":
            return Done(len(self.files.cat_file(self.root + name)))
        if sink.kind == "file":
            return self._fetch(name, sink.path)
        with tempfile.NamedTemporaryFile(dir=self._scratch) as file:  # it fetches large ones into files only
            return self._fetch(name, file.name)

    def _fetch(self, name: str, path: str) -> Done:
        self.files.get_file(self.root + name, path)
        return Done(os.stat(path).st_size)

    def put(self, name: str, source: Source) -> Done:
        if source.data is not None:
            self.files.pipe_file(self.root + name, source.data)
        else:
            self.files.put_file(source.path, self.root + name)
        return Done(source.size)

    def create(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self.files.open(self.root + name, "wb"))

    def exists(self, name: str) -> bool:
        return bool(self.files.exists(self.root + name))

    def remove(self, name: str) -> None:
        self.files.rm_file(self.root + name)

    def remove_many(self, names: Sequence[str]) -> int:
        self.files.rm([self.root + name for name in names])
        return len(names)

    def rename(self, name: str, new: str) -> None:
        self.files.mv(self.root + name, self.root + new)

    def presign(self, name: str) -> None:
        self.files.sign(self.root + name, expiration=_LIFETIME_SECONDS)


def make(name: str) -> _S3fs:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _S3fs(name)
