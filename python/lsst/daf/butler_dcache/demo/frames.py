"""Real frames that come with Python packages, so that nothing has to be downloaded.

- ``a8280271.fits`` in ``ccdproc`` (BSD-3-Clause): a raw CCD frame, SAAO 1.0 m telescope, STE3 CCD, 2013.
- ``m13*.fits`` in ``astropy`` (BSD-3-Clause): one survey image of the globular cluster M13, plain and in four
  tile compressions.
"""

from __future__ import annotations

__all__ = ("REAL_FILTER", "SurveyImage", "real_raw", "survey_images")

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from astropy.io import fits

from .observation import Observation

REAL_FILTER = "saao_48"
"""Filter of the real raw: number 48 of the telescope's wheel."""


@dataclass(frozen=True)
class SurveyImage:
    """One survey image of M13.

    Parameters
    ----------
    compression : `str`
        ``none``, ``rice``, ``gzip``, ``hcomp`` or ``plio``.
    path : `pathlib.Path`
        The file.
    """

    compression: str
    path: Path


def real_raw() -> tuple[Observation, Path]:
    """Return the raw CCD frame.

    Returns
    -------
    observation : `Observation`
        What its header says.
    path : `pathlib.Path`
        The file.

    Raises
    ------
    FileNotFoundError
        Raised if the installed ``ccdproc`` does not bring the file.
    """
    path = _packaged("ccdproc", "tests/data/a8280271.fits")
    header = fits.getheader(path)
    date = header["DATE-OBS"]
    observation = Observation(
        day_obs=int(date.replace("-", "")),
        seq_num=1,
        begin=f"{date}T{header['UT']}",
        exposure_seconds=float(header["EXPTIME"]),
        ra=float(header["RA_OBS"]),
        dec=float(header["DEC_OBS"]),
        physical_filter=REAL_FILTER,
        band="unknown",
        target=header["OBJECT"].strip(),
        simulated=False,
    )
    return observation, path


def survey_images() -> list[SurveyImage]:
    """Return the survey images of M13: the same pixels, stored in five ways.

    Returns
    -------
    images : `list` [ `SurveyImage` ]
        The plain one first.

    Raises
    ------
    FileNotFoundError
        Raised if the installed ``astropy`` does not bring the files.
    """
    names = {"none": "m13"} | {name: f"m13_{name}" for name in ("rice", "gzip", "hcomp", "plio")}
    folder = "io/fits/hdu/compressed/tests/data"
    return [
        SurveyImage(compression, _packaged("astropy", f"{folder}/{name}.fits"))
        for compression, name in names.items()
    ]


def _packaged(package: str, name: str) -> Path:
    with as_file(files(package).joinpath(name)) as path:
        # A package that is installed by pip lies in files, so the path outlives the context.
        if not path.is_file():
            raise FileNotFoundError(f"the installed {package} does not bring {name}")
        return path
