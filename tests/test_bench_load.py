"""That operations are called, counted and timed as they are meant to be, at next to no cost."""

from __future__ import annotations

import gc
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler_dcache.bench import child, load
from lsst.daf.butler_dcache.bench.formats import make_archive, make_table
from lsst.daf.butler_dcache.bench.histogram import Histogram
from lsst.daf.butler_dcache.bench.load import LoadError, arrivals, drive
from lsst.daf.butler_dcache.bench.peers import registry
from lsst.daf.butler_dcache.bench.peers.client import Client, Done, Sink, Source
from lsst.daf.butler_dcache.bench.peers.nothing import Nothing
from lsst.daf.butler_dcache.bench.peers.ours import Ours
from lsst.daf.butler_dcache.bench.peers.program import ProgramFailedError, run_program
from lsst.daf.butler_dcache.bench.work import (
    Access,
    Job,
    Outcome,
    Step,
    UnsupportedWorkError,
    Work,
    contents,
)
from lsst.daf.butler_dcache.embedded import EmbeddedDcache

SIZE = 10_000


def job(work: Work, *names: str, **more: Any) -> Job:
    return Job("nothing", work, Access("http://localhost:1/", {}), names or ("a",), "", "", **more)


def run(client: Client, work: Work, *names: str, **more: Any) -> Outcome:
    return drive(client, job(work, *names, **more))()


class Clock:
    """Time that passes only when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(load, "time", clock)
    return clock


class Scripted(Client):
    """Notes what it is asked, and does what it was told."""

    def __init__(self, do: Callable[[str], object] = lambda name: None, found: int = 0) -> None:
        super().__init__("scripted")
        self.calls: list[tuple[str, Any]] = []
        self._do = do
        self._found = found

    def get(self, name: str, sink: Sink) -> Done:
        self.calls.append(("get", name))
        self._do(name)
        return Done(SIZE, 0.25)

    def put(self, name: str, source: Source) -> Done:
        self.calls.append(("put", name))
        assert source.data is not None
        assert len(source.data) == source.size
        return Done(source.size)

    def exists(self, name: str) -> bool:
        self.calls.append(("exists", name))
        self._do(name)
        return True

    def exists_many(self, names: Sequence[str]) -> int:
        self.calls.append(("exists_many", tuple(names)))
        return self._found

    def remove_many(self, names: Sequence[str]) -> int:
        self.calls.append(("remove_many", tuple(names)))
        return len(names)

    def rename(self, name: str, new: str) -> None:
        self.calls.append(("rename", (name, new)))


class TestHistogram:
    def test_three_digits_from_a_microsecond_to_an_hour(self) -> None:
        for seconds in (1e-6, 0.000123, 0.01234, 1.234, 59.9, 3600.0):
            assert Histogram([seconds]).percentile(50) == pytest.approx(seconds, rel=1e-3)

    def test_what_is_outside_counts_at_the_border(self) -> None:
        times = Histogram([0.0, 1e9])
        assert times.count == 2
        assert times.percentile(50) == pytest.approx(1e-6)
        assert times.percentile(100) == pytest.approx(3600, rel=1e-3)

    def test_parts_add_up_to_the_whole(self) -> None:
        times = [0.001 * number for number in range(1, 1001)]
        whole = Histogram(times)
        sum_of_parts = Histogram.decode(Histogram(times[:300]).encode())
        sum_of_parts.add(Histogram.decode(Histogram(times[300:]).encode()))
        for percent in (1, 50, 90, 99, 99.9, 100):
            assert sum_of_parts.percentile(percent) == whole.percentile(percent)
        assert sum_of_parts.percentile(99) == pytest.approx(0.99, rel=2e-3)
        assert sum_of_parts.mean == pytest.approx(0.5005, rel=1e-3)
        assert sum_of_parts.count == 1000

    def test_without_times(self) -> None:
        nothing = Histogram.decode(Histogram().encode())
        assert (nothing.count, nothing.mean, nothing.percentile(99)) == (0, 0.0, 0.0)


class TestClosedLoop:
    @pytest.mark.parametrize("threads", [1, 8])
    def test_every_operation_is_done_once(self, threads: int) -> None:
        client = Scripted()
        names = [f"file-{number}" for number in range(100)]
        outcome = run(client, Work("get", SIZE, 100, threads), *names)
        assert sorted(client.calls) == sorted(("get", name) for name in names)
        assert (outcome.operations, outcome.bytes_moved, outcome.errors) == (100, 100 * SIZE, {})
        assert {name: len(times) for name, times in outcome.seconds.items()} == {
            "operation": 100,
            "first_byte": 100,
        }
        assert set(outcome.seconds["first_byte"]) == {0.25}

    def test_names_are_used_in_turn(self) -> None:
        client = Scripted()
        run(client, Work("look", 0, 5), "a", "b")
        assert [name for _, name in client.calls] == ["a", "b", "a", "b", "a"]

    def test_batches(self) -> None:
        client = Scripted(found=3)
        run(client, Work("exists_many", 0, 2, batch=3), "a", "b", "c")
        run(client, Work("delete", 0, 2, batch=2), "d", "e", "f", "g")
        run(client, Work("rename", 0, 1), "h")
        assert client.calls == [
            ("exists_many", ("a", "b", "c")),
            ("exists_many", ("a", "b", "c")),
            ("remove_many", ("d", "e")),
            ("remove_many", ("f", "g")),
            ("rename", ("h", "h-renamed")),
        ]

    def test_errors_are_counted_by_class_and_the_work_goes_on(self, clock: Clock) -> None:
        def do(name: str) -> None:
            clock.now += 1.0
            if name == "bad":
                raise ConnectionResetError("gone")
            if name == "worse":
                raise PermissionError("no")

        outcome = run(Scripted(do), Work("look", 0, 5), "good", "bad", "good", "worse", "good")
        assert outcome.errors == {"ConnectionResetError": 1, "PermissionError": 1}
        assert outcome.operations == 3
        assert outcome.seconds == {"operation": [1.0] * 3, "failed": [1.0] * 2}

    def test_more_than_half_failed(self) -> None:
        def do(name: str) -> None:
            raise PermissionError("Authorization: Bearer abcdefgh12345678")

        client = Scripted(do)
        with pytest.raises(LoadError, match=r"3 of 4 operations failed, at last PermissionError") as caught:
            run(client, Work("look", 0, 4))
        assert "abcdefgh" not in str(caught.value)
        assert len(client.calls) == 3  # the rest could not save it

    def test_a_wrong_answer_is_an_error(self) -> None:
        short = run(Scripted(), Work("get", SIZE, 2), "a", "b")
        assert short.errors == {}
        with pytest.raises(LoadError, match="WrongAnswerError: 10000 bytes of 10001"):
            run(Scripted(), Work("get", SIZE + 1))
        with pytest.raises(LoadError, match="WrongAnswerError: 2 files instead of 3"):
            run(Scripted(found=2), Work("exists_many", 0, batch=3), "a", "b", "c")

    @pytest.mark.parametrize(
        "operation", ["walk", "mint", "presign", "remove", "read_vector", "write_sequential", "read_random"]
    )
    def test_what_a_client_cannot_is_said_before_the_clock(self, operation: str) -> None:
        with pytest.raises(UnsupportedWorkError, match="scripted cannot "):
            drive(Scripted(), job(Work(operation, SIZE, piece_bytes=10)))

    def test_what_turns_out_to_be_impossible(self) -> None:
        def do(name: str) -> None:
            raise UnsupportedWorkError("this door does not do it")

        with pytest.raises(UnsupportedWorkError, match="this door"):
            run(Scripted(do), Work("look", 0, 10, 2))

    def test_the_deadline(self, clock: Clock) -> None:
        def do(name: str) -> None:
            clock.now += 1.0

        with pytest.raises(LoadError, match=r"3 of 10 operations were done in 3.0 s"):
            run(Scripted(do), Work("look", 0, 10), deadline_seconds=2.5)

    def test_the_cap_holds_and_is_not_the_client_s_time(self, clock: Clock) -> None:
        begun: list[float] = []

        def do(name: str) -> None:
            begun.append(clock.now)
            clock.now += 0.01

        outcome = run(Scripted(do), Work("look", 0, 10), max_rate=2.0)
        gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
        assert min(gaps) == pytest.approx(0.5)
        assert outcome.seconds["operation"] == [pytest.approx(0.01)] * 10

    def test_a_call_on_many_names_counts_as_many(self, clock: Clock) -> None:
        begun = clock.now
        run(Scripted(found=10), Work("exists_many", 0, 2, batch=10), *"abcdefghij", max_rate=10.0)
        assert clock.now - begun == pytest.approx(1.0)


class TestOpenLoop:
    def test_arrivals_are_drawn_by_a_seed(self) -> None:
        moments = arrivals(10_000, 100.0, seed=7)
        assert moments == arrivals(10_000, 100.0, seed=7) != arrivals(10_000, 100.0, seed=8)
        assert moments == sorted(moments)
        assert moments[-1] == pytest.approx(100, rel=0.05)
        gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
        # As many come in less than the mean as the exponential law says.
        assert sum(gap < 0.01 for gap in gaps) / len(gaps) == pytest.approx(0.632, abs=0.02)

    def test_who_waits_behind_a_slow_one_is_slow(self, clock: Clock) -> None:
        waits = iter([2.0])

        def do(name: str) -> None:
            clock.now += next(waits, 0.0001)

        work = Work("look", 0, 500, rate=100.0)
        times = run(Scripted(do), work).seconds
        assert sum(seconds > 0.1 for seconds in times["service"]) == 1
        # In those two seconds some 200 arrived, which wait a second on average.
        late = [seconds for seconds in times["operation"] if seconds > 0.1]
        assert 150 < len(late) < 230
        assert sum(late) / len(late) == pytest.approx(1.05, rel=0.1)
        # A closed loop sees nothing of it.
        waits = iter([2.0])
        closed = run(Scripted(do), replace(work, rate=0.0)).seconds
        assert sum(seconds > 0.1 for seconds in closed["operation"]) == 1

    def test_nothing_begins_before_it_arrives(self, clock: Clock) -> None:
        begun: list[float] = []
        first = clock.now
        run(Scripted(lambda name: begun.append(clock.now - first)), Work("look", 0, 50, rate=10.0, seed=3))
        assert begun == pytest.approx(arrivals(50, 10.0, 3))


class TestMix:
    WORK = Work(
        "mix",
        0,
        2,
        steps=(Step("exists_many", 0, 2), Step("get", SIZE, 2), Step("put", 100, 1)),
    )

    def test_steps_take_their_names_in_order(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(contents(100))
        client = Scripted()
        outcome = run(client, self.WORK, *"abcdefghij", sources=("", "", str(source)))
        assert client.calls == [
            ("exists_many", ("a", "b")),
            ("get", "c"),
            ("get", "d"),
            ("put", "e"),
            ("exists_many", ("f", "g")),
            ("get", "h"),
            ("get", "i"),
            ("put", "j"),
        ]
        assert outcome.bytes_moved == self.WORK.total_bytes == 2 * (2 * SIZE + 100)
        assert {name: len(times) for name, times in outcome.seconds.items()} == {
            "operation": 2,
            "mix.exists_many": 2,
            "mix.get": 4,
            "mix.put": 2,
        }
        assert self.WORK.names_count == 10

    def test_it_survives_json(self) -> None:
        whole = job(self.WORK, *"abcdefghij", sources=("", "", "x"), max_rate=5.5, observe=True)
        assert Job.from_json(json.loads(json.dumps(whole.to_json()))) == whole


class TestOverhead:
    def test_of_an_empty_operation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """At most 50 microseconds, and under 2 % of the fastest real one: a look at a file of this host."""
        count, real_count = 2000, 40
        nothing, ours = Nothing("nothing"), Ours("ours")
        with EmbeddedDcache(tls=False) as dcache:
            dcache.place("file.dat", b"x")
            real = served(dcache, Work("look", 0, real_count), "file.dat")
            for name, value in dcache.environment.items():
                monkeypatch.setenv(name, value)
            empty = job(Work("look", 0, count))
            nothing.connect(empty)
            ours.connect(real)
            best: dict[str, float] = {}
            for _ in range(5):
                for client, what in ((nothing, empty), (ours, real)):
                    gc.collect()
                    go = drive(client, what)
                    begun = time.thread_time()
                    go()
                    each = (time.thread_time() - begun) / what.work.count
                    best[client.name] = min(each, best.get(client.name, each))
        assert best["nothing"] < 50e-6
        assert best["nothing"] < 0.02 * best["ours"], best


def served(dcache: EmbeddedDcache, work: Work, *names: str, **more: Any) -> Job:
    url = "http" + dcache.url.removeprefix("dav")
    access = Access(url, dcache.environment, user=dcache.user, password_file=dcache.password_file)
    return Job("ours", work, access, names, "", **{"scratch": "", **more})


class Process:
    """A child, as the benchmark has it."""

    def __init__(self, what: Job) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", child.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **what.access.environment, "DAF_BUTLER_DCACHE_REGISTER": "no"},
        )
        self._what = what

    def figures(self, start_at: float = 0.0) -> Any:
        return self._answers(f"{json.dumps(self._what.to_json())}\n{start_at!r}\n")[0]

    def all_figures(self, *jobs: Job) -> list[Any]:
        return self._answers("".join(f"{json.dumps(one.to_json())}\n0\n" for one in jobs))

    def _answers(self, said: str) -> list[Any]:
        out, self.words = self._process.communicate(said, timeout=60)
        answers = [json.loads(line) for line in out.splitlines()]
        return [answer for answer in answers if answer != {"ready": True}] or [None]


class TestChild:
    def test_figures(self) -> None:
        start_at = time.time() + 1.0
        figures = Process(job(Work("get", 100, 50, 2), "a")).figures(start_at)
        assert (figures["operations"], figures["bytes_moved"], figures["errors"]) == (50, 5000, {})
        assert Histogram.decode(figures["histograms"]["operation"]).count == 50
        assert figures["began_at"] >= start_at
        assert figures["ended_at"] >= figures["began_at"]
        assert figures["wall_seconds"] < 0.5

    def test_several_jobs_are_each_like_the_first(self, tmp_path: Path) -> None:
        """The second time there are as many connections and requests as the first time."""
        size = 200_000
        work = Work("get", size, 3, sink="file")
        for peer in ("ours", "upstream"):
            with EmbeddedDcache(tls=False) as dcache:
                for number in range(6):
                    dcache.place(f"file-{number}", contents(size))
                jobs = [
                    replace(
                        served(dcache, work, *(f"file-{3 * turn + number}" for number in range(3))),
                        peer=peer,
                        scratch=str(tmp_path),
                    )
                    for turn in (0, 1, 0)
                ]
                figures = Process(jobs[0]).all_figures(*jobs)
                connections = [
                    len(
                        {
                            record.connection
                            for record in dcache.transcript()
                            if f"/data/file-{number}" in record.path
                        }
                    )
                    for number in (0, 3)
                ]
            assert [one["operations"] for one in figures] == [3, 3, 3], peer
            assert connections[0] == 2 * connections[1], peer
            assert list(tmp_path.iterdir()) == []

    def test_who_is_too_late_is_not_measured(self) -> None:
        process = Process(job(Work("look", 0)))
        assert process.figures(time.time() - 60) is None
        assert "was ready" in process.words
        assert "Traceback" not in process.words

    def test_an_operation_that_never_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ended = threading.Event()
        monkeypatch.setattr(child, "_GRACE_SECONDS", 0.0)
        monkeypatch.setattr(child, "_end", lambda seconds: ended.set())
        with child._alarm(0.01):
            assert ended.wait(10)

    def test_the_cpu_time_of_those_who_worked(self) -> None:
        alone = child.measured(lambda: Outcome(0), resource.RUSAGE_SELF)
        assert alone["user_seconds"] + alone["system_seconds"] < 5
        crowd = child.measured(lambda: Outcome(0, cpu_seconds=5.0), resource.RUSAGE_SELF)
        assert crowd["user_seconds"] + crowd["system_seconds"] == 5
        assert crowd["peak_bytes"] is None

    def test_requests_are_observed_if_that_is_wanted(self) -> None:
        with EmbeddedDcache(tls=False) as dcache:
            dcache.place("file.dat", contents(SIZE))
            what = served(dcache, Work("get", SIZE, 4, sink="memory"), "file.dat", observe=True)
            figures = Process(what).figures()
        assert figures["operations"] == 4
        assert figures["counted"]["door_requests"] >= 4
        assert Histogram.decode(figures["histograms"]["phase.door"]).count >= 4


class TestPrograms:
    def test_what_they_said_is_quoted_without_secrets(self) -> None:
        script = "import sys; sys.exit('refused: Authorization: Bearer abcdefgh12345678')"
        with pytest.raises(ProgramFailedError, match="ended with status 1: refused") as caught:
            run_program([sys.executable, "-c", script])
        assert "abcdefgh" not in str(caught.value)

    def test_they_are_killed_when_their_time_is_over(self) -> None:
        with pytest.raises(ProgramFailedError, match=r"was not done after 0.1 s"):
            run_program([sys.executable, "-c", "while True: pass"], deadline_seconds=0.1)


ALL_ON_NAMES = (
    Step("exists_many", 0, 3),
    Step("get", SIZE, 2),
    Step("put", SIZE, 2),
    Step("look", 0, 1),
    Step("delete", 0, 2),
    Step("rename", 0, 1),
    Step("remove", 0, 1),
)
"""Nothing is there that the first looks for."""


class TestPeers:
    """Against the embedded dCache: what each can do, it does right."""

    def place(self, dcache: EmbeddedDcache) -> tuple[str, ...]:
        names = [f"new/{number}" for number in range(3)] + ["a", "b"]
        names += ["new/3", "new/4", "a", "gone/0", "gone/1", "old", "gone/2"]
        for name in ("a", "b", "gone/0", "gone/1", "gone/2", "old"):
            dcache.place(name, contents(SIZE))
        return tuple(names)

    @pytest.mark.parametrize("peer", ["ours", "path", "upstream"])
    def test_mix(self, peer: str, tmp_path: Path) -> None:
        (tmp_path / "source").write_bytes(contents(SIZE))
        work = Work("mix", 0, sink="memory", steps=ALL_ON_NAMES)
        with EmbeddedDcache(tls=False) as dcache:
            sources = tuple(
                str(tmp_path / "source") if step.operation == "put" else "" for step in work.steps
            )
            names = self.place(dcache)
            what = served(dcache, work, *names, sources=sources)
            figures = Process(replace(what, peer=peer, scratch=str(tmp_path))).figures()
            assert (figures["operations"], figures["errors"]) == (1, {})
            assert figures["bytes_moved"] == 4 * SIZE
            left = [name for name in names if dcache.site.namespace.find(f"/data/{name}") is not None]
            assert left == ["a", "b", "new/3", "new/4", "a"]
            assert dcache.site.namespace.find("/data/old-renamed") is not None
        assert figures["notes"] == (["upstream compares no checksum"] if peer == "upstream" else [])

    @pytest.mark.parametrize(
        ("peer", "operation"),
        [
            ("path", "column"),
            ("upstream", "member"),
            ("upstream", "read_vector"),
            ("upstream", "write_sequential"),
            ("plane", "get"),
        ],
    )
    def test_parts_of_files(self, peer: str, operation: str, tmp_path: Path) -> None:
        size = 200_000
        make = {"column": make_table, "column_by_name": make_table, "member": make_archive}.get(operation)
        batch = 3 if operation == "read_vector" else 1
        work = Work(
            operation, size, 2, piece_bytes=1000, batch=batch, sink="file", needed_bytes=20_000 if make else 0
        )
        with EmbeddedDcache(tls=False) as dcache:
            if operation != "write_sequential":
                dcache.place("file", contents(size) if make is None else make(work))
            names = [f"new-{number}" if work.makes_files else "file" for number in range(2)]
            what = replace(served(dcache, work, *names), peer=peer, scratch=str(tmp_path))
            figures = Process(what).figures()
        assert (figures.get("operations"), figures.get("errors")) == (2, {}), figures
        assert figures["bytes_moved"] == work.total_bytes

    @pytest.mark.parametrize(("peer", "operation"), [("curl", "get"), ("curl", "put"), ("curl-move", "put")])
    @pytest.mark.parametrize("threads", [1, 3])
    @pytest.mark.skipif(
        shutil.which("curl") is None and os.environ.get("CI") != "true", reason="needs the program curl"
    )
    def test_curl_tells_the_times_of_its_transfers(
        self, peer: str, operation: str, threads: int, tmp_path: Path
    ) -> None:
        (tmp_path / "source").write_bytes(contents(SIZE))
        with EmbeddedDcache(tls=False) as dcache:
            work = Work(operation, SIZE, 5, threads)
            names = [f"file-{number}" for number in range(5)]
            if operation == "get":
                for name in names:
                    dcache.place(name, contents(SIZE))
            what = served(dcache, work, *names, scratch=str(tmp_path))
            run = registry.load(peer).prepare(replace(what, peer=peer, source=str(tmp_path / "source")))
            assert run is not None
            outcome = run()
            for name in names:
                entry = dcache.site.namespace.find(f"/data/{name}")
                assert entry is not None
                assert entry.size == SIZE
        assert (outcome.operations, outcome.bytes_moved) == (5, 5 * SIZE)
        assert len(outcome.seconds["operation"]) == 5
        assert all(0 < seconds < 30 for seconds in outcome.seconds["operation"])
        assert len(outcome.seconds.get("first_byte", ())) == (5 if operation == "get" else 0)
