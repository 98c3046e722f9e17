"""The report of a study of frozen bodies: accuracy and NLL of every head against the number of new labels."""

import pathlib

from edd.experiments import page, regression_report, style
from edd.experiments.tables import Cell, Table

SCHEMA = "edd.shift/1"
METRICS = {"accuracy": ("Accuracy, %", 100.0, 2), "nll": ("NLL, nats", 1.0, 3)}
CONVENTIONS = {
    "rows": "body: what the head sees. activations: the last hidden layer; outputs: all that the student puts out (mean and loading, or "
    "the heads of all members); latent: mean + L W loading, only W is trained, from 0",
    "labels": "class y became K - 1 - y; labels of the first half of the test set, scores on the other",
    "±": "standard error over draws of the labels",
}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, workdir)
    return found


def merge(runs: list[dict]) -> dict:
    """One results dict from runs over other bodies; errors as `page.merge`."""
    return page.merge(runs, SCHEMA, lambda part: (part["row"],), ("base.students",))


def tables(found: dict) -> list[Table]:
    """One table per metric: a line for each head, a column for each number of labels."""
    made = []
    for metric, (title, unit, decimals) in METRICS.items():
        counts = sorted({int(count) for part in found["parts"] for count in part["scores"]})
        lines = []
        for part in found["parts"]:
            pooled = [regression_report.pooled([unit * value for value in part["scores"][str(count)][metric]]) for count in counts]
            lines.append([Cell(part["row"]), Cell(f"{part['weights']:,}"), *(regression_report.cell(each, decimals) for each in pooled)])
        made.append(Table(title, ["head", "weights", *map(str, counts)], [""] * (2 + len(counts)), lines, 1))
    return made


def opening(found: dict) -> list[str]:
    """The best head at the fewest and at the most labels."""
    sentences = []
    counts = sorted(int(count) for count in found["parts"][0]["scores"])
    for count in {counts[0]: None, counts[-1]: None}:
        means = {part["row"]: regression_report.pooled(part["scores"][str(count)]["accuracy"])["mean"] for part in found["parts"]}
        order = sorted(means, key=means.get, reverse=True)
        told = ", ".join(f"{row} {100 * means[row]:.1f} %" for row in order)
        sentences.append(f"Accuracy with {count} new labels: {told}.")
    return sentences


def figure(found: dict):
    """Accuracy against the number of new labels, a line for each head."""

    def draw(figure, axes):
        for index, part in enumerate(found["parts"]):
            counts = sorted(map(int, part["scores"]))
            pooled = [regression_report.pooled(part["scores"][str(count)]["accuracy"]) for count in counts]
            colour = style.STUDENT_COLOURS[index % len(style.STUDENT_COLOURS)]
            errors = [each["standard_error"] or 0.0 for each in pooled]
            axes[0].errorbar(
                counts,
                [each["mean"] for each in pooled],
                yerr=errors,
                label=part["row"],
                color=colour,
                marker="o",
                markersize=3.5,
                capsize=2,
            )
        axes[0].set_xscale("log")
        axes[0].set_xlabel("new labels")
        axes[0].set_ylabel("accuracy")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)

    return style.panels(draw, 1, columns=1, height=3.6, width=5.5)


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    figures = {"shift": (figure(found), "Accuracy after classes were renamed; bars: one standard error over draws of the labels.")}
    title = f"{found['settings']['name']}: frozen bodies under renamed classes"
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS, smoke=found["settings"].get("smoke", False))
