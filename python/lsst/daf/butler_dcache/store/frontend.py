"""The frontend, for names of which it is proven that it means the same files by them as the door.

Door and frontend are servers of their own, each with a root of its own (``webdav.root``, ``frontend.root``),
so that one path may name two files. What is done to a file that somebody named, its removal above all, goes
to the frontend only after the two were seen to speak of one file: by a rename of a temporary name, which is
found nowhere else, or by the identifier of an entry, which the door's entity tag begins with (protocol page,
section 1.9).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..errors import CredentialError, DcacheError
from ..rest.namespace import Namespace
from ..transport.deadline import Deadline
from ..webdav.addresses import is_temporary
from ..webdav.door import Door

__all__ = ("Frontend",)

_log = logging.getLogger(__name__)

_ASK_AGAIN_SECONDS = 600.0


class Frontend:
    """The frontend of an endpoint.

    Parameters
    ----------
    door : `Door`
        The endpoint's doors.
    namespace : `Namespace`
        What the frontend can do.
    clock : `~collections.abc.Callable`, optional
        Monotonic time in seconds.
    """

    def __init__(self, door: Door, namespace: Namespace, clock: Callable[[], float] = time.monotonic) -> None:
        self._door = door
        self._namespace = namespace
        self._clock = clock
        self._failed_at: float | None = None
        self.is_proven = False
        """Whether door and frontend were seen to speak of one file."""

    def move(self, source: str, target: str, *, operation: str, deadline: Deadline) -> None:
        """Rename as `Namespace.move`, where `may_move` says so.

        Parameters
        ----------
        source, target : `str`
            URLs of the door.
        operation : `str`
            For messages.
        deadline : `Deadline`
            When to give up.
        """
        self._namespace.move(source, target, operation=operation, deadline=deadline)
        if _is_ours(source):
            self.is_proven = True

    def may_move(self, source: str, deadline: Deadline) -> bool:
        """Tell whether the frontend can be trusted with a rename.

        Parameters
        ----------
        source : `str`
            URL of what is renamed. A temporary name can do no harm: nothing else has it.
        deadline : `Deadline`
            When to give up.
        """
        return self.is_proven or _is_ours(source) or self.prove(source, deadline)

    def remove(self, url: str, *, operation: str, deadline: Deadline) -> None:
        """Remove as `Namespace.remove`, once it is proven that the frontend speaks of the same file.

        Parameters
        ----------
        url : `str`
            URL of the door.
        operation : `str`
            For messages.
        deadline : `Deadline`
            When to give up.
        """
        self._namespace.remove(url, operation=operation, deadline=deadline)

    def prove(self, url: str, deadline: Deadline) -> bool:
        """Find out whether door and frontend speak of one file (2 requests, once).

        Parameters
        ----------
        url : `str`
            URL of anything that exists.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        proven : `bool`
            `False` also where it could not be found out; then nobody asks again for ten minutes.

        Raises
        ------
        ResourceNotFoundError
            Raised if the door says that there is no such thing.
        """
        if self.is_proven:
            return True
        if self._failed_at is not None and self._clock() - self._failed_at < _ASK_AGAIN_SECONDS:
            return False
        etag = self._door.propfind(url, 0, operation="look", deadline=deadline)[0].etag
        try:
            identifier = self._namespace.identifier(url, deadline=deadline)
        except CredentialError:
            raise
        except DcacheError as error:
            _log.warning("the frontend does not know what the door knows, so it is not used: %s", error)
            identifier = ""
        if identifier and etag.strip('"').partition("_")[0] == identifier:
            self.is_proven = True
        else:
            self._failed_at = self._clock()
            _log.warning("door and frontend do not speak of one file, so the frontend is not used: %s", url)
        return self.is_proven


def _is_ours(url: str) -> bool:
    return is_temporary(url.rstrip("/").rpartition("/")[2])
