"""``s3://`` resources for `lsst.resources`: those of WebDAV, but for what a key is.

A URL is ``s3://[profile@]bucket/key``, as `lsst.resources` has it. Nothing here imports boto3.
"""
# ruff: noqa: N803  (names that the base class dictates)

from __future__ import annotations

from typing import Any
from urllib.parse import ParseResult

from lsst.resources import ResourcePath

from .config.switches import DEFAULT_PROFILE
from .filesystem import DcacheFileSystem
from .registration import s3_class_of_upstream
from .resource_path import DcacheResourcePath

__all__ = ("DcacheS3ResourcePath", "chooser")


class DcacheS3ResourcePath(DcacheResourcePath):
    """An object, or all objects whose keys begin alike, in a bucket.

    Notes
    -----
    Made by `lsst.resources.ResourcePath` for ``s3`` URLs while this package is registered. A key is what the
    URL says, with empty components (``a//b``) and dots, except that slashes at its beginning mean nothing, as
    in `lsst.resources`.
    """

    @classmethod
    def _fixupPathUri(
        cls,
        parsed: ParseResult,
        root: ResourcePath | None = None,
        forceAbsolute: bool = False,
        forceDirectory: bool | None = None,
    ) -> tuple[ParseResult, bool | None]:
        # Here, where the factory brings what somebody wrote, and not where a path is made of another.
        parsed = parsed._replace(path="/" + parsed.path.lstrip("/"))
        is_bucket = parsed.path == "/" and forceDirectory is None
        return cls._fixDirectorySep(parsed, is_bucket or forceDirectory)

    @property
    def _url(self) -> str:
        # With its query, if somebody wrote one: the store refuses it, rather than take the key before it.
        return self._uri._replace(fragment="").geturl()

    def join(
        self, path: str | ResourcePath, isTemporary: bool | None = None, forceDirectory: bool | None = None
    ) -> ResourcePath:
        """Join a relative path to this one; see `lsst.resources.ResourcePath.join`.

        Parameters
        ----------
        path : `str` or `lsst.resources.ResourcePath`
            What to join.
        isTemporary : `bool`, optional
            Whether the result is temporary; as this one if `None`.
        forceDirectory : `bool`, optional
            Whether the result is a directory.

        Returns
        -------
        joined : `lsst.resources.ResourcePath`
            The empty components of this path are kept, those of the relative path vanish.
        """
        head, empty, tail = self.path.rpartition("//")
        if not empty or ResourcePath(path, forceAbsolute=False, forceDirectory=forceDirectory).isabs():
            return super().join(path, isTemporary=isTemporary, forceDirectory=forceDirectory)
        below = self.replace(path=f"/{tail}", forceDirectory=self.dirLike, isTemporary=self.isTemporary)
        joined = below.join(path, isTemporary=isTemporary, forceDirectory=forceDirectory)
        return joined.replace(
            path=f"{head}/{joined.path}", forceDirectory=joined.dirLike, isTemporary=joined.isTemporary
        )

    def parent(self) -> ResourcePath:
        """Return the directory that this is in; see `lsst.resources.ResourcePath.parent`.

        Returns
        -------
        directory : `DcacheS3ResourcePath`
            The directory; of a bucket, the bucket.
        """
        head, slash, _ = self.path.removesuffix("/").rpartition("/")
        return self.replace(path=head + slash, forceDirectory=True, fragment="", query="", params="")

    def to_fsspec(self) -> tuple[DcacheFileSystem, str]:
        """Return a file system and this resource's path in it.

        Returns
        -------
        fs : `~lsst.daf.butler_dcache.filesystem.DcacheFileSystem`
            File system for every endpoint.
        path : `str`
            Path to give to its methods.
        """
        return DcacheFileSystem(), self._url


def chooser(profiles: frozenset[str]) -> type[ResourcePath]:
    """Return what the factory shall find where not all profiles are claimed.

    Parameters
    ----------
    profiles : `frozenset` [`str`]
        Those that are; ``default`` stands for URLs without one.

    Returns
    -------
    chooser : `type`
        A class whose new objects become ours, or those of `lsst.resources`, before anybody sees them.

    Notes
    -----
    The factory asks the class that it has found for `_fixupPathUri`, makes an object without calling the
    class, and ends with `_set_proxy`, where some classes of `lsst.resources` complete their objects.
    """

    def kind(uri: ParseResult) -> type[ResourcePath]:
        profile, at, _ = uri.netloc.rpartition("@")
        is_ours = (profile if at else DEFAULT_PROFILE) in profiles
        return DcacheS3ResourcePath if is_ours else s3_class_of_upstream()

    class S3ResourcePath(ResourcePath):
        """Becomes the class of its profile."""

        @classmethod
        def _fixupPathUri(cls, parsed: ParseResult, *args: Any, **kwargs: Any) -> Any:
            return kind(parsed)._fixupPathUri(parsed, *args, **kwargs)

        def _set_proxy(self) -> None:
            self.__class__ = kind(self._uri)  # type: ignore[assignment]
            self._set_proxy()

    return S3ResourcePath
