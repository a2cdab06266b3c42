"""Files from one store to another, whatever protocols they speak: streamed, in bounded memory, and verified.

Nothing is kept on this machine. The bytes are verified as they leave their source, whose last ones are given
away only when all of them were, and as they arrive; and what both ends say of the whole is compared.

A server that sends files to signed URLs (XRootD) sends a large one to S3 itself. It is published if both ends
know the same MD5 of it; if not, the bytes pass through this process after all.
"""

from __future__ import annotations

import contextlib
import logging
from typing import BinaryIO, cast

from .errors import DcacheError, IntegrityError, UnsupportedError
from .model import FileInfo
from .redaction import redact_url
from .remote_file import RemoteFile
from .store.protocol import Store

__all__ = ("transfer",)

_log = logging.getLogger(__name__)

_PIECE_BYTES = 1024 * 1024
_LEAST_SENT_BYTES = 16 * 1024**2  # below, our own few requests are as good as the server's seven
_MOST_SENT_BYTES = 5 * 1024**3  # by one PUT
_PATIENCE_SECONDS = 60.0
_SLOWEST_BYTES_PER_SECOND = 1024**2


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
    sent = _sent_by_server(source_store, source, target_store, target, overwrite)
    if sent is not None:
        return sent
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


def _sent_by_server(
    source_store: Store, source: str, target_store: Store, target: str, overwrite: bool
) -> FileInfo | None:
    """Have the source's server send the file; `None` if it cannot, or what came is not what was sent."""
    offered = source_store.offer(source) if target.startswith("s3:") else None
    if offered is None or not _LEAST_SENT_BYTES <= (offered.size or 0) <= _MOST_SENT_BYTES:
        return None
    seconds = _PATIENCE_SECONDS + (offered.size or 0) / _SLOWEST_BYTES_PER_SECOND
    try:
        with target_store.landing(target, overwrite=overwrite) as landing:
            try:
                source_store.push(source, landing.destination(seconds), seconds)
                landing.verify(offered)
            except DcacheError as error:
                _log.warning("the bytes of %s pass through this process: %s", redact_url(source), error)
                return None
            return landing.publish()
    except UnsupportedError:
        return None


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
