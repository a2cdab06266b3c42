"""Our own client with either way of uploading, whatever the size."""

from __future__ import annotations

import dataclasses

from ...config.loading import settings_for
from ...store.protocol import Store
from ...store.webdav_store import WebdavStore
from ..work import Job, UnsupportedWorkError
from .ours import Ours

__all__ = ("make",)

_LARGEST = {"ours-proxied": 2**62, "ours-redirected": 0}


class _UploadWay(Ours):
    def connect(self, job: Job) -> None:
        if job.work.operation != "put":
            raise UnsupportedWorkError(f"{self.name} is about uploads")
        super().connect(job)

    def _make_store(self, root: str) -> Store:
        settings = dataclasses.replace(settings_for(root), proxy_upload_max_bytes=_LARGEST[self.name])
        return WebdavStore(settings)


def make(name: str) -> _UploadWay:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _UploadWay(name)
