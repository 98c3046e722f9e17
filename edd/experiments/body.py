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


def check_tokens(settings: settings_lib.Settings, data_dir: str | None = None) -> None:
    """ValueError unless every encoder of the run knows the tokenizer's words and masks its padding.

    A folder with another model's tokenizer would train without complaint, on the wrong words or on padding.
    """
    if settings.data.name not in text.TASKS:
        return
    made = _tokenizer(settings, data_dir)
    words, padding = made.get_vocab_size(), text.special_ids(made)[0]
    trainings = {"body": settings.body, "ensemble": settings.ensemble, **settings.baselines, **settings.students}
    for name, model in ((name, each.training.model) for name, each in trainings.items() if each is not None):
        if model.name not in (*ENCODERS, *LANGUAGE_MODELS):
            continue
        weights = model.options.get("weights")
        shape = imports.architecture(weights) if weights else _sizes(model)
        if words > shape.vocab_size:
            raise ValueError(f"{name}: the tokenizer has {words} tokens, the encoder's table {shape.vocab_size}: use the body's tokenizer")
        if padding != shape.pad_token_id:
            raise ValueError(f"{name}: the tokenizer pads with {padding}, the encoder masks {shape.pad_token_id}: use the body's tokenizer")


def _tokenizer(settings: settings_lib.Settings, data_dir: str | None):
    options = {name: value for name, value in settings.data.options.items() if name in ("tokenizer", "vocab_size")}
    return text.make_tokenizer(settings.data.name, data_dir=data_dir or settings.data.data_dir, **options)


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
    process = jax.process_index()  # each writes its own: none reads a file that another is writing
    spec, folder, shape = settings.body, workdir / (f"{STAGE}-process{process}" if process else STAGE), _sizes(settings.body.training.model)
    training = dataclasses.replace(spec.training, on_nonfinite="stop")
    special = tuple(range(len(text.SPECIAL)))
    if not settings.smoke:
        tokenizer = _tokenizer(settings, data_dir)
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
