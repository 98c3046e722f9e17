"""What smoothed labels do to translation: calibration and BLEU over the temperature, features of tokens, students of smoothed teachers."""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from edd.data import translation as data
from edd.data.base import Split
from edd.distillers.base import Prediction
from edd.ensembles import members
from edd.experiments import predict, record, sequence_rows, smoothing_features, translation, translation_smoothing_report
from edd.experiments import settings as settings_lib
from edd.metrics import projection
from edd.metrics import sequence as metrics
from edd.models.base import Decoding, Model

PERMUTED = "permuted"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslationSmoothing(sequence_rows.Study):
    """An ensemble of translators, and its students, at each of several smoothings of the references; with those of `sequence_rows.Study`.

    The ensemble's members are the study's seeds, its smoothing is replaced; all share `seed`, so that their teachers start alike.

    Attributes:
      corpus: what is translated; the out-of-distribution set is its test sources with permuted tokens. Each network's temperature is
        that of least NLL on the validation pairs, on the test pairs where there are none.
      smoothings: of the references, each in [0, 1].
      temperatures: at which NLL and ECE of the next token are measured, 1 among them.
      beam_temperatures: at which each network translates, 1 among them; its logits are divided by them in every step of the search.
      num_translated: the first so many test sentences are translated; 0 takes all.
      per_token: occurrences of each of three tokens in the projection of the first network's penultimate activations.
      reference: the paper's numbers, smoothing in percent ("10 %") -> {column of the report: number}.
    """

    corpus: translation.Corpus
    smoothings: list[float]
    temperatures: list[float]
    beam_temperatures: list[float]
    num_translated: int = 0
    per_token: int = 100
    reference: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        settings_lib.check_smoothings(self.smoothings)
        for name in ("temperatures", "beam_temperatures"):
            values = getattr(self, name)
            if 1.0 not in values or not all(0 < each < math.inf for each in values):
                raise ValueError(f"{name} must be above 0 and finite, with 1 among them, got {values}")
        if self.num_translated < 0 or self.per_token < 1:
            raise ValueError(f"num_translated must be at least 0 and per_token at least 1, got {self.num_translated} and {self.per_token}")


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Trains teachers and students of every smoothing (resumable, each in a folder of its own), scores them and writes the report.

    Args:
      config: nested plain dictionary with the fields of `TranslationSmoothing`.
      workdir: run directory.
      data_dir: folder of the text files, or of TFDS.
      progress: show progress bars.

    Raises:
      ValueError: bad settings, too few words, or a directory that holds another run. FileNotFoundError: a file is missing.
    """
    settings = settings_lib.from_dict(TranslationSmoothing, config)
    if settings.smoke:
        settings = translation.shrink(settings)
    (sets, description), parts = translation.begin(settings, config, workdir, data_dir, frequent), []
    for smoothing in settings.smoothings:
        ensemble = dataclasses.replace(settings.ensemble, smoothing=smoothing)
        make = functools.partial(one_part, dataclasses.replace(settings, ensemble=ensemble), sets, workdir, progress)
        parts.append(record.finished(workdir / "parts" / f"smoothing-{smoothing:g}.json", make))
    return translation_smoothing_report.finish(workdir, parts, config, record.for_report(description))


def one_part(settings: TranslationSmoothing, sets: translation.Sets, workdir: pathlib.Path, progress: bool) -> dict:
    """Everything measured at one smoothing, that of `settings.ensemble`."""
    began, smoothing = time.perf_counter(), settings.ensemble.smoothing
    trained = sequence_rows.train(settings, sets.train, sets.subwords.size, workdir / f"smoothing-{smoothing:g}", progress=progress)
    teacher, _ = trained["Ensemble"]
    first = settings.num_translated or len(sets.references)
    sources = {"test": sets.test.inputs["source"][:first], PERMUTED: sets.ood[PERMUTED][:first]}
    found = {
        "smoothing": smoothing,
        "left_out": sets.left_out,
        "run_seed": settings.seed,
        "parameters": predict.num_parameters(trained["Single"][0].variables),
        "seeds": over_temperatures(teacher, sets, sources["test"], settings),
        "projections": [projected(trained["Single"][0], sets, settings.per_token)],
        "rows": [one_row(name, *trained[name], sets.test, sources, settings) for name in ("Ensemble", *settings.students)],
    }
    return {**found, "seconds": time.perf_counter() - began}


def over_temperatures(teacher: predict.Trained, sets: translation.Sets, sources: np.ndarray, settings: TranslationSmoothing) -> list[dict]:
    """For each network alone NLL (nats) and ECE of the next token at `temperatures` (and NLL of the validation set, where there is one),
    BLEU at `beam_temperatures`."""
    search, found = sequence_rows.search(tempered(teacher.model), settings, settings.corpus.target_length), []
    logits = jax.jit(lambda variables, inputs: members.apply(teacher.model, variables, inputs).logits[0])
    for index, seed in enumerate(teacher.seeds):
        variables = jax.device_put(members.take(teacher.variables, [index]))
        own = functools.partial(logits, variables)
        tokens = {
            name: [sequence_rows.teacher_forced(at_temperature(own, each), split) for each in settings.temperatures]
            for name, split in (("test", sets.test), ("validation", sets.validation))
            if split is not None
        }
        scores = []
        for temperature in settings.beam_temperatures:
            heated = {"network": variables, "temperature": jnp.full(1, temperature)}
            best = lambda source, heated=heated: search(heated, {"source": source}).tokens[:, 0]  # noqa: E731
            decoded = predict.stream(best, sources, settings.batch_size, 0)
            sequence_rows.check_decoded(decoded, f"the teacher of seed {seed} at temperature {temperature:g}")
            translations = [sets.subwords.decode(ids) for ids in decoded]
            scores.append(metrics.bleu(translations, sets.references[: len(sources)]))
        found.append(
            {
                "seed": int(seed),
                **{metric: [each[metric] for each in tokens["test"]] for metric in ("nll", "ece")},
                **{f"{name}_nll": [each["nll"] for each in values] for name, values in tokens.items() if name != "test"},
                "tokens": tokens["test"][0]["tokens"],
                "bleu": [float(each.score) for each in scores],
                "signature": scores[0].signature,
            }
        )
    return found


def tempered(model: Model) -> Model:
    """A sequence model for decoding alone: variables {"network": its own, "temperature": T}, logits divided by T.

    The temperature being a variable, one compiled search serves all of them.
    """

    def encode(variables, x, **options):
        return model.decoding.encode(variables["network"], x, **options)

    def decode_step(variables, *rest):
        logits, cache = model.decoding.decode_step(variables["network"], *rest)
        return logits / variables["temperature"], cache

    return model._replace(decoding=Decoding(encode, decode_step))


def at_temperature(logits: Callable, temperature: float) -> Callable:
    """As from `sequence_rows.prediction`, by the softmax of `logits(inputs)` / T."""
    return lambda inputs, labels: sequence_rows.scores(Prediction(jax.nn.log_softmax(logits(inputs) / temperature)), labels)


def projected(trained: predict.Trained, sets: translation.Sets, per_token: int) -> dict:
    """Penultimate activations where one of three frequent tokens comes next, and the tokens' templates, in the templates' plane."""
    tokens = frequent(sets)
    variables = jax.tree.map(lambda leaf: leaf[0], trained.variables)
    weights, _ = trained.model.templates(variables)
    templates = np.asarray(weights)[tokens]
    plane = projection.template_plane(templates)
    body = jax.jit(lambda variables, inputs: trained.model.apply(variables, inputs, train=False, rngs=None)[0].penultimate)
    names = {token: sets.subwords.piece(token).replace("\u2581", "_") for token in tokens}
    found = {"classes": list(names.values()), "templates": projection.project(templates, plane).tolist()}
    for name, split in (("train", sets.train), ("test", sets.test)):
        chosen = projection.first_of_each(split.labels.reshape(-1), tokens, per_token)
        rows, steps = np.divmod(chosen, split.labels.shape[1])
        read, inverse = np.unique(rows, return_inverse=True)
        inputs = {key: leaf[read] for key, leaf in split.inputs.items()}
        points = projection.project(predict.stream(functools.partial(body, variables), inputs, 50, 0)[inverse, steps], plane)
        labels = np.array([names[token] for token in split.labels.reshape(-1)[chosen]])
        found[name] = {"points": points.tolist(), "labels": labels.tolist(), "spread": smoothing_features.spread(points, labels)}
    return found


def frequent(sets: translation.Sets, count: int = 3) -> list[int]:
    """The tokens that the training references say most often, special ids left out, of those that the test references say too."""
    train, test = sets.train.labels, sets.test.labels
    tokens, counts = np.unique(train[np.isin(train, test) & (train > data.UNKNOWN)], return_counts=True)
    if len(tokens) < count:
        raise ValueError(f"training and test references must have at least {count} tokens in common, got {len(tokens)}")
    return tokens[np.argsort(-counts, kind="stable")[:count]].tolist()


def one_row(name: str, trained: predict.Trained, seconds: float, test: Split, sources: dict, settings: TranslationSmoothing) -> dict:
    """NLL and ECE of an ensemble or a student, its mean uncertainty on every set, and detection of permuted sources."""
    predicted = sequence_rows.prediction(trained, settings.chunk_size)
    decode = sequence_rows.decoder(trained, settings, settings.corpus.target_length)
    measured = {
        label: sequence_rows.uncertainty(predicted, decode, {"source": source}, settings, f"{name} on {label}")
        for label, source in sources.items()
    }
    means = {
        label: {measure: float(own[measure].mean()) for measure in sequence_rows.MEASURES if measure in own}
        for label, own in measured.items()
    }
    return {
        "row": name,
        **sequence_rows.teacher_forced(predicted, test, settings.batch_size * settings.beam),  # as hypotheses: one program
        "uncertainty": means,
        "auroc": {PERMUTED: sequence_rows.detection_areas(measured["test"], measured[PERMUTED])},
        "members": len(trained.alive),
        "seconds": seconds,
    }
