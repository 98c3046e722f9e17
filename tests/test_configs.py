"""Every config builds, is locked plain data, parses into settings, and its full size has sound shapes (nothing is allocated)."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from edd.data import augment
from edd.data.base import Split
from edd.experiments import (
    build,
    distillation,
    launch,
    sequence_rows,
    settings,
    smoothing_distillation,
    smoothing_features,
    speech,
    translation,
    translation_smoothing,
)

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
PLAIN = (str, int, float, bool, type(None))


def load(path: pathlib.Path, arg: str | None = None) -> ml_collections.ConfigDict:
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config() if arg is None else module.get_config(arg)


def leaves(value, path=""):
    """(path, leaf) of nested mappings and sequences."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def parsed(path: pathlib.Path, arg: str = "") -> settings.Settings:
    return settings.from_dict(settings.Settings, load(path, arg).to_dict())


DISTILLATIONS = [path for path in CONFIGS if '"experiment"' not in path.read_text()]


def name(path):
    return path.stem


def test_there_are_configs():
    assert {"digits", "mnist", "spirals"} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("arg", ["", "smoke"])
@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_configs_are_locked_plain_data(path, arg):
    config = load(path, arg)
    assert config.is_locked
    bad = [f"{where}: {type(leaf).__name__}" for where, leaf in leaves(config.to_dict()) if not isinstance(leaf, PLAIN)]
    assert bad == []


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_configs_need_no_argument(path):
    assert load(path).to_dict() == load(path, "").to_dict() != load(path, "smoke").to_dict()


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_an_unknown_key_is_refused(path):
    with pytest.raises(AttributeError):
        load(path).learning_rrate = 1.0


def replicas(whole: settings.Settings):
    """(what, training, number of replicas, method) of the ensemble and every student."""
    yield (
        "ensemble",
        whole.ensemble.training,
        whole.ensemble.num_members,
        settings.Student("supervised", whole.ensemble.training, targets="online"),
    )
    for label, student in whole.students.items():
        yield label, student.training, student.seeds, student


@pytest.mark.parametrize("arg", ["", "smoke"])
@pytest.mark.parametrize("path", DISTILLATIONS, ids=name)
def test_shapes_are_sound_at_full_size(path, arg):
    """Initialises every network and evaluates every loss abstractly: targets of M members, one batch, outputs [B, K]."""
    whole = parsed(path, arg)
    if arg == "smoke":
        whole = build.shrink(whole)
    info = build.sources.info(whole.data.name, **whole.data.options)
    num_members, num_classes = whole.ensemble.num_members, info.num_classes
    for what, training, _, student in replicas(whole):
        batch = training.batch_size
        distiller = build.distiller(student, num_members, num_classes, 100)
        model = distiller.student(build.backbone(training.model, axis_name=None))
        inputs = jax.eval_shape(augment.preprocess(info), jax.ShapeDtypeStruct((batch, *info.input_shape), info.dtype))
        key = jax.eval_shape(jax.random.key, 0)

        def loss(key, inputs, model=model, distiller=distiller, batch=batch):
            variables = model.init(key, inputs)
            params, state = distiller.init(key)
            outputs, _ = model.apply(variables, inputs, train=False, rngs=None)
            labels = jnp.zeros((batch,), jnp.int32)
            members = jnp.zeros((num_members, batch, num_classes))
            targets = distiller.targets(members) if distiller.targets else None
            return (
                outputs.logits,
                distiller.loss(outputs, targets, params, state, labels, jax.random.split(key, batch)),
                distiller.predict(outputs, params, state, key),
            )

        logits, losses, prediction = jax.eval_shape(loss, key, inputs)
        assert logits.shape[0] == batch and losses.shape == (batch,), what
        assert prediction.log_probs.shape == (batch, num_classes), what


@pytest.mark.parametrize("path", DISTILLATIONS, ids=name)
def test_out_of_distribution_sets_have_the_inputs_of_the_training_set(path):
    whole = parsed(path)
    shape = build.sources.info(whole.data.name, **whole.data.options).input_shape
    for label, options in whole.data.ood.items():
        options = {key: value for key, value in options.items() if key != "split"}
        other = build.sources.info(options.pop("source", label), **options)
        assert other.input_shape == shape, label


@pytest.mark.parametrize("path", DISTILLATIONS, ids=name)
def test_smoke_is_small(path):
    small = build.shrink(parsed(path, "smoke"))
    assert parsed(path, "smoke").smoke and not parsed(path).smoke
    assert small.smoke and small.ensemble.num_members <= 2
    for _, training, count, _ in replicas(small):
        assert training.max_steps == 2 and training.batch_size <= 16 and count <= 2


def test_every_config_names_an_experiment_that_exists():
    for path in CONFIGS:
        assert load(path).to_dict().get("experiment", "distillation") in launch.EXPERIMENTS


STUDIES = [
    ("smoothing_gamma", "cifar10"),
    ("mnist_smoothing_distillation", "full"),
    ("cifar_smoothing", ""),
    ("cifar_smoothing", "cifar10"),
    ("cifar_smoothing", "alexnet"),
    ("imagenet_smoothing", ""),
    ("imagenet_smoothing", "auxiliary"),
]
SIZES = {  # of the network that is trained on labels
    "smoothing_gamma": 3_407_674,
    "mnist_smoothing_distillation": 2_395_210,
    "cifar_smoothing": 3_419_284,
    "cifar_smoothing:cifar10": 3_407_674,
    "cifar_smoothing:alexnet": 1_068_298,
    "imagenet_smoothing": 42_679_816,
    "imagenet_smoothing:auxiliary": 46_039_280,
}


@pytest.mark.parametrize(("stem", "arg"), STUDIES)
def test_programs_that_were_not_run_are_sound_at_full_size(stem, arg):
    config = load(ROOT / "configs" / f"{stem}.py", arg).to_dict()
    if config.pop("experiment") == "smoothing_distillation":
        study = settings.from_dict(smoothing_distillation.SmoothingDistillation, config)
        whole = smoothing_distillation.base_of(study, next(iter(study.teachers)))
    else:
        study = settings.from_dict(smoothing_features.SmoothingFeatures, config)
        whole = settings.Settings(study.name, study.data, study.ensemble, {})
    distillation.check(whole)
    sizes = distillation.check_shapes(whole)
    assert sizes["teacher"] == SIZES.get(f"{stem}:{arg}", SIZES[stem])


SEQUENCES = [  # presets of every study of sequences; classes by the config's experiment
    ("multi30k", ""),
    ("multi30k", "accelerator"),
    ("multi30k", "wmt17"),
    ("multi30k", "smoothed"),
    ("multi30k_smoothing", "accelerator"),
    ("fsdd", "accelerator"),
    ("librispeech", "ami=a,french=b"),
]
SEQUENCE_STUDIES = {
    "translation": translation.Translation,
    "translation_smoothing": translation_smoothing.TranslationSmoothing,
    "speech": speech.Speech,
}


@pytest.mark.parametrize(("stem", "arg"), SEQUENCES)
def test_studies_of_sequences_are_sound_at_full_size(stem, arg):
    """Settings, methods at the vocabulary's size, and networks at the sentences' lengths, as a run checks them; nothing is allocated."""
    config = load(ROOT / "configs" / f"{stem}.py", arg).to_dict()
    study = settings.from_dict(SEQUENCE_STUDIES[config.pop("experiment")], config)
    sequence_rows.check_methods(study)
    if hasattr(study.corpus, "source_length"):
        many = lambda length: np.broadcast_to(np.int32(0), (29_000, length))  # noqa: E731
        source, target = many(study.corpus.source_length), many(study.corpus.target_length)
        split = Split({"source": source, "target": target}, target)
        sequence_rows.check_sizes(study, study.corpus.vocab_size, split, split)


@pytest.mark.parametrize("stem", ["smoothing_sweep", "fashion_smoothing", "imagenet_smoothing"])
def test_a_smoothing_from_the_command_line(stem):
    path = ROOT / "configs" / f"{stem}.py"
    assert load(path, "smoothing=0.25").smoothings == load(path, "smoke,smoothing=0.25").smoothings == [0.25]
    assert load(path, "smoothing=-1").smoothings == [-1.0]  # refused by the study, with the range
    for text in ("", "abc", "0.1.2"):
        with pytest.raises(ValueError, match="known are .*smoothing=A"):
            load(path, f"smoothing={text}")


def test_a_sweep_takes_several_smoothings():
    path = ROOT / "configs" / "smoothing_sweep.py"
    assert load(path, "full,smoothing=0+0.5+1").smoothings == [0.0, 0.5, 1.0]
    assert load(path, "full").smoothings == [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7]
