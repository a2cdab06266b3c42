"""Pacing by several real processes, which begin, are killed and stand still at the same time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.transport.bucket import Kind
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.pacing import Pacer
from lsst.daf.butler_dcache.transport.shared_bucket import SharedBucket

DCACHE = {"Server": "dCache/11.2.4"}


def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


# Imports once, then a child for each client: all of them are let go by the end of one pipe.
CROWD = """
import json, os, sys, time
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport import shared_bucket
shared_bucket._PATIENCE_SECONDS = 60.0  # whoever holds the lock is not stopped, only out of turn here
count, each, url = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
gate, opened = os.pipe()
reports, report = os.pipe()
for number in range(count):
    if os.fork() == 0:
        os.close(opened)
        os.read(gate, 1)
        store = store_for(url)
        wrong = sum(not store.exists(url) for _ in range(each))
        os.write(report, b"%d %.6f\\n" % (wrong, time.monotonic()))
        os._exit(0)
os.close(report)
began = time.monotonic()
os.close(opened)
lines = os.fdopen(reports).read().splitlines()
print(json.dumps({
    "answers": len(lines),
    "wrong": sum(int(line.split()[0]) for line in lines),
    "seconds": max(float(line.split()[1]) for line in lines) - began,
}))
"""

HOLDER = """
import sys, time
from pathlib import Path
from lsst.daf.butler_dcache.transport.shared_bucket import SharedBucket
bucket = SharedBucket("door.example.org:2880", [Path(sys.argv[1])])
with bucket.mutex, bucket as state:
    state.credit = 1e9  # never written
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runtime"


@pytest.fixture
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock and keeps it."""
    with start(HOLDER, str(folder)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def shared(folder: Path) -> SharedBucket:
    return SharedBucket("door.example.org:2880", [folder])


def test_a_crowd_is_not_refused_at_its_cold_start(tmp_path: Path) -> None:
    with EmbeddedDcache(tls=False) as dcache:
        dcache.place("ready", b"1")
        environment = {**dcache.environment, "XDG_RUNTIME_DIR": str(tmp_path)}
        with start(CROWD, "24", "15", f"{dcache.url}ready", **environment) as process:
            output, _ = process.communicate(timeout=100)
        statuses = [record.status for record in dcache.transcript()]
    found = json.loads(output)
    assert (found["answers"], found["wrong"]) == (24, 0)
    assert statuses.count(429) == 0
    assert len(statuses) >= 24 * 15
    # Together no faster than one: the 360 requests of one process would need as long.
    assert found["seconds"] > 0.95 * (len(statuses) - 1) / 250


def test_processes_see_what_others_send(folder: Path) -> None:
    first, second = shared(folder), shared(folder)
    with Pacer(None, first).slot(Deadline(5)) as slot:
        slot.answered(200, DCACHE)
    with second as state:
        assert state.kind == Kind.LIMITED
        assert state.tail == 1
    path = second.path
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_survivors_go_on_when_the_owner_of_the_lock_is_killed(
    folder: Path, holder: subprocess.Popen[str]
) -> None:
    bucket = shared(folder)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with Pacer(None, bucket).slot(Deadline(5)) as slot:
        slot.answered(200, DCACHE)
    with bucket.mutex, bucket as state:
        assert state.credit < 10
    assert bucket.problem == ""


def test_survivors_go_on_when_the_owner_of_the_lock_stands_still(
    folder: Path, holder: subprocess.Popen[str]
) -> None:
    holder.send_signal(signal.SIGSTOP)
    bucket = shared(folder)
    with Pacer(None, bucket).slot(Deadline(30)) as slot:
        slot.answered(200, DCACHE)
    assert "stopped" in bucket.problem
    holder.send_signal(signal.SIGCONT)


def test_an_interrupt_leaves_nothing_locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    pacer = Pacer(None, shared(folder))
    with monkeypatch.context() as patch:
        patch.setattr(SharedBucket, "__exit__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pacer.slot(Deadline(5))
    other = threading.Thread(target=pacer.slot, args=(Deadline(5),), daemon=True)
    other.start()
    other.join(10)
    assert not other.is_alive()


def test_a_child_shares_with_its_parent(folder: Path) -> None:
    bucket = shared(folder)
    with bucket.mutex, bucket as state:
        state.tail = 7.0
    child = os.fork()
    if child == 0:
        with bucket.mutex, bucket as state:
            state.tail += 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with bucket.mutex, bucket as state:
        assert state.tail == 8.0


@pytest.mark.parametrize("damage", [b"", b"\0" * 500, b"\xa7" * 200])
def test_a_damaged_file_is_a_new_beginning(folder: Path, damage: bytes) -> None:
    bucket = shared(folder)
    with bucket.mutex, bucket as state:
        state.tail = 7.0
    assert bucket.path is not None
    bucket.path.write_bytes(damage)
    with bucket.mutex, bucket as state:
        assert state.tail == 0.0
        state.tail = 3.0
    with shared(folder) as state:
        assert state.tail == 3.0


def test_a_state_of_the_future_is_a_new_beginning(folder: Path) -> None:
    """As after a boot, where the system does not tell one from another."""
    bucket = shared(folder)
    with bucket.mutex, bucket as state:
        state.at = state.last = state.alone_until = 1e12
    with Pacer(None, bucket).slot(Deadline(5)) as slot:
        slot.answered(200, DCACHE)


@pytest.mark.parametrize("trap", ["link to a folder", "open to all", "a file", "link to a file"])
def test_nothing_of_others_is_used(tmp_path: Path, folder: Path, trap: str) -> None:
    other = tmp_path / "other"
    match trap:
        case "link to a folder":
            other.mkdir(0o700)
            folder.symlink_to(other)
        case "open to all":
            folder.mkdir()
            folder.chmod(0o777)
        case "a file":
            folder.write_bytes(b"")
        case "link to a file":
            folder.mkdir(0o700)
            other.write_bytes(b"theirs")
            (folder / "pacing-1-door.example.org%3A2880").symlink_to(other)
    bucket = shared(folder)
    with Pacer(None, bucket).slot(Deadline(5)) as slot:
        slot.answered(200, DCACHE)
    assert bucket.path is None
    assert bucket.problem
    assert "this process alone" in Pacer(None, bucket).describe()
    assert trap != "link to a file" or other.read_bytes() == b"theirs"


def test_the_next_folder_is_used(tmp_path: Path, folder: Path) -> None:
    bucket = SharedBucket("door.example.org:2880", [tmp_path / "missing" / "folder", folder])
    assert bucket.path is not None
    assert bucket.path.parent == folder
