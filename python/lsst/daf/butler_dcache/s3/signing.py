"""Requests that are signed here: signature version 4, by botocore's signer.

The signer is told of nothing but the request, and its own log lines are left out: they quote the session
token and the signature. What it makes goes to the planes as a `~..auth.credential.Credential`. A signature is
good for 15 minutes. Bodies are not part of it (``UNSIGNED-PAYLOAD``) unless they are small and in memory:
their checksums are headers, and signed as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from ..auth.credential import Credential
from ..errors import ConfigurationError, hides_locals
from ..redaction import Secret

__all__ = ("Signer",)

_SERVICE = "s3"
_UNSIGNED = "UNSIGNED-PAYLOAD"
_LONGEST_SECONDS = 7 * 24 * 3600
"""How long a signature in a URL may be good (Amazon S3 API, signature version 4 in query parameters)."""


class Signer:
    """An access key at work.

    Parameters
    ----------
    key : `~..auth.credential.Credential`
        An access key.
    region : `str`
        Part of each signature.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self, key: Credential, region: str) -> None:
        assert key.kind == "access_key"
        self.key = key
        self._region = region
        self._signer = _HeaderSigner(_bare(key), _SERVICE, region)

    @hides_locals
    def sign(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[dict[str, str], Credential]:
        """Sign a request.

        Parameters
        ----------
        method : `str`
            HTTP method.
        url : `str`
            Where, percent-encoded as it is sent, without the default port of its scheme.
        headers : `~collections.abc.Mapping`
            What is sent and signed beside ``Host``.
        body : `bytes`, optional
            A body that is signed as well.

        Returns
        -------
        headers : `dict` [`str`, `str`]
            Those and the ones of the signature, none of which is a secret.
        credential : `~..auth.credential.Credential`
            What is.
        """
        key = self.key
        # Of its own accord the signer takes URLs apart twice for the host.
        host = url.split("/", 3)[2]
        request = AWSRequest(method=method, url=url, headers={"Host": host, **headers}, data=body)
        self._signer.add_auth(request)
        signed = dict(request.headers.items())
        authorization = Secret(signed.pop("Authorization"))
        for name in ("Host", "X-Amz-Security-Token"):
            signed.pop(name, None)
        return signed, Credential(
            "signature",
            authorization,
            key.expires,
            key.origin,
            remedy=key.remedy,
            session_token=key.session_token,
        )

    @hides_locals
    def presign(self, method: str, url: str, lifetime_seconds: int) -> str:
        """Return a URL that gives whoever has it the right to one request.

        Parameters
        ----------
        method : `str`
            HTTP method.
        url : `str`
            Where, percent-encoded.
        lifetime_seconds : `int`
            From now, at most 7 days; it ends with the key, if that is temporary.

        Returns
        -------
        url : `str`
            A capability.

        Raises
        ------
        ConfigurationError
            If no signature may be good for so long.
        """
        if not 1 <= lifetime_seconds <= _LONGEST_SECONDS:
            raise ConfigurationError(
                f"a signed URL is good for 1 to {_LONGEST_SECONDS} s, not for {lifetime_seconds}", url=url
            )
        request = AWSRequest(method=method, url=url)
        _QuerySigner(_bare(self.key), _SERVICE, self._region, lifetime_seconds).add_auth(request)
        return str(request.url)


def _bare(key: Credential) -> ReadOnlyCredentials:
    assert key.secret is not None
    token = None if key.session_token is None else key.session_token.reveal()
    return ReadOnlyCredentials(key.mark, key.secret.reveal(), token)


class _Quiet:
    """The steps of botocore's ``add_auth``, which logs what it signs and how."""

    def add_auth(self, request: Any) -> None:
        signer: Any = self
        request.context["timestamp"] = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        signer._modify_request_before_signing(request)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        signer._inject_signature_to_request(request, signer.signature(text, request))


class _HeaderSigner(_Quiet, S3SigV4Auth):  # type: ignore[misc]
    _derived: tuple[str, bytes] = "", b""

    def payload(self, request: Any) -> str:
        return _UNSIGNED if request.data is None else sha256(request.data).hexdigest()

    def headers_to_sign(self, request: Any) -> Any:
        """Look through the headers once: what is added in the end is not signed (60 of 90 us)."""
        found = request.context.get("to_sign")
        if found is None:
            found = request.context["to_sign"] = super().headers_to_sign(request)
        return found

    def signature(self, string_to_sign: str, request: Any) -> str:
        """Sign with a key that is derived once a day; botocore derives it each time (10 of 55 us)."""
        day = request.context["timestamp"][:8]
        known, key = self._derived
        if known != day:
            key = f"AWS4{self.credentials.secret_key}".encode()
            for step in (day, self._region_name, self._service_name, "aws4_request"):
                key = self._sign(key, step)
            self._derived = day, key
        return str(self._sign(key, string_to_sign, hex=True))


class _QuerySigner(_Quiet, S3SigV4QueryAuth):  # type: ignore[misc]
    pass
