"""``dcache-butler bench simulate``."""

from __future__ import annotations

__all__ = ("command",)

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..bench.simulation.measurement import measure
from ..bench.simulation.queues import MissingSimpyError
from ..bench.simulation.report import summary, write
from ..bench.simulation.scenarios import FAULTS, PRESETS, Scenario, parse_fault
from ..bench.simulation.study import Study, study
from ..bench.simulation.times import DEFAULTS, ServiceTimesError, service_times
from ..bench.simulation.validation import TOLERANCE, table, validate

_MBIT = 1e6 / 8


@click.command(name="simulate")
@click.argument("preset", default="dr1", type=click.Choice(tuple(PRESETS)), metavar="[PRESET]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the report.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="The first of the seeds.")
@click.option(
    "--repetitions",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Simulations, each with a seed.",
)
@click.option(
    "--service-times",
    "times",
    default="embedded",
    show_default=True,
    metavar="FILE",
    help=f"How long requests take: {' or '.join(DEFAULTS)}, a file of --measure, or a results.json of a run.",
)
@click.option("--cores", type=click.IntRange(1), help="Cores that work.")
@click.option("--hosts", type=click.IntRange(1), help="Addresses that they share.")
@click.option("--doors", type=click.IntRange(1))
@click.option("--door-processors", type=click.IntRange(1), help="Of each door.")
@click.option("--pools", type=click.IntRange(1))
@click.option("--movers", type=click.IntRange(1), help="Mover slots of each pool.")
@click.option(
    "--pool-bandwidth", type=click.FloatRange(0, min_open=True), metavar="MBIT", help="Of each pool."
)
@click.option(
    "--host-bandwidth", type=click.FloatRange(0, min_open=True), metavar="MBIT", help="Of each host."
)
@click.option("--rtt", type=click.FloatRange(0), metavar="MS", help="Between clients and servers.")
@click.option("--tls/--no-tls", default=None, help="Whether connections are encrypted.")
@click.option("--limiter/--no-limiter", default=True, show_default=True, help="dCache's, at the doors.")
@click.option("--retry-after/--no-retry-after", default=None, help="Whether a 429 names a time (dCache 12).")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND[:N]@S+S",
    help=f"What goes wrong, and when, such as pool-down:3@20+60: {', '.join(FAULTS)}.",
)
@click.option(
    "--measure",
    "measured",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Measure the service times of the embedded dCache and write them; simulate nothing.",
)
@click.option("--validate", "validates", is_flag=True, help="Compare predictions with the embedded dCache.")
def command(
    preset: str,
    out: Path | None,
    seed: int,
    repetitions: int,
    times: str,
    faults: tuple[str, ...],
    measured: Path | None,
    validates: bool,
    limiter: bool,
    **changes: Any,
) -> None:
    """Simulate many clients, doors and pools, to see what a campaign asks and where it saturates.

    PRESET is dr1 (a data release of 3000 cores), crowd (64 processes of one host begin together) or
    door-restart. Nothing here is a measurement of dCache. Service times come from a file or from the embedded
    dCache.

    With --validate the simulation predicts saturation points of the embedded dCache, which are then measured;
    the exit status is 1 if one is off by more than 20 %.
    """
    try:
        if validates:
            points = validate(_tell)
            click.echo(table(points), nl=False)
            if not all(point.agrees for point in points):
                _tell(
                    f"not within {100 * TOLERANCE:.0f} %; on a machine that is busy, try again when it is not"
                )
                sys.exit(1)
            return
        if measured is not None:
            found = measure(_tell)
            measured.write_text(json.dumps(found.document(), indent=1) + "\n")
            return
        wanted = Study(
            _changed(preset, limiter, faults, changes),
            service_times(times),
            tuple(range(seed, seed + repetitions)),
        )
        document = study(wanted, _tell)
        document["command"] = {
            "preset": preset,
            "service_times": times,
            "seed": seed,
            "repetitions": repetitions,
        }
        click.echo(summary(document), nl=False)
        if out is not None:
            write(document, out)
    except (MissingSimpyError, ServiceTimesError, ModuleNotFoundError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(
            f"{error.filename or 'the measurement'}: {error.strerror or error}"
        ) from error


def _tell(text: str) -> None:
    click.echo(text, err=True)


def _changed(preset: str, limiter: bool, faults: tuple[str, ...], changes: dict[str, Any]) -> Scenario:
    """Return the preset with what was asked for instead."""
    scenario = PRESETS[preset]()
    given = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        if not math.isfinite(value):
            raise click.UsageError(f"--{name.replace('_', '-')} {value} is no number to count with")
    site: dict[str, Any] = {
        name: given[name]
        for name in ("doors", "door_processors", "pools", "movers", "tls", "retry_after")
        if name in given
    }
    if "pool_bandwidth" in given:
        site["pool_bytes_per_second"] = given["pool_bandwidth"] * _MBIT
    if "host_bandwidth" in given:
        site["host_bytes_per_second"] = given["host_bandwidth"] * _MBIT
    if "rtt" in given:
        site["round_trip_seconds"] = given["rtt"] / 1000
    if not limiter:
        site["limiter_rate"] = 0.0
    whole: dict[str, Any] = {name: given[name] for name in ("cores", "hosts") if name in given}
    if "cores" in whole and "hosts" not in whole:
        whole["hosts"] = max(1, round(scenario.hosts * whole["cores"] / scenario.cores))
    try:
        if faults:
            whole["faults"] = tuple(parse_fault(text) for text in faults)
        return replace(scenario, site=replace(scenario.site, **site), **whole)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
