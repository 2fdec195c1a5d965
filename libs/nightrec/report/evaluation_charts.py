"""What an evaluation found, as one HTML page with its charts inside: nothing is loaded from anywhere."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from nightrec.report.evaluation import calibration_line, label, ranked, rating_lines

if TYPE_CHECKING:
    from nightrec.evaluation.findings import Findings
    from nightrec.metrics.bootstrap import Interval

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>nightrec: evaluation</title>
<style>body { font: 15px sans-serif; margin: 2em auto; max-width: 60em } svg { max-width: 100%; height: auto }</style>
<h1>How good the lists are</h1>
<p>{{ about }}</p>
{% for title, chart in charts %}<h2>{{ title }}</h2>
{{ chart | safe }}
{% endfor %}{% for line in told %}<p>{{ line }}</p>
{% endfor %}</html>
"""
Bar = tuple[str, float, float, float]  # name, value, bounds


def write(found: Findings, folder: Path) -> Path:
    """Write the page to evaluation.html in `folder`, over an older one."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "evaluation.html"
    file.write_text(page(found), encoding="utf-8")
    return file


def page(found: Findings) -> str:
    """The page: methods pooled and by cut, gains by slice, recall of the candidate sources."""
    pooled = [(label(one), *_bounds(one.figures["ndcg"])) for one in ranked(found, None)]
    gains = [(f"{one.name}, {one.figure}@{one.depth}", *_bounds(one.gain)) for one in found.slices if one.cut is None]
    best = next((one.best for one in found.slices if one.cut is None), "")
    sources = [(f"{one.source} @{one.depth}", one.mean, one.mean, one.mean) for one in found.reached if one.cut is None]
    charts = [(f"NDCG@{found.k} over all cuts, with 95 % intervals", _bars(pooled, found.ours))]
    for cut in found.cuts:
        bars = [(label(one), *_bounds(one.figures["ndcg"])) for one in ranked(found, cut)]
        charts.append((f"NDCG@{found.k} after {cut}", _bars(bars, found.ours)))
    charts.append((f"What {found.ours} has more than {best}, by slice", _bars(gains)))
    charts.append(("Recall of candidates; oracle: the NDCG they permit", _bars(sources)))
    about = f"What users did in the {found.days} days after {', '.join(map(str, found.cuts))}; lists of {found.k}."
    template = jinja2.Environment(autoescape=True).from_string(_PAGE)
    return template.render(about=about, charts=charts, told=[calibration_line(found), *rating_lines(found)])


def _bounds(interval: Interval | None) -> tuple[float, float, float]:
    return (interval.mean, interval.low, interval.high) if interval else (0.0, 0.0, 0.0)


def _bars(bars: Sequence[Bar], marked: str = "") -> str:
    """Horizontal bars, the first at the top, as SVG: the same bytes when drawn again. '' without bars."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not bars:
        return ""
    names, values, lows, highs = zip(*bars, strict=True)
    with rc_context({"svg.hashsalt": "nightrec", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 0.7 + 0.28 * len(bars)), layout="constrained")
        axes = figure.subplots()
        errors = [[value - low for value, low in zip(values, lows, strict=True)],
                  [high - value for value, high in zip(values, highs, strict=True)]]  # fmt: skip
        colours = ["#c44e52" if name == marked else "#4c72b0" for name in names]
        # By place: two bars may have one name.
        axes.barh(range(len(bars)), values, xerr=errors, color=colours, ecolor="#444444")
        # $ would begin a formula.
        axes.set_yticks(range(len(bars)), [name.replace("$", r"\$") for name in names])
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    svg = drawn.getvalue()
    return svg[svg.index("<svg") :]
