"""The library webdav4, on httpx, with its file system for fsspec."""

from __future__ import annotations

import io
from typing import BinaryIO, cast

from ..formats import library
from ..work import Job, UnsupportedWorkError
from .client import Client, Done, Sink, Source
from .plain import FsspecClient
from .receiving import receive
from .signing_in import login, trust

__all__ = ("make",)

_REDIRECTS = (301, 302, 307, 308)


class _Webdav4(FsspecClient):
    def connect(self, job: Job) -> None:
        module = library("webdav4.client")
        files = library("webdav4.fsspec")
        self._client = module.Client(
            job.access.url, headers=login(job.access).headers, verify=trust(job.access)
        )
        self.files = files.WebdavFileSystem(job.access.url, client=self._client, skip_instance_cache=True)
        self._refusal = module.HTTPError
        if job.contact:
            try:
                self._client.exists(job.contact)
            except self._refusal as error:
                if error.status_code in _REDIRECTS:
                    raise UnsupportedWorkError(
                        "webdav4 follows no redirect of a PROPFIND, and this server sends every one elsewhere"
                    ) from error
                raise

    def close(self) -> None:
        self._client.http.close()

    def get(self, name: str, sink: Sink) -> Done:
        return receive(sink, lambda file: self._client.download_fileobj(name, file))

    def put(self, name: str, source: Source) -> Done:
        try:
            if source.data is None:
                self._client.upload_file(source.path, name)
            else:
                self._client.upload_fileobj(io.BytesIO(source.data), name)
        except self._refusal as error:
            if error.status_code in _REDIRECTS:
                raise UnsupportedWorkError(
                    "webdav4 follows no redirect of a PUT, and this door sends every one to a pool"
                ) from error
            raise
        return Done(source.size)

    def create(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self.files.open(name, "wb"))

    def exists(self, name: str) -> bool:
        return bool(self._client.exists(name))

    def remove(self, name: str) -> None:
        self._client.remove(name)

    def rename(self, name: str, new: str) -> None:
        self._client.move(name, new)


def make(name: str) -> Client:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Webdav4(name)
