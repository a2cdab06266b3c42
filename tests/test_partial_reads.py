"""What parts of files cost, through the libraries that people read them with.

Counted by the server: requests, connections, bytes. Upstream's figures are those of the upstream report,
sections 1.4 and 3.
"""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lsst.daf.butler_dcache import DcacheFileSystem
from lsst.daf.butler_dcache.transport import exchange
from lsst.resources import ResourcePath
from request_counter import Counter, counted

MB = 1000 * 1000
NOISE = random.Random(5).randbytes(4 * MB)


class Cost:
    """What a block asked of the server."""

    def __init__(self) -> None:
        self.counter = Counter()
        self.received = 0

    def __str__(self) -> str:
        return f"{self.counter}, {self.received} bytes"

    @property
    def requests(self) -> int:
        return len(self.counter.records)

    @property
    def pool_connections(self) -> int:
        return len({record["connection"] for record in self.counter.records if record["server"] == "pool"})


@pytest.fixture
def cost_of(embedded: Any) -> Callable[[Callable[[], object]], Cost]:
    def measure(operation: Callable[[], object]) -> Cost:
        cost = Cost()

        def observe(one: exchange.Exchange) -> None:
            cost.received += one.received

        exchange.add_observer(observe)
        try:
            with counted(embedded) as cost.counter:
                operation()
        finally:
            exchange.remove_observer(observe)
        # The law of a pool's URL (protocol page, section 2.5): nothing but ranges.
        assert all(record["method"] == "GET" for record in cost.counter.records), str(cost)
        return cost

    return measure


@pytest.fixture
def place(embedded: Any) -> Callable[[str, bytes], str]:
    def put(name: str, data: bytes) -> str:
        url = f"{embedded.url}parts/{name}"
        embedded.place(urlsplit(url).path, data)
        return url

    return put


def noise(size: int) -> bytes:
    return (NOISE * (size // len(NOISE) + 1))[:size]


def read_at(file: Any, data: bytes, offsets: list[int], size: int) -> None:
    for offset in offsets:
        file.seek(offset)
        assert file.read(size) == data[offset : offset + size]


@pytest.mark.parametrize("way", ["fsspec", "resources"])
def test_two_reads(place: Any, cost_of: Any, way: str) -> None:
    """Upstream: 5 requests and 2.1 MB."""
    data = noise(1 << 20)
    url = place("1MiB", data)

    def operation() -> None:
        opened = DcacheFileSystem().open(url) if way == "fsspec" else ResourcePath(url).open("rb")
        with opened as file:
            read_at(file, data, [700_000, 100_000], 1000)

    cost = cost_of(operation)
    assert cost.requests <= 3, cost
    assert cost.received <= 1.2 * 2000, cost


def test_twenty_reads(place: Any, cost_of: Any) -> None:
    """Upstream: 41 requests and 21 MB."""
    data = noise(20 << 20)
    url = place("20MiB", data)
    offsets = random.Random(1).sample(range(0, len(data) - 4000, 5000), 20)
    fs = DcacheFileSystem()

    def vector() -> None:
        found = fs.cat_ranges([url] * 20, offsets, [offset + 4000 for offset in offsets])
        assert found == [data[offset : offset + 4000] for offset in offsets]

    def one_by_one() -> None:
        with fs.open(url) as file:
            read_at(file, data, offsets, 4000)

    for operation, requests in ((vector, 3), (one_by_one, 21)):
        cost = cost_of(operation)
        assert cost.requests <= requests, cost
        assert cost.received <= 1.2 * 80_000, cost
        assert cost.counter.at_door == 1


def test_two_hundred_reads(place: Any, cost_of: Any) -> None:
    data = noise(110 * MB)
    url = place("110MB", data)
    offsets = [random.Random(2).randrange(len(data) - 16_000) for _ in range(200)]
    fs = DcacheFileSystem()

    def one_by_one() -> None:
        with fs.open(url) as file:
            read_at(file, data, offsets, 16_000)

    def vector() -> None:
        fs.cat_ranges([url] * 200, offsets, [offset + 16_000 for offset in offsets])

    def in_order() -> None:
        position = 0
        with fs.open(url) as file:
            while piece := file.read(65_536):
                assert piece == data[position : position + 65_536]
                position += len(piece)
        assert position == len(data)

    for operation, requests in ((one_by_one, 200), (vector, 1), (in_order, 16)):
        cost = cost_of(operation)
        assert cost.counter.at_door == 1, cost
        assert cost.counter.at_pool <= requests, cost
        assert cost.pool_connections == 1, cost
        assert cost.received <= 1.2 * len(data), cost


@pytest.mark.parametrize("way", ["read_table", "ParquetFile"])
def test_parquet_column(place: Any, cost_of: Any, way: str) -> None:
    """Upstream: 18 requests and 17.8 MB for a column of 8.1 MB."""
    rows = 200_000
    table = pa.table({f"c{n}": np.random.default_rng(n).random(rows) for n in range(10)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="none", use_dictionary=False, row_group_size=rows)
    data = buffer.getvalue()
    url = place(f"{way}.parquet", data)
    column = pq.ParquetFile(buffer).metadata.row_group(0).column(3)

    def operation() -> None:
        with DcacheFileSystem().open(url) as file:
            if way == "read_table":
                found = pq.read_table(file, columns=["c3"])
            else:
                found = pq.ParquetFile(file).read(columns=["c3"])
        assert found == table.select(["c3"])

    cost = cost_of(operation)
    assert cost.requests <= 4, cost
    assert cost.received <= 1.2 * column.total_compressed_size, cost


@pytest.mark.parametrize("neighbours", [2000, 20])
def test_zip_member(place: Any, cost_of: Any, neighbours: int) -> None:
    """Upstream: 6 requests and 2.1 MB for a member of 10 kB in a zip file of 20 MB."""
    member = noise(10_000)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(neighbours):
            archive.writestr(f"member{number:04}", noise(20 * MB // neighbours))
        archive.writestr("wanted", member)
        archive.writestr("last", noise(100_000))
    data = buffer.getvalue()
    url = place(f"{neighbours}.zip", data)

    def operation() -> None:
        with DcacheFileSystem().open(url) as file, zipfile.ZipFile(file) as archive:
            assert archive.read("wanted") == member

    cost = cost_of(operation)
    assert cost.requests <= 4, cost
    with zipfile.ZipFile(buffer) as archive:
        assert cost.received <= 1.2 * (len(data) - archive.start_dir + len(member)), cost


def test_reading_everything_in_large_blocks(place: Any, cost_of: Any, tmp_path: Path) -> None:
    """Upstream: `http.py` needs 2049 requests for 64 MiB in reads of 64 KiB, `dav.py` 129."""
    data = noise(8 << 20)
    url = place("8MiB", data)

    def operation() -> None:
        with DcacheFileSystem().open(url) as file, open(tmp_path / "copy", "wb") as copy:
            while piece := file.read(700_000):
                copy.write(piece)

    cost = cost_of(operation)
    assert (tmp_path / "copy").read_bytes() == data
    assert cost.counter.at_door == 1
    assert cost.requests <= 6, cost
    assert cost.received == len(data), cost
