"""``dcache-butler stage`` and ``release``."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import click

from ..config.runtime import state_folder
from ..errors import ConfigurationError, DcacheError
from ..rest.tape import tape_path
from ..store.registry import store_for
from ..store.stage_journal import RecordedRequest, StageJournal, recorded_requests
from ..store.stage_progress import FileChange, FileState, StageReport
from ..store.staging import StageCampaign
from ..store.tape import Tape
from ..transport.deadline import Deadline
from .file_list import FileList, dataset_urls, graph_urls, lines_of, list_option
from .output import Failures, Rows, json_option, one_line, one_line_errors
from .patience import told_while_waiting
from .progress import TerminalLine
from .quantities import duration

__all__ = ("release", "stage")

_INTERRUPTED = 130


@click.command()
@click.argument("url", nargs=-1)
@list_option
@click.option(
    "-r", "--recursive", is_flag=True, help="Of directories, all files below that are on tape only."
)
@click.option("--with-online", is_flag=True, help="With -r those on disk, too, so that they stay there.")
@click.option("--from-graph", "graph", metavar="GRAPH", help="All inputs of a quantum graph; needs --repo.")
@click.option(
    "--dataset-query",
    "dataset_types",
    multiple=True,
    metavar="GLOB",
    help="All files of datasets of these types; needs --repo and --collections.",
)
@click.option("--repo", metavar="BUTLER", help="Butler repository of --from-graph and --dataset-query.")
@click.option("--collections", metavar="COLLECTION,...", default="", help="Where --dataset-query looks.")
@click.option("--where", metavar="EXPRESSION", default="", help="Condition of --dataset-query.")
@click.option(
    "--find-first", is_flag=True, help="Of datasets with one data ID, that of the first collection."
)
@click.option(
    "--lifetime", type=duration, default="2d", show_default=True, help="How long each file stays on disk."
)
@click.option("--deadline", type=duration, default="24h", show_default=True, help="When to stop waiting.")
@click.option("--wait/--no-wait", default=True, help="Whether to wait for the files, or only ask for them.")
@click.option("--journal", type=click.Path(path_type=Path), help="Where it is kept what has been asked for.")
@click.option("--cancel-on-interrupt", is_flag=True, help="Ctrl-C cancels what is under way.")
@json_option
@one_line_errors
def stage(
    url: Sequence[str],
    lists: Sequence[Path],
    recursive: bool,
    with_online: bool,
    graph: str | None,
    dataset_types: Sequence[str],
    repo: str | None,
    collections: str,
    where: str,
    find_first: bool,
    lifetime: float,
    deadline: float,
    wait: bool,
    journal: Path | None,
    cancel_on_interrupt: bool,
    as_json: bool,
) -> None:
    """Bring files from tape to disk, and keep them there for a while.

    The exit status is 0 if every file is on disk (with --no-wait: is asked for). The same command again goes
    on where an earlier one ended, whatever ended it. Files that are on disk already are kept there.
    """
    if (graph is not None or dataset_types) and repo is None:
        raise click.UsageError("--from-graph and --dataset-query need --repo.")
    if dataset_types and not collections:
        raise click.UsageError("--dataset-query needs --collections.")
    if not (url or lists or graph or dataset_types):
        raise click.UsageError("Name files, a list of them, a quantum graph or a query.")
    if lifetime < 1:
        raise click.UsageError("Files have to stay on disk for a second at least.")
    failures = Failures()
    # An array from the first moment on, so that what is read as JSON is JSON, whatever happens.
    with FileList() as files, Rows(as_json) as rows:
        files.gather(
            itertools.chain(url, lines_of(lists)), failures, recursive=recursive, with_online=with_online
        )
        if graph is not None:
            assert repo is not None
            files.gather(graph_urls(graph, repo), failures)
        if dataset_types:
            assert repo is not None
            where_to_look = [name for name in collections.split(",") if name]
            files.gather(
                dataset_urls(
                    repo, dataset_types, collections=where_to_look, where=where, find_first=find_first
                ),
                failures,
            )
        if files.on_disk:
            click.echo(f"{files.on_disk} files are on disk already", err=True)
        if len(files):
            command = _Staging(files, failures, rows, lifetime=int(lifetime))
            command.run(journal, Deadline(deadline), wait=wait, cancel_on_interrupt=cancel_on_interrupt)
        elif not failures.count:
            click.echo("no files to stage", err=True)
    failures.end()


class _Staging:
    """One campaign, and what is said of it."""

    def __init__(self, files: FileList, failures: Failures, rows: Rows, *, lifetime: int) -> None:
        self._files = files
        self._failures = failures
        self._lifetime = lifetime
        self._rows = rows
        self._terminal = TerminalLine()
        self._noted = 0
        self._campaign: StageCampaign | None = None

    def run(self, path: Path | None, deadline: Deadline, *, wait: bool, cancel_on_interrupt: bool) -> None:
        """Go on until all files are there, or something ends it."""
        tape = self._files.store.tape()
        journal = self._journal(path)
        try:
            self._campaign = campaign = tape.campaign(
                self._files,
                len(self._files),
                lifetime_seconds=self._lifetime,
                deadline=deadline,
                journal=journal,
                on_change=self._changed,
                on_setback=self._set_back,
                sleep=self._sleep,
            )
            self._show()
            try:
                with told_while_waiting(
                    lambda: f"waiting; {_states(campaign.report)}", is_wanted=not self._terminal.is_shown
                ):
                    report = campaign.run(wait=wait)
            except KeyboardInterrupt:
                self._terminal.wipe()
                errors: list[DcacheError] | None = None
                if cancel_on_interrupt:
                    with contextlib.suppress(KeyboardInterrupt):  # once more: then not
                        errors = campaign.cancel()
                self._interrupted(journal, errors)
            self._terminal.wipe()
            self._tell(report, journal)
        finally:
            journal.close()

    def _journal(self, path: Path | None) -> StageJournal:
        files = f"{len(self._files)} files, sha256 {self._files.digest}"
        if path is None:
            # The lifetime is a part of what was asked for.
            name = f"{self._files.digest[:24]}-{self._lifetime}"
            path = _journals() / f"{name}.jsonl"
        return StageJournal(path, endpoint=self._files.endpoint, files=files, lifetime_seconds=self._lifetime)

    def _changed(self, change: FileChange) -> None:
        if change.error is not None:
            self._terminal.wipe()
            self._failures.say(one_line(change.error))
        if change.note:
            self._noted += 1
        if self._rows.as_json and (change.error is not None or change.state is FileState.STAGED):
            row: dict[str, Any] = {"name": change.url, "state": change.state.value}
            if change.error is not None:
                row["error"] = one_line(change.error)
            if change.note:
                row["note"] = change.note
            self._rows.add(row, "")
        if self._terminal.is_due:
            self._show()

    def _set_back(self, error: DcacheError) -> None:
        self._terminal.wipe()
        click.echo(f"Warning: staging goes on in spite of: {one_line(error)}", err=True)

    def _sleep(self, seconds: float) -> None:
        self._show()
        time.sleep(seconds)

    def _show(self) -> None:
        if self._campaign is not None:
            self._terminal.show(_states(self._campaign.report))

    def _interrupted(self, journal: StageJournal, errors: list[DcacheError] | None) -> NoReturn:
        if errors is None:
            click.echo(
                f"interrupted; what is asked for comes all the same. The same command goes on from here "
                f"(journal {journal.path})",
                err=True,
            )
        else:
            for error in errors:
                self._failures.say(one_line(error))
            click.echo(
                "interrupted; what was under way is cancelled" + (", as far as said" if errors else ""),
                err=True,
            )
        sys.exit(_INTERRUPTED)

    def _tell(self, report: StageReport, journal: StageJournal) -> None:
        click.echo(_states(report), err=True)
        if self._noted:
            click.echo(f"{self._noted} of them were on disk without the request's doing", err=True)
        counts = report.counts
        if report.stopped is not None:
            self._failures.say(
                f"{one_line(report.stopped).removesuffix('.')}; "
                f"{report.files - counts.get(FileState.STAGED, 0)} files are not on disk. "
                f"The same command goes on from here (journal {journal.path})"
            )
        elif counts.get(FileState.WAITING, 0):
            self._failures.say(
                f"{counts[FileState.WAITING]} files are not asked for yet; the same command does"
            )
        elif counts.get(FileState.SUBMITTED, 0) or counts.get(FileState.STARTED, 0):
            click.echo(
                f"asked for; the same command without --no-wait waits (journal {journal.path})", err=True
            )


def _states(report: StageReport) -> str:
    counts = report.counts
    parts = [f"{counts.get(FileState.STAGED, 0)} of {report.files} files on disk"]
    parts += [
        f"{counts[state]} {state.value}"
        for state in FileState
        if state is not FileState.STAGED and counts.get(state, 0)
    ]
    return ", ".join(parts)


def _journals() -> Path:
    return state_folder() / "staging"


@click.command()
@click.argument("url", nargs=-1)
@list_option
@click.option("--journal", type=click.Path(path_type=Path, exists=True), help="Of all files of this journal.")
@click.option("--request", metavar="ID", help="The server's name of the request that brought the files.")
@click.option(
    "--pin", metavar="NAME", help="Instead of what stage holds, the pin of this name; see pin --name."
)
@one_line_errors
def release(
    url: Sequence[str], lists: Sequence[Path], journal: Path | None, request: str | None, pin: str | None
) -> None:
    """Give up the right of files to stay on disk.

    Which requests brought the files stands in the journals of stage. Without files, --journal releases all
    that its campaign has asked for, has the server forget it, and is removed.
    """
    failures = Failures()
    if journal is not None and not (url or lists):
        with told_while_waiting(lambda: f"waiting for the tape API of {journal}"):
            _release_campaign(journal)
        return
    with FileList() as files:
        files.gather(itertools.chain(url, lines_of(lists)), failures)
        if not len(files):
            if failures.count:
                failures.end()
            raise click.UsageError("Name files, a list of them, or a journal.")
        with told_while_waiting(lambda: f"waiting for the tape API of {files.endpoint}"):
            tape = files.store.tape()
            if pin is not None:
                for error in tape.unpin(list(files), name=pin).values():
                    if error is not None:
                        failures.add(error)
            elif request is not None:
                tape.release(request, list(files))
            else:
                _release_recorded(
                    tape, files, [journal] if journal else sorted(_journals().glob("*.jsonl")), failures
                )
    failures.end()


def _release_recorded(tape: Tape, files: FileList, journals: Sequence[Path], failures: Failures) -> None:
    urls = {tape_path(url): url for url in files}
    unknown = set(urls)
    for recorded in _recorded(journals):
        if recorded.endpoint == files.endpoint and (
            held := [path for path in recorded.paths if path in urls]
        ):
            tape.release(recorded.request, [urls[path] for path in held])
            unknown.difference_update(held)
    for path in sorted(unknown):
        failures.say(
            f"release {urls[path]}: no journal knows a request for it; name one with "
            "--request, or its pin with --pin"
        )


def _release_campaign(journal: Path) -> None:
    tape: Tape | None = None
    for recorded in recorded_requests(journal, alone=True):
        if tape is None:
            tape = store_for(recorded.endpoint + "/").tape()
        urls = [recorded.endpoint + quote(path) for path in recorded.paths]
        tape.release(recorded.request, urls, forget=True)
    journal.unlink()


def _recorded(journals: Sequence[Path]) -> Iterator[RecordedRequest]:
    """Yield what journals know; one that is damaged hides nothing of the others."""
    for path in journals:
        try:
            yield from recorded_requests(path)
        except (ConfigurationError, OSError) as error:
            click.echo(f"Warning: {one_line(error)}", err=True)
