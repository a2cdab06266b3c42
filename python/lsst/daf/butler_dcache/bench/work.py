"""What is measured: a piece of work that every peer is given in the same words."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

__all__ = ("Access", "Job", "Outcome", "UnsupportedWorkError", "Work", "contents", "pieces")

_BLOCK_BYTES = 1024 * 1024


class UnsupportedWorkError(Exception):
    """A peer cannot do a piece of work; the text says why."""


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Parameters
    ----------
    operation : `str`
        ``get``, ``put``: whole files, ``count`` of them. ``read_random``, ``read_vector``: ``count`` pieces
        of one file, one at a time or in one call. ``read_sequential``, ``write_sequential``: one file through
        ``open`` in pieces. ``read_scattered``, ``column``, ``column_by_name``, ``member``: parts of a file as
        libraries read them. ``look``: one file is asked for ``count`` times, whether it is there. ``delete``:
        ``count`` files are removed by one call.
    size_bytes : `int`
        Size of each file.
    count : `int`
        Number of files, or of pieces.
    threads : `int`
        How many at a time, in one process.
    piece_bytes : `int`
        Size of a piece.
    sink : `str`
        Where the bytes of ``get`` go: ``discard`` (pieces are overwritten by the next), ``memory`` (all of it
        as `bytes`), ``file``.
    digest : `bool`
        Whether bytes are verified by checksum; a peer that cannot says so in its notes.
    publish : `str`
        ``atomic``: a reader never sees a part of the file. ``plain``: as the peer does it without being
        asked.
    seed : `int`
        Of everything that is random.
    needed_bytes : `int`
        How many bytes of the file are wanted, where its contents say so.
    processes : `int`
        How many processes do all this, each of them.
    """

    operation: str
    size_bytes: int
    count: int = 1
    threads: int = 1
    piece_bytes: int = 0
    sink: str = "discard"
    digest: bool = True
    publish: str = "atomic"
    seed: int = 20261124
    needed_bytes: int = 0
    processes: int = 1

    @property
    def file_count(self) -> int:
        """Number of files that exist before."""
        if self.operation in ("put", "write_sequential", "delete"):
            return 0
        return self.count if self.operation == "get" else 1

    @property
    def total_bytes(self) -> int:
        """Size in bytes of all that the caller gets or gives; the number of files that are removed."""
        if self.operation in ("get", "put"):
            return self.size_bytes * self.count
        if self.operation == "delete":
            return self.count
        if self.operation == "look":
            return self.size_bytes * self.count * self.processes
        if self.operation in ("read_random", "read_vector", "read_scattered"):
            return self.piece_bytes * self.count
        return self.needed_bytes or self.size_bytes

    def offsets(self) -> list[int]:
        """Return where the pieces begin: drawn over the file, none overlapping another.

        Returns
        -------
        offsets : `list` [`int`]
            In the order of the draw, ``count`` of them.
        """
        slots = self.size_bytes // self.piece_bytes
        return [slot * self.piece_bytes for slot in random.Random(self.seed).sample(range(slots), self.count)]


@dataclass(frozen=True)
class Access:
    """How a client reaches a target.

    Parameters
    ----------
    url : `str`
        Its directory, ``http`` or ``https``, with trailing slash.
    environment : `~collections.abc.Mapping` [`str`, `str`]
        Variables for clients that read the site's configuration.
    ca_file : `str` or `None`
        Certificate of the authority.
    token_file : `str` or `None`
        File with a bearer token.
    password_file : `str` or `None`
        File with the password of ``user``.
    user : `str` or `None`
        Account for Basic authentication.
    bucket : `str`
        Where it is an S3 server: the bucket. ``url`` is that of its endpoint then, and the keys stand in
        ``environment``, where every client looks for them.
    """

    url: str
    environment: Mapping[str, str]
    ca_file: str | None = None
    token_file: str | None = None
    user: str | None = None
    password_file: str | None = None
    bucket: str = ""

    @property
    def root(self) -> str:
        """The directory as a ``dav``, ``davs`` or ``s3`` URL."""
        return f"s3://{self.bucket}/" if self.bucket else "dav" + self.url.removeprefix("http")


@dataclass(frozen=True)
class Job:
    """A piece of work for one child process.

    Parameters
    ----------
    peer : `str`
        Who does it.
    work : `Work`
        What.
    access : `Access`
        Where.
    names : `tuple` [`str`, ...]
        Files to read, or to write, below the target's directory.
    contact : `str`
        A small file that is there, for a client's first contact before the clock starts; empty if that is
        part of the work. XRootD 6.2.1 does not always answer a HEAD
        for its top directory.
    scratch : `str`
        Local folder for results, whose content nobody needs afterwards.
    source : `str`
        Local file of ``work.size_bytes`` bytes, for uploads.
    """

    peer: str
    work: Work
    access: Access
    names: tuple[str, ...]
    contact: str
    scratch: str
    source: str = ""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return the job that `to_json` described.

        Parameters
        ----------
        record : `~collections.abc.Mapping`
            Fields.

        Returns
        -------
        job : `Job`
            The job.
        """
        fields = dict(record)
        fields["work"] = Work(**fields["work"])
        fields["access"] = Access(**fields["access"])
        fields["names"] = tuple(fields["names"])
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return dataclasses.asdict(self)


@dataclass
class Outcome:
    """What a peer says it did.

    Parameters
    ----------
    bytes_moved : `int`
        Bytes that the caller got or gave.
    notes : `list` [`str`]
        What is to be known of the figure.
    seconds_each : `list` [`float`]
        Times of the single operations, if they were taken.
    """

    bytes_moved: int
    notes: list[str] = dataclasses.field(default_factory=list)
    seconds_each: list[float] = dataclasses.field(default_factory=list)


def contents(size: int, seed: int = 1) -> bytes:
    """Return bytes that compress badly: one random block, repeated.

    Parameters
    ----------
    size : `int`
        How many.
    seed : `int`, optional
        Of the block.

    Returns
    -------
    data : `bytes`
        The same for the same arguments.
    """
    block = random.Random(seed).randbytes(min(size, _BLOCK_BYTES))
    return (block * (size // len(block) + 1))[:size] if block else b""


def pieces(size: int, piece_bytes: int) -> Iterator[memoryview]:
    """Yield `contents` piece by piece, without holding it.

    Parameters
    ----------
    size : `int`
        Of all.
    piece_bytes : `int`
        Of one; a part of 1 MiB.

    Yields
    ------
    piece : `memoryview`
        The next bytes.
    """
    block = memoryview(contents(_BLOCK_BYTES))
    for at in range(0, size, piece_bytes):
        begin = at % _BLOCK_BYTES
        yield block[begin : begin + min(piece_bytes, size - at)]
