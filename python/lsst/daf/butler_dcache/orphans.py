"""What killed writers leave behind, and whether it may go.

An upload has a temporary name that tells which process began it (`.transport.ownership`), and a name that is
written without overwriting may have a directory beside it as lock. A writer that is killed leaves them. Other
temporary names may be in use at this moment, so nothing is removed but what is surely nobody's any more:

- the name of a process of this host that has ended;
- whatever is older than the caller says is long enough: of a process of another host nobody here can know
  whether it lives;
- a lock beside which no upload of that name is in progress, and that is older than an operation can last.

On S3 an upload in parts has no name until it is completed, and nothing tells whose it is: those go by age.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote

from .errors import DcacheError, DirectoryNotEmptyError, ResourceNotFoundError
from .model import EntryKind, FileInfo, UnfinishedUpload
from .store.protocol import Store
from .transport.ownership import Owner, owner_of
from .tree import walk_tree
from .webdav.addresses import is_lock, is_temporary

__all__ = ("Orphan", "find_orphans", "remove_orphans")


@dataclass(frozen=True)
class Orphan:
    """A temporary name on a server, or an upload that has none.

    Parameters
    ----------
    info : `~lsst.daf.butler_dcache.model.FileInfo`
        What the server says of it.
    owner : `~lsst.daf.butler_dcache.transport.ownership.Owner` or `None`
        Whose it was; locks do not say.
    age_seconds : `float` or `None`
        Since it was made or last written, if the server says when that was.
    reason : `str`
        Why it may go; empty if it may be in use.
    upload : `~lsst.daf.butler_dcache.model.UnfinishedUpload` or `None`
        The upload, if it has no name; ``info`` is then of the name that it would have.
    """

    info: FileInfo
    owner: Owner | None
    age_seconds: float | None
    reason: str
    upload: UnfinishedUpload | None = None


def find_orphans(
    store: Store,
    url: str,
    *,
    older_than_seconds: float,
    lock_seconds: float,
    now: datetime | None = None,
) -> Iterator[Orphan]:
    """Yield the temporary names, and the uploads without one, below a directory (1 request per directory).

    Parameters
    ----------
    store : `~lsst.daf.butler_dcache.store.protocol.Store`
        Where.
    url : `str`
        The directory to begin with.
    older_than_seconds : `float`
        Age beyond which nobody can still be writing.
    lock_seconds : `float`
        Age beyond which no operation can still hold a lock.
    now : `datetime.datetime`, optional
        The present, if it is not to be asked from the clock.

    Yields
    ------
    orphan : `Orphan`
        What was found, with a reason if it may go.
    """
    now = now or datetime.now(UTC)
    for _, directories, files in walk_tree(store, url):
        locks = [one for one in directories if is_lock(_name(one))]
        # What lies in a lock or below a temporary name is nobody's either.
        directories[:] = [one for one in directories if one not in locks]
        in_progress: list[str] = []
        for one in files:
            if not is_temporary(_name(one)):
                continue
            owner, age = owner_of(_name(one)), _age(one, now)
            reason = ""
            if owner is not None and owner.is_gone():
                reason = "its process has ended"
            elif age is not None and age > older_than_seconds:
                reason = "it is old"
            else:
                in_progress.append(_published_name(_name(one)))
            yield Orphan(one, owner, age, reason)
        for one in locks:
            age = _age(one, now)
            reason = ""
            if age is not None and age > older_than_seconds:
                reason = "it is old"
            elif age is not None and age > lock_seconds and not _is_taken(one, in_progress):
                reason = "no upload of this name is in progress"
            yield Orphan(one, None, age, reason)
    for upload in store.unfinished_uploads(url if url.endswith("/") else url + "/"):
        info = FileInfo(upload.url, EntryKind.FILE, modified=upload.begun)
        age = _age(info, now)
        reason = "it is old" if age is not None and age > older_than_seconds else ""
        yield Orphan(info, None, age, reason, upload)


def remove_orphans(store: Store, orphans: list[Orphan]) -> dict[int, DcacheError]:
    """Remove those that may go (1 request each at most).

    Parameters
    ----------
    store : `~lsst.daf.butler_dcache.store.protocol.Store`
        Where.
    orphans : `list` [`Orphan`]
        What was found; those without a reason stay.

    Returns
    -------
    errors : `dict` [`int`, `DcacheError`]
        Why what is still there could not be removed, by its place in the list.
    """
    errors: dict[int, DcacheError] = {}
    places = {orphan.info.url: index for index, orphan in enumerate(orphans) if _has_name(orphan)}
    for url, error in store.remove_many(places).items():
        if isinstance(error, DirectoryNotEmptyError):
            error.hint = "A lock is an empty directory, so this one was made by somebody else."
        if isinstance(error, DcacheError) and not isinstance(error, ResourceNotFoundError):
            errors[places[url]] = error
    for index, orphan in enumerate(orphans):
        if orphan.reason and orphan.upload is not None:
            try:
                store.abort_upload(orphan.upload)
            except ResourceNotFoundError:
                continue
            except DcacheError as error:
                errors[index] = error
    return errors


def _has_name(orphan: Orphan) -> bool:
    """Whether it is to be removed by its name."""
    return bool(orphan.reason) and orphan.upload is None


def _name(info: FileInfo) -> str:
    return unquote(info.url.rstrip("/").rpartition("/")[2])


def _age(info: FileInfo, now: datetime) -> float | None:
    return None if info.modified is None else (now - info.modified).total_seconds()


def _published_name(name: str) -> str:
    return name[1:].partition(".")[2]


def _is_taken(lock: FileInfo, in_progress: list[str]) -> bool:
    """Whether an upload in progress may be for the name of a lock; both are cut where they are too long."""
    name = _name(lock)[1:].partition(".lock.")[2]
    return any(name.startswith(other) or other.startswith(name) for other in in_progress)
