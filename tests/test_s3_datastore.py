"""`DcacheDatastore` with its root on S3, by itself and in a chain with dCache."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import test_datastore
from lsst.daf.butler import Butler, Config, DatasetType, FileDataset
from lsst.daf.butler_dcache import DcacheDatastore
from lsst.daf.butler_dcache.s3_resource_path import DcacheS3ResourcePath
from lsst.daf.butler_dcache.transport import exchange
from lsst.images import Box, Image
from lsst.resources import ResourcePath
from test_datastore import CLS, Repository, checksum, template  # noqa: F401


@pytest.fixture
def base_url(s3_url: str) -> str:
    """Where the tests of dCache, which are run here too, have their files."""
    return s3_url


@pytest.fixture
def repository(template: Path, tmp_path: Path, base_url: str) -> Iterator[Repository]:  # noqa: F811
    shutil.copytree(template, tmp_path / "repo")
    config = tmp_path / "repo" / "butler.yaml"
    config.write_text(config.read_text().replace(test_datastore.TEMPLATE_ROOT, base_url))
    repository = Repository(tmp_path / "repo")
    yield repository
    repository.close()


@pytest.fixture
def requests() -> Iterator[list[str]]:
    """Methods of the requests that are sent from here on."""
    methods: list[str] = []

    def observe(one: exchange.Exchange) -> None:
        methods.append(one.method)

    exchange.add_observer(observe)
    yield methods
    exchange.remove_observer(observe)


class TestConfigurationOnS3(test_datastore.TestConfiguration):
    """The tests of dCache."""

    def test_it_stays_itself(self, repository: Repository) -> None:
        assert type(repository.datastore) is DcacheDatastore
        assert type(repository.datastore.root) is DcacheS3ResourcePath
        with repository.butler.clone() as clone:
            assert type(clone._datastore) is DcacheDatastore
            assert clone.get(repository.put(0)) == {"detector": 0}

    test_defaults_are_shipped = test_a_local_root_works = None  # type: ignore[assignment]


class TestRecordsOnS3(test_datastore.TestRecords):
    """The tests of dCache, but for what a server has of files that others have written."""

    test_ingest_of_an_unfinished_upload = None  # type: ignore[assignment]

    @pytest.mark.parametrize("transfer", ["direct", None])
    @pytest.mark.parametrize("count", [2, 9])
    def test_ingest_of_files_that_are_there(
        self, repository: Repository, base_url: str, transfer: str | None, count: int
    ) -> None:
        files = []
        for n in range(count):
            uri = ResourcePath(f"{base_url}a%20b/file{n}.yaml")
            uri.write(b"detector: %d\n" % n)
            files.append(FileDataset(uri, repository.new_ref(n)))
        repository.butler.ingest(*files, transfer=transfer)
        for n, file in enumerate(files):
            data = b"detector: %d\n" % n
            (record,) = repository.records(file.refs[0])
            assert record.file_size == len(data)
            # As this process wrote it; a listing of S3 would tell no checksum.
            assert record.checksum == checksum(data)
            assert ("://" in record.path) == (transfer == "direct")
            assert repository.butler.get(file.refs[0]) == {"detector": n}


class TestFailedPutOnS3(test_datastore.TestFailedPut):
    """The tests of dCache."""


class TestPrune:
    """Removal."""

    def test_many_files_by_one_request(self, repository: Repository, requests: list[str]) -> None:
        refs = [repository.put(n) for n in range(30)]
        uris = [repository.butler.getURI(ref) for ref in refs]
        requests.clear()
        assert all(repository.butler.stored_many(refs).values())
        assert requests == ["GET"]
        requests.clear()
        repository.butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)
        assert requests == ["POST"]
        assert not any(ResourcePath.mexists(uris).values())
        assert not list(repository.datastore._table.fetch(dataset_id=[ref.id for ref in refs]))

    test_a_file_that_is_gone_already_is_forgotten = (
        test_datastore.TestRefusals.test_a_file_that_is_gone_already_is_forgotten
    )
    test_files_of_others_are_kept = test_datastore.TestRefusals.test_files_of_others_are_kept

    def test_a_reader_is_refused_and_nothing_is_forgotten(
        self, repository: Repository, seaweed: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refs = [repository.put(n) for n in range(3)]
        with monkeypatch.context() as patch:
            for name, value in seaweed.reader_environment.items():
                patch.setenv(name, value)
            assert repository.butler.get(refs[1]) == {"detector": 1}
            with pytest.raises(RuntimeError, match="serialize") as failed:
                repository.put(3)
            assert isinstance(failed.value.__cause__, PermissionError)
            with pytest.raises(ExceptionGroup, match="3 of 3") as caught:
                repository.butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)
            assert all(isinstance(error, PermissionError) for error in caught.value.exceptions)
        assert len(repository.datastore.emptyTrash()) == 3


class TestTrust:
    """Files without records."""

    def test_files_of_another_repository(self, repository: Repository, tmp_path: Path, base_url: str) -> None:
        refs = [repository.put(n) for n in range(3)]
        other = Repository.make(tmp_path / "trusting", base_url, trust_get_request=True)
        assert not other.datastore.knows(refs[0])
        assert other.datastore.exists(refs[0])
        assert all(other.datastore.mexists(refs).values())
        assert other.datastore.get(refs[2]) == {"detector": 2}
        assert not other.datastore.exists(other.new_ref(9))
        other.close()


class TestTwoStores:
    """S3 and dCache."""

    @pytest.mark.parametrize("transfer", ["copy", "auto"])
    def test_transfer_between_repositories(
        self, repository: Repository, tmp_path: Path, dcache: Any, transfer: str
    ) -> None:
        refs = [repository.put(n) for n in range(5)]
        there = Repository.make(tmp_path / "there", f"{dcache.url}{tmp_path.name}/there/")
        there.butler.transfer_from(repository.butler, refs, transfer=transfer)
        assert there.records(*refs) == repository.records(*refs)
        back = Repository.make(tmp_path / "back", f"{repository.datastore.root}back/")
        back.butler.transfer_from(there.butler, refs, transfer=transfer)
        assert back.records(*refs) == repository.records(*refs)
        for each in (there, back):
            assert [each.butler.get(ref) for ref in refs] == [{"detector": n} for n in range(5)]
            each.close()

    def test_chained(self, tmp_path: Path, base_url: str, dcache: Any) -> None:
        config = Config()
        roots = [f"{dcache.url}{tmp_path.name}/", base_url]
        config["datastore", "cls"] = "lsst.daf.butler.datastores.chainedDatastore.ChainedDatastore"
        config["datastore", "datastores"] = [
            {
                "datastore": {
                    "cls": CLS,
                    "root": root,
                    "records": {"table": f"records{n}"},
                    "cached": {"default": False},
                }
            }
            for n, root in enumerate(roots)
        ]
        Butler.makeRepo(str(tmp_path / "repo"), config=config, forceConfigRoot=False)
        with Butler.from_config(str(tmp_path / "repo"), writeable=True) as butler:
            children = butler._datastore.datastores
            assert [type(child) for child in children] == [DcacheDatastore] * 2
            assert [str(child.root) for child in children] == roots
            kind = DatasetType("thing", (), "StructuredDataDict", universe=butler.dimensions)
            butler.registry.registerDatasetType(kind)
            butler.registry.registerRun("run")
            ref = butler.put({"a": 1}, kind, run="run")
            files = [child.getURI(ref) for child in children]
            assert [uri.scheme for uri in files] == [ResourcePath(root).scheme for root in roots]
            assert len({zlib.adler32(uri.read()) for uri in files}) == 1
            records = [child.getStoredItemsInfo(ref)[0] for child in children]
            assert records[0].checksum == records[1].checksum
            assert records[0].checksum.startswith("adler32:")
            files[0].remove()
            assert children[1].get(ref) == {"a": 1}
            files[1].transfer_from(files[1], "copy")
            files[0].transfer_from(files[1], "copy")
            assert butler.get(ref) == {"a": 1}
            butler.pruneDatasets([ref], disassociate=True, unstore=True, purge=True)
            assert not any(uri.exists() for uri in files)


class TestParts:
    """Reading less than a file."""

    @pytest.fixture
    def butler(self, tmp_path: Path, base_url: str) -> Iterator[Butler]:
        config = Config()
        config["datastore", "cls"] = CLS
        config["datastore", "root"] = base_url
        config["datastore", "cached", "default"] = False
        Butler.makeRepo(str(tmp_path / "parts"), config=config, forceConfigRoot=False)
        with Butler.from_config(str(tmp_path / "parts"), writeable=True, run="run") as butler:
            butler.registry.insertDimensionData("instrument", {"name": "Cam"})
            yield butler

    @pytest.fixture
    def received(self) -> Iterator[list[int]]:
        numbers: list[int] = []

        def observe(one: exchange.Exchange) -> None:
            numbers.append(one.received)

        exchange.add_observer(observe)
        yield numbers
        exchange.remove_observer(observe)

    def put(self, butler: Butler, value: Any, storage_class: str) -> Any:
        kind = DatasetType("thing", ("instrument",), storage_class, universe=butler.dimensions)
        butler.registry.registerDatasetType(kind)
        return butler.put(value, kind, instrument="Cam")

    def test_column(self, butler: Butler, received: list[int]) -> None:
        table = pa.table({f"c{n}": np.random.default_rng(n).random(100_000) for n in range(10)})
        ref = self.put(butler, table, "ArrowTable")
        size = ResourcePath(butler.getURI(ref)).size()
        received.clear()
        assert butler.get(ref, parameters={"columns": ["c3"]}) == table.select(["c3"])
        assert sum(received) < size / 5
        assert len(received) <= 4

    def test_cutout(self, butler: Butler, received: list[int]) -> None:
        values = np.random.default_rng(1).random((2000, 2000), dtype=np.float32)
        image = Image(values, bbox=Box.from_shape(values.shape))
        ref = self.put(butler, image, "ImageV2")
        size = ResourcePath(butler.getURI(ref)).size()
        received.clear()
        box = Box.factory[900:1100, 950:1050]
        assert np.array_equal(butler.get(ref, parameters={"bbox": box}).array, image[box].array)
        assert sum(received) < size / 4

    def test_members_of_a_zip(self, repository: Repository, tmp_path: Path, requests: list[str]) -> None:
        refs = [repository.put(n) for n in range(12)]
        (tmp_path / "zipped").mkdir()
        path = repository.butler.retrieve_artifacts_zip(refs, tmp_path / "zipped")
        repository.butler.pruneDatasets(refs, disassociate=False, unstore=True)
        repository.butler.ingest_zip(path, transfer="copy")
        uri = repository.butler.getURI(refs[7])
        assert uri.scheme == "s3"
        assert "zip-path" in uri.fragment
        requests.clear()
        assert repository.butler.get(refs[7]) == {"detector": 7}
        assert len(requests) <= 4
        assert all(repository.butler.stored_many(refs).values())
        repository.butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)
        assert not uri.replace(fragment="").exists()
