"""The values of the field."""

from __future__ import annotations

import random
import zlib

import pytest
from lsst.daf.butler_dcache.model import Adler32, ByteRange


@pytest.mark.parametrize("size", [0, 1, 15, 16, 5552, 5553, 1_000_003])
@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_adler32_of_pieces(size: int, form: type) -> None:
    """Whatever computes it: the value is zlib's."""
    generator = random.Random(size)
    data = generator.randbytes(size)
    digest = Adler32()
    begin = 0
    while begin < size:
        end = min(size, begin + generator.randint(1, 70_000))
        digest.update(form(data[begin:end]))
        begin = end
    assert digest.hexdigest() == f"{zlib.adler32(data):08x}"
    assert digest.size == size


def test_adler32_of_nothing() -> None:
    assert Adler32().hexdigest() == "00000001"


def test_range_header() -> None:
    assert ByteRange(0, 10).header() == "bytes=0-9"
    assert len(ByteRange(5, 7)) == 2


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 3), (4, 3)])
def test_no_range(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="byte range"):
        ByteRange(start, stop)
