"""The report of a study of translation: how well each network translates, what its uncertainty finds, and sentences with it."""

import pathlib

from edd.experiments import page, sequence_report
from edd.experiments.tables import Cell, Table, number

SCHEMA = "edd.translation/1"
COLUMNS = (("BLEU", "bleu", 100.0, 2), ("token NLL, nats", "nll", 1.0, 3), ("ECE, %", "ece", 100.0, 2))
CONVENTIONS = {
    "BLEU": "of the best hypothesis of the beam, by sacrebleu; the signature stands under the table",
    "PRR": "prediction rejection ratio with error 1 - sentence BLEU, in percent",
    "AUROC": "in percent, out-of-distribution positive, against the sources of the test set",
    "paper": "WMT'17 English to German, newstest2014, Transformer-big, ten members: other data and networks, so only orders compare",
}


def merge(runs: list[dict]) -> dict:
    """Runs of this study do not add up: ValueError for more than one, as `page.merge`."""
    return page.merge(runs, SCHEMA, lambda part: (part["row"],))


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = sequence_report.results(SCHEMA, parts, settings, run)
    write(found, workdir)
    return found


def tables(found: dict) -> list[Table]:
    """Quality of every row, and AUROC by every measure beside the paper's."""
    parts, quality = found["parts"], []
    for part in parts:
        cells = [Cell(number(part[key], scale, decimals)) for _, key, scale, decimals in COLUMNS]
        quality.append([Cell(part["row"]), *cells, *sequence_report.by_measure(part["prr"]), *sequence_report.effort(part)])
    ratios = [f"PRR {symbol}" for symbol in sequence_report.SYMBOLS]
    titles = ["row", *(title for title, *_ in COLUMNS), *ratios, *sequence_report.EFFORT]
    note = f"{parts[0]['tokens']:,} tokens; BLEU signature {parts[0]['signature']}; {sequence_report.left_out(parts[0])}"
    made = Table("Translation", titles, [""] * len(titles), quality, 1, note)
    return [made, sequence_report.detection(parts, found["settings"].get("reference"))]


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
    return [*sentences, *sequence_report.knowledge(found["parts"])]


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    sequence_report.write(found, out, "translation", opening(found), tables(found), CONVENTIONS, "translations")
