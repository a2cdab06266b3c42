"""One simulation, and several with other random numbers put together."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..statistics import student_quantile
from .clients import Core, Farm, residual_seconds
from .patterns import Pattern
from .policies import Policy
from .queues import new_environment
from .scenarios import Fault, Scenario
from .site import Site
from .times import ServiceTimes

if TYPE_CHECKING:
    import simpy

__all__ = ("Estimate", "Replication", "estimate", "replicate", "simulate", "truncation")

_BINS = 240
"""Into so many parts the simulated time is cut, to see where it becomes steady and how things went."""
_FEWEST_BINS = 40
_STEADY_SHARE = 0.5
_STEP_SECONDS = 5.0
_SLOW_POOL = 0.1


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds.

    Parameters
    ----------
    mean : `float`
        Of all.
    low, high : `float`
        95 % interval of it; both the mean if there is one value only.
    """

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean and its interval.

    Parameters
    ----------
    values : `~collections.abc.Sequence` [`float`]
        One of each seed; at least one.
    """
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Estimate(mean, mean, mean)
    half = student_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def truncation(series: Sequence[float]) -> int:
    """Return how many values at the beginning do not belong to the steady state.

    Parameters
    ----------
    series : `~collections.abc.Sequence` [`float`]
        Something that is steady later.

    Returns
    -------
    count : `int`
        The one for which the standard error of the mean of the others is smallest (MSER: White, "An effective
        truncation heuristic for bias reduction in simulation output", 1997); at most half of them. That many
        means that nothing is steady.
    """
    count = len(series)
    best, at = float("inf"), 0
    total = squares = 0.0
    for left in range(1, count + 1):
        value = series[count - left]
        total += value
        squares += value * value
        if left * 2 < count:
            continue
        score = max(0.0, squares / left - (total / left) ** 2) / left
        if score <= best * (1 + 1e-12):
            best, at = score, count - left
    return at


@dataclass
class Replication:
    """What one simulation showed.

    Parameters
    ----------
    seed : `int`
        Of its random numbers.
    from_seconds, to_seconds : `float`
        What was counted.
    is_steady : `bool`
        Whether it was steady, as far as `truncation` can tell.
    figures : `dict` [`str`, `float`]
        By name; rates are per second.
    series : `dict` [`str`, `list` [`float`]]
        By name, for each step of the simulated time.
    """

    seed: int
    from_seconds: float
    to_seconds: float
    is_steady: bool
    figures: dict[str, float]
    series: dict[str, list[float]] = field(default_factory=dict)


_Row = defaultdict[str, float]


class _Recorder:
    """Takes the state of everything at the end of each bin."""

    def __init__(self, farm: Farm, until: float) -> None:
        self._farm = farm
        bins = max(_FEWEST_BINS, min(_BINS, math.ceil(until)))
        if farm.task.times:  # what ends is over long before
            bins = math.ceil(until)
        self.step = until / bins
        self.count = bins
        self.rows: list[_Row] = []

    def run(self) -> Generator[Any, Any, None]:
        self.take()
        for _ in range(self.count):
            yield self._farm.environment.timeout(self.step)
            self.take()

    def take(self) -> None:
        farm, site, now = self._farm, self._farm.site, self._farm.environment.now
        row: defaultdict[str, float] = defaultdict(float, farm.tally.counts)
        for kind, servers in (("door", site.doors), ("pool", site.pools)):
            for server in servers:
                row[f"{kind} connections"] += server.connections
                row[f"{kind} full handshakes"] += server.handshakes
                row[f"{kind} resumed handshakes"] += server.resumed
        for door in site.doors:
            row["door requests"] += door.admitted
            row["threads in use"] += door.threads.used
        row["door busy"] = sum({id(d.processor): d.processor.done(now) for d in site.doors}.values())
        row["pool busy"] = sum({id(p.processor): p.processor.done(now) for p in site.pools}.values())
        for pool in site.pools:
            row["pool requests"] += pool.requests
            row["mover seconds"] += pool.mover_seconds
            row["pool bytes"] += pool.link.carried
            row["movers at the end"] += pool.movers.used
            row["waiting for movers"] += pool.movers.waiting
            row["busiest movers"] = max(row["busiest movers"], pool.movers.used)
        row["in use"] = farm.tally.in_use
        row["at"] = now
        self.rows.append(row)


def simulate(
    scenario: Scenario, pattern: Pattern, policy: Policy, times: ServiceTimes, seed: int
) -> Replication:
    """Simulate once.

    Parameters
    ----------
    scenario : `~.scenarios.Scenario`
        What.
    pattern : `~.patterns.Pattern`
        Requests of each operation.
    policy : `~.policies.Policy`
        What is done about failures.
    times : `~.times.ServiceTimes`
        How long requests take.
    seed : `int`
        Of the random numbers; the same seed gives the same figures.
    """
    environment = new_environment()
    draw = random.Random(seed)
    site = Site(environment, scenario.site, times, scenario.hosts)
    farm = Farm(environment, site, pattern, policy, scenario.task, draw)
    until = scenario.warm_up_seconds + scenario.window_seconds
    processes = []
    cores = []
    for number in range(scenario.cores):
        core = Core(farm, number % scenario.hosts)
        cores.append(core)
        spread, compute = scenario.spread_seconds, scenario.task.compute_seconds
        is_amid = spread is None and compute > 0
        delay = residual_seconds(draw, compute) if is_amid else draw.random() * (spread or 0.0)
        processes.append(environment.process(core.run(delay, is_amid)))
    for fault in scenario.faults:
        environment.process(_go_wrong(environment, site, farm, cores, fault, scenario.warm_up_seconds))
    recorder = _Recorder(farm, until)
    environment.process(recorder.run())
    if scenario.task.times:
        # What ends is counted as a whole.
        environment.run(until=environment.all_of(processes) | environment.timeout(until))
        recorder.take()
        return _summary(recorder.rows, farm, seed, 0, True)
    environment.run(until=until + recorder.step / 2)
    skip = math.ceil(scenario.warm_up_seconds / recorder.step)
    if scenario.faults:
        return _summary(recorder.rows, farm, seed, skip, True)
    cut = truncation([row["in use"] for row in recorder.rows])
    return _summary(recorder.rows, farm, seed, max(skip, cut), cut <= _STEADY_SHARE * recorder.count - 1)


def _go_wrong(
    environment: simpy.Environment, site: Site, farm: Farm, cores: list[Core], fault: Fault, after: float
) -> Generator[Any, Any, None]:
    yield environment.timeout(after + fault.at_seconds)
    begin: Callable[[], object]
    end: Callable[[], object]
    if fault.kind == "door-restart":
        door = site.doors[fault.number]
        begin, end = door.stop, door.start
    elif fault.kind == "pool-down":
        pool = site.pools[fault.number]
        begin, end = pool.stop, pool.start
    elif fault.kind == "slow-pool":
        link = site.pools[fault.number].link
        rate = link.rate
        begin, end = (lambda: link.set_rate(rate * _SLOW_POOL)), (lambda: link.set_rate(rate))
    else:
        core = next(core for core in cores if core.host == fault.number)
        begin, end = (lambda: farm.bad.update({core.host: core})), (lambda: farm.bad.pop(core.host, None))
    begin()
    yield environment.timeout(fault.for_seconds)
    end()


_RATES = (
    "tasks",
    "failed tasks",
    "written files",
    "written bytes",
    "door requests",
    "door connections",
    "door full handshakes",
    "door resumed handshakes",
    "pool requests",
    "pool connections",
    "pool full handshakes",
    "pool resumed handshakes",
    "pool bytes",
    "refused",
    "requests repeated",
    "operations repeated",
    "asked the next door",
    "401",
    "door busy",
    "pool busy",
    "mover seconds",
)
_LEVELS = {
    "in use": "cores waiting",
    "threads in use": "threads in use",
    "waiting for movers": "waiting for movers",
}


def _summary(rows: list[_Row], farm: Farm, seed: int, skip: int, is_steady: bool) -> Replication:
    first, last = rows[skip], rows[-1]
    seconds = last["at"] - first["at"] or 1e-9
    spec = farm.site.spec
    figures = {name: (last[name] - first[name]) / seconds for name in _RATES}
    figures["seconds"] = seconds
    for name in ("tasks", "failed tasks", "refused", "requests repeated"):
        figures[f"{name} in all"] = last[name] - first[name]
    counted = rows[skip + 1 :] or rows[-1:]
    for name, title in _LEVELS.items():
        figures[title] = statistics.fmean(row[name] for row in counted)
    figures["movers at the end"], figures["threads at the end"] = (
        last["movers at the end"],
        last["threads in use"],
    )
    figures["most movers of a pool"] = float(max(row["busiest movers"] for row in counted))
    # Names for what these integrals are per second.
    figures["busy door processors"] = figures.pop("door busy")
    figures["busy pool processors"] = figures.pop("pool busy")
    figures["movers"] = figures.pop("mover seconds")
    processors = spec.door_processors * (1 if spec.shares_processor else spec.doors)
    figures["door utilisation"] = figures["busy door processors"] / processors
    figures["pool utilisation"] = figures["busy pool processors"] / (spec.pool_processors * spec.pools)
    figures["mover utilisation"] = figures["movers"] / (spec.movers * spec.pools)
    figures["network utilisation"] = figures["pool bytes"] / (spec.pool_bytes_per_second * spec.pools)
    if spec.limiter_rate:
        figures["limiter utilisation"] = figures["door requests"] / (spec.limiter_rate * spec.doors)
    for name in {key for key in last if key.startswith("failed ") and key != "failed tasks"}:
        figures[name] = (last[name] - first[name]) / seconds
    started = farm.tally
    for name, at in started.done_at.items():
        took = sorted(
            seconds for when, seconds in zip(at, started.took[name], strict=True) if when >= first["at"]
        )
        if not took:
            continue
        figures[f"{name} mean"] = statistics.fmean(took)
        for percent in (50, 90, 99):
            figures[f"{name} p{percent}"] = took[min(len(took) - 1, len(took) * percent // 100)]
    if len(rows) > 2 and rows[-1]["at"] - rows[-2]["at"] < (rows[1]["at"] - rows[0]["at"]) / 2:
        rows = rows[:-1]  # the last step is too short for a rate
    series = {"at": [row["at"] for row in rows[1:]]}
    for name in ("tasks", "failed tasks", "door requests", "refused", "written files", "requests repeated"):
        series[name] = [
            (after[name] - before[name]) / max(1e-9, after["at"] - before["at"])
            for before, after in itertools.pairwise(rows)
        ]
    series["cores waiting"] = [float(row["in use"]) for row in rows[1:]]
    return Replication(seed, first["at"], last["at"], is_steady, figures, series)


def replicate(
    scenario: Scenario, pattern: Pattern, policy: Policy, times: ServiceTimes, seeds: Sequence[int]
) -> tuple[dict[str, Estimate], list[Replication]]:
    """Simulate with several seeds.

    Parameters
    ----------
    scenario : `~.scenarios.Scenario`
        What.
    pattern : `~.patterns.Pattern`
        Requests of each operation.
    policy : `~.policies.Policy`
        What is done about failures.
    times : `~.times.ServiceTimes`
        How long requests take.
    seeds : `~collections.abc.Sequence` [`int`]
        At least one.

    Returns
    -------
    estimates : `dict` [`str`, `Estimate`]
        Of each figure.
    replications : `list` [`Replication`]
        What they are made of.
    """
    replications = [simulate(scenario, pattern, policy, times, seed) for seed in seeds]
    names = {name: None for replication in replications for name in replication.figures}
    estimates = {
        name: estimate([replication.figures.get(name, 0.0) for replication in replications]) for name in names
    }
    return estimates, replications
