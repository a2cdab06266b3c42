"""What the benchmark itself costs: the same loop with a client that does nothing."""

from __future__ import annotations

from .row import Claim, Row
from .work import Work

__all__ = ("ROWS",)

ROWS = (
    Row(
        "overhead",
        "the benchmark's own cost: 200 operations of a client that does nothing, and 200 looks",
        Work("look", 1, 200),
        ("nothing", "ours"),
        ("embedded",),
        (
            Claim("cpu_each", 50e-6, client="nothing"),
            Claim("cpu", 0.02, "ours", client="nothing"),
        ),
        group="names",
        kinds=("webdav", "s3"),
    ),
)
