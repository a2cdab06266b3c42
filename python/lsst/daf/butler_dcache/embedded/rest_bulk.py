"""The frontend's bulk resource (protocol page, section 7.6; dCache ``BulkResources.java``)."""

import re
from collections.abc import Mapping
from typing import Any

from .access import Login
from .bulk import ACTIVITIES, BulkRequest, BulkService, BulkTarget, RequestTooLargeError, TooManyRequestsError
from .caveats import normal_path
from .exchange import Exchange
from .faults import Faults
from .operations import Operator
from .rest import RestError, answer_json, answer_nothing, read_json

__all__ = ["BulkResource", "find_request", "submit_request"]

_PAGE = 10_000
_KEYS = {
    "activity", "target", "targetPrefix", "expandDirectories", "cancelOnFailure", "clearOnSuccess",
    "clearOnFailure", "arguments", "delayClear", "prestore",
}  # fmt: skip


def submit_request(service: BulkService, request: BulkRequest, targets: list[str]) -> None:
    """Hand a request over, with the frontend's answers to a refusal.

    Parameters
    ----------
    service : `BulkService`
        Who works it off.
    request : `BulkRequest`
        The request.
    targets : `list` [`str`]
        Its targets.

    Raises
    ------
    RestError
        With 413 or 429.
    """
    try:
        service.submit(request, targets)
    except RequestTooLargeError:
        raise RestError(413) from None
    except TooManyRequestsError:
        raise RestError(429) from None


def find_request(service: BulkService, login: Login, identifier: str) -> BulkRequest:
    """Look a request of the user up.

    Parameters
    ----------
    service : `BulkService`
        Where requests are kept.
    login : `Login`
        Who asks.
    identifier : `str`
        Its uuid.

    Returns
    -------
    request : `BulkRequest`
        The request.

    Raises
    ------
    RestError
        With 404 if it is unknown or was cleared, 403 if it is another's.
    """
    request = service.find(identifier)
    if request is None:
        raise RestError(404, f"request {identifier} not found")
    if request.operator.login.uid != login.uid:
        raise RestError(403)
    return request


class BulkResource:
    """``/api/v1/bulk-requests``.

    Parameters
    ----------
    service : `BulkService`
        Works the requests off.
    faults : `Faults`
        What goes wrong on request.
    """

    def __init__(self, service: BulkService, faults: Faults) -> None:
        self._service = service
        self._faults = faults

    def post(self, exchange: Exchange, operator: Operator) -> None:
        """Accept a request: 201 before any target is looked at.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        """
        document = {_camel(key): value for key, value in read_json(exchange).items()}
        activity = str(document.get("activity", "")).upper()
        unknown = sorted(set(document) - _KEYS)
        if unknown:
            raise RestError(400, f"unsupported arguments: [{', '.join(unknown)}]")
        targets = document.get("target") or []
        if isinstance(targets, str):
            targets = re.sub(r"\s", "", targets).split(",")
        # ``extractTarget`` strips the targets of an array, so that a trailing blank names another file.
        targets = [target for one in targets if (target := str(one).strip())]
        if not targets:
            raise RestError(400, "request contains no targets.")
        if activity not in ACTIVITIES:
            raise RestError(400, f"{activity or 'null'} is not a recognized activity.")
        arguments = document.get("arguments") or {}
        request = BulkRequest(
            operator,
            activity,
            normal_path(str(document.get("targetPrefix") or "/")),
            str(document.get("expandDirectories") or "NONE").upper(),
            {_camel(key): value for key, value in arguments.items()}
            if isinstance(arguments, Mapping)
            else {},
            clear_on_success=_flag(document, "clearOnSuccess"),
            clear_on_failure=_flag(document, "clearOnFailure"),
            cancel_on_failure=_flag(document, "cancelOnFailure"),
        )
        self._spoil(exchange, request)
        submit_request(self._service, request, targets)
        url = f"{exchange.base}/api/v1/bulk-requests/{request.identifier}"
        answer_nothing(exchange, 201, [("request-url", url), ("Content-Type", "application/json")])

    def _spoil(self, exchange: Exchange, request: BulkRequest) -> None:
        if fault := self._faults.take("bulk_slow", exchange):
            request.delay_seconds = fault.seconds
        if fault := self._faults.take("bulk_forget", exchange):
            request.end, request.end_after = "forget", fault.at_byte
        elif fault := self._faults.take("bulk_cancel", exchange):
            request.end, request.end_after = "cancel", fault.at_byte
        elif fault := self._faults.take("bulk_fail", exchange):
            request.end, request.end_after = "fail", fault.at_byte
            request.failure = fault.reason, fault.body

    def list(self, exchange: Exchange, operator: Operator) -> None:
        """Answer with summaries of requests.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        """
        status, path = exchange.parameter("status"), exchange.parameter("path")
        offset = _offset(exchange)
        entry = None
        if path is not None:
            # By the identifier of what the path is now (``JdbcBulkRequestStore.getRequestSummaries``).
            entry = operator.namespace.find(path)
            if entry is None:
                raise RestError(400, f"could not retrieve pnfsid for {path}")
        rows = [
            {
                "id": request.number,
                "url": f"{exchange.base}/api/v1/bulk-requests/{request.identifier}",
                "activity": request.activity,
                "status": request.status,
                "owner": str(request.operator.login.uid),
                "active": 0 if request.is_finished else 1,
            }
            for request in self._service.requests()
            if request.number >= offset
            and (status is None or request.status in status.split(","))
            and (entry is None or any(target.entry is entry for target in request.targets))
        ]
        answer_json(exchange, 200, rows[:_PAGE])

    def get(self, exchange: Exchange, operator: Operator, identifier: str) -> None:
        """Answer with the state of a request, a page of targets at a time.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            Uuid of the bulk request.
        """
        request = find_request(self._service, operator.login, identifier)
        offset = _offset(exchange)
        # Pages begin with the number of a target, and a full one never says that it is the last.
        page = [target for target in request.targets if target.identifier >= offset]
        page = sorted(page, key=lambda target: target.identifier)[:_PAGE]
        document = {
            "nextId": page[-1].identifier + 1 if len(page) == _PAGE else -1,
            "uid": request.identifier,
            "arrivedAt": request.arrived,
            "startedAt": request.started,
            "lastModified": request.modified,
            "status": request.status,
            "targetPrefix": request.prefix,
            "targets": [_describe(target) for target in page],
        }
        answer_json(exchange, 200, {key: value for key, value in document.items() if value is not None})

    def delete(self, exchange: Exchange, operator: Operator, identifier: str) -> None:
        """Clear a request.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            Uuid of the bulk request.
        """
        request = find_request(self._service, operator.login, identifier)
        if not request.is_finished and exchange.parameter("cancelIfRunning") != "true":
            raise RestError(403)
        self._service.clear(request)
        answer_nothing(exchange, 204)

    def patch(self, exchange: Exchange, operator: Operator, identifier: str) -> None:
        """Cancel a request, or some of its targets.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            Uuid of the bulk request.
        """
        request = find_request(self._service, operator.login, identifier)
        document = read_json(exchange)
        if document.get("action") != "cancel":
            raise RestError(400, f"unrecognized action: {document.get('action')}.")
        paths = document.get("paths")
        self._service.cancel(request, None if paths is None else [normal_path(str(path)) for path in paths])
        answer_nothing(exchange, 200)


def _describe(target: BulkTarget) -> dict[str, Any]:
    document = {
        "target": target.path,
        "state": target.state,
        "submittedAt": target.submitted,
        "startedAt": target.started,
        "finishedAt": target.finished,
        "errorType": target.error_type,
        "errorMessage": target.error,
        "id": target.identifier,
    }
    return {key: value for key, value in document.items() if value is not None}


def _offset(exchange: Exchange) -> int:
    try:
        return max(0, int(exchange.parameter("offset") or 0))
    except ValueError:
        raise RestError(400, "offset must be an integer value.") from None


def _camel(key: str) -> str:
    first, *rest = re.split(r"[_-]", str(key))
    return first + "".join(word.capitalize() for word in rest)


def _flag(document: Mapping[str, Any], key: str) -> bool:
    return str(document.get(key, False)).lower() == "true"
