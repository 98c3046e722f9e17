"""The report's figures: each function takes rows (one per name), returns a matplotlib Figure or None where it has nothing to show.

Figures are drawn on the Agg canvas without pyplot: no global state, no display.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from edd.experiments import style
from edd.experiments.predictions import Row
from edd.experiments.results import get
from edd.experiments.tables import MEASURES, variant_titles
from edd.metrics import calibration, detection, rejection


def representatives(rows: Sequence[Row]) -> list[Row]:
    """The first row of every name: figures show one seed, tables all of them."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.name, row)
    return list(first.values())


def _usable(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if np.isfinite(np.exp(row.predictions["test"].log_probs)).all()]


def knowledge(row: Row, set_name: str) -> tuple[np.ndarray | None, str]:
    """The row's knowledge uncertainty (mutual information) on a set, or its total uncertainty where it has none; and which."""
    prediction = row.predictions[set_name]
    measure = "mutual_information" if prediction.mutual_information is not None else "total"
    values = getattr(prediction, measure)
    return (values if values is not None and not np.isnan(values).any() else None), measure


# --- calibration ------------------------------------------------------------------------------------------------------


def reliability(rows: Sequence[Row], labels: np.ndarray, *, num_bins: int = 15):
    """Reliability diagrams: accuracy against confidence per bin, the gap to the diagonal shaded, and where the examples lie."""
    rows = _usable(rows)
    if not rows:
        return None
    colour = style.colours(rows)

    def draw(figure, axes):
        for index, (axis, row) in enumerate(zip(axes, rows)):
            probs = np.exp(row.predictions["test"].log_probs)
            _reliability_panel(axis, probs, labels, num_bins, colour[row.name])
            axis.set_title(row.name)
            axis.set_xlabel("confidence")
            if index % 4 == 0:
                axis.set_ylabel("accuracy")

    return style.panels(draw, len(rows), height=3.0)


def _reliability_panel(axis, probs, labels, num_bins, colour):
    curve = calibration.reliability_curve(probs, labels, num_bins=num_bins)
    counts = np.asarray(curve.count, float)
    accuracy, confidence = np.asarray(curve.accuracy, float), np.asarray(curve.confidence, float)
    full = counts > 0
    centres, width = (np.arange(num_bins) + 0.5) / num_bins, 1 / num_bins
    axis.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    axis.bar(centres[full], accuracy[full], width, color=colour, alpha=0.35, edgecolor="white", linewidth=0.8, zorder=1)
    gap = (confidence - accuracy)[full]
    axis.bar(centres[full], gap, width, bottom=accuracy[full], color="#C8443C", alpha=0.30, edgecolor="white", linewidth=0.8, zorder=2)
    sizes = 8 + 90 * np.sqrt(counts[full] / counts.sum())
    axis.scatter(confidence[full], accuracy[full], s=sizes, color=colour, zorder=4, linewidth=0, clip_on=False)
    error = float(calibration.expected_calibration_error(probs, labels, num_bins=num_bins))
    axis.text(0.04, 0.94, f"ECE {100 * error:.1f} %", transform=axis.transAxes, va="top", fontsize=9)
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


# --- knowledge uncertainty in and out of distribution -----------------------------------------------------------------


def uncertainty_histograms(rows: Sequence[Row]):
    """Histograms of knowledge uncertainty (mutual information) on a logarithmic axis, in and out of distribution, per row."""
    rows = [row for row in rows if knowledge(row, "test")[1] == "mutual_information"]
    rows = [row for row in rows if all(knowledge(row, name)[0] is not None for name in row.predictions)]
    if not rows:
        return None
    everything = np.concatenate([knowledge(row, name)[0] for row in rows for name in row.predictions])
    positive = everything[np.isfinite(everything) & (everything > 0)]
    if not positive.size:
        return None
    low, high = max(np.quantile(positive, 0.002), 1e-9), positive.max()
    edges = np.logspace(np.log10(low), np.log10(max(high, 10 * low)), 41)

    def draw(figure, axes):
        for index, (axis, row) in enumerate(zip(axes, rows)):
            _histogram_panel(axis, row, edges)
            axis.set_title(row.name)
            axis.set_xlabel("mutual information (nats)")
            if index % 3 == 0:
                axis.set_ylabel("share of examples (%)")
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), 4))

    return style.panels(draw, len(rows), columns=3, width=3.4, height=2.6)


def _histogram_panel(axis, row, edges):
    for index, name in enumerate(sorted(row.predictions, key=lambda name: name != "test")):  # the test set first
        values = np.clip(knowledge(row, name)[0], edges[0], edges[-1])  # zeros are counted in the first bin
        share = 100 * np.histogram(values, edges)[0] / len(values)
        inside = name == "test"
        colour = style.TEST_COLOUR if inside else style.OUT_COLOURS[(index - 1) % len(style.OUT_COLOURS)]
        axis.stairs(share, edges, fill=inside, color=colour, alpha=0.55 if inside else 1.0, linewidth=1.8,
                    label="test (in distribution)" if inside else name)  # fmt: skip
    axis.set(xscale="log", xlim=(edges[0], edges[-1]))
    axis.minorticks_off()


# --- curves -----------------------------------------------------------------------------------------------------------


def risk_coverage(rows: Sequence[Row], labels: np.ndarray):
    """Error rate among the examples kept when the most uncertain (by total uncertainty) are rejected.

    A row whose error is over four times the median row's would squeeze all others into a line: it runs out of the picture,
    and the legend says so.
    """
    rows = [row for row in _usable(rows) if row.predictions["test"].total is not None]
    rows = [row for row in rows if not np.isnan(row.predictions["test"].total).any()]
    if not rows:
        return None
    colour = style.colours(rows)
    curves = [_risk_coverage_points(row.predictions["test"], labels) for row in rows]
    limit = 4 * np.median([y[-1] for _, y in curves]) or np.inf
    inside = [(x, y) for x, y in curves if y[-1] <= limit]

    def draw(figure, axes):
        axis = axes[0]
        for row, (x, y) in zip(rows, curves):
            label = row.name if y[-1] <= limit else f"{row.name} ({y[-1]:.0f} %: off the scale)"
            axis.plot(x, y, color=colour[row.name], label=label, **style.line_style(row))
        first_errors = [x[y > 0].min() for x, y in inside if (y > 0).any()]
        left = max(0.0, 10 * np.floor(min(first_errors, default=100.0) / 10) - 10)  # where nothing is wrong there is nothing to see
        axis.set(xlabel="coverage: share of test examples kept (%)", ylabel="error among the kept (%)", xlim=(left, 100))
        axis.set_ylim(0, max(1.08 * max(y[x >= left].max() for x, y in inside), 0.1))
        figure.legend(loc="outside right upper")

    return style.panels(draw, 1, width=7.6, height=3.9)


def _risk_coverage_points(prediction, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    errors = (prediction.log_probs.argmax(-1) != labels).astype(np.float64)
    curve = rejection.risk_coverage_curve(prediction.total, errors)
    return style.thin(100 * curve.coverage, 100 * curve.risk)


def roc(rows: Sequence[Row]):
    """ROC curves of out-of-distribution detection by knowledge uncertainty (total uncertainty where a row has none)."""
    rows = _usable(rows)
    names = list(dict.fromkeys(name for row in rows for name in row.predictions if name != "test"))
    if not names:
        return None
    colour = style.colours(rows)

    def draw(figure, axes):
        for index, (axis, name) in enumerate(zip(axes, names)):
            _roc_panel(axis, [row for row in rows if name in row.predictions], name, colour)
            axis.set(title=name, xlabel="test examples flagged (%)", xlim=(0, 100), ylim=(0, 100), aspect="equal")
            if index % 3 == 0:
                axis.set_ylabel("out-of-distribution examples flagged (%)")

    return style.panels(draw, len(names), columns=3, width=4.3, height=4.1)


def _roc_panel(axis, rows, name, colour):
    axis.plot([0, 100], [0, 100], color="#999999", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for row in rows:
        inside, measure = knowledge(row, "test")
        outside, _ = knowledge(row, name)
        if inside is None or outside is None:
            continue
        scores = np.concatenate([inside, outside])
        positive = np.arange(len(scores)) >= len(inside)
        area = float(detection.auroc(scores, positive))
        curve = detection.roc_curve(scores, positive)
        x, y = style.thin(100 * curve.false_positive_rate, 100 * curve.true_positive_rate)
        label = f"{row.name}, {MEASURES[measure][0]}: {100 * area:.1f} %"
        axis.plot(x, y, color=colour[row.name], label=label, **style.line_style(row))
    axis.legend(loc="lower right", title="row, measure: AUROC", alignment="left", title_fontsize=9)


# --- a study over one setting -----------------------------------------------------------------------------------------


class _Panel(NamedTuple):
    title: str
    path: tuple[str, ...]
    scale: Callable[[float], float]
    log: bool = False


def _study_panels(summary: list[dict]) -> list[_Panel]:
    percent = lambda value: 100 * value  # noqa: E731
    panels = [
        _Panel("error (%)", ("classification", "accuracy"), lambda value: 100 * (1 - value)),
        _Panel("NLL (nats)", ("classification", "nll"), lambda value: value),
        _Panel("ECE (%)", ("classification", "ece"), percent),
        _Panel("median precision, test", ("precision", "test"), lambda value: value, log=True),
    ]
    sets = list(dict.fromkeys(name for entry in summary for name in entry["metrics"].get("detection", {})))
    panels += [_Panel(f"AUROC by I, {name} (%)", ("detection", name, "mutual_information", "auroc"), percent) for name in sets]
    return [panel for panel in panels if any(_point(entry, panel) is not None for entry in summary)]


def _point(entry: dict, panel: _Panel) -> tuple[float, float] | None:
    """Mean and standard deviation as drawn, or None where the entry has no finite number."""
    leaf = get(entry["metrics"], panel.path)
    if leaf is None or leaf["mean"] is None or not np.isfinite(leaf["mean"]):
        return None
    return panel.scale(leaf["mean"]), abs(panel.scale(leaf["sd"] or 0.0) - panel.scale(0.0))


def study(summary: list[dict]):
    """Each headline number against the one numeric setting in which merged runs differ; error bars are one standard deviation."""
    names = {name for entry in summary for name in entry["variant"]}
    values = {value for entry in summary for value in entry["variant"].values()}
    if len(names) != 1 or not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return None
    (setting,) = names
    rows = representatives([Row(entry["name"], 0, {}, group=entry["group"]) for entry in summary])
    colour, panels, ticks = style.colours(rows), _study_panels(summary), sorted(values)
    log = min(ticks) > 0

    def draw(figure, axes):
        for axis, panel in zip(axes, panels):
            for index, row in enumerate(rows):
                shift = (index - (len(rows) - 1) / 2) * 0.012  # so that error bars do not hide one another
                _study_line(axis, row, [entry for entry in summary if entry["name"] == row.name], setting, panel, colour, shift, log)
            axis.set(title=panel.title, xlabel=variant_titles(summary)[setting], xscale="log" if log else "linear")
            axis.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
            if panel.log:
                _log_axis(axis)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 8))

    return style.panels(draw, len(panels), columns=3 if len(panels) > 4 else 4, width=3.4, height=3.0)


def _study_line(axis, row, entries, setting, panel, colour, shift, log):
    entries = sorted(entries, key=lambda entry: entry["variant"][setting])
    points = [(entry["variant"][setting], *point) for entry in entries if (point := _point(entry, panel)) is not None]
    if points:
        x, y, spread = np.array(points, float).T
        x = x * (1 + shift) if log else x
        lines = style.line_style(row)
        axis.errorbar(x, y, yerr=spread, color=colour[row.name], label=row.name, marker="o", markersize=4, elinewidth=1, capsize=2, **lines)


def _log_axis(axis):
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
