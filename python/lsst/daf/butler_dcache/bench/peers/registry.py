"""The peers by name; each is imported where it is wanted, since each needs packages of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol, cast

from ..work import Job, Outcome

__all__ = ("OURS", "PEERS", "Peer", "load")

PEERS = {
    "ours": ("ours", "this package: its store and its file system"),
    "path": ("resource_path", "this package, as a ResourcePath"),
    "ours-proxied": ("upload_way", "this package, every file through the door in one request"),
    "ours-redirected": ("upload_way", "this package, every file straight to a pool"),
    "upstream": ("resource_path", "lsst.resources davs or s3, without this package"),
    "crowd-ours": ("crowd", "this package, in many processes that begin together"),
    "crowd-upstream": ("crowd", "lsst.resources davs, in many processes that begin together"),
    "plane": ("plane", "this package's data plane alone: one redirect, no checksum, no rename"),
    "curl": ("curl", "curl, with -Z --parallel-max where there are several files"),
    "curl-move": ("curl", "curl, PUT under another name and MOVE"),
    "boto3": ("boto", "boto3 with s3transfer, as it comes"),
    "awscrt": ("crt", "awscrt's S3 client, by s3transfer"),
    "s3fs": ("s3fs_client", "s3fs, fsspec's file system for S3"),
    "obstore": ("obstore_client", "obstore (Rust's object_store)"),
    "rclone": ("rclone", "rclone, in a process of its own"),
    "engine-ours": ("engine", "the data plane without a door"),
    "engine-curl": ("engine", "curl without a door"),
    "engine-memory-bio": ("engine", "sockets with ssl.MemoryBIO"),
    "engine-http.client": ("engine", "http.client with readinto"),
    "engine-pycurl": ("engine", "pycurl (libcurl)"),
    "engine-urllib3": ("engine", "urllib3, streaming"),
    "engine-requests": ("engine", "requests, streaming"),
}

OURS = ("ours", "path", "ours-proxied", "ours-redirected", "crowd-ours", "plane", "engine-ours")
"""Those that are this package."""


class Peer(Protocol):
    """A client."""

    who: int
    """``resource.RUSAGE_SELF``, or ``resource.RUSAGE_CHILDREN`` for a program of its own."""

    idle: Callable[[], Outcome] | None
    """Starts that program for nothing; its cost is taken off."""

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        """Return what does the job, with everything done that does not belong to it.

        Parameters
        ----------
        job : `~..work.Job`
            What is to be done.

        Raises
        ------
        UnsupportedWorkError
            If this peer cannot do it.
        """
        ...


def load(name: str) -> Peer:
    """Return a peer.

    Parameters
    ----------
    name : `str`
        A key of `PEERS`.

    Returns
    -------
    peer : `Peer`
        A new one.
    """
    module = importlib.import_module(f"{__name__.rpartition('.')[0]}.{PEERS[name][0]}")
    return cast(Peer, module.make(name))
