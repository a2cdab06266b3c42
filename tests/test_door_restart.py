"""A door that restarts: whoever has spoken with it waits and never knows; a wrong port is told at once."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler_dcache.auth.credential import ANONYMOUS
from lsst.daf.butler_dcache.auth.sources import StaticSource
from lsst.daf.butler_dcache.config.settings import EndpointSettings, origin_of
from lsst.daf.butler_dcache.embedded import EmbeddedDcache, Fault
from lsst.daf.butler_dcache.errors import DoorUnavailableError
from lsst.daf.butler_dcache.store.webdav_store import WebdavStore
from lsst.daf.butler_dcache.transport import presence
from lsst.daf.butler_dcache.transport.control import ControlPlane
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.pacing import Pacer
from lsst.daf.butler_dcache.transport.retry import Phase
from scripted_server import ScriptedServer, answering, ok
from test_store_webdav import endpoint

DATA = bytes(range(256)) * 1000
"""Enough to go to a pool."""


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    presence._known.clear()
    yield
    presence._known.clear()


@pytest.fixture(scope="module")
def site() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(limiter=False, doors=2) as dcache:
        yield dcache


class Outage:
    """Waits that do not take place unless somebody says how; at the end of the outage the door is back."""

    def __init__(
        self,
        seconds: float = math.inf,
        back: Callable[[], object] = lambda: None,
        sleep: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        self.pauses: list[float] = []
        self._seconds = seconds
        self._really = sleep
        self._back: Callable[[], object] | None = back

    @property
    def waited(self) -> float:
        return sum(self.pauses)

    def end_after(self, seconds: float, back: Callable[[], object]) -> None:
        self._seconds, self._back = self.waited + seconds, back

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._really(seconds)
        if self.waited > self._seconds and self._back is not None:
            self._back()
            self._back = None


@contextmanager
def waiting(site: EmbeddedDcache, folder: Path, outage: Outage, **own: Any) -> Iterator[WebdavStore]:
    """A client that has spoken with the site, and whose waits are the outage's."""
    with endpoint(site, folder, dcache=own) as store:
        assert isinstance(store, WebdavStore)
        store.write(site.url + "file", DATA)
        assert store.read(site.url + "file") == DATA
        assert store.stat(site.url + "file").size == len(DATA)
        door = store._door
        for one in (door.control, door.data, door._doors):
            one._sleep = outage.sleep  # type: ignore[attr-defined]
        try:
            yield store
        finally:
            for number in range(len(site.door_urls)):
                site.restart_door(number)


def stream(store: WebdavStore, url: str) -> bool:
    writer = store.open_writer(url)
    for _ in range(6):
        writer.write(DATA)
    writer.commit()
    return store.read(url) == 6 * DATA


OPERATIONS: dict[str, Callable[[WebdavStore, str], object]] = {
    "read": lambda store, url: store.read(url + "file") == DATA,
    "stat": lambda store, url: store.stat(url + "file").size == len(DATA),
    "exists": lambda store, url: store.exists(url + "file"),
    "list": lambda store, url: [info.url for info in store.list_directory(url)],
    "write small": lambda store, url: store.write(url + "small", b"x") or store.read(url + "small") == b"x",
    "write": lambda store, url: store.write(url + "large", DATA) or store.read(url + "large") == DATA,
    "move": lambda store, url: store.move(url + "file", url + "moved", overwrite=True) or True,
    "remove": lambda store, url: store.remove(url + "file") or not store.exists(url + "file"),
    "make a directory": lambda store, url: (
        store.make_directory(url + "directory/") or store.exists(url + "directory/")
    ),
    "stream": lambda store, url: stream(store, url + "streamed"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_only_door_is_away_for_40_seconds(site: EmbeddedDcache, tmp_path: Path, name: str) -> None:
    outage = Outage(40.0, site.start_door)
    with waiting(site, tmp_path, outage) as store:
        site.stop_door()
        assert OPERATIONS[name](store, site.url)
        assert 40 < outage.waited < 46
        pauses = len(outage.pauses)
        store.write(site.url + "file", DATA)
        assert len(outage.pauses) == pauses, "it is back"


@pytest.mark.parametrize("has_effect", [False, True])
@pytest.mark.parametrize("method", ["PROPFIND", "GET", "PUT", "MOVE", "DELETE"])
def test_the_door_crashes_with_a_request(
    site: EmbeddedDcache, tmp_path: Path, method: str, has_effect: bool
) -> None:
    """The connection is lost, before or after the effect, and then nobody listens for a while."""
    with waiting(site, tmp_path, Outage(0.0, sleep=time.sleep)) as store:
        crash = site.faults.add(
            Fault("restart", server="door", method=method, seconds=0.2, has_effect=has_effect)
        )
        url = site.url + "file"
        store.write(url, DATA[::-1])
        store.move(url, url + "-moved", overwrite=True)
        assert store.stat(url + "-moved").size == len(DATA)
        assert store.read(url + "-moved") == DATA[::-1]
        store.remove(url + "-moved")
        assert not store.exists(url + "-moved")
        assert crash.hits == 1
        entries = site.site.namespace.root.walk()
        assert not [entry for entry in entries if entry.name.startswith(".dcb-")]


def test_an_open_reader_loses_its_pool_and_the_door_is_away(site: EmbeddedDcache, tmp_path: Path) -> None:
    outage = Outage(40.0, site.start_door)
    with waiting(site, tmp_path, outage) as store:
        reader = store.open_reader(site.url + "file")
        try:
            assert reader.read_tail(10)[1] == DATA[-10:]
            site.stop_door()
            for pool in site.site.pools:
                pool.crash()
            assert b"".join(reader.stream()) == DATA
        finally:
            reader.close()
        assert outage.waited > 40


def test_two_doors_are_away(site: EmbeddedDcache, tmp_path: Path) -> None:
    """The one that is back first is used, and nobody waited for each of them in turn."""
    outage = Outage(40.0, lambda: site.start_door(1))
    with waiting(site, tmp_path, outage, doors=site.door_urls) as store:
        for place in site.door_urls:
            store._door.control.request("OPTIONS", place, deadline=Deadline(9))
        site.stop_door(0)
        site.stop_door(1)
        store.move(site.url + "file", site.url + "moved", overwrite=True)
        assert store.read(site.url + "moved") == DATA
        assert 40 < outage.waited < 46


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_door_that_is_switched_off_for_good(site: EmbeddedDcache, tmp_path: Path, name: str) -> None:
    """It is waited for once, however many requests an operation has left, and whatever is asked next."""
    outage = Outage()
    with waiting(site, tmp_path, outage) as store:
        site.stop_door()
        with pytest.raises(DoorUnavailableError, match="no connection: Connection refused") as caught:
            OPERATIONS[name](store, site.url)
        assert caught.value.attempts == 50
        assert "has answered this process before" in caught.value.hint
        pauses = len(outage.pauses)
        assert 49 <= pauses <= 49 + 3, "what may be left behind is tried to be removed"
        for action in (store.read, store.stat, store.remove):
            with pytest.raises(DoorUnavailableError, match="has taken no connection for"):
                action(site.url + "file")
        assert len(outage.pauses) == pauses + 9


def test_a_door_that_has_come_back_is_waited_for_again(site: EmbeddedDcache, tmp_path: Path) -> None:
    outage = Outage()
    with waiting(site, tmp_path, outage) as store:
        site.stop_door()
        with pytest.raises(DoorUnavailableError):
            store.stat(site.url + "file")
        site.start_door()
        assert store.stat(site.url + "file").size == len(DATA)
        site.stop_door()
        outage.end_after(30.0, site.start_door)
        assert store.read(site.url + "file") == DATA


@pytest.mark.parametrize("plane", [ControlPlane, DataPlane])
@pytest.mark.parametrize("method", ["GET", "MOVE"])
class TestPlanes:
    """Each of the two, with a server that says what the test wants."""

    def ask(
        self, plane: type[ControlPlane] | type[DataPlane], method: str, url: str, **settings: Any
    ) -> Outage:
        outage = Outage()
        one = plane(EndpointSettings(url, **settings), StaticSource(ANONYMOUS), Pacer(0), sleep=outage.sleep)
        send = one.request if isinstance(one, ControlPlane) else one.open
        with pytest.raises(DoorUnavailableError) as caught:
            send(method, url + "x", deadline=Deadline(3600))
        assert caught.value.attempts == len(outage.pauses) + 1
        self.hint = caught.value.hint
        return outage

    def test_a_port_that_has_never_answered_is_told_at_once(
        self, plane: type[ControlPlane] | type[DataPlane], method: str
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        assert len(self.ask(plane, method, url).pauses) == 3
        assert self.hint == ""

    def test_one_that_has_is_waited_for_and_then_told_at_once(
        self, plane: type[ControlPlane] | type[DataPlane], method: str
    ) -> None:
        with ScriptedServer(answering(ok(b"data"), again=False)) as server:
            url = server.url
            ControlPlane(EndpointSettings(url), StaticSource(ANONYMOUS), Pacer(0)).request(
                "GET", url, deadline=Deadline(9)
            )
        assert presence._known == {origin_of(url): None}
        assert len(self.ask(plane, method, url).pauses) == 49
        assert "has answered this process before" in self.hint
        assert len(self.ask(plane, method, url).pauses) == 3
        assert "has answered this process before" in self.hint

    def test_one_that_is_there_and_not_the_right_one_is_not_waited_for(
        self, plane: type[ControlPlane] | type[DataPlane], method: str
    ) -> None:
        with EmbeddedDcache(limiter=False, frontend=False, pools=1) as dcache:
            url = dcache.url.replace("davs", "https")
            presence.has_answered(origin_of(url))
            assert len(self.ask(plane, method, url, trusted_authorities=None).pauses) == 3
            assert presence._known == {origin_of(url): None}

    def test_handshakes_that_break_off_are_waited_for(
        self, plane: type[ControlPlane] | type[DataPlane], method: str
    ) -> None:
        """So it looks behind a relay whose door is away."""
        with ScriptedServer(lambda talk: None) as relay:
            url = relay.url.replace("http:", "https:")
            presence.has_answered(origin_of(url))
            assert len(self.ask(plane, method, url).pauses) == 49


def test_pools_are_not_waited_for(site: EmbeddedDcache, tmp_path: Path) -> None:
    with waiting(site, tmp_path, Outage()) as store:
        store.read(site.url + "file")
        assert presence._known.keys() <= set(map(origin_of, site.door_urls))


def test_a_frontend_is_not_waited_for_where_the_door_does_the_same(
    site: EmbeddedDcache, tmp_path: Path
) -> None:
    outage = Outage()
    with waiting(site, tmp_path, outage, frontend_url=site.frontend_url) as store:
        store.write(site.url + "file", DATA)
        assert origin_of(site.frontend_url) in presence._known, "it renames"
        site._frontends[0].stop()
        frontend = store._frontends.for_single_files
        assert frontend is not None
        frontend._namespace._api._control._sleep = outage.sleep
        store.write(site.url + "file", DATA[::-1])
        assert store.read(site.url + "file") == DATA[::-1]
        assert outage.pauses == []


def test_what_is_remembered_is_bounded() -> None:
    for port in range(3000):
        presence.has_answered(("https", "door.example.org", port))
    assert len(presence._known) <= presence._MOST_SERVERS
    assert presence.phase_unconnected(("https", "door.example.org", 2999)) is Phase.AWAY


def test_how_long_it_has_been_away() -> None:
    door = ("https", "door.example.org", 2880)
    assert presence.phase_unconnected(door, 100.0) is Phase.NOT_SENT
    assert presence.absence_of(door, 100.0) == ""
    presence.has_answered(door)
    assert not presence.is_away(door)
    assert presence.absence_of(door, 100.0) == ""
    assert presence.phase_unconnected(door, 100.0) is presence.phase_unconnected(door, 120.0) is Phase.AWAY
    assert presence.is_away(door)
    assert "has taken no connection for 33 s" in presence.absence_of(door, 133.4)
    presence.waited_in_vain(door)
    assert presence.phase_unconnected(door, 200.0) is Phase.NOT_SENT
    assert not presence.is_away(door)
    presence.has_answered(door)
    assert presence.phase_unconnected(door, 300.0) is Phase.AWAY
