"""The peers by name; each is imported where it is wanted, since each needs packages of its own."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import cast

from .client import Client

__all__ = ("OURS", "PEERS", "Entry", "load")

_WEBDAV = ("webdav",)
_S3 = ("s3",)
_BOTH = ("webdav", "s3")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a peer before it is imported.

    Parameters
    ----------
    module : `str`
        Module beside this one; its function ``make`` takes the peer's name.
    title : `str`
        What it is.
    level : `str`
        What its caller deals with: ``store`` (URLs and bytes), ``path`` (`lsst.resources.ResourcePath`),
        ``butler`` (datasets), ``program`` (a command with all its files at once).
    kinds : `tuple` [`str`, ...]
        ``webdav``, ``s3``: which servers it can speak to.
    ours : `bool`, optional
        Whether it is this package.
    """

    module: str
    title: str
    level: str
    kinds: tuple[str, ...]
    ours: bool = False


def _engine(title: str, ours: bool = False) -> Entry:
    return Entry("engine", title, "store", _WEBDAV, ours)


PEERS = {
    "ours": Entry("ours", "this package: its store and its file system", "store", _BOTH, ours=True),
    "path": Entry("resource_path", "this package, as a ResourcePath", "path", _BOTH, ours=True),
    "ours-proxied": Entry(
        "upload_way", "this package, every file through the door in one request", "store", _WEBDAV, ours=True
    ),
    "ours-redirected": Entry(
        "upload_way", "this package, every file straight to a pool", "store", _WEBDAV, ours=True
    ),
    "upstream": Entry("resource_path", "lsst.resources davs or s3, without this package", "path", _BOTH),
    "upstream-http": Entry("upstream_http", "lsst.resources http, without this package", "path", _WEBDAV),
    "butler-ours": Entry("butler", "a Butler with the datastore of this package", "butler", _BOTH, ours=True),
    "butler-upstream": Entry(
        "butler", "a Butler with FileDatastore and lsst.resources, without this package", "butler", _BOTH
    ),
    "crowd-ours": Entry(
        "crowd", "this package, in many processes that begin together", "store", _BOTH, ours=True
    ),
    "crowd-upstream": Entry(
        "crowd", "lsst.resources davs, in many processes that begin together", "path", _BOTH
    ),
    "plane": Entry(
        "plane",
        "this package's data plane alone: one redirect, no checksum, no rename",
        "store",
        _WEBDAV,
        ours=True,
    ),
    "curl": Entry("curl", "curl, with -Z --parallel-max where there are several files", "program", _WEBDAV),
    "curl-move": Entry("curl", "curl, PUT under another name and MOVE", "program", _WEBDAV),
    "webdavclient3": Entry("webdavclient3", "webdavclient3, as it comes", "store", _WEBDAV),
    "webdav4": Entry("webdav4_client", "webdav4 on httpx, as it comes", "store", _WEBDAV),
    "fsspec-http": Entry("fsspec_http", "fsspec's file system for http, on aiohttp", "store", _WEBDAV),
    "dcachefs": Entry("dcachefs_client", "dcachefs, fsspec's file system for dCache", "store", _WEBDAV),
    "davix": Entry("davix", "davix-get and davix-put, a process for each file", "program", _WEBDAV),
    "gfal2": Entry("gfal", "gfal2 in one process of the system's Python", "program", _WEBDAV),
    "xrdcp": Entry("xrdcp", "xrdcp over XRootD's own protocol", "program", _WEBDAV),
    "boto3": Entry("boto", "boto3 with s3transfer, as it comes", "store", _S3),
    "awscrt": Entry("crt", "awscrt's S3 client, by s3transfer", "store", _S3),
    "s3fs": Entry("s3fs_client", "s3fs, fsspec's file system for S3", "store", _S3),
    "obstore": Entry("obstore_client", "obstore (Rust's object_store)", "store", _S3),
    "rclone": Entry("rclone", "rclone, in a process of its own", "program", _BOTH),
    "nothing": Entry("nothing", "a client that does nothing: what measuring costs", "store", _BOTH),
    "engine-ours": _engine("the data plane without a door", ours=True),
    "engine-curl": _engine("curl without a door"),
    "engine-memory-bio": _engine("sockets with ssl.MemoryBIO"),
    "engine-http.client": _engine("http.client with readinto"),
    "engine-pycurl": _engine("pycurl (libcurl)"),
    "engine-urllib3": _engine("urllib3, streaming"),
    "engine-requests": _engine("requests, streaming"),
}

OURS = tuple(name for name, entry in PEERS.items() if entry.ours)
"""Those that are this package."""


def load(name: str) -> Client:
    """Return a peer.

    Parameters
    ----------
    name : `str`
        A key of `PEERS`.

    Returns
    -------
    peer : `~.client.Client`
        A new one.
    """
    module = importlib.import_module(f"{__name__.rpartition('.')[0]}.{PEERS[name].module}")
    return cast(Client, module.make(name))
