"""What a Butler's calls cost, with the datastore of this package and with its own.

The registry is an SQLite file beside the client; what is measured is what the calls ask of the door. Caching
is off, as files that are in the cache are not asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from .formats import (
    document_bytes_needed,
    make_document,
    make_table,
    table_bytes_needed,
)
from .row import Claim, Row
from .work import Work

__all__ = ("ROWS",)

_KB = 1000
_MB = 1000**2
_OURS, _UPSTREAM = "butler-ours", "butler-upstream"
_File = tuple[Callable[[Work], bytes] | None, Callable[[bytes], int] | None]
_DOCUMENT: _File = (make_document, document_bytes_needed)
_TABLE: _File = (make_table, table_bytes_needed)
_NOTHING: _File = (None, None)


def _row(
    name: str, title: str, work: Work, most: int, file: _File = _NOTHING, group: str = "whole files"
) -> Row:
    """A row for which this package may send so many requests."""
    claims = (Claim("requests", most, client=_OURS), Claim("refused", 0, client=_OURS))
    return Row(
        f"butler-{name}",
        f"Butler: {title}",
        work,
        (_OURS, _UPSTREAM),
        ("embedded",),
        claims,
        *file,
        group=group,
        kinds=("webdav", "s3"),
    )


ROWS = (
    _row(
        "stored",
        "stored_many of 200 datasets",
        Work("exists_many", 1, 1, batch=200, directory_count=1),
        1,
        group="names",
    ),
    _row(
        "column",
        "get one column of ten of a table of 8 MB, 4 times",
        Work("column", 8 * _MB, 4, files=2),
        16,
        _TABLE,
        group="parts of files",
    ),
    _row("put", "put 50 documents of 2 kB", Work("put", 2 * _KB, 50), 100),
    _row("get", "get 50 documents of 2 kB", Work("get", 2 * _KB, 50, files=50), 100, _DOCUMENT),
    _row("ingest", "ingest 50 files of 20 kB in one call", Work("put", 20 * _KB, 1, batch=50), 100),
    # A listing tells which of them are there.
    _row("prune", "pruneDatasets of 100", Work("delete", 1, 1, batch=100), 101, group="names"),
    _row(
        "rows",
        "get the component rowcount of a table of 8 MB, 4 times",
        Work("header", 8 * _MB, 4, files=2),
        12,
        _TABLE,
        group="parts of files",
    ),
)
