"""The report of the collapse diagnostic: what sub-ensembles and widths leave of the knowledge uncertainty, and a verdict in words."""

import pathlib

import numpy as np

from edd.experiments import page, style
from edd.experiments.tables import Cell, Table, number

SCHEMA = "edd.collapse_diagnostic/1"
ON_THE_LAW = 0.1  # relative distance from the law that still counts as on it
ZERO = 1e-12  # nats: what rounding makes of members that are the same
CONVENTIONS = {
    "knowledge uncertainty": "mutual information of label and member in nats, mean over the examples of a set",
    "between": "mutual information of label and sub-ensemble: what is left when each sub-ensemble counts as one averaged prediction",
    "share": "between over the knowledge uncertainty of all members",
    "law": "(G - 1) / (G M - 1) for G sub-ensembles of M members: what exchangeable members that differ little leave",
    "as given": "members grouped in the order of the file; random orders: mean and standard deviation over them",
    "residual": "largest |total - between - within| of any example, in nats: the chain rule is exact, this is rounding",
    "verdict": f"on the law: within {100 * ON_THE_LAW:.0f} % of it at every size, by the random orders where there are any, give or "
    "take two of their standard errors",
}


def finish(out: pathlib.Path, parts: list[dict], settings: dict, run: dict) -> dict:
    """Writes results.json, report.md, report.html and figures/; returns the results."""
    found = {"schema": SCHEMA, "settings": settings, "run": run, "parts": parts}
    write(found, out)
    return found


def merge(runs: list[dict]) -> dict:
    """One results dict from diagnostics of other ensembles or sets; errors as `page.merge`."""
    merged = page.merge(runs, SCHEMA, lambda part: (part["ensemble"], part["set"]), ("ensembles",))
    return merged | {"settings": {**merged["settings"], "ensembles": {name: list(parts) for name, parts in by_ensemble(merged).items()}}}


def by_ensemble(found: dict) -> dict[str, dict[str, dict]]:
    """ensemble -> set -> part; ensembles in ascending order where all their names are numbers."""
    table: dict = {}
    for part in found["parts"]:
        table.setdefault(part["ensemble"], {})[part["set"]] = part
    widths = as_numbers(list(table))
    return table if widths is None else dict(sorted(table.items(), key=lambda item: float(item[0])))


def as_numbers(names: list[str]) -> list[float] | None:
    """The names as numbers, or None if one is not a finite one.

    Examples:
      >>> as_numbers(["1", "0.5"]), as_numbers(["1", "wide"])
      ([1.0, 0.5], None)
    """
    try:
        values = [float(name) for name in names]
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def share(part: dict, partition: dict) -> float:
    """Between over total: by the random orders where there are any, else as given."""
    return float(np.mean(partition["random"] or [partition["between"]])) / part["total"]


def chance(part: dict, partition: dict) -> float:
    """Standard error of the share over random orders, relative to the law; 0 where there are fewer than two."""
    random = partition["random"]
    return float(np.std(random, ddof=1) / np.sqrt(len(random)) / part["total"] / partition["law"]) if len(random) > 1 else 0.0


# --- words ------------------------------------------------------------------------------------------------------------


def verdict(part: dict) -> str:
    """What one ensemble's sub-ensembles say, in a sentence or two."""
    where = f"**{part['ensemble']}**, {part['set']} ({part['members']} members)"
    if part["total"] <= ZERO:
        return f"{where}: disagreement is zero. All members predict the same; there is nothing that could collapse."
    told = f"{where}: mean knowledge uncertainty {part['total']:.4g} nats. "
    divided = [each for each in part["partitions"] if each["size"] > 1]
    if not divided:
        return told + f"{part['members']} is prime: there are no equal sub-ensembles, and the law cannot be tested."
    excess = {each["size"]: share(part, each) / each["law"] - 1 for each in divided}
    beyond = {each["size"]: abs(excess[each["size"]]) - ON_THE_LAW - 2 * chance(part, each) for each in divided}
    on_the_law = max(beyond.values()) <= 0
    size = max(excess, key=lambda each: abs(excess[each])) if on_the_law else max(beyond, key=beyond.get)
    at = next(each for each in divided if each["size"] == size)
    numbers = f"groups of {size} keep {100 * share(part, at):.3g} % of it (law {100 * at['law']:.3g} %)"
    if on_the_law:
        told += f"It collapses as the law says: {numbers}, at no size further from the law than {100 * abs(excess[size]):.2g} %"
        told += " (within the scatter of the random orders)." if abs(excess[size]) > ON_THE_LAW else "."
    elif excess[size] > 0:
        told += f"It collapses, but less than the law: {numbers}, {100 * excess[size]:.2g} % above it. Its members are far apart."
    else:
        told += f"It collapses faster than the law: {numbers}, {-100 * excess[size]:.2g} % below it. Its groups are more alike "
        told += "than chance would make them: members of one group complement one another."
    return told + _order(part, divided)


def _order(part: dict, divided: list[dict]) -> str:
    """A sentence where the given order lies far outside the random ones (three standard deviations and 5 %), else nothing."""
    far = {}
    for each in divided:
        if len(each["random"]) >= 3:
            mean, spread = np.mean(each["random"]), np.std(each["random"], ddof=1)
            if abs(each["between"] - mean) > max(3 * spread, 0.05 * mean):
                far[each["size"]] = each["between"] / mean - 1
    if not far:
        return ""
    size = max(far, key=lambda each: abs(far[each]))
    more = "more" if far[size] > 0 else "less"
    return (
        f" The order of the members matters: as given, groups of {size} keep {100 * abs(far[size]):.2g} % {more} than in random orders, "
        "so the members are not exchangeable."
    )


def width_verdict(found: dict, label: str) -> str | None:
    """How the knowledge uncertainty on one set changes from ensemble to ensemble, or None where fewer than two have it."""
    known = {name: sets[label] for name, sets in by_ensemble(found).items() if label in sets}
    if len(known) < 2:
        return None
    names, totals = list(known), [part["total"] for part in known.values()]
    told = f"Across ensembles, {label}: " + ", ".join(f"{name} {total:.4g}" for name, total in zip(names, totals)) + " nats. "
    rises = [f"{names[i]} to {names[i + 1]}" for i in range(len(names) - 1) if not totals[i + 1] < totals[i]]
    if totals[-1] < totals[0]:
        told += f"Knowledge uncertainty falls from {names[0]} to {names[-1]}, to {100 * totals[-1] / totals[0]:.3g} %, "
        told += f"not at every step ({', '.join(rises)})." if rises else "at every step."
    else:
        told += f"Knowledge uncertainty does not fall from {names[0]} to {names[-1]}: no collapse with this order of the ensembles."
    sizes = {part["members"] for part in known.values()}
    return told + (f" They have different numbers of members ({', '.join(map(str, sorted(sizes)))}): compare with care." * (len(sizes) > 1))


def opening(found: dict) -> list[str]:
    """A verdict for each ensemble and set, then across ensembles."""
    parts = [part for sets in by_ensemble(found).values() for part in sets.values()]
    across = [width_verdict(found, label) for label in dict.fromkeys(part["set"] for part in parts)]
    return [verdict(part) for part in parts] + [told for told in across if told]


# --- tables and figures -----------------------------------------------------------------------------------------------


def tables(found: dict) -> list[Table]:
    """One line for each ensemble and set, then one for each size of its sub-ensembles."""
    parts = [part for sets in by_ensemble(found).values() for part in sets.values()]
    columns = ["ensemble", "set", "members", "examples", "classes", "nats", "standard error"]
    lines = [
        [Cell(part["ensemble"]), Cell(part["set"]), *(Cell(f"{part[each]:,}") for each in columns[2:5])]
        + [Cell(number(part[each], 1, 5)) for each in ("total", "standard_error")]
        for part in parts
    ]
    made = [Table("Knowledge uncertainty of the whole ensembles", columns, [""] * 7, lines, 2)]
    columns = ["ensemble", "set", "groups x size", "nats, as given", "within", "share %", "random orders %", "law %", "residual"]
    lines = [
        [Cell(part["ensemble"]), Cell(part["set"]), Cell(f"{each['groups']} x {each['size']}"), *_cells(part, each)]
        for part in parts
        for each in part["partitions"]
    ]
    return [*made, Table("Between sub-ensembles", columns, [""] * len(columns), lines, 3)]


def _cells(part: dict, each: dict) -> list[Cell]:
    scale = None if part["total"] <= ZERO else 100 / part["total"]
    given = None if scale is None else each["between"] * scale
    random = "–"
    if scale is not None and each["random"]:
        random = number(np.mean(each["random"]) * scale, 1, 2)
        random += f" ± {number(np.std(each['random'], ddof=1) * scale, 1, 2, tiny=False)}" if len(each["random"]) > 1 else ""
    numbers = [number(each["between"], 1, 5), number(each["within"], 1, 5), number(given, 1, 2), random, number(each["law"], 100, 2)]
    return [Cell(text) for text in [*numbers, f"{each['residual']:.1e}"]]


def size_figure(found: dict):
    """What is left against the size of the sub-ensembles, a panel for each set; dashed: the law. None where all members agree."""
    table = by_ensemble(found)
    labels = list(dict.fromkeys(part["set"] for sets in table.values() for part in sets.values() if part["total"] > ZERO))
    if not labels:
        return None

    def draw(figure, axes):
        for axis, label in zip(axes, labels):
            for index, (name, sets) in enumerate(table.items()):
                if label in sets and sets[label]["total"] > ZERO:
                    _line(axis, sets[label], style.STUDENT_COLOURS[index % len(style.STUDENT_COLOURS)], name)
            axis.set(title=label, xlabel="members per sub-ensemble", xscale="log", yscale="log")
            sizes = sorted({each["size"] for sets in table.values() if label in sets for each in sets[label]["partitions"]})
            axis.set_xticks(sizes, labels=list(map(str, sizes)))
            axis.minorticks_off()
        axes[0].set_ylabel("mean knowledge uncertainty, nats")
        axes[0].legend()

    return style.panels(draw, len(labels), columns=3, height=3.2, width=3.6)


def _line(axis, part: dict, colour: str, name: str) -> None:
    sizes = [each["size"] for each in part["partitions"]]
    axis.plot(sizes, [share(part, each) * part["total"] for each in part["partitions"]], "o-", color=colour, markersize=4, label=name)
    axis.plot(sizes, [each["law"] * part["total"] for each in part["partitions"]], "--", color=colour, linewidth=1.2, label="law")


def width_figure(found: dict):
    """Mean knowledge uncertainty of the whole ensembles, a line for each set; None for one ensemble."""
    table = by_ensemble(found)
    if len(table) < 2:
        return None
    widths = as_numbers(list(table))
    places = dict(zip(table, widths if widths is not None else range(len(table))))

    def draw(figure, axes):
        for index, label in enumerate(dict.fromkeys(part["set"] for sets in table.values() for part in sets.values())):
            known = [(places[name], sets[label]["total"], sets[label]["standard_error"]) for name, sets in table.items() if label in sets]
            x, y, errors = np.array(known, float).T
            colour = style.STUDENT_COLOURS[index % len(style.STUDENT_COLOURS)]
            axes[0].errorbar(x, y, yerr=errors, color=colour, marker="o", markersize=4, capsize=2, label=label)
        if widths is not None and min(widths) > 0:
            axes[0].set_xscale("log")
        axes[0].set_xticks(list(places.values()), labels=list(places))
        axes[0].minorticks_off()
        axes[0].set_ylim(bottom=0)
        axes[0].set_xlabel("ensemble")
        axes[0].set_ylabel("mean knowledge uncertainty, nats")
        axes[0].legend()

    return style.panels(draw, 1, columns=1, height=3.4, width=5.5)


def write(found: dict, out: pathlib.Path) -> None:
    """results.json, report.md, report.html and figures/: complete, or the old files stay."""
    figures = {
        "sizes": (size_figure(found), "What is left between sub-ensembles of each size; dashed: the collapse law."),
        "ensembles": (width_figure(found), "Mean knowledge uncertainty of each whole ensemble; bars: one standard error over examples."),
    }
    title = f"{found['settings']['name']}: knowledge uncertainty of sub-ensembles"
    page.write(found, out, title, opening(found), tables(found), figures, CONVENTIONS)
