"""DCache for fsspec, and so for pandas, pyarrow, dask, zarr and astropy; no ``lsst`` package is needed."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.compression import compr
from fsspec.core import get_compression, open_files

from .errors import (
    DcacheError,
    ResourceExistsError,
    ResourceIsDirectoryError,
    ResourceIsFileError,
    ResourceNotFoundError,
    UnsupportedError,
)
from .filesystem_reading import ReadingFileSystem
from .remote_file import RemoteFile
from .spooled_upload import SpooledUpload
from .store.protocol import Store
from .streamed_upload import StreamedUpload
from .transfers import transfer
from .tree import are_one, remove_tree
from .webdav.addresses import decoded_path

__all__ = ("DcacheFileSystem",)

_MOST_ERRORS = 20


class DcacheFileSystem(ReadingFileSystem):
    """File system of all dCache endpoints that this process may reach.

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

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        size: int | None = None,
        **kwargs: Any,
    ) -> RemoteFile | SpooledUpload | StreamedUpload:
        store, url = self._place(path)
        if mode == "rb":
            # Whoever handles the file names it in messages, and the token has no place there.
            return RemoteFile(store.open_reader(url), path.partition("?")[0])
        if mode not in ("wb", "xb", "ab", "r+b", "rb+"):
            raise UnsupportedError(f"no such mode: {mode}", operation="open", url=url)
        if mode == "xb" and store.exists(url):
            raise ResourceExistsError("the file exists", operation="open", url=url)
        if mode in ("wb", "xb") and autocommit:
            return StreamedUpload(store, url, overwrite=mode != "xb", size=size)
        # A transaction closes its files long before it publishes them: no pool is kept waiting for that.
        upload = SpooledUpload(store, url, overwrite=mode != "xb", published_by_close=autocommit)
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
            See fsspec. ``size`` is the exact size of a new file, where it is known: the server is told it
            at once, reserves space and compares.

        Returns
        -------
        file : file-like
            Seekable; a new file only until its first MiB is full, for then it is sent as it is written.
        """
        if "b" not in mode or mode == "rb":
            return super().open(path, mode, *args, **kwargs)
        compression = get_compression(path, kwargs.pop("compression", None))
        upload = super().open(path, mode, *args, **kwargs)
        return upload if compression is None else _packed(upload, compression, mode)

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
        if sys._getframe(1).f_code is open_files.__code__ and store.makes_parents:
            return  # `fsspec.open` asks for it before each upload, which makes the directory itself
        if not exist_ok and store.exists(url):
            raise ResourceExistsError("the name is taken", operation="mkdir", url=url)
        store.make_directory(url)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory.

        Parameters
        ----------
        path : `str`
            URL.
        """
        if not self.isdir(path):
            raise ResourceIsFileError("not a directory", operation="rmdir", url=path)
        store, url = self._place(self._strip_protocol(path), directory=True)
        store.remove(url)

    def rm_file(self, path: str) -> None:
        """Remove a file, without looking before: an empty directory of this name goes, too.

        Parameters
        ----------
        path : `str`
            URL.
        """
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

        Raises
        ------
        ResourceNotFoundError
            Raised if a file is not there; as with every other error, all others were removed that could be.
            It is that of the first file, and its notes tell of the next ones.

        Notes
        -----
        Files of a list are removed by bulk requests where the server has such (see `Store.remove_many`).
        """
        files: defaultdict[Store, list[str]] = defaultdict(list)
        for each in self.expand_path(path, recursive=False):
            if recursive and maxdepth is None and self.isdir(each):
                store, url = self._place(each, directory=True)
                remove_tree(store, url)
            elif recursive and maxdepth is not None:
                super().rm(each, recursive=True, maxdepth=maxdepth)
            else:
                store, url = self._place(each)
                files[store].append(url)
        errors = [error for store, urls in files.items() for error in _remove(store, urls)]
        if errors:
            for other in errors[1:_MOST_ERRORS]:
                errors[0].add_note(str(other))
            raise errors[0]

    def cp_file(self, path1: str, path2: str, mode: str = "overwrite", **kwargs: Any) -> None:
        """Copy a file: by the servers where they can, through this process otherwise.

        Parameters
        ----------
        path1, path2 : `str`
            URLs of source and target; of a directory, only the directory itself is made.
        mode : `str`, optional
            ``create`` refuses to replace a file.
        **kwargs
            Ignored.
        """
        source_store, source = self._place(self._strip_protocol(path1))
        target_store, target = self._place(self._strip_protocol(path2))
        try:
            transfer(source_store, source, target_store, target, overwrite=mode != "create")
        except ResourceIsDirectoryError:
            if not self.isdir(path1):
                # The target is one: nothing was copied.
                raise
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
            # The source is removed after it was copied, so it must not be the target or hold it.
            alias = urlsplit(target)._replace(path=urlsplit(source).path).geturl()
            if source_store is target_store or are_one(source_store, source, target_store, alias):
                source_path, target_path = decoded_path(source), decoded_path(target)
                if source_path == target_path:
                    return
                if target_path.startswith(source_path.rstrip("/") + "/"):
                    raise UnsupportedError(
                        "a directory cannot be moved into itself", operation="move", url=target
                    )
            if are_one(source_store, source, target_store, target):
                return
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


def _packed(upload: SpooledUpload | StreamedUpload, compression: str, mode: str) -> Any:
    """Return a compressing file that closes the upload below, which most of them leave to the collector."""
    packed = compr[compression](upload, mode=mode[0])

    def close() -> None:
        if getattr(packed, "_finalizing", False):  # which io.IOBase says if the collector has it closed
            upload._dealloc_warn(packed)
        try:
            type(packed).close(packed)
        except BaseException:
            upload.discard()
            raise
        upload.close()

    packed.close = close
    packed._dealloc_warn = upload._dealloc_warn
    return packed


def _remove(store: Store, urls: Sequence[str]) -> Iterator[Exception]:
    """Remove files, and yield the errors of those that stay or were not there."""
    singly = list(urls) if len(urls) == 1 else []
    if urlsplit(urls[0]).scheme == "s3" and not singly:
        # A request for many does not tell there which keys were none, or were those of directories.
        singly = [
            url for url, info in store.info_many(urls, fresh=True).items() if not (info and info.is_file)
        ]
    for url in singly:
        try:
            store.remove(url)
        except DcacheError as error:
            yield error
    many = sorted(set(urls).difference(singly))
    yield from (error for error in store.remove_many(many).values() if error is not None)
