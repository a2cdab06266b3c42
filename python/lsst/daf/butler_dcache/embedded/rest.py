"""What the resources of the REST frontend share: JSON in, JSON out, errors as JSON."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from .exchange import Exchange

__all__ = ["RestError", "answer_json", "answer_nothing", "read_json"]

_TITLES = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request Entity Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
}


class RestError(Exception):
    """A request that is refused with dCache's JSON error.

    Parameters
    ----------
    status : `int`
        Status code.
    detail : `str`, optional
        What a client may learn from; dCache repeats the title for most
        codes.
    title : `str`, optional
        Reason phrase, if it is not the usual one.

    Notes
    -----
    See ``ErrorResponseProvider`` and the protocol page, section 7.1.
    """

    def __init__(self, status: int, detail: str = "", title: str = "") -> None:
        self.status = status
        self.title = title or _TITLES.get(status, str(status))
        self.detail = detail or self.title
        super().__init__(self.detail)


def answer_json(
    exchange: Exchange,
    status: int,
    value: object,
    *,
    reason: str = "",
    headers: Iterable[tuple[str, str]] = (),
) -> None:
    """Answer with a JSON document.

    Parameters
    ----------
    exchange : `Exchange`
        The request.
    status : `int`
        Status code.
    value : `object`
        The document.
    reason : `str`, optional
        Reason phrase.
    headers : iterable of `tuple`, optional
        Further fields.
    """
    body = json.dumps(value, indent=2, ensure_ascii=False).encode()
    exchange.answer(status, [*headers, ("Content-Type", "application/json")], body, reason=reason)


def answer_nothing(exchange: Exchange, status: int, headers: Iterable[tuple[str, str]] = ()) -> None:
    """Answer without a body.

    Parameters
    ----------
    exchange : `Exchange`
        The request.
    status : `int`
        Status code; 204 goes without ``Content-Length``.
    headers : iterable of `tuple`, optional
        Further fields.
    """
    exchange.answer(status, headers, framing="none" if status == 204 else "length")


def read_json(exchange: Exchange) -> Mapping[str, Any]:
    """Read the JSON object in a request's body.

    Parameters
    ----------
    exchange : `Exchange`
        The request.

    Returns
    -------
    document : `~collections.abc.Mapping`
        The object; empty if there is no body.

    Raises
    ------
    RestError
        With 400 and the text of Java's ``JSONObject`` if there is no object.
    """
    body = exchange.body.read_all()
    if not body.strip():
        return {}
    try:
        document = json.loads(body)
    except ValueError as exc:
        raise RestError(400, f"Unparseable JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise RestError(400, "A JSONObject text must begin with '{' at 1 [character 2 line 1]")
    return document
