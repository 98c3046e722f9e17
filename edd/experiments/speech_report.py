"""The report of a study of speech recognition: word error rates of every set, rejection, detection, and strings with their uncertainty."""

import pathlib

from edd.experiments import page, sequence_report
from edd.experiments.tables import Cell, Table, number

SCHEMA = "edd.speech/1"
COLUMNS = (("WER, %", "wer", 100.0, 2), ("token NLL, nats", "nll", 1.0, 3), ("ECE, %", "ece", 100.0, 2))
CONVENTIONS = {
    "WER": "of the best hypothesis of the beam, edits over the words of the references, by jiwer",
    "PRR": "prediction rejection ratio with error an utterance's word error rate, in percent; NaN where nothing is wrong",
    "AUROC": "in percent, the shifted set positive, against the utterances of the test set",
    "test": "the training set's speakers where it is of digits, in takes that nothing was trained on",
    "noise": "the test set with white noise; its signal-to-noise ratio is that of mean powers over an utterance",
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
    """WER of every row and set, the scores of every set, AUROC by every measure."""
    parts = found["parts"]
    sets = parts[0]["sets"]
    rates = [
        [Cell(part["row"]), *(Cell(number(part["sets"][label]["wer"], 100.0, 2)) for label in sets), *sequence_report.effort(part)]
        for part in parts
    ]
    titles = ["row", *sets, *sequence_report.EFFORT]
    sizes = "; ".join(f"{label}: {each['utterances']:,} utterances, {each['words']:,} words" for label, each in sets.items())
    note = f"{sizes}. Training left out {parts[0]['left_out']:,} utterances that were too long."
    made = [Table("Word error rate, %", titles, [""] * len(titles), rates, 1, note)]
    rows = []
    for label in sets:
        for part in parts:
            own = part["sets"][label]
            cells = [Cell(number(own[key], scale, decimals)) for _, key, scale, decimals in COLUMNS]
            rows.append([Cell(label), Cell(part["row"]), *cells, *sequence_report.by_measure(own["prr"])])
    titles = ["set", "row", *(title for title, *_ in COLUMNS), *(f"PRR {symbol}" for symbol in sequence_report.SYMBOLS)]
    made.append(Table("Scores of every set", titles, [""] * len(titles), rows, 2))
    return [*made, *([sequence_report.detection(parts)] if parts[0]["auroc"] else [])]


def opening(found: dict) -> list[str]:
    """Whether the ensemble and the students beat one network on the test set, and how well their knowledge uncertainty detects."""
    rows = {part["row"]: part["sets"] for part in found["parts"]}
    single, sentences = rows["Single"], []
    for name, sets in rows.items():
        if name != "Single":
            told = ", ".join(f"{label} {100 * own['wer']:.2f} % ({100 * single[label]['wer']:.2f} %)" for label, own in sets.items())
            verb = "below" if sets["test"]["nll"] < single["test"]["nll"] else "not below"
            sentences.append(
                f"{name}: WER (Single's) {told}; token NLL on test {sets['test']['nll']:.3f}, {verb} Single's {single['test']['nll']:.3f}."
            )
    return [*sentences, *sequence_report.knowledge(found["parts"])]


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    sequence_report.write(found, out, "speech recognition", opening(found), tables(found), CONVENTIONS, "transcripts")
