"""What people read and write `davs` URLs with, after installation alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from astropy.io import fits
from fsspec.callbacks import Callback
from lsst.daf.butler_dcache import DcacheFileSystem
from lsst.daf.butler_dcache.transport import exchange
from request_counter import counted


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"a": np.arange(5000), "b": np.random.default_rng(1).random(5000)})


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_pandas(base_url: str, frame: pd.DataFrame, kind: str) -> None:
    url = f"{base_url}frame.{kind}"
    options = {"index": False} if kind == "csv" else {}
    getattr(frame, f"to_{kind}")(url, **options)
    pd.testing.assert_frame_equal(getattr(pd, f"read_{kind}")(url), frame)


def test_pandas_column(base_url: str, frame: pd.DataFrame) -> None:
    frame.to_parquet(f"{base_url}frame.parquet")
    found = pd.read_parquet(f"{base_url}frame.parquet", columns=["b"])
    pd.testing.assert_frame_equal(found, frame[["b"]])


def test_zarr(base_url: str) -> None:
    url = f"{base_url}array.zarr"
    values = np.random.default_rng(2).random((40, 30))
    array = zarr.open_array(url, mode="w", shape=values.shape, chunks=(10, 10), dtype="f8")
    array[:] = values
    again = zarr.open_array(url, mode="r")
    assert np.array_equal(again[15:25, 5:9], values[15:25, 5:9])


def test_xarray(base_url: str) -> None:
    url = f"{base_url}data.zarr"
    values = xr.Dataset({"t": (("x", "y"), np.arange(12.0).reshape(3, 4))}, coords={"x": [1, 2, 3]})
    values.to_zarr(url, consolidated=False)
    with xr.open_zarr(url, consolidated=False) as again:
        xr.testing.assert_identical(again.sel(x=2).load(), values.sel(x=2))


def test_astropy_section(embedded: Any) -> None:
    """Upstream: a mebibyte at least for each block that a section touches."""
    image = np.random.default_rng(3).random((1500, 1000)).astype(">f4")
    url = f"{embedded.url}libraries/image.fits"
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image)])
    with fsspec.open(url, "wb") as file:
        hdus.writeto(file)
    received: list[int] = []

    def observe(one: exchange.Exchange) -> None:
        received.append(one.received)

    exchange.add_observer(observe)
    try:
        with counted(embedded) as counter, fits.open(url, use_fsspec=True) as opened:
            assert np.array_equal(opened[1].section[500:600, 200:700], image[500:600, 200:700])
    finally:
        exchange.remove_observer(observe)
    assert counter.at_door == 1, counter
    assert sum(received) <= 1.2 * 100 * 1000 * 4, counter  # astropy reads whole rows


class Listener(Callback):  # type: ignore[misc]
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[int] = []

    def call(self, *args: Any, **kwargs: Any) -> None:
        self.told.append(self.value)


def test_progress_is_told_as_bytes_arrive(embedded: Any, tmp_path: Path) -> None:
    data = bytes(5_000_000)
    url = f"{embedded.url}libraries/large"
    embedded.place(urlsplit(url).path, data)
    listener = Listener()
    DcacheFileSystem().get_file(url, tmp_path / "copy", callback=listener)
    assert (tmp_path / "copy").read_bytes() == data
    assert listener.size == listener.value == len(data)
    assert len(listener.told) >= 5
    assert listener.told == sorted(listener.told)


def test_ranges_of_several_files(embedded: Any) -> None:
    fs = DcacheFileSystem()
    urls = [f"{embedded.url}libraries/{number}" for number in range(5)]
    for number, url in enumerate(urls):
        embedded.place(urlsplit(url).path, bytes([number]) * 1000)
    with counted(embedded) as counter:
        found = fs.cat_ranges([*urls, urls[0], urls[0] + "none"], [0] * 7, [3] * 7)
    assert found[:6] == [bytes([number % 5]) * 3 for number in range(6)]
    assert isinstance(found[6], FileNotFoundError)
    assert (counter.at_door, counter.at_pool) == (6, 5), counter
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([*urls, urls[0] + "none"], [0] * 6, [3] * 6, on_error="raise")
