"""A Rubin Data Butler backend for dCache.

Importing the package claims the ``dav://``, ``davs://`` and ``s3://`` schemes of `lsst.resources`, where that
is installed; see `register`. `DcacheDatastore` is what a repository names in its ``datastore.cls``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .registration import register, register_by_default, registered, unregister

if TYPE_CHECKING:
    from .datastore import DcacheDatastore
    from .filesystem import DcacheFileSystem
    from .resource_path import DcacheResourcePath
    from .worker import WorkerCredential, worker_credential

__all__ = (
    "DcacheDatastore",
    "DcacheFileSystem",
    "DcacheResourcePath",
    "WorkerCredential",
    "register",
    "registered",
    "unregister",
    "worker_credential",
)

# Loaded on demand: the datastore costs the import of the Butler, and neither it nor the ResourcePath can be
# imported where the stack is not installed.
_LAZY = {
    "DcacheDatastore": "datastore",
    "DcacheFileSystem": "filesystem",
    "DcacheResourcePath": "resource_path",
    "WorkerCredential": "worker",
    "worker_credential": "worker",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register_by_default()
