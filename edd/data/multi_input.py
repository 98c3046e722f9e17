"""Batches for networks that look at several examples at once (MIMO): which example stands at which input, a pure function of the step."""

import dataclasses

import jax
import numpy as np

from edd.data.pipeline import Batches, PyTree, permutation


@dataclasses.dataclass(frozen=True)
class MultiInput:
    """How a step's examples are laid out over a network's inputs.

    Attributes:
      num_inputs: M >= 1.
      batch_repetition: R >= 1, times that every example of a step stands at each input. A batch of B rows holds B / R examples, so an
        epoch has R times as many steps.
      input_repetition: fraction of rows whose M inputs are one and the same example, in [0, 1], rounded to whole rows.

    Raises:
      ValueError: an option out of range.

    References:
      Havasi et al. 2021, "Training Independent Subnetworks for Robust Prediction" (both repetitions; the order is that of its code).

    Examples:
      >>> rows = MultiInput(3, batch_repetition=2, input_repetition=0.5).rows(4, 0)
      >>> rows.shape, int((rows == rows[:, :1]).all(1).sum()) >= 4
      ((8, 3), True)
    """

    num_inputs: int
    batch_repetition: int = 1
    input_repetition: float = 0.0

    def __post_init__(self):
        for name in ("num_inputs", "batch_repetition"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if not 0.0 <= self.input_repetition <= 1.0:
            raise ValueError(f"input_repetition must lie in [0, 1], got {self.input_repetition}")

    def num_examples(self, batch_size: int) -> int:
        """Distinct examples in a batch of so many rows; ValueError unless `batch_repetition` divides it."""
        if batch_size % self.batch_repetition:
            raise ValueError(f"batch_size must be a multiple of batch_repetition {self.batch_repetition}, got {batch_size}")
        return batch_size // self.batch_repetition

    def rows(self, num_examples: int, *entropy: int) -> np.ndarray:
        """Which of a step's D examples stands at each input: [D * R, M] int32, fixed by the integers `entropy`.

        All examples R times in random order; the first (1 - rho) of these rows are shuffled anew for each input, the rest are shared.
        """
        size = num_examples * self.batch_repetition
        shared = np.tile(np.arange(num_examples, dtype=np.int32), self.batch_repetition)[permutation(size, *entropy, 1)]
        own = size - round(size * self.input_repetition)
        columns = [np.concatenate([shared[:own][permutation(own, *entropy, 2 + head)], shared[own:]]) for head in range(self.num_inputs)]
        return np.stack(columns, -1)


class MultiInputBatches:
    """`Batches` whose rows hold M examples each: every array is [R, B, M, ...], laid out by a `MultiInput`.

    Args:
      batches: the examples of each step, `layout.num_examples(B)` of them.
      layout: where they stand.

    Examples:
      >>> batches = Batches({"inputs": np.arange(10.0)}, batch_size=2, seed=0)
      >>> batch = MultiInputBatches(batches, MultiInput(3, batch_repetition=2)).batch(0)
      >>> batch["inputs"].shape, batch["position"].tolist()
      ((1, 4, 3), [[0, 1, 2, 3]])
    """

    def __init__(self, batches: Batches, layout: MultiInput):
        self.batches, self.layout, self.steps_per_epoch = batches, layout, batches.steps_per_epoch

    def batch(self, step: int, replicas: slice = slice(None), examples: slice = slice(None)) -> dict[str, PyTree]:
        """As `Batches.batch`, with "index" [R, B, M]; the layout is drawn for the whole batch whatever block is asked for."""
        whole = self.batches.batch(step, replicas)
        whole.pop("position")
        numbers = range(self.batches.num_replicas)[replicas]
        rows = np.stack([self.layout.rows(self.batches.batch_size, self.batches.seed, replica, step) for replica in numbers])
        positions = np.arange(rows.shape[1], dtype=np.int32)[examples]
        rows = rows[:, examples]
        replica = np.arange(len(numbers))[:, None, None]
        gathered = jax.tree.map(lambda array: array[replica, rows], whole)
        return {**gathered, "position": np.broadcast_to(positions, rows.shape[:2])}
