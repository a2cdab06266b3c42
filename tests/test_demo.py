"""The main job: its parts, that its comparisons can fail, and the whole of it as a command."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from astropy.io import fits
from botocore.exceptions import BotoCoreError, ClientError
from click.testing import CliRunner

pytest.importorskip("lsst.images", reason="lsst-images has no version for Python 3.11")

from lsst.daf.butler_dcache.cli.demo import command
from lsst.daf.butler_dcache.demo import run
from lsst.daf.butler_dcache.demo.audit import check_artifacts, check_removed
from lsst.daf.butler_dcache.demo.checks import (
    check_catalogues,
    check_coadds,
    check_frames,
    check_images,
    check_single_coadd,
)
from lsst.daf.butler_dcache.demo.frames import real_raw, survey_images
from lsst.daf.butler_dcache.demo.geometry import (
    IMAGE_SHAPE,
    PATCH_SIZE,
    PATCHES_PER_SIDE,
    SKYMAP,
    parse_section,
    tract_wcs,
)
from lsst.daf.butler_dcache.demo.instrument import Ste3
from lsst.daf.butler_dcache.demo.observation import Observation
from lsst.daf.butler_dcache.demo.report import Check, Phase, Report, Requests
from lsst.daf.butler_dcache.demo.simulation import Truth, simulate_visits
from lsst.daf.butler_dcache.demo.storage import (
    Artifact,
    FileTree,
    WebdavTree,
    digest,
    open_storage,
    recorded_artifacts,
)
from lsst.daf.butler_dcache.demo.tasks import CoaddTask, ReduceTask
from lsst.images import Box, DetectorFrame, Image, TractFrame

VISITS = 3
RAW_KEYWORDS = ("GAIN", "RDNOISE", "TRIMSEC", "BIASSEC")
DCACHE_BUTLER = Path(sysconfig.get_path("scripts")) / "dcache-butler"


class Datasets:
    """Gives datasets from memory, as the demo's reader gives them from a repository."""

    def __init__(self) -> None:
        self.stored: dict[tuple[Any, ...], Any] = {}

    def put(self, dataset: Any, name: Any, *key: Any) -> None:
        self.stored[name, *key] = dataset

    def get(self, name: Any, data_id: dict[str, Any] | None = None, **more: Any) -> Any:
        data_id = {**(data_id or {}), **more}
        return self.stored[name, *(data_id[key] for key in ("visit", "patch") if key in data_id)]


class Handle:
    """Reads parts of an image in memory, as a deferred dataset does in a repository."""

    def __init__(self, image: Any) -> None:
        self._image = image

    def get(self, component: str | None = None, parameters: dict[str, Any] | None = None) -> Any:
        if component is not None:
            return getattr(self._image, component)
        return self._image[parameters["bbox"]] if parameters else self._image


@dataclass
class Survey:
    """Truth, visits, files, and what the tasks have made of them."""

    truth: Truth
    observations: list[Observation]
    raws: dict[int, Path]
    datasets: Datasets


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    truth = Truth.draw(5)
    visits = simulate_visits(truth, tmp_path_factory.mktemp("raws"), 5, VISITS)
    datasets, images, raws = Datasets(), [], {}
    reduce = ReduceTask(config=ReduceTask.ConfigClass())
    for observation, path in visits:
        with fits.open(path) as hdus:
            raw = Image(hdus[1].data, metadata=dict(hdus[1].header))
        box = Box.from_shape(IMAGE_SHAPE)
        frame = DetectorFrame(instrument=Ste3.getName(), detector=0, visit=observation.id, bbox=box)
        result = reduce.run(raw, observation.ra, observation.dec, frame)
        datasets.put(result.image, "visit_image", observation.id)
        datasets.put(result.catalogue, "visit_catalogue", observation.id)
        images.append(Handle(result.image))
        raws[observation.id] = path
    coadd = CoaddTask(config=CoaddTask.ConfigClass())
    side = PATCHES_PER_SIDE * PATCH_SIZE
    frame = TractFrame(skymap=SKYMAP, tract=0, bbox=Box.from_shape((side, side)))
    for patch in range(PATCHES_PER_SIDE**2):
        result = coadd.run(images, 0, patch, frame)
        datasets.put(result.coadd, "coadd", patch)
        datasets.put(result.depth, "coadd_depth", patch)
    observations = [observation for observation, _ in visits]
    return Survey(truth=truth, observations=observations, raws=raws, datasets=datasets)


class Raw:
    """Names a raw as a dataset reference does; can be a key."""

    def __init__(self, visit: int) -> None:
        self.dataId = {"exposure": visit}


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def changed(survey: Survey, change: Any, name: str, *key: Any) -> Datasets:
    """Return the datasets with one of them changed."""
    datasets = Datasets()
    datasets.stored = dict(survey.datasets.stored)
    dataset = datasets.stored[name, *key].copy()
    change(dataset)
    datasets.put(dataset, name, *key)
    return datasets


def test_sections_are_rows_then_columns_from_zero() -> None:
    assert parse_section("[  17: 528,   1: 520]") == (slice(0, 520), slice(16, 528))
    with pytest.raises(ValueError, match="not an image section"):
        parse_section("17:528,1:520")


def test_the_same_seed_is_the_same_sky_and_stars_keep_apart() -> None:
    truth, again = Truth.draw(7), Truth.draw(7)
    np.testing.assert_array_equal(truth.ra, again.ra)
    places = np.column_stack(tract_wcs(0).world_to_pixel_values(truth.ra, truth.dec))
    distance = np.hypot(*(places[:, None] - places[None, :]).transpose(2, 0, 1))
    assert distance[~np.eye(len(places), dtype=bool)].min() > 21.9


def test_the_packages_bring_the_real_frames() -> None:
    observation, path = real_raw()
    with fits.open(path) as hdus:
        assert hdus[0].data.shape == (520, 536)
    assert observation.name == "STE3_20130713_001"
    images = [fits.getdata(image.path) for image in survey_images()]
    assert len(images) == 5
    # All five compressions of this image are lossless.
    assert all(np.array_equal(image, images[0]) for image in images)


def test_what_the_tasks_make_agrees_with_the_truth(survey: Survey) -> None:
    raws = {Raw(visit): path for visit, path in survey.raws.items()}
    checks = [
        *check_images(survey.datasets, raws, survey.truth, survey.observations),
        *check_catalogues(survey.datasets, survey.truth, survey.observations),
        *check_coadds(survey.datasets, survey.truth),
    ]
    assert len(checks) == 9
    assert failed(checks) == []


def test_a_wrong_pixel_is_noticed(survey: Survey) -> None:
    visit, path = next(iter(survey.raws.items()))

    def change(image: Any) -> None:
        image.image.array[77, 99] += 0.1

    datasets = changed(survey, change, "visit_image", visit)
    checks = check_images(datasets, {Raw(visit): path}, survey.truth, survey.observations)
    assert failed(checks) == ["1 images: raw - image / gain"]


def test_wrong_fluxes_are_noticed(survey: Survey) -> None:
    visit = survey.observations[0].id

    def change(catalogue: Any) -> None:
        catalogue["flux"] *= 1.05

    checks = check_catalogues(
        changed(survey, change, "visit_catalogue", visit), survey.truth, survey.observations
    )
    assert failed(checks) == ["fluxes: (measured - true) / error"]


def test_wrong_positions_are_noticed(survey: Survey) -> None:
    truth = replace(survey.truth, dec=survey.truth.dec + 0.01 / 3600)
    (name,) = failed(check_catalogues(survey.datasets, truth, survey.observations))
    assert name.startswith("positions of")


def test_a_star_that_was_not_found_is_noticed(survey: Survey) -> None:
    visit = survey.observations[0].id

    def change(catalogue: Any) -> None:
        inside = (
            (catalogue["x"] > 100) & (catalogue["x"] < 400) & (catalogue["y"] > 100) & (catalogue["y"] < 400)
        )
        catalogue.remove_row(int(np.flatnonzero(inside)[0]))

    checks = check_catalogues(
        changed(survey, change, "visit_catalogue", visit), survey.truth, survey.observations
    )
    assert failed(checks) == ["stars found"]


def test_a_star_that_is_none_is_noticed(survey: Survey) -> None:
    visit = survey.observations[0].id

    def change(catalogue: Any) -> None:
        row = dict(catalogue[0])
        catalogue.add_row(row | {"ra": row["ra"] + 3.0 / 3600})

    checks = check_catalogues(
        changed(survey, change, "visit_catalogue", visit), survey.truth, survey.observations
    )
    assert failed(checks) == ["detections that are no star"]


def test_a_coadd_of_the_wrong_depth_is_noticed(survey: Survey) -> None:
    def change(coadd: Any) -> None:
        coadd.image.array[...] *= 1.5

    datasets = changed(survey, change, "coadd", 0)
    datasets.stored = {
        key: changed(survey, change, *key).stored[key] if key[0] == "coadd" else dataset
        for key, dataset in datasets.stored.items()
    }
    assert len(failed(check_coadds(datasets, survey.truth))) == 3


def test_the_real_frame_is_followed_into_its_coadd() -> None:
    observation, path = real_raw()
    with fits.open(path) as hdus:
        raw = Image(hdus[0].data, metadata={key: hdus[0].header[key] for key in RAW_KEYWORDS})
    datasets = Datasets()
    box = Box.from_shape(IMAGE_SHAPE)
    frame = DetectorFrame(instrument=Ste3.getName(), detector=0, visit=observation.id, bbox=box)
    image = ReduceTask(config=ReduceTask.ConfigClass()).run(raw, observation.ra, observation.dec, frame).image
    datasets.put(image, "visit_image", observation.id)
    side = PATCHES_PER_SIDE * PATCH_SIZE
    for patch in range(PATCHES_PER_SIDE**2):
        tract = TractFrame(skymap=SKYMAP, tract=1, bbox=Box.from_shape((side, side)))
        result = CoaddTask(config=CoaddTask.ConfigClass()).run([Handle(image)], 1, patch, tract)
        datasets.put(result.coadd, "coadd", patch)
        datasets.put(result.depth, "coadd_depth", patch)
    assert check_single_coadd(datasets, observation).passed
    datasets.stored["coadd", 3].image.array[5, 5] += 1.0
    assert not check_single_coadd(datasets, observation).passed


def test_a_frame_with_another_pixel_is_noticed(survey: Survey) -> None:
    visit, path = next(iter(survey.raws.items()))
    pixels = fits.getdata(path)
    datasets = Datasets()
    ref = Raw(visit)
    datasets.put(Image(pixels), ref)
    assert check_frames(datasets, {ref: path}, "raws").passed
    other = pixels.copy()
    other[3, 4] ^= 1
    datasets.put(Image(other), ref)
    check = check_frames(datasets, {ref: path}, "raws")
    assert not check.passed
    assert path.name in check.measured


class Shelf(FileTree):
    """A directory that keeps a checksum of each file as it was written, as dCache does."""

    keeps_checksums = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.checksums: dict[str, tuple[str, str]] = {}

    def write(self, path: str, data: bytes) -> None:
        (self._root / path).parent.mkdir(exist_ok=True)
        (self._root / path).write_bytes(data)
        self.checksums[path] = ("adler32", digest("adler32", data))

    def checksum(self, path: str) -> tuple[str, str] | None:
        return self.checksums.get(path)


class TestAudit:
    """Bytes, records and the server's word."""

    RECORD = "adler32 of the bytes = of the record"
    SERVER = "adler32 of the bytes = the server's"

    @pytest.fixture
    def shelf(self, tmp_path: Path) -> Shelf:
        shelf = Shelf(tmp_path / "shelf")
        (tmp_path / "shelf").mkdir()
        shelf.write("run/a", b"abc")
        shelf.write("run/b", b"")
        return shelf

    @pytest.fixture
    def originals(self, tmp_path: Path) -> dict[str, Path]:
        (tmp_path / "original").write_bytes(b"abc")
        return {"run/a": tmp_path / "original"}

    def records(self) -> list[Artifact]:
        return [
            Artifact("run/a", 3, f"adler32:{digest('adler32', b'abc')}"),
            Artifact("run/b", 0, f"adler32:{digest('adler32', b'')}"),
        ]

    def test_all_is_well(self, shelf: Shelf, originals: dict[str, Path]) -> None:
        checks = check_artifacts(self.records(), shelf, originals)
        assert len(checks) == 4
        assert failed(checks) == []

    def test_nothing_to_look_at_is_a_failure(self, shelf: Shelf) -> None:
        assert len(failed(check_artifacts([], shelf, {}))) == 4

    def test_another_algorithm_of_the_server_is_as_good(
        self, shelf: Shelf, originals: dict[str, Path]
    ) -> None:
        shelf.checksums["run/a"] = ("md5", digest("md5", b"abc"))
        checks = check_artifacts(self.records(), shelf, originals)
        assert failed(checks) == []
        assert checks[3].name == "adler32 or md5 of the bytes = the server's"
        shelf.checksums["run/a"] = ("md5", digest("md5", b"abd"))
        assert failed(check_artifacts(self.records(), shelf, originals)) == [self.SERVER]

    def test_a_file_that_was_replaced_is_noticed(self, shelf: Shelf, originals: dict[str, Path]) -> None:
        shelf.write("run/b", b"b")
        checks = check_artifacts(self.records(), shelf, originals)
        assert failed(checks) == ["size of the bytes = of the record", self.RECORD]

    def test_a_byte_that_rotted_is_noticed(self, shelf: Shelf, originals: dict[str, Path]) -> None:
        (shelf._root / "run" / "a").write_bytes(b"abd")
        checks = check_artifacts(self.records(), shelf, originals)
        assert failed(checks) == [
            "bytes of ingested files = of the originals",
            self.RECORD,
            self.SERVER,
        ]

    @pytest.mark.parametrize("checksum", [None, "adler32:00000001", "blake2b:0123"])
    def test_a_record_without_the_checksum_is_noticed(
        self, shelf: Shelf, originals: dict[str, Path], checksum: str | None
    ) -> None:
        a, b = self.records()
        checks = check_artifacts([replace(a, checksum=checksum), b], shelf, originals)
        assert failed(checks) == [self.RECORD]
        assert checks[2].measured == "1 of 2 (not a)"

    def test_a_server_that_says_nothing_is_noticed(self, shelf: Shelf, originals: dict[str, Path]) -> None:
        shelf.checksums.clear()
        assert failed(check_artifacts(self.records(), shelf, originals)) == [
            "checksum of the bytes = the server's"
        ]

    def test_files_left_and_files_lost_are_noticed(self, shelf: Shelf) -> None:
        a, b = self.records()
        assert failed(check_removed([a], [b], shelf, [b])) == ["files of the removed run"]
        (shelf._root / "run" / "a").unlink()
        assert failed(check_removed([a], [b], shelf, [b])) == []
        assert failed(check_removed([a], [b], shelf, [a, b])) == ["records after removal"]
        (shelf._root / "run" / "b").unlink()
        assert failed(check_removed([a], [b], shelf, [b])) == ["files of other runs still there"]


class TestS3Tree:
    """The witness of what is in a bucket, and what it does without."""

    @pytest.fixture
    def place(self, seaweed: Any) -> str:
        return f"tree of {uuid.uuid4().hex}"

    @pytest.fixture
    def tree(self, seaweed: Any, place: str) -> Any:
        return open_storage(f"s3://{seaweed.bucket}/{quote(place)}/")

    def test_bytes_and_absence(self, seaweed: Any, place: str, tree: Any) -> None:
        seaweed.client().put_object(Bucket=seaweed.bucket, Key=f"{place}/run/a b", Body=b"abc")
        assert tree.exists("run/a b")
        assert tree.read("run/a b") == b"abc"
        assert not tree.exists("run/a")

    @pytest.mark.parametrize("algorithm", ["CRC64NVME", "CRC32C", "CRC32", "SHA256"])
    def test_the_server_s_checksum(self, seaweed: Any, place: str, tree: Any, algorithm: str) -> None:
        seaweed.client().put_object(
            Bucket=seaweed.bucket, Key=f"{place}/a", Body=b"abc", ChecksumAlgorithm=algorithm
        )
        assert tree.checksum("a") == (algorithm.lower(), digest(algorithm.lower(), b"abc"))

    def test_an_entity_tag_is_md5_unless_there_were_parts(
        self, seaweed: Any, place: str, tree: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer = {"ETag": f'"{digest("md5", b"abc")}"'}
        monkeypatch.setattr(tree, "_head", lambda path: answer)
        assert tree.checksum("a") == ("md5", digest("md5", b"abc"))
        answer["ETag"] = f'"{digest("md5", b"abc")}-2"'
        answer |= {"ChecksumCRC32C": "AAAAAA==-2", "ChecksumType": "COMPOSITE"}
        assert tree.checksum("a") is None

    def test_a_profile_names_endpoint_and_account(
        self, seaweed: Any, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seaweed.client().put_object(Bucket=seaweed.bucket, Key=f"{place}/a", Body=b"abc")
        account = seaweed.url.replace("://", f"://{seaweed.reader_access_key}:{seaweed.reader_secret_key}@")
        monkeypatch.setenv("LSST_RESOURCES_S3_PROFILE_site", account)
        monkeypatch.setenv("S3_ENDPOINT_URL", "http://localhost:1")
        assert open_storage(f"s3://site@{seaweed.bucket}/{quote(place)}/").read("a") == b"abc"


def test_storage_is_chosen_by_scheme(tmp_path: Path) -> None:
    assert isinstance(open_storage("davs://door.example.org:2880/demo/"), WebdavTree)
    assert isinstance(open_storage(f"{tmp_path.as_uri()}/"), FileTree)
    with pytest.raises(ValueError, match="not to gopher"):
        open_storage("gopher://example.org/")


def test_the_table_adds_up() -> None:
    report = Report(
        "somewhere",
        [
            Phase("write", 1.0, written=4, requests=Requests(door=8, pool=4, received=3_000_000)),
            Phase("read", 2.0, read=6, requests=Requests(door=6, pool=6, sent=9_000_000)),
        ],
        [Check("sums", "2", "3", False)],
    )
    text = report.render()
    assert re.search(r"^write +1\.0 +4 +- +- +3\.0 +0\.0 +8 +4 +2\.00 +1\.00$", text, re.MULTILINE)
    assert re.search(r"^all +3\.0 +4 +6 +- +3\.0 +9\.0 +14 +10 +1\.40 +1\.00$", text, re.MULTILINE)
    assert re.search(r"^FAILED +sums +2 +3$", text, re.MULTILINE)
    assert [check.name for check in report.failures] == ["sums"]


def read_when_ready(tree: Any, path: str) -> bytes:
    """Read from a server that has just been started."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return bytes(tree.read(path))
        except (BotoCoreError, ClientError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class TestCommand:
    """``dcache-butler demo``."""

    def test_everything_agrees_and_nothing_stays(self, tmp_path: Path) -> None:
        result = subprocess.run(
            [DCACHE_BUTLER, "demo"],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert "all 23 checks passed" in result.stdout
        assert "FAILED" not in result.stdout
        assert not list(tmp_path.iterdir())
        # Two requests at the door for a file that is written, one for a file that is read or removed; a few
        # more where the limiter has sent a client away.
        doors = dict(re.findall(r"^(ingest|read back|remove).* (\S+) +\S+$", result.stdout, re.MULTILINE))
        assert doors.keys() == {"ingest", "read back", "remove"}
        assert 2.0 <= float(doors["ingest"]) < 2.3
        assert 1.0 <= float(doors["read back"]) < 1.15
        assert 1.0 <= float(doors["remove"]) < 1.15

    def test_everything_agrees_on_s3_as_well(self, tmp_path: Path) -> None:
        result = subprocess.run(
            [DCACHE_BUTLER, "demo", "--store", "s3"],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert "SeaweedFS" in result.stdout
        assert "all 23 checks passed" in result.stdout
        assert "crc64nvme of the bytes = the server's" in result.stdout
        assert not list(tmp_path.iterdir())
        # One request for a file that is written, and one for all that are removed.
        requests = dict(re.findall(r"^(ingest|remove).* (\d+) +\d+ +\S+ +\S+$", result.stdout, re.MULTILINE))
        assert requests == {"ingest": "14", "remove": "1"}

    @pytest.fixture
    def without_pipeline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Leave out what takes the time, for demos that end before its outputs are looked at."""
        monkeypatch.setattr(run, "run_pipeline", lambda repository, log, progress: 0)

    @pytest.mark.usefixtures("without_pipeline")
    def test_damage_is_noticed(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(command, ["--damage", "--out", str(tmp_path)])
        assert result.exit_code == 1
        assert "FAILED adler32 of the bytes = of the record: 13 of 14 (not raw_" in result.stdout
        assert "demo failed: bytes of ingested files = of the originals: 13 of 14 (not raw_" in result.stderr
        (folder,) = tmp_path.iterdir()
        assert {"report.txt", "dcache", "raws", "repository"} <= {path.name for path in folder.iterdir()}

    @pytest.mark.usefixtures("without_pipeline")
    def test_a_site_s_directory_is_clean_afterwards(self, embedded: Any) -> None:
        result = CliRunner().invoke(command, ["--url", embedded.url, "--damage"])
        assert result.exit_code == 1
        assert "demo failed: bytes of ingested files" in result.stderr
        written = {
            record["path"] for record in embedded.transcript() if "dcache-butler-demo-" in record["path"]
        }
        assert len(written) > 14
        assert not WebdavTree(embedded.url).exists(next(iter(written)).split("/")[2])

    @pytest.mark.usefixtures("without_pipeline")
    def test_a_bucket_is_clean_afterwards(self, seaweed: Any, s3_url: str) -> None:
        result = CliRunner().invoke(command, ["--url", s3_url, "--damage"])
        assert result.exit_code == 1
        assert "demo failed: bytes of ingested files" in result.stderr
        prefix = s3_url.removeprefix(f"s3://{seaweed.bucket}/")
        assert "Contents" not in seaweed.client().list_objects_v2(Bucket=seaweed.bucket, Prefix=prefix)

    @pytest.mark.usefixtures("without_pipeline")
    def test_what_was_kept_of_s3_can_be_served_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = CliRunner().invoke(command, ["--store", "s3", "--damage", "--out", str(tmp_path)])
        assert result.exit_code == 1
        (folder,) = tmp_path.iterdir()
        script = folder / "seaweedfs" / "serve.sh"
        assert f"served again by: sh {script}" in result.stdout
        assert script.stat().st_mode & 0o077 == 0
        name, value = re.findall(r"export (LSST\S+)=(\S+)", script.read_text())[0]
        monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(folder / "seaweedfs" / "ca.pem"))
        artifacts = recorded_artifacts(folder / "repository" / "gen3.sqlite3")
        tree = open_storage("s3://seaweedfs@butler/demo/")
        with subprocess.Popen(["sh", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                assert len(read_when_ready(tree, artifacts[0].path)) == artifacts[0].size
            finally:
                server.kill()

    def test_an_unusable_place_is_an_error(self) -> None:
        result = CliRunner().invoke(command, ["--url", "gopher://example.org/"])
        assert result.exit_code == 1
        assert "demo failed: ValueError: the demo writes to davs://" in result.stderr
