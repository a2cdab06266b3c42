"""Whole files: one redirect, one GET, verified to the last byte.

Theory of operation: the door answers GET with 302 and a URL at a pool, which is a capability (no credential
goes there). The pool is asked for adler32 and says the length; both are compared with what arrived. A pool
that says "no longer valid" (its own ``Location`` is never followed), that cannot be reached or that breaks
off sends us back to the *original* URL at the door, at most twice (protocol page, sections 2.5 and 3.2). A
door that proxies answers 200 itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import TypeVar

from ..errors import (
    DoorUnavailableError,
    IntegrityError,
    ProtocolError,
    ResourceIsDirectoryError,
)
from ..model import Adler32, EntryKind, FileInfo
from ..redaction import redact_url
from ..transport.answer import DataAnswer
from ..transport.deadline import Deadline
from ..transport.failures import Outcome, failure, is_mover_gone
from .door import REDIRECTS, Door
from .propfind import parse_checksums, parse_time

__all__ = ("Download", "Downloads", "digests")

_log = logging.getLogger(__name__)

_MOST_ROUNDS = 3
_PIECE_BYTES = 1 << 20

Result = TypeVar("Result")


class Download:
    """The answer that brings a whole file.

    Parameters
    ----------
    answer : `DataAnswer`
        Answer with status 200.
    url : `str`
        What is read, in the user's own form.
    at_pool : `bool`
        Whether a pool sends it.
    """

    def __init__(self, answer: DataAnswer, url: str, *, at_pool: bool) -> None:
        self._answer = answer
        self.url = url
        self.at_pool = at_pool
        length = str(answer.headers.get("Content-Length", ""))
        self.size = int(length) if length.isdigit() else None
        self.checksums = digests(answer)

    @property
    def info(self) -> FileInfo:
        """What the answer says of the file."""
        headers = self._answer.headers
        return FileInfo(
            url=self.url,
            kind=EntryKind.FILE,
            size=self.size,
            modified=parse_time(str(headers.get("Last-Modified", ""))),
            checksums=MappingProxyType(self.checksums),
            etag=str(headers.get("ETag", "")),
        )

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes, and raise at the end if they are not those of the file.

        Yields
        ------
        piece : `bytes`
            Next bytes.

        Raises
        ------
        IntegrityError
            Raised after the last byte if length or checksum differ from what the server announced.
        """
        seen = Adler32()
        for piece in self._answer.iter_chunks(_PIECE_BYTES):
            seen.update(piece)
            yield piece
        self._verify(seen)

    def read(self) -> bytes:
        """Return all bytes, verified as by `pieces`."""
        data = self._answer.read()
        seen = Adler32()
        seen.update(data)
        self._verify(seen)
        return data

    def pump(self, sink: Callable[[memoryview], object]) -> None:
        """Give all bytes to a function, from one piece of memory, and verify them as by `pieces`.

        Parameters
        ----------
        sink : `~collections.abc.Callable`
            Takes a piece, and does not keep it.
        """
        seen = Adler32()
        view = memoryview(bytearray(_PIECE_BYTES if self.size is None else min(_PIECE_BYTES, self.size + 1)))
        while count := self._answer.fill(view):
            seen.update(view[:count])
            sink(view[:count])
        self._verify(seen)

    def _verify(self, seen: Adler32) -> None:
        if self.size is not None and seen.size != self.size:
            raise IntegrityError(
                f"{seen.size} bytes arrived, {self.size} were announced", operation="read", url=self.url
            )
        self.size = seen.size
        expected = self.checksums.get("adler32")
        if expected is None:
            _log.debug("unverified: the server gave no adler32 for %s", redact_url(self.url))
            self.checksums["adler32"] = seen.hexdigest()
        elif expected != seen.hexdigest():
            raise IntegrityError(
                f"the bytes that arrived have adler32 {seen.hexdigest()}, the file has {expected}",
                operation="read",
                url=self.url,
                hint="Read it again; if it stays so, the replica at the pool is damaged.",
            )

    def close(self, reuse: bool | None = None) -> None:
        """End it; the connection is kept if the body was read to its end."""
        self._answer.close(reuse)


class Downloads:
    """Reads whole files.

    Parameters
    ----------
    door : `Door`
        Who knows where they are.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    def read(self, url: str) -> bytes:
        """Return all bytes of a file, verified.

        Parameters
        ----------
        url : `str`
            File to read.
        """
        return self._whole(url, Download.read, lambda: True)

    def fetch(self, url: str, sink: Callable[[memoryview], object], restart: Callable[[], bool]) -> FileInfo:
        """Give all bytes of a file to a function, verified.

        Parameters
        ----------
        url : `str`
            File to read.
        sink : `~collections.abc.Callable`
            Takes each piece, and does not keep it.
        restart : `~collections.abc.Callable`
            Forgets the pieces so far before the file is read anew; returns `False` if it cannot.

        Returns
        -------
        info : `FileInfo`
            Size and checksums of what was read.
        """

        def take(download: Download) -> FileInfo:
            download.pump(sink)
            return download.info

        return self._whole(url, take, restart)

    def _whole(self, url: str, take: Callable[[Download], Result], restart: Callable[[], bool]) -> Result:
        """Take a whole file, anew if the answer breaks off."""
        deadline = self._door.deadline()
        for attempt in range(_MOST_ROUNDS):
            download = self.open(url, deadline=deadline)
            clean = False
            try:
                result = take(download)
                clean = True
                return result
            except DoorUnavailableError as error:
                if attempt == _MOST_ROUNDS - 1 or not restart():
                    raise
                _log.debug("reading %s anew, the answer broke off: %s", redact_url(url), error)
            finally:
                download.close(None if clean else False)
        raise AssertionError("the last round returns or raises")

    def open(self, url: str, *, deadline: Deadline) -> Download:
        """Open a file for one read from its first to its last byte.

        Parameters
        ----------
        url : `str`
            File to read.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        download : `Download`
            To be closed by the caller.
        """
        for attempt in range(_MOST_ROUNDS):
            last = attempt == _MOST_ROUNDS - 1
            answer, place = self.locate(url, deadline=deadline)
            if answer is not None:
                return self._checked(Download(answer, url, at_pool=False), deadline)
            try:
                answer = self._door.data.open(
                    "GET", place, headers={"Want-Digest": "adler32"}, deadline=deadline
                )
            except DoorUnavailableError:
                # This pool does not answer; the door may know another one.
                if last:
                    raise
                continue
            if answer.status == 200:
                return self._checked(Download(answer, url, at_pool=True), deadline)
            body = b"" if is_mover_gone(answer) else answer.read()
            answer.close()
            if last or not is_mover_gone(answer):
                raise failure(
                    answer,
                    operation="read",
                    url=url,
                    body=body,
                    method="GET",
                    at_pool=True,
                    attempts=attempt + 1,
                    elapsed_seconds=deadline.elapsed,
                )
        raise AssertionError("the last round returns or raises")

    def locate(
        self, url: str, *, deadline: Deadline, span: str | None = None
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

        Returns
        -------
        answer : `DataAnswer` or `None`
            The answer with the bytes, if the door gives them itself.
        place : `str`
            Where else they are, to be used without a credential.
        """
        if url.endswith("/"):
            raise ResourceIsDirectoryError("a directory has no bytes to read", operation="read", url=url)
        headers = {"Want-Digest": "adler32"}
        if span is not None:
            headers["Range"] = span
        answer = self._door.open("GET", url, headers=headers, deadline=deadline)
        if answer.status in (200, 206):
            return answer, ""
        body = answer.read()
        answer.close()
        if answer.status in REDIRECTS:
            return None, self._door.data_url(answer, url, operation="read")
        raise failure(
            answer,
            operation="read",
            url=url,
            body=body,
            method="GET",
            elapsed_seconds=deadline.elapsed,
        )

    def _checked(self, download: Download, deadline: Deadline) -> Download:
        """Make sure that these are the bytes of a file and not the listing of a directory."""
        if "adler32" in download.checksums or self._door.dialect != "xrootd":
            return download
        try:
            # XRootD sends the listing of a directory as HTML without saying so; it has no checksum then.
            entry = self._door.propfind(download.url, 0, operation="read", deadline=deadline)[0]
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
        except BaseException:
            download.close(False)
            raise
        return download


def digests(answer: Outcome) -> dict[str, str]:
    """Return the checksums in an answer's headers, of either RFC.

    Parameters
    ----------
    answer : `Outcome`
        Answer of a pool or door.
    """
    # dCache 12.0 may swap the two names under concurrency (protocol page, section 3.6): the value tells.
    found: dict[str, str] = {}
    for name in ("Digest", "Repr-Digest"):
        found.update(parse_checksums(str(answer.headers.get(name, ""))))
    return found
