"""Up to which size should a file go through the door in one request? The measurement behind a default.

By the door (``proxied``) a file costs one request and no new connection, and the door carries its bytes; by
redirect it costs two requests, the door's connection, and the bytes go straight to the pool.
"""

from __future__ import annotations

from .row import Row
from .work import Work

__all__ = ("ROWS",)

_KB = 1000
_PEERS = ("ours-proxied", "ours-redirected")
_TARGETS = ("door", "door-tls", "rehearsal", "rehearsal-tls")

ROWS = tuple(
    Row(
        f"upload-way-{size}kB-{threads}",
        f"PUT {count} x {size} kB, {threads} at a time, atomic",
        Work("put", size * _KB, count, threads),
        _PEERS,
        _TARGETS,
    )
    for threads, count in ((1, 40), (8, 160))
    for size in (1, 10, 65, 100, 300, 1000)
)
