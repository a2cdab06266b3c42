"""``dcache-butler doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import click

from ..auth.clock import clock_offset
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
from ..model import FileInfo
from ..redaction import redact_url
from ..store.registry import store_for
from ..transport.control import Answer, ControlPlane
from ..transport.deadline import Deadline
from ..transport.exchange import add_observer, remove_observer
from ..transport.pacing import pacer_for
from ..transport.tls import tls_context
from .abilities import abilities
from .examination import Examination, FailedStepError, MissingError, Step
from .token import described

__all__ = ("command",)

_PACKAGE = __name__.rpartition(".")[0]
_PATIENCE_SECONDS = 60.0


class DoorExamination(Examination):
    """The steps at a door: each uses what those before it found.

    Parameters
    ----------
    url : `str`
        A directory in which this user may write.
    """

    server = "door"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._settings: EndpointSettings | None = None

    @property
    def _http(self) -> str:
        return self.settings.base_url + quote(urlsplit(self.url).path.lstrip("/"), safe="/%")

    @property
    def settings(self) -> EndpointSettings:
        """The endpoint as it is configured."""
        if self._settings is None:
            self._settings = settings_for(self.url)
        return self._settings

    def steps(self) -> list[Step]:
        """Return title and function of each step; the functions return what they found or raise."""
        return [
            ("configuration", self.configuration),
            ("trust", self.trust),
            ("credential", self.credential),
            ("door", self.door),
            ("clock", self.clock),
            ("pacing", self.pacing),
            ("directory", self.directory),
            *abilities(self.url),
            ("write through a pool", self.write),
            ("read through a pool", self.read),
            ("delete", self.delete),
        ]

    def configuration(self) -> str:
        """Read the site's file."""
        if not self.url.startswith(("davs://", "dav://")) or urlsplit(self.url).query:
            shown = redact_url(self.url)
            raise FailedStepError(
                f"{shown} is not a davs://, dav:// or s3:// URL", "give the URL of a directory"
            )
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

    def pacing(self) -> str:
        """Say how fast requests are sent, and whether other processes know of it."""
        return pacer_for(self.settings).describe()

    def directory(self) -> str:
        """See whether there is the directory, which a write would make."""
        if not store_for(self.url).stat(self.url).is_directory:
            raise FailedStepError(f"{self.url} is a file", "give the URL of a directory")
        return "is there"

    def test_size(self) -> int:
        """Return a size that is too large to be proxied by the door."""
        return self.settings.proxy_upload_max_bytes + 1

    def server_checksum(self, written: FileInfo) -> tuple[str, str] | None:
        """Return the adler32 that came with the answer to the upload."""
        checksum = written.checksums.get("adler32")
        return None if checksum is None else ("adler32", checksum)

    def served_by(self) -> str:
        """Name the pools that had the bytes of this step."""
        pools = sorted(
            {_server(one.url) for one in self.exchanges if one.plane == "data"} - {self._door_name}
        )
        return f"pool {', '.join(pools)}" if pools else "the door itself"

    def advice(self, error: Exception) -> str | None:
        """Say whose ports are closed, if a request of this step did not reach a pool."""
        silent = [_server(one.url) for one in self.exchanges if one.plane == "data" and one.status is None]
        pool = next((server for server in silent if server != self._door_name), "")
        if not pool or not isinstance(error, DoorUnavailableError | DeadlineError):
            return None
        return (
            f"the door works, its pool {pool} cannot be reached: have a firewall opened for the pools' ports"
        )

    @property
    def _door_name(self) -> str:
        return _server(self.settings.base_url)


@click.command(name="doctor")
@click.argument("url")
def command(url: str) -> None:
    """Check configuration, trust, credential, server and pool, and write, read and delete a small file.

    URL is a directory in which you may write. The exit status is 1 at the first step that fails. What the
    server could do for many files and does not is told, and fails nothing.
    """
    examination = _examination(url)
    add_observer(examination.exchanges.append)
    try:
        for title, step in examination.steps():
            try:
                found = step()
            except MissingError as missing:
                click.echo(f"missing {title}: {_text(missing)}")
                click.echo(f"        So: {missing.consequence}")
                continue
            except (FailedStepError, DcacheError, OSError) as exc:
                click.echo(f"FAILED  {title}: {_text(exc)}")
                click.echo(f"        What to do: {_advice(exc, examination)}")
                raise click.exceptions.Exit(1) from exc
            click.echo(f"ok      {title}: {found}")
    finally:
        examination.clean()
        remove_observer(examination.exchanges.append)
    click.echo("Everything works.")


def _examination(url: str) -> Examination:
    if not url.startswith("s3://"):
        return DoorExamination(url)
    try:
        # boto3 is not there in the bare distribution, and takes its time.
        module = importlib.import_module(f"{_PACKAGE}.doctor_s3")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(_PACKAGE):
            raise
        raise click.ClickException(
            f"s3:// needs the package {error.name}: pip install 'lsst-daf-butler-dcache[s3]'"
        ) from error
    examination: Examination = module.BucketExamination(url)
    return examination


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
    if advice := examination.advice(error):
        return advice
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
