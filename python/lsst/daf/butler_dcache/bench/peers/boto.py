"""The library boto3, with s3transfer, as it comes."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

from ..work import Job, UnsupportedWorkError
from .client import Client, Done, Sink, Source
from .receiving import receive

__all__ = ("make",)

_AT_ONCE = 1000
_LIFETIME_SECONDS = 300


class _Boto(Client):
    _client: Any = None

    def connect(self, job: Job) -> None:
        try:
            boto3 = importlib.import_module("boto3")
        except ModuleNotFoundError as error:
            raise UnsupportedWorkError("boto3 is not installed") from error
        self._errors = importlib.import_module("botocore.exceptions")
        configuration = importlib.import_module("botocore.config").Config(s3={"addressing_style": "path"})
        self._client = boto3.client("s3", endpoint_url=job.access.url, config=configuration)
        self._bucket = job.access.bucket
        if job.contact:
            self._client.head_object(Bucket=self._bucket, Key=job.contact)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def get(self, name: str, sink: Sink) -> Done:
        match sink.kind:
            case "memory":
                return Done(len(self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read()))
            case "file":
                self._client.download_file(self._bucket, name, sink.path)
                return Done(os.stat(sink.path).st_size)
        return receive(sink, lambda target: self._client.download_fileobj(self._bucket, name, target))

    def put(self, name: str, source: Source) -> Done:
        if source.data is not None:
            self._client.put_object(Bucket=self._bucket, Key=name, Body=source.data)
        else:
            self._client.upload_file(source.path, self._bucket, name)
        return Done(source.size)

    def exists(self, name: str) -> bool:
        try:
            self._client.head_object(Bucket=self._bucket, Key=name)
        except self._errors.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
        return True

    def walk(self, directory: str) -> int:
        pages = self._client.get_paginator("list_objects_v2")
        return sum(page["KeyCount"] for page in pages.paginate(Bucket=self._bucket, Prefix=f"{directory}/"))

    def remove(self, name: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=name)

    def remove_many(self, names: Sequence[str]) -> int:
        removed = 0
        for begin in range(0, len(names), _AT_ONCE):
            keys = [{"Key": name} for name in names[begin : begin + _AT_ONCE]]
            answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": keys})
            removed += len(answer["Deleted"])
        return removed

    def rename(self, name: str, new: str) -> None:
        self._client.copy({"Bucket": self._bucket, "Key": name}, self._bucket, new)
        self.remove(name)

    def presign(self, name: str) -> None:
        where = {"Bucket": self._bucket, "Key": name}
        self._client.generate_presigned_url("get_object", Params=where, ExpiresIn=_LIFETIME_SECONDS)


def make(name: str) -> _Boto:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Boto(name)
