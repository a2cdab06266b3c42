"""Many files from anywhere to anywhere: a bounded number in flight, and what is verified there is left alone.

A list of copies is worked through in chunks. The names of a chunk are looked up together, by few listings;
what has the same bytes at its target is skipped, so that a list which was interrupted is simply begun anew.
The first file of each pair of servers goes ahead alone: an error that holds for all of them, such as a
refused login, is then met once. dCache blocks a host for its third 401 within 20 s, and answers a copy
between servers that it does not allow with 401 (protocol page, sections 1.2 and 5): so after one of those
nothing more is sent to that directory, and after two nothing more to that server.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .errors import (
    AccessDeniedError,
    CredentialError,
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    FileBrokenError,
    ResourceExistsError,
    ResourceIsDirectoryError,
)
from .model import FileInfo
from .places import Place, look_up
from .single_copy import Copy, Outcome, copy_one, is_same
from .transport.deadline import Deadline

__all__ = ("CopyResult", "copy_many")

_CHUNK = 1000
_MOST_REFUSALS = 2
_MOST_LOST = 16
"""Each has waited for the server by itself, and a million would do so in turn."""


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What became of it.

    Parameters
    ----------
    copy : `Copy`
        Which one.
    outcome : `Outcome`
        What became of it.
    info : `~.model.FileInfo`, optional
        The copy, if there is one.
    error : `Exception`, optional
        A `DcacheError` or `OSError`, if there is none.
    """

    copy: Copy
    outcome: Outcome
    info: FileInfo | None = None
    error: Exception | None = None


def copy_many(
    copies: Iterable[Copy],
    *,
    overwrite: bool,
    in_flight: int = 8,
    deadline_seconds: float | None = None,
    on_progress: Callable[[int], object] | None = None,
    skip_verified: bool = True,
    trust_size: bool = False,
) -> Generator[CopyResult]:
    """Copy many files.

    Parameters
    ----------
    copies : `~collections.abc.Iterable` [`Copy`]
        What is to be copied; taken as it is needed, so that a million take no memory.
    overwrite : `bool`
        Whether files with other bytes may be replaced.
    in_flight : `int`, optional
        How many at a time.
    deadline_seconds : `float`, optional
        Time for all together. What is under way then is given up.
    on_progress : `~collections.abc.Callable`, optional
        Is told, by several threads, how many further bytes have arrived; fewer than none if a copy begins
        anew. What it raises ends that copy.
    skip_verified : `bool`, optional
        Whether what has the same size and checksum at its target is left alone; if not, an existing file is
        replaced or an error.
    trust_size : `bool`, optional
        Whether the same size is enough for that.

    Yields
    ------
    result : `CopyResult`
        One for each copy, as they end.

    Notes
    -----
    Errors are never raised, but those of ``copies`` itself. Whoever closes the iterator, or interrupts it,
    ends all that is in flight and waits for it; nothing but whole files is left at the targets.
    """
    run = _Run(overwrite, in_flight, deadline_seconds, on_progress, skip_verified, trust_size)
    try:
        yield from run.results(iter(copies))
    finally:
        run.stop()


def _hindrance(
    copy: Copy, source: FileInfo | Exception, target: FileInfo | Exception | None
) -> Exception | None:
    """Return why a copy cannot be made, as far as both names tell."""
    if isinstance(source, Exception):
        return source
    if source.is_directory:
        return _is_directory(copy.source)
    if source.size is None:
        return FileBrokenError("the upload of this file has not ended", operation="copy", url=copy.source.url)
    if isinstance(target, CredentialError):
        return target
    if isinstance(target, FileInfo) and target.is_directory:
        return _is_directory(copy.target)
    return None  # a target that may not be looked at may be written to


def _is_directory(place: Place) -> OSError:
    if place.is_local:
        return IsADirectoryError(errno.EISDIR, "a directory", place.url)
    return ResourceIsDirectoryError("a directory", operation="copy", url=place.url)


def _taken(place: Place) -> OSError:
    if place.is_local:
        return FileExistsError(errno.EEXIST, "the name is taken", place.url)
    return ResourceExistsError("the name is taken", operation="copy", url=place.url)


@dataclass(slots=True)
class _Lane:
    """What is known of one pair of servers."""

    is_proven: bool = False
    in_flight: int = 0
    lost: int = 0
    """Copies in a row for which a server could not be reached."""
    refused: dict[str, Exception] = field(default_factory=dict)
    closed: Exception | None = None


@dataclass(slots=True)
class _Task:
    """A copy that is to be tried."""

    copy: Copy
    source: FileInfo
    target: FileInfo | None

    @property
    def lane(self) -> tuple[str, str]:
        return urlsplit(self.copy.source.url).netloc, urlsplit(self.copy.target.url).netloc

    @property
    def directory(self) -> str:
        return self.copy.target.path.rpartition("/")[0]


class _Ending(Deadline):
    """A deadline that may be called early."""

    __slots__ = ()

    def end(self) -> None:
        self._end = self._clock()


class _Watch:
    """Passes on the progress of one copy, and ends it where all are to end."""

    def __init__(self, run: _Run, on_progress: Callable[[int], object] | None) -> None:
        self._run = run
        self._on_progress = on_progress
        self._known = 0

    def set_size(self, size: int) -> None:
        self._run.check()

    def absolute_update(self, value: int) -> None:
        self._run.check()
        self.complete(value)

    def complete(self, value: int) -> None:
        """Be told how many bytes have arrived, when it is too late to end anything."""
        if self._on_progress is not None and value != self._known:
            self._on_progress(value - self._known)
        self._known = value


class _Run:
    """One call of `copy_many`."""

    def __init__(
        self,
        overwrite: bool,
        in_flight: int,
        deadline_seconds: float | None,
        on_progress: Callable[[int], object] | None,
        skip_verified: bool,
        trust_size: bool,
    ) -> None:
        self._on_progress = on_progress
        self._overwrite = overwrite
        self._in_flight = in_flight
        self._deadline = None if deadline_seconds is None else _Ending(deadline_seconds)
        self._skip_verified = skip_verified
        self._trust_size = trust_size
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._is_over = threading.Event()
        self._workers = ThreadPoolExecutor(in_flight, thread_name_prefix="copy")

    def check(self) -> None:
        """Raise `DeadlineError` if nothing more is to be done."""
        if self._is_over.is_set():
            raise DeadlineError("given up before it was complete", operation="copy")
        if self._deadline is not None:
            self._deadline.remaining()

    def stop(self) -> None:
        """End what is in flight, and wait for it."""
        self._is_over.set()
        if self._deadline is not None:
            self._deadline.end()
        self._workers.shutdown(wait=True, cancel_futures=True)

    def results(self, copies: Iterator[Copy]) -> Iterator[CopyResult]:
        """Yield what becomes of each copy."""
        running: dict[Future[CopyResult], _Task] = {}
        ready: deque[_Task | CopyResult] = deque()
        while True:
            while len(running) < self._in_flight:
                if not ready:
                    ready.extend(self._prepared(list(itertools.islice(copies, _CHUNK))))
                if not ready:
                    break
                item = ready.popleft()
                if isinstance(item, _Task):
                    lane = self._lanes.setdefault(item.lane, _Lane())
                    if not lane.is_proven and lane.in_flight:
                        ready.appendleft(item)
                        break
                    cause = self._cause(lane, item)
                    if cause is None:
                        lane.in_flight += 1
                        running[self._workers.submit(self._one, item)] = item
                        continue
                    item = CopyResult(item.copy, Outcome.NOT_TRIED, error=cause)
                yield item
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                task = running.pop(future)
                result = future.result()
                self._learn(self._lanes[task.lane], task, result.error)
                yield result

    def _cause(self, lane: _Lane, task: _Task) -> Exception | None:
        """Return the error that holds for a copy before it is tried."""
        try:
            self.check()
        except DeadlineError as error:
            return error
        return lane.closed or lane.refused.get(task.directory)

    @staticmethod
    def _learn(lane: _Lane, task: _Task, error: Exception | None) -> None:
        """Take into account what a copy says of those that follow."""
        lane.in_flight -= 1
        if isinstance(error, AccessDeniedError) and error.status == 401:
            lane.refused[task.directory] = error
            if isinstance(error, CredentialError) or len(lane.refused) >= _MOST_REFUSALS:
                lane.closed = error
        elif isinstance(error, CredentialError):
            lane.closed = error
        elif isinstance(error, DoorUnavailableError):
            lane.lost += 1
            if not lane.is_proven or lane.lost >= _MOST_LOST:
                lane.closed = error
        else:
            lane.is_proven = True
            lane.lost = 0

    def _prepared(self, copies: list[Copy]) -> Iterator[_Task | CopyResult]:
        """Look up the names of some copies, and yield what is to be done about each."""
        try:
            self.check()
        except DeadlineError as error:
            yield from (CopyResult(copy, Outcome.NOT_TRIED, error=error) for copy in copies)
            return
        answers = iter(look_up([copy.source for copy in copies if copy.info is None]))
        targets: list[FileInfo | Exception | None] = [None] * len(copies)
        if self._skip_verified or not self._overwrite:
            targets = list(look_up([copy.target for copy in copies]))
        for copy, target in zip(copies, targets, strict=True):
            source = next(answers) if copy.info is None else copy.info
            hindrance = _hindrance(copy, source, target)
            if hindrance is not None:
                is_shared = isinstance(hindrance, CredentialError)
                outcome = Outcome.NOT_TRIED if is_shared else Outcome.FAILED
                yield CopyResult(copy, outcome, error=hindrance)
            else:
                assert isinstance(source, FileInfo)
                yield _Task(copy, source, target if isinstance(target, FileInfo) else None)

    def _one(self, task: _Task) -> CopyResult:
        """Make one copy."""
        copy = task.copy
        try:
            self.check()
            there = task.target
            if there is not None:
                if self._skip_verified and is_same(
                    copy,
                    task.source,
                    there,
                    trust_size=self._trust_size,
                    progress=_Watch(self, None),
                ):
                    return CopyResult(copy, Outcome.SKIPPED, there)
                if not self._overwrite:
                    raise _taken(copy.target)
            watch = _Watch(self, self._on_progress)
            outcome, info = copy_one(
                dataclasses.replace(copy, info=task.source),
                overwrite=self._overwrite,
                progress=watch,
                deadline=self._deadline,
            )
            watch.complete(info.size or 0)
            return CopyResult(copy, outcome, info)
        except (DcacheError, OSError) as error:
            return CopyResult(copy, Outcome.FAILED, error=error)
