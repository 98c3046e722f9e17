"""BERT and RoBERTa folders in Hugging Face's layout: `config.json` and safetensors, read into the variables of `edd.models.bert`."""

import dataclasses
import functools
import json
import pathlib

import jax
import numpy as np

from edd.models.imports import safetensors
from edd.typing import PyTree

ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}
MODEL_TYPES = ("bert", "roberta")
PREFIXES = ("", "bert.", "roberta.")
HEADS = ("cls.", "lm_head.", "classifier.", "qa_outputs.", "pooler.")  # of other tasks; the pooler where it is not asked for
LAYERS = {  # our name -> theirs, in every layer
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "mlp_output": "output.dense",
    "mlp_norm": "output.LayerNorm",
}
TABLES = ("word", "position", "token_type")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """An encoder's sizes, named and defaulting as in Hugging Face's `config.json` for BERT (base).

    Raises:
      ValueError: sizes below 1, heads that do not divide the hidden size, an unknown model type or activation.
    """

    model_type: str = "bert"
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "pad_token_id" else 1
            if field.type is int and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise ValueError(f"{field.name} must be an integer of at least {least}, got {value!r}")
        for name, known in (("model_type", MODEL_TYPES), ("hidden_act", ACTIVATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"num_attention_heads must divide hidden_size {self.hidden_size}, got {self.num_attention_heads}")
        if not self.layer_norm_eps > 0:
            raise ValueError(f"layer_norm_eps must be positive, got {self.layer_norm_eps}")

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens; RoBERTa's first positions are taken by the padding."""
        return self.max_position_embeddings - (self.pad_token_id + 1 if self.model_type == "roberta" else 0)


def architecture(folder: str | pathlib.Path) -> Architecture:
    """The architecture in a folder's `config.json`; fields that do not change the computation here are left out.

    Raises:
      FileNotFoundError: no `config.json`; ValueError: an encoder of another layout, or values out of range.
    """
    path = pathlib.Path(folder).expanduser() / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: weights must be a folder with config.json and model.safetensors")
    found = json.loads(path.read_text())
    if found.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"{path}: position_embedding_type must be 'absolute', got {found['position_embedding_type']!r}")
    return Architecture(**{field.name: found[field.name] for field in dataclasses.fields(Architecture) if field.name in found})


def names(shape: Architecture, *, pooler: bool = False) -> dict[str, tuple[tuple[str, ...], tuple[int, ...], bool]]:
    """Their tensor name -> (path in our encoder's variables, their shape, transposed or not)."""
    width, inner = shape.hidden_size, shape.intermediate_size
    rows = {"word": shape.vocab_size, "position": shape.max_position_embeddings, "token_type": shape.type_vocab_size}
    table = {f"embeddings.{name}_embeddings.weight": ((f"{name}_embeddings",), (rows[name], width), False) for name in TABLES}

    def norm(theirs, *ours):
        table[f"{theirs}.weight"] = ((*ours, "scale"), (width,), False)
        table[f"{theirs}.bias"] = ((*ours, "bias"), (width,), False)

    def dense(theirs, *ours, sizes):
        table[f"{theirs}.weight"] = ((*ours, "kernel"), sizes, True)
        table[f"{theirs}.bias"] = ((*ours, "bias"), sizes[:1], False)

    norm("embeddings.LayerNorm", "embeddings_norm")
    for index in range(shape.num_hidden_layers):
        for ours, theirs in LAYERS.items():
            place = f"encoder.layer.{index}.{theirs}"
            if ours.endswith("norm"):
                norm(place, f"layer_{index}", ours)
            else:
                sizes = {"intermediate": (inner, width), "mlp_output": (width, inner)}.get(ours, (width, width))
                dense(place, f"layer_{index}", ours, sizes=sizes)
    if pooler:
        dense("pooler.dense", "pooler", sizes=(width, width))
    return table


def load(folder: str | pathlib.Path, *, pooler: bool = False) -> PyTree:
    """The variables of a folder's encoder as nested dictionaries of float32 arrays, strictly.

    Names may carry the prefix "bert." or "roberta."; heads of other tasks and position buffers are left out. One folder is read once
    in a process as long as its file does not change, so that every network on it shares the same arrays.

    Args:
      folder: with `config.json` and `model.safetensors` (or shards and their index).
      pooler: read the pooler too.

    Raises:
      FileNotFoundError: a file is missing; ValueError: listing every missing, unexpected and mis-shaped tensor.
    """
    path = pathlib.Path(folder).expanduser().resolve()
    stamps = tuple(sorted((each.name, each.stat().st_mtime_ns) for each in path.glob("*.safetensors")))
    return _load(path, stamps, pooler)


@functools.lru_cache(maxsize=4)
def _load(path: pathlib.Path, stamps: tuple, pooler: bool) -> PyTree:
    shape = architecture(path)
    raw = {name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): tensor
           for name, tensor in safetensors.read(path).items()}  # fmt: skip
    word = "embeddings.word_embeddings.weight"
    prefix = next((each for each in PREFIXES if each + word in raw), None)
    if prefix is None:
        raise ValueError(
            f"the weights of {path} have no {word}, with or without the prefix bert. or roberta.: not an encoder of this layout"
        )
    tensors = {name.removeprefix(prefix): tensor for name, tensor in raw.items()}
    table = names(shape, pooler=pooler)
    ignored = lambda name: name.startswith(HEADS) or name.endswith((".position_ids", ".token_type_ids"))  # noqa: E731
    found = safetensors.match(tensors, {name: entry[1] for name, entry in table.items()}, ignored, str(path))
    tree: dict = {}
    for name, (place, _, transposed) in table.items():
        inner = tree
        for part in place[:-1]:
            inner = inner.setdefault(part, {})
        inner[place[-1]] = found[name].T if transposed else found[name]
    return jax.device_put(tree)


def save(folder: str | pathlib.Path, variables: PyTree, shape: Architecture) -> None:
    """Writes an encoder's variables as a folder that `load` and Hugging Face's transformers read."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, (place, _, transposed) in names(shape, pooler="pooler" in variables).items():
        leaf = functools.reduce(lambda tree, part: tree[part], place, variables)
        tensors[name] = np.asarray(leaf).T if transposed else np.asarray(leaf)
    safetensors.write(folder / safetensors.FILE, tensors)
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(shape), indent=2) + "\n")
