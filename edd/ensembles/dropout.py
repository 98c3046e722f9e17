"""Monte-Carlo dropout: one trained network is an ensemble, a member is one mask of dropped units, the same at every input.

With a mask held fixed a member is a function, as a network of a deep ensemble is, so that everything that distils those distils these.
"""

import jax
import jax.numpy as jnp

from edd.ensembles.members import check_count
from edd.models.base import Model
from edd.typing import Key, PyTree

MASK = "mask"  # the collection that holds a member's key


def as_members(model: Model, variables: PyTree, key: Key, num_members: int) -> tuple[Model, PyTree]:
    """A model whose prediction drops units, and its stacked variables [M, ...]: the weights M times and a mask's key for each member.

    Args:
      model: a network with dropout.
      variables: its trained variables, of one network (no member axis).
      key: typed key; member m's mask depends on `fold_in(key, m)` alone.
      num_members: M >= 1.

    Returns:
      (model, variables) as `members.apply` takes them; prediction and training mode are the same.

    Raises:
      ValueError: `num_members` below 1, or a network with BatchNorm, whose training pass would see the statistics of the batch.

    References:
      Gal & Ghahramani 2016, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning".
    """
    check_count(num_members, "num_members")
    if set(variables) != {"params"}:
        raise ValueError(f"variables must hold params alone (a network with dropout and without BatchNorm), got {sorted(variables)}")
    masks = jax.vmap(lambda member: jax.random.key_data(jax.random.fold_in(key, member)))(jnp.arange(num_members))
    stacked = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (num_members, *jnp.shape(leaf))), variables)

    def apply(variables, x, *, train=False, rngs=None):
        del train, rngs
        data = variables[MASK]["key"]
        keys = jax.random.wrap_key_data(jnp.broadcast_to(data[None], (x.shape[0], *data.shape)))
        return model.apply({"params": variables["params"]}, x, train=True, rngs={"dropout": keys})

    return Model(model.init, apply, model.templates), {**stacked, MASK: {"key": masks}}
