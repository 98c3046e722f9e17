"""The report of the two-mode study: distances to the true law against the separation of its modes, and marginals."""

import pathlib

import numpy as np

from edd.experiments import page, regression_report, style
from edd.experiments.tables import Cell, Table

SCHEMA = "edd.function_laws/1"
METRICS = {
    "energy": ("Energy distance of the marginals", 4),
    "wasserstein": ("Wasserstein distance of the marginals", 4),
    "covariance": ("Relative error of the covariance", 3),
}
GAUSSIAN = "Gaussian of the true moments"
CONVENTIONS = {
    "separation": "a / b: half the distance between the modes, where |g(x)| = 1, in standard deviations of one; a^2 + b^2 = 1",
    "distances": "between the true law of f(x) and the row's, mean over test inputs; the energy distance is twice the excess CRPS",
    "rows": "Teachers: the empirical law of the functions drawn, which a student sees; Gaussian of the true moments: the price of being "
    "Gaussian, no Gaussian law can know more than these",
    "covariance": "Frobenius norm of the difference of the covariances at the test inputs, over that of the true one",
    "±": "standard error over draws of the teachers",
}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, workdir)
    return found


def merge(runs: list[dict]) -> dict:
    """One results dict from runs at other separations; errors as `page.merge`."""
    return page.merge(runs, SCHEMA, lambda part: (part["separation"], part["repeat"]), ("separations", "repeats", "seed"))


def curves(found: dict, metric: str) -> dict[str, tuple[list, list]]:
    """row -> (separations, {"mean", "standard_error", "n"} at each)."""
    table: dict = {}
    for part in found["parts"]:
        for row, values in part["rows"].items():
            table.setdefault(row, {}).setdefault(part["separation"], []).append(values[metric])
    return {row: (sorted(points), [regression_report.pooled(points[at]) for at in sorted(points)]) for row, points in table.items()}


def tables(found: dict) -> list[Table]:
    """One table per distance: a line for each row, a column for each separation."""
    made = []
    for metric, (title, decimals) in METRICS.items():
        lines = curves(found, metric)
        separations = next(iter(lines.values()))[0]
        rows = [[Cell(row), *(regression_report.cell(leaf, decimals) for leaf in leaves)] for row, (_, leaves) in lines.items()]
        made.append(Table(title, ["row", *(f"{each:g}" for each in separations)], [""] * (1 + len(separations)), rows, 1))
    return made


def opening(found: dict) -> list[str]:
    """Where a student is no better than the best Gaussian although its teachers are, and by how much."""
    lines = curves(found, "energy")
    floor, (at, teachers) = lines[GAUSSIAN][1], lines["Teachers"]
    sentences = []
    for row, (_, leaves) in lines.items():
        if row in ("Teachers", GAUSSIAN):
            continue
        pairs = list(zip(at, leaves, floor, teachers))
        within = [index for index, (_, own, _, members) in enumerate(pairs) if own["mean"] <= 2 * members["mean"]]
        worse = [each[0] for each in pairs[within[-1] + 1 if within else 0 :]]  # all of them, to the last
        separation, own, exact, members = pairs[-1]
        told = f"{row}: energy distance {own['mean']:.3g} at separation {separation:g}, its teachers' {members['mean']:.3g}, "
        told += f"a Gaussian of the true moments' {exact['mean']:.3g}; "
        sentences.append(told + (f"more than twice its teachers' from {worse[0]:g} on." if worse else "never twice its teachers'."))
    return sentences


def distances(found: dict):
    """Each distance against the separation."""

    def draw(figure, axes):
        for axis, (metric, (title, _)) in zip(axes, METRICS.items()):
            for index, (row, (at, leaves)) in enumerate(curves(found, metric).items()):
                look = {"color": _colour(row, index), "linestyle": "--" if row in ("Teachers", GAUSSIAN) else "-"}
                errors = [leaf["standard_error"] or 0.0 for leaf in leaves]
                axis.errorbar(at, [leaf["mean"] for leaf in leaves], yerr=errors, marker="o", markersize=3, capsize=2, label=row, **look)
            axis.set_title(title)
            axis.set_xlabel("separation of the modes")
            axis.set_ylim(bottom=0)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

    return style.panels(draw, len(METRICS), columns=3, height=3.0, width=3.6)


def marginals(found: dict):
    """Densities of f(x) at some inputs, at the largest separation: the law, the students' Gaussians, functions as histograms."""
    part = max(found["parts"], key=lambda each: (each["separation"], -each["repeat"]))
    points, known = part["marginals"]["points"], part["marginals"]["laws"]
    grid = np.linspace(-3, 3, 400)

    def draw(figure, axes):
        for place, (axis, point) in enumerate(zip(axes, points)):
            for index, (row, (means, variances)) in enumerate(known.items()):
                if row == GAUSSIAN:
                    continue
                means, variances = np.array(means)[:, place], np.array(variances)[:, place]
                if (variances == 0).all():
                    options = {"histtype": "step"} if row != "Teachers" else {"alpha": 0.3}
                    axis.hist(means, bins=30, range=(-3, 3), density=True, color=_colour(row, index - 1), label=row, **options)
                else:
                    squares = np.square(grid[None] - means[:, None]) / variances[:, None]
                    density = (np.exp(-0.5 * squares) / np.sqrt(2 * np.pi * variances[:, None])).mean(0)
                    axis.plot(grid, density, color="#111111" if row == "truth" else _colour(row, index - 1), label=row)
            axis.set_title(f"x = {point:.2f}")
            axis.set_xlabel("f(x)")
        axes[0].set_ylabel(f"density, separation {part['separation']:g}")
        axes[0].legend()

    return style.panels(draw, len(points), columns=3, height=3.0, width=3.6)


def _colour(row: str, index: int) -> str:
    fixed = {"Teachers": "#777777", GAUSSIAN: "#C8443C"}
    return fixed.get(row) or style.STUDENT_COLOURS[(index - len(fixed)) % len(style.STUDENT_COLOURS)]


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    figures = {
        "distances": (
            distances(found),
            "Distance to the true law against the separation of its modes; dashed: what students are measured by.",
        ),
        "marginals": (marginals(found), "The law of f(x) at three inputs at the largest separation: true, teachers' and students'."),
    }
    title = f"{found['settings']['name']}: teachers from a law with two modes"
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS, smoke=found["settings"].get("smoke", False))
