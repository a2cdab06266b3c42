"""Removal: one request per file, and never a tree.

At dCache's door DELETE of a directory removes everything below it (protocol page, section 4.4), and nothing
in a URL tells a file from a directory. A look before each DELETE would double the requests. So the right to
look into directories is given up instead: with a macaroon without LIST the door finds nothing below a
directory, and its name space refuses to remove one that is not empty. REST DELETE is not recursive either.
Where neither is to be had the name is looked at first. XRootD never removes a tree.
"""

from __future__ import annotations

from ..auth.credential import Credential
from ..auth.macaroon import Activity
from ..errors import (
    AccessDeniedError,
    CredentialError,
    DeadlineError,
    DirectoryNotEmptyError,
    DoorUnavailableError,
    OutcomeUnknownError,
    ResourceNotFoundError,
    ServerError,
)
from ..transport.deadline import Deadline
from ..transport.failures import was_not_sent
from ..transport.retry import Phase, rounds
from ..webdav.door import Door
from ..webdav.rights import Rights
from .directories import Directories
from .frontend import Frontend, Frontends
from .publication import look

__all__ = ("Remover",)


class Remover:
    """Removes files and empty directories.

    Parameters
    ----------
    door : `Door`
        The endpoint's doors.
    rights : `Rights`
        Its narrowed credentials.
    frontends : `Frontends`
        Its frontend, where one is known.
    directories : `Directories`
        Its directories.
    """

    def __init__(self, door: Door, rights: Rights, frontends: Frontends, directories: Directories) -> None:
        self._door = door
        self._rights = rights
        self._frontends = frontends
        self._directories = directories

    def remove(self, url: str, *, deadline: Deadline, known_file: bool = False) -> None:
        """Remove a file or an empty directory.

        Parameters
        ----------
        url : `str`
            What to remove.
        deadline : `Deadline`
            When to give up.
        known_file : `bool`, optional
            Whether a listing of a moment ago says that it is a file.

        Raises
        ------
        ResourceNotFoundError
            Raised if there is none.
        DirectoryNotEmptyError
            Raised if it is a directory that holds something.
        """
        may_be_gone = False
        for last in rounds(Phase.UNSETTLED, "DELETE", deadline):
            try:
                self._remove_once(url, deadline, known_file)
                return
            except ResourceNotFoundError:
                if may_be_gone:
                    return
                raise
            except (DoorUnavailableError, OutcomeUnknownError, ServerError) as error:
                if not may_be_gone and was_not_sent(error):
                    raise
                may_be_gone = True
                # What is not there any more needs no second request.
                try:
                    if look(self._door, url, deadline) is None:
                        return
                except (DeadlineError, DoorUnavailableError) as unsettled:
                    raise OutcomeUnknownError(
                        "it could not be found out whether the file was removed",
                        operation="remove",
                        url=url,
                        elapsed_seconds=deadline.elapsed,
                    ) from unsettled
                if last:
                    raise

    def blind(self, deadline: Deadline) -> Credential | None:
        """Return a credential with which no tree can be removed, `None` if there is none to be had.

        Parameters
        ----------
        deadline : `Deadline`
            When to give up asking for one.
        """
        if self._door.dialect not in ("dcache", "auto"):
            return None
        return self._rights.without(Activity.LIST, deadline=deadline)

    def must_look(self, deadline: Deadline) -> bool:
        """Tell whether names have to be looked at, since nobody else refuses to remove a tree.

        Parameters
        ----------
        deadline : `Deadline`
            When to give up asking for a macaroon.
        """
        if self._proven is not None or self._door.dialect == "xrootd":
            return False
        try:
            return self.blind(deadline) is None
        except CredentialError:
            return False  # it is the answer to each removal

    @property
    def _proven(self) -> Frontend | None:
        frontend = self._frontends.for_single_files
        return frontend if frontend is not None and frontend.is_proven and not frontend.is_away else None

    def _remove_once(self, url: str, deadline: Deadline, known_file: bool) -> None:
        if (proven := self._proven) is not None and self._remove_by_frontend(proven, url, deadline):
            return
        if known_file or self._door.dialect == "xrootd":
            self._delete(url, deadline)
            return
        blind = self.blind(deadline)
        if blind is None:
            frontend = self._frontends.for_single_files
            if (
                frontend is None
                or not frontend.prove(url, deadline)
                or not self._remove_by_frontend(frontend, url, deadline)
            ):
                self._remove_after_look(url, deadline)
            return
        try:
            self._delete(url, deadline, blind)
        except (CredentialError, ResourceNotFoundError):
            raise
        except (AccessDeniedError, DirectoryNotEmptyError, ServerError) as error:
            found = look(self._door, url, deadline)
            if found is not None and found.is_directory:
                self._require_empty(url, deadline)
                if not isinstance(error, AccessDeniedError):
                    # The name space refused, which empty listings do not disprove: with LIST the door removes
                    # a tree.
                    raise
                self._delete(url, deadline)
            elif isinstance(error, AccessDeniedError) and found is not None:
                self._delete(url, deadline)
            else:
                raise

    @staticmethod
    def _remove_by_frontend(frontend: Frontend, url: str, deadline: Deadline) -> bool:
        """Return whether the frontend was there to do it."""
        try:
            frontend.remove(url, operation="remove", deadline=deadline)
        except DoorUnavailableError as error:
            if not was_not_sent(error):
                raise
            frontend.leave(error)
            return False
        return True

    def _remove_after_look(self, url: str, deadline: Deadline) -> None:
        found = self._door.propfind(url, operation="remove", deadline=deadline)
        if found.is_directory:
            self._remove_directory(url, deadline)
        else:
            self._delete(url, deadline)

    def _remove_directory(self, url: str, deadline: Deadline) -> None:
        self._require_empty(url, deadline)
        self._delete(url, deadline)

    def _require_empty(self, url: str, deadline: Deadline) -> None:
        """Raise if a directory holds something, as far as two looks tell.

        The listing of a dCache that finds nothing is checked by `Directories.list`, by another way.
        """
        looks = 1 if self._door.dialect == "dcache" else 2
        if any(self._directories.list(url, deadline=deadline) for _ in range(looks)):
            raise DirectoryNotEmptyError(
                "a directory that holds something is not removed", operation="remove", url=url
            )

    def _delete(self, url: str, deadline: Deadline, credential: Credential | None = None) -> None:
        self._door.delete(url, operation="remove", deadline=deadline, credential=credential)
