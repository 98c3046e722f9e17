"""The report of an ablation: metrics against the swept value, one panel for each set, and what was best where."""

import pathlib
from collections.abc import Iterator

import numpy as np

from edd.experiments import collapse, page, regression_report, style
from edd.experiments.tables import Cell, Table, number

SCHEMA = "edd.ablation/1"
METRICS = {
    "crps": ("CRPS", 4),
    "nll": ("NLL, nats", 4),
    "rmse": ("RMSE", 4),
    "coverage": ("Coverage of the central 95 % interval", 3),
    "variance_ratio": ("Variance kept (student over teachers)", 3),
    "loading_norm": ("Loading norm", 3),
}
FIGURES = ("crps", "nll", "variance_ratio")
CONVENTIONS = {
    name: regression_report.CONVENTIONS[name] for name in ("rows", "units", "±", "coverage", "variance kept", "loading norm")
} | {
    "TwoNN": "intrinsic dimension of the scaled training inputs (Facco et al. 2017); repeated rows count once, lattices upset it",
    "linear dimension": "participation ratio of a covariance: of the training inputs, and of the teachers' functions at the design points",
}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, workdir)
    return found


def merge(runs: list[dict]) -> dict:
    """One results dict from runs of the same study over other sets, splits or values; errors as `page.merge`."""
    key = lambda part: (part["set"], part["split"], part["group"], part["value"])  # noqa: E731
    return page.merge(runs, SCHEMA, key, ("base.data.sets", "base.data.splits", "variants"))


def curves(parts: list[dict], metric: str) -> Iterator[tuple[str, str, str, list, list]]:
    """(set, group, row, values of the sweep, {"mean", "standard_error", "n"} at each) of every curve that has the metric."""
    table: dict = {}
    for part in parts:
        for row, scores in part["rows"].items():
            if metric in scores:
                points = table.setdefault((part["set"], part["group"], row), {})
                points.setdefault(part["value"], []).append(scores[metric])
    for (data, group, row), points in table.items():
        yield data, group, row, list(points), [regression_report.pooled(values) for values in points.values()]


def tables(found: dict) -> list[Table]:
    """One table per metric: a line for each set, group and row, a column for each value; then dimensions."""
    parts = found["parts"]
    values = list(dict.fromkeys(part["value"] for part in parts))
    several = len({part["group"] for part in parts}) > 1
    heads = ["set", *(["curve"] if several else []), "row"]
    made = []
    for metric, (title, decimals) in METRICS.items():
        lines = []
        for data, group, row, at, leaves in curves(parts, metric):
            if row == "Single":
                continue
            known = dict(zip(at, leaves))
            cells = [regression_report.cell(known.get(value), decimals) for value in values]
            lines.append([Cell(data), *([Cell(group)] if several else []), Cell(row), *cells])
        if lines:
            made.append(Table(title, [*heads, *map(str, values)], [""] * (len(heads) + len(values)), lines, len(heads)))
    return [*made, dimensions(found)]


def dimensions(found: dict) -> Table:
    """The best value by CRPS of each set's students beside estimates of the data's dimension, means over splits."""
    lines = []
    for data in dict.fromkeys(part["set"] for part in found["parts"]):
        parts = [part for part in found["parts"] if part["set"] == data]
        means = {name: np.mean([part["dimension"][name] for part in parts]) for name in parts[0]["dimension"]}
        best = [f"{_curve_name(group, row)} {value}" for group, row, value in best_values(parts)]
        cells = [number(means[name], 1, 1) for name in ("two_nn", "inputs", "functions")]
        lines.append([Cell(data), Cell("; ".join(best)), Cell(str(parts[0]["num_features"])), *map(Cell, cells)])
    heads = ["set", f"best {found['settings']['study']} by CRPS", "features", "TwoNN", "linear, inputs", "linear, teachers' functions"]
    return Table("Best value and dimension", heads, [""] * len(heads), lines, 2)


def best_values(parts: list[dict]) -> list[tuple[str, str, object]]:
    """(group, row, value of least mean CRPS) of each student on the parts of one set."""
    found = curves(parts, "crps")
    students = [each for each in found if any("variance_ratio" in part["rows"].get(each[2], {}) for part in parts)]
    return [
        (group, row, min(zip((leaf["mean"] for leaf in leaves), at), key=lambda pair: pair[0])[1]) for _, group, row, at, leaves in students
    ]


def opening(found: dict) -> list[str]:
    """Which value was best, by how much it matters, and who collapsed."""
    sentences = []
    for data, group, row, at, leaves in curves(found["parts"], "crps"):
        if row in ("Single", "Teachers") or len(at) < 2:
            continue
        means = [leaf["mean"] for leaf in leaves]
        low, high = int(np.argmin(means)), int(np.argmax(means))
        name = _curve_name(group, row)
        sentences.append(f"{data}, {name}: CRPS from {means[low]:.4g} at {at[low]} to {means[high]:.4g} at {at[high]}.")
    for data, group, row, at, leaves in curves(found["parts"], "variance_ratio"):
        for value, leaf in zip(at, leaves):
            told = collapse.told(_curve_name(group, row), leaf["mean"])
            sentences += [f"{data}, {found['settings']['study']} {value}: {told}."] if told else []
    return sentences


def _curve_name(group: str, row: str) -> str:
    return f"{row} ({group})" if group else row


def figure(found: dict, metric: str):
    """The metric against the swept value, a panel for each set; teachers dashed, bars of one standard error over splits."""
    lines = [each for each in curves(found["parts"], metric) if each[2] != "Single"]
    sets = list(dict.fromkeys(each[0] for each in lines))
    names = list(dict.fromkeys(_curve_name(*each[1:3]) for each in lines if each[2] != "Teachers"))
    numeric = all(isinstance(part["value"], (int, float)) for part in found["parts"])
    values = list(dict.fromkeys(part["value"] for part in found["parts"]))

    def draw(figure, axes):
        for axis, data in zip(axes, sets):
            for _, group, row, at, leaves in (each for each in lines if each[0] == data):
                where = at if numeric else [values.index(value) for value in at]
                means, errors = [leaf["mean"] for leaf in leaves], [leaf["standard_error"] or 0.0 for leaf in leaves]
                name = row if row == "Teachers" else _curve_name(group, row)
                colour = "#111111" if row == "Teachers" else style.STUDENT_COLOURS[names.index(name) % len(style.STUDENT_COLOURS)]
                look = {"linestyle": "--", "linewidth": 1.2} if row == "Teachers" else {"marker": "o", "markersize": 4, "linewidth": 1.5}
                axis.errorbar(where, means, yerr=errors, color=colour, label=name, capsize=2, **look)
            if metric == "variance_ratio":
                axis.axhline(1.0, color="#111111", linestyle="--", linewidth=1)
                axis.axhline(collapse.LEAST_SHARE, color="#C8443C", linestyle=":", linewidth=1)
                axis.set_ylim(bottom=0)
            if not numeric:
                axis.set_xticks(range(len(values)), [str(value) for value in values])
            elif min(values) > 0 and max(values) / min(values) > 12:
                axis.set_xscale("log")
                axis.set_xticks(values, [str(value) for value in values])
                axis.minorticks_off()
            axis.set_title(data)
            axis.set_xlabel(found["settings"]["study"])
        axes[0].set_ylabel(METRICS[metric][0])
        handles, labels = axes[0].get_legend_handles_labels()
        once = [index for index, label in enumerate(labels) if label not in labels[:index]]
        figure.legend(
            [handles[index] for index in once], [labels[index] for index in once], loc="outside lower center", ncols=min(len(sets), 3)
        )

    return style.panels(draw, len(sets), columns=3, height=2.9, width=3.4)


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    settings = found["settings"]
    title = f"{settings['name']}: {settings['study']}"
    drawn = {
        f"{metric}": (figure(found, metric), f"{METRICS[metric][0]} against {settings['study']}; bars: one standard error over splits.")
        for metric in FIGURES
        if any(True for _ in curves(found["parts"], metric))
    }
    page.write(found, out, title, opening(found), tables(found), drawn, CONVENTIONS, smoke=settings.get("smoke", False))
