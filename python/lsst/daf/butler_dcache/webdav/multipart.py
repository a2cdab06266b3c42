"""Bodies of 206 answers: one range, or several as ``multipart/byteranges`` (protocol page, section 3.3).

The boundary may occur in the data, so parts are taken by the lengths that their ``Content-Range`` announces
and never by searching. dCache's pool starts the body with an empty line, gives parts no ``Content-Type`` and
keeps the order of the request; other servers merge or sort, which is accepted as long as every range is
covered.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from ..errors import ProtocolError
from ..model import ByteRange

__all__ = ("Part", "parse_content_range", "parts_of", "pick")

_CONTENT_RANGE = re.compile(r"^\s*bytes\s+(\d+)-(\d+)/(\d+|\*)\s*$", re.IGNORECASE)

Part = tuple[ByteRange, memoryview]
"""Where bytes belong, and the bytes."""


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


def parts_of(body: bytes, size: int | None, url: str) -> Iterator[tuple[Part, int | None]]:
    """Yield the parts of a ``multipart/byteranges`` body, each with the size of the file.

    Parameters
    ----------
    body : `bytes`
        The whole body.
    size : `int` or `None`
        Size of the file where it is known.
    url : `str`
        For messages.

    Raises
    ------
    ProtocolError
        Raised if the body is cut or malformed.
    """
    view = memoryview(body)
    position = 0
    while True:
        while body[position : position + 2] == b"\r\n":
            position += 2
        end = body.find(b"\r\n\r\n", position)
        line_end = body.find(b"\r\n", position)
        line = body[position : line_end if line_end >= 0 else len(body)]
        if not line.startswith(b"--"):
            raise ProtocolError("an answer of several ranges is malformed or cut", operation="read", url=url)
        if line.endswith(b"--") and (end < 0 or line_end == end or body[line_end:].strip() == b""):
            return
        if end < 0:
            raise ProtocolError("an answer of several ranges is cut", operation="read", url=url)
        headers = body[line_end + 2 : end].decode("latin-1")
        value = next(
            (
                text.partition(":")[2]
                for text in headers.split("\r\n")
                if text.partition(":")[0].strip().lower() == "content-range"
            ),
            "",
        )
        span, total = parse_content_range(value, size, url)
        start = end + 4
        data = view[start : start + len(span)]
        if len(data) != len(span):
            raise ProtocolError("an answer of several ranges is cut", operation="read", url=url)
        yield (span, data), total
        size = total if size is None else size
        position = start + len(span)


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
        return [bytes(data) for _, data in parts]
    found = []
    ordered = sorted(parts, key=lambda part: part[0].start)
    starts = [span.start for span, _ in ordered]
    for want in wanted:
        # The last part that begins before it covers it, unless a server sends parts that overlap.
        for at in reversed(range(bisect_right(starts, want.start))):
            span, data = ordered[at]
            if want.stop <= span.stop:
                found.append(bytes(data[want.start - span.start : want.stop - span.start]))
                break
        else:
            raise ProtocolError(
                f"the answer lacks the bytes {want.start} to {want.stop - 1}", operation="read", url=url
            )
    return found
