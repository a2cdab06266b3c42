"""The frontend, for names of which it is proven that it means the same files by them as the door.

Door and frontend are servers of their own, each with a root of its own (``webdav.root``, ``frontend.root``),
so that one path may name two files. What is done to a file that somebody named, its removal above all, goes
to the frontend only after the two were seen to speak of one file: by a rename of a temporary name, which is
found nowhere else, or by the identifier of an entry, which the door's entity tag begins with (protocol page,
section 1.9).

A frontend that no configuration names is found through the door, once, when something wants it that only a
frontend can do. What a single file costs does not depend on whether that has happened: renames and removals
of single files go to a frontend that was found only once it is proven.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ..errors import DcacheError, DeadlineError, DoorUnavailableError, ServerError, UnsupportedError
from ..rest.api import Api
from ..rest.bulk import BulkRequests
from ..rest.discovery import TapeEndpoint, find_tape_endpoint
from ..rest.listing import ChildListing
from ..rest.namespace import Namespace
from ..transport.control import ControlPlane
from ..transport.data import DataPlane
from ..transport.deadline import Deadline
from ..transport.pacing import pacer_for
from ..webdav.addresses import is_temporary
from ..webdav.door import Door

__all__ = ("Frontend", "Frontends")

_log = logging.getLogger(__name__)

_ASK_AGAIN_SECONDS = 600.0
_AWAY_SECONDS = 60.0
"""How long nobody tries again what a frontend that is down would do better than the door."""

_LONGEST_QUESTION_SECONDS = 10.0
_SHORT_QUESTION_SECONDS = 2.0
"""For what somebody waits for who could be told at once otherwise."""


class Frontend:
    """The frontend of an endpoint.

    Parameters
    ----------
    door : `Door`
        The endpoint's doors.
    api : `Api`
        Its ``/api/v1``.
    listing : `ChildListing`
        How it lists directories.
    clock : `~collections.abc.Callable`, optional
        Monotonic time in seconds.
    """

    def __init__(
        self, door: Door, api: Api, listing: ChildListing, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.api = api
        self.listing = listing
        self.bulk = BulkRequests(api)
        self._door = door
        self._namespace = Namespace(api)
        self._clock = clock
        self._failed_at: float | None = None
        self._away_until = 0.0
        self.is_proven = False
        """Whether door and frontend were seen to speak of one file."""
        self.doubt = ""
        """Why they were not, where `prove` has tried."""

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

    def may_move(self, source: str, target: str, deadline: Deadline) -> bool:
        """Tell whether the frontend can be trusted with a rename.

        Parameters
        ----------
        source : `str`
            URL of what is renamed. A temporary name can do no harm: nothing else has it.
        target : `str`
            URL that it gets. JSON has no bytes that are not UTF-8: those would become another name.
        deadline : `Deadline`
            When to give up.
        """
        try:
            unquote(urlsplit(target).path, errors="strict")
        except UnicodeDecodeError:
            return False
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

    def has_disk_copy(self, url: str, deadline: Deadline) -> bool:
        """Tell whether any pool holds a file, be it one that no client may read from (1 request).

        Parameters
        ----------
        url : `str`
            URL of the door.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        known : `bool`
            `False` also where it could not be found out.
        """
        if self.is_away:
            return False
        try:
            return bool(
                self._namespace.locations(url, deadline=Deadline(deadline.limit(_SHORT_QUESTION_SECONDS)))
            )
        except (DoorUnavailableError, DeadlineError, ServerError) as error:
            self.leave(error)
        except DcacheError as error:
            _log.debug("the frontend does not tell which pools hold a file: %s", error)
        return False

    @property
    def is_away(self) -> bool:
        """Whether it did not serve a moment ago, see `leave`."""
        return self._clock() < self._away_until

    def leave(self, error: DcacheError) -> None:
        """Note that it does not serve, so that for a minute the door is asked alone.

        Parameters
        ----------
        error : `DcacheError`
            Why.
        """
        if not self.is_away:
            _log.warning(
                "the frontend does not serve, so that the door is asked alone for a minute: %s", error
            )
        self._away_until = self._clock() + _AWAY_SECONDS

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
        etag = self._door.propfind(url, operation="look", deadline=deadline).etag
        try:
            # One that accepts and never answers must not keep waiting whom the door would serve.
            share = Deadline(deadline.limit(_LONGEST_QUESTION_SECONDS))
            identifier = self._namespace.identifier(url, deadline=share)
        except DcacheError as error:
            # A 401 as well: the door has just accepted the same credential.
            _log.warning("the frontend does not know what the door knows, so it is not used: %s", error)
            identifier, self.doubt = "", str(error)
        if identifier and etag.strip('"').partition("_")[0] == identifier:
            self.is_proven, self.doubt = True, ""
        else:
            self._failed_at = self._clock()
            self.doubt = self.doubt or "by this name the frontend knows another file than the door"
            _log.warning("door and frontend do not speak of one file, so the frontend is not used: %s", url)
        return self.is_proven


def _is_ours(url: str) -> bool:
    return is_temporary(url.rstrip("/").rpartition("/")[2])


class Frontends:
    """The frontend of an endpoint, as far as it is known, and its tape API.

    Parameters
    ----------
    door : `Door`
        The endpoint's doors, with its settings.
    clock : `~collections.abc.Callable`, optional
        Monotonic time in seconds.

    Notes
    -----
    Thread-safe. The door is asked at most once, and after a failure not for ten minutes.
    """

    def __init__(self, door: Door, clock: Callable[[], float] = time.monotonic) -> None:
        self._door = door
        self._clock = clock
        self._lock = threading.Lock()
        url = door.settings.frontend_url
        self._is_configured = url is not None
        self._found = None if url is None else self._at(TapeEndpoint(f"{url}api/v1/tape", url))

    @property
    def for_single_files(self) -> Frontend | None:
        """The one that is configured, or that was found and is proven; nobody is asked for it."""
        frontend = None if self._found is None else self._found.frontend
        return frontend if frontend is not None and (self._is_configured or frontend.is_proven) else None

    @property
    def why(self) -> str:
        """Why none is known, if the door was asked in vain."""
        return "" if self._found is None else self._found.why

    def get(self, deadline: Deadline) -> Frontend | None:
        """Return the frontend, `None` if there is none; to be proven before it is trusted with a name.

        Parameters
        ----------
        deadline : `Deadline`
            When to give up looking for it.
        """
        return self._find(deadline).frontend

    def tape(self, deadline: Deadline) -> Api:
        """Return the tape API, of the configured frontend or as the door tells.

        Parameters
        ----------
        deadline : `Deadline`
            When to give up looking for it.

        Raises
        ------
        UnsupportedError
            Raised if there is none, or none that is known; its text says why.
        """
        found = self._find(deadline)
        if found.tape is None:
            raise UnsupportedError(
                f"no tape API is known: {found.why}",
                operation="look for the tape API",
                url=self._door.settings.base_url,
                hint="Set `frontend_url` under `dcache:` of this endpoint, if the site has one.",
            )
        return found.tape

    def after_fork(self) -> None:
        """Make what a forked child must not share its own."""
        self._lock = threading.Lock()

    def _find(self, deadline: Deadline) -> _Found:
        if not self._lock.acquire(timeout=deadline.limit(_LONGEST_QUESTION_SECONDS)):
            raise DeadlineError("another thread looks for the frontend", url=self._door.settings.base_url)
        try:
            if self._found is None or self._found.is_stale(self._clock()):
                self._found = self._ask(deadline)
            return self._found
        finally:
            self._lock.release()

    def _ask(self, deadline: Deadline) -> _Found:
        """Ask the door; no operation fails because of this question."""
        settings = self._door.settings
        if not settings.discover_frontend:
            return _Found(why="`discover_frontend` is false")
        base_url = self._door.place(settings.base_url)
        try:
            endpoint = find_tape_endpoint(
                base_url,
                self._door.control,
                Deadline(deadline.limit(_LONGEST_QUESTION_SECONDS)),
                is_dcache=self._door.dialect == "dcache",
            )
        except UnsupportedError as error:
            _log.info("no frontend is known, so there is no staging, and requests are single ones: %s", error)
            return _Found(why=str(error))
        except DcacheError as error:
            _log.warning(
                "looking for the frontend failed, so for ten minutes there is no staging, and requests are "
                "single ones: %s",
                error,
            )
            return _Found(why=str(error), until=self._clock() + _ASK_AGAIN_SECONDS)
        return self._at(endpoint)

    def _at(self, endpoint: TapeEndpoint) -> _Found:
        """Prepare to ask a server: one that may see our credential, and has a limiter of its own."""
        settings = dataclasses.replace(self._door.settings, frontend_url=endpoint.api_base)
        pacer = pacer_for(settings, endpoint.api_base)
        control = ControlPlane(settings, self._door.credentials, pacer)
        base = endpoint.frontend_base
        if base is None:
            return _Found(None, Api(endpoint.api_base, control))
        api = Api(f"{base}api/v1", control)
        listing = ChildListing(
            api.base_url, DataPlane(settings, self._door.credentials, pacer), settings.listing_page_entries
        )
        return _Found(Frontend(self._door, api, listing, self._clock), Api(endpoint.api_base, control))


class _Found(NamedTuple):
    """What the door told.

    Parameters
    ----------
    frontend : `Frontend` or `None`
        The frontend.
    tape : `Api` or `None`
        The tape API.
    why : `str`
        Why there is none.
    until : `float` or `None`
        When to ask again, if ever.
    """

    frontend: Frontend | None = None
    tape: Api | None = None
    why: str = ""
    until: float | None = None

    def is_stale(self, now: float) -> bool:
        """Tell whether to ask again."""
        return self.until is not None and now >= self.until
