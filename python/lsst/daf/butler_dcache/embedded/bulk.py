"""Bulk requests: many targets, one activity, worked off later.

A request is accepted before anybody looks at its targets; it ends COMPLETED whether they succeeded or not
(protocol page, section 7.6; dCache ``BulkService.java``). Staging through the tape API is a bulk request too.
"""

import itertools
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .access import PermissionDeniedError
from .caveats import Activity, is_below, normal_path
from .clockwork import Clockwork
from .duration import parse_duration
from .entry import Entry, now_ms
from .latency import Latency
from .namespace import EntryMissingError, NamespaceError
from .operations import Operator
from .tape import TapeSystem

__all__ = ["BulkRequest", "BulkService", "BulkTarget", "RequestTooLargeError", "TooManyRequestsError"]

MAX_TARGETS = {"NONE": 500, "TARGETS": 10}
MAX_OPEN_REQUESTS = 5000
ACTIVITIES = ("DELETE", "PIN", "UNPIN", "STAGE", "RELEASE", "UPDATE_QOS", "LOG_TARGET")
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "SKIPPED")
_POLL_SECONDS = 0.05


class RequestTooLargeError(Exception):
    """More targets, or a wider expansion, than is permitted."""


class TooManyRequestsError(Exception):
    """The user has as many unfinished requests as one may have."""


class _TargetFailedError(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class BulkTarget:
    """One path of a request.

    Parameters
    ----------
    path : `str`
        As it is shown.
    full : `str`
        With the request's prefix.
    identifier : `int`
        Number of the target.
    """

    path: str
    full: str
    identifier: int
    state: str = "CREATED"
    submitted: int = 0
    started: int | None = None
    finished: int | None = None
    error_type: str | None = None
    error: str | None = None
    entry: Entry | None = None
    """What the path meant when the target was looked at."""

    def finish(self, state: str, kind: str | None = None, message: str | None = None) -> None:
        """Note how it ended.

        Parameters
        ----------
        state : `str`
            One of `FINAL`.
        kind, message : `str`, optional
            The failure.
        """
        self.state, self.finished, self.error_type, self.error = state, now_ms(), kind, message


@dataclass
class BulkRequest:
    """One request and its targets.

    Parameters
    ----------
    operator : `Operator`
        Who asked.
    activity : `str`
        What is done.
    prefix : `str`
        Base of relative targets.
    expand : `str`
        ``NONE`` or ``TARGETS``: whether a directory stands for its children
        as well.
    arguments : `~collections.abc.Mapping`
        Arguments of the activity, by their names in camelCase.
    clear_on_success, clear_on_failure, cancel_on_failure : `bool`
        What happens at the end.
    delay_seconds : `float`
        How much later than usual it begins.
    end : ``"forget"``, ``"cancel"``, ``"fail"`` or `None`
        What becomes of it after ``end_after`` targets, if something goes wrong.
    failure : `tuple` [`str`, `str`]
        Type and text of the error of the other targets then.
    """

    operator: Operator
    activity: str
    prefix: str
    expand: str
    arguments: Mapping[str, Any]
    clear_on_success: bool = False
    clear_on_failure: bool = False
    cancel_on_failure: bool = False
    delay_seconds: float = 0.0
    end: Literal["forget", "cancel", "fail"] | None = None
    end_after: int = 0
    failure: tuple[str, str] = ("", "")
    identifier: str = field(default_factory=lambda: str(uuid.uuid4()))
    number: int = 0
    """By which the service lists requests."""
    status: str = "QUEUED"
    arrived: int = 0
    started: int | None = None
    modified: int = 0
    targets: list[BulkTarget] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ("COMPLETED", "CANCELLED")


class BulkService:
    """All bulk requests of one dCache.

    Parameters
    ----------
    clockwork : `Clockwork`
        Works the requests off.
    tape : `TapeSystem`
        Stages and pins.
    latency : `Latency`, optional
        How long that takes.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self, clockwork: Clockwork, tape: TapeSystem, latency: Latency | None = None) -> None:
        self._clockwork = clockwork
        self._latency = Latency() if latency is None else latency
        self._tape = tape
        self.max_targets = dict(MAX_TARGETS)
        """By expansion, as the site has set them."""
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._requests: dict[str, BulkRequest] = {}

    def submit(self, request: BulkRequest, targets: list[str]) -> None:
        """Accept a request.

        Parameters
        ----------
        request : `BulkRequest`
            What is to be done.
        targets : `list` [`str`]
            To what.

        Raises
        ------
        RequestTooLargeError
            If there are too many targets for the expansion, or it is not
            permitted at all.
        TooManyRequestsError
            If 5000 of the user are unfinished.
        """
        if len(targets) > self.max_targets.get(request.expand, 0):
            raise RequestTooLargeError
        with self._lock:
            mine = [r for r in self._requests.values() if r.operator.login.uid == request.operator.login.uid]
            if sum(not r.is_finished for r in mine) >= MAX_OPEN_REQUESTS:
                raise TooManyRequestsError
            request.number = next(self._numbers)
            request.arrived = request.modified = now_ms()
            for target in targets:
                self._add_target(request, target)
            self._requests[request.identifier] = request
        seconds = self._latency.length("bulk_request") + self._latency.length("bulk_target", len(targets))
        self._clockwork.after(seconds + request.delay_seconds, lambda: self._start(request))

    def find(self, identifier: str) -> BulkRequest | None:
        """Look a request up.

        Parameters
        ----------
        identifier : `str`
            Its uuid.

        Returns
        -------
        request : `BulkRequest` or `None`
            The request, if it was not cleared.
        """
        with self._lock:
            return self._requests.get(identifier)

    def requests(self) -> list[BulkRequest]:
        """List the requests that were not cleared.

        Returns
        -------
        requests : `list` [`BulkRequest`]
            In the order of their arrival.
        """
        with self._lock:
            return list(self._requests.values())

    def cancel(self, request: BulkRequest, paths: list[str] | None = None) -> None:
        """Give up what has not ended yet.

        Parameters
        ----------
        request : `BulkRequest`
            The request.
        paths : `list` [`str`], optional
            Only these targets.
        """
        with self._lock:
            for target in request.targets:
                if target.state not in FINAL and (paths is None or target.full in paths):
                    target.finish("CANCELLED")
            if paths is None and not request.is_finished:
                request.status = "CANCELLED"
            request.modified = now_ms()

    def clear(self, request: BulkRequest) -> None:
        """Forget a request, whatever it still had to do.

        Parameters
        ----------
        request : `BulkRequest`
            The request.
        """
        self.cancel(request)
        with self._lock:
            self._requests.pop(request.identifier, None)

    def release(self, request: BulkRequest, paths: list[str]) -> None:
        """Let go of the pins that a request holds.

        Parameters
        ----------
        request : `BulkRequest`
            A request that staged.
        paths : `list` [`str`]
            Which of its targets; others are ignored.
        """
        for target in request.targets:
            entry = request.operator.namespace.find(request.operator.real(target.full))
            if target.full in paths and entry is not None:
                self._tape.unpin(entry, request.identifier)

    def _add_target(self, request: BulkRequest, path: str) -> BulkTarget:
        shown = normal_path(path)
        full = shown if is_below(shown, request.prefix) else normal_path(f"{request.prefix}/{shown}")
        full = request.operator.complete(full)
        target = BulkTarget(shown, full, next(self._numbers), submitted=now_ms())
        request.targets.append(target)
        return target

    def _start(self, request: BulkRequest) -> None:
        with self._lock:
            if request.is_finished:
                return
            if request.activity == "STAGE" and not _are_durations(request.arguments.get("diskLifetime")):
                # Silently: the request ends well without ever having started (protocol page, surprise 18).
                for target in request.targets:
                    target.finish("CANCELLED")
                self._finish(request)
                return
            request.status, request.started = "STARTED", now_ms()
            if request.expand == "TARGETS":
                self._expand(request)
        self._work(request)

    def _expand(self, request: BulkRequest) -> None:
        """Put the children of each directory before it."""
        roots, request.targets = request.targets, []
        for root in roots:
            try:
                directory, children = request.operator.listing(root.full)
            except (EntryMissingError, PermissionDeniedError):
                children = []
            else:
                children = children if directory.is_directory else []
            for child in children:
                self._add_target(request, f"{root.full}/{child.name}")
            request.targets.append(root)

    def _work(self, request: BulkRequest) -> None:
        """Do what can be done now; come back for what is still under way."""
        for number, target in enumerate(list(request.targets)):
            if request.end is not None and number >= request.end_after:
                self._go_wrong(request, number)
                break
            with self._lock:
                if target.state in FINAL:
                    continue
                if target.state == "CREATED":
                    target.state, target.started = "RUNNING", now_ms()
                    target.entry = request.operator.namespace.find(request.operator.real(target.full))
            done = self._attempt(request, target)
            with self._lock:
                if target.state not in FINAL and done:
                    target.finish("COMPLETED")
                if target.state == "FAILED" and request.cancel_on_failure:
                    self.cancel(request)
        with self._lock:
            if request.is_finished:
                return
            if any(target.state not in FINAL for target in request.targets):
                self._clockwork.after(_POLL_SECONDS, lambda: self._work(request))
            else:
                self._finish(request)

    def _go_wrong(self, request: BulkRequest, number: int) -> None:
        """End as a fault demands."""
        with self._lock:
            if request.end == "forget":
                request.status = "CANCELLED"
                self._requests.pop(request.identifier, None)
            for target in request.targets[number:]:
                if request.end == "fail":
                    target.finish("FAILED", *request.failure)
                else:
                    target.finish("CANCELLED")

    def _attempt(self, request: BulkRequest, target: BulkTarget) -> bool:
        try:
            return _ACTIONS.get(request.activity, _log)(self._tape, request, target)
        except _TargetFailedError as exc:
            target.finish("FAILED", exc.kind, str(exc))
        except EntryMissingError:
            message = f"CacheException(rc=10001;msg=No such file or directory {target.full})"
            target.finish("FAILED", "diskCacheV111.util.FileNotFoundCacheException", message)
        except PermissionDeniedError:
            message = f"CacheException(rc=10018;msg=Permission denied for {target.full})"
            target.finish("FAILED", "diskCacheV111.util.PermissionDeniedCacheException", message)
        except NamespaceError as exc:
            target.finish("FAILED", "java.lang.Throwable", str(exc))
        return False

    def _finish(self, request: BulkRequest) -> None:
        request.status, request.modified = "COMPLETED", now_ms()
        failed = any(target.state == "FAILED" for target in request.targets)
        if request.clear_on_failure if failed else request.clear_on_success:
            self._requests.pop(request.identifier, None)


def _are_durations(lifetimes: object) -> bool:
    """Whether an argument is absent or maps paths to durations, which is all that dCache can read."""
    if lifetimes is None:
        return True
    if not isinstance(lifetimes, Mapping):
        return False
    try:
        for text in lifetimes.values():
            parse_duration(str(text))
    except ValueError:
        return False
    return True


def _delete(tape: TapeSystem, request: BulkRequest, target: BulkTarget) -> bool:
    operator = request.operator
    skips = str(request.arguments.get("skipDirs", "false")).lower() == "true"
    if skips and operator.find(target.full).is_directory:
        target.finish("SKIPPED")
        return False
    operator.remove(target.full)
    return True


def _pinnable(request: BulkRequest, target: BulkTarget) -> Entry:
    entry = request.operator.find(target.full, Activity.STAGE)
    if entry.is_directory:  # dCache PinManagerActivity.checkPinnable
        raise _TargetFailedError("diskCacheV111.util.CacheException", "Not a regular file.")
    return entry


def _stage(tape: TapeSystem, request: BulkRequest, target: BulkTarget) -> bool:
    entry = _pinnable(request, target)
    if entry.retention_policy != "CUSTODIAL":
        raise _TargetFailedError("diskCacheV111.util.CacheException", "Cannot stage DISK only files")
    if not tape.permits(entry):
        raise PermissionDeniedError(target.full)
    lifetimes = request.arguments.get("diskLifetime") or {}
    tape.pin(entry, request.identifier, parse_duration(str(lifetimes.get(target.full, "P2D"))))
    return tape.stage(entry)


def _pin(tape: TapeSystem, request: BulkRequest, target: BulkTarget) -> bool:
    entry = _pinnable(request, target)
    if entry.access_latency == "ONLINE":
        return True  # it stays on disk without a pin (dCache PinManagerActivity.skipIfOnline)
    unit = {"SECONDS": 1, "MINUTES": 60, "HOURS": 3600, "DAYS": 86400}
    name = str(request.arguments.get("id") or request.identifier)
    length = float(request.arguments.get("lifetime", 5))
    tape.pin(
        entry, name, length * unit.get(str(request.arguments.get("lifetimeUnit", "MINUTES")).upper(), 60)
    )
    return tape.stage(entry) if entry.on_tape else True


def _unpin(tape: TapeSystem, request: BulkRequest, target: BulkTarget) -> bool:
    entry = request.operator.find(target.full, Activity.STAGE)
    tape.unpin(entry, str(request.arguments.get("id") or request.identifier))
    return True


def _log(tape: TapeSystem, request: BulkRequest, target: BulkTarget) -> bool:
    request.operator.find(target.full)
    return True


_ACTIONS: dict[str, Callable[[TapeSystem, BulkRequest, BulkTarget], bool]] = {
    "DELETE": _delete,
    "STAGE": _stage,
    "PIN": _pin,
    "UNPIN": _unpin,
    "RELEASE": _unpin,
}
