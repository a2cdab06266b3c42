"""Parts of a file: what an answer says that it holds, and how what is wanted is taken out of it."""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

from ..errors import ProtocolError
from ..model import ByteRange

__all__ = (
    "Part",
    "ReadInto",
    "cut",
    "merged",
    "parse_content_range",
    "pick",
    "read_up_to",
    "skip",
    "wanted_of",
)

_SKIP_BYTES = 256 * 1024
_AT_ONCE_BYTES = 64 * 1024 * 1024

_CONTENT_RANGE = re.compile(r"^\s*bytes\s+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)\s*$", re.IGNORECASE)

Part = tuple[ByteRange, memoryview]
"""Where bytes belong, and the bytes."""

ReadInto = Callable[[memoryview], int]
"""Reads what is there into memory; 0 bytes at the end only."""


def merged(ranges: Iterable[ByteRange], gap_bytes: int, size: int | None) -> list[ByteRange]:
    """Return what has to be asked for: in order, neighbours in one, nothing beyond the end.

    Parameters
    ----------
    ranges : `~collections.abc.Iterable` [ `ByteRange` ]
        What is wanted.
    gap_bytes : `int`
        How many bytes between two ranges are cheaper than another range.
    size : `int` or `None`
        Size of the file where it is known.
    """
    found: list[ByteRange] = []
    for one in sorted((part for r in ranges if (part := cut(r, size))), key=_start):
        if found and one.start <= found[-1].stop + gap_bytes:
            found[-1] = ByteRange(found[-1].start, max(found[-1].stop, one.stop))
        else:
            found.append(one)
    return found


def cut(one: ByteRange, size: int | None) -> ByteRange | None:
    """Return what of a range a file has; `None` if that is nothing.

    Parameters
    ----------
    one : `ByteRange`
        Any range.
    size : `int` or `None`
        Size of the file where it is known.
    """
    stop = one.stop if size is None else min(one.stop, size)
    return ByteRange(one.start, stop) if one.start < stop else None


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
