"""The files of a report, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .document import Document
from .html import page
from .spreadsheet import csv_text
from .summary import markdown

__all__ = ("ReportError", "write_reports")


class ReportError(Exception):
    """A report could not be written; the text says why, and what is there instead."""


def write_reports(document: Mapping[str, Any], out: Path) -> None:
    """Write ``results.json``, ``results.csv``, ``summary.md`` and ``report.html``.

    Parameters
    ----------
    document : `~collections.abc.Mapping`
        Schema 2; see `~.results.document`.
    out : `~pathlib.Path`
        Directory, which is made if it is not there; other files in it stay as they are.

    Raises
    ------
    ReportError
        If one of them could not be written, as when the disk is full.

    Notes
    -----
    All are written under other names first and then take the place of earlier ones: a reader never sees a
    part of one, and a full disk leaves the earlier report as it was.
    """
    view = Document.of(document)
    texts = {
        "results.json": json.dumps(document, indent=1) + "\n",
        "results.csv": csv_text(view),
        "summary.md": markdown(view),
        "report.html": page(view),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Beside their places, so that a rename suffices, and gone again with whatever goes wrong.
        with tempfile.TemporaryDirectory(prefix=".report-", dir=out) as folder:
            for name, text in texts.items():
                _write(Path(folder) / name, text)
            for name in texts:
                (Path(folder) / name).replace(out / name)
    except OSError as error:
        earlier = out / "results.json"
        left = "there is none of earlier"
        with contextlib.suppress(OSError):
            if earlier.exists():
                left = "the earlier one is as it was"
        raise ReportError(
            f"the report cannot be written to {out}: {error.strerror or error}; {left}"
        ) from error


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
