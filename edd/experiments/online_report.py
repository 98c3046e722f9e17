"""The report of an online study: errors against the number of new labels, closed-form updates beside what they replace."""

import pathlib

from edd.experiments import page, regression_report, style
from edd.experiments.tables import Cell, Table

SCHEMA = "edd.online/1"
METRICS = {"rmse": ("RMSE", 4), "crps": ("CRPS", 4), "nll": ("NLL, nats", 4)}
CONVENTIONS = {
    "DLF, latent updated": "the student's latent after the labels, exactly; its networks stay as distilled",
    "Teachers, weighted anew": "each teacher weighted by the likelihood of the labels; in effect 1 / sum of squared weights are left",
    "Ensemble, trained anew": "the teachers' program on the old rows and the new ones together: what an update saves",
    "labels": "of rows that neither teachers nor student has seen, in one random order",
    "seconds": "of an update without compilation; of training anew with it, as whoever trains anew must",
    "units": regression_report.CONVENTIONS["units"],
    "±": regression_report.CONVENTIONS["±"],
}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, workdir)
    return found


def merge(runs: list[dict]) -> dict:
    """One results dict from runs over other sets or splits; errors as `page.merge`."""
    return page.merge(runs, SCHEMA, lambda part: (part["set"], part["split"]), ("data.sets", "data.splits"))


def curves(found: dict, metric: str) -> dict[str, dict[str, dict[int, dict]]]:
    """set -> row -> number of labels -> {"mean", "standard_error", "n"} over splits."""
    table: dict = {}
    for part in found["parts"]:
        for row, scores in part["rows"].items():
            for count, values in scores.items():
                if metric in values:
                    table.setdefault(part["set"], {}).setdefault(row, {}).setdefault(int(count), []).append(values[metric])
    pooled = regression_report.pooled
    return {data: {row: {n: pooled(v) for n, v in points.items()} for row, points in rows.items()} for data, rows in table.items()}


def tables(found: dict) -> list[Table]:
    """One table per metric: a line for each set and row, a column for each number of labels."""
    made = []
    for metric, (title, decimals) in {**METRICS, "effective": ("Teachers left in effect", 1)}.items():
        sets = curves(found, metric)
        counts = sorted({count for rows in sets.values() for points in rows.values() for count in points})
        lines = [
            [Cell(data), Cell(row), *(regression_report.cell(points.get(count), decimals) for count in counts)]
            for data, rows in sets.items()
            for row, points in rows.items()
        ]
        made.append(Table(title, ["set", "row", *map(str, counts)], [""] * (2 + len(counts)), lines, 2))
    return made


def opening(found: dict) -> list[str]:
    """How far the labels bring each row, what an update costs, and that the order does not matter."""
    sentences = []
    for data, rows in curves(found, "crps").items():
        told = [
            f"{row} from {points[min(points)]['mean']:.4g} at {min(points)} to {points[max(points)]['mean']:.4g} at {max(points)}"
            for row, points in rows.items()
            if points
        ]
        sentences.append(f"{data}, CRPS by labels: " + "; ".join(told) + ".")
    order = max(part["order"] for part in found["parts"])
    sentences.append(f"Labels one by one, in batches or all together: the latent's moments differ by {order:.1g} relative at most.")
    for row in found["parts"][0]["seconds"]:
        seconds = [part["seconds"][row] for part in found["parts"] if row in part["seconds"]]
        sentences.append(f"{row}: {sum(seconds) / len(seconds):.3g} s for one step of the curve.")
    return sentences


def figure(found: dict):
    """RMSE above CRPS against the number of labels, a column for each set."""
    known = {metric: curves(found, metric) for metric in ("rmse", "crps")}
    sets = list(known["rmse"])

    def draw(figure, axes):
        for place, axis in enumerate(axes):
            metric, data = ("rmse", "crps")[place // len(sets)], sets[place % len(sets)]
            for index, (row, points) in enumerate(known[metric][data].items()):
                at = sorted(points)
                errors = [points[count]["standard_error"] or 0.0 for count in at]
                look = {"color": style.STUDENT_COLOURS[index], "marker": "o", "markersize": 3.5, "capsize": 2}
                axis.errorbar(at, [points[count]["mean"] for count in at], yerr=errors, label=row, **look)
            axis.set_xscale("symlog", linthresh=1)
            axis.set_title(data)
            axis.set_ylabel(METRICS[metric][0])
            axis.set_xlabel("new labels")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

    return style.panels(draw, 2 * len(sets), columns=len(sets), height=2.7, width=3.6)


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    figures = {"online": (figure(found), "RMSE and CRPS against the number of new labels; bars: one standard error over splits.")}
    title = f"{found['settings']['name']}: a student that goes on learning"
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS, smoke=found["settings"].get("smoke", False))
