"""Predictions on disk: one .npz per row, seed and set, so that a report can be drawn again without the networks."""

import io
import json
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from edd.distillers.base import Prediction
from edd.experiments.results import encode, write_atomically

FOLDER = "predictions"
FORMAT = 1


class Row(NamedTuple):
    """One network, ensemble or Dirichlet on every set: what the report compares.

    Attributes:
      name: rows of one name are pooled over seeds: "Single" (its members), "Ensemble", "Proxy Dirichlet", a baseline's or a student's name.
      seed: the student's seed, the member's index for "Single".
      predictions: set name -> Prediction of numpy arrays [N, K] and [N]. "test" is in-distribution and has labels, every other
        set is out-of-distribution. A field is None where the method has no such quantity.
      parameters: number of parameters, or None.
      milliseconds_per_1000: wall time of 1,000 predictions in milliseconds, or None.
      group: "single", "ensemble", "proxy" (the proxy Dirichlet itself), "baseline" (trained on labels, without the ensemble) or "student".
    """

    name: str
    seed: int
    predictions: dict[str, Prediction]
    parameters: int | None = None
    milliseconds_per_1000: float | None = None
    group: str = "student"


def as_numpy(prediction: Prediction) -> Prediction:
    """`prediction` with every field that is not None as a numpy array."""
    return Prediction(*(None if field is None else np.asarray(field) for field in prediction))


def _archive(arrays: dict, metadata: dict) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, metadata=np.array(json.dumps(encode(metadata))), **arrays)
    return buffer.getvalue()


def save_predictions(workdir: str | os.PathLike, row: Row) -> list[Path]:
    """Writes `row` under `workdir`/predictions/, one file per set, each atomically; returns the paths."""
    paths = []
    for name, prediction in row.predictions.items():
        metadata = {"format": FORMAT, "set": name, **{field: getattr(row, field) for field in Row._fields if field != "predictions"}}
        arrays = {field: array for field, array in as_numpy(prediction)._asdict().items() if array is not None}
        path = Path(workdir) / FOLDER / f"{quote(row.name, safe=' ')}.{row.seed}.{quote(name, safe=' ')}.npz"
        write_atomically(path, _archive(arrays, metadata))
        paths.append(path)
    return paths


def save_labels(workdir: str | os.PathLike, labels: np.ndarray) -> Path:
    """Writes the labels [N] of the "test" set beside the predictions."""
    path = Path(workdir) / FOLDER / "labels.npz"
    write_atomically(path, _archive({"labels": np.asarray(labels)}, {"format": FORMAT}))
    return path


def load_labels(workdir: str | os.PathLike) -> np.ndarray | None:
    """The labels that `save_labels` wrote, or None where there are none."""
    path = Path(workdir) / FOLDER / "labels.npz"
    if not path.is_file():
        return None
    with np.load(path) as archive:
        return archive["labels"]


def load_predictions(workdir: str | os.PathLike) -> list[Row]:
    """Every row under `workdir`/predictions/, ordered by group, name and seed; [] where there are none.

    Raises:
      ValueError: a file that is not a readable prediction archive; names the file.
    """
    rows: dict[tuple, Row] = {}
    for path in sorted((Path(workdir) / FOLDER).glob("*.*.*.npz")):
        try:
            with path.open("rb") as file, np.load(file) as archive:  # np.load leaks the file of a broken archive that it opened itself
                metadata = json.loads(str(archive["metadata"]))
                fields = {name: archive[name] for name in Prediction._fields if name in archive.files}
        except Exception as error:  # zipfile, zlib, json and numpy each raise their own
            raise ValueError(f"{path} is not a readable prediction file ({error}); delete it and evaluate the run again") from error
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path} has format {metadata.get('format')!r}, this version of edd reads {FORMAT}; evaluate the run again")
        key = (metadata["name"], metadata["seed"])
        if key not in rows:
            rows[key] = Row(predictions={}, **{field: metadata[field] for field in Row._fields if field != "predictions"})
        rows[key].predictions[metadata["set"]] = Prediction(**fields)
    order = {"single": 0, "ensemble": 1, "proxy": 2, "baseline": 3}
    return sorted(rows.values(), key=lambda row: (order.get(row.group, 4), row.name, row.seed))
