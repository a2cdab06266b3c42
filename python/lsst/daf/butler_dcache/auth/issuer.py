"""Tokens that an OpenID Connect issuer gives: for a refresh token, or to the client itself.

The protocol is authlib's affair. Ours are the limits (encrypted and verified connections, no redirects, no
proxies, bounded answers), that secrets come from files and go nowhere else, and that a refresh token which
the issuer replaces at its use is put back where it was found, by one process at a time: the old one is void.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import exceptions as lower

from ..config.settings import OidcSettings
from ..errors import CredentialError, hides_locals
from .credential import Credential
from .secret_file import SecretFile

__all__ = ("Issuer",)

_log = logging.getLogger(__name__)

_MAX_ANSWER_BYTES = 256 * 1024
_PIECE_BYTES = 16 * 1024
_LOCK_POLL_SECONDS = 0.02
_UNUSABLE = "answers something that is no token"
_COMPARE = "compare the keys of oidc with what the issuer's operators say"
_CODE = re.compile(r"[a-z_]{1,40}")


class _UnusableAnswerError(Exception):
    """What an issuer said cannot be used; the text quotes nothing of it."""


class Issuer:
    """Somebody who makes tokens.

    Parameters
    ----------
    settings : `~..config.settings.OidcSettings`
        Which one, and who asks.

    Notes
    -----
    One request at a time is enough: `~.renewal.RenewedSource` sees to that.
    """

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._token_url = ""
        self._rotated: tuple[str, str] | None = None  # what the file held, and what it should hold
        self._secret = self._refresh = None
        if settings.client_secret_file is not None:
            self._secret = SecretFile(
                settings.client_secret_file, "file of the client's secret", settings.origin
            )
        if settings.refresh_token_file is not None:
            self._refresh = SecretFile(settings.refresh_token_file, "refresh token file", settings.origin)

    @hides_locals
    def __call__(self) -> Credential:
        """Ask for a token.

        Returns
        -------
        credential : `~.credential.Credential`
            With the end of life that the token states or, if it states none, that the issuer states.

        Raises
        ------
        CredentialError
            If authlib is not installed, a file is not usable, or the issuer is down, refuses, or does not
            answer as it should.
        """
        try:
            from authlib.common.errors import AuthlibBaseError
            from authlib.integrations.requests_client import OAuth2Session
        except ImportError:
            raise self._error(
                "needs authlib, which is not installed", "pip install 'lsst-daf-butler-dcache[oidc]'"
            ) from None
        settings = self._settings
        secret = self._secret.read_text()[1] if self._secret is not None else None
        session = OAuth2Session(
            settings.client_id,
            secret,
            scope=settings.scope,
            token_endpoint_auth_method=settings.client_authentication if secret is not None else "none",
        )
        session.trust_env = False
        session.mount("https://", _Adapter(settings))
        session.mount("http://", _NoAdapter())
        try:
            if not self._token_url:
                self._token_url = self._find(session)
            answer = self._ask(session)
        except CredentialError:
            raise
        except AuthlibBaseError as exc:
            code = exc.error if isinstance(exc.error, str) and _CODE.fullmatch(exc.error) else "an error"
            raise self._error(f"answers {code}", self._remedy(code)) from None
        except requests.exceptions.InvalidJSONError:
            raise self._error(_UNUSABLE, _COMPARE) from None
        except (requests.RequestException, lower.HTTPError, OSError) as exc:
            self._token_url = ""  # it may have moved
            raise self._error(f"cannot be reached: {_reason(exc)}", "it is asked again") from None
        except (_UnusableAnswerError, ValueError, TypeError, KeyError, AttributeError) as exc:
            text = str(exc) if isinstance(exc, _UnusableAnswerError) else _UNUSABLE
            raise self._error(text, _COMPARE) from None
        finally:
            session.close()
        return self._credential(answer)

    def _find(self, session: Any) -> str:
        """Read the issuer's metadata (OpenID Connect Discovery 1.0, section 4)."""
        issuer = self._settings.issuer
        answer = session.get(
            issuer.rstrip("/") + "/.well-known/openid-configuration",
            withhold_token=True,
            allow_redirects=False,
            timeout=self._settings.timeout_seconds,
        )
        if answer.status_code != 200:
            raise _UnusableAnswerError(f"answers HTTP {answer.status_code} when asked for its metadata")
        metadata = json.loads(answer.content)
        if metadata["issuer"].rstrip("/") != issuer.rstrip("/"):
            raise _UnusableAnswerError("calls itself by another name in its metadata")
        url = metadata["token_endpoint"]
        if not url.startswith("https://"):
            raise _UnusableAnswerError("wants to be asked for tokens without encryption")
        return str(url)

    def _ask(self, session: Any) -> dict[str, Any]:
        more = {"audience": self._settings.audience} if self._settings.audience is not None else {}
        options = {"allow_redirects": False, "timeout": self._settings.timeout_seconds, **more}
        if self._refresh is None:
            return dict(session.fetch_token(self._token_url, grant_type="client_credentials", **options))
        with _locked(os.path.dirname(self._refresh.path), self._settings.timeout_seconds):
            held = self._refresh.read_text()[1]
            refresh = self._rotated[1] if self._rotated is not None and self._rotated[0] == held else held
            answer = dict(session.refresh_token(self._token_url, refresh_token=refresh, **options))
            new = answer.get("refresh_token")
            if isinstance(new, str) and new not in ("", held):
                self._keep(held, new)
        return answer

    def _keep(self, held: str, new: str) -> None:
        """Write a new refresh token to where the old one was; if that cannot be, remember it."""
        assert self._refresh is not None
        folder, name = os.path.split(os.path.realpath(self._refresh.path))
        staged = ""
        try:
            descriptor, staged = tempfile.mkstemp(prefix=f".{name}.", dir=folder)  # mode 0600
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(new + "\n")
                file.flush()
                os.fsync(descriptor)
            os.replace(staged, os.path.join(folder, name))
            self._rotated = None
        except OSError as exc:
            if staged:
                with suppress(OSError):
                    os.unlink(staged)
            if self._rotated is None:
                _log.warning(
                    "the issuer replaced the refresh token, and the new one cannot be written to %s (%s): it "
                    "is lost when this process ends, and the one in the file may be void",
                    self._refresh.path,
                    exc.strerror,
                )
            self._rotated = held, new

    def _credential(self, answer: dict[str, Any]) -> Credential:
        token, kind = answer.get("access_token"), answer.get("token_type", "bearer")
        if not isinstance(token, str) or not isinstance(kind, str) or kind.lower() != "bearer":
            raise self._error(
                "answers without a bearer token", "compare the keys of oidc with its documentation"
            )
        credential = Credential.bearer(token, self._origin, "look at the keys of oidc")
        seconds = answer.get("expires_in")
        if credential.expires is None and isinstance(seconds, int | float) and 0 < seconds < 1e9:
            credential = replace(credential, expires=datetime.now(UTC) + timedelta(seconds=seconds))
        return credential

    def _remedy(self, code: str) -> str:
        if code == "invalid_grant" and self._refresh is not None:
            return f"the refresh token is over or void: write a new one to {self._refresh.path}"
        if code in ("invalid_client", "unauthorized_client"):
            return "compare client_id, client_secret_file and client_authentication with what it knows of you"
        return "compare the keys of oidc with what it knows of you"

    @property
    def _origin(self) -> str:
        return f"{self._settings.origin}: {self._settings.issuer}"

    def _error(self, text: str, remedy: str) -> CredentialError:
        return CredentialError(f"the issuer {text} ({self._origin})", hint=f"nothing was sent; {remedy}")


class _Adapter(HTTPAdapter):
    """Verified TLS as everywhere in this package, and answers that end, in size and time."""

    def __init__(self, settings: OidcSettings) -> None:
        self._timeout = settings.timeout_seconds
        self._end = 0.0
        authorities = settings.trusted_authorities
        is_directory = authorities is not None and os.path.isdir(authorities)
        try:
            self._context = ssl.create_default_context(
                cafile=None if is_directory else authorities, capath=authorities if is_directory else None
            )
        except (OSError, ssl.SSLError):
            raise _UnusableAnswerError(f"cannot be verified: {authorities} holds no certificates") from None
        # Since Python 3.13 that is the default, and certificates of grid authorities do not stand the test.
        self._context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.sslsocket_class = _reading_within(self._remaining)
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"  # `requests` would add the authorities of certifi

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self._end = time.monotonic() + self._timeout
        response = super().send(request, *args, **{**kwargs, "stream": True})
        content = bytearray()
        for piece in response.iter_content(_PIECE_BYTES):
            content += piece
            if len(content) > _MAX_ANSWER_BYTES:
                response.close()
                raise _UnusableAnswerError(f"answers with more than {_MAX_ANSWER_BYTES} bytes")
        if response.is_redirect:
            raise _UnusableAnswerError("redirects to another server")
        response._content = bytes(content)
        return response

    def _remaining(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _reading_within(remaining: Callable[[], float]) -> type[ssl.SSLSocket]:
    """Return sockets whose readings together take no longer than is left.

    The timeout of `requests` is for each of them alone: whoever sends a byte now and then is never late, and
    keeps the lock of the refresh token meanwhile.
    """

    class Socket(ssl.SSLSocket):
        def recv_into(self, *args: Any, **kwargs: Any) -> int:
            self.settimeout(remaining())
            return super().recv_into(*args, **kwargs)

    return Socket


class _NoAdapter(HTTPAdapter):
    """In place of the one for http: secrets are never sent in the clear."""

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        raise _UnusableAnswerError("wants to be asked for tokens without encryption")


@contextmanager
def _locked(folder: str, seconds: float) -> Iterator[None]:
    """Keep other processes from using a refresh token of a directory; where there are no locks, nobody."""
    end = time.monotonic() + seconds
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        descriptor = -1
    try:
        while descriptor >= 0:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise CredentialError(
                        f"another process holds the refresh token in {folder} for more than {seconds:g} s",
                        hint="nothing was sent; it is tried again",
                    ) from None
                time.sleep(_LOCK_POLL_SECONDS)
            except OSError:
                break  # a file system without locks
        yield
    finally:
        if descriptor >= 0:
            # A child process that was forked meanwhile has a copy, which would keep the lock.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _reason(error: Exception) -> str:
    """Innermost error of the system or of TLS; those of `requests` quote the URL."""
    chain: list[Any] = [error]
    seen: set[int] = set()
    words = type(error).__name__
    while chain:
        item = chain.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {item.verify_message}"
        if isinstance(item, OSError) and item.strerror and not isinstance(item, requests.RequestException):
            words = item.strerror
        if isinstance(item, TimeoutError | requests.Timeout | lower.TimeoutError):
            words = "no answer in time"
        if isinstance(item, BaseException):
            chain += [x for x in (item.__cause__, item.__context__, getattr(item, "reason", None)) if x]
            chain += [x for x in item.args if isinstance(x, BaseException)]
    return words
