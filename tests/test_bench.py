"""That the benchmarks measure what they say; every figure here is far too small to be one."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.bench import partial_reads, report, suite
from lsst.daf.butler_dcache.bench.measure import Result, Sample, measure, spread
from lsst.daf.butler_dcache.bench.peers import crowd
from lsst.daf.butler_dcache.bench.row import FASTEST, Claim, Row
from lsst.daf.butler_dcache.bench.servers import start
from lsst.daf.butler_dcache.bench.target import Counts
from lsst.daf.butler_dcache.bench.work import Access, Job, Work, contents, pieces
from lsst.daf.butler_dcache.cli.main import main


def sample(wall: float, cpu: float, **more: object) -> Sample:
    plain = Sample(wall, cpu, peak_bytes=0, server_cpu_seconds=0.0, counts=None, seconds_each=None)
    return replace(plain, **more)  # type: ignore[arg-type]


def result(ours: list[Sample], curl: list[Sample], *claims: Claim) -> Result:
    row = Row("row", "a row", Work("get", 1024**3), ("ours", "curl"), ("door",), claims)
    return Result(row, "door", "1.0", {"ours": ours, "curl": curl})


class TestFigures:
    def test_ratios_are_taken_within_a_repetition(self) -> None:
        claim = Claim("wall", 1.5, "curl")
        measured = result(
            [sample(2, 1), sample(30, 1), sample(4, 1)], [sample(1, 1), sample(10, 1), sample(4, 1)]
        )
        assert measured.values(claim) == [2.0, 3.0, 1.0]
        assert spread([2.0, 3.0, 1.0]) == spread([1.0, 2.0, 3.0])

    def test_cpu_excess_is_counted_per_gibibyte(self) -> None:
        measured = result([sample(1, 1.5)], [sample(1, 0.25)])
        assert measured.values(Claim("cpu_excess", 0.4, "curl")) == [1.25]

    def test_a_missed_limit_is_named_with_its_factor(self) -> None:
        measured = result(
            [sample(3, 1)], [sample(1, 1)], Claim("wall", 1.5, "curl"), Claim("cpu", 1.0, "curl")
        )
        assert [met for _, _, met in report.verdict(measured)] == [False, True]
        text = report.markdown([measured])
        assert "no, 2.00 x the limit" in text
        assert "HAProxy door and nginx pools, http (not dCache)" in text

    def test_what_was_not_measured_is_not_judged(self) -> None:
        measured = result(
            [sample(3, 1)], [], Claim("wall", 1.5, "curl"), Claim("door", 1), Claim("bytes", 1.2)
        )
        assert report.verdict(measured) == []

    def test_the_fastest_of_the_others(self) -> None:
        measured = result([sample(2, 2), sample(2, 2)], [sample(4, 1), sample(5, 1)])
        measured.samples["rclone"] = [sample(1, 4), sample(8, 4)]  # the median counts
        measured.samples["path"] = [sample(1, 1), sample(1, 1)]  # is ours
        assert measured.values(Claim("wall", 1.0, FASTEST)) == [0.5, 0.4]
        assert measured.values(Claim("cpu", 1.0, FASTEST)) == [2.0, 2.0]

    def test_requests_and_bytes(self) -> None:
        counts = Counts(5, 2, 7, 1, sent_bytes=2 * 1024**3).since(Counts(4, 1, 4, 0, sent_bytes=0))
        measured = result([sample(1, 1, counts=counts)], [])
        assert measured.values(Claim("requests", 3)) == [4]
        assert measured.values(Claim("bytes", 1.2)) == [2.0]

    def test_the_document_has_a_schema_version_and_no_functions(self) -> None:
        measured = result([sample(3, 1)], [sample(1, 1)], Claim("wall", 1.5, "curl"))
        record = json.loads(json.dumps(report.document([measured], {}, ["door: gone"], {})))
        assert record["schema_version"] == 1
        assert record["problems"] == ["door: gone"]
        assert record["results"][0]["figures"][0]["met"] is False


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

    @pytest.mark.parametrize("row", [*suite.FIGURES, *suite.ENGINES], ids=lambda row: row.name)
    def test_pieces_still_fit_when_scaled(self, row: Row) -> None:
        work = row.scaled(0.0001).work
        if work.operation in ("read_random", "read_vector", "read_scattered"):
            assert len(work.offsets()) == work.count

    def test_bytes_needed_of_a_table(self) -> None:
        pytest.importorskip("pyarrow")
        data = partial_reads.make_table(Work("column", 800_000))
        assert 80_000 < partial_reads.table_bytes_needed(data) < 90_000

    def test_bytes_needed_of_an_archive(self) -> None:
        data = partial_reads.make_archive(Work("member", 200_000))
        assert 10_000 < partial_reads.archive_bytes_needed(data) < 12_000


class TestMeasuring:
    """Against the embedded dCache, which is always there."""

    def test_requests_of_the_work_alone_are_counted(self) -> None:
        row = Row(
            "random",
            "random reads",
            Work("read_random", 20_000_000, 10, piece_bytes=1000),
            ("ours", "upstream"),
            ("embedded",),
            (Claim("door", 1), Claim("connections", 1), Claim("pool", 10)),
        )
        with start("embedded") as target:
            measured = measure(row, target, repetitions=1)
        assert [met for _, _, met in report.verdict(measured)] == [True, True, True]
        theirs = measured.samples["upstream"][0].counts
        # Upstream: the size first, then a redirect for each MiB that is touched.
        assert theirs is not None
        assert theirs.door_requests > 5

    def test_a_crowd_begins_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(crowd, "_FORGOTTEN_AFTER_SECONDS", 0.0)
        with start("embedded") as target:
            work = Work("look", 1, 5, processes=3)
            job = Job("crowd-ours", work, target.access, (target.provide("file", 1),), "", "")
            run = crowd.make("crowd-ours").prepare(job)
            before = target.counts()
            assert before is not None
            assert before.door_requests == 0
            outcome = run()
            after = target.counts()
        assert outcome.bytes_moved == 15
        assert after is not None
        assert after.door_requests >= 15
        assert after.refused == 0

    def test_uploads_arrive_and_are_removed(self) -> None:
        row = Row("put", "uploads", Work("put", 10_000, 3, 2), ("ours",), ("embedded",))
        with start("embedded") as target:
            measured = measure(row, target, repetitions=2)
            assert target.size("ready.dat") == 1
            assert len(measured.samples["ours"]) == 2
            target.clear("")
            assert target.size("ready.dat") is None

    def test_a_peer_that_cannot_says_why(self) -> None:
        row = Row(
            "rb",
            "open rb",
            Work("read_sequential", 10_000, piece_bytes=1000),
            ("curl", "ours"),
            ("embedded",),
        )
        with start("embedded") as target:
            measured = measure(row, target, repetitions=1)
        assert measured.notes["curl"] == ["cannot: curl does not do this"]
        assert list(measured.samples) == ["ours"]

    def test_memory_over_the_idle_process_is_seen(self) -> None:
        size = 40_000_000
        row = Row("memory", "to bytes", Work("get", size, sink="memory"), ("ours",), ("embedded",))
        with start("embedded") as target:
            measured = measure(row, target, repetitions=1)
        peak = measured.samples["ours"][0].peak_bytes
        assert peak is None or peak > size * 0.9

    def test_nothing_is_left(self, tmp_path: Path) -> None:
        with start("embedded", tmp_path) as target:
            (folder,) = tmp_path.iterdir()
            assert target.counts() is not None
        assert not folder.exists()


class TestSeaweedFs:
    PEERS = ("ours", "path", "boto3", "awscrt", "upstream")

    def test_every_client_moves_the_same_bytes(self) -> None:
        rows = [
            Row("get", "downloads", Work("get", 300_000, 4, 2, sink="memory"), self.PEERS, ("seaweedfs",)),
            Row("file", "a file", Work("get", 300_000, sink="file"), self.PEERS, ("seaweedfs",)),
            Row("put", "uploads", Work("put", 300_000, 4, 2), self.PEERS, ("seaweedfs",)),
            Row("delete", "removals", Work("delete", 10, 20), ("ours", "boto3", "upstream"), ("seaweedfs",)),
            Row(
                "wb",
                "open wb",
                Work("write_sequential", 300_000, piece_bytes=1024),
                ("ours",),
                ("seaweedfs",),
            ),
        ]
        requests = {"get": 4, "file": 1, "put": 4, "delete": 1, "wb": 1}
        with start("seaweedfs") as target:
            for row in rows:
                measured = measure(row, target, repetitions=1)
                for peer in row.peers:
                    assert peer in measured.samples, measured.notes
                    counts = measured.samples[peer][0].counts
                    assert counts is not None
                    assert counts.door_requests >= requests[row.name], (row.name, peer)
                ours = measured.samples["ours"][0].counts
                assert ours is not None
                assert ours.door_requests == requests[row.name], row.name


def servers_are_here() -> bool:
    return all(shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("nginx", "haproxy", "curl"))


@pytest.mark.skipif(
    not servers_are_here() and os.environ.get("CI") != "true", reason="needs nginx, HAProxy and curl"
)
class TestDoor:
    def test_every_client_moves_the_same_bytes(self) -> None:
        work = Work("get", 300_000, 4, 2)
        row = Row("get", "downloads", work, ("ours", "path", "plane", "curl", "upstream"), ("door-tls",))
        with start("door-tls") as target:
            measured = measure(row, target, repetitions=1)
        for peer in row.peers:
            counts = measured.samples[peer][0].counts
            assert counts is not None
            assert (counts.door_requests, counts.pool_requests) == (4, 4), peer

    def test_command(self, tmp_path: Path) -> None:
        out = tmp_path / "figures.json"
        arguments = ["bench", "figures", "small-put", "--target", "door", "--scale", "0.005"]
        begun = time.monotonic()
        done = CliRunner().invoke(main, [*arguments, "--repetitions", "1", "--out", str(out)])
        assert done.exit_code == 0, done.output
        assert time.monotonic() - begun < 120
        record = json.loads(out.read_text())
        assert {peer for peer in record["results"][0]["samples"]} == {"ours", "path", "curl", "upstream"}
        assert "wall time / upstream" in out.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["figures", "nonsense"], "no row is called nonsense"),
        (["figures", "--target", "nowhere"], "no server is called nowhere"),
        (["figures", "two-1kB", "--target", "xrootd"], "none of these rows"),
    ],
)
def test_bad_arguments(arguments: list[str], complaint: str) -> None:
    done = CliRunner().invoke(main, ["bench", *arguments])
    assert done.exit_code == 2
    assert complaint in done.output


def test_list_names_every_row() -> None:
    done = CliRunner().invoke(main, ["bench", "list"])
    assert done.exit_code == 0
    assert all(row.name in done.output for row in suite.FIGURES)


def test_a_client_that_fails_does_not_stop_the_others() -> None:
    row = Row("get", "downloads", Work("get", 1000, 2, 2), ("ours", "curl"), ("embedded",))
    with start("embedded") as target:
        # curl alone is told who it is; the others have the site's file.
        target.access = replace(target.access, user=None)  # type: ignore[misc]
        measured = measure(row, target, repetitions=2)
    assert {peer: len(samples) for peer, samples in measured.samples.items()} == {"ours": 2}
    assert measured.notes["curl"][0].startswith("failed: ")
