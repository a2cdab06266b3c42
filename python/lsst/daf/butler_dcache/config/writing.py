"""The entry of an endpoint in a configuration file, without the credential of whoever writes it."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml

from .settings import EndpointSettings

__all__ = ("configuration_with_token",)

_MIB = 1024 * 1024

_SITE_KEYS = {
    "connect_timeout_seconds": "timeout_connect",
    "read_timeout_seconds": "timeout_read",
    "persistent_connections": "persistent_connections_per_host",
    "reuse_connections": "reuse_connection",
    "buffer_size_bytes": "buffer_size",
    "block_size_bytes": "block_size",
    "retries": "retries",
    "retry_backoff_min_seconds": "retry_backoff_min",
    "retry_backoff_max_seconds": "retry_backoff_max",
    "trusted_authorities": "trusted_authorities",
    "request_checksum": "request_checksum",
    "enable_fsspec": "enable_fsspec",
    "door_urls": "frontend_base_urls",
}
_OWN_KEYS = (
    "frontend_url",
    "proxy_upload_max_bytes",
    "held_pool_urls",
    "max_body_bytes",
    "total_timeout_seconds",
    "idle_timeout_seconds",
    "requests_per_second",
    "publish",
    "exclusive",
    "dialect",
    "http_pools",
    "discover_frontend",
    "discover_doors",
    "listing",
    "listing_page_entries",
    "third_party",
    "third_party_from_bytes",
    "stall_bytes_per_second",
    "stall_seconds",
    "nearline",
    "nearline_deadline_seconds",
    "tape",
    "hedge",
)
"""What is copied is listed, so that a setting that holds a secret cannot be forgotten."""


def configuration_with_token(settings: EndpointSettings, token_file: str) -> str:
    """Return a configuration file for one endpoint and another credential.

    Parameters
    ----------
    settings : `EndpointSettings`
        The endpoint; of its credential nothing is taken over.
    token_file : `str`
        File that holds the token to be used.

    Returns
    -------
    text : `str`
        YAML, as ``LSST_RESOURCES_WEBDAV_CONFIG`` names it.
    """
    changed = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != field.default
    }
    entry: dict[str, Any] = {"base_url": settings.base_url.replace("http", "dav", 1), "token": token_file}
    for name, key in _SITE_KEYS.items():
        if name in changed:
            value = changed[name]
            if name.endswith("_bytes"):
                value = max(1, value // _MIB)
            entry[key] = list(value) if isinstance(value, tuple) else value
    own = {name: changed[name] for name in _OWN_KEYS if name in changed}
    if "bulk" in changed:
        own["bulk"] = dataclasses.asdict(settings.bulk)
    if own:
        entry["dcache"] = own
    return yaml.safe_dump([entry], sort_keys=False)
