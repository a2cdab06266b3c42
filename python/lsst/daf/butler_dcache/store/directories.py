"""Directories: make them, list them."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from ..auth.macaroon import Activity
from ..errors import (
    AccessDeniedError,
    CredentialError,
    DcacheError,
    DoorUnavailableError,
    OutcomeUnknownError,
    ParentNotFoundError,
    ProtocolError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServerError,
    UnsupportedError,
)
from ..model import FileInfo
from ..transport.deadline import Deadline
from ..transport.failures import is_waited_for
from ..transport.retry import Phase, rounds
from ..webdav.addresses import as_directory, decoded_path, join, parent, temporary_name
from ..webdav.door import Door
from ..webdav.listing_page import shows_names
from ..webdav.rights import lacks
from .listing import DirectoryLister

__all__ = ("Directories",)

_log = logging.getLogger(__name__)

_MOST_KNOWN = 1000


class Directories:
    """The directories of an endpoint.

    Parameters
    ----------
    door : `Door`
        Its doors.
    lister : `DirectoryLister`
        Lists them.
    """

    def __init__(self, door: Door, lister: DirectoryLister) -> None:
        self._door = door
        self._lister = lister
        self._lock = threading.Lock()
        # Only a hint which request to try first; a wrong one costs requests, never a wrong result.
        self._seen: OrderedDict[str, None] = OrderedDict()
        # Fingerprints of credentials that may upload and not remove.
        self._keeping: set[str] = set()

    def after_fork(self) -> None:
        """Make the lock of a forked child its own."""
        self._lock = threading.Lock()

    def list(self, url: str, *, deadline: Deadline) -> list[FileInfo]:
        """Return what a directory holds, as `iter` does; a listing that breaks off is asked for again.

        Parameters
        ----------
        url : `str`
            The directory.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        entries : `list` [ `FileInfo` ]
            Files and directories in it.
        """
        url = as_directory(url)

        def ask() -> Generator[FileInfo]:
            yield from self._lister.read(url, list, operation="list", deadline=deadline)

        return [*self._entries(url, ask, deadline)]

    def iter(self, url: str, *, deadline: Deadline) -> Iterator[FileInfo]:
        """Yield what a directory holds as it arrives.

        Parameters
        ----------
        url : `str`
            The directory.
        deadline : `Deadline`
            When to give up.

        Yields
        ------
        entry : `FileInfo`
            Files and directories in it.

        Raises
        ------
        ResourceIsFileError
            Raised if it is a file.
        AccessDeniedError
            Raised if it may not be listed, which looks like an empty one at first.
        ProtocolError
            Raised if it looks empty in the listing, again and again, and not on the door's page.
        DoorUnavailableError
            Raised if the connection breaks after entries were yielded.
        """
        url = as_directory(url)
        return self._entries(
            url, lambda: self._lister.iter(url, operation="list", deadline=deadline), deadline
        )

    def _entries(
        self, url: str, ask: Callable[[], Generator[FileInfo]], deadline: Deadline
    ) -> Iterator[FileInfo]:
        is_empty = True
        for is_first in (True, False):
            with closing(ask()) as entries:
                for entry in entries:
                    is_empty = False
                    yield entry
            if not is_empty or self._door.dialect != "dcache":
                break
            # dCache answers 207 without entries where it may not list or fails to; GET says 403, or shows
            # what there is (protocol page, section 4.1).
            if not is_first:
                raise ProtocolError(
                    "the listing of a directory is empty, and its page is not",
                    operation="list",
                    url=url,
                    hint="The name space of the server may be overloaded: try again later.",
                )
            page = self._door.ask("GET", url, operation="list", deadline=deadline, accept=(200,))
            if not shows_names(page.body, url):
                break
        self._remember(url)

    def make(self, url: str, *, deadline: Deadline) -> None:
        """Make a directory and its parents.

        Parameters
        ----------
        url : `str`
            The directory; one that exists is not an error.
        deadline : `Deadline`
            When to give up.

        Raises
        ------
        ResourceExistsError
            Raised if a file has this name.
        """
        url = as_directory(url)
        if decoded_path(url) == "/":
            return
        for last in rounds(Phase.UNSETTLED, "MKCOL", deadline):
            try:
                self._make(url, deadline)
                return
            except (DoorUnavailableError, OutcomeUnknownError, ServerError) as error:
                if is_waited_for(error):
                    raise
                try:
                    self._check(url, deadline, error)
                    return
                except ResourceNotFoundError:
                    # To make it again does no harm.
                    if last:
                        raise error from None

    def _make(self, url: str, deadline: Deadline) -> None:
        # MKCOL makes one level, an upload makes all of them: with the file's removal that is two requests
        # whatever the depth. So MKCOL comes first only where the parent is known to exist, or where the file
        # could not be removed.
        credential = self._door.credentials.current()
        removes = not lacks(credential, Activity.DELETE) and credential.fingerprint not in self._keeping
        if self._door.dialect in ("xrootd", "generic") or self._is_known(parent(url)) or not removes:
            try:
                self._make_one(url, deadline)
                return
            except ParentNotFoundError:
                if self._door.dialect != "dcache" or not removes:
                    self._make_each(url, deadline)
                    return
        self._make_by_upload(url, deadline)

    def _make_one(self, url: str, deadline: Deadline) -> None:
        try:
            self._door.ask("MKCOL", url, operation="make directory", deadline=deadline, accept=(200, 201))
        except ResourceExistsError as error:
            self._check(url, deadline, error)
        self._remember(url)

    def _check(self, url: str, deadline: Deadline, error: DcacheError) -> None:
        """Raise unless what has the name is a directory."""
        found = self._door.propfind(url, operation="make directory", deadline=deadline)
        if found.is_file:
            raise ResourceExistsError(
                "a file has this name", operation="make directory", url=url, status=error.status
            ) from error

    def _make_each(self, url: str, deadline: Deadline) -> None:
        """Make one level after the other, from the lowest that exists."""
        missing = [url]
        while missing:
            try:
                self._make_one(missing[-1], deadline)
                missing.pop()
            except ParentNotFoundError:
                above = parent(missing[-1])
                if above == missing[-1] or decoded_path(above) == "/":
                    raise
                missing.append(above)

    def _make_by_upload(self, url: str, deadline: Deadline) -> None:
        name = temporary_name(join(url, "directory"))
        unknown: OutcomeUnknownError | None = None
        try:
            self._door.ask(
                "PUT", name, operation="make directory", deadline=deadline, body=b"", accept=(200, 201, 204)
            )
        except CredentialError:
            raise
        except OutcomeUnknownError as error:
            unknown = error
        except (AccessDeniedError, ServerError, UnsupportedError) as error:
            # A file stands where a directory should, or this identity may make directories but no files.
            try:
                self._check(url, deadline, error)
            except ResourceNotFoundError:
                self._make_each(url, deadline)
            return
        try:
            self._door.delete(name, operation="make directory", deadline=deadline)
        except ResourceNotFoundError:
            if unknown is not None:
                raise unknown from None
        except CredentialError:
            raise
        except AccessDeniedError as error:
            # A token that does not tell its rights and may create only: the directory is there all the same.
            self._keeping.add(self._door.credentials.current().fingerprint)
            _log.warning("the file that made a directory may not be removed by who made it: %s", error)
        self._remember(url)

    def _is_known(self, url: str) -> bool:
        path = decoded_path(url)
        return path == "/" or path in self._seen

    def _remember(self, url: str) -> None:
        path = decoded_path(url)
        with self._lock:
            while path != "/":
                self._seen[path] = None
                self._seen.move_to_end(path)
                path = path.rpartition("/")[0] or "/"
            while len(self._seen) > _MOST_KNOWN:
                self._seen.popitem(last=False)

    def forget(self, url: str) -> None:
        """Forget that a directory exists, because it is removed or renamed.

        Parameters
        ----------
        url : `str`
            The directory.
        """
        path = decoded_path(url)
        with self._lock:
            for known in [one for one in self._seen if one == path or one.startswith(path + "/")]:
                del self._seen[known]
