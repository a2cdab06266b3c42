"""Third-party copy: COPY with a ``Source`` (pull) or a ``Destination`` (push) (protocol page, section 5).

The door answers 202 at once and writes a marker every five seconds; the verdict is the last line of the body
and the status tells nothing. A pull that fails takes its target along; what it replaced does not come back.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .access import PermissionDeniedError
from .answers import DoorRefusalError
from .caveats import Activity
from .checksum import Digester, checksum_list, digest_header, parse_digest, wanted_type
from .connection import HangUpError
from .entry import Entry
from .exchange import Exchange
from .namespace import EntryMissingError, NamespaceError
from .operations import Operator, parent_path
from .remote import RemoteClient, RemoteFailureError
from .site import Site
from .tape import TapeError
from .upload import Upload, UploadRefusedError

__all__ = ["ThirdPartyCopy"]

_WANT_DIGEST = "sha-512,sha-256;q=0.8,sha;q=0.6,md5;q=0.4,adler32;q=0.2"
_SCHEMES = ("gsiftp", "http", "https")
_CREDENTIALS = ("none", "oidc", "gridsite")
_STREAM = ("Content-Type", "text/perf-marker-stream")
_OVER_QUOTA = b'<?xml version="1.0" encoding="utf-8"?><error xmlns="DAV:"><quota-not-exceeded/></error>'
_MARKER_SECONDS = 5.0
_BROKEN_SECONDS = 110.0
_ENDLESS_SECONDS = 11.0  # a real 12.0.1 goes on for two hours; nobody should have to wait for that here


class _RefusedError(Exception):
    """An answer without a progress stream: its text is the reason phrase, and nearly always all of it."""

    def __init__(self, status: int, reason: str = "", body: bytes = b"") -> None:
        super().__init__(reason)
        self.body = body
        self.status = status
        self.reason = reason


@dataclass
class _Transfer:
    """What markers tell about a copy that is under way."""

    client: RemoteClient
    started: float = field(default_factory=time.time)
    moved: int = 0
    last: float = 0.0
    state: str = "Running"
    description: str = "Mover created"
    has_mover: bool = True
    verdict: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def count(self, pieces: Iterator[bytes], digester: Digester | None = None) -> Iterator[bytes]:
        for piece in pieces:
            self.moved += len(piece)
            self.last = time.time()
            if digester is not None:
                digester.update(piece)
            yield piece

    def marker(self) -> bytes:
        now = time.time()
        lines = [f"Timestamp: {int(now)}", f"State: {self.state}", f"State description: {self.description}"]
        lines.append("Stripe Index: 0")
        if self.has_mover:
            lines += [
                f"Stripe Start Time: {int(self.started)}",
                f"Stripe Last Transferred: {int(self.last or self.started)}",
                f"Stripe Transfer Time: {int(now - self.started)}",
                f"Stripe Bytes Transferred: {self.moved}",
                "Stripe Status: RUNNING",
            ]
        lines.append("Total Stripe Count: 1")
        if self.has_mover and self.client.peer:
            lines.append(f"RemoteConnections: {self.client.peer}")
        return "".join(["Perf Marker\n", *(f"    {line}\n" for line in lines), "End\n"]).encode()


class ThirdPartyCopy:
    """The part of a door that copies from and to other servers.

    Parameters
    ----------
    site : `Site`
        What it shares with the rest.
    trust : `ssl.SSLContext`
        Client context of the pools: whom they trust.
    """

    def __init__(self, site: Site, trust: ssl.SSLContext) -> None:
        self._site = site
        self._trust = trust

    def handle(self, exchange: Exchange) -> None:
        """Answer a COPY.

        Parameters
        ----------
        exchange : `Exchange`
            The request, its login known.

        Raises
        ------
        DoorRefusalError
            With 501 for a copy inside the namespace, which dCache does not
            have.

        Notes
        -----
        A missing right is 401 even for a user who is logged in (protocol
        page, section 1.5); the caller counts it for its limiter.
        """
        source, destination = exchange.headers.get("source"), exchange.headers.get("destination")
        remote = urlsplit(source or destination)
        if (source or destination) and not (source and destination) and not (remote.scheme and remote.netloc):
            raise DoorRefusalError(501)
        path = exchange.path
        try:
            if bool(source) == bool(destination):
                raise _RefusedError(400)
            self._screen(exchange, remote.scheme)
            if source:
                self._pull(exchange, path, source)
            else:
                self._push(exchange, path, destination)
        except _RefusedError as exc:
            exchange.answer(exc.status, body=exc.body, reason=exc.reason, framing="chunked")
        except PermissionDeniedError:
            exchange.answer(401, reason="Permission denied", framing="chunked")

    @staticmethod
    def _screen(exchange: Exchange, scheme: str) -> None:
        """Refuse header values that dCache does not know."""
        if scheme not in _SCHEMES:
            known = ", ".join(_SCHEMES)
            raise _RefusedError(
                400, f"URI contains unsupported scheme {scheme}. Supported schemes are {known}"
            )
        if exchange.headers.get("overwrite", "T") not in ("T", "F"):
            raise _RefusedError(400, "Invalid Overwrite request header value: must be either 'T' or 'F'")
        verify = exchange.headers.get("requirechecksumverification", "true")
        if verify not in ("true", "false"):
            name = "HTTP request header 'RequireChecksumVerification'"
            raise _RefusedError(400, f'{name} has unknown value "{verify}": valid values are true or false')
        credential = exchange.headers.get("credential", "none")
        if credential not in _CREDENTIALS:
            values = ",".join(_CREDENTIALS)
            raise _RefusedError(
                400,
                f"HTTP header 'Credential' has unknown value \"{credential}\".  Valid values are: {values}",
            )
        if credential == "oidc":
            raise _RefusedError(500, "Internal problem with server")  # no token exchange is configured
        if credential == "gridsite" or scheme == "gsiftp":
            raise _RefusedError(401, "Permission denied")  # nobody logs in with a certificate here

    def _pull(self, exchange: Exchange, path: str, source: str) -> None:
        entry = self._make_target(exchange, path, source)
        if not _resolves(source):
            # The entry stays, without size: the client has to delete it (protocol page, surprise 13).
            raise _RefusedError(400, "Unknown source hostname")
        pool = self._site.write_pool()
        if pool is None:
            self._site.namespace.remove(entry)
            raise _RefusedError(500, "Internal problem with server")
        transfer = _Transfer(RemoteClient(self._trust, _transfer_headers(exchange)))
        verifies = exchange.headers.get("requirechecksumverification", "true") == "true"
        wants_trailer = "want-digest" in exchange.headers and "trailers" in exchange.headers.get("te").lower()

        wanted = wanted_type(exchange.headers)
        is_full = self._site.faults.take("full", exchange) is not None

        def run() -> None:
            if is_full:
                raise RemoteFailureError("All pools are full")
            self._fetch(transfer, entry, pool.name, source, wanted, verifies)

        exchange.start(202, [_STREAM, *([("Trailer", "Digest")] if wants_trailer else [])])
        self._follow(exchange, transfer, run)
        good = transfer.verdict.startswith("success")
        if not good:
            self._discard(entry)
        exchange.write(transfer.verdict.encode())
        exchange.finish(digest_header(exchange.headers, entry.checksums) if wants_trailer and good else ())

    def _make_target(self, exchange: Exchange, path: str, source: str) -> Entry:
        operator = Operator(self._site.access, exchange.login)
        access, login, namespace = operator.access, operator.login, operator.namespace
        real = operator.real(path)
        parent = namespace.parent_of(real)
        if parent is None or not parent.is_directory:
            raise _RefusedError(400, f"No such directory: {parent_path(path)}")
        access.require_passage(login, real)
        access.require(login, Activity.UPLOAD, path)
        access.require_mode(login, parent, 3)
        old = namespace.find(real)
        if self._site.faults.take("over_quota", exchange):
            raise _RefusedError(507 if self._site.version.knows_exceeded_quota else 500, body=_OVER_QUOTA)
        try:
            if old is not None:
                access.require(login, Activity.DELETE, path)
                if old.is_directory or exchange.headers.get("overwrite", "T") == "F":
                    raise _RefusedError(500, "Internal problem with server")
                namespace.remove(old)
            entry = namespace.create(real, login.uid, login.gids[0])
        except NamespaceError:  # somebody else was faster
            raise _RefusedError(500, "Internal problem with server") from None
        entry.xattrs["xdg.origin.url"] = source
        entry.xattrs |= {
            key.removeprefix("xattr."): value for key, value in exchange.query if key.startswith("xattr.")
        }
        return entry

    def _fetch(
        self, transfer: _Transfer, entry: Entry, pool: str, source: str, wanted: str | None, verifies: bool
    ) -> None:
        """Move the bytes of a pull, and verify as 11.2.4 does."""
        client = transfer.client
        with client.ask("GET", source, {"Want-Digest": _WANT_DIGEST}) as answer:
            if answer.status != 200:
                raise RemoteFailureError(f"rejected GET: {answer.status} {answer.reason}")
            expected = parse_digest(answer.headers.get("digest", ""))
            digester = Digester(expected)
            asked = [wanted] if wanted else []
            upload = Upload(self._site.namespace, entry, pool, wanted=[*expected, *asked])
            upload.receive(transfer.count(answer.body(), digester))
        if not expected and verifies:
            with client.ask("HEAD", source, {"Want-Digest": _WANT_DIGEST}) as head:
                # The test is the wrong way round (``RemoteHttpDataTransferProtocol``, about line 440).
                if parse_digest(head.headers.get("digest", "")):
                    raise RemoteFailureError("no checksum in HEAD response")
        actual = digester.values()
        if any(actual[kind] != value for kind, value in expected.items()):
            sums = f"(expected={checksum_list(expected)}, actual={checksum_list(actual)})"
            raise RemoteFailureError(f"Post-processing failed: Checksum mismatch {sums}")
        try:
            upload.commit()
        except UploadRefusedError as exc:
            raise RemoteFailureError(f"Post-processing failed: {exc.reason}") from exc

    def _push(self, exchange: Exchange, path: str, destination: str) -> None:
        operator = Operator(self._site.access, exchange.login)
        try:
            entry = operator.find(path, Activity.DOWNLOAD)
        except EntryMissingError:
            raise _RefusedError(404, "no such file") from None
        operator.access.require_mode(operator.login, entry, 4)
        if entry.is_directory:
            raise _RefusedError(400, "Not a file")
        if entry.size is None:
            raise _RefusedError(409, "File upload in progress")
        if not _resolves(destination):
            raise _RefusedError(400, "Unknown destination hostname")
        transfer = _Transfer(RemoteClient(self._trust, _transfer_headers(exchange)))
        if entry.broken:
            transfer.state, transfer.has_mover = "Requesting mover", False
            transfer.description = "Requesting mover"
        verifies = exchange.headers.get("requirechecksumverification", "true") == "true"
        forwarded = {
            name: value for name, value in exchange.headers if name.lower() in ("digest", "repr-digest")
        }

        def run() -> None:
            if entry.broken:
                transfer.over.wait(_BROKEN_SECONDS * self._site.time_scale)
                where = entry.locations[0] if entry.locations else "unknown"
                cause = f"last pool {where} failed with File is broken"
                raise RemoteFailureError(f"Too many attempts to select pool; {cause}")
            self._send(transfer, entry, destination, forwarded, verifies)

        def probe() -> None:
            with transfer.client.ask("HEAD", destination, {}) as head:
                if head.status == 401:
                    raise RemoteFailureError(f"rejected PUT: {head.status} {head.reason}")

        exchange.start(202, [_STREAM, *digest_header(exchange.headers, entry.checksums)])
        self._follow(exchange, transfer, run, probe)
        exchange.write(transfer.verdict.encode())
        exchange.finish()

    def _send(
        self,
        transfer: _Transfer,
        entry: Entry,
        destination: str,
        forwarded: Mapping[str, str],
        verifies: bool,
    ) -> None:
        """Move the bytes of a push, and compare what the other side says it has."""
        client = transfer.client
        if verifies and not entry.checksums:
            raise RemoteFailureError("checksum verification failed: file has no checksum")
        if not entry.locations and self._site.tape is not None and entry.on_tape:
            self._site.tape.restore(entry)
        content = self._site.namespace.content_of(entry)

        def pieces() -> Iterator[bytes]:
            with content.open() as file:
                yield from iter(lambda: file.read(1 << 16), b"")

        fields = {"Content-Length": str(entry.size), **forwarded}
        with client.ask("PUT", destination, fields, lambda: transfer.count(pieces())) as answer:
            if not 200 <= answer.status < 300:
                raise RemoteFailureError(f"rejected PUT: {answer.status} {answer.reason}")
        with client.ask("HEAD", destination, {"Want-Digest": _WANT_DIGEST}) as head:
            refused = head.status >= 300 and not verifies
            problem = "" if refused else _compare(entry, head.status, head.reason, head.headers)
        if problem:
            with client.ask("DELETE", destination, {}):
                raise RemoteFailureError(f"verification failed: {problem}")

    def _follow(
        self,
        exchange: Exchange,
        transfer: _Transfer,
        run: Callable[[], None],
        probe: Callable[[], None] | None = None,
    ) -> None:
        """Run a transfer on a thread of its own and write markers until it is over.

        A client that went away is noticed at the next marker; until then the copy goes on, and may end well.
        """

        def guarded() -> None:
            try:
                if self._site.version.completes_third_party_copies:
                    run()
                else:
                    if probe is not None:  # the recording of 12.0.1 went past a push that was refused
                        probe()
                    transfer.over.wait(_ENDLESS_SECONDS * self._site.time_scale)
                    return
                transfer.verdict = "success: Created\n"
            except (RemoteFailureError, TapeError, OSError) as exc:
                transfer.verdict = f"failure: {exc}\n"
            finally:
                transfer.over.set()

        thread = threading.Thread(target=guarded, name="third-party-copy", daemon=True)
        thread.start()
        due = time.monotonic() + _MARKER_SECONDS * self._site.time_scale
        while not transfer.over.wait(min(0.2, max(0.0, due - time.monotonic()))):
            if exchange.listener.stopping.is_set():
                self._give_up(transfer, thread)
                raise HangUpError("the door stops")
            if time.monotonic() < due:
                continue
            due += _MARKER_SECONDS * self._site.time_scale
            if exchange.connection.is_gone():
                self._give_up(transfer, thread)
                return
            exchange.write(transfer.marker())
        thread.join()

    @staticmethod
    def _give_up(transfer: _Transfer, thread: threading.Thread) -> None:
        transfer.over.set()
        transfer.client.cancel()
        thread.join()
        transfer.verdict = "failure: Transfer cancelled\n"

    def _discard(self, entry: Entry) -> None:
        """Remove the target of a pull that failed, whatever the token allows."""
        try:
            self._site.namespace.remove(entry)
        except EntryMissingError:  # somebody else removed or replaced it
            return


def _transfer_headers(exchange: Exchange) -> dict[str, str]:
    """What the client wants the pool to say to the other side."""
    prefix = "transferheader"
    return {
        name[len(prefix) :]: value
        for name, value in exchange.headers
        if name.lower().startswith(prefix) and name.lower() not in (prefix, prefix + "scitag")
    }


def _resolves(url: str) -> bool:
    try:
        socket.getaddrinfo(urlsplit(url).hostname or "", None)
    except OSError:
        return False
    return True


def _compare(entry: Entry, status: int, reason: str, headers: Mapping[str, str]) -> str:
    """What is wrong with the answer to the HEAD after a push; empty if nothing is."""
    if not 200 <= status < 300:
        return f"rejected HEAD: {status} {reason}"
    length = headers.get("content-length")
    if length is not None and int(length) != entry.size:
        return f"HEAD Content-Length ({length}) does not match file size ({entry.size})"
    there = parse_digest(headers.get("digest", ""))
    both = [kind for kind in there if kind in entry.checksums]
    if any(there[kind] != entry.checksums[kind] for kind in both):
        return f"checksum mismatch (expected={checksum_list(entry.checksums)}, actual={checksum_list(there)})"
    return ""
