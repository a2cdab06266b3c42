"""The commands xrdcp and xrdfs, over XRootD's own protocol: xrdcp of Debian 12 speaks no https."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from ..work import Job, UnsupportedWorkError
from .client import Client, Done, Source
from .command import CommandClient, find
from .program import ProgramFailedError
from .signing_in import folder_of_authorities, login

__all__ = ("make",)


class _Xrdcp(CommandClient):
    def connect(self, job: Job) -> None:
        super().connect(job)
        self._copy = find("xrdcp", "xrootd-client")
        self._files = find("xrdfs", "xrootd-client")
        if not job.access.xroot_url:
            raise UnsupportedWorkError("xrdcp speaks XRootD's own protocol, and this target does not")
        self._root = job.access.xroot_url
        address = urlsplit(self._root)
        self._server = f"{address.scheme}://{address.netloc}"
        self._base = address.path.removeprefix("/")
        authorities = folder_of_authorities(job.access, job.scratch)
        trust = {} if authorities is None else {"X509_CERT_DIR": authorities}
        token = login(job.access).token
        self._environment = {**os.environ, **trust, **({"BEARER_TOKEN": token} if token else {})}

    def download(self, name: str, path: str) -> None:
        self.run([self._copy, "--silent", self._root + name, path])

    def put(self, name: str, source: Source) -> Done:
        self.run([self._copy, "--silent", "--path", source.path, self._root + name])
        return Done(source.size)

    def exists(self, name: str) -> bool:
        try:
            self._on_names("stat", name)
        except ProgramFailedError as error:
            # What no data server has is looked for until the redirector gives up.
            if "Redirect limit" in str(error) or "[3011]" in str(error):
                return False
            raise
        return True

    def walk(self, directory: str) -> int:
        lines = self._on_names("ls", "-l", "-R", directory).splitlines()
        return sum(line.startswith("-") for line in lines)

    def remove(self, name: str) -> None:
        self._on_names("rm", name)

    def rename(self, name: str, new: str) -> None:
        self._on_names("mv", name, new)

    def _on_names(self, command: str, *arguments: str) -> str:
        words = [word if word.startswith("-") else self._base + word for word in arguments]
        return self.run([self._files, self._server, command, *words])


def make(name: str) -> Client:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Xrdcp(name)
