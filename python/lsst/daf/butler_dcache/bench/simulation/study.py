"""What is simulated for each ready-made scenario, put together as one document."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .patterns import PATTERNS
from .policies import POLICIES
from .run import Estimate, Replication, replicate
from .scenarios import Scenario, storm
from .times import ServiceTimes

__all__ = ("CLIENTS", "SCHEMA", "SCHEMA_VERSION", "Study", "limits", "study")

SCHEMA = "dcache-butler-simulation"
"""Name of the schema of ``simulation.json``."""
SCHEMA_VERSION = 1
"""Its version."""

CLIENTS: Mapping[str, tuple[str, str]] = {
    "ours": ("ours", "ours"),
    "ours, no pacing": ("ours", "ours-unpaced"),
    "ours, upstream's repetition": ("ours", "upstream"),
    "ours, no repetition": ("ours", "none"),
    "upstream": ("upstream", "upstream"),
}
"""Pattern and policy of each client."""
_FACTORS = (1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0)
_GOOD = 0.95
"""What gives less than this share of what it should is saturated."""
_TOO_MUCH = 1.3
"""So many times what its limiter lets through is asked of a single door."""
_SWEEP = (8.0, 16.0)
"""Seconds of warm-up and window of each step of a sweep, at many times the load of the whole."""
_OVERLOAD = (4.0, 8.0)
"""The same with a single door."""
RESOURCES = {
    "door utilisation": "processors of the doors",
    "limiter utilisation": "limiter of the doors",
    "thread utilisation": "threads of the doors",
    "mover utilisation": "mover slots of the pools",
    "network utilisation": "network of the pools",
    "pool utilisation": "processors of the pools",
}
"""What may saturate, by the name of its figure."""


@dataclass(frozen=True, slots=True)
class Study:
    """What to simulate.

    Parameters
    ----------
    scenario : `~.scenarios.Scenario`
        The scenario.
    times : `~.times.ServiceTimes`
        How long requests take.
    seeds : `tuple` [`int`, ...]
        Of the random numbers.
    """

    scenario: Scenario
    times: ServiceTimes
    seeds: tuple[int, ...]


def limits(scenario: Scenario) -> dict[str, float]:
    """Return what doors and pools of a scenario can do at most, whatever is asked.

    Parameters
    ----------
    scenario : `~.scenarios.Scenario`
        The scenario.
    """
    site = scenario.site
    return {
        "requests per second that the limiters of all doors let through": site.limiter_rate * site.doors,
        "requests per second that they let one client address through": site.limiter_rate
        * site.limiter_share,
        "mover slots": float(site.movers * site.pools),
        "bytes per second of all pools": site.pool_bytes_per_second * site.pools,
    }


def study(wanted: Study, tell: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Simulate a scenario with all clients that it is meant for.

    Parameters
    ----------
    wanted : `Study`
        What.
    tell : `~collections.abc.Callable`, optional
        Told how it goes.

    Returns
    -------
    document : `dict`
        What ``simulation.json`` holds.
    """
    scenario, times = wanted.scenario, wanted.times
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "is_simulation": True,
        "scenario": asdict(scenario),
        "seeds": list(wanted.seeds),
        "service_times": times.document(),
        "limits": limits(scenario),
    }
    if scenario.task.times:
        document["together"] = [_run(wanted, scenario, client, tell, series=True) for client in CLIENTS]
    elif scenario.faults:
        document["faults"] = [_run(wanted, scenario, client, tell, series=True) for client in CLIENTS]
    else:
        document["demand"] = [_run(wanted, scenario, client, tell) for client in ("ours", "upstream")]
        parts = math.gcd(scenario.site.doors, scenario.site.pools)
        part = scenario.sliced(parts)
        document["parts"] = parts
        document["together"] = [_run(wanted, storm(part), client, tell, multiply=parts) for client in CLIENTS]
        warm_up, window = _SWEEP
        part = replace(part, warm_up_seconds=warm_up, window_seconds=window, title="more cores")
        alone = document["demand"][0]["figures"]
        document |= _sweep(wanted, part, parts, alone["written files"]["mean"], tell)
        if scenario.site.limiter_rate and alone["door requests"]["mean"]:
            document["overload"] = _overload(wanted, alone["door requests"]["mean"], tell)
    return document


def _sweep(
    wanted: Study, part: Scenario, parts: int, expected: float, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Have more and more cores work at the same site, until one step beyond where it is saturated."""
    load, saturation = [], []
    for client in ("ours", "upstream"):
        steps: list[dict[str, Any]] = []
        found: dict[str, Any] = {"saturated": None}
        for factor in _FACTORS:
            is_last = found["saturated"] is not None
            step = _run(wanted, part.scaled(factor), client, tell, multiply=parts)
            steps.append({"factor": factor, "cores": round(wanted.scenario.cores * factor), **step})
            found = _saturation(steps, expected)
            if is_last:
                break
        load += steps
        saturation.append({"client": client, **found})
    return {"load": load, "saturation": saturation}


def _overload(wanted: Study, requests: float, tell: Callable[[str], None]) -> dict[str, Any]:
    """Have so many cores work at a single door that its limiter is what is full."""
    whole = wanted.scenario
    site = replace(whole.site, doors=1, door_processors=whole.site.door_processors * whole.site.doors)
    factor = _TOO_MUCH * site.limiter_rate / requests
    warm_up, window = _OVERLOAD
    one_door = replace(
        whole, site=site, warm_up_seconds=warm_up, window_seconds=window, title="one door, its limiter full"
    ).scaled(factor)
    return {
        "cores": one_door.cores,
        "too_much": _TOO_MUCH,
        "runs": [_run(wanted, one_door, client, tell) for client in CLIENTS],
    }


def _saturation(steps: Sequence[Mapping[str, Any]], expected: float) -> dict[str, Any]:
    """Say between which loads less comes out than ``expected`` for each 1 of load, and what is full there."""
    good = 0.0
    for step in steps:
        if step["figures"]["written files"]["mean"] < _GOOD * expected * step["factor"]:
            full = {name: step["figures"].get(name, {"mean": 0.0})["mean"] for name in RESOURCES}
            name = max(full, key=lambda one: full[one])
            return {"good": good, "saturated": step["factor"], "because": name, "utilisation": full[name]}
        good = step["factor"]
    return {"good": good, "saturated": None, "because": None, "utilisation": None}


_PER_SITE = (
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
    "busy door processors",
    "busy pool processors",
    "movers",
    "cores waiting",
    "threads in use",
    "waiting for movers",
)
"""What is as many times as much for a whole site as for its part."""


def _run(
    wanted: Study,
    scenario: Scenario,
    client: str,
    tell: Callable[[str], None],
    *,
    series: bool = False,
    multiply: int = 1,
) -> dict[str, Any]:
    pattern, policy = CLIENTS[client]
    tell(f"{scenario.title}: {client}, {scenario.cores} cores")
    estimates, replications = replicate(
        scenario, PATTERNS[pattern], POLICIES[policy], wanted.times, wanted.seeds
    )
    site = scenario.site
    threads = estimates.get("threads in use", Estimate(0.0, 0.0, 0.0))
    estimates["thread utilisation"] = _times(threads, 1.0 / (site.threads * site.doors))
    estimates["share waiting"] = _times(estimates["cores waiting"], 1.0 / scenario.cores)
    for name in _PER_SITE if multiply != 1 else ():
        if name in estimates:
            estimates[name] = _times(estimates[name], multiply)
    result: dict[str, Any] = {
        "client": client,
        "pattern": pattern,
        "policy": policy,
        "figures": {name: asdict(value) for name, value in sorted(estimates.items())},
        "runs": [_described(one) for one in replications],
    }
    if series:
        # The picture of one run; its figures are those of all.
        result["series"] = replications[0].series
    return result


def _times(value: Estimate, factor: float) -> Estimate:
    return Estimate(value.mean * factor, value.low * factor, value.high * factor)


def _described(one: Replication) -> dict[str, Any]:
    return {
        "seed": one.seed,
        "from_seconds": one.from_seconds,
        "to_seconds": one.to_seconds,
        "is_steady": one.is_steady,
    }
