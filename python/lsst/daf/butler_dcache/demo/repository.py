"""Making the repository and bringing the raw frames into it."""

from __future__ import annotations

__all__ = ("DATASTORE", "INPUTS", "OUTPUT", "RAW_RUN", "create_repository", "ingest", "survey_run")

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from astropy.time import Time

from lsst.daf.butler import (  # type: ignore[attr-defined]
    Butler,
    CollectionType,
    Config,
    DatasetRef,
    DatasetType,
    FileDataset,
    Timespan,
)
from lsst.sphgeom import HtmPixelization, LonLat, UnitVector3d

from .frames import SurveyImage
from .geometry import (
    FIELD_CENTRE,
    IMAGE_SHAPE,
    PATCH_SIZE,
    PATCHES_PER_SIDE,
    SKYMAP,
    TRACT_CENTRES,
    detector_wcs,
    patch_origin,
    sky_polygon,
    tract_wcs,
)
from .instrument import Ste3
from .observation import Observation

DATASTORE = "lsst.daf.butler_dcache.DcacheDatastore"
"""The datastore class of the repository."""

RAW_RUN = "STE3/raw/all"
INPUTS = "STE3/defaults"
OUTPUT = "u/demo/coadd"
"""The chain that ``pipetask`` makes; its run is one below."""

_SURVEY_LEVEL = 7


def survey_run(image: SurveyImage) -> str:
    """Return the run that holds a survey image.

    Parameters
    ----------
    image : `SurveyImage`
        The image.

    Returns
    -------
    run : `str`
        Name of the run: one for each compression, since all are images of the same place.
    """
    return f"SkyView/m13/{image.compression}"


def create_repository(folder: Path, root: str, datastore: str = DATASTORE) -> Butler:
    """Create a repository whose files live below a URL.

    Parameters
    ----------
    folder : `pathlib.Path`
        Where ``butler.yaml`` and the SQLite registry go; it is made.
    root : `str`
        URL of the datastore's root.
    datastore : `str`, optional
        Class of the datastore.

    Returns
    -------
    butler : `lsst.daf.butler.Butler`
        A writeable Butler; the caller closes it.
    """
    config = Config(
        {
            "datastore": {
                "cls": datastore,
                # Without a name of its own the datastore would be called after its root, and a root that
                # moves (another door, another port) would leave the registry with a datastore nobody has.
                "name": "dcache-demo",
                "root": root,
                # Nothing is served from a local cache: every read of the demo goes to the storage.
                "cached": {"default": False},
            }
        }
    )
    Butler.makeRepo(str(folder), config=config, forceConfigRoot=False)
    butler = Butler.from_config(str(folder), writeable=True)
    Ste3().register(butler.registry)
    _register_skymap(butler)
    return butler


def ingest(
    butler: Butler, raws: Iterable[tuple[Observation, Path]], survey: Iterable[SurveyImage]
) -> tuple[dict[DatasetRef, Path], dict[DatasetRef, Path]]:
    """Register observations and ingest their frames as they are.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        Writeable.
    raws : `~collections.abc.Iterable` [ `tuple` [ `Observation`, `pathlib.Path` ] ]
        Raw frames of the camera.
    survey : `~collections.abc.Iterable` [ `SurveyImage` ]
        Images of other origin, filed by their place on the sky.

    Returns
    -------
    raws, survey : `dict` [ `lsst.daf.butler.DatasetRef`, `pathlib.Path` ]
        What was ingested, with the file that it was copied from.
    """
    raw_type = DatasetType(
        "raw", butler.dimensions.conform(["instrument", "exposure", "detector"]), "ImageV2"
    )
    survey_type = DatasetType("survey_image", butler.dimensions.conform([f"htm{_SURVEY_LEVEL}"]), "ImageV2")
    for dataset_type in (raw_type, survey_type):
        butler.registry.registerDatasetType(dataset_type)

    butler.collections.register(RAW_RUN)
    raw_refs: dict[DatasetRef, Path] = {}
    for observation, path in raws:
        _register_observation(butler, observation)
        data_id = butler.registry.expandDataId(instrument=Ste3.getName(), exposure=observation.id, detector=0)
        raw_refs[DatasetRef(raw_type, data_id, run=RAW_RUN)] = path

    centre = UnitVector3d(LonLat.fromDegrees(*FIELD_CENTRE))
    data_id = butler.registry.expandDataId(
        {f"htm{_SURVEY_LEVEL}": HtmPixelization(_SURVEY_LEVEL).index(centre)}
    )
    survey_refs: dict[DatasetRef, Path] = {}
    for image in survey:
        butler.collections.register(survey_run(image))
        survey_refs[DatasetRef(survey_type, data_id, run=survey_run(image))] = image.path

    formatter = Ste3().getRawFormatter({})
    butler.ingest(
        *(FileDataset(str(path), ref, formatter=formatter) for ref, path in (raw_refs | survey_refs).items()),
        transfer="copy",
    )
    butler.collections.register(INPUTS, CollectionType.CHAINED)
    butler.collections.redefine_chain(INPUTS, [RAW_RUN])
    return raw_refs, survey_refs


def _register_skymap(butler: Butler) -> None:
    insert = butler.registry.insertDimensionData
    insert(
        "skymap",
        {
            "name": SKYMAP,
            "hash": hashlib.sha256(SKYMAP.encode()).digest(),
            "tract_max": len(TRACT_CENTRES),
            "patch_nx_max": PATCHES_PER_SIDE,
            "patch_ny_max": PATCHES_PER_SIDE,
        },
    )
    side = PATCHES_PER_SIDE * PATCH_SIZE
    for tract in range(len(TRACT_CENTRES)):
        wcs = tract_wcs(tract)
        insert("tract", {"skymap": SKYMAP, "id": tract, "region": sky_polygon(wcs, 0, 0, side, side)})
        for patch in range(PATCHES_PER_SIDE**2):
            x0, y0 = patch_origin(patch)
            region = sky_polygon(wcs, x0, y0, PATCH_SIZE, PATCH_SIZE)
            cell = {"cell_x": x0 // PATCH_SIZE, "cell_y": y0 // PATCH_SIZE}
            insert("patch", cell | {"skymap": SKYMAP, "tract": tract, "id": patch, "region": region})


def _register_observation(butler: Butler, observation: Observation) -> None:
    name, number = Ste3.getName(), observation.id
    begin = Time(observation.begin, scale="tai")
    noon = datetime.strptime(f"{observation.day_obs}T12", "%Y%m%dT%H")
    sync, insert = butler.registry.syncDimensionData, butler.registry.insertDimensionData
    day = Timespan(Time(noon, scale="tai"), Time(noon + timedelta(days=1), scale="tai"))
    sync("day_obs", {"instrument": name, "id": observation.day_obs, "timespan": day})
    insert("group", {"instrument": name, "name": str(number)})
    shared = {
        "instrument": name,
        "id": number,
        "physical_filter": observation.physical_filter,
        "day_obs": observation.day_obs,
        "seq_num": observation.seq_num,
        "exposure_time": observation.exposure_seconds,
        "target_name": observation.target,
        "observation_reason": "science",
        "science_program": "demo",
        "timespan": Timespan(
            begin, Time(begin.mjd + observation.exposure_seconds / 86400, format="mjd", scale="tai")
        ),
    }
    insert(
        "exposure",
        shared
        | {
            "obs_id": observation.name,
            "group": str(number),
            "observation_type": "science",
            "tracking_ra": observation.ra,
            "tracking_dec": observation.dec,
            "has_simulated": observation.simulated,
            "can_see_sky": True,
        },
    )
    rows, columns = IMAGE_SHAPE
    region = sky_polygon(detector_wcs(observation.ra, observation.dec), 0, 0, columns, rows)
    insert("visit", shared | {"name": observation.name, "region": region})
    insert("visit_definition", {"instrument": name, "exposure": number, "visit": number})
    insert("visit_system_membership", {"instrument": name, "visit": number, "visit_system": 0})
    insert("visit_detector_region", {"instrument": name, "visit": number, "detector": 0, "region": region})
