"""Which engine should carry the bytes: the measurement behind a decision.

1 GiB to nowhere, 1 GiB from a file and 2000 files of 10 kB, one after the other on one connection, from an
nginx without a door.
"""

from __future__ import annotations

from .row import Row
from .work import Work

__all__ = ("ROWS",)

_GIB = 1024**3
_ENGINES = (
    "engine-ours",
    "engine-curl",
    "engine-memory-bio",
    "engine-http.client",
    "engine-pycurl",
    "engine-urllib3",
    "engine-requests",
)
_TARGETS = ("pool", "pool-tls")

ROWS = (
    Row("engine-get", "GET 1 GiB to nowhere", Work("get", _GIB), _ENGINES, _TARGETS),
    Row("engine-put", "PUT 1 GiB from a file", Work("put", _GIB), _ENGINES, _TARGETS),
    Row(
        "engine-small-get",
        "GET 2000 x 10 kB, one after the other",
        Work("get", 10_000, 2000),
        _ENGINES,
        _TARGETS,
    ),
)
