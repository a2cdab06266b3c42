"""A temporary name at a door to which the bytes of a copy come, from whichever server."""

from __future__ import annotations

from collections.abc import Callable

from ..auth.grant import Grant
from ..auth.macaroon import Activity
from ..errors import AccessDeniedError, ParentNotFoundError, ResourceNotFoundError
from ..model import FileInfo
from ..transport.deadline import Deadline
from ..webdav.addresses import parent
from ..webdav.door import Door
from ..webdav.markers import Vigil
from ..webdav.rights import Rights
from ..webdav.third_party import ThirdPartyCopies
from .directories import Directories

__all__ = ("WebdavLanding", "grant")


class WebdavLanding:
    """Implements `.protocol.Landing`.

    Parameters
    ----------
    door : `~..webdav.door.Door`
        The endpoint's doors.
    rights : `~..webdav.rights.Rights`
        Its narrowed credentials.
    copies : `~..webdav.third_party.ThirdPartyCopies`
        Pull.
    directories : `.directories.Directories`
        Make the one that is missing.
    temporary : `str`
        Where the bytes come.
    publish : `~collections.abc.Callable`
        Gives what came its name.
    deadline : `~..transport.deadline.Deadline`
        When to give up.
    """

    def __init__(
        self,
        door: Door,
        rights: Rights,
        copies: ThirdPartyCopies,
        directories: Directories,
        temporary: str,
        publish: Callable[[FileInfo], FileInfo],
        deadline: Deadline,
    ) -> None:
        self._door = door
        self._rights = rights
        self._copies = copies
        self._directories = directories
        self._publish = publish
        self._deadline = deadline
        self.temporary = temporary

    def grant(self, seconds: float) -> Grant:
        """See `.protocol.Landing`."""
        try:
            # DELETE lets the sender replace, or remove, what it has cut itself.
            return self._grant(seconds, Activity.UPLOAD, Activity.DELETE)
        except AccessDeniedError:
            return self._grant(seconds, Activity.UPLOAD)

    def _grant(self, seconds: float, *activities: Activity) -> Grant:
        return grant(self._door, self._rights, self.temporary, seconds, self._deadline, *activities)

    def pull(self, source: Grant, vigil: Vigil, *, algorithm: str) -> None:
        """See `.protocol.Landing`."""
        try:
            self._copies.pull(self.temporary, source, vigil, self._deadline, algorithm=algorithm)
        except ParentNotFoundError:
            # Tried first, since in most cases the directory is there.
            self._directories.make(parent(self.temporary), deadline=self._deadline)
            self._copies.pull(self.temporary, source, vigil, self._deadline, algorithm=algorithm)

    def look(self, algorithm: str) -> FileInfo | None:
        """See `.protocol.Landing`."""
        try:
            return self._copies.look(self.temporary, algorithm, self._deadline)
        except ResourceNotFoundError:
            return None

    def publish(self, info: FileInfo) -> FileInfo:
        """See `.protocol.Landing`."""
        return self._publish(info)


def grant(
    door: Door, rights: Rights, url: str, seconds: float, deadline: Deadline, *activities: Activity
) -> Grant:
    """Return the right to one file for another server, for some time.

    Parameters
    ----------
    door : `~..webdav.door.Door`
        The endpoint's doors.
    rights : `~..webdav.rights.Rights`
        Where the macaroon comes from; it is narrowed offline.
    url : `str`
        The file.
    seconds : `float`
        For how long.
    deadline : `~..transport.deadline.Deadline`
        When to give up.
    *activities : `~..auth.macaroon.Activity`
        What for.

    Returns
    -------
    grant : `~..auth.grant.Grant`
        Without credential for a file that we read as nobody in particular.

    Raises
    ------
    UnsupportedError
        If no macaroon is to be had.
    AccessDeniedError
        If ours does not allow that much itself.
    """
    place = door.place(url)
    if activities == (Activity.DOWNLOAD,) and door.credentials.current().kind == "none":
        return Grant(place)
    if door.dialect != "dcache":
        # XRootD looks at a file before it sends or receives it; at dCache any right implies that one.
        activities = (*activities, Activity.READ_METADATA)
    credential = rights.delegate(url, activities=activities, lifetime_seconds=seconds, deadline=deadline)
    return Grant(place, credential)
