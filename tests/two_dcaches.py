"""Two embedded dCaches that trust one another, and the client between them."""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import STANDS_ASIDE, external_url
from lsst.daf.butler_dcache import transfers
from lsst.daf.butler_dcache.auth.credential import refused
from lsst.daf.butler_dcache.config import loading
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.model import FileInfo
from lsst.daf.butler_dcache.store import third_party
from lsst.daf.butler_dcache.store.closed_ways import closed
from lsst.daf.butler_dcache.store.registry import reset_stores, store_for

DATA = os.urandom(300_000)
ADLER32 = f"{zlib.adler32(DATA):08x}"
SCALE = 0.02


@dataclasses.dataclass
class Sites:
    """Two dCaches, and the file that says how to reach them."""

    near: EmbeddedDcache
    far: EmbeddedDcache
    file: Path

    def configure(self, patch: pytest.MonkeyPatch, *, near: Any = None, far: Any = None) -> None:
        """Write the file of the client, with some settings of ours and theirs."""
        entries = []
        for site, own in ((self.near, near), (self.far, far)):
            (entry,) = yaml.safe_load(Path(site.environment["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
            entries.append({**entry, "dcache": {"requests_per_second": 0, **(own or {})}})
        self.file.write_text(yaml.safe_dump(entries))
        patch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(self.file))
        patch.delenv("BEARER_TOKEN_FILE", raising=False)
        loading.reset()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """Two dCaches that trust one another."""
    if external_url() is not None:
        pytest.skip(STANDS_ASIDE)
    with EmbeddedDcache(time_scale=SCALE) as near, EmbeddedDcache(time_scale=SCALE) as far:
        assert near.ca_file is not None
        assert far.ca_file is not None
        near.trust(far.ca_file)
        far.trust(near.ca_file)
        yield Sites(near, far, tmp_path_factory.mktemp("client") / "webdav.yaml")


@pytest.fixture
def sites(two: Sites, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sites]:
    """Those two, with a source at ours, and no memory of what went wrong before."""
    two.configure(monkeypatch)
    two.near.place("source", DATA)
    closed.forget()
    reset_stores()
    monkeypatch.setattr(third_party, "_SETTLING_SECONDS", (0.05, 0.1, 0.2))
    yield two
    for site in (two.near, two.far):
        site.faults.clear()
    closed.forget()
    refused.clear()
    loading.reset()


class Told:
    """What a caller is told of the progress."""

    def __init__(self) -> None:
        self.size = 0
        self.at: list[int] = []

    def set_size(self, size: int) -> None:
        self.size = size

    def absolute_update(self, value: int) -> None:
        self.at.append(value)


def copy(source: str, target: str, *, overwrite: bool = True, **options: Any) -> FileInfo:
    return transfers.transfer(
        store_for(source), source, store_for(target), target, overwrite=overwrite, **options
    )


def read(url: str) -> bytes:
    return store_for(url).read(url)


def names(site: EmbeddedDcache, directory: str = "") -> list[str]:
    url = site.url + directory
    return sorted(entry.name for entry in store_for(url).list_directory(url))


def name() -> str:
    return f"copy-{os.urandom(4).hex()}"
