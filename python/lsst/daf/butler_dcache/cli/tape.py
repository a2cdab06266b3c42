"""``dcache-butler locality`` and ``pin``."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from ..errors import DcacheError
from .file_list import FileList, lines_of, list_option
from .output import Failures, Rows, json_option, one_line_errors, printable
from .patience import told_while_waiting
from .quantities import duration

__all__ = ("locality", "pin")

_MOST_ASKED = 1000


@click.command()
@click.argument("url", nargs=-1)
@list_option
@json_option
@one_line_errors
def locality(url: Sequence[str], lists: Sequence[Path], as_json: bool) -> None:
    """Say where files are: ONLINE, NEARLINE, ONLINE_AND_NEARLINE, UNAVAILABLE, LOST, or NONE for directories.

    One request per thousand. The exit status is 1 if the server does not say it of some file, because it is
    not there or for another reason.
    """
    _check(url, lists)
    failures = Failures()
    counts: Counter[str] = Counter()
    with FileList() as files, Rows(as_json) as rows:
        files.gather(itertools.chain(url, lines_of(lists)), failures)
        if len(files):
            tape = files.store.tape()
        urls = iter(files)
        while batch := list(itertools.islice(urls, _MOST_ASKED)):
            with told_while_waiting(lambda: f"waiting for the tape API of {files.endpoint}"):
                places = tape.localities(batch)
            for name, where in places.items():
                if isinstance(where, DcacheError):
                    failures.add(where)
                else:
                    counts[where.value] += 1
                    rows.add({"name": name, "locality": where.value}, f"{where.value:<19}  {printable(name)}")
    if counts.total() > 1:
        click.echo(", ".join(f"{count} {name}" for name, count in sorted(counts.items())), err=True)
    failures.end()


@click.command()
@click.argument("url", nargs=-1)
@list_option
@click.option("--lifetime", type=duration, default="2d", show_default=True, help="For how long.")
@click.option(
    "--name", default="dcache-butler", show_default=True, help="Name of the pins, for release --pin NAME."
)
@one_line_errors
def pin(url: Sequence[str], lists: Sequence[Path], lifetime: float, name: str) -> None:
    """Keep files on disk that are there; what is on tape only is a matter of stage.

    Only dCache can do that, through its frontend. On other sites a stage request keeps its files on disk.
    """
    _check(url, lists)
    if lifetime < 1:
        raise click.UsageError("Files have to stay on disk for a second at least.")
    failures = Failures()
    with FileList() as files:
        files.gather(itertools.chain(url, lines_of(lists)), failures)
        if len(files):
            with told_while_waiting(lambda: f"waiting for the frontend of {files.endpoint}"):
                errors = files.store.tape().pin(list(files), lifetime_seconds=int(lifetime), name=name)
            for error in errors.values():
                if error is not None:
                    failures.add(error)
    failures.end()


def _check(urls: Sequence[str], lists: Sequence[Path]) -> None:
    if not (urls or lists):
        raise click.UsageError("Name files, or a list of them.")
