"""A door: the server that knows the name space and says where the bytes are.

dCache's door answers everything about names itself. XRootD's redirector sends nearly every request on to a
data server, with our token in the ``Location``; such a redirect is followed here, by the very path that we
asked for (XRootD does not quote it) and without a credential of ours: what the data server may know stands in
the URL.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from urllib.parse import unquote, urlsplit, urlunsplit

from ..auth.credential import Credential
from ..auth.sources import CredentialSource
from ..config.settings import EndpointSettings, Origin, origin_of
from ..errors import (
    ConfigurationError,
    ProtocolError,
    ResourceIsDirectoryError,
    ServerError,
    UnsupportedError,
)
from ..model import FileInfo
from ..transport.answer import DataAnswer
from ..transport.body import Body
from ..transport.control import Answer, ControlPlane
from ..transport.data import DataPlane
from ..transport.deadline import Deadline
from ..transport.failures import Outcome, failure
from ..transport.lateness import Lateness
from ..transport.outgoing import Outgoing
from ..transport.retry import Phase, rounds
from ..transport.short_answers import ask_shortly
from .addresses import decoded_path, same_name
from .doors import Doors
from .localities import Localities
from .propfind import PROPFIND_BODY, parse_multistatus

__all__ = ("REDIRECTS", "Door")

REDIRECTS = frozenset({301, 302, 303, 307, 308})

_MOST_HOPS = 3

_DCACHE_MARK = "dcache-http-uuid="
"""Part of every URL at a pool of dCache (protocol page, section 2.4)."""


class Door:
    """The doors of one endpoint, as one.

    Parameters
    ----------
    settings : `EndpointSettings`
        What is known of the endpoint.
    control : `ControlPlane`
        For what else the endpoint has, such as a frontend.
    data : `DataPlane`
        For all that the door is asked.
    credentials : `CredentialSource`
        Who we are.
    is_guest : `bool`, optional
        Whether the planes are those of somebody else.

    Notes
    -----
    Thread-safe: nothing changes but dialect and software, which every thread learns alike.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        control: ControlPlane,
        data: DataPlane,
        credentials: CredentialSource,
        *,
        is_guest: bool = False,
    ) -> None:
        self.settings = settings
        self.control = control
        self.data = data
        self.credentials = credentials
        self._is_guest = is_guest
        self.localities = Localities()
        self._dialect = settings.dialect
        self.software = ""
        """What the door calls itself, as ``dCache/11.2.4``; empty as long as it has not answered."""
        self._doors = Doors(settings.base_url, settings.door_urls, self._drain)
        self._introduce()

    @property
    def dialect(self) -> str:
        """``dcache``, ``xrootd`` or ``generic``; ``auto`` as long as no server has answered."""
        return self._dialect

    def _guest(self) -> Credential | None:
        """Return who we are where the planes do not know it.

        Where they do they look themselves, and repeat what was refused if the credential is another by then.
        """
        return self.credentials.current() if self._is_guest else None

    def _drain(self, server: Origin) -> None:
        self.control.drain(server)
        self.data.drain(server)

    def deadline(self) -> Deadline:
        """Return the deadline of an operation that begins now."""
        return Deadline(self.settings.total_timeout_seconds)

    def learn(self, answer: Outcome) -> None:
        """Take the kind of server from its answer (protocol page, section 1.1).

        Parameters
        ----------
        answer : `Outcome`
            Any answer of a door.
        """
        if answer.status in (429, 502, 503, 504):
            return
        self.software = str(answer.headers.get("Server", ""))
        if self._dialect == "auto":
            server = self.software.lower()
            if server.startswith("dcache"):
                self._dialect = "dcache"
            elif "xrootd" in server:
                self._dialect = "xrootd"
            else:
                self._dialect = "generic"
            self._introduce()

    def _introduce(self) -> None:
        """Let the data servers of XRootD see our certificate, which they ask for as the redirector does.

        Pools of dCache never do: what they may know stands in the URL.
        """
        if self._dialect == "xrootd":
            self.data.introduce_to_data_servers()

    def ask(
        self,
        method: str,
        url: str,
        *,
        operation: str,
        deadline: Deadline,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        credential: Credential | None = None,
        accept: Container[int] = (),
        destination: str | None = None,
        shortcut: str = "",
    ) -> Answer:
        """Send a request about a name and return its answer.

        Parameters
        ----------
        method, url : `str`
            What and where, in the user's own form.
        operation : `str`
            For messages.
        deadline : `Deadline`
            When to give up.
        headers : `~collections.abc.Mapping`, optional
            Further headers.
        body : `bytes`, optional
            Body.
        credential : `Credential`, optional
            Another credential than that of the endpoint.
        accept : `~collections.abc.Container` [ `int` ], optional
            Statuses to return; any other raises.
        destination : `str`, optional
            Target of a MOVE, in the user's own form.
        shortcut : `str`, optional
            Where an earlier redirect led for this name. It is asked first, and if it refuses, the door.

        Returns
        -------
        answer : `Answer`
            Its status is one of ``accept``.

        Raises
        ------
        DcacheError
            Raised by cause, see `.failures`.
        """

        def send(place: str, elsewhere: bool = False, *, authenticate: bool = True) -> Answer:
            full = {"Accept-Encoding": "identity", **(headers or {})}
            if destination is not None:
                beside = place if authenticate else self.place(destination)
                full["Destination"] = self._destination(self._doors.beside(beside, destination))
            return ask_shortly(
                self.data,
                method,
                place,
                headers=full,
                body=body,
                deadline=deadline,
                credential=(credential or self._guest()) if authenticate else None,
                authenticate=authenticate,
                elsewhere=elsewhere,
                most_bytes=self.settings.max_body_bytes,
            )

        for last in rounds(Phase.FAILED, method, deadline):
            answer = send(shortcut, authenticate=False) if shortcut else None
            if answer is None or 300 <= answer.status < 500:
                answer = self._doors.ask(method, url, deadline, send)
                self.learn(answer)
            hops = 0
            while answer.status in REDIRECTS and answer.status not in accept:
                if hops == _MOST_HOPS:
                    raise ProtocolError("the server redirects again and again", operation=operation, url=url)
                hops += 1
                answer = send(self.data_url(answer, url, operation=operation), authenticate=False)
            if answer.status in accept:
                return answer
            error = failure(
                answer,
                operation=operation,
                url=url,
                body=answer.body,
                method=method,
                attempts=answer.attempts,
                elapsed_seconds=deadline.elapsed,
            )
            if last or not isinstance(error, ServerError):
                raise error
        raise AssertionError("the last round returns or raises")

    def open(
        self,
        method: str,
        url: str,
        *,
        deadline: Deadline,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        expect: bool = False,
        keep: bool = True,
        ok: Container[int] = (),
        lateness: Lateness | None = None,
    ) -> DataAnswer:
        """Send a request with a large body, or for one, to the door; redirects are answers.

        Parameters
        ----------
        method, url : `str`
            What and where, in the user's own form.
        deadline : `Deadline`
            When to give up.
        headers : `~collections.abc.Mapping`, optional
            Further headers.
        body : `Body`, optional
            What is sent.
        expect : `bool`, optional
            Whether the body waits until the door asks for it.
        keep : `bool`, optional
            Whether the connection may be used again.
        ok : `~collections.abc.Container` [ `int` ], optional
            Statuses that are an answer although they would be repeated or raised otherwise.
        lateness : `Lateness`, optional
            What to do if the answer is late.

        Returns
        -------
        answer : `DataAnswer`
            To be closed by the caller.
        """

        def send(place: str, elsewhere: bool) -> DataAnswer:
            return self.data.open(
                method,
                place,
                headers=headers or {},
                body=body,
                expect=expect,
                keep=keep,
                deadline=deadline,
                credential=self._guest(),
                authenticate=True,
                ok=ok,
                elsewhere=elsewhere,
                lateness=lateness,
            )

        answer = self._doors.ask(method, url, deadline, send)
        self.learn(answer)
        return answer

    def begin(
        self,
        method: str,
        url: str,
        *,
        deadline: Deadline,
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
    ) -> Outgoing | DataAnswer:
        """Announce a body that is still being written; redirects are answers.

        Parameters
        ----------
        method, url : `str`
            What and where, in the user's own form.
        deadline : `Deadline`
            Limits this call only.
        headers : `~collections.abc.Mapping`, optional
            Further headers.
        length : `int`, optional
            Length of the body, if it is known.

        Returns
        -------
        outgoing : `Outgoing` or `DataAnswer`
            Where the body goes, or the answer of a door that does not want it.
        """

        def send(place: str, elsewhere: bool) -> Outgoing | DataAnswer:
            return self.data.begin(
                method,
                place,
                headers=headers or {},
                length=length,
                deadline=deadline,
                credential=self._guest(),
                authenticate=True,
                elsewhere=elsewhere,
            )

        answer = self._doors.ask(method, url, deadline, send)
        if not isinstance(answer, Outgoing):
            self.learn(answer)
        return answer

    def place(self, url: str) -> str:
        """Return the URL that goes to the door that is used at this moment.

        Parameters
        ----------
        url : `str`
            URL at this endpoint, in the user's own form.
        """
        return self._doors.place(url)

    def data_url(self, answer: Outcome, url: str, *, operation: str) -> str:
        """Return where a redirect leads.

        Parameters
        ----------
        answer : `Outcome`
            Answer with a ``Location``.
        url : `str`
            What was asked for, in the user's own form.
        operation : `str`
            For messages.

        Returns
        -------
        location : `str`
            URL to use without any credential of ours. It is a capability: never log it, never keep it.

        Raises
        ------
        ResourceIsDirectoryError
            Raised if the server only adds a slash: then the name is a directory.
        ConfigurationError
            Raised if an encrypted door redirects to an unencrypted server and that is not allowed.
        ProtocolError
            Raised if there is no usable ``Location``.
        """
        location = str(answer.headers.get("Location", ""))
        asked = self.place(url)
        if location.startswith("/"):
            parts = urlsplit(asked)
            location = f"{parts.scheme}://{parts.netloc}{location}"
        try:
            origin_of(location)
        except ConfigurationError as error:
            raise ProtocolError(
                "a redirect leads nowhere", operation=operation, url=url, status=answer.status
            ) from error
        plain = location.partition("?")[0]
        if plain.endswith("/") and not asked.partition("?")[0].endswith("/") and same_name(plain, asked):
            raise ResourceIsDirectoryError(
                "a directory has this name", operation=operation, url=url, status=answer.status
            )
        unencrypted = asked.startswith("https:") and location.lower().startswith("http:")
        if unencrypted and not self.settings.lets_unencrypted(location):
            raise ConfigurationError(
                "the encrypted door redirects to an unencrypted server",
                operation=operation,
                url=url,
                hint="Set `http_pools: allow` under `dcache:` of this endpoint to allow it.",
            )
        if _DCACHE_MARK in location and self.settings.dialect == "auto":
            # A relay in front may have hidden what kind of door it is.
            self._dialect = "dcache"
        if self._dialect == "xrootd":
            # XRootD leaves '%' and bytes beyond ASCII of the decoded path as they are, and in the answer to
            # COPY '#' as well: its data server would read another name. The path is ours anyway.
            parts = urlsplit(location)
            query = location.rpartition("?")[2] if "?" in location else ""
            location = urlunsplit((parts.scheme, parts.netloc, urlsplit(asked).path, query, ""))
        return location

    def propfind(self, url: str, *, operation: str, deadline: Deadline) -> FileInfo:
        """Return what the door says of a name (1 request); `.listing` asks what it holds.

        Parameters
        ----------
        url : `str`
            File or directory.
        operation : `str`
            For messages.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        info : `FileInfo`
            What has this name.
        """
        answer = self.ask(
            "PROPFIND",
            # XRootD takes the slash at its word and fails on a file; dCache does not look at it.
            url.rstrip("/") if decoded_path(url) != "/" else url,
            operation=operation,
            deadline=deadline,
            headers={"Depth": "0", "Content-Type": "application/xml; charset=utf-8"},
            body=PROPFIND_BODY,
            accept=(207,),
        )
        info, *_ = parse_multistatus([answer.body], url, encoded=self._dialect != "xrootd")
        return self.localities.noted(info)

    def move(
        self,
        source: str,
        target: str,
        *,
        overwrite: bool,
        operation: str,
        deadline: Deadline,
        credential: Credential | None = None,
        shortcut: str = "",
    ) -> str:
        """Rename; `ResourceExistsError` if the target exists and may not be replaced.

        Parameters
        ----------
        source, target : `str`
            URLs at this endpoint.
        overwrite : `bool`
            Whether an existing target is replaced.
        operation : `str`
            For messages.
        deadline : `Deadline`
            When to give up.
        credential : `Credential`, optional
            Another credential than that of the endpoint.
        shortcut : `str`, optional
            As for `ask`.

        Returns
        -------
        etag : `str`
            Entity tag of what was moved, empty if the server does not say.

        Raises
        ------
        ProtocolError
            Raised if both are one file, which dCache would delete (protocol page, section 4.4).
        """
        if same_name(source, target):
            raise ProtocolError("a file cannot be moved onto itself", operation=operation, url=target)
        if decoded_path(target).startswith(decoded_path(source).rstrip("/") + "/"):
            raise ProtocolError("a directory cannot be moved into itself", operation=operation, url=target)
        answer = self.ask(
            "MOVE",
            source,
            operation=operation,
            deadline=deadline,
            # Said explicitly: without the header dCache takes F, RFC 4918 takes T.
            headers={"Overwrite": "T" if overwrite else "F"},
            destination=target,
            credential=credential,
            accept=(200, 201, 204),
            shortcut=shortcut,
        )
        return str(answer.headers.get("ETag", ""))

    def _destination(self, place: str) -> str:
        if self._dialect != "xrootd":
            return place
        parts = urlsplit(place)
        decoded = unquote(parts.path)
        if not decoded.isprintable():
            return place
        if "?" in decoded:
            # It would cut the name there, and give the file another one.
            raise UnsupportedError(
                "XRootD cannot rename to a name with a question mark", operation="rename", url=place
            )
        # XRootD takes this header literally: quoted, `a%20b` would be the name of the file.
        return f"{parts.scheme}://{parts.netloc}{decoded}".encode().decode("latin-1")

    def delete(
        self, url: str, *, operation: str, deadline: Deadline, credential: Credential | None = None
    ) -> None:
        """Delete a name, and on dCache everything below it unless the credential lacks LIST.

        Parameters
        ----------
        url : `str`
            File or directory.
        operation : `str`
            For messages.
        deadline : `Deadline`
            When to give up.
        credential : `Credential`, optional
            Another credential than that of the endpoint.
        """
        self.ask(
            "DELETE",
            url,
            operation=operation,
            deadline=deadline,
            credential=credential,
            accept=(200, 202, 204),
        )
