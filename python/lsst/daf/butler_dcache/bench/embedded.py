"""The embedded dCache as a target: a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from .processes import default_folder
from .stand_in import Ground, StandIn
from .target import Counts, TargetGoneError
from .work import Access, pieces

__all__ = ("Embedded",)

_PIECE_BYTES = 1024 * 1024
_PACKAGE = __name__.rpartition(".")[0]


class Embedded(StandIn):
    """The embedded dCache; it is asked over its standard input.

    Parameters
    ----------
    ground : `~.stand_in.Ground`
        Where.
    """

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        version = "11.1" if ground.name == "unlimited" else "11.2.4"
        self.has_limiter = ground.limiter and version != "11.1"
        settings = {
            "tls": ground.tls,
            "latency": 1.0 if ground.name.startswith("rehearsal") else 0.0,
            "root": str(ground.run / "dcache"),
            "version": version,
            "limiter": ground.limiter,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{_PACKAGE}.embedded_server", json.dumps(settings)],
            # It is ended by a signal, and its secrets are to go with the folder.
            env={**os.environ, "TMPDIR": str(ground.run)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        ground.processes.append(self._process)
        hello = self._read()
        self.version = str(hello["version"])
        self.access = Access(**hello["access"])
        self._placed: set[str] = set()

    def _ask(self, **question: object) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise TargetGoneError(f"{self.name}: the embedded dCache is gone") from error
        return self._read()

    def _read(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise TargetGoneError(f"{self.name}: the embedded dCache ended")
        answer: Mapping[str, Any] = json.loads(line)
        return answer

    def new_name(self, stem: str, size: int) -> str:
        """Return a name for an upload.

        Parameters
        ----------
        stem : `str`
            Its beginning.
        size : `int`
            Not used.
        """
        return f"{stem}.dat"

    def provide(self, stem: str, size: int, data: bytes | None = None) -> str:
        """Place a file, unless it is there, and return its name.

        Parameters
        ----------
        stem : `str`
            Beginning of the name.
        size : `int`
            Bytes of `~.work.contents`.
        data : `bytes`, optional
            Or these.
        """
        name = self.new_name(stem, size)
        if name not in self._placed:
            with tempfile.NamedTemporaryFile(dir=default_folder()) as file:
                for piece in pieces(size, _PIECE_BYTES) if data is None else (data,):
                    file.write(piece)
                file.flush()
                self._ask(do="place", name=name, file=file.name)
            self._placed.add(name)
        return name

    def size(self, name: str) -> int | None:
        """Return the size of a file, `None` if there is none.

        Parameters
        ----------
        name : `str`
            Its name.
        """
        size: int | None = self._ask(do="size", name=name)["size"]
        return size

    def clear(self, prefix: str) -> None:
        """Remove what begins so.

        Parameters
        ----------
        prefix : `str`
            Beginning of the names.
        """
        self._ask(do="clear", prefix=prefix)
        self._placed = {name for name in self._placed if not name.startswith(prefix)}

    def counts(self) -> Counts | None:
        """Return what the transcript holds so far."""
        return Counts(**self._ask(do="counts"))
