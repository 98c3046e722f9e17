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
    "accuracy %, set; NLL, set": "of a set whose labels are the network's classes, probabilities normalised over those that occur in it",
    "AUROC, set, its classes": "test images of those classes alone on the other side",
    "negative covariance": "- cov(uncertainty, metric) over the quantiles; bucket for the calibration error, acceptance for the others; "
    "the uncertainty is scaled as the settings say (the paper does not)",
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
    for name, values in part.get("shared", {}).items():
        numbers |= {f"accuracy %, {name}": 100 * values["accuracy"], f"NLL, {name}": values["nll"]}
    numbers |= {f"AUROC, {name}": values["uncertainty"] for name, values in part["detection"].items()}
    for name, title in (("calibration_error", "calibration error, bucket"), ("accuracy", "accuracy"), ("nll", "NLL")):
        numbers[f"negative covariance, {title}"] = part["own"]["neg_cov"][name]
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
    return 2 if "%" in head else 4


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


def figures(found: dict) -> dict[str, tuple]:
    """name -> (figure, caption) for each temperature and weighting: buckets and acceptance, the network dashed."""
    drawn = {}
    for kind in dict.fromkeys(part["temperature"] for part in found["parts"]):
        parts = [part for part in found["parts"] if part["temperature"] == kind]
        for weighting in dict.fromkeys(part["row"].split()[1] for part in parts if part["row"] != ORIGINAL):
            name = f"T_{kind}_{weighting}"
            rows = [part for part in parts if part["row"] == ORIGINAL or part["row"].split()[1] == weighting]
            caption = f"T {kind}, {weighting} tiles: metrics of what is accepted and in each quantile, by the tiles' mutual information"
            drawn[name] = (figure(rows), f"{caption} and by the network's entropy; the legends have the areas.")
    return drawn


def figure(parts: list[dict]):
    """Curves of accuracy, likelihood and calibration error: acceptance above, buckets below."""
    titles = {"accuracy": "accuracy", "nll": "NLL, nats", "calibration_error": "calibration error"}
    panels = [(kind, area, name) for kind, area in (("acceptance", "area"), ("bucket", "bucket_area")) for name in titles]
    tiles = [part for part in parts if part["row"] != ORIGINAL]
    network = next(part for part in parts if part["row"] == ORIGINAL)

    def draw(figure, axes):
        from matplotlib import colormaps

        colours = colormaps["viridis"]([index / max(1, len(tiles) - 1) * 0.92 for index in range(len(tiles))])
        for axis, (kind, area, name) in zip(axes, panels):
            for part, colour in zip(tiles, colours):
                label = f"{part['row'].split()[0]} {part['own'][area][name]:.3f}"
                axis.plot(part["own"]["quantile"], part["own"][kind][name], color=colour, label=label, linewidth=1.0)
            label = f"network {network['own'][area][name]:.3f}"
            axis.plot(network["own"]["quantile"], network["own"][kind][name], "k--", label=label, linewidth=1.4)
            axis.set_xlabel("share accepted, most certain first" if kind == "acceptance" else "quantile of uncertainty")
            axis.set_ylabel(titles[name])
            axis.set_title(kind)
            axis.legend(fontsize=5.5, ncols=1 + len(tiles) // 8)

    return style.panels(draw, len(panels), columns=3, height=2.7, width=3.4)


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    title = f"{found['settings']['name']}: an ensemble out of one network's positions"
    page.write(found, out, title, opening(found), tables(found), figures(found), CONVENTIONS, smoke=found["settings"].get("smoke", False))
