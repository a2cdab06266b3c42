"""``dcache-butler bench``."""

from __future__ import annotations

__all__ = ("command",)

import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ..bench.campaign.campaign import run as run_campaign
from ..bench.campaign.kills import kill_writers
from ..bench.campaign.standins import STAND_INS
from ..bench.environment import describe
from ..bench.guards import measure_guards
from ..bench.measure import Result
from ..bench.peers.registry import PEERS
from ..bench.report import document, markdown
from ..bench.row import Row
from ..bench.servers import TARGETS
from ..bench.suite import ENGINES, FIGURES, run, select


@click.group(name="bench")
def command() -> None:
    """Measure this client beside others, against servers that are started for it.

    Everything runs on loopback. The servers are stand-ins: what is measured is the client, and no figure is
    dCache's.
    """


def _options(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.argument("names", nargs=-1, metavar="[ROW]..."),
        click.option("--target", "targets", multiple=True, help="Only this server; may be repeated."),
        click.option("--repetitions", type=click.IntRange(1), default=5, show_default=True),
        click.option("--seed", type=int, default=1, show_default=True, help="Of the order of the clients."),
        click.option(
            "--scale",
            type=click.FloatRange(0, 1, min_open=True),
            default=1.0,
            show_default=True,
            help="Of sizes and numbers; anything but 1 is a trial.",
        ),
        click.option(
            "--out",
            type=click.Path(dir_okay=False, path_type=Path),
            help="File for the results as JSON; the tables go to the same name with .md.",
        ),
    ):
        function = option(function)
    return function


@command.command(name="figures")
@_options
def figures(**options: Any) -> None:
    """Measure the rows of the table of figures, all of them or those named."""
    _measure(FIGURES, **options)


@command.command(name="engines")
@_options
def engines(**options: Any) -> None:
    """Measure what different HTTP engines cost."""
    _measure(ENGINES, **options)


@command.command(name="faults")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the operations and of the faults.")
@click.option("--operations", type=click.IntRange(1), default=2000, show_default=True)
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="With one a run is the same each time.",
)
@click.option("--restarts/--no-restarts", default=True, show_default=True, help="Whether servers crash, too.")
@click.option(
    "--server",
    type=click.Choice(("embedded", *STAND_INS)),
    default="embedded",
    show_default=True,
    help="The embedded dCache, or real servers: HAProxy and nginx, or XRootD.",
)
def faults(seed: int, operations: int, processes: int, restarts: bool, server: str) -> None:
    """Do random operations while everything goes wrong, and compare with what must be.

    Everything runs on loopback. The tables say what came of each kind of fault; whatever must not be is
    listed below them, and the exit status is 1 then. At real servers faults cannot be aimed: a share of the
    requests is refused or cut off, and the servers are killed and started again.
    """
    logging.getLogger("lsst.daf.butler_dcache").setLevel(logging.ERROR)
    report = run_campaign(
        seed=seed,
        operations=operations,
        processes=processes,
        restarts=restarts,
        server=server,
        tell=lambda text: click.echo(text, err=True),
    )
    click.echo(report.text(), nl=False)
    if report.problems:
        sys.exit(1)


@command.command(name="kills")
@click.option("--seed", type=int, default=1, show_default=True, help="Of what is written.")
@click.option("--kills", type=click.IntRange(1), default=500, show_default=True)
def kills(seed: int, kills: int) -> None:
    """Kill writers at random moments, and see that each name holds the old or the new file.

    The server is the embedded dCache, on loopback. The exit status is 1 if something is not as it must be.
    """
    report = kill_writers(seed=seed, kills=kills, tell=lambda text: click.echo(text, err=True))
    click.echo(report.text(), nl=False)
    if report.problems:
        sys.exit(1)


@command.command(name="guards")
@click.option("--pairs", type=click.IntRange(1), default=30, show_default=True, help="Turns of each way.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the order.")
@click.option(
    "--target",
    type=click.Choice(("unlimited", "door", "door-tls")),
    default="door",
    show_default=True,
    help="A server that limits nobody.",
)
def guards(pairs: int, seed: int, target: str) -> None:
    """Measure what all precautions against failures cost while nothing fails.

    The same work is done with them and without, turn by turn. The exit status is 1 if there
    are extra requests, or more CPU time than is wanted even at the lower end of the interval.
    """
    report = measure_guards(
        pairs=pairs, seed=seed, server=target, tell=lambda text: click.echo(text, err=True)
    )
    click.echo(report.text(), nl=False)
    if not report.is_within_limit:
        sys.exit(1)


@command.command(name="list")
def list_rows() -> None:
    """Say what can be measured: rows, servers and clients."""
    for title, table in (
        ("Rows", {row.name: f"{row.title} ({', '.join(row.targets)})" for row in (*FIGURES, *ENGINES)}),
        ("Servers", TARGETS),
        ("Clients", {name: entry.title for name, entry in PEERS.items()}),
    ):
        click.echo(f"{title}:")
        width = max(map(len, table))
        for name, text in table.items():
            click.echo(f"  {name.ljust(width)}  {text}")


def _measure(
    rows: Sequence[Row],
    *,
    names: tuple[str, ...],
    targets: tuple[str, ...],
    repetitions: int,
    seed: int,
    scale: float,
    out: Path | None,
) -> None:
    # The way out of a kill is the same as of any other error: servers stop, folders go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        chosen = select(rows, names, targets, scale)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    environment = describe()
    arguments = {"rows": list(names), "targets": list(targets), "scale": scale, "seed": seed}
    arguments["repetitions"] = repetitions
    results: list[Result] = []

    def keep(result: Result) -> None:
        results.append(result)
        if out is not None:
            write([])

    def write(problems: list[str]) -> None:
        assert out is not None
        record = document(results, environment, problems, arguments)
        out.write_text(json.dumps(record, indent=1) + "\n")
        out.with_suffix(".md").write_text(markdown(results, problems))

    problems = run(
        chosen, repetitions=repetitions, seed=seed, tell=lambda text: click.echo(text, err=True), keep=keep
    )
    if out is not None:
        write(problems)
    click.echo(markdown(results, problems), nl=False)
    if problems:
        sys.exit(1)
