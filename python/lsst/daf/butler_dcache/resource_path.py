"""``dav://`` and ``davs://`` resources for `lsst.resources`: thin calls into a store, whatever its protocol.

An instance holds nothing but its URL. The store, with its connections and locks, is looked up by URL at each
call, so that instances pickle, deepcopy and cross `os.fork` whether they have been used or not.
"""
# ruff: noqa: N803  (names that the base class dictates)

from __future__ import annotations

import contextlib
import dataclasses
import io
import locale
import logging
import posixpath
import re
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import ParseResult, unquote, urlparse

from lsst.resources import ResourceHandleProtocol, ResourceInfo, ResourcePath
from lsst.resources._resourcePath import MBulkResult
from lsst.resources.utils import get_tempdir

from .config.loading import settings_for
from .copies import copy_many
from .errors import (
    FileBrokenError,
    ResourceIsDirectoryError,
    ResourceIsFileError,
    ResourceNotFoundError,
)
from .filesystem import DcacheFileSystem
from .model import FileInfo, Locality
from .places import Place
from .redaction import redact_url
from .remote_file import RemoteFile
from .single_copy import Copy
from .spooled_upload import SpooledUpload
from .store.protocol import Store
from .store.registry import store_for
from .streamed_upload import StreamedUpload
from .transfers import transfer as between_stores
from .tree import are_one, remove_tree, walk_tree

if TYPE_CHECKING:
    from lsst.resources.utils import TransactionProtocol

__all__ = ("DcacheResourceInfo", "DcacheResourcePath", "collect_publications", "infos_of")

# Users of lsst.resources, and its generic tests, look for messages about resources below this name.
_log = logging.getLogger("lsst.resources.dcache")

_publications: ContextVar[list[FileInfo] | None] = ContextVar("_publications", default=None)


@dataclasses.dataclass(frozen=True)
class DcacheResourceInfo(ResourceInfo):
    """What the server says of a resource, and where its bytes are.

    Parameters
    ----------
    locality : `~lsst.daf.butler_dcache.model.Locality` or `None`
        On disk or on tape; `None` if the server does not say, and for a file that this process wrote within
        the last minute. ONLINE proves nothing about the bytes: the ruin of a cut upload is ONLINE, too.

    Notes
    -----
    The other fields are those of `lsst.resources.ResourceInfo`.
    """

    locality: Locality | None = None


@contextlib.contextmanager
def collect_publications() -> Generator[list[FileInfo]]:
    """Record which files this thread publishes.

    Yields
    ------
    published : `list` [`~lsst.daf.butler_dcache.model.FileInfo`]
        Grows with each file that a `DcacheResourcePath` method publishes within the context.
    """
    published: list[FileInfo] = []
    token = _publications.set(published)
    try:
        yield published
    finally:
        _publications.reset(token)


def _note_publication(info: FileInfo) -> None:
    published = _publications.get()
    if published is not None:
        published.append(info)


class DcacheResourcePath(ResourcePath):
    """A file or directory behind a WebDAV door.

    Notes
    -----
    Made by `lsst.resources.ResourcePath` for ``dav`` and ``davs`` URLs while this package is registered. All
    methods raise errors of `lsst.daf.butler_dcache.errors`, which are the builtin errors too that other
    schemes raise. A method that cannot find out whether something exists raises; it never says "absent".
    """

    def __new__(cls, uri: Any, *args: Any, **kwargs: Any) -> DcacheResourcePath:
        """Make one of a presigned ``https`` URL, too, which `lsst.resources` would take for its own.

        Parameters
        ----------
        uri : `str`, `urllib.parse.ParseResult`, `lsst.resources.ResourcePath` or path
            What it stands for.
        *args, **kwargs
            See `lsst.resources.ResourcePath`.
        """
        if isinstance(uri, str) and uri.lower().startswith(("https://", "http://")):
            uri = urlparse(uri)
        return cast(DcacheResourcePath, super().__new__(cls, uri, *args, **kwargs))

    def __repr__(self) -> str:
        return f'ResourcePath("{redact_url(self.geturl()) if self._uri.query else self.geturl()}")'

    def __reduce__(self) -> tuple[Any, ...]:
        # The base class would make the class of whoever is registered where this is unpickled.
        return _make, (type(self), self.geturl(), self.dirLike, self.isTemporary)

    @classmethod
    def _fixupPathUri(
        cls,
        parsed: ParseResult,
        root: ResourcePath | None = None,
        forceAbsolute: bool = False,
        forceDirectory: bool | None = None,
    ) -> tuple[ParseResult, bool | None]:
        parsed, dir_like = super()._fixupPathUri(parsed, forceDirectory=forceDirectory)
        path = "/" + posixpath.normpath(parsed.path or "/").lstrip("/")
        if dir_like and path != "/":
            path += "/"
        return parsed._replace(path=path), dir_like

    @property
    def _url(self) -> str:
        """What the store is asked for: no query, no fragment (the Butler's name members of a zip)."""
        return self._uri._replace(query="", fragment="").geturl()

    @property
    def _name(self) -> str:
        """What an open file is called: no query, which may hold a token."""
        return self._uri._replace(query="").geturl()

    @property
    def _presigned_url(self) -> str:
        """URL of this resource with the token in its query, if it has one there."""
        if "authz=" not in self._uri.query:
            return self._url
        return self._uri._replace(fragment="").geturl()

    @property
    def _store(self) -> Store:
        return store_for(self._presigned_url)

    @property
    def place(self) -> tuple[Store, str]:
        """Store of this resource, and the URL that it knows it by."""
        return self._store, self._url

    def split(self) -> tuple[ResourcePath, str]:
        """Split into directory and name; see `lsst.resources.ResourcePath.split`.

        Returns
        -------
        head : `DcacheResourcePath`
            The directory.
        tail : `str`
            The name, unquoted; empty for a directory.
        """
        if self.isdir():
            return self, ""
        head, slash, tail = self.path.rpartition("/")
        directory = self.replace(path=head + slash, fragment="", query="", params="", forceDirectory=True)
        return directory, unquote(tail)

    def exists(self) -> bool:
        """Ask the server whether there is a file or directory (1 request).

        Returns
        -------
        exists : `bool`
            What the server said.

        Raises
        ------
        AccessDeniedError
            If the server refuses to say.
        """
        return self._store.exists(self._url)

    def size(self) -> int:
        """Return the size (1 request; none within 60 s of this process's own write).

        Returns
        -------
        size : `int`
            Bytes; 0 for a directory.

        Raises
        ------
        ResourceNotFoundError
            If there is no such file.
        """
        return 0 if self.isdir() else self._store.size(self._url)

    def get_info(self) -> DcacheResourceInfo:
        """Return what the server says of this resource (1 request; none within 60 s of an own write).

        Returns
        -------
        info : `DcacheResourceInfo`
            Size, modification time, checksums by algorithm (``adler32``, ``md5`` ...) and locality.

        Raises
        ------
        ResourceNotFoundError
            If there is no such file or directory.
        FileBrokenError
            If the upload of the file has not ended.
        """
        info = self._store.info(self._url)
        if info.is_file and info.size is None:
            raise FileBrokenError("the upload of this file has not ended", operation="info", url=self._url)
        return DcacheResourceInfo(
            uri=str(self),
            is_file=info.is_file,
            size=info.size or 0,
            last_modified=info.modified,
            checksums=dict(info.checksums),
            locality=info.locality,
        )

    def read(self, size: int = -1) -> bytes:
        """Return the contents, verified if it is the whole.

        Parameters
        ----------
        size : `int`, optional
            Number of bytes from the beginning; all if negative.

        Returns
        -------
        data : `bytes`
            The bytes; fewer than ``size`` if the file is shorter.

        Raises
        ------
        ResourceIsDirectoryError
            If this is a directory.
        ResourceNotFoundError
            If there is no such file.
        IntegrityError
            If size or checksum do not fit.
        """
        self._require_file("read")
        if size < 0:
            return self._store.read(self._url)
        if size == 0:
            return b""
        reader = self._store.open_reader(self._url)
        with RemoteFile(reader, self._name, read_ahead_bytes=0) as handle:
            return handle.read(size)

    def write(self, data: BinaryIO | bytes, overwrite: bool = True) -> None:
        """Publish a file in one step: readers see the old file or all of the new one.

        Parameters
        ----------
        data : `bytes` or binary file
            The contents, from a file's position to its end.
        overwrite : `bool`, optional
            If `False`, exactly one of several writers succeeds.

        Raises
        ------
        ResourceExistsError
            If the file exists and ``overwrite`` is `False`.
        AccessDeniedError
            If the server refuses.
        """
        self._require_file("write")
        _note_publication(self._store.write(self._url, data, overwrite=overwrite))

    def mkdir(self) -> None:
        """Make the directory and its parents, unless it exists.

        Raises
        ------
        ResourceIsFileError
            If this URI looks like a file, or if a file has this name.
        """
        if not self.isdir():
            raise ResourceIsFileError("not a directory-like URI", operation="mkdir", url=self._url)
        self._store.make_directory(self._url)

    def remove(self) -> None:
        """Remove a file or an empty directory; one that is not there is not an error.

        Raises
        ------
        DirectoryNotEmptyError
            If the directory holds something.
        AccessDeniedError
            If the server refuses.
        """
        with contextlib.suppress(ResourceNotFoundError):
            self._store.remove(self._url)

    def remove_dir(self, recursive: bool = False) -> None:
        """Remove a directory, which `lsst.resources.ResourcePath` cannot do for every scheme.

        Parameters
        ----------
        recursive : `bool`, optional
            Whether to remove what it holds, too.

        Raises
        ------
        ResourceIsFileError
            If this URI does not look like a directory.
        DirectoryNotEmptyError
            If it holds something and ``recursive`` is `False`.
        """
        if not self.isdir():
            raise ResourceIsFileError("not a directory-like URI", operation="remove_dir", url=self._url)
        if recursive:
            remove_tree(self._store, self._url)
        else:
            self.remove()

    def walk(
        self, file_filter: str | re.Pattern[str] | None = None
    ) -> Iterator[list[Any] | tuple[ResourcePath, list[str], list[str]]]:
        """Walk the directories below this one (1 request each, several at a time).

        Parameters
        ----------
        file_filter : `str` or `re.Pattern`, optional
            Only files in whose names this is found are given.

        Yields
        ------
        directory : `DcacheResourcePath`
            A directory that holds something.
        directory_names : `list` [`str`]
            Its directories; those that the caller removes from the list are not entered.
        file_names : `list` [`str`]
            Its files.

        Raises
        ------
        ValueError
            If this URI does not look like a directory.
        """
        if not self.isdir():
            raise ValueError(f"Can not walk non-directory URI {redact_url(str(self))}")
        pattern = re.compile(file_filter) if isinstance(file_filter, str) else file_filter
        for url, directories, files in walk_tree(self._store, self._url):
            names = [unquote(info.name) for info in files]
            if pattern is not None:
                names = [name for name in names if pattern.search(name)]
            if not directories and not names:
                continue
            subdirectories = [unquote(info.name) for info in directories]
            query = self._presigned_url[len(self._url) :]
            yield _make(type(self), url + query, True), subdirectories, names
            kept = set(subdirectories)
            directories[:] = [info for info in directories if unquote(info.name) in kept]

    @contextlib.contextmanager
    def _as_local(
        self, multithreaded: bool = True, tmpdir: ResourcePath | None = None
    ) -> Generator[ResourcePath]:
        prefix = tmpdir if tmpdir is not None else ResourcePath(get_tempdir(), forceDirectory=True)
        with ResourcePath.temporary_uri(prefix=prefix, suffix=self.getExtension()) as local:
            with open(local.ospath, "xb") as target:
                self._store.download(self._url, target)
            yield local

    @contextlib.contextmanager
    def _openImpl(
        self, mode: str = "r", *, encoding: str | None = None
    ) -> Generator[ResourceHandleProtocol[Any]]:
        text_encoding = encoding or locale.getpreferredencoding(False)
        if "r" in mode and "+" not in mode:
            with RemoteFile(self._store.open_reader(self._url), self._name) as reader:
                if "b" in mode:
                    yield cast(Any, reader)
                else:
                    with io.TextIOWrapper(cast(Any, reader), encoding=text_encoding) as text:
                        yield cast(Any, text)
            return
        upload: StreamedUpload | SpooledUpload
        if "+" in mode or "a" in mode:
            upload = SpooledUpload(self._store, self._url, overwrite="x" not in mode, directory=get_tempdir())
        else:
            upload = StreamedUpload(
                self._store, self._url, overwrite="x" not in mode, directory=get_tempdir()
            )
        with upload:
            if isinstance(upload, SpooledUpload) and ("r" in mode or "a" in mode):
                upload.load()
                upload.seek(0, io.SEEK_END if "a" in mode else io.SEEK_SET)
            if "b" in mode:
                yield cast(Any, upload)
            else:
                wrapper = io.TextIOWrapper(cast(Any, upload), encoding=text_encoding)
                yield cast(Any, wrapper)
                if not wrapper.closed:
                    wrapper.detach()
        if upload.info is not None:
            _note_publication(upload.info)

    def transfer_from(
        self,
        src: ResourcePath,
        transfer: str = "copy",
        overwrite: bool = False,
        transaction: TransactionProtocol | None = None,
        multithreaded: bool = True,
    ) -> None:
        """Take over the contents of another resource.

        Parameters
        ----------
        src : `lsst.resources.ResourcePath`
            Of any scheme. On the same endpoint the server renames or copies, and between two the servers do
            it where they can (see the page ``third-party-copy``); what they do not is streamed through this
            process. A local file is sent as it is, with its length.
        transfer : `str`, optional
            ``copy``, ``move``, or ``auto``, which copies.
        overwrite : `bool`, optional
            If `False`, an existing file is an error.
        transaction : `lsst.resources.utils.TransactionProtocol`, optional
            Not used: what was published stays.
        multithreaded : `bool`, optional
            Not used.

        Raises
        ------
        ValueError
            If the mode is another one.
        ResourceExistsError
            If this file exists and ``overwrite`` is `False`.
        FileNotFoundError
            If there is no ``src``.
        """
        if transfer not in self.transferModes:
            raise ValueError(f"Transfer mode {transfer} not supported by URI scheme {self.scheme}")
        _log.debug(
            "Transferring %s -> %s (transfer=%s)", redact_url(str(src)), redact_url(str(self)), transfer
        )
        if self == src:
            _log.debug("Source and target are the same resource: %s", redact_url(str(self)))
            return
        self._require_file("write")
        if isinstance(src, DcacheResourcePath):
            src._require_file("read")
            if transfer == "move" and src._store is self._store:
                self._store.move(src._url, self._url, overwrite=overwrite)
                return
            if transfer == "move" and are_one(src._store, src._url, self._store, self._url):
                _log.debug("Source and target are the same file under two names of its server: %s", self._url)
                return
            info = between_stores(src._store, src._url, self._store, self._url, overwrite=overwrite)
            _note_publication(info)
        else:
            with src.as_local() as local, open(local.ospath, "rb") as file:
                self.write(file, overwrite=overwrite)
        if transfer == "move":
            src.remove()

    def generate_presigned_get_url(self, *, expiration_time_seconds: int) -> str:
        """Return a URL with which anybody can read this file for a while.

        Parameters
        ----------
        expiration_time_seconds : `int`
            How long, in seconds.

        Returns
        -------
        url : `str`
            An ``https`` URL that holds a credential: treat it as one.

        Raises
        ------
        UnsupportedError
            If the credential is none that can be attenuated.
        """
        return self._presigned("GET", expiration_time_seconds)

    def generate_presigned_put_url(self, *, expiration_time_seconds: int) -> str:
        """Return a URL with which anybody can write this file for a while.

        Parameters
        ----------
        expiration_time_seconds : `int`
            How long, in seconds.

        Returns
        -------
        url : `str`
            An ``https`` URL that holds a credential: treat it as one.

        Raises
        ------
        UnsupportedError
            If the credential is none that can be attenuated.
        """
        return self._presigned("PUT", expiration_time_seconds)

    def _presigned(self, method: str, lifetime_seconds: int) -> str:
        url = self._store.presign(self._url, method, lifetime_seconds)
        # By which the Butler names the member of a zip, and which no server sees.
        return f"{url}#{self.fragment}" if self.fragment else url

    def to_fsspec(self) -> tuple[DcacheFileSystem, str]:
        """Return a file system and this resource's path in it.

        Returns
        -------
        fs : `~lsst.daf.butler_dcache.filesystem.DcacheFileSystem`
            File system for every endpoint.
        path : `str`
            Path to give to its methods.

        Raises
        ------
        ImportError
            If the endpoint's configuration has ``enable_fsspec: false``; callers then use a local copy.
        """
        if not settings_for(self._url).enable_fsspec:
            raise ImportError(f"fsspec is disabled by the configuration of {self.root_uri()}")
        return DcacheFileSystem(), self._presigned_url

    @classmethod
    def _mtransfer(
        cls,
        transfer: str,
        from_to: Iterable[tuple[ResourcePath, ResourcePath]],
        *,
        overwrite: bool = False,
        transaction: TransactionProtocol | None = None,
    ) -> dict[ResourcePath, MBulkResult]:
        results: dict[ResourcePath, MBulkResult] = {}
        others: list[tuple[ResourcePath, ResourcePath]] = []
        copies: list[Copy] = []
        targets: dict[Place, ResourcePath] = {}
        for source, target in from_to:
            if source == target:
                results[target] = MBulkResult(True, None)
            elif (
                isinstance(source, DcacheResourcePath)
                and isinstance(target, DcacheResourcePath)
                and transfer in ("copy", "auto")
                and not (source.isdir() or target.isdir())
            ):
                copies.append(Copy(Place(source._url, source._store), Place(target._url, target._store)))
                targets[copies[-1].target] = target
            else:
                others.append((source, target))
        # A file that has the same bytes is as good as replaced by them; where none may be it is in the way.
        for result in copy_many(copies, overwrite=overwrite, skip_verified=overwrite):
            results[targets[result.copy.target]] = MBulkResult(result.error is None, result.error)
            if result.info is not None:
                _note_publication(result.info)
        if others:
            results |= super()._mtransfer(transfer, others, overwrite=overwrite, transaction=transaction)
        return results

    @classmethod
    def msize(cls, uris: Iterable[ResourcePath]) -> dict[ResourcePath, int]:
        """Return the sizes of many files with few requests, see `lsst.resources.ResourcePath.mexists`.

        Parameters
        ----------
        uris : `~collections.abc.Iterable` [`lsst.resources.ResourcePath`]
            Resources of this scheme.

        Returns
        -------
        sizes : `dict` [`lsst.resources.ResourcePath`, `int`]
            Bytes of each, as `size` returns them.

        Raises
        ------
        ResourceNotFoundError
            If any of them is not there; the message names the first and says how many there are. Whoever
            expects that asks `mexists` first.
        FileBrokenError
            If the upload of one of them has not ended.
        """
        sizes: dict[ResourcePath, int] = {}
        for uri, info in infos_of(cast(Iterable[DcacheResourcePath], uris)).items():
            if info.is_file and info.size is None:
                raise FileBrokenError("the upload of this file has not ended", operation="size", url=info.url)
            sizes[uri] = info.size or 0
        return sizes

    @classmethod
    def _mexists(
        cls, uris: Iterable[ResourcePath], *, num_workers: int | None = None
    ) -> dict[ResourcePath, bool]:
        existence: dict[ResourcePath, bool] = {}
        for store, by_url in _by_store(uris).items():
            for url, exists in store.exists_many(by_url).items():
                existence.update(dict.fromkeys(by_url[url], exists))
        return existence

    @classmethod
    def _mremove(cls, uris: Iterable[ResourcePath]) -> dict[ResourcePath, MBulkResult]:
        results: dict[ResourcePath, MBulkResult] = {}
        for store, by_url in _by_store(uris).items():
            for url, error in store.remove_many(by_url).items():
                # As for `remove`: gone is gone.
                failed = error is not None and not isinstance(error, FileNotFoundError)
                result = MBulkResult(not failed, error if failed else None)
                results.update(dict.fromkeys(by_url[url], result))
        return results

    def _require_file(self, operation: str) -> None:
        if self.isdir():
            raise ResourceIsDirectoryError("a directory-like URI", operation=operation, url=self._url)


def _make(
    kind: type[DcacheResourcePath], url: str, dir_like: bool | None, is_temporary: bool = False
) -> DcacheResourcePath:
    """Make an instance of this very class, whoever is registered for the scheme."""
    return kind(urlparse(url), forceDirectory=dir_like, isTemporary=is_temporary)


def infos_of(uris: Iterable[DcacheResourcePath]) -> dict[DcacheResourcePath, FileInfo]:
    """Return what the server says of many resources, with few requests.

    Parameters
    ----------
    uris : `~collections.abc.Iterable` [`DcacheResourcePath`]
        The resources.

    Returns
    -------
    infos : `dict` [`DcacheResourcePath`, `~lsst.daf.butler_dcache.model.FileInfo`]
        For each.

    Raises
    ------
    ResourceNotFoundError
        If any of them is not there.
    """
    infos: dict[DcacheResourcePath, FileInfo] = {}
    missing: list[str] = []
    for store, by_url in _by_store(uris).items():
        for url, info in store.info_many(by_url).items():
            if info is None:
                missing.append(url)
            else:
                infos.update((cast(DcacheResourcePath, uri), info) for uri in by_url[url])
    if missing:
        others = f", nor {len(missing) - 1} others" if len(missing) > 1 else ""
        raise ResourceNotFoundError(f"it is not there{others}", operation="info", url=missing[0])
    return infos


def _by_store(uris: Iterable[ResourcePath]) -> Mapping[Store, Mapping[str, list[ResourcePath]]]:
    """Sort resources by store and URL; members of one zip share a URL."""
    groups: defaultdict[Store, dict[str, list[ResourcePath]]] = defaultdict(lambda: defaultdict(list))
    for uri in uris:
        store, url = cast(DcacheResourcePath, uri).place
        groups[store][url].append(uri)
    return groups
