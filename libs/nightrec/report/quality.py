"""What the README says of the lists' quality, as Markdown: from the files that infra/quality/measure.py keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Log = Mapping[str, Any]
# Baselines shown of each log, the best ones.
_SHOWN = 6


def quality(logs: Sequence[Log]) -> str:
    """All logs side by side, then of each its best baselines, its slices and what its candidate sources reach."""
    if not logs:
        return "Not measured yet."
    return "\n\n".join([_together(logs), _goals(logs), *(_alone(log) for log in logs), _reached(logs)])


def made(logs: Sequence[Log]) -> str:
    """Logs made from others, each by itself: they count in no mean."""
    return "\n\n".join(_alone(log) for log in logs) or "Not measured yet."


def _together(logs: Sequence[Log]) -> str:
    k = logs[0]["k"]
    lines = [
        f"| log and task | users | best baseline | its NDCG@{k} | nightrec | ahead by | | coverage@{k} | debiased |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for log in logs:
        ours, best = _own(log), _ranked(log)[0]
        mine, theirs = ours["figures"], best["figures"]
        cells = [
            log["name"], f"{mine['ndcg']['users']:,}", _label(best), _mean(theirs["ndcg"]), _mean(mine["ndcg"]),
            _spread(best["gain"]), f"{_share(log):+.0%}", f"{ours['coverage']:.3f} ({best['coverage']:.3f})",
            f"{_mean(mine['debiased_ndcg'])} ({_mean(theirs['debiased_ndcg'])})",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "In brackets: the best baseline's."])


def _goals(logs: Sequence[Log]) -> str:
    """What is wanted of the lists, a line each."""
    gain = sum(map(_share, logs)) / len(logs)
    lines = [_goal(f"NDCG over the best baseline's in the mean {gain:+.1%}, wanted +5%", gain >= 0.05)]
    for log in logs:
        ours, best = _own(log), _ranked(log)[0]
        low = best["gain"]["low"]
        lines.append(_goal(f"{log['name']}: the interval of the difference above 0 (from {low:+.3f})", low > 0))
        wide = [one["coverage"] for one in (ours, best)]
        lines.append(_goal(f"{log['name']}: coverage {wide[0]:.3f}, wanted {wide[1]:.3f}", wide[0] >= wide[1]))
        rare = [one["figures"]["debiased_ndcg"]["mean"] for one in (ours, best)]
        lines.append(_goal(f"{log['name']}: debiased NDCG {rare[0]:.3f}, wanted {rare[1]:.3f}", rare[0] >= rare[1]))
    return "\n".join(lines)


def _goal(told: str, met: bool) -> str:
    return f"- {told}: {'met' if met else 'missed'}"


def _share(log: Log) -> float:
    """By how much of the best baseline's NDCG ours is above it."""
    ours, best = (one["figures"]["ndcg"]["mean"] for one in (_own(log), _ranked(log)[0]))
    return float(ours / best - 1)


def _alone(log: Log) -> str:
    k, cuts = log["k"], ", ".join(log["cuts"])
    about = (
        f"**{log['name']}**: {log['days']} days after each of {cuts}; judged on {log['date']} in {log['minutes']:.0f} "
        f"minutes on {log['machine']}."
    )
    names = ("ndcg", "recall", "recall_100", "hit", "average_precision", "precision", "f1")
    head = ["method", "NDCG", "Recall", "Recall@100", "HR", "MAP", "precision", "F1", "coverage", "novelty", "ahead by"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for one in [_own(log), *_ranked(log)[:_SHOWN]]:
        figures = [_mean(one["figures"].get(name)) for name in names]
        gain = "" if one["method"] == log["ours"] else _spread(one["gain"])
        cells = [_label(one), *figures, f"{one['coverage']:.3f}", _mean(one["figures"]["novelty"]), gain]
        lines.append(f"| {' | '.join(cells)} |")
    by_cut = "; ".join(_cut(log, cut) for cut in log["cuts"])
    best = log["slices"][0]["best"] if log["slices"] else ""
    columns = f"| slice | users | figure | nightrec | {best} | ahead by | of segment popularity by |"
    slices = [columns, "|---|---|---|---|---|---|---|"]
    for one in log["slices"]:
        cells = [
            one["name"], f"{one['ours']['users']:,}", f"{one['figure']}@{one.get('depth', k)}", _mean(one["ours"]),
            _mean(one["theirs"]), _spread(one["gain"]), _spread(one.get("over_segment")),
        ]  # fmt: skip
        slices.append(f"| {' | '.join(cells)} |")
    return "\n".join([about, "", *lines, "", f"By cut: {by_cut}.", "", *slices])


def _cut(log: Log, cut: str) -> str:
    rows = [row for row in log["by_cut"] if row["cut"] == cut and row["ndcg"]]
    mine = next((row["ndcg"]["mean"] for row in rows if row["method"] == log["ours"]), 0.0)
    best = max((row for row in rows if row["method"] != log["ours"]), key=lambda row: row["ndcg"]["mean"], default=None)
    return f"{cut} {mine:.3f}" + (f" beside {best['ndcg']['mean']:.3f} ({best['method']})" if best else "")


def _reached(logs: Sequence[Log]) -> str:
    """Recall of each candidate source and of their union, and the seconds of cores a night, three columns per log."""
    depths = (100, 500)
    shown = (*(f"recall@{depth}" for depth in depths), "seconds")
    head = ["candidates of", *(f"{log['name']}, {column}" for log in logs for column in shown)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    means = [{(one["source"], one["depth"]): one["mean"] for one in log["reached"]} for log in logs]
    for source in dict.fromkeys(one["source"] for log in logs for one in log["reached"] if one["source"] != "oracle"):
        cells = []
        for log, found in zip(logs, means, strict=True):
            costs = {**log["costs"], "union": sum(log["costs"].values())}
            cells += [f"{found.get((source, depth), 0.0):.3f}" for depth in depths]
            cells.append(f"{costs[source]:.1f}" if source in costs else "")
        lines.append(f"| {source} | {' | '.join(cells)} |")
    oracle = [one["mean"] for log in logs for one in log["reached"] if one["source"] == "oracle"]
    told = ", ".join(f"{log['name']} {mean:.3f}" for log, mean in zip(logs, oracle, strict=False))
    return "\n".join([*lines, "", f"The union in the best order would have NDCG@{logs[0]['k']}: {told}."])


def _own(log: Log) -> Log:
    found: Log = next(one for one in log["judged"] if one["method"] == log["ours"])
    return found


def _ranked(log: Log) -> list[Log]:
    """The baselines, best NDCG first."""
    others = [one for one in log["judged"] if one["method"] != log["ours"]]
    return sorted(others, key=lambda one: -one["figures"]["ndcg"]["mean"])


def _label(one: Log) -> str:
    return f"{one['method']} ({one['setting']})" if one["setting"] else str(one["method"])


def _mean(figure: Log | None) -> str:
    return f"{figure['mean']:.3f}" if figure else ""


def _spread(gain: Log | None) -> str:
    return f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})" if gain else ""
