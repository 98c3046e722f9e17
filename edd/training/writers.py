"""Where a run's numbers go: `metrics.jsonl`, one line per record, and TensorBoard event files."""

import json
import math
import os
import pathlib
from collections.abc import Mapping

import numpy as np

MAX_CURVES = 32  # replicas with a TensorBoard curve of their own


class Writer:
    """Appends records to `directory/metrics.jsonl` and to TensorBoard event files in the same directory.

    On resume the file is cut back to the records of steps <= `resume_step`, so that no step appears twice; half a line left by
    a killed process goes too.

    Args:
      directory: made if missing.
      resume_step: steps the restored state has done (0 starts afresh); None keeps every record. `loop.train` calls `resume` itself.
      tensorboard: also write event files (needs tensorboardX).
    """

    def __init__(self, directory, *, resume_step: int | None = None, tensorboard: bool = True):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path = self.directory / "metrics.jsonl"
        self._tensorboard, self._events, self._file, self._purge = tensorboard, None, None, None
        self.resume(resume_step)

    def resume(self, step: int | None) -> None:
        """Drops the records after `step` and continues from there; atomic."""
        self.close()
        self._purge = None if step is None else step + 1
        kept = [line for line in read_lines(self.path) if step is None or line["step"] <= step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(temporary, self.path)

    def write(self, step: int, values: Mapping[str, float | list]) -> None:
        """One record; a value is a number or one number per replica. What is not finite becomes null in the file."""
        if self._file is None:
            self._open_files()
        self._file.write(json.dumps({"step": int(step), **{name: _plain(value) for name, value in values.items()}}) + "\n")
        if self._events is None:
            return
        for name, value in values.items():
            array = np.asarray(value, np.float64)
            finite = array[np.isfinite(array)]
            if finite.size:
                self._events.add_scalar(name, float(finite.mean()), step)
            if array.ndim == 1 and 1 < array.size <= MAX_CURVES:
                for replica in np.flatnonzero(np.isfinite(array)):
                    self._events.add_scalar(f"{name}/{replica}", float(array[replica]), step)

    def close(self) -> None:
        """Flushes and closes."""
        for handle in (self._file, self._events):
            if handle is not None:
                handle.close()
        self._file = self._events = None

    def _open_files(self) -> None:
        self._file = self.path.open("a", buffering=1)
        if self._tensorboard:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(self.directory), purge_step=self._purge)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.close()


def read_lines(path) -> list[dict]:
    """The complete records of a metrics file, in order; [] if there is none. Stops at the first damaged line."""
    path, records = pathlib.Path(path), []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def _plain(value):
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    array = np.asarray(value)
    if array.ndim:
        return [_plain(item) for item in array]
    item = array.item()
    return item if not isinstance(item, float) or math.isfinite(item) else None
