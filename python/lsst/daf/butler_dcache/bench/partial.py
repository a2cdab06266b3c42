"""Parts of files as libraries read them, through any client that can open a file.

Nothing here knows the client: astropy, pyarrow and zipfile are given its file object. What they read is held
against what `~.formats` put into the file, since a client that returns wrong bytes is not a fast one.
"""

from __future__ import annotations

import io
import threading
import time
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

from .formats import COLUMN, CUTOUT_PIXELS, column_head, library, make_image, make_table, member, pixel
from .peers.client import Client, Done
from .work import Work, contents

__all__ = ("OPERATIONS", "PartialReader", "WrongBytesError", "reader")

_BLOCK_BYTES = 1024 * 1024


class WrongBytesError(Exception):
    """A client returned something else than what is in the file."""


class PartialReader:
    """A way of reading parts of files.

    Parameters
    ----------
    client : `~.peers.client.Client`
        Whose files.
    work : `~.work.Work`
        Which parts.

    Raises
    ------
    UnsupportedWorkError
        If the library is missing that reads such files.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self, client: Client, work: Work) -> None:
        self._client = client
        self._work = work

    def read(self, name: str, number: int) -> Done:
        """Read the part that belongs to one operation.

        Parameters
        ----------
        name : `str`
            Of the file.
        number : `int`
            Of the operation, from 0.

        Returns
        -------
        done : `~.peers.client.Done`
            Bytes are those that were wanted.

        Raises
        ------
        WrongBytesError
            If they are not those of the file.
        """
        with self._client.open(name) as file:
            self._part(file, number)
        return Done(self._work.needed_bytes)

    def close(self) -> None:
        """Close what was kept open."""

    def _part(self, file: BinaryIO, number: int) -> None:
        raise NotImplementedError


class _Image(PartialReader):
    def __init__(self, client: Client, work: Work) -> None:
        super().__init__(client, work)
        self._fits = library("astropy.io.fits")
        # What it imports or computes only when a file is read belongs to nobody's time.
        with self._fits.open(io.BytesIO(make_image(Work("header", 0)))) as hdus:
            hdus[1].section[:1, :1]

    def _part(self, file: BinaryIO, number: int) -> None:
        with self._fits.open(file, memmap=False) as hdus:
            if self._work.operation == "header":
                _expect(hdus[1].header["EXTNAME"] == "IMAGE", "another header")
            elif self._work.operation == "hdu":
                self._check(hdus[2].data, 0, 0)
            else:
                side = hdus[1].header["NAXIS1"]
                # Somewhere else each time, and the same for all.
                y, x = ((number * 7919 + 331) % (side - CUTOUT_PIXELS + 1) for number in (number, ~number))
                self._check(hdus[1].section[y : y + CUTOUT_PIXELS, x : x + CUTOUT_PIXELS], y, x)

    def _check(self, values: Any, y: int, x: int) -> None:
        height, width = values.shape
        corners = ((0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1))
        for down, right in corners:
            right_value = pixel(self._work.seed, y + down, x + right)
            _expect(int(values[down, right]) == right_value, f"pixel {y + down}, {x + right}")


class _Column(PartialReader):
    def __init__(self, client: Client, work: Work) -> None:
        super().__init__(client, work)
        self._parquet = library("pyarrow.parquet")
        self._parquet.read_table(io.BytesIO(make_table(Work("column", 800))))  # imports the rest of it

    def read(self, name: str, number: int) -> Done:
        if self._work.operation == "column":
            return super().read(name, number)
        filesystem, place = self._client.filesystem(name)
        self._check(self._parquet.read_table(place, columns=[f"c{COLUMN}"], filesystem=filesystem))
        return Done(self._work.needed_bytes)

    def _part(self, file: BinaryIO, number: int) -> None:
        self._check(self._parquet.read_table(file, columns=[f"c{COLUMN}"]))

    def _check(self, table: Any) -> None:
        values = table.column(0).chunk(0)
        begin = values.offset * 8
        head = values.buffers()[1][begin : begin + 8].to_pybytes()
        _expect(table.num_columns == 1 and head == column_head(self._work.seed), "another column")


class _Member(PartialReader):
    def _part(self, file: BinaryIO, number: int) -> None:
        with zipfile.ZipFile(file) as archive:
            name = archive.namelist()[-2]
            data = archive.read(name)
        _expect(data == member(self._work.seed, int(name.rpartition("-")[2])), name)


class _Random(PartialReader):
    """Pieces of one file that stays open, for each thread."""

    def __init__(self, client: Client, work: Work) -> None:
        super().__init__(client, work)
        self._offsets = work.offsets()
        block = contents(min(work.size_bytes, _BLOCK_BYTES))
        self._block = block + block[: work.piece_bytes]
        self._period = len(block)
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._open: list[BinaryIO] = []

    def read(self, name: str, number: int) -> Done:
        begun = time.perf_counter()
        offset = self._offsets[number % len(self._offsets)]
        file = self._file(name)
        file.seek(offset)
        data = file.read(self._work.piece_bytes)
        seconds = time.perf_counter() - begun
        self._check(offset, data)
        return Done(len(data), seconds)

    def _file(self, name: str) -> BinaryIO:
        files: dict[str, BinaryIO] = self._mine.__dict__
        if name not in files:
            files[name] = self._client.open(name)
            with self._lock:
                self._open.append(files[name])
        return files[name]

    def _check(self, offset: int, data: bytes) -> None:
        begin = offset % self._period
        _expect(data == self._block[begin : begin + self._work.piece_bytes], f"a piece at {offset}")

    def close(self) -> None:
        while self._open:
            self._open.pop().close()


class _Scattered(_Random):
    """All pieces of an operation by one call of an fsspec file system."""

    def read(self, name: str, number: int) -> Done:
        filesystem, place = self._client.filesystem(name)
        begin = number * self._work.batch
        offsets = self._offsets[begin : begin + self._work.batch]
        stops = [offset + self._work.piece_bytes for offset in offsets]
        parts = filesystem.cat_ranges([place] * len(offsets), offsets, stops)
        for offset, data in zip(offsets, parts, strict=True):
            self._check(offset, bytes(data))
        return Done(sum(map(len, parts)))


class _Sequential(PartialReader):
    def read(self, name: str, number: int) -> Done:
        begun = time.perf_counter()
        moved, first = 0, None
        with self._client.open(name) as file:
            while piece := file.read(self._work.piece_bytes):
                first = first or time.perf_counter() - begun
                moved += len(piece)
        _expect(moved == self._work.size_bytes, f"{moved} bytes of {self._work.size_bytes}")
        return Done(moved, first)


def _expect(condition: bool, found: str) -> None:
    if not condition:
        raise WrongBytesError(f"what was read is not what is there: {found}")


_READERS: dict[str, Callable[[Client, Work], PartialReader]] = {
    "header": _Image,
    "hdu": _Image,
    "cutout": _Image,
    "column": _Column,
    "column_by_name": _Column,
    "member": _Member,
    "read_random": _Random,
    "read_scattered": _Scattered,
    "read_sequential": _Sequential,
}

OPERATIONS = frozenset(_READERS)
"""Operations of a `~.work.Work` that read parts of files."""


def reader(client: Client, work: Work) -> PartialReader:
    """Return what reads the parts of files that a work is about.

    Parameters
    ----------
    client : `~.peers.client.Client`
        Whose files.
    work : `~.work.Work`
        Its operation is one of `OPERATIONS`.

    Returns
    -------
    reader : `PartialReader`
        Ready; its imports are done.

    Raises
    ------
    UnsupportedWorkError
        If the library is missing that reads such files.
    """
    return _READERS[work.operation](client, work)
