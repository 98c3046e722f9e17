"""One ensemble read as ensembles of ensembles: how knowledge uncertainty and detection fall with the size of the sub-ensembles."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from edd.data import augment
from edd.experiments import build, distillation, partitions_report, predict, record, stages
from edd.experiments import settings as settings_lib
from edd.metrics import classification, detection
from edd.uncertainty import ensemble, hierarchy

TEST = "test"
LEVELS = np.linspace(0, 1, 201)


@dataclasses.dataclass(frozen=True)
class Partitions:
    """A study of sub-ensembles.

    Attributes:
      name: of the run.
      data: trained on; its out-of-distribution sets are to be detected.
      ensemble: all members; their number decides the partitions.
      permutations: random groupings that are averaged; 0: consecutive members alone.
      batch_size: inputs per prediction batch.
      seed: root of everything random.
      smoke: four members, two steps on invented data.
    """

    name: str
    data: settings_lib.Data
    ensemble: settings_lib.Ensemble
    permutations: int = 0
    batch_size: int = 500
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        if not self.data.ood or self.permutations < 0 or self.batch_size < 1:
            raise ValueError("data.ood must name a set, permutations be >= 0 and batch_size at least 1")
        hierarchy.partitions(self.ensemble.num_members)


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Trains the ensemble (resumable), then writes results.json, report.md, report.html and figures.

    Args:
      config: nested plain dictionary with the fields of `Partitions`.
      workdir: run directory.
      data_dir: TFDS directory, overrides the config's.
      progress: show progress bars.

    Raises:
      ValueError: bad settings (before anything is written), or a directory that holds another run.
    """
    settings = settings_lib.from_dict(Partitions, config)
    base = settings_lib.Settings(settings.name, settings.data, settings.ensemble, {}, seed=settings.seed, smoke=settings.smoke)
    if settings.smoke:
        base = build.shrink(base)
        base = dataclasses.replace(base, ensemble=dataclasses.replace(base.ensemble, num_members=4))
    sets = distillation.ready(base, data_dir=data_dir)
    description = record.open_run(workdir, config, {"run": settings.seed})
    trained = predict.survivors(stages.pretrain(base, sets, workdir, progress=progress), "ensemble members")
    parts = measured(trained, sets, settings)
    return partitions_report.finish(workdir, parts, config, record.for_report(description))


def measured(trained: predict.Trained, sets: build.Sets, settings: Partitions) -> list[dict]:
    """Scores of every partition, on every set; members' predictions are never held for more than a batch."""
    inputs = {TEST: sets.test.inputs, **{name: split.inputs for name, split in sets.ood.items()}}
    ways, orders = hierarchy.partitions(len(trained.alive)), groupings(len(trained.alive), settings.permutations, settings.seed)
    look = batch_function(ways, orders)
    function = predict.member_logits_function(trained.model, trained.variables, augment.preprocess(sets.info), look)
    found = {name: predict.stream(function, values, settings.batch_size, 0) for name, values in inputs.items()}
    whole = found[TEST]["log_probs"]
    accuracy = classification.accuracy(np.exp(whole), sets.test.labels)
    nll = classification.nll(whole, sets.test.labels)
    parts = []
    for index, (groups, size) in enumerate(ways):
        between = {name: np.asarray(values["between"][:, index], np.float64) for name, values in found.items()}
        total = {name: np.asarray(values["total"], np.float64) for name, values in found.items()}
        within = {name: np.asarray(values["within"][:, index], np.float64) for name, values in found.items()}
        part = {"groups": groups, "size": size, "law": hierarchy.collapse_law(groups, size), "accuracy": accuracy, "nll": nll, "sets": {}}
        for name in inputs:
            part["sets"][name] = {
                "mean": float(between[name].mean()),
                "within": float(within[name].mean()),
                "total": float(total[name].mean()),
                "chain_rule_error": float(np.abs(total[name] - between[name] - within[name]).max()),
                "quantiles": np.quantile(between[name], LEVELS).tolist(),
            }
            if name != TEST:
                both = np.concatenate([between[TEST], between[name]])
                part["sets"][name]["auroc"] = detection.auroc(both, np.arange(len(both)) >= len(between[TEST]))
        parts.append(part)
    return parts


def groupings(num_members: int, permutations: int, seed: int) -> np.ndarray:
    """Orders [max(1, permutations), M] in which consecutive members make groups; 0 permutations: their own order."""
    own = np.arange(num_members)[None]
    return np.stack([np.random.default_rng([seed, at]).permutation(num_members) for at in range(permutations)]) if permutations else own


def batch_function(ways: list[tuple[int, int]], orders: np.ndarray):
    """Members' logits [M, B, K] -> total [B], and between and within [B, number of partitions], means over the orders."""

    def look(logits):
        log_probs = jax.nn.log_softmax(logits)
        between, within = [], []
        for _, size in ways:
            each = [hierarchy.decompose(hierarchy.partition(log_probs[order], size=size)) for order in orders]
            between.append(sum(one.between for one in each) / len(orders))
            within.append(sum(one.within for one in each) / len(orders))
        return {
            "log_probs": ensemble.log_mean_probs(log_probs),
            "total": ensemble.mutual_information(log_probs),
            "between": jnp.stack(between, -1),
            "within": jnp.stack(within, -1),
        }

    return look
