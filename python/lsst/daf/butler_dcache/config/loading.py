"""Settings from the site's file and the environment; nothing else of this package reads ``os.environ``.

``LSST_RESOURCES_WEBDAV_CONFIG`` names the file of `lsst.resources`: a list of endpoints, whose keys mean here
what they mean there. Keys of our own stand below one key ``dcache`` of an entry, which `lsst.resources`
ignores. What an entry says is judged when the file is read; whether the files that it names exist is judged
when its endpoint is used, since one file often serves machines that have not all of them.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from ..errors import ConfigurationError
from ..redaction import Secret
from .settings import EndpointSettings, origin_of

__all__ = ("load_file", "reset", "settings_for")

_log = logging.getLogger(__name__)

_FILE = "LSST_RESOURCES_WEBDAV_CONFIG"
_VARIABLES = (_FILE, "BEARER_TOKEN", "BEARER_TOKEN_FILE", "X509_CERT_DIR")
_MIB = 1024 * 1024
_CHECKSUMS = ("adler32", "md5", "sha-256", "sha-512")

_lock = threading.Lock()
_environment: tuple[str | None, ...] | None = None
_entries: dict[str, EndpointSettings] = {}
_selected: dict[str, EndpointSettings] = {}
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

    Notes
    -----
    Thread-safe. The file is read again when one of the environment variables has another value.
    """
    global _environment
    scheme, host, port = origin_of(url)
    base_url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"
    environment = tuple(os.environ.get(name) for name in _VARIABLES)
    with _lock:
        if environment != _environment:
            _entries.clear()
            _selected.clear()
            _environment = None
            if environment[0]:
                path = os.path.expanduser(os.path.expandvars(environment[0]))
                _entries.update({entry.base_url: entry for entry in load_file(path)})
            _environment = environment
        settings = _selected.get(base_url)
        if settings is None:
            entry = _entries.get(base_url)
            settings = EndpointSettings(base_url) if entry is None else _check_files(entry)
            settings = _selected[base_url] = _discover(settings, *environment[1:])
        return settings


def reset() -> None:
    """Forget everything that was read, so that the next question reads it again."""
    global _environment
    with _lock:
        _environment = None
        _entries.clear()
        _selected.clear()
        _warned.clear()


def _after_fork() -> None:
    """Replace the lock, which another thread of the parent may have held."""
    global _lock
    _lock = threading.Lock()
    reset()


os.register_at_fork(after_in_child=_after_fork)


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
        entry = _Entry(path, number, item).read()
        if entry.base_url in entries:
            raise ConfigurationError(f"{path}: key base_url: two entries for the endpoint {entry.base_url}")
        entries[entry.base_url] = entry
    return list(entries.values())


class _Entry:
    """One entry of the file, taken key by key; what is left over is unknown."""

    def __init__(self, path: str, number: int, item: Mapping[Any, Any]) -> None:
        self.path = path
        self.where = f"{path}: entry {number}"
        self.values: dict[str, Any] = {str(key): value for key, value in item.items()}
        self.prefix = ""
        self.found: dict[str, Any] = {}

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
        self.doors(scheme)
        self.credentials()
        unknown = tuple(sorted(self.values))
        for key in unknown:
            if (self.path, base_url, key) not in _warned:
                _warned.add((self.path, base_url, key))
                _log.warning("%s: unknown key %s is ignored", self.where, key)
        self.own(own)
        name = f"[{host}]" if ":" in host else host
        return EndpointSettings(
            f"{scheme}://{name}:{port}/", source=self.path, unknown_keys=unknown, **self.found
        )

    def own(self, values: Any) -> None:
        if values is None:
            return
        if not isinstance(values, Mapping):
            raise self.error("dcache", "must be a mapping of keys to values")
        self.prefix = "dcache: "
        self.values = {str(key): value for key, value in values.items()}
        frontend = self.text("frontend_url")
        if frontend is not None:
            scheme, host, port = self.origin("frontend_url", frontend)
            name = f"[{host}]" if ":" in host else host
            self.found["frontend_url"] = f"{scheme}://{name}:{port}/"
        token_file = self.text("token_file")
        if token_file is not None:
            if "token" in self.found or "token_file" in self.found:
                raise self.error("token_file", "and the key token are both given: which one is meant?")
            self.found |= {
                "token_file": token_file,
                "credential_origin": f"{self.where}: key dcache: token_file",
            }
        self.number("proxy_upload_max_bytes", "proxy_upload_max_bytes", int)
        self.number("held_pool_urls", "held_pool_urls", int, smallest=1)
        self.number("max_body_bytes", "max_body_bytes", int, smallest=1)
        self.number("total_timeout_seconds", "total_timeout_seconds", float, smallest=0.001)
        self.number("idle_timeout_seconds", "idle_timeout_seconds", float, smallest=0.001)
        self.number("requests_per_second", "requests_per_second", float)
        self.choice("publish", ("atomic", "in_place"))
        self.choice("exclusive", ("exact", "best_effort"))
        self.choice("dialect", ("auto", "dcache", "xrootd", "generic"))
        self.flag("allow_http_pools", "allow_http_pools")
        for key in sorted(self.values):
            raise self.error(key, "is unknown")

    def error(self, key: str, text: str) -> ConfigurationError:
        return ConfigurationError(f"{self.where}: key {self.prefix}{key} {text}")

    def put(self, name: str, value: Any) -> None:
        if value is not None:
            self.found[name] = value

    def text(self, key: str) -> str | None:
        """A text with its environment variables expanded."""
        value = self.values.pop(key, None)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.error(key, "must be a text")
        value = os.path.expandvars(value)
        if not value:
            raise self.error(key, "is empty")
        return value

    def origin(self, key: str, url: str) -> tuple[str, str, int]:
        try:
            return origin_of(url)
        except ConfigurationError as exc:
            raise self.error(key, f"is not usable: {exc.message}") from exc

    def number(
        self,
        key: str,
        name: str,
        kind: Callable[[Any], float],
        *,
        factor: int = 1,
        smallest: float = 0,
    ) -> None:
        value = self.values.pop(key, None)
        if value is None:
            return
        try:
            number = kind(value)
        except (TypeError, ValueError):
            raise self.error(key, "must be a number") from None
        if not smallest <= number < float("inf"):
            raise self.error(key, f"must be at least {smallest:g}")
        self.found[name] = number * factor

    def flag(self, key: str, name: str) -> None:
        value = self.values.pop(key, None)
        if value is None:
            return
        if not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        self.found[name] = value

    def choice(self, key: str, choices: tuple[str, ...]) -> None:
        value = self.text(key)
        if value is not None and value not in choices:
            raise self.error(key, f"must be one of {', '.join(choices)}")
        self.put(key, value)

    def checksum(self) -> None:
        value = self.text("request_checksum")
        if value is not None and value.lower() not in _CHECKSUMS:
            raise self.error("request_checksum", f"must be one of {', '.join(_CHECKSUMS)}")
        self.put("request_checksum", value and value.lower())

    def doors(self, scheme: str) -> None:
        urls = self.values.pop("frontend_base_urls", None) or []
        if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
            raise self.error("frontend_base_urls", "must be a list of URLs")
        doors = set()
        for url in urls:
            other, host, port = self.origin("frontend_base_urls", os.path.expandvars(url))
            if other != scheme:
                raise self.error("frontend_base_urls", "must have the scheme of base_url")
            doors.add(f"{other}://{f'[{host}]' if ':' in host else host}:{port}/")
        self.put("door_urls", tuple(sorted(doors)) or None)

    def credentials(self) -> None:
        """One of token, account and certificate; as upstream, a token makes the others void."""
        name, password = self.text("user_name"), self.text("user_password")
        certificate, key = self.text("user_cert"), self.text("user_key")
        token = self.text("token")
        if token is not None:
            self.found["credential_origin"] = f"{self.where}: key token"
            # A token or the path of a file: upstream's meaning. What looks like a path is never sent.
            if os.path.isfile(token) or token[0] in "~.$" or any(c == "/" or c.isspace() for c in token):
                self.found["token_file"] = token
            else:
                self.found["token"] = Secret(token)
            return
        if name is not None and password is not None:
            self.found |= {"user_name": name, "credential_origin": f"{self.where}: key user_password"}
            if os.path.isfile(password):
                self.found["user_password_file"] = password
            else:
                self.found["user_password"] = Secret(password)
        if certificate is not None:
            self.found |= {"user_certificate": certificate, "user_key": key or certificate}
            self.found.setdefault("credential_origin", f"{self.where}: key user_cert")


def _check_files(entry: EndpointSettings) -> EndpointSettings:
    """Judge, now that the endpoint is used, whether the files exist that its entry names."""
    for key, path, directory in (
        (
            "token" if "key token" in entry.credential_origin else "dcache: token_file",
            entry.token_file,
            False,
        ),
        ("trusted_authorities", entry.trusted_authorities, True),
        ("user_cert", entry.user_certificate, False),
        ("user_key", entry.user_key, False),
    ):
        if path is not None and not os.path.isfile(path) and not (directory and os.path.isdir(path)):
            kind = "no such file or directory" if directory else "no such file"
            raise ConfigurationError(f"{entry.source}: entry {entry.base_url}: key {key}: {kind}: {path}")
    return entry


def _discover(
    settings: EndpointSettings, token: str | None, token_file: str | None, authorities: str | None
) -> EndpointSettings:
    """Add what the environment offers to what the file leaves open.

    The variables are those of WLCG bearer token discovery, in its order, and the grid's for hashed
    directories of certificates. A credential of the site's file wins.
    """
    found: dict[str, Any] = {}
    if settings.trusted_authorities is None and authorities:
        if not os.path.isdir(authorities):
            raise ConfigurationError(f"X509_CERT_DIR: no such directory: {authorities}")
        found["trusted_authorities"] = authorities
    if urlsplit(settings.base_url).scheme == "https" and not settings.credential_origin:
        if token and token.strip():
            found |= {"token": Secret(token.strip()), "credential_origin": "BEARER_TOKEN"}
        elif token_file:
            found |= {"token_file": token_file, "credential_origin": "BEARER_TOKEN_FILE"}
    return dataclasses.replace(settings, **found)
