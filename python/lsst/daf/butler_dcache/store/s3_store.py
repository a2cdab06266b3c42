"""A storage endpoint that speaks S3: one bucket of AWS, Ceph, SeaweedFS, MinIO ...

Every method is thin; the decisions are in the modules that it calls, and the requests of each operation in
``tests/test_s3_requests.py``. Where S3 differs from a file system the store says what S3 says: a name may be
a file and a directory, a directory is there as long as something begins with its name (`..s3.listing`), and
a rename is a copy and a removal (`..s3.copying`).
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from ..auth.credential import Credential
from ..auth.grant import Grant
from ..auth.macaroon import Activity
from ..config.s3 import S3Settings
from ..errors import (
    ConfigurationError,
    CredentialError,
    DcacheError,
    ResourceExistsError,
    ResourceIsDirectoryError,
    ResourceNotFoundError,
    StoreFullError,
    UnsupportedError,
)
from ..model import ByteRange, FileInfo, UnfinishedUpload
from ..redaction import Secret
from ..s3.address import S3Address, parse
from ..s3.conditions import LONGEST_KEY_BYTES, CreateOnly
from ..s3.copying import Copies
from ..s3.downloads import Downloads
from ..s3.endpoint import S3Endpoint
from ..s3.folding import Folding
from ..s3.listing import Listing
from ..s3.orphans import UnfinishedUploads
from ..s3.reader import S3Reader
from ..s3.removal import BATCH_KEYS, Removal
from ..s3.uploads import Uploads
from ..transport.deadline import Deadline
from ..transport.upload_body import UploadBody
from ..webdav.markers import Vigil
from .bulk import at_once
from .local_target import LocalTarget
from .protocol import Carrier, CopyRules, Landing, Progress, RemoteReader, RemoteWriter
from .s3_landing import S3Landing
from .s3_looking import look_for
from .s3_writer import S3Writer
from .size_cache import SizeCache
from .space import Space
from .tape import Tape

__all__ = ("S3Store",)


class S3Store:
    """One bucket; implements `.protocol.Store`.

    Parameters
    ----------
    settings : `~..config.s3.S3Settings`
        Which bucket, and what the environment says of its service.

    Notes
    -----
    Thread-safe, and usable after ``fork``: a child shares neither connections nor locks nor what its parent
    knew of sizes.
    """

    def __init__(self, settings: S3Settings) -> None:
        endpoint = self._endpoint = S3Endpoint(settings)
        self._place = settings.profile, settings.bucket
        self._sizes = _sizes_of(endpoint.root)
        self._space = Space()
        self._listing = Listing(endpoint)
        self._create_only = CreateOnly(endpoint)
        self._folding = Folding(endpoint)
        self._downloads = Downloads(endpoint)
        self._uploads = Uploads(endpoint, self._create_only)
        self._removal = Removal(endpoint, self._listing)
        self._copies = Copies(
            endpoint, self._listing, self._downloads, self._uploads, self._create_only, self._removal
        )
        self._unfinished = UnfinishedUploads(endpoint)
        _stores.add(self)

    # Looking

    def stat(self, url: str) -> FileInfo:
        """See `.protocol.Store`."""
        return self._listing.stat(self._address(url), operation="stat", deadline=self._deadline())

    def exists(self, url: str) -> bool:
        """See `.protocol.Store`."""
        return self._look(self._address(url), self._deadline()) is not None

    def _look(self, address: S3Address, deadline: Deadline) -> FileInfo | None:
        try:
            return self._listing.stat(address, operation="exists", deadline=deadline)
        except ResourceNotFoundError:
            return None

    def size(self, url: str) -> int:
        """See `.protocol.Store`."""
        return self.info(url).size or 0

    def info(self, url: str) -> FileInfo:
        """See `.protocol.Store`."""
        return self._sizes.get(url) or self.stat(url)

    def list_directory(self, url: str) -> list[FileInfo]:
        """See `.protocol.Store`."""
        return list({entry.url: entry for entry in self.iter_directory(url)}.values())

    def iter_directory(self, url: str) -> Iterator[FileInfo]:
        """See `.protocol.Store`; a directory at the border of two pages may come twice."""
        return self._listing.entries(self._address(url), deadline=self._deadline())

    def info_many(self, urls: Iterable[str], *, fresh: bool = False) -> dict[str, FileInfo | None]:
        """See `.protocol.Store`; without checksums where a listing has answered."""
        wanted = list(dict.fromkeys(urls))
        known: dict[str, FileInfo | None] = {url: None if fresh else self._sizes.get(url) for url in wanted}
        return known | self._look_for(url for url in wanted if known[url] is None)

    def exists_many(self, urls: Iterable[str]) -> dict[str, bool]:
        """See `.protocol.Store`."""
        return {url: info is not None for url, info in self._look_for(urls).items()}

    def _look_for(self, urls: Iterable[str]) -> dict[str, FileInfo | None]:
        wanted = {url: self._address(url) for url in urls}
        deadline = self._deadline()
        addresses = list(dict.fromkeys(wanted.values()))
        found = look_for(self._listing, addresses, lambda address: self._look(address, deadline), deadline)
        return {url: found[address] for url, address in wanted.items()}

    # Reading

    def read(self, url: str) -> bytes:
        """See `.protocol.Store`."""
        with self._file(url, "read"):
            return self._downloads.read(url)

    def download(self, url: str, target: BinaryIO, progress: Progress | None = None) -> FileInfo:
        """See `.protocol.Store`."""
        with self._file(url, "read"):
            return self._downloads.fetch(url, LocalTarget(target, progress))

    def open_reader(self, url: str, *, deadline: Deadline | None = None) -> RemoteReader:
        """See `.protocol.Store`."""
        with self._file(url, "read"):
            reader = S3Reader(self._endpoint, self._downloads, url, deadline)
            reader.look()
        return reader

    def read_ranges(self, url: str, ranges: Sequence[ByteRange]) -> list[bytes]:
        """See `.protocol.Store`."""
        if not ranges:
            return []
        with self._file(url, "read"):
            reader = S3Reader(self._endpoint, self._downloads, url)
            try:
                return reader.read_ranges(ranges)
            finally:
                reader.close()

    @contextlib.contextmanager
    def _file(self, url: str, operation: str) -> Iterator[None]:
        """Tell a directory from nothing, where a file was asked for and is not there."""
        address = self._address(url)
        try:
            yield
        except ResourceNotFoundError as error:
            if not self._listing.holds(address, operation=operation, deadline=self._deadline()):
                raise
            raise ResourceIsDirectoryError(
                "it is a directory", operation=operation, url=url, status=error.status
            ) from error

    # Writing

    def write(
        self, url: str, data: bytes | BinaryIO, *, overwrite: bool = True, deadline: Deadline | None = None
    ) -> FileInfo:
        """See `.protocol.Store`."""
        deadline = deadline or self._deadline()
        self._folding.check(self._file_address(url), operation="write", deadline=deadline)
        body = UploadBody(data)
        self._space.check(url, body.length)
        try:
            with self._sizes.change(url) as change:
                info = self._uploads.put(url, body, create_only=not overwrite, deadline=deadline)
                change.done(info)
        except StoreFullError as error:
            self._space.refused(body.length, error)
            raise
        self._space.accepted()
        return info

    def open_writer(
        self,
        url: str,
        *,
        overwrite: bool = True,
        size: int | None = None,
        deadline: Deadline | None = None,
    ) -> RemoteWriter:
        """See `.protocol.Store`."""
        begin = self._deadline if deadline is None else lambda: deadline
        self._folding.check(self._file_address(url), operation="write", deadline=begin())
        return S3Writer(
            self._uploads,
            self._copies,
            url,
            overwrite=overwrite,
            size=size,
            deadline=begin,
            sizes=self._sizes,
            space=self._space,
        )

    @property
    def makes_parents(self) -> bool:
        """See `.protocol.Store`."""
        return True

    def make_directory(self, url: str) -> None:
        """See `.protocol.Store`."""
        address = self._address(url)
        deadline = self._deadline()
        file = address.with_key(address.key.rstrip("/"))
        if not file.key:
            return  # the bucket, which is there or is the site's to make
        if self._listing.find(file, operation="make directory", deadline=deadline) is not None:
            raise ResourceExistsError("a file has this name", operation="make directory", url=url)
        marker = address.with_key(address.prefix)
        self._folding.check(marker, operation="make directory", deadline=deadline)
        self._uploads.put(self._address(marker.url).url, UploadBody(b""), deadline=deadline)

    # Removing and renaming

    def remove(self, url: str) -> None:
        """See `.protocol.Store`."""
        address = self._address(url)
        deadline = self._deadline()
        self._folding.check(address, operation="remove", deadline=deadline)
        with self._sizes.change(url):
            self._removal.remove(address, deadline=deadline)

    def remove_many(self, urls: Iterable[str]) -> Mapping[str, Exception | None]:
        """See `.protocol.Store`.

        Parameters
        ----------
        urls : `~collections.abc.Iterable` [ `str` ]
            Names of files, and of directories with their slash.

        Returns
        -------
        results : `~collections.abc.Mapping`
            `None` for a file that is not there any more, whether it was or not: S3 does not tell.
        """
        wanted = {url: self._address(url) for url in urls}
        deadline = self._deadline()
        results: dict[S3Address, DcacheError | None] = {}
        for address in wanted.values():
            try:
                self._folding.check(address, operation="remove", deadline=deadline)
            except DcacheError as error:
                results[address] = error
        names = [address for address in dict.fromkeys(wanted.values()) if address not in results]
        files = [address for address in names if not address.is_directory]
        # A directory is empty only when its files are gone, and those within it are: the deepest first.
        directories = sorted((one for one in names if one.is_directory), key=lambda one: -one.key.count("/"))
        batches = [files[start : start + BATCH_KEYS] for start in range(0, len(files), BATCH_KEYS)]
        refusals: list[CredentialError] = []

        def remove(batch: list[S3Address]) -> dict[S3Address, DcacheError | None]:
            if refusals:
                return dict.fromkeys(batch, refusals[0])
            try:
                return self._removal.delete_batch(batch, deadline=deadline)
            except DcacheError as error:
                if isinstance(error, CredentialError):
                    refusals.append(error)
                return dict.fromkeys(batch, error)

        with contextlib.ExitStack() as changes:
            for address in names:
                changes.enter_context(self._sizes.change(address.url))
            for part in at_once(remove, batches):
                results |= part
        for address in directories:
            results[address] = refusals[0] if refusals else self._remove_directory(address, deadline)
        return {url: results[address] for url, address in wanted.items()}

    def _remove_directory(self, address: S3Address, deadline: Deadline) -> DcacheError | None:
        try:
            self._removal.remove(address, deadline=deadline)
        except DcacheError as error:
            return error
        return None

    def move(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """See `.protocol.Store`."""
        if self._address(source) == self._address(target):
            self.stat(source)
            return
        deadline = self._deadline()
        for url in (source, target):
            self._folding.check(self._address(url), operation="move", deadline=deadline)
        with self._sizes.change(source), self._sizes.change(target):
            self._copies.move(source, target, overwrite=overwrite, deadline=deadline)

    def copy(
        self,
        source: str,
        target: str,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
        deadline: Deadline | None = None,
        on_way: Callable[[Carrier], object] | None = None,
        known: FileInfo | None = None,
    ) -> FileInfo:
        """See `.protocol.Store`; the server does not say how far it is."""
        if self._address(source) == self._address(target):
            return self.stat(source)
        deadline = self._deadline() if deadline is None else deadline
        self._folding.check(self._address(target), operation="copy", deadline=deadline)
        if on_way is not None:
            on_way("server")
        with self._sizes.change(target) as change:
            info = self._copies.copy(source, target, overwrite=overwrite, deadline=deadline)
            change.done(info)
        return info

    @property
    def copy_rules(self) -> CopyRules:
        """See `.protocol.Store`: no S3 server fetches or sends objects."""
        return CopyRules(seconds=self._endpoint.limits.total_timeout_seconds)

    def offer(self, url: str, algorithm: str, deadline: Deadline | None = None) -> FileInfo:
        """See `.protocol.Store`; S3 tells what it has."""
        return self._listing.stat(self._address(url), operation="copy", deadline=deadline or self._deadline())

    def grant(self, url: str, seconds: float, deadline: Deadline | None = None) -> Grant:
        """See `.protocol.Store`."""
        return Grant(Secret(self.presign(url, "GET", int(seconds))))

    def push(self, url: str, destination: Grant, vigil: Vigil, deadline: Deadline) -> None:
        """Raise `UnsupportedError`."""
        raise UnsupportedError("S3 servers send nothing", operation="copy", url=url)

    @contextlib.contextmanager
    def landing(self, url: str, size: int, *, overwrite: bool, deadline: Deadline) -> Iterator[Landing]:
        """See `.protocol.Store`."""
        address = self._file_address(url)
        self._folding.check(address, operation="copy", deadline=deadline)
        if not overwrite and not self._create_only.multipart_is_exact(url, deadline=deadline):
            raise UnsupportedError("this server's copies may replace an object", operation="copy", url=url)
        landing = S3Landing(self._endpoint, self._listing, self._copies, address, overwrite, deadline)
        try:
            with self._sizes.change(url):
                yield landing
        finally:
            with contextlib.suppress(DcacheError):
                self._removal.delete(landing.temporary, deadline=self._deadline())

    def unfinished_uploads(self, url: str) -> Iterator[UnfinishedUpload]:
        """See `.protocol.Store`."""
        return self._unfinished.find(url)

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """See `.protocol.Store`."""
        self._unfinished.abort(upload)

    # Giving rights to others

    def tape(self, deadline: Deadline | None = None) -> Tape:
        """Raise `UnsupportedError`: S3 has no tape API."""
        raise UnsupportedError("an S3 server has no tape API", operation="tape")

    def presign(self, url: str, method: str, lifetime_seconds: int) -> str:
        """See `.protocol.Store`."""
        return self._endpoint.presign(self._file_address(url).key, method, lifetime_seconds)

    def delegate(
        self,
        url: str,
        *,
        activities: Collection[Activity],
        lifetime_seconds: float,
        addresses: Collection[str] = (),
        max_upload_bytes: int | None = None,
    ) -> Credential:
        """Raise `UnsupportedError`: see `.protocol.Store`, and use `presign`."""
        raise _no_credentials("delegate", url)

    def mint(
        self,
        url: str,
        *,
        activities: Collection[Activity] = (),
        lifetime_seconds: float | None = None,
        addresses: Collection[str] = (),
        max_upload_bytes: int | None = None,
    ) -> Credential:
        """Raise `UnsupportedError`: see `.protocol.Store`, and use `presign`."""
        raise _no_credentials("mint", url)

    def _address(self, url: str) -> S3Address:
        address = parse(url)
        if (address.profile, address.bucket) != self._place:
            raise ConfigurationError("this is another bucket, or another profile", url=url)
        length = len(address.key.encode())
        if length > LONGEST_KEY_BYTES:
            raise UnsupportedError(
                f"a key of {length} bytes is longer than the {LONGEST_KEY_BYTES} that S3 allows", url=url
            )
        return address

    def _file_address(self, url: str) -> S3Address:
        address = self._address(url)
        if address.is_directory:
            raise ResourceIsDirectoryError("a file's name does not end in '/'", url=url)
        return address

    def _deadline(self) -> Deadline:
        return self._endpoint.deadline()

    def _after_fork(self) -> None:
        self._create_only.after_fork()
        self._space.after_fork()


def _no_credentials(operation: str, url: str) -> UnsupportedError:
    return UnsupportedError(
        "S3 has no credentials for single names",
        operation=operation,
        url=url,
        hint="Give a presigned URL (presign) for each file, or temporary keys of the site's token service.",
    )


_stores: weakref.WeakSet[S3Store] = weakref.WeakSet()
_sizes: weakref.WeakValueDictionary[str, SizeCache] = weakref.WeakValueDictionary()


def _sizes_of(root: str) -> SizeCache:
    """Return the memory of sizes that all stores of a bucket share, by whatever profile they reach it."""
    return _sizes.setdefault(root, SizeCache(name=lambda url: parse(url).key))


def _after_fork() -> None:
    for store in list(_stores):
        store._after_fork()


os.register_at_fork(after_in_child=_after_fork)
