"""Reading what may be on tape only: what it costs, what is raised, and what the policies wait for."""

from __future__ import annotations

import io
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
import pytest
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.embedded.faults import Fault
from lsst.daf.butler_dcache.embedded.tape import TapeSystem
from lsst.daf.butler_dcache.errors import DcacheError, NearlineError, ResourceNotFoundError
from lsst.daf.butler_dcache.model import ByteRange, EntryKind, FileInfo, Locality
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.webdav import nearline
from lsst.daf.butler_dcache.webdav.localities import Localities
from lsst.daf.butler_dcache.webdav.nearline import require_on_disk
from lsst.resources import ResourcePath
from request_counter import counted
from test_retry import Clock
from test_store_webdav import endpoint

DATA = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def site() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(tape="tape") as server:
        yield server


@pytest.fixture
def tape(site: EmbeddedDcache) -> Iterator[TapeSystem]:
    """Tape that brings nothing back until it is told to."""
    tape = site.site.tape
    assert tape is not None
    tape.restore_seconds, tape.wait_seconds, tape.is_stuck, tape.failure = 0.01, 60.0, True, ""
    yield tape
    tape.is_stuck, tape.failure, tape.may_stage = False, "", True
    site.faults.clear()


@pytest.fixture
def store(site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path) -> Iterator[Store]:
    with endpoint(site, tmp_path) as store:
        yield store


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A door that is as near as this one is late sooner; not where a busy machine must not make it late."""
    monkeypatch.setattr(nearline, "PATIENCE_SECONDS", 0.3)


def place(site: EmbeddedDcache, name: str, locality: str = "NEARLINE") -> str:
    site.place(f"tape/{name}", DATA, locality=locality)
    return f"{site.url}tape/{quote(name)}"


READS: dict[str, Callable[[Any, str], object]] = {
    "read": lambda store, url: store.read(url),
    "download": lambda store, url: store.download(url, io.BytesIO()),
    "open": lambda store, url: store.open_reader(url),
    "read_ranges": lambda store, url: store.read_ranges(url, [ByteRange(0, 5)]),
}


@pytest.mark.usefixtures("impatience")
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_first_file_of_a_directory(site: EmbeddedDcache, store: Store, read: Any, request: Any) -> None:
    """The door is asked for the bytes at once, and where they are only when they do not come."""
    url = place(site, f"{request.node.callspec.id}/file name")
    began = time.monotonic()
    with counted(site) as counter, pytest.raises(NearlineError) as caught:
        read(store, url)
    assert time.monotonic() - began < 10
    # What an earlier test has given up may end only now.
    ours = [
        record["method"]
        for record in counter.records
        if record["path"].endswith(f"{request.node.callspec.id}/file name")
    ]
    assert sorted(ours) in (["PROPFIND"], ["GET", "PROPFIND"])
    text = str(caught.value)
    assert "NEARLINE" in text
    assert f"dcache-butler stage {url}" in text
    assert caught.value.locality == "NEARLINE"
    assert pickle.loads(pickle.dumps(caught.value)).locality == "NEARLINE"
    # Now the directory is known, and no door is kept busy.
    other = place(site, f"{request.node.callspec.id}/other")
    with counted(site) as counter, pytest.raises(NearlineError):
        read(store, other)
    assert counter.methods() == ["door PROPFIND"]


def test_a_tape_as_it_is_set_up(tmp_path: Path) -> None:
    """Nobody has told it to be slow."""
    with (
        EmbeddedDcache(tape="tape") as site,
        endpoint(site, tmp_path) as store,
        pytest.raises(NearlineError),
    ):
        store.read(place(site, "file"))


@pytest.mark.parametrize(
    "look",
    [
        lambda store, url: store.stat(url),
        lambda store, url: store.list_directory(url.rpartition("/")[0] + "/"),
        lambda store, url: list(store.iter_directory(url.rpartition("/")[0] + "/")),
    ],
    ids=["stat", "list", "iter"],
)
def test_looking_teaches(site: EmbeddedDcache, store: Store, look: Any, request: Any) -> None:
    folder = f"look-{request.node.callspec.id}"
    urls = [place(site, f"{folder}/{name}") for name in ("a", "b")]
    look(store, urls[0])
    for url in urls:
        with counted(site) as counter, pytest.raises(NearlineError):
            store.read(url)
        assert counter.methods() == ["door PROPFIND"]


@pytest.mark.parametrize("by", ["list_directory", "iter_directory"])
def test_listings_of_the_frontend_teach(
    site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path, by: str
) -> None:
    url = place(site, f"frontend-{by}/file")
    with endpoint(site, tmp_path, dcache={"listing": "rest"}) as store:
        with counted(site) as counter:
            list(getattr(store, by)(url.rpartition("/")[0] + "/"))
        assert "frontend GET" in counter.methods()
        with counted(site) as counter, pytest.raises(NearlineError):
            store.read(url)
    # Door and frontend are proven to speak of one file, so that it is asked for a copy on disk.
    assert counter.methods() == ["door PROPFIND", "frontend GET"]


def test_what_is_on_disk(site: EmbeddedDcache, store: Store) -> None:
    urls = [place(site, f"mixed/{number}", "ONLINE_AND_NEARLINE") for number in range(2)]
    with counted(site) as counter:
        assert store.read(urls[0]) == DATA
    assert counter.methods() == ["door GET", "pool GET"], "nothing is known of the directory"
    store.stat(urls[0])
    with counted(site) as counter:
        for _ in range(2):
            assert store.read(urls[0]) == DATA
    assert counter.methods() == ["door GET", "pool GET"] * 2, "it was seen on disk a moment ago"
    with counted(site) as counter:
        for _ in range(2):
            assert store.read(urls[1]) == DATA
    assert counter.methods() == ["door PROPFIND", *["door GET", "pool GET"] * 2]


def test_a_repeated_read_looks_once(site: EmbeddedDcache, store: Store) -> None:
    url = place(site, "repeated/file", "ONLINE_AND_NEARLINE")
    place(site, "repeated/other")
    store.stat(f"{site.url}tape/repeated/other")
    site.faults.add(Fault("status", server="pool", method="GET", status=500, times=2))
    with counted(site) as counter:
        assert store.read(url) == DATA
    assert counter.methods().count("door PROPFIND") == 1
    assert counter.methods().count("door GET") == 3


@pytest.mark.usefixtures("impatience")
def test_a_slow_door_is_waited_for(site: EmbeddedDcache, store: Store) -> None:
    """A file that is on disk is read, however long the door takes; it is asked once where it is."""
    site.place("disk/file", DATA)
    url = f"{site.url}disk/file"
    site.faults.add(Fault("stall", server="door", method="GET", seconds=0.8, times=1))
    with counted(site) as counter:
        assert store.read(url) == DATA
    assert sorted(counter.methods()) == ["door GET", "door PROPFIND", "pool GET"]


@pytest.mark.usefixtures("impatience")
def test_a_question_that_fails_changes_nothing(site: EmbeddedDcache, store: Store) -> None:
    site.place("disk/other", DATA)
    site.faults.add(Fault("stall", server="door", method="GET", seconds=0.8, times=1))
    site.faults.add(Fault("status", server="door", method="PROPFIND", status=403, times=None))
    assert store.read(f"{site.url}disk/other") == DATA


@pytest.mark.usefixtures("impatience")
def test_a_purge_after_the_look(site: EmbeddedDcache, store: Store, tape: TapeSystem) -> None:
    """The memory of a minute ago does not keep a door busy for three."""
    url = place(site, "purged/file", "ONLINE_AND_NEARLINE")
    store.stat(url)
    entry = site.site.namespace.find("/data/tape/purged/file")
    assert entry is not None
    tape.purge(entry)
    with pytest.raises(NearlineError):
        store.read(url)


@pytest.mark.parametrize(
    ("locality", "words"),
    [("UNAVAILABLE", "no pool that is in service"), ("LOST", "knows of no copy")],
)
def test_other_words(locality: str, words: str) -> None:
    entry = FileInfo("davs://x/f", EntryKind.FILE, locality=Locality(locality))
    with pytest.raises(NearlineError, match=words) as caught:
        require_on_disk(entry)
    assert caught.value.locality == locality
    assert "stage" not in str(caught.value)


@pytest.mark.parametrize(
    "read",
    [
        lambda path: path.read(),
        lambda path: path.as_local().__enter__(),
        lambda path: path.open("rb").__enter__().read(1),
        lambda path: fsspec.open(str(path)).open().read(1),
        lambda path: fsspec.filesystem("davs").cat_file(str(path)),
        lambda path: ResourcePath(f"{path}-copy").transfer_from(path, transfer="copy"),
    ],
    ids=["read", "as_local", "open", "fsspec.open", "cat_file", "transfer_from"],
)
def test_whoever_reads(site: EmbeddedDcache, store: Store, read: Any) -> None:
    url = place(site, "whoever/file")
    store.stat(url)
    with pytest.raises(NearlineError, match="dcache-butler stage") as caught:
        read(ResourcePath(url))
    assert caught.value.locality == Locality.NEARLINE


@pytest.mark.usefixtures("impatience")
@pytest.mark.parametrize("locality", ["LOST", "UNAVAILABLE"])
def test_nothing_to_be_staged(site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path, locality: str) -> None:
    """Neither at first sight nor by any policy."""
    url = place(site, f"nowhere/{locality}", locality)
    for policies in ({}, {"tape": True}, {"nearline": "stage"}, {"nearline": "wait"}):
        with (
            endpoint(site, tmp_path, dcache=policies) as store,
            counted(site) as counter,
            pytest.raises(NearlineError) as caught,
        ):
            store.read(url)
        assert "dcache-butler" not in str(caught.value)
        assert caught.value.locality in (locality, "UNAVAILABLE")
        assert set(counter.methods()) <= {"door GET", "door PROPFIND"}


def test_where_it_is_shown(site: EmbeddedDcache, store: Store) -> None:
    url = place(site, "shown/file")
    assert ResourcePath(url).get_info().locality is Locality.NEARLINE
    assert ResourcePath(url).get_info().locality == "NEARLINE"
    system = fsspec.filesystem("davs")
    assert system.info(url)["locality"] == "NEARLINE"
    assert [entry["locality"] for entry in system.ls(url.rpartition("/")[0], detail=True)] == ["NEARLINE"]
    assert ResourcePath(url.rpartition("/")[0] + "/").get_info().locality is None


@pytest.mark.parametrize("locality", ["ONLINE", "ONLINE_AND_NEARLINE", "NONE"])
def test_others_can_be_asked_for(locality: str) -> None:
    require_on_disk(FileInfo("davs://x/f", EntryKind.FILE, locality=Locality(locality)))


def test_a_ruin_in_a_directory_of_tape_says_what_it_is(site: EmbeddedDcache, store: Store) -> None:
    place(site, "ruins/other")
    store.stat(f"{site.url}tape/ruins/other")
    with pytest.raises(ResourceNotFoundError):
        store.read(f"{site.url}tape/ruins/none")


def test_ill_tape(site: EmbeddedDcache, store: Store, tape: TapeSystem) -> None:
    """The door's own words of a recall that fails at once."""
    url = place(site, "ill/file")
    tape.failure = "HSM script failed: no drive for stage"
    with pytest.raises(NearlineError, match=r"HSM script failed.*dcache-butler stage"):
        store.read(url)


@pytest.mark.usefixtures("impatience")
def test_hedged(site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path) -> None:
    own = {"dcache": {"hedge": True}}
    with endpoint(site, tmp_path, **own) as store:
        site.place("disk/hedged", DATA)
        for _ in range(60):
            store.read(f"{site.url}disk/hedged")
        url = place(site, "hedged/file")
        with pytest.raises(NearlineError) as caught:
            store.read(url)
        assert caught.value.locality == "NEARLINE"
    # The other way gives up as well, and keeps no door busy.
    for thread in threading.enumerate():
        if thread.name == "dcache-hedge":
            thread.join(10)
            assert not thread.is_alive()


def test_every_file_may_be_on_tape(site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path) -> None:
    url = place(site, "every/file")
    with (
        endpoint(site, tmp_path, dcache={"tape": True}) as store,
        counted(site) as counter,
        pytest.raises(NearlineError),
    ):
        store.read(url)
    assert counter.methods() == ["door PROPFIND"]


# A file that waits for a copy from pool to pool


def needs_copy(site: EmbeddedDcache, name: str) -> str:
    site.place(f"disk/{name}", DATA)
    entry = site.site.namespace.find(f"/data/disk/{name}")
    assert entry is not None
    entry.needs_copy = True
    site.site.copy_seconds = 1.2
    return f"{site.url}disk/{name}"


@pytest.mark.usefixtures("impatience")
@pytest.mark.parametrize("read", [READS["read"], READS["open"]], ids=["read", "open"])
@pytest.mark.parametrize("policy_", ["fail", "wait", "stage"])
def test_a_copy_is_waited_for(
    site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path, read: Any, policy_: str, request: Any
) -> None:
    """The door calls it NEARLINE, and the frontend knows pools that hold it."""
    own = {"frontend_url": site.frontend_url, "nearline": policy_, "nearline_deadline_seconds": 0.4}
    with endpoint(site, tmp_path, dcache=own) as store:
        url = needs_copy(site, request.node.callspec.id)
        with counted(site) as counter:
            read(store, url)
        assert sorted(set(counter.methods()) - {"pool GET"}) == ["door GET", "door PROPFIND", "frontend GET"]
        assert counter.methods().count("frontend GET") == 1
        # The directory is one of NEARLINE files now, and nothing else has changed.
        url = needs_copy(site, f"{request.node.callspec.id}-2")
        read(store, url)


@pytest.mark.usefixtures("impatience")
def test_a_frontend_that_does_not_tell(site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path) -> None:
    """Then it is what the door says that it is, and a frontend that is away is not asked for a while."""
    own = {"frontend_url": site.frontend_url}
    site.faults.add(Fault("status", server="frontend", status=503, times=None))
    with endpoint(site, tmp_path, dcache=own) as store:
        url = needs_copy(site, "untold")
        with pytest.raises(NearlineError):
            store.read(url)
        site.faults.clear()
        url = place(site, "untold/file")
        with counted(site) as counter, pytest.raises(NearlineError):
            store.read(url)
    assert counter.at_door <= 2
    assert not any("frontend" in method for method in counter.methods())


@pytest.mark.parametrize("known", [False, True])
def test_tape_has_no_locations(site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path, known: bool) -> None:
    url = place(site, f"no-locations-{known}/file")
    own = {"tape": True, **({"frontend_url": site.frontend_url} if known else {})}
    with (
        endpoint(site, tmp_path, dcache=own) as store,
        counted(site) as counter,
        pytest.raises(NearlineError),
    ):
        store.read(url)
    assert counter.methods() == ["door PROPFIND", *(["frontend GET"] if known else [])]


# Policies


def policy(site: EmbeddedDcache, folder: Path, nearline: str, **own: Any) -> Any:
    return endpoint(site, folder, dcache={"nearline": nearline, **own})


def test_wait(site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path) -> None:
    """The door's 500 after its 180 s is not the end: the restore goes on."""
    url = place(site, "wait/file")
    tape.wait_seconds, tape.is_stuck, tape.restore_seconds = 0.2, False, 0.5
    with policy(site, tmp_path, "wait") as store, counted(site) as counter:
        assert store.read(url) == DATA
    assert counter.methods().count("door GET") > 1


def test_wait_for_too_long(site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path) -> None:
    """Also where the door itself gives up again and again."""
    url = place(site, "wait/stuck")
    tape.wait_seconds = 0.1
    with (
        policy(site, tmp_path, "wait", nearline_deadline_seconds=0.3) as store,
        pytest.raises(NearlineError, match=f"did not come back within.*dcache-butler stage {url}"),
    ):
        store.read(url)


def test_wait_for_a_door_that_is_silent(site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path) -> None:
    """The deadline holds while the door waits for the tape, too, which it does for 60 s here."""
    url = place(site, "wait/silent")
    began = time.monotonic()
    with (
        policy(site, tmp_path, "wait", nearline_deadline_seconds=0.5) as store,
        counted(site) as counter,
        pytest.raises(NearlineError, match="NEARLINE"),
    ):
        store.read(url)
    assert 0.5 <= time.monotonic() - began < 10
    # What an earlier test has given up may end only now.
    ours = [record["method"] for record in counter.records if record["path"].endswith("wait/silent")]
    assert sorted(ours) in (["PROPFIND"], ["GET", "PROPFIND"])


@pytest.mark.parametrize("hedge", [False, True], ids=["", "hedged"])
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_the_wait_is_ours(
    site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path, read: Any, request: Any, hedge: bool
) -> None:
    """A door would wait for a minute here, and the operation may take less than tape."""
    url = place(site, f"wait-{request.node.callspec.id}/stuck")
    began = time.monotonic()
    with (
        policy(site, tmp_path, "wait", nearline_deadline_seconds=0.6, hedge=hedge) as store,
        counted(site) as counter,
        pytest.raises(NearlineError, match=r"within .* s; nearline_deadline_seconds is 0\.6") as caught,
    ):
        read(store, url)
    assert time.monotonic() - began < 10
    assert f"dcache-butler stage {url}" in str(caught.value)
    assert caught.value.locality == "NEARLINE"
    # A door that is still asked for the bytes has nothing in its transcript yet.
    assert set(counter.methods()) <= {"door GET", "door PROPFIND"}
    assert len(counter.methods()) <= 2 + hedge


@pytest.mark.usefixtures("impatience")
def test_wait_for_longer_than_an_operation(site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path) -> None:
    url = place(site, "wait/long")
    tape.is_stuck, tape.restore_seconds = False, 2.5
    with policy(site, tmp_path, "wait", nearline_deadline_seconds=30, total_timeout_seconds=1.5) as store:
        assert store.read(url) == DATA


def test_wait_for_what_fails_at_once(site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path) -> None:
    url = place(site, "wait/ill")
    tape.failure = "HSM script failed: no drive for stage"
    with (
        policy(site, tmp_path, "wait") as store,
        counted(site) as counter,
        pytest.raises(NearlineError, match="no drive"),
    ):
        store.read(url)
    assert counter.methods() == ["door GET"]


@pytest.mark.parametrize("hedge", [False, True], ids=["", "hedged"])
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_stage(
    site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path, read: Any, request: Any, hedge: bool
) -> None:
    url = place(site, f"stage-{request.node.callspec.id}/file")
    tape.is_stuck = False
    # The GET of a file that nobody has staged would bring it as well.
    with policy(site, tmp_path, "stage", tape=True, hedge=hedge) as store, counted(site) as counter:
        read(store, url)
    paths = [record["path"] for record in counter.records if record["server"] == "frontend"]
    assert paths.count("/api/v1/tape/stage") == 1
    assert counter.methods().count("door GET") >= 1


@pytest.mark.usefixtures("impatience")
def test_stage_for_too_long(site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path) -> None:
    url = place(site, "stage/stuck")
    with (
        policy(site, tmp_path, "stage", nearline_deadline_seconds=0.5) as store,
        pytest.raises(DcacheError, match="stage/stuck"),
    ):
        store.read(url)


@pytest.mark.usefixtures("impatience")
def test_stage_where_there_is_no_tape_api(site: EmbeddedDcache, tape: TapeSystem, tmp_path: Path) -> None:
    url = place(site, "stage/nowhere")
    with (
        policy(site, tmp_path, "stage", discover_frontend=False) as store,
        pytest.raises(NearlineError) as caught,
    ):
        store.read(url)
    assert "cannot be staged here" in "\n".join(caught.value.__notes__)


# The memory


def test_memory_is_bounded_and_forgets() -> None:
    clock = Clock()
    known = Localities(clock)
    for number in range(3000):
        url = f"davs://x/d{number}/f"
        known.noted(FileInfo(url, EntryKind.FILE, locality=Locality.ONLINE_AND_NEARLINE))
    assert known.is_tape("davs://x/d2999/other")
    assert not known.is_tape("davs://x/d0/f")
    assert known.is_on_disk("davs://x/d2999/f")
    assert len(known._of_tape) == len(known._on_disk) == 1000
    clock.now += 61
    assert not known.is_on_disk("davs://x/d2999/f")
    known.noted(FileInfo("davs://x/e/f", EntryKind.FILE, locality=Locality.ONLINE))
    assert not known.is_tape("davs://x/e/f")
