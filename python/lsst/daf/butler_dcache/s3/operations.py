"""What boto3 knows of S3: how each operation is written, how its answer is read, and where a bucket is.

Its client has no keys, no connections and no repetitions. A request is taken from it just before it would be
sent (event ``before-send``), and it gets the answer from whoever sent it. So it never sees a secret, and has
none to log.
"""

from __future__ import annotations

import os
import re
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from hashlib import md5
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

from botocore import UNSIGNED
from botocore import exceptions as theirs
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.handlers import validate_bucket_name
from botocore.loaders import create_loader
from botocore.session import Session

from ..config.s3 import S3Settings
from ..errors import (
    ConfigurationError,
    CredentialConfigurationError,
    DcacheError,
    ProtocolError,
    hides_locals,
)
from ..transport.control import Answer

__all__ = ("Operations", "Send")

Send = Callable[[str, str, Mapping[str, str], bytes], Answer]
"""Sends a request (method, URL, headers, body) and returns the answer, or raises."""

_EVENT = "before-send.s3"
_NOT_SENT = frozenset(
    {"amz-sdk-invocation-id", "amz-sdk-request", "content-length", "expect", "user-agent", "x-amzn-trace-id"}
)
_CHECKSUM = "x-amz-checksum-crc32"
_DOCTYPE = re.compile(rb"<!DOCTYPE|\0")
"""Begins what no answer of S3 has, also in UTF-16: definitions of entities, which may have no end."""
_MODELS = create_loader()
"""boto3's descriptions of services, which take 0.1 s of CPU time to read."""
_PORTS = {"http": ":80", "https": ":443"}


class Operations:
    """The operations of S3 on one bucket.

    Parameters
    ----------
    settings : `~..config.s3.S3Settings`
        Which bucket, and what the environment says of its service.

    Attributes
    ----------
    endpoint_url : `str`
        The service.
    region : `str`
        Its region.
    root : `str`
        URL of the bucket, at the service or at a host of its own.
    authorities : `str` or `None`
        Bundle of the certificates to trust, if AWS's configuration names one.

    Raises
    ------
    ConfigurationError
        If there is no such profile, or the name of the bucket is none.

    Notes
    -----
    Thread-safe, and usable in a child after ``fork``.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._bucket = settings.bucket
        self._senders = threading.local()
        self._client, self.authorities = _client(settings)
        self._client.meta.events.register(_EVENT, self._intercept)
        self.endpoint_url = str(self._client.meta.endpoint_url)
        self.region = str(self._client.meta.region_name)
        self.root = self._find_root()

    def perform(self, method: str, send: Send, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Perform an operation.

        Parameters
        ----------
        method : `str`
            Method of boto3's client, for instance ``list_objects_v2``.
        send : `~collections.abc.Callable`
            Sends its request; is called in this thread, and returns answers of success only.
        parameters : `~collections.abc.Mapping`
            Parameters of the method; ``Bucket`` is added.

        Returns
        -------
        answer : `dict`
            What boto3 made of the answer.

        Raises
        ------
        ConfigurationError
            If a parameter is not one that the method takes.
        ProtocolError
            If the answer makes no sense.
        """
        self._senders.current = send
        try:
            return cast(dict[str, Any], getattr(self._client, method)(Bucket=self._bucket, **parameters))
        except theirs.ParamValidationError as exc:
            raise ConfigurationError("; ".join(str(exc).splitlines())) from None
        except DcacheError:
            raise
        except (theirs.BotoCoreError, theirs.ClientError, ValueError) as exc:  # of numbers and times
            raise ProtocolError(f"the answer makes no sense to boto3: {type(exc).__name__}") from None
        finally:
            self._senders.current = None

    def _intercept(self, request: Any, **_: Any) -> AWSResponse:
        headers = {
            name: value.decode("latin-1") if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
            if name.lower() not in _NOT_SENT
        }
        body = bytes(request.body or b"")
        if any(name.lower() == _CHECKSUM for name in headers):
            # What must have a checksum (DeleteObjects) has one that older services do not know.
            headers["Content-MD5"] = b64encode(md5(body, usedforsecurity=False).digest()).decode()
        send: Send = self._senders.current
        answer = send(str(request.method), _without_default_port(str(request.url)), headers, body)
        if _DOCTYPE.search(answer.body):
            raise ProtocolError("the answer defines entities, as none of S3 does")
        return AWSResponse(answer.url, answer.status, dict(answer.headers), _Raw(answer.body))

    def _find_root(self) -> str:
        """Return the URL of the bucket, by having boto3 write a request that is not sent."""
        urls: list[str] = []

        def note(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
            urls.append(url)
            return Answer(200, "", {}, b"", url)

        try:
            self.perform("head_object", note, {"Key": "-"})
        except ConfigurationError as error:
            raise ConfigurationError(
                f"no bucket can have the name {self._bucket}: {error.message}",
                hint="LSST_DISABLE_BUCKET_VALIDATION=1 lets Ceph's tenant:bucket pass.",
            ) from None
        return urls[0].removesuffix("/-")


class _Raw:
    """A body that is there, as boto3 reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        yield self._body


@hides_locals
def _client(settings: S3Settings) -> tuple[Any, str | None]:
    config = Config(
        signature_version=UNSIGNED,
        # What is computed beyond what must be, older services refuse; bytes have checksums of ours.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    try:
        session = Session(profile=settings.aws_profile)
        session.register_component("data_loader", _MODELS)
        client = session.create_client("s3", endpoint_url=settings.endpoint_url, config=config)
        authorities = session.get_config_variable("ca_bundle")
    except theirs.ProfileNotFound as exc:
        raise ConfigurationError(
            f"AWS's files have no profile {exc.kwargs['profile']}, and "
            + (
                f"LSST_RESOURCES_S3_PROFILE_{settings.profile} names no access key"
                if settings.aws_profile is not None
                else "AWS_PROFILE names it"
            )
        ) from exc
    except theirs.BotoCoreError as exc:
        raise ConfigurationError(f"AWS's configuration is not usable: {exc}") from exc
    except ValueError:  # whose text repeats it
        raise ConfigurationError(
            "the endpoint in AWS's configuration has not the form https://<host>"
        ) from None
    if "@" in urlsplit(client.meta.endpoint_url).netloc:
        raise CredentialConfigurationError(
            "the endpoint in AWS's configuration is no place for an access key",
            hint="nothing was sent; S3_ENDPOINT_URL is one, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if authorities is not None and not os.path.exists(authorities):
        raise ConfigurationError(
            f"there is no {authorities}, named by AWS_CA_BUNDLE or as ca_bundle in AWS's files"
        )
    if not settings.validate_bucket:
        client.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
    return client, authorities


def _without_default_port(url: str) -> str:
    """Return a URL as signers see it, who leave the default port out of ``Host``."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.removesuffix(_PORTS[parts.scheme])))
