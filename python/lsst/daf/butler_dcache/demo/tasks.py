"""The pipeline's two tasks: one raw to a calibrated image and a catalogue, many images to one coadd."""

# ruff: noqa: N803 (pipe_base calls runQuantum with these names)

from __future__ import annotations

__all__ = ("CoaddConfig", "CoaddConnections", "CoaddTask", "ReduceConfig", "ReduceConnections", "ReduceTask")

from collections.abc import Sequence
from typing import Any

import astropy.units as u
import numpy as np
import numpy.typing as npt

from lsst.daf.butler import DeferredDatasetHandle
from lsst.images import (
    Box,
    DetectorFrame,
    Image,
    MaskedImage,
    MaskPlane,
    MaskSchema,
    SkyProjection,
    TractFrame,
)
from lsst.pex.config import Field
from lsst.pipe.base import (
    InputQuantizedConnection,
    OutputQuantizedConnection,
    PipelineTask,
    PipelineTaskConfig,
    PipelineTaskConnections,
    QuantumContext,
    Struct,
)
from lsst.pipe.base import connectionTypes as cT

from .geometry import PATCH_SIZE, PATCHES_PER_SIDE, detector_wcs, parse_section, patch_origin, tract_wcs
from .measure import clipped_mean, find_stars, sky_background

_MASK = MaskSchema([MaskPlane("BAD", "saturated, or no input at all")])
_SATURATED = 65535


class ReduceConnections(PipelineTaskConnections, dimensions=("instrument", "visit", "detector")):
    """What `ReduceTask` reads and writes."""

    raws = cT.Input(
        doc="Frames of the visit as the camera wrote them.",
        name="raw",
        storageClass="ImageV2",
        dimensions=("instrument", "exposure", "detector"),
        multiple=True,
    )
    image = cT.Output(
        doc="Calibrated image in electrons, without sky.",
        name="visit_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    catalogue = cT.Output(
        doc="Stars on the image.",
        name="visit_catalogue",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )


class ReduceConfig(PipelineTaskConfig, pipelineConnections=ReduceConnections):
    """Configuration of `ReduceTask`."""

    psf_sigma = Field[float](doc="Width of a star, pixels.", default=1.8)  # type: ignore[no-untyped-call]
    threshold = Field[float](  # type: ignore[no-untyped-call]
        doc="Detection threshold, standard deviations of the smoothed sky.", default=10.0
    )


class ReduceTask(PipelineTask):
    """Subtract bias and sky, apply the gain, find and measure stars."""

    ConfigClass = ReduceConfig
    config: ReduceConfig
    _DefaultName = "reduce"

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        """Read the raw, take the pointing from the graph's records, run and write.

        Parameters
        ----------
        butlerQC : `lsst.pipe.base.QuantumContext`
            The quantum's view of the Butler.
        inputRefs, outputRefs : `lsst.pipe.base.InputQuantizedConnection`
            Datasets to read and to write.
        """
        (raw,) = butlerQC.get(inputRefs)["raws"]
        exposure = inputRefs.raws[0].dataId.records["exposure"]
        data_id = outputRefs.image.dataId
        frame = DetectorFrame(
            instrument=data_id["instrument"],
            detector=data_id["detector"],
            visit=data_id["visit"],
            bbox=Box.from_shape(_trimmed(raw).shape),
        )
        butlerQC.put(self.run(raw, exposure.tracking_ra, exposure.tracking_dec, frame), outputRefs)

    def run(self, raw: Image, ra: float, dec: float, frame: DetectorFrame) -> Struct:
        """Reduce one raw.

        Parameters
        ----------
        raw : `lsst.images.Image`
            Counts, with the header's ``GAIN``, ``RDNOISE``, ``TRIMSEC`` and ``BIASSEC`` as metadata.
        ra, dec : `float`
            Pointing, degrees.
        frame : `lsst.images.DetectorFrame`
            Names the pixel grid of the result.

        Returns
        -------
        result : `lsst.pipe.base.Struct`
            ``image`` and ``catalogue``.
        """
        gain, read_noise = (float(str(raw.metadata[keyword])) for keyword in ("GAIN", "RDNOISE"))
        counts = _trimmed(raw)
        bias, _ = clipped_mean(raw.array[parse_section(str(raw.metadata["BIASSEC"]))].astype(float))
        electrons = (counts.astype(float) - bias) * gain
        psf_sigma, threshold = self.config.psf_sigma, self.config.threshold
        sky, noise = sky_background(electrons, psf_sigma, threshold)
        variance = np.clip(electrons, 0.0, None) + read_noise**2
        pixels = electrons - sky
        wcs = detector_wcs(ra, dec)
        catalogue = find_stars(pixels, variance, noise, psf_sigma, threshold)
        catalogue["ra"], catalogue["dec"] = wcs.pixel_to_world_values(catalogue["x"], catalogue["y"])
        image = _masked_image(
            pixels,
            variance,
            counts == _SATURATED,
            SkyProjection.from_fits_wcs(wcs, frame, frame.bbox),
            frame.bbox,
        )
        image.metadata.update({"BIAS": bias, "SKY": sky, "NOISE": noise, "GAIN": gain})
        self.log.info("visit %s: bias %.2f, sky %.2f, %d stars", frame.visit, bias, sky, len(catalogue))
        return Struct(image=image, catalogue=catalogue)


class CoaddConnections(PipelineTaskConnections, dimensions=("skymap", "tract", "patch", "band")):
    """What `CoaddTask` reads and writes."""

    images = cT.Input(
        doc="Calibrated images that touch the patch.",
        name="visit_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
        multiple=True,
        deferLoad=True,
    )
    coadd = cT.Output(
        doc="Weighted mean of the images, on the pixels of the tract.",
        name="coadd",
        storageClass="MaskedImageV2",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    depth = cT.Output(
        doc="Number of images in each pixel of the coadd.",
        name="coadd_depth",
        storageClass="ImageV2",
        dimensions=("skymap", "tract", "patch", "band"),
    )


class CoaddConfig(PipelineTaskConfig, pipelineConnections=CoaddConnections):
    """Configuration of `CoaddTask`: nothing to choose."""


class CoaddTask(PipelineTask):
    """Average images on the pixel grid of a patch, reading only the part of each that lies on it."""

    ConfigClass = CoaddConfig
    _DefaultName = "coadd"

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        """Run on deferred images and write.

        Parameters
        ----------
        butlerQC : `lsst.pipe.base.QuantumContext`
            The quantum's view of the Butler.
        inputRefs, outputRefs : `lsst.pipe.base.InputQuantizedConnection`
            Datasets to read and to write.
        """
        data_id = outputRefs.coadd.dataId
        frame = TractFrame(
            skymap=data_id["skymap"],
            tract=data_id["tract"],
            bbox=Box.from_shape((PATCHES_PER_SIDE * PATCH_SIZE,) * 2),
        )
        butlerQC.put(
            self.run(butlerQC.get(inputRefs)["images"], data_id["tract"], data_id["patch"], frame), outputRefs
        )

    def run(
        self, images: Sequence[DeferredDatasetHandle], tract: int, patch: int, frame: TractFrame
    ) -> Struct:
        """Make one patch.

        Parameters
        ----------
        images : `~collections.abc.Sequence` [ `lsst.daf.butler.DeferredDatasetHandle` ]
            Calibrated images.
        tract, patch : `int`
            Numbers of tract and patch.
        frame : `lsst.images.TractFrame`
            Names the pixel grid of the tract.

        Returns
        -------
        result : `lsst.pipe.base.Struct`
            ``coadd`` and ``depth``.
        """
        x0, y0 = patch_origin(patch)
        shape = (PATCH_SIZE, PATCH_SIZE)
        box = Box.from_shape(shape, start=(y0, x0))
        rows, columns = np.mgrid[y0 : y0 + PATCH_SIZE, x0 : x0 + PATCH_SIZE]
        wcs = tract_wcs(tract)
        ra, dec = wcs.pixel_to_world_values(columns, rows)
        total, variance, weights = (np.zeros(shape) for _ in range(3))
        depth = np.zeros(shape, dtype=np.int16)
        for handle in images:
            overlap = self._overlap(handle, ra, dec)
            if overlap is None:
                continue
            inside, image, y, x = overlap
            good = ~image.mask.get("BAD")[y, x]
            # One weight for all pixels: weights from each pixel's own photons would favour what fluctuated
            # down.
            weight = good / np.median(image.variance.array)
            total[inside] += weight * image.image.array[y, x]
            variance[inside] += weight**2 * image.variance.array[y, x]
            weights[inside] += weight
            depth[inside] += good
        covered = depth > 0
        safe = np.where(covered, weights, 1.0)
        coadd = _masked_image(
            total / safe,
            np.where(covered, variance / safe**2, np.inf),
            ~covered,
            SkyProjection.from_fits_wcs(wcs, frame, frame.bbox),
            box,
        )
        self.log.info(
            "tract %d, patch %d: %d images, mean depth %.1f", tract, patch, len(images), depth.mean()
        )
        return Struct(coadd=coadd, depth=Image(depth, bbox=box))

    def _overlap(
        self, handle: DeferredDatasetHandle, ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.bool_], MaskedImage, npt.NDArray[np.int_], npt.NDArray[np.int_]] | None:
        """Read the part of an image that lies on the patch; say where its pixels go."""
        box: Box = handle.get(component="bbox")
        wcs = handle.get(component="sky_projection").as_fits_wcs(box)
        x, y = (np.rint(values).astype(int) for values in wcs.world_to_pixel_values(ra, dec))
        inside = (x >= box.x.start) & (x < box.x.stop) & (y >= box.y.start) & (y < box.y.stop)
        if not inside.any():
            return None
        x, y = x[inside], y[inside]
        part = Box.factory[int(y.min()) : int(y.max()) + 1, int(x.min()) : int(x.max()) + 1]
        return inside, handle.get(parameters={"bbox": part}), y - part.y.start, x - part.x.start


def _trimmed(raw: Image) -> npt.NDArray[Any]:
    trimmed: npt.NDArray[Any] = raw.array[parse_section(str(raw.metadata["TRIMSEC"]))]
    return trimmed


def _masked_image(
    pixels: npt.NDArray[np.floating],
    variance: npt.NDArray[np.floating],
    bad: npt.NDArray[np.bool_],
    projection: SkyProjection[Any],
    box: Box,
) -> MaskedImage:
    image = MaskedImage(
        Image(pixels.astype(np.float32), bbox=box, unit=u.electron),
        variance=Image(variance.astype(np.float32), bbox=box),
        mask_schema=_MASK,
        sky_projection=projection,
    )
    image.mask.set("BAD", bad)
    return image
