"""Figures of a regression study, from its parts alone."""

import numpy as np

from edd.experiments import style

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def _colours(names) -> dict[str, str]:
    students = [name for name in dict.fromkeys(names) if name != "Teachers"]
    return {"Teachers": "#111111", **{name: style.STUDENT_COLOURS[i % len(style.STUDENT_COLOURS)] for i, name in enumerate(students)}}


def _first(parts: list[dict]) -> dict[str, dict]:
    """The first part of each set."""
    first: dict[str, dict] = {}
    for part in parts:
        first.setdefault(part["set"], part)
    return first


def calibration(parts: list[dict]):
    """Observed coverage of central intervals against their level, a panel for each set, mean over splits."""
    sets, rows = list(_first(parts)), list(dict.fromkeys(row for part in parts for row in part["curves"]))
    colours = _colours(rows)

    def draw(figure, axes):
        for axis, data in zip(axes, sets):
            axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
            for row in rows:
                curves = [part["curves"][row] for part in parts if part["set"] == data and row in part["curves"]]
                if curves:
                    axis.plot(LEVELS, np.mean(curves, 0), color=colours[row], label=row, linewidth=2.2 if row == "Teachers" else 1.3)
            axis.set_title(data)
            axis.set_xlabel("level of the interval")
        axes[0].set_ylabel("share of targets inside")
        axes[0].legend(loc="upper left")

    return style.panels(draw, len(sets), columns=3, height=2.9)


def intervals(parts: list[dict]):
    """Central 95 % intervals at some test points of each set's first split, in order of the target: teachers grey, one student."""
    chosen = {data: part for data, part in _first(parts).items() if len(part.get("intervals", {}).get("rows", {})) > 1}
    if not chosen:
        return None

    def draw(figure, axes):
        for axis, (data, part) in zip(axes, chosen.items()):
            rows, targets = part["intervals"]["rows"], part["intervals"]["targets"]
            student = next(row for row in rows if row != "Teachers")
            where = np.arange(len(targets))
            for row, colour, alpha in (("Teachers", "#777777", 0.35), (student, style.STUDENT_COLOURS[0], 0.3)):
                low, middle, high = np.array(rows[row]).T
                axis.fill_between(where, low, high, color=colour, alpha=alpha, linewidth=0, label=row)
                axis.plot(where, middle, color=colour, linewidth=1)
            axis.plot(where, targets, ".", color="black", markersize=3, label="target")
            axis.set_title(data)
            axis.set_xlabel("test points, by target")
        axes[0].legend(loc="upper left")

    return style.panels(draw, len(chosen), columns=3, height=2.9)


def latents(parts: list[dict]):
    """Posterior means of the teachers' latents on their two leading directions, with the one- and two-sigma circles of N(0, I)."""
    chosen = {data: part["latents"] for data, part in _first(parts).items() if part.get("latents")}
    if not chosen:
        return None

    def draw(figure, axes):
        angle = np.linspace(0, 2 * np.pi, 100)
        for axis, (data, points) in zip(axes, chosen.items()):
            for radius in (1, 2):
                axis.plot(radius * np.cos(angle), radius * np.sin(angle), color="#999999", linewidth=0.8, linestyle=":")
            for index, (row, values) in enumerate(points.items()):
                axis.scatter(*np.array(values).T, s=10, color=style.STUDENT_COLOURS[index % len(style.STUDENT_COLOURS)], label=row)
            axis.set_title(data)
            axis.set_aspect("equal")
        axes[0].legend(loc="upper left")

    return style.panels(draw, len(chosen), columns=3, height=2.9)


FIGURES = {
    "calibration": (
        calibration,
        "Observed coverage of intervals against their level, mean over splits; to match: the teachers' curve.",
    ),
    "intervals": (intervals, "Central 95 % intervals at test points of the first split, in order of their target; black: the target."),
    "latents": (latents, "The teachers in the student's latent space (its two leading directions); circles: N(0, I), one and two sigma."),
}
