"""Several doors of one endpoint: which one is asked, what if it is sick, and which ones are taken at all."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.config.loading import load_file
from lsst.daf.butler_dcache.config.settings import EndpointSettings, origin_of
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.embedded.faults import Fault
from lsst.daf.butler_dcache.rest.doors import like_doors
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.store.webdav_store import WebdavStore
from lsst.daf.butler_dcache.transport import health, presence
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.exchange import Exchange, add_observer, remove_observer
from lsst.daf.butler_dcache.transport.health import Health, health_of
from lsst.daf.butler_dcache.transport.pacing import pacer_for
from lsst.daf.butler_dcache.transport.retry import Phase
from lsst.daf.butler_dcache.webdav.doors import Doors
from test_retry import Clock
from test_store_webdav import endpoint

A, B, C = (f"https://door{number}.example.org:2880/" for number in (1, 2, 3))
FILE = "davs://site.example.org:2880/file"
SITE = "https://site.example.org:2880/"


PAUSES: list[float] = []
"""Waits between rounds, which do not take place."""


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    for known in (health._known, presence._known):
        known.clear()
    PAUSES.clear()
    yield
    for known in (health._known, presence._known):
        known.clear()


class Sick:
    """Health on a clock of the test's own, with the middle of every draw."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.drawn = 0.5
        self.health = Health(self.clock, lambda: self.drawn)

    def fall_ill(self) -> None:
        assert self.health.failed(unreachable=True)


# The circuit breaker


def test_one_trial_and_a_slow_return() -> None:
    sick = Sick()
    assert sick.health.admits()
    sick.fall_ill()
    assert not sick.health.is_fit
    assert not sick.health.admits()
    sick.clock.now += 1.0
    assert [sick.health.admits() for _ in range(5)] == [True, False, False, False, False]
    sick.health.succeeded()
    sick.clock.now += 1.0
    assert not sick.health.admits(), "a fifth of the requests at first, and half was drawn"
    sick.clock.now += 2.0
    assert sick.health.admits()
    assert not sick.health.is_fit
    sick.clock.now += 2.0
    assert sick.health.admits()
    assert sick.health.is_fit


def test_pauses_double_up_to_a_minute() -> None:
    sick = Sick()
    sick.fall_ill()
    pauses = []
    for _ in range(9):
        pause = sick.health._closed_until - sick.clock.now
        pauses.append(pause)
        sick.clock.now += pause
        assert sick.health.admits()
        assert not sick.health.failed(unreachable=False), "it has been known"
        assert not sick.health.admits()
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_trial_that_nobody_has_heard_of_is_none() -> None:
    sick = Sick()
    sick.fall_ill()
    sick.clock.now += 1.0
    assert sick.health.admits()
    assert not sick.health.admits()
    sick.clock.now += 30.0
    assert sick.health.admits()


def test_three_refusals_in_a_row() -> None:
    sick = Sick()
    for _ in range(4):
        assert not sick.health.failed(unreachable=False)
        assert not sick.health.failed(unreachable=False)
        sick.health.succeeded()
    assert sick.health.is_fit
    assert [sick.health.failed(unreachable=False) for _ in range(3)] == [False, False, True]


def test_failures_of_requests_from_before_prolong_nothing() -> None:
    sick = Sick()
    sick.fall_ill()
    until = sick.health._closed_until
    for _ in range(20):
        assert not sick.health.failed(unreachable=True)
    assert sick.health._closed_until == until


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["ask", "good", "bad", "worse"]),
            st.floats(0, 100).map(lambda value: round(value, 3)),
        ),
        max_size=60,
    )
)
def test_never_two_trials_and_never_for_ever(steps: list[str | float]) -> None:
    clock = Clock()
    one = Health(clock, lambda: 0.999)
    trials = 0
    for step in steps:
        if isinstance(step, float):
            clock.now += step
            trials = 0 if step >= 30 else trials
        elif step == "ask":
            was_fit, returning = one.is_fit, one._returned_at is not None
            if one.admits() and not was_fit and not returning:
                trials += 1
                assert trials == 1
        else:
            trials = 0
            if step == "good":
                one.succeeded()
            else:
                one.failed(unreachable=step == "worse")
    clock.now += 100
    assert one.admits()


# The choice


class Answered:
    def __init__(self, status: int = 200) -> None:
        self.status = status


class Asked:
    """A sender that notes where it was sent."""

    def __init__(self, *says: Any) -> None:
        self.says = list(says)
        self.places: list[str] = []
        self.elsewhere: list[bool] = []

    def __call__(self, place: str, elsewhere: bool) -> Answered:
        self.places.append(urlsplit(place).hostname or "")
        self.elsewhere.append(elsewhere)
        says = self.says.pop(0) if self.says else 200
        if isinstance(says, Exception):
            raise says
        return Answered(says)


def doors(*urls: str, drained: list[Any] | None = None) -> Doors:
    several = Doors(SITE, urls, [].append if drained is None else drained.append, PAUSES.append)
    several._liked = tuple(sorted(several._liked, key=lambda one: one.base))
    return several


UNREACHABLE = errors.DoorUnavailableError("no connection")


def test_one_door_is_not_watched() -> None:
    alone = Doors(SITE, ())
    ask = Asked(503, UNREACHABLE)
    assert alone.ask("GET", FILE, Deadline(9), ask).status == 503
    with pytest.raises(errors.DoorUnavailableError):
        alone.ask("GET", FILE, Deadline(9), ask)
    assert ask.places == ["site.example.org"] * 2
    assert ask.elsewhere == [False, False]
    assert not health._known


def test_keeps_to_one_door() -> None:
    several, ask = doors(A, B, C), Asked()
    for _ in range(5):
        several.ask("GET", FILE, Deadline(9), ask)
    assert set(ask.places) == {"door1.example.org"}
    assert several.place(FILE) == A + "file"


def test_processes_spread() -> None:
    first = {Doors(SITE, (A, B, C))._liked[0].base for _ in range(100)}
    assert len(first) == 3


def test_what_was_not_sent_goes_to_the_next_door_at_once() -> None:
    drained: list[Any] = []
    several, ask = doors(A, B, drained=drained), Asked(UNREACHABLE)
    assert several.ask("MOVE", FILE, Deadline(9), ask).status == 200
    assert ask.places == ["door1.example.org", "door2.example.org"]
    assert ask.elsewhere == [True, True]
    assert drained == [origin_of(A)]
    several.ask("PUT", FILE, Deadline(9), ask)
    assert ask.places[2:] == ["door2.example.org"]
    assert several.place(FILE) == B + "file"


def test_what_may_have_had_an_effect_is_told() -> None:
    several, ask = doors(A, B), Asked(errors.OutcomeUnknownError("sent, but there is no answer"), 503)
    with pytest.raises(errors.OutcomeUnknownError):
        several.ask("MOVE", FILE, Deadline(9), ask)
    assert several.ask("MOVE", FILE, Deadline(9), ask).status == 503
    assert ask.places == ["door1.example.org"] * 2


def test_a_read_is_served_by_another() -> None:
    several, ask = doors(A, B), Asked(503, 200, 503, 200, 503)
    for _ in range(4):
        assert several.ask("GET", FILE, Deadline(9), ask).status == 200
    assert ask.places == ["door1.example.org", "door2.example.org"] * 3 + ["door2.example.org"]


def test_none_answers() -> None:
    several, ask = doors(A, B), Asked(*[UNREACHABLE] * 8)
    with pytest.raises(errors.DoorUnavailableError) as caught:
        several.ask("MOVE", FILE, Deadline(9), ask)
    assert ask.places == ["door1.example.org", "door2.example.org"] * 4, "as often as the table says"
    assert all(ask.elsewhere), "none is waited for apart from the others"
    assert (len(PAUSES), caught.value.attempts) == (3, 8)
    ask.says = [UNREACHABLE, 200]
    assert several.ask("GET", FILE, Deadline(9), ask).status == 200, "sick or not, there is no other"


def test_none_is_in_service() -> None:
    several, ask = doors(A, B), Asked(*[503] * 9)
    assert several.ask("GET", FILE, Deadline(60), ask).status == 503
    assert len(ask.places) == 8
    assert len(PAUSES) == 3


def test_all_are_silent() -> None:
    several, ask = doors(A, B), Asked(*[errors.DeadlineError("silent")] * 3)
    with pytest.raises(errors.DeadlineError):
        several.ask("GET", FILE, Deadline(9), ask)
    assert len(ask.places) == 2, "each has been silent for as long as it may"


@pytest.mark.parametrize("turns", [1, 20, 100])
def test_doors_that_are_away_are_waited_for_together(turns: int) -> None:
    """Round and round, until one is back; and if none comes back, not once for each of them."""
    several, ask = doors(A, B), Asked(*[UNREACHABLE] * 2 * turns)
    for door in (A, B):
        presence.has_answered(origin_of(door))
        assert presence.phase_unconnected(origin_of(door)) is Phase.AWAY
    if turns < 50:
        assert several.ask("MOVE", FILE, Deadline(3600), ask).status == 200
        assert ask.places[-3:] == ["door1.example.org", "door2.example.org", "door1.example.org"]
        assert len(PAUSES) == turns
        return
    with pytest.raises(errors.DoorUnavailableError):
        several.ask("MOVE", FILE, Deadline(3600), ask)
    assert (len(ask.places), len(PAUSES)) == (100, 49)
    with pytest.raises(errors.DoorUnavailableError):
        several.ask("MOVE", FILE, Deadline(3600), ask)
    assert len(PAUSES) == 49 + 3, "whoever has waited in vain does not wait again"


def test_a_silent_door_is_not_asked_to_write_twice() -> None:
    several, ask = doors(A, B), Asked(errors.DeadlineError("silent"), errors.DeadlineError("silent"))
    with pytest.raises(errors.DeadlineError):
        several.ask("PUT", FILE, Deadline(9), ask)
    assert several.ask("GET", FILE, Deadline(9), ask).status == 200
    assert ask.places == ["door1.example.org", "door1.example.org", "door2.example.org"]


def test_source_and_target_of_a_rename_are_at_one_door() -> None:
    several = doors(A, B)
    assert several.beside(B + "old", FILE) == B + "file"


def test_each_door_has_its_own_pacer() -> None:
    settings = EndpointSettings(SITE, door_urls=(A, B))
    assert pacer_for(settings, A) is not pacer_for(settings, B)
    store = WebdavStore(settings)
    for plane in (store._door.control, store._door.data):
        assert plane._pacers == {origin_of(door): pacer_for(settings, door) for door in (A, B)}


# Which ones are taken


def read(tmp_path: Path, text: str) -> EndpointSettings:
    path = tmp_path / "webdav.yaml"
    path.write_text(text)
    return load_file(str(path))[0]


def test_doors_in_the_configuration(tmp_path: Path) -> None:
    text = f"- base_url: {SITE}\n  dcache: {{doors: ['davs://door1.example.org:2880']}}"
    settings = read(tmp_path, text)
    assert settings.door_urls == (A, SITE)
    assert origin_of(A) in settings.origins


@pytest.mark.parametrize(
    ("own", "key"),
    [
        ("doors: 3", "dcache: doors"),
        ("doors: ['dav://door1.example.org/']", "dcache: doors"),
        ("discover_doors: true", "dcache: discover_doors"),
        ("discover_doors: true, frontend_url: 'http://x:3880/'", "dcache: discover_doors"),
        ("stall_seconds: 0", "dcache: stall_seconds"),
        ("hedge: sometimes", "dcache: hedge"),
    ],
)
def test_bad_keys(tmp_path: Path, own: str, key: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=key):
        read(tmp_path, f"- base_url: {SITE}\n  dcache: {{{own}}}")


def row(host: str = "door1.example.org", **changes: Any) -> dict[str, Any]:
    return {
        "protocol": "https", "root": "/", "addresses": [host], "port": 2880, "load": 0.0,
        "tags": ["glue", "srm"], "readPaths": ["/"], "writePaths": ["/"], **changes,
    }  # fmt: skip


def test_doors_like_ours() -> None:
    rows = [row(), row("door2.example.org", tags=["srm", "glue"]), row(port=2881)]
    assert like_doors(A, rows) == (A, B, "https://door1.example.org:2881/")


@pytest.mark.parametrize(
    "other",
    [
        row("door2.example.org", protocol="http"),
        row("door2.example.org", root="/pnfs"),
        row("door2.example.org", tags=["cms"]),
        row("door2.example.org", writePaths=[]),
        row("door2.example.com"),
        row("evil.door1.example.org"),
        row("192.0.2.7"),
        row("org"),
        {"addresses": ["door2.example.org"]},
        "nonsense",
        row("door2.example.org", addresses=None),
    ],
)
def test_doors_that_are_not_taken(other: Any) -> None:
    assert like_doors(A, [row(), other]) == (A,)


def test_nothing_is_taken_from_a_list_without_ours() -> None:
    assert like_doors(A, [row("door2.example.org"), row("door3.example.org")]) == (A,)
    assert like_doors("https://host:2880/", [row("host"), row("other")]) == ("https://host:2880/",)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_any_list_of_doors(value: Any) -> None:
    rows = json.loads(json.dumps(value if isinstance(value, list) else [value]))
    assert like_doors(A, rows) == (A,)


# With servers


@pytest.fixture(scope="module")
def site() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(limiter=False, doors=3) as dcache:
        yield dcache
        dcache.faults.clear()


def seen(action: Callable[[], object]) -> list[Exchange]:
    records: list[Exchange] = []
    add_observer(records.append)
    try:
        action()
    finally:
        remove_observer(records.append)
    return records


def test_discovered(site: EmbeddedDcache, tmp_path: Path) -> None:
    own = {"frontend_url": site.frontend_url, "discover_doors": True}
    with endpoint(site, tmp_path, dcache=own) as store:
        assert isinstance(store, WebdavStore)
        assert store.settings.door_urls == tuple(sorted(site.door_urls))
        records = seen(lambda: store.write(site.url + "file", b"x"))
        assert store_for(site.url) is store
        assert not [one for one in records if "doors" in one.url], "asked once, and then known"
        assert store.read(site.url + "file") == b"x"
        assert store.stat(site.url + "file").url == site.url + "file", "the endpoint keeps its name"


def test_frontend_that_does_not_tell(site: EmbeddedDcache, tmp_path: Path) -> None:
    own = {"frontend_url": site.frontend_url, "discover_doors": True}
    site.faults.add(Fault("status", server="frontend", path="*/doors", status=403, times=None))
    with endpoint(site, tmp_path, dcache=own) as store:
        assert isinstance(store, WebdavStore)
        assert store.settings.door_urls == ()
        assert not store.exists(site.url + "nothing")
    site.faults.clear()


def test_doors_that_crash_under_load(site: EmbeddedDcache, tmp_path: Path) -> None:
    """Each in turn, while others write, read and rename: nothing is lost, nothing fails."""
    with endpoint(site, tmp_path, dcache={"doors": site.door_urls}) as store:
        failures: list[BaseException] = []
        crashed = threading.Event()

        def work(number: int) -> None:
            try:
                for turn in range(12):
                    url = f"{site.url}load/{number}-{turn}"
                    store.write(url, f"{number}-{turn}".encode())
                    store.move(url, url + "-moved", overwrite=True)
                    assert store.read(url + "-moved") == f"{number}-{turn}".encode()
            except BaseException as error:  # told by the thread that looks at them
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for number in range(3):
                site.restart_door(number)
                crashed.wait(0.01)
        for thread in threads:
            thread.join()
    assert not failures


def test_busy_door_is_left(site: EmbeddedDcache, tmp_path: Path) -> None:
    ports = [urlsplit(door).port for door in site.door_urls]
    with endpoint(site, tmp_path, dcache={"doors": site.door_urls}) as store:
        store.write(site.url + "busy", b"x")
        first = next(one for one in store._door._doors._liked)  # type: ignore[attr-defined]
        busy = Fault("status", server="door", method="PROPFIND", status=503, times=3, port=first.origin[2])
        site.faults.add(busy)
        records = seen(lambda: [store.stat(site.url + "busy") for _ in range(6)])
        assert busy.hits == 3, "three in a row, then it is left alone"
        assert [one.status for one in records].count(503) == 3
        assert {urlsplit(one.url).port for one in records} <= set(ports)
        assert not health_of(first.origin).is_fit
    site.faults.clear()


# Behind a relay


@contextmanager
def relay(listener: socket.socket, port: int, folder: Path) -> Iterator[None]:
    """Run HAProxy on a socket that listens, in front of a server on loopback."""
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    if not Path(program).exists() and not os.environ.get("CI"):
        pytest.skip("HAProxy is not installed")
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        "defaults\n  mode http\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n"
        "  retries 0\n"
        f"frontend f\n  bind fd@{listener.fileno()}\n  default_backend b\n"
        f"backend b\n  server s 127.0.0.1:{port}\n"
    )
    with subprocess.Popen(
        [program, "-db", "-f", str(configuration)], pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.kill()


def test_relay_without_its_door(tmp_path: Path) -> None:
    """It answers 503 to everything: reads go on elsewhere, writes look first, and then it is left alone."""
    with (
        EmbeddedDcache(tls=False, limiter=False) as dcache,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as nobody,
    ):
        dead = nobody.getsockname()[1]
        nobody.close()
        through = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        url = dcache.url + "file"
        with endpoint(dcache, tmp_path, dcache={"doors": [through]}) as store:
            assert isinstance(store, WebdavStore)
            several = store._door._doors
            several._liked = tuple(sorted(several._liked, key=lambda one: one.base + "/" != through))
            first = several._liked[0].health
            with relay(listener, dead, tmp_path):
                dcache.place("file", b"old")
                assert store.read(url) == b"old"
                store.write(url, b"new")
                store.move(url, url + "-moved", overwrite=True)
                assert store.read(url + "-moved") == b"new"
                assert not first.is_fit
                records = seen(lambda: store.remove(url + "-moved"))
                assert not [one for one in records if one.url.startswith(through)]
            first._closed_until = 0.0
            with relay(listener, urlsplit(dcache.url).port or 0, tmp_path):
                records = seen(lambda: store.write(url, b"again"))
                assert [one.url.startswith(through) for one in records].count(True) == 1, "one trial"
                first._returned_at = 0.0
                records = seen(lambda: store.write(url, b"and again"))
                assert all(one.url.startswith(through) for one in records)
                assert first.is_fit
                assert store.read(url) == b"and again"
