"""Curves: what comes of more threads, and of larger files.

Each row is a point of one of two curves, and a report draws those of the same operation as one.
"""

from __future__ import annotations

from .goals import goals
from .row import Row
from .work import Work

__all__ = ("ROWS",)

_KB = 1000
_MB = 1000**2
_PEERS = ("ours", "upstream", "curl", "boto3")
_FILES = 100
_BYTES = 100 * _KB


def _row(operation: str, size: int, count: int, threads: int) -> Row:
    text = f"{size // _MB} MB" if size >= _MB else f"{size // _KB} kB"
    work = Work(operation, size, count, threads, sink="discard")
    return Row(
        f"curve-{operation}-{text.replace(' ', '')}-{threads}",
        f"{operation.upper()} {count} x {text}, {threads} at a time",
        work,
        _PEERS,
        ("embedded",),
        goals(work),
        group="concurrency",
        kinds=("webdav", "s3"),
    )


ROWS = (
    *(_row("get", _BYTES, _FILES, threads) for threads in (4, 1, 16)),
    *(_row("put", _BYTES, _FILES // 2, threads) for threads in (4, 1, 16)),
    *(_row("get", _BYTES, _FILES, threads) for threads in (2, 8)),
    *(_row("get", size, count, 4) for size, count in ((10 * _KB, 100), (_MB, 50), (10 * _MB, 10))),
)
"""The first three make a curve."""
