"""``dcache-butler cp``."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from ..copies import CopyResult, copy_many
from ..errors import UnsupportedError
from ..places import Place
from ..single_copy import Copy, Outcome, remove_partial_files
from .interruption import Interruption
from .output import Failures, Rows, json_option, one_line, one_line_errors, printable
from .progress import Meter
from .quantities import duration, human

__all__ = ("cp",)


@click.command()
@click.argument("source", nargs=-1)
@click.argument("target", required=False)
@click.option("-r", "--recursive", is_flag=True, help="Copy directories with what they hold.")
@click.option(
    "-T",
    "--no-target-directory",
    "is_name",
    is_flag=True,
    help="The target is the name of the copy, never a directory to copy into.",
)
@click.option("-n", "--no-clobber", is_flag=True, help="An existing target with other bytes is an error.")
@click.option(
    "--from-file",
    "lists",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Copies from the lines of this file: source, tab, target; - for the standard input.",
)
@click.option(
    "--in-flight", type=click.IntRange(1, 256), default=8, show_default=True, help="Files at a time."
)
@click.option(
    "--deadline", type=duration, metavar="DURATION", help="Give up what is not done by then: 90m, 6h."
)
@click.option(
    "--trust-size", is_flag=True, help="Leave alone what has the same size, whatever its checksum is."
)
@click.option("--dry-run", is_flag=True, help="Only print what would be copied, whether it is there or not.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@json_option
@one_line_errors
def cp(
    source: Sequence[str],
    target: str | None,
    recursive: bool,
    is_name: bool,
    no_clobber: bool,
    lists: Sequence[Path],
    in_flight: int,
    deadline: float | None,
    trust_size: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Copy files, every one verified by its checksum.

    What has the same size and checksum at its target is left alone, so that a copy which was interrupted is
    simply begun anew; with -T if the directory that was to be made under a new name is there by now.
    Servers that can send files to one another do; other bytes pass through this process.
    """
    if target is not None and not source and not lists:
        raise click.UsageError("Missing argument 'TARGET'.")
    if target is None and not lists:
        raise click.UsageError("Name files and a target, or a list with --from-file.")
    if is_name and len(source) > 1:
        raise click.UsageError("Only one source can be copied to --no-target-directory.")
    if lists and target is not None:
        raise click.UsageError("The targets of --from-file are in the list.")
    failures = Failures()
    with Rows(as_json) as rows, Meter("copied", quiet=quiet or as_json or dry_run) as meter:
        work = _Work(failures, meter, recursive=recursive, is_name=is_name)
        copies = work.listed(lists) if target is None else work.named(source, target)
        if dry_run:
            for copy in copies:
                item = {"source": copy.source.url, "target": copy.target.url}
                rows.add(item, f"{printable(copy.source.url)} -> {printable(copy.target.url)}")
        else:
            results = copy_many(
                copies,
                overwrite=not no_clobber,
                in_flight=in_flight,
                deadline_seconds=deadline,
                on_progress=lambda size: meter.advance(0, size, size),
                trust_size=trust_size,
            )
            summary = _Summary(rows, failures, meter)

            def leave() -> None:
                remove_partial_files()
                summary.print("interrupted: ")
                option = " with --no-target-directory" if work.has_new_name else ""
                click.echo(f"the same command{option} goes on where it was", err=True)

            with Interruption(leave), contextlib.closing(results):
                for result in results:
                    summary.add(result)
            if not quiet and not as_json and summary.is_of_many:
                summary.print()
    failures.end()


class _Work:
    """What is to be copied, found while it is being copied."""

    def __init__(self, failures: Failures, meter: Meter, *, recursive: bool, is_name: bool) -> None:
        self._failures = failures
        self._meter = meter
        self._recursive = recursive
        self._is_name = is_name
        self.has_new_name = False
        """Whether a directory is copied to a name at which none was, so that it goes on with -T only."""

    def named(self, sources: Sequence[str], target: str) -> Iterator[Copy]:
        """Yield the copies of some files or directories to a name, or into a directory."""
        destination = Place.parse(target)
        into = not self._is_name and (
            len(sources) > 1 or destination.url.endswith("/") or destination.is_directory()
        )
        self.has_new_name = self._recursive and not into and not self._is_name

        def copies() -> Iterator[Copy]:
            for text in sources:
                with self._failures:
                    place = Place.parse(text)
                    yield from self._copies(place, destination.below(place.name) if into else destination)

        return self._counted(copies())

    def listed(self, lists: Iterable[Path]) -> Iterator[Copy]:
        """Yield the copies that lists name."""

        def copies() -> Iterator[Copy]:
            for path in lists:
                with click.open_file(str(path), encoding="utf-8", errors="surrogateescape") as lines:
                    for number, line in enumerate(lines, 1):
                        source, tab, target = line.rstrip("\r\n").partition("\t")
                        with self._failures:
                            if tab:
                                yield from self._copies(Place.parse(source), Place.parse(target))
                            elif source:
                                raise ValueError(f"{path}, line {number}: not source, tab and target")

        return self._counted(copies())

    def _copies(self, source: Place, target: Place) -> Iterator[Copy]:
        if not self._recursive:
            yield Copy(source, target)
            return
        info = source.stat()
        if info.is_file:
            yield Copy(source, target, info)
            return
        if target.is_in(source):
            # What is being listed would grow for ever.
            raise UnsupportedError("a directory is not copied into itself", operation="copy", url=target.url)
        for _, _, files in source.walk(self._failures.add):
            for info in files:
                with self._failures:
                    yield Copy(source.of(info), target.below(source.relative(info)), info)

    def _counted(self, copies: Iterator[Copy]) -> Iterator[Copy]:
        files = size = 0
        for copy in copies:
            files += 1
            size += (copy.info.size or 0) if copy.info is not None else 0
            yield copy
        self._meter.expect(files, size)


class _Summary:
    """What became of the copies."""

    def __init__(self, rows: Rows, failures: Failures, meter: Meter) -> None:
        self._rows = rows
        self._failures = failures
        self._meter = meter
        self._counts: collections.Counter[Outcome] = collections.Counter()
        self._bytes = 0
        self._begun = time.monotonic()
        self._told: set[int] = set()

    @property
    def is_of_many(self) -> bool:
        """Whether there is anything to sum up."""
        return self._counts.total() > 1

    def add(self, result: CopyResult) -> None:
        """Take one into account, and say what went wrong."""
        self._counts[result.outcome] += 1
        size = 0 if result.info is None else result.info.size or 0
        self._meter.advance(1, size if result.outcome is Outcome.SKIPPED else 0)
        if result.outcome in (Outcome.SERVER, Outcome.CLIENT):
            self._bytes += size
        source, target = result.copy.source.url, result.copy.target.url
        item: dict[str, Any] = {"source": source, "target": target, "outcome": result.outcome.value}
        if result.info is not None:
            item |= {"size": result.info.size, "checksums": dict(result.info.checksums)}
        if result.error is not None:
            item["error"] = text = one_line(result.error)
            if result.outcome is Outcome.FAILED:
                text = text if source in text else f"{source}: {text}"
                if isinstance(result.error, IsADirectoryError) and target not in text:
                    text += "; --recursive copies what it holds"
                self._say(text)
            elif id(result.error) in self._told:
                self._failures.count += 1
            else:
                # The others with this cause are counted at the end.
                self._told.add(id(result.error))
                self._say(f"{source} and what follows it is not tried: {text}")
        if self._rows.as_json:
            self._rows.add(item, "")

    def _say(self, text: str) -> None:
        self._meter.wipe()
        self._failures.say(text)

    def print(self, head: str = "") -> None:
        """Print the sums on the standard error."""
        self._meter.wipe()
        copied = self._counts[Outcome.SERVER] + self._counts[Outcome.CLIENT]
        seconds = max(time.monotonic() - self._begun, 0.001)
        line = f"{head}{copied} copied"
        if copied:
            rate = f"{human(self._bytes)} in {seconds:.1f} s, {human(self._bytes / seconds)}/s"
            ways = f"{self._counts[Outcome.SERVER]} by the servers, "
            ways += f"{self._counts[Outcome.CLIENT]} through this client"
            line += f" ({rate}; {ways})"
        for outcome, words in (
            (Outcome.SKIPPED, "skipped since verified there"),
            (Outcome.FAILED, "failed"),
            (Outcome.NOT_TRIED, "not tried"),
        ):
            if self._counts[outcome]:
                line += f", {self._counts[outcome]} {words}"
        click.echo(line, err=True)
