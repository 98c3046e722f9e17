"""The report of a study of width: both tables beside the paper's, distributions, detection, and what masks recover."""

import pathlib

import numpy as np

from edd.experiments import page, style
from edd.experiments.tables import BLANK, Cell, Table, number

SCHEMA = "edd.widths/1"
MEASURES = {"mutual_information": "I", "entropy": "H"}
CONVENTIONS = {
    "I": "mutual information of the members' mixture, nats",
    "H": "entropy of the mixture, total uncertainty, nats",
    "AUROC": "an out-of-distribution example ranks above a test example; out of distribution is positive",
    "mean difference": "mean over the out-of-distribution set minus mean over the test set, nats",
    "median NLL": "the paper's NLL column on MNIST is too small for a mean at its accuracies; the median is its likeliest reading",
    "ambiguous": "a stand-in made here: decoded midpoints between two classes in a small autoencoder's latent space",
    "dirty": "the test set and the ambiguous one together",
    "relaxed, hard": "sub-models whose masks are probabilities, or 1 where the probability is above 1/2",
    "recovered": "mean mutual information of the sub-models over that of the trained ensemble of the same width",
}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, workdir)
    return found


def merge(runs: list[dict]) -> dict:
    """One results dict from runs of other widths or masks; errors as `page.merge`."""
    key = lambda part: (part["kind"], part["width"], part.get("regulariser"), part.get("weight"))  # noqa: E731
    return page.merge(runs, SCHEMA, key, ("widths", "masks", "reference"))


def ensembles(found: dict) -> list[dict]:
    """The parts of trained ensembles, narrow to wide."""
    return sorted((part for part in found["parts"] if part["kind"] == "ensemble"), key=lambda part: part["width"])


def columns(part: dict) -> dict[str, float]:
    """Column title -> number of one ensemble: what the tables show and a reference may name."""
    numbers = {}
    for name, detected in part["detection"].items():
        for measure, symbol in MEASURES.items():
            if measure in detected:
                numbers[f"AUROC {symbol}, {name}"] = detected[measure]["auroc"]
                numbers[f"mean difference {symbol}, {name}"] = detected[measure]["mean_difference"]
    for name, values in part["sets"].items():
        if "mutual_information" in values:
            numbers[f"mean I, {name}"] = values["mutual_information"]["mean"]
    for name, values in part["sets"].items():
        for metric, title in (("accuracy", "accuracy"), ("nll", "NLL"), ("median_nll", "median NLL")):
            if metric in values:
                numbers[f"{title}, {name}"] = values[metric]
    return numbers


def tables(found: dict) -> list[Table]:
    """Detection, then uncertainty and errors, a line for each width and the paper's below it; then what masks recover."""
    parts, reference = ensembles(found), found["settings"].get("reference", {})
    titles = list(dict.fromkeys(title for part in parts for title in columns(part)))
    detection = [title for title in titles if title.startswith(("AUROC", "mean difference"))]
    made = []
    for name, chosen in (("Detection", detection), ("Uncertainty and errors", [title for title in titles if title not in detection])):
        lines = []
        for part in parts:
            own, paper = columns(part), reference.get(f"{part['width']:g}", {})
            lines.append([Cell(f"{part['width']:g}"), Cell(f"{part['parameters']:,}"), *(_cell(own.get(title)) for title in chosen)])
            if any(title in paper for title in chosen):
                lines.append([Cell(f"{part['width']:g}, paper"), Cell(BLANK), *(_cell(paper.get(title)) for title in chosen)])
        made.append(Table(name, ["width", "parameters", *chosen], [""] * (2 + len(chosen)), lines, 1))
    return [*made, *masks_table(found)]


def masks_table(found: dict) -> list[Table]:
    """Recovered mutual information and lost accuracy of every extraction."""
    lines, sets = [], []
    for part, trained in extractions(found):
        sets = [name for name, values in trained["sets"].items() if "mutual_information" in values]
        for row, scores in part["rows"].items():
            cells = [_cell(100 * scores["sets"]["test"]["accuracy"], 2), _cell(scores["sets"]["test"]["nll"])]
            cells += [_cell(recovered(scores, trained, name), 3) for name in sets]
            cells += [_cell(detected.get("mutual_information", detected["entropy"])["auroc"]) for detected in scores["detection"].values()]
            lines.append([Cell(f"{part['width']:g}"), Cell(f"{part['regulariser']}, {part['weight']:g}"), Cell(row), *cells])
    if not lines:
        return []
    names = [f"recovered, {name}" for name in sets] + [f"AUROC, {name}" for name in extractions(found)[0][1]["detection"]]
    heads = ["width", "regulariser, weight", "sub-models", "accuracy %, test", "NLL, test", *names]
    return [Table("Masks", heads, [""] * len(heads), lines, 3)]


def extractions(found: dict) -> list[tuple[dict, dict]]:
    """(masks, the trained ensemble of the same width) of every extraction."""
    trained = {part["width"]: part for part in ensembles(found)}
    return [(part, trained[part["width"]]) for part in found["parts"] if part["kind"] == "masks" and part["width"] in trained]


def recovered(scores: dict, trained: dict, name: str) -> float | None:
    """Mean mutual information over the trained ensemble's on one set; None for a single network."""
    if "mutual_information" not in scores["sets"][name]:
        return None
    return scores["sets"][name]["mutual_information"]["mean"] / trained["sets"][name]["mutual_information"]["mean"]


def opening(found: dict) -> list[str]:
    """Whether knowledge uncertainty falls with width on each set, the order of the sets, and what the masks recover."""
    sentences, parts = [], ensembles(found)
    means = {name: [part["sets"][name]["mutual_information"]["mean"] for part in parts] for name in parts[0]["sets"]} if parts else {}
    for name, values in means.items():
        if len(values) > 1:
            told = ", ".join(f"{value:.3g} at width {part['width']:g}" for value, part in zip(values, parts))
            falls = "falls" if all(np.diff(values) < 0) else "does not fall at every step"
            sentences.append(f"{name}: mean mutual information {falls} with width: {told}.")
    for part in parts:
        inside = part["sets"]["test"]["mutual_information"]["mean"]
        order = sorted((n for n in part["sets"] if n != "train"), key=lambda n: part["sets"][n]["mutual_information"]["mean"])
        sentences.append(f"Width {part['width']:g}: from least to most mutual information {', '.join(order)} (test {inside:.3g} nats).")
    for part, trained in extractions(found):
        single = part["rows"]["single"]["sets"]["test"]["accuracy"]
        for row in ("relaxed", "hard"):
            scores = part["rows"][row]
            told = ", ".join(f"{100 * recovered(scores, trained, name):.0f} % on {name}" for name in scores["detection"])
            lost = 100 * (single - scores["sets"]["test"]["accuracy"])
            sentences.append(
                f"Masks on one network of width {part['width']:g} ({part['regulariser']}, weight {part['weight']:g}), {row}: "
                f"{told} of the trained ensemble's mutual information, {lost:.2f} points of accuracy below the network."
            )
    return sentences


def distributions(found: dict):
    """Empirical distribution functions of the mutual information, a panel for each set, a line for each width; masks dashed."""
    parts = ensembles(found)
    names = list(parts[0]["sets"]) if parts else []

    def draw(figure, axes):
        for axis, name in zip(axes, names):
            for index, part in enumerate(parts):
                _distribution(axis, part, name, style.STUDENT_COLOURS[index % len(style.STUDENT_COLOURS)], f"width {part['width']:g}", "-")
            for part, _ in extractions(found)[:1]:
                for row, line in (("relaxed", ":"), ("hard", "--")):
                    _distribution(axis, part["rows"][row], name, "black", f"masks, {row}", line)
            axis.set_title(name)
            axis.set_xlabel("mutual information, nats")
            axis.set_ylabel("share of examples below")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

    return style.panels(draw, len(names), columns=3, height=2.6, width=3.4) if names else None


def _distribution(axis, scores: dict, name: str, colour, label: str, line: str) -> None:
    quantiles = scores["sets"][name]["mutual_information"]["quantiles"]
    axis.plot(quantiles, np.linspace(0, 1, len(quantiles)), color=colour, label=label, linestyle=line, linewidth=1.2)


def curves(found: dict):
    """ROC curves against every out-of-distribution set, by mutual information and by entropy."""
    parts = ensembles(found)
    panels = [(name, measure) for name in (parts[0]["detection"] if parts else ()) for measure in MEASURES]

    def draw(figure, axes):
        for axis, (name, measure) in zip(axes, panels):
            for index, part in enumerate(parts):
                scores = part["detection"][name][measure]
                at = np.linspace(0, 1, len(scores["roc"]))
                label = f"width {part['width']:g}: {scores['auroc']:.3f}"
                axis.plot(at, scores["roc"], color=style.STUDENT_COLOURS[index % len(style.STUDENT_COLOURS)], label=label, linewidth=1.2)
            axis.set_title(f"{name}, {MEASURES[measure]}")
            axis.set_xlabel("false positive rate")
            axis.set_ylabel("true positive rate")
            axis.legend(fontsize="x-small", loc="lower right")

    return style.panels(draw, len(panels), columns=2, height=2.8, width=3.4) if panels else None


def _cell(value: float | None, decimals: int = 4) -> Cell:
    return Cell(BLANK if value is None else number(value, decimals=decimals))


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    figures = {
        "distributions": (distributions(found), "Share of examples with less mutual information."),
        "roc": (curves(found), "Detecting out-of-distribution examples; the legend has the AUROC."),
    }
    title = f"{found['settings']['name']}: uncertainty and width"
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS, smoke=found["settings"].get("smoke", False))
