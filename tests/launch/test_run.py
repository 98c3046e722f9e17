"""launch/run.py: one clear line for whatever a user can get wrong; several processes train, report and leave together."""

import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
from ml_collections import ConfigDict


def training():
    return {"model": {"name": "mlp", "options": {"widths": [8]}}, "epochs": 1.0, "max_steps": 3, "batch_size": 8,
            "on_nonfinite": "freeze", "optimizer": {"name": "sgd", "learning_rate": 0.1}}


def get_config(arg=""):
    if arg:
        raise ValueError(f"unknown argument {arg!r}")
    return ConfigDict({
        "name": "tiny",
        "data": {"name": "spirals", "options": {"arms": 3, "points": 20}, "ood": {"spirals_ring": {"points": 20}}},
        "ensemble": {"num_members": 2, "training": training()},
        "students": {"end2": {"method": "end2", "training": training(), "options": {"initial_temperature": 2.0}}},
        "evaluation": {"num_resamples": 0, "batch_size": 50},
    }).lock()
"""


def command(tmp_path, *options, arg=""):
    (tmp_path / "config.py").write_text(CONFIG)
    first = [sys.executable, str(ROOT / "launch" / "run.py"), f"--config={tmp_path / 'config.py'}{arg}", f"--workdir={tmp_path / 'run'}"]
    return [*first, "--noprogress", *options]


def failure(words):
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode and "Traceback" not in done.stderr, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


@pytest.mark.parametrize(
    "options,message",
    [
        (["--config.students.end3.seeds=2"], "unknown config key 'students.end3.seeds'"),
        (["--config.ensemble.training.epoch=2"], "unknown config key 'ensemble.training.epoch'.*Did you mean \"epochs\""),
        (
            ["--config.ensemble.training.ema_decay=0.9"],
            "unknown config key 'ensemble.training.ema_decay'.*write other settings into the file",
        ),
        (["--config.ensemble.num_members=many"], "invalid literal for int"),
        (["--config.ensemble.num_members=0"], "ensemble.num_members must be at least 1, got 0"),
        (["--process_id=1"], "--process_id need --coordinator"),
        (["surplus"], "every option is a flag"),
        (["--config.ensemble.training.optimizer.learning_rate=1e38"], "teacher: loss, gradient or weights not finite: replica 0 at step"),
    ],
)
def test_mistakes_give_one_line(tmp_path, options, message):
    assert re.search(message, failure(command(tmp_path, *options)))


def test_what_is_wrong_with_a_config_file_is_said(tmp_path):
    assert "unknown argument 'smok'" in failure(command(tmp_path, arg=":smok"))
    assert "No such file" in failure([*command(tmp_path)[:2], f"--config={tmp_path / 'absent.py'}"])


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "run").write_text("a file where the run directory should be")
    assert "run" in failure(command(tmp_path))


def test_two_processes_write_one_report(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    flags = [f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
    words = [command(tmp_path, *flags, f"--process_id={number}") for number in range(2)]
    workers = [subprocess.Popen(each, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for each in words]
    try:
        results = [worker.communicate(timeout=300) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (_, error) in zip(workers, results):
        assert worker.returncode == 0, error[-3000:]
    run = tmp_path / "run"
    assert (run / "report.html").stat().st_size and len(list((run / "cache").iterdir())) == 2
    for stage in ("teacher", "end2"):
        assert len(list((run / "metrics" / stage).glob("events*"))) == 1, "only process 0 writes"
        assert len((run / "metrics" / stage / "metrics.jsonl").read_text().splitlines()) == 1
