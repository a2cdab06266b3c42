"""A storage endpoint that speaks WebDAV: dCache, XRootD, and plain servers as far as they go.

Every method is thin; the decisions are in the modules that it calls, and the requests of each operation in
``tests/test_requests_per_operation.py``.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO, cast

from ..auth.credential import Credential
from ..auth.grant import Grant
from ..auth.macaroon import Activity
from ..auth.sources import CredentialSource, source_for
from ..config.settings import EndpointSettings, origin_of
from ..errors import (
    FileBrokenError,
    ParentNotFoundError,
    ResourceNotFoundError,
)
from ..model import ByteRange, FileInfo, UnfinishedUpload
from ..rest.bulk import BulkRequests
from ..rest.tape import TapeApi
from ..transport.control import ControlPlane
from ..transport.data import DataPlane
from ..transport.deadline import Deadline
from ..transport.pacing import pacer_for
from ..transport.upload_body import UploadBody
from ..webdav.addresses import parent, same_name
from ..webdav.door import Door
from ..webdav.download import Downloads
from ..webdav.markers import Vigil
from ..webdav.minting import mint
from ..webdav.nearline import Recaller
from ..webdav.reader import WebdavReader
from ..webdav.rights import Rights
from ..webdav.third_party import ThirdPartyCopies
from .bulk import Listings, found
from .bulk_removal import ManyRemovals
from .copying import RemoteSource
from .directories import Directories
from .exclusion import Exclusion
from .frontend import Frontends
from .listing import DirectoryLister
from .local_target import LocalTarget
from .looking import Looking
from .protocol import Carrier, CopyRules, Landing, Progress, RemoteReader, RemoteWriter
from .publication import Publisher
from .removal import Remover
from .sharing import presign
from .size_cache import SizeCache
from .tape import Tape
from .third_party import copied, needed_seconds
from .webdav_landing import WebdavLanding, grant
from .writer import StreamingWriter

__all__ = ("WebdavStore",)


class WebdavStore:
    """One endpoint; implements `.protocol.Store`.

    Parameters
    ----------
    settings : `EndpointSettings`
        What is known of the endpoint.
    credentials : `CredentialSource`, optional
        Who we are; as the settings say if not given.
    sizes : `SizeCache`, optional
        What is known of files; the stores of a process share one, since a server may have several names.
    planes : `tuple` [`ControlPlane`, `DataPlane`], optional
        Whose connections are used; some of its own if not given.

    Notes
    -----
    Thread-safe, and usable after ``fork``: a child shares neither connections nor locks nor what its parent
    knew of sizes.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        credentials: CredentialSource | None = None,
        sizes: SizeCache | None = None,
        planes: tuple[ControlPlane, DataPlane] | None = None,
    ) -> None:
        credentials = source_for(settings) if credentials is None else credentials
        pacer = pacer_for(settings)
        is_guest = planes is not None
        if planes is None:
            # Each door counts the requests of a host for itself.
            pacers = {origin_of(door): pacer_for(settings, door) for door in settings.door_urls}
            planes = (
                ControlPlane(settings, credentials, pacer, pacers=pacers),
                DataPlane(settings, credentials, pacer, pacers=pacers),
            )
        control, data = planes
        self._door = Door(settings, control, data, credentials, is_guest=is_guest)
        self._rights = Rights(self._door)
        self._frontends = Frontends(self._door)
        self._sizes = SizeCache() if sizes is None else sizes
        self._sizes.join([settings.base_url, *settings.door_urls])
        self._downloads = Downloads(self._door, Recaller(self._stage, self._has_disk_copy))
        self._copies = ThirdPartyCopies(self._door)
        self._publisher = Publisher(self._door, self._rights, self._frontends)
        self._exclusion = Exclusion(self._door, self._rights)
        lister = DirectoryLister(self._door, self._frontends)
        self._directories = Directories(self._door, lister)
        self._listings = Listings(lister, settings)
        self._looking = Looking(self._door, self._listings, self._frontends)
        self._remover = Remover(self._door, self._rights, self._frontends, self._directories)
        self._many_removals = ManyRemovals(
            self._door, self._frontends, self._remover, self._listings, self.exists_many, self._removing
        )
        _stores.add(self)

    @property
    def settings(self) -> EndpointSettings:
        """What is known of the endpoint."""
        return self._door.settings

    @property
    def frontends(self) -> Frontends:
        """The endpoint's frontend, as far as it is known."""
        return self._frontends

    @property
    def copies(self) -> ThirdPartyCopies:
        """Copies between this endpoint's doors and other servers."""
        return self._copies

    def with_credentials(self, credentials: CredentialSource) -> WebdavStore:
        """Return a store for somebody else, who uses the connections of this one.

        Parameters
        ----------
        credentials : `CredentialSource`
            Who that is.
        """
        planes = self._door.control, self._door.data
        return WebdavStore(self.settings, credentials, self._sizes, planes)

    # Looking

    def stat(self, url: str) -> FileInfo:
        """See `.protocol.Store`."""
        return self._door.propfind(url, operation="stat", deadline=self._deadline())

    def exists(self, url: str) -> bool:
        """See `.protocol.Store`."""
        return found(self._look, url) is not None

    def _look(self, url: str) -> FileInfo:
        return self._door.propfind(url, operation="exists", deadline=self._deadline())

    def size(self, url: str) -> int:
        """See `.protocol.Store`."""
        info = self.info(url)
        if info.is_file and info.size is None:
            raise FileBrokenError("the upload of this file has not ended", operation="size", url=url)
        return info.size or 0

    def info(self, url: str) -> FileInfo:
        """See `.protocol.Store`."""
        return self._sizes.get(url) or self.stat(url)

    def list_directory(self, url: str) -> list[FileInfo]:
        """See `.protocol.Store`."""
        return self._directories.list(url, deadline=self._deadline())

    def iter_directory(self, url: str) -> Iterator[FileInfo]:
        """See `.protocol.Store`."""
        return self._directories.iter(url, deadline=self._deadline())

    def exists_many(self, urls: Iterable[str]) -> dict[str, bool]:
        """See `.protocol.Store`."""
        return self._looking.exists_many(urls, self._look)

    def info_many(self, urls: Iterable[str], *, fresh: bool = False) -> dict[str, FileInfo | None]:
        """See `.protocol.Store`."""
        wanted = list(dict.fromkeys(urls))
        known: dict[str, FileInfo | None] = {url: None if fresh else self._sizes.get(url) for url in wanted}
        known |= self._looking.info_many([url for url in wanted if known[url] is None], self.stat)
        return known

    # Reading

    def read(self, url: str) -> bytes:
        """See `.protocol.Store`."""
        return self._downloads.read(url)

    def download(self, url: str, target: BinaryIO, progress: Progress | None = None) -> FileInfo:
        """See `.protocol.Store`."""
        return self._downloads.fetch(url, LocalTarget(target, progress))

    def open_reader(self, url: str, *, deadline: Deadline | None = None) -> RemoteReader:
        """See `.protocol.Store`."""
        return WebdavReader(self._door, self._downloads, url, deadline)

    def read_ranges(self, url: str, ranges: Sequence[ByteRange]) -> list[bytes]:
        """See `.protocol.Store`."""
        if not ranges:
            return []
        reader = WebdavReader(self._door, self._downloads, url)
        try:
            return reader.read_ranges(ranges)
        finally:
            reader.close()

    # Writing

    def write(
        self, url: str, data: bytes | BinaryIO, *, overwrite: bool = True, deadline: Deadline | None = None
    ) -> FileInfo:
        """See `.protocol.Store`."""
        body = UploadBody(data)
        with self._sizes.change(url) as change:
            info = self._publisher.write(
                url, body, overwrite=overwrite, deadline=deadline or self._deadline()
            )
            change.done(info)
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
        return StreamingWriter(
            self._publisher,
            url,
            overwrite=overwrite,
            size=size,
            held_bytes=self.settings.proxy_upload_max_bytes,
            deadline=self._deadline if deadline is None else lambda: deadline,
            sizes=self._sizes,
        )

    @property
    def makes_parents(self) -> bool:
        """See `.protocol.Store`."""
        return self._door.dialect in ("dcache", "xrootd")

    def make_directory(self, url: str) -> None:
        """See `.protocol.Store`."""
        self._directories.make(url, deadline=self._deadline())

    def remove(self, url: str) -> None:
        """See `.protocol.Store`."""
        with self._removing(url):
            self._remover.remove(url, deadline=self._deadline())

    @contextmanager
    def _removing(self, url: str) -> Iterator[None]:
        with self._sizes.change(url, below=url.endswith("/")):
            self._directories.forget(url)
            yield

    def remove_many(self, urls: Iterable[str]) -> Mapping[str, Exception | None]:
        """See `.protocol.Store`."""
        return self._many_removals.remove(urls)

    def move(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """See `.protocol.Store`."""
        deadline = self._deadline()
        info = self.stat(source) if same_name(source, target) else None
        if info is not None:
            return  # nothing to do for a name that exists; dCache would remove it
        with self._sizes.change(source, below=True), self._sizes.change(target, below=True):
            self._directories.forget(source)
            try:
                self._move_once(source, target, overwrite, deadline)
            except ParentNotFoundError:
                self._directories.make(parent(target), deadline=deadline)
                self._move_once(source, target, overwrite, deadline)

    def _move_once(self, source: str, target: str, overwrite: bool, deadline: Deadline) -> None:
        if overwrite:
            self._publisher.replace(source, target, None, deadline=deadline)
        else:
            self._exclusion.create(source, target, None, deadline=deadline)

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
        """See `.protocol.Store`."""
        if same_name(source, target):
            return self.stat(source)

        def here(deadline: Deadline) -> FileInfo:
            with RemoteSource(self._downloads, source, deadline, progress) as original:
                deadline.allow(needed_seconds(original.length))
                return self.write(target, cast(BinaryIO, original), overwrite=overwrite, deadline=deadline)

        return copied(
            self,
            source,
            self,
            target,
            here,
            overwrite=overwrite,
            progress=progress,
            deadline=deadline,
            on_way=on_way,
            known=known,
        )

    @property
    def copy_rules(self) -> CopyRules:
        """See `.protocol.Store`."""
        settings, dialect = self.settings, self._door.dialect
        return CopyRules(
            settings.third_party,
            pulls=dialect != "generic",
            pushes=dialect != "generic",
            pushes_to_signed=dialect == "xrootd",
            from_bytes=settings.third_party_from_bytes,
            stall_seconds=settings.stall_seconds if settings.stall_bytes_per_second else None,
            seconds=settings.total_timeout_seconds,
        )

    def offer(self, url: str, algorithm: str, deadline: Deadline | None = None) -> FileInfo:
        """See `.protocol.Store`."""
        return self._copies.look(url, algorithm, deadline or self._deadline())

    def grant(self, url: str, seconds: float, deadline: Deadline | None = None) -> Grant:
        """See `.protocol.Store`."""
        deadline = deadline or self._deadline()
        return grant(self._door, self._rights, url, seconds, deadline, Activity.DOWNLOAD)

    def push(self, url: str, destination: Grant, vigil: Vigil, deadline: Deadline) -> None:
        """See `.protocol.Store`."""
        self._copies.push(url, destination, vigil, deadline)

    @contextmanager
    def landing(self, url: str, size: int, *, overwrite: bool, deadline: Deadline) -> Iterator[Landing]:
        """See `.protocol.Store`."""
        publisher = self._publisher
        with (
            self._sizes.change(url) as change,
            publisher.aside(url, size, overwrite=overwrite) as temporary,
        ):

            def publish(info: FileInfo) -> FileInfo:
                published = publisher.publish(info, url, overwrite=overwrite, deadline=deadline)
                if published.checksums:  # else the server knows more of it than we have compared
                    change.done(published)
                return published

            yield WebdavLanding(
                self._door, self._rights, self._copies, self._directories, temporary, publish, deadline
            )

    def unfinished_uploads(self, url: str) -> Iterator[UnfinishedUpload]:
        """See `.protocol.Store`; here every upload has a name."""
        return iter(())

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """See `.protocol.Store`."""
        raise ResourceNotFoundError("no such upload", operation="abort", url=upload.url)

    def tape(self, deadline: Deadline | None = None) -> Tape:
        """See `.protocol.Store`."""
        deadline = self._deadline() if deadline is None else deadline
        api = TapeApi(self._frontends.tape(deadline))
        frontend = self._frontends.get(deadline)
        bulk = None if frontend is None else BulkRequests(frontend.api)
        return Tape(api, bulk, self.settings.total_timeout_seconds)

    def _stage(self, url: str, deadline: Deadline) -> None:
        """Bring a file that is to be read from tape, and keep it on disk for as long as that may take."""
        lifetime = math.ceil(self.settings.total_timeout_seconds)
        tape = self.tape(deadline)
        error = tape.stage_and_wait([url], lifetime_seconds=lifetime, deadline=deadline)[url]
        if error is not None:
            raise error

    def _has_disk_copy(self, url: str, deadline: Deadline) -> bool:
        frontend = self._frontends.for_single_files
        return frontend is not None and frontend.has_disk_copy(url, deadline)

    def presign(self, url: str, method: str, lifetime_seconds: int) -> str:
        """See `.protocol.Store`."""
        return presign(self._door, self._rights, url, method, lifetime_seconds)

    def delegate(
        self,
        url: str,
        *,
        activities: Collection[Activity],
        lifetime_seconds: float,
        addresses: Collection[str] = (),
        max_upload_bytes: int | None = None,
    ) -> Credential:
        """See `.protocol.Store`."""
        return self._rights.delegate(
            url,
            deadline=self._deadline(),
            activities=activities,
            lifetime_seconds=lifetime_seconds,
            addresses=addresses,
            max_upload_bytes=max_upload_bytes,
        )

    def mint(
        self,
        url: str,
        *,
        activities: Collection[Activity] = (),
        lifetime_seconds: float | None = None,
        addresses: Collection[str] = (),
        max_upload_bytes: int | None = None,
    ) -> Credential:
        """See `.protocol.Store`."""
        return mint(
            self._door,
            url,
            deadline=self._deadline(),
            activities=activities,
            lifetime_seconds=lifetime_seconds,
            addresses=addresses,
            max_upload_bytes=max_upload_bytes,
        )

    def _deadline(self) -> Deadline:
        return self._door.deadline()

    def _after_fork(self) -> None:
        self._rights.after_fork()
        self._publisher.after_fork()
        self._frontends.after_fork()
        self._directories.after_fork()
        self._listings.after_fork()


_stores: weakref.WeakSet[WebdavStore] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store._after_fork()


os.register_at_fork(after_in_child=_after_fork)
