"""The report of the toy regression: predictions, variance between sub-ensembles over the inputs, and its mean against their size."""

import pathlib

import numpy as np

from edd.experiments import page, regression_report, style
from edd.experiments.tables import Cell, Table, number

SCHEMA = "edd.hierarchy_regression/1"
SHOWN = 3  # sizes whose predictions are drawn
CONVENTIONS = {
    "variance": "population variance of the G sub-ensembles' means, mean over a grid of inputs: knowledge uncertainty, squared units of y",
    "law": "(G - 1) / (G size) times the unbiased variance of all members: in expectation exact for members drawn alike, slope -1",
    "one ensemble": "the first G sub-ensembles of each size, as in the paper's figure; disjoint ensembles: all that the members fill, "
    "their mean",
    "slope": "of the least-squares line of ln variance over ln size",
    "residual": "largest |total - between - within| over total of any ensemble and input: the chain rule is exact, this is rounding",
    "±": "standard error over draws of the observations and of all members",
}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, workdir)
    return found


def merge(runs: list[dict]) -> dict:
    """One results dict from runs with other seeds; errors as `page.merge`."""
    return page.merge(runs, SCHEMA, lambda part: (part["seed"], part["repeat"]), ("repeats", "seed"))


def sizes(found: dict) -> list[int]:
    """The sizes of the sub-ensembles, ascending."""
    return [int(size) for size in found["parts"][0]["rows"]]


def slope(values: dict[str, dict], name: str) -> float:
    """Slope of ln of a variance over ln size, one repeat.

    Examples:
      >>> round(slope({"1": {"between": 0.4}, "10": {"between": 0.04}}, "between"), 6)
      -1.0
    """
    return float(np.polyfit(np.log([int(size) for size in values]), np.log([row[name] for row in values.values()]), 1)[0])


def pooled(found: dict, name: str) -> dict[int, dict]:
    """size -> {"mean", "standard_error", "n"} over repeats."""
    return {size: regression_report.pooled([part["rows"][str(size)][name] for part in found["parts"]]) for size in sizes(found)}


def slopes(found: dict) -> dict[str, dict]:
    """ "first" and "between" -> the slope's {"mean", "standard_error", "n"} over repeats."""
    return {name: regression_report.pooled([slope(part["rows"], name) for part in found["parts"]]) for name in ("first", "between")}


def law(part: dict, size: int) -> float:
    """The variance between sub-ensembles that the law expects in one repeat."""
    num_groups = part["members"] // max(int(each) for each in part["rows"])
    return part["variance"] * (num_groups - 1) / (num_groups * size)


def opening(found: dict) -> list[str]:
    """The slope, how far the variances are from the law, and the chain rule's residual."""
    told = []
    for name, what in (("first", "one ensemble"), ("between", "mean over disjoint ensembles")):
        each = slopes(found)[name]
        error = "" if each["standard_error"] is None else f" ± {each['standard_error']:.2g}"
        told.append(f"Slope of ln variance between sub-ensembles over ln size, {what}: {each['mean']:.3f}{error}; expected about -1.")
    ratios = {size: np.mean([part["rows"][str(size)]["between"] / law(part, size) for part in found["parts"]]) for size in sizes(found)}
    told.append("Variance over the law, disjoint ensembles: " + ", ".join(f"{each:.2f} at {size}" for size, each in ratios.items()) + ".")
    residual = max(row["residual"] for part in found["parts"] for row in part["rows"].values())
    told.append(f"Total = between + within at every input of every ensemble, to {residual:.1g} of the total.")
    return told


def tables(found: dict) -> list[Table]:
    """A line for each size."""
    columns = ["members per sub-ensemble", "disjoint ensembles", "one ensemble", "disjoint ensembles' mean", "law", "total"]
    first, between, total = (pooled(found, name) for name in ("first", "between", "total"))
    lines = []
    for size in sizes(found):
        count = found["parts"][0]["rows"][str(size)]["ensembles"]
        expected = regression_report.pooled([law(part, size) for part in found["parts"]])
        numbers = [regression_report.cell(each, 6) for each in (first[size], between[size], expected, total[size])]
        lines.append([Cell(str(size)), Cell(number(count, 1, 0)), *numbers])
    return [Table("Variance between sub-ensembles, mean over inputs", columns, [""] * len(columns), lines, 1)]


def figure(found: dict):
    """Predictions of sub-ensembles of some sizes, standard deviation between sub-ensembles over the inputs, and variance over size."""
    from matplotlib import colormaps

    curves = next(part["curves"] for part in found["parts"] if "curves" in part)
    grid, known = np.array(curves["grid"]), sizes(found)
    colours = dict(zip(known, colormaps["viridis"](np.linspace(0, 0.92, len(known)))))
    shown = [known[index] for index in np.unique(np.linspace(0, len(known) - 1, SHOWN).round().astype(int))]

    def draw(figure, axes):
        for size in shown:
            for index, line in enumerate(curves["means"][str(size)]):
                label = f"sub-ensembles of {size}" if index == 0 else None
                axes[0].plot(grid, line, color=colours[size], linewidth=0.8, alpha=0.7, label=label)
        axes[0].plot(grid, np.sin(grid), "--", color="#111111", linewidth=1.5, label="sin x")
        axes[0].plot(curves["inputs"], curves["labels"], ".", color="#777777", markersize=5, label="data")
        axes[0].set_ylim(*_limits(curves))
        axes[0].set(title="predictions", xlabel="x")
        for size in known:
            axes[1].plot(grid, np.sqrt(curves["between"][str(size)]), color=colours[size], label=str(size))
        axes[1].set(title="standard deviation between sub-ensembles", xlabel="x", yscale="log")
        axes[1].set_ylim(top=4 * axes[1].get_ylim()[1])  # room for the legend
        _size_axis(axes[2], found)
        for axis, columns in zip(axes, (1, 3, 1)):
            axis.legend(fontsize=7, ncols=columns)

    return style.panels(draw, 3, columns=3, height=3.2, width=3.8)


def _limits(curves: dict) -> tuple[float, float]:
    """The central 98 % of what is drawn, with a margin: single networks may leave far off the data."""
    values = np.concatenate([np.ravel(each) for each in curves["means"].values()])
    low, high = np.quantile(values, [0.01, 0.99])
    return min(low, -1.0) - 0.5, max(high, 1.0) + 0.5


def _size_axis(axis, found: dict) -> None:
    known = sizes(found)
    for name, marker, label in (("first", "o", "one ensemble"), ("between", "s", "disjoint ensembles")):
        each = pooled(found, name)
        errors = [each[size]["standard_error"] or 0.0 for size in known]
        colour = style.STUDENT_COLOURS[0 if name == "first" else 1]
        axis.errorbar(
            known, [each[size]["mean"] for size in known], yerr=errors, marker=marker, markersize=4, capsize=2, label=label, color=colour
        )
    expected = [np.mean([law(part, size) for part in found["parts"]]) for size in known]
    axis.plot(known, expected, "--", color="#111111", label="law, slope -1")
    axis.set(title="mean variance", xlabel="members per sub-ensemble", xscale="log", yscale="log")
    axis.set_xticks(known, labels=list(map(str, known)))
    axis.minorticks_off()


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    caption = "Predictions of the first ensemble's sub-ensembles; standard deviation of their means; its mean square against their size."
    title = f"{found['settings']['name']}: sub-ensembles on a toy regression"
    figures = {"hierarchy_regression": (figure(found), caption)}
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS, smoke=found["settings"].get("smoke", False))
