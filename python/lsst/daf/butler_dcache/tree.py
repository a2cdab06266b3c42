"""Directory trees of a store: walking them with several requests in flight, removing them, comparing them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import SplitResult, unquote, urlsplit

from .errors import CredentialError, DcacheError, DirectoryNotEmptyError, ResourceNotFoundError
from .model import FileInfo
from .store.protocol import Store
from .webdav.addresses import as_directory, decoded_path

__all__ = ("are_one", "remove_tree", "walk_tree")

_LISTINGS_IN_FLIGHT = 4
_BATCH = 10_000
"""Names that are removed together: twenty bulk requests of dCache, ten of S3."""

_MOST_ERRORS = 20


def walk_tree(
    store: Store, url: str, on_error: Callable[[DcacheError], object] | None = None
) -> Iterator[tuple[str, list[FileInfo], list[FileInfo]]]:
    """Walk a directory tree, parents before children (1 request per directory).

    Parameters
    ----------
    store : `~lsst.daf.butler_dcache.store.protocol.Store`
        Where.
    url : `str`
        The directory to begin with.
    on_error : `~collections.abc.Callable`, optional
        Is told of each directory that cannot be listed, and may raise; if not given, its error is raised. A
        `CredentialError` always is: it holds for all of them, and the third 401 blocks this host.

    Yields
    ------
    url : `str`
        URL of a directory, with its slash.
    directories : `list` [`~lsst.daf.butler_dcache.model.FileInfo`]
        Its directories by name; those that the caller removes from the list are not entered.
    files : `list` [`~lsst.daf.butler_dcache.model.FileInfo`]
        Its files by name.

    Notes
    -----
    A directory that is not there, or vanishes meanwhile, yields nothing; every other error is raised.
    """
    with ThreadPoolExecutor(_LISTINGS_IN_FLIGHT, thread_name_prefix="walk") as pool:
        # The next directory is at the end. Only the next few are being listed, so that the memory for a tree
        # does not grow with its width.
        waiting: list[tuple[str, Future[list[FileInfo]] | None]] = [(as_directory(url), None)]
        try:
            while waiting:
                for index in range(max(0, len(waiting) - _LISTINGS_IN_FLIGHT), len(waiting)):
                    directory, listing = waiting[index]
                    if listing is None:
                        waiting[index] = (directory, pool.submit(store.list_directory, directory))
                directory, listing = waiting.pop()
                assert listing is not None
                try:
                    entries = sorted(listing.result(), key=lambda entry: entry.name)
                except ResourceNotFoundError:
                    continue
                except DcacheError as error:
                    if on_error is None or isinstance(error, CredentialError):
                        raise
                    on_error(error)
                    continue
                directories = [entry for entry in entries if entry.is_directory]
                yield directory, directories, [entry for entry in entries if entry.is_file]
                waiting.extend((as_directory(entry.url), None) for entry in reversed(directories))
        finally:
            for _, listing in waiting:
                if listing is not None:
                    listing.cancel()


def remove_tree(
    store: Store,
    url: str,
    *,
    on_removed: Callable[[str], object] | None = None,
    on_error: Callable[[DcacheError], object] | None = None,
) -> None:
    """Remove a directory and what it holds; one that is not there is not an error.

    Parameters
    ----------
    store : `~lsst.daf.butler_dcache.store.protocol.Store`
        Where.
    url : `str`
        The directory.
    on_removed : `~collections.abc.Callable`, optional
        Is told the name of each file and directory that is gone.
    on_error : `~collections.abc.Callable`, optional
        Is told why something stays, each time; then nothing is raised at the end but a `CredentialError`.

    Raises
    ------
    DirectoryNotEmptyError
        Raised if somebody wrote into a directory meanwhile, or if one was listed as empty and is not; what is
        in it stays.
    DcacheError
        Raised by cause for what could not be removed, after everything else was. Of several errors it is the
        first; the text tells how many there are, and its notes the next ones.

    Notes
    -----
    Everything is removed by name, files before their directories and these from the deepest on, in the
    fewest requests that the server allows, and never a directory that holds something. Memory is needed for
    one batch of names and for the directories above them. Whoever is interrupted begins again.
    """
    removal = _TreeRemoval(store, on_removed, on_error)
    # The directories that are being walked, from the top: parents come before their children.
    above: list[str] = []
    for directory, _, files in walk_tree(store, url, on_error=removal.leave):
        while above and _depth(above[-1]) >= _depth(directory):
            removal.add_directory(above.pop())
        above.append(directory)
        for entry in files:
            removal.add_file(entry.url)
    for directory in reversed(above):
        removal.add_directory(directory)
    removal.end()


class _TreeRemoval:
    """The files and directories of a tree that can be removed, batch by batch."""

    def __init__(
        self,
        store: Store,
        on_removed: Callable[[str], object] | None,
        on_error: Callable[[DcacheError], object] | None,
    ) -> None:
        self._store = store
        self._on_removed = on_removed
        self._on_error = on_error
        self._files: list[str] = []
        self._directories: list[str] = []
        self._kept: set[str] = set()
        """Directories in which something stays."""
        self._errors: list[DcacheError] = []
        self._count = 0

    def add_file(self, url: str) -> None:
        """Remove a file, now or later."""
        self._files.append(url)
        if len(self._files) >= _BATCH:
            self._remove_files()

    def add_directory(self, url: str) -> None:
        """Remove a directory, all of whose contents have been added, now or later."""
        self._directories.append(url)
        if len(self._directories) >= _BATCH:
            self._remove_directories()

    def leave(self, error: DcacheError) -> None:
        """Note what stays, and why."""
        self._kept.add(_above(error.url))
        if self._on_error is not None:
            self._on_error(error)
            return
        self._count += 1
        # Whoever wrote into a directory meanwhile is less of a reason than a refusal.
        if isinstance(error, DirectoryNotEmptyError):
            self._errors.append(error)
        else:
            self._errors.insert(0, error)
        del self._errors[_MOST_ERRORS:]

    def end(self) -> None:
        """Remove the rest, and raise if something stays."""
        self._remove_directories()
        if not self._errors:
            return
        first, *others = self._errors
        if others:
            first.message += f" (and {self._count - 1} more of the tree could not be removed)"
        for error in others:
            first.add_note(str(error))
        raise first

    def _remove_files(self) -> None:
        self._remove(self._files)
        self._files = []

    def _remove_directories(self) -> None:
        self._remove_files()
        levels: dict[int, list[str]] = {}
        for directory in self._directories:
            levels.setdefault(_depth(directory), []).append(directory)
        self._directories = []
        for _, level in sorted(levels.items(), reverse=True):
            kept = self._kept.intersection(level)
            self._kept.update(map(_above, kept))
            self._remove([directory for directory in level if directory not in kept])

    def _remove(self, urls: list[str]) -> None:
        for url, error in self._store.remove_many(urls).items():
            if isinstance(error, CredentialError):
                raise error
            if isinstance(error, DcacheError) and not isinstance(error, ResourceNotFoundError):
                self._kept.add(_above(url))
                self.leave(error)
            elif error is not None and not isinstance(error, ResourceNotFoundError):
                raise error
            elif self._on_removed is not None:
                self._on_removed(url)


def are_one(store: Store, url: str, other_store: Store, other_url: str) -> bool:
    """Tell whether two URLs lead to one file or directory, by whatever names of its server (2 requests).

    Parameters
    ----------
    store, other_store : `~lsst.daf.butler_dcache.store.protocol.Store`
        Where.
    url, other_url : `str`
        The URLs.

    Returns
    -------
    one : `bool`
        Whether both are there and have one entity tag, which dCache makes of the entry's own identifier; S3
        makes it of the contents, so there bucket, key and time must be the same, too.

    Notes
    -----
    A server has several names, a site several doors, and a bucket several profiles: to copy a file onto
    itself is harmless, to remove its "source" afterwards is not.
    """
    place, other_place = urlsplit(url), urlsplit(other_url)
    is_s3 = place.scheme == "s3"
    if is_s3 != (other_place.scheme == "s3"):
        return False
    if is_s3 and _bucket_and_key(place) != _bucket_and_key(other_place):
        return False
    try:
        found, other = store.stat(url), other_store.stat(other_url)
        if is_s3 and found.is_directory and other.is_directory:
            # Of directories nothing is known but what they hold.
            entries, others = (
                store.list_directory(as_directory(url)),
                other_store.list_directory(as_directory(other_url)),
            )
            return sorted(map(_object, entries)) == sorted(map(_object, others))
    except ResourceNotFoundError:
        return False
    if is_s3:
        return _object(found) == _object(other)
    return bool(found.etag) and found.etag == other.etag


def _bucket_and_key(place: SplitResult) -> tuple[str, str]:
    return place.netloc.rpartition("@")[2], unquote(place.path).rstrip("/")


def _object(info: FileInfo) -> tuple[str, ...]:
    """Return what two objects of one name at two servers would hardly share."""
    return info.name, str(info.etag), str(info.size), str(info.modified)


def _above(url: str) -> str:
    """Return the directory that holds a file or directory."""
    return url.rstrip("/").rpartition("/")[0] + "/"


def _depth(url: str) -> int:
    return decoded_path(url).count("/")
