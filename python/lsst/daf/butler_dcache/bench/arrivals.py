"""Open loop: files are asked for when they are wanted, not when the one before has come.

A closed loop asks less of a server the slower that is, and hides what users wait for. Here requests arrive at
random with a given rate, and time runs from the arrival. dCache's door lets 250 requests a second through for
a host: the last rate is above that, where a client can only queue, and what counts is that the queue is
orderly and nobody is turned away.
"""

from __future__ import annotations

from .row import Claim, Row
from .work import Work

__all__ = ("ROWS",)

_SECONDS = 3
_THREADS = 16
_PEERS = ("ours", "upstream", "boto3")


def _row(rate: int) -> Row:
    work = Work("get", 10_000, rate * _SECONDS, _THREADS, sink="memory", rate=float(rate))
    return Row(
        f"arrivals-{rate}",
        f"GET files of 10 kB that are asked for {rate} times a second",
        work,
        _PEERS,
        ("embedded",),
        (Claim("door", work.count), Claim("refused", 0)),
        group="arrivals",
        kinds=("webdav", "s3"),
    )


ROWS = tuple(_row(rate) for rate in (300, 100, 30, 200))
"""The first is more than anybody is allowed, the second what all can do."""
