"""Does an ensemble's knowledge uncertainty collapse? Sub-ensembles of every size, and ensembles of several widths, from saved predictions.

The members of each ensemble are divided into equal sub-ensembles in every way (`uncertainty.hierarchy`); what is left between those is
set beside the collapse law. Needs predictions alone, no networks. (`experiments.collapse` warns of students; this is about ensembles.)
"""

import functools
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from edd.experiments import arrays, collapse_diagnostic_report, predictions, record, results
from edd.experiments.settings import unknown_name
from edd.typing import Array
from edd.uncertainty import hierarchy

FILE_SET = "predictions"  # what the one set of a file is called
MOST_ELEMENTS = 2**24  # of [M, B, K] on the device at a time, where no batch size is given


class Members(NamedTuple):
    """Members' predictions on one set: [M, N, K], numpy or memory-mapped, and what they are, one of `arrays.KINDS`."""

    values: np.ndarray
    kind: str = "logits"


def load(path: str | os.PathLike, kind: str | None = None) -> dict[str, Members]:
    """Members' predictions from a file (one set, "predictions") or from a finished run directory: set name -> `Members`.

    Args:
      path: an .npz file with an array [M, N, K] named "logits", "log_probs" or "probs" (or one array of any name and `kind`); an .npy
        file, which is read batch by batch and needs `kind` unless it holds logits; or a run directory with predictions/, of which
        every set is taken.
      kind: what the array of a file is; None reads it off the name.

    Raises:
      ValueError: no such file or directory, or one without members' predictions.
    """
    path = pathlib.Path(path)
    if kind is not None and kind not in arrays.KINDS:
        raise ValueError(unknown_name("kind", kind, arrays.KINDS))
    if path.is_dir():
        return _of_run(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give an .npz or .npy file or a run directory")
    try:
        if path.suffix == ".npy":
            return {FILE_SET: Members(np.load(path, mmap_mode="r", allow_pickle=False), kind or "logits")}
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is no archive of arrays")
            name = _only_array(archive.files, kind)
            return {FILE_SET: Members(archive[name], kind or name)}
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        raise ValueError(f"{path} cannot be read as members' predictions: {error}") from error


def _only_array(names: list[str], kind: str | None) -> str:
    if kind is not None and len(names) == 1:
        return names[0]
    known = [name for name in names if name in (arrays.KINDS if kind is None else (kind,))]
    if len(known) != 1:
        wanted = "exactly one of the arrays " + ", ".join(arrays.KINDS) + " (or one array and its kind)" if kind is None else repr(kind)
        raise ValueError(f"it must hold {wanted}, it holds {', '.join(names) or 'nothing'}")
    return known[0]


def _of_run(directory: pathlib.Path) -> dict[str, Members]:
    rows = [row for row in predictions.load_predictions(directory) if row.group == "single"]
    if not rows:
        raise ValueError(f"{directory} holds no predictions of single members ({predictions.FOLDER}/Single.*.npz): is the run finished?")
    return {name: Members(np.stack([row.predictions[name].log_probs for row in rows]), "log_probs") for name in rows[0].predictions}


def run(
    ensembles: dict[str, dict[str, Members]],
    out: str | os.PathLike,
    *,
    name: str = "collapse",
    groupings: int = 8,
    batch_size: int | None = None,
    seed: int = 0,
) -> dict:
    """Measures every ensemble on every set of its own and writes results.json, report.md, report.html and figures/ into `out`.

    Args:
      ensembles: name -> set name -> `Members`; several ensembles are several widths. Names that are numbers are put in order.
      out: folder of the report; not one that holds other results.
      name: title of the report.
      groupings: 1 divides the members as they come; more add so many less one random orders, the same for all inputs.
      batch_size: examples at a time; None: as many as fit in 16 million numbers.
      seed: of the random orders.

    Returns:
      The results, as in `results.json`.

    Raises:
      ValueError: fewer than two members, predictions that are not finite or not normalised, numbers out of range, other results in `out`.
    """
    out = pathlib.Path(out)
    if (out / results.FILE_NAME).exists() and not results.has_schema(out, collapse_diagnostic_report.SCHEMA):
        raise ValueError(f"{out} holds other results, which this report would overwrite: choose another folder")
    for what, value, least in (("groupings", groupings, 1), ("seed", seed, 0), ("batch_size", 1 if batch_size is None else batch_size, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{what} must be an integer of at least {least}, got {value!r}")
    if not ensembles:
        raise ValueError("ensembles must hold at least one ensemble")
    parts = []
    for ensemble, sets in ensembles.items():
        for label, members in sets.items():
            rng = np.random.default_rng(seed)
            measured = measure(members, f"{ensemble}, {label}", groupings=groupings, batch_size=batch_size, rng=rng)
            parts.append({"ensemble": ensemble, "set": label, **measured})
    settings = {"name": name, "groupings": groupings, "seed": seed, "ensembles": {each: list(sets) for each, sets in ensembles.items()}}
    description = record.for_report(record.describe(settings))
    return collapse_diagnostic_report.finish(out, parts, settings, description)


def measure(members: Members, where: str, *, groupings: int, batch_size: int | None, rng: np.random.Generator) -> dict:
    """Mean knowledge uncertainty of one ensemble on one set, and what is left of it between sub-ensembles of every size.

    Returns:
      {"members", "examples", "classes", "total", "standard_error" (over examples), "partitions": for each size of `hierarchy.partitions`
      {"groups", "size", "law", "between", "within", "residual" (largest of any example), "random" (between, of every random order)}}.
    """
    shape = np.shape(members.values)
    if len(shape) != 3:
        raise ValueError(f"{where}: predictions must be [M, N, K] (members, examples, classes), got shape {shape}")
    num_members, num_examples, num_classes = shape
    if num_members < 2:
        raise ValueError(f"{where}: disagreement needs at least 2 members, got {num_members}")
    orders = [np.arange(num_members), *(rng.permutation(num_members) for _ in range(groupings - 1))]
    found = [
        {"groups": groups, "size": size, "law": hierarchy.collapse_law(groups, size), "residual": 0.0, "sums": np.zeros((groupings, 2))}
        for groups, size in hierarchy.partitions(num_members)
    ]
    moments = np.zeros(2)
    for batch, count in _batches(members, where, batch_size):
        for each in found:
            for sums, order in zip(each["sums"], orders):
                terms = [np.asarray(term, np.float64)[:count] for term in jax.device_get(_decompose(batch, order, each["size"]))]
                total, between, within = terms
                sums += [between.sum(), within.sum()]
                each["residual"] = max(each["residual"], float(np.abs(total - between - within).max()))
        moments += [total.sum(), np.square(total).sum()]  # the same for every order
    mean = moments[0] / num_examples
    spread = max(moments[1] / num_examples - mean**2, 0.0) / max(num_examples - 1, 1)
    for each in found:
        means = each.pop("sums") / num_examples
        each.update(between=means[0, 0], within=means[0, 1], random=means[1:, 0].tolist())
    sizes = {"members": num_members, "examples": num_examples, "classes": num_classes}
    return {**sizes, "total": mean, "standard_error": float(np.sqrt(spread)), "partitions": found}


def _batches(members: Members, where: str, batch_size: int | None) -> Iterator[tuple[Array, int]]:
    """(checked logits [M, B, K], how many of the B are examples): the last batch is filled up by repeating its last example."""
    num_members, num_examples, num_classes = members.values.shape
    size = min(batch_size or max(1, MOST_ELEMENTS // (num_members * max(num_classes, 1))), num_examples)
    for start in range(0, max(num_examples, 1), max(size, 1)):
        values = members.values[:, start : start + size]
        checked = arrays.member_logits_of(values, members.kind, f"{where}: predictions[:, {start}:{start + values.shape[1]}]")
        yield jax.device_put(np.pad(checked, ((0, 0), (0, size - checked.shape[1]), (0, 0)), mode="edge")), checked.shape[1]


@functools.partial(jax.jit, static_argnums=2)
def _decompose(logits, order, size: int) -> hierarchy.Decomposition:
    return hierarchy.decompose(hierarchy.partition(jax.nn.log_softmax(logits)[order], size=size))
