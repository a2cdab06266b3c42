"""That the cost of all precautions is measured; the figures here are far too few to be any."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.bench.guards import GuardsReport, measure_guards, median_interval
from lsst.daf.butler_dcache.cli.main import main


def test_the_same_work_takes_the_same_requests() -> None:
    report = measure_guards(pairs=2, share=0.03)
    assert {len(seconds) for seconds in report.cpu_seconds.values()} == {2}
    # In each of ten parts a file is read and one is written, each by a door and a pool.
    assert {count for counts in report.requests.values() for count in counts} == {40}
    assert report.extra_requests == 0
    assert "| all at work |" in report.text()


def test_the_interval_of_a_median() -> None:
    # Sign test tables: of 30 values the 10th and the 21st, of 6 the outermost.
    assert median_interval([float(number) for number in range(30, 0, -1)]) == (10, 21)
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == (1, 6)
    assert median_interval([1.0]) == (1, 1)


def test_too_much_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {"as it is": [1.2] * 6, "all at work": [1.0] * 6, "bare again": [1.0] * 6, "bare": [1.0] * 6}
    requests = {way: [10] * 6 for way in costs}
    dear = GuardsReport(6, costs, requests)
    assert not dear.is_within_limit
    assert GuardsReport(6, {**costs, "as it is": [1.02] * 6}, requests).is_within_limit
    one_more = {**requests, "as it is": [10] * 5 + [11]}
    assert not GuardsReport(6, {way: [1.0] * 6 for way in costs}, one_more).is_within_limit
    monkeypatch.setattr("lsst.daf.butler_dcache.cli.bench.measure_guards", lambda **options: dear)
    done = CliRunner().invoke(main, ["bench", "guards"])
    assert done.exit_code == 1
    assert "1.200 to 1.200" in done.output
