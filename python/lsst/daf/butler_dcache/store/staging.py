"""Campaigns that bring many files from tape to disk.

The files go to the server 500 to a request, a bounded number of files at a time, and one thread asks for each
request in turn, ever more rarely: 20 requests for 10,000 files, and no question before them. A file that is
on disk already costs nothing more: the server pins it and is done.

What a request says of a file is believed when it is good. When it is not, the place where the file is decides
(one question for all of them): the server fails a file that is on disk only with ``Cannot stage DISK only
files``, and goes on saying ``STARTED`` of a file that its tape system has refused. Requests are not deleted
when they have ended: their pins are what keeps the files on disk.

A server that has answered is waited for as long as the campaign lasts. One that never has is not: its address
may be wrong.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from ..errors import (
    AccessDeniedError,
    ConfigurationError,
    CredentialError,
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    NearlineError,
    OutcomeUnknownError,
    ProtocolError,
    ResourceIsDirectoryError,
    ResourceNotFoundError,
    ServerBusyError,
    UnsupportedError,
)
from ..model import ON_DISK, Locality
from ..rest.tape import STAGE_LIMIT, RecallState, StageState, TapeApi, recall_error
from ..transport.deadline import Deadline
from .stage_journal import StageJournal
from .stage_ledger import StageLedger, StagePart
from .stage_progress import FileChange, FileState, StageReport

__all__ = ("FILES_UNDER_WAY", "StageCampaign")

_log = logging.getLogger(__name__)

FILES_UNDER_WAY = 20 * STAGE_LIMIT
"""Files that are asked for at a time; what has come makes room."""

_MOST_REQUESTS = 4000
"""Requests under way; dCache refuses a user the 5001st (protocol page, section 7.6)."""

_FIRST_POLL_SECONDS = 1.0
_LONGEST_POLL_SECONDS = 60.0
_MOST_SETBACKS = 8
_MOST_LOSSES = 3
_LAST_QUESTION_SECONDS = 60.0


class StageCampaign:
    """Many files, on their way from tape to disk.

    Parameters
    ----------
    api : `TapeApi`
        The site's tape API.
    urls : `~collections.abc.Iterable` [ `str` ]
        The files, read once and as far as there is room; in the same order each time if there is a journal.
    files : `int`
        How many there are.
    lifetime_seconds : `int`
        How long each file stays on disk once it is there.
    deadline : `Deadline`
        When to stop waiting. Requests go on without us.
    request_seconds : `float`
        Longest time for a single request of ours.
    journal : `StageJournal`, optional
        Where it is kept what has been asked for; without one a campaign ends with its process.
    on_change : `~collections.abc.Callable`, optional
        Called with a `FileChange` whenever a file comes further.
    on_setback : `~collections.abc.Callable`, optional
        Called with what is waited out, once for each kind of error until the server serves again. It is
        logged if nobody wants to know.
    files_under_way : `int`, optional
        Files that are asked for at a time.
    clock, sleep : `~collections.abc.Callable`, optional
        Monotonic time in seconds, and waiting.

    Notes
    -----
    For one thread. Its memory is that of the files under way, however long the list is.
    """

    def __init__(
        self,
        api: TapeApi,
        urls: Iterable[str],
        files: int,
        *,
        lifetime_seconds: int,
        deadline: Deadline,
        request_seconds: float,
        journal: StageJournal | None = None,
        on_change: Callable[[FileChange], object] | None = None,
        on_setback: Callable[[DcacheError], object] | None = None,
        files_under_way: int = FILES_UNDER_WAY,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._files = files
        self._lifetime_seconds = lifetime_seconds
        self._deadline = deadline
        self._request_seconds = request_seconds
        self._journal = journal
        self._on_setback = on_setback or _log_setback
        self._files_under_way = files_under_way
        self._clock = clock
        self._sleep = sleep
        self._limit = STAGE_LIMIT
        self._ledger = StageLedger(files, journal, on_change)
        self._parts = self._ledger.parts(urls, lambda: self._limit)
        self._open: set[StagePart] = set()
        self._agenda: list[tuple[float, int, StagePart]] = []
        self._numbers = itertools.count()
        self._stopped: DcacheError | None = None
        self._in_doubt = 0
        self._has_answered = False
        self._told: set[type[DcacheError]] = set()

    @property
    def report(self) -> StageReport:
        """Where it stands."""
        return StageReport(self._files, Counter(self._ledger.counts), self._stopped)

    def run(self, *, wait: bool = True) -> StageReport:
        """Ask for the files, and wait for them.

        Parameters
        ----------
        wait : `bool`, optional
            `False` returns when all files are asked for.

        Returns
        -------
        report : `StageReport`
            How it ended; the single files were told to ``on_change``.

        Raises
        ------
        UnsupportedError
            Raised if the site has no tape API.

        Notes
        -----
        Whatever ends it, an exception included, the same list with the same journal goes on from there.
        """
        try:
            self._work(wait)
            if wait:
                self._look_after_overdue()
        except (CredentialError, DeadlineError, DoorUnavailableError) as error:
            self._stopped = error
        is_left = bool(self._open)
        for _ in self._parts:  # what has ended before counts, although nobody gets to ask for the rest
            is_left = True
        if is_left and wait and self._stopped is None:
            self._stopped = DeadlineError(
                f"not all files came within {self._deadline.seconds:g} s", operation="stage"
            )
        if self._journal is not None and not is_left:
            self._journal.done()
        return self.report

    def cancel(self) -> list[DcacheError]:
        """Cancel what is under way, and have the server forget it (2 requests for each of its requests).

        Returns
        -------
        errors : `list` [ `DcacheError` ]
            Why a request may still be under way.
        """
        errors: list[DcacheError] = []
        if self._in_doubt:
            errors.append(
                OutcomeUnknownError(
                    f"no answer came to {self._in_doubt} requests, which may be under way", operation="cancel"
                )
            )
        # With those of an earlier process, for which there was no room yet.
        for part in itertools.chain(list(self._open), self._parts):
            if not part.request:
                continue
            deadline = Deadline(self._request_seconds)
            try:
                try:
                    self._api.cancel(part.request, part.urls, deadline=deadline)
                except (ProtocolError, ResourceNotFoundError) as error:
                    _log.info(
                        "the files of %s are not cancelled, the request as such is: %s", part.request, error
                    )
                self._api.delete(part.request, deadline=deadline)
            except DcacheError as error:
                errors.append(error)
                if isinstance(error, CredentialError):
                    break
                continue
            for file in part.pending.values():
                self._ledger.move(file, FileState.CANCELLED)
            self._open.discard(part)
            if self._journal is not None:
                self._journal.given_up(part.start)
        return errors

    # What is to be done

    def _work(self, wait: bool) -> None:
        """Go on until nothing is left to do, or the deadline has passed."""
        is_exhausted = False
        while True:
            while not is_exhausted and self._has_room(wait) and not self._deadline.expired:
                part = next(self._parts, None)
                if part is None:
                    is_exhausted = True
                else:
                    self._open.add(part)
                    self._put(part, 0.0)
            if not self._agenda:
                return
            if not wait and all(part.request for part in self._open):
                return
            due, _, part = self._agenda[0]
            pause = due - self._clock()
            if self._deadline.left <= max(pause, 0.0):
                if self._deadline.left > 0:
                    self._sleep(self._deadline.left)
                return
            if pause > 0:
                self._sleep(pause)
            heapq.heappop(self._agenda)
            self._advance(part)

    def _has_room(self, wait: bool) -> bool:
        if len(self._open) >= _MOST_REQUESTS:
            return False
        return not wait or sum(len(part.pending) for part in self._open) < self._files_under_way

    def _put(self, part: StagePart, seconds: float) -> None:
        heapq.heappush(self._agenda, (self._clock() + seconds, next(self._numbers), part))

    def _advance(self, part: StagePart) -> None:
        try:
            if part.request:
                self._poll(part)
            else:
                self._post(part)
            self._has_answered = True
            self._told.clear()
        except (ConfigurationError, CredentialError, UnsupportedError):
            self._put(part, 0.0)
            raise
        except DcacheError as error:
            self._has_answered = self._has_answered or error.status is not None
            if not self._has_answered and isinstance(error, DeadlineError | DoorUnavailableError):
                self._put(part, 0.0)
                raise
            self._set_back(part, error)

    def _set_back(self, part: StagePart, error: DcacheError) -> None:
        """Try again later, for as long as that can do no harm."""
        part.setbacks += 1
        if type(error) in self._told:
            _log.info("staging goes on in spite of: %s", error)
        else:
            self._told.add(type(error))
            self._on_setback(error)
        may_have_been_taken = not isinstance(error, DoorUnavailableError | ServerBusyError)
        if not part.request and may_have_been_taken and part.setbacks > _MOST_SETBACKS:
            # Each attempt may have left a request with the server.
            self._fail_all(part, error)
            return
        self._later(part)

    def _later(self, part: StagePart) -> None:
        part.wait_seconds = min(max(part.wait_seconds * 2, _FIRST_POLL_SECONDS), _LONGEST_POLL_SECONDS)
        self._put(part, part.wait_seconds)

    # Requests

    def _post(self, part: StagePart) -> None:
        if len(part.pending) > self._limit:
            self._split(part)
            return
        if self._journal is not None:
            self._journal.posting(part.start, part.stop)
        self._in_doubt += 1
        try:
            request = self._api.stage(
                part.urls, lifetime_seconds=self._lifetime_seconds, deadline=self._moment()
            )
        except DcacheError as error:
            if isinstance(error, AccessDeniedError | ServerBusyError) or error.status in (400, 413):
                self._in_doubt -= 1
            if error.status == 413 and len(part.pending) > 1:
                self._limit = max(1, len(part.pending) // 2)
                _log.info("the site takes fewer files in a request; trying %d", self._limit)
                self._split(part)
            elif error.status in (400, 413) or type(error) is AccessDeniedError:
                self._fail_all(part, error)
            else:
                raise
            return
        self._in_doubt -= 1
        if self._journal is not None:
            paths = (file.path for file in part.pending.values())
            self._journal.accepted(request, part.start, part.stop, paths)
        part.request = request
        part.setbacks, part.wait_seconds = 0, 0.0
        for file in part.pending.values():
            self._ledger.move(file, FileState.SUBMITTED)
        self._later(part)

    def _split(self, part: StagePart) -> None:
        """Put parts on the agenda that are small enough, in the place of one that is not."""
        self._open.discard(part)
        for piece in part.pieces(self._limit):
            self._open.add(piece)
            self._put(piece, 0.0)

    def _poll(self, part: StagePart) -> None:
        try:
            rows = {row.path: row for row in self._api.state(part.request, deadline=self._moment())}
        except CredentialError:
            raise
        except (AccessDeniedError, ResourceNotFoundError) as error:
            self._lost(part, error)  # or it belongs to somebody else, as whom it was asked for before
            return
        is_over = bool(rows) and all(row.state.is_final for row in rows.values())
        unsure: dict[int, StageState | None] = {}
        for position, file in list(part.pending.items()):
            row = rows.get(file.path)
            if row is None:
                # Targets appear after the request has been accepted.
                if is_over:
                    unsure[position] = None
            elif row.state is RecallState.COMPLETED:
                self._ledger.finish(part, position, FileState.STAGED)
            elif row.state.is_final:
                failure = recall_error(file.url, row.error)
                if isinstance(failure, ResourceNotFoundError):
                    self._ledger.finish(part, position, FileState.FAILED, failure)
                else:
                    unsure[position] = row
            else:
                self._ledger.move(file, FileState[row.state.name])
        if unsure:
            self._settle(part, unsure)
        part.setbacks = 0
        if part.pending:
            self._later(part)
        else:
            self._end(part)

    def _settle(self, part: StagePart, unsure: Mapping[int, StageState | None]) -> None:
        """Look where files are that their request did not bring."""
        where = self._where(part, unsure, self._moment())
        for position, row in unsure.items():
            url = part.pending[position].url
            verdict = where[position]
            if isinstance(verdict, DcacheError):
                self._ledger.finish(part, position, FileState.FAILED, verdict)
            elif verdict in ON_DISK:
                note = "the server does not say how it came" if row is None else row.error
                self._ledger.finish(part, position, FileState.STAGED, note=note or "it is on disk")
            elif row is None:
                missing = ProtocolError(
                    "the server does not say what became of it", operation="stage", url=url
                )
                self._ledger.finish(part, position, FileState.FAILED, missing)
            else:
                state = FileState.CANCELLED if row.state is RecallState.CANCELLED else FileState.FAILED
                failure = recall_error(url, row.error or row.state.name.lower())
                if isinstance(failure, NearlineError):
                    failure.locality = verdict.value
                    failure.hint = f"It is {verdict.value}."
                self._ledger.finish(part, position, state, failure)

    def _lost(self, part: StagePart, error: DcacheError) -> None:
        """Ask again for what a request that the server has forgotten did not bring."""
        _log.warning(
            "the server has forgotten a request, what it has not brought is asked for again: %s", error
        )
        for position, verdict in self._where(part, list(part.pending), self._moment()).items():
            if isinstance(verdict, DcacheError):
                self._ledger.finish(part, position, FileState.FAILED, verdict)
            elif verdict in ON_DISK:
                note = "on disk, but for how long is unknown: the server has forgotten the request"
                self._ledger.finish(part, position, FileState.STAGED, note=note)
        part.request = ""
        part.losses += 1
        if self._journal is not None:
            self._journal.given_up(part.start)
        if not part.pending:
            self._end(part)
        elif part.losses > _MOST_LOSSES:
            unknown = OutcomeUnknownError("the server forgets what it is asked for", operation="stage")
            self._fail_all(part, unknown)
        else:
            for file in part.pending.values():
                self._ledger.move(file, FileState.WAITING)
            self._later(part)

    def _look_after_overdue(self) -> None:
        """Tell of the files that were asked for and are not there; what came by another way is."""
        deadline = Deadline(_LAST_QUESTION_SECONDS)
        for part in [part for part in self._open if part.request]:
            try:
                where = self._where(part, list(part.pending), deadline)
            except CredentialError:
                raise
            except DcacheError as error:
                _log.warning("where files that are overdue are cannot be found out: %s", error)
                where = {}
            for position, file in list(part.pending.items()):
                verdict = where.get(position)
                if verdict in ON_DISK:
                    note = "on disk, although its request is still under way"
                    self._ledger.finish(part, position, FileState.STAGED, note=note)
                    continue
                if not isinstance(verdict, DcacheError):
                    known = "" if verdict is None else f" and {verdict.value}"
                    verdict = NearlineError(
                        f"still {file.state.value}{known} after {self._deadline.seconds:g} s",
                        locality="" if verdict is None else verdict.value,
                        operation="stage",
                        url=file.url,
                        hint="The recall may have failed or wait for a drive: a GET of the file may tell the "
                        "tape system's own words.",
                    )
                self._ledger.move(file, FileState.OVERDUE, verdict)
            if not part.pending:
                self._end(part)

    def _where(
        self, part: StagePart, positions: Iterable[int], deadline: Deadline
    ) -> dict[int, Locality | DcacheError]:
        """Where files are, with an error for what stands for no file and for what nothing can bring."""
        files = {position: part.pending[position] for position in positions}
        found = self._api.archive_info([file.url for file in files.values()], deadline=deadline)
        return {position: _verdict(file.url, found[file.url]) for position, file in files.items()}

    def _moment(self) -> Deadline:
        return Deadline(self._deadline.limit(self._request_seconds))

    def _fail_all(self, part: StagePart, error: DcacheError) -> None:
        for position in list(part.pending):
            self._ledger.finish(part, position, FileState.FAILED, error)
        self._end(part)

    def _end(self, part: StagePart) -> None:
        self._open.discard(part)
        self._ledger.end(part)


def _log_setback(error: DcacheError) -> None:
    _log.warning("staging goes on in spite of: %s", error)


def _verdict(url: str, where: Locality | DcacheError) -> Locality | DcacheError:
    if where is Locality.NONE:
        return ResourceIsDirectoryError("a directory has no copy on tape", operation="stage", url=url)
    if where is Locality.LOST:
        return NearlineError(
            "the site has lost the file",
            locality=where.value,
            operation="stage",
            url=url,
            hint="Ask the site.",
        )
    return where
