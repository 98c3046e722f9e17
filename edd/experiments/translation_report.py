"""The report of a study of translation: how well each network translates, what its uncertainty finds, and sentences with it."""

import pathlib

from edd.experiments import page, style
from edd.experiments.tables import MEASURES, PAPER_MEASURES, Cell, Table, number

SCHEMA = "edd.translation/1"
COLUMNS = (("BLEU", "bleu", 100.0, 2), ("token NLL, nats", "nll", 1.0, 3), ("ECE, %", "ece", 100.0, 2))
CONVENTIONS = {
    "BLEU": "of the best hypothesis of the beam, by sacrebleu; the signature stands under the table",
    "NLL, ECE": "of the next token of the references given what comes before; mean over tokens, end included; 15 bins",
    "PRR": "prediction rejection ratio with error 1 - sentence BLEU, in percent",
    "uncertainty": "mean over the tokens of a hypothesis, then over all hypotheses of the beam alike; members are averaged token by token",
    "AUROC": "in percent, out-of-distribution positive, against the sources of the test set",
    "Single": "the first member of the ensemble",
    "paper": "WMT'17 English to German, newstest2014, Transformer-big, ten members: other data and networks, so only orders compare",
    "colours": "each token's uncertainty in nats from white (0) to red (the largest of the sentence)",
}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, workdir)
    return found


def tables(found: dict) -> list[Table]:
    """Quality of every row, and AUROC by every measure beside the paper's."""
    parts = found["parts"]
    symbols = [MEASURES[measure][0] for measure in PAPER_MEASURES]
    quality = []
    for part in parts:
        cells = [Cell(number(part[key], scale, decimals)) for _, key, scale, decimals in COLUMNS]
        cells += [Cell(number(part["prr"].get(measure), 100.0, 1)) for measure in PAPER_MEASURES]
        quality.append([Cell(part["row"]), *cells, Cell(f"{part['parameters']:,}"), Cell(number(part["seconds"], 1.0, 0))])
    titles = ["row", *(title for title, *_ in COLUMNS), *(f"PRR {symbol}" for symbol in symbols), "parameters", "seconds of training"]
    note = f"{parts[0]['tokens']:,} tokens; BLEU signature {parts[0]['signature']}"
    made = [Table("Translation", titles, [""] * len(titles), quality, 1, note)]
    detection, reference = [], found["settings"].get("reference", {})
    for label in parts[0]["auroc"]:
        for part in parts:
            values = [number(part["auroc"][label].get(measure), 100.0, 1) for measure in PAPER_MEASURES]
            detection.append([Cell(label), Cell(part["row"]), *map(Cell, values)])
        for row, values in reference.get(label, {}).items():
            cells = [Cell(number(values.get(measure), 1.0, 1)) for measure in PAPER_MEASURES]
            detection.append([Cell(label), Cell(f"{row}, paper"), *cells])
    titles = ["set", "row", *symbols]
    made.append(Table("Out-of-distribution detection: AUROC, %", titles, [""] * len(titles), detection, 2))
    return made


def opening(found: dict) -> list[str]:
    """Whether the ensemble and the students beat one network, and how well the students' knowledge uncertainty detects."""
    rows = {part["row"]: part for part in found["parts"]}
    single, sentences = rows["Single"], []
    for name, part in rows.items():
        if name != "Single":
            verb = "below" if part["nll"] < single["nll"] else "not below"
            sentences.append(
                f"{name}: BLEU {100 * part['bleu']:.2f} (Single {100 * single['bleu']:.2f}), token NLL {part['nll']:.3f}, {verb} Single's "
                f"{single['nll']:.3f}."
            )
    for name, part in rows.items():
        knowledge = {
            label: each["reverse_mutual_information"] for label, each in part["auroc"].items() if "reverse_mutual_information" in each
        }
        if knowledge:
            told = ", ".join(f"{label} {100 * value:.1f} %" for label, value in knowledge.items())
            sentences.append(f"{name}: AUROC by reverse mutual information: {told}.")
    return sentences


def sentences(part: dict):
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


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    figures = {}
    for part in found["parts"]:
        caption = f"{part['row']}: the most and the least certain translations by each measure, every token on its uncertainty."
        figures["sentences_" + part["row"].lower().replace(" ", "_")] = (sentences(part), caption)
    title = f"{found['settings']['name']}: translation"
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS, smoke=found["settings"].get("smoke", False))
