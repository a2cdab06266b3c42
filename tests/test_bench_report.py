"""What the reports say, and how they are written."""

from __future__ import annotations

import csv
import errno
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import bench_documents
import pytest
from lsst.daf.butler_dcache.bench import reports
from lsst.daf.butler_dcache.bench.charts import Charts
from lsst.daf.butler_dcache.bench.curves import Curves
from lsst.daf.butler_dcache.bench.document import Document
from lsst.daf.butler_dcache.bench.findings import findings
from lsst.daf.butler_dcache.bench.histogram import Histogram
from lsst.daf.butler_dcache.bench.quantities import bytes_text, number_text, seconds_text
from lsst.daf.butler_dcache.bench.reports import ReportError, write_reports

_GROUPS = ("whole files", "concurrency", "arrivals")


@pytest.fixture(scope="module")
def record():
    few = (
        "get-raw",
        "get-yaml",
        "exists",
        "concurrency-1",
        "concurrency-16",
        "concurrency-32",
        "arrivals-25",
    )
    return bench_documents.document(
        bench_documents.field(repetitions=2, only=(*few, "arrivals-400")),
        complete=False,
        reason="Ctrl-C",
        problems=["get-raw on embedded, <webdav4> failed"],
        skipped=[{"row": "get-visit", "target": "embedded", "peer": "", "reason": "no time was left"}],
    )


@pytest.fixture(scope="module")
def written(record, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "new" / "directory"
    write_reports(record, out)
    return out


class _Balanced(HTMLParser):
    """Fails on elements that are not closed in order, and keeps what would be loaded."""

    _EMPTY = ("meta", "link", "br", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "src", "xlink:href"):
                self.links.append(value)
        if tag not in self._EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self._EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_four_files_are_written_and_nothing_else(written, record):
    assert sorted(path.name for path in written.iterdir()) == [
        "report.html",
        "results.csv",
        "results.json",
        "summary.md",
    ]
    assert json.loads((written / "results.json").read_text()) == record


def test_the_page_is_whole_and_loads_nothing(written):
    text = (written / "report.html").read_text()
    parser = _Balanced()
    parser.feed(text)
    assert parser.open == []
    assert "script" not in parser.tags
    # Every link leads to a place in the page, of which there is one.
    assert len(parser.ids) == len(set(parser.ids))
    assert {link.removeprefix("#") for link in parser.links} <= set(parser.ids)
    assert not re.search(r"url\((?!#)", text)


def test_drawings_follow_the_page_and_have_words(record):
    document = Document.of(record)
    curves, charts = Curves(document), Charts(document)
    by_group = {group: document.of_target("embedded", group) for group in _GROUPS}
    drawings = [
        charts.ratios(by_group["whole files"], "ratios"),
        charts.requests(document.results, "requests"),
        charts.phases(by_group["whole files"], "phases"),
        curves.by_size(by_group["whole files"], "sizes"),
        curves.by_concurrency(by_group["concurrency"], "concurrency"),
        curves.by_arrivals(by_group["arrivals"], "arrivals"),
        curves.percentiles(by_group["whole files"][0]),
    ]
    for drawing in drawings:
        assert drawing is not None
        assert len(drawing.description) > 20
        root = ET.fromstring(drawing.svg)
        title = root.find("{http://www.w3.org/2000/svg}title")
        assert title is not None
        assert title.text == drawing.title
        # Text is text, and the colours are the page's, on light and dark paper.
        words = {"".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")}
        assert words & {"ours", "upstream"}
        assert re.search(r"var\(--(red|blue)\)", drawing.svg)
        assert not re.search(r"#[0-9a-f]{6}\b", drawing.svg.replace("#ffffff", ""))


def test_nothing_is_drawn_of_nothing():
    document = Document.of(bench_documents.document([]))
    assert Charts(document).ratios([], "ratios") is None
    assert Charts(document).requests([], "requests") is None
    assert Charts(document).phases([], "phases") is None
    assert Curves(document).by_size([], "sizes") is None
    assert Curves(document).by_concurrency([], "concurrency") is None
    assert Curves(document).by_arrivals([], "arrivals") is None
    assert findings(document) == []


def test_a_run_without_a_row_has_a_report(tmp_path):
    write_reports(bench_documents.document([], complete=False, reason="the target went away"), tmp_path)
    assert "the target went away" in (tmp_path / "report.html").read_text()
    assert "the target went away" in (tmp_path / "summary.md").read_text()
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize("name", ["report.html", "summary.md"])
def test_a_reader_is_told_what_it_was_and_what_it_was_not(written, name):
    text = (written / name).read_text()
    assert "Ctrl-C" in text
    assert "embedded dCache, http (not dCache)" in text
    assert "no time was left" in text
    assert "1.10 × the limit" in text
    assert "compares no checksum" in text
    assert "node17" in text
    assert "<webdav4>" not in text if name == "report.html" else "<webdav4> failed" in text


def test_a_partial_run_is_marked_at_the_top_and_a_whole_one_is_not():
    page = reports.page(Document.of(bench_documents.document([], complete=False)))
    assert page.index('class="partial"') < page.index("<h1>")
    assert 'class="partial"' not in reports.page(Document.of(bench_documents.document([], complete=True)))


def test_only_a_dcache_is_called_dcache():
    record = bench_documents.document([])
    target = record["targets"]["embedded"]
    target["title"] = "XRootD 6 cluster"
    assert Document.of(record).targets["embedded"].title == "XRootD 6 cluster (not dCache)"
    assert "a stand-in, not a dCache" in reports.page(Document.of(record))
    target |= {"is_dcache": True, "title": "davs://door.example.org/"}
    assert Document.of(record).targets["embedded"].title == "davs://door.example.org/"
    assert "a stand-in, not a dCache" not in reports.page(Document.of(record))


def test_a_line_of_csv_for_each_sample(written, record):
    lines = list(csv.DictReader((written / "results.csv").open()))
    samples = [
        sample
        for result in record["results"]
        for peer in result["peers"].values()
        for sample in peer["samples"]
    ]
    assert len(lines) == len(samples)
    first, sample = lines[0], samples[0]
    assert first["row"] == "get-yaml"
    assert float(first["wall_seconds"]) == sample["wall_seconds"]
    assert int(first["door_requests"]) == sample["counts"]["door_requests"]
    assert 0 < float(first["p50_seconds"]) <= float(first["p99_seconds"]) <= float(first["max_seconds"])
    assert first["is_dcache"] == "no"


def test_findings_name_the_phase_that_takes_the_time():
    rows = [bench_documents.row("a", "a", "names", operation="look", clients=("ours", "curl"))]
    rows[0]["peers"]["ours"]["summary"]["phases"] = {"door": 0.002, "mover": 0.007, "transfer": 0.001}
    found = findings(Document.of(bench_documents.document(rows)))
    assert (
        found[0].headline
        == "“Wait for mover” takes the largest share of the time of names (70\N{NO-BREAK SPACE}%)"
    )
    assert "movers" in found[0].advice
    assert found[0].points == ("names: behind it door answers 20\N{NO-BREAK SPACE}%",)


def test_findings_tell_where_more_at_a_time_brings_nothing(record):
    headlines = [finding.headline for finding in findings(Document.of(record))]
    assert "Throughput stops growing at 16 operations at a time" in headlines


def test_findings_tell_which_rate_is_served():
    rows = [
        bench_documents.row(
            f"{rate}", f"{rate}", "arrivals", count=100, rate=float(rate), clients=("ours",), repetitions=1
        )
        for rate in (100, 200, 400)
    ]
    rows[-1]["peers"]["ours"]["summary"] |= {"p99_seconds": 9.0, "operations_per_second": 300.0}
    headlines = [finding.headline for finding in findings(Document.of(bench_documents.document(rows)))]
    assert "Up to 200 arrivals per second are served without a queue" in headlines


def test_findings_count_failures_and_refusals():
    rows = [bench_documents.row("a", "a", "whole files")]
    rows[0]["peers"]["upstream"]["samples"][0]["errors"] = {"ServerError": 3}
    rows[0]["peers"]["upstream"]["summary"]["refused"] = 7
    found = {f.headline: f for f in findings(Document.of(bench_documents.document(rows)))}
    assert found["3 operations failed"].points == ("upstream: ServerError 3 times",)
    assert "upstream 7" in found["The door refused 7 requests since there were too many"].detail


def test_a_full_disk_leaves_the_earlier_report(tmp_path, monkeypatch):
    write_reports(bench_documents.document([]), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write = reports._write

    def fail(path: Path, text: str) -> None:
        if path.name == "report.html":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text)

    monkeypatch.setattr(reports, "_write", fail)
    with pytest.raises(ReportError, match=r"No space left on device; the earlier one is as it was"):
        write_reports(bench_documents.document([], complete=False), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match=f"{tmp_path}/file/out"):
        write_reports(bench_documents.document([]), tmp_path / "file" / "out")


def test_files_of_others_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write_reports(bench_documents.document([]), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_missing_quantity_is_no_error():
    row = bench_documents.row("a", "a", "whole files", repetitions=1)
    for peer in row["peers"].values():
        for sample in peer["samples"]:
            sample |= {"counts": None, "peak_bytes": None, "histograms": {}}
        peer["summary"] = {"operations_per_second": 5.0}
    row |= {"ratios": {}, "figures": []}
    page = reports.page(Document.of(bench_documents.document([row])))
    assert "<td>5</td>" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0000012, "1.2 µs"),
        (0.00099999, "1 ms"),
        (0.5, "500 ms"),
        (30.0, "30 s"),
        (7200.0, "120 min"),
        (None, "–"),
    ],
)
def test_times_have_a_unit_that_fits(value, text):
    assert seconds_text(value) == text


def test_numbers_have_three_digits():
    assert number_text(12345.6) == "12\N{NARROW NO-BREAK SPACE}346"
    assert number_text(0.12345) == "0.123"
    assert bytes_text(18_000_000) == "18 MB"
    assert bytes_text(999_999) == "1 MB"


def test_what_is_in_no_phase_is_the_clients_own_or_waits_to_begin():
    row = bench_documents.row("a", "a", "arrivals", rate=10.0, clients=("ours",), repetitions=1)
    row["peers"]["ours"]["summary"]["phases"] = {"door": 0.2}
    row["peers"]["ours"]["observed"] = {
        "histograms": {"operation": Histogram([0.8]).encode(), "service": Histogram([0.3]).encode()}
    }
    (client,) = Document.of(bench_documents.document([row])).results[0].clients
    assert client.phases == pytest.approx({"door": 0.2, "queue": 0.5, "rest": 0.1}, rel=1e-2)
