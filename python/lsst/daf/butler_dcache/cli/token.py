"""``dcache-butler token``: what a token says of itself, and what a server would make of it.

The token itself is never shown. None is taken from the command line, which everybody on the machine can read,
but as part of a link that was handed out anyway.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click

from ..auth.credential import Credential
from ..auth.macaroon import Macaroon, NotAMacaroonError
from ..auth.secret_file import SecretFile
from ..auth.sources import source_for
from ..auth.token_text import UnusableTextError, token_in
from ..config.discovery import discover, places
from ..config.loading import environment, settings_for
from ..config.settings import EndpointSettings
from ..errors import CredentialError, hides_locals
from .output import one_line_errors

__all__ = ("command", "described", "lifetime")

_MAX_BYTES = 1024 * 1024
_MAX_HEADER_BYTES = 7 * 1024
"""Request line and headers together may have 8 KiB at a door (protocol page, section 1.1)."""


@click.group()
def command() -> None:
    """Say what a token is, without showing it."""


@command.command()
@click.argument("source", default="")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_line_errors
def inspect(source: str, as_json: bool) -> None:
    """Say what a token is and allows, how long it lasts, and where it was found.

    SOURCE is a file, "-" for the standard input, a link that holds a token, or the URL of an endpoint, whose
    own credential is meant. Without SOURCE it is what the environment offers. The exit status is 1 if the
    token is not usable now.
    """
    credential, looked_at = _found(source)
    description = described(credential)
    if looked_at:
        description["looked_at"] = looked_at
    if as_json:
        click.echo(json.dumps(description, indent=2))
    else:
        for key, value in description.items():
            for line in value if isinstance(value, list) else [value]:
                if line not in (None, ""):
                    click.echo(f"{key.replace('_', ' ') + ':':<12} {_printable(line)}")
    if not description["usable"]:
        raise click.exceptions.Exit(1)


def described(credential: Credential) -> dict[str, Any]:
    """Return what can be told of a credential without giving it away.

    Parameters
    ----------
    credential : `~..auth.credential.Credential`
        Any.

    Returns
    -------
    description : `dict`
        Plain values that fit into JSON: ``kind``, ``origin``, what the credential says of itself,
        ``validity`` in words, ``usable`` now, and what ``dcache`` makes of it.
    """
    kind: str = credential.kind
    details: dict[str, Any] = {}
    remarks = []
    token = credential.secret.reveal() if credential.kind == "bearer" and credential.secret else ""
    if (claims := credential.claims) is not None:
        kind = "JSON web token"
        details = {
            "issuer": claims.issuer,
            "subject": claims.subject,
            "audience": list(claims.audience),
            "scopes": list(claims.scopes),
            "groups": list(claims.groups),
        }
        remarks.append("it must know this issuer; issuer, signature and audience are its to judge")
        if not claims.scopes and not claims.groups:
            remarks.append("there are neither scopes nor groups: the account decides, if the subject has one")
        elif claims.scopes and not any(scope.startswith("storage.") for scope in claims.scopes):
            remarks.append("no scope begins with storage.: none of them gives a right to files")
    elif token:
        try:
            macaroon = Macaroon.parse(token).describe()
        except NotAMacaroonError:
            kind = "opaque token"
            remarks.append("only its issuer can tell what it is: the server may ask there")
        else:
            kind = f"macaroon of {macaroon['issuer']}"
            details = {
                "identifier": macaroon["identifier"],
                "path": macaroon["path"],
                "activities": macaroon["activities"],
                "caveats": [f"{one['caveat']} ({one['meaning']})" for one in _listed(macaroon["caveats"])],
            }
            remarks.append("it is good at the server that made it, as long as that keeps its secret")
    if len(token) > _MAX_HEADER_BYTES:
        remarks.append(f"with {len(token)} characters it is too long for the head of a request to a door")
    now = datetime.now(UTC)
    begin, end = credential.not_before, credential.expires
    return {
        "kind": kind,
        "origin": credential.origin,
        **details,
        "not_before": None if begin is None else begin.isoformat(timespec="seconds"),
        "expires": None if end is None else end.isoformat(timespec="seconds"),
        "validity": lifetime(credential, now),
        "usable": (end is None or end > now) and (begin is None or begin <= now),
        "dcache": remarks,
    }


def lifetime(credential: Credential, now: datetime) -> str:
    """Return in words how long a credential lasts.

    Parameters
    ----------
    credential : `~..auth.credential.Credential`
        Any.
    now : `datetime.datetime`
        The present.
    """
    begin, end = credential.not_before, credential.expires
    if begin is not None and begin > now:
        return f"begins in {_span((begin - now).total_seconds())}: is the clock of this machine right?"
    if end is None:
        return "does not say when it expires"
    left = (end - now).total_seconds()
    if left <= 0:
        return f"ended {_span(-left)} ago; renew it, or if it is new set the clock of this machine"
    return f"{_span(left)} left, until {end.isoformat(timespec='seconds')}"


@hides_locals
def _found(source: str) -> tuple[Credential, list[str]]:
    """Return the credential that an argument leads to, and the places that were looked at."""
    if not source:
        settings = discover(EndpointSettings("https://localhost:443/"), environment())
        return _own(settings), _looked_at(settings)
    if "://" in source:
        held = parse_qs(urlsplit(source).query).get("authz")
        if held:
            return Credential.bearer(held[0], "the link"), []
        settings = settings_for(source)
        return _own(settings), _looked_at(settings)
    if source == "-":
        raw = sys.stdin.buffer.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise CredentialError(
                f"the standard input is longer than {_MAX_BYTES} bytes", hint="give a token"
            )
        text, origin = raw.decode("utf-8", "replace").strip(), "standard input"
    else:
        text, origin = SecretFile(source, "token file", "argument").read_text()[1], source
    try:
        return Credential.bearer(token_in(text), origin), []
    except UnusableTextError as exc:
        raise CredentialError(f"{origin}: it {exc}", hint="give a file with one token") from None


def _own(settings: EndpointSettings) -> Credential:
    credential = source_for(settings).current()
    if credential.kind == "none":
        looked = "; ".join(_looked_at(settings))
        raise CredentialError(f"there is no credential ({looked})", hint="set BEARER_TOKEN_FILE")
    return credential


def _looked_at(settings: EndpointSettings) -> list[str]:
    """Return the places in their order, each with what is there, up to and behind the one that counts."""
    lines = []
    if settings.source:
        names = settings.credential_origin.startswith(settings.source)
        lines.append(f"{settings.source}: {'names it' if names else 'names none'}")
        if names:
            return lines
    decided = False
    for place, is_there in places(environment()):
        state = "not there" if not is_there else "there, not used" if decided else "there"
        lines.append(f"{place}: {state}")
        decided = decided or is_there
    return lines


def _span(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86400)
    hours, minutes = rest // 3600, rest % 3600 // 60
    if days or hours:
        return f"{f'{days} d ' if days else ''}{hours} h {minutes} min"
    return f"{minutes} min {rest % 60} s" if minutes else f"{rest} s"


def _listed(value: object) -> list[Any]:
    assert isinstance(value, list)
    return value


def _printable(value: object) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
