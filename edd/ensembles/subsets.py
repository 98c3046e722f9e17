"""Which examples each member of an ensemble trains on: how much the members have in common sets how much they differ."""

import numpy as np


def overlapping(num_examples: int, num_members: int, *, fraction: float, common: float, seed: int) -> np.ndarray:
    """Indices [M, n] of the examples each member trains on: n = fraction N of them, of which the share `common` is the same for all.

    The rest is drawn without replacement for each member from the examples that are not common to all. Member m's examples do not
    depend on how many members there are.

    Args:
      num_examples: N >= 1.
      num_members: M >= 1.
      fraction: in (0, 1]; at 1 every member has every example.
      common: in [0, 1]; 1: all members have the same examples, 0: independent draws, which share `fraction` of their examples by chance.
      seed: >= 0, names the draw.

    Raises:
      ValueError: an argument out of range.

    Examples:
      >>> halves = overlapping(100, 3, fraction=0.5, common=0.8, seed=0)
      >>> halves.shape, len(set(halves[0]) & set(halves[1]) & set(halves[2])) >= 40
      ((3, 50), True)
    """
    if num_examples < 1 or num_members < 1 or seed < 0:
        raise ValueError(f"num_examples and num_members must be at least 1, seed at least 0, got {num_examples}, {num_members}, {seed}")
    if not 0 < fraction <= 1 or not 0 <= common <= 1:
        raise ValueError(f"fraction must lie in (0, 1] and common in [0, 1], got {fraction} and {common}")
    size = max(1, round(fraction * num_examples))
    order = np.random.default_rng([seed, 0]).permutation(num_examples)
    shared, others = np.split(order, [round(common * size)])
    own = [np.random.default_rng([seed, 1, member]).permutation(others)[: size - len(shared)] for member in range(num_members)]
    return np.stack([np.sort(np.concatenate([shared, each])) for each in own]).astype(np.int32)
