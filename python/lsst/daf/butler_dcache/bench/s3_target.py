"""SeaweedFS as a target: an S3 server of other authors."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence

from .seaweedfs import SeaweedFs
from .stand_in import Ground, StandIn, place_together
from .target import Counts
from .work import Access, contents

__all__ = ("S3Target",)

_SETTLES_SECONDS = 0.1
_GONE = ("404", "NoSuchKey")


class S3Target(StandIn):
    """SeaweedFS with one bucket.

    Parameters
    ----------
    ground : `~.stand_in.Ground`
        Where.
    """

    kind = "s3"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        tls = ground.tls
        self._server = SeaweedFs(ground.run, ground.processes)
        self._client = self._server.client()
        self._bucket = self._server.bucket
        self._placed: set[str] = set()
        self.version = self._server.version
        self.access = Access(
            url=f"{self._server.tls_url if tls else self._server.url}/",
            environment=self._server.variables(tls=tls),
            ca_file=str(self._server.ca) if tls else None,
            bucket=self._bucket,
        )

    def new_name(self, stem: str, size: int) -> str:
        """Return a name for an upload.

        Parameters
        ----------
        stem : `str`
            Its beginning.
        size : `int`
            Not used.
        """
        return f"{stem}.dat"

    def provide(self, stem: str, size: int, data: bytes | None = None) -> str:
        """Place a file by boto3, unless it is there, and return its name.

        Parameters
        ----------
        stem : `str`
            Beginning of the name.
        size : `int`
            Bytes of `~.work.contents`.
        data : `bytes`, optional
            Or these.
        """
        name = self.new_name(stem, size)
        if name not in self._placed:
            file = io.BytesIO(contents(size) if data is None else data)
            with self._ground.spaces.server():
                self._client.upload_fileobj(file, self._bucket, name)
            self._placed.add(name)
        return name

    def provide_many(self, stems: Sequence[str], size: int) -> tuple[str, ...]:
        """Place files of one size, several at a time, and return their names.

        Parameters
        ----------
        stems : `~collections.abc.Sequence` [`str`]
            Beginnings of the names.
        size : `int`
            Bytes of each.
        """
        return place_together(self.provide, stems, size)

    def size(self, name: str) -> int | None:
        """Return the size of a file, `None` if there is none.

        Parameters
        ----------
        name : `str`
            Its name.
        """
        try:
            with self._ground.spaces.server():
                size: int = self._client.head_object(Bucket=self._bucket, Key=name)["ContentLength"]
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in _GONE:
                return None
            raise
        return size

    def clear(self, prefix: str) -> None:
        """Remove what begins so, and let the server give its space back.

        Parameters
        ----------
        prefix : `str`
            Beginning of the names.
        """
        with self._ground.spaces.server():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
                if keys:
                    self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})
            self._server.give_space_back()
        self._placed = {name for name in self._placed if not name.startswith(prefix)}

    def counts(self) -> Counts | None:
        """Return what the server counted so far; it tells nobody of its connections."""
        before = None
        with self._ground.spaces.server():
            while (counts := self._server.counts()) != before:  # a request is counted after its answer
                before = counts
                time.sleep(_SETTLES_SECONDS)
        requests, _, sent = counts
        return Counts(requests, 0, 0, 0, sent_bytes=sent)
