"""What a directory holds, by the door or by the frontend: whichever answers, with the same result.

The frontend is asked where it is proven to mean the same files (`.frontend`), since it answers sooner. It
never has the last word when it fails: the door is asked then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TypeVar

from ..errors import (
    AccessDeniedError,
    CredentialError,
    DcacheError,
    ResourceIsFileError,
    ResourceNotFoundError,
)
from ..model import FileInfo
from ..transport.deadline import Deadline
from ..webdav.door import Door
from ..webdav.listing import iter_listing, read_listing
from .frontend import Frontend, Frontends

__all__ = ("DirectoryLister",)

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class DirectoryLister:
    """Lists directories.

    Parameters
    ----------
    door : `Door`
        The endpoint's doors, with its settings.
    frontends : `Frontends`
        The frontend, if there is one.

    Notes
    -----
    Nothing can be concluded from what a listing lacks (protocol page, section 4.1), nor from an empty one.
    """

    def __init__(self, door: Door, frontends: Frontends) -> None:
        self._door = door
        self._frontends = frontends
        self._has_warned = False

    def read(
        self,
        url: str,
        take: Callable[[Iterator[FileInfo]], Result],
        *,
        operation: str,
        deadline: Deadline,
    ) -> Result:
        """Return what is made of a listing (1 request), which is asked for again if it breaks off.

        Parameters
        ----------
        url : `str`
            The directory.
        take : `~collections.abc.Callable`
            Is given what the directory holds as it arrives; called again for each attempt.
        operation : `str`
            For messages.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        result : `object`
            What ``take`` returned.

        Raises
        ------
        ResourceIsFileError
            Raised if it is a file.
        DcacheError
            Raised by cause.
        """
        frontend = self._proven(url, deadline)
        if frontend is not None:
            try:
                return frontend.listing.read(
                    url,
                    lambda entries: take(map(self._door.localities.noted, entries)),
                    operation=operation,
                    deadline=deadline,
                )
            except DcacheError as error:
                self._degrade(frontend, error, deadline)
        return read_listing(
            self._door,
            url,
            lambda entries: take(_below(entries, url)),
            operation=operation,
            deadline=deadline,
        )

    def iter(self, url: str, *, operation: str, deadline: Deadline) -> Generator[FileInfo]:
        """Yield what a directory holds as it arrives, in memory that does not grow with it (1 request).

        Parameters
        ----------
        url : `str`
            The directory.
        operation : `str`
            For messages.
        deadline : `Deadline`
            When to give up; what the caller does between two entries counts.

        Yields
        ------
        entry : `FileInfo`
            Files and directories in it.

        Raises
        ------
        DoorUnavailableError
            Raised if the connection breaks after entries were yielded; before that it is asked for again.
        DcacheError
            As `read`.
        """
        frontend = self._proven(url, deadline)
        if frontend is not None:
            entries = frontend.listing.iter(url, operation=operation, deadline=deadline)
            try:
                first = next(entries, None)
            except DcacheError as error:
                self._degrade(frontend, error, deadline)
            else:
                if first is not None:
                    noted = self._door.localities.noted
                    yield noted(first)
                    yield from map(noted, entries)
                return
        with closing(iter_listing(self._door, url, operation=operation, deadline=deadline)) as answers:
            yield from _below(answers, url)

    def _proven(self, url: str, deadline: Deadline) -> Frontend | None:
        """Return the frontend if it is to be asked."""
        how = self._door.settings.listing
        if how == "propfind":
            return None
        if how == "auto":
            # To find and to prove it takes requests: only who has asked for its listings pays for that.
            known = self._frontends.for_single_files
            return known if known is not None and known.is_proven and not known.is_away else None
        frontend = self._frontends.get(deadline)
        if frontend is None:
            if not self._has_warned:
                self._has_warned = True
                _log.warning("`listing: rest` has no frontend to ask, so the door lists directories")
            return None
        return frontend if not frontend.is_away and frontend.prove(url, deadline) else None

    @staticmethod
    def _degrade(frontend: Frontend, error: DcacheError, deadline: Deadline) -> None:
        """Raise what is an answer, or leaves no time for another one; else the door is asked."""
        if isinstance(error, (ResourceNotFoundError, ResourceIsFileError)) or deadline.expired:
            raise error
        if isinstance(error, AccessDeniedError) and not isinstance(error, CredentialError):
            _log.info("the frontend does not list a directory, so the door is asked: %s", error)
        else:
            frontend.leave(error)


def _below(entries: Iterator[FileInfo], url: str) -> Iterator[FileInfo]:
    """Yield what a directory holds of a listing that begins with itself."""
    if next(entries).is_file:
        raise ResourceIsFileError("not a directory", operation="list", url=url)
    yield from entries
