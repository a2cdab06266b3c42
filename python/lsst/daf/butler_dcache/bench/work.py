"""What is measured: a piece of work that every peer is given in the same words."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

__all__ = ("Access", "Job", "Outcome", "Step", "UnsupportedWorkError", "Work", "contents", "pieces")

_BLOCK_BYTES = 1024 * 1024


class UnsupportedWorkError(Exception):
    """A peer cannot do a piece of work; the text says why."""


@dataclass(frozen=True)
class Step:
    """A part of a mix.

    Parameters
    ----------
    operation : `str`
        ``get``, ``put``, ``look``, ``exists_many``, ``delete``, ``remove``, ``rename``, ``mint`` or
        ``presign``.
    size_bytes : `int`
        Size of each file.
    count : `int`
        How many of them, one after the other; ``exists_many`` and ``delete`` take them in one call.
    """

    operation: str
    size_bytes: int = 0
    count: int = 1


@dataclass(frozen=True)
class Work:
    """A piece of work: an operation, and how often.

    Parameters
    ----------
    operation : `str`
        ``get``, ``put``, ``write_sequential``: a whole file. ``read_random``: a piece of a file that stays
        open. ``read_vector``, ``read_scattered``: ``batch`` pieces of a file, in one call of the store or of
        the file system. ``read_sequential``: a file through ``open`` in pieces. ``header``, ``hdu``,
        ``cutout``, ``column``, ``column_by_name``, ``member``: parts of a file as libraries read them.
        ``look``: is a file there? ``exists_many``: how many of ``batch`` files are there? ``delete``:
        ``batch`` files are removed by one call. ``walk``: a directory tree of ``batch`` files. ``remove``,
        ``rename``, ``mint``, ``presign``: one file, or one directory for ``mint``. ``mix``: all of ``steps``.
    size_bytes : `int`
        Size of each file.
    count : `int`
        Number of operations.
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
    rate : `float`
        Operations that arrive per second, at random; times are taken from the moment of arrival, so that
        waiting for one of the ``threads`` counts. 0: each thread goes on as soon as it is done.
    batch : `int`
        Files or pieces of one operation.
    files : `int`
        Number of files that are used in turn; 0: one for each ``get``, else one.
    directory_count : `int`
        How many directories the files of ``walk`` and ``exists_many`` lie in.
    steps : `tuple` [`Step`, ...]
        Of a mix, in this order.
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
    rate: float = 0.0
    batch: int = 1
    files: int = 0
    directory_count: int = 1
    steps: tuple[Step, ...] = ()

    @property
    def makes_files(self) -> bool:
        """Whether every client needs new names, under which nothing is."""
        return self.operation in ("put", "write_sequential")

    @property
    def uses_files_up(self) -> bool:
        """Whether files must be placed anew for every client."""
        return self.operation in ("delete", "remove", "rename")

    @property
    def names_count(self) -> int:
        """Number of names of a job: of files, or of directories for ``walk`` and ``mint``."""
        if self.operation == "mix":
            return self.count * sum(step.count for step in self.steps)
        if self.operation == "exists_many":
            return self.batch
        if self.makes_files or self.uses_files_up:
            return self.count * self.batch
        return self.files or (self.count if self.operation == "get" else 1)

    @property
    def file_count(self) -> int:
        """Number of files that exist before, for all clients."""
        return 0 if self.makes_files or self.uses_files_up else self.names_count

    @property
    def operation_bytes(self) -> int:
        """Size in bytes of what the caller gets or gives in one operation; 0 if it is about names."""
        match self.operation:
            case "get" | "put" | "write_sequential" | "read_sequential":
                return self.size_bytes
            case "read_random" | "read_vector" | "read_scattered":
                return self.piece_bytes * self.batch
            case "mix":
                return sum(
                    step.size_bytes * step.count for step in self.steps if step.operation in ("get", "put")
                )
            case "look" | "exists_many" | "walk" | "delete" | "remove" | "rename" | "mint" | "presign":
                return 0
        return self.needed_bytes or self.size_bytes

    @property
    def total_bytes(self) -> int:
        """Size in bytes of all that the caller gets or gives."""
        return self.operation_bytes * self.count * self.processes

    def offsets(self) -> list[int]:
        """Return where the pieces begin: drawn over the file, none overlapping another.

        Returns
        -------
        offsets : `list` [`int`]
            In the order of the draw, ``batch`` of them for each operation.
        """
        slots = self.size_bytes // self.piece_bytes
        wanted = self.count * self.batch
        return [slot * self.piece_bytes for slot in random.Random(self.seed).sample(range(slots), wanted)]


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
    frontend_url : `str`
        Base of dCache's REST frontend, for clients that cannot do without it; empty if there is none, or if
        nobody knows it.
    xroot_url : `str`
        The directory over XRootD's own protocol, ``root`` or ``roots``, with trailing slash; empty where that
        is not spoken.
    """

    url: str
    environment: Mapping[str, str]
    ca_file: str | None = None
    token_file: str | None = None
    user: str | None = None
    password_file: str | None = None
    bucket: str = ""
    frontend_url: str = ""
    xroot_url: str = ""

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
    sources : `tuple` [`str`, ...]
        The same for each step of a mix; what does not upload has an empty one.
    observe : `bool`
        Whether to record what each request of this package's own clients did, which costs time.
    max_rate : `float`
        Never more operations per second than this, whatever the work says; 0: no limit. An operation on
        ``batch`` names counts as so many.
    deadline_seconds : `float`
        How long the work may take; 0: as long as it takes.

    Notes
    -----
    Operation ``k`` takes ``names[k]``, and begins anew when they are used up; of ``batch`` files, the next
    ``batch``. In a mix it takes as many as the steps have files, in their order.
    """

    peer: str
    work: Work
    access: Access
    names: tuple[str, ...]
    contact: str
    scratch: str
    source: str = ""
    sources: tuple[str, ...] = ()
    observe: bool = False
    max_rate: float = 0.0
    deadline_seconds: float = 0.0

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
        work = dict(fields["work"])
        work["steps"] = tuple(Step(**step) for step in work["steps"])
        fields["work"] = Work(**work)
        fields["access"] = Access(**fields["access"])
        fields["names"], fields["sources"] = tuple(fields["names"]), tuple(fields["sources"])
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
    operations : `int`
        How many were done.
    errors : `dict` [`str`, `int`]
        How many were not, by the class of their error.
    seconds : `dict` [`str`, `~collections.abc.Sequence` [`float`]]
        Single times, of which the histograms of these names are made after the work. ``operation``: each
        that was done, from its arrival where ``Work.rate`` says so, and ``service`` from its beginning then;
        ``failed``: each that was not; ``first_byte``; ``mix.get`` and so on: the steps of mixes.
    histograms : `dict` [`str`, `str`]
        Those that are there already, encoded. ``phase.tls`` and so on: what requests consist of.
    counted : `dict` [`str`, `int`]
        What this package's clients counted themselves.
    cpu_seconds : `float` or `None`
        CPU seconds of those who did the work, where that is neither this process nor a program that it
        started for it.
    """

    bytes_moved: int
    notes: list[str] = dataclasses.field(default_factory=list)
    operations: int = 0
    errors: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds: dict[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    histograms: dict[str, str] = dataclasses.field(default_factory=dict)
    counted: dict[str, int] = dataclasses.field(default_factory=dict)
    cpu_seconds: float | None = None


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
