"""Sequence distillation: SEnD, SEnD2 and PD-SEnD2 are EnD, EnD2 and the proxy at every time step, *B = (B, L).

`per_step` turns a method's `make` into that of its sequence form. Members' logits are [M, B, L, K] given the same prefix, targets lie
step by step as [B, L, ...], and a sequence's loss is the mean over its valid steps: [B], never reduced over sequences. Valid are the steps
whose label (the next token) is not negative; padding has label -1. A sequence without any has loss 0 and no gradient.

The mean over a batch of such losses counts sequences alike. The paper's mean over all tokens of a batch is the mean weighted by the number
of valid steps: the training step takes it where the batch's `mask` holds `valid_steps(labels)` instead of ones.
"""

import functools
import inspect
from collections.abc import Callable

import jax.numpy as jnp

from edd.distillers import end, end2, proxy
from edd.distillers.base import Distiller
from edd.ensembles import members
from edd.losses import top_k as top_k_lib
from edd.losses.proxy import ProxyTarget
from edd.math.reduce import masked_mean
from edd.typing import Array, Int, PyTree

EXTRA = ("top_k", "chunk_size")  # options of every sequence form, beside its method's own


def per_step(make: Callable[..., Distiller]) -> Callable[..., Distiller]:
    """`make` of a method for single predictions -> `make` of its sequence form, with the same options, `top_k` and `chunk_size`.

    The method's loss must treat examples alike and draw nothing at random (EnD, EnD2, proxy; not flow matching), as keys are one for each
    sequence. With `top_k` = k, 1 <= k < K, the targets keep the k most probable classes of each step (`edd.losses.top_k`, where the error
    is bounded): 2k + 1 numbers in place of K, and the precision. EnD2's targets are no distribution and refuse it. With `chunk_size` = C
    training evaluates teachers C time steps at once, so that the members' logits [M, B, L, K] never exist (`ensembles.members.targets`);
    the result does not depend on it.

    Args:
      make: `make(num_members, num_classes, **options)` of a method.

    References:
      Ryabinin, Malinin & Gales 2021, eq. 17 at each time step and appendices C and D; Malinin, Mlodozeniec & Gales 2020.

    Examples:
      >>> from edd.models.base import Outputs
      >>> distiller = make_proxy(2, 3)
      >>> targets = distiller.targets(jnp.zeros((2, 1, 4, 3)))  # two members, one sequence, four steps
      >>> outputs = Outputs(jnp.zeros((1, 4, 3)), None)
      >>> distiller.loss(outputs, targets, {}, {}, jnp.array([[2, 0, 1, -1]]), None).shape
      (1,)
    """

    @functools.wraps(make)
    def make_sequence(
        num_members: int, num_classes: int, *, top_k: int | None = None, chunk_size: int | None = None, **options
    ) -> Distiller:
        if chunk_size is not None:
            chunk_size = members.check_count(chunk_size, "chunk_size")
        method = make(num_members, num_classes, **options)
        if method.targets is None:
            raise ValueError("a sequence form needs a method with targets; to train on labels use the cross-entropy of tokens")
        if top_k is not None:
            if members.check_count(top_k, "top_k") >= num_classes:
                raise ValueError(f"top_k must be below the {num_classes} classes, got {top_k}")
            method = _compressed(method, int(top_k), num_classes)

        def targets(member_logits):
            if member_logits.ndim != 4:
                raise ValueError(f"member logits must be [M, B, L, K], got shape {member_logits.shape}")
            return method.targets(member_logits)

        def loss(outputs, targets, params, state, labels, keys):
            mask = _valid(labels, outputs.logits)
            # logits of padding are set aside before the loss, so that nothing there can reach a gradient
            outputs = outputs._replace(logits=jnp.where(mask[..., None], outputs.logits, 0))
            return masked_mean(method.loss(outputs, targets, params, state, labels, keys), mask, -1)

        return method._replace(targets=targets, loss=loss, chunk_size=chunk_size)

    own = inspect.signature(make, eval_str=True)
    extra = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=int | None) for name in EXTRA]
    make_sequence.__signature__ = own.replace(parameters=[*own.parameters.values(), *extra])
    return make_sequence


def valid_steps(labels: Int[Array, "B L"]) -> Int[Array, " B"]:
    """How many steps of each sequence count: those whose label is not negative.

    Examples:
      >>> valid_steps(jnp.array([[3, 1, -1], [-1, -1, -1]])).tolist()
      [2, 0]
    """
    return (labels >= 0).sum(-1)


def _valid(labels: Array | None, logits: Array) -> Array:
    if labels is None or labels.shape != logits.shape[:-1]:
        got = None if labels is None else labels.shape
        raise ValueError(f"labels must be [B, L] = {logits.shape[:-1]}, the next tokens with -1 at padding, got {got}")
    return labels >= 0


def _compressed(method: Distiller, k: int, num_classes: int) -> Distiller:
    """`method` with targets of normalised log-probabilities kept as their k largest."""

    def change(targets: PyTree, function: Callable) -> PyTree:
        if isinstance(targets, ProxyTarget):
            return targets._replace(log_mean_probs=function(targets.log_mean_probs))
        return function(targets)

    def targets(member_logits):
        return change(method.targets(member_logits), lambda log_probs: top_k_lib.compress(log_probs, k))

    def loss(outputs, targets, *rest):
        return method.loss(outputs, change(targets, lambda kept: top_k_lib.expand(kept, num_classes)), *rest)

    return method._replace(targets=targets, loss=loss)


def _refuses_top_k(make: Callable[..., Distiller]) -> Callable[..., Distiller]:
    @functools.wraps(make)
    def checked(num_members: int, num_classes: int, *, top_k: int | None = None, **options) -> Distiller:
        if top_k is not None:
            raise ValueError(f"top_k must be None for EnD2, whose targets are no distribution over classes, got {top_k}")
        return make(num_members, num_classes, **options)

    return checked


make_end = per_step(end.make)
make_end2 = _refuses_top_k(per_step(end2.make))
make_proxy = per_step(proxy.make)
