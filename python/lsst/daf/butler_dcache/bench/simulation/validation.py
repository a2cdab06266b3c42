"""Predictions of saturation points, and what the embedded dCache really does at them.

What a prediction is made of is measured apart from what it predicts: the processor time of one request is
that of a single client, which waits for each answer, the limiter's rates and the mover's wait are settings,
and none of the measurements under load enters a prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .measurement import seconds_of
from .patterns import Ask, Operation, Pattern
from .policies import POLICIES
from .run import simulate
from .scenarios import Scenario, Task
from .site import SiteSpec
from .standin import running
from .times import RECORDED, ServiceTimes

__all__ = ("TOLERANCE", "Point", "table", "validate")

TOLERANCE = 0.20
"""How far a prediction may be off."""
_MOVERS, _POOL_SECONDS = 4, 0.100
_TRIES = 10
_ROUND_TRIP_SECONDS = 0.0001
"""Between processes of one machine, and what it takes to wake one up."""


@dataclass(frozen=True, slots=True)
class Point:
    """A saturation point.

    Parameters
    ----------
    name, title : `str`
        What saturates.
    predicted, measured : `float`
        Operations per second.
    inputs : `str`
        What the prediction was made of.
    unit : `str`
        What is counted.
    """

    name: str
    title: str
    predicted: float
    measured: float
    inputs: str
    unit: str

    @property
    def error(self) -> float:
        """How far the prediction is off, as a fraction of what was measured."""
        return self.predicted / self.measured - 1.0 if self.measured else float("inf")

    @property
    def agrees(self) -> bool:
        """Whether that is within `TOLERANCE`."""
        return abs(self.error) <= TOLERANCE


def _bare(operation: Operation) -> tuple[Ask, ...]:
    """Return the requests of a client of sockets, as `~.standin` has it."""
    if operation.name == "get":
        return (
            Ask("door", "get", "GET", starts_mover=True),
            Ask("pool", "get", "GET", 1000, ends_mover=True),
        )
    return (Ask("door", operation.name, "PROPFIND"),)


def predict(
    kind: str,
    door: dict[str, float],
    *,
    clients: int,
    site: SiteSpec,
    client_seconds: float,
    addresses: int = 1,
    pool: float = 0.0,
    wait: float = 0.0,
    seed: int = 1,
) -> float:
    """Return the operations per second that the simulation says.

    Parameters
    ----------
    kind : `str`
        A kind of request at a door; ``get`` goes on to the pool.
    door : `dict` [`str`, `float`]
        Processor time of the door by kind.
    clients : `int`
        How many ask without a pause.
    site : `SiteSpec`
        The servers.
    client_seconds : `float`
        What the client needs for a request.
    addresses : `int`, optional
        From how many addresses they come.
    pool, wait : `float`, optional
        Processor time and wait of a GET at the pool.
    seed : `int`, optional
        Of the random numbers.
    """
    times = ServiceTimes(
        "validation",
        "the embedded dCache",
        "",
        False,
        {**RECORDED.door, **door},
        {**RECORDED.pool, "get": pool},
        variation=0.0,
        waits={"pool get": wait},
    )
    scenario = Scenario(
        "validation",
        "",
        site,
        Task((Operation(kind),)),
        cores=clients,
        hosts=addresses,
        warm_up_seconds=3.0,
        window_seconds=6.0,
    )
    pattern = Pattern("bare", "sockets", False, (), client_seconds, _bare, is_one_process=True)
    found = simulate(scenario, pattern, POLICIES["ours-unpaced"], times, seed)
    return found.figures["tasks"]


def validate(tell: Callable[[str], None] = lambda text: None) -> list[Point]:
    """Measure and predict all points.

    Parameters
    ----------
    tell : `~collections.abc.Callable`, optional
        Told how it goes.
    """
    embedded = SiteSpec(
        doors=1,
        pools=1,
        door_processors=1,
        tls=False,
        round_trip_seconds=_ROUND_TRIP_SECONDS,
        shares_processor=True,
        limiter_rate=0.0,
    )
    limited = replace(embedded, limiter_rate=1000.0, late_seconds=0.060)
    points = []

    tell("service times of a single client")
    with running() as standin:
        look, listing = seconds_of(standin, "options"), seconds_of(standin, "list")
        get, part = seconds_of(standin, "get"), seconds_of(standin, "range")
        single = standin.load("options")
    client = single["cpu_seconds"] / single["done"]
    door = {"options": look, "list": listing, "get": max(0.0, get - part)}

    tell("the limiter")
    with running(limiter=True) as standin:
        one = standin.load("options", threads=8, seconds=4.0, warm_up=2.5)
        many = standin.load("options", threads=16, addresses=8, seconds=4.0, warm_up=2.5)
    for name, title, found, clients, addresses in (
        ("limiter-client", "limiter: one client address, 8 connections", one, 8, 1),
        ("limiter-door", "limiter: 8 client addresses at one door, 16 connections", many, 16, 8),
    ):
        points.append(
            Point(
                name,
                title,
                predict(
                    "options", door, clients=clients, addresses=addresses, site=limited, client_seconds=client
                ),
                found["done"] / found["seconds"],
                f"1000/s a door, 0.25 of it a client; {1e6 * look:.0f} us a request",
                "requests/s",
            )
        )

    tell("mover slots")
    with running(movers=_MOVERS, pool_seconds=_POOL_SECONDS) as standin:
        found = standin.load("get", threads=3 * _MOVERS, seconds=5.0, warm_up=1.0)
    site = replace(embedded, movers=_MOVERS)
    points.append(
        Point(
            "movers",
            f"{_MOVERS} mover slots of a pool that takes {1000 * _POOL_SECONDS:.0f} ms, "
            f"{3 * _MOVERS} clients",
            predict(
                "get",
                door,
                clients=3 * _MOVERS,
                site=site,
                client_seconds=client,
                pool=part,
                wait=_POOL_SECONDS,
            ),
            found["done"] / found["seconds"],
            f"{1000 * _POOL_SECONDS:.0f} ms of wait, {1e6 * get:.0f} us a GET",
            "files/s",
        )
    )

    tell("the door's processor")
    with running() as standin:
        rates = []
        for number in range(_TRIES):
            found = standin.load("list", threads=8, seconds=1.0, seed=number + 1)
            rates.append(found["done"] / found["seconds"])
            share = found["server_cpu_seconds"] / found["seconds"]
            tell(f"  {rates[-1]:.1f} listings/s with {100 * share:.0f} % of a processor")
    points.append(
        Point(
            "processor",
            f"the door's processor: listings of 200 files for 8 clients, best of {_TRIES} times",
            predict("list", door, clients=8, site=embedded, client_seconds=client),
            max(rates),
            f"{1e3 * listing:.1f} ms a listing",
            "listings/s",
        )
    )
    return points


def table(points: Sequence[Point]) -> str:
    """Return the points as a table in Markdown.

    Parameters
    ----------
    points : `~collections.abc.Sequence` [`Point`]
        What `validate` returned.
    """
    lines = [
        "| saturation point (embedded dCache: not dCache) | predicted | measured | off by | made of |",
        "| --- | --: | --: | --: | --- |",
    ]
    for point in points:
        mark = "" if point.agrees else " **too far**"
        lines.append(
            f"| {point.title} | {point.predicted:.1f} {point.unit} | {point.measured:.1f} {point.unit} "
            f"| {100 * point.error:+.1f} %{mark} | {point.inputs} |"
        )
    return "\n".join(lines) + "\n"
