"""Files of the field, made on the spot: images, tables and archives, and how much of them a part takes.

All are made of a seed alone, so that a reader can be held to their values, see `~.partial`. Whoever makes or
reads one needs the library of its format.
"""

from __future__ import annotations

import importlib
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

from .work import UnsupportedWorkError, Work, contents

__all__ = (
    "COLUMN",
    "CUTOUT_PIXELS",
    "archive_bytes_needed",
    "column_head",
    "document",
    "document_bytes_needed",
    "library",
    "make_archive",
    "make_document",
    "make_image",
    "make_table",
    "member",
    "needs_of_image",
    "pixel",
    "table_bytes_needed",
)

COLUMN = 3
"""The column of a table that is read, from 0."""
CUTOUT_PIXELS = 100
"""Side of a cutout."""

_COLUMNS = 10
_MEMBER_BYTES = 10_000
_PLANES = ("IMAGE", "MASK", "VARIANCE")
_PIXEL_BYTES = 4
# Below it a float32 holds every whole number.
_VALUES = 65_521


def library(name: str) -> Any:
    """Return a library that not every installation has.

    Parameters
    ----------
    name : `str`
        Its module.

    Raises
    ------
    UnsupportedWorkError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UnsupportedWorkError(f"needs {error.name}, which is not installed") from error


def make_table(work: Work) -> bytes:
    """Return a Parquet file of one row group and ten columns of equal size.

    Parameters
    ----------
    work : `~.work.Work`
        Says how large the file shall be, and of which seed.

    Returns
    -------
    data : `bytes`
        The file; without compression, so that a tenth of it is one column.

    Raises
    ------
    UnsupportedWorkError
        If pyarrow is not installed.
    """
    pyarrow, parquet = library("pyarrow"), library("pyarrow.parquet")
    rows = work.size_bytes // (8 * _COLUMNS)
    columns = {
        f"c{number}": pyarrow.Array.from_buffers(
            pyarrow.float64(), rows, [None, pyarrow.py_buffer(contents(rows * 8, work.seed + number))]
        )
        for number in range(_COLUMNS)
    }
    out = io.BytesIO()
    # A Butler writes so how many rows there are, and looks for it when it is asked.
    table = pyarrow.table(columns, metadata={"lsst::arrow::rowcount": str(rows)})
    parquet.write_table(table, out, compression="none", use_dictionary=False, row_group_size=rows)
    return out.getvalue()


def column_head(seed: int) -> bytes:
    """Return the first eight bytes of the column that is read, whatever the size of the table.

    Parameters
    ----------
    seed : `int`
        Of the table.
    """
    return random.Random(seed + COLUMN).randbytes(8)


def make_archive(work: Work) -> bytes:
    """Return a zip file of members of 10 kB, stored.

    Parameters
    ----------
    work : `~.work.Work`
        Says how large the file shall be, and of which seed.

    Returns
    -------
    data : `bytes`
        The file.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for number in range(max(2, work.size_bytes // _MEMBER_BYTES)):
            archive.writestr(f"member-{number:06d}", member(work.seed, number))
    return out.getvalue()


def member(seed: int, number: int) -> bytes:
    """Return what a member of an archive holds.

    Parameters
    ----------
    seed : `int`
        Of the archive.
    number : `int`
        Of the member, from 0.
    """
    return random.Random(seed + number).randbytes(_MEMBER_BYTES)


def make_image(work: Work) -> bytes:
    """Return a FITS file with an image, its mask and its variance, as extensions of equal size.

    Parameters
    ----------
    work : `~.work.Work`
        Says how large the file shall be, and of which seed.

    Returns
    -------
    data : `bytes`
        The file; without compression, so that a third of it is one plane.

    Raises
    ------
    UnsupportedWorkError
        If astropy is not installed.
    """
    numpy, fits = library("numpy"), library("astropy.io.fits")
    side = max(int((work.size_bytes / _PIXEL_BYTES / len(_PLANES)) ** 0.5), CUTOUT_PIXELS)
    y, x = numpy.ogrid[:side, :side]
    values = pixel(work.seed, y, x)
    hdus = [fits.PrimaryHDU()]
    for name in _PLANES:
        hdus.append(fits.ImageHDU(values.astype("int32" if name == "MASK" else "float32"), name=name))
    out = io.BytesIO()
    fits.HDUList(hdus).writeto(out)
    return out.getvalue()


def pixel(seed: int, y: Any, x: Any) -> Any:
    """Return the value of a pixel, which is the same in all planes.

    Parameters
    ----------
    seed : `int`
        Of the image.
    y, x : `int` or array
        Where, from 0.
    """
    return (seed + 1009 * y + x) % _VALUES


def document(size: int) -> dict[str, str]:
    """Return what a Butler writes as a JSON file of a certain size.

    Parameters
    ----------
    size : `int`
        Of the file in bytes, at least those of an empty one.
    """
    empty = len(json.dumps({"text": ""}))
    return {"text": "x" * (size - empty)}


def make_document(work: Work) -> bytes:
    """Return this as a file.

    Parameters
    ----------
    work : `~.work.Work`
        Says how large it shall be.
    """
    return json.dumps(document(work.size_bytes)).encode()


def document_bytes_needed(data: bytes) -> int:
    """Return that all of it is needed.

    Parameters
    ----------
    data : `bytes`
        The file.
    """
    return len(data)


def table_bytes_needed(data: bytes) -> int:
    """Return how many bytes of a Parquet file its fourth column takes, with the footer that says where.

    Parameters
    ----------
    data : `bytes`
        The file.

    Returns
    -------
    needed : `int`
        Bytes.
    """
    column = library("pyarrow.parquet").ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(COLUMN)
    footer: int = struct.unpack("<I", data[-8:-4])[0]
    return int(column.total_compressed_size) + footer + 8


def archive_bytes_needed(data: bytes) -> int:
    """Return how many bytes of a zip file one member takes, with the directory that says where.

    Parameters
    ----------
    data : `bytes`
        The file.

    Returns
    -------
    needed : `int`
        Bytes.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.start_dir
    return len(data) - start + _MEMBER_BYTES


def needs_of_image(operation: str) -> Callable[[bytes], int]:
    """Return what says how many bytes of a FITS file a part of it takes, with the headers before it.

    Parameters
    ----------
    operation : `str`
        ``header``: of the image; ``hdu``: the mask; ``cutout``: `CUTOUT_PIXELS` squared of the image.

    Returns
    -------
    needs : `~collections.abc.Callable`
        Takes the file.
    """

    def needs(data: bytes) -> int:
        with library("astropy.io.fits").open(io.BytesIO(data)) as hdus:
            image, mask = hdus["IMAGE"].fileinfo(), hdus["MASK"].fileinfo()
        match operation:
            case "header":
                return int(image["datLoc"])
            case "hdu":
                headers = image["datLoc"] + mask["datLoc"] - mask["hdrLoc"]
                return int(headers + mask["datSpan"])
            case "cutout":
                return int(image["datLoc"]) + CUTOUT_PIXELS**2 * _PIXEL_BYTES
        raise ValueError(f"no part of an image is called {operation}")

    return needs
