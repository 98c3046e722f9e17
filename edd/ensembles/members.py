"""The member axis: the only place that adds it.

Models, losses and the training step are written for one network. Here they become functions over a leading axis of
`M` members (or `R` seeds of a student): axis 0 of every leaf of the variables, axis 0 of every output.

Four ways to run them on one device, with the same results up to rounding:
`"vmap"` (one batched program: best for dense nets and accelerators), `"unroll"` (a loop written out at trace time: best for
convolutions on CPU, where a batched convolution becomes a slow grouped one; compile time grows with M), `"lockstep"` (vmap with
only the convolutions unrolled: half the compile time of "unroll", one collective for all members, a little slower) and `"scan"`
(`lax.map`: one copy of the code, for many members at bounded compile time and memory; very slow around convolutions on CPU).

Measured on two idle CPU cores (jax 0.10.2), medians of 11 interleaved runs: one Adam step of M members, wall time as a multiple of
the plain Python loop over jitted single-member steps (dense nets: 7 runs on busy cores). Compiling the CNNs takes "unroll" two to four
times as long as "lockstep" (8 s against 2 s for ten members).

| net, members x batch | loop | vmap | unroll | lockstep |
|---|---|---|---|---|
| MLP 64-64, 5 x 128 | 1.30 ms | 0.64 | 0.87 | as vmap |
| MLP 512-512, 5 x 128 | 25 ms | 1.03 | 0.91 | as vmap |
| CNN 28x28, 5 x 64 | 15 ms | 2.70 | 1.06 | 0.98 |
| CNN with BatchNorm, 5 x 64 | 19 ms | 2.63 | 0.89 | 0.92 |
| CNN with BatchNorm, 10 x 128 | 76 ms | - | 1.10 | 1.23 |
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from edd.ensembles.lockstep import lockstep
from edd.losses import chunked
from edd.models.base import Model, Outputs
from edd.typing import Array, Key, PyTree

STRATEGIES = ("auto", "vmap", "lockstep", "unroll", "scan")
CONVOLUTION_KERNEL_RANK = 4  # [*window, in, out] with at least two window axes


def init(model: Model, key: Key, num_members: int, example: Array) -> PyTree:
    """Stacked variables of `num_members` networks, axis 0 the member; member m is initialised with `fold_in(key, m)`.

    Args:
      model: the network.
      key: typed key.
      num_members: M >= 1.
      example: a batch of inputs [B, *S]; only its shape and dtype matter.

    Returns:
      The model's variables with a leading axis M on every leaf. M = 1 holds exactly the plain network's variables.

    Raises:
      ValueError: `num_members` below 1.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from edd.models.base import Model, Outputs
      >>> toy = Model(lambda key, x: {"params": {"w": jax.random.normal(key, (2, 3))}},
      ...             lambda v, x, *, train=False, rngs=None: (Outputs(x @ v["params"]["w"], x), {}), lambda v: None)
      >>> init(toy, jax.random.key(0), 5, jnp.ones((1, 2)))["params"]["w"].shape
      (5, 2, 3)
    """
    check_count(num_members, "num_members")
    return jax.vmap(lambda member: model.init(jax.random.fold_in(key, member), example))(jnp.arange(num_members))


def apply(model: Model, variables: PyTree, x: Array, *, strategy: str = "auto") -> Outputs:
    """Outputs [M, B, ...] of every member on the same inputs [B, *S], in evaluation mode.

    Cost: M forward passes.

    Args:
      model: the network.
      variables: stacked variables [M, ...].
      x: inputs [B, *S], shared by the members.
      strategy: "auto" | "vmap" | "unroll" | "scan".

    Raises:
      ValueError: no member (M = 0), leaves that disagree about M, or an unknown strategy.
    """
    count(variables, "variables")
    return map_members(lambda member: model.apply(member, x, train=False, rngs=None)[0], strategy, variables)(variables)


def targets(
    model: Model, variables: PyTree, x: PyTree, function: Callable, *, chunk_size: int | None = None, strategy: str = "auto"
) -> PyTree:
    """`function` of the members' logits [M, B, ...] on the same inputs, in evaluation mode; no gradient flows through it.

    With `chunk_size` = C the members of a sequence model give their last hidden states, and logits [M, B, C, V] are made of these and the
    members' templates for C time steps at once: [M, B, L, V] never exists. The result is the same up to rounding.

    Args:
      model: the network; with `chunk_size` its logits are penultimate activations times templates plus biases.
      variables: stacked variables [M, ...].
      x: inputs, shared by the members.
      function: logits [M, B, ...] -> pytree of [B, ...], a distiller's `targets`; with `chunk_size` it treats time steps alike.
      chunk_size: time steps at once, >= 1; None: all.
      strategy: as in `apply`.

    Raises:
      ValueError: as `apply`; `chunk_size` below 1, or of a model that is no sequence model.

    References:
      Ryabinin, Malinin & Gales 2021, appendix D (targets are computed on the fly).

    Examples:
      >>> from edd.losses import proxy
      >>> from edd.models import transformer
      >>> model = transformer.make(50, size="tiny", num_layers=1)
      >>> x = {"source": jnp.array([[5, 6, 2, 0]]), "target": jnp.array([[1, 7, 8]])}
      >>> variables = init(model, jax.random.key(0), 2, x)
      >>> found = targets(model, variables, x, lambda logits: proxy.proxy_target(jax.nn.log_softmax(logits)), chunk_size=1)
      >>> found.log_mean_probs.shape
      (1, 3, 50)
    """
    if chunk_size is None:
        return jax.lax.stop_gradient(function(apply(model, variables, x, strategy=strategy).logits))
    if model.decoding is None:
        raise ValueError(f"chunk_size must be None for a model that is no sequence model, got {chunk_size}")
    return chunked.member_targets(function, *output_layers(model, variables, x, strategy=strategy), chunk_size=chunk_size)


def output_layers(model: Model, variables: PyTree, x: PyTree, *, strategy: str = "auto") -> tuple[Array, Array, Array | None]:
    """(last hidden states [M, B, L, d], weights [M, V, d], biases [M, V] or None) that `edd.losses.chunked` makes members' logits of.

    Args:
      model: a sequence model.
      variables: stacked variables [M, ...].
      x: inputs, shared by the members.
      strategy: as in `apply`.

    Raises:
      ValueError: as `apply`.
    """
    count(variables, "variables")

    def one(member):
        return model.apply(member, x, train=False, rngs=None)[0].penultimate, *model.templates(member)

    return map_members(one, strategy, variables)(variables)


def map_members(fn: Callable, strategy: str = "auto", variables: PyTree = None) -> Callable:
    """`fn`, written for one member, as a function over a leading member axis of all its arguments and results.

    Args:
      fn: (*arrays or pytrees) -> pytree of arrays.
      strategy: "auto" | "vmap" | "unroll" | "scan".
      variables: what "auto" looks at (stacked; arrays or ShapeDtypeStructs): on CPU with convolution kernels it unrolls,
        otherwise it vmaps. None: vmap.

    Returns:
      The mapped function; every argument and every result has the member axis first.

    Raises:
      ValueError: unknown strategy.
    """
    strategy = choose_strategy(variables) if strategy == "auto" else strategy
    if strategy == "vmap":
        return jax.vmap(fn)
    if strategy == "lockstep":
        return lockstep(fn)
    if strategy == "scan":
        return lambda *args: jax.lax.map(lambda packed: fn(*packed), args)
    if strategy != "unroll":
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")

    def unrolled(*args):
        results = [fn(*jax.tree.map(lambda leaf, i=i: leaf[i], args)) for i in range(count(args, "arguments"))]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    return unrolled


def choose_strategy(variables: PyTree, backend: str | None = None, *, collectives: bool = False) -> str:
    """The measured choice for stacked `variables` on `backend` (default: JAX's).

    On CPU with convolution kernels "unroll", or "lockstep" where the program holds `collectives` (one all-reduce for all members
    instead of one each); otherwise "vmap".
    """
    backend = jax.default_backend() if backend is None else backend
    ranks = [getattr(leaf, "ndim", 0) - 1 for leaf in jax.tree.leaves(variables)]
    if backend != "cpu" or max(ranks, default=0) < CONVOLUTION_KERNEL_RANK:
        return "vmap"
    return "lockstep" if collectives else "unroll"


def take(variables: PyTree, indices: Sequence[int] | np.ndarray) -> PyTree:
    """The members with these indices, in this order: stacked [M, ...] -> [len(indices), ...].

    Raises:
      ValueError: no index, or one outside [0, M).
    """
    indices, total = np.asarray(indices, dtype=np.int64), count(variables, "variables")
    if indices.ndim != 1 or indices.size == 0:
        raise ValueError(f"indices must name at least one member in a flat list, got shape {indices.shape}")
    if indices.min() < 0 or indices.max() >= total:
        raise ValueError(f"indices must lie in [0, {total}), got {indices.tolist()}")
    return jax.tree.map(lambda leaf: leaf[indices], variables)


def finite_members(variables: PyTree) -> np.ndarray:
    """Which members hold only finite numbers: bool [M] on the host.

    Examples:
      >>> import jax.numpy as jnp
      >>> finite_members({"w": jnp.array([[1.0, 2.0], [jnp.nan, 0.0]])}).tolist()
      [True, False]
    """
    total = count(variables, "variables")
    finite = jnp.ones(total, bool)
    for leaf in jax.tree.leaves(variables):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            finite &= jnp.all(jnp.isfinite(leaf.reshape(total, -1)), axis=1)
    return np.asarray(finite)


def count(tree: PyTree, name: str) -> int:
    """The length of the member axis; ValueError if there is no leaf, no member, or the leaves disagree."""
    leaves = jax.tree.leaves(tree)
    lengths = {leaf.shape[0] if getattr(leaf, "ndim", 0) else None for leaf in leaves}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(f"{name} must have one member axis (axis 0 of every leaf), got axis lengths {sorted(map(str, lengths))}")
    return check_count(lengths.pop(), f"the member axis of {name}")


def check_count(number: int, name: str) -> int:
    """`number` if it is an integer of at least 1, else ValueError."""
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {number!r}")
    return int(number)
