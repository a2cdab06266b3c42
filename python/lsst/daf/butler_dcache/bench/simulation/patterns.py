"""Which requests an operation takes: this package's, and lsst.resources'.

The counts are those of the request table: upstream's were counted at a real dCache 11.2.4, ours are promised
by the tests of requests per operation. What a client opens connections for is a part of it: over TLS each
costs the server a handshake, and upstream (urllib3) takes a connection with TLS tickets in it for a dropped
one, so that each GET and PUT has its own (protocol page, surprise 22); it resumes no session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ("OURS", "PATTERNS", "PROXIED_AT_MOST_BYTES", "UPSTREAM", "Ask", "Operation", "Pattern")

PROXIED_AT_MOST_BYTES = 100_000
"""Up to this size our uploads go through the door (decision page ``small-uploads``)."""
_BLOCK_BYTES = 1 << 20
"""What upstream reads at once of a file that is read in parts."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Parameters
    ----------
    server : `str`
        ``"door"`` or ``"pool"`` (of the mover that the door has just started).
    kind : `str`
        Which service time it has.
    method : `str`
        HTTP method.
    size : `int`
        Bytes of the body, whichever way it goes.
    is_new : `bool`
        Whether it always opens a connection.
    closes : `bool`
        Whether the connection is closed by the answer.
    starts_mover, ends_mover : `bool`
        Whether a mover slot is taken before its answer, or given back after it.
    """

    server: str
    kind: str
    method: str
    size: int = 0
    is_new: bool = False
    closes: bool = False
    starts_mover: bool = False
    ends_mover: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """What a task wants done.

    Parameters
    ----------
    name : `str`
        ``read``, ``write``, ``parts`` (some ranges of one file), ``look`` (does it exist), ``remove``.
    size : `int`
        Bytes of the file, or of all ranges.
    count : `int`
        How often; for ``parts`` the number of ranges.
    """

    name: str
    size: int = 0
    count: int = 1


@dataclass(frozen=True)
class Pattern:
    """How a client does each operation.

    Parameters
    ----------
    name : `str`
        ``ours`` or ``upstream``.
    title : `str`
        For tables.
    resumes : `bool`
        Whether it resumes TLS sessions.
    first : `tuple` [`Ask`, ...]
        What a process asks before anything else.
    client_seconds : `float`
        What the client itself needs between two requests.
    make : `~collections.abc.Callable`
        Returns the requests of an operation.
    is_one_process : `bool`, optional
        Whether one process does all tasks of a core, and keeps its connections from one to the next. The
        Butler's executor begins a process for each.
    """

    name: str
    title: str
    resumes: bool
    first: tuple[Ask, ...]
    client_seconds: float
    make: Callable[[Operation], tuple[Ask, ...]] = field(repr=False)
    is_one_process: bool = False
    _known: dict[Operation, tuple[Ask, ...]] = field(default_factory=dict, repr=False, compare=False)

    def requests(self, operation: Operation) -> tuple[Ask, ...]:
        """Return the requests of one operation, in their order.

        Parameters
        ----------
        operation : `Operation`
            Its ``count`` matters for ``parts`` only.
        """
        known = self._known.get(operation)
        if known is None:
            known = self._known[operation] = self.make(operation)
        return known


def _ours(operation: Operation) -> tuple[Ask, ...]:
    size, count = operation.size, operation.count
    move = Ask("door", "move", "MOVE")
    match operation.name:
        case "read":
            return (
                Ask("door", "get", "GET", starts_mover=True),
                Ask("pool", "get", "GET", size, ends_mover=True),
            )
        case "parts":
            ranges = [Ask("pool", "range", "GET", size // count)] * (count - 1)
            last = Ask("pool", "range", "GET", size // count, closes=True, ends_mover=True)
            return (Ask("door", "get", "GET", starts_mover=True), *ranges, last)
        case "write" if size <= PROXIED_AT_MOST_BYTES:
            return (Ask("door", "put_proxied", "PUT", size), move)
        case "write":
            return (
                Ask("door", "put", "PUT", starts_mover=True, closes=True),
                Ask("pool", "put", "PUT", size, ends_mover=True),
                move,
            )
        case "look":
            return (Ask("door", "propfind", "PROPFIND"),)
        case "remove":
            return (Ask("door", "delete", "DELETE"),)
    raise ValueError(f"no client does {operation.name!r}")


def _upstream(operation: Operation) -> tuple[Ask, ...]:
    size = operation.size
    look = Ask("door", "propfind", "PROPFIND")
    redirected = Ask("door", "get", "GET", is_new=True, starts_mover=True)
    match operation.name:
        case "read":
            return (redirected, Ask("pool", "get", "GET", size, is_new=True, closes=True, ends_mover=True))
        case "parts":
            block = max(_BLOCK_BYTES, size // operation.count)
            part = Ask("pool", "range", "GET", block, is_new=True, closes=True, ends_mover=True)
            return (look, *((redirected, part) * operation.count))
        case "write":
            return (
                Ask("door", "put", "PUT", is_new=True, closes=True, starts_mover=True),
                Ask("pool", "put", "PUT", size, is_new=True, closes=True, ends_mover=True),
                Ask("door", "move", "MOVE"),
            )
        case "look":
            return (look,)
        case "remove":
            return (look, Ask("door", "delete", "DELETE"))
    raise ValueError(f"no client does {operation.name!r}")


# The client's own time per request: CPU seconds of 1000 GETs of 100 kB over TLS, which are 2000
# requests: 0.62 and 2.65 (page ``figures`` of the benchmarks, target ``door-tls``).
OURS = Pattern("ours", "this package", True, (), 0.0003, _ours)
"""This package."""
UPSTREAM = Pattern(
    "upstream",
    "lsst.resources",
    False,
    (Ask("door", "options", "OPTIONS", is_new=True, closes=True),),
    0.0013,
    _upstream,
)
"""lsst.resources, class ``DavResourcePath``, as of 30.2026.4200."""
PATTERNS = {pattern.name: pattern for pattern in (OURS, UPSTREAM)}
"""By name."""
