"""Which S3 service a profile stands for: the variables of `lsst.resources`, and AWS's own files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st
from lsst.daf.butler_dcache.auth.credential import Credential
from lsst.daf.butler_dcache.config import loading
from lsst.daf.butler_dcache.config.s3 import S3Settings, s3_settings_for
from lsst.daf.butler_dcache.errors import (
    ConfigurationError,
    CredentialConfigurationError,
    CredentialError,
)
from lsst.daf.butler_dcache.s3 import access_key
from lsst.daf.butler_dcache.s3.access_key import key_source
from lsst.daf.butler_dcache.s3.address import S3Address, parse
from lsst.daf.butler_dcache.s3.endpoint import S3Endpoint
from lsst.daf.butler_dcache.s3.signing import Signer
from lsst.resources.s3utils import _parse_endpoint_config, _s3_should_validate_bucket

SECRET = "wJalr/XUtn:FEMI@K7MDENG+bPxRfi"
QUOTED = "wJalr%2FXUtn%3AFEMI%40K7MDENG+bPxRfi"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("AWS_", "S3_", "LSST_RESOURCES_", "LSST_DISABLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    loading.reset()
    yield
    loading.reset()


class TestAddress:
    @given(
        st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9_.-]+", fullmatch=True)),
        st.from_regex(r"([a-z0-9]+:)?[a-z0-9.-]{3,63}", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs"])),
    )
    def test_any_key_survives(self, profile: str | None, bucket: str, key: str) -> None:
        address = S3Address(profile, bucket, key)
        assert parse(address.url) == address

    def test_nothing_is_normalized(self) -> None:
        address = parse("s3://site@tenant:bucket//a//b/../%23%25%2541%3F+%C3%A9/#fragment")
        assert (address.profile, address.bucket) == ("site", "tenant:bucket")
        assert address.key == "/a//b/../#%%41?+é/"
        assert address.is_directory
        assert address.name == "#%%41?+é"

    def test_children(self) -> None:
        assert parse("s3://b").child("a b").url == "s3://b/a%20b"
        assert parse("s3://p@b/x").child("y/").url == "s3://p@b/x/y/"
        assert parse("s3://b/x/").prefix == parse("s3://b/x").prefix == "x/"
        assert parse("s3://b").prefix == ""

    @pytest.mark.parametrize(
        "url", ["http://b/k", "s3:/b/k", "s3:///k", "s3://@b/k", "s3://p@/k", "s3://b/a?b", "s3://b/%FF"]
    )
    def test_what_is_none(self, url: str) -> None:
        with pytest.raises(ConfigurationError):
            parse(url)

    def test_a_key_in_the_url_is_not_repeated(self) -> None:
        with pytest.raises(CredentialConfigurationError) as caught:
            parse("s3://AKADMIN:SKADMIN0123456789@bucket/k")
        assert "SKADMIN" not in str(caught.value)


class TestVariables:
    def test_a_profile_before_the_endpoint_of_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("S3_ENDPOINT_URL", "http://one.example.org:9000/")
        monkeypatch.setenv("LSST_RESOURCES_S3_PROFILE_site", f"https://A%2FK:{QUOTED}@two.example.org/gate/")
        settings = s3_settings_for("site", "b")
        assert settings.endpoint_url == "https://two.example.org/gate"
        assert (settings.access_key_id, settings.aws_profile) == ("A/K", None)
        assert settings.secret_access_key is not None
        assert settings.secret_access_key.reveal() == SECRET
        assert SECRET not in repr(settings)
        # A profile that no variable describes may be in AWS's files.
        assert s3_settings_for("other", "b").aws_profile == "other"
        assert s3_settings_for("other", "b").endpoint_url == "http://one.example.org:9000"
        assert s3_settings_for(None, "b").aws_profile is None

    @pytest.mark.parametrize(
        "value",
        [
            "https://s3.example.org",
            "http://s3.example.org:9000",
            "https://AK:SK@s3.example.org",
            f"https://A%2FK:{QUOTED}@[::1]:9000",
        ],
    )
    def test_as_upstream(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LSST_RESOURCES_S3_PROFILE_p", value)
        ours, theirs = s3_settings_for("p", "b"), _parse_endpoint_config(value, "p")
        assert ours.endpoint_url == theirs.endpoint_url
        assert ours.access_key_id == theirs.access_key_id
        assert (ours.secret_access_key and ours.secret_access_key.reveal()) == theirs.secret_access_key
        assert ours.aws_profile == theirs.profile

    @pytest.mark.parametrize("value", ["", "0", "F", "n", "False", "1", "true", "yes", "x"])
    def test_validation_as_upstream(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LSST_DISABLE_BUCKET_VALIDATION", value)
        assert s3_settings_for(None, "b").validate_bucket == _s3_should_validate_bucket()

    @pytest.mark.parametrize(
        "value",
        [
            "s3.example.org:9000",
            "AK:SKsecret01234@s3.example.org",
            "https://",
            "https://AK@s3.example.org",
            "https://AK:SK:secret01234@s3.example.org",
            "https://AK:SKsecret/01234@s3.example.org",
            "https://AK:SKsecret[01234@s3.example.org",
            "https://s3.example.org:port",
        ],
    )
    def test_mistakes_name_the_variable_alone(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("S3_ENDPOINT_URL", value)
        with pytest.raises(ConfigurationError, match="S3_ENDPOINT_URL") as caught:
            s3_settings_for(None, "b")
        assert "01234" not in str(caught.value)
        assert "https://" in caught.value.hint

    def test_the_same_until_something_changes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: set[S3Settings] = set()
        for name, value in (
            ("S3_ENDPOINT_URL", "http://s3.example.org"),
            ("AWS_SECRET_ACCESS_KEY", "another-secret"),
            ("AWS_SESSION_TOKEN", "another-token"),
            ("AWS_PROFILE", "another"),
            ("LSST_RESOURCES_WEBDAV_CONFIG", "/another"),
        ):
            seen.add(s3_settings_for(None, "b"))
            assert s3_settings_for(None, "b") is s3_settings_for(None, "b")
            monkeypatch.setenv(name, value)
        seen.add(s3_settings_for(None, "b"))
        assert len(seen) == 6


class TestWhereABucketIs:
    def root(self, bucket: str = "bucket", profile: str | None = None) -> str:
        return S3Endpoint(s3_settings_for(profile, bucket)).root

    def test_by_path_at_a_service_of_ones_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("S3_ENDPOINT_URL", "https://s3.example.org:443/gate/")
        assert self.root() == "https://s3.example.org/gate/bucket"

    def test_by_host_where_the_files_say_so(self, tmp_path: Path) -> None:
        (tmp_path / "config").write_text(
            "[profile site]\nregion = lyon\nendpoint_url = http://s3.example.org:9000\ns3 =\n"
            "  addressing_style = virtual\n"
        )
        endpoint = S3Endpoint(s3_settings_for("site", "bucket"))
        assert endpoint.root == "http://bucket.s3.example.org:9000"
        assert (endpoint.region, endpoint.addressing) == ("lyon", "virtual")
        assert endpoint.limits.base_url == "http://bucket.s3.example.org:9000/"

    def test_at_amazon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
        assert self.root() == "https://bucket.s3.eu-west-3.amazonaws.com"
        assert self.root("dotted.bucket") == "https://s3.eu-west-3.amazonaws.com/dotted.bucket"

    def test_of_a_tenant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("S3_ENDPOINT_URL", "http://s3.example.org")
        with pytest.raises(ConfigurationError, match=r"tenant:bucket.*LSST_DISABLE_BUCKET_VALIDATION"):
            self.root("tenant:bucket")
        monkeypatch.setenv("LSST_DISABLE_BUCKET_VALIDATION", "1")
        assert self.root("tenant:bucket") == "http://s3.example.org/tenant%3Abucket"

    def test_unknown_profiles(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ConfigurationError, match=r"no profile site.*LSST_RESOURCES_S3_PROFILE_site"):
            self.root(profile="site")
        monkeypatch.setenv("AWS_PROFILE", "elsewhere")
        with pytest.raises(ConfigurationError, match=r"no profile elsewhere.*AWS_PROFILE"):
            self.root()

    def test_what_aws_says_is_judged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_CA_BUNDLE", "/nonexistent/ca.pem")
        with pytest.raises(ConfigurationError, match=r"no /nonexistent/ca\.pem.*AWS_CA_BUNDLE"):
            self.root()
        for url in ("AK:SK0123456789@s3.example.org", "https://AK:SK0123456789@s3.example.org"):
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            with pytest.raises(ConfigurationError, match="the endpoint in AWS's") as caught:
                self.root()
            assert "SK0123456789" not in str(caught.value)

    def test_limits_are_those_of_the_sites_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "sites.yaml"
        file.write_text(
            "- base_url: https://s3.example.org/\n  timeout_read: 7\n"
            "  dcache: {total_timeout_seconds: 33, requests_per_second: 5}\n"
        )
        monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(file))
        monkeypatch.setenv("S3_ENDPOINT_URL", "https://s3.example.org")
        # What would be looked for at a WebDAV endpoint is not S3's affair.
        monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "missing"))
        monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "missing"))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(file))
        endpoint = S3Endpoint(s3_settings_for(None, "bucket"))
        limits = endpoint.limits
        assert (limits.read_timeout_seconds, limits.requests_per_second) == (7, 5)
        assert endpoint.deadline().seconds == 33
        assert limits.trusted_authorities == str(file)
        assert limits.user_certificate is None


class TestKeys:
    def test_from_the_files_of_aws(self, tmp_path: Path) -> None:
        (tmp_path / "credentials").write_text(
            "[site]\naws_access_key_id = AKSITE\naws_secret_access_key = SKSITE0123456789\n"
            "aws_session_token = TOKEN0123456789\n"
        )
        key = key_source(s3_settings_for("site", "b")).current()
        assert (key.mark, key.origin) == ("AKSITE", "shared-credentials-file, profile site")
        assert key.secret is not None
        assert key.secret.reveal() == "SKSITE0123456789"
        assert key.session_token is not None
        assert "0123456789" not in repr(key)

    def test_no_key_at_all(self) -> None:
        with pytest.raises(CredentialError, match=r"no access key .*AWS_ACCESS_KEY_ID") as caught:
            key_source(s3_settings_for(None, "b")).current()
        assert "S3_ENDPOINT_URL" in caught.value.hint

    def test_half_a_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
        with pytest.raises(CredentialError, match="AWS_SECRET_ACCESS_KEY"):
            key_source(s3_settings_for(None, "b")).current()

    def test_a_key_that_cannot_be_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SK0123456789\r\nX-Header: 1")
        with pytest.raises(CredentialError, match="secret of the access key"):
            key_source(s3_settings_for(None, "b")).current()

    def test_a_program_that_does_not_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        (tmp_path / "config").write_text(f"[profile site]\ncredential_process = cat {fifo}\n")
        monkeypatch.setattr(access_key, "_PATIENCE_SECONDS", 0.2)
        try:
            with pytest.raises(CredentialError, match=r"no new credential after 0\.2 s"):
                key_source(s3_settings_for("site", "b")).current()
        finally:
            fifo.open("w").close()

    def test_what_a_program_says_is_not_repeated(self, tmp_path: Path) -> None:
        (tmp_path / "config").write_text(
            "[profile site]\ncredential_process = cat /nonexistent/SKSECRET0123456789\n"
        )
        with pytest.raises(CredentialError, match="CredentialRetrievalError") as caught:
            key_source(s3_settings_for("site", "b")).current()
        assert "SKSECRET" not in str(caught.value)


@pytest.mark.parametrize("token", [None, "T0KEN"])
@pytest.mark.parametrize("body", [None, b"<x/>"])
@pytest.mark.parametrize("query", ["", "?b=2&a=1%2F&uploads=", "?uploads", "?a-b=&a=2&a=1&A=%20"])
@pytest.mark.parametrize("key", ["a%20b//%2B", "", "%C3%A9/~-_.", "a/./../b%3F%23"])
def test_signatures_are_those_of_botocore(
    key: str, query: str, body: bytes | None, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own signer and botocore's agree."""
    url = f"http://s3.example.org:9000/bucket/{key}{query}"
    signer = Signer(Credential.access_key("AK", "SK0123456789", token), "lyon")
    signer.sign("GET", url, {})
    headers, who = signer.sign("PUT", url, {"Range": " bytes=0-9", "x-amz-meta-b": "a  b"}, body)
    moment = datetime.strptime(headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: moment)
    peer = S3SigV4Auth(ReadOnlyCredentials("AK", "SK0123456789", token), "s3", "lyon")
    monkeypatch.setattr(peer, "payload", lambda request: headers["X-Amz-Content-SHA256"])
    request = AWSRequest(method="PUT", url=url, headers=headers, data=body)
    peer.add_auth(request)
    assert request.headers["Authorization"] == who.headers()["Authorization"]
    assert request.headers.get("X-Amz-Security-Token") == who.headers().get("X-Amz-Security-Token")
    assert not {"authorization", "x-amz-security-token", "host"} & {name.lower() for name in headers}
