"""What the reports of studies of sequences share: rejection and detection by every measure, and sequences with their uncertainty."""

import pathlib

from edd.experiments import page, style
from edd.experiments.tables import MEASURES, PAPER_MEASURES, Cell, Table, number

SYMBOLS = [MEASURES[measure][0] for measure in PAPER_MEASURES]
CONVENTIONS = {
    "NLL, ECE": "of the next token of the references given what comes before; mean over tokens, end included; 15 bins",
    "uncertainty": "mean over a hypothesis's tokens, then over the hypotheses of the beam, weighted as `weighting` in the settings; "
    "members are averaged token by token",
    "training": "the loss is the mean over tokens or over sentences, as `average` of the settings says",
    "Single": "the first member of the ensemble",
    "colours": "each token's uncertainty in nats from white (0) to red (the largest of the sentence)",
}


def results(schema: str, parts: list[dict], settings: dict, run: dict) -> dict:
    """The contents of results.json."""
    return {"schema": schema, "settings": settings, "run": run, "parts": parts}


def by_measure(values: dict, scale: float = 100.0) -> list[Cell]:
    """One cell for each of the papers' measures, in percent by default; a dash where a row has none."""
    return [Cell(number(values.get(measure), scale, 1)) for measure in PAPER_MEASURES]


def effort(part: dict) -> list[Cell]:
    """Parameters, seconds of training."""
    return [Cell(f"{part['parameters']:,}"), Cell(number(part["seconds"], 1.0, 0))]


def left_out(part: dict) -> str:
    """How many sentences of each set are not in it, in words."""
    return "left out as too long or empty: " + ", ".join(f"{name} {count:,} of {of:,}" for name, (count, of) in part["left_out"].items())


EFFORT = ["parameters", "seconds of training"]


def detection(parts: list[dict], reference: dict | None = None) -> Table:
    """AUROC of every set and row by every measure, beside the paper's."""
    rows = []
    for label in parts[0]["auroc"]:
        rows += [[Cell(label), Cell(part["row"]), *by_measure(part["auroc"][label])] for part in parts]
        rows += [[Cell(label), Cell(f"{row}, paper"), *by_measure(values, 1.0)] for row, values in (reference or {}).get(label, {}).items()]
    titles = ["set", "row", *SYMBOLS]
    return Table("Out-of-distribution detection: AUROC, %", titles, [""] * len(titles), rows, 2)


def knowledge(parts: list[dict]) -> list[str]:
    """How well reverse mutual information detects, in a sentence for each row that has it."""
    sentences = []
    for part in parts:
        found = {label: each["reverse_mutual_information"] for label, each in part["auroc"].items() if "reverse_mutual_information" in each}
        if found:
            told = ", ".join(f"{label} {100 * value:.1f} %" for label, value in found.items())
            sentences.append(f"{part['row']}: AUROC by reverse mutual information: {told}.")
    return sentences


def sequences(part: dict):
    """The examples of one row as a figure: every token on a ground coloured by its uncertainty; None where there is none."""
    if not part["examples"]:
        return None

    def draw(figure, axes):
        for plot, example in zip(axes, part["examples"]):
            plot.axis("off")
            symbol = MEASURES[example["measure"]][0]
            plot.text(
                0, 0.85, f"{symbol} {example['value']:.3f}   source: {example['source'][:110]}", fontsize=7, color="0.35", in_layout=False
            )
            plot.text(0, 0.1, f"reference: {example['reference'][:110]}", fontsize=7, color="0.35", in_layout=False)
            largest, place = max([*example["uncertainty"], 1e-9]), 0.0
            for piece, value in zip(example["pieces"], example["uncertainty"]):
                text = piece.replace("\u2581", " ").strip() or "_"
                share = min(max(value / largest, 0.0), 1.0)
                box = {"facecolor": (1, 1 - 0.7 * share, 1 - 0.7 * share), "edgecolor": "none", "pad": 1.2}
                plot.text(place, 0.48, text, fontsize=7, family="monospace", bbox=box, in_layout=False)
                place += 0.0085 * (len(text) + 1)

    return style.panels(draw, len(part["examples"]), columns=1, height=0.75, width=8.5)


def write(found: dict, out: pathlib.Path, what: str, opening: list[str], tables: list[Table], conventions: dict, noun: str) -> None:
    """results.json, report.md, report.html and figures/ of a study of `what`, whose `noun`s are shown: complete, or the old files stay."""
    figures = {}
    for part in found["parts"]:
        caption = f"{part['row']}: the most and the least certain {noun} by each measure, every token on its uncertainty."
        figures["sentences_" + part["row"].lower().replace(" ", "_")] = (sequences(part), caption)
    title = f"{found['settings']['name']}: {what}"
    smoke = found["settings"].get("smoke", False)
    page.write(found, out, title, opening, tables, figures, {**CONVENTIONS, **conventions}, smoke=smoke)
