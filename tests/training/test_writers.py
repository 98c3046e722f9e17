"""metrics.jsonl and TensorBoard events: records, trimming at resume, damaged last lines."""

import json

import numpy as np

from edd.training import writers


def test_records_are_json_and_trimmed_at_resume(tmp_path):
    with writers.Writer(tmp_path, tensorboard=False) as writer:
        writer.resume(0)
        for step in range(1, 6):
            writer.write(step, {"loss": np.array([step, np.nan], np.float32), "alive": np.array([True, False]), "nll": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    records = writers.read_lines(tmp_path / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    assert records[2] == {"step": 3, "loss": [3.0, None], "alive": [True, False], "nll": 0.5}
    with writers.Writer(tmp_path, tensorboard=False) as writer:
        assert len(writers.read_lines(writer.path)) == 5, "opening drops the damaged line only"
        writer.resume(3)
        writer.write(4, {"loss": 9.0})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4] and json.loads(lines[3])["loss"] == 9.0


def test_a_resume_from_nothing_starts_afresh(tmp_path):
    with writers.Writer(tmp_path, tensorboard=False) as writer:
        writer.write(7, {"loss": 1.0})
        writer.resume(0)
        writer.write(1, {"loss": 2.0})
    assert [record["step"] for record in writers.read_lines(tmp_path / "metrics.jsonl")] == [1]
    assert writers.read_lines(tmp_path / "absent.jsonl") == []


def test_tensorboard_events(tmp_path, monkeypatch):
    written = []
    import tensorboardX

    class Recorder(tensorboardX.SummaryWriter):
        def add_scalar(self, name, value, step):
            written.append((name, value, step))
            super().add_scalar(name, value, step)

    monkeypatch.setattr(tensorboardX, "SummaryWriter", Recorder)
    with writers.Writer(tmp_path) as writer:
        writer.write(3, {"loss": np.array([1.0, 3.0, np.inf]), "nll": 0.25, "nothing": np.nan})
    assert written == [("loss", 2.0, 3), ("loss/0", 1.0, 3), ("loss/1", 3.0, 3), ("nll", 0.25, 3)]
    assert [path for path in tmp_path.iterdir() if path.name.startswith("events.out")]
