"""What the registry must know of one exposure."""

from __future__ import annotations

__all__ = ("Observation",)

from dataclasses import dataclass


@dataclass(frozen=True)
class Observation:
    """One exposure of the camera, real or simulated.

    Parameters
    ----------
    day_obs : `int`
        Observing day, ``YYYYMMDD``.
    seq_num : `int`
        Number within the day.
    begin : `str`
        Start of the exposure, ISO 8601, TAI.
    exposure_seconds : `float`
        Open-shutter time.
    ra, dec : `float`
        Pointing, degrees.
    physical_filter, band : `str`
        The filter and the band it stands for.
    target : `str`
        Name of the field.
    simulated : `bool`
        Whether a random generator was the sky.
    """

    day_obs: int
    seq_num: int
    begin: str
    exposure_seconds: float
    ra: float
    dec: float
    physical_filter: str
    band: str
    target: str
    simulated: bool

    @property
    def id(self) -> int:
        """Number of exposure and visit, unique for the instrument (`int`)."""
        return self.day_obs * 1000 + self.seq_num

    @property
    def name(self) -> str:
        """Name of exposure and visit (`str`)."""
        return f"{'SIM' if self.simulated else 'STE3'}_{self.day_obs}_{self.seq_num:03d}"
