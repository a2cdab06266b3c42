"""The frontend's namespace resource (protocol page, sections 7.2 to 7.4; dCache ``FileResources.java``)."""

import uuid
from collections.abc import Mapping
from typing import Any

from .caveats import Activity
from .door_read import content_type
from .entry import Entry, now_ms
from .exchange import Exchange
from .faults import Faults
from .latency import Latency
from .namespace import EntryExistsError, EntryMissingError, NamespaceError, NotADirectoryEntryError
from .operations import Operator, parent_path
from .rest import RestError, answer_json, read_json
from .tape import TapeSystem

__all__ = ["NamespaceResource", "checksum_documents"]

_CHECKSUM_NAMES = {
    "adler32": "ADLER32", "md5": "MD5_TYPE", "sha": "SHA1", "sha-256": "SHA256", "sha-512": "SHA512",
}  # fmt: skip
_CLASSES = {
    "disk": ("ONLINE", "REPLICA"),
    "tape": ("NEARLINE", "CUSTODIAL"),
    "disk+tape": ("ONLINE", "CUSTODIAL"),
    "volatile": ("NEARLINE", "REPLICA"),
}
_UNIT_SECONDS = {"SECONDS": 1, "MINUTES": 60, "HOURS": 3600, "DAYS": 86400}


def checksum_documents(entry: Entry) -> list[dict[str, str]]:
    """Write an entry's checksums as REST does.

    Parameters
    ----------
    entry : `Entry`
        The file.

    Returns
    -------
    documents : `list` [`dict`]
        Type and value in hex of each.
    """
    return [
        {"type": _CHECKSUM_NAMES[kind], "value": value} for kind, value in sorted(entry.checksums.items())
    ]


class NamespaceResource:
    """``/api/v1/namespace``.

    Parameters
    ----------
    tape : `TapeSystem`
        Pins and stages.
    faults : `Faults`
        Listings that end too early.
    latency : `Latency`
        How long a listing takes.
    pause_seconds : `float`, optional
        Time between look and act of a rename.
    """

    def __init__(
        self, tape: TapeSystem, faults: Faults, latency: Latency, pause_seconds: float = 0.0
    ) -> None:
        self._tape = tape
        self._faults = faults
        self._latency = latency
        self._pause_seconds = pause_seconds

    def get(self, exchange: Exchange, operator: Operator, path: str) -> None:
        """Answer ``GET``: one entry's attributes, on request its children's.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        path : `str`
            The entry.
        """
        begin, end = _slice(exchange)
        try:
            entry = operator.find(path)
            document = self._document(entry, exchange)
            if (exchange.parameter("children") or "").lower() == "true" and entry.is_directory:
                # In no order, and in another one than PROPFIND (protocol page, section 7.2).
                children = sorted(operator.listing(path)[1], key=lambda child: child.name[::-1])
                if self._faults.take("unlistable", exchange):
                    raise RestError(403)
                if fault := self._faults.take("shuffle_listing", exchange):
                    children = children[fault.hits :] + children[: fault.hits]
                if fault := self._faults.take("truncate_listing", exchange):
                    children = children[: fault.at_byte]
                is_full = "true" in (exchange.parameter("checksum"), exchange.parameter("locality"))
                kind = "rest_list_entry_in_full" if is_full else "rest_list_entry"
                self._latency.spend(kind, len(children[begin:end]))
                document["children"] = [
                    {**self._document(child, exchange), "fileName": child.name}
                    for child in children[begin:end]
                ]
        except EntryMissingError:
            raise RestError(404, f"No such file or directory {path}") from None
        answer_json(exchange, 200, document)

    def delete(self, exchange: Exchange, operator: Operator, path: str) -> None:
        """Answer ``DELETE``: a file or an empty directory goes.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        path : `str`
            The entry.
        """
        try:
            operator.remove(path)
        except EntryMissingError:
            raise RestError(404, f"No such file or directory: {path}") from None
        except NamespaceError as exc:
            raise RestError(400, str(exc)) from None
        answer_json(exchange, 200, {"status": "success"})

    def post(self, exchange: Exchange, operator: Operator, path: str) -> None:
        """Answer ``POST``: an action on an entry.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        path : `str`
            The entry.
        """
        document = read_json(exchange)
        action = str(document.get("action"))
        try:
            if action == "mkdir":
                self._mkdir(operator, path, document)
            elif action == "mv":
                self._mv(operator, path, document)
            elif action in ("pin", "unpin"):
                self._pin(operator, path, document)
            elif action in _UPDATES:
                entry = operator.find(path, Activity.UPDATE_METADATA)
                _require_owner(operator, entry)
                _UPDATES[action](entry, document)
                operator.namespace.tell("attributes", entry)
            else:
                raise RestError(400, f"No such action {action}")
        except EntryMissingError as exc:
            # The lookup of a rename knows no path any more when it fails, hence "null".
            shown = "null" if action == "mv" and not str(exc) else path
            raise RestError(404, f"No such file or directory: {shown}") from None
        except NamespaceError as exc:
            raise RestError(400, str(exc)) from None
        except KeyError as exc:
            raise RestError(400, f"JSONObject[{exc.args[0]!r}] not found.".replace("'", '"')) from None
        answer_json(exchange, 201, {"status": "success"})

    def _mkdir(self, operator: Operator, path: str, document: Mapping[str, Any]) -> None:
        name = str(document["name"])
        if "/" in name or name in ("", ".", ".."):
            raise RestError(400, f"Invalid name: {name}")
        operator.find(path)
        try:
            operator.make_directory(f"{path}/{name}")
        except EntryExistsError:
            raise RestError(400, f"File exists: {path.rstrip('/')}/{name}") from None

    def _mv(self, operator: Operator, path: str, document: Mapping[str, Any]) -> None:
        target = str(document["destination"])
        if not target.startswith("/"):
            target = f"{parent_path(path).rstrip('/')}/{target}"
        operator.find(path)
        try:
            operator.rename(path, target, lambda: self._faults.stopping.wait(self._pause_seconds))
        except EntryExistsError:
            raise RestError(400, f"File exists:{target}") from None
        except (EntryMissingError, NotADirectoryEntryError):
            raise RestError(400, f"No such directory: {parent_path(target)}") from None

    def _pin(self, operator: Operator, path: str, document: Mapping[str, Any]) -> None:
        entry = operator.find(path, Activity.STAGE)
        if document["action"] == "unpin":
            for name in self._tape.pins(entry):
                self._tape.unpin(entry, name)
            return
        unit = str(document.get("lifetime-unit", "SECONDS")).upper()
        seconds = float(document.get("lifetime", 300)) * _UNIT_SECONDS.get(unit, 1)
        if entry.on_tape:
            self._tape.stage(entry)
        self._tape.pin(entry, str(uuid.uuid4()), seconds)

    def _document(self, entry: Entry, exchange: Exchange) -> dict[str, Any]:
        wanted = {key for key, value in exchange.query if value.lower() == "true"}
        kind = (
            "application/vnd.dcache.folder"
            if entry.is_directory
            else content_type(entry) or "application/octet-stream"
        )
        subdirectories = sum(child.is_directory for child in entry.children.values())
        document: dict[str, Any] = {
            "fileMimeType": kind,
            "labels": sorted(entry.labels),
            "nlink": 2 + subdirectories if entry.is_directory else 1,
            "mode": entry.mode,
            "mtime": entry.mtime,
            "creationTime": entry.created,
            "pnfsId": entry.pnfsid,
            "fileType": "DIR" if entry.is_directory else "REGULAR",
            "size": 512 if entry.is_directory else entry.size,
        }
        if "locality" in wanted and not entry.is_directory:
            document["fileLocality"] = self._tape.locality(entry)
        if "locations" in wanted:
            document["locations"] = list(entry.locations)
        if "checksum" in wanted:
            document["checksums"] = checksum_documents(entry)
        if "xattr" in wanted:
            document["extendedAttributes"] = dict(entry.xattrs)
        if "qos" in wanted:
            storage = (entry.access_latency, entry.retention_policy)
            pinned = storage == _CLASSES["tape"] and bool(self._tape.pins(entry))
            document["currentQos"] = (
                "disk+tape" if pinned else next(name for name, pair in _CLASSES.items() if pair == storage)
            )
        if "optional" in wanted:
            document |= {
                "owner": entry.uid, "group": entry.gid, "atime": entry.atime, "ctime": entry.mtime,
                "accessLatency": entry.access_latency, "retentionPolicy": entry.retention_policy,
            }  # fmt: skip
        return {key: value for key, value in document.items() if value is not None}


def _require_owner(operator: Operator, entry: Entry) -> None:
    if operator.login.uid not in (0, entry.uid):
        operator.access.require_mode(operator.login, entry, 2)


def _slice(exchange: Exchange) -> tuple[int, int | None]:
    try:
        offset = int(exchange.parameter("offset") or 0)
        limit = int(text) if (text := exchange.parameter("limit")) is not None else None
    except ValueError:
        raise RestError(400, "limit and offset must be an integer value.") from None
    if offset < 0 or (limit is not None and limit < 0):
        raise RestError(400, "limit and offset can not be less than zero.")
    return offset, None if limit is None else offset + limit


def _set_xattr(entry: Entry, document: Mapping[str, Any]) -> None:
    mode = str(document.get("mode", "EITHER")).upper()
    attributes = {str(key): str(value) for key, value in document["attributes"].items()}
    for name in attributes:
        if mode == "CREATE" and name in entry.xattrs:
            raise RestError(409, title="Attribute already exist")
        if mode == "MODIFY" and name not in entry.xattrs:
            raise RestError(409, title="No such attribute")
    entry.xattrs = {**entry.xattrs, **attributes}


def _rm_xattr(entry: Entry, document: Mapping[str, Any]) -> None:
    names = document["names"]
    for name in [names] if isinstance(names, str) else names:
        if name not in entry.xattrs:
            raise RestError(409, title="No such attribute")
        entry.xattrs = {key: value for key, value in entry.xattrs.items() if key != name}


def _set_label(entry: Entry, document: Mapping[str, Any]) -> None:
    label = str(document["label"])
    if label in entry.labels:
        raise RestError(409, title="Label already exist")
    entry.labels = entry.labels | {label}


def _rm_label(entry: Entry, document: Mapping[str, Any]) -> None:
    label = str(document["label"])
    if label not in entry.labels:
        raise RestError(409, title="No such label")
    entry.labels = entry.labels - {label}


def _qos(entry: Entry, document: Mapping[str, Any]) -> None:
    target = str(document["target"])
    if target not in _CLASSES:
        raise RestError(400, f"{target} is not a valid QoS")
    entry.access_latency, entry.retention_policy = _CLASSES[target]


def _chmod(entry: Entry, document: Mapping[str, Any]) -> None:
    entry.mode, entry.mtime = int(document["mode"]) & 0o7777, now_ms()


def _chgrp(entry: Entry, document: Mapping[str, Any]) -> None:
    entry.gid = int(document["gid"])


_UPDATES = {
    "set-xattr": _set_xattr,
    "rm-xattr": _rm_xattr,
    "set-label": _set_label,
    "rm-label": _rm_label,
    "qos": _qos,
    "chmod": _chmod,
    "chgrp": _chgrp,
}
