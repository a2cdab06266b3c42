"""What the environment offers to an endpoint whose entry names no credential.

The order, in which the first that is found is used and the search ends, be it good or bad:

1. ``BEARER_TOKEN``, a token; ``BEARER_TOKEN_FILE``, a file with one; ``bt_u`` and the number of the effective
   user in ``XDG_RUNTIME_DIR``; the same in ``/tmp`` (WLCG Bearer Token Discovery);
2. ``X509_USER_PROXY``, a proxy; ``X509_USER_CERT`` and ``X509_USER_KEY``; ``x509up_u`` and the number of the
   user in ``/tmp``, where ``voms-proxy-init`` and its relatives write it;
3. the entry of the door's host in the file that ``NETRC`` names, or in ``.netrc`` of the home directory.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError, CredentialConfigurationError
from ..redaction import Secret
from .netrc import account_in
from .settings import EndpointSettings, origin_of

__all__ = ("VARIABLES", "discover", "is_open", "places")

VARIABLES = (
    "BEARER_TOKEN",
    "BEARER_TOKEN_FILE",
    "XDG_RUNTIME_DIR",
    "X509_USER_PROXY",
    "X509_USER_CERT",
    "X509_USER_KEY",
    "X509_CERT_DIR",
    "NETRC",
    "HOME",
)
"""Environment variables that are looked at."""

_MAX_NETRC_BYTES = 1024 * 1024
_TEMPORARY = "/tmp"  # noqa: S108 - the specification's; the file must be ours


def is_open(settings: EndpointSettings) -> bool:
    """Tell whether the environment has a say in an endpoint.

    Parameters
    ----------
    settings : `~.settings.EndpointSettings`
        As configured.

    Returns
    -------
    open : `bool`
        `False` if the configuration names trust and credential.
    """
    return settings.trusted_authorities is None or (settings.is_encrypted and not settings.credential_origin)


def discover(settings: EndpointSettings, environment: Mapping[str, str]) -> EndpointSettings:
    """Add what the environment offers to what the configuration leaves open.

    Parameters
    ----------
    settings : `~.settings.EndpointSettings`
        As configured.
    environment : `~collections.abc.Mapping`
        Those of `VARIABLES` that are set and not empty.

    Returns
    -------
    settings : `~.settings.EndpointSettings`
        With trust and, over TLS, a credential.

    Raises
    ------
    ConfigurationError
        If a variable names a directory that is not there, or one of a pair is missing.
    """
    found: dict[str, Any] = {}
    authorities = environment.get("X509_CERT_DIR")
    if settings.trusted_authorities is None and authorities:
        if not os.path.isdir(authorities):
            raise ConfigurationError(f"X509_CERT_DIR: no such directory: {authorities}")
        found["trusted_authorities"] = authorities
    if settings.is_encrypted and not settings.credential_origin:
        found |= _token(environment) or _certificate(environment) or _account(settings, environment)
        if not found.get("credential_origin"):
            # It may turn up while the process runs.
            found["token_candidates"] = tuple(_token_files(environment))
    return dataclasses.replace(settings, **found)


def places(environment: Mapping[str, str]) -> list[tuple[str, bool]]:
    """Return where a credential is looked for, and whether something is there.

    Parameters
    ----------
    environment : `~collections.abc.Mapping`
        Those of `VARIABLES` that are set and not empty.

    Returns
    -------
    places : `list` [`tuple` [`str`, `bool`]]
        In the order in which they are looked at; the first where something is counts.
    """
    names = ("X509_USER_PROXY", "X509_USER_CERT", "X509_USER_KEY")
    return [
        *((name, name in environment) for name in ("BEARER_TOKEN", "BEARER_TOKEN_FILE")),
        *((path, os.path.lexists(path)) for path in _token_files(environment)),
        *((name, name in environment) for name in names),
        *((path, os.path.lexists(path)) for path in (_proxy(), _netrc(environment)[0]) if path),
    ]


def _proxy() -> str:
    return os.path.join(_TEMPORARY, f"x509up_u{os.geteuid()}")


def _netrc(environment: Mapping[str, str]) -> tuple[str | None, str]:
    path, home = environment.get("NETRC"), environment.get("HOME")
    if path or not home:
        return path, "NETRC"
    return os.path.join(home, ".netrc"), "netrc file of this user"


def _token(environment: Mapping[str, str]) -> dict[str, Any]:
    if token := environment.get("BEARER_TOKEN"):
        return {"token": Secret(token.strip()), "credential_origin": "BEARER_TOKEN"}
    if path := environment.get("BEARER_TOKEN_FILE"):
        return {"token_file": path, "credential_origin": "BEARER_TOKEN_FILE"}
    for path in _token_files(environment):
        if os.path.lexists(path):
            return {
                "token_file": path,
                "credential_origin": "WLCG bearer token discovery",
                "credential_is_unasked": True,
            }
    return {}


def _token_files(environment: Mapping[str, str]) -> list[str]:
    directories = [environment.get("XDG_RUNTIME_DIR"), _TEMPORARY]
    return [os.path.join(directory, f"bt_u{os.geteuid()}") for directory in directories if directory]


def _certificate(environment: Mapping[str, str]) -> dict[str, Any]:
    certificate, key = environment.get("X509_USER_CERT"), environment.get("X509_USER_KEY")
    if path := environment.get("X509_USER_PROXY"):
        return {"user_certificate": path, "user_key": path, "credential_origin": "X509_USER_PROXY"}
    if certificate or key:
        if not (certificate and key):
            given, missing = ("CERT", "KEY") if certificate else ("KEY", "CERT")
            raise CredentialConfigurationError(
                f"X509_USER_{given} is set, and X509_USER_{missing} is not", hint="nothing was sent; set both"
            )
        origin = "X509_USER_CERT and X509_USER_KEY"
        return {"user_certificate": certificate, "user_key": key, "credential_origin": origin}
    path = _proxy()
    if os.path.lexists(path):
        return {
            "user_certificate": path,
            "user_key": path,
            "credential_origin": "proxy of this user",
            "credential_is_unasked": True,
        }
    return {}


def _account(settings: EndpointSettings, environment: Mapping[str, str]) -> dict[str, Any]:
    path, origin = _netrc(environment)
    # Whether others may read it counts when the entry is used: theirs are no reason to refuse it.
    if not path or account_in(_beginning(path), origin_of(settings.base_url)[1]) is None:
        return {}
    return {"netrc_file": path, "credential_origin": origin}


def _beginning(path: str) -> str:
    """Text of a file; what cannot be read has no entry."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            return file.read(_MAX_NETRC_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""
