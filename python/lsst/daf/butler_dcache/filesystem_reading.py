"""The half of the fsspec file system that looks and reads."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractFileSystem
from fsspec.utils import isfilelike, stringify_path

from .errors import DcacheError, ResourceIsDirectoryError, ResourceIsFileError, ResourceNotFoundError
from .model import ByteRange, FileInfo
from .redaction import redact_url
from .store.bulk import at_once
from .store.protocol import Store
from .store.registry import store_for
from .tree import walk_tree
from .webdav.addresses import LEGAL_IN_PATH

__all__ = ("ReadingFileSystem",)


class ReadingFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The half of `DcacheFileSystem` that changes nothing.

    Parameters
    ----------
    *args, **storage_options
        Passed to `fsspec.spec.AbstractFileSystem`; endpoints and credentials are configured by
        ``LSST_RESOURCES_WEBDAV_CONFIG`` and the environment, never here, so that a file system pickles.

    Notes
    -----
    Paths are whole URLs, ``davs://host:port/path`` or ``s3://[profile@]bucket/key``, percent-encoded as
    everywhere in this package; characters that a URL cannot hold are encoded on the way, except ``?`` and
    ``#``. Listings and sizes are asked for anew each time: a file that was rewritten has its new size.
    "Absent" is said only if the server says so.
    """

    protocol = ("davs", "dav", "s3")
    cachable = True

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return str(stringify_path(path)).rstrip("/")

    @classmethod
    def _parent(cls, path: str) -> str:
        stripped = str(cls._strip_protocol(path))
        parent = stripped.rpartition("/")[0]
        return stripped if parent.endswith("/") else parent

    @property
    def fsid(self) -> str:
        """Name of this kind of file system."""
        return "dcache"

    @staticmethod
    def _place(path: str, directory: bool = False) -> tuple[Store, str]:
        """Return the store of a path, and the URL to give to it."""
        parts = urlsplit(path)
        if parts.scheme not in ("davs", "dav", "s3", "https", "http") or not parts.netloc:
            raise ValueError(f"expected a davs://, dav:// or s3:// URL, not {redact_url(path)!r}")
        name = quote(parts.path.rstrip("/"), safe=LEGAL_IN_PATH)
        url = f"{parts.scheme}://{parts.netloc}{name}"
        return store_for(path), url + "/" if directory or not name else url

    @staticmethod
    def _describe(info: FileInfo) -> dict[str, Any]:
        return {
            "name": info.url.rstrip("/"),
            "size": 0 if info.is_directory else info.size,
            "type": "directory" if info.is_directory else "file",
            "mtime": info.modified,
            "etag": info.etag,
            "checksums": dict(info.checksums),
            "locality": None if info.locality is None else info.locality.value,
        }

    # What there is.

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Ask the server about a file or directory (1 request).

        Parameters
        ----------
        path : `str`
            URL.
        **kwargs
            Ignored.

        Returns
        -------
        info : `dict`
            ``name``, ``size``, ``type``, ``mtime``, ``etag``, ``checksums`` and ``locality``.

        Raises
        ------
        ResourceNotFoundError
            If there is nothing.
        """
        store, url = self._place(self._strip_protocol(path))
        return self._describe(store.stat(url)) | {"name": self._strip_protocol(path)}

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """List a directory (1 request).

        Parameters
        ----------
        path : `str`
            URL; of a file, to get just this file.
        detail : `bool`, optional
            Whether to return dictionaries as `info` does, or URLs.
        **kwargs
            Ignored.

        Returns
        -------
        entries : `list`
            Sorted by name.
        """
        store, url = self._place(self._strip_protocol(path), directory=True)
        try:
            entries = [self._describe(info) for info in store.list_directory(url)]
        except ResourceIsFileError:
            entries = [self.info(path)]
        entries.sort(key=lambda entry: str(entry["name"]))
        return entries if detail else [entry["name"] for entry in entries]

    def walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: str | Callable[[Exception], None] = "omit",
        **kwargs: Any,
    ) -> Iterator[tuple[str, Any, Any]]:
        """Walk a directory tree; see `fsspec.spec.AbstractFileSystem.walk`.

        Parameters
        ----------
        path : `str`
            URL.
        maxdepth : `int`, optional
            How many levels.
        topdown : `bool`, optional
            Parents before children.
        on_error : `str` or callable, optional
            ``omit`` passes over directories that are not there, and over nothing else.
        **kwargs
            ``detail``.

        Returns
        -------
        levels : iterator
            Directory, directories in it, files in it.
        """
        handler = _raise_unless_missing if on_error == "omit" else on_error
        return cast(
            Iterator[tuple[str, Any, Any]],
            super().walk(path, maxdepth=maxdepth, topdown=topdown, on_error=handler, **kwargs),
        )

    def glob(self, path: str, maxdepth: int | None = None, **kwargs: Any) -> Any:
        """Return what fits a pattern; see `fsspec.spec.AbstractFileSystem.glob`.

        Parameters
        ----------
        path : `str`
            Pattern. A presigned URL is none, though it has a ``?``: its file is found to be absent, or not
            to be read, when it is used.
        maxdepth : `int`, optional
            How deep ``**`` goes.
        **kwargs
            See fsspec; ``detail`` for descriptions in place of names.

        Returns
        -------
        found : `list` [`str`] or `dict` [`str`, `dict`]
            Paths; with ``detail`` what they are.
        """
        path = self._strip_protocol(path)
        if not _is_presigned(path):
            return super().glob(path, maxdepth=maxdepth, **kwargs)
        return {path: self.info(path)} if kwargs.get("detail") else [path]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Return all files of a tree (1 request per directory, several at a time).

        Parameters
        ----------
        path : `str`
            URL; that of a file finds the file.
        maxdepth : `int`, optional
            How many levels; all by default.
        withdirs : `bool`, optional
            Whether to return directories as well, ``path`` itself included.
        detail : `bool`, optional
            Whether to return descriptions as of `info` by URL; that of ``path`` takes one more request.
        **kwargs
            Ignored.

        Returns
        -------
        found : `list` [`str`] or `dict` [`str`, `dict`]
            In the order of the URLs; nothing if there is nothing of this name.

        Raises
        ------
        DcacheError
            If a directory cannot be listed: nothing is left out.
        """
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        path = self._strip_protocol(path)
        store, url = self._place(path, directory=True)
        found: dict[str, Any] = {}
        try:
            for directory, directories, files in walk_tree(store, url):
                if withdirs and directory == url:
                    found[path] = self.info(path) if detail else None
                for info in [*directories, *files] if withdirs else files:
                    described = self._describe(info)
                    found[described["name"]] = described
                if maxdepth is not None and directory.count("/") - url.count("/") + 1 >= maxdepth:
                    directories.clear()
        except ResourceIsFileError:
            found[path] = self.info(path)
        return {name: found[name] for name in sorted(found)} if detail else sorted(found)

    def du(
        self,
        path: str,
        total: bool = True,
        maxdepth: int | None = None,
        withdirs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Return the sizes of all files of a tree, as the listings of `find` tell them.

        Parameters
        ----------
        path : `str`
            URL.
        total : `bool`, optional
            Whether to return their sum.
        maxdepth : `int`, optional
            How many levels.
        withdirs : `bool`, optional
            Whether directories are in the result, with size 0.
        **kwargs
            Ignored.

        Returns
        -------
        sizes : `int` or `dict` [`str`, `int`]
            In bytes; 0 for a file whose upload has not ended.
        """
        found = self.find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True)
        sizes = {name: info["size"] or 0 for name, info in found.items()}
        return sum(sizes.values()) if total else sizes

    def sizes(self, paths: list[str]) -> list[int | None]:
        """Return the sizes of many files (1 request per directory of which enough are asked for).

        Parameters
        ----------
        paths : `list` [`str`]
            URLs.

        Returns
        -------
        sizes : `list` [`int` or `None`]
            As `size` returns them one by one, in their order.

        Raises
        ------
        ResourceNotFoundError
            If one of them is not there.
        """
        places = [self._place(self._strip_protocol(path)) for path in paths]
        groups: defaultdict[Store, list[str]] = defaultdict(list)
        for store, url in places:
            groups[store].append(url)
        infos = {url: info for store, urls in groups.items() for url, info in store.info_many(urls).items()}
        for _, url in places:
            if infos[url] is None:
                raise ResourceNotFoundError("no such file", operation="size", url=url)
        return [self._describe(cast(FileInfo, infos[url]))["size"] for _, url in places]

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Ask the server whether there is a file or directory (1 request); raises if it will not say.

        Parameters
        ----------
        path : `str`
            URL.
        **kwargs
            Ignored.

        Returns
        -------
        exists : `bool`
            What the server said.
        """
        store, url = self._place(self._strip_protocol(path))
        return store.exists(url)

    def isfile(self, path: str) -> bool:
        """Whether there is a file (1 request); raises if the server will not say.

        Parameters
        ----------
        path : `str`
            URL.
        """
        return self._kind(path) == "file"

    def isdir(self, path: str) -> bool:
        """Whether there is a directory (1 request); raises if the server will not say.

        Parameters
        ----------
        path : `str`
            URL.
        """
        return self._kind(path) == "directory"

    def _kind(self, path: str) -> str:
        try:
            return str(self.info(path)["type"])
        except ResourceNotFoundError:
            return ""

    def modified(self, path: str) -> datetime | None:
        """Return the time of the last change.

        Parameters
        ----------
        path : `str`
            URL.
        """
        return cast("datetime | None", self.info(path)["mtime"])

    def created(self, path: str) -> datetime | None:
        """Return the time of creation, which is `modified`: a file of dCache is written once.

        Parameters
        ----------
        path : `str`
            URL.
        """
        return self.modified(path)

    def ukey(self, path: str) -> str:
        """Return a text that changes when the file does.

        Parameters
        ----------
        path : `str`
            URL.
        """
        info = self.info(path)
        facts = [info[key] for key in ("name", "size", "mtime", "etag")] + sorted(info["checksums"].items())
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def checksum(self, path: str) -> int:
        """Return a number that changes when the file does.

        Parameters
        ----------
        path : `str`
            URL.
        """
        return int(self.ukey(path), 16)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Return a file, verified, or a part of it.

        Parameters
        ----------
        path : `str`
            URL.
        start, end : `int`, optional
            Part; negative numbers count from the end.
        **kwargs
            Ignored.

        Returns
        -------
        data : `bytes`
            Cut at the end of the file.
        """
        store, url = self._place(self._strip_protocol(path))
        if start in (None, 0) and end is None:
            return store.read(url)
        (data,) = _read_parts(store, url, [(start, end)])
        return data

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        """Return parts of files, all parts of one file by one redirect, several files at a time.

        Parameters
        ----------
        paths : `list` [`str`]
            URLs.
        starts, ends : `int` or `list` [`int`]
            Parts, as for `cat_file`.
        max_gap : `int`, optional
            Ignored.
        on_error : `str`, optional
            ``return`` gives the error in place of the bytes, ``raise`` raises it.
        **kwargs
            Ignored.

        Returns
        -------
        data : `list`
            `bytes`, in the order of ``paths``.
        """
        if not isinstance(paths, list):
            raise TypeError("paths must be a list")
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        if not len(starts) == len(ends) == len(paths):
            raise ValueError("paths, starts and ends differ in length")
        by_path: dict[str, list[int]] = {}
        for index, path in enumerate(paths):
            by_path.setdefault(self._strip_protocol(path), []).append(index)
        results: list[Any] = [b""] * len(paths)

        def read(item: tuple[str, list[int]]) -> list[Any]:
            path, indices = item
            store, url = self._place(path)
            try:
                return list(_read_parts(store, url, [(starts[i], ends[i]) for i in indices]))
            except DcacheError as exc:
                if on_error != "return":
                    raise
                return [exc] * len(indices)

        for indices, parts in zip(by_path.values(), at_once(read, list(by_path.items())), strict=True):
            for index, part in zip(indices, parts, strict=True):
                results[index] = part
        return results

    def get(self, rpath: Any, lpath: Any, *args: Any, **kwargs: Any) -> Any:
        """Copy files to this machine; see `fsspec.spec.AbstractFileSystem.get`.

        Parameters
        ----------
        rpath, lpath : `str` or `list` [`str`]
            From where, and to where. The copy of a presigned URL is not named after its token.
        *args, **kwargs
            See fsspec.
        """
        if isinstance(rpath, str) and _is_presigned(rpath) and isinstance(lpath, str | os.PathLike):
            if os.path.isdir(lpath) or os.fspath(lpath).endswith("/"):
                lpath = os.path.join(lpath, unquote(urlsplit(rpath).path).rpartition("/")[2])
            return super().get([rpath], [os.fspath(lpath)], *args, **kwargs)
        return super().get(rpath, lpath, *args, **kwargs)

    def get_file(
        self,
        rpath: str,
        lpath: Any = None,
        callback: Any = DEFAULT_CALLBACK,
        outfile: Any = None,
        **kwargs: Any,
    ) -> None:
        """Copy a file, verified, to this machine; it has its name only when it is complete.

        Parameters
        ----------
        rpath : `str`
            URL.
        lpath : `str` or file-like
            Where to.
        callback : `fsspec.callbacks.Callback`, optional
            Told of size and progress.
        outfile : file-like, optional
            Where to.
        **kwargs
            Ignored.
        """
        store, url = self._place(self._strip_protocol(rpath))
        if outfile is None and isfilelike(lpath):
            outfile = lpath
        if outfile is not None:
            store.download(url, outfile, callback)
            return
        path = os.fspath(lpath)
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        partial = f"{path}.part{os.getpid()}"
        try:
            with open(partial, "wb") as target:
                store.download(url, target, callback)
            os.replace(partial, path)
        except ResourceIsDirectoryError:
            os.unlink(partial)
            os.makedirs(path, exist_ok=True)
            return
        except BaseException:
            if os.path.exists(partial):
                os.unlink(partial)
            raise

    @staticmethod
    def _report(callback: Any, info: FileInfo) -> None:
        callback.set_size(info.size)
        callback.relative_update(info.size or 0)


def _is_presigned(path: str) -> bool:
    return "authz=" in urlsplit(path).query


def _raise_unless_missing(error: Exception) -> None:
    if not isinstance(error, ResourceNotFoundError):
        raise error


def _read_parts(store: Store, url: str, parts: list[tuple[int | None, int | None]]) -> list[bytes]:
    """Read slices, as Python means them, of a file."""
    if all(start is not None and end is not None and start >= 0 and end >= 0 for start, end in parts):
        slices = cast(list[tuple[int, int]], parts)
        return _fill(slices, lambda wanted: store.read_ranges(url, wanted))
    reader = store.open_reader(url)
    try:
        size = reader.info.size or 0
        return _fill([slice(start, end).indices(size)[:2] for start, end in parts], reader.read_ranges)
    finally:
        reader.close()


def _fill(slices: list[tuple[int, int]], read: Callable[[list[ByteRange]], list[bytes]]) -> list[bytes]:
    """Read those of the slices that are not empty."""
    wanted = [ByteRange(start, stop) for start, stop in slices if start < stop]
    data = iter(read(wanted) if wanted else [])
    return [next(data) if start < stop else b"" for start, stop in slices]
