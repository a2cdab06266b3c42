"""The embedded tape system: flush, restore, pins, and the ways in which a restore fails."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from embedded_client import DATA, Client
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.embedded.tape import TapeSystem


@pytest.fixture
def dcache() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(tape="tape", limiter=False, time_scale=0.01) as running:
        yield running


@pytest.fixture
def tape(dcache: EmbeddedDcache) -> TapeSystem:
    tape = dcache.site.tape
    assert tape is not None
    tape.flush_seconds = tape.restore_seconds = 0.01
    return tape


@pytest.fixture
def client(dcache: EmbeddedDcache) -> Iterator[Client]:
    client = Client(dcache)
    yield client
    client.close()


def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")


def locality(client: Client, dcache: EmbeddedDcache, path: str) -> str:
    url = f"{dcache.frontend_url}api/v1/namespace/data/{path}?locality=true"
    return str(json.loads(client.ask("GET", url).body)["fileLocality"])


def stage(client: Client, dcache: EmbeddedDcache, path: str) -> Callable[[], dict[str, Any]]:
    """Ask for a file on disk; return how to look at the request."""
    body = json.dumps({"files": [{"path": f"/data/{path}"}]}).encode()
    url = client.ask("POST", f"{dcache.frontend_url}api/v1/tape/stage", body).location

    def look() -> dict[str, Any]:
        document: dict[str, Any] = json.loads(client.ask("GET", url).body)
        return document

    return look


def test_what_is_written_goes_to_tape_and_comes_back(
    dcache: EmbeddedDcache, tape: TapeSystem, client: Client
) -> None:
    assert client.ask("PUT", "tape/deep/file", DATA).status == 201
    eventually(lambda: locality(client, dcache, "tape/deep/file") == "ONLINE_AND_NEARLINE")
    entry = dcache.site.namespace.find("/data/tape/deep/file")
    assert entry is not None
    tape.purge(entry)
    assert locality(client, dcache, "tape/deep/file") == "NEARLINE"
    answer = client.ask("GET", "tape/deep/file")
    assert answer.status == 302
    assert client.ask("GET", answer.location).body == DATA
    assert locality(client, dcache, "tape/deep/file") == "ONLINE_AND_NEARLINE"


def test_disk_only_files_stay_on_disk(dcache: EmbeddedDcache, tape: TapeSystem, client: Client) -> None:
    client.ask("PUT", "disk", DATA)
    client.ask("PUT", "tape/file", DATA)
    eventually(lambda: locality(client, dcache, "tape/file") == "ONLINE_AND_NEARLINE")
    assert locality(client, dcache, "disk") == "ONLINE"
    entry = dcache.site.namespace.find("/data/disk")
    assert entry is not None
    with pytest.raises(ValueError, match="not on tape"):
        tape.purge(entry)


def test_an_ill_tape_fails_reads_at_once_but_stage_requests_never(
    dcache: EmbeddedDcache, tape: TapeSystem, client: Client
) -> None:
    dcache.place("tape/file", DATA, locality="NEARLINE")
    tape.failure = "HSM script failed: no drive"
    answer = client.ask("GET", "tape/file")
    assert (answer.status, answer.body) == (500, b"Internal problem: HSM script failed: no drive\n")
    look = stage(client, dcache, "tape/file")
    eventually(lambda: look()["files"][0]["state"] == "STARTED")
    assert "completedAt" not in look()
    tape.failure = ""
    eventually(lambda: "completedAt" in look())
    assert look()["files"][0]["state"] == "COMPLETED"


def test_a_restore_that_takes_too_long_goes_on(
    dcache: EmbeddedDcache, tape: TapeSystem, client: Client
) -> None:
    dcache.place("tape/file", DATA, locality="NEARLINE")
    tape.is_stuck, tape.wait_seconds = True, 0.05
    answer = client.ask("GET", "tape/file")
    assert answer.status == 500
    assert answer.body.startswith(b"Internal problem: Request to [>PoolManager")
    tape.is_stuck = False
    eventually(lambda: locality(client, dcache, "tape/file") == "ONLINE_AND_NEARLINE")
    assert client.ask("GET", "tape/file").status == 302


def test_no_pool_may_stage(dcache: EmbeddedDcache, tape: TapeSystem, client: Client) -> None:
    dcache.place("tape/file", DATA, locality="NEARLINE")
    for pool in dcache.site.pools:
        pool.is_up = False
    answer = client.ask("GET", "tape/file")
    assert answer.body == b"Internal problem: No pool candidates available/configured/left for stage\n"


def test_staging_can_be_forbidden(dcache: EmbeddedDcache, tape: TapeSystem, client: Client) -> None:
    dcache.place("tape/file", DATA, locality="NEARLINE")
    body = json.dumps({"caveats": ["activity:DOWNLOAD,LIST"]}).encode()
    answer = client.ask("POST", "tape", body, Content_Type="application/macaroon-request")
    token = f"Bearer {json.loads(answer.body)['macaroon']}"
    refused = client.ask("GET", "tape/file", login=token)
    assert (refused.status, refused.body) == (403, b"File not online. Staging not allowed.\n")
    tape.may_stage = False
    assert client.ask("GET", "tape/file").status == 403
    look = stage(client, dcache, "tape/file")
    eventually(lambda: "completedAt" in look())
    assert look()["files"][0]["state"] == "FAILED"


def test_pins_are_the_requests_and_can_be_released(
    dcache: EmbeddedDcache, tape: TapeSystem, client: Client
) -> None:
    dcache.place("tape/file", DATA, locality="NEARLINE")
    entry = dcache.site.namespace.find("/data/tape/file")
    assert entry is not None
    look = stage(client, dcache, "tape/file")
    eventually(lambda: "completedAt" in look())
    request = look()["id"]
    assert tape.pins(entry) == [request]
    body = json.dumps({"paths": ["/data/tape/file", "/data/elsewhere"]}).encode()
    url = f"{dcache.frontend_url}api/v1/tape/release/{request}"
    assert client.ask("POST", url, body).status == 200
    assert tape.pins(entry) == []
    tape.pin(entry, "short", -1.0)
    assert tape.pins(entry) == []


def archive_info(client: Client, dcache: EmbeddedDcache, path: str) -> str:
    body = json.dumps({"paths": [f"/data/{path}"]}).encode()
    [row] = json.loads(client.ask("POST", f"{dcache.frontend_url}api/v1/tape/archiveinfo", body).body)
    return str(row["locality"])


def property_of(client: Client, path: str) -> str:
    wanted = '<s:FileLocality xmlns:s="http://srm.lbl.gov/StorageResourceManager"/>'
    question = f'<D:propfind xmlns:D="DAV:"><D:prop>{wanted}</D:prop></D:propfind>'
    body = client.ask("PROPFIND", path, question.encode(), Depth="0").body.decode()
    return body.partition("FileLocality>")[2].partition("<")[0]


@pytest.mark.parametrize(
    ("placed", "word"),
    [
        ("ONLINE", "DISK"),
        ("NEARLINE", "TAPE"),
        ("ONLINE_AND_NEARLINE", "DISK_AND_TAPE"),
        ("UNAVAILABLE", "UNAVAILABLE"),
        ("LOST", "LOST"),
    ],
)
def test_three_ways_to_ask_where_a_file_is(
    dcache: EmbeddedDcache, client: Client, placed: Any, word: str
) -> None:
    dcache.place("tape/where", DATA, locality=placed)
    assert locality(client, dcache, "tape/where") == placed
    assert property_of(client, "tape/where") == placed
    assert archive_info(client, dcache, "tape/where") == word


def test_pool_that_is_down(dcache: EmbeddedDcache, tape: TapeSystem, client: Client) -> None:
    """What only it has on disk is on tape, or nowhere (protocol page, section 1.7)."""
    dcache.place("tape/both", DATA, locality="ONLINE_AND_NEARLINE")
    dcache.place("disk-only", DATA)
    for pool in dcache.site.pools:
        pool.is_up = False
    assert property_of(client, "tape/both") == locality(client, dcache, "tape/both") == "NEARLINE"
    assert archive_info(client, dcache, "tape/both") == "TAPE"
    assert property_of(client, "disk-only") == archive_info(client, dcache, "disk-only") == "UNAVAILABLE"
    answer = client.ask("GET", "disk-only")
    assert (answer.status, answer.body) == (500, b"Internal problem: File is unavailable.\n")
    dcache.site.pools[0].is_up = True
    tape.purge(dcache.site.namespace.find("/data/tape/both"))
    assert client.ask("GET", "tape/both").status == 302


def test_misfortunes_of_single_files(dcache: EmbeddedDcache, tape: TapeSystem, client: Client) -> None:
    names = ("lost", "stuck", "forbidden", "good")
    for name in names:
        dcache.place(f"tape/{name}", DATA, locality="NEARLINE")
    tape.wait_seconds = 0.3
    tape.strike("*/lost", "lost", "HSM script failed: volume VR1234L7 is gone")
    tape.strike("*/stuck", "stuck")
    tape.strike("*/forbidden", "forbidden")
    answers = {name: client.ask("GET", f"tape/{name}") for name in names}
    assert {name: answer.status for name, answer in answers.items()} == {
        "lost": 500,
        "stuck": 500,
        "forbidden": 403,
        "good": 302,
    }
    assert answers["lost"].body == b"Internal problem: HSM script failed: volume VR1234L7 is gone\n"
    assert answers["stuck"].body.startswith(b"Internal problem: Request to [>PoolManager")
    looks = {name: stage(client, dcache, f"tape/{name}") for name in names}
    eventually(lambda: "completedAt" in looks["good"]() and "completedAt" in looks["forbidden"]())
    states = {name: look()["files"][0]["state"] for name, look in looks.items()}
    assert states == {"lost": "STARTED", "stuck": "STARTED", "forbidden": "FAILED", "good": "COMPLETED"}
    tape.heal()
    eventually(lambda: all("completedAt" in looks[name]() for name in ("lost", "stuck")))
    with pytest.raises(ValueError, match="no misfortune"):
        tape.strike("*", "eaten")  # type: ignore[arg-type]


def test_what_is_on_tape_leaves_the_disk_unless_it_is_pinned(
    dcache: EmbeddedDcache, tape: TapeSystem, client: Client
) -> None:
    tape.keep_seconds = 0.02
    assert client.ask("PUT", "tape/kept", DATA).status == 201
    eventually(lambda: locality(client, dcache, "tape/kept") == "NEARLINE")
    entry = dcache.site.namespace.find("/data/tape/kept")
    assert entry is not None
    tape.pin(entry, "mine", 60)
    assert client.ask("GET", "tape/kept").status == 302
    time.sleep(0.1)
    assert locality(client, dcache, "tape/kept") == "ONLINE_AND_NEARLINE"
    tape.unpin(entry, "mine")
    eventually(lambda: locality(client, dcache, "tape/kept") == "NEARLINE")
