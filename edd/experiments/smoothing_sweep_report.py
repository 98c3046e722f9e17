"""The report of a sweep of the teachers' smoothing: diversity, precision, and detection by the ensemble and by every student."""

import pathlib

import numpy as np

from edd.experiments import page, style
from edd.experiments.tables import BLANK, Cell, Table, number

SCHEMA = "edd.smoothing_sweep/1"
TEST, ENSEMBLE, PROXY = "test", "Ensemble", "Proxy Dirichlet"
CONVENTIONS = {
    "smoothing": "of the teachers' labels; students see the teachers' outputs alone",
    "I, EPKL": "mean over the set of the mutual information and of the expected pairwise KL of the members, nats",
    "precision": "median over the set of the proxy Dirichlet's precision (Stirling), or of the student's own",
    "AUROC": "an out-of-distribution example ranks above a test example; by mutual information (I) or total uncertainty (H)",
    "kept": "the student's mean mutual information over the ensemble's",
    "numbers": "mean over seeds (of single networks: over members)",
}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, workdir)
    return found


def merge(runs: list[dict]) -> dict:
    """One results dict from runs of other data sets, smoothings or seeds; errors as `page.merge`."""
    key = lambda part: (part["data"], part["smoothing"], part["run_seed"])  # noqa: E731
    return page.merge(runs, SCHEMA, key, ("smoothings", "base.data", "seed"))


def mean(row: dict | None, *path: str) -> float | None:
    """Mean over a row's seeds of the number at `path`; None where no seed has it."""
    found = []
    for each in (row or {}).get("seeds", []):
        for key in path:
            each = each.get(key) if isinstance(each, dict) else None
        if each is not None:
            found.append(each)
    return float(np.mean(found)) if found else None


def studies(found: dict) -> dict[str, list[dict]]:
    """Data set -> its parts by smoothing; the same smoothing at several seeds is one part with all its seeds."""
    made: dict[str, dict[float, dict]] = {}
    for part in found["parts"]:
        one = made.setdefault(part["data"], {}).setdefault(part["smoothing"], {**part, "rows": {}})
        for name, row in part["rows"].items():
            known = one["rows"].setdefault(name, {**row, "seeds": []})
            known["seeds"] = known["seeds"] + row["seeds"]
    return {data: [parts[smoothing] for smoothing in sorted(parts)] for data, parts in made.items()}


def sets_of(parts: list[dict]) -> list[str]:
    """Every set, the test set first."""
    return list(parts[0]["rows"][ENSEMBLE]["seeds"][0]["uncertainty"])


def students_of(parts: list[dict]) -> list[str]:
    """Names of the students' rows."""
    return list(dict.fromkeys(name for part in parts for name, row in part["rows"].items() if row["group"] == "student"))


def detected(row: dict | None, name: str) -> tuple[float | None, str]:
    """AUROC of a set by mutual information, or by total uncertainty where a row has no knowledge uncertainty; and the measure's symbol."""
    by_knowledge = mean(row, "auroc", name, "mutual_information")
    return (mean(row, "auroc", name, "total"), "H") if by_knowledge is None else (by_knowledge, "I")


def tables(found: dict) -> list[Table]:
    """For each data set: the ensemble's diversity over the smoothing, then detection and quality of every row."""
    made = []
    for data, parts in studies(found).items():
        names = sets_of(parts)
        columns = {"accuracy %": (100, 2, "accuracy"), "NLL": (1, 4, "nll"), "ECE %": (100, 2, "ece")}
        for name in names:
            columns[f"I, {name}"] = (1, 4, "uncertainty", name, "mutual_information")
            columns[f"EPKL, {name}"] = (1, 4, "uncertainty", name, "expected_pairwise_kl")
            columns[f"precision, {name}"] = (1, 1, "precision", name)
        lines = [
            [
                Cell(f"{part['smoothing']:g}"),
                *(_cell(mean(part["rows"][ENSEMBLE], *path), scale, d) for scale, d, *path in columns.values()),
            ]
            for part in parts
        ]
        made.append(Table(f"{data}: the ensemble", ["smoothing", *columns], [""] * (1 + len(columns)), lines, 1))
        heads = ["row", "smoothing", "n", "accuracy %", "NLL", "ECE %"]
        heads += [title for name in names if name != TEST for title in (f"AUROC I, {name}", f"AUROC H, {name}")]
        heads += [f"kept, {name}" for name in names] + [f"precision, {name}" for name in names]
        lines = [
            [Cell(row), Cell(f"{part['smoothing']:g}"), *row_cells(part["rows"][row], names)]
            for row in ("Single", ENSEMBLE, PROXY, *students_of(parts))
            for part in parts
            if row in part["rows"]
        ]
        made.append(Table(f"{data}: detection", heads, [""] * len(heads), lines, 2))
    return made


def row_cells(row: dict, names: list[str]) -> list[Cell]:
    """The cells of one row at one smoothing."""
    cells = [Cell(str(len(row["seeds"])))]
    cells += [_cell(mean(row, "accuracy"), 100, 2), _cell(mean(row, "nll"), 1, 4), _cell(mean(row, "ece"), 100, 2)]
    for name in names:
        if name != TEST:
            cells += [_cell(mean(row, "auroc", name, measure), 1, 4) for measure in ("mutual_information", "total")]
    return cells + [_cell(mean(row, "kept", name), 1, 3) for name in names] + [_cell(mean(row, "precision", name), 1, 1) for name in names]


def _cell(value: float | None, scale: float, decimals: int) -> Cell:
    return Cell(BLANK if value is None else number(value, scale, decimals))


def opening(found: dict) -> list[str]:
    """Whether diversity falls with smoothing, how the precision moves, and what happens to every row's detection."""
    sentences = []
    for data, parts in studies(found).items():
        ends = parts[0], parts[-1]
        alphas = " to ".join(f"{part['smoothing']:g}" for part in ends)
        for measure, words in (("mutual_information", "mutual information"), ("expected_pairwise_kl", "expected pairwise KL")):
            for name in sets_of(parts):
                values = [mean(part["rows"][ENSEMBLE], "uncertainty", name, measure) for part in parts]
                steps = np.diff(values)
                how = "falls at every step" if all(steps < 0) else "grows at every step" if all(steps > 0) else "is not monotone"
                sentences.append(f"{data}: mean {words} on {name} {how} (smoothing {alphas}: {values[0]:.3g} to {values[-1]:.3g} nats).")
        told = ", ".join(
            f"{name} {mean(ends[0]['rows'][ENSEMBLE], 'precision', name):.3g} to {mean(ends[1]['rows'][ENSEMBLE], 'precision', name):.3g}"
            for name in sets_of(parts)
        )
        sentences.append(f"{data}: median proxy precision, smoothing {alphas}: {told}.")
        for row in (ENSEMBLE, PROXY, *students_of(parts)):
            told = ", ".join(change(ends, row, name) for name in sets_of(parts) if name != TEST)
            sentences.append(f"{data}: detection by {row}, smoothing {alphas}: {told}.")
    return sentences


def change(ends: tuple[dict, dict], row: str, name: str) -> str:
    """AUROC of a set at the least and at the largest smoothing."""
    (first, symbol), (last, _) = (detected(part["rows"].get(row), name) for part in ends)
    told = " to ".join(BLANK if value is None else f"{value:.4f}" for value in (first, last))
    return f"{name} {told} by {symbol}"


def figure(found: dict):
    """For each data set over the smoothing: mutual information and EPKL of the ensemble, its precision, and AUROC of every row."""
    made = studies(found)

    def draw(figure, axes):
        for line, (data, parts) in enumerate(made.items()):
            own = axes[4 * line : 4 * line + 4]
            at, names = [part["smoothing"] for part in parts], sets_of(parts)
            kinds = (
                ("mutual information, nats", "uncertainty", "mutual_information"),
                ("EPKL, nats", "uncertainty", "expected_pairwise_kl"),
            )
            for axis, (title, section, measure) in zip(own, kinds):
                for index, name in enumerate(names):
                    values = [mean(part["rows"][ENSEMBLE], section, name, measure) for part in parts]
                    axis.plot(at, values, "o-", color=style.STUDENT_COLOURS[index], markersize=3.5, label=name)
                axis.set_ylabel(title)
            for index, name in enumerate(names):
                values = [mean(part["rows"][ENSEMBLE], "precision", name) for part in parts]
                own[2].plot(at, values, "o-", color=style.STUDENT_COLOURS[index], markersize=3.5, label=name)
            own[2].set_ylabel("median proxy precision")
            for axis in own[:3]:
                axis.set_yscale("log")
            draw_detection(own[3], parts, at, names)
            for axis in own:
                axis.set_title(data, fontsize="small")
                axis.set_xlabel("smoothing of the teachers")
                axis.legend(fontsize="xx-small")

    return style.panels(draw, 4 * len(made), columns=4, height=2.9, width=3.0)


def draw_detection(axis, parts: list[dict], at: list[float], names: list[str]) -> None:
    """AUROC, mean over the out-of-distribution sets, a line for the ensemble and for every student."""
    for index, row in enumerate((ENSEMBLE, *students_of(parts))):
        found = [[detected(part["rows"].get(row), name) for name in names if name != TEST] for part in parts]
        values = [np.nan if any(value is None for value, _ in each) else np.mean([value for value, _ in each]) for each in found]
        colour = "black" if row == ENSEMBLE else style.STUDENT_COLOURS[index]
        axis.plot(at, values, "o-", color=colour, markersize=3.5, label=f"{row}, {found[0][0][1]}")
    axis.set_ylabel("AUROC, mean over sets")


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    figures = {"smoothing": (figure(found), "Diversity, proxy precision and detection over the smoothing of the teachers' labels.")}
    title = f"{found['settings']['name']}: smoothed teachers and what their students keep"
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS, smoke=found["settings"].get("smoke", False))
