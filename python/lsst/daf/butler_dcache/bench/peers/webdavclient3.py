"""The library webdavclient3, on requests."""

from __future__ import annotations

import io
import threading
from typing import Any
from urllib.parse import urlsplit

from ..formats import library
from ..work import Job
from .client import Client, Done, Sink, Source
from .plain import PlainClient
from .receiving import receive
from .signing_in import login

__all__ = ("make",)


class _Webdavclient3(PlainClient):
    def connect(self, job: Job) -> None:
        module = library("webdav3.client")
        signing_in = login(job.access)
        address = urlsplit(job.access.url)
        self._make = module.Client
        self._options = {
            "webdav_hostname": f"{address.scheme}://{address.netloc}",
            "webdav_root": address.path,
            "webdav_token": signing_in.token,
            "webdav_login": signing_in.user,
            "webdav_password": signing_in.password,
        }
        self._ca_file = job.access.ca_file
        self._own = threading.local()
        self._all: list[Any] = []
        self._lock = threading.Lock()
        self._directories = {""}
        if job.contact:
            self._client.check(job.contact)

    @property
    def _client(self) -> Any:
        """The thread's own: it holds a session of requests, which is not for several."""
        client = getattr(self._own, "client", None)
        if client is None:
            client = self._own.client = self._make(self._options)
            self._all.append(client)
            client.verify = self._ca_file or True
        return client

    def close(self) -> None:
        for client in self._all:
            client.session.close()

    def get(self, name: str, sink: Sink) -> Done:
        return receive(sink, lambda file: self._client.download_from(file, name))

    def put(self, name: str, source: Source) -> Done:
        self._make_directory(name.rpartition("/")[0])
        if source.data is None:
            self._client.upload_file(name, source.path)
        else:
            self._client.upload_to(io.BytesIO(source.data), name)
        return Done(source.size)

    def _make_directory(self, directory: str) -> None:
        """It uploads nothing into a directory that is not there."""
        with self._lock:
            if directory not in self._directories:
                self._client.mkdir(directory, recursive=True)
                self._directories.add(directory)

    def exists(self, name: str) -> bool:
        return bool(self._client.check(name))

    def walk(self, directory: str) -> int:
        count = 0
        for entry in self._client.list(directory, get_info=True):
            if entry["isdir"]:
                count += self.walk(f"{directory}/{entry['path'].rstrip('/').rpartition('/')[2]}")
            else:
                count += 1
        return count

    def remove(self, name: str) -> None:
        self._client.clean(name)

    def rename(self, name: str, new: str) -> None:
        self._client.move(name, new)


def make(name: str) -> Client:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Webdavclient3(name)
