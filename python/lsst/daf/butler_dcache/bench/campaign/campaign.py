"""The campaign of faults: run it, judge it, tell of it."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...embedded import EmbeddedDcache
from ...transport.retry import RULES, Phase, rule_name
from .kills import remove_what_is_left
from .referee import RUIN, EmbeddedReferee, Referee
from .standins import StandInReferee
from .worker import Told, WorkerJob, work
from .world import ABSENT, DIRECTORY

__all__ = ("Report", "run")

_NO_FAULT = "(no fault)"
_ENOUGH_FOR_EVERY_ROW = 2000
_JUDGING = tuple(rule for rule in RULES if rule.phase is not Phase.SAME)
"""The rows that a failure of a dCache may meet."""
"""So many operations meet every row of the table of repetitions."""
_UNKNOWN = ("OutcomeUnknownError", "UploadDisplacedError")


@dataclasses.dataclass
class Report:
    """What came of a campaign.

    Parameters
    ----------
    seed, operations, processes : `int`
        What it was.
    seconds : `float`
        How long it took.
    by_fault : `dict` [`str`, `collections.Counter`]
        For each kind of fault that came to pass: how often each outcome, success or class of error.
    by_operation : `dict` [`str`, `collections.Counter`]
        The same for each kind of operation.
    problems : `list` [`str`]
        What must not be.
    orphans : `int`
        Temporary names that were left, before the clean-up.
    unknowable : `int`
        Ranges with a flipped byte, which nobody can know.
    requests : `int`
        How many requests the servers got, where they count them.
    restarts : `int`
        How often a server was killed and came back.
    rows : `collections.Counter` [`str`]
        How many failures each row of the table of repetitions judged (`~...transport.retry.RULES`).
    """

    seed: int
    operations: int
    processes: int
    seconds: float = 0.0
    by_fault: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    by_operation: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    orphans: int = 0
    unknowable: int = 0
    requests: int = 0
    restarts: int = 0
    rows: Counter[str] = dataclasses.field(default_factory=Counter)

    @property
    def rows_never_hit(self) -> list[str]:
        """Names of the rows that judged nothing, those of S3 left out: nobody speaks it in a campaign."""
        return [rule_name(rule) for rule in _JUDGING if not self.rows[rule_name(rule)]]

    def add(self, told: Told) -> None:
        """Count a step.

        Parameters
        ----------
        told : `~.worker.Told`
            What a worker told.
        """
        errors = sorted(set(told.outcome.each.values())) if told.outcome.each else []
        said = told.outcome.error or " ".join(errors) or "ok"
        for hit in told.sight.hits or [_NO_FAULT]:
            self.by_fault.setdefault(hit, Counter())[said] += 1
        self.by_operation.setdefault(told.step.kind, Counter())[said] += 1
        self.unknowable += told.unknowable
        faults = ", ".join(told.sight.hits) or "no fault"
        said = f"said {said} {told.outcome.message}"
        self.problems += [f"{told.step} ({faults}): {problem}; {said}" for problem in told.problems]

    def text(self) -> str:
        """Return tables for people, in Markdown."""
        lines = [
            f"Seed {self.seed}: {self.operations} operations by {self.processes} processes in "
            f"{self.seconds:.0f} s, {self.requests} requests, {self.restarts} restarts of servers.",
        ]
        for title, table in (("fault", self.by_fault), ("operation", self.by_operation)):
            lines += ["", f"| {title} | times | ok | errors |", "| --- | ---: | ---: | --- |"]
            for name in sorted(table):
                errors = Counter({key: n for key, n in table[name].items() if key != "ok"})
                told = ", ".join(f"{key} {n}" for key, n in errors.most_common())
                lines.append(f"| {name} | {table[name].total()} | {table[name]['ok']} | {told} |")
        lines += ["", "| row of the table of repetitions | failures |", "| --- | ---: |"]
        lines += [f"| {name} | {self.rows[name] or 'never'} |" for name in map(rule_name, _JUDGING)]
        lines += [
            "",
            f"{self.orphans} temporary names were left by failures, for the clean-up; "
            f"{self.unknowable} reads of ranges got a flipped byte that no digest tells.",
            f"{len(self.problems)} problems.",
        ]
        return "\n".join([*lines, *(f"- {problem}" for problem in self.problems)]) + "\n"


def run(
    *,
    seed: int,
    operations: int,
    processes: int,
    restarts: bool = True,
    server: str = "embedded",
    tell: Callable[[str], object] = lambda text: None,
) -> Report:
    """Run a campaign against the embedded dCache.

    Parameters
    ----------
    seed : `int`
        Decides on operations and faults.
    operations : `int`
        How many, of all processes together.
    processes : `int`
        How many workers; with one a run is the same each time.
    restarts : `bool`, optional
        Whether servers may crash.
    server : `str`, optional
        ``embedded``, or one of `~.standins.STAND_INS`.
    tell : `~collections.abc.Callable`, optional
        Is told of each problem as it shows.

    Returns
    -------
    report : `Report`
        The tally, and what is wrong.
    """
    report = Report(seed, operations, processes)
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="dcache-campaign-") as name,
        _referee(server, seed, Path(name)) as referee,
    ):
        ends: dict[int, tuple[dict[str, str], dict[str, list[str]], Counter[str]]] = {}
        shared: list[Told] = []
        lock = threading.Lock()

        def attend(job: WorkerJob) -> None:
            line, other = context.Pipe()
            process = context.Process(target=work, args=(job, other), daemon=True)
            process.start()
            other.close()
            for message in referee.serve(job.process, line):
                with lock:
                    if isinstance(message, Told):
                        report.add(message)
                        if message.step.kind.startswith("race"):
                            shared.append(message)
                        for problem in message.problems:
                            tell(f"{message.step}: {problem}")
                    else:
                        ends[job.process] = message[1:]
            process.join()
            if job.process not in ends:
                report.problems.append(f"process {job.process} ended with status {process.exitcode}")

        context = multiprocessing.get_context("spawn")
        share, more = divmod(operations, processes)
        jobs = [
            WorkerJob(
                seed,
                number,
                share + (number < more),
                referee.url + "campaign/",
                referee.environment(number, with_frontend=number % 2 == 1),
                has_faults=server == "embedded",
                restarts=restarts,
            )
            for number in range(processes)
        ]
        threads = [threading.Thread(target=attend, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, (states, haunted, rows) in ends.items():
            report.rows += rows
            report.problems += _last_look(referee, number, states, haunted)
        # XRootD promises no single winner, and was asked for none.
        report.problems += _judge_races(referee, shared, is_exclusive=server != "xrootd")
        report.orphans = len(referee.temporaries("campaign"))
        referee.calm_down()
        if server != "door":
            # The listings of nginx leave out what begins with a dot.
            report.problems += _clean_up(context, referee, jobs[0])
        report.requests, report.restarts = referee.requests, referee.restarts
        if server == "embedded" and operations >= _ENOUGH_FOR_EVERY_ROW:
            report.problems += [f"no failure met the row {name}" for name in report.rows_never_hit]
    report.seconds = time.monotonic() - started
    return report


@contextlib.contextmanager
def _referee(server: str, seed: int, folder: Path) -> Iterator[Referee]:
    if server == "embedded":
        with EmbeddedDcache(limiter=False) as dcache:
            yield EmbeddedReferee(dcache, folder)
    else:
        with StandInReferee.run(server, seed, folder) as referee:
            yield referee


def _last_look(
    referee: Referee, number: int, states: dict[str, str], haunted: dict[str, list[str]]
) -> list[str]:
    """Compare all that a worker believes with all that is there."""
    there = referee.names(f"campaign/p{number}")
    there = {name: state for name, state in there.items() if not _is_temporary(name)}
    believed = {name: state for name, state in states.items() if state not in (ABSENT, DIRECTORY)}
    problems = []
    for name in sorted(there.keys() | believed.keys()):
        allowed = haunted.get(name, [states.get(name, ABSENT)])
        if (found := there.get(name, ABSENT)) not in allowed:
            problems.append(f"at the end p{number}/{name} holds {found} and not {' or '.join(allowed)}")
    return problems


def _judge_races(referee: Referee, told: list[Told], *, is_exclusive: bool) -> list[str]:
    """Of those who create one name one may win; who replaces it last has it, and nobody who failed does."""
    problems = []
    there = referee.names("campaign/shared")
    by_name: dict[str, list[Told]] = {}
    for one in told:
        by_name.setdefault(one.step.names[0], []).append(one)
    for name, every in by_name.items():
        winners = [one.written for one in every if not one.outcome.error]
        perhaps = [one.written for one in every if one.outcome.error in _UNKNOWN]
        found = there.get(name, ABSENT)
        allowed = winners or [*perhaps, ABSENT]
        if every[0].step.kind == "race to overwrite":
            allowed = [*winners, *perhaps] if winners else allowed
        elif len(winners) > 1 and is_exclusive:
            problems.append(f"{len(winners)} processes were told that they created {name}")
        if found not in allowed:
            said = [one.outcome.error or "ok" for one in every]
            problems.append(f"shared/{name} holds {found}, and {', '.join(said)} was said")
    problems += [
        f"shared/{name} is {RUIN}" for name in there if there[name] == RUIN and not _is_temporary(name)
    ]
    return problems


def _is_temporary(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".dcb-")


def _clean_up(context: Any, referee: Referee, job: WorkerJob) -> list[str]:
    """Remove what the workers, which have ended, left; return what is still there."""
    referee.renew(job.process)
    process = context.Process(target=remove_what_is_left, args=(job.environment, job.url))
    process.start()
    process.join()
    left = referee.temporaries("campaign")
    return [f"after the clean-up there still is {name}" for name in left]
