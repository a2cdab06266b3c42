"""A core of the batch farm: its requests, its connections, and what it does about failures."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...transport.bucket import Bucket, Kind, Turn
from ...transport.retry import Phase
from .patterns import Ask, Operation, Pattern
from .policies import Attempts, Policy
from .scenarios import Task
from .site import Door, Pool, Site, draw_seconds

if TYPE_CHECKING:
    import simpy

__all__ = ("Core", "Farm", "Tally", "residual_seconds")

_Wait = Generator[Any, Any, Any]
_SICK_SECONDS = 1.0
_SICK_AT_MOST_SECONDS = 60.0
_COMPUTE_VARIATION = 0.3


def residual_seconds(draw: random.Random, mean: float) -> float:
    """Return how long a computation still takes at a random moment, as it is in the steady state.

    Parameters
    ----------
    draw : `random.Random`
        Random numbers.
    mean : `float`
        Of the whole computation. A random moment falls into a long one more often.
    """
    shape = 1.0 / _COMPUTE_VARIATION**2
    return draw.random() * draw.gammavariate(shape + 1.0, mean / shape)


@dataclass
class Tally:
    """What came of everything, since the beginning.

    Parameters
    ----------
    counts : `~collections.Counter`
        Events by name.
    waited_seconds : `float`
        Time that cores spent waiting for the site.
    in_use : `int`
        Cores that wait for the site now.
    done_at, took : `dict` [`str`, `array.array`]
        By name of an operation: when each ended and how long it took.
    """

    counts: Counter[str] = field(default_factory=Counter)
    waited_seconds: float = 0.0
    in_use: int = 0
    done_at: dict[str, array[float]] = field(default_factory=dict)
    took: dict[str, array[float]] = field(default_factory=dict)

    def done(self, name: str, at: float, seconds: float) -> None:
        """Note an operation that succeeded.

        Parameters
        ----------
        name : `str`
            Which one.
        at, seconds : `float`
            When it ended and how long it took.
        """
        if name not in self.took:
            self.done_at[name], self.took[name] = array("d"), array("d")
        self.done_at[name].append(at)
        self.took[name].append(seconds)


@dataclass
class Farm:
    """What all cores have in common.

    Parameters
    ----------
    environment : `simpy.Environment`
        The clock.
    site : `Site`
        The servers.
    pattern : `Pattern`
        Requests of each operation.
    policy : `Policy`
        What is done about failures.
    task : `Task`
        What each core does.
    draw : `random.Random`
        All random numbers.
    tally : `Tally`
        What came of it.
    buckets : `dict`
        Pacing, by host and door.
    bad : `dict` [`int`, `Core`]
        By host, the core whose credential is refused.
    """

    environment: simpy.Environment
    site: Site
    pattern: Pattern
    policy: Policy
    task: Task
    draw: random.Random
    tally: Tally = field(default_factory=Tally)
    buckets: dict[tuple[int, int], Bucket] = field(default_factory=dict)
    bad: dict[int, Core] = field(default_factory=dict)


class _FailedError(Exception):
    """A request came to nothing."""

    def __init__(self, phase: Phase, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(phase, status)
        self.phase, self.status, self.retry_after = phase, status, retry_after


def _phase_of(ask: Ask, failure: _FailedError) -> Phase | None:
    """Say as what our client takes the failure of a request for the operation that it belongs to."""
    if ask.method == "GET":
        return Phase.BROKEN if ask.server == "pool" else None
    if failure.phase is not Phase.NO_ANSWER and failure.status != 500 and ask.server == "door":
        return None
    return Phase.UNSETTLED if ask.method in ("MOVE", "DELETE") else Phase.REPLACED


class Core:
    """One core; a process of its own for each task, as the Butler's executor does it.

    Parameters
    ----------
    farm : `Farm`
        What it belongs to.
    host : `int`
        Its host.
    """

    def __init__(self, farm: Farm, host: int) -> None:
        self._farm = farm
        self._environment = farm.environment
        self._site = farm.site
        self.host = host
        self._address = f"host{host}"
        self._begin()

    def _begin(self) -> None:
        """Be a new process: no connections, no knowledge."""
        doors = self._site.doors
        self._doors = self._farm.draw.sample(doors, len(doors)) if len(doors) > 1 else list(doors)
        self._open: dict[tuple[str, int], int] = {}
        self._sessions: set[tuple[str, int]] = set()
        self._sick: dict[int, tuple[float, float]] = {}
        self._heard: set[int] = set()
        self._presumed = Kind.UNKNOWN
        self._gives_up = False
        self._lag = 0.0
        self._pool: Pool | None = None
        self._pool_epoch = 0

    # -- tasks

    def run(self, delay: float, is_amid: bool) -> _Wait:
        """Do the task, again and again.

        Parameters
        ----------
        delay : `float`
            Seconds before anything.
        is_amid : `bool`
            Whether the first task has read and computed already.

        Yields
        ------
        event : `simpy.Event`
            What it waits for.
        """
        farm, task, tally = self._farm, self._farm.task, self._farm.tally
        yield self._environment.timeout(delay)
        before = (Operation("first"), *task.before) if farm.pattern.first else task.before
        if is_amid:
            if farm.policy.looks_first:
                self._heard.add(self._doors[0].number)  # by which it has read
            good = yield from self._batch(task.after)
            tally.counts["tasks" if good else "failed tasks"] += 1
        number = 0
        while not task.times or number < task.times:
            number += 1
            if not farm.pattern.is_one_process:
                self._begin()
            began, computed = self._environment.now, 0.0
            good = yield from self._batch(before)
            if good and task.compute_seconds:
                computed = draw_seconds(farm.draw, task.compute_seconds, _COMPUTE_VARIATION)
                yield self._environment.timeout(computed)
            if good:
                good = yield from self._batch(task.after)
            tally.counts["tasks" if good else "failed tasks"] += 1
            if good:
                now = self._environment.now
                tally.done("task", now, now - began - computed)
            if not good and task.compute_seconds:
                # A task that failed is not done at once again, but its core has the next one.
                yield self._environment.timeout(1.0)

    def _batch(self, operations: tuple[Operation, ...]) -> _Wait:
        tally, environment = self._farm.tally, self._environment
        began = environment.now
        tally.in_use += 1
        good = True
        for operation in operations:
            at = environment.now
            good = yield from self._operate(operation)
            yield from self._catch_up()
            if not good:
                tally.counts[f"failed {operation.name}"] += 1
                break
            tally.done(operation.name, environment.now, environment.now - at)
            if operation.name == "write":
                tally.counts["written bytes"] += operation.size
                tally.counts["written files"] += 1
        tally.in_use -= 1
        tally.waited_seconds += environment.now - began
        return good

    def _operate(self, operation: Operation) -> _Wait:
        """Do an operation; whole, again, if the policy says that this helps."""
        farm = self._farm
        asks = farm.pattern.first if operation.name == "first" else farm.pattern.requests(operation)
        again: dict[Phase, Attempts] = {}
        while True:
            number = 0
            try:
                for ask in asks:
                    yield from self._insist(ask)
                    number += 1
            except _FailedError as failure:
                self._give_back()
                ask = asks[number]
                phase = _phase_of(ask, failure) if farm.policy.looks_first else None
                if phase is None:
                    return False
                attempts = again.setdefault(phase, farm.policy.attempts(ask.method, farm.draw))
                wait = attempts.wait(phase, None, None, self._now)
                if wait is None:
                    return False
                farm.tally.counts["operations repeated"] += 1
                self._lag += wait
                if phase is Phase.UNSETTLED:
                    asks = (Ask("door", "propfind", "PROPFIND"), *asks[number:])
                continue
            return True

    # -- requests

    def _insist(self, ask: Ask) -> _Wait:
        """Send a request until it is answered well or the policy has enough."""
        attempts: Attempts | None = None
        tally = self._farm.tally
        while True:
            try:
                if ask.server == "door":
                    yield from self._at_doors(ask)
                else:
                    yield from self._at_pool(ask)
            except _FailedError as failure:
                if failure.status == 429:
                    tally.counts["refused"] += 1
                # Who holds a mover's address asks the pool once; it is the door that names another.
                if ask.server == "pool" and self._farm.policy.looks_first:
                    raise
                attempts = attempts or self._farm.policy.attempts(ask.method, self._farm.draw)
                wait = attempts.wait(failure.phase, failure.status, failure.retry_after, self._now)
                if wait is None:
                    if failure.phase is Phase.AWAY:
                        self._heard.clear()  # and nobody waits for them again (`~...transport.presence`)
                    raise
                tally.counts["requests repeated"] += 1
                self._lag += wait
                continue
            return

    def _at_doors(self, ask: Ask) -> _Wait:
        """Ask the door that this process likes, and the next at once if it cannot be had."""
        if not self._farm.policy.looks_first:
            doors = self._site.doors
            door = doors[0] if len(doors) == 1 else self._farm.draw.choice(doors)
            yield from self._at_door(ask, door)
            return
        now = self._environment.now
        fit = [door for door in self._doors if self._sick.get(door.number, (0.0, 0.0))[0] <= now]
        order = fit + [door for door in self._doors if door not in fit]
        is_away = False
        for door in order:
            try:
                yield from self._at_door(ask, door)
            except _FailedError as failure:
                unreachable = failure.phase in (Phase.NOT_SENT, Phase.AWAY)
                is_away = is_away or failure.phase is Phase.AWAY
                if unreachable:
                    _, pause = self._sick.get(door.number, (0.0, _SICK_SECONDS / 2))
                    pause = min(_SICK_AT_MOST_SECONDS, 2 * pause)
                    until = self._environment.now + pause * self._farm.draw.uniform(0.5, 1.5)
                    self._sick[door.number] = (until, pause)
                lost = failure.phase is Phase.NO_ANSWER and ask.method in ("GET", "PROPFIND")
                if not (unreachable or lost):
                    raise
                if door is order[-1]:
                    if is_away:
                        raise _FailedError(Phase.AWAY) from failure
                    raise
                self._farm.tally.counts["asked the next door"] += 1
                continue
            self._sick.pop(door.number, None)
            self._heard.add(door.number)
            return

    @property
    def _now(self) -> float:
        """The time, with what has still to pass."""
        return self._environment.now + self._lag

    def _catch_up(self) -> _Wait:
        """Let the time pass that is known to have passed: one event in place of several."""
        if self._lag > 0:
            lag, self._lag = self._lag, 0.0
            yield self._environment.timeout(lag)

    def _connect(self, server: Door | Pool, kind: str, always: bool) -> _Wait:
        """Have a connection; raise if there is nobody."""
        key = (kind, server.number)
        spec, times = self._site.spec, self._site.times
        if not always and self._open.get(key) == server.epoch:
            return
        self._lag += spec.round_trip_seconds
        yield from self._catch_up()
        if not server.is_up:
            self._open.pop(key, None)
            is_known = kind == "door" and server.number in self._heard
            raise _FailedError(Phase.AWAY if is_known else Phase.NOT_SENT)
        server.connections += 1
        if spec.tls:
            resumes = self._farm.pattern.resumes and key in self._sessions
            self._sessions.add(key)
            full = times.door_handshake if kind == "door" else times.pool_handshake
            short = times.door_resumed if kind == "door" else times.pool_resumed
            if resumes:
                server.resumed += 1
            else:
                server.handshakes += 1
            cost = short if resumes else full
            self._lag += spec.round_trip_seconds
        else:
            cost = times.connect
        if cost:
            now = self._environment.now
            seconds = draw_seconds(self._farm.draw, cost, times.variation)
            self._lag += server.processor.finish(now, seconds) - now
        if not always:
            self._open[key] = server.epoch

    def _turn(self, door: Door, ask: Ask) -> _Wait:
        """Wait for this host's turn."""
        bucket = self._farm.buckets.setdefault((self.host, door.number), Bucket())
        turn = Turn(1.0, ask.method in ("MOVE", "POST"), presumed=self._presumed)
        yield from self._catch_up()
        while (wait := bucket.enter(turn, self._environment.now)) > 0:
            yield self._environment.timeout(wait)
        return turn

    def _at_door(self, ask: Ask, door: Door) -> _Wait:
        farm, spec = self._farm, self._site.spec
        if self._gives_up:  # our client never shows a credential again that was refused
            raise _FailedError(Phase.ANSWERED, 401)
        turn: Turn | None = None
        if farm.policy.is_paced:
            turn = yield from self._turn(door, ask)
        try:
            yield from self._connect(door, "door", ask.is_new)
        except _FailedError:
            if turn is not None:
                farm.buckets[self.host, door.number].unanswered(turn)
            raise
        self._lag += spec.round_trip_seconds / 2 + farm.pattern.client_seconds
        yield from self._catch_up()
        if not door.is_up:
            raise _FailedError(Phase.NO_ANSWER)
        admitted = yield from door.admit(self._address)
        if not admitted:
            door.refused += 1
            yield from self._answered(door, turn, 429)
            asked = None
            if spec.retry_after and door.limiter is not None:
                left = door.limiter.block_left(self._address, self._environment.now)
                asked = float(int(left)) if left else float(farm.draw.randint(1, 9))
            raise _FailedError(Phase.ANSWERED, 429, asked)
        door.admitted += 1
        if farm.bad.get(self.host) is self:
            if door.limiter is not None:
                door.limiter.count_unauthorized(self._address, self._environment.now)
            yield from self._answered(door, turn, 401)
            farm.tally.counts["401"] += 1
            self._gives_up = farm.policy.looks_first
            raise _FailedError(Phase.ANSWERED, 401)
        yield from self._serve(ask, door)
        yield from self._answered(door, turn, 200)
        if ask.closes:
            self._open.pop(("door", door.number), None)

    def _answered(self, door: Door, turn: Turn | None, status: int) -> _Wait:
        self._lag += self._site.spec.round_trip_seconds / 2
        if turn is not None and (turn.is_first or status == 429 or self._presumed is Kind.UNKNOWN):
            yield from self._catch_up()
            kind = Kind.FREE if door.limiter is None else Kind.LIMITED
            self._presumed = kind
            bucket = self._farm.buckets[self.host, door.number]
            bucket.answered(turn, self._environment.now, kind, status == 429)

    def _serve(self, ask: Ask, door: Door) -> _Wait:
        """Take a thread of the door, work, and wait for a mover."""
        environment, times, epoch, threads = self._environment, self._site.times, door.epoch, door.threads
        try:
            event = threads.take()
        except OverflowError:
            raise _FailedError(Phase.NO_ANSWER) from None
        if event is not None:
            yield event
        try:
            now = environment.now
            seconds = draw_seconds(self._farm.draw, times.door[ask.kind], times.variation)
            wait = times.waits.get(f"door {ask.kind}", 0.0) if times.waits else 0.0
            yield environment.timeout(door.processor.finish(now, seconds) - now + wait)
            if door.epoch != epoch:
                raise _FailedError(Phase.NO_ANSWER)
            if ask.starts_mover:
                yield from self._start_mover(ask)
                if door.epoch != epoch:
                    raise _FailedError(Phase.NO_ANSWER)
        finally:
            threads.free()

    def _start_mover(self, ask: Ask) -> _Wait:
        environment, site, draw = self._environment, self._site, self._farm.draw
        self._give_back()  # that of a try whose answer was lost
        candidates = site.pools
        if ask.method == "PUT":
            candidates = [pool for pool in candidates if pool.is_up] or candidates
        pool = candidates[int(draw.random() * len(candidates))]
        patience = site.spec.mover_patience_seconds
        if not pool.is_up:  # nobody else has the file: the door waits for it to come back
            yield pool.back | environment.timeout(patience)
            if not pool.is_up:
                raise _FailedError(Phase.ANSWERED, 500)
        movers, epoch = pool.movers, pool.epoch
        event = movers.take()
        if event is not None:
            yield event | environment.timeout(patience)
            if not event.triggered:
                movers.give_up(event)
                raise _FailedError(Phase.ANSWERED, 500)
        self._pool, self._pool_epoch = pool, epoch

    def _give_back(self) -> None:
        """End the mover, as the pool does when the connection closes."""
        if self._pool is not None:
            if self._pool.epoch == self._pool_epoch:
                self._pool.movers.free()
            self._pool = None

    def _at_pool(self, ask: Ask) -> _Wait:
        pool = self._pool
        if pool is None:
            raise _FailedError(Phase.BROKEN)
        environment, times = self._environment, self._site.times
        yield from self._connect(pool, "pool", ask.is_new)
        self._lag += self._site.spec.round_trip_seconds / 2 + self._farm.pattern.client_seconds
        yield from self._catch_up()
        if pool.epoch != self._pool_epoch:
            raise _FailedError(Phase.BROKEN)
        pool.requests += 1
        seconds = draw_seconds(self._farm.draw, times.pool[ask.kind], times.variation)
        now = environment.now
        self._lag += pool.processor.finish(now, seconds) - now
        self._lag += times.waits.get(f"pool {ask.kind}", 0.0) if times.waits else 0.0
        yield from self._catch_up()
        came = yield from self._site.transfer(pool, self.host, ask.size)
        if not came:
            raise _FailedError(Phase.BROKEN)
        if ask.ends_mover:
            self._give_back()
        if ask.closes:
            self._open.pop(("pool", pool.number), None)
        self._lag += self._site.spec.round_trip_seconds / 2
