"""The suites: rows that are run together, the most telling first.

`field`
    What a facility wants to know of its doors: files as large as those of Data Preview 1, parts of them,
    names, mixes, arrivals, a curve, and a Butler; by the clients that come closest. Five minutes are enough
    for each row several times.
`thorough`
    The same by all clients, with more points of curves, more calls of a Butler and larger files, for an hour.
`figures`
    All claims of this package: its data plane, its pacing, its S3 client.
`engines`
    The measurements behind two decisions: which HTTP engine, and which way of uploading.
`ci`
    What holds on any machine.
"""

from __future__ import annotations

from dataclasses import replace

from . import (
    arrivals,
    butler_rows,
    ci,
    concurrency,
    crowd,
    engines,
    field,
    mixes,
    names,
    overhead,
    partial_reads,
    s3_rows,
    transfers,
    upload_ways,
)
from .row import Row

__all__ = ("SUITES",)

_CLOSEST = frozenset(
    ("ours", "path", "upstream", "curl", "butler-ours", "butler-upstream", "nothing", "boto3", "obstore")
)
"""Starting all clients takes most of a few minutes."""

_FIELD: tuple[Row, ...] = (
    *field.WHOLE[:2],
    field.PARTS[0],
    field.WHOLE[2],
    mixes.ROWS[0],
    *names.ROWS[:2],
    field.WHOLE[3],
    field.PARTS[1],
    *arrivals.ROWS[:2],
    *concurrency.ROWS[:3],
    butler_rows.ROWS[0],
    *field.WHOLE[4:],
    *field.PARTS[2:],
    *names.ROWS[2:],
    butler_rows.ROWS[1],
    *mixes.ROWS[1:],
    *overhead.ROWS,
)

SUITES: dict[str, tuple[Row, ...]] = {
    "field": tuple(
        replace(row, peers=tuple(peer for peer in row.peers if peer in _CLOSEST)) for row in _FIELD
    ),
    "thorough": (
        *_FIELD,
        *butler_rows.ROWS[2:],
        *concurrency.ROWS[3:],
        *arrivals.ROWS[2:],
        *field.LARGE,
    ),
    "figures": (*transfers.ROWS, *partial_reads.ROWS, *crowd.ROWS, *s3_rows.ROWS, *overhead.ROWS),
    "engines": (*engines.ROWS, *upload_ways.ROWS),
    "ci": (*ci.ROWS, butler_rows.ROWS[0], butler_rows.ROWS[2]),
}
"""Rows by the name of their suite."""
