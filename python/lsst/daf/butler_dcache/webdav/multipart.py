"""Bodies of 206 answers: one range, or several as ``multipart/byteranges`` (protocol page, section 3.3).

The boundary may occur in the data, so parts are taken by the lengths that their ``Content-Range`` announces
and never by searching. dCache's pool starts the body with an empty line, gives parts no ``Content-Type`` and
keeps the order of the request; other servers merge or sort, which is accepted as long as every range is
covered. What was not asked for is read and forgotten: no answer takes more memory than the request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import ProtocolError
from ..model import ByteRange
from ..transport.ranges import Part, ReadInto, parse_content_range, wanted_of

__all__ = ("parts_of",)

_AHEAD_BYTES = 32 * 1024
_MOST_HEAD_BYTES = 8 * 1024


def parts_of(
    readinto: ReadInto, wanted: Sequence[ByteRange], size: int | None, url: str
) -> Iterator[tuple[list[Part], int | None]]:
    """Read a ``multipart/byteranges`` body; yield what is wanted of each part, and the size of the file.

    Parameters
    ----------
    readinto : `ReadInto`
        Reads the body.
    wanted : `~collections.abc.Sequence` [ `ByteRange` ]
        What was asked for, in order and without overlap: nothing else is kept in memory.
    size : `int` or `None`
        Size of the file where it is known.
    url : `str`
        For messages.

    Yields
    ------
    parts : `list` [ `Part` ]
        What is wanted of a part.
    size : `int` or `None`
        Size of the file, if the part tells it.

    Raises
    ------
    ProtocolError
        Raised if the body is cut or malformed, or brings more than was asked for.
    """
    body = _ReadAhead(readinto)
    left = sum(map(len, wanted))
    while True:
        head, is_last = body.head(url)
        if not head.startswith(b"--"):
            raise ProtocolError("an answer of several ranges is malformed or cut", operation="read", url=url)
        line, _, fields = head.partition(b"\r\n")
        if line.endswith(b"--") and (is_last or not fields):
            return
        if is_last:
            raise _cut(url)
        value = next(
            (
                text.partition(":")[2]
                for text in fields.decode("latin-1").split("\r\n")
                if text.partition(":")[0].strip().lower() == "content-range"
            ),
            "",
        )
        span, total = parse_content_range(value, size, url)
        parts = wanted_of(body.readinto, span, wanted, url)
        left -= sum(len(data) for _, data in parts)
        if left < 0:
            raise ProtocolError("an answer brings the same bytes again and again", operation="read", url=url)
        yield parts, total
        size = total if size is None else size


class _ReadAhead:
    """A body of which heads are read first and then what follows them."""

    def __init__(self, readinto: ReadInto) -> None:
        self._source = readinto
        self._ahead = bytearray()
        self._piece = memoryview(bytearray(_AHEAD_BYTES))

    def head(self, url: str) -> tuple[bytes, bool]:
        """Return the next delimiter and head, or all that is left, and whether the body ends with it."""
        ahead = self._ahead
        while len(ahead) < 2 or ahead.startswith(b"\r\n"):
            if ahead.startswith(b"\r\n"):
                del ahead[:2]
            elif not self._more():
                break
        while (end := ahead.find(b"\r\n\r\n", 0, _MOST_HEAD_BYTES)) < 0:
            if len(ahead) >= _MOST_HEAD_BYTES:
                raise ProtocolError("the head of a range has no end", operation="read", url=url)
            if not self._more():
                return bytes(ahead), True
        head = bytes(ahead[:end])
        del ahead[: end + 4]
        return head, False

    def _more(self) -> bool:
        count = self._source(self._piece)
        self._ahead += self._piece[:count]
        return count > 0

    def readinto(self, view: memoryview) -> int:
        """Read what is there."""
        if not self._ahead:
            return self._source(view)
        count = min(len(view), len(self._ahead))
        view[:count] = self._ahead[:count]
        del self._ahead[:count]
        return count


def _cut(url: str) -> ProtocolError:
    return ProtocolError("an answer with ranges is cut", operation="read", url=url)
