"""`DcacheFileSystem`, alone and below the packages that people use it with."""

from __future__ import annotations

import pickle
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
import yaml
from astropy.io import fits
from lsst.daf.butler_dcache import DcacheFileSystem
from lsst.daf.butler_dcache.embedded import Fault
from lsst.daf.butler_dcache.errors import (
    AccessDeniedError,
    DirectoryNotEmptyError,
    ResourceExistsError,
    ResourceIsFileError,
    ResourceNotFoundError,
    UnsupportedError,
)
from lsst.daf.butler_dcache.store.registry import reset_stores
from lsst.resources import ResourcePath
from request_counter import counted

SMALL = b"some bytes\n"
LARGE = bytes(range(256)) * 1200


@pytest.fixture
def fs() -> DcacheFileSystem:
    return DcacheFileSystem()


@pytest.fixture
def root(base_url: str) -> str:
    return base_url.rstrip("/")


class TestPaths:
    """What needs no server."""

    def test_entry_points(self) -> None:
        for scheme in ("dav", "davs"):
            fs, path = fsspec.url_to_fs(f"{scheme}://door:2880/a/b%20c/")
            assert isinstance(fs, DcacheFileSystem)
            assert path == f"{scheme}://door:2880/a/b%20c"

    def test_parent(self) -> None:
        assert DcacheFileSystem._parent("davs://door:2880/a/b") == "davs://door:2880/a"
        assert DcacheFileSystem._parent("davs://door:2880/a") == "davs://door:2880"
        assert DcacheFileSystem._parent("davs://door:2880") == "davs://door:2880"

    def test_other_urls_are_refused(self, fs: DcacheFileSystem) -> None:
        with pytest.raises(ValueError, match="davs://"):
            fs.info("/a/b")

    def test_pickles(self, fs: DcacheFileSystem) -> None:
        assert pickle.loads(pickle.dumps(fs)) == fs


class TestLooking:
    """What there is."""

    def test_info(self, fs: DcacheFileSystem, root: str) -> None:
        fs.pipe_file(f"{root}/file", SMALL)
        info = fs.info(f"{root}/file")
        assert (info["name"], info["size"], info["type"]) == (f"{root}/file", len(SMALL), "file")
        assert fs.info(f"{root}/")["type"] == "directory"
        assert fs.size(f"{root}/file") == len(SMALL)
        assert fs.modified(f"{root}/file").tzinfo is not None
        assert fs.created(f"{root}/file") == fs.modified(f"{root}/file")

    def test_ls(self, fs: DcacheFileSystem, root: str) -> None:
        fs.pipe({f"{root}/b": SMALL, f"{root}/a b": SMALL, f"{root}/dir/c": SMALL})
        assert fs.ls(root, detail=False) == [f"{root}/a%20b", f"{root}/b", f"{root}/dir"]
        assert [entry["type"] for entry in fs.ls(root)] == ["file", "file", "directory"]
        assert fs.ls(f"{root}/b", detail=False) == [f"{root}/b"]
        with pytest.raises(ResourceNotFoundError):
            fs.ls(f"{root}/missing")

    def test_exists(self, fs: DcacheFileSystem, root: str) -> None:
        fs.pipe_file(f"{root}/file", SMALL)
        assert fs.exists(f"{root}/file")
        assert fs.isfile(f"{root}/file")
        assert not fs.isdir(f"{root}/file")
        assert fs.isdir(root)
        for question in (fs.exists, fs.isfile, fs.isdir):
            assert not question(f"{root}/missing")

    def test_find_glob_walk_du(self, fs: DcacheFileSystem, root: str) -> None:
        names = ["a/1.txt", "a/2.dat", "b/c/3.txt"]
        fs.pipe({f"{root}/{name}": SMALL for name in names})
        assert fs.find(root) == [f"{root}/{name}" for name in names]
        assert fs.glob(f"{root}/*/*.txt") == [f"{root}/a/1.txt"]
        assert fs.glob(f"{root}/**/*.txt") == [f"{root}/a/1.txt", f"{root}/b/c/3.txt"]
        assert [path for path, _, _ in fs.walk(root)] == [root, f"{root}/a", f"{root}/b", f"{root}/b/c"]
        assert fs.du(root) == 3 * len(SMALL)
        assert fs.find(f"{root}/a/1.txt") == [f"{root}/a/1.txt"]
        assert fs.find(f"{root}/missing") == []

    def test_refusals_are_no_absence(self, fs: DcacheFileSystem, root: str, embedded: Any) -> None:
        fs.pipe_file(f"{root}/dir/file", SMALL)
        embedded.faults.add(
            Fault("status", server="door", method="PROPFIND", path="*/dir*", status=403, times=None)
        )
        try:
            for question in (fs.exists, fs.isfile, fs.isdir, fs.find, fs.ls):
                with pytest.raises(AccessDeniedError):
                    question(f"{root}/dir")
            with pytest.raises(AccessDeniedError):
                fs.find(root)
        finally:
            embedded.faults.clear()

    def test_ukey_changes_with_the_file(self, fs: DcacheFileSystem, root: str) -> None:
        fs.pipe_file(f"{root}/file", b"abc")
        before = fs.ukey(f"{root}/file"), fs.checksum(f"{root}/file")
        assert before == (fs.ukey(f"{root}/file"), fs.checksum(f"{root}/file"))
        fs.pipe_file(f"{root}/file", b"abcd")
        after = fs.ukey(f"{root}/file"), fs.checksum(f"{root}/file")
        assert before[0] != after[0]
        assert before[1] != after[1]


class TestBytes:
    """Reading and writing."""

    def test_a_rewritten_file_is_read_whole(self, root: str) -> None:
        url = f"{root}/file"
        for data in (b"0123456789", b"01234567890123456789", b"0"):
            fsspec.filesystem("davs").pipe_file(url, data)
            with fsspec.open(url, "rb") as file:
                assert file.read() == data
            assert fsspec.filesystem("davs").size(url) == len(data)

    def test_open(self, fs: DcacheFileSystem, root: str) -> None:
        url = f"{root}/file"
        with fs.open(url, "wb") as file:
            file.write(b"ab")
            assert not fs.exists(url)
            file.write(b"cd")
        with fs.open(url, "ab") as file:
            file.write(b"ef")
        with fs.open(url, "r") as file:
            assert file.read() == "abcdef"
        with pytest.raises(FileExistsError):
            fs.open(url, "xb")
        with fs.open(url, "r+b") as file:
            file.seek(1)
            file.write(b"X")
        assert fs.cat_file(url) == b"aXcdef"

    @pytest.mark.parametrize("mode", ["w", "wb"])
    def test_nothing_is_published_if_the_block_raises(
        self, fs: DcacheFileSystem, root: str, mode: str
    ) -> None:
        def fail() -> None:
            with fs.open(f"{root}/file", mode) as file:
                file.write("half" if mode == "w" else b"half")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert not fs.exists(f"{root}/file")

    def test_transaction(self, fs: DcacheFileSystem, root: str) -> None:
        def fail() -> None:
            with fs.transaction:
                with fs.open(f"{root}/b", "wb") as file:
                    file.write(SMALL)
                raise RuntimeError

        with fs.transaction:
            with fs.open(f"{root}/a", "wb") as file:
                file.write(SMALL)
            assert not fs.exists(f"{root}/a")
        assert fs.cat_file(f"{root}/a") == SMALL
        with pytest.raises(RuntimeError):
            fail()
        assert not fs.exists(f"{root}/b")

    def test_compression(self, fs: DcacheFileSystem, root: str) -> None:
        with fsspec.open(f"{root}/file.gz", "wt", compression="infer") as file:
            file.write("text")
        assert fs.cat_file(f"{root}/file.gz")[:2] == b"\x1f\x8b"
        with fsspec.open(f"{root}/file.gz", "rt", compression="infer") as file:
            assert file.read() == "text"

    @pytest.mark.parametrize(
        ("start", "end"), [(None, None), (0, 5), (10, 20), (-7, None), (-7, -2), (5, 5), (2**40, 2**41)]
    )
    def test_cat_file(self, fs: DcacheFileSystem, root: str, start: int | None, end: int | None) -> None:
        fs.pipe_file(f"{root}/file", LARGE)
        assert fs.cat_file(f"{root}/file", start, end) == LARGE[start:end]

    def test_cat_ranges(self, fs: DcacheFileSystem, root: str) -> None:
        a, b, missing = (f"{root}/{name}" for name in ("a", "b", "missing"))
        fs.pipe({a: LARGE, b: SMALL})
        found = fs.cat_ranges([a, b, missing, a], [0, 1, 0, -3], [4, 5, 9, None])
        assert found[:2] == [LARGE[:4], SMALL[1:5]]
        assert isinstance(found[2], ResourceNotFoundError)
        assert found[3] == LARGE[-3:]
        with pytest.raises(ResourceNotFoundError):
            fs.cat_ranges([missing], 0, 1, on_error="raise")

    def test_exclusive(self, fs: DcacheFileSystem, root: str) -> None:
        fs.pipe_file(f"{root}/file", SMALL, mode="create")
        with pytest.raises(ResourceExistsError):
            fs.pipe_file(f"{root}/file", LARGE, mode="create")
        assert fs.cat_file(f"{root}/file") == SMALL

    def test_get_and_put(self, fs: DcacheFileSystem, root: str, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        (tree / "sub").mkdir(parents=True)
        (tree / "a").write_bytes(SMALL)
        (tree / "sub" / "b").write_bytes(LARGE)
        fs.put(str(tree), f"{root}/copy", recursive=True)
        assert fs.find(root) == [f"{root}/copy/a", f"{root}/copy/sub/b"]
        fs.get(f"{root}/copy", str(tmp_path / "back"), recursive=True)
        assert (tmp_path / "back" / "sub" / "b").read_bytes() == LARGE
        assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["a", "sub"]
        with pytest.raises(FileNotFoundError):
            fs.get_file(f"{root}/missing", str(tmp_path / "missing"))
        assert not list(tmp_path.glob("missing*"))


class TestChanging:
    """Directories, removal, moves."""

    def test_directories(self, fs: DcacheFileSystem, root: str) -> None:
        fs.makedirs(f"{root}/a/b")
        fs.makedirs(f"{root}/a/b", exist_ok=True)
        for make in (fs.makedirs, fs.mkdir):
            with pytest.raises(FileExistsError):
                make(f"{root}/a/b")
        with pytest.raises(FileNotFoundError):
            fs.mkdir(f"{root}/x/y", create_parents=False)
        with pytest.raises(DirectoryNotEmptyError):
            fs.rmdir(f"{root}/a")
        fs.rmdir(f"{root}/a/b")
        assert fs.ls(f"{root}/a") == []

    def test_rm(self, fs: DcacheFileSystem, root: str) -> None:
        fs.pipe({f"{root}/{name}": SMALL for name in ("a", "b1", "b2", "dir/c", "dir/sub/d")})
        fs.rm(f"{root}/a")
        fs.rm(f"{root}/b*")
        with pytest.raises(DirectoryNotEmptyError):
            fs.rm(f"{root}/dir")
        assert fs.find(root) == [f"{root}/dir/c", f"{root}/dir/sub/d"]
        fs.rm(f"{root}/dir", recursive=True)
        assert not fs.exists(f"{root}/dir")
        with pytest.raises(FileNotFoundError):
            fs.rm_file(f"{root}/a")

    def test_rm_of_several_where_some_cannot_be(self, fs: DcacheFileSystem, root: str) -> None:
        """Whatever can be removed is, then the first error is raised."""
        fs.pipe({f"{root}/{name}": SMALL for name in ("a", "c", "dir/d")})
        with pytest.raises(FileNotFoundError) as caught:
            fs.rm([f"{root}/{name}" for name in ("a", "b", "c", "dir")])
        assert f"{root}/b" in str(caught.value)
        assert f"{root}/dir" in "".join(caught.value.__notes__)
        assert fs.find(root) == [f"{root}/dir/d"]

    def test_cp_and_mv(self, fs: DcacheFileSystem, root: str) -> None:
        fs.pipe({f"{root}/a": LARGE, f"{root}/dir/b": SMALL})
        fs.cp_file(f"{root}/a", f"{root}/copy")
        fs.mv(f"{root}/a", f"{root}/moved")
        fs.mv(f"{root}/moved", f"{root}/dir/")
        fs.mv(f"{root}/dir/moved", f"{root}/dir/moved")
        assert fs.cat(
            {f"{root}/copy": None, f"{root}/dir/moved": None}.keys() and [f"{root}/copy"]
        )  # readable
        assert fs.cat_file(f"{root}/dir/moved") == LARGE
        fs.copy(f"{root}/dir", f"{root}/dir2", recursive=True)
        assert fs.find(f"{root}/dir2") == [f"{root}/dir2/b", f"{root}/dir2/moved"]
        with pytest.raises(ResourceNotFoundError):
            fs.mv(f"{root}/missing", f"{root}/x")

    def test_cp_file_to_a_name_that_is_taken(self, fs: DcacheFileSystem, root: str) -> None:
        fs.pipe({f"{root}/file": SMALL, f"{root}/other": b"old", f"{root}/dir/file": b"old"})
        with pytest.raises(ResourceExistsError):
            fs.cp_file(f"{root}/file", f"{root}/other", mode="create")
        assert fs.cat_file(f"{root}/other") == b"old"
        with pytest.raises(IsADirectoryError):
            fs.cp_file(f"{root}/file", f"{root}/dir")

    def test_rmdir_of_a_file(self, fs: DcacheFileSystem, root: str) -> None:
        fs.pipe_file(f"{root}/file", SMALL)
        with pytest.raises(ResourceIsFileError):
            fs.rmdir(f"{root}/file")

    def test_sign(self, fs: DcacheFileSystem, root: str, embedded: Any) -> None:
        fs.pipe_file(f"{root}/file", SMALL)
        url = fs.sign(f"{root}/file", expiration=60)
        assert requests.get(url, verify=embedded.ca_file, timeout=30).content == SMALL


class TestWithOthers:
    """What people use it with."""

    def test_parquet(self, root: str) -> None:
        table = pa.table({"a": np.arange(10_000), "b": np.random.default_rng(1).random(10_000)})
        fs = DcacheFileSystem()
        with fs.open(f"{root}/dir/table.parquet", "wb") as file:
            pq.write_table(table, file, row_group_size=1000)
        assert pq.read_table(f"{root}/dir/table.parquet", filesystem=fs) == table
        assert pq.read_table(f"{root}/dir/table.parquet", columns=["a"], filesystem=fs) == table.select(["a"])
        with fs.open(f"{root}/dir/table.parquet") as file:
            assert pq.ParquetFile(file).read_row_group(3) == table.slice(3000, 1000)

    def test_fits(self, root: str) -> None:
        image = np.arange(40_000, dtype=">f4").reshape(200, 200)
        with fsspec.open(f"{root}/image.fits", "wb") as file:
            fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image)]).writeto(file)
        with fits.open(f"{root}/image.fits", use_fsspec=True) as hdus:
            assert np.array_equal(hdus[1].section[10:20, 30:40], image[10:20, 30:40])
        with fsspec.open(f"{root}/image.fits") as file, fits.open(file) as hdus:
            assert np.array_equal(hdus[1].data, image)

    def test_zip(self, root: str) -> None:
        with fsspec.open(f"{root}/a.zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr("member", LARGE)
        with fsspec.open(f"{root}/a.zip") as file, zipfile.ZipFile(file) as archive:
            assert archive.read("member") == LARGE


class TestRequests:
    """Requests per operation."""

    def test_table(self, fs: DcacheFileSystem, root: str, embedded: Any) -> None:
        url = f"{root}/file"
        fs.pipe_file(url, LARGE)
        found = {}
        for name, operation in {
            "info": lambda: fs.info(url),
            "ls": lambda: fs.ls(root),
            "exists": lambda: fs.exists(url),
            "cat_file": lambda: fs.cat_file(url),
            "cat_file, part": lambda: fs.cat_file(url, 5, 10),
            "cat_ranges, 20": lambda: fs.cat_ranges(
                [url] * 20, list(range(0, 2000, 100)), list(range(50, 2050, 100))
            ),
            "open, 3 reads": lambda: _three_reads(fs, url),
            "pipe_file": lambda: fs.pipe_file(url, SMALL),
            "mv": lambda: fs.mv(url, f"{root}/moved"),
            "rm_file": lambda: fs.rm_file(f"{root}/moved"),
        }.items():
            with counted(embedded) as counter:
                operation()
            found[name] = (counter.at_door, counter.at_pool)
        assert found == {
            "info": (1, 0),
            "ls": (1, 0),
            "exists": (1, 0),
            "cat_file": (1, 1),
            "cat_file, part": (1, 1),
            "cat_ranges, 20": (1, 1),
            "open, 3 reads": (1, 3),
            "pipe_file": (2, 0),
            "mv": (1, 0),
            "rm_file": (1, 0),
        }


def _three_reads(fs: DcacheFileSystem, url: str) -> None:
    with fs.open(url) as file:
        for position in (200_000, 100_000, 0):
            file.seek(position)
            file.read(1000)


@pytest.fixture
def two_names(embedded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """A directory by two names of its server."""
    (entry,) = yaml.safe_load(Path(embedded.environment["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
    other = entry | {"base_url": entry["base_url"].replace("localhost", "127.0.0.1")}
    assert other != entry
    path = tmp_path / "webdav.yaml"
    path.write_text(yaml.safe_dump([entry, other]))
    monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(path))
    base = f"{embedded.url}{uuid.uuid4().hex[:12]}/"
    yield base, base.replace("localhost", "127.0.0.1")
    reset_stores()


def test_nothing_is_lost_by_a_move_onto_itself(two_names: tuple[str, str]) -> None:
    """What is copied and then removed must not be the same under another name."""
    base, other = two_names
    filesystem = DcacheFileSystem(skip_instance_cache=True)
    filesystem.pipe_file(base + "tree/deep/file", b"content")
    for target in (base + "tree/../tree", base + "%74ree", other + "tree"):
        filesystem.mv(base + "tree", target, recursive=True)
    for target in (base + "tree/sub", other + "tree/sub"):
        with pytest.raises(UnsupportedError, match="into itself"):
            filesystem.mv(base + "tree", target, recursive=True)
    filesystem.mv(base + "tree/deep/file", other + "tree/deep/file")
    ResourcePath(other + "tree/deep/file").transfer_from(
        ResourcePath(base + "tree/deep/file"), "move", overwrite=True
    )
    assert filesystem.cat_file(base + "tree/deep/file") == b"content"
    filesystem.mv(base + "tree", other + "moved", recursive=True)
    assert filesystem.find(base[:-1]) == [base + "moved/deep/file"]
