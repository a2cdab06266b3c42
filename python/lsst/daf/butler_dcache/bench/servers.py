"""The servers that are measured, started on free loopback ports and stopped again.

`door`
    HAProxy answers GET with 302, and PUT with ``Expect`` with 307 before a byte of the body, to one of two
    nginx pools, and hands everything else to nginx with DAV, as dCache's door does. Both are ten times faster
    than any Python client: what is measured is the client. It says ``Server: dCache/...``, since clients
    speak differently to dCache, and names its files' adler32, which it reads from their names.
`xrootd`
    A redirector and two data servers of XRootD 6, without authorisation.
`embedded`
    The embedded dCache, in a process of its own: the rehearsal for request counts and for what happens below
    HTTP. It is a Python program; its wall times are not dCache's.
`seaweedfs`
    SeaweedFS, an S3 server that verifies signatures and checksums, all its parts in one process.
`unlimited`
    The same as a release that does not limit its clients: what the limiter is measured against.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .door import Door, Pool
from .embedded import Embedded
from .processes import default_folder, stop
from .s3_target import S3Target
from .seaweedfs import kill
from .target import Target
from .xrootd import Xrootd

__all__ = ("TARGETS", "start")

TARGETS = {
    "door": "HAProxy door and nginx pools, http (not dCache)",
    "door-tls": "HAProxy door and nginx pools, TLS on both (not dCache)",
    "pool": "nginx alone, http (not dCache)",
    "pool-tls": "nginx alone, TLS (not dCache)",
    "xrootd": "XRootD 6 cluster, http",
    "xrootd-tls": "XRootD 6 cluster, TLS on both",
    "seaweedfs": "SeaweedFS, http",
    "seaweedfs-tls": "SeaweedFS, TLS",
    "unlimited": "embedded dCache as 11.1, which does not limit its clients, http (not dCache)",
    "embedded": "embedded dCache, http (not dCache)",
    "embedded-tls": "embedded dCache, TLS on both (not dCache)",
    "rehearsal": "embedded dCache with dCache's latencies, http (not dCache)",
    "rehearsal-tls": "embedded dCache with dCache's latencies, TLS on both (not dCache)",
}


@contextlib.contextmanager
def start(name: str, folder: Path | None = None) -> Iterator[Target]:
    """Run a server for as long as the context lasts.

    Parameters
    ----------
    name : `str`
        A key of `TARGETS`.
    folder : `~pathlib.Path`, optional
        Where it keeps its files; in memory by default.

    Yields
    ------
    target : `Target`
        The server, ready.

    Raises
    ------
    MissingServerError
        If it is not installed.
    """
    kind, _, tls = name.partition("-")
    run = Path(tempfile.mkdtemp(prefix="dcache-bench-", dir=folder or default_folder()))
    run.chmod(0o755)
    processes: list[subprocess.Popen[Any]] = []
    try:
        match kind:
            case "door":
                yield Door(name, run, bool(tls), processes)
            case "pool":
                yield Pool(name, run, bool(tls), processes)
            case "xrootd":
                yield Xrootd(name, run, bool(tls), processes)
            case "seaweedfs":
                try:
                    yield S3Target(name, run, bool(tls), processes)
                finally:
                    kill(processes)
            case "embedded" | "unlimited" | "rehearsal":
                yield Embedded(name, run, bool(tls), processes)
            case _:
                raise ValueError(f"{name} is none of {', '.join(TARGETS)}")
    finally:
        stop(processes)
        shutil.rmtree(run, ignore_errors=True)
