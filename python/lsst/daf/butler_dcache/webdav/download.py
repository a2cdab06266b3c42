"""Whole files: one redirect, one GET, verified to the last byte.

Theory of operation: the door answers GET with 302 and a URL at a pool, which is a capability (no credential
goes there). The pool is asked for adler32 and says the length; both are compared with what arrived. A pool
that says "no longer valid" (its own ``Location`` is never followed), that cannot be reached, that fails,
breaks off or falls silent sends us back to the *original* URL at the door, a few times (protocol page,
sections 2.5 and 3.2). What had come is kept if the rest is surely of the same file: the 206 has to tell its
size in ``Content-Range`` and its adler32, as the first answer did. A door that proxies answers 200 itself.

XRootD is asked for adler32 with care (see `.checksum_turns`); a file that comes without is verified by its
size alone.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from ..config.settings import Origin, origin_of
from ..errors import (
    CredentialError,
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    IntegrityError,
    NearlineError,
    ProtocolError,
    ResourceIsDirectoryError,
    ServerError,
)
from ..model import FileInfo
from ..redaction import redact_url
from ..transport.answer import DataAnswer
from ..transport.deadline import Deadline
from ..transport.failures import failure, is_mover_gone
from ..transport.lateness import Lateness
from ..transport.ranges import parse_content_range
from ..transport.retry import Phase, rounds
from ..transport.target import Target
from .checksum_turns import PATIENCE_SECONDS, turns
from .door import REDIRECTS, Door
from .hedging import Begun, Hedger, Lane
from .nearline import Recall, Recaller
from .parallel import ParallelDownload
from .whole_answer import Download, digests, shows_whole_file

__all__ = ("Downloads",)

_log = logging.getLogger(__name__)

_WANT = {"Want-Digest": "adler32"}
_VALIDATORS = ("ETag", "Last-Modified")

PARALLEL_BYTES = 256 << 20
"""Files of this size and more come by several connections, at the price of one more question to the door."""

PARALLEL_CONNECTIONS = {"http": 1, "https": 2}
"""Decryption is what several threads share; without it one is as fast (decision page "reading")."""

Result = TypeVar("Result")


class _NotInParallelError(DoorUnavailableError):
    """Several connections did not get the file; one may."""


class Downloads:
    """Reads whole files.

    Parameters
    ----------
    door : `Door`
        Who knows where they are.
    recaller : `Recaller`
        What can be done about files on tape.
    """

    def __init__(self, door: Door, recaller: Recaller) -> None:
        self._door = door
        self._recaller = recaller
        self._hedger = Hedger() if door.settings.hedge else None

    def read(self, url: str) -> bytes:
        """Return all bytes of a file, verified.

        Parameters
        ----------
        url : `str`
            File to read.
        """

        def take(download: Download, deadline: Deadline) -> bytes:
            if not self._is_for_several(download):
                return download.read()
            memory = io.BytesIO(bytes(download.size or 0))
            with memory.getbuffer() as view:

                def put(offset: int, piece: memoryview) -> None:
                    view[offset : offset + len(piece)] = piece

                self._by_several(download, put, deadline)
            return memory.getvalue()

        return self._whole(url, take, lambda: True, self._hedger)

    def fetch(self, url: str, target: Target) -> FileInfo:
        """Write all bytes of a file to a target, verified.

        Parameters
        ----------
        url : `str`
            File to read.
        target : `Target`
            Where to.

        Returns
        -------
        info : `FileInfo`
            Size and checksums of what was read.
        """

        def take(download: Download, deadline: Deadline) -> FileInfo:
            target.begin(download.size)
            if target.is_local and download.size is not None and self._is_for_several(download):
                target.reserve(download.size)
                self._by_several(download, target.put, deadline)
                target.done(download.size)
            else:
                download.pump(target.take)
            return download.info

        return self._whole(url, take, target.restart)

    @staticmethod
    def _is_for_several(download: Download) -> bool:
        large = download.size is not None and download.size >= PARALLEL_BYTES
        several = PARALLEL_CONNECTIONS[download.scheme] > 1
        return large and several and download.at_pool and not download.alone

    def _by_several(
        self, download: Download, put: Callable[[int, memoryview], object], deadline: Deadline
    ) -> None:
        """Fetch by several connections what one has begun to send.

        The URL dies with the connection that asked for the whole file, and must not be shared with it
        (protocol page, section 2.5), so the door is asked for another.
        """
        download.close(False)
        answer, place = self.locate(download.url, deadline=deadline)
        if answer is not None:
            answer.close(False)
            raise _NotInParallelError("several connections did not get the file", url=download.url)
        fetcher = ParallelDownload(self._door.data, place, download.url, download.size or 0, put)
        try:
            seen = fetcher.run(PARALLEL_CONNECTIONS[download.scheme], deadline)
            download.verify(seen)
        except (DoorUnavailableError, ProtocolError, IntegrityError) as error:
            # Another file may have the name by now, or the server may not be up to it: one stream will tell.
            raise _NotInParallelError(
                f"several connections did not get the file: {error}", url=download.url
            ) from error

    def _whole(
        self,
        url: str,
        take: Callable[[Download, Deadline], Result],
        restart: Callable[[], bool],
        hedger: Hedger | None = None,
    ) -> Result:
        """Take a whole file, anew if the answer breaks off."""
        deadline = self._door.deadline()
        alone = False
        for last in rounds(Phase.BROKEN, "GET", deadline):
            download = self.open(url, deadline=deadline, hedger=hedger)
            download.alone = alone
            clean = False
            try:
                result = take(download, deadline)
                clean = True
                return result
            except (DoorUnavailableError, DeadlineError) as error:
                if last or deadline.expired or not restart():
                    raise
                alone = alone or isinstance(error, _NotInParallelError)
                _log.debug("reading %s anew, the answer broke off: %s", redact_url(url), error)
            finally:
                download.close(None if clean else False)
        raise AssertionError("the last round returns or raises")

    def open(self, url: str, *, deadline: Deadline, hedger: Hedger | None = None) -> Download:
        """Open a file for one read from its first to its last byte.

        Parameters
        ----------
        url : `str`
            File to read.
        deadline : `Deadline`
            When to give up.
        hedger : `Hedger`, optional
            Has first bytes that are late asked for once more.

        Returns
        -------
        download : `Download`
            To be closed by the caller.
        """

        def resume(download: Download, offset: int) -> DataAnswer | None:
            return self._resume(download, offset, deadline)

        for attempt, last in enumerate(rounds(Phase.BROKEN, "GET", deadline)):
            if hedger is not None and self._door.dialect == "dcache":
                answer, at_pool, error = self._race(hedger, url, deadline)
            else:
                answer, at_pool, error = self._begin(url, deadline)
            if answer is None:
                # This pool does not answer; the door may know another one.
                assert error is not None, "no answer, and no error"
                if last or deadline.expired:
                    try:
                        raise error
                    finally:
                        del error  # whose traceback holds this frame
                continue
            if not at_pool:
                return self._checked(Download(answer, url, at_pool=False, resume=resume), deadline)
            if answer.status == 200 or shows_whole_file(answer):
                return self._checked(Download(answer, url, at_pool=True, resume=resume), deadline)
            body = b"" if is_mover_gone(answer) else answer.read_short()
            answer.close()
            refusal = failure(
                answer,
                operation="read",
                url=url,
                body=body,
                method="GET",
                at_pool=True,
                attempts=attempt + 1,
                elapsed_seconds=deadline.elapsed,
            )
            # What fails for a reason that will last is not asked again.
            if last or not (is_mover_gone(answer) or isinstance(refusal, ServerError | DoorUnavailableError)):
                raise refusal
        raise AssertionError("the last round returns or raises")

    def _resume(self, download: Download, offset: int, deadline: Deadline) -> DataAnswer | None:
        """Return an answer with the rest of a file, `None` if there is none that is surely of this file."""
        span = f"bytes={offset}-"
        headers = {"Range": span} if self._door.dialect == "xrootd" else {**_WANT, "Range": span}
        for last in rounds(Phase.BROKEN, "GET", deadline):
            try:
                answer, place = self.locate(download.url, deadline=deadline, span=span)
                if answer is None:
                    answer = self._door.data.open("GET", place, headers=headers, deadline=deadline)
            except (DoorUnavailableError, DeadlineError):
                if last or deadline.expired:
                    raise
                continue
            if _is_rest(answer, download, offset):
                return answer
            answer.close(False)
            if not is_mover_gone(answer) and answer.status < 500:
                break
        return None

    def _race(self, hedger: Hedger, url: str, deadline: Deadline) -> Begun:
        """Begin a read that may be hedged; tape is not waited for twice at the same time."""
        try:
            return hedger.race(partial(self._begin, url, deadline))
        except NearlineError:
            if self._door.settings.nearline == "fail":
                raise
            return self._begin(url, deadline)

    def _begin(self, url: str, deadline: Deadline, lane: Lane | None = None) -> Begun:
        """Go to the door, and from there to the bytes; a pool that does not answer is no error yet."""
        answer, place = self.locate(url, deadline=deadline, lane=lane)
        if answer is not None:
            return Begun(answer, False)
        try:
            if lane is None:
                return Begun(self._open_at_pool(place, deadline), True)
            connection = self._door.data.connect(place, deadline=deadline)
            if not lane.has_lost:
                lane.connection = connection
            answer = self._door.data.open(
                "GET", place, headers=_WANT, deadline=deadline, connection=connection
            )
            answer.entrust()
            return Begun(answer, True)
        except (DoorUnavailableError, DeadlineError) as error:
            return Begun(None, True, error)

    def _open_at_pool(self, place: str, deadline: Deadline) -> DataAnswer:
        """Ask for a whole file and its checksum; XRootD for the file alone where that may not be answered."""
        if self._door.dialect != "xrootd":
            return self._door.data.open("GET", place, headers=_WANT, deadline=deadline)
        server = origin_of(place)
        with turns.turn(server) as ours:
            answer = self._with_checksum(place, server, deadline) if ours else None
        if answer is None:
            # What has a range is a file; a directory, whose listing would come as HTML, has none.
            answer = self._door.data.open("GET", place, headers={"Range": "bytes=0-"}, deadline=deadline)
            if answer.status == 416:
                answer.close(False)
                answer = self._door.data.open("GET", place, deadline=deadline)
        return answer

    def _with_checksum(self, place: str, server: Origin, deadline: Deadline) -> DataAnswer | None:
        """Ask XRootD for a file with its checksum; `None` if the checksum seems to be what is in the way."""
        patience = Deadline(min(PATIENCE_SECONDS, deadline.remaining()))
        try:
            answer = self._door.data.open("GET", place, headers=_WANT, deadline=patience)
        except DeadlineError as error:
            if deadline.expired:
                raise
            _log.warning("reading without checksums for a while, the data server is silent: %s", error)
            turns.rest(server)
            return None
        answer.renew(deadline)
        if answer.status == 405 or answer.status >= 500:
            # 405: none is configured. 500: it could not be computed, which says nothing of the file.
            answer.close(False)
            if answer.status == 405:
                turns.rest(server)
            return None
        return answer

    def locate(
        self, url: str, *, deadline: Deadline, span: str | None = None, lane: Lane | None = None
    ) -> tuple[DataAnswer | None, str]:
        """Ask the door where a file is.

        Parameters
        ----------
        url : `str`
            File to read.
        deadline : `Deadline`
            When to give up.
        span : `str`, optional
            Value of a ``Range`` header, which only a door that proxies looks at.
        lane : `Lane`, optional
            Which of two ways this is; on neither of them tape is waited for.

        Returns
        -------
        answer : `DataAnswer` or `None`
            The answer with the bytes, if the door gives them itself.
        place : `str`
            Where else they are, to be used without a credential.
        """
        if url.endswith("/"):
            raise ResourceIsDirectoryError("a directory has no bytes to read", operation="read", url=url)
        recall = Recall(self._door, url, deadline, self._recaller, lane)
        headers = _WANT if span is None else {**_WANT, "Range": span}
        while True:
            try:
                recall.look_first()
                return self._locate_once(url, headers, deadline, recall.lateness)
            except (NearlineError, DeadlineError) as error:
                recall.go_on(error)

    def _locate_once(
        self, url: str, headers: Mapping[str, str], deadline: Deadline, lateness: Lateness | None
    ) -> tuple[DataAnswer | None, str]:
        for last in rounds(Phase.FAILED, "GET", deadline):
            answer = self._door.open("GET", url, headers=headers, deadline=deadline, lateness=lateness)
            if answer.status in (200, 206):
                return answer, ""
            body = answer.read_short()
            answer.close()
            if answer.status in REDIRECTS:
                return None, self._door.data_url(answer, url, operation="read")
            error = failure(
                answer,
                operation="read",
                url=url,
                body=body,
                method="GET",
                elapsed_seconds=deadline.elapsed,
            )
            if last or not isinstance(error, ServerError):
                raise error
        raise AssertionError("the last round returns or raises")

    def _checked(self, download: Download, deadline: Deadline) -> Download:
        """Make sure that a file will come, not the listing of a directory, and that a cut would show."""
        # XRootD sends the listing of a directory as HTML without saying so; it has no checksum then.
        is_proven = "adler32" in download.checksums or download.is_range
        may_be_listing = self._door.dialect == "xrootd" and not is_proven
        if download.shows_cut and not may_be_listing:
            return download
        try:
            entry = self._entry(download, deadline)
            if entry.is_directory:
                raise ResourceIsDirectoryError(
                    "a directory has this name", operation="read", url=download.url
                )
            if download.size is None:
                download.size = entry.size
            elif entry.size is not None and entry.size != download.size:
                raise ProtocolError(
                    f"the server sends {download.size} bytes of a file of {entry.size}",
                    operation="read",
                    url=download.url,
                )
            if download.size is None and not download.shows_cut:
                raise _endless(download)
        except BaseException:
            download.close(False)
            raise
        return download

    def _entry(self, download: Download, deadline: Deadline) -> FileInfo:
        try:
            return self._door.propfind(download.url, operation="read", deadline=deadline)
        except (CredentialError, DoorUnavailableError, DeadlineError):
            raise
        except DcacheError as error:
            if download.shows_cut:
                raise
            raise _endless(download) from error


def _endless(download: Download) -> IntegrityError:
    return IntegrityError(
        "the server announces neither length nor checksum and ends the body by closing the connection, "
        "so that one that was cut could not be told from a whole one",
        operation="read",
        url=download.url,
    )


def _is_rest(answer: DataAnswer, download: Download, offset: int) -> bool:
    """Tell whether an answer brings the bytes from an offset on, and surely of the file that was begun."""
    if answer.status != 206:
        return False
    try:
        span, size = parse_content_range(
            str(answer.headers.get("Content-Range", "")), download.size, download.url
        )
    except ProtocolError:
        return False
    if span.start != offset or size is None or span.stop != size or answer.length not in (None, len(span)):
        return False
    known = {**{name: download.headers.get(name) for name in _VALIDATORS}, **download.checksums}
    told = {**{name: answer.headers.get(name) for name in _VALIDATORS}, **digests(answer)}
    both = [name for name in known if known[name] and told.get(name)]
    return bool(both) and all(known[name] == told[name] for name in both)
