"""Parts of files: what they cost in requests, bytes and time."""

from __future__ import annotations

from .formats import archive_bytes_needed, make_archive, make_table, table_bytes_needed
from .row import Claim, Row
from .work import Work

__all__ = ("ROWS",)

_KB = 1000
_MB = 1000**2
_MIB = 1024**2
_GIB = 1024**3
_DCACHE_LIKE = ("embedded", "embedded-tls")
_GROUP = "parts of files"


def _few(requests: int) -> tuple[Claim, ...]:
    return (Claim("requests", requests), Claim("bytes", 1.2))


ROWS = (
    Row(
        "random-200",
        "200 random reads of 16 kB in 110 MB",
        Work("read_random", 110 * _MB, 200, piece_bytes=16 * _KB),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        (Claim("door", 1), Claim("connections", 1), Claim("pool", 200)),
        group=_GROUP,
    ),
    Row(
        "vector-200",
        "the same in one call",
        Work("read_vector", 110 * _MB, batch=200, piece_bytes=16 * _KB),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        (Claim("door", 1), Claim("connections", 1), Claim("pool", 1)),
        group=_GROUP,
    ),
    Row(
        "sequential-110MB",
        "110 MB from open rb in reads of 64 kB",
        Work("read_sequential", 110 * _MB, piece_bytes=64 * 1024),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        (Claim("door", 1), Claim("pool", 16)),
        group=_GROUP,
    ),
    Row(
        "vector-100",
        "100 ranges of 64 kB in 1 GiB, in one call",
        Work("read_vector", _GIB, batch=100, piece_bytes=64 * 1024),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        (Claim("requests", 3), Claim("wall", 0.1)),
        group=_GROUP,
    ),
    Row(
        "random-100",
        "100 ranges of 64 kB in 1 GiB, one at a time",
        Work("read_random", _GIB, 100, piece_bytes=64 * 1024),
        ("ours", "curl", "upstream"),
        _DCACHE_LIKE,
        (Claim("connections", 1), Claim("p50", 0.002)),
        group=_GROUP,
    ),
    Row(
        "two-1kB",
        "two reads of 1 kB in 1 MiB",
        Work("read_random", _MIB, 2, piece_bytes=_KB),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        _few(3),
        group=_GROUP,
    ),
    Row(
        "twenty-4kB",
        "20 random reads of 4 kB in one cat_ranges",
        Work("read_scattered", 20 * _MIB, batch=20, piece_bytes=4 * _KB),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        _few(3),
        group=_GROUP,
    ),
    Row(
        "twenty-4kB-open",
        "20 random reads of 4 kB through open",
        Work("read_random", 20 * _MIB, 20, piece_bytes=4 * _KB),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        _few(21),
        group=_GROUP,
    ),
    Row(
        "column",
        "one column of ten in an 80 MB Parquet file of one row group",
        Work("column", 80 * _MB),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        _few(4),
        make_table,
        table_bytes_needed,
        group=_GROUP,
    ),
    # pyarrow opens such a file twice, and asks three times before whether it is one.
    Row(
        "column-by-name",
        "the same, by name through pyarrow and fsspec",
        Work("column_by_name", 80 * _MB),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        (Claim("bytes", 1.2),),
        make_table,
        table_bytes_needed,
        group=_GROUP,
    ),
    Row(
        "member",
        "one member of 10 kB in a 20 MB zip file",
        Work("member", 20 * _MB),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        _few(4),
        make_archive,
        archive_bytes_needed,
        group=_GROUP,
    ),
)
