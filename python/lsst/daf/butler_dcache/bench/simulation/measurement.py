"""Service times of the embedded dCache, measured here and now with a single client at a time."""

from __future__ import annotations

from collections.abc import Callable

from .standin import StandIn, running
from .times import ServiceTimes

__all__ = ("measure", "seconds_of")

_DIRECT = ("options", "propfind", "put_proxied", "move")
_TICK_SECONDS = 0.01


def seconds_of(
    standin: StandIn, kind: str, *, seconds: float = 1.5, tries: int = 3, connections: str = "kept"
) -> float:
    """Return the processor time that the server needs for one operation of a single client.

    Parameters
    ----------
    standin : `~.standin.StandIn`
        The server.
    kind : `str`
        The operation.
    seconds : `float`, optional
        Length of one try.
    tries : `int`, optional
        The least of so many counts: whatever else runs on the machine makes it longer.
    connections : `str`, optional
        As `~.standin.StandIn.load` takes them.
    """
    costs = []
    for number in range(tries):
        figures = standin.load(kind, seconds=seconds, connections=connections, seed=number + 1)
        if figures["done"]:
            costs.append(max(_TICK_SECONDS, figures["server_cpu_seconds"]) / figures["done"])
    if not costs:
        raise RuntimeError(f"the embedded dCache did not answer a single {kind}")
    return min(costs)


def measure(tell: Callable[[str], None] = lambda text: None) -> ServiceTimes:
    """Measure.

    Parameters
    ----------
    tell : `~collections.abc.Callable`, optional
        Told how it goes.

    Notes
    -----
    A single client waits for each answer, so that nothing is queued: these are service times, whatever the
    capacity turns out to be. Door and pool are one process: what a GET needs at the door is what it needs in
    all less what a range of the same file needs at the pool; an upload's share of the pool is taken to be
    what the door needs for one that it relays.
    """
    with running() as standin:
        direct = {}
        for kind in (*_DIRECT, "get", "put", "range"):
            direct[kind] = seconds_of(standin, kind)
            tell(f"{kind}: {1e6 * direct[kind]:.0f} us")
        connect = max(0.0, seconds_of(standin, "propfind", connections="fresh") - direct["propfind"])
        tell(f"a new connection: {1e6 * connect:.0f} us")
    with running(tls=True) as standin:
        kept = seconds_of(standin, "propfind")
        full = max(0.0, seconds_of(standin, "propfind", connections="fresh") - kept)
        resumed = max(0.0, seconds_of(standin, "propfind", connections="resumed") - kept)
        tell(f"with TLS: {1e6 * full:.0f} us, resumed {1e6 * resumed:.0f} us")
    upload = direct["put_proxied"]
    return ServiceTimes(
        "measured",
        "the embedded dCache, a Python program: not dCache's",
        "dcache-butler bench simulate --measure FILE",
        False,
        {
            **{kind: direct[kind] for kind in _DIRECT},
            "get": max(0.0, direct["get"] - direct["range"]),
            "put": max(0.0, direct["put"] - upload - connect),
            "delete": direct["move"],
        },
        {"get": direct["range"], "range": direct["range"], "put": upload},
        connect,
        full,
        resumed,
        full,
        resumed,
        notes=("not measured: delete, which is as move, and how much times vary",),
    )
