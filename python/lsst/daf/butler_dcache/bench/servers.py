"""The servers that are measured, started on free loopback ports and stopped again, or real ones.

Most of them may be had with TLS, too, as ``door-tls``. A server that somebody else runs is named by its URL.

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
`unlimited`
    The same as a release that does not limit its clients: what the limiter is measured against.
`rehearsal`
    The same with the times that a real dCache takes.
`seaweedfs`
    SeaweedFS, an S3 server that verifies signatures and checksums, all its parts in one process.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ..redaction import redact_url
from .allowance import Guard
from .door import Door, Pool
from .embedded import Embedded
from .link import Link, LinkUnavailableError, link_up
from .processes import default_folder, stop
from .real_target import is_url, real_target, see_that_it_is_a_place
from .s3_target import S3Target
from .seaweedfs import kill
from .stand_in import Ground, LocalTarget
from .target import TARGETS, Target
from .xrootd import Xrootd

__all__ = ("TARGETS", "kind_of", "start")

_CLASSES: dict[str, Callable[[Ground], LocalTarget | Embedded | S3Target]] = {
    "door": Door,
    "pool": Pool,
    "xrootd": Xrootd,
    "seaweedfs": S3Target,
    "unlimited": Embedded,
    "embedded": Embedded,
    "rehearsal": Embedded,
}


def kind_of(name: str) -> str:
    """Return what a server speaks: ``webdav`` or ``s3``.

    Parameters
    ----------
    name : `str`
        A key of `TARGETS`, or the URL of a directory: ``davs``, ``dav`` or ``s3``.

    Raises
    ------
    ValueError
        If it is neither, or a URL that holds more than a place.
    """
    if is_url(name):
        see_that_it_is_a_place(name)
        return "s3" if name.lower().startswith("s3:") else "webdav"
    if name not in TARGETS:
        raise ValueError(
            f"no server is called {redact_url(name)}; there are {', '.join(TARGETS)}, "
            "and URLs (davs, dav, s3)"
        )
    return "s3" if name.startswith("seaweedfs") else "webdav"


@contextlib.contextmanager
def start(
    name: str,
    folder: Path | None = None,
    *,
    link: Link | None = None,
    limiter: bool = True,
    guard: Guard | None = None,
) -> Iterator[Target]:
    """Run a server, or borrow a directory of a real one, for as long as the context lasts.

    Parameters
    ----------
    name : `str`
        A key of `TARGETS`, or the URL of a directory: ``davs``, ``dav`` or ``s3``.
    folder : `~pathlib.Path`, optional
        Where a server that is started keeps its files; in memory by default.
    link : `~.link.Link`, optional
        What lies between it and its clients.
    limiter : `bool`, optional
        Whether its door limits its clients, if it can.
    guard : `~.allowance.Guard`, optional
        What a real server is spared; the default one without it.

    Yields
    ------
    target : `~.target.Target`
        The server, ready.

    Raises
    ------
    MissingServerError
        If it is not installed, or this machine cannot have such a link.
    TargetGoneError
        If a real server is not there, or refuses.
    ValueError
        If there is no such server.
    """
    kind_of(name)
    if is_url(name):
        if link is not None and link != Link():
            raise LinkUnavailableError(f"{name} is as far away as it is: a link is for servers started here")
        with real_target(name, guard or Guard()) as target:
            yield target
        return
    server, _, tls = name.partition("-")
    run = Path(tempfile.mkdtemp(prefix="dcache-bench-", dir=folder or default_folder()))
    run.chmod(0o755)
    try:
        with link_up(link) as spaces:
            ground = Ground(name, run, bool(tls), limiter, spaces)
            try:
                with spaces.server():
                    stand_in = _CLASSES[server](ground)
                stand_in.meet()
                yield stand_in
            finally:
                kill(ground.processes) if server == "seaweedfs" else stop(ground.processes)
    finally:
        shutil.rmtree(run, ignore_errors=True)
