"""The body that a run's encoders share, pre-trained here on the task's own text where no weights are given."""

import dataclasses
import pathlib

import jax

from edd.data import augment, text
from edd.distillers import masked_tokens
from edd.experiments import build, stages
from edd.experiments import settings as settings_lib
from edd.models import bert
from edd.models.imports import bert as imports

STAGE = "body"
ENCODERS, LANGUAGE_MODELS = ("bert",), ("bert_language_model",)


def check(settings: settings_lib.Settings) -> None:
    """ValueError unless the body can be trained and every encoder of the run can stand on it."""
    if settings.body is None:
        return
    if settings.data.name not in text.TASKS:
        raise ValueError(f"body needs a text task as data, one of {', '.join(text.TASKS)}, got {settings.data.name!r}")
    spec = settings.body.training.model
    if spec.name not in LANGUAGE_MODELS:
        raise ValueError(f"body.training.model.name must be one of {', '.join(LANGUAGE_MODELS)}, got {spec.name!r}")
    others = (*settings.baselines.values(), *settings.students.values())
    for model in (each.training.model for each in (settings.ensemble, *others)):
        if model.name in ENCODERS and (model.options.get("weights") or _sizes(model) != _sizes(spec)):
            raise ValueError("with a body that is trained here, every encoder must name its architecture and no weights")


def _sizes(model: settings_lib.Model) -> imports.Architecture:
    return bert.sizes(model.options.get("architecture"))


def pretrain(
    settings: settings_lib.Settings, sets: build.Sets, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True
) -> settings_lib.Settings:
    """Trains the body on masked tokens of the training inputs and writes it to `workdir`/body, in Hugging Face's layout.

    Returns:
      The settings with that folder as every encoder's `weights`; as they were where no body is asked for.

    Raises:
      ValueError: as `stages.fit`. `training.loop.NonFiniteError`: it diverged.
    """
    if settings.body is None:
        return settings
    spec, folder, shape = settings.body, workdir / STAGE, _sizes(settings.body.training.model)
    training = dataclasses.replace(spec.training, on_nonfinite="stop")
    special = tuple(range(len(text.SPECIAL)))
    if not settings.smoke:
        known = ("tokenizer", "vocab_size")
        options = {name: value for name, value in settings.data.options.items() if name in known}
        tokenizer = text.make_tokenizer(settings.data.name, data_dir=data_dir or settings.data.data_dir, **options)
        special = text.special_ids(tokenizer)
    masked = text.mask_tokens(
        sets.train.inputs,
        vocab_size=shape.vocab_size,
        special=special,
        copies=spec.copies,
        fraction=spec.fraction,
        seed=stages.stage_seed(settings.seed, STAGE),
    )
    distiller = masked_tokens.make()
    model = distiller.student(build.backbone(training.model))
    common = {"num_replicas": 1, "seed": settings.seed, "workdir": workdir, "progress": progress}
    trained = stages.fit(STAGE, training, model, distiller, masked._asdict(), augment.preprocess(sets.info), **common)
    if jax.process_index() == 0:
        imports.save(folder, jax.tree.map(lambda leaf: leaf[0], trained.variables["params"]["encoder"]), shape)
        if not settings.smoke:
            tokenizer.save(str(folder / "tokenizer.json"))
    return _on(settings, str(folder))


def _on(settings: settings_lib.Settings, weights: str) -> settings_lib.Settings:
    """The settings with `weights` in place of every encoder's architecture."""

    def moved(training: settings_lib.Training) -> settings_lib.Training:
        if training.model.name not in ENCODERS:
            return training
        options = {name: value for name, value in training.model.options.items() if name != "architecture"}
        return dataclasses.replace(training, model=dataclasses.replace(training.model, options={**options, "weights": weights}))

    def on(part):
        return dataclasses.replace(part, training=moved(part.training))

    students, baselines = ({name: on(each) for name, each in table.items()} for table in (settings.students, settings.baselines))
    return dataclasses.replace(settings, ensemble=on(settings.ensemble), students=students, baselines=baselines)
