"""What a datastore needs of a storage system, whatever its wire protocol.

`Store` is the seam of this package: the file system, the `ResourcePath` and the datastore know nothing else,
and one conformance suite holds for every implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

from ..auth.credential import Credential
from ..auth.grant import Grant
from ..auth.macaroon import Activity
from ..model import ByteRange, FileInfo, UnfinishedUpload
from ..transport.deadline import Deadline
from ..webdav.markers import Vigil
from .tape import Tape

__all__ = ("Carrier", "CopyRules", "Landing", "Progress", "RemoteReader", "RemoteWriter", "Store")


Carrier = Literal["server", "client"]
"""Who moves the bytes of a copy."""


class Progress(Protocol):
    """Who wants to know how far a transfer is; the callbacks of fsspec do. Called by one thread at a time."""

    def set_size(self, size: int) -> object:
        """Be told the size in bytes."""
        ...

    def absolute_update(self, value: int) -> object:
        """Be told how many bytes have been transferred; fewer than before if a transfer begins anew."""
        ...


class RemoteReader(Protocol):
    """A file that is open for reading: one redirect, any number of reads (not thread-safe, closes once)."""

    @property
    def info(self) -> FileInfo:
        """Size and, where known, checksums of the file that is read."""
        ...

    @property
    def known_size(self) -> int | None:
        """Size of the file if an answer has told it already; never asks."""
        ...

    def read_ranges(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Return the bytes of each range, in order, each of exactly its length."""
        ...

    def read_tail(self, count: int) -> tuple[int, bytes]:
        """Return the last bytes of the file and the offset of the first of them, which tells the size."""
        ...

    def stream(self, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes from an offset to the end; a read from 0 to the end is verified by checksum."""
        ...

    def close(self) -> None:
        """Give the mover back."""
        ...


class RemoteWriter(Protocol):
    """A file that is being written under a temporary name (not thread-safe)."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send the next bytes, or keep them for the next call; return how many."""
        ...

    @property
    def has_begun(self) -> bool:
        """Whether something was sent."""
        ...

    def take_back(self) -> bytes | None:
        """Return what was written and end, if nothing was sent; else `None`, and nothing happens."""
        ...

    def commit(self) -> FileInfo:
        """Verify and publish the file under its name; afterwards a reader sees all of it."""
        ...

    def abort(self) -> None:
        """Forget the file; the name is as it was before. A second time, or after `commit`, it is no error."""
        ...

    def forget(self) -> None:
        """As `abort`, but for the garbage collector: nothing is waited for."""
        ...


@dataclass(frozen=True)
class CopyRules:
    """What one end of a copy between servers wants and can do.

    Parameters
    ----------
    way : `str`
        ``auto``, ``pull``, ``push`` or ``never`` (`..config.settings.EndpointSettings`).
    pulls : `bool`
        Whether its server fetches files from others, as far as is known.
    pushes : `bool`
        Whether it sends files to others.
    pushes_to_signed : `bool`
        Whether it sends them to URLs that are signed for a PUT.
    from_bytes : `int`
        Size from which its server is asked to.
    stall_seconds : `float` or `None`
        For how long no byte may move.
    seconds : `float`
        How long a copy may take for which nobody has set a deadline, if its size does not need more.
    """

    way: str = "auto"
    pulls: bool = False
    pushes: bool = False
    pushes_to_signed: bool = False
    from_bytes: int = 1
    stall_seconds: float | None = None
    seconds: float = 3600.0


class Landing(Protocol):
    """A temporary name to which the bytes of a copy come; nothing is left of it after the context."""

    def grant(self, seconds: float) -> Grant:
        """Return the right to write there, for another server and for so long."""
        ...

    def pull(self, source: Grant, vigil: Vigil, *, algorithm: str) -> None:
        """Have our server fetch a file there, and compute such a checksum; see `ThirdPartyCopies.pull`."""
        ...

    def look(self, algorithm: str) -> FileInfo | None:
        """Return what has come, with such a checksum where the server tells it; `None` if nothing has."""
        ...

    def publish(self, info: FileInfo) -> FileInfo:
        """Give what came its name."""
        ...


class Store(Protocol):
    """One storage endpoint.

    Notes
    -----
    URLs are absolute, percent-encoded, of a scheme that the store serves (``davs://host:port/path``), and
    those of directories end in ``/``. Every method raises errors of `lsst.daf.butler_dcache.errors` only, may
    be called from any thread and after ``fork``, and ends within the deadline of the endpoint's
    configuration. "Absent" is never said unless the server said so: a refused or failed look-up raises.
    """

    def stat(self, url: str) -> FileInfo:
        """Return what has this name (1 request, on S3 2 if no file has it), or `ResourceNotFoundError`."""
        ...

    def exists(self, url: str) -> bool:
        """Ask the server whether there is a file or directory; as many requests as for `stat`."""
        ...

    def size(self, url: str) -> int:
        """Return the size in bytes: 0 for a directory; no request within 60 s of this process's own write."""
        ...

    def info(self, url: str) -> FileInfo:
        """As `stat`, but no request within 60 s of this process's own write."""
        ...

    def list_directory(self, url: str) -> list[FileInfo]:
        """Return what a directory holds (1 request, 2 for one that looks empty; on S3 1 per thousand)."""
        ...

    def iter_directory(self, url: str) -> Iterator[FileInfo]:
        """Yield what a directory holds as it comes, in memory that does not grow with it."""
        ...

    def read(self, url: str) -> bytes:
        """Return the whole file, verified."""
        ...

    def read_ranges(self, url: str, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Return parts of a file; each range is cut at the end of the file."""
        ...

    def download(self, url: str, target: BinaryIO, progress: Progress | None = None) -> FileInfo:
        """Copy the whole file, verified, to a binary file that is positioned where it shall begin."""
        ...

    def open_reader(self, url: str, *, deadline: Deadline | None = None) -> RemoteReader:
        """Open a file for any number of reads, each in its own time or all by a deadline."""
        ...

    def write(
        self, url: str, data: bytes | BinaryIO, *, overwrite: bool = True, deadline: Deadline | None = None
    ) -> FileInfo:
        """Publish bytes, or a file from its position to its end, atomically and verified.

        Parameters
        ----------
        url : `str`
            Name under which all of it appears at once.
        data : `bytes` or binary file
            What to write.
        overwrite : `bool`, optional
            Whether a file of that name is replaced; if not, exactly one of several writers succeeds and the
            others get `ResourceExistsError`.
        deadline : `~..transport.deadline.Deadline`, optional
            When to give up; as the endpoint's settings say if not given.
        """
        ...

    def open_writer(
        self,
        url: str,
        *,
        overwrite: bool = True,
        size: int | None = None,
        deadline: Deadline | None = None,
    ) -> RemoteWriter:
        """Begin a file that is written piece by piece.

        Parameters
        ----------
        url : `str`
            Name under which all of it appears at once, when it is committed.
        overwrite : `bool`, optional
            As for `write`.
        size : `int`, optional
            Its exact size, where it is known: the server is told, and compares.
        deadline : `~..transport.deadline.Deadline`, optional
            When to give up; each call has its own if not given.
        """
        ...

    @property
    def makes_parents(self) -> bool:
        """Whether an upload makes the directories above it; `False` as long as that is not known."""
        ...

    def make_directory(self, url: str) -> None:
        """Make a directory and its parents; one that exists is not an error."""
        ...

    def remove(self, url: str) -> None:
        """Remove a file or an empty directory; `ResourceNotFoundError` if there is none."""
        ...

    def move(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """Rename a file, into a directory that is made if need be; on S3 by a verified copy and a removal."""
        ...

    def copy(
        self,
        source: str,
        target: str,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
        deadline: Deadline | None = None,
        on_way: Callable[[Carrier], object] | None = None,
        known: FileInfo | None = None,
    ) -> FileInfo:
        """Copy a file on this server and verify the copy; see `..transfers.transfer`."""
        ...

    def exists_many(self, urls: Iterable[str]) -> dict[str, bool]:
        """Ask for many names with few requests; raises rather than guess."""
        ...

    def info_many(self, urls: Iterable[str], *, fresh: bool = False) -> dict[str, FileInfo | None]:
        """Ask about many names with few requests.

        Parameters
        ----------
        urls : `~collections.abc.Iterable` [`str`]
            The names.
        fresh : `bool`, optional
            As `stat`: what this process itself wrote is asked about, too. If not, as `info`.

        Returns
        -------
        infos : `dict` [`str`, `~..model.FileInfo` or `None`]
            By URL; `None` where the server says that there is nothing.
        """
        ...

    def remove_many(self, urls: Iterable[str]) -> Mapping[str, Exception | None]:
        """Remove many names, with no look before; per URL its error or `None`, on S3 also for none."""
        ...

    @property
    def copy_rules(self) -> CopyRules:
        """What this end of a copy between servers wants and can do."""
        ...

    def offer(self, url: str, algorithm: str, deadline: Deadline | None = None) -> FileInfo:
        """As `stat`, with a checksum of this kind where the server tells it soon."""
        ...

    def grant(self, url: str, seconds: float, deadline: Deadline | None = None) -> Grant:
        """Return the right to read a file, for another server and for so long; `UnsupportedError` if none."""
        ...

    def push(self, url: str, destination: Grant, vigil: Vigil, deadline: Deadline) -> None:
        """Have the server send a file; what came is to be verified (see `ThirdPartyCopies.push`)."""
        ...

    def landing(
        self, url: str, size: int, *, overwrite: bool, deadline: Deadline
    ) -> AbstractContextManager[Landing]:
        """Prepare for a file of this size that a server brings; `UnsupportedError` where that cannot be."""
        ...

    def unfinished_uploads(self, url: str) -> Iterator[UnfinishedUpload]:
        """Yield the uploads below a directory that take space but have no name, if this server has such."""
        ...

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Abort one of them; `ResourceNotFoundError` if it has ended meanwhile."""
        ...

    def tape(self, deadline: Deadline | None = None) -> Tape:
        """Return what the site's tape can be asked, found by then; `UnsupportedError` where it has none."""
        ...

    def presign(self, url: str, method: str, lifetime_seconds: int) -> str:
        """Return an ``https`` URL that gives whoever holds it this one right (GET or PUT) for a while."""
        ...

    def delegate(
        self,
        url: str,
        *,
        activities: Collection[Activity],
        lifetime_seconds: float,
        addresses: Collection[str] = (),
        max_upload_bytes: int | None = None,
    ) -> Credential:
        """Return a credential for somebody else: for one file or directory, some activities and some time."""
        ...

    def mint(
        self,
        url: str,
        *,
        activities: Collection[Activity] = (),
        lifetime_seconds: float | None = None,
        addresses: Collection[str] = (),
        max_upload_bytes: int | None = None,
    ) -> Credential:
        """Ask the server for such a credential, signed anew; with none of its activities named, for all."""
        ...
