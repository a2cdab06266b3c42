"""How a run of the benchmarks is planned, and how it ends when something goes wrong."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.bench import measure
from lsst.daf.butler_dcache.bench.environment import configuration, describe, shown
from lsst.daf.butler_dcache.bench.histogram import Histogram
from lsst.daf.butler_dcache.bench.plan import Plan, Turn
from lsst.daf.butler_dcache.bench.progress import Progress
from lsst.daf.butler_dcache.bench.reports import ReportError
from lsst.daf.butler_dcache.bench.result import Result
from lsst.daf.butler_dcache.bench.row import Claim, Row
from lsst.daf.butler_dcache.bench.sample import Sample
from lsst.daf.butler_dcache.bench.stopping import Stop, StoppedError
from lsst.daf.butler_dcache.bench.suite import Run, select
from lsst.daf.butler_dcache.bench.suites import SUITES
from lsst.daf.butler_dcache.bench.target import Counts, TargetGoneError
from lsst.daf.butler_dcache.bench.work import Access, Work
from lsst.daf.butler_dcache.cli import bench_run
from lsst.daf.butler_dcache.cli.main import main

WORK = Work("look", 1, 5)

# What stands for the process of a peer: it behaves as the variable says for the peer's name.
ACTOR = """
import json, os, subprocess, sys, time
jobs = 0
for line in sys.stdin:
    job = json.loads(line)
    jobs += 1
    part = json.loads(os.environ["PARTS"]).get(job["peer"], "works")
    if part == "cannot":
        print(json.dumps({"unsupported": "it is not installed"}), flush=True)
        continue
    if part == "dies" or (part == "dies at the third" and jobs == 3):
        sys.exit("Traceback\\nOSError: Bearer abcdef was refused")
    if part == "is killed":
        os.kill(os.getpid(), 9)
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    if part == "hangs":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open(os.environ["CHILD"], "w").write(str(child.pid))
        time.sleep(600)
    print("a library's word of greeting")
    print(json.dumps({
        "wall_seconds": 0.5 if job["peer"] == "ours" else 1.0, "user_seconds": 0.1, "system_seconds": 0.1,
        "peak_bytes": 1, "bytes_moved": 0, "operations": 5, "errors": {}, "notes": [],
        "histograms": {"operation": os.environ["HISTOGRAM"]}, "counted": {"process": os.getpid()},
    }), flush=True)
"""


class Server:
    """A target that is nothing but a book of what was done to it."""

    kind = "webdav"

    def __init__(self, name: str, actor: Path) -> None:
        self.name = name
        self.access = Access("http://127.0.0.1:1/", {})
        self.child_prefix = (sys.executable, str(actor))
        self.files: dict[str, int] = {}
        self.jobs = 0
        self.gone_after = 1000
        self.refusal = ""
        self.full = False

    def describe(self) -> dict[str, Any]:
        return {"title": self.name}

    def provide(self, stem: str, size: int, data: bytes | None = None) -> str:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.files[f"{stem}.dat"] = size
        return f"{stem}.dat"

    def provide_many(self, stems: Sequence[str], size: int) -> tuple[str, ...]:
        return tuple(self.provide(stem, size) for stem in stems)

    def new_name(self, stem: str, size: int) -> str:
        return f"{stem}.dat"

    def size(self, name: str) -> int | None:
        return self.files.get(name)

    def clear(self, prefix: str) -> None:
        self.files = {name: size for name, size in self.files.items() if not name.startswith(prefix)}

    def counts(self) -> Counts | None:
        self.jobs += 1
        if self.jobs > self.gone_after:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
        return Counts(self.jobs, 1, 0, 0)

    def cpu_seconds(self) -> float:
        return 0.0

    def admit(self, work: Work) -> str:
        return self.refusal

    def rate_limit(self, work: Work) -> float:
        return 0.0

    def check(self) -> None:
        if self.jobs > self.gone_after:
            raise TargetGoneError("the door does not answer")


class Stage:
    """Runs with actors instead of peers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self.actor = folder / "actor.py"
        self.actor.write_text(ACTOR)
        self.child = folder / "child"
        self.said: list[str] = []
        monkeypatch.setenv("HISTOGRAM", Histogram([0.001] * 5).encode())
        monkeypatch.setenv("CHILD", str(self.child))

    def run(
        self,
        parts: dict[str, str],
        *,
        rows: tuple[str, ...] = ("row",),
        targets: tuple[str, ...] = ("door",),
        prepare: Callable[[Server], None] = lambda server: None,
        budget: float = 30.0,
        seconds: float = 60.0,
        repetitions: int | None = 1,
        peers: tuple[str, ...] = ("ours", "curl", "upstream"),
        keep: Callable[[], None] = lambda: None,
    ) -> Run:
        @contextlib.contextmanager
        def begin(name: str, folder: Path) -> Iterator[Any]:
            server = Server(name, self.actor)
            prepare(server)
            yield server

        self._monkeypatch.setenv("PARTS", json.dumps(parts))
        scratch = self.folder / "run"
        scratch.mkdir()
        with Stop(seconds, 20.0) as stop:
            run = Run(
                [Row(name, name, WORK, peers, targets) for name in rows],
                begin,
                scratch,
                stop,
                budget=budget,
                repetitions=repetitions,
                tell=self.said.append,
                keep=keep,
            )
            run.measure()
        assert not list(scratch.iterdir())
        return run


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """What a stopped run ignores is heard again by the next test."""
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    }
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


class TestPeers:
    def test_all_take_turns(self, stage: Stage) -> None:
        run = stage.run({}, rows=("a", "b"), repetitions=5)
        assert run.problems == run.skipped == []
        for result in run.results:
            assert {peer: len(samples) for peer, samples in result.samples.items()} == {
                "ours": 5, "curl": 5, "upstream": 5,
            }  # fmt: skip
            assert list(result.observed) == ["ours"]
            for samples in result.samples.values():
                assert [sample.first for sample in samples] == [True, False, False, False, False]
                assert len({sample.counted["process"] for sample in samples}) == 1
            ratio = result.ratio("wall", "curl")
            assert ratio is not None
            assert (ratio.ratio, ratio.pairs) == (pytest.approx(0.5), 4)
        first, second = (result.samples["curl"][0].counted["process"] for result in run.results)
        assert first != second

    @pytest.mark.parametrize(
        ("part", "words"),
        [
            ("dies", "failed: OSError: Bearer *** was refused"),
            ("is killed", "failed: it ended without a word, status -9"),
            ("cannot", "cannot: it is not installed"),
        ],
    )
    def test_one_that_fails_is_named_and_the_others_go_on(self, stage: Stage, part: str, words: str) -> None:
        run = stage.run({"curl": part}, repetitions=3)
        (result,) = run.results
        assert {peer: len(samples) for peer, samples in result.samples.items()} == {"ours": 3, "upstream": 3}
        assert result.notes["curl"] == [words]
        assert run.skipped == [{"row": "row", "target": "door", "peer": "curl", "reason": words}]
        assert len(run.problems) == (part != "cannot")

    def test_one_that_dies_later_is_started_again_once(self, stage: Stage) -> None:
        run = stage.run({"curl": "dies at the third"}, repetitions=6)
        (result,) = run.results
        assert [sample.repetition for sample in result.samples["curl"]] == [0, 1, 3, 4]
        assert [sample.first for sample in result.samples["curl"]] == [True, False, True, False]
        assert ["died and was started again" in problem for problem in run.problems] == [True, False]
        assert len(result.samples["ours"]) == 6

    def test_one_that_hangs_is_killed_with_all_that_it_started(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Run, "_patience", lambda run: 1.0)
        run = stage.run({"curl": "hangs"})
        assert set(run.results[0].samples) == {"ours", "upstream"}
        assert "did not end within 1 s and was killed" in run.problems[0]
        with pytest.raises(ProcessLookupError):
            wait_for_the_end_of(int(stage.child.read_text()))


def wait_for_the_end_of(process: int) -> None:
    """Raise ProcessLookupError as soon as a process is gone; a killed one may be there for a moment."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":  # nobody is there who waits for it
            raise ProcessLookupError


class TestTargets:
    def test_one_that_goes_away_leaves_what_was_measured(self, stage: Stage) -> None:
        def prepare(server: Server) -> None:
            server.gone_after = 12 if server.name == "door" else 1000

        run = stage.run({}, rows=("a", "b", "c"), targets=("door", "pool"), prepare=prepare)
        assert "door does not answer" in run.reason
        assert run.problems == [run.reason]
        assert {(one["row"], one["target"]) for one in run.skipped} == {("c", "door")}
        assert [(result.row.name, result.target) for result in run.results] == [
            ("a", "door"), ("b", "door"), ("a", "pool"), ("b", "pool"), ("c", "pool"),
        ]  # fmt: skip

    def test_a_peer_is_not_blamed_for_it(self, stage: Stage) -> None:
        def prepare(server: Server) -> None:
            server.gone_after = 0

        run = stage.run({"ours": "dies", "curl": "dies", "upstream": "dies"}, prepare=prepare)
        assert run.results == []
        assert "failed" in run.problems[0] or "does not answer" in run.problems[0]

    def test_a_guard_is_listened_to(self, stage: Stage) -> None:
        run = stage.run({}, prepare=lambda server: setattr(server, "refusal", "2 GB are more than 1 GB"))
        assert run.skipped == [
            {"row": "row", "target": "door", "peer": "", "reason": "2 GB are more than 1 GB"}
        ]
        assert run.results == run.problems == []

    def test_a_full_disk_ends_the_run(self, stage: Stage) -> None:
        run = stage.run(
            {},
            rows=("a", "b"),
            targets=("door", "pool"),
            prepare=lambda server: setattr(server, "full", True),
        )
        assert "no space is left in" in run.reason
        assert len(run.problems) == 1
        assert len(run.skipped) == 4

    def test_what_does_not_fit_on_the_disk_is_left_out(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Usage:
            free = 10

        monkeypatch.setattr(measure.shutil, "disk_usage", lambda path: Usage)
        run = stage.run({})
        assert run.reason == "not all files fitted on the disk"
        assert "it needs 17 MB in" in run.skipped[0]["reason"]
        assert run.skipped[0]["reason"] in run.problems[0]

    @pytest.mark.parametrize("operation", ["read_random", "read_vector"])
    def test_pieces_of_a_file_need_the_file_once(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, operation: str
    ) -> None:
        class Usage:
            free = 30_000_000

        monkeypatch.setattr(measure.shutil, "disk_usage", lambda path: Usage)
        work = Work(operation, 1_000_000, 100, batch=5, piece_bytes=1000)
        with Stop(10.0, 1.0) as stop:
            measure.Site(Server("door", stage.actor), stage.folder, stop)._make_room("row", work)


class TestTime:
    @staticmethod
    def plan(names: str, repetitions: int | None = None, walls: tuple[float, ...] = ()) -> Plan:
        results = [Result(Row(name, name, WORK, ("ours", "curl"), ("door",)), "door") for name in names]
        for result in results:
            for peer, factor in (("ours", 1.0), ("curl", 2.0)):
                result.samples[peer] = [
                    Sample(number, wall * (1 if peer == "ours" else factor), 1.0)
                    for number, wall in enumerate(walls)
                ]
        return Plan(results, repetitions)

    @staticmethod
    def play(plan: Plan, turns: int, left: float = 100.0) -> list[str]:
        """Take turns of a second each, and say which: those that are observed as _."""
        taken = []
        while len(taken) < turns and (turn := plan.next(left)) is not None:
            taken.append("_" if turn.observe else turn.entry.result.row.name)
            TestTime.take(turn, 1.0)
            left -= 1.0
        return taken

    @staticmethod
    def take(turn: Turn, seconds: float) -> None:
        if turn.observe:
            turn.entry.is_observed = True
        else:
            turn.entry.repetitions += 1
            turn.entry.seconds = seconds

    def test_each_row_once_and_observed_before_any_other_is_in_doubt(self) -> None:
        assert self.play(self.plan("abc"), 6, left=6.5) == [*"a_b_c_"]

    def test_each_row_has_its_share(self) -> None:
        # 12 seconds for three rows: four turns each, one of them observed.
        assert self.play(self.plan("abc"), 20, left=12.0) == [*"a_aa", *"b_bb", *"c_cc"]

    def test_what_is_left_is_for_those_that_are_in_doubt(self) -> None:
        plan = self.plan("ab")
        for peer, samples in self.plan("x", walls=(1.0, 1.0, 1.0)).entries[0].result.samples.items():
            plan.entries[0].result.samples[peer] = samples
        # What the first leaves of its six seconds is for the second.
        assert self.play(plan, 20, left=12.0) == [*"a_", *"b_bbbbbbbb"]

    def test_as_often_as_was_asked_for(self) -> None:
        assert self.play(self.plan("ab", repetitions=3), 20, left=12.0) == [*"a_aa", *"b_bb"]

    def test_not_again_when_the_intervals_are_narrow(self) -> None:
        plan = self.plan("ab", walls=(1.0, 1.0, 1.0))
        assert self.play(plan, 20) == [*"a_", *"b_"]

    def test_what_does_not_fit_any_more_is_not_begun(self) -> None:
        plan = self.plan("ab")
        for seconds in (50.0, 1.0):
            turn = plan.next(10.0)
            assert turn is not None
            self.take(turn, seconds)
        names = []
        while (turn := plan.next(10.0)) and len(names) < 3:
            names.append(turn.entry.result.row.name)
            self.take(turn, 1.0)
        assert names == ["b", "b", "b"]
        assert plan.next(0.0) is None

    def test_rows_that_the_budget_does_not_reach_are_named(self, stage: Stage) -> None:
        run = stage.run({}, rows=tuple("abcdefgh"), budget=0.3, repetitions=None)
        done = {result.row.name for result in run.results}
        left = {one["row"]: one["reason"] for one in run.skipped}
        assert done | set(left) == set("abcdefgh")
        assert "a" in done
        assert set(left.values()) == {"no time was left"}
        assert run.reason == ""

    def test_the_end_of_the_time_ends_a_client_that_hangs(self, stage: Stage) -> None:
        begun = time.monotonic()
        run = stage.run({"ours": "hangs", "curl": "hangs", "upstream": "hangs"}, seconds=2.0)
        assert time.monotonic() - begun < 15
        assert run.problems != []
        assert "twice the budget" in run.reason or "did not end within" in run.problems[0]


class TestStop:
    def test_a_signal_is_raised_where_it_does_no_harm(self) -> None:
        with Stop(60.0, 10.0) as stop:
            signal.raise_signal(signal.SIGINT)  # something is being set up
            with pytest.raises(StoppedError) as caught, stop.open():
                pytest.fail("it should not have come to this")
        assert (caught.value.status, stop.error) == (130, caught.value)

    def test_a_signal_interrupts_a_wait(self) -> None:
        process = os.getpid()
        timer = threading.Timer(0.1, os.kill, (process, signal.SIGTERM))
        with Stop(60.0, 10.0) as stop:
            timer.start()
            with pytest.raises(StoppedError) as caught, stop.open():
                threading.Event().wait(20)
        assert caught.value.status == 143

    def test_a_second_signal_does_not_disturb_the_cleaning(self) -> None:
        cleaned = []

        def work(stop: Stop) -> None:
            try:
                with stop.open():
                    signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGTERM)
                cleaned.append("all")

        with Stop(60.0, 10.0) as stop, pytest.raises(StoppedError) as caught:
            work(stop)
        signal.raise_signal(signal.SIGINT)  # while the process ends
        assert cleaned == ["all"]
        assert caught.value.status == 130

    def test_the_time_ends(self) -> None:
        with Stop(0.05, 10.0) as stop, pytest.raises(StoppedError) as caught, stop.open():
            threading.Event().wait(20)
        assert caught.value.status == 1

    def test_what_cannot_be_cleaned_is_killed(self, tmp_path: Path) -> None:
        script = (
            "import subprocess, sys, threading\n"
            "from pathlib import Path\n"
            "from lsst.daf.butler_dcache.bench.stopping import Stop\n"
            "with Stop(0.1, 0.1) as stop:\n"
            f"    folder = Path({str(tmp_path / 'folder')!r})\n"
            "    folder.mkdir()\n"
            "    stop.watch(folder)\n"
            "    sleep = ['sleep', '600']\n"
            "    print(subprocess.Popen(sleep, start_new_session=True).pid, flush=True)\n"
            "    threading.Event().wait(600)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert "did not end in time" in done.stderr
        assert not (tmp_path / "folder").exists()
        with pytest.raises(ProcessLookupError):
            wait_for_the_end_of(int(done.stdout))


class TestCommand:
    @pytest.mark.parametrize(
        ("number", "word"),
        [(signal.SIGTERM, b"starting"), (signal.SIGINT, b" CPU ")],
    )
    def test_signals_leave_a_partial_report_and_nothing_else(
        self, tmp_path: Path, number: signal.Signals, word: bytes
    ) -> None:
        temporary, out = tmp_path / "temporary", tmp_path / "out"
        temporary.mkdir()
        command = [sys.executable, "-c", "from lsst.daf.butler_dcache.cli.main import main; main()"]
        process = subprocess.Popen(
            [*command, "bench", "run", "put-document", "--peer", "ours", "--out", str(out)],
            stderr=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(temporary), "MARK": str(tmp_path)},
            start_new_session=True,
        )
        assert process.stderr is not None
        with process:
            for line in process.stderr:
                if word in line:
                    break
            process.send_signal(number)
            process.send_signal(number)
            rest = process.stderr.read()
        assert process.returncode == 128 + number, rest.decode()
        record = json.loads((out / "results.json").read_text())
        assert record["complete"] is False
        assert record["reason"] in ("interrupted by Ctrl-C", "ended by SIGTERM")
        assert record["reason"] in rest.decode()
        assert bool(record["results"]) == (word == b" CPU ")
        assert sorted(path.name for path in out.iterdir()) == [
            "report.html", "results.csv", "results.json", "summary.md",
        ]  # fmt: skip
        assert not list(temporary.iterdir())
        assert not processes_with(f"MARK={tmp_path}")

    def test_a_full_disk_for_the_report_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written = []

        def write(document: dict[str, Any], out: Path) -> None:
            written.append(out)
            if len(written) > 1:
                raise ReportError("the report cannot be written: No space left on device")

        monkeypatch.setattr(bench_run, "write_reports", write)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        arguments = ["bench", "run", "put-document", "--peer", "ours", "--scale", "0.02"]
        done = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "out")])
        assert done.exit_code == 1
        assert "No space left on device" in done.output
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("text", [None, "not JSON", "[]", '{"schema_version": 1}'])
    def test_files_of_others_are_not_touched(self, tmp_path: Path, text: str | None) -> None:
        file = tmp_path / ("report.html" if text is None else "results.json")
        file.write_text(text or "mine")
        done = CliRunner().invoke(main, ["bench", "run", "--out", str(tmp_path)])
        assert done.exit_code == 2
        assert "which no run of this program wrote" in done.output
        assert file.read_text() == (text or "mine")

    def test_a_missed_figure_is_an_error_if_it_is_required(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claims = (Claim("door", 0.0), Claim("wall", 1000.0))
        row = Row("look", "looks", Work("look", 1, 3), ("ours",), ("embedded",), claims, group="names")
        monkeypatch.setitem(SUITES, "ci", (row,))
        arguments = ["bench", "run", "--suite", "ci", "--repetitions", "1", "--out", str(tmp_path)]
        done = CliRunner().invoke(main, [*arguments, "--require", "counted"])
        assert done.exit_code == 1
        assert "look on embedded: door requests is 3, and shall be at most 0" in done.output
        record = json.loads((tmp_path / "results.json").read_text())
        assert record["complete"] is True
        assert [figure["met"] for figure in record["results"][0]["figures"]] == [False, True]

    def test_packages_that_are_missing_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bench_run, "_NEEDED", {"no_such_module": "a-distribution"})
        done = CliRunner().invoke(main, ["bench", "run"])
        assert done.exit_code == 1
        assert "needs a-distribution" in done.output
        assert "pip install 'lsst-daf-butler-dcache[bench]'" in done.output

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["nonsense"], "no row is called nonsense"),
            (["--target", "nowhere"], "no server is called nowhere"),
            (["--peer", "nobody"], "no client is called nobody"),
            (["s3-deletes", "--target", "xrootd"], "none of these rows"),
            (["put-document", "--peer", "boto3"], "none of these rows"),
            (["--rtt", "-1"], "is not between"),
            (["--budget", "0"], "--budget"),
            (["--target", "davs://user:word@door.example.org/"], "door.example.org"),
        ],
    )
    def test_bad_arguments(self, arguments: list[str], complaint: str) -> None:
        done = CliRunner().invoke(main, ["bench", "run", *arguments])
        assert done.exit_code == 2
        assert complaint in done.output
        assert "word@" not in done.output

    def test_list_names_every_row(self) -> None:
        done = CliRunner().invoke(main, ["bench", "list"])
        assert done.exit_code == 0
        assert all(row.name in done.output for rows in SUITES.values() for row in rows)


def processes_with(variable: str) -> list[str]:
    """Processes in whose environment something stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if variable.encode() in path.read_bytes():
                found.append((path.parent / "cmdline").read_text())
    return found


class TestSelection:
    def test_a_whole_name_is_one_row(self) -> None:
        rows = [Row(name, name, WORK, ("ours",), ("door",)) for name in ("get", "get-large", "put", "look")]
        assert [row.name for row in select(rows, ["get"])] == ["get"]
        assert [row.name for row in select(rows, ["g", "pu"])] == ["get", "get-large", "put"]
        assert len(select(rows)) == 4

    def test_levels_keep_programs(self) -> None:
        row = Row("get", "get", WORK, ("ours", "path", "curl", "butler-ours"), ("door",))
        assert select([row], levels=["path"])[0].peers == ("path", "curl")

    def test_a_row_goes_where_it_is_sent_if_it_is_spoken_there(self) -> None:
        rows = [
            Row("dav", "dav", WORK, ("ours",), ("door",)),
            Row("s3", "s3", WORK, ("ours", "boto3"), ("seaweedfs",), kinds=("s3",)),
            Row("both", "both", WORK, ("ours", "boto3", "curl"), ("door",), kinds=("webdav", "s3")),
        ]
        chosen = select(rows, targets=["xrootd", "davs://door.example.org/data/"])
        assert [(row.name, row.peers) for row in chosen] == [("dav", ("ours",)), ("both", ("ours", "curl"))]
        assert chosen[0].targets == ("xrootd", "davs://door.example.org/data/")
        assert [row.name for row in select(rows, targets=["seaweedfs"])] == ["s3", "both"]


class TestEnvironment:
    def test_no_secret_is_shown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        secret = "0123456789abcdef"
        site = tmp_path / "site.yaml"
        site.write_text(f"- base_url: davs://door.example.org:2880/\n  dcache:\n    token: {secret}\n")
        monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(site))
        monkeypatch.setenv("BEARER_TOKEN", secret)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        monkeypatch.setenv("LSST_RESOURCES_S3_PROFILE_x", f"https://key:{secret}@s3.example.org")
        text = json.dumps([describe(), configuration("davs://door.example.org:2880/data/")])
        assert secret not in text
        assert "site.yaml" in text
        assert '"token": "(set)"' in text

    def test_home_is_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/somebody")
        assert shown({"X509_USER_PROXY": "/home/somebody/proxy", "PATH": "/bin"}) == {
            "X509_USER_PROXY": "~/proxy"
        }


class TestProgress:
    class Terminal:
        def __init__(self, is_terminal: bool) -> None:
            self.text = ""
            self.isatty = lambda: is_terminal

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None:
            pass

    def test_a_terminal_has_one_line(self) -> None:
        stream = self.Terminal(True)
        progress = Progress(60, stream)  # type: ignore[arg-type]
        progress.tell("begun …")
        progress.tell("done")
        progress.end()
        assert "\n" not in stream.text
        assert stream.text.count("\r") == 3

    def test_a_log_has_a_line_for_each_step(self) -> None:
        stream = self.Terminal(False)
        progress = Progress(60, stream)  # type: ignore[arg-type]
        progress.tell("begun …")
        progress.tell("done\nwith it")
        progress.end()
        assert stream.text == "   0/60 s  done with it\n"


def test_what_failed_at_once_is_not_compared_as_fast() -> None:
    row = Row("row", "look", WORK, ("ours", "curl"), ("embedded",))
    result = Result(row, "embedded")
    result.samples = {
        "ours": [Sample(0, 1.0, 1.0), Sample(1, 0.01, 0.01, errors={"OSError": 2}), Sample(2, 1.0, 1.0)],
        "curl": [Sample(0, 2.0, 1.0), Sample(1, 2.0, 1.0), Sample(2, 0.01, 0.01, errors={"OSError": 1})],
    }
    assert result.pairs("wall", "ours", "curl") == [(1.0, 2.0)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--budget", "nan"),
        ("run", "--budget", "inf"),
        ("run", "--scale", "nan"),
        ("run", "--max-rate", "nan"),
        ("compare", "a", "b", "--threshold", "nan"),
    ],
)
def test_a_number_must_be_one(arguments: tuple[str, ...]) -> None:
    said = CliRunner().invoke(main, ["bench", *arguments])
    assert said.exit_code == 2
    assert arguments[-2] in said.output
