"""How every figure looks: colours per row and per set, type sizes, and saving. matplotlib is imported inside functions only."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

# Okabe-Ito, told apart with colour-blind eyes; fixed colours for the rows every report has
STUDENT_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7B4FA3", "#5B8C00")
GROUP_COLOURS = {"ensemble": "#111111", "single": "#8A8A8A", "proxy": "#8C6D1F"}
GROUP_LINES = {"ensemble": "-", "single": (0, (1, 1)), "proxy": (0, (4, 1.5)), "baseline": (0, (3, 1, 1, 1)), "student": "-"}
TEST_COLOUR = "#5F7F9F"
OUT_COLOURS = ("#C8443C", "#E39A2D", "#7B4FA3", "#2E8B57", "#B05A9C")
UNCERTAINTY_MAP = "magma"

_RC = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "edd",  # equal inputs give equal files
}


def colours(rows: Sequence) -> dict[str, str]:
    """Row name -> colour, the same in every figure of one report: by group, baselines and students in order of appearance."""
    students = [name for name in dict.fromkeys(row.name for row in rows if row.group not in GROUP_COLOURS)]
    chosen = {name: STUDENT_COLOURS[index % len(STUDENT_COLOURS)] for index, name in enumerate(students)}
    return {row.name: GROUP_COLOURS.get(row.group) or chosen[row.name] for row in rows}


def line_style(row) -> dict:
    """Line width, dashes and order of a row: the ensemble on top and thickest."""
    wide = row.group == "ensemble"
    return {"linestyle": GROUP_LINES.get(row.group, "-"), "linewidth": 2.4 if wide else 1.7, "zorder": 5 if wide else 3}


def panels(draw: Callable, num_panels: int, *, columns: int = 4, width: float = 2.9, height: float = 2.9, **subplots):
    """A figure of `num_panels` axes in a grid; `draw(figure, axes [num_panels])` fills it. Returns the figure."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, num_panels)
    lines = -(-num_panels // columns)
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(max(width * columns, 4.7), height * lines + 0.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(lines, columns, squeeze=False, **subplots).ravel()
        for spare in axes[num_panels:]:
            spare.remove()
        draw(figure, axes[:num_panels])
    return figure


def save(figure, folder: Path, name: str) -> list[Path]:
    """Writes `name`.png (150 dpi) and `name`.svg into `folder`; returns the paths."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    with matplotlib.rc_context(_RC):
        figure.savefig(paths[0], dpi=150)
        figure.set_layout_engine("none")  # laid out once, not again for the second file
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def thin(x: np.ndarray, y: np.ndarray, most: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points of a curve, first and last kept: more cannot be seen and makes the SVG heavy."""
    if len(x) <= most:
        return x, y
    index = np.unique(np.linspace(0, len(x) - 1, most).round().astype(int))
    return x[index], y[index]
