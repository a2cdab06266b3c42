"""All rows, and how they are run: one server after the other, each started once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from . import crowd, engines, partial_reads, s3_rows, transfers, upload_ways
from .measure import Result, measure
from .processes import MissingServerError
from .row import Row
from .servers import TARGETS, start

__all__ = ("ENGINES", "FIGURES", "run", "select")

FIGURES: tuple[Row, ...] = (*transfers.ROWS, *partial_reads.ROWS, *crowd.ROWS, *s3_rows.ROWS)
ENGINES: tuple[Row, ...] = (*engines.ROWS, *upload_ways.ROWS)


def select(rows: Sequence[Row], names: Sequence[str], targets: Sequence[str], factor: float = 1) -> list[Row]:
    """Return some of the rows, against some of the servers.

    Parameters
    ----------
    rows : `~collections.abc.Sequence` [`~.row.Row`]
        All of them.
    names : `~collections.abc.Sequence` [`str`]
        Which ones, by name or by the beginning of the name; all if there are none.
    targets : `~collections.abc.Sequence` [`str`]
        Which servers; those that a row wants if there are none.
    factor : `float`, optional
        Of sizes and numbers.

    Returns
    -------
    rows : `list` [`~.row.Row`]
        Those that have at least one server.

    Raises
    ------
    ValueError
        If a name or a server is not known, or nothing is left.
    """
    for name in names:
        if not any(row.name.startswith(name) for row in rows):
            raise ValueError(f"no row is called {name}; there are {', '.join(row.name for row in rows)}")
    for target in targets:
        if target not in TARGETS:
            raise ValueError(f"no server is called {target}; there are {', '.join(TARGETS)}")
    chosen = [row for row in rows if not names or row.name.startswith(tuple(names))]
    if targets:
        chosen = [
            replace(row, targets=tuple(name for name in row.targets if name in targets)) for row in chosen
        ]
    left = [row.scaled(factor) for row in chosen if row.targets]
    if not left:
        raise ValueError("none of these rows is measured against these servers")
    return left


def run(
    rows: Sequence[Row],
    *,
    repetitions: int,
    seed: int,
    tell: Callable[[str], None],
    keep: Callable[[Result], None],
) -> list[str]:
    """Measure rows.

    Parameters
    ----------
    rows : `~collections.abc.Sequence` [`~.row.Row`]
        What.
    repetitions : `int`
        How often each peer does each.
    seed : `int`
        Of the order.
    tell : `~collections.abc.Callable`
        Is told what is going on.
    keep : `~collections.abc.Callable`
        Takes each result as soon as it is there, so that an interrupted run has some.

    Returns
    -------
    problems : `list` [`str`]
        Servers that are not here and clients that failed; empty if all is well.
    """
    draw = random.Random(seed)
    problems = []
    for name in TARGETS:
        todo = [row for row in rows if name in row.targets]
        if not todo:
            continue
        try:
            with start(name) as target:
                tell(f"{name}: {target.version}")
                for row in todo:
                    result = measure(row, target, repetitions=repetitions, tell=tell, draw=draw)
                    keep(result)
                    problems += [
                        f"{row.name} on {name}, {peer} {note}"
                        for peer, notes in result.notes.items()
                        for note in notes
                        if note.startswith("failed:")
                    ]
                    target.clear("")
        except MissingServerError as error:
            problems.append(f"{name}: {error}")
            tell(problems[-1])
    return problems
