"""A cutout and a column through the Butler: one question to the door, little more than the bytes needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import astropy.io.fits
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lsst.daf.butler import Butler, Config, DatasetType
from lsst.daf.butler_dcache.transport import exchange
from lsst.images import Box, Image
from lsst.resources import ResourcePath
from request_counter import counted


@pytest.fixture
def butler(tmp_path: Path, base_url: str) -> Iterator[Butler]:
    config = Config()
    config["datastore", "cls"] = "lsst.daf.butler_dcache.DcacheDatastore"
    config["datastore", "root"] = base_url
    config["datastore", "cached", "default"] = False
    Butler.makeRepo(str(tmp_path / "repo"), config=config, forceConfigRoot=False)
    with Butler.from_config(str(tmp_path / "repo"), writeable=True, run="run") as butler:
        butler.registry.insertDimensionData("instrument", {"name": "Cam"})
        yield butler
    shutil.rmtree(tmp_path / "repo")


def put(butler: Butler, value: Any, storage_class: str) -> tuple[Any, bytes]:
    """Store a value; return what it is known by, and its file."""
    kind = DatasetType("thing", ("instrument",), storage_class, universe=butler.dimensions)
    butler.registry.registerDatasetType(kind)
    ref = butler.put(value, kind, instrument="Cam")
    return ref, ResourcePath(butler.getURI(ref)).read()


def get(embedded: Any, butler: Butler, ref: Any, parameters: dict[str, Any]) -> tuple[Any, Any, int]:
    """Read a part; return it, what was asked for, and how many bytes came."""
    received: list[int] = []

    def observe(one: exchange.Exchange) -> None:
        received.append(one.received)

    exchange.add_observer(observe)
    try:
        with counted(embedded) as counter:
            value = butler.get(ref, parameters=parameters)
    finally:
        exchange.remove_observer(observe)
    return value, counter, sum(received)


def test_column(embedded: Any, butler: Butler, tmp_path: Path) -> None:
    """Upstream: 3 to 5 requests, and all bytes of a small file."""
    table = pa.table({f"c{n}": np.random.default_rng(n).random(100_000) for n in range(10)})
    ref, data = put(butler, table, "ArrowTable")
    (tmp_path / "file").write_bytes(data)
    metadata = pq.ParquetFile(tmp_path / "file").metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    needed = sum(group.column(3).total_compressed_size for group in groups) + 65_536
    value, counter, received = get(embedded, butler, ref, {"columns": ["c3"]})
    assert value == table.select(["c3"])
    assert counter.at_door == 1, counter
    assert received <= 1.2 * needed, counter


def test_cutout(embedded: Any, butler: Butler, tmp_path: Path) -> None:
    """Upstream: blocks of a mebibyte at least, each by a question to the door and a new connection."""
    values = np.random.default_rng(1).random((2000, 2000), dtype=np.float32)
    image = Image(values, bbox=Box.from_shape(values.shape))
    ref, data = put(butler, image, "ImageV2")
    box = Box.factory[900:1100, 950:1050]
    value, counter, received = get(embedded, butler, ref, {"bbox": box})
    assert np.array_equal(value.array, image[box].array)
    assert counter.at_door == 1, counter
    assert len({record["connection"] for record in counter.records if record["server"] == "pool"}) == 1
    (tmp_path / "file").write_bytes(data)
    with astropy.io.fits.open(tmp_path / "file", disable_image_compression=True) as hdus:
        hdu = hdus["IMAGE"]
        needed = sum(tile.nbytes for tile in hdu.data["COMPRESSED_DATA"][900:1100])
        needed += len(data) - hdu.header["PCOUNT"]  # headers, the places of the tiles, the index
    assert received <= 1.2 * needed, counter
