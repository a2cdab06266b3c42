"""The files that a command is about, however they are named."""

from __future__ import annotations

import hashlib
import importlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click

from ..errors import ConfigurationError
from ..model import ON_DISK
from ..places import Place
from ..store.protocol import Store
from .output import Failures

__all__ = ("FileList", "dataset_urls", "graph_urls", "lines_of", "list_option")

_PACKAGE = __name__.rpartition(".cli.")[0]

list_option = click.option(
    "--from-file",
    "lists",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Names, too, from the lines of this file; - for the standard input.",
)


class FileList:
    """URLs of one server, in a temporary file: there may be millions, and they are read more than once."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+b")  # noqa: SIM115 (it lives as long as this)
        self._hash = hashlib.sha256()
        self._store: Store | None = None
        self.endpoint = ""
        self.on_disk = 0
        """Files of directories that were left out since they are on disk."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        for line in self._file:
            yield line.decode().rstrip("\n")

    def __enter__(self) -> FileList:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def digest(self) -> str:
        """What tells it from another list."""
        return self._hash.hexdigest()

    @property
    def store(self) -> Store:
        """The server of all files."""
        if self._store is None:
            raise ConfigurationError("there are no files")
        return self._store

    def add(self, place: Place) -> None:
        """Add a file.

        Parameters
        ----------
        place : `~lsst.daf.butler_dcache.places.Place`
            Where it is.

        Raises
        ------
        ConfigurationError
            Raised if it is on this machine, or at another server than the first one.
        """
        if place.store is None:
            raise ConfigurationError(f"{place.url}: a file of this machine is on no tape")
        if self._store is None:
            self._store = place.store
            self.endpoint = _endpoint(place.url)
        elif place.store is not self._store or _endpoint(place.url) != self.endpoint:
            raise ConfigurationError(
                f"the first file is at {self.endpoint}",
                url=place.url,
                hint="One command, one server, so that one journal and one credential serve it.",
            )
        line = place.url.encode() + b"\n"
        self._hash.update(line)
        self._file.write(line)
        self._count += 1

    def gather(
        self, texts: Iterable[str], failures: Failures, *, recursive: bool = False, with_online: bool = False
    ) -> None:
        """Add what was typed.

        Parameters
        ----------
        texts : `~collections.abc.Iterable` [ `str` ]
            URLs.
        failures : `Failures`
            Is told of those that are none.
        recursive : `bool`, optional
            Whether a directory stands for the files below it.
        with_online : `bool`, optional
            Whether those of them that are on disk are wanted, too.
        """
        for text in texts:
            with failures:
                place = Place.parse(text)
                if not recursive or place.is_local or not place.is_directory():
                    self.add(place)
                    continue
                for _, _, files in place.walk(failures.add):
                    for file in files:
                        if file.locality in ON_DISK and not with_online:
                            self.on_disk += 1
                        else:
                            self.add(place.of(file))


def lines_of(paths: Iterable[Path]) -> Iterator[str]:
    """Yield the lines of files that are not empty; ``-`` is the standard input.

    Parameters
    ----------
    paths : `~collections.abc.Iterable` [ `~pathlib.Path` ]
        The files.
    """
    for path in paths:
        with click.open_file(str(path), encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                if name := line.rstrip("\r\n"):
                    yield name


def graph_urls(graph: str, repository: str) -> Iterator[str]:
    """Yield the files of a quantum graph's inputs; see `..graph_files`.

    Parameters
    ----------
    graph, repository : `str`
        Where they are.
    """
    return _stack("graph_files", "graph_files", "demo")(graph, repository)


def dataset_urls(
    repository: str,
    dataset_types: Sequence[str],
    *,
    collections: Sequence[str],
    where: str,
    find_first: bool,
) -> Iterator[str]:
    """Yield the files of datasets; see `..dataset_files`.

    Parameters
    ----------
    repository : `str`
        Where it is.
    dataset_types, collections : `~collections.abc.Sequence` [ `str` ]
        What to look for, and where.
    where : `str`
        Further condition.
    find_first : `bool`
        Whether the first collection that has one counts.
    """
    query = _stack("dataset_files", "query_files", "butler")
    return query(repository, dataset_types, collections=collections, where=where, find_first=find_first)


def _stack(module: str, function: str, extra: str) -> Callable[..., Iterator[str]]:
    """Return a function of a module that needs the LSST stack, which not everybody has."""
    try:
        found: Callable[..., Iterator[str]] = getattr(
            importlib.import_module(f"{_PACKAGE}.{module}"), function
        )
        return found
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.startswith(_PACKAGE):
            raise
        raise ConfigurationError(
            f"this needs the package {missing}, which is not installed",
            hint=f"Install it with: pip install 'lsst-daf-butler-dcache[{extra}]'.",
        ) from error


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
