"""The report of a study of smoothed networks: calibration beside the paper's, projections, reliability, and information over training."""

import pathlib

import numpy as np

from edd.experiments import page, style
from edd.experiments.smoothing_distillation_report import spread
from edd.experiments.tables import BLANK, Cell, Table, number

SCHEMA = "edd.smoothing_features/1"
COLUMNS = {  # title -> (value of one seed, scale, decimals)
    "accuracy %": (lambda seed: seed["plain"]["accuracy"], 100.0, 2),
    "NLL": (lambda seed: seed["plain"]["nll"], 1.0, 4),
    "ECE %": (lambda seed: seed["plain"]["ece"], 100.0, 2),
    "T": (lambda seed: seed["temperature"], 1.0, 2),
    "ECE % at T": (lambda seed: seed["scaled"]["ece"], 100.0, 2),
    "NLL at T": (lambda seed: seed["scaled"]["nll"], 1.0, 4),
}
CONVENTIONS = {
    "ECE": "equal-width right-closed bins of the confidence, 15 unless the settings say otherwise",
    "T": "temperature of least NLL on the held-out examples (on the test set where none are held out), divides logits",
    "projection": "penultimate activations of the first seed in the plane through three templates; the first template is the origin",
    "spread": "root mean squared distance to the class's centre over that between centres, in the plane",
    "I": "Gaussian estimate of the information between an example and the difference of two logits over augmented views, nats",
    "numbers": "mean (least, largest) over seeds",
}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, workdir)
    return found


def merge(runs: list[dict]) -> dict:
    """One results dict from runs of other smoothings; errors as `page.merge`."""
    merged = page.merge(runs, SCHEMA, lambda part: (part["smoothing"],), ("smoothings", "reference"))
    return {**merged, "parts": sorted(merged["parts"], key=lambda part: part["smoothing"])}


def column(part: dict, title: str) -> np.ndarray:
    """One number for each seed, unscaled."""
    return np.array([COLUMNS[title][0](seed) for seed in part["seeds"]], np.float64)


def name_of(part: dict) -> str:
    """How figures and tables call a smoothing."""
    return f"smoothing {part['smoothing']:g}" if part["smoothing"] else "hard labels"


def tables(found: dict) -> list[Table]:
    """Calibration of every smoothing with the paper's numbers below it, then spreads in the projections, then the curve's ends."""
    lines, reference = [], found["settings"].get("reference", {})
    for part in found["parts"]:
        lines.append([Cell(name_of(part)), Cell(str(len(part["seeds"])))])
        lines[-1] += [spread(column(part, title), scale, decimals) for title, (_, scale, decimals) in COLUMNS.items()]
        paper = reference.get(f"{100 * part['smoothing']:g} %", {})
        if paper:
            cells = [Cell(number(paper.get(title), scale, decimals)) for title, (_, scale, decimals) in COLUMNS.items()]
            lines.append([Cell(f"{name_of(part)}, paper"), Cell(BLANK), *cells])
    made = [Table("Calibration", ["labels", "n", *COLUMNS], [""] * (2 + len(COLUMNS)), lines, 1)]
    lines = [
        [
            Cell(name_of(part)),
            Cell(", ".join(map(str, each["classes"]))),
            *(Cell(number(each[name]["spread"])) for name in ("train", "test")),
        ]
        for part in found["parts"]
        for each in part["projections"]
    ]
    if lines:
        made.append(Table("Projections", ["labels", "classes", "spread, train", "spread, test"], [""] * 4, lines, 2))
    lines = [[Cell(name_of(part)), *information_cells(part)] for part in found["parts"] if part["information"]]
    if lines:
        heads = ["labels", *(f"{which}, {kind}" for kind in ("in sample", "fresh") for which in ("first", "largest", "last"))]
        made.append(Table("Information over training, nats", heads, [""] * len(heads), lines, 1))
    return made


def curve(part: dict, kind: str) -> np.ndarray:
    """Mean over seeds of one of the estimates at every snapshot."""
    return np.array(part["information"][kind], np.float64).mean(-1)


def information_cells(part: dict) -> list[Cell]:
    """First, largest and last value of both estimates, means over seeds."""
    return [
        Cell(number(float(pick(curve(part, kind)))))
        for kind in ("in_sample", "fresh")
        for pick in (lambda c: c[0], np.max, lambda c: c[-1])
    ]


def opening(found: dict) -> list[str]:
    """Calibration with and without smoothing and with a temperature; tighter clusters or not; less information or not."""
    sentences, parts = [], found["parts"]
    hard = next((part for part in parts if not part["smoothing"]), None)
    for part in parts:
        ece, scaled = 100 * column(part, "ECE %").mean(), 100 * column(part, "ECE % at T").mean()
        told = f"ECE {ece:.2f} %, at its temperature {column(part, 'T').mean():.2f} {scaled:.2f} %"
        sentences.append(f"{name_of(part)}: accuracy {100 * column(part, 'accuracy %').mean():.2f} %, {told}.")
        if hard is None or part is hard:
            continue
        least = [min(np.mean([seed["grid"]["nll"] for seed in each["seeds"]], 0)) for each in (hard, part)]
        better = "lower" if least[0] < least[1] else "not lower"
        sentences.append(
            f"The least NLL over temperatures is {better} with hard labels ({least[0]:.4f}) than with {name_of(part)} ({least[1]:.4f})."
        )
        for one, other in zip(hard["projections"], part["projections"]):
            ends = ", ".join(f"{name} {one[name]['spread']:.3f} to {other[name]['spread']:.3f}" for name in ("train", "test"))
            sentences.append(f"Classes {', '.join(map(str, one['classes']))}: spread from hard labels to {name_of(part)}: {ends}.")
        if hard["information"] and part["information"]:
            one, other = curve(part, "fresh"), curve(hard, "fresh")
            sentences.append(
                f"The information of a fresh view is lower with {name_of(part)} at {(one < other).sum()} of {len(one)} points; at the end "
                f"{one[-1]:.3f} against {other[-1]:.3f} nats (ln 2 = 0.693)."
            )
    return sentences


def projections_figure(found: dict):
    """A line of panels for each triple: training and test examples of every smoothing; templates joined by a triangle."""
    parts = [part for part in found["parts"] if part["projections"]]
    count = len(parts[0]["projections"]) if parts else 0
    cells = [(part, index, name) for index in range(count) for part in parts for name in ("train", "test")]

    def draw(figure, axes):
        for axis, (part, index, name) in zip(axes, cells):
            each = part["projections"][index]
            points, labels = np.array(each[name]["points"]), np.array(each[name]["labels"])
            for at, label in enumerate(each["classes"]):
                mine = points[labels == label]
                axis.plot(mine[:, 0], mine[:, 1], ".", color=style.STUDENT_COLOURS[at], markersize=3, label=f"class {label}")
            axis.set_title(f"{name_of(part)}, {name}", fontsize="small")
            axis.set_aspect("equal", adjustable="datalim")
            axis.legend(fontsize="xx-small")

    return style.panels(draw, len(cells), columns=2 * len(parts), height=2.4, width=2.4) if cells else None


def reliability_figure(found: dict):
    """Accuracy over confidence of every smoothing, as it is and at its temperature, means over seeds of the filled bins."""

    def draw(figure, axes):
        for axis, part in zip(axes, found["parts"]):
            axis.plot([0, 1], [0, 1], color="#8A8A8A", linestyle="--", linewidth=1)
            for key, label, colour in (("plain", "T = 1", style.STUDENT_COLOURS[0]), ("scaled", "at its T", style.STUDENT_COLOURS[1])):
                pooled = pooled_reliability([seed[key]["reliability"] for seed in part["seeds"]])
                axis.plot(*pooled, "o-", color=colour, markersize=3.5, label=label)
            axis.set_title(name_of(part))
            axis.set_xlabel("confidence")
            axis.set_ylabel("accuracy")
            axis.legend(fontsize="small")

    return style.panels(draw, len(found["parts"]), columns=3, height=2.8, width=2.9)


def pooled_reliability(bins: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """(confidence, accuracy) of every bin that any seed fills, weighted by the seeds' counts."""
    counts = np.array([each["count"] for each in bins], np.float64)
    filled = counts.sum(0) > 0
    mean = lambda name: np.nansum(counts * np.nan_to_num([each[name] for each in bins]), 0)[filled] / counts.sum(0)[filled]  # noqa: E731
    return mean("confidence"), mean("accuracy")


def temperature_figure(found: dict):
    """ECE and NLL over the temperature, a line for each smoothing."""
    at = found["settings"].get("temperatures") or []

    def draw(figure, axes):
        for axis, (metric, title, scale) in zip(axes, (("ece", "ECE, %", 100), ("nll", "NLL, nats", 1))):
            for index, part in enumerate(found["parts"]):
                mean = scale * np.mean([seed["grid"][metric] for seed in part["seeds"]], 0)
                axis.plot(at, mean, "o-", color=style.STUDENT_COLOURS[index], markersize=3.5, label=name_of(part))
            axis.axvline(1.0, color="#8A8A8A", linewidth=1)
            axis.set_xlabel("temperature")
            axis.set_ylabel(title)
            axis.legend(fontsize="small")

    return style.panels(draw, 2, columns=2, height=2.8, width=3.6) if at else None


def information_figure(found: dict):
    """Information over training steps, a panel for each estimate, with ln 2."""
    parts = [part for part in found["parts"] if part["information"]]

    def draw(figure, axes):
        for axis, (kind, title) in zip(axes, (("in_sample", "in sample"), ("fresh", "a fresh view"))):
            for index, part in enumerate(parts):
                steps, values = part["information"]["steps"], np.array(part["information"][kind])
                axis.plot(steps, values.mean(-1), "o-", color=style.STUDENT_COLOURS[index], markersize=3, label=name_of(part))
                axis.fill_between(steps, values.min(-1), values.max(-1), color=style.STUDENT_COLOURS[index], alpha=0.2, linewidth=0)
            axis.axhline(np.log(2), color="#8A8A8A", linestyle="--", linewidth=1)
            axis.set_title(title)
            axis.set_xlabel("step")
            axis.set_ylabel("information, nats")
            axis.legend(fontsize="small")

    return style.panels(draw, 2, columns=2, height=2.8, width=3.6) if parts else None


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    figures = {
        "projections": (projections_figure(found), "Penultimate activations in the plane through three templates."),
        "reliability": (reliability_figure(found), "Reliability, with and without temperature scaling."),
        "temperature": (temperature_figure(found), "ECE and NLL over the temperature."),
        "information": (
            information_figure(found),
            "Information about the example over training; bands from the least to the largest seed.",
        ),
    }
    title = f"{found['settings']['name']}: what smoothing does to a network"
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS, smoke=found["settings"].get("smoke", False))
