"""Two processes on loopback (gloo) train, save and resume, and equal one process."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

WORKER = """
import os, sys
port, rank, count, directory, first, last, member = sys.argv[1:8]
count = int(count)
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={4 // count}"
import jax
if count > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", count, int(rank))
import jax.numpy as jnp, numpy as np, pathlib
from edd.data import pipeline
from edd.distillers.base import Distiller, no_parameters
from edd.models import mlp
from edd.training import checkpoint, evaluation, loop, optimizers, state, step, writers
from edd.training import mesh as meshes
jax.config.update("jax_numpy_rank_promotion", "raise")

loss = lambda o, t, p, s, y, k: -jnp.take_along_axis(jax.nn.log_softmax(o.logits), y[:, None], 1)[:, 0]
distiller = Distiller(student=None, init=no_parameters, targets=None, loss=loss, predict=None)
model = mlp.make(3, widths=(8,), dropout=0.2)
generator = np.random.default_rng(0)
arrays = {"inputs": generator.normal(size=(64, 4)).astype(np.float32), "labels": generator.integers(0, 3, 64).astype(np.int32)}
if first == "poison":
    arrays["inputs"][5] = np.nan
batches = pipeline.Batches(arrays, batch_size=8, seed=0, num_replicas=2)
mesh = meshes.make(int(member), 4 // int(member))
assert mesh.devices.size == 4 and jax.process_count() == count
optimizer = optimizers.make("sgd", 0.1, total_steps=12, clip_norm=1.0)
key = jax.random.key(1)
new = lambda: state.init(model, distiller, optimizer, mesh, jax.random.key(0), jnp.zeros((1, 4)), num_replicas=2)
train_step = step.make_train_step(model, distiller, optimizer, mesh, num_replicas=2, batch_size=8)
directory = pathlib.Path(directory)
seen = []
if first == "poison":
    try:
        loop.train(new(), train_step, batches, mesh, num_steps=12, key=key, log_every=2, progress=False)
    except loop.NonFiniteError as error:
        print("FAILED", error.steps, flush=True)
        sys.exit(0)
    sys.exit("no error")
for num_steps in (int(first), int(last)):
    with checkpoint.Checkpointer(directory / "checkpoints") as saver:
        started = saver.steps
        writer = writers.Writer(directory / "log", tensorboard=False) if rank == "0" else None
        result = loop.train(new(), train_step, batches, mesh, num_steps=num_steps, key=key, checkpointer=saver, checkpoint_every=4,
                            log_every=3, writer=writer, progress=False)
        seen.append(started)
rows = meshes.local_block(mesh, 2, 8)
print("SEEN", seen, rows, flush=True)
outputs = evaluation.collect(evaluation.make_eval_step(model, mesh, num_replicas=2), result, pipeline.evaluation_batches(arrays, 12), mesh)
leaves = meshes.to_host(jax.tree.leaves(result), mesh)
if rank == "0":
    np.savez(directory / "final.npz", *leaves, logits=outputs.logits)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(directory, count, first, last=0, member=2):
    directory.mkdir()
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(port), str(rank), str(count), str(directory), str(first), str(last), str(member)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=pathlib.Path(__file__).parents[2],
        )
        for rank in range(count)
    ]  # fmt: skip
    try:
        results = [worker.communicate(timeout=240) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (_, error) in zip(workers, results):
        assert worker.returncode == 0, error[-3000:]
    return [output for output, _ in results]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    directory = tmp_path_factory.mktemp("one") / "run"
    run(directory, 1, 6, 12)
    with np.load(directory / "final.npz") as final:
        return dict(final)


@pytest.mark.parametrize("member", [2, 1])
def test_two_processes_train_save_resume_and_equal_one(tmp_path, reference, member):
    """Once with a member's data on one process each, once with every member's batch spread over both."""
    outputs = run(tmp_path / "run", 2, 6, 12, member)
    blocks = {2: ("slice(0, 1, None), slice(0, 8, None)", "slice(1, 2, None), slice(0, 8, None)"),
              1: ("slice(0, 2, None), slice(0, 4, None)", "slice(0, 2, None), slice(4, 8, None)")}[member]  # fmt: skip
    for output, block in zip(outputs, blocks):
        assert "SEEN [[], [4, 6]]" in output and block in output
    with np.load(tmp_path / "run" / "final.npz") as final:
        assert set(final) == set(reference)
        for name in reference:
            np.testing.assert_allclose(final[name], reference[name], rtol=1e-5, atol=1e-6)
        assert final["logits"].shape == (2, 64, 3)


def test_every_process_stops_by_agreement_naming_step_and_replica(tmp_path):
    outputs = run(tmp_path / "run", 2, "poison")
    told = [[line for line in output.splitlines() if line.startswith("FAILED {")] for output in outputs]
    assert len(told[0]) == 1 and told[0] == told[1]
