"""Strict reading of safetensors files."""

import json

import numpy as np
import pytest

from edd.models.imports import safetensors as files

pytest.importorskip("safetensors", reason="needs the package safetensors")


def test_a_file_and_a_folder_give_the_same(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float16)}
    files.write(tmp_path / files.FILE, tensors)
    for place in (tmp_path, tmp_path / files.FILE, str(tmp_path)):
        found = files.read(place)
        assert set(found) == {"a", "b"}
        np.testing.assert_array_equal(found["a"], tensors["a"])


def test_shards_are_joined_and_missing_ones_named(tmp_path):
    files.write(tmp_path / "one.safetensors", {"a": np.zeros(1, np.float32)})
    files.write(tmp_path / "two.safetensors", {"b": np.ones(1, np.float32)})
    (tmp_path / files.INDEX).write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    assert set(files.read(tmp_path)) == {"a", "b"}
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="lacks two.safetensors"):
        files.read(tmp_path)


def test_pickles_are_never_opened(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(FileNotFoundError, match="pytorch_model.bin may hold code"):
        files.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="no .safetensors file"):
        files.read(tmp_path / "pytorch_model.bin")


def test_damage_is_a_value_error(tmp_path):
    (tmp_path / files.FILE).write_bytes(b"\x00" * 5)
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        files.read(tmp_path)


def test_every_problem_is_listed():
    tensors = {"a": np.zeros((2, 3)), "extra": np.zeros(1), "head.w": np.zeros(1), "n": np.zeros(2, np.int64)}
    with pytest.raises(ValueError) as caught:
        files.match(tensors, {"a": (3, 2), "gone": (1,), "n": (2,)}, lambda name: name.startswith("head."), "toy")
    text = str(caught.value)
    for part in ("missing: gone", "unexpected: extra;", "a (2, 3) instead of (3, 2)", "not real numbers: n"):
        assert part in text
    assert "head.w" not in text


def test_numbers_come_in_float32():
    assert files.match({"a": np.ones(2, np.float16)}, {"a": (2,)}, lambda name: False, "toy")["a"].dtype == np.float32
