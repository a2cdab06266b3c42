"""Which store serves a URL."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import threading
from typing import cast
from urllib.parse import parse_qsl, urlsplit

from ..auth.credential import ANONYMOUS, Credential
from ..auth.sources import CredentialSource, StaticSource, source_for
from ..config.loading import settings_for
from ..config.s3 import S3Settings, s3_settings_for
from ..config.settings import EndpointSettings
from ..errors import ConfigurationError, DcacheError
from ..rest.api import Api
from ..rest.doors import list_doors
from ..s3.address import parse
from ..transport.control import ControlPlane
from ..transport.deadline import Deadline
from ..transport.pacing import pacer_for
from .protocol import Store
from .size_cache import SizeCache
from .webdav_store import WebdavStore

__all__ = ("reset_stores", "store_for")

_log = logging.getLogger(__name__)

_MOST_STORES = 64
_MOST_GUESTS = 256
_QUERY_KEY = "authz"
_SCHEME = "bearer "
_S3 = "s3://"

_LONGEST_QUESTION_SECONDS = 10.0

_lock = threading.Lock()
_asking = threading.Lock()
_with_doors: dict[EndpointSettings, EndpointSettings] = {}
_stores: dict[EndpointSettings, WebdavStore] = {}
_guests: dict[tuple[EndpointSettings, str], WebdavStore] = {}
_buckets: dict[S3Settings, Store] = {}
_sizes = SizeCache()


def store_for(url: str) -> Store:
    """Return the store of the endpoint that a URL belongs to.

    Parameters
    ----------
    url : `str`
        Absolute URL of a scheme that is served here. A token in the query of a WebDAV URL takes the place of
        the endpoint's credential; other parts of the query, and the fragment, mean nothing.

    Returns
    -------
    store : `Store`
        The one of this process for this endpoint, as long as its settings stay the same, and for this token,
        if there is one.

    Raises
    ------
    ConfigurationError
        Raised if the scheme is another, or the endpoint's configuration is not usable.
    CredentialError
        Raised if the token in the query cannot be one.
    """
    if url[: len(_S3)].lower() == _S3:
        return _bucket(url)
    settings = settings_for(url)
    if settings.discover_doors:
        settings = _with_all_doors(settings)
    token = _token_in(url)
    with _lock:
        if token is not None:
            return _guest(settings, Credential.bearer(token, "the query of the URL"))
        return _store(settings)


def _bucket(url: str) -> Store:
    """Return the store of a bucket as the environment describes it at this moment."""
    address = parse(url)
    settings = s3_settings_for(address.profile, address.bucket)
    with _lock:
        store = _buckets.get(settings)
        if store is None:
            while len(_buckets) >= _MOST_STORES:
                _buckets.pop(next(iter(_buckets)))
            store = _buckets[settings] = _new_bucket(settings)
        return store


def _new_bucket(settings: S3Settings) -> Store:
    try:
        # boto3 takes 0.3 s to load, and is not installed everywhere: whoever speaks WebDAV never loads it.
        module = importlib.import_module(".s3_store", __package__)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"S3 needs a package that is not installed: {error.name}",
            hint="Install lsst-daf-butler-dcache[s3].",
        ) from error
    return cast(Store, module.S3Store(settings))


def _with_all_doors(settings: EndpointSettings) -> EndpointSettings:
    """Return the settings with the doors that the frontend knows, which is asked once in a process.

    Without them one has what is configured, so no operation fails because of this question.
    """
    known = _with_doors.get(settings)
    if known is None:
        with _asking:
            known = _with_doors.get(settings)
            if known is None:
                assert settings.frontend_url is not None, "the configuration was checked"
                pacer = pacer_for(settings, settings.frontend_url)
                control = ControlPlane(settings, source_for(settings), pacer)
                doors: tuple[str, ...] = ()
                try:
                    api = Api(f"{settings.frontend_url}api/v1", control)
                    doors = list_doors(settings.base_url, api, Deadline(_LONGEST_QUESTION_SECONDS))
                except DcacheError as error:
                    _log.warning("the frontend does not tell its doors, those configured are used: %s", error)
                finally:
                    control.close()
                doors = tuple(sorted({*doors, *settings.door_urls}))
                known = dataclasses.replace(settings, door_urls=doors if len(doors) > 1 else ())
                _with_doors[settings] = known
    return known


def _store(settings: EndpointSettings, credentials: CredentialSource | None = None) -> WebdavStore:
    store = _stores.get(settings)
    if store is None:
        while len(_stores) >= _MOST_STORES:
            _stores.pop(next(iter(_stores)))
        store = _stores[settings] = WebdavStore(settings, credentials, _sizes)
    return store


def _guest(settings: EndpointSettings, credential: Credential) -> WebdavStore:
    """Return a store that works with nothing but what a URL brought with it.

    The connections of all of them to one endpoint are the same, and present no certificate of ours. Whoever
    may write one name only cannot write under another and rename.
    """
    bare = dataclasses.replace(
        settings,
        user_certificate=None,
        user_key=None,
        frontend_url=None,
        discover_frontend=False,
        publish="in_place",
    )
    key = (bare, credential.fingerprint)
    guest = _guests.get(key)
    if guest is None:
        while len(_guests) >= _MOST_GUESTS:
            _guests.pop(next(iter(_guests)))
        host = _store(bare, StaticSource(ANONYMOUS))
        guest = _guests[key] = host.with_credentials(StaticSource(credential))
    return guest


def _token_in(url: str) -> str | None:
    query = urlsplit(url).query
    if _QUERY_KEY not in query:
        return None
    token = next((value for key, value in parse_qsl(query) if key == _QUERY_KEY), None)
    # XRootD's own redirects have it with the scheme of the header.
    return token[len(_SCHEME) :] if token is not None and token.lower().startswith(_SCHEME) else token


def reset_stores() -> None:
    """Forget all stores, and with them what they know of sizes and their connections."""
    with _lock:
        _stores.clear()
        _guests.clear()
        _buckets.clear()
        _with_doors.clear()
        _sizes.clear()


def _after_fork() -> None:
    global _lock, _asking
    # Another thread of the parent may have held them.
    _lock, _asking = threading.Lock(), threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
