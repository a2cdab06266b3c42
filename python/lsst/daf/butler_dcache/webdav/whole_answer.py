"""An answer that brings a whole file, verified to its last byte."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import MappingProxyType

from ..errors import IntegrityError
from ..model import Adler32, EntryKind, FileInfo
from ..redaction import redact_url
from ..transport.answer import DataAnswer
from ..transport.failures import Outcome
from ..transport.resumable import Resumable
from .propfind import parse_checksums, parse_time

__all__ = ("Download", "digests", "shows_whole_file")

_log = logging.getLogger(__name__)


class Download(Resumable):
    """The answer that brings a whole file.

    Parameters
    ----------
    answer : `DataAnswer`
        Answer with status 200, or with a range that is the whole file.
    url : `str`
        What is read, in the user's own form.
    at_pool : `bool`
        Whether a pool sends it.
    resume : `~collections.abc.Callable`, optional
        Returns an answer that goes on at an offset, surely with the same file; `None` if there is none.
    """

    def __init__(
        self,
        answer: DataAnswer,
        url: str,
        *,
        at_pool: bool,
        resume: Callable[[Download, int], DataAnswer | None] | None = None,
    ) -> None:
        super().__init__(answer, url)
        self._resume = resume
        self.headers = answer.headers
        self.at_pool = at_pool
        self.alone = False  # whether it has to come in one stream
        self.size = answer.length
        self.checksums = digests(answer)
        # Framing and checksum each show a cut; where neither does, the size has to come from elsewhere.
        self.shows_cut = not answer.ends_by_close or "adler32" in self.checksums
        self.is_range = answer.status == 206

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return self.answer.url.partition(":")[0].lower()

    @property
    def info(self) -> FileInfo:
        """What the answer says of the file."""
        headers = self.headers
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
        for view in self.views(seen):
            yield bytes(view)
        self.verify(seen)

    def read(self) -> bytes:
        """Return all bytes, verified as by `pieces`."""
        seen = Adler32()
        data = self.read_all(self.size, seen)
        self.verify(seen)
        return data

    def pump(self, sink: Callable[[memoryview], object]) -> None:
        """Give all bytes to a function, from one piece of memory, and verify them as by `pieces`.

        Parameters
        ----------
        sink : `~collections.abc.Callable`
            Takes a piece, and does not keep it.
        """
        seen = Adler32()
        for piece in self.views(seen, self.size):
            sink(piece)
        self.verify(seen)

    def _rest(self, offset: int) -> DataAnswer | None:
        # Of a file of which nothing has come yet, the whole is asked for.
        return None if self._resume is None or offset == 0 else self._resume(self, offset)

    def verify(self, seen: Adler32) -> None:
        """Compare what arrived with what was announced.

        Parameters
        ----------
        seen : `Adler32`
            Of all bytes that arrived.

        Raises
        ------
        IntegrityError
            Raised if length or checksum differ.
        """
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
        value = answer.headers.get(name)
        if value:
            found |= parse_checksums(value)
    return found


def shows_whole_file(answer: DataAnswer) -> bool:
    """Tell whether an answer to a range that was asked for without an end brings all of a file.

    Parameters
    ----------
    answer : `DataAnswer`
        Answer of a pool.
    """
    size = answer.length or 0
    return answer.status == 206 and answer.headers.get("Content-Range") == f"bytes 0-{size - 1}/{size}"
