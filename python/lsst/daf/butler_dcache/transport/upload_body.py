"""What is uploaded: its length is known before, its adler32 is taken as it goes by."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from typing import BinaryIO

from ..errors import DcacheError, IntegrityError, UnsupportedError
from ..model import Adler32

__all__ = ("UploadBody",)

_OWN_KINDS = (io.BufferedReader, io.BufferedRandom, io.FileIO, io.BytesIO)
"""Python's own files; others have a ``readinto`` that may be slower than their ``read``, or not work."""


class UploadBody(io.RawIOBase):
    """Bytes, or a file from its position to its end, as a readable stream of known length.

    Parameters
    ----------
    data : bytes-like or `~typing.BinaryIO`
        What is uploaded. A file must be seekable: its length is announced, since an upload without a length
        that is cut leaves a file that dCache holds as good (protocol page, section 3.8).

    Raises
    ------
    UnsupportedError
        Raised if the file cannot tell its length.
    """

    def __init__(self, data: bytes | bytearray | memoryview | BinaryIO) -> None:
        super().__init__()
        self.place = ""
        """Where a data server of XRootD has it: a capability, for this write alone."""
        self.has_entry = False
        """Whether the server has made an entry for it, so that a failure leaves a ruin which is ours."""
        self.content: memoryview | None = None
        self._file: BinaryIO | None = None
        self._start = 0
        if isinstance(data, bytes | bytearray | memoryview):
            self.content = memoryview(data).cast("B")
            self.length = len(self.content)
        else:
            self._file = data
            try:
                self._start = data.tell()
                self.length = max(data.seek(0, os.SEEK_END) - self._start, 0)
                data.seek(self._start)
            except DcacheError:
                raise  # of a remote file, whose size has to be asked for
            except (OSError, AttributeError) as error:
                raise UnsupportedError(
                    "a file of unknown length cannot be written at once",
                    hint="Use open(..., 'wb'), which spools it.",
                ) from error
        self._position = 0
        self._sum = Adler32()
        self._descriptor = None if self._file is None else _descriptor(self._file)
        self._lock = threading.Lock()

    def readable(self) -> bool:
        """Return `True`."""
        return True

    def seekable(self) -> bool:
        """Return `True`: an upload can begin anew."""
        return True

    def tell(self) -> int:
        """Return how many bytes went by."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to the start, or look how long it is: nothing else is of use to an upload.

        Parameters
        ----------
        offset : `int`
            Must be 0.
        whence : `int`, optional
            From the start or from the end.
        """
        if offset != 0 or whence not in (os.SEEK_SET, os.SEEK_END):
            raise io.UnsupportedOperation("an upload starts from its beginning")
        if whence == os.SEEK_END:
            return self.length
        self.rewind()
        return 0

    def rewind(self) -> None:
        """Begin anew."""
        if self._file is not None:
            self._file.seek(self._start)
        self._position = 0
        self._sum = Adler32()

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, none beyond the length that was announced.

        Parameters
        ----------
        size : `int`, optional
            At most so many; all that are left if negative.
        """
        left = self.length - self._position
        size = left if size < 0 else min(size, left)
        if size == 0:
            return b""
        if self.content is not None:
            piece = self.content[self._position : self._position + size].tobytes()
        else:
            assert self._file is not None
            piece = self._file.read(size)
        if not piece:
            raise self._cut_short()
        self._position += len(piece)
        self._sum.update(piece)
        return piece

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a buffer with the next bytes and return how many there were.

        Parameters
        ----------
        buffer : writable bytes-like
            Where they go.
        """
        if not isinstance(self._file, io.IOBase) or type(self._file) not in _OWN_KINDS:
            piece = self.read(len(buffer))
            buffer[: len(piece)] = piece
            return len(piece)
        # Straight into the memory from which they are sent: two copies and their memory less.
        view = memoryview(buffer)[: self.length - self._position]
        if not view:
            return 0
        count = self._file.readinto(view) or 0
        if count == 0:
            raise self._cut_short()
        self._position += count
        self._sum.update(view[:count])
        return count

    @property
    def is_in_order(self) -> bool:
        """Whether to go back in the file may cost much, as in a compressed one, or is not known."""
        return self._file is not None and self._descriptor is None and type(self._file) is not io.BytesIO

    def read_at(self, offset: int, view: memoryview) -> None:
        """Fill memory with the bytes at some place, from any thread; what goes by elsewhere is not touched.

        Parameters
        ----------
        offset : `int`
            Of the first of them.
        view : `memoryview`
            Where they go; not longer than what there is.

        Raises
        ------
        IntegrityError
            Raised if the file is shorter by now.
        """
        if self.content is not None:
            view[:] = self.content[offset : offset + len(view)]
            return
        assert self._file is not None
        while view:
            if self._descriptor is not None:
                count = os.preadv(self._descriptor, [view], self._start + offset)
            else:
                with self._lock:
                    self._file.seek(self._start + offset)
                    piece = self._file.read(len(view))
                count = len(piece)
                view[:count] = piece
            if count == 0:
                raise self._cut_short(offset)
            view, offset = view[count:], offset + count

    def _cut_short(self, size: int | None = None) -> IntegrityError:
        return IntegrityError(
            f"the local file ended after {self._position if size is None else size} of {self.length} bytes",
            operation="write",
            hint="Something else changes it.",
        )

    @property
    def wire(self) -> memoryview | UploadBody:
        """What the transport sends: the bytes themselves, else this stream."""
        return self if self.content is None else self.content

    def as_bytes(self) -> bytes:
        """Return everything at once, for a small upload."""
        if self.content is not None:
            whole = self.content.obj
            if isinstance(whole, bytes) and len(whole) == self.length:
                return whole
            return self.content.tobytes()
        self.rewind()
        pieces = []
        while piece := self.read():
            pieces.append(piece)
        return b"".join(pieces)

    @property
    def adler32(self) -> str:
        """Checksum of all bytes; those of a file must have gone by.

        Raises
        ------
        IntegrityError
            Raised if they have not.
        """
        if self.content is not None:
            whole = Adler32()
            whole.update(self.content)
            return whole.hexdigest()
        if self._position != self.length:
            raise IntegrityError(f"only {self._position} of {self.length} bytes were sent", operation="write")
        return self._sum.hexdigest()


def _descriptor(file: BinaryIO) -> int | None:
    """Return the descriptor of a file whose bytes are those of its descriptor, else `None`."""
    # Of a compressed file it is that of the compressed bytes; of others nobody knows.
    plain = file.file if isinstance(file, tempfile._TemporaryFileWrapper) else file
    if type(plain) not in (io.BufferedReader, io.BufferedRandom, io.FileIO) or not hasattr(os, "preadv"):
        return None
    try:
        if plain.writable():
            plain.flush()
        return plain.fileno()
    except (OSError, ValueError):
        return None
