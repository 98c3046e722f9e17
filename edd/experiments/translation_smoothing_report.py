"""The report of smoothed labels in translation: calibration beside the paper's, BLEU over the temperature, tokens, and students."""

import pathlib

import numpy as np

from edd.experiments import page, sequence_report, style
from edd.experiments.smoothing_distillation_report import spread
from edd.experiments.smoothing_features_report import name_of, projections_figure
from edd.experiments.tables import BLANK, Cell, Table, number

SCHEMA = "edd.translation_smoothing/1"
COLUMNS = {  # title -> (scale, decimals)
    "BLEU": (100.0, 2),
    "NLL": (1.0, 3),
    "perplexity": (1.0, 2),
    "ECE %": (100.0, 2),
    "T": (1.0, 2),
    "NLL at T": (1.0, 3),
    "ECE % at T": (100.0, 2),
}
CURVES = (("ece", "ECE, %", 100.0, "temperatures"), ("nll", "NLL, nats", 1.0, "temperatures"), ("bleu", "BLEU", 100.0, "beam_temperatures"))
CONVENTIONS = {
    "NLL, ECE": sequence_report.CONVENTIONS["NLL, ECE"],
    "T": "of those measured, the temperature of least NLL on the validation pairs (on these where there are none); divides logits",
    "BLEU": "of the best hypothesis of the beam, by sacrebleu; logits are divided by the temperature in every step of the search",
    "paper": "WMT'14 English to German, Transformer, arXiv 1906.02629, tables 1 and 3: other data and networks, so only orders compare",
    "projection": "penultimate activations of the first network where one of three tokens comes next, in the plane of their templates",
    "spread": "root mean squared distance to the token's centre over that between centres, in the plane",
    "uncertainty": sequence_report.CONVENTIONS["uncertainty"],
    "I": "mean over sources of the mutual information, nats; kept: the student's over its ensemble's",
    "AUROC": "in percent, permuted sources positive, against the sources of the test set",
    "numbers": "mean (least, largest) over the networks of an ensemble, each alone",
}


def merge(runs: list[dict]) -> dict:
    """One results dict from runs of other smoothings; errors as `page.merge`."""
    merged = page.merge(runs, SCHEMA, lambda part: (part["smoothing"],), ("smoothings",))
    return {**merged, "parts": sorted(merged["parts"], key=lambda part: part["smoothing"])}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = sequence_report.results(SCHEMA, parts, settings, run)
    write(found, workdir)
    return found


def column(found: dict, part: dict, title: str) -> np.ndarray:
    """One number for each network of a smoothing, unscaled."""
    settings = found["settings"]
    plain, beam = (list(map(float, settings[name])).index(1.0) for name in ("temperatures", "beam_temperatures"))
    values = []
    for seed in part["seeds"]:
        best = int(np.argmin(seed.get("validation_nll", seed["nll"])))
        values.append(
            {
                "BLEU": seed["bleu"][beam],
                "NLL": seed["nll"][plain],
                "perplexity": np.exp(seed["nll"][plain]),
                "ECE %": seed["ece"][plain],
                "T": settings["temperatures"][best],
                "NLL at T": seed["nll"][best],
                "ECE % at T": seed["ece"][best],
            }[title]
        )
    return np.array(values, np.float64)


def curve(part: dict, metric: str) -> np.ndarray:
    """Mean over networks at every temperature."""
    return np.mean([seed[metric] for seed in part["seeds"]], 0)


def tables(found: dict) -> list[Table]:
    """Calibration and BLEU beside the paper's, then every temperature, the projection, and ensembles with their students."""
    lines, reference = [], found["settings"].get("reference", {})
    for part in found["parts"]:
        cells = [spread(column(found, part, title), *form) for title, form in COLUMNS.items()]
        lines.append([Cell(name_of(part)), Cell(str(len(part["seeds"]))), *cells])
        paper = reference.get(f"{100 * part['smoothing']:g} %", {})
        if paper:
            cells = [Cell(number(paper.get(title), *form)) for title, form in COLUMNS.items()]
            lines.append([Cell(f"{name_of(part)}, paper"), Cell(BLANK), *cells])
    seed = found["parts"][0]["seeds"][0]
    note = f"{seed['tokens']:,} tokens; BLEU signature {seed['signature']}; {sequence_report.left_out(found['parts'][0])}"
    made = [Table("Single networks", ["labels", "n", *COLUMNS], [""] * (2 + len(COLUMNS)), lines, 1, note)]
    return [*made, over_temperatures(found), projections(found), students(found)]


def over_temperatures(found: dict) -> Table:
    """ECE, NLL and BLEU at every temperature."""
    lines = []
    settings = found["settings"]
    for temperature in sorted({*settings["temperatures"], *settings["beam_temperatures"]}):
        cells = [
            Cell(number(scale * curve(part, metric)[settings[grid].index(temperature)], 1.0, 3 if metric == "nll" else 2))
            if temperature in settings[grid]
            else Cell(BLANK)
            for metric, _, scale, grid in CURVES
            for part in found["parts"]
        ]
        lines.append([Cell(f"{temperature:g}"), *cells])
    heads = ["temperature", *(f"{title}, {name_of(part)}" for _, title, *_ in CURVES for part in found["parts"])]
    return Table("Over the temperature", heads, [""] * len(heads), lines, 1)


def projections(found: dict) -> Table:
    """How wide the tokens' clusters are."""
    lines = [
        [Cell(name_of(part)), Cell(", ".join(each["classes"])), *(Cell(number(each[name]["spread"])) for name in ("train", "test"))]
        for part in found["parts"]
        for each in part["projections"]
    ]
    return Table("Projections of tokens", ["labels", "tokens", "spread, train", "spread, test"], [""] * 4, lines, 2)


def students(found: dict) -> Table:
    """Ensembles of each smoothing and their students."""
    lines = []
    for part in found["parts"]:
        for row in part["rows"]:
            own = row["uncertainty"]
            information = [Cell(number(own[label].get("mutual_information"), 1.0, 4)) for label in own]
            numbers = [Cell(number(row["nll"])), Cell(number(row["ece"], 100.0, 2)), *information, Cell(number(kept(part, row), 1.0, 2))]
            areas = sequence_report.by_measure(row["auroc"]["permuted"])
            lines.append([Cell(row["row"]), Cell(name_of(part)), *numbers, *areas, Cell(number(row["seconds"], 1.0, 0))])
    heads = ["row", "labels", "NLL", "ECE %", *(f"I, {label}" for label in found["parts"][0]["rows"][0]["uncertainty"]), "kept"]
    heads += [*(f"AUROC {symbol}" for symbol in sequence_report.SYMBOLS), "seconds of training"]
    return Table("Students of smoothed teachers", heads, [""] * len(heads), lines, 2)


def kept(part: dict, row: dict) -> float | None:
    """The row's mean mutual information on the test sources over the ensemble's; None where a row has none."""
    ensemble = next(each for each in part["rows"] if each["row"] == "Ensemble")
    own, whole = (each["uncertainty"]["test"].get("mutual_information") for each in (row, ensemble))
    return None if own is None or not whole else own / whole


def opening(found: dict) -> list[str]:
    """Each statement of the paper about its figure 4, held against these numbers; then what smoothing does to tokens and students."""
    sentences, parts = [], found["parts"]
    hard = next((part for part in parts if not part["smoothing"]), None)
    for part in parts:
        told = {title: scale * column(found, part, title).mean() for title, (scale, _) in COLUMNS.items()}
        sentences.append(
            f"{name_of(part)}: BLEU {told['BLEU']:.2f}, token NLL {told['NLL']:.3f}, ECE {told['ECE %']:.2f} %; at its temperature "
            f"{told['T']:.2f} ECE {told['ECE % at T']:.2f} %."
        )
        if hard is not None and part is not hard:
            sentences += figure_4(found, hard, part)
            for one, other in zip(hard["projections"], part["projections"]):
                ends = ", ".join(f"{name} {one[name]['spread']:.3f} to {other[name]['spread']:.3f}" for name in ("train", "test"))
                sentences.append(f"Tokens {', '.join(one['classes'])}: spread from hard labels to {name_of(part)}: {ends}.")
    for part in parts:
        for row in part["rows"]:
            if "mutual_information" in row["uncertainty"]["test"]:
                sentences.append(
                    f"{row['row']}, {name_of(part)}: NLL {row['nll']:.3f}, mutual information "
                    f"{row['uncertainty']['test']['mutual_information']:.4f} nats on test and "
                    f"{row['uncertainty']['permuted']['mutual_information']:.4f} on permuted sources, AUROC "
                    f"{100 * row['auroc']['permuted']['mutual_information']:.1f} %."
                )
    return sentences


def figure_4(found: dict, hard: dict, smoothed: dict) -> list[str]:
    """The paper's statements, each followed by whether it holds here."""
    at = {grid: np.array(found["settings"][grid], np.float64) for grid in ("temperatures", "beam_temperatures")}
    holds = lambda yes: "here too" if yes else "not here"  # noqa: E731
    plain = int(np.flatnonzero(at["temperatures"] == 1.0)[0])
    beam = int(np.flatnonzero(at["beam_temperatures"] == 1.0)[0])
    raised = curve(hard, "ece")[at["temperatures"] > 1.0]
    hard_bleu, smooth_bleu = curve(hard, "bleu"), curve(smoothed, "bleu")
    best = int(np.argmin(curve(smoothed, "ece")))
    statements = {
        "a temperature above 1 lowers the ECE of hard labels": bool((raised < curve(hard, "ece")[plain]).any()),
        "and at none they reach the smoothed networks' BLEU": hard_bleu.max() < smooth_bleu[beam],
        "smoothed networks have their least ECE at temperature 1": best == plain,
        "and their best BLEU": int(np.argmax(smooth_bleu)) == beam,
        "hard labels have the lower NLL at every temperature": bool((curve(hard, "nll") < curve(smoothed, "nll")).all()),
    }
    told = "; ".join(f"{words} ({holds(yes)})" for words, yes in statements.items())
    return [f"Figure 4 of the paper, {name_of(smoothed)}: {told}."]


def temperature_figure(found: dict):
    """ECE, NLL and BLEU over the temperature, a line for each smoothing, a band from the least to the largest network."""

    def draw(figure, axes):
        for axis, (metric, title, scale, grid) in zip(axes, CURVES):
            for index, part in enumerate(found["parts"]):
                values = scale * np.array([seed[metric] for seed in part["seeds"]])
                colour = style.STUDENT_COLOURS[index]
                axis.plot(found["settings"][grid], values.mean(0), "o-", color=colour, markersize=3.5, label=name_of(part))
                axis.fill_between(found["settings"][grid], values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
            axis.axvline(1.0, color="#8A8A8A", linewidth=1)
            axis.set_xlabel("temperature")
            axis.set_ylabel(title)
            axis.legend(fontsize="small")

    return style.panels(draw, 3, columns=3, height=2.8, width=3.2)


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    figures = {
        "temperature": (temperature_figure(found), "ECE and NLL of the next token and BLEU over the temperature."),
        "projections": (projections_figure(found), "Penultimate activations of tokens in the plane through three templates."),
    }
    title = f"{found['settings']['name']}: smoothed labels in translation"
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS, smoke=found["settings"].get("smoke", False))
