"""The S3 client of awscrt, which is written in C; s3transfer makes its requests."""

from __future__ import annotations

import importlib
import io
import time
from pathlib import Path
from typing import Any

from ..work import Job, UnsupportedWorkError
from .client import Client, Done, Sink, Source
from .receiving import receive

__all__ = ("make",)

_REGION = "us-east-1"


class _Crt(Client):
    def connect(self, job: Job) -> None:
        try:
            self._manager = _manager(job)
        except ModuleNotFoundError as error:
            raise UnsupportedWorkError(f"{error.name} is not installed") from error
        self._bucket = job.access.bucket
        if job.contact:
            self._manager.download(self._bucket, job.contact, io.BytesIO()).result()

    def get(self, name: str, sink: Sink) -> Done:
        if sink.kind != "file":
            return receive(sink, lambda target: self._manager.download(self._bucket, name, target).result())
        path = Path(sink.path)
        self._manager.download(self._bucket, name, sink.path).result()
        while not path.exists():  # the file gets its name a moment after that
            time.sleep(0.0005)
        return Done(path.stat().st_size)

    def put(self, name: str, source: Source) -> Done:
        body = source.path if source.data is None else io.BytesIO(source.data)
        self._manager.upload(body, self._bucket, name).result()
        return Done(source.size)


def _manager(job: Job) -> Any:
    crt = importlib.import_module("s3transfer.crt")
    session = importlib.import_module("botocore.session").get_session()
    client = importlib.import_module("botocore.config").Config(s3={"addressing_style": "path"})
    keys = crt.BotocoreCRTCredentialsWrapper(session.get_credentials()).to_crt_credentials_provider()
    verify = job.access.ca_file
    serializer = crt.BotocoreCRTRequestSerializer(
        session,
        {"region_name": _REGION, "endpoint_url": job.access.url, "verify": verify, "config": client},
    )
    secure = job.access.url.startswith("https:")
    return crt.CRTTransferManager(
        crt.create_s3_crt_client(
            region=_REGION, crt_credentials_provider=keys, use_ssl=secure, verify=verify
        ),
        serializer,
    )


def make(name: str) -> _Crt:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Crt(name)
