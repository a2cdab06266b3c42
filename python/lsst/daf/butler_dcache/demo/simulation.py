"""Simulated raw frames of a field of stars whose positions and fluxes are known.

The frames look like those of the real camera: prescan and overscan, bias level, gain and read noise, 16-bit
numbers, the same keywords. The stars are Gaussians integrated over pixels, far enough apart that none
disturbs another, and the photons are counted (Poisson), so the scatter of every measurement can be predicted
and not only its mean.
"""

from __future__ import annotations

__all__ = (
    "BAND",
    "GAIN",
    "PHYSICAL_FILTER",
    "PSF_SIGMA",
    "READ_NOISE",
    "Truth",
    "simulate_raw",
    "simulate_visits",
)

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from scipy.special import erf

from .geometry import (
    FIELD_CENTRE,
    IMAGE_SHAPE,
    PIXEL_SCALE_ARCSEC,
    RAW_SHAPE,
    detector_wcs,
    parse_section,
    tract_wcs,
)
from .observation import Observation

GAIN = 1.9
"""Electrons per count."""

READ_NOISE = 5.0
"""Electrons, root mean square."""

PSF_SIGMA = 1.8
"""Width of a star, pixels."""

SKY_LEVEL = 300.0
"""Electrons per pixel."""

BIAS_LEVEL = 1000.0
"""Counts."""

TRIM_SECTION = "[17:528, 1:520]"
OVERSCAN_SECTION = "[4:13, 1:520]"
PHYSICAL_FILTER = "sim_r"
BAND = "r"

_SEPARATION = 22.0
_STAMP = 9
_DITHER_PIXELS = 45
_DAY_OBS = 20260101


@dataclass(frozen=True)
class Truth:
    """The stars of the simulated field.

    Parameters
    ----------
    ra, dec : `numpy.ndarray`
        Positions, degrees.
    flux : `numpy.ndarray`
        Electrons per exposure.
    """

    ra: npt.NDArray[np.float64]
    dec: npt.NDArray[np.float64]
    flux: npt.NDArray[np.float64]

    @classmethod
    def draw(cls, seed: int, count: int = 240) -> Truth:
        """Draw stars at random places that keep a distance from one another.

        Parameters
        ----------
        seed : `int`
            Of the random generator: the same seed is the same sky.
        count : `int`, optional
            Number of places to try; those too near to an earlier one are dropped.

        Returns
        -------
        truth : `Truth`
            The stars.
        """
        generator = np.random.default_rng(seed)
        half = 0.5 * max(RAW_SHAPE) + _DITHER_PIXELS + 2 * _STAMP
        places: list[npt.NDArray[np.float64]] = []
        for place in generator.uniform(-half, half, (count, 2)):
            if all(np.hypot(*(place - other)) > _SEPARATION for other in places):
                places.append(place)
        wcs = tract_wcs(0)
        x, y = (np.array(places) + wcs.wcs.crpix - 1.0).T
        ra, dec = wcs.pixel_to_world_values(x, y)
        return cls(ra, dec, 10.0 ** generator.uniform(3.5, 5.0, len(places)))


def simulate_visits(truth: Truth, folder: Path, seed: int, count: int) -> list[tuple[Observation, Path]]:
    """Observe the field several times and write the raw frames.

    Parameters
    ----------
    truth : `Truth`
        The sky.
    folder : `pathlib.Path`
        Where the files go; exists.
    seed : `int`
        Of the random generator that plays photons, noise and pointing.
    count : `int`
        Number of visits.

    Returns
    -------
    visits : `list` [ `tuple` [ `Observation`, `pathlib.Path` ] ]
        Each visit with its file: tile-compressed FITS, by turns RICE and GZIP.
    """
    generator = np.random.default_rng(seed)
    visits = []
    for number in range(1, count + 1):
        # Never half-way between two pixels of the coadd: it takes the nearest pixel of each visit, and there
        # the nearest would change within the image, with one column taken twice and another never.
        whole, rest = generator.integers(-_DITHER_PIXELS, _DITHER_PIXELS, 2), generator.uniform(-0.3, 0.3, 2)
        shift = (whole + rest) * PIXEL_SCALE_ARCSEC / 3600.0
        ra = FIELD_CENTRE[0] + shift[0] / np.cos(np.radians(FIELD_CENTRE[1]))
        observation = Observation(
            day_obs=_DAY_OBS,
            seq_num=number,
            begin=f"2026-01-02T01:{number:02d}:00",
            exposure_seconds=30.0,
            ra=float(ra),
            dec=float(FIELD_CENTRE[1] + shift[1]),
            physical_filter=PHYSICAL_FILTER,
            band=BAND,
            target="M13",
            simulated=True,
        )
        path = folder / f"{observation.name}.fits.fz"
        compression = "RICE_1" if number % 2 else "GZIP_2"
        raw = fits.CompImageHDU(
            simulate_raw(truth, observation.ra, observation.dec, generator),
            header=_header(observation),
            name="RAW",
            compression_type=compression,
        )
        fits.HDUList([fits.PrimaryHDU(), raw]).writeto(path)
        visits.append((observation, path))
    return visits


def simulate_raw(
    truth: Truth, ra: float, dec: float, generator: np.random.Generator
) -> npt.NDArray[np.uint16]:
    """Expose the detector once.

    Parameters
    ----------
    truth : `Truth`
        The sky.
    ra, dec : `float`
        Pointing, degrees.
    generator : `numpy.random.Generator`
        Plays photons and read noise.

    Returns
    -------
    raw : `numpy.ndarray`
        The frame in counts, prescan and overscan included.
    """
    rows, columns = IMAGE_SHAPE
    expected = np.full(IMAGE_SHAPE, SKY_LEVEL)
    x, y = detector_wcs(ra, dec).world_to_pixel_values(truth.ra, truth.dec)
    for star_x, star_y, flux in zip(x, y, truth.flux, strict=True):
        x0, x1 = max(0, int(star_x) - _STAMP), min(columns, int(star_x) + _STAMP + 2)
        y0, y1 = max(0, int(star_y) - _STAMP), min(rows, int(star_y) + _STAMP + 2)
        if x0 < x1 and y0 < y1:
            profile = np.outer(_pixel_integrals(y0, y1, star_y), _pixel_integrals(x0, x1, star_x))
            expected[y0:y1, x0:x1] += flux * profile
    counts = generator.normal(BIAS_LEVEL, READ_NOISE / GAIN, RAW_SHAPE)
    counts[parse_section(TRIM_SECTION)] += generator.poisson(expected) / GAIN
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def _pixel_integrals(start: int, stop: int, centre: float) -> npt.NDArray[np.float64]:
    edges = np.arange(start, stop + 1) - 0.5 - centre
    integrals: npt.NDArray[np.float64] = np.diff(0.5 * (1.0 + erf(edges / (np.sqrt(2.0) * PSF_SIGMA))))
    return integrals


def _header(observation: Observation) -> fits.Header:
    return fits.Header(
        {
            "OBSID": observation.name,
            "INSTRUME": "STE3 simulated",
            "OBJECT": observation.target,
            "FILTER": observation.physical_filter,
            "RA_OBS": observation.ra,
            "DEC_OBS": observation.dec,
            "EXPTIME": observation.exposure_seconds,
            "TRIMSEC": TRIM_SECTION,
            "BIASSEC": OVERSCAN_SECTION,
            "GAIN": GAIN,
            "RDNOISE": READ_NOISE,
        }
    )
