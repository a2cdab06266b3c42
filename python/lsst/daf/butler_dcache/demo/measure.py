"""Detection and measurement of stars on one image; numpy in, table out."""

from __future__ import annotations

__all__ = ("clipped_mean", "find_stars", "sky_background")

import numpy as np
import numpy.typing as npt
from astropy.stats import sigma_clipped_stats
from astropy.table import Table
from scipy import ndimage

_APERTURE = 7.0
_BORDER = 11
_CENTROID_STEPS = 12


def clipped_mean(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Return mean and standard deviation of what is left when outliers are clipped.

    Parameters
    ----------
    values : `numpy.ndarray`
        Any numbers.

    Returns
    -------
    mean, deviation : `float`
        The mean, not the median: counts are whole numbers, and half a count in each pixel of an aperture is
        more than the error of a faint star.
    """
    mean, _, deviation = sigma_clipped_stats(values, sigma=4.0, maxiters=8)
    return float(mean), float(deviation)


def sky_background(
    image: npt.NDArray[np.floating], psf_sigma: float, threshold: float
) -> tuple[float, float]:
    """Estimate level and noise of the sky away from stars.

    Parameters
    ----------
    image : `numpy.ndarray`
        Pixels in electrons.
    psf_sigma : `float`
        Width of a star, pixels.
    threshold : `float`
        What counts as a star, see `find_stars`.

    Returns
    -------
    level, noise : `float`
        Mean and standard deviation, electrons per pixel.
    """
    level, noise = clipped_mean(image)
    stars = _peaks(image - level, noise, psf_sigma, threshold)
    # Clipping alone leaves the wings of the stars in, 0.3 electrons in each pixel of an aperture.
    away = ndimage.distance_transform_edt(~stars) > _BORDER
    return clipped_mean(image[away]) if away.any() else (level, noise)


def find_stars(
    image: npt.NDArray[np.floating],
    variance: npt.NDArray[np.floating],
    noise: float,
    psf_sigma: float,
    threshold: float,
) -> Table:
    """Find stars and measure their positions and fluxes.

    Parameters
    ----------
    image : `numpy.ndarray`
        Pixels in electrons, without sky.
    variance : `numpy.ndarray`
        Their variance.
    noise : `float`
        Noise of the sky, electrons per pixel.
    psf_sigma : `float`
        Width of a star, pixels.
    threshold : `float`
        Smallest peak of the smoothed image, in units of its noise.

    Returns
    -------
    stars : `astropy.table.Table`
        Columns ``x``, ``y`` (pixels), ``flux`` and ``flux_err`` (electrons within 7 pixels).
    """
    peaks = _peaks(image, noise, psf_sigma, threshold)
    peaks[:_BORDER] = peaks[-_BORDER:] = False
    peaks[:, :_BORDER] = peaks[:, -_BORDER:] = False
    rows = [_measure(image, variance, int(y), int(x), psf_sigma) for y, x in np.argwhere(peaks)]
    return Table(np.array(rows, dtype=float).reshape(-1, 4), names=("x", "y", "flux", "flux_err"))


def _peaks(
    image: npt.NDArray[np.floating], noise: float, psf_sigma: float, threshold: float
) -> npt.NDArray[np.bool_]:
    smooth = ndimage.gaussian_filter(image, psf_sigma)
    smooth_noise = noise / (2.0 * np.sqrt(np.pi) * psf_sigma)
    peaks: npt.NDArray[np.bool_] = (smooth > threshold * smooth_noise) & (
        smooth == ndimage.maximum_filter(smooth, 9)
    )
    return peaks


def _measure(
    image: npt.NDArray[np.floating],
    variance: npt.NDArray[np.floating],
    row: int,
    column: int,
    psf_sigma: float,
) -> tuple[float, float, float, float]:
    half = _BORDER - 1
    stamp = np.s_[row - half : row + half + 1, column - half : column + half + 1]
    pixels = image[stamp].astype(float)
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
    x = y = 0.0
    for _ in range(_CENTROID_STEPS):
        # With a weight as wide as the star the weighted mean lies half-way to the centre, hence the factor 2.
        weighted = pixels * np.exp(-0.5 * ((dx - x) ** 2 + (dy - y) ** 2) / psf_sigma**2)
        total = weighted.sum()
        x += float(np.clip(2.0 * (weighted * (dx - x)).sum() / total, -1.0, 1.0))
        y += float(np.clip(2.0 * (weighted * (dy - y)).sum() / total, -1.0, 1.0))
    aperture = np.hypot(dx - x, dy - y) <= _APERTURE
    flux, error = pixels[aperture].sum(), np.sqrt(variance[stamp][aperture].sum())
    return column + x, row + y, float(flux), float(error)
