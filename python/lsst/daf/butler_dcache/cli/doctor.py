"""``dcache-butler doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

import click

from ..auth.clock import TOLERABLE_OFFSET, clock_offset
from ..auth.credential import Credential
from ..auth.renewal import RenewedSource
from ..auth.sources import CredentialSource, StaticSource, source_for
from ..config.discovery import places
from ..config.loading import environment, load_file, settings_for
from ..config.settings import EndpointSettings
from ..errors import (
    AccessDeniedError,
    ConfigurationError,
    CredentialError,
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    ResourceNotFoundError,
)
from ..redaction import redact_url
from ..store.registry import store_for
from ..transport.control import Answer, ControlPlane
from ..transport.deadline import Deadline
from ..transport.exchange import Exchange, add_observer, remove_observer
from ..transport.pacing import pacer_for
from ..transport.tls import tls_context
from .token import described

__all__ = ("command",)

_PATIENCE_SECONDS = 60.0


class FailedStepError(Exception):
    """A step failed.

    Parameters
    ----------
    text : `str`
        What is wrong.
    advice : `str`
        What to do about it.
    """

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.advice = advice


class Examination:
    """The steps, in order; each uses what those before it found.

    Parameters
    ----------
    url : `str`
        A directory in which this user may write.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") + "/"
        self._settings: EndpointSettings | None = None
        self.exchanges: list[Exchange] = []
        self._clock_offset: timedelta | None = None
        self._file = ""
        self._contents = b""

    @property
    def _http(self) -> str:
        return self.settings.base_url + quote(urlsplit(self.url).path.lstrip("/"), safe="/%")

    @property
    def settings(self) -> EndpointSettings:
        """The endpoint as it is configured."""
        if self._settings is None:
            self._settings = settings_for(self.url)
        return self._settings

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        """Return title and function of each step; the functions return what they found or raise."""
        return [
            ("configuration", self.configuration),
            ("trust", self.trust),
            ("credential", self.credential),
            ("door", self.door),
            ("clock", self.clock),
            ("pacing", self.pacing),
            ("directory", self.directory),
            ("write through a pool", self.write),
            ("read through a pool", self.read),
            ("delete", self.delete),
        ]

    def configuration(self) -> str:
        """Read the site's file."""
        if not self.url.startswith(("davs://", "dav://")) or urlsplit(self.url).query:
            shown = redact_url(self.url)
            raise FailedStepError(f"{shown} is not a davs:// or dav:// URL", "give the URL of a directory")
        source = self.settings.source
        if not source:
            return "defaults; no file has an entry for this endpoint"
        # Those of other endpoints, too: their mistakes wait for somebody else.
        for entry in load_file(source):
            if entry.unknown_keys:
                raise FailedStepError(
                    f"{source}: entry {entry.base_url}: unknown keys: {', '.join(entry.unknown_keys)}",
                    "correct their spelling or remove them; keys of this package stand below dcache:",
                )
        return f"from {source}"

    def trust(self) -> str:
        """Load the certificates."""
        settings = self.settings
        if not settings.is_encrypted:
            return "not needed: the connection is not encrypted"
        tls_context(settings, client_certificate=True)
        return f"authorities of {settings.trusted_authorities or 'this system'}"

    def credential(self) -> str:
        """Find the credential, and see whether it may be sent."""
        source = source_for(self.settings)
        credential = source.current()
        if credential.kind == "none":
            return "none: what follows is what anybody may do"
        try:
            credential.check(self.settings.base_url)
        except CredentialError as exc:
            raise FailedStepError(_text(exc), f"{exc.hint}{self._blame_of_the_clock()}") from exc
        about = described(credential)
        found = f"{credential.kind}, {_remaining(credential)}, from {credential.origin}; a {about['kind']}"
        if about.get("caveats"):
            found += "; " + ", ".join(about["caveats"])
        found += f"; {_renewal(source)}"
        unused = [place for place, is_there in places(environment()) if is_there]
        if credential.kind == "bearer" and {"BEARER_TOKEN", "BEARER_TOKEN_FILE"} <= set(unused):
            found += "; BEARER_TOKEN and BEARER_TOKEN_FILE are both set: the file is not used, unset one"
        return found

    def _blame_of_the_clock(self) -> str:
        """Compare the clocks when a credential is untimely; without it, for it must not be sent."""
        try:
            self._ask_door(authenticate=False, ok=(401, 429))
            return f"; {self.clock()}"
        except FailedStepError as exc:
            return f"; {exc}: {exc.advice}"
        except DcacheError:
            return ""

    def door(self) -> str:
        """Ask the door for something that costs nothing, and see whether it takes the credential."""
        # Not without the credential if there is one: each 401 counts towards a block of this host
        # (protocol page, section 1.2).
        anonymous = source_for(self.settings).current().kind == "none"
        answer = self._ask_door(authenticate=not anonymous, ok=(401,) if anonymous else ())
        return answer.headers.get("Server") or "reachable; it does not say what it is"

    def _ask_door(self, *, authenticate: bool, ok: tuple[int, ...]) -> Answer:
        settings = self.settings
        plane = ControlPlane(settings, source_for(settings), pacer_for(settings))
        try:
            sent = _now()
            answer = plane.request(
                "OPTIONS",
                self._http,
                deadline=Deadline(_PATIENCE_SECONDS),
                authenticate=authenticate,
                ok=ok,
            )
        finally:
            plane.close()
        self._clock_offset = clock_offset(answer.headers.get("Date") or "", sent, _now())
        return answer

    def clock(self) -> str:
        """Compare this machine's clock with the door's."""
        offset = self._clock_offset
        if offset is None:
            return "the door does not tell its time"
        seconds = abs(offset.total_seconds())
        if abs(offset) <= TOLERABLE_OFFSET:
            return f"that of this machine and the door's agree ({seconds:.0f} s)"
        side = "ahead of" if offset > timedelta(0) else "behind"
        raise FailedStepError(
            f"the clock of this machine is {seconds:.0f} s {side} the door's",
            "have it set by NTP (timedatectl): tokens are judged by it, and seem over or not valid yet",
        )

    def pacing(self) -> str:
        """Say how fast requests are sent, and whether other processes know of it."""
        return pacer_for(self.settings).describe()

    def directory(self) -> str:
        """See whether there is the directory, which a write would make."""
        if not store_for(self.url).stat(self.url).is_directory:
            raise FailedStepError(f"{self.url} is a file", "give the URL of a directory")
        return "is there"

    def write(self) -> str:
        """Write a file that is too large to be proxied by the door."""
        self.exchanges.clear()
        self._contents = secrets.token_bytes(self.settings.proxy_upload_max_bytes + 1)
        file = f"{self.url}.doctor-{os.getpid()}-{secrets.token_hex(4)}"
        info = store_for(file).write(file, self._contents)
        self._file = file
        checksum = info.checksums.get("adler32")
        verified = f"verified by adler32 {checksum}" if checksum else "verified by size only"
        return f"{len(self._contents)} bytes, {verified}, by {self._pools()}"

    def read(self) -> str:
        """Read it back."""
        self.exchanges.clear()
        data = store_for(self._file).read(self._file)
        if data != self._contents:
            raise FailedStepError(
                "the bytes that came back are not those that were sent", "tell the administrators"
            )
        return f"{len(data)} bytes, the same, by {self._pools()}"

    def delete(self) -> str:
        """Remove it."""
        store_for(self._file).remove(self._file)
        self._file = ""
        return "the temporary file is gone"

    def clean(self) -> None:
        """Remove the temporary file if a step left it behind."""
        if self._file:
            try:
                store_for(self._file).remove(self._file)
            except DcacheError as exc:
                click.echo(f"left behind: {self._file} ({exc})", err=True)

    def _pools(self) -> str:
        pools = sorted(
            {_server(one.url) for one in self.exchanges if one.plane == "data"} - {self._door_name}
        )
        return f"pool {', '.join(pools)}" if pools else "the door itself"

    @property
    def unreachable_pool(self) -> str:
        """Host and port of a pool that a request of this step did not reach."""
        silent = [_server(one.url) for one in self.exchanges if one.plane == "data" and one.status is None]
        return next((server for server in silent if server != self._door_name), "")

    @property
    def _door_name(self) -> str:
        return _server(self.settings.base_url)


@click.command(name="doctor")
@click.argument("url")
def command(url: str) -> None:
    """Check configuration, trust, credential, door and pool, and write, read and delete a small file.

    URL is a directory in which you may write. The exit status is 1 at the first step that fails.
    """
    examination = Examination(url)
    add_observer(examination.exchanges.append)
    try:
        for title, step in examination.steps():
            try:
                found = step()
            except (FailedStepError, DcacheError, OSError) as exc:
                click.echo(f"FAILED  {title}: {_text(exc)}")
                click.echo(f"        What to do: {_advice(exc, examination)}")
                raise click.exceptions.Exit(1) from exc
            click.echo(f"ok      {title}: {found}")
    finally:
        examination.clean()
        remove_observer(examination.exchanges.append)
    click.echo("Everything works.")


def _remaining(credential: Credential) -> str:
    if credential.expires is None:
        return "which does not say when it expires"
    seconds = (credential.expires - datetime.now(UTC)).total_seconds()
    left = f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s left"
    return f"valid until {credential.expires.isoformat(timespec='seconds')} ({left})"


def _renewal(source: CredentialSource) -> str:
    """Say who renews a credential that has just been had."""
    if isinstance(source, RenewedSource):
        return "renewed from here, which works"
    if isinstance(source, StaticSource):
        return "nobody renews it"
    return "its file is readable by you alone, and read again when it changes"


def _now() -> datetime:
    return datetime.now(UTC)


def _text(error: Exception) -> str:
    text = " ".join(str(error).split())
    # The hint has a line of its own.
    return text.removesuffix(f". {error.hint}") if isinstance(error, DcacheError) else text


def _server(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def _advice(error: Exception, examination: Examination) -> str:
    if isinstance(error, FailedStepError):
        return error.advice
    if isinstance(error, DoorUnavailableError | DeadlineError) and (pool := examination.unreachable_pool):
        return (
            f"the door works, its pool {pool} cannot be reached: have a firewall opened for the pools' ports"
        )
    if isinstance(error, DcacheError) and error.hint:
        return error.hint
    for kind, advice in (
        (ConfigurationError, "correct the file that LSST_RESOURCES_WEBDAV_CONFIG names"),
        (CredentialError, "get a new token, or set token, token_file or BEARER_TOKEN_FILE"),
        (AccessDeniedError, "ask for the right to write there, or give a directory of your own"),
        (ResourceNotFoundError, "check the path, or make the directory with dcache-butler mkdir"),
        (
            DoorUnavailableError,
            "check host, port and firewall, and trusted_authorities if the certificate is refused",
        ),
    ):
        if isinstance(error, kind):
            return advice
    return "give this text to the administrators of the server"
