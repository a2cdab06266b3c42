"""Which credential an entry of the configuration names.

The keys of `lsst.resources` keep their meaning: ``token`` is a value or a path and makes account and
certificate void. Of our own keys, below ``dcache``, one at most may be given. It makes account and
certificate void as well, so that an entry can serve both clients; beside a ``token`` it is a contradiction.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import Any

from ..redaction import Secret
from .entry import Entry
from .settings import OidcSettings

__all__ = ("read_own_credential", "read_site_credential")

_OWN = ("token", "token_file", "token_command", "oidc", "netrc_file", "anonymous")
_NAME_OF_FILE = re.compile(r".*\.(txt|token|tok|jwt|macaroon|secret|conf|pem|json)", re.IGNORECASE)


def read_site_credential(entry: Entry) -> None:
    """Take the keys of `lsst.resources`: one of token, account and certificate.

    Parameters
    ----------
    entry : `~.entry.Entry`
        An entry of the file.

    Raises
    ------
    ConfigurationError
        If a value cannot be one of its key.
    """
    name, password = entry.text("user_name"), entry.text("user_password")
    certificate, key = entry.text("user_cert"), entry.text("user_key")
    token = entry.text("token")
    if token is not None:
        entry.found["credential_origin"] = f"{entry.where}: key token"
        # A token or the path of a file: upstream's meaning. What looks like a path is never sent.
        if os.path.isfile(token) or _looks_like_a_path(token):
            entry.found["token_file"] = token
        else:
            entry.found["token"] = Secret(token)
        return
    if name is not None and password is not None:
        entry.found |= {"user_name": name, "credential_origin": f"{entry.where}: key user_password"}
        # Likewise, but a password may well hold what paths hold.
        if os.path.isfile(password) or password.startswith(("/", "~/", "./", "../")):
            entry.found["user_password_file"] = password
        else:
            entry.found["user_password"] = Secret(password)
    if certificate is not None:
        entry.found |= {"user_certificate": certificate, "user_key": key or certificate}
        entry.found.setdefault("credential_origin", f"{entry.where}: key user_cert")


def read_own_credential(entry: Entry, site: dict[str, Any]) -> None:
    """Take our own keys.

    Parameters
    ----------
    entry : `~.entry.Entry`
        What stands below ``dcache``.
    site : `dict`
        Settings that the site's keys gave; account and certificate are taken out where ours make them void.

    Raises
    ------
    ConfigurationError
        If a value cannot be one of its key, or two keys contradict each other.
    """
    entry.put("expected_issuer", entry.text("expected_issuer"))
    entry.put("expected_audience", entry.text("expected_audience"))
    entry.number("token_command_timeout_seconds", "token_command_timeout_seconds", float, smallest=0.001)
    given = [key for key in _OWN if entry.values.get(key) is not None]
    if not given:
        return
    key = given[0]
    if len(given) > 1:
        raise entry.credential_error(
            key, f"and the key {entry.prefix}{given[1]} are both given: which one is meant?"
        )
    if "token" in site or "token_file" in site:
        raise entry.credential_error(key, "and the key token are both given: which one is meant?")
    for name in ("user_name", "user_password", "user_password_file", "user_certificate", "user_key"):
        site.pop(name, None)
    origin = entry.found["credential_origin"] = f"{entry.where}: key {entry.prefix}{key}"
    if key == "token":
        token = entry.text(key) or ""
        if _looks_like_a_path(token):
            raise entry.credential_error(key, "looks like the path of a file, which is the key token_file")
        entry.found["token"] = Secret(token)
    elif key in ("token_file", "netrc_file"):
        entry.found[key] = entry.file(key)
    elif key == "token_command":
        entry.found[key] = _command(entry)
    elif key == "oidc":
        entry.found[key] = _oidc(entry, origin)
    else:
        entry.flag(key, key)
        if not entry.found.pop("anonymous"):
            del entry.found["credential_origin"]


def _looks_like_a_path(token: str) -> bool:
    return (
        token[:1] in ("~", ".", "$")
        or any(c == "/" or c.isspace() for c in token)
        or _NAME_OF_FILE.fullmatch(token) is not None
    )


def _command(entry: Entry) -> tuple[str, ...]:
    value = entry.values.pop("token_command")
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError as exc:
            raise entry.credential_error("token_command", f"cannot be divided into words: {exc}") from None
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise entry.credential_error("token_command", "must be a list of texts, or one text")
    if not value[0]:
        raise entry.credential_error("token_command", "names no program")
    return tuple(os.path.expandvars(word) for word in value)


def _oidc(entry: Entry, origin: str) -> OidcSettings:
    below = entry.below("oidc", entry.values.pop("oidc"))
    for key in ("issuer", "client_id", "scope", "audience"):
        below.put(key, below.text(key))
    for key in ("client_secret_file", "refresh_token_file", "trusted_authorities"):
        below.put(key, below.file(key))
    below.choice("client_authentication", ("client_secret_basic", "client_secret_post"))
    below.number("timeout_seconds", "timeout_seconds", float, smallest=0.001)
    below.end()
    for key in ("issuer", "client_id"):
        if key not in below.found:
            raise below.credential_error(key, "is missing")
    if not below.found["issuer"].startswith("https://"):
        raise below.credential_error("issuer", "must be an https URL: secrets are sent there")
    if not {"client_secret_file", "refresh_token_file"} & below.found.keys():
        raise below.credential_error("client_secret_file", "is missing, and so is refresh_token_file")
    return OidcSettings(**below.found, origin=origin)
