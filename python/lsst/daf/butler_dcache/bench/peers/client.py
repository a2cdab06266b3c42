"""What a client can do, one operation each: the seam between the load and those who are compared.

An adapter is a subclass that overrides what its client has; everything else it cannot. A program does a
whole job in one run of its process and overrides `Client.prepare` instead.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..work import Job, Outcome, UnsupportedWorkError, Work

__all__ = ("Client", "Done", "Sink", "Source")


_WORDS = {
    "get": "get",
    "put": "put",
    "open": "open a file for reading",
    "create": "open a file for writing",
    "filesystem": "be an fsspec file system",
    "read_ranges": "read several ranges in one call",
    "exists": "look whether a file is there",
    "exists_many": "look for many files in one call",
    "walk": "walk a tree",
    "remove": "remove",
    "remove_many": "remove many files in one call",
    "rename": "rename",
    "mint": "ask for a token",
    "presign": "make URLs for others",
}


@dataclass(frozen=True, slots=True)
class Done:
    """What one operation did.

    Parameters
    ----------
    bytes_moved : `int`
        Bytes that the caller got or gave.
    first_byte_seconds : `float` or `None`
        When the first of them was there, since the operation began; `None` if the client does not tell.
    """

    bytes_moved: int = 0
    first_byte_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Sink:
    """Where the bytes of a file go.

    Parameters
    ----------
    kind : `str`
        ``discard``: nowhere, pieces may be overwritten by the next; ``memory``: all of them, as `bytes`;
        ``file``.
    path : `str`
        Of the local file; nothing is there before.
    """

    kind: str = "discard"
    path: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes of a file come from.

    Parameters
    ----------
    path : `str`
        A local file that holds them.
    size : `int`
        How many.
    data : `bytes` or `None`
        They themselves, if they are few: up to 1 MiB.
    """

    path: str
    size: int
    data: bytes | None = None


class Client:
    """One who is compared.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.

    Notes
    -----
    Operations are called by several threads at a time. All names are relative to ``job.access.root``. An
    operation that fails raises whatever its client raises.
    """

    who = resource.RUSAGE_SELF
    """Whose CPU time counts; ``resource.RUSAGE_CHILDREN`` for a program."""

    idle: Callable[[], Outcome] | None = None
    """Starts that program for nothing; its cost is taken off."""

    def __init__(self, name: str) -> None:
        self.name = name

    def connect(self, job: Job) -> None:
        """Get ready: imports, a session, the first contact with ``job.contact`` if that is not empty.

        Parameters
        ----------
        job : `~..work.Job`
            What will be done.

        Raises
        ------
        UnsupportedWorkError
            If the client is not installed, or not for this target or work.
        """

    def prepare(self, job: Job) -> Callable[[], Outcome] | None:
        """Connect; a program returns what does the whole job.

        Parameters
        ----------
        job : `~..work.Job`
            What is to be done.

        Returns
        -------
        run : `~collections.abc.Callable` or `None`
            `None`: the operations of this client are called one by one, by `~..load.drive`.

        Raises
        ------
        UnsupportedWorkError
            If it cannot.
        """
        self.connect(job)
        return None

    def close(self) -> None:
        """End the session, and forget what was known: the next one in this process is like the first."""

    def notes(self, work: Work) -> list[str]:
        """Return what is to be known of its figures.

        Parameters
        ----------
        work : `~..work.Work`
            What it did.
        """
        return []

    def require(self, method: str) -> None:
        """See that the client has an operation.

        Parameters
        ----------
        method : `str`
            Name of a method of this class.

        Raises
        ------
        UnsupportedWorkError
            If it has not.
        """
        if getattr(type(self), method) is getattr(Client, method):
            raise self._cannot(method)

    def get(self, name: str, sink: Sink) -> Done:
        """Read a whole file.

        Parameters
        ----------
        name : `str`
            The file.
        sink : `Sink`
            Where its bytes go.
        """
        raise self._cannot("get")

    def put(self, name: str, source: Source) -> Done:
        """Write a whole file.

        Parameters
        ----------
        name : `str`
            The file; nothing is there.
        source : `Source`
            Where its bytes come from.
        """
        raise self._cannot("put")

    def open(self, name: str) -> BinaryIO:
        """Return a reader that can seek.

        Parameters
        ----------
        name : `str`
            The file.
        """
        raise self._cannot("open")

    def create(self, name: str) -> BinaryIO:
        """Return a writer; the file is there when it has been closed.

        Parameters
        ----------
        name : `str`
            The file.
        """
        raise self._cannot("create")

    def filesystem(self, name: str) -> tuple[Any, str]:
        """Return an fsspec file system and what a file is called there.

        Parameters
        ----------
        name : `str`
            The file.
        """
        raise self._cannot("filesystem")

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Done:
        """Read several pieces of a file in one call.

        Parameters
        ----------
        name : `str`
            The file.
        ranges : `~collections.abc.Sequence` [`tuple` [`int`, `int`]]
            Begin of each, and its end, which does not belong to it.
        """
        raise self._cannot("read_ranges")

    def exists(self, name: str) -> bool:
        """Return whether a file is there.

        Parameters
        ----------
        name : `str`
            The file.
        """
        raise self._cannot("exists")

    def exists_many(self, names: Sequence[str]) -> int:
        """Return how many of some files are there.

        Parameters
        ----------
        names : `~collections.abc.Sequence` [`str`]
            The files.
        """
        raise self._cannot("exists_many")

    def walk(self, directory: str) -> int:
        """Return how many files are in a directory and below.

        Parameters
        ----------
        directory : `str`
            Its name, without trailing slash.
        """
        raise self._cannot("walk")

    def remove(self, name: str) -> None:
        """Remove a file.

        Parameters
        ----------
        name : `str`
            The file.
        """
        raise self._cannot("remove")

    def remove_many(self, names: Sequence[str]) -> int:
        """Remove files by one call, and return how many.

        Parameters
        ----------
        names : `~collections.abc.Sequence` [`str`]
            The files.
        """
        raise self._cannot("remove_many")

    def rename(self, name: str, new: str) -> None:
        """Give a file another name.

        Parameters
        ----------
        name, new : `str`
            Before and after.
        """
        raise self._cannot("rename")

    def mint(self, directory: str) -> None:
        """Ask the server for a token that is good for a directory.

        Parameters
        ----------
        directory : `str`
            Its name, without trailing slash.
        """
        raise self._cannot("mint")

    def presign(self, name: str) -> None:
        """Make a URL by which somebody else may read a file.

        Parameters
        ----------
        name : `str`
            The file.
        """
        raise self._cannot("presign")

    def _cannot(self, method: str) -> UnsupportedWorkError:
        return UnsupportedWorkError(f"{self.name} cannot {_WORDS[method]}")
