"""`DcacheDatastore` through a Butler with an SQLite registry."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded_client import Client
from lsst.daf.butler import Butler, Config, DatasetRef, DatasetType, FileDataset
from lsst.daf.butler.datastore import DatastoreConfig
from lsst.daf.butler_dcache import DcacheDatastore, DcacheFileSystem, DcacheResourcePath
from lsst.daf.butler_dcache.embedded import Fault
from lsst.daf.butler_dcache.errors import FileBrokenError
from lsst.resources import ResourcePath
from request_counter import counted

CLS = "lsst.daf.butler_dcache.DcacheDatastore"
DETECTORS = 40


TEMPLATE_ROOT = "davs://door.example.org/repository/"


class Repository:
    """A Butler repository that is there: registry in a local folder, files below a URL."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.butler = Butler.from_config(self.folder, writeable=True)
        self.dataset_type = DatasetType(
            "thing", ("instrument", "detector"), "StructuredDataDict", universe=self.butler.dimensions
        )

    @classmethod
    def make(cls, folder: Path, root: str, *, kind: str = CLS, **datastore: Any) -> Repository:
        config = Config()
        config["datastore", "cls"] = kind
        config["datastore", "root"] = root
        # What is cached is not asked for, and these tests look at what is asked for.
        config["datastore", "cached", "default"] = False
        for key, value in datastore.items():
            config["datastore", key] = value
        Butler.makeRepo(str(folder), config=config, forceConfigRoot=False)
        repository = cls(folder)
        registry = repository.butler.registry
        registry.registerRun("run")
        registry.insertDimensionData("instrument", {"name": "Cam"})
        registry.insertDimensionData(
            "detector", *({"instrument": "Cam", "id": n, "full_name": f"d{n}"} for n in range(DETECTORS))
        )
        registry.registerDatasetType(repository.dataset_type)
        return repository

    @property
    def datastore(self) -> Any:
        return self.butler._datastore

    def new_ref(self, detector: int) -> DatasetRef:
        data_id = self.butler.registry.expandDataId(instrument="Cam", detector=detector)
        return DatasetRef(self.dataset_type, data_id, run="run")

    def put(self, detector: int) -> DatasetRef:
        return self.butler.put(
            {"detector": detector}, self.dataset_type, instrument="Cam", detector=detector, run="run"
        )

    def local_files(self, folder: Path, count: int) -> list[FileDataset]:
        files = []
        for detector in range(count):
            path = folder / f"file{detector}.yaml"
            path.write_text(f"detector: {detector}\n")
            files.append(FileDataset(str(path), self.new_ref(detector)))
        return files

    def records(self, *refs: DatasetRef) -> list[Any]:
        return [self.datastore.getStoredItemsInfo(ref)[0] for ref in refs]

    def close(self) -> None:
        self.butler.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repository to copy, since making one takes a second."""
    folder = tmp_path_factory.mktemp("template")
    Repository.make(folder, TEMPLATE_ROOT).close()
    return folder


@pytest.fixture
def repository(template: Path, tmp_path: Path, base_url: str) -> Iterator[Repository]:
    shutil.copytree(template, tmp_path / "repo")
    config = tmp_path / "repo" / "butler.yaml"
    config.write_text(config.read_text().replace(TEMPLATE_ROOT, base_url))
    repository = Repository(tmp_path / "repo")
    yield repository
    repository.close()


@pytest.fixture
def faults(embedded: Any) -> Iterator[Any]:
    yield embedded.faults
    embedded.faults.clear()


def checksum(data: bytes) -> str:
    return f"adler32:{zlib.adler32(data):08x}"


class TestConfiguration:
    """What class and name it is."""

    def test_it_stays_itself(self, repository: Repository) -> None:
        assert type(repository.datastore) is DcacheDatastore
        assert type(repository.datastore.root) is DcacheResourcePath
        with repository.butler.clone() as clone:
            assert type(clone._datastore) is DcacheDatastore
            assert clone._datastore.name == repository.datastore.name
            ref = repository.put(0)
            assert clone.get(ref) == {"detector": 0}

    def test_defaults_are_shipped(self) -> None:
        config = Config()
        config["datastore", "cls"] = CLS
        full = DatastoreConfig(config)
        assert full["checksum"] is True
        assert {"templates", "formatters", "composites", "cached", "records"} <= set(full.keys())

    def test_a_new_repository_has_an_explicit_name(self, template: Path) -> None:
        written = Config(str(template / "butler.yaml"))
        assert written["datastore", "name"] == f"FileDatastore@{TEMPLATE_ROOT}"

    def test_a_given_name_is_kept(self, tmp_path: Path, base_url: str) -> None:
        repository = Repository.make(tmp_path / "repo", base_url, name="mine")
        assert repository.datastore.name == "mine"
        assert Config(f"{repository.folder}/butler.yaml")["datastore", "name"] == "mine"
        repository.close()

    def test_an_adopted_repository_keeps_its_name_and_files(self, tmp_path: Path, base_url: str) -> None:
        folder = tmp_path / "repo"
        repository = Repository.make(
            folder, base_url, kind="lsst.daf.butler.datastores.fileDatastore.FileDatastore"
        )
        name = repository.datastore.name
        assert name == f"FileDatastore@{base_url}"
        ref = repository.put(1)
        uri = repository.butler.getURI(ref)
        repository.close()
        written = Config(str(folder / "butler.yaml"))
        assert "name" not in written["datastore"]
        written["datastore", "cls"] = CLS
        written.dumpToUri(str(folder / "butler.yaml"), overwrite=True)
        with Butler.from_config(str(folder), writeable=True) as butler:
            assert type(butler._datastore) is DcacheDatastore
            assert butler._datastore.name == name
            assert butler.get(ref) == {"detector": 1}
            butler.pruneDatasets([ref], disassociate=True, unstore=True, purge=True)
            assert not uri.exists()

    def test_chained(self, tmp_path: Path, base_url: str) -> None:
        config = Config()
        config["datastore", "cls"] = "lsst.daf.butler.datastores.chainedDatastore.ChainedDatastore"
        config["datastore", "datastores"] = [
            {"datastore": {"cls": CLS, "root": f"{base_url}{n}/", "records": {"table": f"records{n}"}}}
            for n in range(2)
        ]
        Butler.makeRepo(str(tmp_path), config=config, forceConfigRoot=False)
        with Butler.from_config(str(tmp_path), writeable=True) as butler, butler.clone() as clone:
            for each in (butler, clone):
                assert [type(child) for child in each._datastore.datastores] == [DcacheDatastore] * 2
                assert each._datastore.names == tuple(f"FileDatastore@{base_url}{n}/" for n in range(2))
            dataset_type = DatasetType("thing", (), "StructuredDataDict", universe=butler.dimensions)
            butler.registry.registerDatasetType(dataset_type)
            butler.registry.registerRun("run")
            ref = butler.put({"a": 1}, dataset_type, run="run")
            assert clone.get(ref) == {"a": 1}
            assert all(uri.exists() for uri in [ResourcePath(f"{base_url}{n}/run/thing/") for n in range(2)])

    def test_a_local_root_works(self, tmp_path: Path) -> None:
        repository = Repository.make(tmp_path / "repo", str(tmp_path / "files"))
        ref = repository.put(3)
        files = repository.local_files(tmp_path, 3)
        refs = [file.refs[0] for file in files]
        repository.butler.ingest(*files, transfer="copy")
        assert repository.butler.get(ref) == {"detector": 3}
        assert all(repository.butler.stored_many(refs).values())
        repository.butler.pruneDatasets([ref, *refs], disassociate=True, unstore=True, purge=True)
        assert not list((tmp_path / "files").rglob("*.yaml"))
        repository.close()


class TestRecords:
    """Sizes and checksums."""

    def test_put(self, repository: Repository) -> None:
        ref = repository.put(0)
        (record,) = repository.records(ref)
        data = repository.butler.getURI(ref).read()
        assert (record.file_size, record.checksum) == (len(data), checksum(data))

    @pytest.mark.parametrize("count", [1, 12])
    def test_ingest(self, repository: Repository, tmp_path: Path, count: int) -> None:
        files = repository.local_files(tmp_path, count)
        repository.butler.ingest(*files, transfer="copy")
        for n, (file, record) in enumerate(
            zip(files, repository.records(*(file.refs[0] for file in files)), strict=True)
        ):
            data = Path(str(file.path)).read_bytes()
            assert (record.file_size, record.checksum) == (len(data), checksum(data))
            assert repository.butler.get(file.refs[0]) == {"detector": n}

    @pytest.mark.parametrize("transfer", ["direct", None])
    @pytest.mark.parametrize("count", [2, 9])
    def test_ingest_of_files_that_are_there(
        self, repository: Repository, base_url: str, transfer: str | None, count: int
    ) -> None:
        files = []
        for n in range(count):
            uri = ResourcePath(f"{base_url}a b/file{n}.yaml".replace(" ", "%20"))
            uri.write(b"detector: %d\n" % n)
            files.append(FileDataset(uri, repository.new_ref(n)))
        repository.butler.ingest(*files, transfer=transfer)
        for n, file in enumerate(files):
            data = b"detector: %d\n" % n
            (record,) = repository.records(file.refs[0])
            # XRootD has no checksums in its listings.
            kept = DcacheFileSystem().info(str(repository.butler.getURI(file.refs[0])))["checksums"]
            assert record.file_size == len(data)
            assert record.checksum in {checksum(data), None if not kept else checksum(data)}
            assert ("://" in record.path) == (transfer == "direct")
            assert repository.butler.get(file.refs[0]) == {"detector": n}

    @pytest.mark.parametrize("validate", [True, False])
    def test_ingest_of_a_missing_file(self, repository: Repository, base_url: str, validate: bool) -> None:
        missing = FileDataset(ResourcePath(f"{base_url}missing.yaml"), repository.new_ref(0))
        with pytest.raises(FileNotFoundError):
            repository.butler.ingest(missing, transfer="direct", record_validation_info=validate)

    @pytest.mark.parametrize("count", [1, 5])
    def test_ingest_of_an_unfinished_upload(
        self, repository: Repository, base_url: str, embedded: Any, count: int
    ) -> None:
        """It has no size yet, and may never have one."""
        files = []
        for n in range(count):
            uri = ResourcePath(f"{base_url}file{n}.yaml")
            uri.write(b"detector: %d\n" % n)
            files.append(FileDataset(uri, repository.new_ref(n)))
        unfinished = ResourcePath(f"{base_url}unfinished.yaml")
        begun = Client(embedded).ask(
            "PUT", str(unfinished).replace("davs:", "https:"), Expect="100-continue", Content_Length="5"
        )
        assert begun.status == 307
        files.append(FileDataset(unfinished, repository.new_ref(count)))
        with pytest.raises(FileBrokenError, match="not ended"):
            repository.butler.ingest(*files, transfer="direct")
        assert not repository.datastore.knows(files[0].refs[0])

    def test_ingest_without_validation(self, repository: Repository, tmp_path: Path) -> None:
        files = repository.local_files(tmp_path, 3)
        repository.butler.ingest(*files, transfer="copy", record_validation_info=False)
        assert [(r.file_size, r.checksum) for r in repository.records(files[2].refs[0])] == [(-1, None)]

    def test_ingest_that_fails_in_the_middle(self, repository: Repository, tmp_path: Path) -> None:
        files = repository.local_files(tmp_path, 10)
        Path(str(files[5].path)).unlink()
        with pytest.raises(FileNotFoundError):
            repository.butler.ingest(*files, transfer="copy")
        assert not any(repository.butler.stored_many([file.refs[0] for file in files]).values())

    def test_checksums_can_be_switched_off(self, tmp_path: Path, base_url: str) -> None:
        repository = Repository.make(tmp_path / "repo", base_url, checksum=False)
        files = repository.local_files(tmp_path, 2)
        repository.butler.ingest(*files, transfer="copy")
        refs = [repository.put(5), *(file.refs[0] for file in files)]
        assert [record.checksum for record in repository.records(*refs)] == [None] * 3
        repository.close()

    def test_transfer_between_repositories(
        self, repository: Repository, tmp_path: Path, base_url: str
    ) -> None:
        refs = [repository.put(n) for n in range(5)]
        other = Repository.make(tmp_path / "other", f"{base_url}other/")
        other.butler.transfer_from(repository.butler, refs, transfer="copy")
        assert other.records(*refs) == repository.records(*refs)
        assert [other.butler.get(ref) for ref in refs] == [{"detector": n} for n in range(5)]
        other.close()


class TestRefusals:
    """The server says no."""

    def test_refused_questions_raise_rather_than_say_absent(
        self, repository: Repository, faults: Any
    ) -> None:
        refs = [repository.put(n) for n in range(3)]
        faults.add(Fault("status", server="door", method="PROPFIND", status=403, times=None))
        for question in (
            lambda: repository.butler.stored_many(refs),
            lambda: repository.butler._exists_many(refs, full_check=True),
            lambda: repository.butler.stored(refs[0]),
        ):
            with pytest.raises(PermissionError, match="403"):
                question()

    def test_failed_questions_raise_rather_than_say_absent(self, repository: Repository, faults: Any) -> None:
        refs = [repository.put(n) for n in range(3)]
        faults.add(Fault("status", server="door", method="PROPFIND", status=503, times=None))
        with pytest.raises(OSError, match="503"):
            repository.butler.stored_many(refs)

    def test_prune_does_not_forget_what_was_refused(self, repository: Repository, faults: Any) -> None:
        refs = [repository.put(n) for n in range(6)]
        uris = [repository.butler.getURI(ref) for ref in refs]
        fault = faults.add(
            Fault("status", method="DELETE", path="*d3_run.yaml", status=403, reason="Denied", times=None)
        )
        with pytest.raises(ExceptionGroup, match="1 of 6") as caught:
            repository.butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)
        (error,) = caught.value.exceptions
        assert isinstance(error, PermissionError)
        assert fault.hits > 0
        assert [uri.exists() for uri in uris] == [n == 3 for n in range(6)]
        left = list(repository.datastore._table.fetch(dataset_id=[ref.id for ref in refs]))
        assert [row["dataset_id"] for row in left] == [refs[3].id]
        # It is in the trash, and goes with it when the server is willing.
        faults.clear()
        assert repository.datastore.emptyTrash(dry_run=True) == {uris[3]}
        assert repository.datastore.emptyTrash() == {uris[3]}
        assert not uris[3].exists()
        assert not list(repository.datastore._table.fetch(dataset_id=[refs[3].id]))

    def test_a_file_that_is_gone_already_is_forgotten(self, repository: Repository) -> None:
        refs = [repository.put(n) for n in range(2)]
        repository.butler.getURI(refs[0]).remove()
        repository.butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)
        assert not list(repository.datastore._table.fetch(dataset_id=[ref.id for ref in refs]))

    def test_files_of_others_are_kept(self, repository: Repository, tmp_path: Path) -> None:
        path = tmp_path / "shared.yaml"
        path.write_text("detector: 0\n")
        refs = [repository.new_ref(n) for n in range(2)]
        repository.butler.ingest(FileDataset(str(path), refs), transfer="copy")
        uri = repository.butler.getURI(refs[0])
        repository.butler.pruneDatasets(refs[:1], disassociate=True, unstore=True, purge=True)
        assert uri.exists()
        repository.butler.pruneDatasets(refs[1:], disassociate=True, unstore=True, purge=True)
        assert not uri.exists()


class TestFailedPut:
    """What is cleaned up, and what is not."""

    def test_own_file_is_removed(self, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        uri = repository.datastore.getURI(repository.new_ref(0), predict=True).replace(fragment="")
        _fail_to_register(repository, monkeypatch)
        with pytest.raises(RuntimeError, match="registry"):
            repository.put(0)
        assert not uri.exists()

    def test_a_file_that_was_there_is_left_alone(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = repository.datastore.getURI(repository.new_ref(0), predict=True).replace(fragment="")
        uri.write(b"another writer's")
        monkeypatch.setattr(
            "lsst.daf.butler.formatters.yaml.YamlFormatter.to_bytes", _raise(RuntimeError("formatter"))
        )
        with pytest.raises(RuntimeError):
            repository.put(0)
        assert uri.read() == b"another writer's"

    def test_a_file_that_was_replaced_meanwhile_is_left_alone(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = repository.datastore.getURI(repository.new_ref(0), predict=True).replace(fragment="")
        _fail_to_register(repository, monkeypatch, before=lambda: uri.write(b"another writer's"))
        with pytest.raises(RuntimeError, match="registry"):
            repository.put(0)
        assert uri.read() == b"another writer's"


def _raise(error: Exception) -> Any:
    def function(*args: Any, **kwargs: Any) -> None:
        raise error

    return function


def _fail_to_register(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, before: Any = lambda: None
) -> None:
    def function(*args: Any, **kwargs: Any) -> None:
        before()
        raise RuntimeError("registry")

    monkeypatch.setattr(repository.datastore, "_register_datasets", function)


class TestRequests:
    """Requests per Butler operation (d = door, p = pool)."""

    def test_table(self, repository: Repository, embedded: Any, tmp_path: Path) -> None:
        butler = repository.butler
        refs = [repository.put(0)]  # whatever a process asks once
        files = repository.local_files(tmp_path, 30)
        found = {}
        for name, operation in {
            "put": lambda: refs.append(repository.put(30)),
            "get": lambda: butler.get(refs[1]),
            "getURI": lambda: butler.getURI(refs[1]),
            "stored": lambda: butler.stored(refs[1]),
            "ingest 20": lambda: butler.ingest(*files[1:21], transfer="copy"),
            "stored_many 20": lambda: butler.stored_many([file.refs[0] for file in files[1:21]]),
            "prune 20": lambda: butler.pruneDatasets(
                [file.refs[0] for file in files[1:21]], disassociate=True, unstore=True, purge=True
            ),
        }.items():
            with counted(embedded) as counter:
                operation()
            found[name] = (counter.at_door, counter.at_pool)
        assert found == {
            "put": (2, 0),
            "get": (1, 1),
            "getURI": (0, 0),
            "stored": (1, 0),
            "ingest 20": (40, 0),
            "stored_many 20": (1, 0),
            "prune 20": (20, 0),
        }

    def test_a_thousand_datasets(self, repository: Repository, embedded: Any, base_url: str) -> None:
        """In ten directories: ten requests to take them in, and ten to find out that they are there."""
        registry = repository.butler.registry
        registry.insertDimensionData(
            "detector",
            *({"instrument": "Cam", "id": n, "full_name": f"d{n}"} for n in range(DETECTORS, 1000)),
        )
        folder = base_url.removeprefix(embedded.url)
        with registry.caching_context():
            refs = [
                DatasetRef(repository.dataset_type, data_id, run="run")
                for data_id in registry.queryDataIds(["detector"], instrument="Cam").expanded()
            ]
        files = []
        for n, ref in enumerate(refs):
            embedded.place(f"{folder}raw/{n % 10}/{n}.yaml", b"detector: 1\n")
            files.append(FileDataset(ResourcePath(f"{base_url}raw/{n % 10}/{n}.yaml"), ref))
        repository.butler.exists(refs[0])  # whatever a process asks once
        with counted(embedded) as counter:
            repository.butler.ingest(*files, transfer="direct")
        assert counter.at_door == 10, counter
        with counted(embedded) as counter:
            assert sum(repository.butler.stored_many(refs).values()) == 1000
        assert counter.at_door == 10, counter

    def test_put_of_a_large_dataset(self, repository: Repository, embedded: Any) -> None:
        repository.put(0)
        with counted(embedded) as counter:
            repository.butler.put(
                {"text": "x" * 100_000}, repository.dataset_type, instrument="Cam", detector=1, run="run"
            )
        assert (counter.at_door, counter.at_pool) == (2, 1), counter

    @pytest.mark.parametrize("transfer", ["direct", None])
    def test_ingest_of_files_that_are_there(
        self, repository: Repository, embedded: Any, base_url: str, transfer: str | None
    ) -> None:
        repository.put(39)
        folder = base_url.removeprefix(embedded.url)
        files = []
        for n in range(30):
            embedded.place(f"{folder}raw/file{n}.yaml", b"detector: 1\n")
            files.append(FileDataset(ResourcePath(f"{base_url}raw/file{n}.yaml"), repository.new_ref(n)))
        with counted(embedded) as counter:
            repository.butler.ingest(*files, transfer=transfer)
        assert (counter.at_door, counter.at_pool) == (1, 0), counter

    def test_prune_of_a_thousand(
        self, repository: Repository, embedded: Any, faults: Any, base_url: str
    ) -> None:
        """Two bulk requests; what one of them cannot remove stays in the trash."""
        registry = repository.butler.registry
        numbers = range(DETECTORS, DETECTORS + 1000)
        registry.insertDimensionData(
            "detector", *({"instrument": "Cam", "id": n, "full_name": f"d{n}"} for n in numbers)
        )
        folder = base_url.removeprefix(embedded.url)
        files = []
        for n in numbers:
            embedded.place(f"{folder}raw/{n % 10}/file{n}.yaml", b"detector: 1\n")
            uri = ResourcePath(f"{base_url}raw/{n % 10}/file{n}.yaml")
            files.append(FileDataset(uri, repository.new_ref(n)))
        repository.butler.ingest(*files, transfer=None)
        refs = [file.refs[0] for file in files]
        faults.add(Fault("bulk_fail", reason="java.lang.Throwable", body="on fire", at_byte=498))
        with counted(embedded) as counter, pytest.raises(ExceptionGroup, match="2 of 1000") as caught:
            repository.butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)
        assert "on fire" in str(caught.value.exceptions[0])
        methods = counter.methods()
        assert methods.count("frontend POST") == methods.count("frontend DELETE") == 2
        # The frontend is found, and proven by one file: once in a process.
        assert sum(one.startswith("door") for one in methods) <= 2, counter
        assert len(methods) < 15, counter
        assert len(repository.datastore.emptyTrash(dry_run=True)) == 2
        assert len(repository.datastore.emptyTrash()) == 2
        assert repository.datastore.emptyTrash(dry_run=True) == set()
