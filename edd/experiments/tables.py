"""The report's tables as plain values: results dict in, `Table`s of already formatted cells out; no Markdown or HTML here."""

import math
from typing import NamedTuple

from edd.experiments.results import get

# results.json name of a measure -> (symbol, words); the order is the order of every table and legend
MEASURES = {
    "total": ("H", "total uncertainty"),
    "mutual_information": ("I", "mutual information"),
    "expected_pairwise_kl": ("K", "expected pairwise KL"),
    "reverse_mutual_information": ("M", "reverse mutual information"),
    "data": ("E H", "data uncertainty"),
    "confidence": ("max p", "confidence, the largest probability"),
}
KNOWLEDGE = ("mutual_information", "expected_pairwise_kl", "reverse_mutual_information")
PAPER_MEASURES = ("total", *KNOWLEDGE)  # H I K M, the columns of the papers' tables
BLANK = "–"


class Column(NamedTuple):
    """One column: where its number is, how it is scaled and printed. `source` is "metrics" or "costs"."""

    title: str
    path: tuple[str, ...]
    scale: float = 1.0
    decimals: int = 3
    source: str = "metrics"
    group: str = ""


class Cell(NamedTuple):
    """Formatted text, and the bootstrap interval as text ("" where there is none)."""

    text: str
    interval: str = ""


class Table(NamedTuple):
    """A caption, column titles (with an optional group title each) and rows of cells; the first `num_labels` columns are text."""

    title: str
    columns: list[str]
    groups: list[str]
    rows: list[list[Cell]]
    num_labels: int
    note: str = ""


# --- numbers as text --------------------------------------------------------------------------------------------------


def number(value: float | None, scale: float = 1.0, decimals: int = 3, *, tiny: bool = True) -> str:
    """`value * scale` for a reader: a dash for a missing quantity, "NaN", "∞"; no decimals from 1,000 on.

    Args:
      value: the number, or None.
      scale: 100 for percent.
      decimals: after the point.
      tiny: write what would round to zero as 2.5e-06.

    Examples:
      >>> [number(0.98214, 100, 1), number(None), number(float("inf")), number(0.0), number(1234567.0), number(2.5e-6)]
      ['98.2', '–', '∞', '0.000', '1,234,567', '2.5e-06']
    """
    if value is None:
        return BLANK
    value = float(value) * scale
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    rounds_to_zero = abs(value) < 0.5 * 10.0**-decimals
    if abs(value) >= 1e9:
        text = f"{value:.2e}"
    elif abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif value and rounds_to_zero and tiny:
        text = f"{value:.1e}"
    else:
        text = f"{abs(value) if rounds_to_zero else value:.{decimals}f}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def cell(leaf: dict | None, scale: float = 1.0, decimals: int = 3) -> Cell:
    """ "mean ± sd" of a pooled leaf, with "(n of N)" where some seeds have no number, and its interval."""
    if leaf is None:
        return Cell(BLANK)
    spread = leaf.get("sd") or None
    text = number(leaf["mean"], scale, decimals, tiny=spread is None)
    if spread is not None:
        text += f" ± {number(spread, scale, 0 if abs(leaf['mean']) * scale >= 1000 else decimals, tiny=False)}"
    if 0 < leaf["n"] < leaf["of"]:
        text += f" ({leaf['n']} of {leaf['of']})"
    low, high = leaf.get("low"), leaf.get("high")
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return Cell(text)
    return Cell(text, f"[{number(low, scale, decimals, tiny=False)}, {number(high, scale, decimals, tiny=False)}]")


def variant_titles(summary: list[dict]) -> dict[str, str]:
    """Dotted setting -> the shortest ending that no other of them has: "data.options.arms" is "arms".

    Examples:
      >>> variant_titles([{"variant": {"data.arms": 3, "student.width": 2, "teacher.width": 2}}])
      {'data.arms': 'arms', 'student.width': 'student.width', 'teacher.width': 'teacher.width'}
    """
    names = list(dict.fromkeys(name for entry in summary for name in entry["variant"]))
    ends = {name: name.split(".") for name in names}
    titles = {}
    for name in names:
        lengths = range(1, len(ends[name]) + 1)
        length = next((n for n in lengths if sum(other[-n:] == ends[name][-n:] for other in ends.values()) == 1), len(ends[name]))
        titles[name] = ".".join(ends[name][-length:])
    return titles


# --- tables -----------------------------------------------------------------------------------------------------------


def build(title: str, results: dict, columns: list[Column], *, keep=lambda entry: True, note: str = "") -> Table | None:
    """A table with one line per summary entry that `keep`s and has at least one number; None if no line remains."""
    variants = variant_titles(results["summary"])
    lines = []
    for entry in results["summary"]:
        cells = [cell(get(entry[column.source], column.path), column.scale, column.decimals) for column in columns]
        if keep(entry) and any(each.text != BLANK for each in cells):
            labels = [Cell(str(entry["variant"].get(name, BLANK))) for name in variants]
            lines.append([*labels, Cell(entry["name"]), Cell(str(len(entry["seeds"]))), *cells])
    if not lines:
        return None
    filled = [index for index in range(len(columns)) if any(line[len(variants) + 2 + index].text != BLANK for line in lines)]
    head = len(variants) + 2
    return Table(
        title=title,
        columns=[*variants.values(), "row", "n", *(columns[index].title for index in filled)],
        groups=[""] * head + [columns[index].group for index in filled],
        rows=[[*line[:head], *(line[head + index] for index in filled)] for line in lines],
        num_labels=head - 1,
        note=note,
    )


def out_sets(results: dict) -> list[str]:
    """Names of the out-of-distribution sets, in order."""
    return [name for name, entry in results["sets"].items() if entry["kind"] == "out"]


def main_table(results: dict) -> Table | None:
    """Single member, ensemble, proxy Dirichlet, every baseline and every student: prediction quality, rejection, and detection in brief."""
    columns = [
        Column("accuracy %", ("classification", "accuracy"), 100, 2),
        Column("NLL", ("classification", "nll")),
        Column("Brier", ("classification", "brier")),
        Column("ECE %", ("classification", "ece"), 100, 2),
        Column("MCE %", ("classification", "mce"), 100, 1),
        Column("PRR %", ("rejection", "total", "prr"), 100, 1),
        Column("AURC %", ("rejection", "total", "aurc"), 100, 2),
    ]
    for name in out_sets(results):
        for measure in ("total", "mutual_information"):
            symbol = MEASURES[measure][0]
            columns.append(Column(symbol, ("detection", name, measure, "auroc"), 100, 1, group=f"AUROC %, {name}"))
    note = "n: seeds (members for single networks); mean ± standard deviation over them. PRR and AURC rank by total uncertainty H."
    return build("Results", results, columns, note=note)


def detection_table(results: dict, name: str) -> Table | None:
    """AUROC, AUPR and FPR95 of one out-of-distribution set by each of the papers' measures."""
    columns = [
        Column(MEASURES[measure][0], ("detection", name, measure, metric), 100, 1, group=title)
        for metric, title in (("auroc", "AUROC %"), ("aupr", "AUPR %"), ("fpr95", "FPR95 %"))
        for measure in PAPER_MEASURES
    ]
    inside, outside = (results["sets"][each]["examples"] for each in ("test", name))
    sizes = f"{outside:,} out-of-distribution examples (positive) against {inside:,} test examples."
    return build(f"Detecting {name}", results, columns, note=sizes)


def other_scores_table(results: dict) -> Table | None:
    """What data uncertainty and the plain confidence detect: a baseline for the measures."""
    columns = [
        Column(MEASURES[measure][0], ("detection", name, measure, "auroc"), 100, 1, group=f"AUROC %, {name}")
        for name in out_sets(results)
        for measure in ("data", "confidence")
    ]
    return build("Detection by data uncertainty and by confidence", results, columns)


def rejection_table(results: dict) -> Table | None:
    """Rejecting test examples by each measure."""
    columns = [
        Column(MEASURES[measure][0], ("rejection", measure, metric), 100, decimals, group=title)
        for metric, title, decimals in (("prr", "PRR %", 1), ("aurc", "AURC %", 2))
        for measure in (*PAPER_MEASURES, "confidence")
    ]
    columns += [
        Column(title, ("rejection", "total", metric), 100, 2, group="by H, %")
        for metric, title in (("e_aurc", "E-AURC"), ("augrc", "AUGRC"))
    ]
    return build("Rejecting uncertain test examples", results, columns)


def calibration_table(results: dict) -> Table | None:
    """The calibration metrics that the main table leaves out."""
    columns = [
        Column("confidence gap %", ("classification", "confidence_gap"), 100, 2),
        Column("adaptive ECE %", ("classification", "adaptive_ece"), 100, 2),
        Column("classwise ECE %", ("classification", "classwise_ece"), 100, 2),
    ]
    return build("Calibration, more", results, columns)


def fidelity_table(results: dict, name: str) -> Table | None:
    """How much of the ensemble's uncertainty each row kept on one set."""
    measures = (*PAPER_MEASURES, "data")
    columns = [Column("KL(ens‖row)", ("fidelity", name, "kl"), decimals=4)]
    for metric, group in (("rank_correlation", "rank correlation"), ("mean_error", "mean error, nats")):
        columns += [Column(MEASURES[measure][0], ("fidelity", name, measure, metric), group=group) for measure in measures]
    note = "Rank correlation 1: the row orders the examples as the ensemble does. Mean error: row minus ensemble."
    return build(f"Fidelity to the ensemble, {name}", results, columns, keep=lambda entry: entry["group"] != "ensemble", note=note)


def precision_table(results: dict) -> Table | None:
    """Median Dirichlet precision per set (the ensemble's is that of its proxy)."""
    columns = [Column(name, ("precision", name), decimals=1, group="median precision") for name in results["sets"]]
    return build("Precision", results, columns)


def uncertainty_table(results: dict) -> Table | None:
    """Mean of total and knowledge uncertainty per set, in nats."""
    columns = [
        Column(MEASURES[measure][0], ("uncertainty", name, measure), group=f"{name}, nats")
        for name in results["sets"]
        for measure in ("total", "mutual_information")
    ]
    return build("Mean uncertainty", results, columns)


def cost_table(results: dict) -> Table | None:
    """Parameters, time, and both relative to the ensemble."""
    columns = [
        Column("parameters", ("parameters",), decimals=0, source="costs"),
        Column("ms per 1,000 predictions", ("milliseconds_per_1000",), decimals=2, source="costs"),
        Column("times cheaper", ("times_cheaper",), decimals=1, source="costs"),
        Column("times smaller", ("times_smaller",), decimals=1, source="costs"),
    ]
    return build(
        "Costs",
        results,
        columns,
        note="Times cheaper: the ensemble's time over the row's; times smaller: parameters (a shared body once).",
    )


def reference_table(results: dict) -> Table | None:
    """Our numbers beside the paper's, where the config gives them."""
    variants = variant_titles(results["summary"])
    lines = []
    for entry in results["summary"]:
        for metric, value in entry["reference"].items():
            leaf = get(entry["metrics"], metric_path(metric))
            labels = [Cell(str(entry["variant"].get(name, BLANK))) for name in variants]
            if metric == "error" and leaf is not None:
                ends = {
                    low: None if leaf.get(high) is None else 1 - leaf[high]
                    for low, high in (("mean", "mean"), ("low", "high"), ("high", "low"))
                }
                leaf = {**leaf, **ends}
            decimals = 1 if metric.startswith("precision") else 4
            lines.append([*labels, Cell(entry["name"]), Cell(metric), cell(leaf, 1, decimals), Cell(number(value, 1, decimals))])
    if not lines:
        return None
    head = len(variants) + 2
    return Table(
        "Beside the paper", [*variants, "row", "metric", "ours", "paper"], [""] * (head + 2), lines, head, "Fractions, not percent."
    )


def metric_path(metric: str) -> tuple[str, ...]:
    """Path of a metric named in a config: "accuracy", "error", "ece", "precision.test", "detection.kmnist.total.auroc".

    Examples:
      >>> metric_path("accuracy"), metric_path("precision.test")
      (('classification', 'accuracy'), ('precision', 'test'))
    """
    if metric == "error":
        return ("classification", "accuracy")
    path = tuple(metric.split("."))
    return path if len(path) > 1 else ("classification", metric)


def all_tables(results: dict) -> list[Table]:
    """Every table of the report after the main one, in order; empty ones left out."""
    sets = list(results["sets"])
    tables = [
        *(detection_table(results, name) for name in out_sets(results)),
        *(fidelity_table(results, name) for name in sets),
        cost_table(results),
        reference_table(results),
        precision_table(results),
        rejection_table(results),
        calibration_table(results),
        other_scores_table(results),
        uncertainty_table(results),
    ]
    return [table for table in tables if table is not None]
