"""The WLCG tape REST API, as dCache's frontend and XRootD speak it (protocol page, section 7.5).

Three things have to be known. ``archiveinfo`` answers for the first 10,000 paths only and does not say so,
merges duplicates and keeps no order, so that answers are looked up by path. A stage request is one of
dCache's bulk requests: 500 files at most, accepted before anybody has looked at them, and its files end each
for itself. A file whose recall the tape system refused stays ``STARTED`` for ever.

XRootD 6.2.1 has the same resources below ``/api/v1``, as its ``/.well-known/wlcg-tape-rest-api`` says; there
*release* removes the copy on disk at once, refuses paths that are not of the request, and an unknown request
is 404. Later releases take 48 files in a request: 413 means fewer, whoever says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ..errors import (
    AccessDeniedError,
    DcacheError,
    DoorUnavailableError,
    NearlineError,
    OutcomeUnknownError,
    ProtocolError,
    ResourceNotFoundError,
    ServerError,
    UnsupportedError,
)
from ..model import Locality
from ..transport.control import Answer
from ..transport.deadline import Deadline
from ..transport.failures import words
from .api import Api, document_of

__all__ = ("STAGE_LIMIT", "RecallState", "StageState", "TapeApi", "recall_error", "tape_path")

STAGE_LIMIT = 500
"""Files in one request (dCache ``bulk.limits.max.targets-per-flat-request``)."""

_ARCHIVE_INFO_PATHS = 1000
"""Paths in one question: 3 s of the server's time, far below the 10,000 at which it cuts."""

_QUESTION_ATTEMPTS = 3

_LOCALITIES = {
    "DISK": Locality.ONLINE,
    "TAPE": Locality.NEARLINE,
    "DISK_AND_TAPE": Locality.ONLINE_AND_NEARLINE,
    "UNAVAILABLE": Locality.UNAVAILABLE,
    "LOST": Locality.LOST,
    "NONE": Locality.NONE,
}


class RecallState(Enum):
    """What has become of one file of a stage request."""

    SUBMITTED = "SUBMITTED"
    STARTED = "STARTED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    COMPLETED = "COMPLETED"

    @property
    def is_final(self) -> bool:
        """Whether it will not change any more."""
        return self not in (RecallState.SUBMITTED, RecallState.STARTED)


@dataclass(frozen=True, slots=True)
class StageState:
    """One file of a stage request.

    Parameters
    ----------
    path : `str`
        Its path, to be compared with `tape_path` of a URL.
    state : `RecallState`
        What has become of it.
    error : `str`, optional
        The server's own words about a failure; empty if there are none.
    """

    path: str
    state: RecallState
    error: str = ""


def tape_path(url: str) -> str:
    """Return the path by which the tape API knows what a URL of the door names.

    Parameters
    ----------
    url : `str`
        A percent-encoded URL.

    Returns
    -------
    path : `str`
        Decoded, without repeated slashes and without one at its end.

    Raises
    ------
    UnsupportedError
        Raised if the name is not UTF-8, which JSON cannot carry, or has ``.`` or ``..`` for a part.
    """
    try:
        path = unquote(urlsplit(url).path, errors="strict")
    except UnicodeDecodeError as error:
        raise UnsupportedError("the tape API takes names in UTF-8 only", url=url) from error
    if not {".", ".."}.isdisjoint(path.split("/")):
        raise UnsupportedError("the server would take the dots in it for directories", url=url)
    return _normal(path)


class TapeApi:
    """Where files are, and how they come back from tape.

    Parameters
    ----------
    api : `Api`
        The tape API; its base is what the site's discovery document says, ``https://host:3880/api/v1/tape``
        on dCache.

    Notes
    -----
    Thread-safe. The same path under two URLs is asked for once.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    @property
    def base_url(self) -> str:
        """What all its URLs begin with."""
        return self._api.base_url

    def archive_info(self, urls: Sequence[str], *, deadline: Deadline) -> dict[str, Locality | DcacheError]:
        """Ask where files are (1 request per thousand).

        Parameters
        ----------
        urls : `~collections.abc.Sequence` [ `str` ]
            URLs of the door, any number.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        localities : `dict`
            For each URL the locality, or why there is none: `ResourceNotFoundError` where the server says so,
            `ProtocolError` where it says nothing.

        Raises
        ------
        UnsupportedError
            Raised if there is no tape API.
        DcacheError
            Raised by cause if the question itself fails.

        Notes
        -----
        ``ONLINE`` is no proof of good data: the ruin of a cut upload has it too (protocol page, section 7.5).
        """
        found: dict[str, Locality | DcacheError] = {}
        asked: dict[str, list[str]] = {}
        for url in urls:
            try:
                asked.setdefault(tape_path(url), []).append(url)
            except UnsupportedError as error:
                found[url] = error
        size = _ARCHIVE_INFO_PATHS
        paths = list(asked)
        while paths:
            try:
                rows = self._archive_rows(paths[:size], asked[paths[0]][0], deadline)
            except ProtocolError as error:
                if error.status != 413 or size == 1:
                    raise
                size = max(1, min(size, len(paths)) // 2)
                continue
            for path in paths[:size]:
                for url in asked[path]:
                    found[url] = _locality(url, rows.get(path))
            del paths[:size]
        return found

    def stage(self, urls: Sequence[str], *, lifetime_seconds: int, deadline: Deadline) -> str:
        """Ask for files on disk, and for how long they are to stay (1 request).

        Parameters
        ----------
        urls : `~collections.abc.Sequence` [ `str` ]
            URLs of the door, at most `STAGE_LIMIT`.
        lifetime_seconds : `int`
            How long the server shall keep each on disk once it is there.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        request : `str`
            The server's name for the request. That says nothing of the files yet.

        Raises
        ------
        ProtocolError
            Raised with status 413 if the site allows fewer files in a request.
        ServerBusyError
            Raised if this user has too many requests under way.
        OutcomeUnknownError
            Raised if the answer was lost. The request may be under way; a second one does no harm.
        UnsupportedError
            Raised if there is no tape API.
        """
        lifetime = _duration(lifetime_seconds)
        paths = dict.fromkeys(tape_path(url) for url in urls)
        wish = {"files": [{"path": path, "diskLifetime": lifetime} for path in paths]}
        answer = self._post("/stage", wish, "stage", urls[0], deadline)
        request = document_of(answer, dict, operation="stage", url=urls[0]).get("requestId")
        if not isinstance(request, str) or not request:
            raise ProtocolError("the answer names no request", operation="stage", url=urls[0])
        return request

    def state(self, request: str, *, deadline: Deadline) -> list[StageState]:
        """Ask what has become of the files of a request (1 request).

        Parameters
        ----------
        request : `str`
            From `stage`.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        files : `list` [ `StageState` ]
            In no particular order.

        Raises
        ------
        ResourceNotFoundError
            Raised if the server does not know the request (any more).
        """
        url = self._url(request)
        answer = self._ask("GET", self._path(request), operation="stage", url=url, deadline=deadline)
        rows = document_of(answer, dict, operation="stage", url=url).get("files")
        try:
            return [
                StageState(_normal(row["path"]), RecallState(row["state"]), str(row.get("error") or ""))
                for row in rows or ()
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ProtocolError(
                "the state of a file cannot be read", operation="stage", url=url, reason=str(error)
            ) from error

    def cancel(self, request: str, urls: Sequence[str], *, deadline: Deadline) -> None:
        """Give up what has not come yet (1 request per 500); what is on disk stays there.

        Parameters
        ----------
        request : `str`
            From `stage`.
        urls : `~collections.abc.Sequence` [ `str` ]
            Files of that request, and no others.
        deadline : `Deadline`
            When to give up.

        Raises
        ------
        ProtocolError
            Raised if one of the files is not of that request; then nothing was cancelled.
        ResourceNotFoundError
            Raised if the server does not know the request.
        """
        for some in _batches(urls):
            wish = {"paths": [tape_path(url) for url in some]}
            path = f"{self._path(request)}/cancel"
            answer = self._ask(
                "POST", path, operation="cancel", url=some[0], deadline=deadline, wish=wish, accept=(200, 400)
            )
            if answer.status == 400:
                # A page of HTML at dCache, with the text in a header of this name.
                reason = answer.headers.get("title") or words(answer, answer.body)
                raise ProtocolError(
                    "the server cancels none of these files",
                    operation="cancel",
                    url=some[0],
                    status=400,
                    reason=reason,
                )

    def release(self, request: str, urls: Sequence[str], *, deadline: Deadline) -> None:
        """Give up the right to have files on disk (1 request per 500).

        Parameters
        ----------
        request : `str`
            From `stage`.
        urls : `~collections.abc.Sequence` [ `str` ]
            Files of that request. dCache answers 200 for any.
        deadline : `Deadline`
            When to give up.
        """
        for some in _batches(urls):
            wish = {"paths": [tape_path(url) for url in some]}
            path = f"/release/{quote(request, safe='')}"
            self._ask("POST", path, operation="release", url=some[0], deadline=deadline, wish=wish)

    def delete(self, request: str, *, deadline: Deadline) -> None:
        """Cancel a request and have the server forget it (1 request); one that it does not know is no error.

        Parameters
        ----------
        request : `str`
            From `stage`.
        deadline : `Deadline`
            When to give up.
        """
        self._ask(
            "DELETE",
            self._path(request),
            operation="cancel",
            url=self._url(request),
            deadline=deadline,
            accept=(200, 204, 404),
        )

    def _path(self, request: str) -> str:
        return f"/stage/{quote(request, safe='')}"

    def _url(self, request: str) -> str:
        return self._api.base_url + self._path(request)

    def _archive_rows(
        self, paths: Sequence[str], url: str, deadline: Deadline
    ) -> dict[str, Mapping[str, Any]]:
        for attempts_left in reversed(range(_QUESTION_ATTEMPTS)):
            try:
                answer = self._post("/archiveinfo", {"paths": paths}, "locality", url, deadline)
                break
            except OutcomeUnknownError:
                # A POST by its method, but a question, which may be asked again.
                if not attempts_left:
                    raise
        rows = document_of(answer, list, operation="locality", url=url)
        return {_normal(str(row.get("path", ""))): row for row in rows if isinstance(row, Mapping)}

    def _post(self, path: str, wish: Any, operation: str, url: str, deadline: Deadline) -> Answer:
        accept = (200, 201, 404, 405, 501)
        answer = self._ask(
            "POST", path, operation=operation, url=url, deadline=deadline, wish=wish, accept=accept
        )
        if answer.status in (404, 405, 501):
            raise UnsupportedError(
                f"there is no tape API at {self._api.base_url}",
                operation=operation,
                url=url,
                status=answer.status,
                reason=words(answer, answer.body),
                hint="Set `frontend_url` of this endpoint, or ask the site whether it has tape.",
            )
        return answer

    def _ask(self, method: str, path: str, **details: Any) -> Answer:
        try:
            return self._api.ask(method, path, **details)
        except DoorUnavailableError as error:
            error.hint = error.hint or (
                f"Check that the tape API is at {self._api.base_url} (`frontend_url` of the endpoint, or "
                "what its door says), and that no firewall is in between."
            )
            raise


def _batches(urls: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(urls), STAGE_LIMIT):
        yield urls[start : start + STAGE_LIMIT]


def _normal(path: str) -> str:
    return re.sub("/{2,}", "/", path).rstrip("/") or "/"


def _duration(seconds: int) -> str:
    """Return an ISO 8601 duration."""
    if seconds <= 0:
        raise ValueError(f"not the time that a file can stay on disk: {seconds} s")
    days, rest = divmod(seconds, 86400)
    return f"P{days}D" if not rest else f"PT{seconds}S"


def _locality(url: str, row: Mapping[str, Any] | None) -> Locality | DcacheError:
    if row is None:
        return ProtocolError("the server does not say where the file is", operation="locality", url=url)
    said = str(row.get("error") or "")
    if said:
        return _cause(url, said)
    locality = _LOCALITIES.get(str(row.get("locality")))
    if locality is None:
        reason = str(row.get("locality"))
        return ProtocolError("this locality is unknown", operation="locality", url=url, reason=reason)
    return locality


def recall_error(url: str, said: str) -> DcacheError:
    """Return the error for a file that a stage request did not bring.

    Parameters
    ----------
    url : `str`
        URL of the file.
    said : `str`
        The server's own words, which may be none.
    """
    kind = _kind(url, said)
    if kind is ResourceNotFoundError:
        return kind("no such file or directory", operation="stage", url=url, reason=said)
    if kind is AccessDeniedError:
        return kind(
            "this identity may not stage the file",
            operation="stage",
            url=url,
            reason=said,
            hint="Ask the site to stage it, or use a credential with the STAGE right.",
        )
    return NearlineError("the server did not bring the file to disk", operation="stage", url=url, reason=said)


def _cause(url: str, said: str) -> DcacheError:
    kind = _kind(url, said)
    if kind is ResourceNotFoundError:
        message = "no such file or directory"
    elif kind is AccessDeniedError:
        message = "the server refuses to tell where the file is"
    else:
        message = "the server cannot tell where the file is"
    return kind(message, operation="locality", url=url, reason=said)


def _kind(url: str, said: str) -> type[DcacheError]:
    lower = said.replace(tape_path(url), "").lower()  # a name may hold any of these words
    if "no such file" in lower or "does not exist" in lower:
        return ResourceNotFoundError
    if "permission denied" in lower or "not allowed" in lower:
        return AccessDeniedError
    return ServerError
