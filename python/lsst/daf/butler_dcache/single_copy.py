"""One file from anywhere to anywhere, verified, and whether what is there already has the same bytes."""

from __future__ import annotations

import contextlib
import enum
import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from .errors import IntegrityError
from .model import Adler32, EntryKind, FileInfo
from .places import Place
from .store.protocol import Carrier, Progress
from .transfers import transfer
from .transport.deadline import Deadline

__all__ = ("Copy", "Digest", "Outcome", "checksums_of", "copy_one", "is_same", "remove_partial_files")

_PIECE_BYTES = 1024 * 1024
_PARTIAL = ".dcb-"
_HASHES = {"md5": "md5", "sha-1": "sha1", "sha-256": "sha256", "sha-512": "sha512"}


class Outcome(enum.Enum):
    """What became of a copy."""

    SERVER = "server"
    """The servers moved the bytes."""
    CLIENT = "client"
    """The bytes passed through this process."""
    SKIPPED = "skipped"
    """The same bytes were there already."""
    FAILED = "failed"
    """There is an error."""
    NOT_TRIED = "not tried"
    """An error of another copy holds for this one, too."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy that is to be made.

    Parameters
    ----------
    source, target : `~.places.Place`
        The file, and where its copy shall be.
    info : `~.model.FileInfo`, optional
        What a listing of a moment ago says of the source, which is not asked about again then.
    """

    source: Place
    target: Place
    info: FileInfo | None = None


def copy_one(
    copy: Copy, *, overwrite: bool, progress: Progress | None = None, deadline: Deadline | None = None
) -> tuple[Outcome, FileInfo]:
    """Copy a file between any two places.

    Parameters
    ----------
    copy : `Copy`
        What and where to.
    overwrite : `bool`
        Whether an existing file may be replaced.
    progress : `~.store.protocol.Progress`, optional
        Is told what arrives.
    deadline : `~.transport.deadline.Deadline`, optional
        When to give up.

    Returns
    -------
    outcome : `Outcome`
        Who moved the bytes.
    info : `~.model.FileInfo`
        The copy.

    Raises
    ------
    DcacheError
        Raised by cause; the target is as it was then.
    OSError
        Raised if a file of this machine cannot be read or written.
    """
    source, target = copy.source, copy.target
    if target.store is None:
        return Outcome.CLIENT, _to_this_machine(source, target.url, overwrite, progress)
    if source.store is None:
        with _open(source.url) as file:
            stream: Any = file if progress is None else _Watched(file, progress)
            return Outcome.CLIENT, target.store.write(target.url, stream, overwrite=overwrite)
    way = Outcome.CLIENT

    def on_way(carrier: Carrier) -> None:
        nonlocal way
        way = Outcome.SERVER if carrier == "server" else Outcome.CLIENT

    info = transfer(
        source.store,
        source.url,
        target.store,
        target.url,
        overwrite=overwrite,
        progress=progress,
        deadline=deadline,
        on_way=on_way,
        known=copy.info,
    )
    return way, info


class _Watched:
    """A file of this machine that says how much of it was read."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        progress.set_size(os.fstat(file.fileno()).st_size)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._progress.absolute_update(self._file.tell())
        return piece


_partial_files: set[str] = set()


def remove_partial_files() -> None:
    """Remove what is not complete here, for a process that ends without waiting for its threads."""
    for path in list(_partial_files):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _open(path: str) -> BinaryIO:
    """Open a plain file; a pipe or a device may never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a plain file", path)
    return open(path, "rb")


def _to_this_machine(source: Place, path: str, overwrite: bool, progress: Progress | None) -> FileInfo:
    """Copy a file under a temporary name, and give it its name when it is complete and verified."""
    path = path.rstrip("/")
    directory = os.path.dirname(path)
    os.makedirs(directory, exist_ok=True)
    partial = os.path.join(directory, f"{_PARTIAL}{uuid.uuid4().hex}")
    _partial_files.add(partial)
    try:
        with open(partial, "xb") as file:
            if source.store is not None:
                info = source.store.download(source.url, file, progress)
            else:
                info = _copied_here(source.url, file, progress)
        if overwrite:
            os.replace(partial, path)
        else:
            # Unlike a rename it fails if somebody else was faster.
            os.link(partial, path)
            os.unlink(partial)
    except BaseException as error:
        if os.path.lexists(partial):
            os.unlink(partial)
        if isinstance(error, FileExistsError):
            raise FileExistsError(errno.EEXIST, "the name is taken", path) from None
        raise
    finally:
        _partial_files.discard(partial)
    return info


def _copied_here(path: str, target: BinaryIO, progress: Progress | None) -> FileInfo:
    total = Adler32()
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        if progress is not None:
            progress.set_size(size)
        while piece := file.read(_PIECE_BYTES):
            target.write(piece)
            total.update(piece)
            if progress is not None:
                progress.absolute_update(total.size)
    if total.size != size:
        raise IntegrityError(
            f"it had {size} bytes and ended after {total.size}: something changes it: {path}"
        )
    return FileInfo(path, EntryKind.FILE, size, checksums={"adler32": total.hexdigest()})


def checksums_of(path: str, algorithms: Iterable[str]) -> dict[str, str]:
    """Compute checksums of a file of this machine.

    Parameters
    ----------
    path : `str`
        The file.
    algorithms : `~collections.abc.Iterable` [`str`]
        Names as in `~.model.FileInfo.checksums`; those that are not known are left out.

    Returns
    -------
    checksums : `dict` [`str`, `str`]
        Lower-case hexadecimal values by algorithm.
    """
    digest = Digest(algorithms)
    with _open(path) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.write(piece)
    return digest.values()


class Digest:
    """Takes the bytes of a file and keeps their checksums alone.

    Parameters
    ----------
    algorithms : `~collections.abc.Iterable` [`str`]
        Names as in `~.model.FileInfo.checksums`; those that are not known are left out.
    """

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._sums: dict[str, Any] = {}
        for name in algorithms:
            if name == "adler32":
                self._sums[name] = Adler32()
            elif name in _HASHES:
                self._sums[name] = hashlib.new(_HASHES[name], usedforsecurity=False)

    def write(self, data: bytes | memoryview) -> int:
        """Take further bytes into account.

        Parameters
        ----------
        data : bytes-like
            The next ones.

        Returns
        -------
        count : `int`
            How many there were.
        """
        for each in self._sums.values():
            each.update(data)
        return len(data)

    def seekable(self) -> bool:
        """Return `False`: what has gone by cannot be taken back."""
        return False

    def values(self) -> dict[str, str]:
        """Return the checksums, lower-case and hexadecimal, by algorithm."""
        return {name: each.hexdigest() for name, each in self._sums.items()}


def is_same(
    copy: Copy,
    source: FileInfo,
    target: FileInfo,
    *,
    trust_size: bool = False,
    progress: Progress | None = None,
) -> bool:
    """Tell whether a copy has been made already.

    Parameters
    ----------
    copy : `Copy`
        The copy.
    source, target : `~.model.FileInfo`
        What is known of its ends; checksums of files of this machine are computed.
    trust_size : `bool`, optional
        Whether the same size is enough; if not, a checksum that both ends know must be the same.
    progress : `~.store.protocol.Progress`, optional
        May end it, where the source has to be read for that.

    Returns
    -------
    same : `bool`
        Whether that is so; what cannot be compared is not the same.
    """
    if target.size is None or target.size != source.size:
        return False
    if trust_size:
        return True
    # What S3 tells of an object without a checksum of ours is its MD5.
    algorithm = "md5" if copy.source.url.startswith("s3:") or copy.target.url.startswith("s3:") else "adler32"
    ours, theirs = copy.source.checksums(source, algorithm), copy.target.checksums(target, algorithm)
    if copy.source.is_local:
        ours = checksums_of(copy.source.url, theirs or (algorithm,))
    if copy.target.is_local:
        theirs = checksums_of(copy.target.url, ours or (algorithm,))
    if copy.source.store is not None and not ours.keys() & theirs.keys():
        # As from dCache, which has adler32 of each file, to S3. To read one costs less than to copy it.
        digest = Digest(theirs)
        if digest.values():
            copy.source.store.download(copy.source.url, cast(BinaryIO, digest), progress)
            ours = digest.values()
    common = ours.keys() & theirs.keys()
    if copy.target.has_locality and "adler32" not in theirs:
        # What dCache says of MD5 alone may be what an upload announced, and not what came (protocol page,
        # "What surprised us", 2).
        return False
    return bool(common) and all(ours[name] == theirs[name] for name in common)
