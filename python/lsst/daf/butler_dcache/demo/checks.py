"""Comparing what the repository gives back with the truth.

The pixels and stars that are expected come from the simulation and from the packaged files, never from the
tasks: code that measured something wrongly is not asked to confirm it.
"""

from __future__ import annotations

__all__ = (
    "Reader",
    "check_catalogues",
    "check_coadds",
    "check_frames",
    "check_images",
    "check_parts",
    "check_single_coadd",
)

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from lsst.daf.butler import Butler, DatasetRef
from lsst.images import Box, MaskedImage

from .geometry import (
    IMAGE_SHAPE,
    PATCH_SIZE,
    PATCHES_PER_SIDE,
    PIXEL_SCALE_ARCSEC,
    SKYMAP,
    detector_wcs,
    parse_section,
    patch_origin,
    tract_wcs,
)
from .instrument import Ste3
from .observation import Observation
from .report import Check
from .simulation import BAND, READ_NOISE, SKY_LEVEL, Truth

_SINGLE_NOISE = float(np.sqrt(SKY_LEVEL + READ_NOISE**2))
_MATCH_PIXELS = 1.0
_STAR_RADIUS = 12


class Reader:
    """Reads datasets and counts them.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        Where to read; its default collections are searched.
    """

    def __init__(self, butler: Butler) -> None:
        self.butler = butler
        self.count = 0

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Read one dataset or a part of it.

        Parameters
        ----------
        *args, **kwargs : `~typing.Any`
            As for `lsst.daf.butler.Butler.get`.

        Returns
        -------
        dataset : `object`
            What was read.
        """
        self.count += 1
        return self.butler.get(*args, **kwargs)


def check_frames(reader: Reader, frames: Mapping[DatasetRef, Path], what: str) -> Check:
    """Compare ingested frames with the files they came from, pixel by pixel.

    Parameters
    ----------
    reader : `Reader`
        Reads the frames.
    frames : `~collections.abc.Mapping` [ `lsst.daf.butler.DatasetRef`, `pathlib.Path` ]
        Datasets and original files.
    what : `str`
        Names the frames.

    Returns
    -------
    check : `Check`
        All pixels agree, type included.
    """
    different = []
    for ref, path in frames.items():
        with fits.open(path) as hdus:
            original = next(hdu.data for hdu in hdus if hdu.data is not None)
        stored = reader.get(ref).array
        if stored.dtype != original.dtype.newbyteorder("=") or not np.array_equal(stored, original):
            different.append(path.name)
    return Check(
        f"pixels of {what}",
        f"{len(frames) - len(different)} of {len(frames)} frames equal"
        + (f" (not {different[0]})" if different else ""),
        "all equal",
        bool(frames) and not different,
    )


def check_images(
    reader: Reader, raws: Mapping[DatasetRef, Path], truth: Truth, observations: Sequence[Observation]
) -> list[Check]:
    """Compare each calibrated image with its raw: ``(raw - bias) * gain - sky`` in every pixel.

    Parameters
    ----------
    reader : `Reader`
        Reads the images.
    raws : `~collections.abc.Mapping` [ `lsst.daf.butler.DatasetRef`, `pathlib.Path` ]
        Raws and their original files.
    truth : `Truth`
        The stars.
    observations : `~collections.abc.Sequence` [ `Observation` ]
        The simulated visits.

    Returns
    -------
    checks : `list` [ `Check` ]
        The pixels; the noise of the sky.
    """
    simulated = {observation.id: observation for observation in observations}
    worst, noises = 0.0, []
    for ref, path in raws.items():
        with fits.open(path) as hdus:
            hdu = next(hdu for hdu in hdus if hdu.data is not None)
            trimmed = hdu.data[parse_section(hdu.header["TRIMSEC"])].astype(float)
            gain = float(hdu.header["GAIN"])
        visit = ref.dataId["exposure"]
        image = reader.get("visit_image", instrument=Ste3.getName(), visit=visit, detector=0)
        offset = image.image.array / gain - trimmed
        worst = max(worst, float(np.ptp(offset)))
        if visit in simulated:
            wcs = detector_wcs(simulated[visit].ra, simulated[visit].dec)
            noises.append(image.image.array[_away_from_stars(wcs, truth, image.image.array.shape)].std())
    noise = float(np.mean(noises))
    return [
        Check(
            f"{len(raws)} images: raw - image / gain",
            f"constant within {worst:.4f} counts",
            "within 0.01",
            worst < 0.01,
        ),
        Check(
            "noise of the sky, one visit",
            f"{noise:.2f} electrons",
            f"{_SINGLE_NOISE:.2f} within 4 %",
            abs(noise / _SINGLE_NOISE - 1.0) < 0.04,
        ),
    ]


def check_catalogues(reader: Reader, truth: Truth, observations: Sequence[Observation]) -> list[Check]:
    """Compare the catalogues with the simulated stars.

    Parameters
    ----------
    reader : `Reader`
        Reads the catalogues.
    truth : `Truth`
        The stars.
    observations : `~collections.abc.Sequence` [ `Observation` ]
        The simulated visits.

    Returns
    -------
    checks : `list` [ `Check` ]
        Completeness, false detections, positions, fluxes, errors of the fluxes.
    """
    rows, columns = IMAGE_SHAPE
    expected = found = unknown = 0
    shifts: list[npt.NDArray[np.float64]] = []
    pulls: list[float] = []
    for observation in observations:
        catalogue = reader.get("visit_catalogue", instrument=Ste3.getName(), visit=observation.id, detector=0)
        wcs = detector_wcs(observation.ra, observation.dec)
        true = np.column_stack(wcs.world_to_pixel_values(truth.ra, truth.dec))
        measured = np.column_stack(wcs.world_to_pixel_values(catalogue["ra"], catalogue["dec"]))
        distance = np.linalg.norm(true[:, None] - measured[None, :], axis=2)
        # A star whose centre is 15 pixels inside must be found; nearer to the edge it may be.
        inside = ((true > 15) & (true < np.array([columns, rows]) - 16)).all(axis=1)
        expected += int(inside.sum())
        found += int((distance.min(axis=1)[inside] < _MATCH_PIXELS).sum())
        unknown += int((distance.min(axis=0) >= _MATCH_PIXELS).sum())
        for star in np.flatnonzero(inside & (distance.min(axis=1) < _MATCH_PIXELS)):
            row = int(distance[star].argmin())
            pulls.append(float((catalogue["flux"][row] - truth.flux[star]) / catalogue["flux_err"][row]))
            if truth.flux[star] > 2e4:
                shifts.append(measured[row] - true[star])
    milliarcsec = np.array(shifts) * PIXEL_SCALE_ARCSEC * 1000.0
    offset = float(np.abs(milliarcsec.mean(axis=0)).max())
    scatter = float(milliarcsec.std())
    mean, deviation = float(np.mean(pulls)), float(np.std(pulls))
    return [
        Check("stars found", f"{found} of {expected}", "all", 0 < expected == found),
        Check("detections that are no star", str(unknown), "none", unknown == 0),
        Check(
            f"positions of {len(milliarcsec)} bright stars",
            f"offset {offset:.1f}, scatter {scatter:.1f} mas",
            "below 1.5, 8",
            offset < 1.5 and scatter < 8.0,
        ),
        Check(
            "fluxes: (measured - true) / error",
            f"mean {mean:+.2f}, deviation {deviation:.2f}",
            "0 +- 0.2, 1 +- 0.15",
            abs(mean) < 0.2 and abs(deviation - 1.0) < 0.15,
        ),
    ]


def check_coadds(reader: Reader, truth: Truth) -> list[Check]:
    """Compare the coadd of the simulated field with what that many visits should give.

    Parameters
    ----------
    reader : `Reader`
        Reads the patches.
    truth : `Truth`
        The stars.

    Returns
    -------
    checks : `list` [ `Check` ]
        The noise falls with the square root of the number of visits; the fluxes stay.
    """
    pixels, variance, depth = _read_tract(reader, 0, BAND)
    side = len(pixels)
    x, y = tract_wcs(0).world_to_pixel_values(truth.ra, truth.dec)
    sky = (depth > 0) & _away_from_stars(tract_wcs(0), truth, depth.shape)
    pulls = []
    for star_x, star_y, flux in zip(x, y, truth.flux, strict=True):
        box = np.s_[round(star_y) - 9 : round(star_y) + 10, round(star_x) - 9 : round(star_x) + 10]
        inside = min(star_x, star_y) > 10 and max(star_x, star_y) < side - 11
        # Where the edge of a visit crosses a star, its two halves are sums of differently placed pixels.
        if inside and depth[box].min() == depth[box].max() > 0:
            pulls.append((pixels[box].sum() - flux) / np.sqrt(variance[box].sum()))
    deepest = sky & (depth == depth.max())
    ratio = float(pixels[deepest].std() * np.sqrt(depth.max()) / _SINGLE_NOISE)
    normal = float((pixels[sky] / np.sqrt(variance[sky])).std())
    mean, deviation = float(np.mean(pulls)), float(np.std(pulls))
    return [
        Check(
            f"noise of {int(depth.max())} visits * sqrt({int(depth.max())}) / of one",
            f"{ratio:.3f}",
            "1 within 4 %",
            abs(ratio - 1.0) < 0.04,
        ),
        Check("coadd: sky / its error", f"{normal:.3f}", "1 within 4 %", abs(normal - 1.0) < 0.04),
        Check(
            f"coadd: {len(pulls)} fluxes, (sum - true) / error",
            f"mean {mean:+.2f}, deviation {deviation:.2f}",
            "0 +- 0.4, 1 +- 0.25",
            abs(mean) < 0.4 and abs(deviation - 1.0) < 0.25,
        ),
    ]


def check_single_coadd(reader: Reader, observation: Observation) -> Check:
    """Compare the coadd of one visit, whose tract is centred on its pointing, with the visit's image.

    Parameters
    ----------
    reader : `Reader`
        Reads image and patches.
    observation : `Observation`
        The visit, of tract 1.

    Returns
    -------
    check : `Check`
        Every pixel of the image is where it should be, and there is nothing else.
    """
    image = reader.get("visit_image", instrument=Ste3.getName(), visit=observation.id, detector=0)
    pixels, _, depth = _read_tract(reader, 1, observation.band)
    rows, columns = IMAGE_SHAPE
    y0, x0 = (len(pixels) - rows) // 2, (len(pixels) - columns) // 2
    area = np.s_[y0 : y0 + rows, x0 : x0 + columns]
    good = ~image.mask.get("BAD")
    equal = np.isclose(pixels[area], image.image.array, rtol=1e-6, atol=0.0) & (depth[area] == 1)
    count = int(np.count_nonzero(equal & good))
    return Check(
        "coadd of the real frame = its image",
        f"{count} of {int(good.sum())} pixels equal",
        "all equal",
        0 < count == good.sum() == depth.sum(),
    )


def check_parts(reader: Reader, raws: Iterable[DatasetRef]) -> list[Check]:
    """Compare components and cutouts with the whole dataset.

    Parameters
    ----------
    reader : `Reader`
        Reads all of them.
    raws : `~collections.abc.Iterable` [ `lsst.daf.butler.DatasetRef` ]
        Raws whose images are looked at, too.

    Returns
    -------
    checks : `list` [ `Check` ]
        Components, cutouts of images, cutouts of raws, columns of catalogues.
    """
    box = Box.factory[100:164, 200:300]
    area = np.s_[100:164, 200:300]
    components, cutouts, raw_cutouts, columns = [], [], [], []
    for ref in raws:
        data_id = {"instrument": Ste3.getName(), "visit": ref.dataId["exposure"], "detector": 0}
        whole: MaskedImage = reader.get("visit_image", data_id)
        plane = reader.get("visit_image.variance", data_id)
        components.append(np.array_equal(plane.array, whole.variance.array) and plane.bbox == whole.bbox)
        part = reader.get("visit_image", data_id, parameters={"bbox": box})
        cutouts.append(
            part.bbox == box
            and np.array_equal(part.image.array, whole.image.array[area])
            and np.array_equal(part.variance.array, whole.variance.array[area])
            and np.array_equal(part.mask.array, whole.mask.array[area])
        )
        raw = reader.get(ref)
        raw_cutouts.append(np.array_equal(reader.get(ref, parameters={"bbox": box}).array, raw.array[area]))
        catalogue = reader.get("visit_catalogue", data_id)
        fluxes = reader.get("visit_catalogue", data_id, parameters={"columns": ["flux"]})
        columns.append(fluxes.colnames == ["flux"] and np.array_equal(fluxes["flux"], catalogue["flux"]))
    results = {
        "component (variance) = part of the whole": components,
        "cutout of an image = part of the whole": cutouts,
        "cutout of a raw = part of the whole": raw_cutouts,
        "column of a catalogue = part of the whole": columns,
    }
    return [
        Check(name, f"{sum(equal)} of {len(equal)} equal", "all equal", bool(equal) and all(equal))
        for name, equal in results.items()
    ]


def _read_tract(reader: Reader, tract: int, band: str) -> tuple[npt.NDArray[np.float64], ...]:
    """Put the patches of a tract together: pixels, variance, number of visits."""
    side = PATCHES_PER_SIDE * PATCH_SIZE
    pixels, variance, depth = (np.zeros((side, side)) for _ in range(3))
    for patch in range(PATCHES_PER_SIDE**2):
        x0, y0 = patch_origin(patch)
        area = np.s_[y0 : y0 + PATCH_SIZE, x0 : x0 + PATCH_SIZE]
        data_id = {"skymap": SKYMAP, "tract": tract, "patch": patch, "band": band}
        coadd = reader.get("coadd", data_id)
        pixels[area], variance[area] = coadd.image.array, coadd.variance.array
        depth[area] = reader.get("coadd_depth", data_id).array
    return pixels, variance, depth


def _away_from_stars(wcs: WCS, truth: Truth, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Say which pixels no light of a star reaches."""
    away = np.ones(shape, dtype=bool)
    for x, y in zip(*wcs.world_to_pixel_values(truth.ra, truth.dec), strict=True):
        x0, y0 = max(0, int(x) - _STAR_RADIUS), max(0, int(y) - _STAR_RADIUS)
        near = np.s_[y0 : max(0, int(y) + _STAR_RADIUS + 2), x0 : max(0, int(x) + _STAR_RADIUS + 2)]
        rows, columns = np.ogrid[near]
        rows, columns = rows[: away[near].shape[0]], columns[:, : away[near].shape[1]]
        away[near] &= np.hypot(columns - x, rows - y) > _STAR_RADIUS
    return away
