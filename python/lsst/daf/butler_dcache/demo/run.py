"""The demo from end to end, phase by phase."""

from __future__ import annotations

__all__ = ("Target", "run_demo")

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lsst.daf.butler import Butler, DatasetRef

from .audit import check_artifacts, check_removed
from .checks import (
    Reader,
    check_catalogues,
    check_coadds,
    check_frames,
    check_images,
    check_parts,
    check_single_coadd,
)
from .frames import real_raw, survey_images
from .pipeline import run_pipeline
from .report import Check, Phase, Report, Requests
from .repository import INPUTS, OUTPUT, create_repository, ingest, survey_run
from .simulation import Truth, simulate_visits
from .storage import Artifact, open_storage, recorded_artifacts

_VISITS = 8
_PARTS = 3
_SEED = 20260101
_TASKS = ("reduce", "coadd")


@dataclass(frozen=True)
class Target:
    """Where the files of the repository go.

    Parameters
    ----------
    title : `str`
        Says it in words.
    root : `str`
        URL with a slash at its end: a directory of the demo's own.
    datastore : `str`
        Class of the datastore.
    access : `str`
        How the files can be had afterwards, if they are kept.
    count : `~collections.abc.Callable` or `None`
        Returns the requests that the server has seen so far; `None` where nobody counts.
    """

    title: str
    root: str
    datastore: str
    access: str
    count: Callable[[], Requests] | None = None


class _Journal:
    """Prints what is going on and keeps the figures of each phase."""

    def __init__(self, target: Target, say: Callable[[str], None]) -> None:
        self.report = Report(target.title)
        self._count = target.count
        self._say = say
        self._begin = time.monotonic()

    def note(self, text: str) -> None:
        """Print a line with the seconds since the start."""
        self._say(f"[{time.monotonic() - self._begin:5.1f} s] {text}")

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """Measure a phase; its figures stand in the report even if it fails."""
        self.note(name)
        phase = Phase(name)
        self.report.phases.append(phase)
        before = self._count() if self._count else None
        begin = time.monotonic()
        try:
            yield phase
        finally:
            phase.seconds = time.monotonic() - begin
            if self._count and before is not None:
                phase.requests = self._count() - before

    def check(self, *checks: Check) -> None:
        """Keep the results and print those that are bad."""
        self.report.checks += checks
        for check in checks:
            if not check.passed:
                self.note(f"FAILED {check.name}: {check.measured}, expected: {check.expected}")


def run_demo(
    target: Target, folder: Path, say: Callable[[str], None], keep: bool = False, damage: bool = False
) -> Report:
    """Make a repository, run the pipeline, read everything back, compare, remove a run.

    Parameters
    ----------
    target : `Target`
        Where the files go.
    folder : `pathlib.Path`
        Where repository, raws and logs go; exists and is empty.
    say : `~collections.abc.Callable`
        Called with each line of progress.
    keep : `bool`, optional
        Whether the pipeline's outputs are wanted afterwards: then a run of ingested images is removed
        instead.
    damage : `bool`, optional
        Whether to change one stored byte behind the Butler's back, to see that it is noticed.

    Returns
    -------
    report : `Report`
        What was done and found. It ends with the first phase that found a difference: what is known to be
        damaged is not looked at further.
    """
    journal = _Journal(target, say)
    report = journal.report
    raw_folder = folder / "raws"
    raw_folder.mkdir()
    repository = folder / "repository"
    database = repository / "gen3.sqlite3"
    storage = open_storage(target.root)

    with journal.phase("simulate raw frames"):
        truth = Truth.draw(_SEED)
        visits = simulate_visits(truth, raw_folder, _SEED, _VISITS)
    with journal.phase("create the repository"):
        butler = create_repository(repository, target.root, target.datastore)
    with butler:
        with journal.phase("ingest frames") as phase:
            real = real_raw()
            raws, survey = ingest(butler, [real, *visits], survey_images())
            ingested = recorded_artifacts(database)
            phase.written, phase.bytes_written = len(ingested), _size(ingested)
        with journal.phase("run the pipeline") as pipeline_phase:
            run_pipeline(repository, folder / "pipetask.log", lambda text: journal.note(f"  {text}"))
            artifacts = recorded_artifacts(database)
            pipeline_phase.written = len(artifacts) - len(ingested)
            pipeline_phase.bytes_written = _size(artifacts) - _size(ingested)
        if damage:
            _damage(butler)
        with journal.phase("verify every stored file") as phase:
            originals = _originals(butler, raws | survey, artifacts)
            journal.check(*check_artifacts(artifacts, storage, originals))
            phase.read = len(artifacts)
        if report.failures:
            return report
        with journal.phase("read back and compare") as phase:
            reader = Reader(butler.clone(collections=[OUTPUT, INPUTS]))
            simulated = [observation for observation, _ in visits]
            journal.check(
                check_frames(reader, raws, "raw frames = of the originals"),
                check_frames(reader, survey, "M13 in five compressions = of the originals"),
                *check_images(reader, raws, truth, simulated),
                *check_catalogues(reader, truth, simulated),
                *check_coadds(reader, truth),
                check_single_coadd(reader, real[0]),
                *check_parts(reader, list(raws)[:_PARTS]),
            )
            pipeline_phase.read = _datasets_read_by_pipeline(reader)
            phase.read = reader.count
        if report.failures:
            return report
        with journal.phase("remove a run") as phase:
            run = survey_run(survey_images()[-1]) if keep else _output_run(butler)
            removed = [artifact for artifact in artifacts if artifact.path.startswith(f"{run}/")]
            kept = [artifact for artifact in artifacts if artifact not in removed]
            butler.removeRuns([run], unlink_from_chains=True)
            phase.removed = len(removed)
        with journal.phase("see that its files are gone"):
            journal.check(*check_removed(removed, kept, storage, recorded_artifacts(database)))
    return report


def _datasets_read_by_pipeline(reader: Reader) -> int:
    """Return how often the tasks have read something, as they noted themselves in their metadata."""
    return sum(
        int(reader.get(ref)["quantum"]["butler_metrics"]["n_get"])
        for task in _TASKS
        for ref in reader.butler.query_datasets(f"{task}_metadata")
    )


def _damage(butler: Butler) -> None:
    """Change one byte in the middle of a stored frame, as a broken disk would."""
    (ref, *_) = butler.query_datasets("raw", collections=INPUTS)
    uri = butler.getURI(ref)
    data = bytearray(uri.read())
    data[len(data) // 2] ^= 0xFF
    uri.write(bytes(data), overwrite=True)


def _output_run(butler: Butler) -> str:
    (run, *_) = butler.collections.get_info(OUTPUT).children
    return run


def _originals(
    butler: Butler, ingested: dict[DatasetRef, Path], artifacts: list[Artifact]
) -> dict[str, Path]:
    uris = {butler.getURI(ref).path: path for ref, path in ingested.items()}
    return {
        artifact.path: path
        for artifact in artifacts
        for uri, path in uris.items()
        if uri.endswith(f"/{artifact.path}")
    }


def _size(artifacts: list[Artifact]) -> int:
    return sum(artifact.size for artifact in artifacts)
