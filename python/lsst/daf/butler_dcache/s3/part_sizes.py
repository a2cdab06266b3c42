"""Into how many parts an object is cut, and of what size.

Theory of operation: a multipart upload has at most 10,000 parts, each of 5 MiB to 5 GiB but the last, which
may be smaller (Amazon S3 User Guide, "Amazon S3 multipart upload limits"). Where the size is known the parts
are as large as it needs. A stream is held in memory part by part, for a part must be repeatable and its
checksum is announced before it; of unknown size it begins with small ones, and they grow as long as memory
allows.
"""

from __future__ import annotations

from ..errors import UnsupportedError

__all__ = ("MOST_STREAMED_BYTES", "StreamedParts", "part_size_bytes")

_MIB = 1024 * 1024
_MOST_PARTS = 10_000
_LARGEST_BYTES = 5 * 1024 * _MIB
_MOST_BYTES = _MOST_PARTS * _LARGEST_BYTES
_USUAL_BYTES = 16 * _MIB
"""A request costs little beside so many bytes, and a repeated one little time."""

_STREAM_STEPS = ((2_000, 8 * _MIB), (5_000, 16 * _MIB), (_MOST_PARTS, 24 * _MIB))
"""Up to which part of a stream of unknown size its parts have which size."""
_STREAM_MEMORY_BYTES = 32 * _MIB


def _most_streamed() -> int:
    total = before = 0
    for last, size in _STREAM_STEPS:
        total += (last - before) * size
        before = last
    return total


MOST_STREAMED_BYTES = _most_streamed()
"""Largest stream of unknown size: 179 GiB."""


def part_size_bytes(size: int, usual: int = _USUAL_BYTES, *, url: str = "") -> int:
    """Return the size of the parts of an object whose size is known.

    Parameters
    ----------
    size : `int`
        Bytes of the object.
    usual : `int`, optional
        What they have if that makes few enough of them; at least 5 MiB.
    url : `str`, optional
        The object, for messages.

    Returns
    -------
    part_size : `int`
        Whole MiB; all parts but the last have so many bytes.

    Raises
    ------
    UnsupportedError
        Raised if no parts are large enough.
    """
    if size > _MOST_BYTES:
        raise UnsupportedError(
            f"{size} bytes are more than an S3 object can have: {_MOST_PARTS} parts of "
            f"{_LARGEST_BYTES >> 30} GiB are {_MOST_BYTES} bytes",
            operation="write",
            url=url,
        )
    return max(usual, -(-size // (_MOST_PARTS * _MIB)) * _MIB)


class StreamedParts:
    """The sizes of the parts of an object that is still being written.

    Parameters
    ----------
    size : `int` or `None`
        Its size, if that is known.
    url : `str`
        The object, for messages.

    Notes
    -----
    The parts that are held take at most 48 MiB, of streams up to 62 GiB at most 32 MiB. One of known size
    beyond 234 GiB takes twice the part that it needs, 1 GiB for 5 TB; to write a local file needs no such
    memory.
    """

    def __init__(self, size: int | None, url: str) -> None:
        self._url = url
        self._known = None if size is None else part_size_bytes(size, _STREAM_STEPS[0][1], url=url)

    def size_of(self, number: int) -> int:
        """Return the size of a part.

        Parameters
        ----------
        number : `int`
            Which part, from 1.

        Returns
        -------
        size : `int`
            In bytes; the last part may have less.

        Raises
        ------
        UnsupportedError
            Raised if there can be no such part.
        """
        if self._known is not None and number <= _MOST_PARTS:
            return self._known
        for last, size in _STREAM_STEPS:
            if number <= last:
                return size
        raise UnsupportedError(
            f"a stream of unknown size can have {MOST_STREAMED_BYTES} bytes "
            f"({MOST_STREAMED_BYTES >> 30} GiB) on S3, and more were written",
            operation="write",
            url=self._url,
            hint="Say how large it will be when you open it (size=...), or write it from a local file.",
        )

    def under_way(self, number: int) -> int:
        """Return how many parts may be sent at the same time while the next one is filled.

        Parameters
        ----------
        number : `int`
            The one that is filled.
        """
        return max(1, _STREAM_MEMORY_BYTES // self.size_of(number) - 1)
