"""Requests to dCache's frontend, and to others that speak JSON at a door (protocol page, section 7.1)."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode, urlsplit

from ..errors import ProtocolError
from ..transport.control import Answer, ControlPlane
from ..transport.deadline import Deadline
from ..transport.failures import failure

__all__ = ("Api", "document_of", "namespace_path")


class Api:
    """A REST interface.

    Parameters
    ----------
    base_url : `str`
        What all its URLs begin with, such as ``https://host:3880/api/v1``.
    control : `ControlPlane`
        Sends the requests; the server has to be one of its endpoint.
    """

    def __init__(self, base_url: str, control: ControlPlane) -> None:
        self.base_url = base_url.rstrip("/")
        self._control = control

    def ask(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        url: str,
        deadline: Deadline,
        query: Mapping[str, str | int] | None = None,
        wish: Any = None,
        accept: Container[int] = (200,),
        elsewhere: bool = False,
    ) -> Answer:
        """Send a request and return its answer.

        Parameters
        ----------
        method : `str`
            HTTP method.
        path : `str`
            Percent-encoded path below the base, with its leading slash.
        operation : `str`
            For messages.
        url : `str`
            For messages: what it is about, in the user's own form.
        deadline : `Deadline`
            When to give up.
        query : `~collections.abc.Mapping`, optional
            Names and values of the query.
        wish : `object`, optional
            What is sent as JSON.
        accept : `~collections.abc.Container` [ `int` ], optional
            Statuses to return; any other raises.
        elsewhere : `bool`, optional
            Whether the door is asked for the same if this server cannot be reached, so that it is not waited
            for.

        Returns
        -------
        answer : `Answer`
            Its status is one of ``accept``.

        Raises
        ------
        DcacheError
            Raised by cause, see `~..transport.failures`.
        """
        headers = {"Accept": "application/json"}
        if wish is not None:
            headers["Content-Type"] = "application/json"
        answer = self._control.request(
            method,
            self.base_url + path + (f"?{urlencode(query)}" if query else ""),
            headers=headers,
            body=None if wish is None else json.dumps(wish).encode(),
            deadline=deadline,
            elsewhere=elsewhere,
        )
        if answer.status not in accept:
            raise failure(
                answer,
                operation=operation,
                url=url,
                body=answer.body,
                method=method,
                attempts=answer.attempts,
                elapsed_seconds=deadline.elapsed,
            )
        return answer


def namespace_path(url: str) -> str:
    """Return where the frontend has the entry that a URL of the door names.

    Parameters
    ----------
    url : `str`
        A percent-encoded URL.

    Returns
    -------
    path : `str`
        Path below the base, encoded anew: JAX-RS would take what follows a plain ``;`` for a parameter of its
        own.
    """
    return "/namespace" + quote(unquote_to_bytes(urlsplit(url).path), safe="/")


def document_of(answer: Answer, kind: type, *, operation: str, url: str) -> Any:
    """Return the JSON of an answer.

    Parameters
    ----------
    answer : `Answer`
        An answer with a body.
    kind : `type`
        What it has to be: `dict` or `list`.
    operation, url : `str`
        For messages.

    Returns
    -------
    document : `dict` or `list`
        What it says.

    Raises
    ------
    ProtocolError
        Raised if it is no JSON, or something else.
    """
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, kind):
        raise ProtocolError(
            f"the answer holds no JSON {kind.__name__}", operation=operation, url=url, status=answer.status
        )
    return document
