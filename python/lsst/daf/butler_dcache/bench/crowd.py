"""Many processes of one host that begin at the same moment."""

from __future__ import annotations

from .row import Claim, Row
from .work import Work

__all__ = ("ROWS",)

_LIMIT = 250.0
"""What dCache's door allows one client, in requests per second."""
_WORK = Work("look", 1, 60, processes=64)

ROWS = (
    # First whether this server and this machine can do more than the limiter lets through.
    Row(
        "crowd-unlimited",
        "64 processes begin together, 60 looks each, a door without limiter",
        _WORK,
        ("crowd-ours",),
        ("unlimited",),
        (Claim("rate", _LIMIT, at_least=True, client="crowd-ours"),),
    ),
    Row(
        "crowd",
        "64 processes begin together, 60 looks each",
        _WORK,
        ("crowd-ours", "crowd-upstream"),
        ("embedded",),
        (
            Claim("rate", 0.9 * _LIMIT, at_least=True, client="crowd-ours"),
            Claim("refused", 0, client="crowd-ours"),
            Claim("rate", 0.9 * _LIMIT, at_least=True, client="crowd-upstream"),
            Claim("refused", 0, client="crowd-upstream"),
        ),
    ),
)
