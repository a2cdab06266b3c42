"""Files between dCache, an S3 server and this machine: by `ResourcePath`, fsspec and the command line."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lsst.daf.butler_dcache import DcacheFileSystem, transfers
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.embedded import Fault
from lsst.daf.butler_dcache.errors import IntegrityError
from lsst.daf.butler_dcache.orphans import find_orphans, remove_orphans
from lsst.daf.butler_dcache.store.registry import reset_stores, store_for
from lsst.daf.butler_dcache.transport import exchange
from lsst.resources import ResourcePath

MIB = 1024 * 1024
SMALL = b"small file\n"
LARGE = os.urandom(MIB) * 40 + b"end"


@pytest.fixture
def places(base_url: str, s3_url: str, tmp_path: Path) -> dict[str, ResourcePath]:
    """A directory at each kind of place."""
    urls = {"davs": base_url, "s3": s3_url, "file": f"{tmp_path}/"}
    return {name: ResourcePath(url, forceDirectory=True) for name, url in urls.items()}


def run(*arguments: str | Path, status: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output + result.stderr
    return result


PAIRS = [(a, b) for a in ("davs", "s3", "file") for b in ("davs", "s3", "file") if "s3" in (a, b)]


class TestResourcePath:
    """``transfer_from``."""

    @pytest.mark.parametrize(("source", "target"), PAIRS)
    @pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
    def test_copy_and_move(
        self, places: dict[str, ResourcePath], source: str, target: str, data: bytes
    ) -> None:
        original = places[source].join("one/original file")
        original.dirname().mkdir()
        original.write(data)
        copy = places[target].join("other/copy#1".replace("#", "-"))
        copy.dirname().mkdir()
        copy.transfer_from(original, "copy")
        assert copy.read() == data
        assert original.exists()
        with pytest.raises(FileExistsError):
            copy.transfer_from(original, "copy")
        moved = places[target].join("other/moved")
        moved.transfer_from(original, "move")
        assert moved.read() == data
        assert not original.exists()
        moved.transfer_from(copy, "copy", overwrite=True)
        assert moved.size() == len(data)

    @pytest.mark.parametrize(("source", "target"), [("davs", "s3"), ("s3", "davs")])
    def test_what_is_not_there(self, places: dict[str, ResourcePath], source: str, target: str) -> None:
        copy = places[target].join("copy")
        with pytest.raises(FileNotFoundError):
            copy.transfer_from(places[source].join("none"), "copy")
        assert not copy.exists()

    @pytest.mark.parametrize(("source", "target"), [("davs", "s3"), ("s3", "davs")])
    def test_no_local_copy_and_little_memory(
        self,
        places: dict[str, ResourcePath],
        source: str,
        target: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        original, copy = places[source].join("original"), places[target].join("copy")
        with original.open("wb") as file:
            for _ in range(4):
                file.write(LARGE)

        def forbidden(*_: Any, **__: Any) -> Any:
            raise AssertionError("a local file was made")

        monkeypatch.setattr("tempfile.mkstemp", forbidden)
        monkeypatch.setattr(type(original), "_as_local", forbidden)
        tracemalloc.start()
        try:
            copy.transfer_from(original, "copy")
            assert tracemalloc.get_traced_memory()[1] < 100 * MIB
        finally:
            tracemalloc.stop()
        assert copy.get_info().checksums["adler32"] == f"{zlib.adler32(LARGE * 4):08x}"

    def test_many_at_once(self, places: dict[str, ResourcePath]) -> None:
        files = [places["davs"].join(f"file{n}") for n in range(12)]
        for n, file in enumerate(files):
            file.write(b"x" * n)
        copies = [(file, places["s3"].join(file.basename())) for file in files]
        ResourcePath.mtransfer("copy", copies)
        assert [copy.size() for _, copy in copies] == list(range(12))
        back = [(copy, places["davs"].join(f"back{n}")) for n, (_, copy) in enumerate(copies)]
        ResourcePath.mtransfer("move", back)
        assert [copy.size() for _, copy in back] == list(range(12))
        assert not any(ResourcePath.mexists([copy for _, copy in copies]).values())

    def test_nothing_is_asked_twice(self, places: dict[str, ResourcePath]) -> None:
        original, copy = places["davs"].join("original"), places["s3"].join("copy")
        original.write(SMALL)
        copy.transfer_from(original, "copy")
        methods: list[str] = []

        def observe(one: exchange.Exchange) -> None:
            methods.append(one.method)

        exchange.add_observer(observe)
        try:
            copy.transfer_from(original, "copy", overwrite=True)
            to_s3 = list(methods)
            methods.clear()
            original.transfer_from(copy, "copy", overwrite=True)
        finally:
            exchange.remove_observer(observe)
        # The door sends the reader to a pool; back, it fetches the file itself.
        assert to_s3 == ["GET", "GET", "PUT"]
        assert methods == ["HEAD", "COPY", "PROPFIND", "MOVE"]

    def test_no_signature_stays_at_the_door(self, places: dict[str, ResourcePath], embedded: Any) -> None:
        original, copy = places["s3"].join("original"), places["davs"].join("copy")
        original.write(SMALL)
        reset_stores()  # what kind of door it is is not known
        copy.transfer_from(original, "copy")
        entry = embedded.site.namespace.find(copy.unquoted_path)
        assert entry.xattrs.keys() == {"xdg.origin.url"}
        assert entry.xattrs["xdg.origin.url"].endswith("/original")

    @pytest.mark.parametrize("kind", ["cut_download", "cut_upload"])
    def test_a_cut_is_mended(self, places: dict[str, ResourcePath], embedded: Any, kind: str) -> None:
        original, copy, back = (
            places["davs"].join("one"),
            places["s3"].join("two"),
            places["davs"].join("back"),
        )
        original.write(LARGE)
        fault = embedded.faults.add(Fault(kind, at_byte=5 * MIB, times=1))
        try:
            copy.transfer_from(original, "copy")
            back.transfer_from(copy, "copy")
        finally:
            embedded.faults.clear()
        assert fault.hits == 1
        assert copy.read() == back.read() == LARGE

    @pytest.mark.parametrize("transfer", ["copy", "move"])
    def test_damage_on_the_way_is_found(
        self, places: dict[str, ResourcePath], embedded: Any, transfer: str
    ) -> None:
        original, copy = places["davs"].join("original"), places["s3"].join("copy")
        original.write(LARGE)
        embedded.faults.add(Fault("corrupt_download", at_byte=5 * MIB, times=None))
        try:
            with pytest.raises(IntegrityError):
                copy.transfer_from(original, transfer)
        finally:
            embedded.faults.clear()
        assert not copy.exists()
        assert original.read() == LARGE


class TestBothEnds:
    """What is done when source and copy say different things."""

    def test_the_copy_is_removed(
        self, places: dict[str, ResourcePath], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original, copy = places["davs"].join("original"), places["s3"].join("copy")
        original.write(SMALL)
        in_parts = transfers._in_parts

        def damaged(*arguments: Any) -> Any:
            info = in_parts(*arguments)
            return dataclasses.replace(info, checksums={**info.checksums, "adler32": "00000001"})

        monkeypatch.setattr(transfers, "_in_parts", damaged)
        with pytest.raises(IntegrityError, match="adler32 is 00000001 instead of"):
            copy.transfer_from(original, "move")
        assert original.read() == SMALL
        assert not copy.exists()

    def test_both_know_the_adler32(self, places: dict[str, ResourcePath]) -> None:
        original, copy = places["davs"].join("original"), places["s3"].join("copy")
        original.write(LARGE)
        copy.transfer_from(original, "copy")
        assert copy.get_info().checksums["adler32"] == original.get_info().checksums["adler32"]


class TestFileSystem:
    """fsspec, used directly, by URLs of both protocols."""

    def test_open(self, s3_url: str) -> None:
        fs = DcacheFileSystem()
        with fs.open(f"{s3_url}a file.txt", "w") as file:
            file.write("written\n")
        with fs.open(f"{s3_url}a%20file.txt") as file:
            assert file.read() == b"written\n"
        assert fs.info(f"{s3_url}a%20file.txt")["size"] == 8

    @pytest.mark.parametrize(("source", "target"), [("davs", "s3"), ("s3", "davs"), ("s3", "s3")])
    def test_copies_and_moves(self, places: dict[str, ResourcePath], source: str, target: str) -> None:
        fs = DcacheFileSystem()
        one, other = f"{places[source]}tree", f"{places[target]}copy"
        for name in ("a", "sub/b", "sub/deep/c"):
            fs.pipe_file(f"{one}/{name}", name.encode())
        fs.cp_file(f"{one}/a", f"{other}/single")
        assert fs.cat_file(f"{other}/single") == b"a"
        with pytest.raises(FileExistsError):
            fs.cp_file(f"{one}/a", f"{other}/single", mode="create")
        fs.mv(one, f"{other}/tree", recursive=True)
        found = {path.removeprefix(f"{other}/tree/"): fs.cat_file(path) for path in fs.find(f"{other}/tree")}
        assert found == {name: name.encode() for name in ("a", "sub/b", "sub/deep/c")}
        assert not fs.exists(f"{one}/a")

    def test_equal_contents_are_not_one_object(self, s3_url: str) -> None:
        fs = DcacheFileSystem()
        fs.pipe_file(f"{s3_url}a", b"same")
        fs.pipe_file(f"{s3_url}b", b"same")
        fs.mv(f"{s3_url}a", f"{s3_url}b")
        assert not fs.exists(f"{s3_url}a")
        assert fs.cat_file(f"{s3_url}b") == b"same"

    def test_two_names_of_one_bucket(
        self, s3_url: str, seaweed: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account = f"{seaweed.access_key}:{seaweed.secret_key}@"
        monkeypatch.setenv("LSST_RESOURCES_S3_PROFILE_other", seaweed.url.replace("://", f"://{account}"))
        other = s3_url.replace("s3://", "s3://other@")
        fs = DcacheFileSystem()
        fs.pipe_file(f"{s3_url}tree/file", b"only one")
        fs.mv(f"{s3_url}tree/file", f"{other}tree/file")
        fs.mv(f"{s3_url}tree", f"{other}tree", recursive=True)
        ResourcePath(f"{other}tree/file").transfer_from(ResourcePath(f"{s3_url}tree/file"), "move")
        assert fs.cat_file(f"{s3_url}tree/file") == b"only one"


class TestCommandLine:
    """``dcache-butler`` with ``s3://`` arguments."""

    def test_files(self, places: dict[str, ResourcePath], tmp_path: Path) -> None:
        s3, davs = str(places["s3"]), str(places["davs"])
        (tmp_path / "x y").write_bytes(LARGE)
        run("cp", tmp_path / "x y", f"{s3}new/")
        run("cp", f"{s3}new/x%20y", f"{davs}copy")
        run("cp", f"{davs}copy", f"{s3}back")
        run("cp", f"{s3}back", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == LARGE
        assert run("ls", s3).output.split() == ["back", "new/"]
        (info,) = json.loads(run("stat", "--json", f"{s3}back").output)
        assert (info["name"], info["type"], info["size"]) == (f"{s3}back", "file", len(LARGE))
        (tmp_path / "small").write_bytes(SMALL)
        run("cp", tmp_path / "small", f"{s3}made/small")
        (info,) = json.loads(run("stat", "--json", f"{s3}made/small").output)
        value = info["checksums"]["md5"]
        assert f"md5:{value}  {s3}made/small\n" in run("checksum", f"{s3}made/small").output
        assert run("cat", f"{s3}made/small").stdout_bytes == SMALL
        run("mkdir", f"{s3}made")
        assert "made/" in run("ls", s3).output
        run("mv", f"{s3}back", f"{s3}made/")
        assert DcacheFileSystem().isfile(f"{s3}made/back")
        assert "the name is taken" in run("cp", "-n", f"{davs}copy", f"{s3}made/back", status=1).stderr
        run("cp", "-r", s3, f"{davs}tree")
        assert DcacheFileSystem().isfile(f"{davs}tree/made/back")
        assert "recursive" in run("rm", f"{s3}made", status=1).stderr
        run("rm", "-r", f"{s3}made", f"{s3}new")
        assert DcacheFileSystem().exists(s3) is False
        assert "s3://" in run("ls", f"{s3}none", status=1).stderr


KILLED = """
import os, signal
import lsst.daf.butler_dcache
from lsst.daf.butler_dcache import DcacheFileSystem
file = DcacheFileSystem().open(os.environ["URL"], "wb")
for _ in range(40):
    file.write(bytes(1024 * 1024))
os.kill(os.getpid(), signal.SIGKILL)
"""


class TestOrphans:
    """What killed writers leave on S3."""

    @pytest.fixture
    def left(self, s3_url: str, seaweed: Any) -> Iterator[str]:
        url = f"{s3_url}dir/k%C3%A4se%20%231"
        done = subprocess.run(
            [sys.executable, "-c", KILLED],
            env=os.environ | {"URL": url, "DAF_BUTLER_DCACHE_REGISTER": "no"},
            check=False,
            timeout=120,
        )
        assert done.returncode == -9
        yield url
        for upload in store_for(url).unfinished_uploads(s3_url):
            store_for(url).abort_upload(upload)

    def test_found_and_aborted_by_age(self, left: str, s3_url: str) -> None:
        assert not DcacheFileSystem().exists(left)
        (row,) = json.loads(run("clean-orphans", "--json", s3_url).output)
        assert (row["url"], row["state"]) == (left, "in use?")
        assert row["upload"]
        run("clean-orphans", "--remove", s3_url)
        assert f"orphan    {'':24}  {left} (multipart upload)" in (
            text := run("clean-orphans", "--older-than", "0s", s3_url).output
        ), text
        assert json.loads(run("clean-orphans", "--json", f"{s3_url}elsewhere/").output) == []
        (row,) = json.loads(run("clean-orphans", "--json", "--remove", "--older-than", "0s", s3_url).output)
        assert row["state"] == "removed"
        assert json.loads(run("clean-orphans", "--json", s3_url).output) == []

    def test_one_that_ended_meanwhile_is_no_error(self, left: str, s3_url: str) -> None:
        store = store_for(left)
        found = list(find_orphans(store, s3_url, older_than_seconds=-1.0, lock_seconds=0.0))
        assert [orphan.info.url for orphan in found] == [left]
        assert remove_orphans(store, found) == {}
        assert remove_orphans(store, found) == {}
        assert list(store.unfinished_uploads(s3_url)) == []
