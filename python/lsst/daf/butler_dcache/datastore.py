"""A Butler datastore for repositories whose files are in dCache, or at an S3 endpoint.

`DcacheDatastore` is `~lsst.daf.butler.datastores.fileDatastore.FileDatastore` with other answers to four
questions: what it is called, what checksum a record holds, how many files are handled at a time, and what
happens if the server refuses. Roots may be ``davs://``, ``dav://`` or ``s3://``; others work as
they do there.
"""
# ruff: noqa: N803, N815  (names that the base class dictates)

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, cast

from lsst.daf.butler import Config, DatasetId, DatasetRef, FileDataset
from lsst.daf.butler.datastore import Datastore, DatastoreConfig, DatastoreTransaction
from lsst.daf.butler.datastore.stored_file_info import StoredFileInfo
from lsst.daf.butler.datastores.fileDatastore import FileDatastore
from lsst.daf.butler.utils import transactional
from lsst.resources import ResourcePath, ResourcePathExpression
from lsst.utils.iteration import chunk_iterable

from .errors import (
    DcacheError,
    FileBrokenError,
    ResourceNotFoundError,
)
from .model import FileInfo
from .registration import register
from .resource_path import DcacheResourcePath, collect_publications, infos_of
from .store.registry import store_for

if TYPE_CHECKING:
    from lsst.daf.butler import DatasetProvenance, Formatter, FormatterV2
    from lsst.daf.butler.registry.interfaces import DatastoreRegistryBridgeManager

__all__ = ("DcacheDatastore",)

_log = logging.getLogger(__name__)

_FILES_IN_FLIGHT = 8
_IDS_PER_QUERY = 50_000
_EXISTENCE_SAMPLE = 200
# Servers tell full seconds, by their own clock.
_CLOCK_DIFFERENCE = timedelta(seconds=5)
# An S3 server has no adler32 of what others have written.
_CHECKSUMS = ("adler32", "crc64nvme", "crc32c", "md5")

# Naming this class in a repository is as explicit as a registration can be.
register()


class DcacheDatastore(FileDatastore):
    """Datastore for dCache; a repository names it in ``datastore.cls`` and its Butler makes it.

    Parameters
    ----------
    *args, **kwargs
        Those of `~lsst.daf.butler.datastores.fileDatastore.FileDatastore`.
    """

    defaultConfigFile: ClassVar[str | None] = "resource://lsst.daf.butler_dcache/configs/datastore.yaml"
    """Configuration defaults, shipped with this package."""

    _prepared: dict[DatasetId, StoredFileInfo]
    """Records of files of the ingest that is being done, by the first dataset of each file."""

    @classmethod
    def setConfigRoot(cls, root: str, config: Config, full: Config, overwrite: bool = True) -> None:
        """Complete the configuration of a new repository, with an explicit name among other things.

        Parameters
        ----------
        root : `str`
            Root of the repository.
        config : `~lsst.daf.butler.Config`
            Configuration to complete.
        full : `~lsst.daf.butler.Config`
            The same with all defaults.
        overwrite : `bool`, optional
            Whether values of ``config`` may be replaced; a name never is.
        """
        super().setConfigRoot(root, config, full, overwrite=overwrite)
        own = DatastoreConfig(config, mergeDefaults=False, validate=False)
        Config.updateParameters(
            DatastoreConfig, config, full, toUpdate={"name": _adopted_name(own)}, overwrite=False
        )

    @classmethod
    def _create_from_config(
        cls,
        config: DatastoreConfig,
        bridgeManager: DatastoreRegistryBridgeManager,
        butlerRoot: ResourcePathExpression | None,
    ) -> DcacheDatastore:
        # The base class makes a FileDatastore, by name.
        return cls._promote(super()._create_from_config(config, bridgeManager, butlerRoot), bridgeManager)

    def clone(self, bridgeManager: DatastoreRegistryBridgeManager) -> Datastore:
        """Return a copy that uses another registry connection.

        Parameters
        ----------
        bridgeManager : `~lsst.daf.butler.registry.interfaces.DatastoreRegistryBridgeManager`
            That connection.
        """
        return self._promote(self, bridgeManager)

    @classmethod
    def _promote(
        cls, datastore: FileDatastore, bridge_manager: DatastoreRegistryBridgeManager
    ) -> DcacheDatastore:
        config = datastore.config
        if "name" not in config:
            # Registries know the files of a repository by the name of its datastore, which is made of the
            # class unless it is configured.
            config = DatastoreConfig(config, mergeDefaults=False)
            config["name"] = _adopted_name(config)
        return cls(
            config,
            bridge_manager,
            datastore.root,
            datastore.formatterFactory,
            datastore.templates,
            datastore.composites,
            datastore.trustGetRequest,
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepared = {}

    # Checksums.

    @staticmethod
    def computeChecksum(uri: ResourcePath, algorithm: str = "blake2b", block_size: int = 8192) -> str | None:
        """Return the checksum that a record of a file holds.

        Parameters
        ----------
        uri : `lsst.resources.ResourcePath`
            The file.
        algorithm : `str`, optional
            For local files, see the base class.
        block_size : `int`, optional
            For local files, see the base class.

        Returns
        -------
        checksum : `str` or `None`
            ``adler32:`` and eight hexadecimal digits for a file in dCache, and for one that this process has
            written, which needs no request; what the server has, for one that others have written to S3;
            `None` if its server keeps none.
        """
        if isinstance(uri, DcacheResourcePath):
            return _checksum_of(uri.get_info().checksums)
        return FileDatastore.computeChecksum(uri, algorithm, block_size)

    # Writing.

    def _write_in_memory_to_artifact(
        self, inMemoryDataset: Any, ref: DatasetRef, provenance: DatasetProvenance | None = None
    ) -> StoredFileInfo:
        outer = self._transaction
        if outer is None or not isinstance(self.root, DcacheResourcePath):
            return super()._write_in_memory_to_artifact(inMemoryDataset, ref, provenance=provenance)
        # The base class registers the removal of whatever will have the name, even if nothing is written and
        # though another writer may own it. That goes to a transaction which nobody rolls back.
        self._transaction = DatastoreTransaction(outer)
        with collect_publications() as published:
            try:
                info = super()._write_in_memory_to_artifact(inMemoryDataset, ref, provenance=provenance)
            except BaseException:
                for publication in published:
                    _remove_own(publication)
                raise
            finally:
                self._transaction = outer
        for publication in published:
            outer.registerUndo("artifactWrite", _remove_own, publication)
        return info

    # Ingest.

    def _standardizeIngestPath(
        self, path: str | ResourcePath, *, transfer: str | None = None, check_existence: bool = False
    ) -> str | ResourcePath:
        # The transfer, or the look-up of sizes, says whether a file of ours is there: by one request per
        # directory rather than one per file.
        source = ResourcePath(path, root=self.root, forceAbsolute=True, forceDirectory=False)
        check_existence = check_existence and not isinstance(source, DcacheResourcePath)
        return super()._standardizeIngestPath(path, transfer=transfer, check_existence=check_existence)

    @transactional
    def _finishIngest(
        self,
        prepData: Datastore.IngestPrepData,
        *,
        transfer: str | None = None,
        record_validation_info: bool = True,
    ) -> None:
        datasets: list[FileDataset] = list(prepData.datasets)
        prepData.datasets = datasets
        if transfer in (None, "direct", "split"):
            self._look_up(datasets, transfer, record_validation_info)
        elif isinstance(self.root, DcacheResourcePath) and len(datasets) > 1:
            self._take_in_parallel(datasets, transfer, record_validation_info)
        try:
            super()._finishIngest(prepData, transfer=transfer, record_validation_info=record_validation_info)
        finally:
            self._prepared.clear()

    def _extractIngestInfo(
        self,
        path: ResourcePathExpression,
        ref: DatasetRef,
        *,
        formatter: Formatter | FormatterV2 | type[Formatter | FormatterV2],
        transfer: str | None = None,
        record_validation_info: bool = True,
    ) -> StoredFileInfo:
        prepared = self._prepared.pop(ref.id, None)
        if prepared is not None:
            return prepared
        if transfer not in self.root.transferModes or not isinstance(self.root, DcacheResourcePath):
            return super()._extractIngestInfo(
                path,
                ref,
                formatter=formatter,
                transfer=transfer,
                record_validation_info=record_validation_info,
            )
        source = ResourcePath(path, forceAbsolute=False, forceDirectory=False)
        location = self._calculate_ingested_datastore_name(source, ref, formatter)
        # As in the base class: the registry would not ask for this if the dataset existed.
        location.uri.transfer_from(source, transfer=transfer, transaction=self._transaction, overwrite=True)
        info = _info_of(location.uri) if record_validation_info else None
        return self._record(location.pathInStore.path, ref, formatter, info)

    def _take_in_parallel(
        self, datasets: list[FileDataset], transfer: str | None, record_validation_info: bool
    ) -> None:
        def take_in(dataset: FileDataset) -> StoredFileInfo:
            return self._extractIngestInfo(
                dataset.path,
                dataset.refs[0],
                formatter=cast(Any, dataset.formatter),
                transfer=transfer,
                record_validation_info=record_validation_info,
            )

        # One goes ahead, so that an error which holds for all, such as a refused credential, is met once.
        records = [take_in(datasets[0])]
        with ThreadPoolExecutor(_FILES_IN_FLIGHT, thread_name_prefix="ingest") as pool:
            try:
                records += pool.map(take_in, datasets[1:])
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self._prepared = {
            dataset.refs[0].id: record for dataset, record in zip(datasets, records, strict=True)
        }

    def _look_up(self, datasets: list[FileDataset], transfer: str | None, record: bool) -> None:
        """Find size and checksum of files that are in dCache already, by one request per directory."""
        places = {dataset.refs[0].id: self._existing_place(dataset.path, transfer) for dataset in datasets}
        uris = [uri for uri, _ in places.values() if isinstance(uri, DcacheResourcePath)]
        if not record:
            for uri, exists in ResourcePath.mexists(uris[:_EXISTENCE_SAMPLE]).items():
                if not exists:
                    raise ResourceNotFoundError("no such file", operation="ingest", url=str(uri))
            return
        infos = infos_of(uris)
        for dataset in datasets:
            uri, path = places[dataset.refs[0].id]
            if isinstance(uri, DcacheResourcePath):
                self._prepared[dataset.refs[0].id] = self._record(
                    path, dataset.refs[0], cast(Any, dataset.formatter), infos[uri]
                )

    def _existing_place(self, path: ResourcePathExpression, transfer: str | None) -> tuple[ResourcePath, str]:
        """Return where a file is that is not to be transferred, and the path for its record."""
        uri = ResourcePath(path, forceAbsolute=False, forceDirectory=False)
        inside = uri.ospath if not uri.isabs() else None
        if inside is None and transfer != "direct":
            inside = uri.relative_to(self.root)
        if inside is None:
            return uri, str(uri)
        location = self.locationFactory.fromPath(inside, trusted_path=uri.isabs())
        return location.uri, location.pathInStore.path

    def _record(
        self,
        path: str,
        ref: DatasetRef,
        formatter: Formatter | FormatterV2 | type[Formatter | FormatterV2],
        info: FileInfo | None,
    ) -> StoredFileInfo:
        if info is not None and info.is_file and info.size is None:
            # If it is cut it looks perfect from then on (protocol page, "What surprised us", 1).
            raise FileBrokenError("the upload of this file has not ended", operation="ingest", url=info.url)
        checksum = None if info is None or not self.useChecksum else _checksum_of(info.checksums)
        return StoredFileInfo(
            formatter=formatter,
            path=path,
            storageClass=ref.datasetType.storageClass,
            component=ref.datasetType.component(),
            file_size=-1 if info is None or info.size is None else info.size,
            checksum=checksum,
        )

    # Removal.

    @transactional
    def _empty_trash_subset(
        self,
        *,
        ignore_errors: bool = True,
        selected_ids: Collection[DatasetId] | None = None,
        dry_run: bool = False,
    ) -> set[ResourcePath]:
        """Remove files that are in the trash, and forget those that are gone.

        Parameters
        ----------
        ignore_errors : `bool`, optional
            Has no effect: what was refused is always raised, and stays in the trash.
        selected_ids : `~collections.abc.Collection` [`~lsst.daf.butler.DatasetId`], optional
            Which; everything if `None`.
        dry_run : `bool`, optional
            Only say what would be removed.

        Returns
        -------
        removed : `set` [`lsst.resources.ResourcePath`]
            Files that are gone.

        Raises
        ------
        ExceptionGroup
            With the error of each file that could not be removed, after everything else was.
        """
        if dry_run:
            return super()._empty_trash_subset(
                ignore_errors=ignore_errors, selected_ids=selected_ids, dry_run=True
            )
        trashed = self._list_trash(selected_ids)
        removed: set[ResourcePath] = set()
        refused: dict[ResourcePath, Exception] = {}
        for ids in chunk_iterable(trashed, chunk_size=_IDS_PER_QUERY):
            # What others still use is kept; the base class knows which that is.
            artifacts = super()._empty_trash_subset(selected_ids=ids, dry_run=True)
            for uri, result in ResourcePath.mremove(artifacts, do_raise=False).items():
                if result.exception is None or isinstance(result.exception, FileNotFoundError):
                    removed.add(uri)
                else:
                    refused[uri] = result.exception
            self._forget_trash([id_ for id_ in ids if refused.keys().isdisjoint(trashed[id_])])
        if refused:
            raise ExceptionGroup(
                f"{len(refused)} of {len(refused) + len(removed)} files of datastore {self.name} could not "
                "be removed; their records stay in the trash until it is emptied again",
                list(refused.values()),
            )
        return removed

    def _list_trash(self, selected_ids: Collection[DatasetId] | None) -> dict[DatasetId, set[ResourcePath]]:
        trashed: dict[DatasetId, set[ResourcePath]] = {}
        with self.bridge.emptyTrash(
            self._table,
            record_class=StoredFileInfo,
            record_column="path",
            selected_ids=selected_ids,
            dry_run=True,
        ) as (entries, _):
            for ref, info in entries:
                uri = cast(StoredFileInfo, info).file_location(self.locationFactory).uri
                trashed.setdefault(ref.id, set()).add(uri.replace(fragment=""))
        return trashed

    def _forget_trash(self, ids: Collection[DatasetId]) -> None:
        # Without identifiers the bridge would forget everything.
        if ids:
            with self.bridge.emptyTrash(
                self._table, record_class=StoredFileInfo, record_column="path", selected_ids=ids
            ):
                pass


def _adopted_name(config: Config) -> str:
    """Return the name that `FileDatastore` gives itself for this configuration."""
    return f"FileDatastore@{config['root']}"


def _checksum_of(checksums: Mapping[str, str]) -> str | None:
    """Return what a record holds: the algorithm is named, since the Butler's own checksums are blake2b."""
    found = next((name for name in _CHECKSUMS if name in checksums), None)
    return None if found is None else f"{found}:{checksums[found]}"


def _info_of(uri: ResourcePath) -> FileInfo:
    store, url = cast(DcacheResourcePath, uri).place
    return store.info(url)


def _remove_own(publication: FileInfo) -> None:
    """Remove a file that this process has published, unless somebody has replaced it since.

    Notes
    -----
    Raises nothing: an error is on its way already, and the next attempt overwrites what is left behind.
    """
    store = store_for(publication.url)
    try:
        if _is_same(store.stat(publication.url), publication):
            store.remove(publication.url)
        else:
            _log.warning("%s was replaced by another writer and is left alone", publication.url)
    except ResourceNotFoundError:
        pass
    except DcacheError as exc:
        _log.warning("a file of a failed put is left behind: %s", exc)


def _is_same(present: FileInfo, publication: FileInfo) -> bool:
    """Whether a file is the one that was published, as far as both descriptions tell."""
    if present.etag and publication.etag:
        if present.etag != publication.etag:
            return False
        if not publication.url.startswith("s3:"):
            return True
        # There it is made of the contents.
    if present.size != publication.size:
        return False
    if any(publication.checksums.get(key, value) != value for key, value in present.checksums.items()):
        return False
    # The same bytes may come from another writer, such as the second attempt at a quantum.
    return (
        present.modified is None
        or publication.modified is None
        or abs(present.modified - publication.modified) <= _CLOCK_DIFFERENCE
    )
