"""The camera as the Butler sees it."""

from __future__ import annotations

__all__ = ("Ste3",)

from lsst.daf.butler import DataId, FormatterV2
from lsst.daf.butler.registry import Registry
from lsst.pipe.base import Instrument

from .formatters import FitsFrameFormatter
from .frames import REAL_FILTER
from .simulation import BAND, PHYSICAL_FILTER

_UNLIMITED = 2**31 - 1


class Ste3(Instrument):
    """The STE3 camera of the SAAO 1.0 m telescope: one CCD.

    Parameters
    ----------
    collection_prefix : `str`, optional
        What the names of collections begin with; the instrument's name by default.
    """

    policyName = "ste3"  # noqa: N815 (the name is pipe_base's)

    @classmethod
    def getName(cls) -> str:
        """Return the instrument's name in data IDs.

        Returns
        -------
        name : `str`
            The name.
        """
        return "STE3"

    def register(self, registry: Registry, *, update: bool = False) -> None:
        """Insert the records of instrument, detector and filters.

        Parameters
        ----------
        registry : `lsst.daf.butler.Registry`
            Registry to write to.
        update : `bool`, optional
            Whether records that differ are replaced.

        Raises
        ------
        lsst.daf.butler.registry.ConflictingDefinitionError
            Raised if a record is there with other values and ``update`` is `False`.
        """
        name = self.getName()
        with registry.transaction():
            registry.syncDimensionData(
                "instrument",
                {
                    "name": name,
                    "class_name": f"{type(self).__module__}.{type(self).__qualname__}",
                    "detector_max": 1,
                    "exposure_max": _UNLIMITED,
                    "visit_max": _UNLIMITED,
                    "visit_system": 0,
                },
                update=update,
            )
            detector = {"instrument": name, "id": 0, "full_name": "CCD", "purpose": "SCIENCE"}
            registry.syncDimensionData("detector", detector, update=update)
            for physical_filter, band in ((PHYSICAL_FILTER, BAND), (REAL_FILTER, "unknown")):
                record = {"instrument": name, "name": physical_filter, "band": band}
                registry.syncDimensionData("physical_filter", record, update=update)
            visit_system = {"instrument": name, "id": 0, "name": "one-to-one"}
            registry.syncDimensionData("visit_system", visit_system, update=update)

    def getRawFormatter(self, dataId: DataId) -> type[FormatterV2]:  # noqa: N803
        """Return how a raw is read.

        Parameters
        ----------
        dataId : `lsst.daf.butler.DataId`
            Identifier of the raw; all are alike.

        Returns
        -------
        formatter : `type`
            The formatter class.
        """
        return FitsFrameFormatter
