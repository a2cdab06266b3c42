"""URLs that carry one right: what they can do, and what they cannot."""

from __future__ import annotations

import pickle
import subprocess
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import fsspec
import pytest
import requests
import yaml
from lsst.daf.butler_dcache import DcacheFileSystem, DcacheResourcePath, errors
from lsst.daf.butler_dcache.auth.macaroon import Activity, Macaroon
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.resources import ResourcePath
from request_counter import counted
from test_store_webdav import endpoint

DATA = b"shared bytes"


def send(method: str, url: str, server: Any, data: bytes | None = None) -> requests.Response:
    """Ask as somebody would who has the URL and nothing else."""
    (entry,) = yaml.safe_load(Path(server.environment["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
    with requests.Session() as session:
        session.trust_env = False
        session.verify = entry["trusted_authorities"]
        return session.request(method, url, data=data, timeout=10)


@pytest.fixture
def url(embedded: Any) -> str:
    return f"{embedded.url}{uuid.uuid4().hex[:8]}/a%20b+c"


def test_reading(embedded: Any, url: str) -> None:
    store = store_for(url)
    store.write(url, DATA)
    store.write(url + "2", DATA)
    presigned = store.presign(url, "GET", 60)
    assert presigned.startswith("https://")
    assert send("GET", presigned, embedded).content == DATA
    assert send("PUT", presigned, embedded, b"x").status_code == 403
    assert send("DELETE", presigned, embedded).status_code == 403
    other = presigned.replace(urlsplit(url).path, urlsplit(url).path + "2")
    assert send("GET", other, embedded).status_code == 403
    assert store.read(url) == DATA


def test_writing(embedded: Any, url: str) -> None:
    store = store_for(url)
    presigned = store.presign(url, "PUT", 60)
    assert send("PUT", presigned, embedded, DATA).status_code == 201
    assert store.read(url) == DATA
    assert send("GET", presigned, embedded).status_code == 403
    assert send("PUT", presigned, embedded, b"again").status_code == 403


def test_what_the_macaroon_says(embedded: Any, url: str) -> None:
    with counted(embedded) as counter:
        presigned = store_for(url).presign(url, "GET", 600)
    assert counter.records == []
    (token,) = parse_qs(urlsplit(presigned).query)["authz"]
    macaroon = Macaroon.parse(token)
    assert macaroon.activities == {Activity.DOWNLOAD, Activity.READ_METADATA}
    assert macaroon.caveats[-1].startswith("before:")


def test_for_ever_is_as_long_as_can_be(embedded: Any, url: str) -> None:
    signed = store_for(url).presign(url, "GET", 10**12)
    own = Macaroon.parse(Path(embedded.environment["BEARER_TOKEN_FILE"]).read_text()).expires
    assert Macaroon.parse(parse_qs(urlsplit(signed).query)["authz"][0]).expires == own


def test_macaroon_for_a_directory(embedded: Any, url: str, tmp_path: Path) -> None:
    """Paths concatenate at dCache."""
    whole = Macaroon.parse(Path(embedded.environment["BEARER_TOKEN_FILE"]).read_text().strip())
    folder = urlsplit(url).path.rpartition("/")[0]
    store_for(url).write(url, DATA)
    with endpoint(embedded, tmp_path, token=whole.attenuate(f"path:{folder}")) as store:
        assert send("GET", store.presign(url, "GET", 60), embedded).content == DATA
        with pytest.raises(errors.AccessDeniedError, match="does not reach"):
            store.presign(embedded.url + "elsewhere", "GET", 60)
    with endpoint(embedded, tmp_path, token=whole.attenuate("activity:LIST,DOWNLOAD")) as store:
        with pytest.raises(errors.AccessDeniedError, match="UPLOAD"):
            store.presign(url, "PUT", 60)
        with pytest.raises(errors.UnsupportedError):
            store.presign(url, "DELETE", 60)


def test_account(embedded: Any, url: str, tmp_path: Path) -> None:
    """The door makes a macaroon of it, once."""
    account = {"user_name": embedded.user, "user_password": Path(embedded.password_file).read_text().strip()}
    store_for(url).write(url, DATA)
    with (
        endpoint(embedded, tmp_path, token=None, **account) as store,
        counted(embedded) as counter,
    ):
        urls = [store.presign(url, "GET", 60) for _ in range(3)]
    assert counter.methods() == ["door POST"]
    assert send("GET", urls[0], embedded).content == DATA


def test_without_encryption(tmp_path: Path) -> None:
    with (
        EmbeddedDcache(tls=False) as server,
        endpoint(server, tmp_path) as store,
        pytest.raises(errors.UnsupportedError, match="TLS"),
    ):
        store.presign(server.url + "file", "GET", 60)


# What a presigned URL is good for, without any credential of one's own.


@pytest.fixture
def shared(embedded: Any, url: str) -> str:
    store_for(url).write(url, DATA)
    return store_for(url).presign(url, "GET", 60)


@pytest.fixture
def nobody(embedded: Any, tmp_path: Path, shared: str) -> Iterator[None]:
    """A client that trusts the server and has no credential."""
    with endpoint(embedded, tmp_path, token=None):
        yield


def test_our_resource_path_reads_it(embedded: Any, shared: str, nobody: None) -> None:
    uri = DcacheResourcePath(shared)
    assert isinstance(uri, DcacheResourcePath)
    assert uri.read() == DATA
    assert uri.read(6) == DATA[:6]
    assert uri.size() == len(DATA)
    assert uri.exists()
    with uri.open("rb") as file:
        file.seek(7)
        assert file.read() == DATA[7:]
    with uri.as_local() as local:
        assert local.read() == DATA
    assert pickle.loads(pickle.dumps(uri)).read() == DATA
    fs, path = uri.to_fsspec()
    assert fs.cat_file(path, start=2, end=5) == DATA[2:5]
    assert fs.cat_ranges([path, path], [0, 7], [3, 9]) == [DATA[:3], DATA[7:9]]
    with pytest.raises(errors.CredentialError):
        DcacheResourcePath(shared.partition("?")[0]).read()
    with pytest.raises(errors.AccessDeniedError):
        uri.write(b"other")
    with pytest.raises(errors.AccessDeniedError):
        uri.remove()


def test_in_our_own_scheme(embedded: Any, shared: str, nobody: None) -> None:
    own = shared.replace("https:", "davs:")
    assert ResourcePath(own).read() == DATA
    fs = DcacheFileSystem()
    for each in (own, shared):
        assert fs.cat_file(each) == DATA
        assert fs.info(each)["size"] == len(DATA)
        with fs.open(each) as file:
            file.seek(-5, 2)
            assert file.read() == DATA[-5:]


def test_it_is_no_pattern(shared: str, nobody: None, tmp_path: Path) -> None:
    """fsspec takes its question mark for one, and says the whole of it where nothing fits."""
    fs = DcacheFileSystem()
    assert fs.cat(shared) == DATA
    assert fs.cat([shared]) == {shared: DATA}
    fs.get(shared, str(tmp_path / "copy"))
    fs.get(shared, str(tmp_path))
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert {(tmp_path / name).read_bytes() for name in ("copy", "a b+c")} == {DATA}
    assert not any("authz" in name for name in names)
    assert fs.glob(shared, detail=True)[shared]["size"] == len(DATA)
    with fsspec.open(shared.replace("https:", "davs:"), expand=True) as file:
        assert file.read() == DATA
    with fs.open(shared) as file:
        assert "authz" not in file.name
    absent, token = shared.replace("?", ".absent?"), shared.partition("authz=")[2]
    for use in (fs.cat, fs.ls, fs.checksum, lambda url: list(DcacheResourcePath(url).walk())):
        said = ""
        try:
            use(absent)
        except (errors.DcacheError, ValueError) as error:  # the frames of fsspec hold what they were given
            said = "".join(traceback.format_exception(error))
        assert ".absent" in said
        assert token not in said


def test_the_own_credential_stays_at_home(embedded: Any, shared: str) -> None:
    """Whoever has more rights than the URL does not use them with it."""
    with pytest.raises(errors.AccessDeniedError):
        DcacheResourcePath(shared).write(b"other")
    assert DcacheResourcePath(shared).read() == DATA


def test_many_of_them_share_connections(embedded: Any, nobody: None, url: str, tmp_path: Path) -> None:
    with endpoint(
        embedded, tmp_path, token=Path(embedded.environment["BEARER_TOKEN_FILE"]).read_text()
    ) as store:
        for number in range(10):
            store.write(f"{url}{number}", b"%d" % number)
        urls = [store.presign(f"{url}{number}", "GET", 60) for number in range(10)]
    with endpoint(embedded, tmp_path, token=None), counted(embedded) as counter:
        assert [DcacheResourcePath(each).read() for each in urls] == [b"%d" % number for number in range(10)]
    doors = {record["connection"] for record in counter.records if record["server"] == "door"}
    assert len(doors) == 1


def test_writing_with_it(embedded: Any, url: str, tmp_path: Path) -> None:
    presigned = store_for(url).presign(url, "PUT", 60)
    with endpoint(embedded, tmp_path, token=None):
        DcacheResourcePath(presigned).write(DATA)
        with pytest.raises(errors.DcacheError):
            DcacheResourcePath(presigned).write(b"again")
    assert store_for(url).read(url) == DATA


def test_errors_do_not_show_it(embedded: Any, shared: str, nobody: None) -> None:
    token = shared.partition("authz=")[2]
    with pytest.raises(errors.DcacheError) as caught:
        DcacheResourcePath(shared).write(b"other")
    assert token not in str(caught.value) + repr(caught.value)
    uri = DcacheResourcePath(shared)
    assert token not in repr(uri)
    with uri.open("rb") as file:
        assert token not in file.name


def curl(*arguments: Any) -> bytes:
    """Let the real curl follow the URL."""
    command = ["curl", "--silent", "--show-error", "--fail", "--location", "--max-time", "20", "--disable"]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, check=True).stdout


def test_curl_reads_and_writes(embedded: Any, url: str, shared: str) -> None:
    (entry,) = yaml.safe_load(Path(embedded.environment["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
    trust = ("--cacert", entry["trusted_authorities"])
    assert curl(*trust, shared) == DATA
    assert curl(*trust, "--range", "2-4", shared) == DATA[2:5]
    new = store_for(url).presign(url + "-new", "PUT", 60)
    source = Path(entry["trusted_authorities"])
    curl(*trust, "--upload-file", source, new)
    assert store_for(url).read(url + "-new") == source.read_bytes()
    with pytest.raises(subprocess.CalledProcessError):
        curl(*trust, "--request", "DELETE", shared)


def test_curl_at_xrootd(xrootd: Any) -> None:
    url = f"{xrootd.url}{uuid.uuid4().hex}"
    store = store_for(url)
    store.write(url, DATA)
    trust = ("--cacert", xrootd.folder / "ca.pem")
    presigned = store.presign(url, "GET", 60)
    assert curl(*trust, presigned) == DATA
    assert curl(*trust, "--range", "2-4", presigned) == DATA[2:5]
    assert DcacheResourcePath(presigned).read() == DATA
    new = store.presign(url + "-new", "PUT", 60)
    source = xrootd.folder / "ca.pem"
    curl(*trust, "--upload-file", source, new)
    assert store.read(url + "-new") == source.read_bytes()
    store.write(url + "-other", DATA)
    other = presigned.replace("?", "-other?")
    for arguments in (("--request", "DELETE", presigned), ("--upload-file", source, presigned), (other,)):
        with pytest.raises(subprocess.CalledProcessError):
            curl(*trust, *arguments)
