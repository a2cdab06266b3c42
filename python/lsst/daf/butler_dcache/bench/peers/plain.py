"""A client that compares no checksum and writes in place, as most do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from ..work import Access, UnsupportedWorkError, Work
from .client import Client, Done

__all__ = ("FsspecClient", "PlainClient")


class PlainClient(Client):
    """One that says so of itself.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """

    def notes(self, work: Work) -> list[str]:
        """Return what is to be known of its figures.

        Parameters
        ----------
        work : `~..work.Work`
            What it did.
        """
        notes = []
        if work.digest and work.operation in ("get", "put"):
            notes.append(f"{self.name} compares no checksum")
        if work.publish == "atomic" and work.operation in ("put", "write_sequential"):
            notes.append(f"{self.name} writes in place: a reader can see a part")
        return notes


class FsspecClient(PlainClient):
    """A file system for fsspec, which `connect` makes.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """

    files: Any
    """The file system."""

    root = ""
    """What stands before each name there."""

    access: Access
    """How the server is reached."""

    refusal: type[Exception]
    """What is raised if a connection is lost in the middle of a request."""

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Upload within this, so that what a client cannot do is told from what goes wrong.

        Raises
        ------
        UnsupportedWorkError
            If the server is one that redirects every PUT and waits for no body.
        """
        try:
            yield
        except self.refusal as error:
            if self.access.xroot_url:
                raise self.refused() from error
            raise

    def refused(self) -> UnsupportedWorkError:
        """Return what is to be said of such a server."""
        return UnsupportedWorkError(
            f"{self.name} sends a body without being asked, "
            "and XRootD closes the connection once it has answered with a redirect"
        )

    def filesystem(self, name: str) -> tuple[Any, str]:
        """Return the file system and what a file is called there.

        Parameters
        ----------
        name : `str`
            The file.
        """
        return self.files, self.root + name

    def open(self, name: str) -> BinaryIO:
        """Return a reader that can seek.

        Parameters
        ----------
        name : `str`
            The file.
        """
        return cast(BinaryIO, self.files.open(self.root + name, "rb"))

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Done:
        """Read several pieces of a file in one call.

        Parameters
        ----------
        name : `str`
            The file.
        ranges : `~collections.abc.Sequence` [`tuple` [`int`, `int`]]
            Begin of each, and its end, which does not belong to it.
        """
        begins, ends = ([both[side] for both in ranges] for side in (0, 1))
        pieces = self.files.cat_ranges([self.root + name] * len(ranges), begins, ends, on_error="raise")
        return Done(sum(map(len, pieces)))

    def walk(self, directory: str) -> int:
        """Return how many files are in a directory and below.

        Parameters
        ----------
        directory : `str`
            Its name, without trailing slash.
        """
        return len(self.files.find(self.root + directory))
