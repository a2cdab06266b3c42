"""How long requests keep servers busy: where the figures of a simulation come from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ("DEFAULTS", "EMBEDDED", "RECORDED", "ServiceTimes", "ServiceTimesError", "service_times")

_SCHEMA = "dcache-butler-service-times"
_VERSION = 1
_RESULTS_SCHEMA = "dcache-butler-bench"
_RESULTS_VERSION = 2
_SMALL_BYTES = 1_000_000
"""What is larger tells of the transfer, not of the request."""
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
    "dcache-butler bench simulate --measure FILE, two cores of a machine that others used, 2026-11-24",
    False,
    {
        "options": 0.000104,
        "propfind": 0.000252,
        "get": 0.000170,
        "put": 0.000331,
        "put_proxied": 0.000189,
        "move": 0.000275,
        "delete": 0.000275,
    },
    {"get": 0.000096, "range": 0.000096, "put": 0.000189},
    connect=0.000212,
    door_handshake=0.00107,
    door_resumed=0.00093,
    pool_handshake=0.00107,
    pool_resumed=0.00093,
    notes=("not measured: delete, which is as move, and how much times vary",),
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
    """Take processor time per request at the door where it is known, else the time until the door answered.

    What was not measured is that of `RECORDED`, scaled.
    """
    known, answered = _times_of(document, _processor_seconds), _times_of(document, _answer_seconds)
    means = known or answered
    if not means:
        raise ServiceTimesError(
            f"{name} has no time of a door's request: neither processor time of a server on this machine nor "
            "phases of this package's requests, for get, put, look, remove or rename of small files"
        )
    factor = math.exp(
        sum(math.log(seconds / RECORDED.door[kind]) for kind, seconds in means.items()) / len(means)
    )
    targets = document.get("targets", {})
    titles = " and ".join(str(one.get("title", key)) for key, one in sorted(targets.items()))
    missing = [kind for kind in _DOOR_KINDS if kind not in means]
    notes = [f"not measured, scaled from the recorded dCache: {', '.join([*missing, 'pools', 'handshakes'])}"]
    if not known:
        notes.append("times until the door answered, from afar: more than its processors need")
    return ServiceTimes(
        Path(name).name,
        titles,
        f"dcache-butler bench run, {name}",
        bool(targets) and all(one.get("is_dcache") for one in targets.values()),
        {kind: means.get(kind, RECORDED.door[kind] * factor) for kind in _DOOR_KINDS},
        {kind: RECORDED.pool[kind] * factor for kind in _POOL_KINDS},
        RECORDED.connect * factor,
        RECORDED.door_handshake * factor,
        RECORDED.door_resumed * factor,
        RECORDED.pool_handshake * factor,
        RECORDED.pool_resumed * factor,
        notes=tuple(notes),
    )


def _times_of(
    document: dict[str, Any], times: Callable[[dict[str, Any]], Iterator[float]]
) -> dict[str, float]:
    """Return the least time of each kind of request."""
    found: dict[str, float] = {}
    for result in document.get("results", []):
        work = result.get("work", {})
        kind = _KIND_OF.get(work.get("operation", ""))
        if kind is None or work.get("size_bytes", 0) > _SMALL_BYTES:
            continue
        for peer in result.get("peers", {}).values():
            for seconds in times(peer):
                found[kind] = min(seconds, found.get(kind, math.inf))
    return found


def _processor_seconds(peer: dict[str, Any]) -> Iterator[float]:
    for sample in peer.get("samples", []):
        asked = (sample.get("counts") or {}).get("door_requests", 0)
        if asked and sample.get("server_cpu_seconds"):
            yield sample["server_cpu_seconds"] / asked


def _answer_seconds(peer: dict[str, Any]) -> Iterator[float]:
    summary = peer.get("summary") or {}
    seconds = (summary.get("phases") or {}).get("door")
    asked = (summary.get("requests_per_operation") or {}).get("door")
    if seconds and asked:
        yield seconds / asked
