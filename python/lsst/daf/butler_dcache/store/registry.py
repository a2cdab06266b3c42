"""Which store serves a URL."""

from __future__ import annotations

import os
import threading

from ..config.loading import settings_for
from ..config.settings import EndpointSettings
from .protocol import Store
from .size_cache import SizeCache
from .webdav_store import WebdavStore

__all__ = ("reset_stores", "store_for")

_MOST_STORES = 64

_lock = threading.Lock()
_stores: dict[EndpointSettings, WebdavStore] = {}
_sizes = SizeCache()


def store_for(url: str) -> Store:
    """Return the store of the endpoint that a URL belongs to.

    Parameters
    ----------
    url : `str`
        Absolute URL of a scheme that is served here.

    Returns
    -------
    store : `Store`
        The one of this process for this endpoint, as long as its settings stay the same.

    Raises
    ------
    ConfigurationError
        Raised if the scheme is another, or the endpoint's configuration is not usable.
    """
    settings = settings_for(url)
    with _lock:
        store = _stores.get(settings)
        if store is None:
            while len(_stores) >= _MOST_STORES:
                _stores.pop(next(iter(_stores)))
            store = _stores[settings] = WebdavStore(settings, sizes=_sizes)
        return store


def reset_stores() -> None:
    """Forget all stores, and with them what they know of sizes and their connections."""
    with _lock:
        _stores.clear()
        _sizes.clear()


def _after_fork() -> None:
    global _lock
    # Another thread of the parent may have held it.
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
