"""Batches as a pure function of (seed, step): shuffled, sharded by slices, exactly resumable, the same with or without Grain.

The order of an epoch comes from Philox, a counter-based generator, keyed by (seed, replica, epoch); its raw output is fixed
across numpy versions. A batch therefore needs no history: resuming at step s means asking for step s.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

PyTree = Any
RESERVED = ("index", "position")
ENDLESS = 2**31 - 1  # more steps than any run takes; Grain wants a length


class Batches:
    """Random access to shuffled training batches of `num_replicas` replicas, each in its own order; incomplete batches are dropped.

    Replica r meets every example at most once per epoch, in a permutation that depends on (seed, r, epoch) alone. A gather
    costs one copy of the rows asked for; the permutations of the newest epochs are kept (4 bytes per example and replica).

    Args:
      arrays: dict of arrays (or pytrees of arrays, memory-mapped ones included), example axis first, all with N examples; "mask" [N]
        are the examples' weights in the loss.
      batch_size: examples per batch and replica over all processes, in [1, N].
      seed: integer >= 0 that names the orders.
      num_replicas: R >= 1.
      shuffle: False visits the examples in their own order in every epoch.
      subsets: [R, n] indices of the examples that each replica meets; None: all of them. An epoch then has n examples.

    Raises:
      ValueError: arrays of different lengths, a reserved name ("index", "position"), batch_size outside [1, n], subsets of
        another shape or with indices outside [0, N).

    Examples:
      >>> batches = Batches({"inputs": np.arange(10.0)}, batch_size=4, seed=0, num_replicas=2)
      >>> batches.steps_per_epoch
      2
      >>> batch = batches.batch(5, replicas=slice(1, 2))
      >>> batch["inputs"].shape, batch["position"].tolist()
      ((1, 4), [[0, 1, 2, 3]])
    """

    def __init__(
        self,
        arrays: Mapping[str, PyTree],
        *,
        batch_size: int,
        seed: int,
        num_replicas: int = 1,
        shuffle: bool = True,
        subsets: np.ndarray | None = None,
    ):
        self.arrays = dict(arrays)
        self.subsets = None if subsets is None else _subsets(subsets, num_replicas, _num_examples(self.arrays))
        self.num_examples = _num_examples(self.arrays) if subsets is None else self.subsets.shape[1]
        if not 1 <= batch_size <= self.num_examples:
            raise ValueError(f"batch_size must lie in [1, {self.num_examples}], the number of examples, got {batch_size}")
        if num_replicas < 1:
            raise ValueError(f"num_replicas must be at least 1, got {num_replicas}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        self.batch_size, self.seed, self.num_replicas, self.shuffle = batch_size, seed, num_replicas, shuffle
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the examples."""
        return self.num_examples // self.batch_size

    def order(self, replica: int, epoch: int) -> np.ndarray:
        """The permutation [N] int32 in which `replica` meets the examples (or those of its subset) in `epoch`; a pure function."""
        if not self.shuffle:
            return np.arange(self.num_examples, dtype=np.int32) if self.subsets is None else self.subsets[replica]
        known = self._orders.get((replica, epoch))
        if known is None:
            known = permutation(self.num_examples, self.seed, replica, epoch)
            known = known if self.subsets is None else self.subsets[replica][known]
            while len(self._orders) >= 2 * self.num_replicas:  # prefetching threads may straddle two epochs
                self._orders.pop(next(iter(self._orders)), None)
            self._orders[replica, epoch] = known
        return known

    def batch(self, step: int, replicas: slice = slice(None), examples: slice = slice(None)) -> dict[str, PyTree]:
        """The batch of `step`, or the block of it that `replicas` and `examples` select.

        Args:
          step: optimisation step, counted from 0 over all epochs.
          replicas: rows of the replica axis wanted here.
          examples: positions in the batch wanted here; the slices of all processes assemble to the whole.

        Returns:
          Every array gathered to [R, B, ...] in its own dtype, "index" [R, B] int32 (which example) and "position" [R, B]
          int32 (place in the whole batch; randomness per example is keyed by it).
        """
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}")
        epoch, within = divmod(int(step), self.steps_per_epoch)
        positions = np.arange(self.batch_size, dtype=np.int32)[examples]
        chosen = range(self.num_replicas)[replicas]
        index = np.empty((len(chosen), len(positions)), np.int32)
        for row, replica in enumerate(chosen):
            index[row] = self.order(replica, epoch)[within * self.batch_size + positions]
        gathered = jax.tree.map(lambda array: np.asarray(array[index]), self.arrays)
        return {**gathered, "index": index, "position": np.broadcast_to(positions, index.shape)}


def permutation(num_examples: int, *entropy: int) -> np.ndarray:
    """A permutation [N] int32 fixed by the integers `entropy`: the stable sorting order of Philox's raw 64-bit output.

    Examples:
      >>> sorted(permutation(5, 0, 1).tolist()) == [0, 1, 2, 3, 4]
      True
    """
    return np.argsort(np.random.Philox(np.random.SeedSequence(entropy)).random_raw(num_examples), kind="stable").astype(np.int32)


class BatchIterator(Iterator):
    """Yields the batches of consecutive steps; `get_state` and `set_state` save and restore the next step."""

    def __init__(self, make, start_step: int, stop_step: int):
        self._make, self._stop, self._step = make, stop_step, start_step
        self._source = make(start_step, stop_step)

    def __next__(self) -> dict[str, PyTree]:
        batch = next(self._source)
        self._step += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """{"step": the step of the next batch}."""
        return {"step": self._step}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Continues at `state["step"]`, whatever has been prefetched."""
        step = int(state["step"])
        if not 0 <= step <= self._stop:
            raise ValueError(f'state["step"] must lie in [0, {self._stop}], got {step}')
        self._step, self._source = step, self._make(step, self._stop)


def iterate(
    batches: Batches,
    *,
    start_step: int = 0,
    num_steps: int | None = None,
    replicas: slice = slice(None),
    examples: slice = slice(None),
    backend: str = "auto",
    prefetch: int = 2,
) -> BatchIterator:
    """Iterates over the batches of steps start_step, start_step + 1, ..., the same with either backend.

    Args:
      batches: random access to the batches.
      start_step: first step, >= 0; resuming is starting at the step that was next.
      num_steps: steps to yield; None does not end.
      replicas, examples: the block of each batch wanted by this process.
      backend: "grain" gathers ahead in threads, "numpy" gathers when asked, "auto" takes Grain where it is installed.
      prefetch: batches that Grain keeps ready, >= 1.

    Returns:
      A `BatchIterator` over dicts as from `Batches.batch`.

    Raises:
      ValueError: negative steps, prefetch below 1, an unknown backend; ImportError: "grain" where it is not installed.

    Examples:
      >>> batches = Batches({"inputs": np.arange(6)}, batch_size=2, seed=3)
      >>> whole = [b["inputs"].tolist() for b in iterate(batches, num_steps=4, backend="numpy")]
      >>> rest = [b["inputs"].tolist() for b in iterate(batches, start_step=2, num_steps=2, backend="numpy")]
      >>> rest == whole[2:]
      True
    """
    if backend not in ("auto", "grain", "numpy"):
        raise ValueError(f'backend must be "auto", "grain" or "numpy", got {backend!r}')
    if start_step < 0 or (num_steps is not None and num_steps < 0):
        raise ValueError(f"start_step and num_steps must be at least 0, got {start_step} and {num_steps}")
    if prefetch < 1:
        raise ValueError(f"prefetch must be at least 1, got {prefetch}")
    if backend == "auto":
        backend = "grain" if importlib.util.find_spec("grain") else "numpy"
    stop = ENDLESS if num_steps is None else start_step + num_steps

    def gather(step):
        return batches.batch(int(step), replicas, examples)

    def with_numpy(start, stop):
        return map(gather, range(start, stop))

    def with_grain(start, stop):
        import grain

        options = grain.ReadOptions(num_threads=min(prefetch, 4), prefetch_buffer_size=prefetch)
        return iter(grain.MapDataset.range(start, stop).map(gather).to_iter_dataset(options))

    return BatchIterator(with_grain if backend == "grain" else with_numpy, start_step, stop)


def evaluation_batches(arrays: Mapping[str, PyTree], batch_size: int, examples: slice = slice(None)) -> Iterator[dict[str, PyTree]]:
    """All examples once, in order, in batches of one size: the last one is padded and masked.

    Args:
      arrays: dict of arrays or pytrees of arrays, example axis first, all with N >= 1 examples.
      batch_size: B >= 1; may exceed N.
      examples: positions of each batch wanted by this process.

    Returns:
      Iterator over dicts with every array as [B, ...], "mask" [B] float32 (1 for an example, 0 for padding) and "index" [B]
      int32. Padding repeats the last example, so that it is valid input.

    Raises:
      ValueError: arrays of different lengths or empty, a reserved name, batch_size below 1.

    Examples:
      >>> [(b["x"].tolist(), b["mask"].tolist()) for b in evaluation_batches({"x": np.arange(3)}, 2)]
      [([0, 1], [1.0, 1.0]), ([2, 2], [1.0, 0.0])]
    """
    arrays = dict(arrays)
    num_examples = _num_examples(arrays, (*RESERVED, "mask"))
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return _padded(arrays, num_examples, batch_size, examples)


def _padded(arrays, num_examples: int, batch_size: int, examples: slice):
    for start in range(0, num_examples, batch_size):
        wanted = np.arange(start, start + batch_size)[examples]
        index = np.minimum(wanted, num_examples - 1).astype(np.int32)
        gathered = jax.tree.map(lambda array, index=index: np.asarray(array[index]), arrays)
        yield {**gathered, "mask": (wanted < num_examples).astype(np.float32), "index": index}


def _subsets(subsets, num_replicas: int, num_examples: int) -> np.ndarray:
    subsets = np.asarray(subsets)
    if subsets.ndim != 2 or subsets.shape[0] != num_replicas or not np.issubdtype(subsets.dtype, np.integer) or not subsets.size:
        raise ValueError(f"subsets must be integers [R, n] with R = {num_replicas}, got {subsets.dtype} {subsets.shape}")
    if subsets.min() < 0 or subsets.max() >= num_examples:
        raise ValueError(f"subsets must be indices in [0, {num_examples}), got {subsets.min()} to {subsets.max()}")
    return subsets.astype(np.int32)


def _num_examples(arrays: Mapping[str, PyTree], reserved: tuple[str, ...] = RESERVED) -> int:
    taken = sorted(set(reserved) & set(arrays))
    if taken:
        raise ValueError(f"arrays must not use the reserved names {', '.join(reserved)}, got {', '.join(taken)}")
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)}
    lengths = {name: (leaf.shape[0] if getattr(leaf, "ndim", 0) else None) for name, leaf in leaves.items()}
    if not lengths or None in lengths.values() or len(set(lengths.values())) != 1:
        raise ValueError(f"arrays must all have the same number of examples on axis 0, got {lengths}")
    count = next(iter(lengths.values()))
    if count < 1:
        raise ValueError("arrays must hold at least one example, got none")
    return count
