"""`DcacheResourcePath`, beyond what the suites of lsst.resources ask."""

from __future__ import annotations

import copy
import io
import pickle
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from conftest import Server
from lsst.daf.butler_dcache import DcacheResourcePath
from lsst.daf.butler_dcache.embedded import EmbeddedDcache, Fault
from lsst.daf.butler_dcache.errors import (
    AccessDeniedError,
    CredentialError,
    DirectoryNotEmptyError,
    ResourceExistsError,
    ResourceIsDirectoryError,
    ResourceIsFileError,
    ResourceNotFoundError,
)
from lsst.resources import ResourcePath
from request_counter import counted

SMALL = b"some bytes\n"
LARGE = bytes(range(256)) * 1200  # 300 kB, more than a door proxies


@pytest.fixture
def root(base_url: str) -> ResourcePath:
    return ResourcePath(base_url, forceDirectory=True)


@pytest.fixture
def faults(embedded: Any) -> Iterator[Any]:
    yield embedded.faults
    embedded.faults.clear()


class TestPaths:
    """What needs no server."""

    @pytest.mark.parametrize(
        ("text", "normal"),
        [
            ("davs://door:2880", "davs://door:2880/"),
            ("davs://door:2880///a/b///c/../d", "davs://door:2880/a/b/d"),
            ("davs://door:2880/a/./b/", "davs://door:2880/a/b/"),
            ("dav://door/a%20b/../c%2Fd", "dav://door/c%2Fd"),
        ],
    )
    def test_normal_form(self, text: str, normal: str) -> None:
        uri = ResourcePath(text)
        assert isinstance(uri, DcacheResourcePath)
        assert str(uri) == normal
        assert ResourcePath(str(uri)) == uri

    def test_everything_made_of_it_is_of_the_same_class(self) -> None:
        uri = ResourcePath("davs://door:2880/a/b/c.txt", forceDirectory=False)
        made = [
            uri.dirname(), uri.parent(), uri.parent().parent(), uri.split()[0], uri.parent().join("x/y"),
            uri.updatedFile("d"), uri.updatedExtension(".fits"), uri.root_uri(), uri.replace(fragment="f"),
            ResourcePath(uri), ResourcePath(str(uri)), copy.copy(uri), copy.deepcopy(uri),
            pickle.loads(pickle.dumps(uri)),
        ]  # fmt: skip
        assert {type(each) for each in made} == {DcacheResourcePath}

    def test_split(self) -> None:
        head, tail = ResourcePath("davs://door:2880/a%20b/c%20d.txt#zip-path=x").split()
        assert str(head) == "davs://door:2880/a%20b/"
        assert tail == "c d.txt"
        assert head.split() == (head, "")

    @pytest.mark.parametrize("directory", [True, False, None])
    @pytest.mark.parametrize("temporary", [True, False])
    def test_pickle_keeps_everything(self, directory: bool | None, temporary: bool) -> None:
        uri = ResourcePath("davs://door:2880/a/b", forceDirectory=directory, isTemporary=temporary)
        again = pickle.loads(pickle.dumps(uri))
        assert (again, again.dirLike, again.isTemporary) == (uri, directory, temporary)
        assert hash(again) == hash(uri)

    def test_instances_hold_nothing_but_their_url(self) -> None:
        uri = ResourcePath("davs://door:2880/a/b")
        assert vars(uri).keys() == {"_uri", "dirLike", "isTemporary"}


class TestFiles:
    """Reading and writing."""

    @pytest.mark.parametrize("data", [b"", SMALL, LARGE])
    def test_write_read(self, root: ResourcePath, data: bytes) -> None:
        uri = root.join("dir with space/größe+1.dat")
        uri.write(data)
        assert uri.read() == data
        assert uri.size() == len(data)
        assert uri.read(size=7) == data[:7]
        assert uri.read(size=10_000_000) == data
        assert uri.read(size=0) == b""
        with uri.as_local() as local:
            assert local.read() == data
            assert local.getExtension() == ".dat"

    def test_write_from_a_file_begins_at_its_position(self, root: ResourcePath) -> None:
        uri: Any = root.join("file")
        file = io.BytesIO(LARGE)
        file.seek(1000)
        uri.write(file)
        assert uri.read() == LARGE[1000:]

    def test_a_used_path_pickles(self, root: ResourcePath) -> None:
        uri = root.join("file")
        uri.write(SMALL)
        assert pickle.loads(pickle.dumps(uri)).read() == SMALL

    def test_a_rewritten_file_has_its_new_size(self, root: ResourcePath) -> None:
        uri = root.join("file")
        for data in (b"0123456789", b"01234567890123456789", b"0"):
            uri.write(data)
            assert uri.size() == uri.get_info().size == len(data)
            with uri.open("rb") as handle:
                assert handle.read() == data

    def test_info(self, root: ResourcePath) -> None:
        uri = root.join("file")
        uri.write(SMALL)
        info = uri.get_info()
        assert (info.uri, info.is_file, info.size) == (str(uri), True, len(SMALL))
        assert info.last_modified is not None
        assert info.last_modified.tzinfo is not None
        directory = root.get_info()
        assert (directory.is_file, directory.size) == (False, 0)

    def test_missing(self, root: ResourcePath) -> None:
        uri: Any = root.join("missing")
        for operation in (uri.read, uri.size, uri.get_info):
            with pytest.raises(ResourceNotFoundError):
                operation()
        with pytest.raises(FileNotFoundError), uri.open("rb"):
            pass
        with pytest.raises(FileNotFoundError), uri.as_local():
            pass
        assert not uri.exists()
        uri.remove()

    def test_directories_are_no_files(self, root: ResourcePath) -> None:
        root.mkdir()
        with pytest.raises(ResourceIsDirectoryError):
            root.read()
        with pytest.raises(ResourceIsDirectoryError):
            root.write(SMALL)
        with pytest.raises(ResourceIsFileError):
            root.join("file", forceDirectory=False).mkdir()

    def test_exclusive_write(self, root: ResourcePath) -> None:
        uri = root.join("file")
        uri.write(SMALL, overwrite=False)
        with pytest.raises(ResourceExistsError):
            uri.write(LARGE, overwrite=False)
        with pytest.raises(FileExistsError), uri.open("xb") as handle:
            handle.write(LARGE)
        assert uri.read() == SMALL


class TestOpen:
    """File objects."""

    def test_nothing_is_published_if_the_block_raises(self, root: ResourcePath) -> None:
        def fail(mode: str, data: bytes | str) -> None:
            with uri.open(mode) as handle:
                handle.write(data)  # type: ignore[arg-type]
                raise RuntimeError

        uri = root.join("file")
        with pytest.raises(RuntimeError):
            fail("wb", b"half")
        assert not uri.exists()
        uri.write(SMALL)
        for mode, data in (("wb", b"half"), ("w", "half"), ("ab", b"half"), ("r+", "half")):
            with pytest.raises(RuntimeError):
                fail(mode, data)
        assert uri.read() == SMALL

    def test_readinto_lines_and_the_end(self, root: ResourcePath) -> None:
        uri = root.join("file")
        uri.write(b"one\ntwo\nthree")
        with uri.open("rb") as handle:
            file: Any = handle
            assert isinstance(file, io.IOBase)
            assert file.readline() == b"one\n"
            buffer = bytearray(4)
            assert file.readinto(memoryview(buffer)) == 4
            assert buffer == b"two\n"
            assert list(file) == [b"three"]
            assert file.readinto(memoryview(buffer)) == 0
            assert file.read() == b""
            assert file.seek(-5, io.SEEK_END) == 8
            assert file.read() == b"three"
        assert file.closed

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
    def test_text(self, root: ResourcePath, encoding: str) -> None:
        uri = root.join("file")
        with uri.open("w", encoding=encoding) as handle:
            handle.write("größe\n")
        with uri.open("a", encoding=encoding) as handle:
            handle.write("höhe\n")
        assert uri.read().decode(encoding) == "größe\nhöhe\n"
        with uri.open("r", encoding=encoding) as handle:
            assert handle.readlines() == ["größe\n", "höhe\n"]

    def test_seekable_output(self, root: ResourcePath) -> None:
        uri = root.join("archive.zip")
        with uri.open("wb") as handle, zipfile.ZipFile(handle, "w") as archive:  # type: ignore[arg-type]
            archive.writestr("member", LARGE)
        with uri.open("rb") as handle, zipfile.ZipFile(handle) as archive:  # type: ignore[arg-type]
            assert archive.read("member") == LARGE


class TestTransfer:
    """Copying and moving."""

    def test_from_a_local_file(self, root: ResourcePath, tmp_path: Any) -> None:
        (tmp_path / "file").write_bytes(LARGE)
        source = ResourcePath(tmp_path / "file")
        target = root.join("file")
        target.transfer_from(source, "copy")
        with pytest.raises(FileExistsError):
            target.transfer_from(source, "copy")
        target.transfer_from(source, "move", overwrite=True)
        assert target.read() == LARGE
        assert not source.exists()
        with pytest.raises(FileNotFoundError):
            target.transfer_from(source, "copy", overwrite=True)
        assert target.read() == LARGE

    @pytest.mark.parametrize("transfer", ["copy", "move", "auto"])
    def test_on_one_server(self, root: ResourcePath, transfer: str) -> None:
        source, target = root.join("source"), root.join("new/target")
        source.write(LARGE)
        target.transfer_from(source, transfer)
        assert target.read() == LARGE
        assert source.exists() == (transfer != "move")

    def test_onto_itself(self, root: ResourcePath) -> None:
        uri = root.join("file")
        uri.write(SMALL)
        uri.transfer_from(uri, "move", overwrite=True)
        assert uri.read() == SMALL

    def test_unknown_mode(self, root: ResourcePath) -> None:
        with pytest.raises(ValueError, match="symlink"):
            root.join("file").transfer_from(root.join("other"), "symlink")

    def test_between_servers(self, root: ResourcePath, embedded: Any) -> None:
        with EmbeddedDcache(tls=True, anonymous="readonly", limiter=False) as other:
            other.place("file", LARGE)
            source = ResourcePath(other.url).join("file")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", _both_endpoints(embedded, other))
                target = root.join("copy")
                target.transfer_from(source, "copy")
                assert target.read() == LARGE


def _both_endpoints(*servers: Server) -> str:
    entries: list[Any] = []
    for server in servers:
        with open(server.environment["LSST_RESOURCES_WEBDAV_CONFIG"]) as file:
            entries += yaml.safe_load(file)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as merged:
        yaml.safe_dump(entries, merged)
    return merged.name


class TestDirectories:
    """Trees."""

    def test_mkdir_walk_remove(self, root: ResourcePath) -> None:
        for name in ("a/1.txt", "a/2.dat", "b c/3.txt", "b c/d/4.txt"):
            root.join(name).write(SMALL)
        root.join("empty/", forceDirectory=True).mkdir()
        root.join("empty/", forceDirectory=True).mkdir()
        found = {str(directory.relative_to(root)): (dirs, files) for directory, dirs, files in root.walk()}
        assert found == {
            ".": (["a", "b c", "empty"], []),
            "a": ([], ["1.txt", "2.dat"]),
            "b c": (["d"], ["3.txt"]),
            "b c/d": ([], ["4.txt"]),
        }
        assert set(ResourcePath.findFileResources([root], r"\.txt$")) == {
            root.join(name) for name in ("a/1.txt", "b c/3.txt", "b c/d/4.txt")
        }
        tree: Any = root
        with pytest.raises(DirectoryNotEmptyError):
            tree.remove_dir()
        tree.remove_dir(recursive=True)
        assert not root.exists()
        tree.remove_dir(recursive=True)
        assert list(root.walk()) == []

    def test_walk_can_be_pruned(self, root: ResourcePath) -> None:
        for name in ("a/1", "b/2"):
            root.join(name).write(SMALL)
        seen = []
        for directory, dirs, _ in root.walk():
            seen.append(directory.relative_to(root))
            dirs[:] = [name for name in dirs if name != "b"]
        assert seen == [".", "a"]

    def test_walk_of_a_file(self, root: ResourcePath) -> None:
        with pytest.raises(ValueError, match="non-directory"):
            list(root.join("file", forceDirectory=False).walk())


class TestBulk:
    """Many at a time."""

    def test_mexists_mremove(self, root: ResourcePath) -> None:
        there = [root.join(f"dir{n % 2}/file{n}") for n in range(6)]
        for uri in there:
            uri.write(SMALL)
        missing = [root.join("dir0/missing"), root.join("nowhere/missing")]
        member = there[0].replace(fragment="zip-path=x")
        expected = dict.fromkeys([*there, member], True) | dict.fromkeys(missing, False)
        assert ResourcePath.mexists([*there, *missing, member]) == expected
        results = ResourcePath.mremove([*there, *missing])
        assert results.keys() == {*there, *missing}
        assert all(result.success and result.exception is None for result in results.values())
        assert not any(ResourcePath.mexists(there).values())

    @pytest.mark.parametrize("status", [403, 503])
    def test_mexists_raises_rather_than_say_absent(
        self, root: ResourcePath, faults: Any, status: int
    ) -> None:
        uris = [root.join(f"file{n}") for n in range(3)]
        for uri in uris:
            uri.write(SMALL)
        faults.add(Fault("status", server="door", method="PROPFIND", status=status, times=None))
        with pytest.raises(OSError, match=str(status)):
            ResourcePath.mexists(uris)

    def test_without_a_credential(
        self, root: ResourcePath, embedded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entry = {"base_url": str(root.root_uri()), "trusted_authorities": embedded.ca_file}
        (tmp_path / "webdav.yaml").write_text(yaml.safe_dump([entry]))
        monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(tmp_path / "webdav.yaml"))
        monkeypatch.delenv("BEARER_TOKEN_FILE")
        uris = [root.join(f"dir{n}/file") for n in range(20)]
        # The third 401 within 20 s blocks this host.
        with counted(embedded) as counter, pytest.raises(CredentialError, match="401"):
            ResourcePath.mexists(uris)
        assert [record["status"] for record in counter.records].count(401) == 1, counter
        with counted(embedded) as counter:
            results = ResourcePath.mremove(uris, do_raise=False)
        assert {type(result.exception) for result in results.values()} == {CredentialError}
        assert counter.at_door <= 2, counter

    def test_refused_removal(self, root: ResourcePath, faults: Any) -> None:
        uris = [root.join(f"file{n}") for n in range(3)]
        for uri in uris:
            uri.write(SMALL)
        faults.add(Fault("status", method="DELETE", path="*file1", status=403, reason="No", times=None))
        results = ResourcePath.mremove(uris, do_raise=False)
        assert [results[uri].success for uri in uris] == [True, False, True]
        assert isinstance(results[uris[1]].exception, AccessDeniedError)
        with pytest.raises(ExceptionGroup):
            ResourcePath.mremove(uris)
        with pytest.raises(PermissionError):
            uris[1].remove()


class TestSharing:
    """URLs for others, and fsspec."""

    def test_presigned_urls(self, root: ResourcePath, embedded: Any) -> None:
        uri = root.join("file")
        url = uri.generate_presigned_put_url(expiration_time_seconds=60)
        assert url.startswith("https://")
        assert requests.put(url, data=SMALL, verify=embedded.ca_file, timeout=30).status_code == 201
        url = uri.generate_presigned_get_url(expiration_time_seconds=60)
        assert requests.get(url, verify=embedded.ca_file, timeout=30).content == SMALL
        assert requests.delete(url, verify=embedded.ca_file, timeout=30).status_code in (401, 403)

    def test_to_fsspec(self, root: ResourcePath) -> None:
        uri = root.join("a b.txt")
        uri.write(SMALL)
        fs, path = uri.to_fsspec()
        with fs.open(path) as handle:
            assert handle.read() == SMALL

    def test_fsspec_can_be_switched_off(
        self, root: ResourcePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entry = {"base_url": str(root.root_uri()), "enable_fsspec": False}
        (tmp_path / "webdav.yaml").write_text(yaml.safe_dump([entry]))
        monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(tmp_path / "webdav.yaml"))
        with pytest.raises(ImportError, match="disabled"):
            root.join("file").to_fsspec()


class TestRequests:
    """Requests per operation (d = door, p = pool)."""

    @pytest.fixture(autouse=True)
    def _met(self, root: ResourcePath, embedded: Any) -> None:
        # Whatever a process asks once is no part of an operation.
        root.join("first").write(SMALL)

    def test_table(self, root: ResourcePath, embedded: Any) -> None:
        small, large = root.join("small"), root.join("large")
        found = {}
        for name, operation in {
            "exists, missing": small.exists,
            "write small": lambda: small.write(SMALL),
            "size after write": small.size,
            "info after write": small.get_info,
            "write large": lambda: large.write(LARGE),
            "exists": small.exists,
            "read": large.read,
            "read(10)": lambda: large.read(10),
            "as_local": lambda: _use(large.as_local()),
            "open, one read": lambda: _use(large.open("rb")),
            "mkdir": root.join("x/y/z/", forceDirectory=True).mkdir,
            "move": lambda: root.join("moved").transfer_from(small, "move"),
            "remove": large.remove,
            "presign": lambda: root.join("moved").generate_presigned_get_url(expiration_time_seconds=60),
        }.items():
            with counted(embedded) as counter:
                operation()
            found[name] = (counter.at_door, counter.at_pool)
        assert found == {
            "exists, missing": (1, 0),
            "write small": (2, 0),
            "size after write": (0, 0),
            "info after write": (0, 0),
            "write large": (2, 1),
            "exists": (1, 0),
            "read": (1, 1),
            "read(10)": (1, 1),
            "as_local": (1, 1),
            "open, one read": (1, 1),
            "mkdir": (2, 0),
            "move": (1, 0),
            "remove": (1, 0),
            "presign": (0, 0),
        }

    def test_walk_is_one_request_per_directory(self, root: ResourcePath, embedded: Any) -> None:
        for n in range(5):
            root.join(f"dir{n}/file").write(SMALL)
        with counted(embedded) as counter:
            assert len(list(root.walk())) == 6
        assert (counter.at_door, counter.at_pool) == (6, 0)

    def test_mexists_is_one_request_per_directory(self, root: ResourcePath, embedded: Any) -> None:
        where = root.path
        uris = [root.join(f"dir{n % 4}/file{n}") for n in range(200)]
        for uri in uris:
            embedded.place(f"{where}{uri.relative_to(root)}", SMALL)
        with counted(embedded) as counter:
            assert all(ResourcePath.mexists(uris).values())
        assert counter.at_door == 4, counter

    def test_no_credential_reaches_a_pool(self, root: ResourcePath, embedded: Any) -> None:
        uri = root.join("large")
        with counted(embedded) as counter:
            uri.write(LARGE)
            assert uri.read() == LARGE
        assert counter.at_pool == 2
        assert not any(record["authorization"] for record in counter.records if record["server"] == "pool")


def _use(manager: Any) -> None:
    with manager as resource:
        resource.read()
