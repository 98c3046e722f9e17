"""The training loop of every method: dispatches steps, reads their metrics one step late, saves, resumes, reports.

Step t+1 is dispatched before step t's metrics are read, so that the device never waits for the host. What happens is a pure
function of (state, key, step): a resumed run continues as if it had not stopped.
"""

import collections
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from edd.data import pipeline
from edd.training import mesh as meshes
from edd.training.checkpoint import Checkpointer
from edd.training.state import TrainState
from edd.training.step import TrainStep
from edd.training.writers import Writer
from edd.typing import Key

POLICIES = ("stop", "freeze")
IN_FLIGHT = 2  # steps the host may run ahead of the device


class NonFiniteError(FloatingPointError):
    """A loss, gradient or weight was not finite. `steps` maps replica index -> the step (0-based) at which it happened."""

    def __init__(self, steps: Mapping[int, int], name: str):
        self.steps = dict(steps)
        listed = ", ".join(f"replica {replica} at step {step}" for replica, step in self.steps.items())
        super().__init__(f"{name}: loss, gradient or weights not finite: {listed}")


class Interrupted(SystemExit):
    """Training stopped on SIGTERM after saving; `step` steps are done."""

    def __init__(self, signum: int, step: int):
        super().__init__(128 + signum)
        self.signum, self.step = signum, step


def train(
    state: TrainState,
    step_fn: TrainStep,
    batches: pipeline.Batches,
    mesh: Mesh,
    *,
    num_steps: int,
    key: Key,
    checkpointer: Checkpointer | None = None,
    checkpoint_every: int = 0,
    writer: Writer | None = None,
    log_every: int = 50,
    evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
    evaluate_every: int = 0,
    on_nonfinite: str = "stop",
    progress: bool = True,
    name: str = "training",
    design_update: Callable[[TrainState], TrainState] | None = None,
    design_every: int = 1,
    prepare: Callable[[dict], dict] | None = None,
    backend: str = "auto",
) -> TrainState:
    """Trains up to `num_steps` steps in all, resuming from the checkpointer's newest good checkpoint.

    Args:
      state: the first state [R, ...] (`state.init`); its buffers are consumed.
      step_fn: from `step.make_train_step`.
      batches: random access by step (`pipeline.Batches`).
      mesh: the step's mesh.
      num_steps: steps of the whole run, >= 0.
      key: typed key of the run, the root of dropout and augmentation.
      checkpointer: saves every `checkpoint_every` steps (0: not on the way) and after the last step; None: never.
      writer: gets {"loss", "gradient_norm", "alive"} every `log_every` steps and after the last, and what `evaluate` returns.
      log_every: steps between two looks at the metrics, >= 1.
      evaluate: state -> named numbers, every `evaluate_every` steps (0: only at the end) and before every save.
      on_nonfinite: "stop" raises NonFiniteError naming step and replicas; "freeze" reports each replica once and goes on with the
        others. When no replica is left it is raised under either.
      progress: show a bar with ETA and the mean live loss (process 0 only).
      name: the bar's label.
      design_update: state -> state, called before every `design_every`-th step: the update of methods that need a design set.
      prepare: changes a host batch before it goes to the devices (a look-up by "index", say).
      backend: of `pipeline.iterate`.

    Returns:
      The state after `num_steps` steps, saved if there is a checkpointer.

    Raises:
      ValueError: a policy or count out of range, or a checkpoint of another model. NonFiniteError. OSError: saving failed.
      Interrupted, KeyboardInterrupt: SIGTERM or SIGINT came (one process only); the state was saved first.
    """
    if on_nonfinite not in POLICIES:
        raise ValueError(f"on_nonfinite must be one of {', '.join(POLICIES)}, got {on_nonfinite!r}")
    if num_steps < 0 or log_every < 1 or checkpoint_every < 0 or evaluate_every < 0 or design_every < 1:
        raise ValueError(f"counts out of range: {num_steps=}, {log_every=}, {checkpoint_every=}, {evaluate_every=}, {design_every=}")
    start, state, key = _resume(state, meshes.place(key, mesh), checkpointer, writer)
    rows = meshes.local_block(mesh, step_fn.num_replicas, step_fn.batch_size)
    host_batches = pipeline.iterate(
        batches, start_step=start, num_steps=max(num_steps - start, 0), replicas=rows[0], examples=rows[1], backend=backend
    )
    run = _Run(mesh, writer, on_nonfinite, name, start, num_steps, progress and jax.process_index() == 0)
    with _signals() as caught, run:
        for step in range(start, num_steps):
            batch = next(host_batches)
            batch = batch if prepare is None else prepare(batch)
            batch = meshes.shard_batch(batch, mesh, step_fn.num_replicas, step_fn.batch_size)
            if design_update is not None and step % design_every == 0:
                state = design_update(state)
            state, metrics = step_fn(state, batch, key)
            done = step + 1
            last, save_due = done == num_steps, checkpoint_every and done % checkpoint_every == 0
            run.dispatched(step, metrics, state, look=last or done % log_every == 0)
            if last:
                run.look(state)
            scores = None
            if evaluate is not None and (last or save_due or (evaluate_every and done % evaluate_every == 0)):
                scores = evaluate(state)
                run.write(done, scores)
            if checkpointer is not None and (last or save_due or caught):
                checkpointer.save(done, state, key, scores)
            if caught:
                if checkpointer is not None:
                    checkpointer.wait()
                raise KeyboardInterrupt if caught[0] == signal.SIGINT else Interrupted(caught[0], done)
        if checkpointer is not None:
            checkpointer.wait()
    return state


def _resume(state: TrainState, key: Key, checkpointer: Checkpointer | None, writer: Writer | None) -> tuple[int, TrainState, Key]:
    """(steps done, state, key) of the newest good checkpoint, or the given ones; cuts the writer's records back to it."""
    restored = None if checkpointer is None else checkpointer.restore(state, key)
    start = 0
    if restored is not None:
        start, state, key = restored
        checkpointer.discard_after(start)
    if writer is not None:
        writer.resume(start)
    return start, state, key


class _Run:
    """The loop's bookkeeping: late reading of metrics, the bar, frozen replicas."""

    def __init__(self, mesh, writer, on_nonfinite, name, start, num_steps, progress):
        self.mesh, self.writer, self.on_nonfinite, self.name = mesh, writer, on_nonfinite, name
        self.pending = None  # (step, metrics) dispatched but not read
        self.in_flight = collections.deque()
        self.reported: set[int] = set()
        self.began, self.start = time.perf_counter(), start
        self.bar = tqdm(total=num_steps, initial=start, desc=name, unit="step", disable=not progress, file=sys.stderr)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.bar.close()

    def dispatched(self, step: int, metrics: dict, state: TrainState, *, look: bool) -> None:
        """Called after step `step` was dispatched: reads the one before if it was asked for."""
        self.look(state)
        self.pending = (step, metrics) if look else None
        self.in_flight.append(metrics["loss"])
        if len(self.in_flight) > IN_FLIGHT:
            jax.block_until_ready(self.in_flight.popleft())
        self.bar.update()

    def look(self, state: TrainState) -> None:
        """Reads the pending metrics, writes them, and acts on replicas that are no longer finite."""
        if self.pending is None:
            return
        (step, metrics), self.pending = self.pending, None
        values = meshes.to_host(metrics, self.mesh)
        alive = np.asarray(values["alive"])
        living = values["loss"][alive]
        self.bar.set_postfix(loss=f"{living.mean():.4g}" if living.size else "nan", refresh=False)
        seconds = time.perf_counter() - self.began
        self.write(step + 1, {**values, "seconds": seconds, "steps_per_second": (step + 1 - self.start) / max(seconds, 1e-9)})
        self.check(alive, state)

    def check(self, alive: np.ndarray, state: TrainState) -> None:
        """Reports each frozen replica once; raises by policy, or when none is left."""
        fresh = [int(replica) for replica in np.flatnonzero(~alive) if replica not in self.reported]
        if not fresh:
            return
        self.reported.update(fresh)
        frozen_at = meshes.to_host(state.frozen_at, self.mesh)
        steps = {replica: int(frozen_at[replica]) for replica in fresh}
        if self.on_nonfinite == "stop" or not alive.any():
            raise NonFiniteError(steps, self.name)
        if jax.process_index() == 0:
            listed = ", ".join(f"{replica} at step {step}" for replica, step in steps.items())
            tqdm.write(
                f"{self.name}: not finite, frozen at the last finite state and left out from here: replica {listed}", file=sys.stderr
            )

    def write(self, step: int, values: Mapping) -> None:
        if self.writer is not None:
            self.writer.write(step, values)


@contextlib.contextmanager
def _signals():
    """Collects SIGTERM and the first SIGINT so that the loop can save; several processes leave that to their scheduler."""
    caught: list[int] = []
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(signum, frame):
        if caught:
            raise KeyboardInterrupt
        caught.append(signum)

    old = {signum: signal.signal(signum, note) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
