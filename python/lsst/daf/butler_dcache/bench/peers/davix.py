"""The commands of davix, a process for each file."""

from __future__ import annotations

from urllib.parse import urlsplit

from ..work import Access, Job, UnsupportedWorkError
from .client import Client, Done, Source
from .command import CommandClient, find
from .program import ProgramFailedError
from .signing_in import folder_of_authorities, login

__all__ = ("make",)

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _Davix(CommandClient):
    def connect(self, job: Job) -> None:
        super().connect(job)
        self._get, self._put, self._mv, self._rm, self._ls = (
            find(f"davix-{what}", "davix") for what in ("get", "put", "mv", "rm", "ls")
        )
        self._options = _options(job.access, job.scratch)
        self._root = job.access.url

    def download(self, name: str, path: str) -> None:
        self.run([self._get, *self._options, self._root + name, path])

    def put(self, name: str, source: Source) -> Done:
        self.run([self._put, *self._options, source.path, self._root + name])
        return Done(source.size)

    def walk(self, directory: str) -> int:
        listing = self.run([self._ls, *self._options, "-l", f"{self._root}{directory}/"]).splitlines()
        below = [line.rsplit(maxsplit=1)[-1] for line in listing if line.startswith("d")]
        return len(listing) - len(below) + sum(self.walk(f"{directory}/{name}") for name in below)

    def remove(self, name: str) -> None:
        self.run([self._rm, *self._options, self._root + name])

    def rename(self, name: str, new: str) -> None:
        try:
            self.run([self._mv, *self._options, self._root + name, self._root + new])
        except ProgramFailedError as error:
            if str(error).endswith("it said nothing"):
                raise UnsupportedWorkError(
                    "davix-mv 0.8.4 ends with status 255, and without a word, once it has renamed a file"
                ) from error
            raise


def _options(access: Access, scratch: str) -> list[str]:
    """Whom to trust, and what to sign in with: on its command line, which all users of a machine can read."""
    authorities = folder_of_authorities(access, scratch)
    options = [] if authorities is None else ["--capath", authorities]
    headers = login(access).headers
    if headers and urlsplit(access.url).hostname not in _LOOPBACK:
        raise UnsupportedWorkError(
            "davix takes tokens and passwords on its command line alone, where others see them"
        )
    # Not --userlogin: over http, davix 0.8.4 never sends what it was given.
    return [*options, *(word for name in headers for word in ("-H", f"{name}: {headers[name]}"))]


def make(name: str) -> Client:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Davix(name)
