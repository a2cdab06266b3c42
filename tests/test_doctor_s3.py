"""``dcache-butler doctor`` at an S3 service."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.cli import doctor_s3
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.errors import UnsupportedError

STEPS = [
    "profile and endpoint",
    "trust",
    "access key",
    "service",
    "clock",
    "bucket and list",
    "pacing",
    "write",
    "read",
    "delete",
    "create without replacing",
    "unfinished uploads",
]


def doctor(url: str, status: int) -> str:
    result = CliRunner().invoke(main, ["doctor", url])
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


@pytest.fixture
def profile(seaweed: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the variable of the profile ``site``."""
    return lambda value: monkeypatch.setenv("LSST_RESOURCES_S3_PROFILE_site", value)


def of_account(seaweed: Any, key: str, secret: str) -> str:
    return str(seaweed.url.replace("://", f"://{key}:{secret}@"))


def test_all_is_well(seaweed: Any, s3_url: str) -> None:
    output = doctor(s3_url, 0)
    assert "FAILED" not in output
    lines = [line.partition(": ")[0].removeprefix("ok").strip() for line in output.splitlines()]
    assert lines == [*STEPS, "Everything works."]
    assert f"{seaweed.url}/{seaweed.bucket}, from S3_ENDPOINT_URL; region us-east-1, path style" in output
    assert f"access key: {seaweed.access_key}, from env" in output
    assert "service: SeaweedFS" in output
    assert "pacing: none until the server refuses a request" in output
    assert "1000000 bytes, verified by crc64nvme " in output
    assert "1000000 bytes, the same, by 127.0.0.1:" in output
    assert "If-None-Match is honoured, for objects of one PUT" in output
    assert "unfinished uploads: none; no rule of the bucket aborts them" in output
    assert seaweed.secret_key not in output
    prefix = s3_url.removeprefix(f"s3://{seaweed.bucket}/")
    assert "Contents" not in seaweed.client().list_objects_v2(Bucket=seaweed.bucket, Prefix=prefix)


def test_a_profile_over_tls(seaweed: Any, s3_url: str, profile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    profile(seaweed.tls_url.replace("://", f"://{seaweed.access_key}:{seaweed.secret_key}@"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(seaweed.ca))
    output = doctor(s3_url.replace("s3://", "s3://site@"), 0)
    assert "from LSST_RESOURCES_S3_PROFILE_site" in output
    assert f"authorities of {seaweed.ca}" in output


def test_nobody_vouches_for_the_certificate(seaweed: Any, profile: Any) -> None:
    profile(seaweed.tls_url.replace("://", f"://{seaweed.access_key}:{seaweed.secret_key}@"))
    output = doctor(f"s3://site@{seaweed.bucket}/x/", 1)
    assert "FAILED  service" in output
    assert "certificate" in output
    assert "AWS_CA_BUNDLE" in output


def test_a_missing_bucket(seaweed: Any) -> None:
    output = doctor("s3://missing/x/", 1)
    assert "FAILED  bucket and list" in output
    assert "there is no such bucket" in output
    assert "What to do: " in output


def test_a_wrong_secret(seaweed: Any, profile: Any) -> None:
    profile(of_account(seaweed, seaweed.access_key, "not-the-secret-of-it"))
    output = doctor(f"s3://site@{seaweed.bucket}/x/", 1)
    assert "FAILED  bucket and list" in output
    assert "the secret of the access key is wrong" in output
    assert "correct the key in LSST_RESOURCES_S3_PROFILE_site" in output
    assert "not-the-secret" not in output


def test_an_unknown_key(seaweed: Any, profile: Any) -> None:
    profile(of_account(seaweed, "NOBODYSKEY", "whatever"))
    output = doctor(f"s3://site@{seaweed.bucket}/x/", 1)
    assert "the service does not know the access key" in output
    assert "NOBODYSKEY" in output


def test_no_right_to_write(seaweed: Any, profile: Any) -> None:
    profile(of_account(seaweed, seaweed.reader_access_key, seaweed.reader_secret_key))
    output = doctor(f"s3://site@{seaweed.bucket}/x/", 1)
    assert "ok      bucket and list" in output
    assert "FAILED  write" in output
    assert "What to do: ask for s3:ListBucket" in output


def test_nobody_is_there(profile: Any) -> None:
    profile("http://AKEY:secret@localhost:1")
    output = doctor("s3://site@bucket/x/", 1)
    assert "FAILED  service" in output
    assert "check host, port and firewall" in output


def test_no_access_key(seaweed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    output = doctor(f"s3://{seaweed.bucket}/x/", 1)
    assert "FAILED  access key" in output
    assert "othing was sent; set AWS_ACCESS_KEY_ID" in output


def test_a_variable_that_is_no_service(seaweed: Any, profile: Any) -> None:
    profile("AKEY:a-secret-in-the-wrong-place")
    output = doctor(f"s3://site@{seaweed.bucket}/x/", 1)
    assert "FAILED  profile and endpoint: LSST_RESOURCES_S3_PROFILE_site must begin with https://" in output
    assert "a-secret" not in output


def test_a_key_in_the_url(seaweed: Any) -> None:
    output = doctor("s3://AKEY:hidden@bucket/x/", 1)
    assert "a URL is no place for an access key" in output
    assert "hidden" not in output


@pytest.mark.parametrize(("minutes", "words"), [(20, "ahead of"), (-20, "behind")])
def test_clocks_apart(seaweed: Any, monkeypatch: pytest.MonkeyPatch, minutes: int, words: str) -> None:
    monkeypatch.setattr(doctor_s3, "_now", lambda: datetime.now(UTC) + timedelta(minutes=minutes))
    output = doctor(f"s3://{seaweed.bucket}/x/", 1)
    assert "FAILED  clock: the clock of this machine is" in output
    assert f"s {words} the service's" in output
    assert "NTP" in output


def test_a_server_without_conditions(seaweed: Any, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> bool:
        raise UnsupportedError("the server ignores If-None-Match")

    monkeypatch.setattr(doctor_s3.CreateOnly, "prepare", refuse)
    assert "If-None-Match is ignored: overwrite=False is refused" in doctor(s3_url, 0)


def test_unfinished_uploads_are_counted(seaweed: Any, s3_url: str) -> None:
    key = s3_url.removeprefix(f"s3://{seaweed.bucket}/") + "half"
    upload = seaweed.client().create_multipart_upload(Bucket=seaweed.bucket, Key=key)["UploadId"]
    try:
        output = doctor(s3_url, 0)
    finally:
        seaweed.client().abort_multipart_upload(Bucket=seaweed.bucket, Key=key, UploadId=upload)
    assert f"unfinished uploads: 1 below this directory; dcache-butler clean-orphans {s3_url}" in output


def test_a_rule_of_the_bucket_is_told(seaweed: Any, s3_url: str) -> None:
    client, rule = seaweed.client(), {"ID": "abort", "Status": "Enabled", "Filter": {"Prefix": ""}}
    rule["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": 7}
    client.put_bucket_lifecycle_configuration(Bucket=seaweed.bucket, LifecycleConfiguration={"Rules": [rule]})
    try:
        assert "none; a rule aborts them after 7 days" in doctor(s3_url, 0)
    finally:
        client.delete_bucket_lifecycle(Bucket=seaweed.bucket)


def test_without_boto3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name.endswith("doctor_s3"):
            raise ModuleNotFoundError("No module named 'botocore'", name="botocore")
        return imported(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    output = doctor("s3://bucket/x/", 1)
    assert "s3:// needs the package botocore: pip install 'lsst-daf-butler-dcache[s3]'" in output
