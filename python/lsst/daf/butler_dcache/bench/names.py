"""What is asked of a door about names: whether files are there, which ones, under which name, for whom.

The claims are the goals of this package in requests. `mint` and `presign` are asked of the door itself, and a
server without macaroons has neither.
"""

from __future__ import annotations

from .goals import goals
from .row import Row
from .work import Work

__all__ = ("ROWS",)

_TARGETS = ("embedded",)
_TLS = ("embedded-tls",)
"""dCache gives and takes macaroons over TLS only."""
_PATHS = ("ours", "path", "upstream", "upstream-http")
_S3 = ("boto3", "s3fs", "obstore")
_LIBRARIES = ("webdavclient3", "webdav4", *_S3)
_FEW = ("ours", "upstream", "boto3")


def _row(
    name: str,
    title: str,
    work: Work,
    peers: tuple[str, ...] = (*_PATHS, *_LIBRARIES),
    targets: tuple[str, ...] = _TARGETS,
) -> Row:
    kinds = ("webdav",) if work.operation == "mint" else ("webdav", "s3")
    return Row(name, title, work, peers, targets, goals(work), group="names", kinds=kinds)


ROWS = (
    _row(
        "exists-1000",
        "are 1000 files in 10 directories there?",
        Work("exists_many", 1, 1, batch=1000, directory_count=10),
        _PATHS,
    ),
    _row(
        "remove-200",
        "remove 200 files in one call",
        Work("delete", 1, 1, batch=200),
        (*_PATHS, *_S3),
    ),
    _row(
        "walk-200",
        "walk a tree of 200 files in 10 directories",
        Work("walk", 1, 1, batch=200, directory_count=10),
    ),
    _row("exists", "is a file there? 100 times", Work("look", 1, 100, files=10)),
    _row("rename", "rename 50 files, one after the other", Work("rename", 1000, 50), _FEW),
    _row("remove", "remove 50 files, one after the other", Work("remove", 1000, 50), _FEW),
    _row("presign", "make URLs for others, 50 times", Work("presign", 1000, 50), _FEW, _TLS),
    _row("mint", "ask for a token for a directory, 20 times", Work("mint", 1, 20), ("ours",), _TLS),
)
