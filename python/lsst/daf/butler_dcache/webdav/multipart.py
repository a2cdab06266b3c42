"""Bodies of 206 answers: one range, or several as ``multipart/byteranges`` (protocol page, section 3.3).

The boundary may occur in the data, so parts are taken by the lengths that their ``Content-Range`` announces
and never by searching. dCache's pool starts the body with an empty line, gives parts no ``Content-Type`` and
keeps the order of the request; other servers merge or sort, which is accepted as long as every range is
covered. What was not asked for is read and forgotten: no answer takes more memory than the request.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from ..errors import ProtocolError
from ..model import ByteRange

__all__ = ("Part", "ReadInto", "parse_content_range", "parts_of", "pick", "read_up_to", "skip", "wanted_of")

_AHEAD_BYTES = 32 * 1024
_MOST_HEAD_BYTES = 8 * 1024
_SKIP_BYTES = 256 * 1024
_AT_ONCE_BYTES = 64 * 1024 * 1024

_CONTENT_RANGE = re.compile(r"^\s*bytes\s+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)\s*$", re.IGNORECASE)

Part = tuple[ByteRange, memoryview]
"""Where bytes belong, and the bytes."""

ReadInto = Callable[[memoryview], int]
"""Reads what is there into memory; 0 bytes at the end only."""


def parse_content_range(value: str, size: int | None, url: str) -> tuple[ByteRange, int | None]:
    """Return the range that an answer says it holds, and the size of the file if it says that.

    Parameters
    ----------
    value : `str`
        Value of a ``Content-Range`` header.
    size : `int` or `None`
        Size of the file where it is known, which the answer has to agree with.
    url : `str`
        For the message.

    Raises
    ------
    ProtocolError
        Raised if it is malformed or of a file of another size.
    """
    found = _CONTENT_RANGE.match(value)
    if found is None:
        raise ProtocolError(f"Content-Range {value!r} cannot be read", operation="read", url=url)
    first, last, total = int(found[1]), int(found[2]), found[3]
    if last < first or (total != "*" and last >= int(total)):
        raise ProtocolError(f"Content-Range {value!r} contradicts itself", operation="read", url=url)
    if size is not None and total != "*" and int(total) != size:
        raise ProtocolError(
            f"the answer is of a file of {total} bytes, not of the one of {size} bytes that is read",
            operation="read",
            url=url,
            hint="The file was replaced while it was read: open it again.",
        )
    return ByteRange(first, last + 1), None if total == "*" else int(total)


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


def wanted_of(readinto: ReadInto, span: ByteRange, wanted: Sequence[ByteRange], url: str) -> list[Part]:
    """Read a range, and keep of it what is wanted.

    Parameters
    ----------
    readinto : `ReadInto`
        Reads the bytes of the range.
    span : `ByteRange`
        The range.
    wanted : `~collections.abc.Sequence` [ `ByteRange` ]
        What is wanted of the file, in order and without overlap.
    url : `str`
        For the message.

    Returns
    -------
    parts : `list` [ `Part` ]
        In order.

    Raises
    ------
    ProtocolError
        Raised if the bytes end before the range does.
    """
    parts: list[Part] = []
    position = span.start
    for one in wanted[max(0, bisect_right(wanted, span.start, key=_start) - 1) :]:
        start, stop = max(one.start, span.start), min(one.stop, span.stop)
        if one.start >= span.stop:
            break
        if start < stop:
            skip(readinto, start - position)
            data = read_up_to(readinto, stop - start)
            if len(data) < stop - start:
                raise _cut(url)
            parts.append((ByteRange(start, stop), memoryview(data)))
            position = stop
    if skip(readinto, span.stop - position) < span.stop - position:
        raise _cut(url)
    return parts


def skip(readinto: ReadInto, count: int) -> int:
    """Read over bytes that nobody wants.

    Parameters
    ----------
    readinto : `ReadInto`
        Reads them.
    count : `int`
        How many.

    Returns
    -------
    skipped : `int`
        How many there were.
    """
    view = memoryview(bytearray(min(count, _SKIP_BYTES)))
    left = count
    while left and (got := readinto(view[:left])):
        left -= got
    return count - left


def read_up_to(readinto: ReadInto, count: int) -> bytes:
    """Return the next bytes: as many as asked for, unless the body ends before.

    Parameters
    ----------
    readinto : `ReadInto`
        Reads them.
    count : `int`
        How many. It may be any number: memory is taken as the bytes come.
    """
    # `io.BytesIO` lets its memory be written to and then hands it out as `bytes` without a copy.
    memory = io.BytesIO(bytes(min(count, _AT_ONCE_BYTES)))
    filled = 0
    while True:
        with memory.getbuffer() as view:
            room = len(view)
            while filled < room and (got := readinto(view[filled:])):
                filled += got
        if filled < room or filled == count:
            break
        memory.seek(room)
        memory.write(bytes(min(count - filled, _AT_ONCE_BYTES)))
    memory.truncate(filled)
    return memory.getvalue()


def _start(one: ByteRange) -> int:
    return one.start


def _cut(url: str) -> ProtocolError:
    return ProtocolError("an answer with ranges is cut", operation="read", url=url)


def pick(parts: Sequence[Part], wanted: Sequence[ByteRange], url: str) -> list[bytes]:
    """Return the bytes of each wanted range out of the parts of an answer.

    Parameters
    ----------
    parts : `~collections.abc.Sequence` [ `Part` ]
        What the answer holds.
    wanted : `~collections.abc.Sequence` [ `ByteRange` ]
        What was asked for.
    url : `str`
        For the message.

    Raises
    ------
    ProtocolError
        Raised if a range is not covered by one part.
    """
    in_order = len(parts) == len(wanted) and all(
        span == want for (span, _), want in zip(parts, wanted, strict=True)
    )
    if in_order:
        return [_bytes(data) for _, data in parts]
    found = []
    ordered = sorted(parts, key=lambda part: part[0].start)
    starts = [span.start for span, _ in ordered]
    for want in wanted:
        # The last part that begins before it covers it, unless a server sends parts that overlap.
        for at in reversed(range(bisect_right(starts, want.start))):
            span, data = ordered[at]
            if want.stop <= span.stop:
                found.append(_bytes(data[want.start - span.start : want.stop - span.start]))
                break
        else:
            raise ProtocolError(
                f"the answer lacks the bytes {want.start} to {want.stop - 1}", operation="read", url=url
            )
    return found


def _bytes(data: memoryview) -> bytes:
    whole = data.obj
    return whole if isinstance(whole, bytes) and len(whole) == len(data) else bytes(data)
