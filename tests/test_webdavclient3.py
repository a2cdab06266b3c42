"""An independent WebDAV client does its whole repertoire, with the outcomes that it has on a real dCache."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from webdav3.client import Client
from webdav3.exceptions import (
    MethodNotSupported,
    RemoteParentNotFound,
    RemoteResourceNotFound,
    ResponseErrorCode,
)

DATA = bytes(range(256)) * 40


@pytest.fixture
def client(embedded: EmbeddedDcache) -> Iterator[Client]:
    """The client, logged in as the owner of a directory of this test's own, which is its root."""
    door, _, path = embedded.url.replace("davs:", "https:", 1).removesuffix("/").rpartition("/")
    options = {
        "webdav_hostname": door,
        "webdav_root": f"/{path}/{uuid.uuid4().hex}/",
        "webdav_login": embedded.user,
        "webdav_password": Path(embedded.password_files[embedded.user]).read_text().strip(),
    }
    client = Client(options)
    client.verify = embedded.ca_file
    client.session.trust_env = False
    # The client's own root is the one directory that it cannot make.
    parent = Client({**options, "webdav_root": f"/{path}/"})
    parent.verify, parent.session.trust_env = embedded.ca_file, False
    parent.mkdir(client.webdav.root.rsplit("/", 1)[-1])
    yield client
    client.session.close()
    parent.session.close()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    file = tmp_path / "local.bin"
    file.write_bytes(DATA)
    return file


def read(client: Client, path: str) -> bytes:
    buffer = io.BytesIO()
    client.download_from(buffer, path)
    return buffer.getvalue()


def test_directories(client: Client) -> None:
    assert client.check("/")
    assert client.mkdir("dir")
    assert client.mkdir("dir")  # 405 is success to this client
    assert client.is_dir("dir/")
    with pytest.raises(RemoteParentNotFound):
        client.mkdir("a/b/c")
    assert client.mkdir("a/b/c", recursive=True)
    assert sorted(client.list()) == ["a/", "dir/"]
    assert not client.check("nothing")
    with pytest.raises(RemoteResourceNotFound):
        client.list("nothing")


def test_uploads_and_downloads(client: Client, local: Path, tmp_path: Path) -> None:
    client.upload_sync("sync", str(local))
    client.upload_file("file", str(local))
    client.upload_to(io.BytesIO(DATA), "buffer")
    client.upload_to(DATA, "bytes")
    assert sorted(client.list()) == ["buffer", "bytes", "file", "sync"]
    for name in ("sync", "file", "buffer", "bytes"):
        assert read(client, name) == DATA
    client.download_sync("sync", str(tmp_path / "copy.bin"))
    assert (tmp_path / "copy.bin").read_bytes() == DATA
    assert b"".join(client.download_iter("sync")) == DATA
    client.upload_to(b"shorter", "sync")
    assert read(client, "sync") == b"shorter"
    with pytest.raises(RemoteParentNotFound):
        client.upload_sync("none/file", str(local))
    with pytest.raises(RemoteResourceNotFound):
        client.download_sync("nothing", str(tmp_path / "nothing"))


def test_trees(client: Client, local: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(DATA)
    client.upload_directory("tree", str(source))
    client.download_directory("tree", str(tmp_path / "target"))
    assert (tmp_path / "target" / "sub" / "file").read_bytes() == DATA
    (source / "more").write_bytes(b"more")
    assert client.push("tree", str(source))
    assert read(client, "tree/more") == b"more"
    client.upload_to(b"from there", "tree/remote")
    assert client.pull("tree", str(source))
    assert (source / "remote").read_bytes() == b"from there"
    client.clean("tree")
    assert client.list() == []


def test_information(client: Client, local: Path) -> None:
    client.upload_sync("file", str(local))
    information = client.info("file")
    assert information["size"] == str(len(DATA))
    assert information["name"] == "file"
    assert information["etag"]
    assert information["modified"].endswith(" GMT")
    assert not client.is_dir("file")
    (entry,) = client.list("/", get_info=True)
    assert (entry["size"], entry["isdir"]) == (str(len(DATA)), False)
    assert client.get_property("file", {"namespace": "DAV:", "name": "getcontentlength"}) == str(len(DATA))
    os.utime(local, (0, 0))
    assert not client.is_local_more_recent(str(local), "file")


def test_moves(client: Client) -> None:
    client.upload_to(b"one", "one")
    client.upload_to(b"two", "two")
    client.move("one", "three")
    assert read(client, "three") == b"one"
    with pytest.raises(ResponseErrorCode) as caught:
        client.move("three", "two")
    assert caught.value.code == 412
    client.move("three", "two", overwrite=True)
    assert read(client, "two") == b"one"
    assert client.list() == ["two"]
    with pytest.raises(RemoteResourceNotFound):
        client.move("nothing", "something")


def test_removal(client: Client) -> None:
    client.mkdir("dir")
    client.upload_to(b"x", "dir/file")
    client.clean("dir/file")
    assert not client.check("dir/file")
    with pytest.raises(RemoteResourceNotFound):
        client.clean("dir/file")
    client.upload_to(b"x", "dir/file")
    client.clean("dir")  # a DELETE in WebDAV takes all that is below (protocol page, section 4.4)
    assert client.list() == []


def test_copy_fails(client: Client) -> None:
    """A COPY to a URL is a third-party copy; with a Basic login it runs without credential, and is refused.

    The client does not read what follows the 202 and calls it success (protocol page, section 5.1).
    """
    client.upload_to(DATA, "file")
    client.copy("file", "copy")
    assert not client.check("copy")
    assert read(client, "file") == DATA


def test_free_fails(client: Client) -> None:
    """Only a directory with a space reservation has a quota (protocol page, section 4.1)."""
    with pytest.raises(MethodNotSupported):
        client.free()


def test_locks_fail(client: Client) -> None:
    client.upload_to(b"x", "file")
    with pytest.raises(ResponseErrorCode) as caught:
        client.lock("file")
    assert caught.value.code == 501


def test_properties_can_be_set(client: Client) -> None:
    client.upload_to(b"x", "file")
    client.set_property("file", {"namespace": "http://example.org/", "name": "colour", "value": "red"})
    assert read(client, "file") == b"x"
