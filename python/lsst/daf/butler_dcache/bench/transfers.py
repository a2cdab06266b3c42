"""Whole files: large ones, small ones, and how much memory they take."""

from __future__ import annotations

from .row import Claim, Row
from .work import Work

__all__ = ("ROWS",)

_KB = 1000
_MIB = 1024**2
_GIB = 1024**3
_FAST = ("door", "door-tls", "xrootd", "xrootd-tls")
_REHEARSAL = ("rehearsal", "rehearsal-tls")

# A throughput of at least 0.85 x curl's is a time of at most 1 / 0.85 of curl's.
_LARGE_GET = (
    Claim("wall", 1.0, "curl", client="plane"),
    Claim("cpu", 1.15, "curl", client="plane"),
    Claim("wall", 1 / 0.85, "curl"),
    Claim("cpu_excess", 0.4, "curl"),
)
_LARGE_PUT = (
    Claim("wall", 1 / 0.95, "curl", client="plane"),
    Claim("cpu", 1.15, "curl", client="plane"),
    Claim("wall", 1 / 0.85, "curl"),
    Claim("cpu_excess", 0.4, "curl"),
)
_SMALL = (
    Claim("wall", 1.6, "curl"),
    Claim("cpu", 2.0, "curl"),
    Claim("wall", 1 / 3, "upstream"),
)
_LITTLE_MEMORY = (Claim("peak", 48 * _MIB),)
_LARGE_PEERS = ("ours", "plane", "curl", "upstream")
_SMALL_PEERS = ("ours", "path", "curl", "upstream")


def _memory(name: str, title: str, operation: str, size: int, piece: int = 0) -> Row:
    work = Work(operation, size, piece_bytes=piece)
    return Row(f"memory-{name}", f"memory: {title}", work, ("ours",), ("door",), _LITTLE_MEMORY)


def _one_after_the_other(size: int) -> Row:
    return Row(
        f"sequence-{size // _KB}kB",
        f"100 files of {size // _KB} kB, one after the other",
        Work("get", size, 100),
        ("ours", "curl", "upstream"),
        # Where a door takes 10 ms for a GET, as dCache's does, nobody's pacing is in the way.
        _REHEARSAL,
        (Claim("wall", 0.5, "curl"),),
    )


ROWS = (
    Row("get-1GiB", "GET 1 GiB to nowhere", Work("get", _GIB), _LARGE_PEERS, _FAST, _LARGE_GET),
    Row(
        "get-1GiB-file",
        "GET 1 GiB to a file",
        Work("get", _GIB, sink="file"),
        _LARGE_PEERS,
        _FAST,
        _LARGE_GET,
    ),
    Row(
        "get-1GiB-memory",
        "GET 1 GiB to bytes",
        Work("get", _GIB, sink="memory"),
        ("ours", "path", "upstream"),
        ("door", "door-tls"),
    ),
    Row("put-1GiB", "PUT 1 GiB from a file", Work("put", _GIB), _LARGE_PEERS, _FAST, _LARGE_PUT),
    _memory("get-1GiB", "GET 1 GiB", "get", _GIB),
    _memory("get-4GiB", "GET 4 GiB", "get", 4 * _GIB),
    _memory("put-1GiB", "PUT 1 GiB", "put", _GIB),
    _memory("put-4GiB", "PUT 4 GiB", "put", 4 * _GIB),
    _memory("rb-1GiB", "open rb, 1 GiB in 1 MiB reads", "read_sequential", _GIB, _MIB),
    _memory("rb-4GiB", "open rb, 4 GiB in 1 MiB reads", "read_sequential", 4 * _GIB, _MIB),
    _memory("wb-1GiB", "open wb, 1 GiB in 1 MiB writes", "write_sequential", _GIB, _MIB),
    _memory("wb-4GiB", "open wb, 4 GiB in 1 MiB writes", "write_sequential", 4 * _GIB, _MIB),
    Row(
        "small-get",
        "GET 1000 x 100 kB, 8 threads",
        Work("get", 100 * _KB, 1000, 8, sink="memory"),
        _SMALL_PEERS,
        _FAST,
        _SMALL,
    ),
    Row(
        "small-put",
        "PUT 1000 x 100 kB, 8 threads",
        Work("put", 100 * _KB, 1000, 8),
        _SMALL_PEERS,
        _FAST,
        _SMALL,
    ),
    # So many that the door's limiter, 250 requests a second, has its say.
    Row(
        "rehearsal-get",
        "GET 1000 x 100 kB, 8 threads, a server as slow as dCache",
        Work("get", 100 * _KB, 1000, 8, sink="memory"),
        ("ours", "curl", "upstream"),
        _REHEARSAL,
        (
            Claim("wall", 1.0, "curl"),
            Claim("cpu", 2.0, "curl"),
            Claim("server_cpu", 1.0, "curl"),
            Claim("wall", 1 / 1.6, "upstream"),
        ),
    ),
    Row(
        "rehearsal-put",
        "PUT 400 x 100 kB, 8 threads, atomic, a server as slow as dCache",
        Work("put", 100 * _KB, 400, 8),
        ("ours", "curl-move", "upstream"),
        _REHEARSAL,
        (Claim("wall", 1.0, "curl-move"), Claim("cpu", 3.0, "curl-move")),
    ),
    *(_one_after_the_other(size) for size in (1 * _KB, 10 * _KB, 20 * _KB, 50 * _KB, 100 * _KB)),
)
