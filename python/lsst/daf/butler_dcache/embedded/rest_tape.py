"""The frontend's tape API (protocol page, section 7.5; WLCG tape REST API)."""

from typing import Any

from .access import PermissionDeniedError
from .bulk import FINAL, BulkRequest, BulkService, BulkTarget
from .caveats import normal_path
from .exchange import Exchange
from .latency import Latency
from .namespace import EntryMissingError
from .operations import Operator
from .rest import RestError, answer_json, answer_nothing, read_json
from .rest_bulk import find_request, submit_request
from .tape import TapeSystem

__all__ = ["TapeResource"]

_ARCHIVE_PATHS = 10_000
_LOCALITIES = {"ONLINE": "DISK", "NEARLINE": "TAPE", "ONLINE_AND_NEARLINE": "DISK_AND_TAPE"}
_STATES = {"CREATED": "SUBMITTED", "READY": "SUBMITTED", "RUNNING": "STARTED", "SKIPPED": "COMPLETED"}


class TapeResource:
    """``/api/v1/tape``.

    Parameters
    ----------
    service : `BulkService`
        Works stage requests off.
    tape : `TapeSystem`
        Knows where files are.
    latency : `Latency`
        How long a question takes.
    """

    def __init__(self, service: BulkService, tape: TapeSystem, latency: Latency) -> None:
        self._service = service
        self._tape = tape
        self._latency = latency

    def stage(self, exchange: Exchange, operator: Operator) -> None:
        """Accept a stage request.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        """
        document = read_json(exchange)
        unknown = sorted(set(document) - {"files"})
        if unknown:
            names = ",".join(f'"{name}"' for name in unknown)
            raise RestError(400, f"unrecognized payload element(s): [{names}]")
        files = document.get("files") or []
        if not files:
            raise RestError(400, "request had no files.")
        try:
            paths = [normal_path(str(item["path"])) for item in files]
        except (KeyError, TypeError):
            raise RestError(400, "file object had no path.") from None
        lifetimes = {
            path: str(item["diskLifetime"])
            for path, item in zip(paths, files, strict=True)
            if "diskLifetime" in item
        }
        request = BulkRequest(operator, "STAGE", "/", "NONE", {"diskLifetime": lifetimes})
        submit_request(self._service, request, paths)
        url = f"{exchange.base}/api/v1/tape/stage/{request.identifier}"
        answer_json(exchange, 201, {"requestId": request.identifier}, headers=[("Location", url)])

    def state(self, exchange: Exchange, operator: Operator, identifier: str) -> None:
        """Answer with the state of a stage request.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            Uuid of the stage request.
        """
        request = find_request(self._service, operator.login, identifier)
        targets = list(request.targets)
        ends = [target.finished for target in targets if target.finished is not None]
        document = {
            "id": request.identifier,
            "createdAt": request.arrived,
            "startedAt": request.started,
            "completedAt": max(ends) if ends and all(target.state in FINAL for target in targets) else None,
            "files": [_describe(target) for target in targets],
        }
        answer_json(exchange, 200, _present(document))

    def cancel(self, exchange: Exchange, operator: Operator, identifier: str) -> None:
        """Cancel some files of a stage request.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            Uuid of the stage request.
        """
        request = find_request(self._service, operator.login, identifier)
        paths = _paths(exchange)
        if not set(paths) <= {target.full for target in request.targets}:
            # An exception that no mapper of the frontend knows: Jetty's page, the text in a header.
            now = "must-revalidate,no-cache,no-store"
            fields = [("Server", exchange.listener.software), ("detail", "HTTP 400 Bad Request")]
            fields.append(("title", "File missing from stage request"))
            page = (
                b"<html><head><title>Error 400 Bad Request</title></head><body>HTTP ERROR 400</body></html>\n"
            )
            fields += [("Cache-Control", now), ("Content-Type", "text/html;charset=iso-8859-1")]
            exchange.answer(400, fields, page, bare=True)
            return
        self._service.cancel(request, paths)
        answer_nothing(exchange, 200)

    def delete(self, exchange: Exchange, operator: Operator, identifier: str) -> None:
        """Cancel and forget a stage request.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            Uuid of the stage request.
        """
        self._service.clear(find_request(self._service, operator.login, identifier))
        answer_nothing(exchange, 200)

    def release(self, exchange: Exchange, operator: Operator, identifier: str) -> None:
        """Let go of files; always 200, even for files that are not of the request.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            Uuid of the stage request.
        """
        paths = _paths(exchange)
        request = self._service.find(identifier)
        if request is not None and request.operator.login.uid == operator.login.uid:
            self._service.release(request, paths)
        answer_nothing(exchange, 200)

    def archive_info(self, exchange: Exchange, operator: Operator) -> None:
        """Tell where files are: the first 10,000 paths, each once, in no particular order.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        """
        paths = _paths(exchange)
        rows = []
        self._latency.spend("archive_info_path", len(paths[:_ARCHIVE_PATHS]))
        for path in sorted(set(paths[:_ARCHIVE_PATHS]), key=hash):
            try:
                rows.append({"path": path, "locality": self._locality(operator, path)})
            except EntryMissingError:
                rows.append({"path": path, "error": f"No such file or directory {path}"})
            except PermissionDeniedError:
                rows.append({"path": path, "error": f"Permission denied for {path}"})
        answer_json(exchange, 200, rows)

    def _locality(self, operator: Operator, path: str) -> str:
        """The tape API's word; an upload that never ended is called DISK, so DISK proves no good file."""
        entry = operator.find(operator.complete(path))
        if not entry.is_directory and entry.size is None:
            return "DISK"
        locality = self._tape.locality(entry)
        return _LOCALITIES.get(locality, locality)


def _paths(exchange: Exchange) -> list[str]:
    paths = read_json(exchange).get("paths") or []
    if not isinstance(paths, list) or not paths:
        raise RestError(400, "request had no paths.")
    return [normal_path(str(path)) for path in paths]


def _describe(target: BulkTarget) -> dict[str, Any]:
    return _present(
        {
            "path": target.full,
            "state": _STATES.get(target.state, target.state),
            "startedAt": target.started,
            "finishedAt": target.finished,
            "error": target.error,
        }
    )


def _present(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value is not None}
