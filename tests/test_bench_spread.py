"""Many workers that begin together: how they meet, and what becomes of their figures."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.bench import meeting, spread
from lsst.daf.butler_dcache.bench.histogram import Histogram
from lsst.daf.butler_dcache.bench.meeting import (
    Attendance,
    CalledOffError,
    Invitation,
    Meeting,
    MeetingError,
    Round,
)
from lsst.daf.butler_dcache.bench.peer_process import PeerFailedError
from lsst.daf.butler_dcache.bench.servers import start
from lsst.daf.butler_dcache.bench.spread import Crew, CrewError, merged
from lsst.daf.butler_dcache.bench.stopping import Stop
from lsst.daf.butler_dcache.bench.suite import Run, select
from lsst.daf.butler_dcache.bench.suites import SUITES
from lsst.daf.butler_dcache.bench.work import Access, Job, UnsupportedWorkError, Work, contents
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from request_counter import counted

WORKERS = 2
SIZE = 2000
STOP = Stop(60, 60)
"""Not entered, so that it catches no signals."""


@pytest.fixture
def round_() -> Iterator[Round]:
    with contextlib.closing(Meeting(["127.0.0.1"])) as place, place.round(2) as round_:
        yield round_


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def come(invitation: Invitation) -> float:
    with Attendance(invitation) as attendance:
        return attendance.begin({"mine": invitation.number}, 30)


class TestMeeting:
    def test_all_begin_at_one_moment(self, round_: Round, threads: ThreadPoolExecutor) -> None:
        futures = [threads.submit(come, round_.invitation(number)) for number in range(2)]
        assert round_.gather(futures, 30, STOP) == [{"mine": 0}, {"mine": 1}]
        assert not any(future.done() for future in futures)
        now = time.time()
        round_.begin(5.0)
        moments = round_.results(futures, 30, STOP)
        assert moments == pytest.approx([now + 5.0] * 2, abs=1.0)

    def test_strangers_are_not_heard(self, round_: Round, threads: ThreadPoolExecutor) -> None:
        invitation = round_.invitation(0)
        futures: list[Future[float]] = [threads.submit(come, round_.invitation(1))]
        strangers = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"[]\n",
            b'{"word": "w\xc3\xb6rd", "number": 0, "host": "x"}\n',
            b'{"word": "", "number": 0, "host": "x"}\n{"said": {}}\n',
            b"x" * 100_000,
        ]
        for words in strangers:
            with socket.create_connection(("127.0.0.1", invitation.port)) as stranger:
                stranger.sendall(words)
        too_many = replace(invitation, number=2)
        with socket.create_connection(("127.0.0.1", invitation.port)) as silent:
            with pytest.raises(MeetingError, match="1 of 2 workers were ready"):
                round_.gather([Future(), futures[0]], 0.5, STOP)
            late = threads.submit(come, too_many)
            with pytest.raises(MeetingError, match="1 of 2 workers were ready"):
                round_.gather([Future(), futures[0]], 0.2, STOP)
            round_.__exit__()
            assert silent.recv(1) == b""
        for future in (*futures, late):
            assert isinstance(future.exception(30), CalledOffError)
        assert invitation.word not in repr(invitation)

    def test_who_fails_is_named(self, round_: Round) -> None:
        failed: Future[Any] = Future()
        with Attendance(round_.invitation(1)):
            round_._look(1.0)
            round_._look(1.0)
            failed.set_exception(OSError("no disk"))
            with pytest.raises(MeetingError, match=f"^{socket.gethostname()}: OSError: no disk"):
                round_.gather([Future(), failed], 30, STOP)

    def test_long_stories_are_cut_short(self, round_: Round) -> None:
        failed: Future[Any] = Future()
        failed.set_exception(ValueError("it failed\n  a trace\n  another\nno socket\n\n"))
        with pytest.raises(MeetingError, match=r"^a worker: ValueError: it failed … no socket$"):
            round_.gather([failed, Future()], 30, STOP)

    def test_who_goes_away_is_named(self, round_: Round, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(meeting, "_LOST_SECONDS", 0.0)
        with Attendance(round_.invitation(0)):
            pass
        with pytest.raises(MeetingError, match=f"{socket.gethostname()} went away"):
            round_.gather([Future(), Future()], 30, STOP)

    def test_who_does_not_end_is_named(self, round_: Round, threads: ThreadPoolExecutor) -> None:
        futures = [threads.submit(come, round_.invitation(number)) for number in range(2)]
        round_.gather(futures, 30, STOP)
        with pytest.raises(MeetingError, match=f"{socket.gethostname()} did not end within 0 s"):
            round_.results([*futures[:1], Future()], 0.2, STOP)
        round_.__exit__()

    def test_work_is_called_off(self, round_: Round) -> None:
        is_off = threading.Event()
        with Attendance(round_.invitation(0)) as attendance:
            attendance.if_called_off(is_off.set)
            round_._look(1.0)
            assert not is_off.is_set()
            round_.__exit__()
            assert is_off.wait(30)
        is_over = threading.Event()
        with contextlib.closing(Meeting(["127.0.0.1"])) as place, place.round(1) as other:
            with Attendance(other.invitation(0)) as attendance:
                attendance.if_called_off(is_over.set)
            assert not is_over.is_set()

    def test_nobody_is_there(self) -> None:
        with contextlib.closing(Meeting(["127.0.0.1"])) as place, place.round(1) as round_:
            invitation = round_.invitation(0)
        with pytest.raises(CalledOffError, match=f"{socket.gethostname()} does not reach"):
            Attendance(invitation)


def figures(wall: float, began_at: float, **more: Any) -> dict[str, Any]:
    return {
        "wall_seconds": wall,
        "user_seconds": 1.0,
        "system_seconds": 0.5,
        "peak_bytes": 10,
        "began_at": began_at,
        "ended_at": began_at + wall,
        "operations": 3,
        "bytes_moved": 300,
        "errors": {},
        "counted": {},
        "histograms": {"operation": Histogram([wall]).encode()},
        "notes": ["compares no checksum"],
        **more,
    }


def test_figures_are_merged() -> None:
    first = figures(2.0, 1000.25, errors={"A": 1}, counted={"retries": 2}, peak_bytes=30)
    other = figures(5.0, 77.0, errors={"A": 1, "B": 1}, counted={"retries": 1})
    other["histograms"]["phase.tls"] = Histogram([1.0, 1.0]).encode()
    answers = [
        {"host": "one", "start_at": 1000.0, "figures": first},
        {"host": "two", "start_at": 77.0, "figures": other},  # whose clock is another
    ]
    whole = merged(answers)
    assert (whole["wall_seconds"], whole["first_done_seconds"], whole["workers"]) == (5.0, 2.25, 2)
    assert (whole["user_seconds"], whole["system_seconds"]) == (2.0, 1.0)
    assert (whole["operations"], whole["bytes_moved"], whole["peak_bytes"]) == (6, 600, 30)
    assert (whole["errors"], whole["counted"]) == ({"A": 2, "B": 1}, {"retries": 3})
    times = {name: Histogram.decode(text) for name, text in whole["histograms"].items()}
    assert {name: one.count for name, one in times.items()} == {"operation": 2, "phase.tls": 2}
    assert times["operation"].percentile(100) == pytest.approx(5.0, rel=1e-2)
    assert whole["notes"][0] == "compares no checksum"
    assert whole["notes"][1].startswith("2 workers on 2 hosts, which began within 250 ms; the first had done")
    assert merged([{**answers[0], "figures": {**first, "peak_bytes": None}}])["peak_bytes"] is None


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("configuration = 1", "does not define config"),
        ("config = 1", "does not define config"),
        (None, "No such file"),
    ],
)
def test_bad_configurations(program: str | None, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.py"
    if program is not None:
        file.write_text(program)
    with pytest.raises(CrewError, match=f"cluster.py.*{complaint}"), Crew(1, tmp_path, file):
        pass


THREADS = """
from parsl.config import Config
from parsl.executors import ThreadPoolExecutor
config = Config([ThreadPoolExecutor(max_threads={threads})], run_dir={folder!r}, initialize_logging=False)
"""
"""Parsl's simplest executor, which needs no process that takes seconds to start."""


def configuration(folder: Path, threads: int) -> Path:
    file = folder / "threads.py"
    file.write_text(THREADS.format(threads=threads, folder=str(folder / "run")))
    return file


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("parsl")
    with Crew(WORKERS, folder, configuration(folder, WORKERS), 60) as crew:
        yield crew


@pytest.fixture
def dcache() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(tls=False, limiter=False) as dcache:
        dcache.place("file", contents(SIZE))
        yield dcache


def job(dcache: EmbeddedDcache, work: Work, *names: str, **more: Any) -> Job:
    url = "http" + dcache.url.removeprefix("dav")
    access = Access(url, dcache.environment, user=dcache.user, password_file=dcache.password_file)
    return Job("ours", work, access, names, "", "", **more)


class TestCrew:
    def test_nodes(self, crew: Crew) -> None:
        (node,) = crew.nodes
        assert (node["host"], node["workers"]) == (socket.gethostname(), WORKERS)
        assert not crew.is_elsewhere

    def test_reading(self, crew: Crew, dcache: EmbeddedDcache) -> None:
        what = job(dcache, Work("get", SIZE, 10, 2), "file", observe=True)
        with counted(dcache) as server, crew.team([what] * WORKERS, STOP, 60) as team:
            team.prepare()
            whole = team.go()
        assert (whole["operations"], whole["bytes_moved"]) == (10 * WORKERS, 10 * WORKERS * SIZE)
        assert (whole["errors"], whole["workers"]) == ({}, WORKERS)
        assert Histogram.decode(whole["histograms"]["operation"]).count == 10 * WORKERS
        assert 0 < whole["first_done_seconds"] <= whole["wall_seconds"]
        assert (whole["counted"]["door_requests"], whole["counted"]["pool_requests"]) == (
            server.at_door,
            server.at_pool,
        )

    def test_writing(self, crew: Crew, dcache: EmbeddedDcache) -> None:
        work = Work("put", SIZE, 2)
        jobs = [
            job(dcache, work, f"{each}-0", f"{each}-1", source="/nowhere/at/all") for each in range(WORKERS)
        ]
        with crew.team(jobs, STOP, 60) as team:
            team.prepare()
            assert team.go()["operations"] == 2 * WORKERS
        for name in ("0-0", "0-1", "1-0", "1-1"):
            entry = dcache.site.namespace.find(f"/data/{name}")
            assert entry is not None
            assert entry.size == SIZE

    def test_what_cannot_be_done(self, crew: Crew, dcache: EmbeddedDcache) -> None:
        good = job(dcache, Work("get", SIZE, 1), "file")
        bad = replace(good, peer="nothing", work=Work("walk", SIZE, 1))
        with crew.team([bad, bad], STOP, 60) as team, pytest.raises(UnsupportedWorkError):
            team.prepare()

    def test_who_fails_is_named(self, crew: Crew, dcache: EmbeddedDcache) -> None:
        good = job(dcache, Work("get", SIZE, 1), "file")
        bad = replace(good, names=("none",))
        with crew.team([good, bad], STOP, 60) as team:
            team.prepare()
            with pytest.raises(PeerFailedError, match=f"^{socket.gethostname()}: 1 of 1 operations failed"):
                team.go()

    def test_work_ends_when_nobody_waits_for_it(self, crew: Crew, dcache: EmbeddedDcache) -> None:
        endless = job(dcache, Work("get", SIZE, 10_000_000), "file")
        with crew.team([endless] * WORKERS, STOP, 60) as team:
            team.prepare()
            team._round.begin(0.0)
        assert all(future.done() for future in team._futures)
        assert spread._END_SECONDS < 60


def test_too_few_workers(tmp_path: Path) -> None:
    with (
        pytest.raises(CrewError, match=r"[01] of 2 workers were ready after 1 s"),
        Crew(2, tmp_path, configuration(tmp_path, 1), 1.0),
    ):
        pass


def test_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = iter(["0.0.1", "0.0.2"])
    monkeypatch.setattr(spread, "version", lambda _: next(versions))
    with (
        pytest.raises(CrewError, match=r"has version 0.0.1 of lsst-daf-butler-dcache, not 0.0.2"),
        Crew(1, tmp_path, configuration(tmp_path, 1), 60),
    ):
        pass


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose name is short enough for sockets, which that of pytest is not."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Path(folder)


def test_the_command(tmp_path: Path, short_path: Path) -> None:
    """With processes of Parsl's HighThroughputExecutor, as by default."""
    out = tmp_path / "out"
    command = ["bench", "run", "rename", "--executor", "parsl", "--workers", str(WORKERS)]
    command += ["--peer", "ours", "--scale", "0.1", "--repetitions", "1", "--budget", "60"]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dcache-butler")), *command, "--out", str(out)],
        env={**os.environ, "TMPDIR": str(short_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((out / "results.json").read_text())
    assert document["complete"]
    (node,) = document["environment"]["nodes"]
    assert (node["host"], node["workers"]) == (socket.gethostname(), WORKERS)
    for result in document["results"]:
        (sample,) = result["peers"]["ours"]["samples"]
        assert sample["workers"] == WORKERS
        assert sample["operations"] == WORKERS * result["work"]["count"]
        assert sample["first_done_seconds"] <= sample["wall_seconds"]
        assert "2 workers on 1 host" in result["peers"]["ours"]["notes"][-1]
    assert list(short_path.iterdir()) == []  # nothing is left


def test_what_is_started_here_is_not_reached_from_elsewhere(tmp_path: Path) -> None:
    far = Crew(1, tmp_path)
    far.nodes = [{"host": "far.example.org", "workers": 1}]
    rows = select(list(SUITES["field"]), ["rename"])
    run = Run(rows, start, tmp_path, STOP, budget=10, crew=far)
    run.measure()
    assert run.results == []
    assert "which the workers on far.example.org do not reach" in run.problems[0]


@pytest.mark.parametrize("option", [("--workers", "3"), ("--parsl-config", __file__)])
def test_options_that_need_another(option: tuple[str, str]) -> None:
    done = CliRunner().invoke(main, ["bench", "run", "rename", *option])
    assert done.exit_code == 2
    assert "--executor parsl" in done.output


def test_the_documented_configuration(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "doc/lsst.daf.butler_dcache/benchmarks/many-nodes.md"
    program = page.read_text().partition("```python\n")[2].partition("```")[0]
    file = tmp_path / "slurm.py"
    file.write_text(program.replace('"eth0"', '"lo"'))
    config = spread._read(file)
    assert spread._addresses(config) == ["127.0.0.1"]
    (executor,) = config.executors
    assert executor.provider.nodes_per_block * executor.max_workers_per_node == 64
    assert "--workers 64" in page.read_text()
