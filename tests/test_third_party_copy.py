"""Copies that servers make between themselves: of two embedded dCaches, within one, and what goes wrong."""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from lsst.daf.butler_dcache import transfers
from lsst.daf.butler_dcache.auth.credential import refused
from lsst.daf.butler_dcache.config import loading
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.model import FileInfo
from lsst.daf.butler_dcache.store import third_party
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport import exchange
from request_counter import counted

DATA = os.urandom(300_000)
OTHER = b"other bytes"
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
    third_party.closed.forget()
    monkeypatch.setattr(third_party, "_SETTLING_SECONDS", (0.05, 0.1, 0.2))
    yield two
    for site in (two.near, two.far):
        site.faults.clear()
    third_party.closed.forget()
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


class TestRequests:
    """What a copy asks of whom."""

    def test_three_at_the_target_and_two_at_the_source(self, sites: Sites) -> None:
        source, directory = f"{sites.near.url}source", f"{sites.far.url}{name()}/"
        copy(source, f"{directory}first")
        seen: list[exchange.Exchange] = []
        exchange.add_observer(seen.append)
        told = Told()
        try:
            with counted(sites.near) as near, counted(sites.far) as far:
                info = copy(source, f"{directory}second", progress=told)
        finally:
            exchange.remove_observer(seen.append)
        assert far.methods() == ["door COPY", "door PROPFIND", "door MOVE"]
        assert near.methods() == ["door PROPFIND", "door GET", "pool GET"]
        assert sum(one.sent + one.received for one in seen) < 8192
        assert (info.size, dict(info.checksums)) == (len(DATA), {"adler32": ADLER32})
        assert (told.size, told.at[-1]) == (len(DATA), len(DATA))
        assert read(f"{directory}second") == DATA

    def test_within_one_server(self, sites: Sites) -> None:
        target = f"{sites.near.url}{name()}"
        with counted(sites.near) as near:
            copy(f"{sites.near.url}source", target)
        assert near.methods() == [
            "door PROPFIND",
            "door COPY",
            "door GET",
            "pool GET",
            "door PROPFIND",
            "door MOVE",
        ]
        assert read(target) == DATA

    def test_a_push(self, sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
        sites.configure(monkeypatch, near={"third_party": "push"})
        target = f"{sites.far.url}new/{name()}"
        with counted(sites.near) as near, counted(sites.far) as far:
            copy(f"{sites.near.url}source", target)
        assert near.methods() == ["door PROPFIND", "door COPY"]
        # The pool puts and looks; the client looks, too, and publishes.
        assert [one for one in far.methods() if one.startswith("door")] == [
            "door PUT",
            "door HEAD",
            "door PROPFIND",
            "door MOVE",
        ]
        assert read(target) == DATA

    def test_an_empty_file_is_written(self, sites: Sites) -> None:
        sites.near.place("empty", b"")
        target = f"{sites.far.url}{name()}"
        with counted(sites.near) as near, counted(sites.far) as far:
            copy(f"{sites.near.url}empty", target)
        assert near.methods() == ["door PROPFIND"]
        assert far.methods() == ["door PUT", "door MOVE"]
        assert read(target) == b""

    def test_never(self, sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
        sites.configure(monkeypatch, far={"third_party": "never"})
        target = f"{sites.far.url}{name()}"
        told = Told()
        with counted(sites.far) as far:
            copy(f"{sites.near.url}source", target, progress=told)
        assert "door COPY" not in far.methods()
        assert (told.size, told.at[-1]) == (len(DATA), len(DATA))
        assert read(target) == DATA


@pytest.mark.parametrize(
    "odd", ["a#b", "100%", "a+b", "a;b", "blank ", "\N{SNOWMAN}\U0001f52d", "a?b&c=d", "%41"]
)
@pytest.mark.parametrize("way", ["pull", "push"])
def test_odd_names(sites: Sites, monkeypatch: pytest.MonkeyPatch, odd: str, way: str) -> None:
    sites.configure(monkeypatch, far={"third_party": way})
    sites.near.place(f"odd/{odd}", DATA)
    target = f"{sites.far.url}{way} {odd}".replace(sites.far.url, "")
    target = sites.far.url + quote(target, safe="")
    with counted(sites.near) as near, counted(sites.far) as far:
        copy(f"{sites.near.url}odd/{quote(odd, safe='')}", target)
    assert "door COPY" in (far if way == "pull" else near).methods()
    assert read(target) == DATA
