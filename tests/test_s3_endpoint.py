"""Requests to a bucket: signed, repeated, counted, bounded, and refused in words."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler_dcache.auth.credential import Credential
from lsst.daf.butler_dcache.config import loading
from lsst.daf.butler_dcache.config.s3 import s3_settings_for
from lsst.daf.butler_dcache.errors import (
    AccessDeniedError,
    ConfigurationError,
    CredentialError,
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    IntegrityError,
    NearlineError,
    OutcomeUnknownError,
    ProtocolError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServerBusyError,
    ServerError,
    StoreFullError,
    UnsupportedError,
)
from lsst.daf.butler_dcache.s3 import failures, signing
from lsst.daf.butler_dcache.s3.access_key import key_source
from lsst.daf.butler_dcache.s3.endpoint import S3Endpoint
from lsst.daf.butler_dcache.s3.failures import Said, failure
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.exchange import Exchange, add_observer, remove_observer
from lsst.daf.butler_dcache.transport.outgoing import Outgoing
from lsst.daf.butler_dcache.transport.retry import rule_name, watched
from scripted_server import ScriptedServer, Talk, answering
from seaweed_server import SeaweedServer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
NAMES = ["plain", "a b/+#%41?ü//x~-_.", "/leading", "d/" + "/".join(["x" * 100] * 10) + "/yyyyyyyyyyyy"]


def refusal(status: int, code: str, fields: str = "", headers: str = "") -> bytes:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message/>{fields}</Error>'.encode()
    return f"HTTP/1.1 {status} No\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def size_of(head: bytes) -> int:
    found = re.search(rb"Content-Length: (\d+)", head)
    assert found is not None
    return int(found[1])


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "LSST_RESOURCES_WEBDAV_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    loading.reset()
    yield
    loading.reset()


@pytest.fixture
def endpoint_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., S3Endpoint]:
    """Make an endpoint that does not wait between attempts, with a key that nobody looks at."""

    def make(url: str, **variables: str) -> S3Endpoint:
        monkeypatch.setenv("S3_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKADMIN")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SKADMIN0123456789")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return S3Endpoint(s3_settings_for(None, "butler"), sleep=lambda seconds: None)

    return make


@pytest.fixture
def exchanges() -> Iterator[list[Exchange]]:
    seen: list[Exchange] = []
    add_observer(seen.append)
    yield seen
    remove_observer(seen.append)


@contextlib.contextmanager
def watched_rows() -> Iterator[list[str]]:
    rows: list[str] = []
    with watched(lambda rule: rows.append(rule_name(rule))):
        yield rows


def listing(endpoint: S3Endpoint, deadline: Deadline | None = None, **parameters: Any) -> dict[str, Any]:
    return endpoint.call(
        "list_objects_v2",
        url="s3://butler/",
        operation="list",
        deadline=deadline or Deadline(20),
        **parameters,
    )


def read(endpoint: S3Endpoint, key: str) -> bytes:
    with endpoint.open("GET", key, deadline=Deadline(20)) as answer:
        assert answer.status == 200
        return answer.read()


class TestSeaweed:
    """SeaweedFS verifies each signature."""

    @pytest.fixture(params=["http", "https"])
    def endpoint(
        self, request: pytest.FixtureRequest, seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch
    ) -> S3Endpoint:
        variables = seaweed.environment if request.param == "http" else seaweed.tls_environment
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return S3Endpoint(s3_settings_for(None, seaweed.bucket))

    @pytest.mark.parametrize("key", NAMES)
    def test_any_name(self, endpoint: S3Endpoint, key: str) -> None:
        body = key.encode() * 100
        with endpoint.open("PUT", key, body=io.BytesIO(body), expect=True, deadline=Deadline(20)) as answer:
            assert answer.status == 200
        assert read(endpoint, key) == body
        keys = endpoint.call(
            "delete_objects",
            url="s3://butler/",
            operation="remove",
            deadline=Deadline(20),
            Delete={"Objects": [{"Key": key}], "Quiet": False},
        )
        assert [one["Key"] for one in keys["Deleted"]] == [key]
        with endpoint.open("HEAD", key, deadline=Deadline(20)) as answer:
            assert answer.status == 404

    def test_a_body_that_comes_into_being(self, endpoint: S3Endpoint) -> None:
        outgoing = endpoint.begin("PUT", "streamed", length=6, deadline=Deadline(20))
        assert isinstance(outgoing, Outgoing)
        outgoing.send(b"abc", Deadline(20))
        outgoing.send(b"def", Deadline(20))
        with outgoing.finish(Deadline(20)) as answer:
            assert answer.status == 200
        assert read(endpoint, "streamed") == b"abcdef"

    def test_queries_are_signed(self, endpoint: S3Endpoint) -> None:
        query = {"list-type": "2", "prefix": "a b/&=%", "max-keys": "1"}
        with endpoint.open("GET", "", query=query, deadline=Deadline(20)) as answer:
            assert answer.status == 200
            assert b"<KeyCount>0</KeyCount>" in answer.read()

    def test_signed_urls(self, endpoint: S3Endpoint, exchanges: list[Exchange]) -> None:
        key = "for others/ü"
        url = endpoint.presign(key, "PUT", 60)
        assert not exchanges
        if url.startswith("http:"):
            with urllib.request.urlopen(urllib.request.Request(url, b"given", method="PUT")):
                pass
            with urllib.request.urlopen(endpoint.presign(key, "GET", 60)) as answer:
                assert answer.read() == b"given"
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(url)
        with pytest.raises(ConfigurationError, match="604800"):
            endpoint.presign(key, "GET", 604801)

    def test_a_missing_bucket(self, seaweed: SeaweedServer) -> None:
        endpoint = S3Endpoint(s3_settings_for(None, "missing-bucket"))
        with pytest.raises(ResourceNotFoundError, match="no such bucket"):
            listing(endpoint)
        with endpoint.open("PUT", "k", body=b"x", deadline=Deadline(20)) as answer:
            error = endpoint.failure(answer, operation="write", url="s3://missing-bucket/k")
        assert isinstance(error, ResourceNotFoundError)
        assert "NoSuchBucket" in error.reason

    @pytest.mark.parametrize(
        ("variables", "code"),
        [
            ({"AWS_SECRET_ACCESS_KEY": "SKWRONG0123456789"}, "SignatureDoesNotMatch"),
            ({"AWS_ACCESS_KEY_ID": "AKNOBODY"}, "InvalidAccessKeyId"),
            ({"AWS_SESSION_TOKEN": "ENDED0123456789TOKEN"}, "session token, which may have ended"),
        ],
    )
    def test_a_wrong_key(
        self,
        endpoint: S3Endpoint,
        variables: dict[str, str],
        code: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        caplog.set_level(logging.DEBUG, logger="botocore")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        wrong = S3Endpoint(s3_settings_for(None, endpoint.settings.bucket))
        acts: list[Callable[[], object]] = [
            lambda: wrong.open("HEAD", "k", deadline=Deadline(20)),
            lambda: wrong.open("PUT", "k", body=b"x" * 1_000_000, deadline=Deadline(20)),
            lambda: listing(wrong),
        ]
        for act in acts:
            with pytest.raises(CredentialError, match=code) as caught:
                act()
            assert "from env" in str(caught.value)
        assert "Signature=" not in caplog.text
        assert not any(value in caplog.text for value in variables.values() if "0123456789" in value)

    def test_a_key_that_may_only_read(self, seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in seaweed.reader_environment.items():
            monkeypatch.setenv(name, value)
        reader = S3Endpoint(s3_settings_for(None, seaweed.bucket))
        with pytest.raises(AccessDeniedError) as caught:
            reader.open("PUT", "k", body=b"x", deadline=Deadline(20))
        assert not isinstance(caught.value, CredentialError)
        assert "AKREAD" in caught.value.hint

    @pytest.mark.parametrize("minutes", [-20, 20])
    def test_a_clock_that_is_wrong(
        self, endpoint: S3Endpoint, minutes: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return datetime.now(tz) + timedelta(minutes=minutes)

        monkeypatch.setattr(signing, "datetime", Clock)
        monkeypatch.setattr(failures, "datetime", Clock)
        side = "behind" if minutes < 0 else "ahead of"
        for act in (
            lambda: endpoint.open("HEAD", "k", deadline=Deadline(20)),
            lambda: listing(endpoint),
        ):
            with pytest.raises(CredentialError, match=f"is 20 minutes {side} that of the service"):
                act()

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_child_has_connections_of_its_own(self, endpoint: S3Endpoint) -> None:
        with endpoint.open("PUT", "shared", body=b"shared", deadline=Deadline(20)) as answer:
            assert answer.status == 200
        listing(endpoint)
        child = os.fork()
        if child == 0:
            try:
                same = (
                    read(endpoint, "shared") == b"shared" and listing(endpoint, Prefix="shared")["KeyCount"]
                )
                os._exit(0 if same else 1)
            finally:
                os._exit(2)
        assert read(endpoint, "shared") == b"shared"
        assert os.waitpid(child, 0)[1] == 0

    def test_each_request_is_recorded_once(self, endpoint: S3Endpoint, exchanges: list[Exchange]) -> None:
        listing(endpoint, Prefix="a secret name", MaxKeys=1)
        read_back = endpoint.open("GET", "missing", deadline=Deadline(20))
        read_back.close()
        assert [(one.plane, one.method, one.status) for one in exchanges] == [
            ("control", "GET", 200),
            ("data", "GET", 404),
        ]
        assert "secret" not in exchanges[0].url


class TestRepetition:
    @pytest.mark.parametrize("method", ["GET", "PUT"])
    def test_a_busy_server_is_asked_again(self, method: str, endpoint_of: Callable[..., S3Endpoint]) -> None:
        busy = refusal(503, "SlowDown")

        def script(talk: Talk) -> None:
            for answer in (busy, refusal(400, "RequestTimeout"), refusal(500, "InternalError"), OK):
                if talk.head() and method == "PUT":
                    talk.body(5)
                talk.say(answer)

        with ScriptedServer(script) as server, watched_rows() as rows:
            body = io.BytesIO(b"__hello")
            body.seek(2)
            endpoint = endpoint_of(server.url)
            with endpoint.open(
                method, "k", body=body if method == "PUT" else None, deadline=Deadline(20)
            ) as answer:
                assert answer.status == 200
        assert rows == ["SAME 503 all", "SAME all", "SAME 500 all"]
        assert len({re.search(rb"Signature=\w+", head) for head in server.heads}) == 4

    def test_and_not_for_ever(self, endpoint_of: Callable[..., S3Endpoint]) -> None:
        with ScriptedServer(answering(refusal(503, "SlowDown"))) as server:
            endpoint = endpoint_of(server.url)
            with pytest.raises(ServerBusyError, match="after 10 attempts") as caught:
                listing(endpoint)
            assert caught.value.attempts == len(server.heads) == 10
        with ScriptedServer(answering(refusal(500, "InternalError"))) as server:
            with pytest.raises(ServerError, match="InternalError"):
                endpoint_of(server.url).open("GET", "k", deadline=Deadline(20))
            assert len(server.heads) == 4

    def test_a_lost_answer(self, endpoint_of: Callable[..., S3Endpoint]) -> None:
        def cut(talk: Talk) -> None:
            talk.head()
            talk.body(5)

        with ScriptedServer(cut, cut, answering(OK)) as server:
            with endpoint_of(server.url).open("PUT", "k", body=b"hello", deadline=Deadline(20)) as answer:
                assert answer.status == 200
            assert len(server.heads) == 3
        for body in (b"hello", iter([b"hello"])):
            with ScriptedServer(cut) as server:
                with pytest.raises(OutcomeUnknownError):
                    endpoint_of(server.url).open(
                        "PUT",
                        "k",
                        headers={"Content-Length": "5"} if not isinstance(body, bytes) else {},
                        body=body,
                        deadline=Deadline(20),
                        repeat=not isinstance(body, bytes),
                    )
                assert len(server.heads) == 1

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (b"", OutcomeUnknownError),
            (refusal(500, "InternalError"), ServerError),
            (refusal(200, "InternalError"), ServerError),
            (refusal(503, ""), ServerBusyError),
            (refusal(504, ""), DoorUnavailableError),
        ],
    )
    def test_a_completion_is_not_repeated_blindly(
        self, answer: bytes, kind: type[DcacheError], endpoint_of: Callable[..., S3Endpoint]
    ) -> None:
        def script(talk: Talk) -> None:
            for said in (refusal(503, "SlowDown"), answer):
                talk.head()
                talk.body(size_of(server.heads[-1]))
                talk.say(said)

        with ScriptedServer(script) as server:
            with pytest.raises(kind):
                endpoint_of(server.url).call(
                    "complete_multipart_upload",
                    url="s3://butler/k",
                    operation="write",
                    deadline=Deadline(20),
                    repeat=False,
                    Key="k",
                    UploadId="1",
                    MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": "x"}]},
                )
            assert len(server.heads) == 2

    def test_a_failure_that_looks_like_success(self, endpoint_of: Callable[..., S3Endpoint]) -> None:
        """CompleteMultipartUpload and CopyObject send the head of their answer before they know."""
        late = refusal(200, "InternalError")
        done = b"<CopyObjectResult><ETag>x</ETag></CopyObjectResult>"
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(done), done)
        with ScriptedServer(answering(late, answer)) as server:
            result = endpoint_of(server.url).call(
                "copy_object",
                url="s3://butler/k",
                operation="copy",
                deadline=Deadline(20),
                Key="k",
                CopySource={"Bucket": "butler", "Key": "l"},
            )
        assert result["CopyObjectResult"]["ETag"] == "x"
        assert len(server.heads) == 2

    @pytest.mark.parametrize("act", ["open", "call"])
    def test_a_silent_server(self, act: str, endpoint_of: Callable[..., S3Endpoint]) -> None:
        with ScriptedServer(lambda talk: talk.head() and talk.head() and None) as server:
            endpoint = endpoint_of(server.url)
            endpoint.presign("k", "GET", 60)  # the key is there
            deadline = Deadline(0.3)
            with pytest.raises(DeadlineError):
                _ = (
                    endpoint.open("GET", "k", deadline=deadline)
                    if act == "open"
                    else listing(endpoint, deadline)
                )
            assert len(server.heads) == 1

    def test_nobody_there(self, endpoint_of: Callable[..., S3Endpoint]) -> None:
        with ScriptedServer() as server:
            url = server.url
        endpoint = endpoint_of(url)
        for act in (lambda: listing(endpoint), lambda: endpoint.open("GET", "k", deadline=Deadline(20))):
            with pytest.raises(DoorUnavailableError, match="no connection"):
                act()

    def test_an_answer_that_is_no_listing(self, endpoint_of: Callable[..., S3Endpoint]) -> None:
        page = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html>welcome"
        with (
            ScriptedServer(answering(page)) as server,
            pytest.raises(ProtocolError, match="list s3://butler/"),
        ):
            listing(endpoint_of(server.url))

    def test_a_parameter_that_is_none(self, endpoint_of: Callable[..., S3Endpoint]) -> None:
        with pytest.raises(ConfigurationError, match=r"list s3://butler/: .*Nonsense"):
            listing(endpoint_of("http://127.0.0.1:9"), Nonsense=1)


class TestRenewal:
    def test_a_session_that_ends_is_looked_for_again(
        self, tmp_path: Path, endpoint_of: Callable[..., S3Endpoint], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "credentials"

        def write(name: str) -> None:
            file.write_text(
                f"[default]\naws_access_key_id = {name}\naws_secret_access_key = SK{name}0123456789\n"
                f"aws_session_token = TOKEN{name}0123456789\n"
            )

        def script(talk: Talk) -> None:
            while head := talk.head():
                talk.say(OK if b"=AKSECOND/" in head else refusal(400, "ExpiredToken"))

        write("AKFIRST")
        with ScriptedServer(script) as server:
            endpoint = endpoint_of(server.url, AWS_SHARED_CREDENTIALS_FILE=str(file))
            monkeypatch.delenv("AWS_ACCESS_KEY_ID")
            monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
            with pytest.raises(CredentialError, match=r"session token has expired.*AKFIRST"):
                endpoint.open("GET", "k", deadline=Deadline(20))
        assert len(server.heads) == 1
        write("AKFIRST2")
        with ScriptedServer(script) as server:
            endpoint = endpoint_of(server.url, AWS_SHARED_CREDENTIALS_FILE=str(file))
            monkeypatch.delenv("AWS_ACCESS_KEY_ID")
            monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
            assert endpoint.presign("k", "GET", 60)
            write("AKSECOND")
            with endpoint.open("GET", "k", deadline=Deadline(20)) as answer:
                assert answer.status == 200
        assert [re.findall(rb"Credential=(\w+)", head)[0] for head in server.heads] == [
            b"AKFIRST2",
            b"AKSECOND",
        ]
        assert b"X-Amz-Security-Token: TOKENAKSECOND0123456789" in server.heads[1]

    def test_keys_of_a_role_are_not_logged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """botocore logs the whole answer of the service that hands them out."""
        caplog.set_level(logging.DEBUG, logger="botocore")
        token = tmp_path / "token"
        token.write_text("eyJWEBIDENTITY0123456789")
        end = datetime.now(UTC) + timedelta(hours=1)
        body = (
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
            "<AccessKeyId>AKROLE</AccessKeyId><SecretAccessKey>SKROLE0123456789</SecretAccessKey>"
            f"<SessionToken>TOKENROLE0123456789</SessionToken><Expiration>{end.isoformat()}</Expiration>"
            "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        ).encode()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        with ScriptedServer(answering(answer)) as server:
            for name, value in {
                "AWS_ENDPOINT_URL_STS": server.url,
                "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/butler",
                "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
                "AWS_DEFAULT_REGION": "us-east-1",
                "S3_ENDPOINT_URL": "http://127.0.0.1:9",
            }.items():
                monkeypatch.setenv(name, value)
            monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
            key = key_source(s3_settings_for(None, "butler")).current()
        assert (key.mark, key.expires) == ("AKROLE", end)
        assert key.session_token is not None
        assert "0123456789" not in caplog.text


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", ResourceNotFoundError),
        (404, "", ResourceNotFoundError),
        (403, "AccessDenied", AccessDeniedError),
        (403, "", AccessDeniedError),
        (400, "ExpiredToken", CredentialError),
        (403, "QuotaExceeded", StoreFullError),
        (507, "XMinioStorageFull", StoreFullError),
        (412, "PreconditionFailed", ResourceExistsError),
        (409, "ConditionalRequestConflict", ResourceExistsError),
        (400, "BadDigest", IntegrityError),
        (400, "XAmzContentChecksumMismatch", IntegrityError),
        (400, "EntityTooLarge", UnsupportedError),
        (501, "NotImplemented", UnsupportedError),
        (403, "InvalidObjectState", NearlineError),
        (503, "SlowDown", ServerBusyError),
        (429, "", ServerBusyError),
        (500, "InternalError", ServerError),
        (500, "", ServerError),
        (504, "", DoorUnavailableError),
        (400, "KeyTooLongError", ProtocolError),
        (301, "PermanentRedirect", ConfigurationError),
        (400, "SomethingNew", ProtocolError),
    ],
)
def test_errors_by_code(status: int, code: str, kind: type[DcacheError]) -> None:
    """Ceph sends no text, so that the code is all there is."""
    body = f"<Error><Code>{code}</Code><Message></Message></Error>".encode() if code else b""
    error = failure(Said(status, "No", {}, body), operation="read", url="s3://b/k")
    assert type(error) is kind
    assert code in error.reason


def test_numbers_and_regions_are_told() -> None:
    numbers = b"<ProposedSize>6</ProposedSize><MaxSizeAllowed>5</MaxSizeAllowed>"
    body = b"<Error><Code>EntityTooLarge</Code>" + numbers + b"</Error>"
    error = failure(Said(400, "", {}, body), operation="write", url="s3://b/k")
    assert "ProposedSize 6, MaxSizeAllowed 5" in error.message
    body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>"
    error = failure(Said(400, "", {}, body), operation="write", url="s3://b/k")
    assert "region eu-west-3" in error.message


def test_a_skew_is_told_by_whatever_says_the_time() -> None:
    key = Credential.access_key("AK", "SK0123456789")
    now = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    code = b"<Error><Code>RequestTimeTooSkewed</Code><ServerTime>2026-11-24T12:20:00Z</ServerTime></Error>"
    date = {"Date": "Tue, 24 Nov 2026 11:40:10 GMT"}
    for said, side in ((Said(403, "", {}, code), "behind"), (Said(403, "", date, b""), "ahead of")):
        error = failure(said, operation="stat", url="s3://b/k", key=key, now=now)
        assert isinstance(error, CredentialError)
        assert f"20 minutes {side}" in error.message
    near = failure(
        Said(403, "", {"Date": "Tue, 24 Nov 2026 12:10:00 GMT"}, b""), operation="", url="", now=now
    )
    assert type(near) is AccessDeniedError


@pytest.mark.parametrize(("code", "kind"), [("BadDigest", IntegrityError), ("", CredentialError)])
def test_a_skew_is_not_the_reason_of_another_refusal(code: str, kind: type[Exception]) -> None:
    body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
    said = failures.Said(400, "Bad Request", {"Date": "Tue, 24 Nov 2026 12:00:00 GMT"}, body)
    now = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
    error = failures.failure(said, operation="write", url="s3://bucket/key", method="PUT", now=now)
    assert isinstance(error, kind)
