"""``dcache-butler ls``, ``stat``, ``cat``, ``cp``, ``rm``, ``mkdir``, ``mv`` and ``checksum``.

Arguments are ``davs://``, ``dav://``, ``s3://`` and ``file://`` URLs and paths of this machine, in any
combination.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import click
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from ..errors import DcacheError
from ..filesystem import DcacheFileSystem
from ..redaction import redact_text, redact_url

__all__ = ("cat", "checksum", "cp", "ls", "mkdir", "mv", "rm", "stat")

_FILES_IN_FLIGHT = 4
_PIECE_BYTES = 1024 * 1024


class Place:
    """An argument: a file system and a path in it.

    Parameters
    ----------
    text : `str`
        What was typed.
    """

    def __init__(self, text: str) -> None:
        parts = urlsplit(text)
        self.fs: AbstractFileSystem
        # A link that somebody shared has its credential with it.
        is_shared = parts.scheme == "https" and "authz" in dict(parse_qsl(parts.query))
        self.is_remote = parts.scheme in ("davs", "dav", "s3") or is_shared
        if self.is_remote:
            self.fs, self.path = DcacheFileSystem(), text
        elif parts.scheme == "file" or "://" not in text:
            path = unquote(parts.path) if parts.scheme == "file" else text
            self.fs, self.path = (
                LocalFileSystem(),
                os.path.abspath(path) + ("/" if path.endswith("/") else ""),
            )
        else:
            shown = redact_url(text)
            raise ValueError(f"{shown}: expected a davs://, dav:// or s3:// URL, or a path of this machine")

    @property
    def name(self) -> str:
        """Last component of the path, as people write it."""
        path = self.path.partition("?")[0] if self.is_remote else self.path
        name = path.rstrip("/").rpartition("/")[2]
        return unquote(name) if self.is_remote else name

    def below(self, relative: str) -> Place:
        """Return a place below this one.

        Parameters
        ----------
        relative : `str`
            Path, as people write it.
        """
        place = object.__new__(Place)
        place.fs, place.is_remote = self.fs, self.is_remote
        if self.is_remote:
            path, mark, query = self.path.partition("?")
            place.path = f"{path.rstrip('/')}/{quote(relative)}{mark}{query}"
        else:
            place.path = f"{self.path.rstrip('/')}/{relative}"
        return place

    def info(self) -> dict[str, Any]:
        """Return what is known of this place; `FileNotFoundError` if there is nothing."""
        info: dict[str, Any] = self.fs.info(self.path)
        return info

    def is_directory(self) -> bool:
        """Whether there is a directory."""
        return bool(self.fs.isdir(self.path))

    def files(self) -> Iterator[str]:
        """Yield the paths of all files below, relative to this place and as people write them."""
        root = self.fs._strip_protocol(self.path)
        for path in self.fs.find(root):
            relative = path[len(root) :].lstrip("/")
            yield unquote(relative) if self.is_remote else relative


def one_line_errors(function: Callable[..., None]) -> Callable[..., None]:
    """Make errors of files and servers one line and exit status 1.

    Parameters
    ----------
    function : `~collections.abc.Callable`
        Body of a command.

    Returns
    -------
    decorated : `~collections.abc.Callable`
        The same without a traceback.
    """

    @functools.wraps(function)
    def decorated(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except BrokenPipeError:
            # Whoever read the output, `head` perhaps, has enough: nothing may be flushed into it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (DcacheError, OSError, ValueError) as exc:
            raise click.ClickException(" ".join(redact_text(str(exc)).split()) or type(exc).__name__) from exc

    return decorated


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("url", nargs=-1, required=True)
@click.option("-l", "--long", is_flag=True, help="Size and time of the last change, too.")
@_json_option
@one_line_errors
def ls(url: Sequence[str], long: bool, as_json: bool) -> None:
    """List directories."""
    entries = []
    for text in url:
        place = Place(text)
        entries += place.fs.ls(place.path, detail=True)
    if as_json:
        _print_json([_plain(entry) for entry in entries])
        return
    for entry in entries:
        name = _shown(entry["name"]).rpartition("/")[2] + ("/" if entry["type"] == "directory" else "")
        if long:
            size = "-" if entry["type"] == "directory" else "?" if entry["size"] is None else entry["size"]
            click.echo(f"{size:>14} {_time(entry) or '-':<25} {name}")
        else:
            click.echo(name)


@click.command()
@click.argument("url", nargs=-1, required=True)
@_json_option
@one_line_errors
def stat(url: Sequence[str], as_json: bool) -> None:
    """Say what is known of files and directories."""
    infos = [_plain(Place(text).info()) for text in url]
    if as_json:
        _print_json(infos)
        return
    for info in infos:
        for key, value in info.items():
            if isinstance(value, dict):
                value = " ".join(f"{name}:{text}" for name, text in value.items())
            if value not in (None, ""):
                click.echo(f"{key + ':':<10} {value}")


@click.command()
@click.argument("url", nargs=-1, required=True)
@one_line_errors
def cat(url: Sequence[str]) -> None:
    """Write files to the standard output; the exit status is 1 if one fails its checksum."""
    output = sys.stdout.buffer
    for text in url:
        place = Place(text)
        place.fs.get_file(place.path, outfile=output)
    output.flush()


@click.command()
@click.argument("source", nargs=-1, required=True)
@click.argument("target")
@click.option("-r", "--recursive", is_flag=True, help="Copy directories with what they hold.")
@click.option("-n", "--no-clobber", is_flag=True, help="An existing target is an error.")
@_json_option
@one_line_errors
def cp(source: Sequence[str], target: str, recursive: bool, no_clobber: bool, as_json: bool) -> None:
    """Copy files, every one verified by its checksum."""
    destination = Place(target)
    into = len(source) > 1 or target.endswith("/") or destination.is_directory()
    work: list[tuple[Place, Place]] = []
    for text in source:
        place = Place(text)
        goal = destination.below(place.name) if into else destination
        if recursive and place.is_directory():
            work += [(place.below(name), goal.below(name)) for name in place.files()]
        else:
            work.append((place, goal))
    _each(lambda pair: _copy(*pair, overwrite=not no_clobber), work)
    if as_json:
        _print_json([{"source": one.path, "target": other.path} for one, other in work])


@click.command()
@click.argument("url", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Remove directories with what they hold.")
@one_line_errors
def rm(url: Sequence[str], recursive: bool) -> None:
    """Remove files."""
    for text in url:
        place = Place(text)
        if recursive:
            place.fs.rm(place.path, recursive=True)
        elif place.is_directory():
            raise IsADirectoryError(f"{text}: is a directory; --recursive removes it with what it holds")
        else:
            place.fs.rm_file(place.path)


@click.command()
@click.argument("url", nargs=-1, required=True)
@one_line_errors
def mkdir(url: Sequence[str]) -> None:
    """Make directories and their parents; those that exist are fine."""
    for text in url:
        place = Place(text)
        place.fs.makedirs(place.path, exist_ok=True)


@click.command()
@click.argument("source")
@click.argument("target")
@one_line_errors
def mv(source: str, target: str) -> None:
    """Rename a file, or copy and remove it where source and target are on different servers."""
    place, destination = Place(source), Place(target)
    if target.endswith("/"):
        destination = destination.below(place.name)
    if type(place.fs) is type(destination.fs):
        place.fs.mv(place.path, destination.path)
    else:
        _copy(place, destination, overwrite=True)
        place.fs.rm_file(place.path)


@click.command()
@click.argument("url", nargs=-1, required=True)
@_json_option
@one_line_errors
def checksum(url: Sequence[str], as_json: bool) -> None:
    """Print checksums: those that dCache keeps, and the adler32 of local files."""
    found = []
    for text in url:
        place = Place(text)
        if place.is_remote:
            checksums = place.info()["checksums"]
            if not checksums:
                raise ValueError(f"{_shown(text)}: the server has no checksum of it")
        else:
            checksums = {"adler32": _adler32(place.path)}
        found.append({"name": _shown(text), "checksums": checksums})
    if as_json:
        _print_json(found)
        return
    for item in found:
        for algorithm, value in item["checksums"].items():
            click.echo(f"{algorithm}:{value}  {item['name']}")


def _copy(source: Place, target: Place, *, overwrite: bool) -> None:
    if source.is_remote and target.is_remote:
        target.fs.cp_file(source.path, target.path, mode="overwrite" if overwrite else "create")
    elif target.is_remote:
        target.fs.put_file(source.path, target.path, mode="overwrite" if overwrite else "create")
    elif not overwrite and os.path.lexists(target.path):
        raise FileExistsError(f"{target.path}: the name is taken")
    elif source.is_remote:
        source.fs.get_file(source.path, target.path)
    else:
        os.makedirs(os.path.dirname(target.path) or ".", exist_ok=True)
        target.fs.cp_file(source.path, target.path)


def _each(function: Callable[[Any], None], work: Iterable[Any]) -> None:
    with ThreadPoolExecutor(_FILES_IN_FLIGHT) as pool:
        futures = [pool.submit(function, item) for item in work]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _adler32(path: str) -> str:
    value = 1
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            value = zlib.adler32(piece, value)
    return f"{value:08x}"


def _shown(name: str) -> str:
    """Return a name as it may be printed: a link that somebody shared without its credential."""
    return redact_url(name) if "://" in name and "?" in name else name


def _time(entry: dict[str, Any]) -> str | None:
    value = entry.get("mtime")
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC)
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else None


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what of an entry means something on every file system."""
    plain: dict[str, Any] = {"name": _shown(entry["name"]), "type": entry["type"], "size": entry["size"]}
    plain["modified"] = _time(entry)
    for key in ("checksums", "etag", "locality"):
        if entry.get(key):
            plain[key] = entry[key]
    return plain


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
