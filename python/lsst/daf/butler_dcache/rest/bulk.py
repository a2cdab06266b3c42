"""Bulk requests of dCache's frontend: many targets, one activity (protocol page, section 7.6).

A request is accepted before anybody looks at its targets, is worked off later, and ends COMPLETED whether
they succeeded or not, so what counts is the state of each target. It stays with the server until it is
deleted, which is done here whatever happens: a forgotten one could remove a file that is written tomorrow.
For the same reason a request whose answer was lost is looked for among the server's before anybody repeats
it.

A few requests are open at a time, and one thread asks for all of them in turn.
"""

from __future__ import annotations

import copy
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ..errors import (
    AccessDeniedError,
    CredentialError,
    DcacheError,
    DeadlineError,
    DirectoryNotEmptyError,
    DoorUnavailableError,
    OutcomeUnknownError,
    ProtocolError,
    ResourceNotFoundError,
    ServerBusyError,
    ServerError,
    UnsupportedError,
)
from ..redaction import redact_url
from ..transport.control import Answer
from ..transport.deadline import Deadline
from .api import Api, document_of

__all__ = ("MOST_TARGETS", "BulkRequests", "target_of")

_log = logging.getLogger(__name__)

_Error = TypeVar("_Error", bound=DcacheError)

MOST_TARGETS = 500
"""Targets of one request, as dCache is shipped (``bulk.limits.max.targets-per-flat-request``)."""

_OPEN_AT_ONCE = 8
"""Requests; the server works on 2000 targets of everybody at a time."""

_FIRST_POLL_SECONDS = 0.1
_SLOWER = 1.25
"""Each wait to the one before: a request that has ended is noticed after a quarter of its time at most."""

_LONGEST_POLL_SECONDS = 5.0
_CLEARING_SECONDS = 10.0
_SUMMARIES = 10_000
"""Requests in one page of the server's list, the oldest ones first."""

_MOST_SKEW_SECONDS = 60.0
"""Between the clocks of a frontend and of the bulk service behind it."""

_PATH = "/bulk-requests"
_IDENTIFIER = re.compile(r"[0-9A-Za-z-]+")
_ENDED = ("COMPLETED", "CANCELLED")
_MAY_BE_TAKEN = (DeadlineError, OutcomeUnknownError, ProtocolError, ServerError)
_TIMED_OUT = "timed out"
"""In the text of a 400 that says nothing of the request: the bulk service did not answer the frontend in time
(``BulkServiceCommunicator.send``)."""

_TELLING = (CredentialError, DoorUnavailableError, ServerBusyError)
"""Refusals of a request that say as much of each of its targets; 403 and 404 speak of the resource."""

_CAUSES: tuple[tuple[str, str, type[DcacheError], str], ...] = (
    ("FileNotFoundCacheException", "No such file", ResourceNotFoundError, "no such file or directory"),
    ("PermissionDeniedCacheException", "Permission denied", AccessDeniedError, "the server refuses it"),
    ("", "Directory is not empty", DirectoryNotEmptyError, "a directory that holds something is not removed"),
)
"""Type of the error or a part of its text, and what it is here and says."""


def target_of(url: str) -> str | None:
    """Return the path by which a bulk request means a URL, `None` if there is none.

    Parameters
    ----------
    url : `str`
        URL of a door.

    Returns
    -------
    path : `str` or `None`
        Decoded and absolute. The frontend takes white space off the end of each target
        (``BulkResources.extractTarget``) and resolves dots, so that a name which ends or is written so would
        mean another file; and JSON has no bytes that are not UTF-8.
    """
    try:
        path = unquote(urlsplit(url).path, errors="strict").rstrip("/")
    except UnicodeDecodeError:
        return None
    names = path.split("/")[1:]
    # Python takes for white space what Java does, and more.
    if not names or path != path.strip() or any(name in ("", ".", "..") for name in names):
        return None
    return path


@dataclass
class _Request:
    """A part of the work, and the request that does it once it is accepted."""

    targets: dict[str, list[str]]
    """URLs by path: one file may be named in several spellings."""
    identifier: str = ""
    wait_seconds: float = _FIRST_POLL_SECONDS
    sent: float = 0.0
    due: float = 0.0
    """Seconds of the monotonic clock, as ``sent``."""
    states: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the server said last of each target."""

    @property
    def url(self) -> str:
        """One of its URLs, for messages."""
        return next(iter(self.targets.values()))[0]


class BulkRequests:
    """The ``/api/v1/bulk-requests`` resource of a frontend.

    Parameters
    ----------
    api : `Api`
        The frontend's ``/api/v1``.
    sleep : `~collections.abc.Callable`, optional
        Waits some seconds between two questions.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self, api: Api, sleep: Callable[[float], None] = time.sleep) -> None:
        self._api = api
        self._sleep = sleep
        self._most_targets = MOST_TARGETS
        self._root: str | None = None

    def namable(self, urls: Iterable[str], deadline: Deadline) -> list[str]:
        """Return the URLs that a bulk request can mean (1 request, once).

        Parameters
        ----------
        urls : `~collections.abc.Iterable` [ `str` ]
            URLs of a door.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        urls : `list` [ `str` ]
            Those with a `target_of` that does not begin with the root of the account: of such a one dCache
            thinks that it is complete already, and takes what follows for the path
            (``BulkRequestTarget.computeFsPath``).

        Raises
        ------
        DcacheError
            Raised by cause if the server does not tell the root.
        """
        if self._root is None:
            url, operation = self._api.base_url, "look for the root of the account"
            answer = self._api.ask("GET", "/user", operation=operation, url=url, deadline=deadline)
            user = document_of(answer, dict, operation=operation, url=url)
            self._root = str(user.get("rootDirectory") or "/").rstrip("/")
        root = self._root
        return [
            url
            for url in urls
            if (path := target_of(url)) is not None and not (root and f"{path}/".startswith(f"{root}/"))
        ]

    def run(
        self,
        activity: str,
        urls: Sequence[str],
        *,
        arguments: Mapping[str, Any] | None = None,
        deadline: Deadline,
    ) -> dict[str, DcacheError | None]:
        """Have something done to many files, and wait for the end.

        Parameters
        ----------
        activity : `str`
            ``DELETE``, ``PIN``, ``UNPIN`` and the like; directories are not expanded.
        urls : `~collections.abc.Sequence` [ `str` ]
            URLs of a door, any number.
        arguments : `~collections.abc.Mapping`, optional
            Arguments of the activity.
        deadline : `Deadline`
            When to give up; what is not done by then is cancelled.

        Returns
        -------
        results : `dict` [ `str`, `DcacheError` or `None` ]
            By URL, `None` where the server says that it was done. Beside what it says of single targets:
            `OutcomeUnknownError` where nobody knows, or the server gave up without saying why;
            `UnsupportedError` where the name is none for a bulk request, or the frontend takes none;
            `CredentialError`, `DoorUnavailableError` and `ServerBusyError` where that is what came of the
            request; `DeadlineError`.

        Notes
        -----
        1 POST and 1 DELETE for each 500 targets, and questions between them, 0.1 s apart at first and at
        most 5 s later on. After a POST that was refused there is no other. The requests are deleted also when
        an exception such as `KeyboardInterrupt` passes.
        """
        work = _Work(self._api, self._sleep, activity, arguments, deadline, self._most_targets)
        try:
            try:
                namable = self.namable(urls, deadline)
            except DcacheError as error:
                return {url: _about(error, url) for url in urls}
            work.do(urls, set(namable))
        finally:
            self._most_targets = min(self._most_targets, work.most_targets)
        return {url: work.results[url] for url in urls}


class _Work:
    """One call of `BulkRequests.run`."""

    def __init__(
        self,
        api: Api,
        sleep: Callable[[float], None],
        activity: str,
        arguments: Mapping[str, Any] | None,
        deadline: Deadline,
        most_targets: int,
    ) -> None:
        self._api = api
        self._sleep = sleep
        self._activity = activity
        self._operation = activity.lower()
        self._arguments = arguments
        self._deadline = deadline
        self._waiting: deque[_Request] = deque()
        self._open: list[_Request] = []
        self._sending: _Request | None = None
        self.most_targets = most_targets
        self.results: dict[str, DcacheError | None] = {}

    def do(self, urls: Iterable[str], namable: Container[str]) -> None:
        """Work until there is a result for each URL."""
        targets: dict[str, list[str]] = {}
        for url in urls:
            path = target_of(url)
            if path is None or url not in namable:
                self.results[url] = self._error(UnsupportedError, "no bulk request can name it", url)
            else:
                targets.setdefault(path, []).append(url)
        self._waiting.extend(_parts(targets, self.most_targets))
        try:
            while self._waiting or self._open:
                while self._waiting and len(self._open) < _OPEN_AT_ONCE:
                    self._deadline.remaining()
                    self._submit(self._waiting.popleft())
                if self._open:
                    self._follow(min(self._open, key=lambda one: one.due))
        except DeadlineError as error:
            for request in [*self._open, *self._waiting]:
                self._settle(request, partial(_about, error))
        finally:
            deadline = Deadline(_CLEARING_SECONDS)
            if self._sending is not None:
                # Whoever interrupted us did so while the server took it, or before.
                self._sending.identifier = self._find(self._sending, deadline)
                self._open.append(self._sending)
            for request in self._open:
                self._clear(request, deadline)

    def _submit(self, request: _Request) -> None:
        """Hand a request over; if that is refused, no other will be."""
        wish: dict[str, Any] = {
            "activity": self._activity,
            "target": list(request.targets),
            "expandDirectories": "NONE",
        }
        if self._arguments is not None:
            wish["arguments"] = dict(self._arguments)
        self._sending = request
        request.sent = time.monotonic()
        try:
            answer = self._ask("POST", _PATH, request.url, wish=wish, accept=(201, 413))
            if answer.status == 413:
                self._divide(request)
            else:
                request.identifier = _identifier(answer.headers.get("request-url", ""))
                if not request.identifier:
                    raise self._error(
                        ProtocolError, "the server took a request and did not name it", request.url
                    )
        except DcacheError as error:
            if _may_be_taken(error):
                request.identifier = self._find(request, self._deadline)
                if not request.identifier:
                    self._lose(request, "nobody knows whether the server took the request", error)
                    self._refuse([], error)
            else:
                self._refuse([request], error)
        self._sending = None
        if request.identifier:
            request.due = time.monotonic() + request.wait_seconds
            self._open.append(request)

    def _divide(self, request: _Request) -> None:
        """Make smaller requests of one that is too large for this site."""
        size = len(request.targets)
        if size == 1:
            error = self._error(UnsupportedError, "a single target is too much for it", request.url)
            self._refuse([request], error)
            return
        self.most_targets = min(self.most_targets, size // 2)
        _log.info("a bulk request of %d targets is too large for the server", size)
        rest = [request, *self._waiting]
        self._waiting.clear()
        for one in rest:
            self._waiting.extend(_parts(one.targets, self.most_targets))

    def _refuse(self, requests: list[_Request], error: DcacheError) -> None:
        """Note that neither these requests nor those that wait were taken."""
        if not isinstance(error, _TELLING):
            text = f"the frontend takes no bulk requests: {error}"
            error = self._error(UnsupportedError, text, error.url)
        for request in [*requests, *self._waiting]:
            self._settle(request, partial(_about, error))
        self._waiting.clear()

    def _find(self, request: _Request, deadline: Deadline) -> str:
        """Return the identifier of a request whose answer was lost, empty if the server has none like it."""
        try:
            identifiers, now = self._newest(request, deadline)
            # Somebody who was killed may have left the same request earlier, which says nothing of today.
            earliest = now - (time.monotonic() - request.sent) - _MOST_SKEW_SECONDS
            for identifier in identifiers:
                try:
                    document, states = self._read(identifier, request, deadline)
                except (AccessDeniedError, ResourceNotFoundError):
                    continue  # somebody else's, or cleared meanwhile
                arrived = document.get("arrivedAt")
                if not isinstance(arrived, int) or arrived / 1000 < earliest:
                    break
                if states.keys() == request.targets.keys():
                    return identifier
        except DcacheError as error:
            _log.warning("a bulk request whose answer was lost cannot be looked for: %s", error)
        return ""

    def _newest(self, request: _Request, deadline: Deadline) -> tuple[list[str], float]:
        """Return all requests of our activity, the newest ones first, and the time at the server.

        The server could be asked for those of one path, but looks that up: of a file that the request has
        removed it knows none (``JdbcBulkRequestStore.getPnfsidFor``).
        """
        identifiers: list[str] = []
        offset = 0
        while True:
            query = {"offset": offset} if offset else None
            answer = self._ask("GET", _PATH, request.url, query=query, deadline=deadline)
            page = document_of(answer, list, operation=self._operation, url=request.url)
            rows = [row for row in page if isinstance(row, Mapping)]
            identifiers += (
                _identifier(str(row.get("url", "")))
                for row in rows
                if str(row.get("activity", "")).upper() == self._activity
            )
            following = 1 + max((row["id"] for row in rows if isinstance(row.get("id"), int)), default=0)
            if len(page) < _SUMMARIES or following <= offset:
                return [one for one in reversed(identifiers) if one], _clock_of(answer)
            offset = following

    def _follow(self, request: _Request) -> None:
        """Wait until it is time, and ask how far a request is."""
        pause = request.due - time.monotonic()
        if pause > 0:
            self._sleep(self._deadline.limit(pause))
        self._deadline.remaining()
        try:
            document, request.states = self._read(request.identifier, request, self._deadline)
        except DcacheError as error:
            self._deadline.remaining()
            if isinstance(error, CredentialError):
                self._settle(request, partial(_about, error))
            elif isinstance(error, ResourceNotFoundError):
                request.identifier = ""  # there is nothing to be deleted
                self._lose(request, "the server has forgotten the request", error)
            else:
                self._lose(request, "the server does not say what became of the request", error)
        else:
            if document.get("status") not in _ENDED:
                request.wait_seconds = min(request.wait_seconds * _SLOWER, _LONGEST_POLL_SECONDS)
                request.due = time.monotonic() + request.wait_seconds
                return
            for path, urls in request.targets.items():
                row = request.states.get(path, {})
                self.results.update((url, self._result(row, url)) for url in urls)
        self._open.remove(request)
        self._clear(request, Deadline(_CLEARING_SECONDS))

    def _read(
        self, identifier: str, request: _Request, deadline: Deadline
    ) -> tuple[Mapping[str, Any], dict[str, Mapping[str, Any]]]:
        """Return what is said of a request, and of all its targets once it has ended."""
        states: dict[str, Mapping[str, Any]] = {}
        offset = 0
        while True:
            query = {"offset": offset} if offset else None
            answer = self._ask("GET", f"{_PATH}/{identifier}", request.url, query=query, deadline=deadline)
            document = document_of(answer, dict, operation=self._operation, url=request.url)
            for row in document.get("targets") or ():
                if isinstance(row, Mapping):
                    states[str(row.get("target"))] = row
            following = document.get("nextId", -1)
            if following == -1 or document.get("status") not in _ENDED:
                return document, states
            if not isinstance(following, int) or following <= offset:
                raise self._error(ProtocolError, "the pages of targets do not go on", request.url)
            offset = following

    def _result(self, row: Mapping[str, Any], url: str) -> DcacheError | None:
        """Return what the state of a target means."""
        state = str(row.get("state", "")) or "nothing"
        if state == "COMPLETED":
            return None
        reason = str(row.get("errorMessage") or "")
        if state != "FAILED":
            # What was being done when the server gave up may be done.
            text = f"the server says {state} of it and nothing else"
            return self._error(OutcomeUnknownError, text, url, reason=reason)
        kind = str(row.get("errorType") or "")
        said = reason.replace(str(row.get("target")), "")  # which may be called anything
        for name, part, error, text in _CAUSES:
            if (name and kind.endswith(name)) or part in said:
                return self._error(error, text, url, reason=reason)
        return self._error(ServerError, "the server failed", url, reason=reason or kind)

    def _clear(self, request: _Request, deadline: Deadline) -> None:
        """Have the server forget a request, and give up what is left of it."""
        if not request.identifier:
            return
        try:
            self._ask(
                "DELETE",
                f"{_PATH}/{request.identifier}",
                request.url,
                query={"cancelIfRunning": "true"},
                accept=(200, 204, 404),
                deadline=deadline,
            )
        except DcacheError as error:
            _log.warning("the bulk request %s stays with the server: %s", request.identifier, error)

    def _lose(self, request: _Request, text: str, cause: DcacheError) -> None:
        def lost(url: str) -> DcacheError:
            error = self._error(OutcomeUnknownError, f"{text}: {cause}", url)
            error.__cause__ = cause
            return error

        self._settle(request, lost)

    def _settle(self, request: _Request, result: Callable[[str], DcacheError]) -> None:
        """Note an error for each target but those that the server once called done."""
        for path, urls in request.targets.items():
            done = request.states.get(path, {}).get("state") == "COMPLETED"
            self.results.update((url, None if done else result(url)) for url in urls)

    def _ask(
        self,
        method: str,
        path: str,
        url: str,
        *,
        query: Mapping[str, str | int] | None = None,
        wish: Any = None,
        accept: Container[int] = (200,),
        deadline: Deadline | None = None,
    ) -> Answer:
        return self._api.ask(
            method,
            path,
            operation=self._operation,
            url=url,
            deadline=deadline or self._deadline,
            query=query,
            wish=wish,
            accept=accept,
        )

    def _error(self, kind: type[_Error], text: str, url: str, reason: str = "") -> _Error:
        return kind(
            text,
            operation=self._operation,
            url=url,
            reason=reason,
            elapsed_seconds=self._deadline.elapsed,
        )


def _about(error: DcacheError, url: str) -> DcacheError:
    """Return an error of one file for an error of all."""
    copied = copy.copy(error)
    copied.url = redact_url(url)
    return copied


def _may_be_taken(error: DcacheError) -> bool:
    """Tell whether the server may have a request in spite of its error."""
    if error.status == 400 and _TIMED_OUT in error.reason:
        return True
    return isinstance(error, _MAY_BE_TAKEN) and (error.status or 500) not in range(400, 500)


def _parts(targets: Mapping[str, list[str]], size: int) -> list[_Request]:
    items = list(targets.items())
    return [_Request(dict(items[start : start + size])) for start in range(0, len(items), size)]


def _identifier(url: str) -> str:
    """Return the last part of a URL, which is all that is believed of it, empty if it is no identifier."""
    name = urlsplit(url).path.rpartition("/")[2]
    return name if _IDENTIFIER.fullmatch(name) else ""


def _clock_of(answer: Answer) -> float:
    """Return the time at the server, seconds since the epoch; far ahead if it does not say."""
    try:
        return parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
    except ValueError:
        return float("inf")
