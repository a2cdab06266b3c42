"""What a person names: a file or directory at a server or on this machine, in one form for both."""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

from .errors import (
    ConfigurationError,
    CredentialError,
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    ProtocolError,
    ResourceNotFoundError,
)
from .model import EntryKind, FileInfo
from .redaction import redact_url
from .store.bulk import at_once
from .store.protocol import Store
from .store.registry import store_for
from .tree import walk_tree
from .webdav.addresses import LEGAL_IN_PATH

__all__ = ("Place", "look_up")

_REMOTE = ("davs", "dav", "s3")
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

Item = TypeVar("Item")
Walk = Iterator[tuple[str, list[FileInfo], list[FileInfo]]]


@dataclass(frozen=True, slots=True)
class Place:
    """A file or directory, which need not exist.

    Parameters
    ----------
    url : `str`
        URL by which its store knows it, or a path of this machine; one of a directory may end in ``/``.
    store : `~lsst.daf.butler_dcache.store.protocol.Store` or `None`
        Where it is; `None` for this machine.
    """

    url: str
    store: Store | None

    @classmethod
    def parse(cls, text: str) -> Place:
        """Understand what was typed.

        Parameters
        ----------
        text : `str`
            A ``davs://``, ``dav://``, ``s3://`` or ``file://`` URL, a link that somebody shared (``https://``
            with its credential), or a path. What a URL cannot hold is encoded, ``#`` and ``?`` too, so that
            never another name is meant than the one that was typed.

        Raises
        ------
        ConfigurationError
            If it is none of these.
        """
        scheme, mark, rest = text.partition("://")
        scheme = scheme.lower()
        if not mark:
            return cls(_absolute(text), None)
        if scheme == "file":
            host, slash, path = rest.partition("/")
            if host not in ("", "localhost"):
                raise ConfigurationError("a file of this machine is file:///path", url=text)
            return cls(_absolute(slash + unquote(path, errors="surrogateescape")), None)
        query = ""
        if "?authz=" in rest or "&authz=" in rest:
            rest, _, query = rest.partition("?")
        if not (scheme in _REMOTE or (scheme in ("https", "http") and query)):
            raise ConfigurationError(
                f"{redact_url(text)}: expected a davs://, dav:// or s3:// URL, or a path of this machine"
            )
        # urlsplit drops line feeds and tabs, and cuts at "#".
        host, _, path = rest.partition("/")
        path = quote(_NO_ESCAPE.sub("%25", "/" + path), safe=LEGAL_IN_PATH)
        if scheme != "s3":
            path = _without_dots(path)
        url = f"{scheme}://{host}{path}"
        return cls(url, store_for(f"{url}?{query}" if query else url))

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return self.store is None

    @property
    def has_locality(self) -> bool:
        """Whether its server may say if a file is on disk or tape."""
        return not self.is_local and not self.url.startswith("s3:")

    @property
    def path(self) -> str:
        """Path as people write it, without its last slash; the key at S3."""
        path = self.url if self.is_local else unquote(urlsplit(self.url).path)
        return path.rstrip("/") or "/"

    @property
    def name(self) -> str:
        """Last component of the path, as people write it."""
        return self.path.rpartition("/")[2]

    @property
    def directory(self) -> Place:
        """The same with a slash at its end."""
        return self if self.url.endswith("/") else Place(self.url + "/", self.store)

    @property
    def is_root(self) -> bool:
        """Whether it is all that a server, a bucket or this machine has."""
        return posixpath.normpath(self.path) in ("/", "//")

    def is_in(self, other: Place) -> bool:
        """Whether it is another place, or below it, as far as their names tell."""
        return self.store is other.store and f"{self.path}/".startswith(f"{other.path.rstrip('/')}/")

    def below(self, relative: str) -> Place:
        """Return a place below this one.

        Parameters
        ----------
        relative : `str`
            Path, as people write it.

        Raises
        ------
        ProtocolError
            If it leads elsewhere: names come from servers, and objects are called anything.
        """
        if not self.url.startswith("s3:") and any(part in ("", ".", "..") for part in relative.split("/")):
            raise ProtocolError("only an object of S3 can have this name", url=f"{self.url}/{relative}")
        name = relative if self.is_local else quote(relative, safe="/", errors="surrogateescape")
        return Place(f"{self.url.rstrip('/')}/{name}", self.store)

    def of(self, info: FileInfo) -> Place:
        """Return the place of an entry that was found here.

        Parameters
        ----------
        info : `~lsst.daf.butler_dcache.model.FileInfo`
            What was found.
        """
        return Place(info.url, self.store)

    def relative(self, info: FileInfo) -> str:
        """Return the path of an entry below this place, as people write it.

        Parameters
        ----------
        info : `~lsst.daf.butler_dcache.model.FileInfo`
            What was found here.

        Raises
        ------
        ProtocolError
            If it is not below this place.
        """
        # Servers encode names each in their own way (protocol page, section 4.1), so the decoded ones count.
        root, path = self.path.rstrip("/") + "/", self.of(info).path
        if not path.startswith(root):
            raise ProtocolError(f"a listing of {redact_url(self.url)} holds what is not in it", url=info.url)
        return path[len(root) :]

    def stat(self) -> FileInfo:
        """Return what is known of it; `FileNotFoundError` if there is nothing."""
        return _local_info(self.url, follow=True) if self.store is None else self.store.stat(self.url)

    def checksums(self, info: FileInfo, algorithm: str) -> Mapping[str, str]:
        """Return what its server tells of a file, which is asked for it where a listing told nothing.

        Parameters
        ----------
        info : `~lsst.daf.butler_dcache.model.FileInfo`
            What is known of it.
        algorithm : `str`
            Which one is wanted, where the server computes what it is asked for.

        Returns
        -------
        checksums : `~collections.abc.Mapping`
            As in `~lsst.daf.butler_dcache.model.FileInfo.checksums`; none of a file of this machine.
        """
        if self.store is None or info.checksums:
            return info.checksums
        return self.store.offer(self.url, algorithm).checksums

    def is_directory(self) -> bool:
        """Whether there is a directory of this name (1 request); raises if the server will not say."""
        try:
            return self.stat().is_directory
        except FileNotFoundError:
            return False

    def entries(self) -> Iterator[FileInfo]:
        """Yield what the directory holds, as it comes."""
        if self.store is not None:
            yield from self.store.iter_directory(self.directory.url)
            return
        with os.scandir(self.url) as entries:
            for entry in entries:
                yield _local_info(entry.path)

    def walk(self, on_error: Callable[[Exception], object]) -> Walk:
        """Walk the tree below, parents before children.

        Parameters
        ----------
        on_error : `~collections.abc.Callable`
            Is told of each directory that cannot be listed, and may raise.

        Yields
        ------
        url : `str`
            A directory, with its slash.
        directories : `list` [`~lsst.daf.butler_dcache.model.FileInfo`]
            Its directories; those that the caller removes from the list are not entered.
        files : `list` [`~lsst.daf.butler_dcache.model.FileInfo`]
            All else that it holds.
        """
        if self.store is not None:
            yield from walk_tree(self.store, self.directory.url, on_error)
            return
        waiting = [self.directory.url]
        while waiting:
            directory = Place(waiting.pop(), None)
            try:
                entries = sorted(directory.entries(), key=lambda entry: entry.url)
            except FileNotFoundError:
                continue
            except OSError as error:
                on_error(error)
                continue
            directories = [entry for entry in entries if entry.is_directory]
            yield directory.url, directories, [entry for entry in entries if entry.is_file]
            waiting += [entry.url + "/" for entry in reversed(directories)]


def look_up(places: Sequence[Place]) -> list[FileInfo | Exception]:
    """Ask about many names, those of one server together, with few requests.

    Parameters
    ----------
    places : `~collections.abc.Sequence` [`Place`]
        The names.

    Returns
    -------
    answers : `list` [`~lsst.daf.butler_dcache.model.FileInfo` or `Exception`]
        In their order: what is known, or why nothing is, a `FileNotFoundError` if there is nothing.
    """
    by_store: defaultdict[Store, list[str]] = defaultdict(list)
    for place in places:
        if place.store is not None:
            by_store[place.store].append(place.url)
    known = {store: _ask(store, urls) for store, urls in by_store.items()}
    return [
        _attempt(Place.stat, place) if place.store is None else known[place.store][place.url]
        for place in places
    ]


def _ask(store: Store, urls: list[str]) -> Mapping[str, FileInfo | Exception]:
    try:
        return {
            url: info or ResourceNotFoundError("no such file or directory", operation="stat", url=url)
            for url, info in store.info_many(urls, fresh=True).items()
        }
    except CredentialError as error:
        # It holds for all, and the third 401 blocks this host (protocol page, section 1.2).
        return dict.fromkeys(urls, error)
    except DcacheError:
        # One name may have failed for all.
        return _ask_for_each(store, urls)


def _ask_for_each(store: Store, urls: list[str]) -> Mapping[str, FileInfo | Exception]:
    """Have each name tell its own error."""
    lost: list[Exception] = []

    def ask(url: str) -> FileInfo | Exception:
        # Whoever is not there does not answer for the others either, and each would be waited for.
        answer = lost[0] if lost else _attempt(store.stat, url)
        if isinstance(answer, CredentialError | DoorUnavailableError | DeadlineError):
            lost.append(answer)
        return answer

    return dict(zip(urls, at_once(ask, urls), strict=True))


def _attempt(look: Callable[[Item], FileInfo], item: Item) -> FileInfo | Exception:
    try:
        return look(item)
    except (DcacheError, OSError) as error:
        return error


def _absolute(path: str) -> str:
    """Return an absolute path that keeps the slash at its end, which says that a directory is meant."""
    if not path:
        raise FileNotFoundError(errno.ENOENT, "an empty path", path)
    absolute = os.path.abspath(path)
    return absolute + "/" if path.endswith("/") and absolute != "/" else absolute


def _without_dots(path: str) -> str:
    """Return a path of a URL without ``.``, ``..`` and doubled slashes, which servers resolve differently."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean + "/" if path.endswith(("/", "/.", "/..")) and clean != "/" else clean


def _local_info(path: str, follow: bool = False) -> FileInfo:
    """Return what is known of a name of this machine; only what was named is followed into a directory.

    To follow a link to a directory from within a tree may never end.
    """
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        try:
            target = os.stat(path)
        except OSError:
            target = status
        if follow or not stat.S_ISDIR(target.st_mode):
            status = target
    is_directory = stat.S_ISDIR(status.st_mode)
    return FileInfo(
        path,
        EntryKind.DIRECTORY if is_directory else EntryKind.FILE,
        None if is_directory else status.st_size,
        datetime.fromtimestamp(status.st_mtime, UTC),
    )
