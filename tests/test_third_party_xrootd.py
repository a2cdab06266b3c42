"""Copies between real XRootD servers and the embedded dCache, and within XRootD."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.auth.credential import refused
from lsst.daf.butler_dcache.config import loading
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.store.closed_ways import closed
from lsst.daf.butler_dcache.store.registry import reset_stores, store_for
from lsst.daf.butler_dcache.transport import exchange
from request_counter import counted
from two_dcaches import copy, name
from xrootd_server import XrootdCluster

DATA = os.urandom(300_000)
ADLER32 = {"adler32": f"{zlib.adler32(DATA):08x}"}


@pytest.fixture(scope="module")
def dcache(xrootd: XrootdCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedDcache]:
    """A dCache that trusts the cluster, which does not trust it."""
    with EmbeddedDcache() as server, pytest.MonkeyPatch.context() as patch:
        server.trust(str(xrootd.folder / "ca.pem"))
        entries: list[Any] = []
        for one in (server, xrootd):
            entries += yaml.safe_load(Path(one.environment["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
        file = tmp_path_factory.mktemp("client") / "webdav.yaml"
        file.write_text(yaml.safe_dump(entries))
        patch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(file))
        patch.delenv("BEARER_TOKEN_FILE")
        loading.reset()
        yield server
    loading.reset()


@pytest.fixture(autouse=True)
def begin_anew() -> None:
    closed.forget()
    reset_stores()
    refused.clear()


@pytest.fixture
def source(xrootd: XrootdCluster, dcache: EmbeddedDcache) -> str:
    """A file on XRootD."""
    url = f"{xrootd.url}{name()}%20%23%2B%3B"
    store_for(url).write(url, DATA)
    return url


def moved(seen: list[exchange.Exchange]) -> int:
    return sum(one.sent + one.received for one in seen)


@pytest.fixture
def seen() -> Iterator[list[exchange.Exchange]]:
    """What this process exchanges."""
    exchanges: list[exchange.Exchange] = []
    exchange.add_observer(exchanges.append)
    yield exchanges
    exchange.remove_observer(exchanges.append)


def test_dcache_pulls(source: str, dcache: EmbeddedDcache, seen: list[exchange.Exchange]) -> None:
    target = f"{dcache.url}{name()}%25"
    seen.clear()
    with counted(dcache) as at_target:
        info = copy(source, target)
    assert at_target.methods() == ["door COPY", "door PROPFIND", "door MOVE"]
    assert moved(seen) < 16 * 1024
    assert dict(info.checksums) == ADLER32
    assert store_for(target).read(target) == DATA


def test_dcache_pushes_where_xrootd_does_not_trust_it(
    dcache: EmbeddedDcache,
    xrootd: XrootdCluster,
    seen: list[exchange.Exchange],
    caplog: pytest.LogCaptureFixture,
) -> None:
    dcache.place("original", DATA)
    target = f"{xrootd.url}{name()}/x"
    seen.clear()
    with counted(dcache) as at_source, caplog.at_level(logging.INFO):
        info = copy(f"{dcache.url}original", target)
    print(caplog.text)
    assert at_source.methods() == ["door PROPFIND", "door COPY"]
    assert moved(seen) < 32 * 1024
    assert dict(info.checksums) == ADLER32
    assert store_for(target).read(target) == DATA
    with counted(dcache) as at_source:
        seen.clear()
        copy(f"{dcache.url}original", target)
    assert at_source.methods() == ["door PROPFIND", "door COPY"]
    # The pull is not tried again: there is no COPY at XRootD.
    assert [one.method for one in seen].count("COPY") == 1


@pytest.mark.parametrize("way", ["pull", "push"])
def test_within_xrootd(
    source: str,
    xrootd: XrootdCluster,
    seen: list[exchange.Exchange],
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = f"{xrootd.url}{name()}/new/file"
    file = Path(os.environ["LSST_RESOURCES_WEBDAV_CONFIG"])
    entries = yaml.safe_load(file.read_text())
    for entry in entries:
        entry.setdefault("dcache", {})["third_party"] = way
    changed = file.with_name(f"{way}.yaml")
    changed.write_text(yaml.safe_dump(entries))
    monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(changed))
    seen.clear()
    told: list[str] = []
    info = copy(source, target, overwrite=False, on_way=told.append)
    assert told == ["server"]
    assert moved(seen) < 32 * 1024
    assert dict(info.checksums) == ADLER32
    with pytest.raises(errors.ResourceExistsError):
        copy(source, target, overwrite=False)
    assert store_for(target).read(target) == DATA


def test_a_missing_source(xrootd: XrootdCluster, dcache: EmbeddedDcache) -> None:
    with counted(dcache) as at_target, pytest.raises(errors.ResourceNotFoundError):
        copy(f"{xrootd.url}nothing", f"{dcache.url}nothing")
    assert at_target.methods() == []
