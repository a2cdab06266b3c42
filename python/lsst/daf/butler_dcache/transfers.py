"""Files from one store to another, whatever protocols they speak: verified, and nothing kept on this machine.

Where they can, the servers move the bytes (`.store.third_party`), within one server too. Otherwise they pass
through this process, in bounded memory. They are verified as they leave their source, whose last ones are
given away only when all of them were, and as they arrive; and what both ends say of the whole is compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import BinaryIO, cast

from .errors import DcacheError, IntegrityError
from .model import FileInfo
from .remote_file import RemoteFile
from .store.protocol import Carrier, Progress, RemoteReader, Store
from .store.third_party import copied, needed_seconds
from .transport.deadline import Deadline

__all__ = ("transfer",)

_PIECE_BYTES = 1024 * 1024


def transfer(
    source_store: Store,
    source: str,
    target_store: Store,
    target: str,
    *,
    overwrite: bool,
    progress: Progress | None = None,
    deadline: Deadline | None = None,
    on_way: Callable[[Carrier], object] | None = None,
    known: FileInfo | None = None,
) -> FileInfo:
    """Copy a file from one store to another, or within one.

    Parameters
    ----------
    source_store, target_store : `~lsst.daf.butler_dcache.store.protocol.Store`
        From where, and to where.
    source, target : `str`
        URLs of the file and of its copy.
    overwrite : `bool`
        Whether an existing file may be replaced.
    progress : `~lsst.daf.butler_dcache.store.protocol.Progress`, optional
        Is told how many bytes have arrived; fewer than before where the copy begins anew. What it raises ends
        the copy.
    deadline : `~lsst.daf.butler_dcache.transport.deadline.Deadline`, optional
        When to give up, whatever ways were tried. If not given, after ``total_timeout_seconds`` of the more
        impatient of both endpoints, or a second for each megabyte if that is more.
    on_way : `~collections.abc.Callable`, optional
        Is told who moves the bytes: first ``server`` where that is tried, then ``client`` if it fails.
    known : `~lsst.daf.butler_dcache.model.FileInfo`, optional
        What a look of a moment ago says of the source. It is not looked at again then, unless that has no
        checksum or what comes is something else.

    Returns
    -------
    info : `~lsst.daf.butler_dcache.model.FileInfo`
        The copy, with the checksums that were compared; none if it could be compared by size alone.

    Raises
    ------
    ResourceNotFoundError
        If there is no such file.
    ResourceExistsError
        If there is one of the target's name, and it must not be replaced.
    AccessDeniedError
        If a right is missing. If its status is 401 the door has counted it, and the third within 20 s blocks
        this host: who copies a list goes on after one such answer at most.
    IntegrityError
        If the bytes do not fit to what either end says of them. There is no copy then.
    DeadlineError
        If the deadline passed.
    """
    if source_store is target_store:
        return source_store.copy(
            source,
            target,
            overwrite=overwrite,
            progress=progress,
            deadline=deadline,
            on_way=on_way,
            known=known,
        )

    def here(deadline: Deadline) -> FileInfo:
        return _streamed(source_store, source, target_store, target, overwrite, progress, deadline)

    return copied(
        source_store,
        source,
        target_store,
        target,
        here,
        overwrite=overwrite,
        progress=progress,
        deadline=deadline,
        on_way=on_way,
        known=known,
    )


def _streamed(
    source_store: Store,
    source: str,
    target_store: Store,
    target: str,
    overwrite: bool,
    progress: Progress | None,
    deadline: Deadline,
) -> FileInfo:
    """Copy a file whose bytes pass through this process."""
    reader = source_store.open_reader(source, deadline=deadline)
    with _Stream(reader, source, progress, deadline) as stream:
        if target.startswith("s3:"):
            info = _in_parts(stream, target_store, target, overwrite, deadline)
        else:
            # Read anew where the upload has to begin anew.
            info = target_store.write(target, cast(BinaryIO, stream), overwrite=overwrite, deadline=deadline)
        difference = _difference(stream.info, info)
    if difference:
        with contextlib.suppress(DcacheError):
            target_store.remove(target)
        raise IntegrityError(f"the copy differs from its source: {difference}", operation="copy", url=target)
    return info


class _Stream(RemoteFile):
    """The source, as it passes through this process."""

    def __init__(
        self, reader: RemoteReader, name: str, progress: Progress | None, deadline: Deadline
    ) -> None:
        super().__init__(reader, name, sequential=True)
        self._progress = progress
        self._deadline = deadline
        self._is_told = False

    def read(self, size: int | None = -1, /) -> bytes:
        """See `RemoteFile.read`."""
        return self._note(super().read(size))

    def read1(self, size: int = -1, /) -> bytes:
        """See `RemoteFile.read1`."""
        return self._note(super().read1(size))

    def _note(self, piece: bytes) -> bytes:
        if not self._is_told:
            self._is_told = True
            self._deadline.allow(needed_seconds(self.size))
            if self._progress is not None:
                self._progress.set_size(self.size)
        self._deadline.remaining()
        if self._progress is not None:
            self._progress.absolute_update(self.tell())
        return piece


def _in_parts(stream: RemoteFile, store: Store, url: str, overwrite: bool, deadline: Deadline) -> FileInfo:
    """Send a file part by part: each is held until it has arrived, so that nothing is read twice."""
    piece = stream.read1(_PIECE_BYTES)  # its answer tells the size
    writer = store.open_writer(url, overwrite=overwrite, size=stream.size, deadline=deadline)
    try:
        while piece:
            writer.write(piece)
            piece = stream.read1(_PIECE_BYTES)
        return writer.commit()
    except BaseException:
        writer.abort()
        raise


def _difference(source: FileInfo, copy: FileInfo) -> str:
    if source.size != copy.size:
        return f"it has {copy.size} bytes instead of {source.size}"
    for algorithm, value in source.checksums.items():
        if copy.checksums.get(algorithm, value) != value:
            return f"its {algorithm} is {copy.checksums[algorithm]} instead of {value}"
    return ""
