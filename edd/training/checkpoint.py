"""Checkpoints: asynchronous, the last n and the best n are kept, the newest good one is restored (Orbax v1, wrapped here alone).

A checkpoint is the whole `TrainState`, the run's key and the step; with batches that are a pure function of the step that is
all a run needs to continue bit for bit. Every leaf's shape, dtype and CRC-32 are stored beside the arrays: a checkpoint of
another model is refused with the list of differing leaves, a truncated or corrupt one is skipped, loudly.
"""

import contextlib
import pathlib
import warnings
import zlib
from typing import NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from edd.training.state import TrainState
from edd.typing import Key, PyTree

MAX_LISTED = 12  # differing leaves named in an error


class Restored(NamedTuple):
    """What a checkpoint holds: steps done, the state and the run's key."""

    step: int
    state: TrainState
    key: Key


class CorruptCheckpointWarning(UserWarning):
    """A checkpoint could not be read; an older one is used."""


class Checkpointer:
    """Saves and restores training states in one directory; a context manager.

    Args:
      directory: made if missing. Leftovers of a save that was killed are removed.
      keep_last: newest checkpoints to keep, >= 1 (2 or more leave something to fall back on).
      keep_best: best checkpoints to keep by `best_metric`, >= 0.
      best_metric: key of the metrics given to `save`.
      mode: "min" | "max", which direction of `best_metric` is better.

    Raises:
      ValueError: a count or mode out of range. OSError: the directory cannot be made.
    """

    def __init__(self, directory, *, keep_last: int = 2, keep_best: int = 0, best_metric: str = "loss", mode: str = "min"):
        if keep_last < 1 or keep_best < 0:
            raise ValueError(f"keep_last must be at least 1 and keep_best at least 0, got {keep_last} and {keep_best}")
        if mode not in ("min", "max"):
            raise ValueError(f'mode must be "min" or "max", got {mode!r}')
        self.directory = pathlib.Path(directory).absolute()
        self.best_metric, self.mode = best_metric, mode
        self._scores: dict[int, float] = {}  # step -> higher is better; kept here because Orbax cannot open a damaged metrics file
        self._policy = _Keep(keep_last, keep_best, self._scores)
        self._manager = self._open()
        for step in self.steps:
            with contextlib.suppress(Exception):  # a damaged description is reported by restore
                self._remember(step, self._manager.metadata(step).custom_metadata["metrics"])

    def _open(self):
        return ocp.training.Checkpointer(
            self.directory,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=self._policy,
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.close()

    @property
    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        return [checkpoint.step for checkpoint in self._manager.checkpoints]

    def save(self, step: int, state: TrainState, key: Key, metrics: dict[str, float] | None = None) -> None:
        """Saves in the background what the arrays hold now; they may be donated as soon as this returns.

        Raises:
          OSError: this or the previous, asynchronous save failed (full disk, permissions); finished checkpoints are kept.
        """
        if step in self.steps:
            return
        tree = {"state": state, "key": key}
        if jax.default_backend() == "cpu":  # a host copy of a CPU buffer may be a view, which must outlive the donation
            tree = jax.tree.map(lambda leaf: leaf.copy(), tree)
        metrics = {name: float(value) for name, value in (metrics or {}).items() if np.isfinite(value)}
        description = {"leaves": describe(tree), "checksums": checksums(tree), "metrics": metrics}
        self._remember(step, metrics)
        self.wait()
        with _OSErrors(self, f"saving step {step}"):
            self._manager.save_async(step, tree, custom_metadata=description)

    def wait(self) -> None:
        """Blocks until the last save is on disk; raises OSError if it failed."""
        with _OSErrors(self, "the previous, asynchronous save"):
            self._manager.wait()

    def close(self) -> None:
        """Waits and closes."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def restore(self, like: TrainState, key: Key, step: int | None = None) -> Restored | None:
        """The newest checkpoint that can be read, on the shardings of `like`; None if there is no checkpoint.

        Args:
          like: a state of the same program (arrays or `state.abstract`).
          key: the run's key (its shape and kind).
          step: this checkpoint and no other.

        Raises:
          ValueError: checkpoint of another model or method: the message lists the leaves that are missing, unexpected or differ.
          OSError: there are checkpoints, but none can be read.
        """
        self._manager.wait()
        return self._restore(like, key, sorted(self.steps, reverse=True) if step is None else [step])

    def _restore(self, like: TrainState, key: Key, candidates: list[int]) -> Restored | None:
        abstract = jax.tree.map(_abstract, {"state": like, "key": key})
        failures = []
        for candidate in candidates:
            try:
                description = self._manager.metadata(candidate).custom_metadata or {}
                if "leaves" not in description:
                    raise ValueError("its description is damaged")
                wanted, found = describe(abstract), description["leaves"]
                if wanted == found:
                    tree = self._manager.load(candidate, abstract)
                    _verify(tree, description["checksums"])
            except Exception as error:  # Orbax and its storage raise many kinds
                failures.append(f"step {candidate}: {_words(error)}")
                warnings.warn(
                    f"checkpoint {self.directory / str(candidate)} cannot be read, trying an older one. {failures[-1]}",
                    CorruptCheckpointWarning,
                    stacklevel=3,
                )
                continue
            if wanted != found:
                raise ValueError(f"checkpoint {self.directory / str(candidate)} is of another model or method: {difference(wanted, found)}")
            return Restored(candidate, tree["state"], tree["key"])
        if failures:
            raise OSError(f"no readable checkpoint in {self.directory} (delete it to begin this stage again): {'; '.join(failures)}")
        return None

    def restore_best(self, like: TrainState, key: Key) -> Restored | None:
        """As `restore`, but the best by `best_metric` first; checkpoints without it come last, the newest first."""
        self._manager.wait()
        return self._restore(like, key, sorted(self.steps, key=lambda step: (self._scores.get(step, -np.inf), step), reverse=True))

    def discard_after(self, step: int) -> None:
        """Deletes checkpoints newer than `step` (those that could not be read), so that their steps can be saved again."""
        for newer in [known for known in self.steps if known > step]:
            self._manager.delete(newer)

    def _remember(self, step: int, metrics: dict[str, float]) -> None:
        if self.best_metric in metrics:
            self._scores[step] = metrics[self.best_metric] * (1.0 if self.mode == "max" else -1.0)


class _Keep:
    """Preservation policy: the last and the best."""

    def __init__(self, last: int, best: int, scores: dict[int, float]):
        self.last, self.best, self.scores = last, best, scores

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        ranked = sorted((step for step in steps if step in self.scores), key=lambda step: (self.scores[step], step))
        kept = set(sorted(steps)[-self.last :]) | set(ranked[len(ranked) - min(self.best, len(ranked)) :])
        return [step in kept for step in steps]


class _OSErrors:
    """Turns whatever the storage raised into one clear OSError and leaves the checkpointer usable."""

    def __init__(self, owner: Checkpointer, doing: str):
        self.owner, self.doing = owner, doing

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if not isinstance(error, Exception):
            return False
        self.owner._manager = self.owner._open()
        raise OSError(
            f"{self.doing} in {self.owner.directory} failed ({_words(error)}); checkpoints kept: {self.owner.steps}. Is the disk full?"
        ) from error


def describe(tree: PyTree) -> dict[str, str]:
    """Leaf path -> "dtype[shape]"; leaf paths without the container types, so that a NamedTuple equals a dict."""
    return {_name(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def difference(wanted: dict[str, str], found: dict[str, str]) -> str:
    """What differs between two descriptions, in words."""
    lines = [f"missing {name} ({wanted[name]})" for name in wanted if name not in found]
    lines += [f"unexpected {name} ({found[name]})" for name in found if name not in wanted]
    lines += [f"{name} is {found[name]}, expected {wanted[name]}" for name in wanted if name in found and wanted[name] != found[name]]
    more = f"; and {len(lines) - MAX_LISTED} more" if len(lines) > MAX_LISTED else ""
    return "; ".join(lines[:MAX_LISTED]) + more


def checksums(tree: PyTree) -> list[int] | None:
    """CRC-32 of every leaf's bytes; None where another process holds a part of the arrays."""
    leaves = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
    if not all(leaf.is_fully_addressable for leaf in leaves):
        return None
    return [zlib.crc32(np.ascontiguousarray(leaf).tobytes()) for leaf in leaves]


def _verify(tree: PyTree, expected: list[int] | None) -> None:
    found = checksums(tree)
    if expected is not None and found is not None and list(expected) != found:
        names = [name for name, old, new in zip(describe(tree), expected, found) if old != new]
        raise ValueError(f"checksum differs in {', '.join(names[:MAX_LISTED])}")


def _abstract(leaf) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _words(error: BaseException) -> str:
    """First line of the innermost cause: Orbax wraps the storage's own message."""
    while isinstance(error, BaseExceptionGroup) or error.__cause__ is not None:
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _is_key(leaf) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _name(path) -> str:
    return "/".join(str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry)))) for entry in path)
