"""What is measured at an S3 server."""

from __future__ import annotations

import dataclasses

from .row import FASTEST, Claim, Row
from .work import Work

__all__ = ("ROWS",)

_KB = 1000
_MIB = 1024**2
_GIB = 1024**3
_SERVERS = ("seaweedfs", "seaweedfs-tls")
_ALL = ("ours", "path", "boto3", "s3fs", "awscrt", "obstore", "rclone", "upstream")

# A throughput of at least 0.9 x the best's is a time of at most 1 / 0.9 of the best's.
_LARGE = (
    Claim("wall", 1 / 0.9, FASTEST),
    Claim("cpu", 1.2, FASTEST),
    Claim("wall", 0.5, "upstream"),
)
_SMALL = (Claim("wall", 0.5, "upstream"),)

ROWS = tuple(
    dataclasses.replace(row, kinds=("s3",))
    for row in (
        Row("s3-get-1GiB", "S3: GET 1 GiB to a file", Work("get", _GIB, sink="file"), _ALL, _SERVERS, _LARGE),
        Row("s3-put-1GiB", "S3: PUT 1 GiB from a file", Work("put", _GIB), _ALL, _SERVERS, _LARGE),
        Row(
            "s3-small-get",
            "S3: GET 1000 x 100 kB, 8 threads",
            Work("get", 100 * _KB, 1000, 8, sink="memory"),
            _ALL,
            _SERVERS,
            _SMALL,
        ),
        Row(
            "s3-small-put",
            "S3: PUT 1000 x 100 kB, 8 threads",
            Work("put", 100 * _KB, 1000, 8),
            _ALL,
            _SERVERS,
            _SMALL,
        ),
        Row(
            "s3-memory",
            "S3: memory: open wb, 10 GB in 1 MiB writes",
            Work("write_sequential", 10_000_000 * _KB, piece_bytes=_MIB),
            ("ours",),
            ("seaweedfs",),
            (Claim("peak", 64 * _MIB),),
        ),
        Row(
            "s3-deletes",
            "S3: remove 10,000 objects",
            Work("delete", 1 * _KB, batch=10_000),
            ("ours", "boto3", "s3fs", "obstore", "upstream"),
            ("seaweedfs",),
            (Claim("requests", 10), Claim("wall", 1.0, "upstream")),
        ),
    )
)
