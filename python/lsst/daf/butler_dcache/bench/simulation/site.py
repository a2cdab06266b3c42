"""The servers of a simulated dCache: doors and pools."""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .limiter import DoorLimiter
from .queues import Link, Processor, Slots
from .times import ServiceTimes

if TYPE_CHECKING:
    import simpy

__all__ = ("Door", "Pool", "Site", "SiteSpec", "draw_seconds")

_SMALL_BYTES = 200_000
"""A transfer that is smaller does not take part in the sharing of links: it takes its own time only."""


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """What a site consists of.

    Parameters
    ----------
    doors, pools : `int`
        How many there are.
    door_processors, pool_processors : `int`
        Processors of each.
    movers : `int`
        Mover slots of each pool (dCache's default: 100).
    threads, thread_queue : `int`
        Requests that a door works on, and that wait for a thread (dCache's defaults: 500 each).
    pool_bytes_per_second, host_bytes_per_second : `float`
        Network (or disks, whichever is slower) of each pool and of each host of clients.
    round_trip_seconds : `float`
        Between clients and servers.
    tls : `bool`
        Whether everything is encrypted.
    limiter_rate, limiter_share : `float`
        The limiter's: 1000 a second per door, of which a client address gets 0.25. Rate 0: no limiter.
    retry_after : `bool`
        Whether a 429 names a time (dCache 12.0; not 11.2.4).
    mover_patience_seconds : `float`
        How long a door waits for a mover slot, or for a pool that is down (180 s).
    shares_processor : `bool`
        Whether all doors and pools are one process: the embedded dCache.
    late_seconds : `float`
        For how long a door holds back a request of a warm client before it refuses it: 0 at dCache, 0.060 at
        the embedded one.
    """

    doors: int = 4
    pools: int = 20
    door_processors: int = 16
    pool_processors: int = 8
    movers: int = 100
    threads: int = 500
    thread_queue: int = 500
    pool_bytes_per_second: float = 1.25e9
    host_bytes_per_second: float = 1.25e9
    round_trip_seconds: float = 0.0005
    tls: bool = True
    limiter_rate: float = 1000.0
    limiter_share: float = 0.25
    retry_after: bool = False
    mover_patience_seconds: float = 180.0
    shares_processor: bool = False
    late_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("doors", "pools", "door_processors", "pool_processors", "movers", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("pool_bytes_per_second", "host_bytes_per_second"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name)}")
        if self.round_trip_seconds < 0 or self.limiter_rate < 0:
            raise ValueError("neither a round trip nor a rate is less than 0")


def draw_seconds(draw: random.Random, mean: float, variation: float) -> float:
    """Return a random service time.

    Parameters
    ----------
    draw : `random.Random`
        Random numbers.
    mean : `float`
        Seconds.
    variation : `float`
        Standard deviation over mean; 1 is the exponential distribution, others are gamma distributions.
    """
    if variation == 0 or mean == 0:
        return mean
    if variation == 1:
        return draw.expovariate(1.0 / mean)
    shape = 1.0 / variation**2
    return draw.gammavariate(shape, mean / shape)


class Pool:
    """A pool: mover slots, processors and a link.

    Parameters
    ----------
    environment : `simpy.Environment`
        The clock.
    number : `int`
        Which one.
    spec : `SiteSpec`
        The site.
    processor : `Processor`
        What its requests keep busy.
    """

    def __init__(
        self, environment: simpy.Environment, number: int, spec: SiteSpec, processor: Processor
    ) -> None:
        self.number = number
        self._environment = environment
        self._slots = spec.movers
        self.back = environment.event()
        self.movers = Slots(environment, spec.movers)
        self._used_before = 0.0
        self.link = Link(environment, spec.pool_bytes_per_second)
        self.processor = processor
        self.is_up = True
        self.epoch = 0
        self.requests = self.connections = self.handshakes = self.resumed = 0

    def stop(self) -> None:
        """Go away: transfers break off."""
        self.is_up = False
        self.back = self._environment.event()
        self.epoch += 1
        self.link.drop()
        self._used_before += self.movers.used_seconds
        self.movers = Slots(self._environment, self._slots)

    def start(self) -> None:
        """Come back."""
        self.is_up = True
        self.back.succeed()

    @property
    def mover_seconds(self) -> float:
        """Integral over the mover slots in use since the beginning."""
        return self._used_before + self.movers.used_seconds


class Door:
    """A door: limiter, threads and processors.

    Parameters
    ----------
    environment : `simpy.Environment`
        The clock.
    number : `int`
        Which one.
    spec : `SiteSpec`
        The site.
    processor : `Processor`
        What its requests keep busy.
    """

    def __init__(
        self, environment: simpy.Environment, number: int, spec: SiteSpec, processor: Processor
    ) -> None:
        self._environment = environment
        self._spec = spec
        self.number = number
        self.processor = processor
        self.epoch = 0
        self.is_up = True
        self.admitted = self.refused = self.connections = self.handshakes = self.resumed = 0
        self._fresh()

    def _fresh(self) -> None:
        spec = self._spec
        self.limiter = DoorLimiter(spec.limiter_rate, spec.limiter_share) if spec.limiter_rate else None
        self.threads = Slots(self._environment, spec.threads, spec.thread_queue)

    def stop(self) -> None:
        """Crash: connections and whatever was worked on are gone."""
        self.is_up = False
        self.epoch += 1

    def start(self) -> None:
        """Come back, with an empty limiter."""
        self._fresh()
        self.processor.forget(self._environment.now)
        self.is_up = True

    def admit(self, host: str) -> Generator[Any, Any, bool]:
        """Have the limiter decide; return whether it lets the request through.

        Parameters
        ----------
        host : `str`
            Address of the client.

        Yields
        ------
        event : `simpy.Event`
            What it waits for.
        """
        limiter, environment = self.limiter, self._environment
        if limiter is None:
            return True
        if limiter.admits(host, environment.now):
            if self._spec.late_seconds and (debt := limiter.debt(host, environment.now)):
                yield environment.timeout(debt)
            return True
        patience = self._spec.late_seconds
        while patience > 0 and limiter.is_warm(host, environment.now):
            pause = max(limiter.debt(host, environment.now), 0.0005)
            yield environment.timeout(pause)
            patience -= pause
            if limiter.admits(host, environment.now):
                yield environment.timeout(limiter.debt(host, environment.now))
                return True
        return False


class Site:
    """All servers.

    Parameters
    ----------
    environment : `simpy.Environment`
        The clock.
    spec : `SiteSpec`
        What there is.
    times : `~.times.ServiceTimes`
        How long requests take.
    hosts : `int`
        Hosts of clients.
    """

    def __init__(
        self, environment: simpy.Environment, spec: SiteSpec, times: ServiceTimes, hosts: int
    ) -> None:
        self.spec = spec
        self.times = times
        shared = Processor(spec.door_processors) if spec.shares_processor else None
        self.doors = [
            Door(environment, number, spec, shared or Processor(spec.door_processors))
            for number in range(spec.doors)
        ]
        self.pools = [
            Pool(environment, number, spec, shared or Processor(spec.pool_processors))
            for number in range(spec.pools)
        ]
        self.hosts = [Link(environment, spec.host_bytes_per_second) for _ in range(hosts)]
        self._environment = environment

    def transfer(self, pool: Pool, host: int, size: float) -> Generator[Any, Any, bool]:
        """Move bytes between a pool and a host; return whether all came.

        Parameters
        ----------
        pool : `Pool`
            The one end.
        host : `int`
            The other.
        size : `float`
            Bytes.

        Yields
        ------
        event : `simpy.Event`
            What it waits for.

        Notes
        -----
        A transfer has its share of both links at the same time and ends with the slower one. What it cannot
        use of the other is not given to others there, so that a link with transfers from much slower ones
        carries somewhat less than it could.
        """
        epoch = pool.epoch
        if size <= 0:
            return pool.is_up
        if size < _SMALL_BYTES:
            yield self._environment.timeout(size / min(pool.link.rate, self.hosts[host].rate))
            return pool.epoch == epoch
        at_pool, at_host = pool.link.send(size), self.hosts[host].send(size)
        if not (yield at_pool):
            return False
        yield at_host
        return pool.epoch == epoch
