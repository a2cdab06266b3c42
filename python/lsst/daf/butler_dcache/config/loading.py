"""Settings from the site's file and the environment; nothing else of this package reads ``os.environ``.

``LSST_RESOURCES_WEBDAV_CONFIG`` names the file of `lsst.resources`: a list of endpoints, whose keys mean here
what they mean there. Keys of our own stand below one key ``dcache`` of an entry, which `lsst.resources`
ignores. What an entry says is judged when the file is read; whether the files that it names exist is judged
when its endpoint is used, since one file often serves machines that have not all of them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from ..errors import ConfigurationError, CredentialConfigurationError, hides_locals
from .credentials import read_own_credential, read_site_credential
from .discovery import VARIABLES, discover, is_open
from .entry import Entry
from .settings import BulkSettings, EndpointSettings, origin_of

__all__ = ("entry_for", "environment", "load_file", "reset", "settings_for")

_log = logging.getLogger(__name__)

_FILE = "LSST_RESOURCES_WEBDAV_CONFIG"
_Offer = tuple[str | None, ...]
_MIB = 1024 * 1024
_CHECKSUMS = ("adler32", "md5", "sha-256", "sha-512")

_lock = threading.Lock()
_file: str | None = None
"""Value of the variable when the file was read, `None` before that."""
_entries: dict[str, EndpointSettings] = {}
_selected: dict[str, tuple[EndpointSettings, _Offer | None]] = {}
"""Settings by endpoint, and the environment that they depend on, if they do."""
_warned: set[tuple[str, str, str]] = set()


def settings_for(url: str) -> EndpointSettings:
    """Return the settings of the endpoint that serves a URL.

    Parameters
    ----------
    url : `str`
        A ``davs``, ``dav``, ``https`` or ``http`` URL.

    Returns
    -------
    settings : `EndpointSettings`
        The same object for every URL of one endpoint, as long as the environment stays the same.

    Raises
    ------
    ConfigurationError
        If the file, or the entry of this endpoint, is not usable; the text names file and key.
    CredentialConfigurationError
        If the URL holds a user name or password, which show wherever a URL is written.

    Notes
    -----
    Thread-safe. The file is read again when the variable that names it has another value; what the
    environment offers is looked at with each question, where it counts.
    """
    scheme, host, port = origin_of(url)
    if "@" in url and "@" in urlsplit(url).netloc:
        raise CredentialConfigurationError(
            "a URL is no place for user name and password",
            url=url,
            hint="nothing was sent; use user_name and user_password, or netrc_file, of this endpoint's entry",
        )
    base_url = _base(scheme, host, port)
    with _lock:
        _read_file()
        return _known(base_url) or _select(base_url)


def entry_for(url: str) -> EndpointSettings:
    """Return what the site's file alone says of an endpoint, whose credentials come from elsewhere.

    Parameters
    ----------
    url : `str`
        An ``https`` or ``http`` URL.

    Returns
    -------
    settings : `EndpointSettings`
        The entry, or the defaults; nothing that the environment offers is looked for.

    Raises
    ------
    ConfigurationError
        If the file, or the entry of this endpoint, is not usable.
    """
    base_url = _base(*origin_of(url))
    with _lock:
        _read_file()
        entry = _entries.get(base_url)
    return EndpointSettings(base_url) if entry is None else _check_files(entry)


def _read_file() -> None:
    """Read the file, if the variable names another one than before; with the lock held."""
    global _file
    file = os.environ.get(_FILE, "")
    if file != _file:
        _entries.clear()
        _selected.clear()
        _file = None
        if file:
            path = os.path.expanduser(os.path.expandvars(file))
            _entries.update({entry.base_url: entry for entry in load_file(path)})
        _file = file


def _known(base_url: str) -> EndpointSettings | None:
    """Return the settings of before, unless the environment that they depend on has changed."""
    known = _selected.get(base_url)
    # Each variable costs a microsecond, and settings are asked for with every operation.
    return known[0] if known is not None and (known[1] is None or known[1] == _offer()) else None


@hides_locals
def _select(base_url: str) -> EndpointSettings:
    entry = _entries.get(base_url)
    settings = EndpointSettings(base_url) if entry is None else _check_files(entry)
    offer = _offer() if is_open(settings) else None
    if offer is not None:
        values = {name: value for name, value in zip(VARIABLES, offer, strict=True) if value}
        settings = discover(settings, values)
    _selected[base_url] = settings, offer
    return settings


def environment() -> dict[str, str]:
    """Return the variables that may name a credential, as far as they are set."""
    return {name: value for name, value in zip(VARIABLES, _offer(), strict=True) if value}


def _offer() -> _Offer:
    return tuple(map(os.environ.get, VARIABLES))


def reset() -> None:
    """Forget everything that was read, so that the next question reads it again."""
    global _file
    with _lock:
        _file = None
        _entries.clear()
        _selected.clear()
        _warned.clear()


def _after_fork() -> None:
    """Replace the lock, which another thread of the parent may have held."""
    global _lock
    _lock = threading.Lock()
    reset()


os.register_at_fork(after_in_child=_after_fork)


@hides_locals
def load_file(path: str) -> list[EndpointSettings]:
    """Read a configuration file.

    Parameters
    ----------
    path : `str`
        A YAML file with a list of endpoints.

    Returns
    -------
    entries : `list` [`EndpointSettings`]
        One per entry, in their order.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, names an endpoint twice, or a value is none that its key can have.

    Notes
    -----
    Unknown keys are a warning, once per process, since a later `lsst.resources` may know them; below
    ``dcache`` they are an error.
    """
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"the configuration file {path} ({_FILE}) cannot be read: {exc}") from exc
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        # The text of the exception quotes the file, which may hold a token.
        raise ConfigurationError(f"the configuration file {path}{where} is not YAML") from None
    if not isinstance(document, list):
        raise ConfigurationError(f"the configuration file {path} must hold a list of endpoints")
    entries: dict[str, EndpointSettings] = {}
    for number, item in enumerate(document, 1):
        if not isinstance(item, Mapping):
            raise ConfigurationError(f"{path}: entry {number} must be a mapping of keys to values")
        entry = _Endpoint(path, f"{path}: entry {number}", item).read()
        if entry.base_url in entries:
            raise ConfigurationError(f"{path}: key base_url: two entries for the endpoint {entry.base_url}")
        entries[entry.base_url] = entry
    return list(entries.values())


class _Endpoint(Entry):
    """An entry of the file."""

    def read(self) -> EndpointSettings:
        base_url = self.text("base_url")
        if base_url is None:
            raise self.error("base_url", "is missing")
        self.where = f"{self.path}: entry {base_url}"
        scheme, host, port = self.origin("base_url", base_url)
        own = self.values.pop("dcache", None)
        self.number("timeout_connect", "connect_timeout_seconds", float, smallest=0.001)
        self.number("timeout_read", "read_timeout_seconds", float, smallest=0.001)
        self.number("persistent_connections_per_host", "persistent_connections", int)
        self.number("buffer_size", "buffer_size_bytes", int, factor=_MIB, smallest=1)
        self.number("block_size", "block_size_bytes", int, factor=_MIB, smallest=1)
        self.number("retries", "retries", int)
        self.number("retry_backoff_min", "retry_backoff_min_seconds", float)
        self.number("retry_backoff_max", "retry_backoff_max_seconds", float)
        self.flag("reuse_connection", "reuse_connections")
        self.flag("enable_fsspec", "enable_fsspec")
        self.values.pop(
            "collect_memory_usage", None
        )  # a debugging aid of lsst.resources, without effect here
        self.put("trusted_authorities", self.text("trusted_authorities"))
        self.checksum()
        doors = _doors(self, "frontend_base_urls", scheme)
        self.put("door_urls", tuple(sorted(doors)) or None)
        read_site_credential(self)
        unknown = tuple(sorted(self.values))
        for key in unknown:
            if (self.path, base_url, key) not in _warned:
                _warned.add((self.path, base_url, key))
                _log.warning("%s: unknown key %s is ignored", self.where, key)
        base_url = _base(scheme, host, port)
        self.own(own, base_url)
        return EndpointSettings(base_url, source=self.path, unknown_keys=unknown, **self.found)

    def own(self, values: Any, base_url: str) -> None:
        if values is None:
            return
        own = self.below("dcache", values)
        doors = _doors(own, "doors", base_url.partition(":")[0])
        if doors:
            own.found["door_urls"] = tuple(sorted({base_url, *doors, *self.found.get("door_urls", ())}))
        frontend = own.text("frontend_url")
        if frontend is not None:
            own.found["frontend_url"] = _base(*own.origin("frontend_url", frontend))
        own.flag("discover_frontend", "discover_frontend")
        own.choice("listing", ("auto", "propfind", "rest"))
        own.number("listing_page_entries", "listing_page_entries", int)
        own.flag("discover_doors", "discover_doors")
        if own.found.get("discover_doors") and not (frontend or "").startswith("https:"):
            raise own.error("discover_doors", "needs an https frontend_url: its doors get the credential")
        read_own_credential(own, self.found)
        own.number("proxy_upload_max_bytes", "proxy_upload_max_bytes", int)
        own.number("held_pool_urls", "held_pool_urls", int, smallest=1)
        own.number("max_body_bytes", "max_body_bytes", int, smallest=1)
        own.number("total_timeout_seconds", "total_timeout_seconds", float, smallest=0.001)
        own.number("idle_timeout_seconds", "idle_timeout_seconds", float, smallest=0.001)
        own.number("requests_per_second", "requests_per_second", float)
        own.choice("publish", ("atomic", "in_place"))
        own.choice("exclusive", ("exact", "best_effort"))
        own.choice("dialect", ("auto", "dcache", "xrootd", "generic"))
        own.choice("http_pools", ("allow", "refuse"))
        own.number("stall_bytes_per_second", "stall_bytes_per_second", int)
        own.number("stall_seconds", "stall_seconds", float, smallest=0.001)
        own.choice("third_party", ("auto", "pull", "push", "never"))
        own.number("third_party_from_bytes", "third_party_from_bytes", int)
        own.choice("nearline", ("fail", "wait", "stage"))
        own.number("nearline_deadline_seconds", "nearline_deadline_seconds", float, smallest=0.001)
        own.flag("tape", "tape")
        own.flag("hedge", "hedge")
        _bulk(own)
        own.end()
        self.found |= own.found

    def checksum(self) -> None:
        value = self.text("request_checksum")
        if value is not None and value.lower() not in _CHECKSUMS:
            raise self.error("request_checksum", f"must be one of {', '.join(_CHECKSUMS)}")
        self.put("request_checksum", value and value.lower())


def _doors(entry: Entry, key: str, scheme: str) -> set[str]:
    """Take a list of doors, which must have the scheme of ``base_url``."""
    urls = entry.values.pop(key, None) or []
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise entry.error(key, "must be a list of URLs")
    origins = {entry.origin(key, os.path.expandvars(url)) for url in urls}
    if any(other != scheme for other, _, _ in origins):
        raise entry.error(key, "must have the scheme of base_url")
    return {_base(*one) for one in origins}


def _bulk(entry: Entry) -> None:
    """Take the mapping of the crossovers."""
    values = entry.values.pop("bulk", None)
    if values is None:
        return
    below = entry.below("bulk", values)
    for key in ("list_from_names", "delete_from_files", "archive_info_from_names"):
        below.number(key, key, int, smallest=1)
    below.number("entries_per_question", "entries_per_question", float, smallest=0.001)
    below.end()
    entry.found["bulk"] = BulkSettings(**below.found)


def _base(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"


def _check_files(entry: EndpointSettings) -> EndpointSettings:
    """Judge, now that the endpoint is used, whether the files exist that its entry names."""
    token = "token" if "key token" in entry.credential_origin else "dcache: token_file"
    files = [
        (token, entry.token_file),
        ("trusted_authorities", entry.trusted_authorities),
        ("user_cert", entry.user_certificate),
        ("user_key", entry.user_key),
        ("user_password", entry.user_password_file),
        ("dcache: netrc_file", entry.netrc_file),
    ]
    if (oidc := entry.oidc) is not None:
        files += [
            ("dcache: oidc: client_secret_file", oidc.client_secret_file),
            ("dcache: oidc: refresh_token_file", oidc.refresh_token_file),
            ("dcache: oidc: trusted_authorities", oidc.trusted_authorities),
        ]
    for key, path in files:
        directory = key.endswith("trusted_authorities")
        if path is not None and not os.path.isfile(path) and not (directory and os.path.isdir(path)):
            kind = "no such file or directory" if directory else "no such file"
            text = f"{entry.source}: entry {entry.base_url}: key {key}: {kind}: {path}"
            if directory:
                raise ConfigurationError(text)
            raise CredentialConfigurationError(text, hint="nothing was sent; make it, or correct its name")
    return entry
