"""Values of the field: what the layers hand to one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from types import MappingProxyType

try:
    # Vector instructions: 0.016 CPU seconds per GiB, against 0.30 of the standard library's.
    from zlib_ng.zlib_ng import adler32
except ImportError:
    from zlib import adler32

_ADLER_BASE = 65521
"""Largest prime below 65536 (RFC 1950, section 8.2)."""

__all__ = ("ON_DISK", "Adler32", "ByteRange", "EntryKind", "FileInfo", "Locality", "UnfinishedUpload")


class EntryKind(Enum):
    """What a name stands for."""

    FILE = "file"
    DIRECTORY = "directory"


class Locality(StrEnum):
    """Where the bytes of a file are (protocol page, section 8.4)."""

    ONLINE = "ONLINE"
    NEARLINE = "NEARLINE"
    ONLINE_AND_NEARLINE = "ONLINE_AND_NEARLINE"
    UNAVAILABLE = "UNAVAILABLE"
    LOST = "LOST"
    NONE = "NONE"

    @classmethod
    def of(cls, text: str | None) -> Locality | None:
        """Return the locality that a server names, `None` if it is none of these.

        Parameters
        ----------
        text : `str` or `None`
            What the server's answer holds.
        """
        try:
            return None if text is None else cls(text)
        except ValueError:
            return None


ON_DISK = frozenset({Locality.ONLINE, Locality.ONLINE_AND_NEARLINE})
"""Where files can be read without being brought from anywhere."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A contiguous part of a file.

    Parameters
    ----------
    start : `int`
        Offset of the first byte.
    stop : `int`
        Offset behind the last byte; larger than ``start``.
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"not a byte range: [{self.start}, {self.stop})")

    def __len__(self) -> int:
        return self.stop - self.start

    def header(self) -> str:
        """Return the value of a ``Range`` header (RFC 9110, section 14.2)."""
        return f"bytes={self.start}-{self.stop - 1}"


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a server says of one name.

    Parameters
    ----------
    url : `str`
        Where, without credentials.
    kind : `EntryKind`
        File or directory.
    size : `int` or `None`
        Bytes; `None` for a directory and for a file whose upload has not ended.
    modified : `datetime.datetime` or `None`
        Time of the last change, with time zone.
    checksums : `~collections.abc.Mapping`
        Lower-case hexadecimal values by algorithm (``adler32``, ``md5``, ``sha-256`` ...).
    etag : `str`, optional
        Entity tag with its quotes; empty if there is none. On dCache it changes with each overwrite and
        survives a rename.
    locality : `Locality` or `None`
        Where the bytes are, if the server says.
    """

    url: str
    kind: EntryKind
    size: int | None = None
    modified: datetime | None = None
    checksums: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    etag: str = ""
    locality: Locality | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.kind is EntryKind.FILE

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.kind is EntryKind.DIRECTORY

    @property
    def name(self) -> str:
        """Last component of the path, percent-encoded as in the URL."""
        return self.url.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """An upload in parts that was begun, and neither completed nor aborted.

    Parameters
    ----------
    url : `str`
        Name under which it would appear.
    identifier : `str`
        What the server calls it.
    begun : `datetime.datetime` or `None`
        When, with time zone, if the server says.
    """

    url: str
    identifier: str
    begun: datetime | None


class Adler32:
    """Size and adler32 of bytes that go by.

    Notes
    -----
    dCache computes adler32 for every upload and gives it with every answer that is asked for it, so that it
    is the one checksum by which each transfer can be verified at no extra request (protocol page, section
    3.6).
    """

    __slots__ = ("_value", "size")

    def __init__(self) -> None:
        self._value = 1
        self.size = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take further bytes into account.

        Parameters
        ----------
        data : bytes-like
            The next bytes of the file.
        """
        self._value = adler32(data, self._value)
        self.size += len(data)

    def append(self, other: Adler32) -> None:
        """Take bytes into account whose own checksum is known.

        Parameters
        ----------
        other : `Adler32`
            Of the bytes that follow those of this one.

        Notes
        -----
        Adler32 is two sums modulo 65521: of the bytes, plus 1, and of the values that the first sum takes
        (RFC 1950, section 9). Each of the other's bytes finds the first sum larger by what it was here, less
        the 1 that both began with.
        """
        low, high = self._value & 0xFFFF, self._value >> 16
        other_low, other_high = other._value & 0xFFFF, other._value >> 16
        high = (high + other_high + other.size * (low - 1)) % _ADLER_BASE
        low = (low + other_low - 1) % _ADLER_BASE
        self._value = high << 16 | low
        self.size += other.size

    def hexdigest(self) -> str:
        """Return the checksum as eight lower-case hexadecimal digits."""
        return f"{self._value & 0xFFFFFFFF:08x}"
