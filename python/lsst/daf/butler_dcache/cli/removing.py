"""``dcache-butler rm``, ``mv`` and ``mkdir``."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import DcacheError, ResourceIsDirectoryError, UnsupportedError
from ..places import Place, look_up
from ..single_copy import Copy, copy_one
from ..store.protocol import Store
from ..tree import are_one, remove_tree
from .file_list import lines_of, list_option
from .output import Failures, Rows, json_option, one_line, one_line_errors
from .progress import Meter

__all__ = ("mkdir", "mv", "rm")

_BATCH = 2000
_HINT = "--recursive removes it with what it holds."

Item = TypeVar("Item")


@click.command()
@click.argument("url", nargs=-1)
@click.option("-r", "--recursive", is_flag=True, help="Remove directories with what they hold.")
@click.option("-f", "--force", is_flag=True, help="What is not there is no error.")
@list_option
@click.option("--no-preserve-root", is_flag=True, help="Let --recursive remove all that a server has.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing of progress.")
@json_option
@one_line_errors
def rm(
    url: Sequence[str],
    recursive: bool,
    force: bool,
    lists: Sequence[Path],
    no_preserve_root: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Remove files, many at a time, and with --recursive directories.

    Names of a list are removed while it is read and without a look at each: empty directories among them go,
    too. Where the site has a frontend, it removes hundreds by one request.
    """
    if not url and not lists:
        raise click.UsageError("Name files, or a list of names with --from-file.")
    failures = Failures(FileNotFoundError) if force else Failures()
    with Rows(as_json) as rows, Meter("removed", quiet=quiet or as_json) as meter:
        remover = _Remover(rows, failures, meter, recursive=recursive, no_preserve_root=no_preserve_root)
        remover.look_and_remove(url)
        names = lines_of(lists)
        while batch := list(itertools.islice(names, _BATCH)):
            if recursive:
                remover.look_and_remove(batch)
            else:
                remover.remove(remover.places(batch))
    failures.end()


class _Remover:
    """Removes names, and says which are gone."""

    def __init__(
        self, rows: Rows, failures: Failures, meter: Meter, *, recursive: bool, no_preserve_root: bool
    ) -> None:
        self._rows = rows
        self._failures = failures
        self._meter = meter
        self._recursive = recursive
        self._no_preserve_root = no_preserve_root

    def places(self, texts: Iterable[str]) -> list[Place]:
        """Understand names; what must not be removed is an error."""
        places: list[Place] = []
        for text in texts:
            with self._failures:
                place = Place.parse(text)
                if place.is_root and not self._no_preserve_root:
                    raise UnsupportedError(
                        "it is all that this server, bucket or machine has",
                        operation="remove",
                        url=place.url,
                        hint="--no-preserve-root removes what it holds.",
                    )
                places.append(place)
        return places

    def look_and_remove(self, texts: Iterable[str]) -> None:
        """Remove files, and directories only with what they hold and if that was asked for."""
        places = self.places(texts)
        files = []
        for place, info in zip(places, look_up(places), strict=True):
            if isinstance(info, Exception):
                self._say(place.url, info)
            elif info.is_file or (place.is_local and os.path.islink(place.url.rstrip("/"))):
                files.append(place)
            elif self._recursive:
                self._remove_tree(place)
            else:
                self._say(
                    place.url,
                    ResourceIsDirectoryError("a directory", operation="remove", url=place.url, hint=_HINT),
                )
        self.remove(files)

    def remove(self, places: Iterable[Place]) -> None:
        """Remove files and empty directories, without looking before."""
        by_store: defaultdict[Store, list[str]] = defaultdict(list)
        for place in places:
            if place.store is None:
                self._say(place.url, _error_of(_remove_local, place.url))
            else:
                by_store[place.store].append(place.url)
        for store, urls in by_store.items():
            for name, error in store.remove_many(urls).items():
                self._say(name, error)

    def _remove_tree(self, place: Place) -> None:
        if place.store is None:
            self._say(place.url, _error_of(shutil.rmtree, place.url))
            return
        errors: list[Exception] = []

        def stays(error: DcacheError) -> None:
            errors.append(error)
            del errors[1:]
            self._say(error.url, error)

        remove_tree(
            place.store,
            place.directory.url,
            on_removed=lambda name: self._meter.advance(name != place.directory.url),
            on_error=stays,
        )
        if not errors:
            self._say(place.url, None)

    def _say(self, name: str, error: Exception | None) -> None:
        item: dict[str, Any] = {"name": name, "removed": error is None}
        if error is None:
            self._meter.advance(1)
        else:
            self._meter.wipe()
            self._failures.add(error)
            item["error"] = one_line(error)
        if self._rows.as_json:
            self._rows.add(item, "")


def _error_of(remove: Callable[[Item], object], item: Item) -> Exception | None:
    try:
        remove(item)
    except (DcacheError, OSError) as error:
        return error
    return None


def _remove_local(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    else:
        os.unlink(path)


@click.command()
@click.argument("url", nargs=-1, required=True)
@one_line_errors
def mkdir(url: Sequence[str]) -> None:
    """Make directories and their parents; those that exist are fine."""
    failures = Failures()
    for text in url:
        with failures:
            place = Place.parse(text)
            if place.store is None:
                os.makedirs(place.url, exist_ok=True)
            else:
                place.store.make_directory(place.directory.url)
    failures.end()


@click.command()
@click.argument("source", nargs=-1, required=True)
@click.argument("target")
@click.option("-n", "--no-clobber", is_flag=True, help="An existing target is an error.")
@one_line_errors
def mv(source: Sequence[str], target: str, no_clobber: bool) -> None:
    """Rename files, or copy and remove them where source and target are on different servers."""
    failures = Failures()
    destination = Place.parse(target)
    into = len(source) > 1 or destination.url.endswith("/") or destination.is_directory()
    for text in source:
        with failures:
            place = Place.parse(text)
            _move(place, destination.below(place.name) if into else destination, overwrite=not no_clobber)
    failures.end()


def _move(source: Place, target: Place, *, overwrite: bool) -> None:
    if source.store is not None and source.store is target.store:
        source.store.move(source.url, target.url, overwrite=overwrite)
        return
    if source.store is None and target.store is None:
        if not overwrite and os.path.lexists(target.url):
            raise FileExistsError(errno.EEXIST, "the name is taken", target.url)
        os.makedirs(os.path.dirname(target.url.rstrip("/")), exist_ok=True)
        shutil.move(source.url.rstrip("/"), target.url)
        return
    if source.store and target.store and are_one(source.store, source.url, target.store, target.url):
        return  # two names of one server: there is nothing to copy, and nothing may be removed
    copy_one(Copy(source, target), overwrite=overwrite)
    if source.store is None:
        os.unlink(source.url)
    else:
        source.store.remove(source.url)
