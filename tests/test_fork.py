"""A forked child never shares a socket with its parent.

The incumbent client keeps its sockets across ``fork``: of 480 answers that forked children got, 39 were wrong
sizes without an error, 20 children hung, and 12 of 480 reads returned the content of another file.
"""

from __future__ import annotations

import json
import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import pytest
from lsst.daf.butler_dcache.auth.sources import source_for
from lsst.daf.butler_dcache.config.loading import settings_for
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.errors import DoorUnavailableError
from lsst.daf.butler_dcache.transport.control import ControlPlane
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.pacing import pacer_for

CHILDREN = 4
ROUNDS = 10


@pytest.fixture(scope="module", params=[False, True], ids=["http", "https"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(tls=request.param) as dcache, pytest.MonkeyPatch.context() as patch:
        for name, value in dcache.environment.items():
            patch.setenv(name, value)
        yield dcache


class Client:
    def __init__(self, server: EmbeddedDcache) -> None:
        endpoint = settings_for(server.url)
        source = source_for(endpoint)
        self.control = ControlPlane(endpoint, source, pacer_for(endpoint))
        self.data = DataPlane(endpoint, source, pacer_for(endpoint))
        self.base = server.url.replace("dav", "http", 1)

    def put(self, name: str, body: bytes) -> None:
        answer = self.control.request("PUT", self.base + name, body=body, deadline=Deadline(20))
        assert answer.status == 201

    def size(self, name: str) -> int:
        answer = self.control.request("HEAD", self.base + name, deadline=Deadline(20))
        assert answer.status == 200
        return int(answer.headers["Content-Length"])

    def read(self, name: str) -> bytes:
        location = self.control.request("GET", self.base + name, deadline=Deadline(20)).headers["Location"]
        with self.data.open("GET", location, deadline=Deadline(20)) as answer:
            assert answer.status == 200
            return answer.read()


def in_child(work: Callable[[], object]) -> Callable[[], object]:
    """Fork, run a function in the child, and return a function that waits for its result."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the threads of the embedded dCache
        child = os.fork()
    if child == 0:
        try:
            result = json.dumps({"value": work()})
        except BaseException as error:
            result = json.dumps({"error": repr(error)})
        os.write(writer, result.encode())
        os._exit(0)
    os.close(writer)

    def wait() -> object:
        try:
            if not select.select([reader], [], [], 30)[0]:
                os.kill(child, signal.SIGKILL)
                pytest.fail("the child hangs")
            answer = json.loads(os.read(reader, 65536) or b'{"error": "the child died"}')
        finally:
            os.close(reader)
            os.waitpid(child, 0)
        assert "error" not in answer, answer
        return answer["value"]

    return wait


def test_children_and_parent_get_their_own_answers(server: EmbeddedDcache) -> None:
    client = Client(server)
    names = [f"fork-{number}" for number in range(CHILDREN + 1)]
    bodies = {name: name.encode() * 1000 * (number + 1) for number, name in enumerate(names)}
    for name, body in bodies.items():
        client.put(name, body)
        assert client.read(name) == body  # both planes keep connections now
    before = len(server.transcript())

    def work(name: str) -> list[bool]:
        return [
            client.read(name) == bodies[name] and client.size(name) == len(bodies[name])
            for _ in range(ROUNDS)
        ]

    waits = [in_child(lambda name=name: work(name)) for name in names[1:]]
    assert work(names[0]) == [True] * ROUNDS
    assert [wait() for wait in waits] == [[True] * ROUNDS] * CHILDREN
    assert work(names[0]) == [True] * ROUNDS
    # Each name is read by one process, so a connection that carried two of them was shared by two processes.
    users: dict[int, set[str]] = {}
    for record in server.transcript()[before:]:
        users.setdefault(record.connection, set()).add(record.path.rpartition("/")[2])
    assert {len(names) for names in users.values()} == {1}
    assert len(users) >= 2 * (CHILDREN + 1)


def test_the_parents_connections_survive_the_children(server: EmbeddedDcache) -> None:
    client = Client(server)
    client.put("survive", b"x" * 1000)
    client.read("survive")
    before = {record.connection for record in server.transcript()}
    wait = in_child(lambda: client.size("survive"))
    assert wait() == 1000
    after = len(server.transcript())
    assert client.read("survive") == b"x" * 1000
    assert {record.connection for record in server.transcript()[after:]} <= before


def test_an_answer_that_is_being_read_is_an_error_in_the_child(server: EmbeddedDcache) -> None:
    client = Client(server)
    body = os.urandom(2_000_000)
    client.put("half", body)
    location = client.control.request("GET", client.base + "half", deadline=Deadline(20)).headers["Location"]
    with client.data.open("GET", location, deadline=Deadline(20)) as answer:
        first = answer.read_some(1000)

        def work() -> str:
            try:
                answer.read()
            except DoorUnavailableError:
                return "refused"
            return "read"

        # What the parent had read ahead is the child's as well; the rest is not.
        assert in_child(work)() == "refused"
        assert first + answer.read() == body


def test_a_held_connection_is_not_the_childs(server: EmbeddedDcache) -> None:
    client = Client(server)
    client.put("held", b"0123456789")
    location = client.control.request("GET", client.base + "held", deadline=Deadline(20)).headers["Location"]
    first = {"Range": "bytes=0-4"}
    with client.data.open("GET", location, headers=first, deadline=Deadline(20)) as answer:
        connection = answer.hold()
        answer.read()

    def work() -> str:
        try:
            client.data.open("GET", location, deadline=Deadline(20), connection=connection)
        except DoorUnavailableError:
            return "refused"
        return "used"

    assert in_child(work)() == "refused"
    with client.data.open(
        "GET", location, headers={"Range": "bytes=5-9"}, deadline=Deadline(20), connection=connection
    ) as answer:
        assert (answer.status, answer.read()) == (206, b"56789")
    connection.close()


def test_descriptors_are_closed_in_the_child(server: EmbeddedDcache) -> None:
    """Or the parent's movers would live as long as the child."""
    client = Client(server)
    client.put("descriptors", b"x")
    location = client.control.request("GET", client.base + "descriptors", deadline=Deadline(20)).headers[
        "Location"
    ]
    with client.data.open("GET", location, deadline=Deadline(20)) as answer:
        number = answer.connection.sock.fileno()
        inode = os.fstat(number).st_ino

        def work() -> bool:
            inodes = set()
            for name in os.listdir("/proc/self/fd"):
                try:
                    inodes.add(os.stat(f"/proc/self/fd/{name}").st_ino)
                except FileNotFoundError:  # the one of the listing itself
                    continue
            return inode in inodes

        assert in_child(work)() is False
        assert os.fstat(number).st_ino == inode
        answer.read()


def test_locks_held_by_other_threads_do_not_stop_the_child(server: EmbeddedDcache) -> None:
    client = Client(server)
    client.put("busy", b"x" * 5000)
    stop = threading.Event()
    failures: list[BaseException] = []

    def hammer() -> None:
        while not stop.is_set():
            try:
                assert client.size("busy") == 5000
                assert len(client.read("busy")) == 5000
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        end = time.monotonic() + 20
        for _ in range(8):
            assert in_child(lambda: [client.size("busy"), len(client.read("busy"))])() == [5000, 5000]
            assert time.monotonic() < end
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
