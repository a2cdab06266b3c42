"""The embedded dCache as a target: a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .processes import cpu_seconds, default_folder
from .target import Counts
from .work import Access, contents

__all__ = ("Embedded",)

_PACKAGE = __name__.rpartition(".")[0]


class Embedded:
    """The embedded dCache; it is asked over its standard input.

    Parameters
    ----------
    name : `str`
        A key of `~.servers.TARGETS`.
    run : `~pathlib.Path`
        Folder of this run.
    tls : `bool`
        Whether everything is encrypted.
    processes : `list` [`subprocess.Popen`]
        Takes the processes.
    """

    def __init__(self, name: str, run: Path, tls: bool, processes: list[subprocess.Popen[Any]]) -> None:
        self.name = name
        command = [
            sys.executable,
            "-m",
            f"{_PACKAGE}.embedded_server",
            "tls" if tls else "plain",
            "1" if name.startswith("rehearsal") else "0",
            str(run),
            "11.1" if name == "unlimited" else "11.2.4",
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        processes.append(self._process)
        hello = self._read()
        self.version = str(hello["version"])
        self.access = Access(**hello["access"])
        self._placed: dict[str, str] = {}

    def _ask(self, **question: object) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the embedded dCache ended")
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
                file.write(contents(size) if data is None else data)
                file.flush()
                self._ask(do="place", name=name, file=file.name)
            self._placed[name] = name
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
        self._placed = {name: name for name in self._placed if not name.startswith(prefix)}

    def counts(self) -> Counts | None:
        """Return what the transcript holds so far."""
        return Counts(**self._ask(do="counts"))

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of the process so far."""
        return cpu_seconds({self._process.pid})
