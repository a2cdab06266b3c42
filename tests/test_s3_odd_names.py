"""Names, accounts and buckets that are unusual or wrong, at a real S3 server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.model import ByteRange
from lsst.daf.butler_dcache.s3.address import parse
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.registry import reset_stores, store_for
from seaweed_server import SeaweedServer

WRONG_SECRET = "not-the-secret-of-this-account"
DATA = b"some bytes"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    reset_stores()


def names_of(store: Store, url: str) -> list[str]:
    return sorted(info.url for info in store.list_directory(url))


ODD_NAMES = [
    "a#b",
    "a?b",
    "100%",
    "%2F",
    "%41",
    "a+b c",
    "a&b=c;d",
    "a:b@c",
    "~tilde'quote\"(x)",
    "<xml>&amp;",
    " leading and trailing ",
    unicodedata.normalize("NFC", "é-日本語-😀"),
    unicodedata.normalize("NFD", "é"),
    "x" * 255,
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_means_itself(s3_url: str, name: str) -> None:
    store = store_for(s3_url)
    url = s3_url + quote(name, safe="")
    assert store.write(url, DATA).size == len(DATA)
    assert store.read(url) == DATA
    assert store.stat(url).size == len(DATA)
    assert store.read_ranges(url, [ByteRange(5, 10)]) == [b"bytes"]
    assert names_of(store, s3_url) == [store.stat(url).url]
    assert store.exists_many([url, f"{s3_url}other"]) == {url: True, f"{s3_url}other": False}
    copy = s3_url + quote(f"copy {name}"[:255], safe="")
    store.copy(url, copy)
    assert store.read(copy) == DATA
    assert dict(store.remove_many([url])) == {url: None}
    assert not store.exists(url)
    assert store.read(copy) == DATA
    store.remove(copy)


def test_the_longest_key(s3_url: str) -> None:
    """S3 allows 1024 bytes of UTF-8."""
    directory = s3_url.split("/", 3)[3]
    left = 1024 - len(directory)
    key = "/".join(["é" * 100] * 10)
    while len(key.encode()) > left:
        key = key[:-1]
    key = key.rstrip("/") + "x" * (left - len(key.rstrip("/").encode()))
    assert len((directory + key).encode()) == 1024
    store = store_for(s3_url)
    url = s3_url + quote(key)
    store.write(url, DATA)
    assert store.read(url) == DATA
    assert store.exists(url)
    store.remove(url)
    with pytest.raises(errors.DcacheError) as caught:
        store.write(f"{url}xyz", DATA)
    assert not isinstance(caught.value, errors.OutcomeUnknownError)


@pytest.mark.parametrize("path", ["a//b", "/a", "a\\b", "//", "a/./b", "a/../b", "..", "a//b/"])
def test_a_path_is_never_another_one(s3_url: str, path: str) -> None:
    """A server may refuse such a key, or the client; what is written can be read, and nothing else goes."""
    store = store_for(s3_url)
    plain = [s3_url + name for name in ("a/b", "b", "a")]
    for url in plain:
        store.write(url, url.encode())
    odd = s3_url + path.replace("\\", "%5C")
    acts = [
        lambda: store.write(odd, DATA),
        lambda: store.copy(plain[1], odd, overwrite=True),
        lambda: store.open_writer(odd).commit(),
        lambda: store.make_directory(f"{odd}/".replace("///", "//")),
        lambda: store.move(odd, f"{s3_url}moved"),
        lambda: store.remove(odd),
        lambda: store.remove_many([odd, f"{odd}/"]),
    ]
    for act in acts:
        with contextlib.suppress(errors.DcacheError):
            act()
            if act is acts[0]:
                assert store.read(odd) == DATA
        assert [store.read(url) for url in plain] == [url.encode() for url in plain]
    assert set(names_of(store, s3_url)) <= {*plain[1:], f"{s3_url}a/", f"{s3_url}moved", store_url(odd)}


def store_url(url: str) -> str:
    return parse(url).url


def test_a_store_is_of_one_bucket(s3_url: str) -> None:
    """Whoever confuses two of them must not find, write or remove the same key in the wrong one."""
    store = store_for(s3_url)
    url = f"{s3_url}here"
    store.write(url, DATA)
    bucket = parse(url).bucket
    for other in (url.replace(bucket, "elsewhere", 1), url.replace(bucket, f"somebody@{bucket}", 1)):
        for act in (
            lambda other=other: store.read(other),
            lambda other=other: store.exists(other),
            lambda other=other: store.write(other, b"x"),
            lambda other=other: store.copy(url, other),
            lambda other=other: store.move(other, url, overwrite=True),
            lambda other=other: store.remove(other),
            lambda other=other: store.remove_many([other]),
        ):
            with pytest.raises(errors.ConfigurationError, match="another bucket"):
                act()
    assert store.read(url) == DATA


def test_nothing_in_an_object(s3_url: str) -> None:
    store = store_for(s3_url)
    url = f"{s3_url}empty"
    assert store.write(url, b"").size == 0
    assert store.read(url) == b""
    assert store.stat(url).size == 0
    assert store.read_ranges(url, [ByteRange(0, 10)]) == [b""]
    reader = store.open_reader(url)
    assert reader.read_tail(10) == (0, b"")
    assert b"".join(reader.stream()) == b""
    reader.close()
    writer = store.open_writer(f"{s3_url}written")
    writer.commit()
    assert store.read(f"{s3_url}written") == b""


class TestAccounts:
    """At the SeaweedFS of the tests, whose accounts are known."""

    def test_a_wrong_secret(self, seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRONG_SECRET)
        self._is_refused(seaweed, errors.CredentialError, "secret")

    def test_an_unknown_key(self, seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKNOBODY")
        self._is_refused(seaweed, errors.CredentialError, "AKNOBODY")

    @staticmethod
    def _is_refused(seaweed: SeaweedServer, kind: type[errors.DcacheError], word: str) -> None:
        store = store_for(f"s3://{seaweed.bucket}/x")
        for act in (
            lambda: store.read(f"s3://{seaweed.bucket}/x"),
            lambda: store.exists(f"s3://{seaweed.bucket}/x"),
            lambda: store.list_directory(f"s3://{seaweed.bucket}/"),
            lambda: store.write(f"s3://{seaweed.bucket}/x", DATA),
        ):
            with pytest.raises(kind, match=word) as caught:
                act()
            assert WRONG_SECRET not in str(caught.value)
        assert not seaweed.client().list_objects_v2(Bucket=seaweed.bucket, Prefix="x").get("Contents")

    def test_who_may_only_read(self, seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> None:
        url = f"s3://{seaweed.bucket}/read-only"
        store_for(url).write(url, DATA)
        for name, value in seaweed.reader_environment.items():
            monkeypatch.setenv(name, value)
        assert store_for(url).read(url) == DATA
        for act in (
            lambda: store_for(url).write(url, b"other"),
            lambda: store_for(url).remove(url),
            lambda: store_for(url).open_writer(url).commit(),
        ):
            with pytest.raises(errors.AccessDeniedError) as caught:
                act()
            assert not isinstance(caught.value, errors.CredentialError)
        (result,) = store_for(url).remove_many([url]).values()
        assert isinstance(result, errors.AccessDeniedError)
        assert store_for(url).read(url) == DATA

    def test_a_bucket_that_is_not_there(self, seaweed: SeaweedServer) -> None:
        url = "s3://no-such-bucket/x"
        store = store_for(url)
        for act in (
            lambda: store.read(url),
            lambda: store.stat(url),
            lambda: store.list_directory("s3://no-such-bucket/"),
            lambda: store.write(url, DATA),
            lambda: self._write_by_pieces(store, url),
        ):
            with pytest.raises(errors.ResourceNotFoundError, match="bucket"):
                act()

    @staticmethod
    def _write_by_pieces(store: Store, url: str) -> None:
        writer = store.open_writer(url)
        try:
            writer.write(DATA)
            writer.commit()
        finally:
            writer.abort()

    def test_over_tls(self, seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> None:
        url = f"s3://{seaweed.bucket}/over-tls"
        for name, value in seaweed.tls_environment.items():
            monkeypatch.setenv(name, value)
        store_for(url).write(url, DATA)
        assert store_for(url).read(url) == DATA
        monkeypatch.delenv("AWS_CA_BUNDLE")
        with pytest.raises(errors.DoorUnavailableError, match="certificate"):
            store_for(url).read(url)


WRITER = """
import sys
from lsst.daf.butler_dcache.store.registry import store_for
writer = store_for(sys.argv[1]).open_writer(sys.argv[1])
for _ in range(40):
    writer.write(bytes(1024 * 1024))
print("sent", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_writer_left_is_found_and_aborted(s3_url: str) -> None:
    url = f"{s3_url}killed"
    environment = {**os.environ, "DAF_BUTLER_DCACHE_REGISTER": "no"}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"sent\n"
        process.send_signal(signal.SIGKILL)
    store = store_for(url)
    assert not store.exists(url)
    assert [upload.url for upload in store.unfinished_uploads(s3_url)] == [url]
    done = CliRunner().invoke(main, ["clean-orphans", s3_url, "--remove", "--older-than", "0s"])
    assert done.exit_code == 0, done.output
    assert list(store.unfinished_uploads(s3_url)) == []
