"""edd.math.tree: stack, unstack, take and size are each other's inverse and refuse what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.math import tree


def member(index):
    return {"dense": {"kernel": jnp.full((2, 3), float(index)), "bias": jnp.full(3, -float(index))}, "step": jnp.int32(index)}


def test_stack_then_unstack_is_the_identity():
    trees = [member(i) for i in range(4)]
    stacked = tree.stack(trees)
    assert tree.size(stacked) == 4 and stacked["dense"]["kernel"].shape == (4, 2, 3)
    for before, after in zip(trees, tree.unstack(stacked)):
        assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), before, after))


def test_take_by_integer_array_mask_and_slice():
    stacked = tree.stack([member(i) for i in range(4)])
    assert tree.take(stacked, 2)["step"] == 2 and tree.take(stacked, -1)["step"] == 3
    assert tree.take(stacked, [3, 0])["step"].tolist() == [3, 0]
    assert tree.take(stacked, np.array([True, False, True, False]))["step"].tolist() == [0, 2]
    assert tree.take(stacked, slice(1, 3))["step"].tolist() == [1, 2]
    assert tree.take(stacked, [])["step"].shape == (0,)
    assert jax.jit(tree.take)(stacked, jnp.int32(1))["step"] == 1


def test_typed_keys_are_leaves_like_others():
    keys = tree.stack([jax.random.key(i) for i in range(3)])
    assert keys.shape == (3,) and jax.random.key_data(tree.take(keys, 1)).tolist() == jax.random.key_data(jax.random.key(1)).tolist()


def test_errors():
    with pytest.raises(ValueError, match="at least one tree"):
        tree.stack([])
    with pytest.raises(ValueError, match=r"structure of the first.*trees\[1\]"):
        tree.stack([{"a": jnp.ones(2)}, {"b": jnp.ones(2)}])
    with pytest.raises(ValueError, match=r"\['a'\] must have one shape"):
        tree.stack([{"a": jnp.ones(2)}, {"a": jnp.ones(3)}])
    with pytest.raises(ValueError, match="at least one leaf"):
        tree.size({})
    with pytest.raises(ValueError, match="scalar"):
        tree.size({"a": jnp.ones(2), "b": 1.0})
    with pytest.raises(ValueError, match="same length"):
        tree.unstack({"a": jnp.ones(2), "b": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"lie in \[-2, 2\)"):
        tree.take(jnp.ones(2), 2)
    with pytest.raises(TypeError, match="indices must be integers"):
        tree.take(jnp.ones(2), 0.5)
    with pytest.raises(ValueError, match="boolean indices"):
        tree.take(jnp.ones(2), np.array([True]))
