"""The checksums of S3: values that others computed, parts that make a whole, what headers say."""

from __future__ import annotations

import base64
import hashlib
import random
import zlib

import pytest
from lsst.daf.butler_dcache.s3.checksums import (
    COMBINABLE,
    PREFERRED,
    Digests,
    announced,
    header_name,
    to_base64,
    to_hexadecimal,
)
from lsst.daf.butler_dcache.transport.http1 import Headers

CHECK = b"123456789"
"""What the catalogue of CRCs computes its check values of."""


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [
        ("adler32", f"{zlib.adler32(CHECK):08x}"),
        ("crc64nvme", "ae8b14860a799888"),
        ("crc32c", "e3069283"),
        ("crc32", "cbf43926"),
        ("sha256", hashlib.sha256(CHECK).hexdigest()),
        ("sha1", hashlib.sha1(CHECK).hexdigest()),
        ("md5", hashlib.md5(CHECK).hexdigest()),
    ],
)
def test_values_are_those_that_everybody_computes(algorithm: str, value: str) -> None:
    seen = Digests(algorithm)
    seen.update(CHECK[:4])
    seen.update(memoryview(bytearray(CHECK))[4:])
    assert (seen.size, seen.hexdigest(algorithm)) == (9, value)
    assert base64.b64decode(seen.base64(algorithm)).hex() == value


@pytest.mark.parametrize("algorithm", sorted(COMBINABLE))
def test_parts_make_the_whole(algorithm: str) -> None:
    data = random.Random(algorithm).randbytes(100_000)
    whole, together = Digests(algorithm), Digests(algorithm)
    whole.update(data)
    for start, stop in ((0, 0), (0, 1), (1, 40_000), (40_000, 40_000), (40_000, 100_000)):
        part = Digests(algorithm)
        part.update(data[start:stop])
        together.append(part)
    assert (together.size, together.hexdigests()) == (whole.size, whole.hexdigests())


def _headers(**values: str) -> Headers:
    return Headers((name.replace("_", "-"), value) for name, value in values.items())


def test_headers_of_an_object_are_understood() -> None:
    crc = to_base64("ae8b14860a799888")
    found = announced(
        _headers(x_amz_checksum_crc64nvme=crc, x_amz_checksum_type="FULL_OBJECT", ETag=f'"{"0A" * 16}"')
    )
    assert found.checksums == {"crc64nvme": "ae8b14860a799888", "md5": "0a" * 16}
    assert found.best == "crc64nvme"
    assert not found.is_composite


@pytest.mark.parametrize(
    "headers",
    [
        {"x_amz_checksum_crc32c": to_base64("e3069283") + "-3"},
        {"x_amz_checksum_crc32c": to_base64("e3069283"), "x_amz_checksum_type": "COMPOSITE"},
    ],
)
def test_a_checksum_over_those_of_parts_is_none_of_the_bytes(headers: dict[str, str]) -> None:
    found = announced(_headers(**headers, ETag='"' + "0a" * 16 + '-3"'))
    assert found.checksums == {}
    assert found.best is None
    assert found.is_composite


@pytest.mark.parametrize(
    "headers",
    [
        {"x_amz_server_side_encryption": "aws:kms"},
        {"x_amz_server_side_encryption_customer_algorithm": "AES256"},
    ],
)
def test_the_tag_of_what_is_encrypted_by_a_key_is_no_checksum(headers: dict[str, str]) -> None:
    assert announced(_headers(ETag='"' + "0a" * 16 + '"', **headers)).best is None


def test_what_is_no_value_is_none() -> None:
    assert to_hexadecimal("AAAA", "crc32") is None
    assert to_hexadecimal("#", "crc32") is None
    assert announced(_headers(x_amz_checksum_crc32="?", ETag="abc")).best is None


def test_headers_of_requests() -> None:
    assert [header_name(one) for one in PREFERRED] == [
        *(f"x-amz-checksum-{one}" for one in PREFERRED[:-1]),
        "Content-MD5",
    ]
