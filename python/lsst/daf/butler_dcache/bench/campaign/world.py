"""What must be true: the model of one worker's directory, and the judgement after each step.

A name holds nothing, a directory, or a file that is told by its fingerprint. The rules:

- a step that succeeded has had its whole effect, once;
- one whose outcome is said to be unknown (`OutcomeUnknownError`, `UploadDisplacedError`) has had all of it or
  none;
- one that failed otherwise has had none;
- what was read is what is there, to the last byte;
- what is not there is removed or renamed with success only if an answer was lost: it is gone, as was asked;
- without a fault, and without a restart of a server that others have brought about, nothing fails but what
  must (to read what is not there).

A request that the server answers after the client has given up may still have its effect, at any time: dCache
knows no conditional DELETE or MOVE. Names that such a request speaks of are left alone from then on, and at
the end may hold either. A flipped byte in a range cannot be known, since no digest of a range is given: it
is counted apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from .steps import Step

__all__ = ("ABSENT", "DIRECTORY", "Outcome", "Sight", "World", "fingerprint")

ABSENT = "absent"
DIRECTORY = "directory"

_UPLOADS = frozenset({"put", "create", "streamed", "copy"})
_UNKNOWN = frozenset({"OutcomeUnknownError", "UploadDisplacedError"})
_OURS_TO_SAY = frozenset(
    {
        "AccessDeniedError",
        "CredentialError",
        "DeadlineError",
        "DoorUnavailableError",
        "DirectoryNotEmptyError",
        "FileBrokenError",
        "NearlineError",
        "IntegrityError",
        "OutcomeUnknownError",
        "ParentNotFoundError",
        "ProtocolError",
        "ResourceExistsError",
        "ResourceIsDirectoryError",
        "ResourceIsFileError",
        "ResourceNotFoundError",
        "ServerBusyError",
        "ServerError",
        "StoreFullError",
        "UnsupportedError",
        "UploadDisplacedError",
    }
)


def fingerprint(data: bytes) -> str:
    """Return what tells one content from another.

    Parameters
    ----------
    data : `bytes`
        The content.
    """
    return f"{len(data)} bytes {hashlib.blake2b(data, digest_size=12).hexdigest()}"


@dataclass(frozen=True)
class Outcome:
    """What the client said.

    Parameters
    ----------
    error : `str`
        Class of its error, empty for success.
    message : `str`
        Its text.
    wrong : `str`
        What of the bytes that were read was not right.
    each : `dict` [`str`, `str`]
        For several names: the class of the error of each.
    """

    error: str = ""
    message: str = ""
    wrong: str = ""
    each: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sight:
    """What the referee saw of a step.

    Parameters
    ----------
    states : `dict` [`str`, `str`]
        What each name of the step holds afterwards.
    arrivals, departures : `dict` [`str`, `int`]
        How often something got each name, and was removed from it.
    hits : `list` [`str`]
        The faults that came to pass.
    is_calm : `bool`
        Whether nothing else disturbed the step.
    """

    states: dict[str, str]
    arrivals: dict[str, int] = field(default_factory=dict)
    departures: dict[str, int] = field(default_factory=dict)
    hits: list[str] = field(default_factory=list)
    is_calm: bool = True


class World:
    """What one worker's directory holds."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.haunted: dict[str, set[str]] = {}
        self._was_full = False

    @property
    def files(self) -> list[str]:
        """The names that hold a file."""
        return [name for name, state in self.states.items() if state not in (ABSENT, DIRECTORY)]

    def state(self, name: str) -> str:
        """Return what a name holds.

        Parameters
        ----------
        name : `str`
            The name.
        """
        return self.states.get(name, ABSENT)

    def judge(self, step: Step, new: str, outcome: Outcome, sight: Sight) -> list[str]:
        """Compare what was said with what is, and go on from what is.

        Parameters
        ----------
        step : `~.steps.Step`
            What was done.
        new : `str`
            Fingerprint of what was written.
        outcome : `Outcome`
            What the client said.
        sight : `Sight`
            What the referee saw.

        Returns
        -------
        problems : `list` [`str`]
            What is wrong.
        """
        problems: list[str] = []
        if outcome.wrong:
            problems.append(outcome.wrong)
        for error in {outcome.error, *outcome.each.values()} - {""}:
            if error not in _OURS_TO_SAY:
                problems.append(f"{error} is no error of ours: {outcome.message}")
        before = {name: self.state(name) for name in step.names}
        after = sight.states
        must_fail = self._must_fail(step)
        if step.kind == "list" and after[step.names[0]] == ABSENT:
            must_fail = "ResourceNotFoundError"
        # After a lost answer a name that is gone cannot be told from one that never was.
        disturbed = bool(sight.hits) or not sight.is_calm
        is_vacuous = disturbed and must_fail == "ResourceNotFoundError"
        if outcome.error == "" and must_fail and not step.is_reading and not is_vacuous:
            problems.append(f"succeeded, which is impossible: {must_fail}")
        # A client that was told that there is no space does not ask again for a while.
        is_full = outcome.error == "StoreFullError"
        is_remembered = is_full and self._was_full
        if is_full or (step.kind in _UPLOADS and not outcome.error):
            self._was_full = is_full
        if outcome.error and not disturbed and outcome.error != must_fail and not is_remembered:
            problems.append(f"failed without a fault: {outcome.error} {outcome.message}")
        if step.kind == "list":
            return problems
        changed = self._changed(step, before, new)
        problems += self._effect(step, before, after, before if is_vacuous else changed, outcome, disturbed)
        for counts, what in ((sight.arrivals, "came"), (sight.departures, "went")):
            problems += [f"{name} {what} {n} times" for name, n in counts.items() if n > 1]
        late = not step.is_reading and "long stall" in sight.hits
        for name in step.names:
            self.states[name] = after[name]
            if late:
                self.haunted[name] = {before[name], after[name], changed[name]}
        return problems

    def _must_fail(self, step: Step) -> str:
        """The error that a step must meet, empty if it can succeed."""
        held = [self.state(name) for name in step.names]
        match step.kind:
            case "create":
                return "ResourceExistsError" if held[0] != ABSENT else ""
            case "streamed" if not step.overwrite:
                return "ResourceExistsError" if held[0] != ABSENT else ""
            case "rename" | "copy":
                if held[0] == ABSENT:
                    return "ResourceNotFoundError"
                return "ResourceExistsError" if not step.overwrite and held[1] != ABSENT else ""
            case "get" | "download" | "ranges" | "open" | "remove" | "stat":
                return "ResourceNotFoundError" if held[0] == ABSENT else ""
        return ""

    @staticmethod
    def _changed(step: Step, before: Mapping[str, str], new: str) -> dict[str, str]:
        """What the names hold if a step has its effect."""
        changed = dict(before)
        match step.kind:
            case "put" | "create" | "streamed":
                changed[step.names[0]] = new
            case "copy":
                changed[step.names[1]] = before[step.names[0]]
            case "rename":
                changed[step.names[1]] = before[step.names[0]]
                changed[step.names[0]] = ABSENT
            case "remove" | "bulk remove":
                changed |= dict.fromkeys(step.names, ABSENT)
            case "mkdir":
                changed[step.names[0]] = DIRECTORY
        return changed

    @staticmethod
    def _effect(
        step: Step,
        before: Mapping[str, str],
        after: Mapping[str, str],
        changed: Mapping[str, str],
        outcome: Outcome,
        disturbed: bool,
    ) -> list[str]:
        if step.kind == "bulk remove" and not outcome.error:
            return [
                problem
                for name in step.names
                for problem in _of_each(
                    name, before[name], after[name], outcome.each.get(name, ""), disturbed
                )
            ]
        allowed = [before]
        if outcome.error in _UNKNOWN:
            allowed = [before, changed]
        elif not outcome.error:
            allowed = [changed]
        if step.kind == "mkdir" and outcome.error:
            # To make a directory twice is no error, so half of two levels is none either.
            allowed = [before, changed]
        if any(all(after[name] == one[name] for name in step.names) for one in allowed):
            return []
        said = outcome.error or "ok"
        return [
            f"{name} held {before[name]}, {said} was said, holds {after[name]}"
            for name in step.names
            if all(after[name] != one[name] for one in allowed)
        ] or [f"{', '.join(step.names)}: half of an effect, {said} was said: {dict(after)}"]


def _of_each(name: str, before: str, after: str, error: str, disturbed: bool) -> list[str]:
    """Judge one of several names that were removed."""
    allowed = {before} if error and error not in _UNKNOWN else {ABSENT}
    if error in _UNKNOWN:
        allowed |= {before}
    if after not in allowed:
        return [f"{name} held {before}, {error or 'ok'} was said, holds {after}"]
    if not error and before == ABSENT and not disturbed:
        return [f"{name} was removed and was not there"]
    return []
