"""``lsst.resources`` with its class for ``http`` and ``https``, which knows WebDAV too.

It has settings of its own, in environment variables that are read when it is first used.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..work import Job
from .client import Client
from .resource_path import PathClient
from .signing_in import login

__all__ = ("make",)


class _UpstreamHttp(PathClient):
    def connect(self, job: Job) -> None:
        access = job.access
        # Without it there is no fsspec for WebDAV, and nothing else looks at it.
        os.environ["LSST_HTTP_ENABLE_FSSPEC"] = "yes"
        if access.ca_file is not None:
            os.environ["LSST_HTTP_CACERT_BUNDLE"] = access.ca_file
            # requests prefers these to what the class tells it.
            for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
                os.environ.pop(name, None)
        if access.token_file is not None:
            os.environ["LSST_HTTP_AUTH_BEARER_TOKEN"] = access.token_file
        elif access.user is not None:
            os.environ["NETRC"] = _netrc(job)
        super().connect(job)

    def _root_of(self, job: Job) -> str:
        return job.access.url

    def filesystem(self, name: str) -> tuple[Any, str]:
        with self.told_of_signing():  # it is given URLs that the server signs
            return super().filesystem(name)


def _netrc(job: Job) -> str:
    """Write where requests looks for passwords: this class knows none."""
    signing_in = login(job.access)
    path = Path(job.scratch) / "netrc"
    path.touch(0o600)
    host = urlsplit(job.access.url).hostname
    path.write_text(f"machine {host} login {signing_in.user} password {signing_in.password}\n")
    return str(path)


def make(name: str) -> Client:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _UpstreamHttp(name)
