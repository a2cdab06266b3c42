"""Options of ``dcache-butler bench run`` for many workers."""

from __future__ import annotations

__all__ = ("crew_for", "executor_options")

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from ..bench.processes import default_folder
from ..bench.spread import Crew, CrewError
from ..bench.stopping import StoppedError

_WORKERS = 2


def executor_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command."""
    for option in (
        click.option(
            "--wait",
            type=click.FloatRange(1),
            default=900.0,
            show_default=True,
            help="Seconds for the workers to come, which are not part of the budget.",
        ),
        click.option(
            "--parsl-config",
            type=click.Path(exists=True, dir_okay=False),
            help="Python file that defines config, a parsl.config.Config; without it, workers run here.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(1),
            help=f"How many of Parsl's workers do the work of each row, all at once.  [default: {_WORKERS}]",
        ),
        click.option(
            "--executor",
            type=click.Choice(("local", "parsl")),
            default="local",
            show_default=True,
            help="Who puts the load on: one process here, or workers wherever Parsl starts them.",
        ),
    ):
        function = option(function)
    return function


@contextlib.contextmanager
def crew_for(
    executor: str, workers: int | None, parsl_config: str | None, wait: float, **_: Any
) -> Iterator[Crew | None]:
    """Have the workers that the options ask for; `None` if they ask for none."""
    if executor == "local":
        if workers is not None or parsl_config is not None:
            raise click.UsageError("--workers and --parsl-config are for --executor parsl")
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="dcache-bench-", dir=default_folder()) as folder:
        config = None if parsl_config is None else Path(parsl_config)
        crew = Crew(workers or _WORKERS, Path(folder), config, wait)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(crew)
            except CrewError as error:
                raise click.ClickException(str(error)) from error
            except StoppedError as error:
                click.echo(f"nothing was measured: {error.reason}", err=True)
                sys.exit(error.status)
            yield crew
