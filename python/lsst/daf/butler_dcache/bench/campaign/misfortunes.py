"""What goes wrong during a step: a fault of the embedded dCache at a place that the step may pass.

A fault is armed for the requests of one worker, for the n-th that matches: so it may hit the request that a
step begins with, one that it makes to look what happened, or one with which it cleans up.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from .steps import READING, Step

__all__ = ("PATIENCE_SECONDS", "Misfortune", "choose")

PATIENCE_SECONDS = 4.0
"""How long a worker waits for a byte; a long stall is longer."""

Misfortune = dict[str, Any]
"""Arguments of `~lsst.daf.butler_dcache.embedded.Fault`, and ``name`` for the tally."""

_Make = Callable[[random.Random, int], dict[str, Any]]

_QUIET = 0.3
_TWICE = 0.15

_LOOKING = [("door", "PROPFIND")]
_PUTTING = [("door", "PUT")] * 4 + [("pool", "PUT")] * 4
_NAMING = [("door", "MOVE"), ("frontend", "POST")] * 2
_REMOVING = [("door", "DELETE"), ("frontend", "DELETE")]
_GETTING = [("door", "GET")] * 2 + [("pool", "GET")] * 4

_PLACES = {
    "put": _PUTTING + _NAMING + _LOOKING + _REMOVING,
    "create": _PUTTING + _NAMING * 2 + _LOOKING + _REMOVING,
    "streamed": _PUTTING + _NAMING + _LOOKING + _REMOVING,
    "copy": _PUTTING + _NAMING + _GETTING,
    "get": _GETTING,
    "download": _GETTING,
    "ranges": _GETTING,
    "open": _GETTING + _LOOKING,
    "rename": _NAMING * 2 + _LOOKING,
    "remove": _REMOVING * 2 + _LOOKING,
    "bulk remove": _REMOVING * 2 + _LOOKING,
    "mkdir": [("door", "PUT"), ("door", "MKCOL"), ("door", "DELETE"), ("door", "PROPFIND")],
    "list": [("door", "PROPFIND"), ("door", "GET")],
    "stat": [("door", "PROPFIND")],
}


def _farewell(draw: random.Random) -> str:
    return draw.choice(["cut", "cut", "notice", "reset"])


def _status(status: int, most: int = 1) -> _Make:
    return lambda draw, size: {"kind": "status", "status": status, "times": draw.randint(1, most)}


_ANYWHERE: dict[str, _Make] = {
    "connection dropped before the effect": lambda draw, size: {"kind": "drop", "farewell": _farewell(draw)},
    "answer lost after the effect": lambda draw, size: {"kind": "lose_answer", "farewell": _farewell(draw)},
    "answer cut in its head": lambda draw, size: {
        "kind": "cut_head",
        "at_byte": draw.randint(1, 80),
        "farewell": _farewell(draw),
    },
    "answer is not HTTP": lambda draw, size: {"kind": "garble"},
    "short stall": lambda draw, size: {"kind": "stall", "seconds": 0.2, "has_effect": draw.random() < 0.5},
    "500": _status(500, 2),
    "503": _status(503, 2),
}
_AT_DOORS: dict[str, _Make] = {
    "429 storm": _status(429, 6),
    "401 in flight": _status(401),
    "403": _status(403),
    "502 of a relay": _status(502),
    "504 of a relay": _status(504),
    "name space times out": lambda draw, size: {"kind": "pnfs_timeout"},
}
_RESTARTS: dict[str, _Make] = {
    "restart before the effect": lambda draw, size: {"kind": "restart"},
    "restart after the effect": lambda draw, size: {"kind": "restart", "has_effect": True},
}
_RESTARTS_OF_DOORS = _RESTARTS | {
    "restart that takes its time": lambda draw, size: {
        "kind": "restart",
        "seconds": 0.3,
        "has_effect": draw.random() < 0.5,
    },
}
_OF_PUT: dict[str, _Make] = {
    "upload cut": lambda draw, size: {
        "kind": "cut_upload",
        "at_byte": draw.randint(0, size),
        "farewell": _farewell(draw),
    },
    "upload flipped": lambda draw, size: {"kind": "corrupt_upload", "at_byte": draw.randrange(max(size, 1))},
    "upload kept in part": lambda draw, size: {"kind": "keep", "at_byte": draw.randrange(max(size, 1))},
    "wrong digest": lambda draw, size: {"kind": "wrong_digest"},
    "disk full": lambda draw, size: {"kind": "full"},
}
_OF_PUT_AT_DOOR: dict[str, _Make] = {
    "over quota": lambda draw, size: {"kind": "over_quota"},
    "no pool": lambda draw, size: {"kind": "dead_pool"},
    "pool refuses": lambda draw, size: {"kind": "refuse_pool", "times": draw.randint(1, 2)},
}
_OF_GET: dict[str, _Make] = {
    "download cut": lambda draw, size: {
        "kind": "cut_download",
        "at_byte": draw.randint(0, size),
        "times": draw.randint(1, 2),
        "farewell": _farewell(draw),
    },
    "download flipped": lambda draw, size: {
        "kind": "corrupt_download",
        "at_byte": draw.randrange(max(size, 1)),
    },
    "wrong digest": lambda draw, size: {"kind": "wrong_digest"},
}
_OF_GET_AT_DOOR: dict[str, _Make] = {
    "no pool": lambda draw, size: {"kind": "dead_pool"},
    "pool refuses": lambda draw, size: {"kind": "refuse_pool", "times": draw.randint(1, 2)},
}
_OF_GET_AT_POOL: dict[str, _Make] = {
    "range ignored": lambda draw, size: {"kind": "ignore_range"},
}
_AT_POOL: dict[str, _Make] = {
    "URL of the pool dead": lambda draw, size: {
        "kind": "status",
        "status": 307,
        "reason": "Request is no longer valid",
        "headers": {"Location": "/elsewhere"},
    },
}
_LONG_STALLS: dict[str, _Make] = {
    "long stall": lambda draw, size: {
        "kind": "stall",
        "seconds": PATIENCE_SECONDS + 1.0,
        "has_effect": draw.random() < 0.5,
    },
}
_LONG_STALLS_OF_GET: dict[str, _Make] = {
    "download stalls": lambda draw, size: {
        "kind": "stall_download",
        "at_byte": draw.randrange(max(size, 1)),
        "seconds": PATIENCE_SECONDS + 1.0,
    },
}
_LONG_STALLS_OF_ALL = 0.012


def choose(seed: int, step: Step, size: int, *, restarts: bool) -> list[Misfortune]:
    """Return what shall go wrong during a step.

    Parameters
    ----------
    seed : `int`
        Of the campaign.
    step : `~.steps.Step`
        The step.
    size : `int`
        Size of the file that it writes or reads.
    restarts : `bool`
        Whether servers may crash.
    """
    draw = random.Random(f"{seed}!{step.process}!{step.index}")
    places = _PLACES.get(step.kind)
    if places is None or draw.random() < _QUIET:
        return []
    count = 2 if draw.random() < _TWICE else 1
    return [_one(draw, places, size, step, restarts) for _ in range(count)]


def _one(
    draw: random.Random, places: list[tuple[str, str]], size: int, step: Step, restarts: bool
) -> Misfortune:
    server, method = draw.choice(places)
    table = dict(_ANYWHERE)
    if server == "pool":
        table |= _AT_POOL
    else:
        table |= _AT_DOORS
    if restarts and server != "frontend" and draw.random() < 0.25:
        table = _RESTARTS_OF_DOORS if server == "door" else _RESTARTS
    elif draw.random() < _LONG_STALLS_OF_ALL:
        table = _LONG_STALLS_OF_GET if (server, method) == ("pool", "GET") else _LONG_STALLS
    elif method == "PUT":
        table |= _OF_PUT | (_OF_PUT_AT_DOOR if server == "door" else {})
    elif method == "GET":
        table |= _OF_GET if server == "pool" else _OF_GET_AT_DOOR
        table |= _OF_GET_AT_POOL if server == "pool" and step.kind in READING else {}
    name = draw.choice(list(table))
    made = table[name](draw, size)
    return {
        "name": name,
        "server": server,
        "method": method,
        "after": draw.choice([0, 0, 0, 1, 2]),
        **made,
    }
