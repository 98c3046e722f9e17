"""The report of a regression study: one table for each metric, rows of methods, columns of sets, the paper's numbers beside ours."""

import math
import pathlib

from edd.experiments import collapse, page, regression_figures, results
from edd.experiments.tables import Cell, Table, number

SCHEMA = "edd.regression/1"
METRICS = {
    "rmse": ("RMSE", 4),
    "nll": ("NLL, nats", 4),
    "crps": ("CRPS", 4),
    "coverage": ("Coverage of the central 95 % interval", 4),
}
CONVENTIONS = {
    "rows": "Single: one teacher, mean over the teachers' own scores; Teachers: the equal-weight mixture of all of them; students as named",
    "units": "RMSE and CRPS in the target's own unit, NLL in nats of that unit",
    "±": "standard error over splits (standard deviation over sqrt of their number)",
    "coverage": "share of test targets between the mixture's 2.5 % and 97.5 % quantiles; a student is to have its teachers' coverage",
    "variance kept": "mean over test inputs of the variance of the predicted functions, student over teachers; below 0.1: collapsed",
    "loading norm": "mean over test inputs of |loading(x)|, the standard deviation of a latent factor student's functions",
}
KEPT = {
    "variance_ratio": "Variance kept (student over teachers)",
    "loading_norm": "Loading norm, in standard deviations of the target",
}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict, reference: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "reference": reference, "parts": parts, "summary": summarise(parts)}
    write(found, workdir)
    return found


def merge(runs: list[dict]) -> dict:
    """One results dict from runs over other sets or splits; errors as `page.merge`."""
    merged = page.merge(runs, SCHEMA, lambda part: (part["set"], part["split"]), ("data.sets", "data.splits"))
    return merged | {"summary": summarise(merged["parts"])}


def summarise(parts: list[dict]) -> dict:
    """set -> row -> metric -> {"mean", "standard_error", "n"} over splits, in order of first appearance."""
    summary: dict = {}
    for part in parts:
        for row, scores in part["rows"].items():
            for name, value in scores.items():
                summary.setdefault(part["set"], {}).setdefault(row, {}).setdefault(name, []).append(value)
    return {
        data: {row: {name: pooled(values) for name, values in scores.items()} for row, scores in rows.items()}
        for data, rows in summary.items()
    }


def pooled(values: list[float]) -> dict:
    """Mean and standard error over splits."""
    found = results.pool(values)
    error = None if found["sd"] is None else found["sd"] / math.sqrt(found["n"])
    return {"mean": found["mean"], "standard_error": error, "n": found["n"]}


def tables(found: dict) -> list[Table]:
    """One table per metric, then what students kept of the variance, and costs."""
    summary = found["summary"]
    sets = list(summary)
    rows = list(dict.fromkeys(row for each in summary.values() for row in each))
    made = []
    for metric, (title, decimals) in METRICS.items():
        lines = []
        for row in [*rows, *(row for row in found["reference"] if row not in rows)]:
            if row in rows:
                lines.append([Cell(row), *(cell(summary[data].get(row, {}).get(metric), decimals) for data in sets)])
            values = [found["reference"].get(row, {}).get(data, {}).get(metric) for data in sets]
            if any(value is not None for value in values):
                lines.append([Cell(f"{row}, paper"), *(Cell(number(value, 1, decimals)) for value in values)])
        made.append(Table(title, ["row", *sets], [""] * (1 + len(sets)), lines, 1))
    for name, title in KEPT.items():
        students = [row for row in rows if any(name in summary[data].get(row, {}) for data in sets)]
        lines = [[Cell(row), *(cell(summary[data].get(row, {}).get(name), 3) for data in sets)] for row in students]
        if lines:
            made.append(Table(title, ["row", *sets], [""] * (1 + len(sets)), lines, 1))
    for name, title, decimals in (("parameters", "Parameters", 0), ("seconds", "Seconds of training", 1)):
        lines = [[Cell(row), *(cell(summary[data].get(row, {}).get(name), decimals, spread=False) for data in sets)] for row in rows]
        made.append(Table(title, ["row", *sets], [""] * (1 + len(sets)), lines, 1))
    return made


def cell(leaf: dict | None, decimals: int, *, spread: bool = True) -> Cell:
    """The mean, with its standard error where there is one."""
    if leaf is None:
        return Cell("–")
    text = number(leaf["mean"], 1, decimals)
    error = leaf["standard_error"]
    return Cell(text + (f" ± {number(error, 1, decimals, tiny=False)}" if spread and error is not None else ""))


def opening(found: dict) -> list[str]:
    """What the numbers say, in sentences: how far each student comes from a single network to its teachers."""
    sentences = []
    for data, rows in found["summary"].items():
        single, teachers = (rows[name]["crps"]["mean"] for name in ("Single", "Teachers"))
        if not single > teachers:
            sentences.append(f"{data}: the teachers together are no better than one of them (CRPS {teachers:.4g} against {single:.4g}).")
            continue
        shares = [
            f"{row} {100 * (single - scores['crps']['mean']) / (single - teachers):.0f} %"
            for row, scores in rows.items()
            if row not in ("Single", "Teachers")
        ]
        sentences.append(
            f"{data}: of the way from a single network's CRPS {single:.4g} to the teachers' {teachers:.4g} go: " + ", ".join(shares) + "."
        )
        for row, scores in rows.items():
            collapsed = collapse.told(row, scores.get("variance_ratio", {}).get("mean"))
            sentences += [f"{data}: {collapsed}."] if collapsed else []
    return sentences


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    title = f"{found['settings'].get('name', 'regression')}: Gaussian distillation on tables"
    figures = {name: (draw(found["parts"]), caption) for name, (draw, caption) in regression_figures.FIGURES.items()}
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS, smoke=found["settings"].get("smoke", False))
