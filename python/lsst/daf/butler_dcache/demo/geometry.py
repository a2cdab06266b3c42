"""Geometry of the camera, the pointings and the skymap, all from a few constants.

The camera is the STE3 CCD at the 1.0 m telescope of the South African Astronomical Observatory, because a
real frame of it can be had anywhere: the layout of a raw (prescan, overscan, useful part) and gain and read
noise are those of that frame's header. Pixel coordinates count from zero and lie at pixel centres, as in
numpy and astropy.
"""

from __future__ import annotations

__all__ = (
    "FIELD_CENTRE",
    "IMAGE_SHAPE",
    "PATCHES_PER_SIDE",
    "PATCH_SIZE",
    "PIXEL_SCALE_ARCSEC",
    "RAW_SHAPE",
    "SKYMAP",
    "TRACT_CENTRES",
    "detector_wcs",
    "parse_section",
    "patch_origin",
    "sky_polygon",
    "tract_wcs",
)

import re

import astropy.wcs
import numpy as np

from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

RAW_SHAPE = (520, 536)
"""Rows and columns of a raw frame."""

IMAGE_SHAPE = (520, 512)
"""Rows and columns of its useful part."""

PIXEL_SCALE_ARCSEC = 0.31

FIELD_CENTRE = (250.4226, 36.4602)
"""Right ascension and declination (degrees) of the simulated field: the centre of the M13 images."""

TRACT_CENTRES = (FIELD_CENTRE, (331.0334, -0.9253))
"""Centres of the tracts: the simulated field, and where the real frame was taken."""

SKYMAP = "demo_field"
PATCHES_PER_SIDE = 2
PATCH_SIZE = 320
"""Width and height of a patch, pixels."""

_SECTION = re.compile(r"\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]")


def parse_section(text: str) -> tuple[slice, slice]:
    """Parse an IRAF image section such as ``[17:528, 1:520]``.

    Parameters
    ----------
    text : `str`
        Columns, then rows; both count from one and include their ends.

    Returns
    -------
    section : `tuple` [ `slice`, `slice` ]
        Rows, then columns, as numpy wants them.

    Raises
    ------
    ValueError
        Raised if the text is not a section.
    """
    match = _SECTION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not an image section: {text!r}")
    x0, x1, y0, y1 = (int(number) for number in match.groups())
    return slice(y0 - 1, y1), slice(x0 - 1, x1)


def detector_wcs(ra: float, dec: float) -> astropy.wcs.WCS:
    """Return the coordinate system of one image.

    Parameters
    ----------
    ra, dec : `float`
        Where the telescope points (degrees): the middle of the useful part of the detector.

    Returns
    -------
    wcs : `astropy.wcs.WCS`
        Gnomonic projection, north up, east to the left.
    """
    rows, columns = IMAGE_SHAPE
    return _gnomonic(ra, dec, (columns + 1) / 2, (rows + 1) / 2)


def tract_wcs(tract: int) -> astropy.wcs.WCS:
    """Return the coordinate system of a tract.

    Parameters
    ----------
    tract : `int`
        Number of the tract.

    Returns
    -------
    wcs : `astropy.wcs.WCS`
        Gnomonic projection with the scale of the detector.
    """
    middle = (PATCHES_PER_SIDE * PATCH_SIZE + 1) / 2
    return _gnomonic(*TRACT_CENTRES[tract], middle, middle)


def patch_origin(patch: int) -> tuple[int, int]:
    """Return column and row of a patch's first pixel within the tract.

    Parameters
    ----------
    patch : `int`
        Number of the patch, counted along rows.

    Returns
    -------
    origin : `tuple` [ `int`, `int` ]
        Column and row in pixels of the tract.
    """
    row, column = divmod(patch, PATCHES_PER_SIDE)
    return column * PATCH_SIZE, row * PATCH_SIZE


def sky_polygon(wcs: astropy.wcs.WCS, x0: float, y0: float, width: float, height: float) -> ConvexPolygon:
    """Return the region of the sky that a box of pixels covers.

    Parameters
    ----------
    wcs : `astropy.wcs.WCS`
        Coordinate system of the pixels.
    x0, y0 : `float`
        First pixel.
    width, height : `float`
        Size in pixels.

    Returns
    -------
    region : `lsst.sphgeom.ConvexPolygon`
        The outline through the corners of the outer pixels.
    """
    x = np.array([x0, x0 + width, x0 + width, x0]) - 0.5
    y = np.array([y0, y0, y0 + height, y0 + height]) - 0.5
    ra, dec = wcs.pixel_to_world_values(x, y)
    return ConvexPolygon(
        [UnitVector3d(LonLat.fromDegrees(float(a), float(d))) for a, d in zip(ra, dec, strict=True)]
    )


def _gnomonic(ra: float, dec: float, crpix1: float, crpix2: float) -> astropy.wcs.WCS:
    wcs = astropy.wcs.WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [crpix1, crpix2]
    wcs.wcs.cdelt = [-PIXEL_SCALE_ARCSEC / 3600.0, PIXEL_SCALE_ARCSEC / 3600.0]
    return wcs
