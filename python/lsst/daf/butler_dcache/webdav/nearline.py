"""Reading a file that may be on tape only.

Theory of operation (protocol page, sections 2.1 and 8.4). A GET of such a file has it brought back and is
answered when it is there, or with 500 after 180 s; in the meantime it occupies a door. So where the files of
a directory were seen to go to tape, or the configuration says so, the door is first asked where the file is.
Elsewhere the GET is sent at once, and where the file is is asked on another connection only if the answer
does not come within a moment: a file that is on disk costs no request more.

What is not there raises, waits or is staged, as the policy says. NEARLINE is also what dCache calls a file
on disks of which none may be read from here, until a copy from pool to pool is made. A frontend that is known
tells the two apart: of a file on tape only no pool is a location (section 7.5). Such a copy is waited for.
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from ..errors import (
    CredentialError,
    DcacheError,
    DeadlineError,
    NearlineError,
    ResourceNotFoundError,
    UnsupportedError,
)
from ..model import ON_DISK, FileInfo, Locality
from ..redaction import redact_url
from ..transport.deadline import Deadline
from ..transport.lateness import Lateness
from .door import Door
from .hedging import Lane

__all__ = ("Recall", "Recaller", "require_on_disk")

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 1.5
"""A door that has the bytes at hand answers within some tens of milliseconds, a busy one within a second."""

_LOOK_SECONDS = 10.0
_PAUSE_SECONDS = 1.0
_WAITED = "timed out"


class Recaller(NamedTuple):
    """What can be done about a file that is NEARLINE.

    Parameters
    ----------
    stage : `~collections.abc.Callable`
        Has a file brought to disk, and returns when it is there.
    has_disk_copy : `~collections.abc.Callable`
        Tells whether a pool is known to hold a file all the same.
    """

    stage: Callable[[str, Deadline], None]
    has_disk_copy: Callable[[str, Deadline], bool]


def require_on_disk(entry: FileInfo, *, operation: str = "read") -> None:
    """Raise if a file is where it cannot be read from at once.

    Parameters
    ----------
    entry : `FileInfo`
        What the server says of it. ONLINE proves nothing about the bytes: a ruin is ONLINE, too.
    operation : `str`, optional
        For the message.

    Raises
    ------
    NearlineError
        Raised if it is NEARLINE, UNAVAILABLE or LOST.
    """
    if entry.locality is Locality.NEARLINE:
        raise NearlineError(
            "the file is on tape only (NEARLINE)",
            operation=operation,
            url=entry.url,
            locality=entry.locality.value,
            hint=f"Bring it to disk first: dcache-butler stage {shlex.quote(redact_url(entry.url))}",
        )
    if entry.locality is Locality.UNAVAILABLE:
        raise NearlineError(
            "no pool that is in service holds the file (UNAVAILABLE)",
            operation=operation,
            url=entry.url,
            locality=entry.locality.value,
            hint="Its pool may be down: try again later, or ask the site.",
        )
    if entry.locality is Locality.LOST:
        raise NearlineError(
            "the file is lost: the server knows of no copy, on disk or on tape (LOST)",
            operation=operation,
            url=entry.url,
            locality=entry.locality.value,
            hint="Ask the site, or write it again.",
        )


class Recall:
    """The policy for one file of which the door is asked for the bytes.

    Parameters
    ----------
    door : `Door`
        Whom to ask where it is.
    url : `str`
        The file.
    deadline : `Deadline`
        Of the operation. What a policy allows tape to take comes on top.
    recaller : `Recaller`
        What can be done about it.
    lane : `Lane` or `None`
        Which of two ways to the same bytes this is. On neither tape is waited for, whatever the policy, and
        the one that has lost goes on with nothing.
    """

    def __init__(
        self,
        door: Door,
        url: str,
        deadline: Deadline,
        recaller: Recaller,
        lane: Lane | None,
    ) -> None:
        self._door = door
        self._url = url
        self._deadline = deadline
        self._recaller = recaller
        self._lane = lane
        self._policy = "fail" if lane is not None else door.settings.nearline
        self._begun = time.monotonic()
        self._tape: Deadline | None = None
        self._is_staged = False

    @property
    def lateness(self) -> Lateness | None:
        """What is done if the door does not answer the GET soon."""
        if self._door.dialect not in ("auto", "dcache"):
            return None
        if self._policy != "wait":
            return Lateness(PATIENCE_SECONDS, self._look_late)
        if self._tape is not None:
            return Lateness(max(0.0, self._tape.left), self._give_up)
        patience = min(PATIENCE_SECONDS, self._door.settings.nearline_deadline_seconds)
        return Lateness(patience, self._look_or_give_up)

    def look_first(self) -> None:
        """Ask where the file is, if there is a reason to think of tape and it was not on disk a moment ago.

        Raises
        ------
        NearlineError
            Raised if it cannot be read at once.
        """
        door = self._door
        may_be_on_tape = door.settings.tape or door.localities.is_tape(self._url)
        if self._policy == "wait" or not may_be_on_tape or door.localities.is_on_disk(self._url):
            return
        try:
            self._look()
        except (CredentialError, NearlineError, ResourceNotFoundError):
            raise
        except DcacheError as error:
            if self._deadline.expired:
                raise
            _log.debug("where a file is could not be found out, so its bytes are asked for: %s", error)

    def _look_or_give_up(self) -> float | None:
        """Ask where the file is while the GET is waited for, and let it go on as long as tape may take."""
        if self._tape is not None:
            self._give_up()
        try:
            self._look_late()
        except NearlineError as error:
            if error.locality != Locality.NEARLINE:
                raise
            self._door.localities.note_tape(self._url)
            _log.info("the file is waited for, it is on its way from tape: %s", error)
            return max(0.0, self._allow_for_tape().left)
        return None

    def _give_up(self) -> NoReturn:
        raise self._overdue()

    def _overdue(self, error: DcacheError | None = None) -> NearlineError:
        """Return the error for a file that tape did not bring in time, with the door's last words."""
        waited = time.monotonic() - self._begun
        return NearlineError(
            f"the file is on tape only (NEARLINE) and did not come back within {waited:.3g} s; "
            f"nearline_deadline_seconds is {self._door.settings.nearline_deadline_seconds:g}",
            operation="read",
            url=self._url,
            status=None if error is None else error.status,
            reason="" if error is None else error.reason,
            elapsed_seconds=waited,
            locality=Locality.NEARLINE.value,
            hint="The restore may still be running, so that a later read can succeed; or stage it: "
            f"dcache-butler stage {shlex.quote(redact_url(self._url))}",
        )

    def _allow_for_tape(self) -> Deadline:
        """Return when tape must have brought the file; the first time, make the operation wait for it."""
        if self._tape is None:
            seconds = self._door.settings.nearline_deadline_seconds
            waited = time.monotonic() - self._begun if self._policy == "wait" else 0.0
            self._tape = Deadline(seconds - waited)
            self._deadline.extend(seconds)
        return self._tape

    def _look_late(self) -> None:
        """Ask where the file is while the GET is waited for."""
        if self._lane is not None and self._lane.has_lost:
            raise DeadlineError("another request brought the bytes", operation="read", url=self._url)
        try:
            self._look()
        except NearlineError:
            raise
        except DcacheError as error:
            _log.debug("a door is slow, and where the file is could not be found out: %s", error)

    def _look(self) -> None:
        share = Deadline(self._deadline.limit(_LOOK_SECONDS))
        entry = self._door.propfind(self._url, operation="read", deadline=share)
        is_there = entry.locality in ON_DISK
        if entry.locality is Locality.NEARLINE and self._recaller.has_disk_copy(self._url, share):
            _log.info("the file is copied from pool to pool before it is read: %s", redact_url(self._url))
            is_there = True
        if not is_there:
            require_on_disk(entry)
        else:
            self._door.localities.note_on_disk(self._url)

    def go_on(self, error: NearlineError | DeadlineError) -> None:
        """Do what the policy says, and return if the door can be asked once more.

        Parameters
        ----------
        error : `NearlineError` or `DeadlineError`
            Why there are no bytes.

        Raises
        ------
        DcacheError
            Raised if that is final, or took too long.
        """
        if isinstance(error, DeadlineError):
            # A silence that is too long for a door is none for tape.
            if self._policy != "wait" or self._tape is None or self._deadline.expired:
                raise error
            self._pause(self._tape, error)
            return
        if error.locality == Locality.NEARLINE:
            self._door.localities.note_tape(self._url)
        if self._policy == "fail":
            raise error
        tape = self._allow_for_tape()
        if self._policy == "wait":
            if _WAITED not in error.reason:
                raise error
            self._pause(tape, error)
            return
        # What the door says of a recall that it tried would befall another one as well.
        if self._is_staged or error.locality != Locality.NEARLINE or error.status is not None:
            raise error
        self._is_staged = True
        _log.info("the file is brought from tape before it is read: %s", redact_url(self._url))
        try:
            self._recaller.stage(self._url, tape)
        except UnsupportedError as unsupported:
            error.add_note(f"it cannot be staged here: {unsupported}")
            raise error from unsupported
        except DeadlineError as late:
            raise self._overdue() from late
        self._door.localities.note_on_disk(self._url)

    def _pause(self, tape: Deadline, error: DcacheError) -> None:
        if tape.expired:
            raise self._overdue(error) from error
        _log.info("the file is still on its way from tape: %s", error)
        time.sleep(min(_PAUSE_SECONDS, max(0.0, tape.left)))
