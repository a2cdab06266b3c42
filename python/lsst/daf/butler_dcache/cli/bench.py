"""``dcache-butler bench``."""

from __future__ import annotations

__all__ = ("command",)

import logging
import sys
from collections.abc import Mapping

import click

from ..bench.campaign.campaign import run as run_campaign
from ..bench.campaign.kills import kill_writers
from ..bench.campaign.standins import STAND_INS
from ..bench.guards import measure_guards
from ..bench.peers.registry import PEERS
from ..bench.servers import TARGETS
from ..bench.suites import SUITES
from .bench_clean import clean_command
from .bench_compare import compare_command
from .bench_crossover import crossover_command
from .bench_run import run_command
from .bench_simulate import command as simulate_command


@click.group(name="bench")
def command() -> None:
    """Measure this client beside others, at servers that are started for it or at a real one.

    What is started here runs on loopback and is a stand-in: what is measured there is the client, and no
    figure is dCache's.
    """


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
    """Say what can be measured: rows by suite, servers and clients."""
    for name, rows in SUITES.items():
        _table(
            f"Rows of the suite {name}", {row.name: f"{row.title} ({', '.join(row.targets)})" for row in rows}
        )
    _table("Servers", TARGETS)
    _table("Clients", {name: f"{entry.title} [{entry.level}]" for name, entry in PEERS.items()})


def _table(title: str, table: Mapping[str, str]) -> None:
    click.echo(f"{title}:")
    width = max(map(len, table))
    for name, text in table.items():
        click.echo(f"  {name.ljust(width)}  {text}")


for each in (run_command, compare_command, crossover_command, simulate_command, clean_command):
    command.add_command(each)
