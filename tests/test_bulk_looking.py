"""What it costs to look for many names; and that none is called missing which the server did not call so."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections import Counter as Tally
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import fsspec
import pytest
from lsst.daf.butler_dcache.embedded.faults import Fault
from lsst.daf.butler_dcache.errors import FileBrokenError
from lsst.daf.butler_dcache.resource_path import DcacheResourcePath
from lsst.daf.butler_dcache.store import frontend, looking
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.resources import ResourcePath
from request_counter import counted
from test_listings import ODD_NAMES
from test_store_webdav import endpoint, with_frontend


@pytest.fixture(scope="module", params=["frontend", "door", "rest"])
def site(
    request: pytest.FixtureRequest, embedded: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """The client with a frontend that is configured, without one, and with one that lists."""
    changes = with_frontend(embedded) if request.param != "door" else {}
    if request.param == "rest":
        changes["dcache"]["listing"] = "rest"
    with endpoint(embedded, tmp_path_factory.mktemp("config"), **changes) as store:
        store.exists(embedded.url)
        if request.param == "rest":
            store.list_directory(embedded.url)  # proves the frontend
        yield store


@pytest.fixture
def base(embedded: Any) -> str:
    return f"{embedded.url}{uuid.uuid4().hex[:12]}/"


@pytest.fixture
def thousand(embedded: Any, base: str) -> list[str]:
    """A thousand files in ten directories."""
    urls = [f"{base}{number % 10}/{number:03}" for number in range(1000)]
    for url in urls:
        embedded.place(unquote(urlsplit(url).path), b"x" * (len(url) % 7))
    return urls


@pytest.fixture(scope="module")
def large(embedded: Any) -> list[str]:
    """Three directories of ten thousand files."""
    directories = [f"{embedded.url}large-{uuid.uuid4().hex[:8]}/" for _ in range(3)]
    for directory in directories:
        path = unquote(urlsplit(directory).path)
        for number in range(10_000):
            embedded.place(f"{path}{number:05}", b"")
    return directories


def as_resources(urls: list[str]) -> list[ResourcePath]:
    return [ResourcePath(url, forceDirectory=False) for url in urls]


def test_a_thousand_files_in_ten_directories(site: Store, embedded: Any, thousand: list[str]) -> None:
    resources = as_resources(thousand)
    with counted(embedded) as counter:
        assert all(ResourcePath.mexists(resources).values())
    assert counter.at_door == 10, counter
    with counted(embedded) as counter:
        infos = site.info_many(thousand)
    assert counter.at_door == 10, counter
    assert list(infos) == thousand
    for url in thousand[:20]:
        info = infos[url]
        assert info is not None
        # The door tells full seconds.
        assert info.modified is not None
        assert dataclasses.replace(info, modified=info.modified.replace(microsecond=0)) == site.stat(url)
    with counted(embedded) as counter:
        sizes = DcacheResourcePath.msize(resources)
    assert counter.at_door == 10, counter
    assert [sizes[uri] for uri in resources] == [len(url) % 7 for url in thousand]
    with counted(embedded) as counter:
        assert fsspec.filesystem("davs").sizes(thousand) == [len(url) % 7 for url in thousand]
    assert counter.at_door == 10, counter


def test_missing_among_a_thousand(site: Store, embedded: Any, base: str, thousand: list[str]) -> None:
    """A name that a listing lacks is asked for by itself; a directory that is not there settles its names."""
    missing = [f"{base}{number}/none" for number in range(3)]
    with counted(embedded) as counter:
        existence = site.exists_many([*thousand, *missing])
    assert counter.at_door == 13, counter
    assert [url for url, is_there in existence.items() if not is_there] == missing
    nowhere = [f"{base}none/{number}" for number in range(500)]
    with counted(embedded) as counter:
        assert site.info_many(nowhere) == dict.fromkeys(nowhere)
    assert counter.at_door == 1, counter
    with pytest.raises(FileNotFoundError, match="none"):
        DcacheResourcePath.msize(as_resources([*thousand[:5], missing[0]]))
    with pytest.raises(FileNotFoundError):
        fsspec.filesystem("davs").sizes([*thousand[:5], missing[0]])


def test_few_files_in_large_directories(site: Store, embedded: Any, large: list[str]) -> None:
    urls = [directory + "04711" for directory in large]
    with counted(embedded) as counter:
        assert all(site.exists_many(urls).values())
    assert counter.methods() == ["door PROPFIND"] * 3, counter
    with counted(embedded) as counter:
        assert [info and info.size for info in site.info_many(urls).values()] == [0] * 3
    assert counter.at_door == 3, counter


@pytest.mark.parametrize("kind", ["truncate_listing", "unlistable"])
def test_short_listing_is_no_proof_of_absence(site: Store, embedded: Any, base: str, kind: Any) -> None:
    urls = [f"{base}{number}" for number in range(15)]
    for url in urls:
        embedded.place(unquote(urlsplit(url).path), b"x")
    fault = embedded.faults.add(Fault(kind, at_byte=5, times=None))
    asked = [*urls, base + "none"]
    assert site.exists_many(asked) == dict.fromkeys(urls, True) | {base + "none": False}
    infos = site.info_many(asked)
    assert [info and info.size for info in infos.values()] == [1] * 15 + [None]
    embedded.faults.remove([fault])
    assert fault.hits >= 2


@pytest.mark.parametrize("is_hidden", [True, False])
def test_many_missing_names(site: Store, embedded: Any, base: str, is_hidden: bool) -> None:
    """Where there is a frontend, one question in place of a hundred, once it is proven to mean the same."""
    there = [f"{base}d/{number}" for number in range(100)]
    for url in there:
        embedded.place(unquote(urlsplit(url).path), b"x")
    missing = [f"{base}d/none {number}" for number in range(100)]
    asked = [*there, *(quote(url, safe="/:") for url in missing)]
    if is_hidden:
        # Three are shown, and 97 only seem to be missing.
        embedded.faults.add(Fault("truncate_listing", at_byte=3))
    with counted(embedded) as counter:
        existence = site.exists_many(asked)
    assert list(existence.values()) == [True] * 100 + [False] * 100
    methods = Tally(counter.methods())
    # The site tells of its frontend even if no configuration does; it is looked for, proven and asked for the
    # root of the account once.
    assert methods.pop("frontend POST") == 1
    assert methods["door PROPFIND"] <= 2
    assert counter.at_door <= 6, counter


def test_names_that_are_new(site: Store, embedded: Any, base: str) -> None:
    """Of a directory with nothing that was asked for: it is the witness itself."""
    embedded.place(unquote(urlsplit(base).path) + "other", b"x")
    new = [f"{base}{number}" for number in range(200)]
    site.exists_many([*new, base + "other"])  # finds and proves the frontend
    with counted(embedded) as counter:
        assert site.exists_many(new) == dict.fromkeys(new, False)
    assert counter.at_door == 2, counter


def test_frontend_that_denies_everything(
    embedded: Any, base: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Proven or not: who does not know what the door has shown is not believed about the rest."""
    there = [f"{base}{number}" for number in range(40)]
    for url in there:
        embedded.place(unquote(urlsplit(url).path), b"x")
    with endpoint(embedded, tmp_path_factory.mktemp("config"), **with_frontend(embedded)) as store:
        body = json.dumps(
            [
                {"path": unquote(urlsplit(url).path).rstrip("/"), "error": "No such file or directory"}
                for url in (*there, base)
            ]
        )
        lie = embedded.faults.add(
            Fault("status", server="frontend", path="*archiveinfo", status=200, body=body, times=None)
        )
        short = embedded.faults.add(Fault("truncate_listing", at_byte=3, times=None))
        assert store.exists_many(there) == dict.fromkeys(there, True)
        assert None not in store.info_many(there).values()
        embedded.faults.remove([lie, short])
    assert lie.hits == 2


def test_frontend_that_fails(
    embedded: Any, base: str, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        embedded.place(unquote(urlsplit(f"{base}{number}").path), b"x")
    asked = [f"{base}{number}" for number in range(30)]
    with endpoint(embedded, tmp_path_factory.mktemp("config"), **with_frontend(embedded)) as store:
        fault = embedded.faults.add(
            Fault("status", server="frontend", path="*archiveinfo", status=403, times=None)
        )
        with counted(embedded) as counter:
            assert sum(store.exists_many(asked).values()) == 5
        embedded.faults.remove([fault])
    assert fault.hits == 1
    assert "the door is asked alone" in caplog.text
    assert Tally(counter.methods())["door PROPFIND"] == 1 + 25 + 1


@pytest.mark.parametrize("path", ["*/namespace/*", "*archiveinfo"])
def test_frontend_that_never_answers(
    embedded: Any, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """It keeps nobody waiting for longer than its answer would be worth."""
    for module, name in ((frontend, "_LONGEST_QUESTION_SECONDS"), (looking, "_TAPE_SECONDS")):
        monkeypatch.setattr(module, name, 0.3)
    for number in range(5):
        embedded.place(unquote(urlsplit(f"{base}{number}").path), b"x")
    asked = [f"{base}{number}" for number in range(30)]
    with endpoint(embedded, tmp_path, **with_frontend(embedded)) as store:
        fault = embedded.faults.add(Fault("stall", server="frontend", path=path, seconds=20, times=None))
        began = time.monotonic()
        assert sum(store.exists_many(asked).values()) == 5
        assert time.monotonic() - began < 15
        embedded.faults.remove([fault])
    assert fault.hits == 1


def test_unfinished_upload(site: Store, embedded: Any, base: str) -> None:
    for number in range(4):
        embedded.place(unquote(urlsplit(f"{base}{number}").path), b"x")
    entry = embedded.site.namespace.find(unquote(urlsplit(base + "2").path))
    entry.size = None
    urls = [f"{base}{number}" for number in range(4)]
    assert [info and info.size for info in site.info_many(urls).values()] == [1, 1, None, 1]
    with pytest.raises(FileBrokenError):
        DcacheResourcePath.msize(as_resources(urls))


def test_what_this_process_has_written(site: Store, embedded: Any, base: str) -> None:
    urls = [f"{base}{number}" for number in range(5)]
    for url in urls:
        site.write(url, b"abc")
    with counted(embedded) as counter:
        assert [info and info.size for info in site.info_many(urls).values()] == [3] * 5
    assert counter.at_door == 0


def test_odd_names(site: Store, embedded: Any, base: str) -> None:
    urls = [base + quote(name, safe="") for name in ODD_NAMES]
    for name in ODD_NAMES:
        embedded.place(unquote(urlsplit(base).path) + name, b"x")
    absent = [url + "-" for url in urls] + [f"{base}{number}" for number in range(30)]
    assert site.exists_many([*urls, *absent]) == dict.fromkeys(urls, True) | dict.fromkeys(absent, False)
    infos = site.info_many([*urls, base])
    assert [info and info.url for info in infos.values()] == [*urls, base]
    other = [url.replace("%2B", "+").replace("%3B", ";") for url in urls]
    assert [info and info.url for info in site.info_many(other).values()] == other


def test_trees_by_fsspec(site: Store, embedded: Any, base: str) -> None:
    names = [f"{number % 4}/{number % 2}/{number}" for number in range(40)] + ["top"]
    for name in names:
        embedded.place(unquote(urlsplit(base).path) + name, b"abc")
    directories = {name.rpartition("/")[0] for name in names} | {name[0] for name in names[:-1]}
    files = fsspec.filesystem("davs")
    for call, expected in (
        (lambda: files.find(base), sorted(base + name for name in names)),
        (lambda: files.du(base), 3 * 41),
        (lambda: len(files.expand_path(base, recursive=True)), 41 + len(directories)),
        (lambda: len(files.find(base, withdirs=True)), 41 + len(directories)),
        (lambda: sum(info["size"] for info in files.find(base, detail=True).values()), 3 * 41),
    ):
        with counted(embedded) as counter:
            assert call() == expected
        assert counter.at_door == len(directories), counter
    with counted(embedded) as counter:
        assert files.find(base, maxdepth=1, withdirs=True) == [
            base.rstrip("/"),
            *(f"{base}{number}" for number in range(4)),
            base + "top",
        ]
    assert counter.at_door == 1
    assert files.find(base + "top") == [base + "top"]
    assert files.find(base + "none") == []
    assert set(files.du(base, total=False, withdirs=True).values()) == {0, 3}


def test_walk(site: Store, embedded: Any, base: str) -> None:
    """One request per directory, parents before children, and nothing is passed over."""
    names = [f"{number % 5}/{number % 3}/{number}" for number in range(60)]
    for name in names:
        embedded.place(unquote(urlsplit(base).path) + name, b"abc")
    directories = {name.rpartition("/")[0] for name in names} | {name[0] for name in names} | {""}
    root = ResourcePath(base, forceDirectory=True)
    with counted(embedded) as counter:
        seen = [(uri.geturl(), folders, files) for uri, folders, files in root.walk()]
    assert counter.at_door == len(directories), counter
    assert {url.removeprefix(base).rstrip("/") for url, _, _ in seen} == directories
    assert sorted(url + name for url, _, files in seen for name in files) == sorted(
        base + name for name in names
    )
    order = [url for url, _, _ in seen]
    assert all(
        url == base or order.index(url) > order.index(url.rpartition("/")[0].rpartition("/")[0] + "/")
        for url in order
    )
    fault = embedded.faults.add(Fault("unlistable", path=f"*{base[-13:-1]}/3/1*", times=None))
    for walk in (lambda: list(root.walk()), lambda: fsspec.filesystem("davs").find(base)):
        with pytest.raises(PermissionError):
            walk()
    embedded.faults.remove([fault])


def test_walk_of_a_large_directory(site: Store, embedded: Any, large: list[str]) -> None:
    with counted(embedded) as counter:
        ((_, _, files),) = ResourcePath(large[0], forceDirectory=True).walk()
    assert len(files) == 10_000
    assert counter.at_door == 1
