"""How long requests keep servers busy: where the figures of a simulation come from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ("DEFAULTS", "EMBEDDED", "RECORDED", "ServiceTimes", "ServiceTimesError", "service_times")

_SCHEMA = "dcache-butler-service-times"
_VERSION = 1
_RESULTS_SCHEMA = "dcache-butler-bench"
_RESULTS_VERSION = 2
_DOOR_KINDS = ("options", "propfind", "get", "put", "put_proxied", "move", "delete")
_POOL_KINDS = ("get", "range", "put")


class ServiceTimesError(ValueError):
    """A file does not say how long requests take."""


@dataclass(frozen=True)
class ServiceTimes:
    """Seconds for which a request keeps one processor busy.

    Parameters
    ----------
    name : `str`
        Short name.
    title : `str`
        What was measured, for reports.
    source : `str`
        The command that measured it, or where it is written.
    is_dcache : `bool`
        Whether that was a dCache.
    door, pool : `~collections.abc.Mapping` [`str`, `float`]
        By kind of request (`~.patterns.Ask`): processor time of the server for it.
    waits : `~collections.abc.Mapping` [`str`, `float`]
        By server and kind, such as ``pool get``: what it takes besides, always the same and without keeping a
        processor busy.
    connect : `float`
        A new connection without TLS, at either.
    door_handshake, pool_handshake : `float`
        A new connection with a full TLS handshake.
    door_resumed, pool_resumed : `float`
        A resumed one.
    variation : `float`
        Coefficient of variation of all times: 0 is always the same, 1 is exponential.
    """

    name: str
    title: str
    source: str
    is_dcache: bool
    door: Mapping[str, float]
    pool: Mapping[str, float]
    connect: float = 0.0
    door_handshake: float = 0.0
    door_resumed: float = 0.0
    pool_handshake: float = 0.0
    pool_resumed: float = 0.0
    variation: float = 1.0
    waits: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for kinds, times, where in ((_DOOR_KINDS, self.door, "door"), (_POOL_KINDS, self.pool, "pool")):
            if missing := [kind for kind in kinds if kind not in times]:
                raise ServiceTimesError(f"no time of the {where} for: {', '.join(missing)}")
        values = [*self.door.values(), *self.pool.values(), *self.waits.values(), self.variation]
        values += [
            self.connect,
            self.door_handshake,
            self.door_resumed,
            self.pool_handshake,
            self.pool_resumed,
        ]
        for value in values:
            if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ServiceTimesError(f"{value!r} is no number of seconds")

    def document(self) -> dict[str, Any]:
        """Return what `service_times` reads."""
        return {"schema": _SCHEMA, "schema_version": _VERSION, **asdict(self)}


RECORDED = ServiceTimes(
    "recorded",
    "a dCache 11.2.4 that shared two cores with its database, its pools and the client",
    "protocol page, surprises 24 and 25: medians over loopback",
    True,
    # In parallel it ended at 200 small GETs, 76 PUTs and 50 PUTs with MOVE a second on two cores: 10, 26
    # and 40 ms of them, so that these medians are nearly all work, none of it waiting.
    {
        "options": 0.0045,
        "propfind": 0.0065,
        "get": 0.010,
        "put": 0.025,
        "put_proxied": 0.039,
        "move": 0.012,
        "delete": 0.010,
    },
    {"get": 0.0006, "range": 0.0006, "put": 0.008},
    door_handshake=0.011,
    door_resumed=0.003,
    pool_handshake=0.0037,
    pool_resumed=0.002,
)
"""Those of the one dCache that this project has recorded. A facility's doors are others: measure them."""

EMBEDDED = ServiceTimes(
    "embedded",
    "the embedded dCache, a Python program: not dCache's",
    "dcache-butler bench simulate --measure FILE",
    False,
    {
        "options": 0.0006,
        "propfind": 0.0009,
        "get": 0.0008,
        "put": 0.0010,
        "put_proxied": 0.0012,
        "move": 0.0008,
        "delete": 0.0007,
    },
    {"get": 0.0005, "range": 0.0005, "put": 0.0008},
    door_handshake=0.002,
    door_resumed=0.001,
    pool_handshake=0.002,
    pool_resumed=0.001,
)
"""Those of the embedded dCache."""

DEFAULTS = {times.name: times for times in (EMBEDDED, RECORDED)}
"""What needs no file, by name."""


def service_times(name: str) -> ServiceTimes:
    """Return the service times of a name or a file.

    Parameters
    ----------
    name : `str`
        A key of `DEFAULTS`, or a path: of a file that ``bench simulate --measure`` wrote, or of a
        ``results.json`` of ``bench run``.

    Raises
    ------
    ServiceTimesError
        If it is neither.
    """
    if name in DEFAULTS:
        return DEFAULTS[name]
    try:
        document = json.loads(Path(name).read_text())
    except OSError as error:
        raise ServiceTimesError(
            f"{name}: {error.strerror or error}; or say {' or '.join(DEFAULTS)}"
        ) from error
    except ValueError as error:
        raise ServiceTimesError(f"{name} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ServiceTimesError(f"{name} holds no service times")
    schema, version = document.pop("schema", None), document.pop("schema_version", None)
    if schema == _SCHEMA:
        _require(name, version, _VERSION, "measure again with bench simulate --measure")
        return _from_document(name, document)
    if schema == _RESULTS_SCHEMA:
        _require(name, version, _RESULTS_VERSION, "run bench run again")
        return _from_results(name, document)
    raise ServiceTimesError(f"{name} holds no service times: its schema is {schema!r}")


def _require(name: str, version: object, wanted: int, advice: str) -> None:
    if version != wanted:
        raise ServiceTimesError(
            f"{name} has schema version {version!r}, this release reads {wanted}: {advice}"
        )


def _from_document(name: str, document: dict[str, Any]) -> ServiceTimes:
    try:
        return ServiceTimes(**{**document, "notes": tuple(document.get("notes", ()))})
    except TypeError as error:
        raise ServiceTimesError(f"{name}: {error}") from error


_KIND_OF = {
    "get": "get",
    "put": "put_proxied",
    "look": "propfind",
    "exists": "propfind",
    "exists_many": "propfind",
    "remove": "delete",
    "delete": "delete",
    "rename": "move",
}


def _from_results(name: str, document: dict[str, Any]) -> ServiceTimes:
    """Take the server's CPU seconds per door request; what was not measured is that of `RECORDED`, scaled."""
    seen: dict[str, list[float]] = {}
    targets: set[str] = set()
    for result in document.get("results", []):
        work = result.get("work", {})
        kind = _KIND_OF.get(work.get("operation", ""))
        if kind is None or work.get("size", work.get("size_bytes", 0)) > 1_000_000:
            continue
        for peer in result.get("peers", {}).values():
            for sample in peer.get("samples", []):
                counts, cpu = sample.get("counts"), sample.get("server_cpu_seconds")
                asked = (counts or {}).get("door_requests", 0)
                if cpu and asked:
                    seen.setdefault(kind, []).append(cpu / asked)
                    targets.add(result.get("target", ""))
    if not seen:
        raise ServiceTimesError(
            f"{name} has no server CPU time for a request (rows with get, put, look, remove or rename of "
            "small files, on a server of this machine)"
        )
    means = {kind: min(values) for kind, values in seen.items()}
    factor = math.exp(
        sum(math.log(seconds / RECORDED.door[kind]) for kind, seconds in means.items()) / len(means)
    )
    described = document.get("targets", {})
    is_dcache = bool(targets) and all(described.get(target, {}).get("is_dcache") for target in targets)
    missing = [kind for kind in _DOOR_KINDS if kind not in means]
    return ServiceTimes(
        Path(name).name,
        " and ".join(described.get(target, {}).get("title", target) for target in sorted(targets)),
        f"dcache-butler bench run, {name}",
        is_dcache,
        {kind: means.get(kind, RECORDED.door[kind] * factor) for kind in _DOOR_KINDS},
        {kind: RECORDED.pool[kind] * factor for kind in _POOL_KINDS},
        RECORDED.connect * factor,
        RECORDED.door_handshake * factor,
        RECORDED.door_resumed * factor,
        RECORDED.pool_handshake * factor,
        RECORDED.pool_resumed * factor,
        notes=(f"not measured, scaled from the recorded dCache: {', '.join(missing)}, pools, handshakes",),
    )
