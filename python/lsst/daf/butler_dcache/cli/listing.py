"""``dcache-butler ls`` and ``stat``."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import click

from ..errors import ResourceIsFileError
from ..model import FileInfo
from ..places import Place, look_up
from .output import Failures, Rows, facts, human_option, json_option, one_line_errors, printable
from .quantities import human, shown_time

__all__ = ("looked_up", "ls", "named", "stat")

_MOST_SORTED = 10_000
"""Entries of a directory that are held to be sorted; a larger one is printed as it comes."""

_MOST_ASKED = 1000

Item = TypeVar("Item")


@click.command(context_settings={"help_option_names": ["--help"]})
@click.argument("url", nargs=-1, required=True)
@click.option("-l", "--long", is_flag=True, help="Size, time of the last change and, on dCache, locality.")
@click.option("-R", "--recursive", is_flag=True, help="Directories below, too.")
@click.option("-d", "--directory", is_flag=True, help="Directories themselves, not what they hold.")
@click.option("-U", "--unsorted", is_flag=True, help="In the order in which the server gives them, at once.")
@human_option
@json_option
@one_line_errors
def ls(
    url: Sequence[str],
    long: bool,
    recursive: bool,
    directory: bool,
    unsorted: bool,
    human: bool,
    as_json: bool,
) -> None:
    """List directories.

    Names are printed as in URLs, so that they can be typed again. A directory of more than 10,000 entries is
    not sorted but printed as it comes.
    """
    failures = Failures()
    with Rows(as_json) as rows:
        lister = _Lister(rows, failures, long=long, human=human, unsorted=unsorted)
        has_heads = recursive or len(url) > 1
        for text in url:
            with failures:
                place = Place.parse(text)
                if directory:
                    lister.print(place, [place.stat()], whole=True)
                elif recursive:
                    lister.tree(place)
                else:
                    lister.contents(place, has_heads)
    failures.end()


class _Lister:
    """How entries are printed."""

    def __init__(self, rows: Rows, failures: Failures, *, long: bool, human: bool, unsorted: bool) -> None:
        self._rows = rows
        self._failures = failures
        self._long = long
        self._human = human
        self._unsorted = unsorted
        self._has_begun = False

    def contents(self, place: Place, has_head: bool) -> None:
        """Print what a directory holds, or a file."""
        entries = place.entries()
        try:
            first = list(itertools.islice(entries, 1))
        except (ResourceIsFileError, NotADirectoryError):
            self.print(place, [place.stat()], whole=True)
            return
        if has_head:
            self._head(place)
        self.print(place, itertools.chain(first, entries))

    def tree(self, place: Place) -> None:
        """Print what a directory and all below it hold."""
        top = place.stat()
        if top.is_file:
            self.print(place, [top], whole=True)
            return
        for directory, directories, files in place.walk(self._failures.add):
            self._head(Place(directory, place.store))
            self.print(place, sorted([*directories, *files], key=lambda info: info.name))

    def _head(self, place: Place) -> None:
        if not self._rows.as_json:
            blank = "\n" if self._has_begun else ""
            self._rows.write(f"{blank}{printable(place.url.rstrip('/') or '/')}:\n")
        self._has_begun = True

    def print(self, place: Place, entries: Iterable[FileInfo], whole: bool = False) -> None:
        """Print entries, by their last component or whole."""
        self._has_begun = True
        for info in entries if self._unsorted else _sorted(entries):
            name = info.url.rstrip("/") or "/"
            shown = printable(name if whole else info.name) + ("/" if info.is_directory else "")
            self._rows.add(facts(name, info), f"{self._columns(place, info)}{shown}" if self._long else shown)

    def _columns(self, place: Place, info: FileInfo) -> str:
        size = "-" if info.is_directory else "?" if info.size is None else str(info.size)
        if self._human and info.size is not None:
            size = human(info.size)
        locality = ""
        if place.has_locality:
            locality = f"{'-' if info.locality is None else info.locality.value:<19} "
        return f"{size:>{6 if self._human else 14}} {shown_time(info.modified) or '-':<20} {locality}"


def _sorted(entries: Iterable[FileInfo]) -> Iterator[FileInfo]:
    entries = iter(entries)
    held = list(itertools.islice(entries, _MOST_SORTED + 1))
    if len(held) <= _MOST_SORTED:
        held.sort(key=lambda info: info.name)
    return itertools.chain(held, entries)


@click.command()
@click.argument("url", nargs=-1, required=True)
@json_option
@one_line_errors
def stat(url: Sequence[str], as_json: bool) -> None:
    """Say all that is known of files and directories, of many with few requests."""
    failures = Failures()
    with Rows(as_json) as rows:
        for place, info in named(url, failures):
            if info.is_file and not info.checksums and place.url.startswith("s3:"):
                # A listing of S3 tells none.
                info = dataclasses.replace(info, checksums=place.checksums(info, "md5"))
            known = facts(place.url.rstrip("/") or "/", info)
            lines = []
            for key, value in known.items():
                if isinstance(value, dict):
                    value = " ".join(f"{algorithm}:{digits}" for algorithm, digits in value.items())
                if value is not None and not (key == "size" and info.is_directory):
                    lines.append(f"{key + ':':<10} {printable(str(value))}")
            rows.add(known, "\n".join(lines))
    failures.end()


def named(texts: Iterable[str], failures: Failures) -> Iterator[tuple[Place, FileInfo]]:
    """Yield what is known of each name that is there; those of one server take few requests together."""
    for _, place, info in looked_up(((text, text) for text in texts), failures):
        yield place, info


def looked_up(
    items: Iterable[tuple[str, Item]], failures: Failures
) -> Iterator[tuple[Item, Place, FileInfo]]:
    """As `named`, and yield what came with each name."""
    items = iter(items)
    while batch := list(itertools.islice(items, _MOST_ASKED)):
        places: list[tuple[Item, Place]] = []
        for text, item in batch:
            with failures:
                places.append((item, Place.parse(text)))
        answers = look_up([place for _, place in places])
        for (item, place), answer in zip(places, answers, strict=True):
            if isinstance(answer, Exception):
                failures.add(answer)
            else:
                yield item, place, answer
