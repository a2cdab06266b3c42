"""Parts of files: what they cost in requests, bytes and time."""

from __future__ import annotations

import importlib
import io
import random
import struct
import zipfile
from typing import Any

from .row import Claim, Row
from .work import Work, contents

__all__ = ("ROWS", "make_archive", "make_table")

_KB = 1000
_MB = 1000**2
_MIB = 1024**2
_GIB = 1024**3
_DCACHE_LIKE = ("embedded", "embedded-tls")
_COLUMNS = 10
_MEMBER_BYTES = 10_000


def make_table(work: Work) -> bytes:
    """Return a Parquet file of one row group and ten columns of equal size.

    Parameters
    ----------
    work : `~.work.Work`
        Says how large the file shall be.

    Returns
    -------
    data : `bytes`
        The file; without compression, so that a tenth of it is one column.
    """
    pyarrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    rows = work.size_bytes // (8 * _COLUMNS)
    draw = random.Random(work.seed)
    columns = {
        f"c{number}": pyarrow.Array.from_buffers(
            pyarrow.float64(), rows, [None, pyarrow.py_buffer(contents(rows * 8, draw.randrange(2**30)))]
        )
        for number in range(_COLUMNS)
    }
    out = io.BytesIO()
    parquet.write_table(
        pyarrow.table(columns), out, compression="none", use_dictionary=False, row_group_size=rows
    )
    return out.getvalue()


def make_archive(work: Work) -> bytes:
    """Return a zip file of members of 10 kB, stored.

    Parameters
    ----------
    work : `~.work.Work`
        Says how large the file shall be.

    Returns
    -------
    data : `bytes`
        The file.
    """
    out = io.BytesIO()
    member = contents(_MEMBER_BYTES)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for number in range(max(2, work.size_bytes // _MEMBER_BYTES)):
            archive.writestr(f"member-{number:04d}", member)
    return out.getvalue()


def table_bytes_needed(data: bytes) -> int:
    """Return how many bytes of a Parquet file its fourth column takes, with the footer that says where.

    Parameters
    ----------
    data : `bytes`
        The file.

    Returns
    -------
    needed : `int`
        Bytes.
    """
    parquet: Any = importlib.import_module("pyarrow.parquet")
    column = parquet.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(3)
    footer: int = struct.unpack("<I", data[-8:-4])[0]
    return int(column.total_compressed_size) + footer + 8


def archive_bytes_needed(data: bytes) -> int:
    """Return how many bytes of a zip file one member takes, with the directory that says where.

    Parameters
    ----------
    data : `bytes`
        The file.

    Returns
    -------
    needed : `int`
        Bytes.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.start_dir
    return len(data) - start + _MEMBER_BYTES


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
    ),
    Row(
        "vector-200",
        "the same in one call",
        Work("read_vector", 110 * _MB, 200, piece_bytes=16 * _KB),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        (Claim("door", 1), Claim("connections", 1), Claim("pool", 1)),
    ),
    Row(
        "sequential-110MB",
        "110 MB from open rb in reads of 64 kB",
        Work("read_sequential", 110 * _MB, piece_bytes=64 * 1024),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        (Claim("door", 1), Claim("pool", 16)),
    ),
    Row(
        "vector-100",
        "100 ranges of 64 kB in 1 GiB, in one call",
        Work("read_vector", _GIB, 100, piece_bytes=64 * 1024),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        (Claim("requests", 3), Claim("wall", 0.1)),
    ),
    Row(
        "random-100",
        "100 ranges of 64 kB in 1 GiB, one at a time",
        Work("read_random", _GIB, 100, piece_bytes=64 * 1024),
        ("ours", "curl", "upstream"),
        _DCACHE_LIKE,
        (Claim("connections", 1), Claim("each", 0.002)),
    ),
    Row(
        "two-1kB",
        "two reads of 1 kB in 1 MiB",
        Work("read_random", _MIB, 2, piece_bytes=_KB),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        _few(3),
    ),
    Row(
        "twenty-4kB",
        "20 random reads of 4 kB in one cat_ranges",
        Work("read_scattered", 20 * _MIB, 20, piece_bytes=4 * _KB),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        _few(3),
    ),
    Row(
        "twenty-4kB-open",
        "20 random reads of 4 kB through open",
        Work("read_random", 20 * _MIB, 20, piece_bytes=4 * _KB),
        ("ours", "upstream"),
        _DCACHE_LIKE,
        _few(21),
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
    ),
)
