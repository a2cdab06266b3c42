"""Many copies: between servers, to and from this machine, begun anew, refused, interrupted."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from conftest import STANDS_ASIDE, external_url
from lsst.daf.butler_dcache import DcacheFileSystem, copies
from lsst.daf.butler_dcache.copies import CopyResult, copy_many
from lsst.daf.butler_dcache.embedded import EmbeddedDcache, Fault
from lsst.daf.butler_dcache.errors import (
    AccessDeniedError,
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    ProtocolError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from lsst.daf.butler_dcache.model import EntryKind, FileInfo
from lsst.daf.butler_dcache.places import Place, look_up
from lsst.daf.butler_dcache.single_copy import Copy, Outcome
from lsst.daf.butler_dcache.store.closed_ways import closed
from lsst.daf.butler_dcache.store.registry import reset_stores
from lsst.daf.butler_dcache.transport import exchange
from lsst.resources import ResourcePath
from request_counter import counted

SCALE = 0.02


class TwoSites:
    """Two dCaches, and a directory of a test's own at each."""

    def __init__(self, here: EmbeddedDcache, there: EmbeddedDcache, name: str) -> None:
        self.here, self.there = here, there
        self.source, self.target = f"{here.url}{name}/", f"{there.url}{name}/"

    def fill(self, count: int, size: int = 100) -> list[Copy]:
        """Make files at one site, and return their copies to the other."""
        names = [f"f{number:03}" for number in range(count)]
        DcacheFileSystem().pipe({self.source + name: name.encode() * (size // 4) for name in names})
        reset_stores()  # which know the sizes of what they wrote
        return [self.copy(name) for name in names]

    def copy(self, name: str, target: str = "") -> Copy:
        return Copy(Place.parse(self.source + name), Place.parse(self.target + (target or name)))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedDcache, EmbeddedDcache]]:
    if external_url() is not None:
        pytest.skip(STANDS_ASIDE)
    with (
        EmbeddedDcache(time_scale=SCALE) as here,
        EmbeddedDcache(time_scale=SCALE) as there,
        pytest.MonkeyPatch.context() as patch,
    ):
        entries = []
        for site, other in ((here, there), (there, here)):
            assert other.ca_file is not None
            site.trust(other.ca_file)
            (entry,) = yaml.safe_load(Path(site.environment["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
            token = site.environment["BEARER_TOKEN_FILE"]
            entries.append({**entry, "token": token})
        path = tmp_path_factory.mktemp("sites") / "webdav.yaml"
        path.write_text(yaml.safe_dump(entries))
        patch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(path))
        patch.delenv("BEARER_TOKEN_FILE", raising=False)
        yield here, there


@pytest.fixture
def sites(pair: tuple[EmbeddedDcache, EmbeddedDcache], request: pytest.FixtureRequest) -> Iterator[TwoSites]:
    reset_stores()
    yield TwoSites(*pair, f"{request.node.originalname}-{id(request)}")
    for site in pair:
        site.faults.clear()
    closed.forget()


def outcomes(results: Iterator[CopyResult]) -> dict[str, Outcome]:
    return {result.copy.target.name: result.outcome for result in results}


def content(directory: str) -> dict[str, bytes]:
    fs = DcacheFileSystem()
    return {name.rpartition("/")[2]: fs.cat_file(name) for name in fs.find(directory)}


class TestBetweenServers:
    """Two dCaches."""

    def test_a_list_and_the_same_again(self, sites: TwoSites) -> None:
        work = sites.fill(30)
        arrived = []
        results = list(copy_many(work, overwrite=False, on_progress=arrived.append))
        assert {result.outcome for result in results} == {Outcome.SERVER}
        assert sum(arrived) == 30 * 100
        assert content(sites.target) == content(sites.source)
        DcacheFileSystem().rm_file(f"{sites.target}f007")
        reset_stores()
        with counted(sites.here) as at_source, counted(sites.there) as at_target:
            again = outcomes(copy_many(work, overwrite=False))
        assert again.pop("f007") is Outcome.SERVER
        assert set(again.values()) == {Outcome.SKIPPED}
        # What is missing in a listing is asked for by itself.
        assert at_source.at_door <= 5, at_source
        assert at_target.at_door <= 8, at_target

    def test_a_hundred_files(self, sites: TwoSites) -> None:
        work = sites.fill(100, size=20_000)
        seen: list[exchange.Exchange] = []
        exchange.add_observer(seen.append)
        try:
            with counted(sites.here) as at_source, counted(sites.there) as at_target:
                results = list(copy_many(work, overwrite=False))
        finally:
            exchange.remove_observer(seen.append)
        assert {result.outcome for result in results} == {Outcome.SERVER}
        # The listings, the macaroons and what the servers can do are asked for once; the rest is the GET of
        # the target's pools, and COPY, PROPFIND and MOVE.
        assert at_source.at_door <= 100 + 10, at_source
        assert at_target.at_door <= 3 * 100 + 10, at_target
        # Heads and markers, but none of the two million bytes.
        assert sum(one.sent + one.received for one in seen) < 600_000
        assert content(sites.target) == content(sites.source)

    def test_one_bad_file_among_many(self, sites: TwoSites) -> None:
        work = sites.fill(10)
        fs = DcacheFileSystem()
        fs.pipe_file(f"{sites.target}f001", b"other bytes")
        fs.makedirs(f"{sites.target}f002")
        work.append(sites.copy("nothing"))
        results = {result.copy.target.name: result for result in copy_many(work, overwrite=False)}
        bad = {name: result.error for name, result in results.items() if result.error is not None}
        assert bad.keys() == {"f001", "f002", "nothing"}
        assert isinstance(bad["f001"], ResourceExistsError)
        assert isinstance(bad["f002"], IsADirectoryError)
        assert isinstance(bad["nothing"], ResourceNotFoundError)
        assert len(content(sites.target)) == 9
        assert fs.cat_file(f"{sites.target}f001") == b"other bytes"

    def test_overwriting(self, sites: TwoSites) -> None:
        work = sites.fill(2)
        DcacheFileSystem().pipe_file(f"{sites.target}f001", b"x" * 100)
        assert Outcome.FAILED not in outcomes(copy_many(work, overwrite=True, trust_size=False)).values()
        assert content(sites.target) == content(sites.source)

    def test_size_alone_is_enough_only_if_one_says_so(self, sites: TwoSites) -> None:
        work = sites.fill(1)
        DcacheFileSystem().pipe_file(f"{sites.target}f000", b"x" * 100)
        assert outcomes(copy_many(work, overwrite=True, trust_size=True)) == {"f000": Outcome.SKIPPED}
        assert outcomes(copy_many(work, overwrite=False)) == {"f000": Outcome.FAILED}

    def test_a_deadline_for_all(self, sites: TwoSites) -> None:
        work = sites.fill(5)
        results = list(copy_many(work, overwrite=True, deadline_seconds=0))
        assert [result.outcome for result in results] == [Outcome.NOT_TRIED] * 5
        assert all(isinstance(result.error, DeadlineError) for result in results)
        assert not DcacheFileSystem().exists(sites.target)

    def test_a_deadline_that_passes_on_the_way(self, sites: TwoSites) -> None:
        work = sites.fill(4)
        fault = Fault("stall_download", server="pool", path="*/f001", times=None, at_byte=50, seconds=3000)
        sites.here.faults.add(fault)
        results = {
            result.copy.target.name: result
            for result in copy_many(work, overwrite=True, in_flight=2, deadline_seconds=3)
        }
        assert fault.hits
        assert isinstance(results.pop("f001").error, DeadlineError)
        done = {name for name, result in results.items() if result.outcome is Outcome.SERVER}
        # On a busy machine the others may be late as well.
        assert all(isinstance(results[name].error, DeadlineError) for name in results.keys() - done)
        assert content(sites.target).keys() == done

    def test_closed_in_the_middle_and_begun_anew(self, sites: TwoSites) -> None:
        work = sites.fill(20)
        results = copy_many(work, overwrite=True, in_flight=2)
        done = [next(results).copy.target.name for _ in range(5)]
        results.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("copy")]
        there = content(sites.target)
        assert there.keys() >= set(done)
        assert len(there) < 20
        again = outcomes(copy_many(work, overwrite=True))
        assert {name for name, outcome in again.items() if outcome is Outcome.SKIPPED} == there.keys()
        assert content(sites.target) == content(sites.source)

    def test_mtransfer(self, sites: TwoSites) -> None:
        names = [copy.source.name for copy in sites.fill(6)]
        paths = [(ResourcePath(sites.source + name), ResourcePath(sites.target + name)) for name in names]
        assert all(result.success for result in ResourcePath.mtransfer("copy", paths).values())
        assert content(sites.target) == content(sites.source)
        # As of the base class: what exists is in the way, whatever its bytes are.
        results = ResourcePath.mtransfer("copy", paths, do_raise=False)
        assert {type(result.exception) for result in results.values()} == {ResourceExistsError}
        with counted(sites.there) as at_target:
            results = ResourcePath.mtransfer("auto", paths, overwrite=True)
        assert results.keys() == {target for _, target in paths}
        assert all(result.success for result in results.values())
        assert at_target.at_door <= 6, at_target
        results = ResourcePath.mtransfer("move", paths, overwrite=True)
        assert all(result.success for result in results.values())
        assert not content(sites.source)


class TestThisMachine:
    """Files of this machine on either side."""

    def test_a_failed_download_leaves_nothing(self, sites: TwoSites, tmp_path: Path) -> None:
        sites.fill(1, size=400)
        sites.here.faults.add(Fault("corrupt_download", times=None, at_byte=7))
        work = [Copy(Place.parse(f"{sites.source}f000"), Place.parse(str(tmp_path / "f")))]
        assert outcomes(copy_many(work, overwrite=True)) == {"f": Outcome.FAILED}
        assert not list(tmp_path.iterdir())

    def test_begun_anew(self, sites: TwoSites, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"bytes")
        up = Copy(Place.parse(str(tmp_path / "f")), Place.parse(f"{sites.target}f"))
        down = Copy(up.target, Place.parse(str(tmp_path / "g")))
        here = Copy(down.target, Place.parse(str(tmp_path / "h")))
        for copy in (up, down, here):
            assert outcomes(copy_many([copy], overwrite=False)) == {copy.target.name: Outcome.CLIENT}
            assert outcomes(copy_many([copy], overwrite=False)) == {copy.target.name: Outcome.SKIPPED}
        assert (tmp_path / "h").read_bytes() == b"bytes"
        (tmp_path / "h").write_bytes(b"other")
        (result,) = copy_many([here], overwrite=False)
        assert isinstance(result.error, FileExistsError)
        assert outcomes(copy_many([here], overwrite=True)) == {"h": Outcome.CLIENT}
        assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "g", "h"]

    @pytest.mark.parametrize("name", ["..", "a/../../b", ".", "a//b"])
    def test_names_that_lead_elsewhere(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ProtocolError):
            Place.parse(str(tmp_path)).below(name)


class Scripted:
    """Servers that exist only here: everything is a file of one byte, and copies do as they are told."""

    def __init__(self, patch: pytest.MonkeyPatch, errors: dict[str, DcacheError]) -> None:
        self.tried: list[str] = []
        self.most_in_flight = 0
        self._in_flight = 0
        self._errors = errors
        self._lock = threading.Lock()
        patch.setattr(copies, "look_up", self._look_up)
        patch.setattr(copies, "copy_one", self._copy_one)

    @staticmethod
    def _look_up(places: list[Place]) -> list[Any]:
        return [
            FileInfo(place.url, EntryKind.FILE, 1) if "/from/" in place.url else ResourceNotFoundError("none")
            for place in places
        ]

    def _copy_one(self, copy: Copy, **_: object) -> tuple[Outcome, FileInfo]:
        with self._lock:
            self.tried.append(copy.target.url)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            for part, error in self._errors.items():
                if part in copy.target.url:
                    raise error
            return Outcome.SERVER, FileInfo(copy.target.url, EntryKind.FILE, 1)
        finally:
            with self._lock:
                self._in_flight -= 1

    @staticmethod
    def copies(directories: int, files: int = 10) -> Iterator[Copy]:
        for directory, file in itertools.product(range(directories), range(files)):
            name = f"{directory}/{file}"
            yield Copy(
                Place.parse(f"davs://one.example.org/from/{name}"),
                Place.parse(f"davs://two.example.org/to/{name}"),
            )


class TestErrorsThatHoldForAll:
    """One goes ahead."""

    def test_a_refused_directory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refusal = AccessDeniedError("the server refuses", status=401)
        servers = Scripted(monkeypatch, {"/to/0/": refusal})
        results = list(copy_many(Scripted.copies(3), overwrite=True))
        assert len([url for url in servers.tried if "/to/0/" in url]) == 1
        refused = [result for result in results if result.outcome is Outcome.NOT_TRIED]
        assert len(refused) == 9
        assert all(result.error is refusal for result in refused)
        assert sum(result.outcome is Outcome.SERVER for result in results) == 20

    def test_a_third_refusal_is_not_provoked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        servers = Scripted(monkeypatch, {"/to/": AccessDeniedError("the server refuses", status=401)})
        results = list(copy_many(Scripted.copies(50), overwrite=True))
        assert len(servers.tried) == 2
        assert sum(result.outcome is Outcome.NOT_TRIED for result in results) == 498

    def test_nobody_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        servers = Scripted(monkeypatch, {"/to/": DoorUnavailableError("no answer")})
        results = list(copy_many(Scripted.copies(5), overwrite=True))
        assert len(servers.tried) == 1
        assert sum(result.outcome is Outcome.NOT_TRIED for result in results) == 49

    def test_nobody_is_there_any_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        servers = Scripted(
            monkeypatch, {f"/to/{i}/": DoorUnavailableError("no answer") for i in range(1, 50)}
        )
        results = list(copy_many(Scripted.copies(50), overwrite=True, in_flight=4))
        # One of the first ten that ends late begins the count anew.
        assert 10 + 16 <= len(servers.tried) < 100
        assert sum(result.outcome is Outcome.SERVER for result in results) == 10

    def test_names_are_not_each_waited_for(self) -> None:
        store = Mock()
        store.info_many.side_effect = store.stat.side_effect = DoorUnavailableError("no answer")
        answers = look_up([Place(f"davs://one.example.org/{i}", store) for i in range(1000)])
        assert {type(answer) for answer in answers} == {DoorUnavailableError}
        assert store.stat.call_count == 1

    def test_an_error_of_one_file_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        servers = Scripted(monkeypatch, {"/to/0/3": AccessDeniedError("not this one", status=403)})
        results = list(copy_many(Scripted.copies(2), overwrite=True))
        assert len(servers.tried) == 20
        assert sum(result.outcome is Outcome.FAILED for result in results) == 1

    def test_a_million_take_no_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        servers = Scripted(monkeypatch, {})
        taken = itertools.count()
        endless = (copy for copy in itertools.cycle(Scripted.copies(1)) if next(taken) >= 0)
        results = copy_many(endless, overwrite=True, in_flight=3)
        for _ in range(20):
            assert next(results).outcome is Outcome.SERVER
        results.close()
        assert next(taken) <= 1001
        assert servers.most_in_flight <= 3
        assert len(servers.tried) <= 20 + 3
