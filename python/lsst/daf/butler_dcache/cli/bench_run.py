"""``dcache-butler bench run``."""

from __future__ import annotations

__all__ = ("run_command",)

import contextlib
import functools
import importlib.util
import itertools
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..bench.allowance import Guard
from ..bench.document import Document
from ..bench.environment import configuration, describe
from ..bench.link import Link
from ..bench.processes import default_folder
from ..bench.progress import Progress
from ..bench.real_target import is_url
from ..bench.reports import ReportError, write_reports
from ..bench.result import missed
from ..bench.results import SCHEMA, document
from ..bench.row import Row
from ..bench.servers import start
from ..bench.stopping import Stop
from ..bench.suite import Run, select
from ..bench.suites import SUITES
from ..bench.summary import markdown
from ..errors import DcacheError
from .bench_spread import crew_for, executor_options

_CLEANING_SECONDS = 50.0
_NEEDED = {"hdrh": "hdrhistogram", "matplotlib": "matplotlib"}
_FILES = ("results.json", "report.html", "summary.md", "results.csv")
_SHARE_OF_REPORTS = 0.05
"""Reports of an unfinished run may take so much of the time."""


def _finite(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """Refuse what compares with nothing, or never ends."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number to count with")
    return value


@click.command(name="run")
@click.argument("names", nargs=-1, metavar="[ROW]...")
@click.option(
    "--suite", type=click.Choice(sorted(SUITES)), help="Which rows; field, or all if rows are named."
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="A server that is started here, see bench list, or the URL of a directory of a real one; "
    "may be repeated.",
)
@click.option("--peer", "peers", multiple=True, help="Only this client; may be repeated.")
@click.option(
    "--level",
    "levels",
    multiple=True,
    type=click.Choice(("store", "path", "butler")),
    help="Only clients of this level; may be repeated.",
)
@click.option(
    "--budget",
    type=click.FloatRange(1, 7 * 86400),
    callback=_finite,
    default=300.0,
    show_default=True,
    help="Seconds for all.",
)
@click.option(
    "--repetitions",
    type=click.IntRange(1),
    help="Of each row; without it, until the intervals are narrower than 5 %.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the order of the clients.")
@click.option(
    "--scale",
    type=click.FloatRange(0, 1, min_open=True),
    callback=_finite,
    default=1.0,
    show_default=True,
    help="Of sizes and numbers; anything but 1 is a trial.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for results.json, report.html, summary.md and results.csv.",
)
@click.option("--rtt", type=float, help="Milliseconds that a link adds to a round trip (root, Linux).")
@click.option("--loss", type=float, default=0.0, show_default=True, help="Per cent of packets that it loses.")
@click.option("--bandwidth", type=float, help="Mbit/s that it lets through.")
@click.option(
    "--limiter/--no-limiter",
    default=True,
    show_default=True,
    help="Whether the embedded dCache limits its clients, as dCache 11.2 does.",
)
@click.option("--max-bytes", type=click.IntRange(1), help="That a real server is asked to carry.")
@click.option("--max-requests", type=click.IntRange(1), help="That a real server is asked.")
@click.option(
    "--max-rate",
    type=click.FloatRange(0, min_open=True),
    callback=_finite,
    help="Requests per second, likewise.",
)
@click.option(
    "--require",
    type=click.Choice(("counted", "all")),
    help="Exit with 1 if a figure is missed: one that does not depend on the machine, or any.",
)
@executor_options
def run_command(
    names: tuple[str, ...],
    suite: str | None,
    targets: tuple[str, ...],
    peers: tuple[str, ...],
    levels: tuple[str, ...],
    scale: float,
    out: Path | None,
    require: str | None,
    **options: Any,
) -> None:
    """Measure this client beside others, and report where the time goes.

    Clients take turns in a drawn order, each time with a new session; figures are compared within a
    repetition. Everything ends within twice the budget and a minute. A real server is used only below
    one new directory, which is removed again; see --max-bytes and its neighbours, and bench clean.

    The exit status is 1 if something went wrong, or a figure was missed that --require asks for, and 130
    after Ctrl-C. What had been measured by then is reported all the same.
    """
    _look_for_packages()
    begun = time.monotonic()
    arguments = {
        "rows": list(names),
        "suite": suite,
        "targets": list(targets),
        "peers": list(peers),
        "levels": list(levels),
        "scale": scale,
        "require": require,
        **options,
    }
    try:
        rows = select(_suite(suite, names), names, targets, scale, peers, levels)
        link = Link(options["rtt"], options["loss"], options["bandwidth"])
        settings = {url: configuration(url) for url in targets if is_url(url)}
    except (ValueError, DcacheError) as error:
        raise click.UsageError(str(error)) from error
    guard = Guard(
        **{
            name: options[name]
            for name in ("max_bytes", "max_requests", "max_rate")
            if options[name] is not None
        }
    )
    begin = functools.partial(start, link=link, limiter=options["limiter"], guard=guard)
    environment = {**describe(), "configuration": settings}
    if out is not None:
        _see_whose(out)
    with crew_for(**options) as crew:
        if crew is not None:
            environment["nodes"] = crew.nodes
            begun = time.monotonic()  # who is waited for costs no time of the budget
        progress = Progress(options["budget"])
        seconds = max(2 * options["budget"] - (time.monotonic() - begun), 1.0)
        with Stop(seconds, _CLEANING_SECONDS) as stop:
            with _scratch(stop) as folder:
                run = Run(
                    rows,
                    begin,
                    folder,
                    stop,
                    budget=options["budget"],
                    repetitions=options["repetitions"],
                    seed=options["seed"],
                    tell=progress.tell,
                    crew=crew,
                )
                report = _Report(run, out, environment, arguments)
                run.keep = report.keep
                report.write("it had only begun")
                run.measure()
            progress.end()
            misses = missed(rows, run.results, counted_only=require == "counted") if require else []
            run.problems += misses
            record = report.write(run.reason)
            if out is None:
                click.echo(markdown(Document.of(record)), nl=False)
            else:
                click.echo(
                    f"{out / 'report.html'}: {len(run.results)} rows measured, {len(run.skipped)} left out"
                )
    if stop.error is not None and not (stop.error.status == 1 and not run.reason):
        click.echo(f"not complete: {stop.error.reason}", err=True)
        sys.exit(stop.error.status)
    if run.problems or run.reason:
        for problem in run.problems:
            click.echo(f"problem: {problem}", err=True)
        sys.exit(1)


class _Report:
    """What is written to the directory, more than once while it grows."""

    def __init__(
        self, run: Run, out: Path | None, environment: dict[str, Any], arguments: dict[str, Any]
    ) -> None:
        self._run = run
        self._out = out
        self._environment = environment
        self._arguments = arguments
        self._next = 0.0

    def keep(self) -> None:
        """Write what there is, but not all the time."""
        if self._out is not None and time.monotonic() >= self._next:
            begun = time.monotonic()
            self.write("it is still going on, or was killed")
            spent = time.monotonic() - begun
            self._next = time.monotonic() + spent / _SHARE_OF_REPORTS

    def write(self, reason: str) -> dict[str, Any]:
        """Write everything, and return the document."""
        run = self._run
        record = document(
            run.results,
            environment=self._environment,
            arguments=self._arguments,
            targets=run.targets,
            problems=run.problems,
            skipped=run.skipped,
            reason=reason,
        )
        if self._out is not None:
            was_there = self._out.exists()
            try:
                write_reports(record, self._out)
            except ReportError as error:
                if not was_there:
                    with contextlib.suppress(OSError):
                        self._out.rmdir()
                raise click.ClickException(str(error)) from error
        return record


@contextlib.contextmanager
def _scratch(stop: Stop) -> Iterator[Path]:
    """Have a folder for everything that is not kept, temporary files of servers and clients among it."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="dcache-bench-", dir=default_folder()))
    except OSError as error:
        raise click.ClickException(
            f"no folder can be made in {default_folder()}: {error.strerror}"
        ) from error
    stop.watch(folder)
    earlier = os.environ.get("TMPDIR")
    try:
        folder.chmod(0o755)  # servers that are started by root run as nobody
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        yield folder
    finally:
        tempfile.tempdir = None
        del os.environ["TMPDIR"]
        if earlier is not None:
            os.environ["TMPDIR"] = earlier
        shutil.rmtree(folder, ignore_errors=True)


def _suite(name: str | None, names: tuple[str, ...]) -> list[Row]:
    """Rows of a suite; of all suites, each once, if it is rows that were named."""
    if name is None and names:
        rows: dict[str, Row] = {}
        for row in itertools.chain(*SUITES.values()):
            rows.setdefault(row.name, row)
        return list(rows.values())
    return list(SUITES[name or "field"])


def _see_whose(out: Path) -> None:
    """Refuse to write over files that are not those of an earlier run."""
    there = [name for name in _FILES if (out / name).exists()]
    if not there:
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if json.loads((out / "results.json").read_text()).get("schema") == SCHEMA:
            return
    raise click.UsageError(
        f"{out} has {', '.join(there)}, which no run of this program wrote; nothing was done"
    )


def _look_for_packages() -> None:
    missing = [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise click.ClickException(
            f"bench run needs {' and '.join(missing)}. Install them with\n"
            "    pip install 'lsst-daf-butler-dcache[bench]'"
        )
