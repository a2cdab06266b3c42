"""``dcache-butler macaroon``: make, read, narrow and share macaroons.

Options are called as in SURF's ``get-macaroon``, too. A secret is printed where it is what was asked for, and
nowhere else; none is taken from the command line, which everybody on the machine can read, but as part of a
link that was handed out anyway.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import click

from ..auth.credential import Credential
from ..auth.macaroon import Activity, Macaroon
from ..auth.sources import source_for
from ..auth.token_text import token_in
from ..config.loading import settings_for
from ..store.registry import store_for
from ..webdav.addresses import decoded_path, origin
from .handing_out import FORMS, Handout, qr_code
from .output import one_line_errors
from .quantities import duration

__all__ = ("command",)

_LIFETIME_SECONDS = 12 * 3600.0
_LONGEST_SECONDS = 10 * 365 * 86400
_MAX_BYTES = 1024 * 1024

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _lifetime(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Take what a macaroon can live for, in full seconds."""
    if value is not None and not 1 <= value <= _LONGEST_SECONDS:
        raise click.BadParameter("a macaroon lives for a second to ten years")
    return value and float(int(value))


def _named(ctx: click.Context, param: click.Parameter, value: str | None) -> frozenset[Activity] | None:
    """Read activities with commas between them."""
    if value is None:
        return None
    words = [word.strip().upper() for word in value.split(",")]
    unknown = [word for word in words if word not in Activity.__members__]
    if unknown:
        known = ", ".join(Activity.__members__)
        raise click.BadParameter(f"no activity is called {', '.join(map(repr, unknown))}: one of {known}")
    return frozenset(Activity(word) for word in words)


def _limits(function: Decorated) -> Decorated:
    """Add the options that say what a macaroon allows."""
    for option in (
        click.option(
            "--max-upload", "--max-file-size", type=click.IntRange(1), help="Largest upload in bytes."
        ),
        click.option("--ip", default="", help="Addresses and networks of the users, commas between them."),
        click.option(
            "--lifetime", "--duration", type=duration, callback=_lifetime, help="How long, as PT12H or 12h."
        ),
        click.option(
            "--activity",
            "--permissions",
            "activities",
            callback=_named,
            help="What for, as DOWNLOAD,LIST.",
        ),
    ):
        function = option(function)
    return function


def _output(function: Decorated) -> Decorated:
    """Add the options that say where the macaroon goes."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--output", "form", type=click.Choice(FORMS), help="Form; file and rclone want a NAME."),
    ):
        function = option(function)
    return function


@click.group()
def command() -> None:
    """Make, read, narrow and share macaroons."""


@command.command()
@click.argument("url")
@click.argument("name", required=False, default="")
@_limits
@_output
@one_line_errors
def mint(
    url: str,
    name: str,
    activities: frozenset[Activity] | None,
    lifetime: float | None,
    ip: str,
    max_upload: int | None,
    form: str | None,
    as_json: bool,
) -> None:
    """Have the server make a macaroon for a file or directory, and print it.

    Without --activity it is for reading (DOWNLOAD,LIST), without --lifetime for 12 hours.
    """
    form = _checked(form or "macaroon", name)
    credential = store_for(url).mint(
        url,
        activities=activities or {Activity.DOWNLOAD, Activity.LIST},
        lifetime_seconds=lifetime or _LIFETIME_SECONDS,
        addresses=_addresses(ip),
        max_upload_bytes=max_upload,
    )
    _hand_out(url, _revealed(credential), form, name, as_json=as_json)


@command.command()
@click.argument("url")
@click.argument("name", required=False, default="")
@_limits
@click.option("--chroot", is_flag=True, help="The users see this directory as / (dCache).")
@click.option("--qr", is_flag=True, help="Show the link as a QR code, too.")
@_output
@one_line_errors
def share(
    url: str,
    name: str,
    activities: frozenset[Activity] | None,
    lifetime: float | None,
    ip: str,
    max_upload: int | None,
    chroot: bool,
    qr: bool,
    form: str | None,
    as_json: bool,
) -> None:
    """Print a link with which anybody can read a file or directory for a while.

    It is narrowed from the macaroon of this endpoint without asking the server. Without --activity it is for
    DOWNLOAD, and LIST where the URL ends with a slash; without --lifetime for 12 hours. For s3:// it is a
    presigned URL, for one object and DOWNLOAD or UPLOAD alone.
    """
    form = _checked(form or "link", name)
    if url.startswith("s3:"):
        limited = bool(ip or max_upload or chroot or form != "link")
        _hand_out_presigned(url, activities, lifetime or _LIFETIME_SECONDS, limited, as_json=as_json, qr=qr)
        return
    credential = store_for(url).delegate(
        url,
        activities=activities or _for_reading(url),
        lifetime_seconds=lifetime or _LIFETIME_SECONDS,
        addresses=_addresses(ip),
        max_upload_bytes=max_upload,
    )
    token = _revealed(credential)
    if chroot:
        token = Macaroon.parse(token).attenuate(f"root:{decoded_path(url)}")
        url = origin(url) + "/"
    _hand_out(url, token, form, name, as_json=as_json, qr=qr)


@command.command()
@click.argument("source", default="-")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_line_errors
def inspect(source: str, as_json: bool) -> None:
    """Say what a macaroon allows, without showing it.

    SOURCE is a file, "-" for the standard input, a link that holds a macaroon, or the URL of an endpoint
    whose own credential is one.
    """
    description = Macaroon.parse(_token_of(source)).describe()
    if as_json:
        click.echo(json.dumps(description, indent=2))
        return
    for key in ("issuer", "location", "identifier", "identity", "root", "home", "path"):
        if description[key] not in (None, ""):
            click.echo(f"{key + ':':<12} {_printable(description[key])}")
    click.echo(f"{'activities:':<12} {', '.join(_listed(description['activities'])) or 'none'}")
    click.echo(f"{'expires:':<12} {_end(description)}")
    if description["max_upload_bytes"] is not None:
        click.echo(f"{'max upload:':<12} {description['max_upload_bytes']} bytes")
    for addresses in _listed(description["addresses"]):
        click.echo(f"{'only from:':<12} {_printable(addresses)}")
    click.echo("caveats:")
    for caveat in _listed(description["caveats"]):
        click.echo(f"    {_printable(caveat['caveat'])}    ({caveat['meaning']})")
    for problem in _listed(description["problems"]):
        click.echo(f"{'refused:':<12} {problem}")


@command.command()
@click.argument("source", default="-")
@click.argument("name", required=False, default="")
@_limits
@click.option("--path", help="File or directory, absolute and as the holder sees it now.")
@click.option("--before", metavar="MOMENT", help="End of life, as 2026-01-31T12:00:00Z.")
@click.option(
    "--caveat", multiple=True, help="Any caveat, as the issuer writes it; several times if need be."
)
@click.option("--output", "form", type=click.Choice(("macaroon", "file")), help="file wants a NAME.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_line_errors
def attenuate(
    source: str,
    name: str,
    activities: frozenset[Activity] | None,
    lifetime: float | None,
    ip: str,
    max_upload: int | None,
    path: str | None,
    before: str | None,
    caveat: Sequence[str],
    form: str | None,
    as_json: bool,
) -> None:
    """Print a macaroon that allows less, without asking anybody.

    SOURCE is as for inspect. What the issuer would refuse is refused here.
    """
    form = _checked(form or "macaroon", name)
    ends = [] if lifetime is None else [datetime.now(UTC) + timedelta(seconds=lifetime)]
    token = Macaroon.parse(_token_of(source)).narrow(
        activities=activities,
        path=path,
        before=min(ends, default=None),
        addresses=_addresses(ip),
        max_upload_bytes=max_upload,
    )
    more = [f"before:{before}"] if before is not None else []
    if more or caveat:
        token = Macaroon.parse(token).attenuate(*more, *caveat)
    _hand_out("", token, form, name, as_json=as_json)


def _hand_out(url: str, token: str, form: str, name: str, *, as_json: bool, qr: bool = False) -> None:
    handout = Handout(url, token)
    output, file = handout.written(form, name)
    if as_json:
        document = Macaroon.parse(token).describe()
        document |= {"file": file} if file else {form: output}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(output)
    if qr:
        click.echo(qr_code(handout.link))


def _hand_out_presigned(
    url: str,
    activities: frozenset[Activity] | None,
    lifetime: float,
    limited: bool,
    *,
    as_json: bool,
    qr: bool,
) -> None:
    methods = {frozenset({Activity.DOWNLOAD}): "GET", frozenset({Activity.UPLOAD}): "PUT"}
    method = methods.get(activities or frozenset({Activity.DOWNLOAD}))
    if limited or method is None:
        raise ValueError("S3 has no macaroons: a link is for DOWNLOAD or UPLOAD, with a lifetime alone")
    link = store_for(url).presign(url, method, int(lifetime))
    click.echo(json.dumps({"link": link, "method": method}, indent=2) if as_json else link)
    if qr:
        click.echo(qr_code(link))


def _checked(form: str, name: str) -> str:
    """Return the form if a name is given where, and only where, it wants one."""
    wants = form in ("file", "rclone")
    if wants and not name:
        raise ValueError(f"--output {form} wants a NAME")
    if name and not wants:
        raise ValueError(f"--output {form} takes no NAME")
    if form == "rclone" and not re.fullmatch(r"[\w.+@-][\w .+@-]*", os.path.basename(name)):
        raise ValueError("rclone has no remotes of such a name")
    return form


def _for_reading(url: str) -> frozenset[Activity]:
    return frozenset({Activity.DOWNLOAD} | ({Activity.LIST} if url.endswith("/") else set()))


def _addresses(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")] if text else []


def _revealed(credential: Credential) -> str:
    if credential.secret is None:
        raise ValueError("the credential of this endpoint is no token")
    return credential.secret.reveal()


def _token_of(source: str) -> str:
    """Return the token that an argument leads to."""
    if "://" in source:
        held = parse_qs(urlsplit(source).query).get("authz")
        return held[0] if held else _revealed(source_for(settings_for(source)).current())
    if source == "-":
        text = sys.stdin.read(_MAX_BYTES)
    else:
        with open(source, encoding="utf-8", errors="replace") as file:
            text = file.read(_MAX_BYTES)
    return token_in(text)


def _listed(value: object) -> list[Any]:
    assert isinstance(value, list)
    return value


def _printable(value: object) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def _end(description: dict[str, object]) -> str:
    end = description["expires"]
    if end is None:
        return "never"
    left = int((datetime.fromisoformat(str(end)) - datetime.now(UTC)).total_seconds())
    if left <= 0:
        return f"{end} (it has ended)"
    days, rest = divmod(left, 86400)
    return f"{end} (in {f'{days} d ' if days else ''}{rest // 3600} h {rest % 3600 // 60} min)"
