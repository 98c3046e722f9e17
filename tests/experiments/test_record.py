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


def test_seeds_are_recorded_also_when_an_older_run_is_resumed(tmp_path):
    first = record.open_run(tmp_path, {"seed": 1}, {"run": 1, "teacher": 7})
    assert first["seeds"] == {"run": 1, "teacher": 7}
    old = {key: value for key, value in first.items() if key != "seeds"}
    (tmp_path / "run.json").write_text(json.dumps(old))
    assert record.open_run(tmp_path, {"seed": 1}, {"run": 1})["settings"] == {"seed": 1}


def test_reports_show_no_folders_of_the_machine():
    shown = record.for_report(
        {
            "settings": {"data_dir": "/data/me"},
            "command": "python launch/run.py --config configs/a.py:arms=3 --data_dir=/data/me/sets --workdir '/data/my runs/b'",
            "resumed": [{"command": "python ../x/launch/run.py --workdir ~/runs/c/", "date": "2026-01-01T00:00:00+00:00"}],
            "versions": {"jax": "0.10.2"},
        }
    )
    text = json.dumps(shown)
    assert "settings" not in shown and "/me" not in text and "~" not in text and "configs/a.py:arms=3 --data_dir=.../sets" in text
    assert shown["versions"] == {"jax": "0.10.2"} and shown["resumed"][0]["date"] == "2026-01-01T00:00:00+00:00"


def test_a_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(ValueError, match="run.json does not exist"):
        record.read(tmp_path)
