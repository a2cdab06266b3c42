"""The stream of markers of a third-party copy, and what its last line says."""

from __future__ import annotations

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.webdav import markers, third_party
from lsst.daf.butler_dcache.webdav.markers import Marker, Markers, StandstillError, Vigil

MARKER = b"""Perf Marker
    Timestamp: 1750000000
    State: Running
    State description: Mover created
    Stripe Index: 0
    Stripe Bytes Transferred: %d
    Stripe Status: RUNNING
    Total Stripe Count: 1
End
"""


class TestMarkers:
    """The stream, and what is made of it."""

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_in_pieces(self, size: int) -> None:
        stream = MARKER % 5 + MARKER % 12 + b"success: Created"
        found = Markers()
        seen = [
            marker
            for start in range(0, len(stream), size)
            for marker in found.feed(stream[start : start + size])
        ]
        assert [*seen, *found.feed(b"")] == [Marker("Running", 5), Marker("Running", 12)]
        assert found.verdict == "success: Created"

    def test_stripes_add_up_and_a_mover_may_be_missing(self) -> None:
        found = Markers()
        text = b"Perf Marker\nState: Queued on pool\nEnd\nPerf Marker\nStripe Index: 0\n"
        text += b"Stripe Bytes Transferred: 5\nEnd\nPerf Marker\nStripe Index: 1\n"
        text += b"Stripe Bytes Transferred: 6\nEnd\n"
        assert list(found.feed(text)) == [Marker("Queued on pool", None), Marker("", 5), Marker("", 11)]
        assert found.verdict == ""

    def test_a_line_without_end(self) -> None:
        with pytest.raises(errors.ProtocolError):
            list(Markers().feed(b"x" * 100_000))

    @pytest.mark.parametrize(
        ("marker", "patience"),
        [
            (Marker("Running", 5), 30.0),
            (Marker("", 5), 30.0),
            (Marker("Queued on pool", None), markers._QUEUE_SECONDS),
            (Marker("Requesting mover", None), markers._WAIT_SECONDS),
            (Marker("Running", 100), markers._WAIT_SECONDS),
        ],
    )
    def test_patience(self, marker: Marker, patience: float) -> None:
        now = [0.0]
        vigil = Vigil(100, 30.0, clock=lambda: now[0])
        vigil.saw(marker)
        now[0] = patience
        vigil.saw(marker)
        now[0] = patience + 1
        with pytest.raises(StandstillError):
            vigil.saw(marker)
        vigil.begin()
        vigil.saw(marker)

    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            (
                "failure: Connect to localhost:1 [localhost/127.0.0.1] failed: Connection refused",
                "OtherSideError",
            ),
            ("failure: rejected GET: 401 login failed", "OtherSideError"),
            ("failure: rejected GET: 404 Not Found", "SourceError"),
            ("failure: rejected GET: 500 source is ill", "SourceError"),
            ("failure: rejected PUT: 507 Insufficient Storage", "StoreFullError"),
            (
                "failure: Post-processing failed: Checksum mismatch (expected=[1:1], actual=[1:2])",
                "IntegrityError",
            ),
            (
                "failure: Too many attempts to select pool; last pool p failed with File is broken",
                "FileBrokenError",
            ),
            ("failure: Premature end of Content-Length delimited message body", "ServerError"),
        ],
    )
    def test_verdicts(self, text: str, kind: str) -> None:
        assert type(third_party._failed(text, "davs://a/b")).__name__ == kind
