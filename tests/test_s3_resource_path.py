"""``s3://`` paths of `lsst.resources` on a real S3 server."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import urllib.error
import urllib.request
import zlib
from typing import Any
from urllib.parse import quote

import pytest
import requests
from click.testing import CliRunner
from lsst.daf.butler_dcache import DcacheFileSystem
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.errors import (
    ConfigurationError,
    ResourceExistsError,
    ResourceIsDirectoryError,
    ResourceIsFileError,
    ResourceNotFoundError,
)
from lsst.daf.butler_dcache.s3_resource_path import DcacheS3ResourcePath
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.resources import ResourcePath

MIB = 1024 * 1024
LARGE = os.urandom(MIB) * 34

ODD_KEYS = [
    "with%23hash",
    "with%2525percent",
    "with%3Fmark&plus+equals=colon:at@",
    "n%C3%A4me/%E6%98%9F.fits",
    "with%20space/a b",
    "dots/a..b/.hidden",
    "/".join(["k" * 200] * 4),
]


@pytest.fixture
def root(s3_url: str) -> ResourcePath:
    root = ResourcePath(s3_url, forceDirectory=True)
    assert type(root) is DcacheS3ResourcePath
    return root


class TestNames:
    """Without a server."""

    def test_a_key_is_what_the_url_says(self) -> None:
        uri = ResourcePath("s3://bucket/a//b/../c")
        assert str(uri) == "s3://bucket/a//b/../c"
        assert uri.relativeToPathRoot == "a//b/../c"
        assert uri != ResourcePath("s3://bucket/a/c")

    def test_slashes_at_its_beginning_mean_nothing(self) -> None:
        assert ResourcePath("s3://bucket//a/b") == ResourcePath("s3://bucket/a/b")

    def test_relatives_keep_empty_components(self) -> None:
        uri = ResourcePath("s3://site@bucket/a//b/c.fits")
        assert str(uri.dirname()) == str(uri.parent()) == "s3://site@bucket/a//b/"
        assert str(uri.dirname().parent()) == "s3://site@bucket/a//"
        assert str(uri.updatedFile("d.fits")) == "s3://site@bucket/a//b/d.fits"
        assert str(uri.updatedExtension(".txt")) == "s3://site@bucket/a//b/c.txt"
        assert (
            str(uri.dirname().join("x//y/../z.fits#zip-path=q"))
            == "s3://site@bucket/a//b/x/z.fits#zip-path=q"
        )
        assert str(uri.dirname().join("s3://bucket/k")) == "s3://bucket/k"
        assert str(uri.dirname().join("sub/")) == "s3://site@bucket/a//b/sub/"
        assert uri.dirname().join("sub", forceDirectory=True).isdir()
        assert uri.split()[1] == uri.basename() == "c.fits"

    def test_a_bucket(self) -> None:
        for url in ("s3://bucket", "s3://bucket/"):
            uri = ResourcePath(url)
            assert uri.isdir()
            assert uri.is_root
            assert str(uri) == "s3://bucket/"
            assert str(uri.join("a")) == "s3://bucket/a"
            assert uri.parent() == uri == uri.root_uri() == uri.join("a").parent()
        assert str(ResourcePath("s3://site@tenant:bucket/a/b").root_uri()) == "s3://site@tenant:bucket/"

    def test_relative_to(self) -> None:
        root = ResourcePath("s3://site@bucket/repo/", forceDirectory=True)
        assert root.join("a b/c").relative_to(root) == "a b/c"
        assert ResourcePath("s3://other@bucket/repo/a").relative_to(root) is None


class TestFiles:
    """Reading and writing."""

    def test_round_trip(self, root: ResourcePath) -> None:
        uri = root.join("dir/file.bin")
        assert not uri.exists()
        uri.write(b"first")
        uri.write(b"0123456789")
        assert uri.exists()
        assert uri.size() == 10
        assert uri.read() == b"0123456789"
        assert uri.read(4) == b"0123"
        info = uri.get_info()
        assert info.is_file
        assert info.size == 10
        assert info.checksums["adler32"] == f"{zlib.adler32(b'0123456789'):08x}"
        with pytest.raises(ResourceExistsError):
            uri.write(b"other", overwrite=False)
        assert uri.read() == b"0123456789"
        uri.remove()
        uri.remove()
        assert not uri.exists()
        with pytest.raises(ResourceNotFoundError):
            uri.read()
        with pytest.raises(FileNotFoundError):
            uri.size()

    @pytest.mark.parametrize("name", ODD_KEYS)
    def test_odd_keys(self, root: ResourcePath, name: str) -> None:
        uri = ResourcePath(f"{root}{name}")
        data = name.encode()
        uri.write(data)
        assert uri.read() == data
        # `join` takes what follows a "#" for a fragment.
        walked = [ResourcePath(f"{path}{quote(file)}") for path, _, files in root.walk() for file in files]
        assert [other.read() for other in walked] == [data]
        with ResourcePath(f"{root}copy").open("wb") as target, uri.open("rb") as source:
            target.write(source.read())
        ResourcePath(f"{root}again").transfer_from(uri, "move")
        assert not uri.exists()
        assert ResourcePath(f"{root}again").read() == data

    def test_a_question_mark_is_not_taken_for_a_query(self, root: ResourcePath) -> None:
        root.join("what").write(b"another key")
        url = f"{root}what?.txt"
        with pytest.raises(ConfigurationError, match="%3F"):
            ResourcePath(url).read()
        with pytest.raises(ConfigurationError, match="%3F"):
            DcacheFileSystem().cat_file(url)
        with pytest.raises(ConfigurationError, match="%3F"):
            ResourcePath(url).remove()

    def test_a_key_of_1024_bytes(self, s3: str) -> None:
        prefix = s3.split("/", 3)[3]
        parts, left = [], 1024 - len(prefix)
        while left > 0:
            parts.append("k" * min(200, left))
            left -= 201
        uri = ResourcePath(f"{s3}{'/'.join(parts)}")
        assert len(uri.relativeToPathRoot) in (1023, 1024)
        uri.write(b"x")
        assert uri.read() == b"x"
        assert uri.exists()
        uri.remove()

    def test_nothing(self, root: ResourcePath) -> None:
        uri = root.join("empty")
        uri.write(b"")
        assert uri.exists()
        assert uri.size() == 0
        assert uri.read() == b""
        assert uri.get_info().is_file
        with uri.open("rb") as file:
            assert file.read() == b""
        with uri.as_local() as local:
            assert local.size() == 0

    def test_directories_are_no_files(self, root: ResourcePath) -> None:
        directory = root.join("dir/")
        directory.mkdir()
        directory.mkdir()
        assert directory.exists()
        assert directory.size() == 0
        for attempt in (directory.read, lambda: directory.write(b"")):
            with pytest.raises(ResourceIsDirectoryError):
                attempt()
        with pytest.raises(ResourceIsFileError):
            root.join("file").mkdir()
        root.join("dir/file").write(b"1")
        directory.remove_dir(recursive=True)
        assert not directory.exists()
        assert not root.join("dir/file").exists()

    def test_as_local_of_a_large_file(self, root: ResourcePath) -> None:
        uri = root.join("large.fits")
        with uri.open("wb") as file:
            for start in range(0, len(LARGE), MIB):
                file.write(LARGE[start : start + MIB])
        assert uri.size() == len(LARGE)
        with uri.as_local() as local:
            assert local.getExtension() == ".fits"
            assert local.read() == LARGE
        assert uri.read() == LARGE
        with uri.open("rb") as file:
            file.seek(-5, os.SEEK_END)
            assert file.read() == LARGE[-5:]
            file.seek(20 * MIB + 1)
            assert file.read(100) == LARGE[20 * MIB + 1 : 20 * MIB + 101]


class TestOpen:
    """All modes."""

    def test_a_block_that_raises_publishes_nothing(self, root: ResourcePath, seaweed: Any) -> None:
        uri = root.join("broken")
        for size in (100, len(LARGE)):
            with pytest.raises(RuntimeError, match="of the caller"), uri.open("wb") as file:  # noqa: PT012
                file.write(LARGE[:size])
                raise RuntimeError("of the caller")
        assert not uri.exists()
        left = seaweed.client().list_multipart_uploads(Bucket=seaweed.bucket).get("Uploads", [])
        assert [upload for upload in left if upload["Key"] == uri.relativeToPathRoot] == []

    def test_exclusive(self, root: ResourcePath) -> None:
        uri = root.join("exclusive")
        with uri.open("xb") as file:
            file.write(b"mine")
        with pytest.raises(FileExistsError), uri.open("xb") as file:
            file.write(b"theirs")
        assert uri.read() == b"mine"

    def test_text_and_append_and_update(self, root: ResourcePath) -> None:
        uri = root.join("text")
        with uri.open("w", encoding="utf-8") as text:
            text.write("Größe\n")
        with uri.open("a", encoding="utf-8") as text:
            text.write("mehr\n")
        with uri.open("r", encoding="utf-8") as text:
            assert text.readlines() == ["Größe\n", "mehr\n"]
        with uri.open("r+b") as file:
            file.seek(0)
            file.write(b"X")
        assert uri.read() == "Xröße\nmehr\n".encode()


class TestBulk:
    """Many at once."""

    def test_existence_and_removal(self, root: ResourcePath) -> None:
        there = [root.join(f"sub{i % 3}/file{i}") for i in range(30)]
        missing = [root.join(f"sub{i % 3}/none{i}") for i in range(10)]
        for uri in there:
            uri.write(b"x")
        existence = ResourcePath.mexists([*there, *missing])
        assert all(existence[uri] for uri in there)
        assert not any(existence[uri] for uri in missing)
        results = ResourcePath.mremove([*there, *missing])
        assert all(result.success for result in results.values())
        assert len(results) == 40
        assert not any(ResourcePath.mexists(there).values())

    def test_two_buckets_at_once(self, root: ResourcePath) -> None:
        missing = ResourcePath("s3://there-is-no-such-bucket/key")
        there = root.join("file")
        there.write(b"x")
        with pytest.raises(ResourceNotFoundError, match="bucket"):
            missing.read()
        results = ResourcePath.mremove([there, missing], do_raise=False)
        assert results[there].success

    def test_walk(self, root: ResourcePath) -> None:
        for name in ("a.txt", "b.fits", "sub/c.txt", "sub/deep/d.fits", "other/e.fits"):
            root.join(name).write(name.encode())
        walked = {str(path)[len(str(root)) :]: (dirs, files) for path, dirs, files in root.walk()}
        assert walked == {
            "": (["other", "sub"], ["a.txt", "b.fits"]),
            "other/": ([], ["e.fits"]),
            "sub/": (["deep"], ["c.txt"]),
            "sub/deep/": ([], ["d.fits"]),
        }
        found = ResourcePath.findFileResources([root], file_filter=r"\.fits$")
        assert sorted(uri.basename() for uri in found) == ["b.fits", "d.fits", "e.fits"]
        with pytest.raises(ValueError, match="non-directory"):
            list(root.join("a.txt").walk())


class TestLinks:
    """Presigned URLs and file systems."""

    def test_presigned_urls_work_without_our_keys(self, root: ResourcePath) -> None:
        uri = root.join("dir/shared file")
        put = uri.generate_presigned_put_url(expiration_time_seconds=60)
        request = urllib.request.Request(put, data=b"from outside", method="PUT")
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
        assert uri.read() == b"from outside"
        get = uri.generate_presigned_get_url(expiration_time_seconds=60)
        with urllib.request.urlopen(get) as answer:
            assert answer.read() == b"from outside"
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(urllib.request.Request(get, data=b"x", method="PUT"))
        member = uri.replace(fragment="zip-path=a")
        assert member.generate_presigned_get_url(expiration_time_seconds=60).endswith("#zip-path=a")

    def test_lsst_resources_reads_a_presigned_url(self, root: ResourcePath) -> None:
        root.join("shared").write(b"from outside")
        url = root.join("shared").generate_presigned_get_url(expiration_time_seconds=60)
        assert ResourcePath(url).read() == b"from outside"

    def test_fsspec(self, root: ResourcePath) -> None:
        uri = root.join("dir/file.txt")
        uri.write(b"0123456789")
        fs, path = uri.to_fsspec()
        assert type(fs) is DcacheFileSystem
        with fs.open(path, "rb") as file:
            file.seek(3)
            assert file.read(4) == b"3456"
        assert fs.cat_file(path, -2, None) == b"89"
        assert fs.unstrip_protocol(path) == path == str(uri)
        assert [entry["name"] for entry in fs.ls(str(root), detail=True)] == [str(uri.dirname()).rstrip("/")]
        assert fs.find(str(root)) == [str(uri)]
        assert fs.glob(f"{root}*/*.txt") == [str(uri)]
        fs.pipe({f"{root}a": b"a", f"{root}b": b"b"})
        with pytest.raises(FileNotFoundError, match="a-none") as caught:
            fs.rm([f"{root}{name}" for name in ("a", "b", "a-none", "dir")])
        assert f"{root}dir" in "".join(caught.value.__notes__)
        assert fs.find(str(root)) == [str(uri)]
        with fs.open(f"{root}new", "wb") as file:
            file.write(b"new")
        fs.mv(f"{root}new", f"{root}newer")
        assert fs.cat_file(f"{root}newer") == b"new"
        assert not fs.exists(f"{root}new")
        fs.rm(str(root), recursive=True)
        assert not fs.exists(str(root))


def work(uri: ResourcePath, data: bytes) -> tuple[str, bytes, list[str]]:
    """Read, write and list in another process."""
    uri.updatedExtension(".new").write(data)
    return (
        type(uri).__name__,
        uri.read(),
        sorted(file for _, _, files in uri.dirname().walk() for file in files),
    )


# Python warns of what this is about: forking while other threads run.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_other_processes(root: ResourcePath, method: str) -> None:
    uris = [root.join(f"dir{n}/file.old") for n in range(6)]
    for n, uri in enumerate(uris):
        uri.write(bytes([n]) * 1000)
        assert uri.read() == bytes([n]) * 1000
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        found = list(pool.map(work, uris, [b"from the child"] * 6))
    assert found == [("DcacheS3ResourcePath", bytes([n]) * 1000, ["file.new", "file.old"]) for n in range(6)]
    assert all(uri.updatedExtension(".new").read() == b"from the child" for uri in uris)


class TestSharing:
    """``dcache-butler macaroon share``, which gives presigned URLs here."""

    def test_a_link_is_good_for_one_thing(self, s3_url: str) -> None:
        store = store_for(s3_url)
        store.write(f"{s3_url}shared", b"for everybody")
        link = _share(f"{s3_url}shared", "--lifetime", "5m")
        assert requests.get(link, timeout=10).content == b"for everybody"
        assert requests.put(link, data=b"no", timeout=10).status_code == 403
        document = json.loads(_share(f"{s3_url}new", "--activity", "UPLOAD", "--json"))
        assert document["method"] == "PUT"
        assert requests.put(document["link"], data=b"from somebody", timeout=10).ok
        assert store.read(f"{s3_url}new") == b"from somebody"

    @pytest.mark.parametrize(
        "arguments",
        [("--activity", "DELETE"), ("--ip", "127.0.0.1"), ("--output", "macaroon"), ("--max-upload", "1")],
    )
    def test_what_no_signature_says_is_refused(self, s3_url: str, arguments: tuple[str, ...]) -> None:
        assert "S3 has no macaroons" in _share(f"{s3_url}shared", *arguments, status=1)


def _share(url: str, *arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(main, ["macaroon", "share", url, *arguments])
    assert result.exit_code == status, result.output
    return result.output.strip()
