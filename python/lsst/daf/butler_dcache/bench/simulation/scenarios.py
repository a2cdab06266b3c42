"""What is simulated: clients, their work, a site, what goes wrong; and three ready-made ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from .patterns import Operation
from .site import SiteSpec

__all__ = (
    "FAULTS",
    "PRESETS",
    "Fault",
    "Scenario",
    "Task",
    "crowd",
    "door_restart",
    "dr1",
    "parse_fault",
    "storm",
)

_KB, _MB = 1000, 1_000_000

FAULTS = {
    "door-restart": "door N is gone for so long",
    "pool-down": "pool N is gone for so long",
    "slow-pool": "pool N has a tenth of its bandwidth for so long",
    "bad-token": "one process of host N shows a credential that is refused, for so long",
}
"""What may go wrong, by name."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong for a while.

    Parameters
    ----------
    kind : `str`
        A key of `FAULTS`.
    at_seconds, for_seconds : `float`
        When, after the warm-up, and for how long.
    number : `int`
        Of the door, the pool or the host.
    """

    kind: str
    at_seconds: float
    for_seconds: float
    number: int = 0


_FAULT = re.compile(r"([a-z-]+)(?::(\d+))?@(\d+(?:\.\d+)?)\+(\d+(?:\.\d+)?)")


def parse_fault(text: str) -> Fault:
    """Return the fault that a text such as ``door-restart:0@60+20`` names.

    Parameters
    ----------
    text : `str`
        Kind, number, seconds after the warm-up, seconds that it lasts.

    Raises
    ------
    ValueError
        If it names none.
    """
    found = _FAULT.fullmatch(text)
    if found is None or found[1] not in FAULTS:
        raise ValueError(f"{text!r} is no fault: KIND[:NUMBER]@SECONDS+SECONDS, with {', '.join(FAULTS)}")
    return Fault(found[1], float(found[3]), float(found[4]), int(found[2] or 0))


@dataclass(frozen=True, slots=True)
class Task:
    """What a core does again and again: read, compute, write.

    Parameters
    ----------
    before, after : `tuple` [`Operation`, ...]
        What it asks for before and after the computation, one after the other.
    compute_seconds : `float`
        Mean of the computation, which is gamma distributed with a relative spread of 0.3.
    times : `int`
        How often; 0 is without end.
    """

    before: tuple[Operation, ...] = ()
    after: tuple[Operation, ...] = ()
    compute_seconds: float = 0.0
    times: int = 0

    @property
    def read_bytes(self) -> int:
        """Bytes that one of them reads."""
        return sum(one.size for one in (*self.before, *self.after) if one.name in ("read", "parts"))

    @property
    def written_bytes(self) -> int:
        """Bytes that one of them writes."""
        return sum(one.size for one in (*self.before, *self.after) if one.name == "write")

    @property
    def written_files(self) -> int:
        """Files that one of them writes."""
        return sum(one.name == "write" for one in (*self.before, *self.after))


@dataclass(frozen=True)
class Scenario:
    """Everything that a simulation needs but service times, client and seed.

    Parameters
    ----------
    name, title : `str`
        For reports.
    site : `~.site.SiteSpec`
        The servers.
    task : `Task`
        What each core does.
    cores, hosts : `int`
        Processes, and the addresses that they share.
    warm_up_seconds, window_seconds : `float`
        What is simulated first and not counted, and what is counted. What is not steady at the end of the
        warm-up is cut off later still (`~.run.Replication`).
    spread_seconds : `float` or `None`
        Within which time all begin; `None` if each is somewhere in its first task, as later on.
    faults : `tuple` [`Fault`, ...]
        What goes wrong.
    """

    name: str
    title: str
    site: SiteSpec
    task: Task
    cores: int
    hosts: int
    warm_up_seconds: float
    window_seconds: float
    spread_seconds: float | None = None
    faults: tuple[Fault, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.cores < 1 or not 1 <= self.hosts <= self.cores:
            raise ValueError(f"{self.cores} cores on {self.hosts} hosts: there must be one at least of each")
        if self.window_seconds <= 0 or self.warm_up_seconds < 0:
            raise ValueError("the window is empty")
        for fault in self.faults:
            limit = {"door-restart": self.site.doors, "bad-token": self.hosts}.get(
                fault.kind, self.site.pools
            )
            if fault.number >= limit:
                raise ValueError(f"{fault.kind}:{fault.number}: there are {limit}, counted from 0")

    def sliced(self, parts: int) -> Scenario:
        """Return a part of the site with its part of the clients, for which all ratios are the same.

        Parameters
        ----------
        parts : `int`
            Divides the numbers of doors and of pools.
        """
        site = self.site
        if site.doors % parts or site.pools % parts:
            raise ValueError(f"{site.doors} doors and {site.pools} pools have no {parts} equal parts")
        part = replace(site, doors=site.doors // parts, pools=site.pools // parts)
        return replace(self.scaled(1 / parts), site=part)

    def scaled(self, factor: float) -> Scenario:
        """Return the same with another number of cores, and of hosts for them."""
        return replace(
            self, cores=max(1, round(self.cores * factor)), hosts=max(1, round(self.hosts * factor))
        )


QUANTUM = Task(
    before=(
        Operation("read", 18 * _MB),
        Operation("read", 18 * _MB),
        Operation("read", 4 * _KB),
        Operation("parts", 2 * _MB, 3),
    ),
    after=(
        Operation("write", 49_450 * _KB),
        Operation("write", 40 * _KB),
        Operation("write", 3 * _KB),
    ),
    compute_seconds=98.0,
)
"""A quantum of Data Release 1: so much is given, on average, by 3000 cores, 91 files and 1.5 GB written a
second: a core writes a file of 16.5 MB every 33 s. That two of three files are a log and metadata, and what
is read, are assumptions, of the shape of the pipelines of the demonstration."""


def dr1() -> Scenario:
    """Return a data release: 3000 cores, 91 files and 1.5 GB written a second, for 150 days."""
    return Scenario(
        "dr1",
        "Data Release 1: 3000 cores that write 91 files and 1.5 GB a second",
        SiteSpec(),
        QUANTUM,
        cores=3000,
        hosts=47,
        warm_up_seconds=30.0,
        window_seconds=120.0,
    )


def crowd() -> Scenario:
    """Return 64 processes of one host that begin at the same moment, 60 looks each."""
    return Scenario(
        "crowd",
        "64 processes of one host begin together, 60 looks each",
        SiteSpec(doors=1, pools=2, tls=False, round_trip_seconds=0.0001),
        Task(before=(Operation("look"),) * 60, times=1),
        cores=64,
        hosts=1,
        warm_up_seconds=0.0,
        window_seconds=600.0,
        spread_seconds=0.005,
    )


def storm(of: Scenario) -> Scenario:
    """Return the beginning of a campaign: all cores begin within a second, with one task's input and output.

    Parameters
    ----------
    of : `Scenario`
        The campaign.
    """
    return replace(
        of,
        name="storm",
        title="all cores begin within a second",
        task=replace(of.task, compute_seconds=0.0, times=1),
        warm_up_seconds=0.0,
        window_seconds=900.0,
        spread_seconds=1.0,
        faults=(),
    )


def door_restart() -> Scenario:
    """Return a data release during which one of two doors is gone for 30 s."""
    base = dr1()
    return replace(
        base,
        name="door-restart",
        title="Data Release 1, and one of two doors is gone for 30 s",
        site=replace(base.site, doors=2),
        window_seconds=150.0,
        faults=(Fault("door-restart", 30.0, 30.0),),
    )


PRESETS: dict[str, Callable[[], Scenario]] = {"dr1": dr1, "crowd": crowd, "door-restart": door_restart}
"""By name."""
