"""``overwrite=False``: of several writers exactly one is told success.

Neither ``If-None-Match: *`` nor ``Overwrite: F`` is exclusive at dCache: both look first and act later. Two
things are (protocol page, surprise 9, sections 4.4 and 6.6): a MOVE with a macaroon that lacks DELETE, which
the name space refuses if the name is taken; and MKCOL, of which one of several succeeds, as a lock beside the
name. The first costs no further request, the second two, and the second binds only those who take the lock.

A loser is told so only after looking: 403 and 500 have other causes too.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..auth.credential import Credential
from ..auth.macaroon import Activity
from ..errors import (
    AccessDeniedError,
    CredentialError,
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    OutcomeUnknownError,
    ParentNotFoundError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServerBusyError,
    ServerError,
    UnsupportedError,
    UploadDisplacedError,
)
from ..model import FileInfo
from ..transport.deadline import Deadline
from ..transport.failures import was_not_sent
from ..transport.retry import Phase, rounds
from ..webdav.addresses import lock_name
from ..webdav.door import Door
from ..webdav.rights import Rights

__all__ = ("Exclusion", "holds")

_log = logging.getLogger(__name__)

_LOCK_WAIT_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


class Exclusion:
    """Publishes a file under a name that must be free.

    Parameters
    ----------
    door : `Door`
        The endpoint's doors.
    rights : `Rights`
        Its narrowed credentials.
    sleep : `~collections.abc.Callable`, optional
        Waits for a lock; tests inject their own.
    """

    def __init__(self, door: Door, rights: Rights, sleep: Callable[[float], None] = time.sleep) -> None:
        self._door = door
        self._rights = rights
        self._sleep = sleep

    def check(self, url: str) -> None:
        """Refuse before a byte is sent what this server is known not to be able to do.

        Parameters
        ----------
        url : `str`
            Name that shall be made.

        Raises
        ------
        UnsupportedError
            Raised if exactness is wanted and not to be had.
        """
        door = self._door
        if door.dialect in ("dcache", "auto") or door.settings.exclusive == "best_effort":
            return
        if door.dialect == "xrootd" and self._create_only(door.deadline()) is not None:
            return
        raise UnsupportedError(
            "this server cannot tell several writers that exactly one of them succeeded",
            operation="write without overwriting",
            url=url,
            hint="Use a macaroon, or set `exclusive: best_effort` under `dcache:` of this endpoint.",
        )

    def create(self, temporary: str, url: str, info: FileInfo | None, *, deadline: Deadline) -> str:
        """Give a verified upload its name if nothing has that name.

        Parameters
        ----------
        temporary : `str`
            Where the upload is.
        url : `str`
            Its name.
        info : `FileInfo` or `None`
            What was uploaded, to recognise it if an answer is lost.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        etag : `str`
            Entity tag of the file, empty if the server does not say.

        Raises
        ------
        ResourceExistsError
            Raised if the name is taken, by a file, a directory or an unfinished upload.
        """
        # The dialect may have become known by the upload.
        self.check(url)
        creator = self._create_only(deadline)
        if creator is not None:
            rename = self._move_and_look if self._door.dialect == "xrootd" else self._move

            def create() -> str:
                return rename(temporary, url, deadline, creator)

            return self._until_settled(create, temporary, url, info, deadline)
        if self._door.dialect == "dcache":
            with self._lock(url, deadline):
                return self._move_looking(temporary, url, info, deadline)
        return self._move_looking(temporary, url, info, deadline)

    def _create_only(self, deadline: Deadline) -> Credential | None:
        """Return a macaroon that creates and never replaces, `None` if there is none to be had."""
        if self._door.dialect == "xrootd":
            # XRootD lets MANAGE replace as well (6.2.1: PUT and MOVE onto an existing file both 201).
            return self._rights.without(
                Activity.DELETE, Activity.MANAGE, Activity.UPDATE_METADATA, deadline=deadline, mint=False
            )
        if self._door.dialect == "dcache":
            # Who holds the lock and who has a macaroon do not see one another: a moment's trouble at the door
            # must not make the one of the other.
            strict = self._door.settings.exclusive != "best_effort"
            try:
                return self._rights.without(Activity.DELETE, deadline=deadline, strict=strict)
            except ServerError as error:
                error.hint = (
                    "Whether this door makes macaroons for this identity is not known now, so that a single "
                    "winner cannot be promised. Try again later, use a macaroon as token, or set "
                    "`exclusive: best_effort` under `dcache:` of this endpoint."
                )
                raise
        return None

    def _move(
        self, temporary: str, url: str, deadline: Deadline, credential: Credential | None = None
    ) -> str:
        return self._door.move(
            temporary, url, overwrite=False, operation="write", deadline=deadline, credential=credential
        )

    def _move_looking(self, temporary: str, url: str, info: FileInfo | None, deadline: Deadline) -> str:
        """Look, then rename: exact against those alone who hold the same lock."""
        if self._door.dialect == "xrootd" and self._look(url, deadline) is not None:
            # It takes `Overwrite: F` for T.
            raise _taken(url)
        return self._until_settled(
            lambda: self._move(temporary, url, deadline), temporary, url, info, deadline
        )

    def _move_and_look(self, temporary: str, url: str, deadline: Deadline, creator: Credential) -> str:
        """Rename, then see whose file has the name.

        XRootD looks and then renames: 4 of 300 races of four had two winners (6.2.1, two data servers). Its
        entity tag stays with a file that is renamed, so that the one whose file was replaced notices.
        """
        own = self._etag(temporary, deadline)
        self._move(temporary, url, deadline, creator)
        if own and self._etag(url, deadline) != own:
            raise _taken(url)
        return own

    def _etag(self, url: str, deadline: Deadline) -> str:
        answer = self._door.ask("HEAD", url, operation="look", deadline=deadline, accept=(200, 404))
        return str(answer.headers.get("ETag", "")) if answer.status == 200 else ""

    def _until_settled(
        self,
        rename: Callable[[], str],
        temporary: str,
        url: str,
        info: FileInfo | None,
        deadline: Deadline,
    ) -> str:
        """Rename until it is known who has the name."""
        may_be_renamed = False
        for last in rounds(Phase.UNSETTLED, "MOVE", deadline):
            try:
                return rename()
            except (CredentialError, ParentNotFoundError):
                raise
            except (
                AccessDeniedError,
                DoorUnavailableError,
                OutcomeUnknownError,
                ResourceExistsError,
                ResourceNotFoundError,
                ServerError,
            ) as error:
                is_missing = isinstance(error, ResourceNotFoundError) and info is None
                if not may_be_renamed and (was_not_sent(error) or is_missing):
                    raise
                # 412 and 403 come before anything is done, the other errors also when the file was renamed.
                is_refusal = isinstance(error, ResourceExistsError | AccessDeniedError)
                may_be_renamed = may_be_renamed or not is_refusal
                try:
                    if self._was_renamed(temporary, url, info, error, may_be_renamed, deadline):
                        return ""
                except (DeadlineError, DoorUnavailableError) as unsettled:
                    raise OutcomeUnknownError(
                        "it could not be found out who has the name",
                        operation="write",
                        url=url,
                        elapsed_seconds=deadline.elapsed,
                    ) from unsettled
                if last or isinstance(error, AccessDeniedError):
                    raise
        raise AssertionError("the last round returns or raises")

    def _was_renamed(
        self,
        temporary: str,
        url: str,
        info: FileInfo | None,
        error: DcacheError,
        may_be_renamed: bool,
        deadline: Deadline,
    ) -> bool:
        """Return whether the file was renamed in spite of an error; raise if another has the name."""
        if may_be_renamed and self._look(temporary, deadline) is None:
            found = self._look(url, deadline)
            if found is not None and (info is None or holds(found, info)):
                return True
            raise UploadDisplacedError(
                "the file was published and then replaced or removed by another writer",
                operation="write",
                url=url,
            ) from error
        if self._look(url, deadline) is not None:
            raise _taken(url, error) from error
        return False

    def _look(self, url: str, deadline: Deadline) -> FileInfo | None:
        try:
            return self._door.propfind(url, operation="look", deadline=deadline)
        except ResourceNotFoundError:
            return None

    @contextmanager
    def _lock(self, url: str, deadline: Deadline) -> Iterator[None]:
        """Hold the lock of a name: a directory beside it, which one of several can make."""
        lock = lock_name(url)
        wait = Deadline(min(_LOCK_WAIT_SECONDS, deadline.remaining()))
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                self._door.ask("MKCOL", lock, operation="lock", deadline=deadline, accept=(201,))
                break
            except ResourceExistsError as error:
                if self._look(url, deadline) is not None:
                    raise _taken(url) from error
                if wait.left <= pause:
                    raise ServerBusyError(
                        f"another writer holds the lock of this name for {wait.elapsed:.0f} s",
                        operation="write without overwriting",
                        url=url,
                        hint=f"If none is alive remove the empty directory {lock}.",
                    ) from error
            self._sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        try:
            yield
        finally:
            try:
                self._door.delete(lock, operation="unlock", deadline=Deadline(_LOCK_WAIT_SECONDS))
            except DcacheError as error:
                # What was written is published, or the true error is on its way.
                _log.warning("a lock stays and has to be removed by hand: %s", error)


def holds(found: FileInfo, info: FileInfo) -> bool:
    """Tell whether a name holds what was uploaded, by size and, where known, checksum.

    Parameters
    ----------
    found : `FileInfo`
        What the server says.
    info : `FileInfo`
        What was uploaded.
    """
    if not found.is_file or found.size != info.size:
        return False
    theirs, own = found.checksums.get("adler32"), info.checksums.get("adler32")
    return theirs is None or own is None or theirs == own


def _taken(url: str, cause: DcacheError | None = None) -> ResourceExistsError:
    return ResourceExistsError(
        "the name is taken",
        operation="write without overwriting",
        url=url,
        status=None if cause is None else cause.status,
        reason="" if cause is None else cause.reason,
    )
