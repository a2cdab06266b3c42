"""``dcache-butler bench compare``."""

from __future__ import annotations

__all__ = ("compare_command",)

import json
import math
import sys
from pathlib import Path

import click

from ..bench.compare import Change, Comparison, compare
from ..bench.document import Document
from ..bench.results import ResultsError, read

_BAD_INPUT = 2


@click.command(name="compare")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option(
    "--threshold",
    type=click.FloatRange(0),
    default=0.1,
    show_default=True,
    help="Share up to which times, throughputs, memory and connections may change.",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def compare_command(before: Path, after: Path, threshold: float, as_json: bool) -> None:
    """Say what changed from one run to another.

    BEFORE and AFTER are directories that `bench run` wrote, or their results.json. Times count as changed if
    they differ by more than the threshold and by more than their repetitions scatter; requests and failures
    if they differ at all.

    The exit status is 1 if something is worse, 0 if nothing is, 2 if the runs cannot be compared.
    """
    if math.isnan(threshold):  # nothing would ever be worse
        raise click.BadParameter("nan is no number to compare with", param_hint="--threshold")
    try:
        records = [read(path) for path in (before, after)]
    except ResultsError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(_BAD_INPUT)
    try:
        comparison = compare(Document.of(records[0]), Document.of(records[1]), threshold)
    except Exception as error:
        # Whatever a file that was changed by hand leads to, it is no change for the worse.
        what = f"{type(error).__name__}: {error}"
        click.echo(f"Error: {before} or {after} is not as bench run writes it ({what})", err=True)
        sys.exit(_BAD_INPUT)
    if not comparison.figures:
        why = "; ".join(comparison.remarks)
        click.echo(f"Error: the two runs have no figure in common{f': {why}' if why else ''}", err=True)
        sys.exit(_BAD_INPUT)
    if as_json:
        click.echo(json.dumps(comparison.to_json(), indent=1))
    else:
        click.echo(_text(comparison), nl=False)
    sys.exit(1 if comparison.of("worse") else 0)


def _text(comparison: Comparison) -> str:
    lines = [f"note: {remark}" for remark in comparison.remarks]
    for verdict in ("worse", "better"):
        changes = comparison.of(verdict)
        if changes:
            lines += ["", f"{verdict}:", *(f"  {_line(change)}" for change in changes)]
    worse, better = (len(comparison.of(verdict)) for verdict in ("worse", "better"))
    lines += [
        "",
        f"{len(comparison.figures)} figures compared: {worse} worse, {better} better "
        f"(by more than {100 * comparison.threshold:g} % and more than noise).",
    ]
    return "\n".join(lines).strip() + "\n"


def _line(change: Change) -> str:
    line = (
        f"{change.row} on {change.target}, {change.peer}: {change.quantity} {change.before} → {change.after}"
    )
    if change.ratio is None:
        return line
    interval = "" if change.low is None else f" ({change.low:.3g}–{change.high:.3g})"
    return f"{line}, {change.ratio:.3g} ×{interval}"
