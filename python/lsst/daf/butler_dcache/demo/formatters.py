"""How the Butler reads the FITS frames that were ingested as they are."""

from __future__ import annotations

__all__ = ("FitsFrameFormatter",)

from typing import IO, Any

from astropy.io import fits

from lsst.daf.butler import FormatterV2
from lsst.images import Box, Image
from lsst.resources import ResourcePath


class FitsFrameFormatter(FormatterV2):
    """Reads the first image of a FITS file, plain or tile-compressed.

    Notes
    -----
    The image is a `lsst.images.Image` with the values of the file, in the machine's byte order, and the
    header's cards as metadata. The parameter ``bbox`` reads a part of it, and then only the bytes of that
    part are asked for: tiles of a compressed image, rows of a plain one.
    """

    can_read_from_uri = True
    can_read_from_local_file = True
    supported_extensions = frozenset({".fits", ".fits.fz"})
    default_extension = ".fits"

    def read_from_uri(self, uri: ResourcePath, component: str | None = None, expected_size: int = -1) -> Any:
        """Read a part of a remote file; leave whole files to the Butler's cache.

        Parameters
        ----------
        uri : `lsst.resources.ResourcePath`
            The file.
        component : `str`, optional
            Not supported.
        expected_size : `int`, optional
            Not needed.

        Returns
        -------
        image : `lsst.images.Image` or `NotImplemented`
            The part; `NotImplemented` if everything was asked for.
        """
        if not self.file_descriptor.parameters:
            return NotImplemented
        filesystem, path = uri.to_fsspec()
        with filesystem.open(path, "rb") as stream:
            return self._read(stream, component)

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Image:
        """Read a local file, or a part of it.

        Parameters
        ----------
        path : `str`
            The file.
        component : `str`, optional
            Not supported.
        expected_size : `int`, optional
            Not needed.

        Returns
        -------
        image : `lsst.images.Image`
            The image.
        """
        with open(path, "rb") as stream:
            return self._read(stream, component)

    def _read(self, stream: IO[bytes], component: str | None) -> Image:
        if component is not None:
            raise ValueError(f"a FITS frame as it was ingested has no component {component!r}")
        bbox: Box | None = (self.file_descriptor.parameters or {}).get("bbox")
        with fits.open(stream, memmap=False, lazy_load_hdus=True) as hdus:
            hdu = next(hdu for hdu in hdus if hdu.is_image and hdu.header["NAXIS"] == 2)
            metadata = {
                card.keyword: card.value
                for card in hdu.header.cards
                if card.keyword not in ("", "COMMENT", "HISTORY")
                and not isinstance(card.value, fits.card.Undefined)
            }
            if bbox is None:
                data = hdu.data
                bbox = Box.from_shape(data.shape)
            else:
                data = hdu.section[bbox.y.start : bbox.y.stop, bbox.x.start : bbox.x.stop]
        # lsst.images wants the machine's byte order; FITS is big-endian.
        return Image(data.astype(data.dtype.newbyteorder("=")), bbox=bbox, metadata=metadata)
