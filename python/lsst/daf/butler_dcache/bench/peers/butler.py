"""A Butler with a datastore on the target and its registry in an SQLite file of the child process.

Both peers are the same calls: one has the datastore of this package, the other the Butler's own
`FileDatastore` with `lsst.resources`. Files that are there already are datasets of the repository, taken in
where they lie; new ones are named by their dataset's identity, in the directory that the job has for new
files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..formats import COLUMN, column_head, document, library
from ..work import Job, Outcome, UnsupportedWorkError, Work
from . import resource_path
from .client import Client, Done, Sink, Source

__all__ = ("make",)

_CLASSES = {
    "butler-ours": "lsst.daf.butler_dcache.DcacheDatastore",
    "butler-upstream": "lsst.daf.butler.datastores.fileDatastore.FileDatastore",
}
_FORMATTERS = "lsst.daf.butler.formatters"
_TABLES = ("column", "header")
"""Operations on tables; all others are on documents."""


class _Butler(Client):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._paths = resource_path.make("path" if name == "butler-ours" else "upstream")
        self._butler: Any = None

    def connect(self, job: Job) -> None:
        if job.work.threads > 1:
            raise UnsupportedWorkError("a Butler belongs to one thread")
        self._module = library("lsst.daf.butler")
        self._paths.connect(job)
        self._job = job
        directory, separator, _ = job.names[0].rpartition("/")
        self._butler = self._open(f"{job.access.root}{directory}{separator}")
        self._kind = self._dataset_type(job.work)
        self._refs = dict(zip(job.names, self._new_refs(job.names), strict=True))
        if not job.work.makes_files:
            self._take_in(job)

    def close(self) -> None:
        if self._butler is not None:
            self._butler.close()
            self._paths.close()

    def _open(self, root: str) -> Any:
        folder = f"{self._job.scratch}/repository"
        config = self._module.Config()
        config["datastore", "cls"] = _CLASSES[self.name]
        config["datastore", "root"] = root
        # What is cached is not asked for again, and it is asking that is measured.
        config["datastore", "cached", "default"] = False
        config["datastore", "templates", "default"] = "{run}-{instrument}-{detector}"
        self._module.Butler.makeRepo(folder, config=config, forceConfigRoot=False)
        return self._module.Butler.from_config(folder, writeable=True, run="run")

    def _dataset_type(self, work: Work) -> Any:
        storage_class = "ArrowTable" if work.operation in _TABLES else "StructuredDataDict"
        kind = self._module.DatasetType(
            "thing", ("instrument", "detector"), storage_class, universe=self._butler.dimensions
        )
        self._butler.registry.registerDatasetType(kind)
        return kind

    def _new_refs(self, names: Sequence[str]) -> list[Any]:
        registry = self._butler.registry
        registry.insertDimensionData("instrument", {"name": "Camera"})
        detectors = range(len(names))
        registry.insertDimensionData(
            "detector", *({"instrument": "Camera", "id": n, "full_name": f"{n}"} for n in detectors)
        )
        return [
            self._module.DatasetRef(
                self._kind, registry.expandDataId(instrument="Camera", detector=number), run="run"
            )
            for number in detectors
        ]

    def _take_in(self, job: Job) -> None:
        name = "parquet.ParquetFormatter" if job.work.operation in _TABLES else "json.JsonFormatter"
        files = [
            self._module.FileDataset(name_.rpartition("/")[2], ref, formatter=f"{_FORMATTERS}.{name}")
            for name_, ref in self._refs.items()
        ]
        self._butler.ingest(*files, transfer=None)

    def prepare(self, job: Job) -> Callable[[], Outcome] | None:
        self.connect(job)
        work = job.work
        match work.operation:
            case "column":
                return lambda: self._each(self._column)
            case "header":
                return lambda: self._each(self._row_count)
            case "put" if work.batch > 1:
                return self._ingest()
        return None

    def _each(self, do: Callable[[Any], None]) -> Outcome:
        """Do something to one dataset after the other, and take the time of each."""
        work, refs = self._job.work, list(self._refs.values())
        times = []
        for number in range(work.count):
            begun = time.perf_counter()
            do(refs[number % len(refs)])
            times.append(time.perf_counter() - begun)
        return Outcome(work.total_bytes, self.notes(work), work.count, seconds={"operation": times})

    def _column(self, ref: Any) -> None:
        table = self._butler.get(ref, parameters={"columns": [f"c{COLUMN}"]})
        values = table.column(0).chunk(0)
        head = values.buffers()[1][values.offset * 8 : values.offset * 8 + 8].to_pybytes()
        if head != column_head(self._job.work.seed):
            raise RuntimeError("another column")

    def _row_count(self, ref: Any) -> None:
        if not self._butler.get(ref.makeComponentRef("rowcount")):
            raise RuntimeError("a table without rows")

    def _ingest(self) -> Callable[[], Outcome]:
        work, refs = self._job.work, list(self._refs.values())
        # The Butler looks at how a file is called.
        source = f"{self._job.scratch}/source.json"
        Path(source).symlink_to(self._job.source)
        files = [
            self._module.FileDataset(source, ref, formatter=f"{_FORMATTERS}.json.JsonFormatter")
            for ref in refs
        ]

        def run() -> Outcome:
            times = []
            for begin in range(0, len(files), work.batch):
                begun = time.perf_counter()
                self._butler.ingest(*files[begin : begin + work.batch], transfer="copy")
                times.append(time.perf_counter() - begun)
            moved = work.size_bytes * len(files)
            return Outcome(moved, self.notes(work), len(times), seconds={"operation": times})

        return run

    def get(self, name: str, sink: Sink) -> Done:
        value = self._butler.get(self._refs[name])
        return Done(len(json.dumps(value)))

    def put(self, name: str, source: Source) -> Done:
        self._butler.put(document(source.size), self._refs[name])
        return Done(source.size)

    def exists(self, name: str) -> bool:
        return bool(self._butler.stored(self._refs[name]))

    def exists_many(self, names: Sequence[str]) -> int:
        return sum(self._butler.stored_many([self._refs[name] for name in names]).values())

    def remove_many(self, names: Sequence[str]) -> int:
        refs = [self._refs[name] for name in names]
        self._butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)
        return len(names)


def make(name: str) -> _Butler:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Butler(name)
