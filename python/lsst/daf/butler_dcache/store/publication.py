"""From an upload under a temporary name to the file that everybody sees.

Theory of operation (protocol page, sections 3.7, 4.4 and 7.3). On dCache a PUT to a name destroys what it
held before the first byte is sent, so a file is written under a temporary name in the same directory,
verified, and renamed:

- REST ``mv`` replaces in one step and never a directory; it is used where a frontend is known.
- MOVE with ``Overwrite: T`` removes the target and then renames, with a short window between. It would remove
a
  whole *tree* of that name too, so it is sent with a macaroon without LIST, with which dCache cannot look
  into a directory. Without a macaroon the target is looked at when, and only when, there is one.

An upload that comes to nothing, by a lost answer or connection or a server that fails, is begun anew under
another temporary name: whatever became of the first, nobody will use its name. A stream cannot be sent again.

Whether a rename whose answer was lost or strange has happened is found out by looking: the temporary name is
ours alone, so the file was renamed if and only if that name is gone.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NoReturn

from ..auth.macaroon import Activity
from ..errors import (
    AccessDeniedError,
    CredentialError,
    DcacheError,
    DeadlineError,
    DirectoryNotEmptyError,
    DoorUnavailableError,
    OutcomeUnknownError,
    ParentNotFoundError,
    ResourceExistsError,
    ResourceIsDirectoryError,
    ResourceNotFoundError,
    ServerError,
    StoreFullError,
    UnsupportedError,
    UploadDisplacedError,
)
from ..model import FileInfo
from ..redaction import redact_url
from ..transport.deadline import Deadline
from ..transport.failures import is_waited_for, was_not_sent
from ..transport.retry import Phase, rounds
from ..transport.upload_body import UploadBody
from ..webdav.addresses import temporary_name
from ..webdav.door import Door
from ..webdav.rights import Rights
from ..webdav.upload import StreamedPut, Uploads, may_clean_up
from .exclusion import Exclusion, holds
from .frontend import Frontends
from .space import Space

__all__ = ("Publisher", "look")

_log = logging.getLogger(__name__)

_CAME_TO_NOTHING = (DoorUnavailableError, OutcomeUnknownError, ServerError)
_CLEAN_UP_SECONDS = 60.0
_INTERRUPTED_SECONDS = 10.0


class Publisher:
    """Writes files so that a name holds all of the old or all of the new one.

    Parameters
    ----------
    door : `Door`
        The endpoint's doors.
    rights : `Rights`
        Its narrowed credentials.
    frontends : `Frontends`
        Its frontend, where one is known.
    """

    def __init__(self, door: Door, rights: Rights, frontends: Frontends) -> None:
        self._door = door
        self._rights = rights
        self._frontends = frontends
        self._uploads = Uploads(door)
        self._exclusion = Exclusion(door, rights)
        self._space = Space()

    def write(self, url: str, body: UploadBody, *, overwrite: bool, deadline: Deadline) -> FileInfo:
        """Upload and publish a file.

        Parameters
        ----------
        url : `str`
            Name of the file.
        body : `UploadBody`
            What it shall hold.
        overwrite : `bool`
            Whether an existing file is replaced; if not, one of several writers succeeds.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        info : `FileInfo`
            Verified size and checksum.

        Raises
        ------
        DcacheError
            Raised by cause. The name holds what it held before, and the temporary name is removed where it is
            surely ours; a note on the error says if that failed.
        """
        self.check(url, overwrite=overwrite)
        self._space.check(url, body.length)
        try:
            if overwrite and self._door.settings.publish == "in_place":
                info = self._put_in_place(url, body, deadline)
            else:
                info = self._put_aside(url, body, overwrite=overwrite, deadline=deadline)
        except StoreFullError as error:
            self._space.refused(body.length, error)
            raise
        self._space.accepted()
        return info

    def _put_in_place(self, url: str, body: UploadBody, deadline: Deadline) -> FileInfo:
        try:
            return _published(self._uploads.put(url, body, deadline=deadline), url, "")
        except BaseException as error:
            # A PUT that was refused has changed nothing: the name holds a good file, or a directory.
            if body.has_entry:
                self.clean_up(url, url, error)
            raise

    def _put_aside(self, url: str, body: UploadBody, *, overwrite: bool, deadline: Deadline) -> FileInfo:
        """Upload under temporary names until one is complete, and publish that.

        Whether an upload whose answer was lost is complete need not be found out: nobody else has its name.
        """
        for last in rounds(Phase.REPLACED, "PUT", deadline):
            name = temporary_name(url)
            try:
                info = self._uploads.put(name, body, deadline=deadline)
                break
            except BaseException as error:
                self.clean_up(name, url, error)
                if not isinstance(error, _CAME_TO_NOTHING):
                    raise
                if last or deadline.expired or is_waited_for(error):
                    _raise_unpublished(error, url, deadline)
                _log.info("an upload came to nothing and begins anew: %s", error)
        try:
            return self.publish(info, url, overwrite=overwrite, deadline=deadline, place=body.place)
        except BaseException as error:
            self.clean_up(name, url, error)
            raise

    def after_fork(self) -> None:
        """Make what a forked child must not share its own."""
        self._space.after_fork()

    def check(self, url: str, *, overwrite: bool) -> None:
        """Refuse before a byte is sent what cannot succeed.

        Parameters
        ----------
        url : `str`
            Name of the file.
        overwrite : `bool`
            Whether an existing file is replaced.
        """
        if url.endswith("/"):
            raise ResourceIsDirectoryError("a file's name does not end in '/'", operation="write", url=url)
        if not overwrite:
            self._exclusion.check(url)

    @contextmanager
    def aside(self, url: str, length: int, *, overwrite: bool) -> Iterator[str]:
        """Have a temporary name for a file that another server writes.

        Parameters
        ----------
        url : `str`
            Name that it will have.
        length : `int`
            Its size.
        overwrite : `bool`
            Whether an existing file is replaced.

        Yields
        ------
        name : `str`
            Nothing is left of it after an error.
        """
        self.check(url, overwrite=overwrite)
        self._space.check(url, length)
        name = temporary_name(url)
        try:
            yield name
        except BaseException as error:
            self.clean_up(name, url, error)
            if isinstance(error, StoreFullError):
                self._space.refused(length, error)
            raise
        self._space.accepted()

    def begin(self, url: str, length: int | None, *, deadline: Deadline) -> StreamedPut:
        """Begin to upload a file that is still being written.

        Parameters
        ----------
        url : `str`
            Name that it will have.
        length : `int` or `None`
            Its size, if it is known.
        deadline : `Deadline`
            Limits the beginning only.

        Returns
        -------
        put : `StreamedPut`
            Takes the bytes, under a temporary name, whatever the endpoint's way of publishing: what is cut
            may look like a good file on dCache if its length was not announced. End it with `publish` or
            `clean_up`.
        """
        self._space.check(url, length)
        for last in rounds(Phase.REPLACED, "PUT", deadline):
            name = temporary_name(url)
            try:
                return self._uploads.begin(name, length, deadline=deadline)
            except BaseException as error:
                self.clean_up(name, url, error)
                if isinstance(error, StoreFullError):
                    self._space.refused(length, error)
                if not isinstance(error, _CAME_TO_NOTHING):
                    raise
                if last or deadline.expired or is_waited_for(error):
                    _raise_unpublished(error, url, deadline)
        raise AssertionError("the last round returns or raises")

    def finish(self, put: StreamedPut, url: str, *, overwrite: bool, deadline: Deadline) -> FileInfo:
        """End an upload that was begun, and give it its name.

        Parameters
        ----------
        put : `StreamedPut`
            The upload, all of it sent.
        url : `str`
            Name that it shall have.
        overwrite : `bool`
            Whether an existing file is replaced.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        info : `FileInfo`
            The published file.
        """
        try:
            info = put.finish(deadline)
        except StoreFullError as error:
            self._space.refused(None, error)
            raise
        except OutcomeUnknownError as error:
            _raise_unpublished(error, url, deadline)
        self._space.accepted()
        return self.publish(info, url, overwrite=overwrite, deadline=deadline)

    def publish(
        self, info: FileInfo, url: str, *, overwrite: bool, deadline: Deadline, place: str = ""
    ) -> FileInfo:
        """Give a verified upload its name.

        Parameters
        ----------
        info : `FileInfo`
            What was uploaded, under its temporary name.
        url : `str`
            Name that it shall have.
        overwrite : `bool`
            Whether an existing file is replaced; if not, one of several writers succeeds.
        deadline : `Deadline`
            When to give up.
        place : `str`, optional
            Which data server took it (`.transport.upload_body.UploadBody.place`).

        Returns
        -------
        info : `FileInfo`
            The published file.
        """
        if overwrite:
            etag = self.replace(info.url, url, info, deadline=deadline, place=place)
        else:
            etag = self._exclusion.create(info.url, url, info, deadline=deadline)
        return _published(info, url, etag)

    def replace(
        self, source: str, target: str, info: FileInfo | None, *, deadline: Deadline, place: str = ""
    ) -> str:
        """Give a file another name, whatever file has that name now.

        Parameters
        ----------
        source, target : `str`
            URLs at this endpoint.
        info : `FileInfo` or `None`
            What the source holds, to recognise it if the answer is lost.
        deadline : `Deadline`
            When to give up.
        place : `str`, optional
            Which data server has the source, if that is known.

        Returns
        -------
        etag : `str`
            Entity tag of the file, empty if the server does not say.

        Raises
        ------
        OutcomeUnknownError
            Raised if the answer is lost and time or connection do not last to look.
        """
        may_be_renamed = False
        for attempt, last in enumerate(rounds(Phase.UNSETTLED, "MOVE", deadline)):
            try:
                return self._replace_once(source, target, deadline, "" if attempt else place, attempt == 0)
            except ParentNotFoundError:
                raise
            except (DoorUnavailableError, OutcomeUnknownError, ServerError, ResourceNotFoundError) as error:
                # 500 is also what the loser of two racing MOVEs gets, 503 what a relay says of its server.
                if not may_be_renamed and (
                    was_not_sent(error) or (info is None and isinstance(error, ResourceNotFoundError))
                ):
                    raise
                may_be_renamed = True
                try:
                    if self._was_renamed(source, target, info, error, deadline):
                        return ""
                except (DeadlineError, DoorUnavailableError) as unsettled:
                    raise OutcomeUnknownError(
                        "it could not be found out whether the file was renamed",
                        operation="write",
                        url=target,
                        elapsed_seconds=deadline.elapsed,
                    ) from unsettled
                if last:
                    raise
        raise AssertionError("the last round returns or raises")

    def _replace_once(
        self, source: str, target: str, deadline: Deadline, place: str, by_frontend: bool
    ) -> str:
        door = self._door
        frontend = self._frontends.for_single_files
        if by_frontend and frontend is not None and frontend.may_move(source, target, deadline):
            try:
                frontend.move(source, target, operation="write", deadline=deadline)
                return ""
            except (DoorUnavailableError, UnsupportedError) as error:
                if not was_not_sent(error) and not isinstance(error, UnsupportedError):
                    raise
                _log.warning("the frontend does not rename, so the door does: %s", error)
            except ResourceNotFoundError as error:
                # The target's directory is missing, or its root is not that of the door.
                _log.info("the frontend does not find the file, so the door renames: %s", error)
        if door.dialect == "xrootd":
            # rename(2) of its file system: in one step, and never onto a directory.
            return door.move(
                source, target, overwrite=True, operation="write", deadline=deadline, shortcut=place
            )
        blind = self._rights.without(Activity.LIST, deadline=deadline, mint=False)
        if blind is not None and door.dialect == "dcache":
            try:
                return door.move(
                    source, target, overwrite=True, operation="write", deadline=deadline, credential=blind
                )
            except CredentialError:
                raise
            except AccessDeniedError as error:
                self._refuse_directory(target, deadline, error)
            except (DirectoryNotEmptyError, ServerError) as error:
                self._refuse_directory(target, deadline, error)
                raise
        try:
            return door.move(source, target, overwrite=False, operation="write", deadline=deadline)
        except ResourceExistsError as error:
            self._refuse_directory(target, deadline, error)
        return door.move(source, target, overwrite=True, operation="write", deadline=deadline)

    def _refuse_directory(self, target: str, deadline: Deadline, cause: DcacheError) -> None:
        """Raise if what has the target's name is a directory, which must not be replaced by a file."""
        found = look(self._door, target, deadline)
        if found is not None and found.is_directory:
            raise ResourceIsDirectoryError(
                "a directory has this name", operation="write", url=target, status=cause.status
            ) from cause

    def _was_renamed(
        self, source: str, target: str, info: FileInfo | None, error: DcacheError, deadline: Deadline
    ) -> bool:
        if look(self._door, source, deadline) is not None:
            return False
        found = look(self._door, target, deadline)
        if found is not None and (info is None or holds(found, info)):
            _log.info("the answer to a rename was lost, but it has happened: %s", error)
            return True
        if found is not None:
            raise UploadDisplacedError(
                "the file was published, and another writer replaced it at once",
                operation="write",
                url=target,
            ) from error
        raise OutcomeUnknownError(
            "the file was renamed, and the name does not exist now", operation="write", url=target
        ) from error

    def clean_up(self, name: str, url: str, error: BaseException) -> None:
        """Remove what a failed write left, if it is ours, and say so on the error if that fails.

        Parameters
        ----------
        name : `str`
            Where it was written.
        url : `str`
            Where it would have been published.
        error : `BaseException`
            Why it was not.
        """
        if isinstance(error, DcacheError) and name != url:
            error.add_note(f"written under the temporary name {name}")
            error.url = redact_url(url)
        if not may_clean_up(error):
            error.add_note(f"nothing was removed: {name} may belong to another writer now")
            return
        if isinstance(error, CredentialError) or (
            isinstance(error, AccessDeniedError) and error.status == 401
        ):
            # Another request with this credential would count towards the block of the host.
            return
        try:
            # Whoever interrupts does not want to wait for a door that is away.
            seconds = _CLEAN_UP_SECONDS if isinstance(error, Exception) else _INTERRUPTED_SECONDS
            self._door.delete(name, operation="clean up", deadline=Deadline(seconds))
        except ResourceNotFoundError:
            return
        except DcacheError as second:
            error.add_note(f"what is left of it could not be removed: {second}")


def _raise_unpublished(error: DcacheError, url: str, deadline: Deadline) -> NoReturn:
    """Raise that an upload came to nothing: whatever became of it, its temporary name is not used."""
    if not isinstance(error, OutcomeUnknownError):
        raise error
    kind = DeadlineError if isinstance(error.__cause__, DeadlineError) else DoorUnavailableError
    raise kind(
        f"the upload did not come to its end, and nothing was published: {error.message}",
        operation="write",
        url=url,
        attempts=error.attempts,
        elapsed_seconds=deadline.elapsed,
    ) from error


def _published(info: FileInfo, url: str, etag: str) -> FileInfo:
    return dataclasses.replace(info, url=url, etag=etag or info.etag, modified=datetime.now(UTC))


def look(door: Door, url: str, deadline: Deadline) -> FileInfo | None:
    """Return what the server says of a name, `None` if there is nothing.

    Parameters
    ----------
    door : `Door`
        Whom to ask.
    url : `str`
        The name.
    deadline : `Deadline`
        When to give up.
    """
    try:
        return door.propfind(url, operation="look", deadline=deadline)
    except ResourceNotFoundError:
        return None
