"""The stages of a run: train the ensemble, make targets, distil students. Each is resumable in its own folder."""

import collections
import contextlib
import pathlib
import zlib
from collections.abc import Callable

import jax
import numpy as np

from edd.data import augment, multi_input, pipeline
from edd.distillers.base import Distiller
from edd.ensembles import members
from edd.experiments import build, predict, targets
from edd.experiments import settings as settings_lib
from edd.experiments.predict import Trained
from edd.models.base import Model, bind
from edd.training import checkpoint, evaluation, loop, mesh, optimizers, state, step, writers
from edd.typing import PyTree

TEACHER = "teacher"
DESIGN_BATCH = 4096  # design points in one pass of a full E-step


def stage_seed(seed: int, name: str) -> int:
    """An integer seed of its own for each stage of a run, from the run's seed and the stage's name.

    Examples:
      >>> stage_seed(0, "teacher") == stage_seed(0, "proxy")
      False
    """
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0] >> 1)


def make_optimizer(training: settings_lib.Training, num_steps: int, steps_per_epoch: int, num_examples: int = 1):
    """The optax transformation of a training program.

    Raises:
      ValueError: an unknown optimiser, schedule or option, or a value out of range.
    """
    spec = training.optimizer
    warmup = min(round(spec.warmup_epochs * steps_per_epoch), num_steps - 1)
    return build.bind(optimizers.make, f"optimizer {spec.name!r}", spec.options)(
        spec.name,
        spec.learning_rate,
        total_steps=num_steps,
        schedule=spec.schedule,
        warmup_steps=warmup,
        weight_decay=spec.weight_decay,
        clip_norm=spec.clip_norm,
        num_examples=num_examples,
    )


def fit(
    name: str,
    training: settings_lib.Training,
    model: Model,
    distiller: Distiller,
    arrays: dict,
    preprocess: Callable,
    *,
    num_replicas: int,
    seed: int,
    workdir: pathlib.Path | None = None,
    online_targets: tuple[Model, PyTree] | None = None,
    start: PyTree | None = None,
    validation: dict | None = None,
    subsets: np.ndarray | None = None,
    snapshots: tuple[int, int] | None = None,
    progress: bool = True,
) -> Trained:
    """Trains `num_replicas` networks side by side and returns them as shipped.

    Args:
      name: the stage's name: its folder under `workdir`/checkpoints and the label of its progress bar.
      training, model, distiller: what to train and how.
      arrays: "inputs" [N, *S] or a pytree of such, "labels" [N] (of sequences [N, L]) and, for cached targets, the pytree "targets"
        [N, ...].
      preprocess: raw inputs -> float inputs.
      num_replicas: R: ensemble members, or seeds of a student.
      seed: of the run; the stage derives its own from it and its name.
      workdir: run directory, resumed where an earlier call stopped; None keeps nothing on disk.
      online_targets: (teacher model, stacked teacher variables) evaluated in every step.
      start: variables of one network from which all R begin, as from `beginning`; None: random ones.
      validation: as `arrays`; needed for `training.keep == "best"`, which ships the checkpoint of least mean loss.
      subsets: [R, n] indices of the examples each network trains on; None: all.
      snapshots: (how many, steps between two): the last states of each network are shipped as networks of their own, snapshot after
        snapshot; kept in memory, so without a run directory. None: the final ones.
      progress: show a progress bar.

    Raises:
      ValueError: settings that do not fit the data or each other. `training.loop.NonFiniteError` by `on_nonfinite`.
    """
    _check_keeping(training, workdir, validation, snapshots)
    _check_design(name, distiller, arrays)
    own_seed = stage_seed(seed, name)
    key = jax.random.key(own_seed)
    batches = _batches(arrays, training.batch_size, distiller.multi_input, seed=own_seed, num_replicas=num_replicas, subsets=subsets)
    num_steps = build.num_steps(training, batches.steps_per_epoch)
    devices = mesh.for_replicas(num_replicas, batch_size=training.batch_size)
    optimizer = make_optimizer(training, num_steps, batches.steps_per_epoch, len(arrays["labels"] if subsets is None else subsets[0]))
    raw = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), arrays["inputs"])
    first = _first_state(training, model, distiller, optimizer, devices, key, raw, preprocess, num_replicas, start)
    step_fn = step.make_train_step(
        model,
        distiller,
        optimizer,
        devices,
        num_replicas=num_replicas,
        batch_size=training.batch_size,
        preprocess=preprocess,
        augment=None if training.augment == "none" else augment.make(training.augment, padding=training.augment_padding),
        online_targets=online_targets,
        strategy=training.strategy,
        ema_decay=training.ema_decay,
        sharding=training.sharding,
    )
    evaluate = None if validation is None else _validation_loss(model, distiller, validation, preprocess, devices, training)
    options = dict(num_steps=num_steps, key=key, on_nonfinite=training.on_nonfinite, progress=progress, name=name, evaluate=evaluate)
    if distiller.update_from == "design_set":
        common = {"num_replicas": num_replicas, "preprocess": preprocess, "online_targets": online_targets, "strategy": training.strategy}
        options |= _design_options(model, distiller, devices, arrays, **common)
    if snapshots is not None:
        return _with_snapshots(model, distiller, first, step_fn, batches, devices, snapshots, options)
    if workdir is None:
        return _ship(model, distiller, mesh.to_host(loop.train(first, step_fn, batches, devices, **options), devices))
    with (
        checkpoint.Checkpointer(workdir / "checkpoints" / name, keep_last=2, keep_best=int(training.keep == "best")) as saver,
        contextlib.nullcontext() if jax.process_index() else writers.Writer(workdir / "metrics" / name) as writer,
    ):
        options.update(checkpointer=saver, checkpoint_every=training.checkpoint_every, writer=writer, log_every=max(1, min(50, num_steps)))
        last = loop.train(first, step_fn, batches, devices, **options)
        if training.keep == "best":
            last = saver.restore_best(state.abstract(last), mesh.place(key, devices)).state
    return _ship(model, distiller, mesh.to_host(last, devices))


def _batches(arrays: dict, batch_size: int, layout: multi_input.MultiInput | None, **options):
    """Batches of so many rows, of one example each or of several laid out over a network's inputs."""
    if layout is None:
        return pipeline.Batches(arrays, batch_size=batch_size, **options)
    return multi_input.MultiInputBatches(pipeline.Batches(arrays, batch_size=layout.num_examples(batch_size), **options), layout)


def _check_design(name: str, distiller: Distiller, arrays: dict) -> None:
    if len(arrays["labels"]) < distiller.least_points:
        raise ValueError(f"{name}: the method needs at least {distiller.least_points} design points, got {len(arrays['labels'])}")
    for leaf in jax.tree.leaves(arrays.get("targets")):
        bad = np.argwhere(np.isnan(leaf)) if np.issubdtype(np.asarray(leaf).dtype, np.floating) else ()
        if len(bad):
            raise ValueError(f"{name}: the teachers' outputs hold NaN at example {bad[0][0]}: leave out the members that diverged")


def _check_keeping(training: settings_lib.Training, workdir, validation, snapshots) -> None:
    if training.keep == "best" and (validation is None or workdir is None):
        raise ValueError("keep='best' needs held-out examples and a run directory: set data.validation above 0 and give a workdir")
    if snapshots is not None and (workdir is not None or validation is not None):
        raise ValueError("snapshots are kept in memory alone: give neither a run directory nor held-out examples")


def _with_snapshots(model, distiller, first, step_fn, batches, devices, snapshots: tuple[int, int], options: dict) -> Trained:
    """Trains and ships the last `snapshots[0]` states, `snapshots[1]` steps apart."""
    count, every = snapshots
    steps = options["num_steps"]
    if steps % every or count * every > steps:
        raise ValueError(f"{count} snapshots need a multiple of {every} steps, at least {count * every}, got {steps}")
    kept = collections.deque(maxlen=count)

    def look(current: state.TrainState) -> dict:
        kept.append(_ship(model, distiller, mesh.to_host(current, devices)))
        return {}

    loop.train(first, step_fn, batches, devices, **{**options, "evaluate": look, "evaluate_every": every})
    stacked = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[each[2:7] for each in kept])
    return Trained(kept[-1].model, distiller, *stacked, np.arange(len(stacked[3])))


def _design_options(model: Model, distiller: Distiller, devices, arrays: dict, **common) -> dict:
    """What the loop needs to update a state from all training examples, in batches that the mesh divides."""
    update = evaluation.make_design_update(model, distiller, devices, **common)
    shared = {name: arrays[name] for name in ("inputs", "targets") if name in arrays}
    size, parts = len(arrays["inputs"]), devices.shape[mesh.DATA]
    batch_size = parts * max(1, min(DESIGN_BATCH, size) // parts)
    own = lambda state: update(state, pipeline.evaluation_batches(shared, batch_size))  # noqa: E731
    return {"design_update": own, "design_every": distiller.update_every}


def _first_state(
    training, model, distiller, optimizer, devices, key, raw, preprocess, num_replicas: int, start: PyTree | None = None
) -> state.TrainState:
    example = jax.eval_shape(preprocess, raw)
    averaged = training.ema_decay is not None
    options = {"num_replicas": num_replicas, "ema": averaged, "sharding": training.sharding}
    born = state.init(model, distiller, optimizer, devices, key, example, **options)
    return born if start is None else state.begin_from(born, start)


def load(
    name: str,
    training: settings_lib.Training,
    model: Model,
    distiller: Distiller,
    raw: jax.ShapeDtypeStruct,
    preprocess: Callable,
    *,
    num_replicas: int,
    workdir: pathlib.Path,
) -> Trained:
    """What `fit` shipped, read back from its checkpoints; `raw` is the shape and dtype of a batch of unprocessed inputs.

    Raises:
      ValueError: there is no checkpoint, or it is of another model. OSError: none can be read.
    """
    folder = workdir / "checkpoints" / name
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist: {workdir} holds no trained {name!r}")
    devices = mesh.for_replicas(num_replicas, batch_size=training.batch_size)
    key = mesh.place(jax.random.key(0), devices)
    first = _first_state(training, model, distiller, make_optimizer(training, 1, 1), devices, key, raw, preprocess, num_replicas)
    with checkpoint.Checkpointer(folder) as saver:
        restored = (saver.restore_best if training.keep == "best" else saver.restore)(state.abstract(first), key)
    if restored is None:
        raise ValueError(f"{folder} holds no finished checkpoint")
    return _ship(model, distiller, mesh.to_host(restored.state, devices))


def _ship(model: Model, distiller: Distiller, last: state.TrainState) -> Trained:
    """The final networks, averaged weights where there are any, each replica through the method's `finalize`."""
    alive = np.asarray(last.alive)
    variables, params = (last.variables, last.params) if last.ema is None else last.ema
    shipped = []
    for replica in range(len(alive)):
        one = jax.tree.map(lambda leaf, replica=replica: leaf[replica], (variables, params, last.state))
        final_model, *final = distiller.finalize(model, *one)
        shipped.append(final)
    variables, params, carried = jax.tree.map(lambda *leaves: np.stack(leaves), *shipped)
    return Trained(final_model, distiller, variables, params, carried, alive, np.asarray(last.frozen_at), np.arange(len(alive)))


def _validation_loss(model, distiller, validation: dict, preprocess, devices, training) -> Callable:
    """state -> {"loss"}: mean held-out loss over examples and living replicas, in evaluation mode."""
    key = jax.random.key(0)

    @jax.jit
    def losses(shared, variables, params, carried, batch):
        def one(variables, params, carried):
            outputs, _ = bind(model, shared).apply(variables, preprocess(batch["inputs"]), train=False, rngs=None)
            keys = jax.random.split(key, len(batch["labels"]))
            return distiller.loss(outputs, batch.get("targets"), params, carried, batch["labels"], keys)

        return members.map_members(one, training.strategy, variables)(variables, params, carried)

    def evaluate(current: state.TrainState) -> dict[str, float]:
        host = mesh.to_host(current, devices)
        weights = (host.variables, host.params) if host.ema is None else host.ema
        total, count = np.zeros(len(host.alive)), 0.0
        for batch in pipeline.evaluation_batches(validation, min(500, len(validation["labels"]))):
            values = np.asarray(losses(model.shared, *weights, host.state, batch))
            total += (values * batch["mask"]).sum(-1)
            count += batch["mask"].sum()
        return {"loss": float((total / count)[host.alive].mean()) if host.alive.any() else float("nan")}

    return evaluate


def pretrain(settings: settings_lib.Settings, sets: build.Sets, workdir: pathlib.Path | None, *, progress: bool = True) -> Trained:
    """Trains the teachers; a diverged member is there, not alive (see `predict.survivors`)."""
    return train_ensemble(TEACHER, settings.ensemble, settings, sets, workdir, progress=progress)


def train_ensemble(
    name: str,
    spec: settings_lib.Ensemble,
    settings: settings_lib.Settings,
    sets: build.Sets,
    workdir: pathlib.Path | None,
    *,
    progress: bool = True,
) -> Trained:
    """Trains an ensemble on labels, the teachers or a baseline, in the stage called `name`."""
    distiller = build.METHODS["supervised"](0, sets.info.num_classes, smoothing=spec.smoothing)
    return fit(
        name,
        spec.training,
        distiller.student(build.backbone(spec.training.model)),
        distiller,
        sets.train._asdict(),
        augment.preprocess(sets.info),
        num_replicas=spec.num_members,
        seed=settings.seed,
        workdir=workdir,
        validation=None if sets.validation is None else sets.validation._asdict(),
        progress=progress,
    )


def distil(
    name: str,
    student: settings_lib.Student,
    teacher: Trained,
    settings: settings_lib.Settings,
    sets: build.Sets,
    workdir: pathlib.Path | None,
    *,
    progress: bool = True,
) -> Trained:
    """Trains one student (all its seeds) on the targets of the ensemble's living members, cached or online."""
    teacher = predict.survivors(teacher, "ensemble members")
    num_members = len(teacher.alive)
    steps_per_epoch = len(sets.train.labels) // student.training.batch_size
    distiller = build.distiller(student, num_members, sets.info.num_classes, steps_per_epoch)
    preprocess = augment.preprocess(sets.info)
    train, validation = sets.train._asdict(), None if sets.validation is None else sets.validation._asdict()
    online = None
    if distiller.targets is not None:
        function = predict.member_logits_function(teacher.model, teacher.variables, preprocess, distiller.targets)
        options = {"batch_size": min(settings.evaluation.batch_size, len(train["labels"]))}
        if student.targets == "online":
            online = (teacher.model, teacher.variables)
        else:
            parts = [teacher.variables, train["inputs"], student.method, student.options, num_members]
            parts += [] if teacher.model.shared is None else [teacher.model.shared]
            folder = None if workdir is None else workdir / "cache"
            train["targets"] = targets.compute(function, train["inputs"], directory=folder, key=targets.fingerprint(*parts), **options)
        if validation is not None:
            validation["targets"] = targets.compute(function, validation["inputs"], **options)
    return fit(
        name,
        student.training,
        distiller.student(build.backbone(student.training.model)),
        distiller,
        train,
        preprocess,
        num_replicas=student.seeds,
        seed=settings.seed,
        workdir=workdir,
        online_targets=online,
        start=beginning(student, teacher),
        validation=validation,
        progress=progress,
    )


def beginning(student: settings_lib.Student, teacher: Trained) -> PyTree | None:
    """Variables from which a student begins: the first teacher's, or None for random ones."""
    return jax.tree.map(lambda leaf: leaf[0], teacher.variables) if student.start == "member" else None
