"""The file system for http that fsspec brings, on aiohttp."""

from __future__ import annotations

from typing import Any

from ..formats import library
from ..work import Job, UnsupportedWorkError
from .client import Client, Done, Sink, Source
from .plain import FsspecClient
from .receiving import receive
from .signing_in import login, trust

__all__ = ("make",)


class _FsspecHttp(FsspecClient):
    def connect(self, job: Job) -> None:
        aiohttp: Any = library("aiohttp")
        http = library("fsspec.implementations.http")
        trusted = trust(job.access)

        async def session(**settings: Any) -> Any:
            return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted), **settings)

        self.files = http.HTTPFileSystem(
            get_client=session, client_kwargs={"headers": login(job.access).headers}, skip_instance_cache=True
        )
        self.root = job.access.url
        self.access, self.refusal, self._answer = job.access, aiohttp.ClientError, aiohttp.ClientResponseError
        if job.contact:
            self.files.exists(self.root + job.contact)

    def get(self, name: str, sink: Sink) -> Done:
        if sink.kind == "memory":
            return Done(len(self.files.cat_file(self.root + name)))
        return receive(sink, lambda file: self.files.get_file(self.root + name, file))

    def put(self, name: str, source: Source) -> Done:
        with self.sending():
            if source.data is None:
                self.files.put_file(source.path, self.root + name, method="put")
            else:
                self.files.pipe_file(self.root + name, source.data)
        return Done(source.size)

    def exists(self, name: str) -> bool:
        return bool(self.files.exists(self.root + name))

    def walk(self, directory: str) -> int:
        try:
            return super().walk(directory)
        except self._answer as error:
            raise UnsupportedWorkError(
                f"fsspec-http lists by pages for browsers, which this server does not show ({error.status})"
            ) from error


def make(name: str) -> Client:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _FsspecHttp(name)
