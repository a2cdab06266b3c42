"""What counts as a change from one run to another."""

from __future__ import annotations

import copy
import json
import math

import bench_documents
import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.bench.compare import compare
from lsst.daf.butler_dcache.bench.document import Document
from lsst.daf.butler_dcache.bench.noise import chance, quantile
from lsst.daf.butler_dcache.cli.bench_compare import compare_command


def _run(seed: int = 1, slower: float = 1.0, repetitions: int = 5, noise: float = 0.03):
    more = {"seed": seed, "slower": slower, "repetitions": repetitions, "noise": noise}
    return bench_documents.document(
        [
            bench_documents.row("get", "get", "whole files", **more),
            bench_documents.row("look", "look", "names", operation="look", **more),
        ]
    )


def _compare(before, after, threshold: float = 0.1):
    return compare(Document.of(before), Document.of(after), threshold)


@pytest.fixture(scope="module")
def before():
    return _run()


@pytest.fixture
def after(before):
    return copy.deepcopy(before)


def test_a_run_is_as_good_as_itself(before):
    comparison = _compare(before, before)
    assert comparison.figures
    assert not comparison.of("worse")
    assert not comparison.of("better")
    assert comparison.remarks == []


@pytest.mark.parametrize("seed", range(2, 6))
def test_noise_is_no_change(before, seed):
    comparison = _compare(before, _run(seed=seed), threshold=0.0)
    assert not comparison.of("worse")


def test_a_slower_client_is_found_and_named(before):
    worse = _compare(before, _run(seed=9, slower=1.4)).of("worse")
    assert {change.peer for change in worse} == {"ours"}
    assert {change.quantity for change in worse} >= {"throughput", "p50", "p99", "CPU time per operation"}
    throughput = next(change for change in worse if change.quantity == "throughput")
    assert throughput.low < 1 / 1.4 < throughput.high


def test_a_faster_client_is_better(before):
    comparison = _compare(before, _run(seed=9, slower=0.6))
    assert not comparison.of("worse")
    assert comparison.of("better")


def test_a_change_below_the_threshold_does_not_count(before):
    after = _run(slower=1.4)  # the same noise, so that the change is certain
    assert _compare(before, after, threshold=0.3).of("worse")
    assert not _compare(before, after, threshold=0.6).of("worse")


def test_a_change_within_noise_does_not_count():
    before, after = _run(noise=0.5, repetitions=3), _run(seed=8, slower=1.15, noise=0.5, repetitions=3)
    assert not _compare(before, after).of("worse")


def test_what_was_measured_once_counts_if_it_is_far_off():
    before = _run(repetitions=1)
    assert not _compare(before, _run(seed=4, repetitions=1)).of("worse")
    assert _compare(before, _run(seed=4, slower=6.0, repetitions=1)).of("worse")


def test_one_request_more_counts(before, after):
    for sample in after["results"][0]["peers"]["ours"]["samples"]:
        sample["counts"]["door_requests"] += 1
    (change,) = _compare(before, after).of("worse")
    assert (change.row, change.peer, change.quantity) == ("get", "ours", "door requests per operation")
    assert (change.before, change.after) == ("1", "1.005")


def test_a_request_more_in_one_repetition_only_does_not_count(before, after):
    after["results"][0]["peers"]["ours"]["samples"][0]["counts"]["door_requests"] += 1
    assert not _compare(before, after).of("worse")


def test_requests_that_were_refused_and_asked_again_do_not_count(before, after):
    for sample in after["results"][0]["peers"]["ours"]["samples"]:
        sample["counts"]["door_requests"] += 7
        sample["counts"]["refused"] = 7
    assert not _compare(before, after).of("worse")


def test_connections_count_beyond_the_threshold(before, after):
    for sample in after["results"][0]["peers"]["upstream"]["samples"]:
        sample["counts"]["pool_connections"] += 2
    assert not _compare(before, after).of("worse")
    for sample in after["results"][0]["peers"]["upstream"]["samples"]:
        sample["counts"]["pool_connections"] *= 2
    (change,) = _compare(before, after).of("worse")
    assert change.quantity == "connections"


def test_memory_counts(before, after):
    for sample in after["results"][0]["peers"]["ours"]["samples"]:
        sample["peak_bytes"] *= 3
    (change,) = _compare(before, after).of("worse")
    assert (change.quantity, change.row) == ("peak memory", "get")


def test_failures_count(before, after):
    for sample in after["results"][0]["peers"]["ours"]["samples"]:
        sample["errors"] = {"ServerError": 2}
    (change,) = _compare(before, after).of("worse")
    assert change.quantity == "failed operations"


def test_a_client_that_fails_now_is_worse_and_one_that_was_not_asked_is_not(before, after):
    after["results"][0]["peers"]["ours"] = {"notes": ["failed: it ended without a word"], "samples": []}
    after["results"][0]["peers"]["curl"] = {"notes": ["cannot: curl is not installed"], "samples": []}
    (change,) = _compare(before, after).of("worse")
    assert (change.peer, change.after) == ("ours", "failed: it ended without a word")


def test_differences_of_the_runs_are_said(before, after):
    after["environment"]["versions"]["lsst-daf-butler-dcache"] = "0.2.0"
    after["environment"]["host"] = "node18"
    after["targets"]["embedded"]["version"] = "embedded 0.2.0"
    after |= {"complete": False, "reason": "Ctrl-C"}
    del after["results"][1]
    remarks = "\n".join(_compare(before, after).remarks)
    assert "versions lsst-daf-butler-dcache: 0.1.0 then, 0.2.0 now" in remarks
    assert "host: node17 then, node18 now" in remarks
    assert "target embedded, version: embedded 0.1.0 then, embedded 0.2.0 now" in remarks
    assert "the second run is partial: Ctrl-C" in remarks
    assert "only in the first: look on embedded" in remarks


def test_other_work_is_not_compared(before, after):
    after["results"][0]["work"]["count"] = 100
    comparison = _compare(before, after)
    assert {figure.row for figure in comparison.figures} == {"look"}
    assert "get on embedded is other work now: count 200 → 100" in comparison.remarks


def test_a_machine_that_is_slower_for_all_is_said(before, after):
    for result in after["results"]:
        for peer in result["peers"].values():
            for sample in peer["samples"]:
                sample["wall_seconds"] *= 1.5
    assert any("the machine or the target is another" in remark for remark in _compare(before, after).remarks)


# From tables of Student's t: probabilities of both tails.
@pytest.mark.parametrize(
    ("t", "degrees", "expected"),
    [
        (12.706, 1, 0.05),
        (4.303, 2, 0.05),
        (5.841, 3, 0.01),
        (2.776, 4, 0.05),
        (2.228, 10, 0.05),
        (3.169, 10, 0.01),
    ],
)
def test_the_chance_of_a_t_is_that_of_the_tables(t, degrees, expected):
    assert math.isclose(chance(t, degrees), expected, rel_tol=2e-3)
    assert chance(-t, degrees) == chance(t, degrees)


def test_the_quantile_is_that_of_the_tables():
    assert [round(quantile(degrees), 2) for degrees in (1, 2, 5, 9)] == [12.71, 4.30, 2.57, 2.26]


class TestCommand:
    """``dcache-butler bench compare``."""

    def _compare(self, tmp_path, before, after, *arguments: str):
        paths = []
        for name, record in (("before", before), ("after", after)):
            (tmp_path / name).mkdir()
            paths.append(tmp_path / name)
            (paths[-1] / "results.json").write_text(json.dumps(record))
        # The one as a directory, the other as a file.
        return CliRunner().invoke(
            compare_command, [str(paths[0]), str(paths[1] / "results.json"), *arguments]
        )

    def test_no_change_is_success(self, tmp_path, before):
        done = self._compare(tmp_path, before, before)
        assert done.exit_code == 0
        assert "0 worse, 0 better" in done.output

    def test_a_change_for_the_worse_is_status_1(self, tmp_path, before):
        done = self._compare(tmp_path, before, _run(slower=1.5))
        assert done.exit_code == 1
        assert "get on embedded, ours: throughput" in done.output

    def test_a_change_for_the_better_is_success(self, tmp_path, before):
        done = self._compare(tmp_path, before, _run(slower=0.5))
        assert done.exit_code == 0
        assert "better:" in done.output

    def test_json(self, tmp_path, before):
        done = self._compare(tmp_path, before, _run(slower=1.5), "--json", "--threshold", "0.2")
        record = json.loads(done.stdout)
        assert done.exit_code == 1
        assert record["threshold"] == 0.2
        assert {change["peer"] for change in record["worse"]} == {"ours"}

    def test_an_older_schema_is_refused(self, tmp_path, before):
        done = self._compare(tmp_path, before | {"schema_version": 1}, before)
        assert done.exit_code == 2
        assert "version 1" in done.stderr
        assert "Traceback" not in done.stderr

    def test_nothing_in_common_is_refused(self, tmp_path, before):
        done = self._compare(tmp_path, before, before | {"results": []})
        assert done.exit_code == 2
        assert "no figure in common" in done.stderr

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 2', "\x00"])
    def test_what_is_no_report_is_refused(self, tmp_path, text):
        (tmp_path / "results.json").write_text(text)
        done = CliRunner().invoke(compare_command, [str(tmp_path), str(tmp_path)])
        assert done.exit_code == 2
        assert str(tmp_path) in done.stderr

    @pytest.mark.parametrize("results", [5, [{"row": 3}], [{"row": "a", "target": "b", "peers": [1]}]])
    def test_a_damaged_report_is_refused(self, tmp_path, results):
        done = self._compare(tmp_path, bench_documents.document(results), bench_documents.document(results))
        assert done.exit_code == 2
        assert "is not as bench run writes it" in done.stderr

    def test_damaged_times_are_refused(self, tmp_path, before, after):
        after["results"][0]["peers"]["ours"]["samples"][0]["histograms"] = {"operation": "HISTFAAA"}
        done = self._compare(tmp_path, before, after)
        assert done.exit_code == 2
        assert "is not as bench run writes it" in done.stderr

    def test_what_is_not_there_is_refused(self, tmp_path):
        done = CliRunner().invoke(compare_command, [str(tmp_path / "no"), str(tmp_path)])
        assert done.exit_code == 2
        assert "no" in done.stderr
