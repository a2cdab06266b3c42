"""What a dCache, or XRootD, can do for us beyond single files, as the doctor tells it; writes nothing."""

from __future__ import annotations

from ..auth.sources import source_for
from ..config.settings import EndpointSettings
from ..errors import CredentialError, DcacheError
from ..rest.discovery import find_tape_endpoint
from ..store.frontend import Frontend
from ..store.registry import store_for
from ..store.webdav_store import WebdavStore
from ..transport.control import ControlPlane
from ..transport.deadline import Deadline
from ..transport.pacing import pacer_for
from .examination import MissingError, Step
from .output import one_line

__all__ = ("abilities",)

_PATIENCE_SECONDS = 20.0
_GRANT_SECONDS = 60.0

_SINGLY = (
    "the door is asked, file by file: removals of many files, and questions for them, take longer; there is "
    "no pin, and no door is found through it"
)


def abilities(url: str) -> list[Step]:
    """Return the steps that find out what the server does.

    Parameters
    ----------
    url : `str`
        A directory that exists once the first of them is called.
    """
    examined = _Abilities(url)
    return [
        ("frontend", examined.frontend),
        ("listing", examined.listing),
        ("tape", examined.tape),
        ("copies between servers", examined.third_party),
    ]


def _missing(error: DcacheError, text: str, consequence: str) -> Exception:
    """Return what to raise for an error: itself if it is a refusal, whose third blocks this host."""
    if isinstance(error, CredentialError) and error.status == 401:
        return error
    return MissingError(text + one_line(error), consequence)


class _Abilities:
    """The steps, in order; each uses what those before it found."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._frontend: Frontend | None = None

    @property
    def _store(self) -> WebdavStore:
        store = store_for(self._url)
        assert isinstance(store, WebdavStore)
        return store

    @property
    def _settings(self) -> EndpointSettings:
        return self._store.settings

    def frontend(self) -> str:
        """Find it, and see whether it means the same files as the door."""
        deadline = Deadline(_PATIENCE_SECONDS)
        self._frontend = frontend = self._store.frontends.get(deadline)
        if frontend is None:
            why = self._store.frontends.why or "the server that the door names is that of no dCache"
            raise MissingError(
                f"none is known: {why}",
                f"{_SINGLY}. Set `frontend_url` under `dcache:` of this endpoint, if the site has one",
            )
        base = frontend.api.base_url.removesuffix("api/v1")
        how = "configured" if self._settings.frontend_url else "named by the door"
        if not frontend.prove(self._url, deadline):
            raise MissingError(
                f"{base}, {how}: not seen to speak of the same files as the door: {frontend.doubt}",
                f"{_SINGLY}. From here it has to take this credential, and to have the door's root",
            )
        return f"{base}, {how}; it speaks of the same files as the door, and does what concerns many of them"

    def listing(self) -> str:
        """Say who lists directories."""
        way = self._settings.listing
        is_trusted = self._frontend is not None and self._frontend.is_proven
        if way == "propfind" or not is_trusted:
            asked = " although `listing: rest` asks for the frontend" if way == "rest" else ""
            return f"by the door, with PROPFIND{asked}"
        if way == "rest":
            return "by the frontend, page by page"
        return "by the door, with PROPFIND; by the frontend once an operation has proven it"

    def tape(self) -> str:
        """Find the tape API, and ask it something."""
        try:
            api = self._store.tape(Deadline(_PATIENCE_SECONDS)).api
            api.archive_info([self._url], deadline=Deadline(_PATIENCE_SECONDS))
        except DcacheError as error:
            raise _missing(
                error,
                "",
                "stage, pin, release and locality fail, as does `nearline: stage`; reading a file that is on "
                "tape only tells so all the same",
            ) from error
        return f"{api.base_url}{self._site()} answers; whether there are tapes it does not tell"

    def _site(self) -> str:
        """Ask the door what the site is called."""
        settings = self._settings
        plane = ControlPlane(settings, source_for(settings), pacer_for(settings))
        try:
            endpoint = find_tape_endpoint(settings.base_url, plane, Deadline(_PATIENCE_SECONDS))
        except DcacheError:
            return ""  # it is not what was asked for
        finally:
            plane.close()
        return f" of the site {endpoint.sitename}" if endpoint.sitename else ""

    def third_party(self) -> str:
        """See whether another server may be given the right to a file."""
        settings, store = self._settings, self._store
        streamed = "the bytes of copies to and from other servers pass through this machine"
        if settings.third_party == "never":
            raise MissingError("`third_party: never`", streamed)
        if not store.copy_rules.pulls:
            raise MissingError("neither dCache nor XRootD", streamed)
        if store.copies.never_end:
            raise MissingError("copies of dCache 12.0.0 and 12.0.1 do not end, so none is begun", streamed)
        if not settings.is_encrypted:
            raise MissingError("the door is not encrypted, so no right is handed to another server", streamed)
        try:
            granted = store.grant(f"{self._url}any", _GRANT_SECONDS)
        except DcacheError as error:
            raise _missing(
                error,
                "no macaroon for another server: ",
                f"{streamed}, unless the other end reads or writes without one",
            ) from error
        right = "a macaroon for the one file" if granted.credential is not None else "no credential, as we"
        return f"the door fetches and sends; the other server gets {right}"
