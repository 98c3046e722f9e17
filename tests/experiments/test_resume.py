"""Killed at random moments of training and distillation, a run ends with the same parameters, bit for bit."""

import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np

from edd.data import augment
from edd.experiments import build, settings, stages

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
from ml_collections import ConfigDict


def training():
    return {
        "model": {"name": "mlp", "options": {"widths": [16], "dropout": 0.1}},
        "epochs": 400.0, "max_steps": 1500, "batch_size": 16, "checkpoint_every": 20,
    }


def get_config(arg=""):
    return ConfigDict({
        "name": "killed",
        "data": {"name": "spirals", "options": {"arms": 3, "points": 20}},
        "ensemble": {"num_members": 2, "training": training()},
        "students": {"proxy": {"method": "proxy", "seeds": 2, "training": training()}},
        "evaluation": {"num_resamples": 0},
    }).lock()
"""
KILLS = 3


def start(tmp_path, name):
    command = [sys.executable, str(ROOT / "launch" / "run.py"), "--config", str(tmp_path / "config.py"), "--noprogress"]
    command.append(f"--compilation_cache={tmp_path / 'compiled'}")
    return subprocess.Popen([*command, "--workdir", str(tmp_path / name)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]


def checkpoints(workdir):
    return sorted(path for path in workdir.glob("checkpoints/*/*") if path.name.isdigit())


def final_networks(tmp_path, name):
    namespace = {}
    exec(CONFIG, namespace)
    whole = settings.from_dict(settings.Settings, namespace["get_config"]().to_dict())
    info = build.data(whole).info
    raw, preprocess = jax.ShapeDtypeStruct((1, 2), np.float32), augment.preprocess(info)
    networks = []
    for stage, training, distiller, replicas in (
        ("teacher", whole.ensemble.training, build.METHODS["supervised"](0, 3), 2),
        ("proxy", whole.students["proxy"].training, build.METHODS["proxy"](2, 3), 2),
    ):
        model = build.backbone(training.model)(3)
        shipped = stages.load(stage, training, model, distiller, raw, preprocess, num_replicas=replicas, workdir=tmp_path / name)
        networks.append(shipped.variables)
    return networks


def test_kill_nine_then_resume_equals_uninterrupted(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    whole = start(tmp_path, "whole")
    finish(whole)
    rng, killed = np.random.default_rng(), 0
    for attempt in range(KILLS):
        process = start(tmp_path, "killed")
        seen = len(checkpoints(tmp_path / "killed"))
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            fresh = checkpoints(tmp_path / "killed")
            if len(fresh) > seen or (fresh and attempt):
                break
            time.sleep(0.02)
        time.sleep(float(rng.uniform(0.0, 1.5)))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
    assert killed >= 1  # a fast machine may finish before the last kills
    finish(start(tmp_path, "killed"))
    for first, second in zip(final_networks(tmp_path, "whole"), final_networks(tmp_path, "killed")):
        jax.tree.map(np.testing.assert_array_equal, first, second)
