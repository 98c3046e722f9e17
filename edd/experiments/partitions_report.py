"""The report of a study of sub-ensembles: what is left between them beside the law, distributions, and detection against their size."""

import pathlib

import numpy as np

from edd.experiments import page, style
from edd.experiments.tables import Cell, Table, number

SCHEMA = "edd.partitions/1"
TEST = "test"
CONVENTIONS = {
    "partition": "number of sub-ensembles x members in each; every row reads the same members",
    "I": "mutual information between the prediction and the sub-ensemble, nats: all that an ensemble of ensembles would see",
    "law": "(G - 1) / (G M - 1) of the flat ensemble's mutual information: exchangeable members of small disagreement",
    "AUROC": "an out-of-distribution example has more of it than a test example; out of distribution is positive",
}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, workdir)
    return found


def merge(runs: list[dict]) -> dict:
    """Runs of this study do not add up: ValueError for more than one, as `page.merge`."""
    return page.merge(runs, SCHEMA, lambda part: (part["groups"], part["size"]))


def tables(found: dict) -> list[Table]:
    """Mean information on every set, its share of the flat ensemble's, and the AUROC, a line for each partition."""
    names = list(found["parts"][0]["sets"])
    others = [name for name in names if name != TEST]
    heads = ["partition", *(f"mean I, {name}" for name in names), *(f"share, {name}" for name in names), "law"]
    heads += [f"AUROC, {name}" for name in others]
    lines = []
    for part in found["parts"]:
        values = part["sets"]
        cells = [Cell(label(part))]
        cells += [Cell(number(values[name]["mean"], decimals=4)) for name in names]
        cells += [Cell(number(share(values[name]), decimals=3)) for name in names]
        cells += [Cell(number(part["law"], decimals=3))]
        cells += [Cell(number(values[name]["auroc"], decimals=4)) for name in others]
        lines.append(cells)
    return [Table("Partitions", heads, [""] * len(heads), lines, 1)]


def label(part: dict) -> str:
    """Groups x size."""
    return f"{part['groups']} x {part['size']}"


def share(values: dict) -> float | None:
    """What is left between the sub-ensembles over the flat ensemble's mutual information; None where that is 0."""
    return values["mean"] / values["total"] if values["total"] > 0 else None


def opening(found: dict) -> list[str]:
    """Whether the mean falls along the partitions and lies on or above the law, and what happens to detection."""
    sentences, parts = [], found["parts"]
    for name in parts[0]["sets"]:
        means = [part["sets"][name]["mean"] for part in parts]
        falls = "falls at every step" if all(np.diff(means) < 0) else "does not fall at every step"
        shares = [share(part["sets"][name]) for part in parts]
        above = all(each is None or each >= part["law"] * (1 - 1e-5) for each, part in zip(shares, parts))
        law = "on or above the law everywhere" if above else "below the law somewhere"
        ends = f"{means[0]:.3g} nats at {label(parts[0])}, {means[-1]:.3g} at {label(parts[-1])}"
        sentences.append(f"{name}: mean mutual information between sub-ensembles {falls} ({ends}) and is {law}.")
        if name != TEST:
            scores = [part["sets"][name]["auroc"] for part in parts]
            sentences.append(f"{name}: AUROC {scores[0]:.4f} with single members, {scores[-1]:.4f} with the largest sub-ensembles.")
    error = max(values["chain_rule_error"] for part in parts for values in part["sets"].values())
    sentences.append(f"The chain rule holds per example to {error:.1g} nats.")
    accuracy = parts[0].get("accuracy")
    sentences.append(
        f"Every partition predicts the same: accuracy {BLANK if accuracy is None else f'{100 * accuracy:.2f} %'} on the test set."
    )
    return sentences


def distributions(found: dict):
    """Empirical distribution of the information between sub-ensembles, a panel for each set, a line for each partition."""
    parts = found["parts"]
    names = list(parts[0]["sets"])

    def draw(figure, axes):
        for axis, name in zip(axes, names):
            for index, part in enumerate(parts):
                quantiles = part["sets"][name]["quantiles"]
                colour = style.STUDENT_COLOURS[index % len(style.STUDENT_COLOURS)]
                axis.plot(
                    quantiles, np.linspace(0, 1, len(quantiles)), color=colour, label=f"{part['groups']} x {part['size']}", linewidth=1.2
                )
            axis.set_title(name)
            axis.set_xlabel("information between sub-ensembles, nats")
            axis.set_ylabel("share of examples below")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

    return style.panels(draw, len(names), columns=3, height=2.6, width=3.4)


def sizes(found: dict):
    """Share of the flat ensemble's information with the law, and AUROC, against the members in a sub-ensemble."""
    parts = found["parts"]
    at = [part["size"] for part in parts]

    def draw(figure, axes):
        for index, name in enumerate(parts[0]["sets"]):
            look = {"color": style.STUDENT_COLOURS[index], "marker": "o", "markersize": 3.5, "label": name}
            axes[0].plot(at, [share(part["sets"][name]) or np.nan for part in parts], **look)
            if name != TEST:
                axes[1].plot(at, [part["sets"][name]["auroc"] for part in parts], **look)
        axes[0].plot(at, [part["law"] for part in parts], color="black", linestyle="--", label="law")
        axes[0].set_yscale("log")
        axes[0].set_ylabel("share of the whole ensemble's I")
        axes[1].set_ylabel("AUROC")
        for axis in axes:
            axis.set_xticks(at)
            axis.set_xlabel("members in a sub-ensemble")
            axis.legend(fontsize="x-small")

    return style.panels(draw, 2, columns=2, height=2.8, width=3.6)


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    figures = {
        "sizes": (sizes(found), "What is left between sub-ensembles, and detection by it, against their size."),
        "distributions": (distributions(found), "Share of examples with less information between sub-ensembles."),
    }
    title = f"{found['settings']['name']}: one ensemble as ensembles of ensembles"
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS, smoke=found["settings"].get("smoke", False))
