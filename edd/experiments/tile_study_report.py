"""The report of a study of tiles: every size beside the network itself, in ranking errors and in detection, and the curves."""

import pathlib

from edd.experiments import page, style
from edd.experiments.tables import BLANK, Cell, Table, number

SCHEMA = "edd.tiles/1"
ORIGINAL = "network"
CONVENTIONS = {
    "rows": "network: ranked by the entropy of its own prediction; s x s: its logits averaged to so many tiles, ranked by their mutual "
    "information; uniform or weighted tiles",
    "own, reranked": "own: the row's prediction in the order of its uncertainty; reranked: the network's prediction in that order",
    "calibration error": "|mean confidence - accuracy| of a set, without bins",
    "area": "under the acceptance curve over the quantile levels, trapezoid rule",
    "neg. covariance": "- cov(uncertainty, metric) over the quantiles; bucket for the calibration error, acceptance for the others; the "
    "uncertainty is scaled as the settings say (the paper does not)",
    "AUROC errors": "a wrong prediction is more uncertain than a right one",
    "AUROC, set": "an out-of-distribution image is more uncertain than a test image",
    "T": "one, or the temperature of least negative log-likelihood of the network's own logits on the test set",
}


def finish(workdir: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, workdir)
    return found


def merge(runs: list[dict]) -> dict:
    """One results dict from runs at other sizes, weightings or temperatures; errors as `page.merge`."""
    return page.merge(runs, SCHEMA, lambda part: (part["temperature"], part["row"]), ("sizes", "weightings", "temperatures", "reference"))


def columns(part: dict) -> dict[str, float]:
    """Column title -> number of one row."""
    numbers = {"accuracy %": 100 * part["accuracy"], "NLL": part["nll"], "calibration error %": 100 * part["calibration_error"]}
    numbers |= {"AUROC errors": part["errors"]["own"], "AUROC errors, reranked": part["errors"]["reranked"]}
    numbers |= {f"AUROC, {name}": values["uncertainty"] for name, values in part["detection"].items()}
    for name, title in (("calibration_error", "calibration error, bucket"), ("accuracy", "accuracy"), ("nll", "NLL")):
        numbers[f"neg. covariance, {title}"] = part["own"]["neg_cov"][name]
    return numbers | {f"area, {name}": value for name, value in part["own"]["area"].items()}


def tables(found: dict) -> list[Table]:
    """One table for each temperature: a line for each row, the paper's below it where there is one."""
    made, reference = [], found["settings"].get("reference", {})
    for kind, temperature in {part["temperature"]: part["T"] for part in found["parts"]}.items():
        parts = [part for part in found["parts"] if part["temperature"] == kind]
        heads, lines = list(columns(parts[0])), []
        for part in parts:
            numbers, paper = columns(part), reference.get(part["row"], {})
            lines.append([Cell(part["row"]), *(Cell(number(numbers[head], decimals=decimals(head))) for head in heads)])
            if paper and kind == "one":
                lines.append([Cell(f"{part['row']}, paper"), *(_cell(paper.get(head), head) for head in heads)])
        made.append(Table(f"T = {temperature:.3g} ({kind})", ["row", *heads], [""] * (1 + len(heads)), lines, 1))
    return made


def decimals(head: str) -> int:
    """Decimals of a column."""
    return 2 if head.endswith("%") else 4


def _cell(value: float | None, head: str) -> Cell:
    return Cell(BLANK if value is None else number(value, decimals=decimals(head)))


def opening(found: dict) -> list[str]:
    """For each temperature: the network, the best tiles by errors and by each set, and whether they beat it."""
    sentences = []
    for kind in dict.fromkeys(part["temperature"] for part in found["parts"]):
        parts = [part for part in found["parts"] if part["temperature"] == kind]
        network = next(part for part in parts if part["row"] == ORIGINAL)
        others = [part for part in parts if part["row"] != ORIGINAL]
        tasks = {"ranking the network's errors": lambda part: part["errors"]["reranked"]}
        tasks |= {f"detecting {name}": lambda part, name=name: part["detection"][name]["uncertainty"] for name in network["detection"]}
        for task, value in tasks.items():
            best = max(others, key=value)
            word = "better than" if value(best) > value(network) else "no better than"
            sentences.append(
                f"T {kind}, {task}: the best tiles ({best['row']}, AUROC {value(best):.4f}) are {word} the network's entropy "
                f"({value(network):.4f})."
            )
    return sentences


def figure(found: dict):
    """Acceptance curves of accuracy, likelihood and calibration error at the first temperature, the network dashed."""
    kind = found["parts"][0]["temperature"]
    parts = [
        part for part in found["parts"] if part["temperature"] == kind and (part["row"] == ORIGINAL or part["row"].endswith("uniform"))
    ]
    titles = {"accuracy": "accuracy", "nll": "NLL, nats", "calibration_error": "calibration error"}

    def draw(figure, axes):
        for axis, (name, title) in zip(axes, titles.items()):
            for index, part in enumerate(part for part in parts if part["row"] != ORIGINAL):
                colour = style.STUDENT_COLOURS[index % len(style.STUDENT_COLOURS)]
                axis.plot(
                    part["own"]["quantile"], part["own"]["acceptance"][name], color=colour, label=part["row"].split()[0], linewidth=1.1
                )
            network = next(part for part in parts if part["row"] == ORIGINAL)
            axis.plot(network["own"]["quantile"], network["own"]["acceptance"][name], "k--", label="network, entropy", linewidth=1.4)
            axis.set_xlabel("share accepted, most certain first")
            axis.set_ylabel(title)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

    return style.panels(draw, len(titles), columns=3, height=2.7, width=3.4)


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    figures = {"acceptance": (figure(found), "Metrics over what is accepted, by tiles' mutual information and by the network's entropy.")}
    title = f"{found['settings']['name']}: an ensemble out of one network's positions"
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS, smoke=found["settings"].get("smoke", False))
