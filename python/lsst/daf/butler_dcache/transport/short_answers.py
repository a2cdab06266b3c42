"""Requests with a short answer, on the data plane: what a write sends besides its bytes.

Through `requests` a MOVE costs 0.36 ms of CPU, a third of an atomic write of 100 kB (see the decision page
``two-planes``). What is asked rarely, or answers with much, stays with the control plane.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType

from ..auth.credential import Credential
from ..errors import DeadlineError, DoorUnavailableError, OutcomeUnknownError
from .control import Answer
from .data import DataPlane
from .deadline import Deadline
from .retry import READS

__all__ = ("ask_shortly",)

_LONGEST_BYTES = 64 * 1024


def ask_shortly(
    plane: DataPlane,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
    body: bytes | None = None,
    deadline: Deadline,
    credential: Credential | None = None,
    authenticate: bool = True,
    elsewhere: bool = False,
) -> Answer:
    """Send a request and return its answer, of whose body not more than 64 KiB is wanted.

    Parameters
    ----------
    plane : `~.data.DataPlane`
        Who sends it.
    method : `str`
        HTTP method.
    url : `str`
        An ``http`` or ``https`` URL, percent-encoded; it is sent as it is.
    headers : `~collections.abc.Mapping`, optional
        Headers beside those that the plane sends itself.
    body : `bytes`, optional
        What is sent.
    deadline : `~.deadline.Deadline`
        Limits everything, waits included.
    credential : `~..auth.credential.Credential`, optional
        Takes the place of the endpoint's.
    authenticate : `bool`, optional
        `False` sends no credential at all.
    elsewhere : `bool`, optional
        Whether somebody asks another door if this one fails.

    Returns
    -------
    answer : `~.control.Answer`
        Any answer but 401 and a 429 that lasts.

    Raises
    ------
    OutcomeUnknownError
        If the answer to anything but a read broke off: look before you repeat it.
    DcacheError
        As `~.data.DataPlane.open`.
    """
    begun = time.monotonic()
    with plane.open(
        method,
        url,
        headers=headers,
        body=body,
        deadline=deadline,
        credential=credential,
        authenticate=authenticate and credential is None,
        elsewhere=elsewhere,
    ) as answer:
        if answer.length == 0:
            text = b""
        else:
            memory = bytearray(min(answer.length or _LONGEST_BYTES, _LONGEST_BYTES))
            try:
                text = bytes(memory[: answer.fill(memoryview(memory))])
            except (DeadlineError, DoorUnavailableError) as exc:
                if method in READS:
                    raise
                raise OutcomeUnknownError(
                    "the answer broke off", operation=method, url=url, status=answer.status
                ) from exc
        return Answer(
            answer.status,
            answer.reason,
            answer.headers,
            text,
            url,
            answer.attempts,
            time.monotonic() - begun,
        )
