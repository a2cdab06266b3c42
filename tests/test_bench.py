"""That the benchmarks measure what they say; every figure here is far too small to be one."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from lsst.daf.butler_dcache.bench import partial_reads, results
from lsst.daf.butler_dcache.bench.histogram import Histogram
from lsst.daf.butler_dcache.bench.measure import Site
from lsst.daf.butler_dcache.bench.peers import crowd
from lsst.daf.butler_dcache.bench.processes import default_folder
from lsst.daf.butler_dcache.bench.result import Result, missed, verdict
from lsst.daf.butler_dcache.bench.row import FASTEST, Claim, Row
from lsst.daf.butler_dcache.bench.sample import Sample
from lsst.daf.butler_dcache.bench.servers import start
from lsst.daf.butler_dcache.bench.statistics import paired_ratio, spread
from lsst.daf.butler_dcache.bench.stopping import Stop
from lsst.daf.butler_dcache.bench.suite import Run
from lsst.daf.butler_dcache.bench.suites import SUITES
from lsst.daf.butler_dcache.bench.target import Counts, Target
from lsst.daf.butler_dcache.bench.work import Access, Job, Step, Work, contents, pieces


def samples(*figures: tuple[float, float], counts: Counts | None = None) -> list[Sample]:
    """Samples of these seconds of wall and CPU."""
    return [
        Sample(number, wall, cpu, counts=counts, first=number == 0)
        for number, (wall, cpu) in enumerate(figures)
    ]


def result(ours: list[Sample], curl: list[Sample], *claims: Claim) -> Result:
    row = Row("row", "a row", Work("get", 1024**3), ("ours", "curl"), ("door",), claims)
    return Result(row, "door", {"ours": ours, "curl": curl})


def run(
    folder: Path,
    rows: Sequence[Row],
    repetitions: int = 1,
    begin: Callable[[str, Path], AbstractContextManager[Target]] = start,
) -> Run:
    """Measure rows."""
    with Stop(120.0, 30.0) as stop:
        run = Run(rows, begin, folder, stop, budget=60.0, repetitions=repetitions)
        run.measure()
    return run


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that a server may look into which runs as nobody."""
    with tempfile.TemporaryDirectory(dir=default_folder()) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


class TestFigures:
    def test_ratios_are_taken_within_a_repetition(self) -> None:
        measured = result(samples((2, 1), (30, 1), (4, 1)), samples((1, 1), (10, 1), (4, 1)))
        assert measured.values(Claim("wall", 1.5, "curl")) == [2.0, 3.0, 1.0]
        assert spread([2.0, 3.0, 1.0]) == spread([1.0, 2.0, 3.0])
        ratio = measured.ratio("wall", "curl")
        assert ratio is not None
        assert ratio.ratio == pytest.approx(6 ** (1 / 3))

    def test_a_repetition_that_only_one_of_them_has_is_left_out(self) -> None:
        measured = result(samples((2, 1), (6, 1), (4, 1)), samples((1, 1), (1, 1), (1, 1))[1:])
        assert measured.values(Claim("wall", 1.5, "curl")) == [6.0, 4.0]

    def test_the_first_job_of_a_process_is_a_warm_up(self) -> None:
        measured = result(samples((9, 1), (2, 1), (2, 1), (2, 1)), samples((1, 1), (1, 1), (1, 1), (1, 1)))
        assert measured.values(Claim("wall", 1.5, "curl")) == [2.0, 2.0, 2.0]

    def test_cpu_excess_is_counted_per_gibibyte(self) -> None:
        measured = result(samples((1, 1.5)), samples((1, 0.25)))
        assert measured.values(Claim("cpu_excess", 0.4, "curl")) == [1.25]

    def test_what_was_not_measured_is_not_judged(self) -> None:
        measured = result(
            samples((3, 1)), [], Claim("wall", 1.5, "curl"), Claim("door", 1), Claim("bytes", 1.2)
        )
        assert verdict(measured) == []

    def test_the_fastest_of_the_others(self) -> None:
        measured = result(samples((2, 2), (2, 2)), samples((4, 1), (5, 1)))
        measured.samples["rclone"] = samples((1, 4), (8, 4))  # the median counts
        measured.samples["path"] = samples((1, 1), (1, 1))  # is ours
        assert measured.values(Claim("wall", 1.0, FASTEST)) == [0.5, 0.4]
        assert measured.values(Claim("cpu", 1.0, FASTEST)) == [2.0, 2.0]

    def test_requests_and_bytes(self) -> None:
        counts = Counts(5, 2, 7, 1, sent_bytes=2 * 1024**3).since(Counts(4, 1, 4, 0, sent_bytes=0))
        measured = result(samples((1, 1), counts=counts), [])
        assert measured.values(Claim("requests", 3)) == [4]
        assert measured.values(Claim("bytes", 1.2)) == [2.0]

    def test_percentiles_come_from_the_histogram(self) -> None:
        coded = Histogram([0.001] * 98 + [0.5] * 2).encode()
        measured = result([replace(one, histograms={"operation": coded}) for one in samples((1, 1))], [])
        assert measured.values(Claim("p50", 1)) == pytest.approx([0.001], rel=0.01)
        assert measured.values(Claim("p99", 1)) == pytest.approx([0.5], rel=0.01)

    def test_a_missed_figure_is_named_with_what_it_shall_be(self) -> None:
        counts = Counts(3, 1, 1, 1)
        claims = (Claim("wall", 1.5, "curl"), Claim("door", 1), Claim("pool", 1))
        measured = result(samples((3, 1), counts=counts), samples((1, 1)), *claims)
        assert missed([measured.row], [measured], counted_only=True) == [
            "row on door: door requests is 3, and shall be at most 1"
        ]
        assert len(missed([measured.row], [measured], counted_only=False)) == 2

    def test_what_was_not_measured_is_missed(self) -> None:
        measured = result([], [], Claim("door", 1))
        assert "was not measured" in missed([measured.row], [], counted_only=True)[0]
        assert "was not measured" in missed([measured.row], [measured], counted_only=True)[0]


class TestIntervals:
    def test_one_pair_has_none(self) -> None:
        ratio = paired_ratio([(2.0, 1.0)])
        assert ratio is not None
        assert (ratio.low, ratio.high, ratio.pairs) == (None, None, 1)
        assert ratio.half_width == math.inf

    def test_equal_pairs_leave_no_doubt(self) -> None:
        ratio = paired_ratio([(2.0, 1.0), (4.0, 2.0), (1.0, 0.5)])
        assert ratio is not None
        assert (ratio.ratio, ratio.low, ratio.high) == pytest.approx((2.0, 2.0, 2.0))

    def test_against_a_worked_example(self) -> None:
        # Logarithms to base 2 are -1, 0, 1: mean 0, deviation 1, t(2) = 4.303.
        ratio = paired_ratio([(1.0, 2.0), (1.0, 1.0), (2.0, 1.0)])
        assert ratio is not None
        assert ratio.high == pytest.approx(2 ** (4.303 / math.sqrt(3)))
        assert ratio.low == pytest.approx(1 / ratio.high)

    def test_nothing_can_be_said_of_nothing(self) -> None:
        assert paired_ratio([(0.0, 1.0)]) is None


class TestDocument:
    def test_it_has_a_schema_version_and_no_functions(self) -> None:
        measured = result(samples((3, 1)), samples((1, 1)), Claim("wall", 1.5, "curl"))
        written = results.document(
            [measured], environment={}, arguments={}, targets={}, problems=["door: gone"], reason="Ctrl-C"
        )
        record = json.loads(json.dumps(written))
        assert record["schema_version"] == 2
        assert record["problems"] == ["door: gone"]
        assert (record["complete"], record["reason"]) == (False, "Ctrl-C")
        assert record["results"][0]["figures"][0]["met"] is False
        assert record["results"][0]["ratios"]["wall"]["curl"]["ratio"] == pytest.approx(3.0)

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ('{"schema_version": 1, "results": []}', "schema version 1"),
            ('{"schema": "dcache-butler-bench", "schema_version": 3}', "schema version 3"),
            ("{}", "holds no results"),
            ("[2]", "holds no results"),
            ("{", "is not JSON"),
        ],
    )
    def test_what_is_no_document_is_refused(self, tmp_path: Path, text: str, complaint: str) -> None:
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(results.ResultsError, match=complaint):
            results.read(tmp_path)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(results.ResultsError, match="No such file"):
            results.read(tmp_path / "nothing.json")


class TestWork:
    def test_pieces_are_the_contents(self) -> None:
        size = 3 * 1024**2 + 17
        assert b"".join(pieces(size, 65536)) == contents(size)

    def test_offsets_do_not_overlap(self) -> None:
        offsets = sorted(Work("read_random", 100_000, 50, piece_bytes=1000).offsets())
        assert len(offsets) == 50
        assert all(b - a >= 1000 for a, b in itertools.pairwise(offsets))

    def test_a_job_survives_json(self) -> None:
        job = Job(
            "ours", Work("get", 10), Access("http://localhost:1/", {"A": "b"}), ("x",), "ready", "folder"
        )
        assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job

    @pytest.mark.parametrize(
        "row",
        list({row.name: row for rows in SUITES.values() for row in rows}.values()),
        ids=lambda row: row.name,
    )
    def test_pieces_still_fit_when_scaled(self, row: Row) -> None:
        work = row.scaled(0.0001).work
        if work.operation in ("read_random", "read_vector", "read_scattered"):
            assert len(work.offsets()) == work.count * work.batch

    def test_bytes_needed_of_a_table(self) -> None:
        pytest.importorskip("pyarrow")
        data = partial_reads.make_table(Work("column", 800_000))
        assert 80_000 < partial_reads.table_bytes_needed(data) < 90_000

    def test_bytes_needed_of_an_archive(self) -> None:
        data = partial_reads.make_archive(Work("member", 200_000))
        assert 10_000 < partial_reads.archive_bytes_needed(data) < 12_000


class TestMeasuring:
    """Against the embedded dCache, which is always there."""

    def test_requests_of_the_work_alone_are_counted(self, folder: Path) -> None:
        row = Row(
            "random",
            "random reads",
            Work("read_random", 20_000_000, 10, piece_bytes=1000),
            ("ours", "upstream"),
            ("embedded",),
            (Claim("door", 1), Claim("connections", 1), Claim("pool", 10)),
        )
        measured = run(folder, [row]).results[0]
        assert [met for _, _, met in verdict(measured)] == [True, True, True]
        theirs = measured.samples["upstream"][0].counts
        # Upstream: the size first, then a redirect for each MiB that is touched.
        assert theirs is not None
        assert theirs.door_requests > 5
        seen = measured.observed["ours"]
        assert (seen.counted["door_requests"], seen.counted["pool_requests"]) == (1, 10)
        assert "upstream" not in measured.observed

    def test_a_crowd_begins_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(crowd, "_FORGOTTEN_AFTER_SECONDS", 0.0)
        with start("embedded") as target:
            work = Work("look", 1, 5, processes=3)
            job = Job("crowd-ours", work, target.access, (target.provide("file", 1),), "", "")
            run = crowd.make("crowd-ours").prepare(job)
            before = target.counts()
            outcome = run()
            after = target.counts()
        assert outcome.operations == 15
        assert before is not None
        assert after is not None
        assert after.since(before).door_requests >= 15
        assert after.refused == 0

    def test_everything_that_is_written_is_removed(self, folder: Path) -> None:
        rows = [
            Row("put", "uploads", Work("put", 10_000, 3, 2), ("ours",), ("embedded",)),
            Row("delete", "removals", Work("delete", 10, 1, batch=20), ("ours",), ("embedded",)),
            Row("rename", "renames", Work("rename", 10, 4), ("ours",), ("embedded",)),
        ]
        with start("embedded", folder) as target, Stop(60.0, 10.0) as stop:
            site = Site(target, folder, stop)
            for row in rows:
                _, sample, _ = site.run(row, "ours", 0, 30.0)
                assert sample.errors == {}
            assert target.size("ready.dat") == 1
            target.clear("")
            assert target.size("ready.dat") is None
        assert not list(folder.glob("scratch"))

    def test_a_peer_that_cannot_says_why(self, folder: Path) -> None:
        work = Work("read_sequential", 10_000, piece_bytes=1000)
        done = run(folder, [Row("rb", "open rb", work, ("curl", "ours"), ("embedded",))])
        assert done.results[0].notes["curl"] == ["cannot: curl does not do this"]
        assert list(done.results[0].samples) == ["ours"]
        assert done.skipped == [
            {"row": "rb", "target": "embedded", "peer": "curl", "reason": "cannot: curl does not do this"}
        ]
        assert done.problems == []

    def test_memory_over_the_idle_process_is_seen(self, folder: Path) -> None:
        size = 40_000_000
        row = Row("memory", "to bytes", Work("get", size, sink="memory"), ("ours",), ("embedded",))
        peak = run(folder, [row]).results[0].samples["ours"][0].peak_bytes
        assert peak is None or peak > size * 0.9

    def test_a_mix_reads_shared_files_and_writes_new_ones(self, folder: Path) -> None:
        steps = (Step("get", 30_000, 2), Step("put", 10_000, 1), Step("look", 30_000, 1))
        row = Row("mix", "a mix", Work("mix", 0, 3, steps=steps), ("ours", "upstream"), ("embedded",))
        measured = run(folder, [row]).results[0]
        for peer in row.peers:
            (sample,) = measured.samples[peer]
            assert (sample.operations, sample.bytes_moved, sample.errors) == (3, 3 * 70_000, {})
            assert {"operation", "mix.get", "mix.put", "mix.look"} <= set(sample.histograms)

    def test_nothing_is_left(self, tmp_path: Path) -> None:
        with start("embedded", tmp_path) as target:
            (folder,) = tmp_path.iterdir()
            assert target.counts() is not None
        assert not folder.exists()


class TestSeaweedFs:
    PEERS = ("ours", "path", "boto3", "awscrt", "upstream")

    def test_every_client_moves_the_same_bytes(self, folder: Path) -> None:
        us = ("ours",)  # each client's start takes most of a second
        works = {
            "get": (Work("get", 300_000, 4, 2, sink="memory"), self.PEERS),
            "file": (Work("get", 300_000, sink="file"), us),
            "put": (Work("put", 300_000, 4, 2), self.PEERS),
            "delete": (Work("delete", 10, 1, batch=20), us),
            "wb": (Work("write_sequential", 300_000, piece_bytes=1024), us),
        }
        rows = [
            Row(name, name, work, peers, ("seaweedfs",), kinds=("s3",))
            for name, (work, peers) in works.items()
        ]
        requests = {"get": 4, "file": 1, "put": 4, "delete": 1, "wb": 1}
        done = run(folder, rows)
        assert done.problems == []
        for measured in done.results:
            name = measured.row.name
            for peer in measured.row.peers:
                assert peer in measured.samples, measured.notes
                counts = measured.samples[peer][0].counts
                assert counts is not None
                assert counts.door_requests >= requests[name], (name, peer)
            ours = measured.samples["ours"][0].counts
            assert ours is not None
            assert ours.door_requests == requests[name], name


def servers_are_here() -> bool:
    return all(shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("nginx", "haproxy", "curl"))


@pytest.mark.skipif(
    not servers_are_here() and os.environ.get("CI") != "true", reason="needs nginx, HAProxy and curl"
)
class TestDoor:
    def test_every_client_moves_the_same_bytes(self, folder: Path) -> None:
        work = Work("get", 300_000, 4, 2)
        row = Row("get", "downloads", work, ("ours", "path", "plane", "curl", "upstream"), ("door-tls",))
        measured = run(folder, [row]).results[0]
        for peer in row.peers:
            counts = measured.samples[peer][0].counts
            assert counts is not None
            assert (counts.door_requests, counts.pool_requests) == (4, 4), peer


def test_a_client_that_fails_does_not_stop_the_others(folder: Path) -> None:
    @contextlib.contextmanager
    def begin(name: str, folder: Path) -> Iterator[Target]:
        with start(name, folder) as target:
            # curl alone is told who it is; the others have the site's file.
            target.access = replace(target.access, user=None)  # type: ignore[misc]
            yield target

    row = Row("get", "downloads", Work("get", 1000, 2, 2), ("ours", "curl"), ("embedded",))
    done = run(folder, [row], repetitions=2, begin=begin)
    assert {peer: len(samples) for peer, samples in done.results[0].samples.items()} == {"ours": 2}
    assert done.results[0].notes["curl"][0].startswith("failed: ")
    assert done.problems[0].startswith("get on embedded, curl failed: ")
