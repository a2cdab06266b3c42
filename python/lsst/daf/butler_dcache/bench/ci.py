"""Five minutes on any machine: requests, connections and memory, which do not depend on how fast it is.

The first rows are the request table: what each operation costs this package, and what it costs
`lsst.resources`. Small files at the embedded dCache, some at a door and pools that are programs of their own,
and at an S3 server; memory with files of which little may ever be held.
"""

from __future__ import annotations

from .formats import (
    archive_bytes_needed,
    make_archive,
    make_image,
    make_table,
    needs_of_image,
    table_bytes_needed,
)
from .goals import goals
from .row import Claim, Row
from .work import Step, Work

__all__ = ("ROWS",)

_KB = 1000
_MB = 1000**2
_MIB = 1024**2
_TABLE = ("ours", "upstream")
_DCACHE = ("embedded",)
_MEMORY_BYTES = 48 * _MIB
_MEMORY_FILE_BYTES = 256 * _MIB


def _against_upstream(name: str, title: str, work: Work, *more: Claim, group: str = "whole files") -> Row:
    """A line of the request table."""
    return Row(
        f"ci-{name}",
        title,
        work,
        _TABLE,
        _DCACHE,
        (*goals(work), Claim("door", 1.0, "upstream"), Claim("refused", 0), *more),
        group=group,
    )


_IMAGE = 12 * _MB
_PARTS = "parts of files"


def _part(operation: str, title: str, size: int, *more: Claim) -> Row:
    make, needs = {
        "column": (make_table, table_bytes_needed),
        "member": (make_archive, archive_bytes_needed),
    }.get(operation, (make_image, needs_of_image(operation)))
    work = Work(operation, size, 2, files=2)
    row = _against_upstream(operation, title, work, Claim("connections", 2), *more, group=_PARTS)
    return Row(row.name, row.title, work, row.peers, row.targets, row.claims, make, needs, _PARTS)


_QUANTUM = Work(
    "mix",
    0,
    2,
    steps=(
        Step("exists_many", 1, 4),
        Step("get", 2 * _MB),
        Step("get", 20 * _KB, 4),
        Step("put", 2 * _MB),
        Step("put", 20 * _KB, 3),
    ),
)
_REQUESTS = (
    _against_upstream("get", "GET 20 x 2 kB", Work("get", 2 * _KB, 20, sink="memory")),
    _against_upstream("get-large", "GET 4 x 5 MB to files", Work("get", 5 * _MB, 4, sink="file")),
    _against_upstream("put", "PUT 20 x 2 kB", Work("put", 2 * _KB, 20)),
    _against_upstream("put-large", "PUT 4 x 5 MB", Work("put", 5 * _MB, 4)),
    _against_upstream(
        "random",
        "20 random reads of 4 kB of 20 MB",
        Work("read_random", 20 * _MB, 20, piece_bytes=4 * _KB),
        Claim("bytes", 1.2),
        Claim("connections", 1),
        group=_PARTS,
    ),
    _against_upstream(
        "scattered",
        "20 random reads of 4 kB of 20 MB in one cat_ranges",
        Work("read_scattered", 20 * _MB, 1, batch=20, piece_bytes=4 * _KB),
        Claim("bytes", 1.2),
        Claim("connections", 1),
        group=_PARTS,
    ),
    _part("header", "the header of a FITS file of 12 MB", _IMAGE, Claim("bytes", 4.0)),
    _part("hdu", "one of three planes of a FITS file of 12 MB", _IMAGE, Claim("bytes", 1.2)),
    _part("cutout", "100 x 100 pixels of a FITS file of 12 MB", _IMAGE, Claim("bytes", 4.0)),
    _part("column", "one column of ten of a Parquet file of 20 MB", 20 * _MB, Claim("bytes", 1.2)),
    _part("member", "one member of 10 kB of a zip file of 20 MB", 20 * _MB, Claim("bytes", 1.2)),
    _against_upstream("exists", "is a file there? 20 times", Work("look", 1, 20, files=4), group="names"),
    _against_upstream(
        "exists-many",
        "are 200 files in 10 directories there?",
        Work("exists_many", 1, 1, batch=200, directory_count=10),
        group="names",
    ),
    _against_upstream(
        "walk",
        "walk 100 files in 10 directories",
        Work("walk", 1, 1, batch=100, directory_count=10),
        group="names",
    ),
    _against_upstream(
        "remove-many", "remove 100 files in one call", Work("delete", 1, 1, batch=100), group="names"
    ),
    _against_upstream("remove", "remove 10 files", Work("remove", 1, 10), group="names"),
    _against_upstream("rename", "rename 10 files", Work("rename", 1, 10), group="names"),
    _against_upstream("quantum", "2 quanta: look, read 5, write 4", _QUANTUM, group="mixes"),
)


def _memory(operation: str, title: str, piece: int = 0) -> Row:
    work = Work(operation, _MEMORY_FILE_BYTES, piece_bytes=piece)
    return Row(f"ci-memory-{operation}", title, work, ("ours",), ("door",), (Claim("peak", _MEMORY_BYTES),))


_CONNECTIONS = Work("get", 100 * _KB, 60, 4)
_SECRET = Row(
    "ci-connections",
    "GET 60 x 100 kB, 4 at a time, TLS: connections are kept, sessions resumed",
    _CONNECTIONS,
    ("ours",),
    ("embedded-tls",),
    (*goals(_CONNECTIONS), Claim("connections", 8), Claim("handshakes", 8)),
)
_S3_MANY = Work("get", 100 * _KB, 20, 4, sink="memory")
_S3_DELETES = Work("delete", 1 * _KB, 1, batch=500)

ROWS = (
    *_REQUESTS,
    _SECRET,
    _memory("get", "memory: GET 256 MiB"),
    _memory("put", "memory: PUT 256 MiB"),
    _memory("read_sequential", "memory: open rb, 256 MiB in 1 MiB reads", _MIB),
    _memory("write_sequential", "memory: open wb, 256 MiB in 1 MiB writes", _MIB),
    Row(
        "ci-s3-get",
        "S3: GET 20 x 100 kB",
        _S3_MANY,
        ("ours", "boto3"),
        ("seaweedfs",),
        (Claim("requests", _S3_MANY.count), Claim("requests", 1.0, "boto3")),
        kinds=("s3",),
    ),
    Row(
        "ci-s3-delete",
        "S3: remove 500 objects",
        _S3_DELETES,
        ("ours", "upstream"),
        ("seaweedfs",),
        (Claim("requests", 1), Claim("requests", 1.0, "upstream")),
        group="names",
        kinds=("s3",),
    ),
    Row(
        "ci-s3-memory",
        "S3: memory: open wb, 256 MiB in 1 MiB writes",
        Work("write_sequential", _MEMORY_FILE_BYTES, piece_bytes=_MIB),
        ("ours",),
        ("seaweedfs",),
        (Claim("peak", 64 * _MIB),),
        kinds=("s3",),
    ),
)
