"""Ablations: one setting of a regression study swept over values, on every set and split; variants share the teachers they can share."""

import copy
import dataclasses
import functools
import hashlib
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from edd.experiments import ablation_report, predict, record, regression
from edd.experiments import settings as settings_lib
from edd.experiments.regression_settings import Regression

KEPT = ("rows", "dimension", "num_train", "num_design", "num_features")  # of a regression part


@dataclasses.dataclass(frozen=True)
class Variant:
    """One point of a sweep.

    Attributes:
      value: what is swept at this point, a number or a name.
      change: dotted path in the base -> value, for instance {"students.DLF.options.latent_dim": 2}.
      group: label of the curve, where a study has several; "".
    """

    value: object
    change: dict
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Ablation:
    """One study: a base and its variants.

    Attributes:
      name: of the run.
      study: what is swept, in words: the figures' abscissa.
      base: fields of `regression_settings.Regression`.
      variants: `Variant`s as dictionaries.
      smoke: two steps on an invented table, the first and last variant.
    """

    name: str
    study: str
    base: dict
    variants: list
    smoke: bool = False


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Runs every set, split and variant that has no finished part yet, then writes results.json, report.md, report.html and figures.

    Teachers that several variants of a split have in common are trained once, as many as the largest variant needs.

    Args:
      config: nested plain dictionary with the fields of `Ablation`.
      workdir: run directory; a part (one set, split and variant) is finished or done again, never half.
      data_dir: folder that holds uci/, overrides the config's.
      progress: print a line for each part.

    Raises:
      ValueError: bad settings or tables (before anything is written), or a directory that holds another run.
    """
    settings = settings_lib.from_dict(Ablation, config)
    variants = [settings_lib.from_dict(Variant, each, f"variants[{index}].") for index, each in enumerate(settings.variants)]
    if not variants:
        raise ValueError("variants must hold at least one variant")
    if settings.smoke:
        variants = [variants[0], variants[-1]]
    studies = [variant_settings(settings, each) for each in variants]
    for each in studies:
        regression.check(each)
    first = studies[0].data
    for variant, each in zip(variants, studies):
        if (each.data.sets, each.data.splits, each.data.data_dir) != (first.sets, first.splits, first.data_dir):
            raise ValueError(f"variant {variant.value!r} changes data.sets, splits or data_dir, which all variants share: change the base")
    names = [(each.group, each.value) for each in variants]
    if len(set(names)) < len(names):
        raise ValueError(f"variants must differ in group or value, got {names}")
    tables = {(name, split): regression.load(studies[0], name, split, data_dir) for name in first.sets for split in first.splits}
    for each in studies:
        regression.check_design(each, tables)
    description = record.open_run(workdir, config, {"run": studies[0].seed})
    order = sorted(range(len(studies)), key=lambda index: -studies[index].ensemble.num_members)
    parts = []
    for (name, split), (train, test) in tables.items():
        label, teach, found = pathlib.Path(name).stem, SharedTeachers([each.ensemble for each in studies]), {}
        for index in order:
            began = time.perf_counter()
            path = workdir / "parts" / f"{label}-{split}-{index}.json"
            found[index] = record.finished(
                path, functools.partial(_part, studies[index], variants[index], label, split, train, test, teach)
            )
            if progress:
                print(f"{label}, split {split}, {_told(variants[index])}: {time.perf_counter() - began:.0f} s", flush=True)
        parts += [found[index] for index in sorted(found)]
    return ablation_report.finish(workdir, parts, config, record.for_report(description))


def variant_settings(settings: Ablation, variant: Variant) -> Regression:
    """The regression study of one variant; a smoke version of it where the ablation is one.

    Raises:
      ValueError: a path that the base does not hold (only the last key of one may be new), or bad settings.
    """
    base = copy.deepcopy({"name": settings.name, **settings.base})
    for path, value in variant.change.items():
        *folders, last = path.split(".")
        place = base
        for key in folders:
            if not isinstance(place.get(key), dict):
                raise ValueError(
                    f"variant {variant.value!r} changes {path!r}, but the base has no section {key!r}: known are {list(place)}"
                )
            place = place[key]
        place[last] = value
    study = settings_lib.from_dict(Regression, {**base, "smoke": settings.smoke})
    return regression.shrink(study) if settings.smoke else study


class SharedTeachers:
    """Trains members as `regression.train_members`, but the same ones only once; a smaller ensemble is the first of a larger one.

    Args:
      ensembles: of the whole study. The largest of those that differ in their number alone is trained, whichever is asked for first: a
        resumed study then has the members of an uninterrupted one, bit for bit.
    """

    def __init__(self, ensembles: Sequence[settings_lib.Ensemble] = ()):
        self.ensembles = ensembles
        self.known: dict[str, tuple[int, predict.Trained, float]] = {}

    def __call__(
        self, ensemble: settings_lib.Ensemble, name: str, arrays: dict, seed: int, subsets: np.ndarray | None = None
    ) -> tuple[predict.Trained, float]:
        count, alike = ensemble.num_members, _without_number(ensemble)
        identity = hashlib.sha256(repr((alike, name, seed)).encode())
        for each in (*arrays.values(), *([] if subsets is None else [subsets[0]])):
            identity.update(np.ascontiguousarray(each).tobytes())
        key = identity.hexdigest()
        if self.known.get(key, (0,))[0] < count:
            others = [] if subsets is not None else [each.num_members for each in self.ensembles if _without_number(each) == alike]
            most = max(count, *others, 0)
            larger = dataclasses.replace(ensemble, num_members=most)
            self.known[key] = (most, *regression.train_members(larger, name, arrays, seed, subsets))
        asked, trained, seconds = self.known[key]
        if asked == count:
            return trained, seconds
        return predict.take(trained, np.flatnonzero(trained.seeds < count)), seconds * count / asked


def _without_number(ensemble: settings_lib.Ensemble) -> settings_lib.Ensemble:
    """What two ensembles share of which one is the first members of the other; later samples of a chain are others."""
    return ensemble if ensemble.source == "langevin" else dataclasses.replace(ensemble, num_members=1)


def _part(study: Regression, variant: Variant, label: str, split: int, train, test, teach: SharedTeachers) -> dict:
    whole = regression.one_part(study, label, split, train, test, teach)
    kept = {name: whole[name] for name in KEPT}
    return {"set": label, "split": split, "value": variant.value, "group": variant.group, **kept}


def _told(variant: Variant) -> str:
    return " ".join(str(each) for each in (variant.group, variant.value) if each != "")
