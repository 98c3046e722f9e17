"""run.json records a run and keeps two runs apart."""

import json

import pytest

from edd.experiments import record


def test_a_run_directory_is_claimed_and_resumed(tmp_path):
    first = record.open_run(tmp_path / "run", {"seed": 1, "model": {"widths": (4, 5)}})
    assert first["settings"] == {"seed": 1, "model": {"widths": [4, 5]}} and first["versions"]["jax"]
    again = record.open_run(tmp_path / "run", {"seed": 1, "model": {"widths": (4, 5)}})
    assert again["date"] == first["date"] and len(again["resumed"]) == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == again


def test_other_settings_are_refused_and_nothing_is_touched(tmp_path):
    record.open_run(tmp_path, {"seed": 1})
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ValueError, match="seed: 1 != 2"):
        record.open_run(tmp_path, {"seed": 2})
    assert (tmp_path / "run.json").read_bytes() == before
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        record.open_run(tmp_path, {"seed": 1})
