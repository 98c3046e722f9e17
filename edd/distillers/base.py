"""The interface every distillation method implements, and what every student predicts.

A `Distiller` is a value: pure functions bound to their static choices by `make(num_members, num_classes, ...)` in one file
per method. The training engine calls them and never asks which method it runs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edd.data.multi_input import MultiInput
from edd.losses import proxy
from edd.typing import Array, PyTree
from edd.uncertainty import dirichlet, ensemble

MEASURES = ("total_uncertainty", "data_uncertainty", "mutual_information", "expected_pairwise_kl", "reverse_mutual_information")


class Prediction(NamedTuple):
    """What a network or an ensemble says about each example; a field is None where the method has no such quantity.

    Shapes: `log_probs` [*B, K], the rest [*B]. Uncertainties are in nats and >= 0; `precision` is the Dirichlet's.
    """

    log_probs: Array
    total: Array | None = None
    data: Array | None = None
    mutual_information: Array | None = None
    expected_pairwise_kl: Array | None = None
    reverse_mutual_information: Array | None = None
    precision: Array | None = None


class Distiller(NamedTuple):
    """One distillation method.

    Attributes:
      student: (make_backbone: num_outputs -> Model) -> Model, the network to train.
      init: key -> (params trained beside the backbone, state that is not trained); either may be an empty dict.
      targets: members' logits [M, *B, K] -> the smallest pytree the loss needs, example axes first. None: trains on labels.
      loss: (outputs, targets, params, state, labels, keys) -> [*B], nats per example, never reduced; one key per example [B],
        so that no draw depends on how a batch is spread over devices.
      predict: (outputs, params, state, key) -> Prediction; one key per replica.
      penalty: (variables, params, state, key) -> scalar added to the mean loss, or None; one key per step.
      statistics: (outputs, targets, params, state) -> additive sums over the batch in evaluation mode, or None.
      update: (statistics, variables, params, state, step) -> (variables, params, state), or None.
      update_from: what `statistics` is summed over before `update`: "nothing", "minibatch" or "design_set".
      update_every: steps between two updates.
      finalize: (model, variables, params, state) -> the same four as shipped.
      gradient_transform: gradients of ({"params": network weights}, params) -> the same, or None.
      multi_input: how training batches [B, M, ...] are laid out for a network that looks at M examples at once; None: [B, ...].
      least_points: design points below which the method is not determined.
      chunk_size: time steps of a sequence that `targets` is given at once where the teachers are evaluated in every step, see
        `ensembles.members.targets`; None: all of them.
    """

    student: Callable
    init: Callable
    targets: Callable | None
    loss: Callable
    predict: Callable
    penalty: Callable | None = None
    statistics: Callable | None = None
    update: Callable | None = None
    update_from: str = "nothing"
    update_every: int = 1
    finalize: Callable = lambda model, variables, params, state: (model, variables, params, state)
    gradient_transform: Callable | None = None
    multi_input: MultiInput | None = None
    least_points: int = 1
    chunk_size: int | None = None


def check_sizes(num_members: int, num_classes: int) -> None:
    """ValueError unless there is at least one member and two classes."""
    for name, value, least in (("num_members", num_members, 1), ("num_classes", num_classes, 2)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def expect_members(member_outputs: Array, num_members: int) -> None:
    """ValueError unless the members' outputs [M, ...] are those of `num_members` members."""
    if member_outputs.ndim < 2 or member_outputs.shape[0] != num_members:
        raise ValueError(f"member outputs must be [M, ...] with M = {num_members}, the method's num_members, got {member_outputs.shape}")


def softmax_prediction(logits: Array) -> Prediction:
    """Prediction of a plain softmax network: its entropy is all data uncertainty; it has no knowledge measures."""
    log_probs = jax.nn.log_softmax(logits)
    probs = jnp.exp(log_probs)
    entropy = -jnp.sum(jnp.where(probs > 0, probs * log_probs, 0.0), -1)
    return Prediction(log_probs=log_probs, total=entropy, data=entropy)


def predict_softmax(outputs, params: PyTree, state: PyTree, key) -> Prediction:
    """`predict` of the methods whose student is a plain softmax network."""
    del params, state, key
    return softmax_prediction(outputs.logits)


def ensemble_prediction(member_logits: Array) -> Prediction:
    """An ensemble's Prediction from its members' logits [M, *B, K]; precision is the proxy's (Stirling)."""
    log_probs = jax.nn.log_softmax(member_logits)
    target = proxy.proxy_target(log_probs)
    return Prediction(log_probs=target.log_mean_probs, precision=target.precision, **ensemble.measures(log_probs)._asdict())


def dirichlet_prediction(logits: Array, offset: float = 0.0) -> Prediction:
    """Prediction of a Prior Network with concentration exp(z) + `offset`; probabilities are softmax(z) whatever the offset.

    Concentrations are kept inside float32's range (exp(z) itself would overflow at z = 88.7), so every measure is finite.

    References:
      Ryabinin, Malinin & Gales 2021, section 2; `softmax(z)` as the mean is the optimum of the losses for every offset.
    """
    plain = softmax_prediction(logits)
    limits = jnp.finfo(logits.dtype)
    largest = jnp.log(limits.max) - jnp.log(logits.shape[-1] + 0.0) - 1.0
    concentration = jnp.exp(jnp.clip(logits, jnp.log(limits.tiny) + 1.0, largest)) + offset
    return Prediction(
        log_probs=plain.log_probs,
        total=dirichlet.total_uncertainty(concentration) if offset else plain.total,
        data=dirichlet.data_uncertainty(concentration),
        mutual_information=dirichlet.mutual_information(concentration),
        expected_pairwise_kl=dirichlet.expected_pairwise_kl(concentration),
        reverse_mutual_information=dirichlet.reverse_mutual_information(concentration),
        precision=jnp.sum(concentration, -1),
    )


def no_parameters(key) -> tuple[PyTree, PyTree]:
    """`init` of a method that trains nothing beside its backbone and keeps no state."""
    del key
    return {}, {}
