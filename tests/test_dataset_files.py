"""Files of datasets and of quantum graphs, staged before they are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import client_environment
from lsst.daf.butler import Butler, Config, DatasetType
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.dataset_files import query_files
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.errors import ConfigurationError
from lsst.daf.butler_dcache.graph_files import graph_files
from lsst.daf.butler_dcache.store import staging
from lsst.pipe.base.all_dimensions_quantum_graph_builder import AllDimensionsQuantumGraphBuilder
from lsst.pipe.base.pipeline_graph import PipelineGraph
from lsst.pipe.base.tests.mocks import (
    DynamicConnectionConfig,
    DynamicTestPipelineTask,
    DynamicTestPipelineTaskConfig,
)

DETECTORS = 4
IN_GRAPH = 3


@pytest.fixture(scope="module")
def dcache() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(tape="tape", limiter=False, time_scale=0.01) as running, client_environment(running):
        assert running.site.tape is not None
        running.site.tape.restore_seconds = 0.01
        yield running


@pytest.fixture(scope="module")
def repository(dcache: EmbeddedDcache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository on tape, and beside it the graphs of two tasks, the second of which reads of the first."""
    folder = tmp_path_factory.mktemp("graph")
    config = Config(
        {"datastore": {"cls": "lsst.daf.butler_dcache.DcacheDatastore", "root": f"{dcache.url}tape/repo/"}}
    )
    Butler.makeRepo(str(folder / "repo"), config=config, forceConfigRoot=False)
    with Butler.from_config(str(folder / "repo"), writeable=True) as butler:
        butler.collections.register("run")
        butler.registry.insertDimensionData("instrument", {"name": "Cam"})
        rows = ({"instrument": "Cam", "id": n, "full_name": f"d{n}"} for n in range(DETECTORS))
        butler.registry.insertDimensionData("detector", *rows)
        for name, storage_class in (("thing", "StructuredDataDict"), ("other", "StructuredDataDict")):
            kind = DatasetType(name, ("instrument", "detector"), storage_class, universe=butler.dimensions)
            butler.registry.registerDatasetType(kind)
            for detector in range(DETECTORS):
                butler.put({"n": detector}, kind, instrument="Cam", detector=detector, run="run")
        pipeline = PipelineGraph()
        for label, reads, makes in (("one", "thing", "half"), ("two", "half", "whole")):
            task = DynamicTestPipelineTaskConfig()
            task.dimensions = ["detector"]
            task.inputs["i"] = connection(reads)
            task.outputs["o"] = connection(makes)
            pipeline.add_task(label, DynamicTestPipelineTask, task)
        builder = AllDimensionsQuantumGraphBuilder(
            pipeline,
            butler,
            where=f"instrument = 'Cam' and detector < {IN_GRAPH}",
            bind={},
            input_collections=["run"],
            output_run="out",
        )
        graph = builder.build()
        for suffix in ("qgraph", "qg"):
            graph.saveUri(str(folder / f"graph.{suffix}"))
    return folder


def connection(dataset_type: str) -> DynamicConnectionConfig:
    made = DynamicConnectionConfig()
    made.dataset_type_name = dataset_type
    made.storage_class = "StructuredDataDict"
    made.dimensions = ["detector"]
    return made


@pytest.fixture
def on_tape(
    dcache: EmbeddedDcache, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(staging, "_FIRST_POLL_SECONDS", 0.02)
    assert dcache.site.tape is not None
    for url in query_files(str(repository / "repo"), ["*"], collections=["run"]):
        entry = dcache.site.namespace.find(f"/data/{url.removeprefix(dcache.url)}")
        assert entry is not None
        dcache.site.tape.flush(entry)
        dcache.site.tape.purge(entry)
    return repository


def names(urls: Iterator[str]) -> list[str]:
    return [url.rpartition("/")[2] for url in urls]


@pytest.mark.parametrize("suffix", ["qgraph", "qg"])
def test_files_of_a_graph_are_what_no_quantum_makes(repository: Path, suffix: str) -> None:
    found = names(graph_files(str(repository / f"graph.{suffix}"), str(repository / "repo")))
    assert found == [f"thing_Cam_d{n}_run.yaml" for n in range(IN_GRAPH)]


def test_files_of_a_query(repository: Path) -> None:
    repo = str(repository / "repo")
    assert len(names(query_files(repo, ["*"], collections=["run"]))) == 2 * DETECTORS
    found = names(
        query_files(
            repo, ["th*"], collections=["run"], where="instrument = 'Cam' and detector = 2", find_first=True
        )
    )
    assert found == ["thing_Cam_d2_run.yaml"]
    with pytest.raises(ConfigurationError, match="No dataset types"):
        list(query_files(repo, ["nothing"], collections=["run"]))


def test_stage_from_graph(on_tape: Path) -> None:
    arguments = ["stage", "--from-graph", str(on_tape / "graph.qg"), "--repo", str(on_tape / "repo")]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stderr) == (0, f"{IN_GRAPH} of {IN_GRAPH} files on disk\n"), (
        result.output
    )
    with Butler.from_config(str(on_tape / "repo")) as butler:
        read = [butler.get("thing", instrument="Cam", detector=n, collections="run") for n in range(IN_GRAPH)]
    assert read == [{"n": n} for n in range(IN_GRAPH)]


def test_stage_what_a_query_finds(on_tape: Path) -> None:
    query = [
        "--dataset-query",
        "other",
        "--collections",
        "run",
        "--where",
        "instrument = 'Cam' and detector in (1..2)",
    ]
    result = CliRunner().invoke(main, ["stage", *query, "--repo", str(on_tape / "repo")])
    assert result.stderr == "2 of 2 files on disk\n"
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        (["--dataset-query", "other", "--collections", "nowhere"], "nowhere"),
        (["--dataset-query", "other", "--collections", "run", "--where", "detector = 1"], "instrument"),
        (["--from-graph", "/nowhere.qg"], "nowhere.qg"),
    ],
)
def test_what_cannot_be_asked(repository: Path, query: list[str], complaint: str) -> None:
    result = CliRunner().invoke(main, ["stage", *query, "--repo", str(repository / "repo")])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.startswith("Error: ")
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
