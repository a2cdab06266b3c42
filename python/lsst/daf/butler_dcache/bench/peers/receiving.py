"""What a client that writes into a file object has brought, and when."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, cast

from .client import Done, Sink

if TYPE_CHECKING:
    from collections.abc import Buffer

__all__ = ("receive",)


class _Receiver(io.RawIOBase):
    """Counts, and passes on what somebody keeps."""

    def __init__(self, keep: Callable[[Buffer], object] | None) -> None:
        self._keep = keep
        self.count = 0
        self.first: float | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        if self.first is None:
            self.first = time.perf_counter()
        size = memoryview(data).nbytes
        self.count += size
        if self._keep is not None:
            self._keep(data)
        return size


def receive(sink: Sink, download: Callable[[BinaryIO], object]) -> Done:
    """Let a client write a whole file to where it shall go.

    Parameters
    ----------
    sink : `~.client.Sink`
        Where that is.
    download : `~collections.abc.Callable`
        Writes the file into what it is given.

    Returns
    -------
    done : `~.client.Done`
        What came.
    """
    begun = time.perf_counter()
    if sink.kind == "file":
        with open(sink.path, "wb") as file:
            receiver = _Receiver(file.write)
            download(cast(BinaryIO, receiver))
    else:
        memory = io.BytesIO()
        receiver = _Receiver(memory.write if sink.kind == "memory" else None)
        download(cast(BinaryIO, receiver))
        memory.getvalue()  # whoever wants them in memory wants `bytes`
    return Done(receiver.count, None if receiver.first is None else receiver.first - begun)
