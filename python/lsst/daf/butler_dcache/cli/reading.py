"""``dcache-butler cat`` and ``checksum``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import click

from ..errors import IntegrityError, ResourceIsDirectoryError, UnsupportedError
from ..model import FileInfo
from ..places import Place
from ..single_copy import Digest
from .listing import looked_up, named
from .output import Failures, Rows, json_option, one_line_errors, printable

__all__ = ("cat", "checksum")

_PIECE_BYTES = 1024 * 1024
_ALGORITHMS = ("adler32", "md5", "sha-1", "sha-256", "sha-512")
_BY_LENGTH = {8: "adler32", 32: "md5", 40: "sha-1", 64: "sha-256", 128: "sha-512"}
_LINE = re.compile(r"(?:([A-Za-z0-9-]+):)?([0-9A-Fa-f]+) [ *](.+)")


@click.command()
@click.argument("url", nargs=-1, required=True)
@one_line_errors
def cat(url: Sequence[str]) -> None:
    """Write files to the standard output; the exit status is 1 if one fails its checksum."""
    output = sys.stdout.buffer
    failures = Failures()
    for text in url:
        with failures:
            _pour(Place.parse(text), output)
    output.flush()
    failures.end()


def _pour(place: Place, output: BinaryIO) -> None:
    """Write a whole file, verified where its server tells a checksum."""
    if place.store is not None:
        place.store.download(place.url, output)
        return
    with open(place.url, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            output.write(piece)


@click.command()
@click.argument("url", nargs=-1)
@click.option(
    "-a",
    "--algorithm",
    "algorithms",
    multiple=True,
    type=click.Choice(_ALGORITHMS),
    help="Only this one; may be repeated. Else all that the server has, and adler32 of local files.",
)
@click.option("--verify", is_flag=True, help="Read the bytes and compare: the server's word is not taken.")
@click.option(
    "-c",
    "--check",
    "lists",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Compare with the lines of this file, as this command or sha256sum prints them.",
)
@json_option
@one_line_errors
def checksum(
    url: Sequence[str], algorithms: Sequence[str], verify: bool, lists: Sequence[Path], as_json: bool
) -> None:
    """Print checksums: those that the server keeps, without reading a byte, and those of local files."""
    if not url and not lists:
        raise click.UsageError("Name files, or a list of checksums with --check.")
    failures = Failures()
    with Rows(as_json) as rows:
        for place, info in named(url, failures):
            with failures:
                found = _checksums(place, info, algorithms, verify)
                lines = [f"{name}:{value}  {printable(place.url)}" for name, value in found.items()]
                rows.add({"name": place.url, "checksums": found}, "\n".join(lines))
        for path in lists:
            listed = ((line[0], line) for line in _listed(path, failures))
            for (text, algorithm, expected), place, info in looked_up(listed, failures):
                with failures:
                    found = _checksums(place, info, [algorithm], verify)
                    good = found[algorithm] == expected
                    if not good:
                        failures.count += 1
                    item = {"name": text, "algorithm": algorithm, "expected": expected, "ok": good}
                    text = f"{printable(text)}: {'OK' if good else f'FAILED, it is {found[algorithm]}'}"
                    rows.add(item | {"found": found[algorithm]}, text)
    failures.end()


def _checksums(place: Place, info: FileInfo, algorithms: Sequence[str], verify: bool) -> dict[str, str]:
    """Return the checksums of a file.

    Raises
    ------
    IntegrityError
        If what was read has other ones than the server says.
    UnsupportedError
        If the server does not know one of these algorithms, and nothing is to be read.
    """
    if info.is_directory:
        raise ResourceIsDirectoryError("a directory has no checksum", operation="checksum", url=place.url)
    told = place.checksums(info, algorithms[0] if algorithms else "adler32")
    known = dict(told)
    if place.is_local or verify:
        digest = Digest([*algorithms, *told] or ["adler32"])
        _pour(place, cast(BinaryIO, digest))
        known = digest.values()
        for name, value in known.items():
            if told.get(name, value) != value:
                raise IntegrityError(
                    f"the {name} of its bytes is {value}, the server says {told[name]}",
                    operation="checksum",
                    url=place.url,
                )
    wanted = algorithms or known
    if missing := [name for name in wanted if name not in known]:
        raise UnsupportedError(
            f"{place.url}: its {' and '.join(missing)} is not known",
            hint="" if place.is_local or verify else "--verify reads the file and computes it.",
        )
    if not known:
        raise UnsupportedError(
            "the server has no checksum of it",
            operation="checksum",
            url=place.url,
            hint="--verify reads the file and computes one.",
        )
    return {name: known[name] for name in wanted}


def _listed(path: Path, failures: Failures) -> Iterator[tuple[str, str, str]]:
    """Yield name, algorithm and checksum of each line."""
    with click.open_file(str(path), encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            found = _LINE.fullmatch(line.rstrip("\r\n"))
            algorithm = None if found is None else found[1] or _BY_LENGTH.get(len(found[2]))
            if found is None or algorithm is None:
                failures.add(ValueError(f"{path}, line {number}: not a checksum and a name"))
                continue
            yield found[3], algorithm, found[2].lower()
