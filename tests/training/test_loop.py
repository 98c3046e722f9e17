"""The loop: resuming equals not stopping (kills included), late reading of metrics, non-finite replicas, signals, bar."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.data import pipeline
from edd.distillers.base import Distiller, no_parameters
from edd.models.base import Model, Outputs
from edd.training import checkpoint, loop, optimizers, state, step, writers
from edd.training import mesh as meshes

K, REPLICAS, BATCH = 3, 2, 8
LINEAR = Model(
    lambda key, x: {"params": {"w": 0.1 * jax.random.normal(key, (2, K))}},
    lambda v, x, *, train, rngs: (Outputs(x @ v["params"]["w"], x), {}),
    lambda v: None,
)
DISTILLER = Distiller(
    student=None,
    init=no_parameters,
    targets=None,
    loss=lambda outputs, targets, params, state, labels, key: (
        -jnp.take_along_axis(jax.nn.log_softmax(outputs.logits), labels[:, None], 1)[:, 0]
        + 0.01 * jax.vmap(jax.random.normal)(key) * outputs.logits[:, 0]
    ),
    predict=None,
)
GENERATOR = np.random.default_rng(0)
INPUTS = GENERATOR.normal(size=(64, 2)).astype(np.float32)
LABELS = GENERATOR.integers(0, K, 64).astype(np.int32)
OPTIMIZER = optimizers.make("adam", 0.05, total_steps=60, schedule="cosine")
MESH = meshes.make(1, 1)
STEP = step.make_train_step(LINEAR, DISTILLER, OPTIMIZER, MESH, num_replicas=REPLICAS, batch_size=BATCH)


def run(num_steps, directory=None, inputs=INPUTS, **options):
    first = state.init(LINEAR, DISTILLER, OPTIMIZER, MESH, jax.random.key(0), jnp.zeros((1, 2)), num_replicas=REPLICAS)
    batches = pipeline.Batches({"inputs": inputs, "labels": LABELS}, batch_size=BATCH, seed=1, num_replicas=REPLICAS)
    options = {"progress": False, "log_every": 5, "checkpoint_every": 7, **options}
    if directory is None:
        return loop.train(first, options.pop("step_fn", STEP), batches, MESH, num_steps=num_steps, key=jax.random.key(1), **options)
    with checkpoint.Checkpointer(directory / "checkpoints") as saver, writers.Writer(directory, tensorboard=False) as writer:
        return loop.train(
            first, STEP, batches, MESH, num_steps=num_steps, key=jax.random.key(1), checkpointer=saver, writer=writer, **options
        )


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(jax.device_get(a)), jax.tree.leaves(jax.device_get(b)), strict=True):
        np.testing.assert_array_equal(x, y)


def records(directory, *names):
    return [tuple(record[name] for name in names) for record in writers.read_lines(directory / "metrics.jsonl")]


def test_resuming_equals_not_stopping_and_metrics_have_no_gap_or_double(tmp_path):
    whole = run(40, tmp_path / "a")
    run(23, tmp_path / "b")
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 25, "loss": [0.0, 0.0]}\n')
    again = run(40, tmp_path / "b")
    assert_same(whole, again)
    assert int(again.step[0]) == 40
    steps = [5, 10, 15, 20, 25, 30, 35, 40]
    assert records(tmp_path / "a", "step", "loss") == [record for record in records(tmp_path / "b", "step", "loss") if record[0] != 23]
    assert [record[0] for record in records(tmp_path / "a", "step")] == steps
    assert_same(run(40, tmp_path / "b"), whole)


def test_a_step_is_dispatched_before_the_metrics_of_the_one_before_are_read(monkeypatch):
    events = []

    class Spy:
        num_replicas, batch_size = REPLICAS, BATCH

        def __call__(self, current, batch, key):
            events.append(("dispatch", int(jax.device_get(batch["position"]).size)))
            return STEP(current, batch, key)

    real = meshes.to_host
    monkeypatch.setattr(loop.meshes, "to_host", lambda tree, mesh: (events.append(("read", 0)), real(tree, mesh))[1])
    run(4, step_fn=Spy(), log_every=1, checkpoint_every=0)
    assert [event for event, _ in events] == ["dispatch", "dispatch", "read", "dispatch", "read", "dispatch", "read", "read"]


def poisoned(rows):
    inputs = INPUTS.copy()
    inputs[rows] = np.inf
    return inputs


def first_hit(example):
    """replica -> step at which it meets `example` first."""
    batches = pipeline.Batches({"inputs": INPUTS, "labels": LABELS}, batch_size=BATCH, seed=1, num_replicas=REPLICAS)
    found = {}
    for index in range(batches.steps_per_epoch):
        for replica, row in enumerate(batches.batch(index)["index"]):
            if example in row:
                found[replica] = index
    return found


def test_stop_names_step_and_replica():
    hits = first_hit(3)
    with pytest.raises(loop.NonFiniteError, match=r"teacher: .*not finite: replica \d at step \d") as caught:
        run(30, inputs=poisoned([3]), log_every=1, name="teacher")
    earliest = min(hits.values())
    assert caught.value.steps == {replica: hit for replica, hit in hits.items() if hit == earliest}


def test_freeze_goes_on_reports_once_and_stops_when_none_is_left(capfd):
    example = next(e for e in range(64) if len(set(first_hit(e).values())) == 2)
    hits = first_hit(example)
    first, second = sorted(hits, key=hits.get)
    result = run(hits[second], inputs=poisoned([example]), log_every=1, on_nonfinite="freeze")
    text = capfd.readouterr().err
    assert text.count("not finite") == 1 and f"replica {first} at step {hits[first]}" in text
    assert result.alive.tolist() == [replica != first for replica in range(2)]
    clean = run(hits[second])
    np.testing.assert_array_equal(result.variables["params"]["w"][second], clean.variables["params"]["w"][second])
    with pytest.raises(loop.NonFiniteError, match=f"replica {second} at step {hits[second]}"):
        run(hits[second] + 3, inputs=poisoned([example]), log_every=1, on_nonfinite="freeze")


def test_evaluation_and_keep_best(tmp_path):
    scores = iter([3.0, 1.0, 2.0])
    first = state.init(LINEAR, DISTILLER, OPTIMIZER, MESH, jax.random.key(0), jnp.zeros((1, 2)), num_replicas=REPLICAS)
    batches = pipeline.Batches({"inputs": INPUTS, "labels": LABELS}, batch_size=BATCH, seed=1, num_replicas=REPLICAS)
    with (
        checkpoint.Checkpointer(tmp_path / "c", keep_last=1, keep_best=1, best_metric="nll") as saver,
        writers.Writer(tmp_path, tensorboard=False) as writer,
    ):
        loop.train(
            first, STEP, batches, MESH, num_steps=6, key=jax.random.key(1), checkpointer=saver, checkpoint_every=2, writer=writer,
            log_every=100, evaluate=lambda current: {"nll": next(scores), "at": int(current.step[0])}, progress=False,
        )  # fmt: skip
        assert saver.steps == [4, 6]
    assert [(r["step"], r["nll"], r["at"]) for r in writers.read_lines(tmp_path / "metrics.jsonl") if "nll" in r] == [
        (2, 3.0, 2), (4, 1.0, 4), (6, 2.0, 6)
    ]  # fmt: skip


def test_design_updates_and_prepared_batches():
    calls = []

    def design(current):
        calls.append(int(current.step[0]))
        return current

    def prepare(batch):
        return {**batch, "inputs": 2 * batch["inputs"]}

    result = run(7, design_update=design, design_every=3, prepare=prepare, checkpoint_every=0)
    assert calls == [0, 3, 6]
    assert_same(result, run(7, inputs=2 * INPUTS))


def test_the_bar_shows_progress_and_loss(capfd):
    run(20, progress=True, name="student")
    text = capfd.readouterr().err
    assert "student" in text and "20/20" in text and "loss=" in text


def test_arguments():
    for options in ({"on_nonfinite": "ignore"}, {"log_every": 0}, {"checkpoint_every": -1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            run(1, **options)


SCRIPT = """
import importlib.util, pathlib, sys, time
import numpy as np, jax
spec = importlib.util.spec_from_file_location("script", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
directory = pathlib.Path(sys.argv[2])
pause = float(sys.argv[3])
print("ready", flush=True)
def prepare(batch):
    time.sleep(pause)
    return batch
result = module.run(60, directory, checkpoint_every=4, prepare=prepare)
np.savez(directory / "final.npz", *jax.tree.leaves(jax.device_get(result)))
"""


def launch(directory, pause):
    environment = {**os.environ, "JAX_NUMPY_RANK_PROMOTION": "raise"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, __file__, str(directory), str(pause)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=pathlib.Path(__file__).parents[2],
    )  # fmt: skip


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


def finished_steps(directory):
    folder = directory / "checkpoints"
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.exists() else []


def test_three_kills_and_a_termination_give_the_same_parameters_bit_for_bit(tmp_path):
    """kill -9 at random moments (once right after a save began), then SIGTERM (saves and exits), then to the end."""
    whole = run(60)
    randomness = np.random.default_rng(int(os.environ.get("EDD_KILL_SEED", "0")))
    directory = tmp_path / "killed"
    for kill in range(4):
        process = launch(directory, 0.05)
        goal = max(finished_steps(directory), default=0) + 4
        wait_for(lambda goal=goal: max(finished_steps(directory), default=0) >= goal, process)
        time.sleep(randomness.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL if kill < 3 else signal.SIGTERM)
        error = process.communicate(timeout=60)[1]
        assert process.returncode == (-signal.SIGKILL if kill < 3 else 128 + signal.SIGTERM), error[-3000:]
    saved = max(finished_steps(directory))
    assert 16 <= saved < 60
    process = launch(directory, 0.0)
    assert process.wait(timeout=120) == 0, process.communicate()[1][-3000:]
    process.communicate()
    with np.load(directory / "final.npz") as final:
        for got, want in zip(final.values(), jax.tree.leaves(jax.device_get(whole)), strict=True):
            np.testing.assert_array_equal(got, want)
    assert [record[0] for record in records(directory, "step")] == list(range(5, 61, 5))
