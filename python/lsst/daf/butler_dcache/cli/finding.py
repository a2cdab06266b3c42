"""``dcache-butler find`` and ``du``: what is in a tree, by one listing of each directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from fnmatch import fnmatchcase

import click

from ..model import FileInfo, Locality
from ..places import Place
from .output import Failures, Rows, facts, human_option, json_option, one_line_errors, printable
from .quantities import human as human_size
from .quantities import size_range, time_of_change

__all__ = ("du", "find")

_Test = Callable[[Place, FileInfo], bool]


@click.command()
@click.argument("url", nargs=-1, required=True)
@click.option("--name", metavar="GLOB", help="Last component, decoded, fits this pattern of *, ? and [].")
@click.option("--type", "kind", type=click.Choice(["f", "d"]), help="Files or directories.")
@click.option("--size", type=size_range, metavar="[+|-]N", help="More, less or exactly so much: +100M, -4k.")
@click.option(
    "--newer-than", type=time_of_change, metavar="TIME", help="Changed within 7d, or since 2026-11-24."
)
@click.option(
    "--older-than", type=time_of_change, metavar="TIME", help="Not changed within 7d, or since a date."
)
@click.option(
    "--locality",
    type=click.Choice([locality.value for locality in Locality], case_sensitive=False),
    help="Where the server says that the bytes are.",
)
@click.option("--max-depth", type=click.IntRange(0), help="Levels below what was named; 0 is that alone.")
@click.option("--print0", is_flag=True, help="A zero byte behind each name, as xargs -0 wants it.")
@json_option
@one_line_errors
def find(
    url: Sequence[str],
    name: str | None,
    kind: str | None,
    size: Callable[[int], bool] | None,
    newer_than: datetime | None,
    older_than: datetime | None,
    locality: str | None,
    max_depth: int | None,
    print0: bool,
    as_json: bool,
) -> None:
    """Print what in directory trees fits all conditions, as whole URLs.

    One listing of each directory answers for all it holds: size, times, checksums and locality cost nothing
    more. A size or time that is not known fits no condition.
    """
    tests: list[_Test] = []
    if name is not None:
        tests.append(lambda place, _: fnmatchcase(place.name, name))
    if kind is not None:
        tests.append(lambda _, info: info.is_directory == (kind == "d"))
    if size is not None:
        tests.append(lambda _, info: info.is_file and info.size is not None and size(info.size))
    if newer_than is not None:
        tests.append(lambda _, info: info.modified is not None and info.modified > newer_than)
    if older_than is not None:
        tests.append(lambda _, info: info.modified is not None and info.modified < older_than)
    if locality is not None:
        tests.append(lambda _, info: info.locality is not None and info.locality.value == locality)
    failures = Failures()
    with Rows(as_json) as rows:
        for text in url:
            with failures:
                place = Place.parse(text)
                for info in _below(place, max_depth, failures.add):
                    if all(test(place.of(info), info) for test in tests):
                        found = info.url.rstrip("/") or "/"
                        if print0 and not as_json:
                            rows.write(found + "\0")
                        else:
                            rows.add(facts(found, info), printable(found))
    failures.end()


def _below(
    place: Place, max_depth: int | None, on_error: Callable[[Exception], object]
) -> Iterator[FileInfo]:
    """Yield a file or directory, and what is in it."""
    top = place.stat()
    yield top
    if top.is_file or max_depth == 0:
        return
    for directory, directories, files in place.walk(on_error):
        yield from sorted([*directories, *files], key=lambda info: info.name)
        if max_depth is not None and _depth(place, directory) + 1 >= max_depth:
            directories.clear()


def _depth(place: Place, directory: str) -> int:
    """Return how many levels a directory is below a place."""
    return Place(directory, place.store).path.rstrip("/").count("/") - place.path.rstrip("/").count("/")


@dataclasses.dataclass
class _Sum:
    """What is in a directory, and in those below it."""

    url: str
    depth: int
    bytes: int = 0
    files: int = 0
    unknown: int = 0

    def add(self, other: _Sum) -> None:
        """Take a directory below into account."""
        self.bytes += other.bytes
        self.files += other.files
        self.unknown += other.unknown


@click.command(context_settings={"help_option_names": ["--help"]})
@click.argument("url", nargs=-1, required=True)
@click.option("-s", "--summarize", is_flag=True, help="Only what was named.")
@click.option("--max-depth", type=click.IntRange(0), help="Print directories so many levels below.")
@human_option
@json_option
@one_line_errors
def du(url: Sequence[str], summarize: bool, max_depth: int | None, human: bool, as_json: bool) -> None:
    """Print bytes and number of files of each directory, with all below it, by listings alone.

    The bytes are the sizes of the files, not what their copies take on pools or tapes. Files whose upload
    has not ended count as files, and their bytes are not known.
    """
    if summarize:
        max_depth = 0
    failures = Failures()
    with Rows(as_json) as rows:
        for text in url:
            with failures:
                for total in _sums(Place.parse(text), failures.add):
                    if max_depth is None or total.depth <= max_depth:
                        shown = human_size(total.bytes) if human else str(total.bytes)
                        item = {"name": total.url, "bytes": total.bytes, "files": total.files}
                        if total.unknown:
                            item["files_without_size"] = total.unknown
                        rows.add(
                            item, f"{shown:>{7 if human else 15}} {total.files:>9}  {printable(total.url)}"
                        )
    failures.end()


def _sums(place: Place, on_error: Callable[[Exception], object]) -> Iterator[_Sum]:
    """Yield the sum of each directory after those of the directories in it."""
    top = place.stat()
    if top.is_file:
        yield _Sum(place.url, 0, top.size or 0, 1, top.size is None)
        return
    # Those that are not complete, each in the one before.
    open_sums: list[_Sum] = []
    for directory, _, files in place.walk(on_error):
        depth = _depth(place, directory)
        while open_sums and open_sums[-1].depth >= depth:
            yield _close(open_sums)
        open_sums.append(_Sum(directory.rstrip("/") or "/", depth))
        for info in files:
            open_sums[-1].add(_Sum("", 0, info.size or 0, 1, info.size is None))
    while open_sums:
        yield _close(open_sums)


def _close(open_sums: list[_Sum]) -> _Sum:
    total = open_sums.pop()
    if open_sums:
        open_sums[-1].add(total)
    return total
