"""BERT and RoBERTa encoders: own weights or those of a folder, trained whole or frozen under low-rank adapters.

The layout, the names of the architecture's fields and the numbers are those of Hugging Face's `config.json`. Layer norms come after
the residual sums. RoBERTa differs in its positions (counted over the tokens that are no padding, from the padding id plus 1 on) and
has one token type. DistilRoBERTa is RoBERTa with six layers.
"""

import dataclasses
import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from edd.models.base import OUTPUT_LAYER, Model, Outputs
from edd.models.imports import bert as imports
from edd.models.imports.bert import Architecture
from edd.models.layers import batch_ensemble, linen, lora
from edd.models.layers.dropout import dropout as drop
from edd.typing import Array

POOLING = ("mean", "cls", "pooler")
LAYER_DROPOUTS = 4  # draws of each layer, numbered from 1 on; draw 0 is the embeddings'


class Layer(nn.Module):
    """One post-norm transformer layer; its adapters sit on query and value."""

    architecture: Architecture
    adapters: dict
    dropout: float
    index: int

    @nn.compact
    def __call__(self, x, mask, *, train: bool, keys):
        config, first = self.architecture, 1 + self.index * LAYER_DROPOUTS
        width, heads = config.hidden_size, config.num_attention_heads
        init = nn.initializers.truncated_normal(0.02)

        def dense(features, name, draw=None):
            adapters = {} if draw is None else self.adapters
            layer = lora.LoRADense(features, kernel_init=init, name=name, **adapters)
            return lambda inputs: layer(inputs, train=train, keys=keys, layer=first + (draw or 0))

        def normed(inputs, name):
            return nn.LayerNorm(epsilon=config.layer_norm_eps, name=name)(inputs)

        split = lambda y: y.reshape(*y.shape[:-1], heads, width // heads)  # noqa: E731
        query = split(dense(width, "query", 0)(x))
        key = split(dense(width, "key")(x))
        value = split(dense(width, "value", 1)(x))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / jnp.sqrt(width / heads).astype(x.dtype)
        weights = jax.nn.softmax(jnp.where(mask[:, None, None, :], scores, jnp.finfo(scores.dtype).min))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape)
        attended = drop(keys, dense(width, "attention_output")(mixed), self.dropout, first + 2, train=train)
        x = normed(x + attended, "attention_norm")
        hidden = imports.ACTIVATIONS[config.hidden_act](dense(config.intermediate_size, "intermediate")(x))
        out = drop(keys, dense(width, "mlp_output")(hidden), self.dropout, first + 3, train=train)
        return normed(x + out, "mlp_norm")


class Encoded(NamedTuple):
    """`hidden` [B, L, d], `mask` [B, L] of the tokens that are no padding, `pooled` [B, d] or None, the `words`' table [V, d]."""

    hidden: Array
    mask: Array
    pooled: Array | None
    words: Array


class Encoder(nn.Module):
    """Token ids and types [B, L] to `Encoded`; `adapters` are the options of `lora.LoRADense`."""

    architecture: Architecture
    adapters: dict = dataclasses.field(default_factory=dict)
    dropout: float = 0.0
    pooler: bool = False

    @nn.compact
    def __call__(self, ids, types, *, train: bool, keys) -> Encoded:
        config, init = self.architecture, nn.initializers.truncated_normal(0.02)
        mask = ids != config.pad_token_id
        if config.model_type == "roberta":
            positions, types = jnp.cumsum(mask, -1) * mask + config.pad_token_id, jnp.zeros_like(types)
        else:
            positions = jnp.broadcast_to(jnp.arange(ids.shape[1])[None], ids.shape)
        rows = {"word": config.vocab_size, "position": config.max_position_embeddings, "token_type": config.type_vocab_size}
        tables = {name: self.param(f"{name}_embeddings", init, (count, config.hidden_size)) for name, count in rows.items()}
        parts = [linen.rows(tables[name], index) for name, index in zip(imports.TABLES, (ids, positions, types))]
        x = nn.LayerNorm(epsilon=config.layer_norm_eps, name="embeddings_norm")(sum(parts))
        x = drop(keys, x, self.dropout, 0, train=train)
        for index in range(config.num_hidden_layers):
            layer = Layer(config, self.adapters, self.dropout, index, name=f"layer_{index}")
            x = layer(x, mask, train=train, keys=keys)
        pooled = None
        if self.pooler:
            pooled = jnp.tanh(lora.LoRADense(config.hidden_size, kernel_init=init, name="pooler")(x[:, 0]))
        return Encoded(x, mask, pooled, tables["word"])


class Classifier(nn.Module):
    """The Linen module behind `make`."""

    num_classes: int
    encoder: Encoder
    pooling: str
    members: tuple[int, str]

    @nn.compact
    def __call__(self, ids, types, *, train: bool, keys) -> Outputs:
        ids, types = (batch_ensemble.tile(each, self.members[0]) for each in (ids, types))
        keys = None if keys is None else batch_ensemble.tile(keys, self.members[0])
        found = self.encoder(ids, types, train=train, keys=keys)
        if self.pooling == "pooler":
            pooled = found.pooled
        elif self.pooling == "cls":
            pooled = found.hidden[:, 0]
        else:
            weights = found.mask.astype(found.hidden.dtype)[..., None]
            pooled = (found.hidden * weights).sum(1) / jnp.maximum(weights.sum(1), 1.0)
        return linen.head(pooled, self.num_classes, *self.members)


class MaskedTokens(nn.Module):
    """The Linen module behind `make_language_model`; its output layer is the table of words itself, plus a bias."""

    encoder: Encoder

    @nn.compact
    def __call__(self, ids, types, *, train: bool, keys) -> Outputs:
        found = self.encoder(ids, types, train=train, keys=keys)
        bias = self.param("output_bias", nn.initializers.zeros, (found.words.shape[0],))
        return Outputs(found.hidden @ found.words.T + bias[None, None], found.hidden)


def make(
    num_classes: int,
    *,
    weights: str = "",
    architecture: dict | None = None,
    num_hidden_layers: int = 0,
    pooling: str = "mean",
    rank: int = 8,
    alpha: float = 16.0,
    adapter_dropout: float = 0.0,
    dropout: float = 0.0,
    train_body: bool = False,
    num_members: int = 0,
    factor_init: str = "signs",
    axis_name: str | None = None,
) -> Model:
    """A sentence classifier on a BERT or RoBERTa encoder with low-rank adapters on query and value.

    Adapters and output layer are trained and are all that `variables` holds; the body is frozen, in `Model.shared`, one for all members:
    M of them cost M times the adapters plus one body. With `train_body` the whole network is in `variables` and trained,
    every member its own. Cost: one pass through the encoder.

    Args:
      num_classes: outputs of the last layer, K >= 1.
      weights: folder with `config.json` and `model.safetensors` of the body (see `imports.bert.load`); "": a random body, the same
        in every call, of the sizes in `architecture` (for tests and shape checks).
      architecture: fields of `imports.bert.Architecture`, used where no `weights` are given.
      num_hidden_layers: the first so many layers; 0 takes all.
      pooling: what the output layer sees: "mean" of the last states, "cls" the first token's, "pooler" the body's pooler on that.
      rank: of the adapters, r >= 1; 0 leaves them out, so that the output layer alone is trained.
      alpha: adapters are scaled by alpha / r.
      adapter_dropout: on the adapters' inputs, in [0, 1).
      dropout: after the embeddings and both parts of each layer, in [0, 1).
      train_body: train the body too.
      num_members: M: adapters and output layer are a BatchEnsemble's (`layers.batch_ensemble`) on one body, `num_classes` counts the
        outputs of all members together, dropout is the same for all; 0: a plain network.
      factor_init: of the members' factors: "signs", "normal" or "ones".
      axis_name: accepted for uniformity.

    Returns:
      `Model`; inputs are integers [B, L, 2] (token id, token type) or [B, L] (types 0). The padding id of the architecture is masked.

    Raises:
      ValueError: values out of range, weights that do not fit; FileNotFoundError: no weights there.

    References:
      Devlin et al. 2019, "BERT"; Liu et al. 2019, "RoBERTa"; Hu et al. 2022, "LoRA", section 4.2 (query and value).

    Examples:
      >>> sizes = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
      >>> model = make(3, architecture=sizes, rank=2)
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 5, 2), jnp.int32))
      >>> sorted(variables["params"]["encoder"]["layer_0"]), sorted(variables["params"]["encoder"]["layer_0"]["query"])
      (['query', 'value'], ['lora_a', 'lora_b'])
      >>> model.apply(variables, jnp.ones((4, 5, 2), jnp.int32), train=False, rngs=None)[0].logits.shape
      (4, 3)
    """
    del axis_name
    linen.positive_integers("num_classes", (num_classes,))
    linen.positive_integers("rank and num_hidden_layers", (rank, num_hidden_layers), minimum=0)
    linen.fraction("dropout", dropout)
    linen.fraction("adapter_dropout", adapter_dropout)
    if pooling not in POOLING:
        raise ValueError(f"pooling must be one of {', '.join(POOLING)}, got {pooling!r}")
    batch_ensemble.check(num_classes, num_members, factor_init)
    pooler = pooling == "pooler"
    whole = imports.architecture(weights) if weights else sizes(architecture)
    shape = _first_layers(whole, num_hidden_layers)
    if weights:
        loaded = imports.load(weights, pooler=pooler)
        body = {name: value for name, value in loaded.items() if name not in _later_layers(whole, shape)}
    else:
        body = _random_body(shape, pooler)

    def network(outputs: int, members: int) -> Model:
        adapters = {"rank": rank, "alpha": alpha, "dropout": adapter_dropout, "num_members": members, "factor_init": factor_init}
        module = Classifier(outputs, Encoder(shape, adapters, dropout, pooler), pooling, (members, factor_init))
        return _as_model(module, shape, {"encoder": body}, train_body)

    model = network(num_classes, num_members)
    if not num_members:
        return model
    plain = network(num_classes // num_members, 0)
    return model._replace(merge=lambda variables, averaging: (plain, batch_ensemble.merged(variables, averaging)))


def make_language_model(
    num_classes: int = 0, *, architecture: dict | None = None, dropout: float = 0.0, axis_name: str | None = None
) -> Model:
    """An encoder trained whole to restore masked tokens: logits [B, L, V] over the vocabulary, tied to the embeddings.

    Args:
      num_classes: accepted for uniformity; there are as many outputs as words.
      architecture: fields of `imports.bert.Architecture`.
      dropout: as `make`.
      axis_name: accepted for uniformity.

    Returns:
      `Model`; `variables["params"]["encoder"]` is what `imports.bert.save` writes. Its `templates` has no meaning.

    Raises:
      ValueError: values out of range.

    References:
      Devlin et al. 2019, section 3.1 (masked tokens), without the next-sentence task (Liu et al. 2019).
    """
    del num_classes, axis_name
    linen.fraction("dropout", dropout)
    shape = sizes(architecture)
    return _as_model(MaskedTokens(Encoder(shape, dropout=dropout)), shape, {}, True)


def sizes(architecture: dict | None) -> Architecture:
    """`Architecture` from a mapping; ValueError naming a field that it does not have."""
    known = [field.name for field in dataclasses.fields(Architecture)]
    unknown = sorted(set(architecture or {}) - set(known))
    if unknown:
        raise ValueError(f"architecture has no field {', '.join(unknown)}; known: {', '.join(known)}")
    return Architecture(**(architecture or {}))


def _first_layers(whole: Architecture, count: int) -> Architecture:
    if count > whole.num_hidden_layers:
        raise ValueError(f"num_hidden_layers must be at most {whole.num_hidden_layers}, the body's, got {count}")
    return dataclasses.replace(whole, num_hidden_layers=count or whole.num_hidden_layers)


def _later_layers(whole: Architecture, shape: Architecture) -> set[str]:
    return {f"layer_{index}" for index in range(shape.num_hidden_layers, whole.num_hidden_layers)}


@functools.lru_cache(maxsize=4)
def _random_body(shape: Architecture, pooler: bool):
    ids = jnp.zeros((1, 1), jnp.int32)
    with jax.ensure_compile_time_eval():
        return jax.jit(lambda key: Encoder(shape, pooler=pooler).init(key, ids, ids, train=False, keys=None)["params"])(jax.random.key(0))


def _as_model(module: nn.Module, shape: Architecture, body: dict, train_body: bool) -> Model:
    """`Model` of a module called as `module(ids, types, train=, keys=)`; `body` are the weights it starts from or keeps."""

    def tokens(x: Array) -> tuple[Array, Array]:
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise TypeError(f"inputs must be integers (token ids), got {x.dtype}")
        if x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[2] != 2):
            raise ValueError(f"inputs must be [B, L, 2] (token id, token type) or [B, L], got shape {x.shape}")
        if x.shape[1] > shape.max_length:
            raise ValueError(f"inputs must have at most {shape.max_length} tokens, the body's positions, got {x.shape[1]}")
        return (x, jnp.zeros_like(x)) if x.ndim == 2 else (x[..., 0], x[..., 1])

    def init(key, example, shared=body):
        ids, types = tokens(jnp.zeros(example.shape, example.dtype))
        params = module.init(key, ids, types, train=False, keys=None)["params"]
        return {"params": lora.combine(params, shared) if train_body else lora.split(params, (OUTPUT_LAYER,))[0]}

    def apply(variables, x, *, train, rngs=None, shared=body):
        params = variables["params"] if train_body else lora.combine(shared, variables["params"])
        return module.apply({"params": params}, *tokens(x), train=train, keys=None if rngs is None else rngs.get("dropout")), {}

    def templates(variables):
        layer = variables["params"][OUTPUT_LAYER]
        return layer["kernel"].T, layer["bias"]

    return Model(jax.jit(init), apply, templates, shared=body or None)
