"""How the door words its refusals (protocol page, sections 1.7 and 1.8)."""

from __future__ import annotations

import html

from .access import NOBODY, LoginRefusedError
from .exchange import Exchange

__all__ = ["CHALLENGE", "DoorRefusalError", "answer_refusal", "refuse_login"]

CHALLENGE = ("WWW-Authenticate", 'Basic realm=""')
"""The one challenge that dCache sends; never one for bearer tokens."""


class DoorRefusalError(Exception):
    """A request that the door refuses.

    Parameters
    ----------
    status : `int`
        The status.
    cause : `str`
        What stands after ``Internal problem:`` or ``Insufficient storage:``.
    """

    def __init__(self, status: int, cause: str = "") -> None:
        super().__init__(f"{status} {cause}")
        self.status = status
        self.cause = cause


def _challenge(exchange: Exchange) -> list[tuple[str, str]]:
    if "suppress-www-authenticate" in exchange.headers:
        return [("Suppress-WWW-Authenticate", "suppressed")]
    return [CHALLENGE]


def refuse_login(exchange: Exchange, problem: LoginRefusedError) -> None:
    """Answer 401 with the cause in the reason phrase and no body."""
    exchange.answer(401, _challenge(exchange), reason=str(problem))


def _line(exchange: Exchange, status: int, cause: str) -> str:
    method, path = exchange.method, exchange.path
    return {
        400: f"Received a bad {method} request.",
        401: f"You are not unauthorised for {method} on path {path}",
        403: cause or f"Permission denied for {method} on path {path}",
        404: f"Path not found: {path}",
        405: f"Method {method} is not allowed.",
        501: f"Method {method} is not implemented.",
        507: f"Insufficient storage: {cause or 'SER_DISK_FULL'}",
    }.get(status, f"Internal problem: {cause}")


def answer_refusal(
    exchange: Exchange, problem: DoorRefusalError, headers: list[tuple[str, str]] | None = None
) -> None:
    """Answer a refusal in the door's words.

    Parameters
    ----------
    exchange : `Exchange`
        The request; a missing right is 401 for nobody and 403 for everybody else.
    problem : `DoorRefusalError`
        What is wrong.
    headers : `list`, optional
        Fields that were set before the problem was met.
    """
    status = problem.status
    rows = list(headers or [])
    if status == 412 or (status == 409 and problem.cause):  # an exception inside dCache: no body
        exchange.answer(status, rows, framing="chunked")
        return
    if status == 409:  # Milton's own
        exchange.answer(status, rows, b"<html><body><h1>Conflict</h1></body></html>", framing="chunked")
        return
    if status == 403 and exchange.login is NOBODY:
        status = 401
    if status == 401:
        rows += _challenge(exchange)
    line = _line(exchange, status, problem.cause)
    if "text/html" in exchange.headers.get("accept") and "text/plain" not in exchange.headers.get("accept"):
        page = f"<html><head><title>{status}</title></head><body><h1>{html.escape(line)}</h1></body></html>\n"
        exchange.answer(status, [*rows, ("Content-Type", "text/html;charset=utf-8")], page.encode())
        return
    exchange.answer(status, [*rows, ("Content-Type", "text/plain;charset=utf-8")], f"{line}\n".encode())
