"""A report as one page: no network, no script, plots in it, to be read by somebody who was not there."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Iterable, Sequence
from html import escape

from . import tables
from .charts import Charts
from .curves import Curves
from .document import Document, Result, Target
from .drawing import Drawing
from .findings import findings
from .quantities import bytes_text
from .tables import Cells
from .theme import client_colours, style_sheet, themed
from .vocabulary import GROUPS, OPERATIONS, PHASE_WORDS

__all__ = ("page",)

_STYLE = """
:root{--font:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--font)}
main{max-width:1200px;margin:0 auto;padding:2rem 1.5rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:.2rem 0 .4rem}
h2{font-size:1.4rem;line-height:1.25;margin:3rem 0 .6rem;padding-top:.8rem;border-top:2px solid var(--grid)}
h3{font-size:1.12rem;margin:2.2rem 0 .4rem}
p{margin:.5rem 0;max-width:50rem}
p.partial{max-width:none}
a{color:var(--blue)}
.muted,figcaption,caption{color:var(--muted);font-size:.9rem}
.partial{background:#b3121f;color:#fff;padding:.8rem 1.2rem;border-radius:.4rem;font-weight:600}
.problems h3{margin-top:.5rem}
.problems{border:2px solid var(--red);border-radius:.4rem;padding:.3rem 1.2rem .7rem;margin:1.2rem 0}
.stand-in{border-left:.3rem solid var(--orange);padding:.1rem 1rem;margin:1rem 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11.5rem,1fr));gap:.8rem;margin:1.4rem 0}
.tile{border:1px solid var(--grid);border-radius:.5rem;padding:.7rem 1rem}
.tile b{display:block;font-size:1.5rem;line-height:1.25}
.tile span{color:var(--muted);font-size:.9rem}
.findings{list-style:none;padding:0;counter-reset:n}
.findings>li{counter-increment:n;border:1px solid var(--grid);border-radius:.5rem;
padding:.7rem 1rem .8rem 3.2rem;margin:.7rem 0;position:relative;break-inside:avoid}
.findings>li::before{content:counter(n);position:absolute;left:1rem;top:.75rem;width:1.5rem;height:1.5rem;
border-radius:50%;background:var(--blue);color:var(--paper);font-weight:700;font-size:.85rem;
display:grid;place-items:center}
.findings b{font-size:1.05rem}
.findings p{max-width:none;margin:.25rem 0}
.findings ul{margin:.3rem 0;padding-left:1.2rem;font-size:.94rem}
.change::before{content:"What to change: ";font-weight:600}
nav ul{columns:2;padding-left:1.2rem;margin:.5rem 0}
figure{margin:1rem 0 1.6rem;break-inside:avoid}
figure svg{display:block;width:100%;height:auto}
figcaption{margin-top:.3rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(27rem,1fr));gap:0 1.4rem}
.scroll{overflow-x:auto;margin:.8rem 0}
table{border-collapse:collapse;font-size:.84rem;font-variant-numeric:tabular-nums;min-width:100%}
caption{text-align:left;padding-bottom:.3rem}
th,td{padding:.25rem .4rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--grid)}
thead th{vertical-align:bottom;white-space:normal;color:var(--muted);font-weight:600}
tbody th{font-weight:600;text-align:left}
.words td,.words th{text-align:left;white-space:normal;vertical-align:top}
.work th{padding-top:.8rem;border-bottom-color:var(--muted)}
td:first-child,thead th:first-child{text-align:left}
.bad td,.bad{color:var(--red)}
.dot{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.45em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1.2rem;font-size:.92rem;margin:.6rem 0}
dt{color:var(--muted)}
dd{margin:0;overflow-wrap:anywhere}
code{font:.9em ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}
@media (max-width:40rem){nav ul{columns:1}.pair{grid-template-columns:1fr}dl{grid-template-columns:1fr}}
@media print{main{max-width:none;padding:0}body{font-size:11pt}.scroll{overflow:visible}table{font-size:7.5pt}
.pair{grid-template-columns:1fr 1fr}
th,td{padding:.15rem .3rem}tr,figure{break-inside:avoid}h2,h3{break-after:avoid}nav{display:none}
.partial,.findings>li::before,.dot{print-color-adjust:exact}}
"""


class _Plots:
    """What draws, and the colours of clients."""

    def __init__(self, document: Document) -> None:
        self.charts, self.curves = Charts(document), Curves(document)
        self.colours = client_colours(document.client_names)


def page(document: Document) -> str:
    """Return the page.

    Parameters
    ----------
    document : `~.document.Document`
        The results.

    Returns
    -------
    text : `str`
        HTML, complete.
    """
    plots = _Plots(document)
    parts = [
        *_head(document),
        *_findings(document),
        *(part for target in document.targets.values() for part in _target(document, target, plots)),
        *_figures(document),
        *_left_out(document),
        *_explanations(document, plots),
    ]
    title = escape(f"Benchmark: {_titles(document)}")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style_sheet()}{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _titles(document: Document) -> str:
    return " and ".join(target.title for target in document.targets.values()) or "no target"


def _head(document: Document) -> Iterable[str]:
    if not document.complete:
        rows = len(document.results)
        yield (
            f'<p class="partial" role="alert">This report is partial: {escape(document.reason)}. It '
            f"holds the "
            f"{rows} rows that were measured until then.</p>"
        )
    environment = document.environment
    yield '<p class="muted">dcache-butler bench</p>'
    yield f"<h1>{escape(_titles(document))}</h1>"
    machine = [
        str(environment.get("time") or "").replace("T", " ").replace("+00:00", " UTC"),
        str(environment.get("host") or ""),
        str(environment.get("processor") or ""),
        f"{environment['cores']} cores" if environment.get("cores") else "",
        tables.source(document),
    ]
    yield f'<p class="muted">{escape(" · ".join(word for word in machine if word))}</p>'
    stand_ins = [target for target in document.targets.values() if not target.is_dcache]
    if stand_ins:
        names = escape(", ".join(target.name for target in stand_ins))
        which = f"{names} is a stand-in" if len(stand_ins) == 1 else f"{names} are stand-ins"
        yield (
            f'<div class="stand-in"><p><b>{which}, not a dCache.</b> Such figures say how clients compare '
            "with one another and how many requests they need. They are no figures of a dCache, whose own "
            "times are others. What is said below of doors and pools holds for a site where the same is "
            "found.</p></div>"
        )
    if document.problems:
        yield '<div class="problems"><h3 class="bad">Problems</h3><ul>'
        yield "\n".join(f"<li>{escape(problem)}</li>" for problem in document.problems)
        yield "</ul></div>"
    yield from _tiles(document)
    yield '<nav aria-label="Contents"><ul><li><a href="#findings">Findings</a></li>'
    for target in document.targets:
        for group in document.groups:
            if document.of_target(target, group):
                where = f" ({escape(target)})" if len(document.targets) > 1 else ""
                yield f'<li><a href="#{_anchor(target, group)}">{escape(group.capitalize())}{where}</a></li>'
    yield '<li><a href="#figures">Figures to reach</a></li>'
    yield '<li><a href="#left-out">What was not measured</a></li>'
    yield '<li><a href="#explanations">How to read this</a></li></ul></nav>'


def _tiles(document: Document) -> Iterable[str]:
    results = document.results
    samples = sum(len(client.samples) for result in results for client in result.clients)
    measured = f"row{'' if len(results) == 1 else 's'} measured"
    tiles = [(str(len(results)), f"{measured}, {len(document.client_names)} clients, {samples} samples")]
    judged = [figure for result in results for figure in result.figures]
    if judged:
        met = sum(bool(figure.get("met")) for figure in judged)
        tiles.append((f"{met} of {len(judged)}", "figures to reach are reached"))
    peers = {peer for result in results for peer in result.ratios("wall")}
    for peer in ("upstream", "curl", *sorted(peers - {"upstream", "curl"}))[: 2 if judged else 3]:
        logs = [
            math.log(r.ratio) for result in results for p, r in result.ratios("wall").items() if p == peer
        ]
        if logs:
            mean = math.exp(statistics.fmean(logs))
            rows = f"{len(logs)} row{'' if len(logs) == 1 else 's'}"
            tiles.append((f"{mean:.2f} ×", f"the wall time of {peer}: geometric mean of {rows}"))
    yield '<div class="tiles">'
    for figure, words in tiles:
        yield f'<div class="tile"><b>{escape(figure)}</b><span>{escape(words)}</span></div>'
    yield "</div>"


def _findings(document: Document) -> Iterable[str]:
    yield '<h2 id="findings">Findings</h2>'
    found = findings(document)
    if not found:
        yield "<p>Nothing was measured.</p>"
        return
    yield '<ol class="findings">'
    several = len(document.targets) > 1
    for finding in found:
        where = f' <span class="muted">{escape(finding.target)}</span>' if several and finding.target else ""
        points = "".join(f"<li>{escape(point)}</li>" for point in finding.points)
        points = f"<ul>{points}</ul>" if points else ""
        advice = f'<p class="change">{escape(finding.advice)}</p>' if finding.advice else ""
        yield f"<li><b>{escape(finding.headline)}</b>{where}<p>{escape(finding.detail)}</p>"
        yield f"{points}{advice}</li>"
    yield "</ol>"


def _target(document: Document, target: Target, plots: _Plots) -> Iterable[str]:
    yield f'<h2 id="{_anchor(target.name)}">Target {escape(target.name)}: {escape(target.title)}</h2>'
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in target.facts())
    yield f"<dl>{facts}</dl>"
    everything = document.of_target(target.name)
    for is_bulk, title in ((False, "Requests of one operation"), (True, "Requests of calls for many files")):
        some = [result for result in everything if (int(result.work.get("batch") or 1) > 1) is is_bulk]
        yield from _figure(
            plots.charts.requests(some, title),
            "Requests are what a door has to give. Counted by the servers, averaged over the rows; where "
            "rows differ the range is given. An arrow: more than the drawing shows.",
        )
    for group in document.groups:
        results = document.of_target(target.name, group)
        if results:
            yield f'<h3 id="{_anchor(target.name, group)}">{escape(group.capitalize())}</h3>'
            yield f"<p>{GROUPS.get(group, '')}</p>"
            yield from _group(results, plots)


def _group(results: Sequence[Result], plots: _Plots) -> Iterable[str]:
    families: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        families.setdefault(result.alike, []).append(result)
    for family in families.values():
        title = f"{_operation(family[0])} of {bytes_text(family[0].work.get('size_bytes'))}"
        if family[0].rate:
            yield from _figure(
                plots.curves.by_arrivals(family, f"Latency against the rate of arrivals: {title}"),
                "Where a line turns upwards, operations queue: that rate is more than this client and target "
                "serve together.",
            )
        else:
            yield from _figure(
                plots.curves.by_concurrency(family, f"Throughput and latency against concurrency: {title}"),
                "Where the left line becomes flat, more at a time brings nothing but the waiting seen on the "
                "right.",
            )
    yield from _sizes(results, plots)
    yield from _figure(
        plots.charts.ratios(results, "Wall time of this package over that of each peer"),
        "Each dot is the geometric mean of the repetitions, which are compared in pairs, with the "
        "interval that "
        "holds the true ratio in 95 of 100 cases. Left of the line this package is faster; where the "
        "interval "
        "crosses the line, nobody can tell.",
    )
    yield from _figure(
        plots.charts.phases(results, "Where the time of an operation goes"),
        "Seen by this package itself in a repetition of its own. The phases are explained "
        '<a href="#phases">below</a>.',
    )
    yield '<div class="pair">'
    for result in results:
        yield from _figure(plots.curves.percentiles(result), "")
    yield "</div>"
    yield from _measured_table(results, plots)


def _sizes(results: Sequence[Result], plots: _Plots) -> Iterable[str]:
    sized: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        if result.work.get("operation") in ("get", "put") and not result.rate:
            sized.setdefault((_operation(result), result.at_once), []).append(result)
    yield '<div class="pair">'
    for (operation, at_once), some in sized.items():
        yield from _figure(
            plots.curves.by_size(some, f"Throughput against size: {operation}, {at_once} at a time"),
            "Small files are bound by requests, large ones by bytes.",
        )
    yield "</div>"


def _operation(result: Result) -> str:
    operation = str(result.work.get("operation"))
    return OPERATIONS.get(operation, operation)


def _figure(drawing: Drawing | None, words: str) -> Iterable[str]:
    """The caption is HTML, the title is text."""
    if drawing is not None:
        yield (
            f"<figure><b>{escape(drawing.title)}</b>\n{drawing.svg}\n"
            f"<figcaption>{words}</figcaption></figure>"
        )


def _measured_table(results: Sequence[Result], plots: _Plots) -> Iterable[str]:
    yield '<div class="scroll" tabindex="0" role="region" aria-label="Table of all figures"><table>'
    yield (
        "<caption>n: repetitions, of which medians are shown. /op: for one operation. Peak memory: "
        "above that of "
        "the idle client. Ratio: "
        "this package over the client of this line, with its interval of 95 %. A dash: not "
        "measured.</caption>"
    )
    yield _column_names(tables.MEASURED[1:])
    title = ""
    yield "<tbody>"
    for line in tables.measured(results):
        if line.texts[0] != title:
            title = line.texts[0]
            width = len(tables.MEASURED) - 1
            yield f'<tr class="work"><th colspan="{width}" scope="rowgroup">{escape(title)}</th></tr>'
        yield _line(line, plots, 1)
    yield "</tbody></table></div>"


def _column_names(names: Iterable[str]) -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return f"<thead><tr>{cells}</tr></thead>"


def _line(line: Cells, plots: _Plots, first: int = 0) -> str:
    dot = ""
    if line.client in plots.colours:
        dot = f'<span class="dot" style="background:{themed(plots.colours[line.client])}"></span>'
    cells = "".join(
        f"<td>{dot if n == 0 else ''}{escape(text)}</td>" for n, text in enumerate(line.texts[first:])
    )
    return f'<tr class="bad">{cells}</tr>' if line.is_bad else f"<tr>{cells}</tr>"


def _words_table(header: Sequence[str], lines: Sequence[Cells], label: str) -> Iterable[str]:
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table class="words">'
    yield f"{_column_names(header)}<tbody>"
    for line in lines:
        cells = "".join(f"<td>{escape(text)}</td>" for text in line.texts)
        yield f'<tr class="bad">{cells}</tr>' if line.is_bad else f"<tr>{cells}</tr>"
    yield "</tbody></table></div>"


def _figures(document: Document) -> Iterable[str]:
    yield '<h2 id="figures">Figures to reach</h2>'
    lines = tables.figures(document)
    if lines:
        yield "<p>What this package is meant to reach in these rows; what is missed comes first, in red.</p>"
        yield from _words_table(tables.FIGURES, lines, "Figures to reach")
    else:
        yield "<p>None of the rows has figures to reach.</p>"


def _left_out(document: Document) -> Iterable[str]:
    yield '<h2 id="left-out">What was not measured</h2>'
    lines = tables.skipped(document)
    if lines:
        yield from _words_table(("work", "target", "client", "why"), lines, "What was not measured")
    else:
        yield "<p>Everything that was asked for was measured.</p>"


def _explanations(document: Document, plots: _Plots) -> Iterable[str]:
    yield '<h2 id="explanations">How to read this</h2>'
    yield (
        "<p>Each piece of work is done by every client in turn, each time in a process of its own, "
        "in an order "
        "drawn anew for each repetition: what slows the machine for a while slows all of them. The "
        "clock starts "
        "when the client is ready. Ratios are taken within a repetition.</p>"
    )
    yield '<h3 id="phases">The phases of a request</h3><dl>'
    for words, meaning in PHASE_WORDS.values():
        yield f"<dt>{escape(words)}</dt><dd>{escape(meaning)}</dd>"
    yield "</dl><h3>The clients</h3><dl>"
    for name, about in tables.notes(document).items():
        dot = f'<span class="dot" style="background:{themed(plots.colours[name])}"></span>'
        yield f"<dt>{dot}{escape(name)}</dt><dd>{escape('; '.join(about))}</dd>"
    yield "</dl><h3>Machine and programs</h3><dl>"
    for name, text in tables.environment(document):
        yield f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"
    yield "</dl><h3>Asked for as</h3>"
    yield f"<p><code>{escape(_command(document))}</code></p>"


def _command(document: Document) -> str:
    """The arguments as they stand in the document, as far as they were given."""
    words = ["dcache-butler", "bench", "run"]
    for name, value in document.arguments.items():
        values = value if isinstance(value, list) else [value]
        for item in values:
            if item is True:
                words.append(f"--{name.replace('_', '-')}")
            elif item not in (None, False, ""):
                option = [] if name == "rows" else [f"--{name.replace('_', '-').removesuffix('s')}"]
                words += [*option, shlex.quote(str(item))]
    return " ".join(words)


def _anchor(*names: str) -> str:
    return "-".join("".join(c if c.isalnum() else "-" for c in name) for name in names)
