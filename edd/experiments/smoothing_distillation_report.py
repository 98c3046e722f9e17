"""The report of a study of smoothed teachers: every network's errors beside the paper's, and accuracy over gamma."""

import pathlib

import numpy as np

from edd.experiments import page, style
from edd.experiments.tables import BLANK, Cell, Table, number

SCHEMA = "edd.smoothing_distillation/1"
TEACHERS = "teachers"  # the curve of the teachers themselves
BASELINE = "students without teachers"
COLUMNS = (("errors", "errors", 1.0, 1), ("accuracy", "accuracy %", 100.0, 2), ("nll", "NLL", 1.0, 4), ("ece", "ECE %", 100.0, 2))
CONVENTIONS = {
    "errors": "wrong test examples; mean, and (least, largest) over seeds",
    "NLL": "mean over the test set, nats",
    "ECE": "15 equal-width bins of the confidence",
    "gamma": "mean probability of the wrong classes in the targets, times K / (K - 1), over the training set: the smoothing they equal",
    "paper": "test errors of the same row in arXiv 1906.02629, section 4",
}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, workdir)
    return found


def merge(runs: list[dict]) -> dict:
    """One results dict from runs of other seeds; errors as `page.merge`."""
    return page.merge(runs, SCHEMA, lambda part: (part["row"], part["run_seed"]), ("seed",))


def rows(found: dict) -> list[dict]:
    """Every row with the seeds of all runs together, in order of first appearance; rows without a living network are left out."""
    together: dict[str, dict] = {}
    for part in found["parts"]:
        row = together.setdefault(part["row"], {**part, "seeds": []})
        row["seeds"] = row["seeds"] + [{**each, "seed": (part["run_seed"], each["seed"])} for each in part["seeds"]]
    return [row for row in together.values() if row["seeds"]]


def values(row: dict, metric: str) -> np.ndarray:
    """One number for each seed."""
    return np.array([each[metric] for each in row["seeds"]], np.float64)


def paired(first: dict, second: dict, metric: str) -> np.ndarray:
    """first - second for each seed that both have."""
    one, other = ({each["seed"]: each[metric] for each in row["seeds"]} for row in (first, second))
    return np.array([one[seed] - other[seed] for seed in one if seed in other], np.float64)


def tables(found: dict) -> list[Table]:
    """A line for each row: mean (least, largest) over seeds of every score, gamma, and the paper's errors."""
    lines, reference = [], found["settings"].get("reference", {})
    for row in rows(found):
        cells = [Cell(row["row"]), Cell(row["kind"]), Cell(row["teacher"] or BLANK), Cell(str(len(row["seeds"])))]
        cells += [spread(values(row, metric), scale, decimals) for metric, _, scale, decimals in COLUMNS]
        cells += [Cell(number(values(row, "gamma").mean(), decimals=3))]
        lines.append([*cells, Cell(number(reference.get(row["row"], {}).get("errors"), decimals=0))])
    heads = ["row", "kind", "taught by", "n", *(title for _, title, _, _ in COLUMNS), "gamma", "errors, paper"]
    return [Table("Teachers and students", heads, [""] * len(heads), lines, 3)]


def spread(numbers: np.ndarray, scale: float, decimals: int) -> Cell:
    """Mean, and the least and the largest where there are several."""
    mean, low, high = (number(float(f(numbers)), scale, decimals) for f in (np.mean, np.min, np.max))
    return Cell(f"{mean} ({low}, {high})" if len(numbers) > 1 else mean)


def opening(found: dict) -> list[str]:
    """Smoothed teachers and their students against the hard ones; then each curve of distillation against plain students."""
    sentences, all_rows = [], rows(found)
    teachers = {row["row"]: row for row in all_rows if row["kind"] == "teacher"}
    hard = [row for row in teachers.values() if not row["smoothing"]]
    for row in teachers.values():
        if not (row["smoothing"] and hard):
            continue
        sentences.append(compared(f"Teacher {row['row']!r}", row, "the hard teacher", hard[0]))
        pupils = {each["teacher"]: each for each in all_rows if each["kind"] == "student" and not each["curve"]}
        if row["row"] in pupils and hard[0]["row"] in pupils:
            mine, theirs = pupils[row["row"]], pupils[hard[0]["row"]]
            sentences.append(compared(f"Its student {mine['row']!r}", mine, "the hard teacher's student", theirs))
    return sentences + [over_baseline(name, points, curves(found)[BASELINE]) for name, points in distilled(found).items()]


def compared(what: str, row: dict, against: str, other: dict) -> str:
    """Mean errors of both, and in how many seeds the first has fewer."""
    gap = paired(row, other, "errors")
    fewer = f"fewer in {int((gap < 0).sum())} of {len(gap)} seeds, more in {int((gap > 0).sum())}"
    return f"{what}: {values(row, 'errors').mean():.1f} errors, {against} {values(other, 'errors').mean():.1f}; {fewer}."


def curves(found: dict) -> dict[str, list[tuple[float, np.ndarray, str]]]:
    """Curve -> (mean gamma, accuracies, row) of its points in order of gamma; teachers have one where any student has."""
    made: dict[str, list] = {}
    all_rows = rows(found)
    with_curves = any(row["curve"] for row in all_rows)
    for row in all_rows:
        name = row["curve"] or (TEACHERS if row["kind"] == "teacher" and with_curves else "")
        if name:
            made.setdefault(name, []).append((float(values(row, "gamma").mean()), values(row, "accuracy"), row["row"]))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in made.items()}


def distilled(found: dict) -> dict:
    """The curves of distillation, where there is one of plain students to compare them with."""
    made = curves(found)
    return {name: points for name, points in made.items() if name not in (TEACHERS, BASELINE)} if BASELINE in made else {}


def over_baseline(name: str, points: list, baseline: list) -> str:
    """How many points lie above the plain students' mean accuracy, interpolated at the same gamma."""
    at, mean = [gamma for gamma, _, _ in baseline], [accuracy.mean() for _, accuracy, _ in baseline]
    gaps = [accuracy.mean() - np.interp(gamma, at, mean) for gamma, accuracy, _ in points]
    told = ", ".join(f"{100 * gap:+.2f} at {gamma:.2f}" for gap, (gamma, _, _) in zip(gaps, points))
    above = sum(gap > 0 for gap in gaps)
    return f"{name}: {above} of {len(gaps)} points above plain students at the same gamma (points of accuracy {told})."


def over_gamma(found: dict):
    """Accuracy over gamma, a line for each curve with its least and largest seed; None where there are no curves."""
    made = curves(found)

    def draw(figure, axes):
        for axis, names in zip(axes, (list(made), [name for name in made if name != TEACHERS])):
            for index, name in enumerate(made):
                if name not in names:
                    continue
                at, colour = [gamma for gamma, _, _ in made[name]], style.STUDENT_COLOURS[index]
                low, mean, high = (100 * np.array([f(each) for _, each, _ in made[name]]) for f in (np.min, np.mean, np.max))
                axis.errorbar(at, mean, (mean - low, high - mean), color=colour, label=name, marker="o", markersize=3.5, capsize=2)
            axis.set_xlabel("gamma of the targets")
            axis.set_ylabel("test accuracy, %")
        axes[1].set_title("students alone")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)

    return style.panels(draw, 2, columns=2, height=3.3, width=3.9) if made else None


def errors_figure(found: dict):
    """Test errors of every seed, a column for each row, and the paper's number."""
    reference, chosen = found["settings"].get("reference", {}), [row for row in rows(found) if not row["curve"]]

    def draw(figure, axes):
        for index, row in enumerate(chosen):
            errors, colour = values(row, "errors"), style.STUDENT_COLOURS[index % len(style.STUDENT_COLOURS)]
            axes[0].plot(np.full(len(errors), index), errors, "o", color=colour, markersize=4)
            axes[0].plot([index - 0.2, index + 0.2], [errors.mean()] * 2, color=colour)
            paper = reference.get(row["row"], {}).get("errors")
            if paper is not None:
                axes[0].plot(index, paper, "x", color="black", label=None if index else "paper")
        axes[0].set_xticks(range(len(chosen)), [row["row"] for row in chosen], rotation=15)
        axes[0].set_ylabel("test errors")
        if reference:
            axes[0].legend(fontsize="small")

    return style.panels(draw, 1, columns=1, height=3.0, width=5.5) if chosen and not curves(found) else None


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    figures = {
        "gamma": (over_gamma(found), "Accuracy over gamma; bars from the least to the largest seed."),
        "errors": (errors_figure(found), "Test errors of every seed; bars: their mean, crosses: the paper."),
    }
    title = f"{found['settings']['name']}: what smoothed teachers teach"
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS, smoke=found["settings"].get("smoke", False))
