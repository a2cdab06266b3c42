"""Files from one store to another, whatever protocols they speak: streamed, in bounded memory, and verified.

Nothing is kept on this machine. The bytes are verified as they leave their source, whose last ones are given
away only when all of them were, and as they arrive; and what both ends say of the whole is compared.
"""

from __future__ import annotations

import contextlib
from typing import BinaryIO, cast

from .errors import DcacheError, IntegrityError
from .model import FileInfo
from .remote_file import RemoteFile
from .store.protocol import Store

__all__ = ("transfer",)

_PIECE_BYTES = 1024 * 1024


def transfer(
    source_store: Store, source: str, target_store: Store, target: str, *, overwrite: bool
) -> FileInfo:
    """Copy a file from one store to another.

    Parameters
    ----------
    source_store, target_store : `~lsst.daf.butler_dcache.store.protocol.Store`
        From where, and to where.
    source, target : `str`
        URLs of the file and of its copy.
    overwrite : `bool`
        Whether an existing file may be replaced.

    Returns
    -------
    info : `~lsst.daf.butler_dcache.model.FileInfo`
        The copy.

    Raises
    ------
    ResourceNotFoundError
        If there is no such file.
    ResourceExistsError
        If there is one of the target's name, and it must not be replaced.
    IntegrityError
        If the bytes do not fit to what either end says of them. There is no copy then.
    """
    with RemoteFile(source_store.open_reader(source), source, sequential=True) as stream:
        if target.startswith("s3:"):
            info = _in_parts(stream, target_store, target, overwrite)
        else:
            # Read anew where the upload has to begin anew.
            info = target_store.write(target, cast(BinaryIO, stream), overwrite=overwrite)
        difference = _difference(stream.info, info)
    if difference:
        with contextlib.suppress(DcacheError):
            target_store.remove(target)
        raise IntegrityError(f"the copy differs from its source: {difference}", operation="copy", url=target)
    return info


def _in_parts(stream: RemoteFile, store: Store, url: str, overwrite: bool) -> FileInfo:
    """Send a file part by part: each is held until it has arrived, so that nothing is read twice."""
    piece = stream.read1(_PIECE_BYTES)  # its answer tells the size
    writer = store.open_writer(url, overwrite=overwrite, size=stream.size)
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
