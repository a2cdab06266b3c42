"""Files as large as those of Data Preview 1: how they are read, in part or whole, and written.

A few kB of YAML or JSON, a raw image of 18 MB, a visit image of 110 MB, a coadd of 180 MB, a zip file of
4 GB.
"""

from __future__ import annotations

from .formats import (
    archive_bytes_needed,
    make_archive,
    make_image,
    make_table,
    needs_of_image,
    table_bytes_needed,
)
from .goals import goals
from .row import Claim, Row
from .work import Work

__all__ = ("LARGE", "PARTS", "WHOLE")

_KINDS = ("webdav", "s3")
_TARGETS = ("embedded",)

_KB = 1000
_MB = 1000**2
_GB = 1000**3
_BYTES = {
    "document": 2 * _KB,
    "raw": 18 * _MB,
    "visit": 110 * _MB,
    "coadd": 180 * _MB,
    "table": 80 * _MB,
    "archive": 50 * _MB,
    "zip": 4 * _GB,
}
"""Sizes of files."""

_S3 = ("boto3", "s3fs", "awscrt", "obstore")
_PLAIN = ("ours", "upstream", "curl", *_S3)
_FAST = (*_PLAIN, "upstream-http", "rclone", "xrdcp")
_UPLOADERS = (*_FAST, "webdavclient3", "webdav4", "fsspec-http")
_EVERYBODY = (*_UPLOADERS, "path", "dcachefs", "davix", "gfal2")
_OPENERS = ("ours", "upstream", "upstream-http", "fsspec-http", "webdav4", "s3fs", "obstore")
_AT_A_TIME = 4
"""The same for all, so that sizes make a curve."""


def _whole(operation: str, kind: str, count: int, peers: tuple[str, ...]) -> Row:
    size = _BYTES[kind]
    work = Work(operation, size, count, min(count, _AT_A_TIME))
    what = "a document of 2 kB" if kind == "document" else f"a {kind} of {_text(size)}"
    title = f"{operation.upper()} {what}, {count} times, {_at_a_time(work.threads)}"
    return Row(f"{operation}-{kind}", title, work, peers, _TARGETS, goals(work), kinds=_KINDS)


def _text(size: int) -> str:
    return f"{size // _GB} GB" if size >= _GB else f"{size // _MB} MB"


def _at_a_time(threads: int) -> str:
    return "one after the other" if threads == 1 else f"{threads} at a time"


def _image(operation: str, title: str, count: int, *more: Claim) -> Row:
    work = Work(operation, _BYTES["visit"], count, files=2)
    return Row(
        operation,
        f"{title} of a FITS file of 110 MB, {count} times",
        work,
        # webdav4 begins anew at each seek and reads to the end: seven seconds for a cutout.
        tuple(peer for peer in _OPENERS if peer != "webdav4"),
        _TARGETS,
        (*goals(work), *more),
        make_image,
        needs_of_image(operation),
        group="parts of files",
        kinds=_KINDS,
    )


_COLUMN = Work("column", _BYTES["table"], 4, files=2)
_MEMBER = Work("member", _BYTES["archive"], 8, files=2)

WHOLE = (
    _whole("get", "document", 200, _EVERYBODY),
    _whole("put", "document", 100, _UPLOADERS),
    _whole("get", "visit", 4, _FAST),
    _whole("put", "visit", 4, _FAST),
    _whole("get", "raw", 8, _PLAIN),
    _whole("put", "raw", 8, _PLAIN),
)

PARTS = (
    _image("cutout", "a cutout of 100 x 100 pixels", 8, Claim("bytes", 4.0)),
    Row(
        "field-column",
        "one column of ten of a Parquet file of 80 MB, 4 times",
        _COLUMN,
        _OPENERS,
        _TARGETS,
        (*goals(_COLUMN), Claim("bytes", 1.2)),
        make_table,
        table_bytes_needed,
        group="parts of files",
        kinds=_KINDS,
    ),
    _image("header", "the header of the image", 8, Claim("bytes", 4.0)),
    Row(
        "field-member",
        "one member of 10 kB of a zip file of 50 MB, 8 times",
        _MEMBER,
        _OPENERS,
        _TARGETS,
        (*goals(_MEMBER), Claim("bytes", 1.2)),
        make_archive,
        archive_bytes_needed,
        group="parts of files",
        kinds=_KINDS,
    ),
    _image("hdu", "the mask", 2, Claim("bytes", 1.2)),
)

LARGE = (
    _whole("get", "coadd", 4, _PLAIN),
    _whole("put", "coadd", 4, _PLAIN),
    _whole("get", "zip", 1, _PLAIN),
)
"""Those that only a larger budget has time for."""
