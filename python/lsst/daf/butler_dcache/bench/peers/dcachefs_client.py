"""The library dcachefs, fsspec's file system for dCache: bytes over WebDAV, names over dCache's REST API."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from ..formats import library
from ..work import Job, UnsupportedWorkError
from .client import Client, Done, Sink, Source
from .plain import FsspecClient
from .signing_in import login, trust

__all__ = ("make",)

_WITHOUT_FRONTEND = frozenset({"get", "put", "write_sequential", "read_vector"})


class _Dcachefs(FsspecClient):
    def connect(self, job: Job) -> None:
        module = library("dcachefs")
        aiohttp = library("aiohttp")
        frontend = job.access.frontend_url
        operations = {step.operation for step in job.work.steps} or {job.work.operation}
        if not frontend and not operations <= _WITHOUT_FRONTEND:
            raise UnsupportedWorkError(
                "dcachefs looks, lists, renames, removes and opens by dCache's REST API, "
                "and there is none at this target"
            )
        address = urlsplit(job.access.url)
        trusted = trust(job.access)

        async def connector() -> Any:
            return aiohttp.TCPConnector(ssl=trusted)

        # A file that is open passes on what the session was made with, and nothing else.
        asynchronous = library("fsspec.asyn")
        self.files = module.dCacheFileSystem(
            api_url=f"{frontend.rstrip('/')}/api/v1" if frontend else None,
            webdav_url=f"{address.scheme}://{address.netloc}",
            client_kwargs={
                "headers": login(job.access).headers,
                "connector": asynchronous.sync(asynchronous.get_loop(), connector),
            },
            skip_instance_cache=True,
        )
        self.root = address.path
        self.access, self.refusal = job.access, aiohttp.ClientError
        if job.contact:
            self.files.cat_file(self.root + job.contact)

    def get(self, name: str, sink: Sink) -> Done:
        if sink.kind != "file":
            return Done(len(self.files.cat_file(self.root + name)))
        self.files.get_file(self.root + name, sink.path)
        return Done(os.stat(sink.path).st_size)

    def put(self, name: str, source: Source) -> Done:
        with self.sending():
            if source.data is None:
                self.files.put_file(source.path, self.root + name)
            else:
                self.files.pipe_file(self.root + name, source.data)
        return Done(source.size)

    def create(self, name: str) -> BinaryIO:
        if self.access.xroot_url:
            raise self.refused()
        return cast(BinaryIO, self.files.open(self.root + name, "wb"))

    def exists(self, name: str) -> bool:
        return bool(self.files.exists(self.root + name))

    def remove(self, name: str) -> None:
        self.files.rm(self.root + name)

    def rename(self, name: str, new: str) -> None:
        self.files.mv(self.root + name, self.root + new)


def make(name: str) -> Client:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Dcachefs(name)
