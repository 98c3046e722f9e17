"""Array types and the dimension letters used in every signature.

Letters: `M` ensemble members (axis 0), `*B` any number of example axes, `K` classes (last axis), `N` examples of a
data set, `d` penultimate features, `G` sub-ensembles of M members each, `R` replicas of one training program (members, or
students of several seeds).
Law of axes: `[M, *B, K] -> [*B]`; measures and losses never take an `axis` and never reduce over examples.
"""

from typing import Any

from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int
from jaxtyping import Key as KeyArray
from jaxtyping import PyTree as PyTreeOf

Key = KeyArray[Array, ""]
PyTree = Any

__all__ = ["Array", "ArrayLike", "Bool", "Float", "Int", "Key", "KeyArray", "PyTree", "PyTreeOf"]
