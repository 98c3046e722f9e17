"""BERT folders: what is written is read, prefixes and heads of other tasks, and every way in which a folder does not fit."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.models import bert
from edd.models.imports import bert as imports
from edd.models.imports import safetensors as files

pytest.importorskip("safetensors", reason="needs the package safetensors")
SHAPE = imports.Architecture(
    vocab_size=11, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=6, max_position_embeddings=9
)


@pytest.fixture
def encoder():
    model = bert.make_language_model(architecture=dataclasses.asdict(SHAPE))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 3), jnp.int32))["params"]["encoder"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture
def folder(tmp_path, encoder):
    imports.save(tmp_path, encoder, SHAPE)
    return tmp_path


def rewrite(folder, change):
    files.write(folder / files.FILE, change(files.read(folder)))


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def test_what_is_saved_is_loaded(folder, encoder):
    assert equal(imports.load(folder), encoder)
    assert imports.architecture(folder) == SHAPE
    assert imports.load(folder) is imports.load(str(folder))


def test_layout_is_hugging_faces(folder, encoder):
    tensors = files.read(folder)
    assert len(tensors) == 3 + 2 + 16
    query = tensors["encoder.layer.0.attention.self.query.weight"]
    np.testing.assert_array_equal(query, encoder["layer_0"]["query"]["kernel"].T)  # theirs is [outputs, inputs]
    assert tensors["encoder.layer.0.intermediate.dense.weight"].shape == (6, 4)


@pytest.mark.parametrize("prefix", ["bert.", "roberta."])
def test_prefixes_heads_buffers_and_old_names(folder, encoder, prefix):
    def change(tensors):
        renamed = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): value for name, value in tensors.items()}
        heads = {"cls.predictions.bias": np.zeros(3, np.float32), "embeddings.position_ids": np.zeros((1, 9), np.int64)}
        return {f"{prefix}{name}": value for name, value in {**renamed, **heads}.items()} | {"lm_head.bias": np.zeros(2, np.float32)}

    rewrite(folder, change)
    assert equal(imports.load(folder), encoder)


def test_every_misfit_is_listed(folder):
    def change(tensors):
        tensors.pop("encoder.layer.0.output.dense.bias")
        return {**tensors, "surprise": np.zeros(1, np.float32), "embeddings.LayerNorm.bias": np.zeros(5, np.float32)}

    rewrite(folder, change)
    with pytest.raises(ValueError) as caught:
        imports.load(folder)
    for part in ("missing: encoder.layer.0.output.dense.bias", "unexpected: surprise", "embeddings.LayerNorm.bias (5,) instead of (4,)"):
        assert part in str(caught.value)


def test_another_layout_is_refused(folder):
    rewrite(folder, lambda tensors: {"transformer.w": np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match="no embeddings.word_embeddings.weight"):
        imports.load(folder)


def test_more_layers_than_the_file_holds(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    files.write(folder / files.FILE, files.read(folder))
    with pytest.raises(ValueError, match="missing: encoder.layer.1.attention.output.LayerNorm.bias"):
        imports._load.__wrapped__(folder, (), False)


def test_pooler_where_it_is_asked_for(folder):
    with pytest.raises(ValueError, match="missing: pooler.dense.bias, pooler.dense.weight"):
        imports.load(folder, pooler=True)
    rewrite(folder, lambda t: {**t, "pooler.dense.weight": np.eye(4, dtype=np.float32), "pooler.dense.bias": np.ones(4, np.float32)})
    assert set(imports.load(folder, pooler=True)["pooler"]) == {"kernel", "bias"}
    assert "pooler" not in imports.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "must be 'absolute'"),
        ({"model_type": "gpt2"}, "model_type must be one of bert, roberta"),
        ({"hidden_act": "mish"}, "hidden_act must be one of"),
        ({"hidden_size": 5}, "must divide hidden_size 5"),
    ],
)
def test_configs_of_other_encoders(folder, change, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=message):
        imports.load(folder)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json does not exist"):
        imports.load(tmp_path / "nothing")
