"""A short campaign of faults: `dcache-butler bench faults` runs long ones."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.bench.campaign import campaign, kills
from lsst.daf.butler_dcache.bench.campaign.steps import Step, content, plan
from lsst.daf.butler_dcache.bench.campaign.world import ABSENT, Outcome, Sight, World, fingerprint
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.transport.retry import RULES, rule_name


def test_nothing_is_lost_or_wrong() -> None:
    report = campaign.run(seed=20261124, operations=300, processes=2)
    assert report.problems == []
    assert sum(table.total() for table in report.by_operation.values()) == 300
    assert len(report.by_fault) > 15
    assert report.rows.keys() <= set(map(rule_name, RULES))
    # What never has an answer of its own kind in so short a run may be missing, but not what is frequent.
    assert report.rows["NO_ANSWER others"]
    assert report.rows["ANSWERED 429 all"]
    assert report.rows["REPLACED all"]
    assert len(report.rows_never_hit) < len(RULES) / 2
    assert f"| REPLACED all | {report.rows['REPLACED all']} |" in report.text()


def test_a_row_that_no_failure_met_is_a_problem_of_a_long_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "_ENOUGH_FOR_EVERY_ROW", 3)
    report = campaign.run(seed=1, operations=3, processes=1)
    never = report.rows_never_hit
    assert never
    assert not [name for name in never if name.startswith("SAME")], "no S3 is spoken"
    assert report.problems == [f"no failure met the row {name}" for name in never]


def test_one_process_does_the_same_each_time() -> None:
    first, second = (campaign.run(seed=3, operations=60, processes=1) for _ in range(2))
    assert first.problems == second.problems == []
    assert first.by_operation == second.by_operation
    assert first.by_fault == second.by_fault


def test_steps_come_of_the_seed_alone() -> None:
    steps = [plan(1, 0, index, ["f1"], []) for index in range(50)]
    assert steps == [plan(1, 0, index, ["f1"], []) for index in range(50)]
    assert steps != [plan(2, 0, index, ["f1"], []) for index in range(50)]
    assert content(1, steps[0]) == content(1, steps[0])


PUT = Step(0, 0, "put", ("a",), 3)
OLD, NEW = fingerprint(b"old"), fingerprint(b"new")
UNKNOWN = Outcome("OutcomeUnknownError", "lost")


@pytest.mark.parametrize(
    ("step", "outcome", "sight", "wanted"),
    [
        (PUT, Outcome(), Sight({"a": NEW}), ""),
        (PUT, Outcome(), Sight({"a": OLD}), "holds"),
        (PUT, Outcome(), Sight({"a": NEW}, {"a": 2}), "came 2 times"),
        (PUT, UNKNOWN, Sight({"a": OLD}, hits=["drop"]), ""),
        (PUT, UNKNOWN, Sight({"a": NEW}, hits=["drop"]), ""),
        (PUT, UNKNOWN, Sight({"a": "an unfinished upload"}, hits=["drop"]), "holds"),
        (PUT, UNKNOWN, Sight({"a": ABSENT}, hits=["drop"]), "holds"),
        (PUT, UNKNOWN, Sight({"a": OLD}), "without a fault"),
        (PUT, Outcome("ServerError", ""), Sight({"a": NEW}, hits=["500"]), "holds"),
        (PUT, Outcome("KeyError", ""), Sight({"a": OLD}, hits=["500"]), "no error of ours"),
        (Step(0, 0, "get", ("a",)), Outcome(wrong="other bytes"), Sight({"a": OLD}), "other bytes"),
        (Step(0, 0, "create", ("a",)), Outcome(), Sight({"a": NEW}), "impossible"),
        (Step(0, 0, "rename", ("a", "b")), UNKNOWN, Sight({"a": ABSENT, "b": OLD}, hits=["x"]), ""),
        (Step(0, 0, "rename", ("a", "b")), UNKNOWN, Sight({"a": ABSENT, "b": ABSENT}, hits=["x"]), "half"),
        (Step(0, 0, "rename", ("a", "b")), UNKNOWN, Sight({"a": OLD, "b": OLD}, hits=["x"]), "half"),
        (
            Step(0, 0, "bulk remove", ("a", "b")),
            Outcome(each={"a": "ServerError", "b": "ResourceNotFoundError"}),
            Sight({"a": ABSENT, "b": ABSENT}, hits=["x"]),
            "holds",
        ),
    ],
)
def test_the_judge_sees_what_is_wrong(step: Step, outcome: Outcome, sight: Sight, wanted: str) -> None:
    world = World()
    world.states["a"] = OLD
    problems = "; ".join(world.judge(step, NEW, outcome, sight))
    assert wanted in problems
    assert bool(problems) == bool(wanted)


def test_a_problem_is_an_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(**options: Any) -> campaign.Report:
        report = campaign.Report(options["seed"], options["operations"], options["processes"])
        report.problems.append("a byte was lost")
        return report

    monkeypatch.setattr("lsst.daf.butler_dcache.cli.bench.run_campaign", run)
    log = logging.getLogger("lsst.daf.butler_dcache")
    monkeypatch.setattr(log, "setLevel", lambda level: None)  # other tests of this process look into it
    done = CliRunner().invoke(main, ["bench", "faults", "--seed", "5", "--operations", "7"])
    assert done.exit_code == 1
    assert "Seed 5: 7 operations by 2 processes" in done.output
    assert "- a byte was lost" in done.output


def test_killed_writers_leave_old_or_new() -> None:
    report = kills.kill_writers(seed=20261124, kills=12)
    assert report.problems == []
    assert report.moments.total() > 0
    assert "12 writers killed" in report.text()
