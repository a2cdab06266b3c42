"""Byte ranges as a pool reads them (protocol page, section 3.3; dCache ``HttpByteRange.java``)."""

from __future__ import annotations

import re

__all__ = ["BOUNDARY", "MalformedRangeError", "multipart", "parse_ranges"]

BOUNDARY = "__AAAAAAAAAAAAAAAA__"
"""The constant boundary of multipart answers."""


class MalformedRangeError(ValueError):
    """A header that is no list of byte ranges."""


def parse_ranges(header: str, size: int) -> list[tuple[int, int]]:
    """Return first and last byte of each valid range, in the order of the request.

    Members that are invalid or lie beyond the end are dropped; nothing is merged or sorted.

    Raises
    ------
    MalformedRangeError
        Raised unless the header is ``bytes=`` (lower case) and something.
    """
    if not header.startswith("bytes=") or not header[6:].strip():
        raise MalformedRangeError(header)
    found = []
    for item in header[6:].split(","):
        match = re.fullmatch(r"(\d*)-(\d*)", item.strip())
        if match is None or match[0] == "-":
            continue
        if not match[1]:
            first, last = max(0, size - int(match[2])), size - 1
        else:
            first, last = int(match[1]), min(int(match[2]) if match[2] else size - 1, size - 1)
        if first <= last and first < size:
            found.append((first, last))
    return found


def multipart(ranges: list[tuple[int, int]], size: int) -> tuple[list[bytes], bytes, int]:
    """Return what goes before each part, what goes after the last, and the length of the whole body."""
    heads = [
        f"\r\n--{BOUNDARY}\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n".encode()
        for first, last in ranges
    ]
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()
    length = sum(map(len, heads)) + len(tail) + sum(last - first + 1 for first, last in ranges)
    return heads, tail, length
