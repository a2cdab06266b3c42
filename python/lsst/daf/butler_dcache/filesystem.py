"""dCache for fsspec, and so for pandas, pyarrow, dask, zarr and astropy; no ``lsst`` package is needed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, BinaryIO, cast
from urllib.parse import quote, urlsplit

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractFileSystem
from fsspec.utils import isfilelike, stringify_path

from .errors import (
    DcacheError,
    ResourceExistsError,
    ResourceIsDirectoryError,
    ResourceIsFileError,
    ResourceNotFoundError,
    UnsupportedError,
)
from .model import ByteRange, FileInfo
from .remote_file import RemoteFile, SpooledUpload, TextUpload
from .store.protocol import Store
from .store.registry import store_for
from .tree import remove_tree

__all__ = ("DcacheFileSystem",)

# Legal in the path of a URL (RFC 3986, section 3.3), and "%", because paths are percent-encoded already.
_LEGAL = "/%:@!$&'()*+,;=-._~"


class DcacheFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """File system of all dCache endpoints that this process may reach.

    Parameters
    ----------
    *args, **storage_options
        Passed to `fsspec.spec.AbstractFileSystem`; endpoints and credentials are configured by
        ``LSST_RESOURCES_WEBDAV_CONFIG`` and the environment, never here, so that a file system pickles.

    Notes
    -----
    Paths are whole URLs, ``davs://host:port/path``, percent-encoded as everywhere in this package; characters
    that a URL cannot hold are encoded on the way, except ``?`` and ``#``. Listings and sizes are asked for
    anew each time: a file that was rewritten has its new size. "Absent" is said only if the server says so.
    """

    protocol = ("davs", "dav")
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
        if parts.scheme not in ("davs", "dav") or not parts.netloc:
            raise ValueError(f"expected a davs:// or dav:// URL, not {path!r}")
        name = quote(parts.path.rstrip("/"), safe=_LEGAL)
        url = f"{parts.scheme}://{parts.netloc}{name}"
        return store_for(url), url + "/" if directory or not name else url

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
        """Whether there is a file (1 request); raises if the server will not say."""
        return self._kind(path) == "file"

    def isdir(self, path: str) -> bool:
        """Whether there is a directory (1 request); raises if the server will not say."""
        return self._kind(path) == "directory"

    def _kind(self, path: str) -> str:
        try:
            return str(self.info(path)["type"])
        except ResourceNotFoundError:
            return ""

    def modified(self, path: str) -> datetime | None:
        """Return the time of the last change."""
        return cast("datetime | None", self.info(path)["mtime"])

    def created(self, path: str) -> datetime | None:
        """Return the time of creation, which is `modified`: a file of dCache is written once."""
        return self.modified(path)

    def ukey(self, path: str) -> str:
        """Return a text that changes when the file does."""
        info = self.info(path)
        facts = [info[key] for key in ("name", "size", "mtime", "etag")] + sorted(info["checksums"].items())
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def checksum(self, path: str) -> int:
        """Return a number that changes when the file does."""
        return int(self.ukey(path), 16)

    # Reading.

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **kwargs: Any,
    ) -> RemoteFile | SpooledUpload:
        store, url = self._place(path)
        if mode == "rb":
            return RemoteFile(store.open_reader(url), path)
        if mode not in ("wb", "xb", "ab", "r+b", "rb+"):
            raise UnsupportedError(f"no such mode: {mode}", operation="open", url=url)
        if mode == "xb" and store.exists(url):
            raise ResourceExistsError("the file exists", operation="open", url=url)
        upload = SpooledUpload(store, url, overwrite=mode != "xb", publish_on_close=autocommit)
        try:
            if mode == "ab" and store.exists(url):
                upload.load()
            elif "r" in mode:
                upload.load()
                upload.seek(0)
        except BaseException:
            upload.discard()
            raise
        return upload

    def open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        """Open a file; see `fsspec.spec.AbstractFileSystem.open`.

        Parameters
        ----------
        path : `str`
            URL.
        mode : `str`, optional
            As for `open`. What is written is published when the file is closed, and not at all if its
            ``with`` block raises.
        *args, **kwargs
            See fsspec.

        Returns
        -------
        file : file-like
            Seekable.
        """
        if "b" in mode or set(mode) <= {"r", "t"} or kwargs.get("compression") is not None:
            return super().open(path, mode, *args, **kwargs)
        text = {key: kwargs.pop(key) for key in ("encoding", "errors", "newline") if key in kwargs}
        return TextUpload(super().open(path, mode.replace("t", "") + "b", *args, **kwargs), **text)

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
        """Return parts of files, all parts of one file by one redirect.

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
        for path, indices in by_path.items():
            store, url = self._place(path)
            try:
                parts: list[Any] = list(_read_parts(store, url, [(starts[i], ends[i]) for i in indices]))
            except DcacheError as exc:
                if on_error != "return":
                    raise
                parts = [exc] * len(indices)
            for index, part in zip(indices, parts, strict=True):
                results[index] = part
        return results

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
            self._report(callback, store.download(url, outfile))
            return
        path = os.fspath(lpath)
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        partial = f"{path}.part{os.getpid()}"
        try:
            with open(partial, "wb") as target:
                info = store.download(url, target)
            os.replace(partial, path)
        except ResourceIsDirectoryError:
            os.unlink(partial)
            os.makedirs(path, exist_ok=True)
            return
        except BaseException:
            if os.path.exists(partial):
                os.unlink(partial)
            raise
        self._report(callback, info)

    @staticmethod
    def _report(callback: Any, info: FileInfo) -> None:
        callback.set_size(info.size)
        callback.relative_update(info.size or 0)

    # Changing.

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Publish bytes as a file.

        Parameters
        ----------
        path : `str`
            URL.
        value : `bytes`
            Contents.
        mode : `str`, optional
            ``create`` refuses to replace a file.
        **kwargs
            Ignored.
        """
        store, url = self._place(self._strip_protocol(path))
        store.write(url, bytes(value), overwrite=mode != "create")

    def put_file(
        self, lpath: Any, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite", **kwargs: Any
    ) -> None:
        """Publish a file of this machine.

        Parameters
        ----------
        lpath : `str`
            Local file; a directory is made as such.
        rpath : `str`
            URL.
        callback : `fsspec.callbacks.Callback`, optional
            Told of size and progress.
        mode : `str`, optional
            ``create`` refuses to replace a file.
        **kwargs
            Ignored.
        """
        if os.path.isdir(lpath):
            self.makedirs(rpath, exist_ok=True)
            return
        store, url = self._place(self._strip_protocol(rpath))
        with open(lpath, "rb") as file:
            self._report(callback, store.write(url, file, overwrite=mode != "create"))

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Make a directory.

        Parameters
        ----------
        path : `str`
            URL.
        create_parents : `bool`, optional
            Whether to make its parents, too.
        **kwargs
            Ignored.
        """
        if not create_parents and not self.isdir(self._parent(path)):
            raise ResourceNotFoundError("no such directory", operation="mkdir", url=self._parent(path))
        self.makedirs(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a directory and its parents.

        Parameters
        ----------
        path : `str`
            URL.
        exist_ok : `bool`, optional
            Whether it may be there.
        """
        store, url = self._place(self._strip_protocol(path), directory=True)
        if not exist_ok and store.exists(url):
            raise ResourceExistsError("the name is taken", operation="mkdir", url=url)
        store.make_directory(url)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        if not self.isdir(path):
            raise ResourceIsFileError("not a directory", operation="rmdir", url=path)
        store, url = self._place(self._strip_protocol(path), directory=True)
        store.remove(url)

    def rm_file(self, path: str) -> None:
        """Remove a file, without looking before: an empty directory of this name goes, too."""
        store, url = self._place(self._strip_protocol(path))
        store.remove(url)

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files, or directories with what they hold.

        Parameters
        ----------
        path : `str` or `list` [`str`]
            URLs or patterns.
        recursive : `bool`, optional
            Whether directories are removed.
        maxdepth : `int`, optional
            See fsspec.
        """
        for each in self.expand_path(path, recursive=False):
            if recursive and maxdepth is None and self.isdir(each):
                store, url = self._place(each, directory=True)
                remove_tree(store, url)
            elif recursive and maxdepth is not None:
                super().rm(each, recursive=True, maxdepth=maxdepth)
            else:
                self.rm_file(each)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copy a file: on the server where both are on one, through this process otherwise.

        Parameters
        ----------
        path1, path2 : `str`
            URLs of source and target; of a directory, only the directory itself is made.
        **kwargs
            Ignored.
        """
        source_store, source = self._place(self._strip_protocol(path1))
        target_store, target = self._place(self._strip_protocol(path2))
        try:
            if source_store is target_store:
                source_store.copy(source, target, overwrite=True)
            else:
                with RemoteFile(source_store.open_reader(source), source, sequential=True) as stream:
                    target_store.write(target, cast(BinaryIO, stream))
        except ResourceIsDirectoryError:
            self.makedirs(path2, exist_ok=True)

    def mv(
        self, path1: str, path2: str, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any
    ) -> None:
        """Rename a file; between endpoints, copy and remove.

        Parameters
        ----------
        path1, path2 : `str`
            URLs; a ``path2`` that ends in ``/`` is the directory to move into.
        recursive : `bool`, optional
            Whether ``path1`` is a directory, which is copied and removed.
        maxdepth : `int`, optional
            See fsspec.
        **kwargs
            Ignored.
        """
        if path2.endswith("/"):
            path2 += self._strip_protocol(path1).rpartition("/")[2]
        source_store, source = self._place(self._strip_protocol(path1))
        target_store, target = self._place(self._strip_protocol(path2))
        if source == target:
            return
        if recursive or source_store is not target_store:
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)
        else:
            source_store.move(source, target, overwrite=True)

    def sign(self, path: str, expiration: int = 100, **kwargs: Any) -> str:
        """Return a URL with which anybody can read the file for a while.

        Parameters
        ----------
        path : `str`
            URL.
        expiration : `int`, optional
            How long, in seconds.
        **kwargs
            Ignored.

        Returns
        -------
        url : `str`
            An ``https`` URL that holds a credential: treat it as one.
        """
        store, url = self._place(self._strip_protocol(path))
        return store.presign(url, "GET", expiration)


def _raise_unless_missing(error: Exception) -> None:
    if not isinstance(error, ResourceNotFoundError):
        raise error


def _read_parts(store: Store, url: str, parts: list[tuple[int | None, int | None]]) -> list[bytes]:
    """Read slices, as Python means them, of a file."""
    reader = store.open_reader(url)
    try:
        if all(start is not None and end is not None and start >= 0 and end >= 0 for start, end in parts):
            slices = cast(list[tuple[int, int]], parts)
        else:
            slices = [slice(start, end).indices(reader.info.size or 0)[:2] for start, end in parts]
        wanted = [ByteRange(start, stop) for start, stop in slices if start < stop]
        data = iter(reader.read_ranges(wanted) if wanted else [])
        return [next(data) if start < stop else b"" for start, stop in slices]
    finally:
        reader.close()
