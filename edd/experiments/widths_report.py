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
    "dirty": "the test set and the ambiguous one together",
    "relaxed, hard": "sub-models whose masks are probabilities, or 1 where the probability is above 1/2",
    "recovered": "mean mutual information of the sub-models over that of the trained ensemble of the same width",
    "diversity": "mean over mask entries of the mutual information between the entry and the sub-model, nats, at most ln 2 = 0.693",
    "lost": "accuracy of the network that was masked less that of its sub-models' mixture",
}
STAND_IN = "a stand-in made here: decoded midpoints between two classes in a small autoencoder's latent space"
RELEASED = "the test half of the released Ambiguous-MNIST, with noise"
ENOUGH, BEARABLE = 0.6, 0.01  # share of the information that masks should recover, and accuracy they may lose


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, workdir)
    return found


def merge(runs: list[dict]) -> dict:
    """One results dict from runs of other widths or masks; ensembles with the same scores count once; errors as `page.merge`."""
    seen: list[dict] = []
    kept = []
    for run in runs:
        parts = [part for part in run.get("parts", ()) if part["kind"] != "ensemble" or {**part, "seconds": 0} not in seen]
        seen += [{**part, "seconds": 0} for part in parts if part["kind"] == "ensemble"]
        kept.append({**run, "parts": parts})
    key = lambda part: (part["kind"], part["width"], part.get("regulariser"), part.get("weight"))  # noqa: E731
    return page.merge(kept, SCHEMA, key, ("widths", "masks", "reference"))


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
    return [*made, *masks_table(found), *diversity_table(found)]


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
    """(masks, the trained ensemble of the same width) of every extraction, by regulariser and weight."""
    trained = {part["width"]: part for part in ensembles(found)}
    masks = [part for part in found["parts"] if part["kind"] == "masks" and part["width"] in trained]
    return [(part, trained[part["width"]]) for part in sorted(masks, key=lambda part: (part["regulariser"], part["weight"]))]


def shown(found: dict) -> list[tuple[dict, dict]]:
    """The one extraction that figures show: of the mean over entries where there is one, of the largest weight."""
    return sorted(extractions(found), key=lambda pair: (pair[0]["regulariser"] != "mean", -pair[0]["weight"]))[:1]


def recovered(scores: dict, trained: dict, name: str) -> float | None:
    """Mean mutual information over the trained ensemble's on one set; None for a single network."""
    if "mutual_information" not in scores["sets"][name]:
        return None
    return scores["sets"][name]["mutual_information"]["mean"] / trained["sets"][name]["mutual_information"]["mean"]


def opening(found: dict) -> list[str]:
    """Whether the expected orders hold, what each set and width has, and what the masks recover."""
    parts = ensembles(found)
    sentences = orders(parts)
    for name in parts[0]["sets"] if len(parts) > 1 else ():
        told = ", ".join(f"{information(part, name):.3g} at width {part['width']:g}" for part in parts)
        values = [information(part, name) for part in parts]
        falls = "falls" if all(np.diff(values) < 0) else "does not fall at every step"
        sentences.append(f"{name}: mean mutual information {falls} with width: {told}.")
    for part, trained in extractions(found):
        for row in ("relaxed", "hard"):
            scores = part["rows"][row]
            told = ", ".join(f"{100 * recovered(scores, trained, name):.0f} % on {name}" for name in scores["detection"])
            lost, name = lost_accuracy(part, row), next(iter(scores["detection"]), None)
            met = name is not None and recovered(scores, trained, name) >= ENOUGH and lost < BEARABLE
            sentences.append(
                f"Masks on one network of width {part['width']:g} ({part['regulariser']}, weight {part['weight']:g}), {row}: "
                f"{told} of the trained ensemble's mutual information, {100 * lost:.2f} points of accuracy below the network: "
                f"the aim (at least {100 * ENOUGH:.0f} % for less than {100 * BEARABLE:.0f} point) is {'met' if met else 'missed'}."
            )
    return sentences


def information(part: dict, name: str) -> float:
    """Mean mutual information of an ensemble on one set, nats."""
    return part["sets"][name]["mutual_information"]["mean"]


def lost_accuracy(part: dict, row: str) -> float:
    """Accuracy of the masked network less that of its sub-models, a fraction of the test set."""
    return part["rows"]["single"]["sets"]["test"]["accuracy"] - part["rows"][row]["sets"]["test"]["accuracy"]


def orders(parts: list[dict]) -> list[str]:
    """The three orders of the paper's tables and whether each holds here."""
    if not parts:
        return []
    word = lambda holds: "holds" if holds else "DOES NOT HOLD"  # noqa: E731
    told, sets = [], list(parts[0]["sets"])
    if len(parts) > 1:
        low, high = parts[0], parts[-1]
        narrow = all(information(low, name) > information(high, name) for name in sets)
        told.append(f"I at width {low['width']:g} above I at width {high['width']:g} on every set: {word(narrow)}.")
    for name in (name for name in parts[0]["detection"] if "dirty" in sets):
        rising = all(information(part, "test") < information(part, "dirty") < information(part, name) for part in parts)
        told.append(f"I on test below I on dirty below I on {name} at every width: {word(rising)}.")
    for name in parts[0]["detection"]:
        entropy = all(
            each["entropy"]["auroc"] >= each["mutual_information"]["auroc"] for each in (part["detection"][name] for part in parts)
        )
        told.append(f"AUROC by H at least AUROC by I against {name} at every width (true of the paper's table): {word(entropy)}.")
    return told


def distributions(found: dict):
    """Empirical distribution functions of the mutual information, a panel for each set, a line for each width; masks dashed."""
    parts = ensembles(found)
    names = list(parts[0]["sets"]) if parts else []

    def draw(figure, axes):
        for axis, name in zip(axes, names):
            for index, part in enumerate(parts):
                _distribution(axis, part, name, style.STUDENT_COLOURS[index % len(style.STUDENT_COLOURS)], f"width {part['width']:g}", "-")
            for part, _ in shown(found):
                for row, line in (("relaxed", ":"), ("hard", "--")):
                    _distribution(axis, part["rows"][row], name, "black", f"masks, {row}, weight {part['weight']:g}", line)
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


def implicit(found: dict):
    """Of one extraction: information of sub-models and trained ensemble, ROC curves by every measure, entropies."""
    chosen = shown(found)
    if not chosen:
        return None
    (part, trained), names = chosen[0], ["test", *chosen[0][1]["detection"]]
    rows = {
        "trained ensemble": trained,
        **{f"masks, {row}": part["rows"][row] for row in ("relaxed", "hard")},
        "one network": part["rows"]["single"],
    }
    colours = dict(zip(rows, ("#111111", *style.STUDENT_COLOURS)))

    def draw(figure, axes):
        for name, line in zip(names, ("-", "--", ":")):
            for row, scores in rows.items():
                common = {"color": colours[row], "label": f"{row}, {name}", "linestyle": line, "linewidth": 1.2}
                levels = np.linspace(0, 1, len(scores["sets"][name]["entropy"]["quantiles"]))
                if "mutual_information" in scores["sets"][name]:
                    axes[0].plot(scores["sets"][name]["mutual_information"]["quantiles"], levels, **common)
                axes[2].plot(scores["sets"][name]["entropy"]["quantiles"], levels, **common)
        for row, scores in rows.items():
            for measure, each in scores["detection"][names[1]].items():
                line = "-" if measure == "mutual_information" else "--"
                label = f"{row}, {MEASURES[measure]}: {each['auroc']:.3f}"
                axes[1].plot(
                    np.linspace(0, 1, len(each["roc"])), each["roc"], color=colours[row], linestyle=line, label=label, linewidth=1.2
                )
        titles = ("mutual information, nats", f"false positive rate, {names[1]}", "total uncertainty H, nats")
        for axis, title, above in zip(axes, titles, ("share of examples below", "true positive rate", "share of examples below")):
            axis.set_xlabel(title)
            axis.set_ylabel(above)
            axis.legend(fontsize=6)

    return style.panels(draw, 3, columns=3, height=3.2, width=3.8)


def trade_off(found: dict):
    """Recovered information against the accuracy that it costs, a line for relaxed and hard masks over their weights."""
    pairs = extractions(found)
    names = list(pairs[0][1]["detection"]) if len(pairs) > 1 else []

    def draw(figure, axes):
        for axis, name in zip(axes, names):
            for regulariser in dict.fromkeys(part["regulariser"] for part, _ in pairs):
                for row, colour in zip(("relaxed", "hard"), style.STUDENT_COLOURS):
                    own = [(part, trained) for part, trained in pairs if part["regulariser"] == regulariser]
                    lost = [100 * lost_accuracy(part, row) for part, _ in own]
                    share = [recovered(part["rows"][row], trained, name) for part, trained in own]
                    axis.plot(lost, share, "o-", color=colour, label=f"{row}, {regulariser}")
                    for (part, _), x, y in zip(own, lost, share):
                        axis.annotate(f"{part['weight']:g}", (x, y), xytext=(3, 3), textcoords="offset points", fontsize=7)
            axis.axhline(ENOUGH, color="#999999", linewidth=0.8)
            axis.axvline(100 * BEARABLE, color="#999999", linewidth=0.8)
            axis.set_xlabel("points of accuracy lost")
            axis.set_ylabel(f"share of I recovered, {name}")
            axis.legend(fontsize=7)

    return style.panels(draw, len(names), columns=2, height=3.0, width=4.2) if names else None


def diversity_table(found: dict) -> list[Table]:
    """Diversity and share of open entries of every layer's masks."""
    lines = []
    for part, _ in extractions(found):
        for mask, share in part["kept"].items():
            diversity = part.get("diversity_by_mask", {}).get(mask)
            cells = [_cell(diversity), _cell(100 * share, 1)]
            lines.append([Cell(f"{part['width']:g}"), Cell(f"{part['regulariser']}, {part['weight']:g}"), Cell(mask), *cells])
    heads = ["width", "regulariser, weight", "mask", "diversity", "open %"]
    return [Table("Masks of every layer", heads, [""] * len(heads), lines, 3)] if lines else []


def _cell(value: float | None, decimals: int = 4) -> Cell:
    return Cell(BLANK if value is None else number(value, decimals=decimals))


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    figures = {
        "distributions": (distributions(found), "Share of examples with less mutual information."),
        "roc": (curves(found), "Detecting out-of-distribution examples; the legend has the AUROC."),
        "implicit": (implicit(found), "Sub-models of one masked network beside the trained ensemble and the network itself."),
        "trade_off": (trade_off(found), "What masks recover against what they cost, at each weight of their diversity."),
    }
    title = f"{found['settings']['name']}: uncertainty and width"
    files = (found["settings"].get("ambiguous") or {}).get("files")
    conventions = {**CONVENTIONS, "ambiguous": RELEASED if files else STAND_IN}
    page.write(found, out, title, opening(found), tables(found), figures, conventions, smoke=found["settings"].get("smoke", False))
