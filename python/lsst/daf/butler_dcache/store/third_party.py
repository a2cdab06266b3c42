"""A copy between two stores that the servers make, and that we judge.

Theory of operation (protocol page, section 5, surprises 3, 13 and 23). Whatever way the bytes take they go to
a temporary name beside the target, are compared there with the source, and are then published as any upload
is: a copy that fails destroys nothing, nobody sees a part of one, and of several writers with
``overwrite=False`` exactly one succeeds.

A server's ``success`` is not believed, and an end without a verdict is no failure: the servers may go on for
seconds after nobody listens any more. So in both cases size and checksum of the temporary file are compared
with those of the source, after an unclear end again and again for a while. Only then another copy is begun,
under a fresh name.

What a failure leads to is `_COURSES`; the page ``third-party-copy`` shows it as a table.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from enum import Enum

from ..errors import (
    AccessDeniedError,
    CredentialError,
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    FileBrokenError,
    IntegrityError,
    NearlineError,
    OutcomeUnknownError,
    ResourceExistsError,
    ResourceIsDirectoryError,
    ResourceIsFileError,
    ResourceNotFoundError,
    ServerBusyError,
    ServerError,
    StoreFullError,
    UnsupportedError,
    UploadDisplacedError,
)
from ..model import FileInfo, Locality
from ..redaction import redact_url
from ..transport.deadline import Deadline
from ..transport.failures import was_not_sent
from ..webdav.addresses import origin
from ..webdav.markers import StandstillError, Vigil
from ..webdav.third_party import OtherSideError, SourceError
from .closed_ways import Way, closed
from .protocol import Carrier, CopyRules, Landing, Progress, Store

__all__ = ("copied", "needed_seconds")

_log = logging.getLogger(__name__)

_GRANT_SECONDS = 600.0
_SLOWEST_BYTES_PER_SECOND = 1024**2
_SETTLING_SECONDS = (0.5, 1.0, 2.0, 4.0, 6.0)
"""Pauses before each look after an unclear end: a door notices a lost client with its next marker (5 s)."""
_LATE_CHECKSUM_SECONDS = (0.1, 0.3)
_LOOK_FIRST_BYTES = 64 * 1024**2
"""From here on a look whether a name is taken costs less than to find out after the copy."""
_LEAST_SIGNED_BYTES = 16 * 1024**2  # below, our own few requests are as good as the server's seven
_MOST_SIGNED_BYTES = 5 * 1024**3  # by one PUT


class _Course(Enum):
    """What a failure leads to."""

    ANSWER = "it is the answer: nothing else would do better, or may be tried"
    HERE = "the bytes pass through this process, whose error is the last word"
    ELSEWHERE = "the other way"
    CLOSED = "the other way, and this one is not tried between these servers for ten minutes"


_COURSES: tuple[tuple[type[DcacheError], bool, _Course], ...] = (
    (OtherSideError, False, _Course.CLOSED),
    (SourceError, False, _Course.HERE),
    (UnsupportedError, False, _Course.CLOSED),
    (StandstillError, False, _Course.CLOSED),
    (CredentialError, False, _Course.ANSWER),
    (ResourceExistsError, False, _Course.ANSWER),
    (ResourceIsDirectoryError, False, _Course.ANSWER),
    (ResourceIsFileError, False, _Course.ANSWER),
    (StoreFullError, False, _Course.ANSWER),
    (FileBrokenError, False, _Course.ANSWER),
    (NearlineError, False, _Course.ANSWER),
    (UploadDisplacedError, False, _Course.ANSWER),
    (ServerBusyError, False, _Course.ANSWER),
    (ResourceNotFoundError, False, _Course.HERE),
    (IntegrityError, True, _Course.HERE),
    (OutcomeUnknownError, True, _Course.ELSEWHERE),
    (DoorUnavailableError, True, _Course.ELSEWHERE),
    (ServerError, True, _Course.ELSEWHERE),
)
"""Which errors are tried again once, under a fresh name, and what comes then; the first that fits holds."""


def _course_of(error: DcacheError) -> tuple[bool, _Course]:
    if was_not_sent(error) or (isinstance(error, AccessDeniedError) and error.status == 401):
        # Our own door does not answer, and will be needed whatever the way; or it has counted a refusal.
        return False, _Course.ANSWER
    rows = ((again, course) for kind, again, course in _COURSES if isinstance(error, kind))
    return next(rows, (False, _Course.ELSEWHERE))


def needed_seconds(size: int) -> float:
    """Return how long a file of some size may take whose bytes move.

    Parameters
    ----------
    size : `int`
        Bytes.
    """
    return size / _SLOWEST_BYTES_PER_SECOND


def copied(
    source_store: Store,
    source: str,
    target_store: Store,
    target: str,
    here: Callable[[Deadline], FileInfo],
    *,
    overwrite: bool,
    progress: Progress | None = None,
    deadline: Deadline | None = None,
    on_way: Callable[[Carrier], object] | None = None,
    known: FileInfo | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> FileInfo:
    """Have a file copied by the servers of two stores, which may be one, or copy it otherwise.

    Parameters
    ----------
    source_store, target_store : `.protocol.Store`
        From where, and to where.
    source, target : `str`
        URLs of the file and of its copy.
    here : `~collections.abc.Callable`
        Copies it through this process by a deadline, which it has to `~..transport.deadline.Deadline.allow`
        the size of the file.
    overwrite : `bool`
        Whether an existing file may be replaced.
    progress : `.protocol.Progress`, optional
        Is told how far the servers are, as often as they say.
    deadline : `~..transport.deadline.Deadline`, optional
        When to give up, whatever ways were tried; by `.protocol.CopyRules.seconds` of both and by the size if
        not given.
    on_way : `~collections.abc.Callable`, optional
        Is told ``server`` when the servers begin, and ``client`` if they do not do it.
    known : `~..model.FileInfo`, optional
        What a look of a moment ago says of the source.
    sleep : `~collections.abc.Callable`, optional
        Waits before another look.

    Returns
    -------
    info : `~..model.FileInfo`
        The copy, with those checksums only that both ends told, or what ``here`` returned where the servers
        do not do it. A warning has said why, once for each pair.

    Raises
    ------
    ResourceNotFoundError
        If there is no such file.
    ResourceExistsError
        If there is one of the target's name, and it must not be replaced.
    AccessDeniedError
        If a right is missing. With status 401 the door counts it: three within 20 s block this host.
    DeadlineError
        If the deadline passed, with what was tried. The target is as it was.
    DcacheError
        By cause otherwise, if another way would not do better.
    """
    tell = on_way or (lambda carrier: None)
    to_signed = target.startswith("s3:")
    rules, pair = target_store.copy_rules, (_place(source), _place(target))
    theirs = source_store.copy_rules
    deadline = deadline or Deadline(min(theirs.seconds, rules.seconds), is_fixed=False)
    ways = [way for way in _ways(theirs, rules, to_signed) if not closed.is_closed(pair, way, overwrite)]
    algorithm = "md5" if to_signed else "adler32"
    is_known = known is not None and bool(known.size) and algorithm in known.checksums
    offered = None
    if known is not None and is_known:
        offered = dataclasses.replace(known, url=source)
    elif ways:
        offered = source_store.offer(source, algorithm, deadline)
    if offered is not None and offered.is_directory:
        raise ResourceIsDirectoryError("it is a directory", operation="copy", url=source)
    if not ways or offered is None or not _is_worth_it(offered, rules, to_signed):
        if not ways and "never" not in (theirs.way, rules.way) and closed.warns(pair):
            _log.warning("files go from %s to %s through this process: neither server copies them", *pair)
        tell("client")
        if offered is not None and offered.size == 0:
            return target_store.write(target, b"", overwrite=overwrite, deadline=deadline)
        return here(deadline)
    order = _Order(
        source_store, offered, is_known, target_store, target, overwrite, progress, deadline, sleep
    )
    order.check()
    tell("server")
    tried: list[str] = []
    error: DcacheError | None = None
    for way in ways:
        try:
            return order.fill(way)
        except DcacheError as failed:
            _, course = _course_of(failed)
            if course is _Course.ANSWER or order.publishes:
                raise
            tried.append(f"{way.value}: {failed.message}")
            if deadline.expired:
                raise _late(target, deadline, tried) from failed
            if course is _Course.CLOSED:
                closed.close(pair, way, overwrite)
            error = failed
            _log.info("no %s from %s to %s: %s", way.value, *map(redact_url, (source, target)), failed)
            if course is _Course.HERE:
                break
    if closed.warns(pair):
        _log.warning(
            "the bytes of %s pass through this process on their way to %s: %s",
            *map(redact_url, (source, target)),
            error,
        )
    tell("client")
    try:
        return here(deadline)
    except (DeadlineError, DoorUnavailableError) as failed:
        if not deadline.expired:
            raise
        tried.append(f"through this process: {failed.message}")
        raise _late(target, deadline, tried) from failed


def _late(target: str, deadline: Deadline, tried: list[str]) -> DeadlineError:
    return DeadlineError(
        f"the file was not copied in {deadline.seconds:g} s ({'; '.join(tried)})",
        operation="copy",
        url=target,
        elapsed_seconds=deadline.elapsed,
    )


def _place(url: str) -> str:
    """Return what all files of one server have in common."""
    return "/".join(url.split("/")[:3]) if url.startswith("s3:") else origin(url)


def _ways(source: CopyRules, target: CopyRules, to_signed: bool) -> list[Way]:
    """Return who may move the bytes, the cheaper one first."""
    if "never" in (source.way, target.way):
        return []
    wanted = source.way if target.way == "auto" else target.way
    can = {Way.PULL: target.pulls, Way.PUSH: source.pushes_to_signed if to_signed else source.pushes}
    return [way for way in Way if can[way] and wanted in ("auto", way.value)]


def _is_worth_it(offered: FileInfo, rules: CopyRules, to_signed: bool) -> bool:
    if offered.size is None or offered.locality is Locality.NEARLINE:
        return False  # who reads it says what is the matter
    if to_signed:
        return "md5" in offered.checksums and _LEAST_SIGNED_BYTES <= offered.size <= _MOST_SIGNED_BYTES
    return offered.size >= rules.from_bytes


class _Order:
    """One copy that somebody wants."""

    def __init__(
        self,
        source_store: Store,
        offered: FileInfo,
        may_be_old: bool,
        target_store: Store,
        target: str,
        overwrite: bool,
        progress: Progress | None,
        deadline: Deadline,
        sleep: Callable[[float], None],
    ) -> None:
        self._source_store = source_store
        self._offered = offered
        self._may_be_old = may_be_old  # told by whoever has looked before us
        self._target_store = target_store
        self._target = target
        self._overwrite = overwrite
        self._sleep = sleep
        self.publishes = False  # whether the copy may have got its name, so that no other is to be made
        size = self._size = offered.size or 0
        self._grant_seconds = _GRANT_SECONDS + needed_seconds(size)
        self.deadline = deadline
        deadline.allow(needed_seconds(size))
        known = offered.checksums
        self._algorithm = next((one for one in ("adler32", "md5", *known) if one in known), "adler32")
        if progress is not None:
            progress.set_size(size)
        self._tell = None if progress is None else progress.absolute_update

    def check(self) -> None:
        """Refuse before a byte moves what would be refused after all have."""
        if (
            not self._overwrite
            and self._size >= _LOOK_FIRST_BYTES
            and self._target_store.exists(self._target)
        ):
            raise ResourceExistsError("the name is taken", operation="copy", url=self._target)

    def fill(self, way: Way) -> FileInfo:
        """Copy and publish; once more if that may help."""
        try:
            return self._fill_once(way)
        except DcacheError as error:
            again, _ = _course_of(error)
            if not again or self.publishes or self.deadline.expired:
                raise
            _log.info("a copy by the servers came to nothing and is begun anew: %s", error)
        return self._fill_once(way)

    def _fill_once(self, way: Way) -> FileInfo:
        source = self._offered.url
        store = self._source_store if way is Way.PUSH else self._target_store
        vigil = Vigil(self._size, store.copy_rules.stall_seconds, self._tell)
        with self._target_store.landing(
            self._target, self._size, overwrite=self._overwrite, deadline=self.deadline
        ) as landing:
            try:
                if way is Way.PULL:
                    grant = self._source_store.grant(source, self._grant_seconds, self.deadline)
                    landing.pull(grant, vigil, algorithm=self._algorithm)
                else:
                    self._source_store.push(source, landing.grant(self._grant_seconds), vigil, self.deadline)
                seen = self._seen(landing)
            except (OutcomeUnknownError, DoorUnavailableError) as error:
                seen = self._settled(landing, error)
            difference = self._difference(seen)
            if difference and self._may_be_old:
                self._look_again()
                difference = self._difference(seen)
            if difference or seen is None:
                raise IntegrityError(
                    f"the copy differs from its source: {difference}", operation="copy", url=self._target
                )
            self.publishes = True
            return landing.publish(dataclasses.replace(seen, checksums=self._common(seen)))

    def _seen(self, landing: Landing) -> FileInfo | None:
        """Look at what has come; the checksum may be there a moment later than the size."""
        for pause in (*_LATE_CHECKSUM_SECONDS, None):
            seen = landing.look(self._algorithm)
            if seen is None or seen.size != self._size or seen.checksums or pause is None:
                break
            self._sleep(pause)
        return seen

    def _look_again(self) -> None:
        """Ask for the source that is there now: the one that was looked at may have been replaced."""
        self._may_be_old = False
        now = self._source_store.offer(self._offered.url, self._algorithm, self.deadline)
        if now.size is None:
            raise FileBrokenError(
                "the upload of this file has not ended", operation="copy", url=self._offered.url
            )
        self._offered, self._size = now, now.size
        self.deadline.allow(needed_seconds(now.size))

    def _settled(self, landing: Landing, error: DcacheError) -> FileInfo | None:
        """Look until a copy of which nobody knows is complete, and raise if it does not get so."""
        if was_not_sent(error):
            raise error
        for pause in _SETTLING_SECONDS:
            self._sleep(min(pause, self.deadline.remaining()))
            try:
                seen = self._seen(landing)
            except (DoorUnavailableError, ServerError) as again:
                _log.debug("what came of a copy cannot be seen now: %s", again)
                continue
            if seen is not None and not self._difference(seen):
                _log.info("a copy without a verdict is complete: %s", error)
                return seen
        raise error

    def _common(self, seen: FileInfo) -> dict[str, str]:
        known = self._offered.checksums
        return {name: value for name, value in seen.checksums.items() if name in known}

    def _difference(self, seen: FileInfo | None) -> str:
        """Say in what it is another file; empty if it is none."""
        if seen is None:
            return "nothing has come"
        if seen.size != self._size:
            return f"it has {seen.size} bytes instead of {self._size}"
        common = self._common(seen)
        for name, value in common.items():
            if self._offered.checksums[name] != value:
                return f"its {name} is {value} instead of {self._offered.checksums[name]}"
        if not common and self._target.startswith("s3:"):
            return "both ends know no common checksum"
        if not common:
            now = self._source_store.offer(self._offered.url, self._algorithm, self.deadline)
            if (now.size, now.etag) != (self._size, self._offered.etag):
                return "the source has changed meanwhile"
            _log.info("unverified but for its size, no checksum is common: %s", redact_url(self._target))
        return ""
