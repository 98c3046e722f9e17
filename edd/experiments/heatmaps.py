"""Total and knowledge uncertainty over a plane of 2-D inputs, as in figures 4 and 5 of the proxy-target paper."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edd.distillers.base import Prediction
from edd.experiments import style
from edd.experiments.predictions import FOLDER, as_numpy
from edd.experiments.results import write_atomically


class Grid(NamedTuple):
    """Predictions of several rows on a regular grid of 2-D inputs.

    Attributes:
      extent: (left, right, bottom, top) in the inputs' units: first and last grid point of each axis.
      shape: (rows, columns) of the grid; flattened row by row from the bottom.
      predictions: row name -> Prediction with fields [rows * columns, K] and [rows * columns].
      inputs: training or test points [N, 2] drawn on top, or None.
      labels: their classes [N], or None.
    """

    extent: tuple[float, float, float, float]
    shape: tuple[int, int]
    predictions: dict[str, Prediction]
    inputs: np.ndarray | None = None
    labels: np.ndarray | None = None


def grid_points(extent: tuple[float, float, float, float], shape: tuple[int, int]) -> np.ndarray:
    """The grid's inputs [rows * columns, 2], float32, in the order that `Grid` expects.

    Examples:
      >>> grid_points((0.0, 1.0, 0.0, 2.0), (2, 2)).tolist()
      [[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 2.0]]
    """
    x, y = np.meshgrid(np.linspace(*extent[:2], shape[1]), np.linspace(*extent[2:], shape[0]))
    return np.stack([x.ravel(), y.ravel()], -1).astype(np.float32)


_LINES = (("total", "total uncertainty H (nats)"), ("mutual_information", "knowledge uncertainty I (nats)"))


def heatmaps(grid: Grid):
    """One column per row of the report: total uncertainty above, knowledge uncertainty below; one colour scale per line."""
    lines = []
    for measure, title in _LINES:
        images = {name: _image(grid, name, measure) for name in grid.predictions}
        if any(image is not None for image in images.values()):
            lines.append((title, images))
    if not lines:
        return None
    names = list(grid.predictions)

    def draw(figure, axes):
        axes = np.asarray(axes).reshape(len(lines), len(names))
        for number, (title, images) in enumerate(lines, 1):
            _draw_line(figure, axes[number - 1], title, images, grid, points=number == len(lines))
        for axis, name in zip(axes[0], names):
            axis.set_title(name)

    return style.panels(draw, len(names) * len(lines), columns=len(names), width=2.35, height=2.1)


def _image(grid: Grid, name: str, measure: str) -> np.ndarray | None:
    values = getattr(grid.predictions[name], measure)
    return None if values is None else np.asarray(values, float).reshape(grid.shape)


def _draw_line(figure, axes, title, images, grid, points):
    finite = np.concatenate([image[np.isfinite(image)].ravel() for image in images.values() if image is not None])
    top = float(np.quantile(finite, 0.998)) if finite.size else 1.0
    drawn = None
    for axis, image in zip(axes, images.values()):
        axis.grid(False)
        axis.set(xticks=[], yticks=[])
        if image is None:
            axis.set_frame_on(False)
            axis.text(0.5, 0.5, "no such measure", ha="center", va="center", transform=axis.transAxes, color="#777777")
            continue
        drawn = axis.imshow(image, origin="lower", extent=grid.extent, cmap=style.UNCERTAINTY_MAP, vmin=0.0, vmax=max(top, 1e-12),
                            interpolation="nearest", aspect=_aspect(grid), rasterized=True)  # fmt: skip
        if points:
            _draw_points(axis, grid)
    figure.colorbar(drawn, ax=list(axes), label=title, shrink=0.9, pad=0.01, extend="max")


def _aspect(grid: Grid) -> str:
    """Equal units on both axes, unless that would make a ribbon of the picture."""
    left, right, bottom, top = grid.extent
    return "equal" if 0.5 < (right - left) / (top - bottom) < 2 else "auto"


def _draw_points(axis, grid, most: int = 600):
    if grid.inputs is None:
        return
    step = max(1, len(grid.inputs) // most)
    axis.scatter(*np.asarray(grid.inputs)[::step].T, s=1.0, color="#7FE3F0", alpha=0.45, linewidth=0, rasterized=True)
    axis.set(xlim=grid.extent[:2], ylim=grid.extent[2:])


def save_grid(workdir: str | os.PathLike, grid: Grid) -> Path:
    """Writes `grid` to `workdir`/predictions/grid.npz, atomically."""
    import io

    arrays = {"extent": np.array(grid.extent), "shape": np.array(grid.shape), "names": np.array(list(grid.predictions))}
    for index, prediction in enumerate(grid.predictions.values()):
        arrays |= {f"{index}.{field}": array for field, array in as_numpy(prediction)._asdict().items() if array is not None}
    arrays |= {name: np.asarray(array) for name, array in (("inputs", grid.inputs), ("labels", grid.labels)) if array is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    path = Path(workdir) / FOLDER / "grid.npz"
    write_atomically(path, buffer.getvalue())
    return path


def load_grid(workdir: str | os.PathLike, names: Sequence[str] | None = None) -> Grid | None:
    """The grid that `save_grid` wrote, or None where there is none."""
    path = Path(workdir) / FOLDER / "grid.npz"
    if not path.is_file():
        return None
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    predictions = {}
    for index, name in enumerate(arrays["names"].tolist()):
        predictions[name] = Prediction(
            **{field: arrays[f"{index}.{field}"] for field in Prediction._fields if f"{index}.{field}" in arrays}
        )
    if names is not None:
        predictions = {name: predictions[name] for name in names if name in predictions}
    extent, shape = tuple(arrays["extent"].tolist()), tuple(arrays["shape"].tolist())
    return Grid(extent, shape, predictions, arrays.get("inputs"), arrays.get("labels"))
