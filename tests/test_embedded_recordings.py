"""The embedded dCache answers as a real one did: every recorded exchange, scenario by scenario.

The recordings in ``data/wire`` were made on dCache 11.2.4 and 12.0.1. An exchange that is answered otherwise
on purpose stands in ``data/wire/differences.yaml`` with its reason. One that stands there and is answered as
recorded is an error as well, so that the list stays true; only what is left to chance may be either.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import wire_services  # noqa: F401  (registers scenarios)
import yaml
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from wire_replay import Exchange, Replay
from wire_scenarios import LIMITS_SCALE, SCALE, SCENARIOS

CHANCE = "By chance"  # how the reason begins where the answer is random, there as here
FOLDER = Path(__file__).parent / "data" / "wire"

DOORS: dict[str, dict[str, Any]] = {
    "dcache-11.2.4": {},
    "dcache-12.0.1": {"version": "12.0.1"},
    "dcache-11.2.4-http": {"tls": False, "anonymous": "readonly"},
    "dcache-11.2.4-proxy": {"redirect": False},
    "dcache-11.2.4-tape": {"tape": "tape"},
}
"""Recordings, and the kind of dCache that each was made on."""


def load(recording: str) -> list[Exchange]:
    exchanges: list[Exchange] = json.loads((FOLDER / f"{recording}.json").read_text())["exchanges"]
    return exchanges


RECORDINGS = {name: load(name) for name in DOORS}
COMPARED = {
    field for exchanges in RECORDINGS.values() for exchange in exchanges for field in exchange["headers"]
}
DIFFERENCES: dict[str, dict[str, str]] = yaml.safe_load((FOLDER / "differences.yaml").read_text())


def part(recording: str, scenario: str) -> list[Exchange]:
    """Exchanges of a recording that belong to a scenario."""
    prefixes = SCENARIOS[scenario][0]
    return [exchange for exchange in RECORDINGS[recording] if exchange["id"].startswith(prefixes)]


CASES = [(recording, scenario) for recording in DOORS for scenario in SCENARIOS if part(recording, scenario)]


@pytest.mark.parametrize(("recording", "scenario"), CASES, ids=[f"{r}-{s}" for r, s in CASES])
def test_scenario(recording: str, scenario: str) -> None:
    scale = LIMITS_SCALE if scenario == "limits" else SCALE
    with EmbeddedDcache(**DOORS[recording], time_scale=scale) as dcache:
        replay = Replay(dcache, part(recording, scenario), COMPARED)
        SCENARIOS[scenario][1](replay)
        assert replay.left == []
    listed = DIFFERENCES[recording]
    unexpected = {ident: rows for ident, rows in replay.found.items() if ident not in listed}
    assert not unexpected, json.dumps(unexpected, indent=1)
    for exchange in part(recording, scenario):
        reason = listed.get(exchange["id"], CHANCE)
        assert reason.startswith(CHANCE) or exchange["id"] in replay.found, "listed, yet answered as recorded"


@pytest.mark.parametrize("recording", DOORS)
def test_every_exchange_belongs_to_one_scenario(recording: str) -> None:
    known = [
        exchange["id"] for _, scenario in CASES if _ == recording for exchange in part(recording, scenario)
    ]
    assert sorted(known) == sorted(exchange["id"] for exchange in RECORDINGS[recording])


def test_few_differences_each_with_a_reason() -> None:
    assert DIFFERENCES.keys() == DOORS.keys()
    of_11_2_4 = [ident for name, rows in DIFFERENCES.items() if "11.2.4" in name for ident in rows]
    assert len(of_11_2_4) <= 25
    for name, rows in DIFFERENCES.items():
        ids = {exchange["id"] for exchange in RECORDINGS[name]}
        assert rows.keys() <= ids
        assert all(isinstance(reason, str) and len(reason) > 20 for reason in rows.values())
