"""URLs that carry one right: what they can do, and what they cannot."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import yaml
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.auth.macaroon import Activity, Macaroon
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.store.registry import store_for
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
