"""Work as a campaign does it: many small things around a few large ones.

A quantum looks whether its outputs are there already, reads its inputs, and writes an image, a catalogue,
its metadata and its log. An ingest takes a raw with the sidecar that describes it. A step of a campaign is
one of a coadd: many inputs, one large output, and the intermediate files go.
"""

from __future__ import annotations

from .goals import goals
from .row import Row
from .work import Step, Work

__all__ = ("ROWS",)

_KB = 1000
_MB = 1000**2
_PEERS = ("ours", "upstream", "boto3", "s3fs")

_QUANTUM = Work(
    "mix",
    0,
    6,
    2,
    steps=(
        Step("exists_many", 1, 4),
        Step("get", 18 * _MB),
        Step("get", 100 * _KB, 4),
        Step("put", 18 * _MB),
        Step("put", 2 * _MB),
        Step("put", 20 * _KB),
        Step("put", 50 * _KB),
    ),
)
_INGEST = Work("mix", 0, 16, 4, steps=(Step("put", 18 * _MB), Step("put", 5 * _KB)))
_CAMPAIGN_STEP = Work(
    "mix",
    0,
    1,
    steps=(
        Step("exists_many", 1, 20),
        Step("get", 18 * _MB, 8),
        Step("put", 180 * _MB),
        Step("put", 20 * _KB),
        Step("put", 50 * _KB),
        Step("delete", 10 * _KB, 20),
    ),
)


def _row(name: str, title: str, work: Work, *more: str) -> Row:
    return Row(
        name, title, work, (*_PEERS, *more), ("embedded",), goals(work), group="mixes", kinds=("webdav", "s3")
    )


ROWS = (
    _row("quantum", "6 quanta, 2 at a time: look, read 5 files, write 4", _QUANTUM, "path", "upstream-http"),
    _row("ingest", "ingest 16 raws with sidecars, 4 at a time", _INGEST),
    _row("campaign-step", "a step of a campaign: read 8, write 3, remove 20", _CAMPAIGN_STEP),
)
