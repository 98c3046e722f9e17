"""results.json: its schema, a JSON encoding that keeps NaN and infinity, pooling over seeds, and merging runs.

A results dict holds
  schema       "edd.results/1"
  run          who made it: machine, versions, date, command, seeds, commit (whatever `evaluate` was given)
  settings     the run's settings as a nested dict
  conventions  metric name -> the convention in words; two runs merge only if these agree
  sets         set name -> {"kind": "in" | "out", "examples": N}; "test" is the one in-distribution set
  rows         one entry per row and seed: {"name", "group", "seed", "run", "variant", "metrics", "costs", "notes", "reference"}
  summary      rows of one name (and variant) pooled over seeds

`metrics` is a tree of dicts whose leaves are {"value", "low", "high"} (a bootstrap interval over test examples, null where
none was made). In `summary` a leaf is {"mean", "sd", "n", "of", "low", "high"}: mean and sample standard deviation over the
`n` seeds (of `of`) whose value is a number, and the mean of their interval ends, i.e. the interval of a typical seed.

Numbers: JSON has no NaN and no infinity, so they are the strings "NaN", "Infinity" and "-Infinity" (what `float()` and
JavaScript's `Number()` read); null means that the quantity does not exist for that row. Everything is in nats and fractions.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edd.data.files import write_atomically

SCHEMA = "edd.results/1"
FILE_NAME = "results.json"
GROUPS = ("single", "ensemble", "proxy", "baseline", "student")
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_NOT_KEY_SETTINGS = ("seed", "seeds", "workdir", "data_dir", "cache_dir", "out")  # last part of a dotted name
_NOT_KEY_SECTIONS = ("name", "evaluation")  # first part: what a run is called and how it is scored (the conventions guard that)


# --- encoding ---------------------------------------------------------------------------------------------------------


def encode(tree):
    """`tree` with numpy scalars and arrays as Python numbers and lists, and non-finite floats as strings.

    Examples:
      >>> encode({"a": float("inf"), "b": None, "c": np.float32(0.5)})
      {'a': 'Infinity', 'b': None, 'c': 0.5}
    """
    if isinstance(tree, dict):
        return {str(key): encode(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [encode(value) for value in tree]
    if isinstance(tree, np.ndarray):
        return encode(tree.tolist())
    if isinstance(tree, np.generic):
        return encode(tree.item())
    if isinstance(tree, float) and not math.isfinite(tree):
        return "NaN" if math.isnan(tree) else ("Infinity" if tree > 0 else "-Infinity")
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    return str(tree)


def decode(tree):
    """Inverse of `encode` on what `json.loads` returns: the three strings become floats again."""
    if isinstance(tree, dict):
        return {key: decode(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [decode(value) for value in tree]
    if isinstance(tree, str):
        return _NON_FINITE.get(tree, tree)
    return tree


def plain(tree):
    """`tree` as it will be after `save` and `load`: string keys, lists, Python numbers."""
    return decode(encode(tree))


def save(results: dict, workdir: str | os.PathLike) -> Path:
    """Writes `results` as `workdir`/results.json, strict JSON, atomically; returns the path."""
    path = Path(workdir) / FILE_NAME
    write_atomically(path, json.dumps(encode(results), indent=1, allow_nan=False) + "\n")
    return path


def load(workdir: str | os.PathLike, schema: str = SCHEMA) -> dict:
    """Reads `workdir`/results.json (or the file itself), of the given schema.

    Raises:
      ValueError: no such file, not JSON, or another schema; says which file and what to do.
    """
    path = Path(workdir)
    path = path / FILE_NAME if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"no {FILE_NAME} at {workdir}: give the work directory of a finished run (launch/run.py writes it at the end)")
    try:
        results = decode(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): the file was cut short or edited; evaluate the run again") from error
    found = results.get("schema") if isinstance(results, dict) else None
    if found != schema:
        raise ValueError(f"{path} has schema {found!r}, this version of edd reads {schema!r}: evaluate the run again")
    return results


def has_schema(workdir: str | os.PathLike, schema: str) -> bool:
    """Whether `workdir`/results.json can be read and is of this schema."""
    try:
        load(workdir, schema)
    except ValueError:
        return False
    return True


# --- pooling over seeds -----------------------------------------------------------------------------------------------


def leaves(tree: dict, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """(path, leaf) for every leaf of a metrics tree, in order; a leaf is a dict that holds "value" or "mean"."""
    for key, value in tree.items():
        if "value" in value or "mean" in value:
            yield (*prefix, key), value
        else:
            yield from leaves(value, (*prefix, key))


def get(tree: dict | None, path: tuple[str, ...]) -> dict | None:
    """The leaf at `path` of a metrics tree, or None."""
    for key in path:
        if not isinstance(tree, dict):
            return None
        tree = tree.get(key)
    return tree


def _insert(tree: dict, path: tuple[str, ...], leaf: dict) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf


def _number(value) -> bool:
    return value is not None and not math.isnan(value)


def pool(values: list[float | None]) -> dict:
    """Mean and sample standard deviation (n - 1) over the values that are numbers; `of` counts all of them.

    One value has no standard deviation (None). Infinite values give an infinite mean and no standard deviation.

    Examples:
      >>> pool([1.0, 3.0])
      {'mean': 2.0, 'sd': 1.4142135623730951, 'n': 2, 'of': 2}
      >>> pool([1.0, float("nan")])
      {'mean': 1.0, 'sd': None, 'n': 1, 'of': 2}
    """
    numbers = [float(value) for value in values if _number(value)]
    if not numbers:
        return {"mean": None if all(value is None for value in values) else math.nan, "sd": None, "n": 0, "of": len(values)}
    if not all(map(math.isfinite, numbers)):
        infinite = {number for number in numbers if math.isinf(number)}
        return {"mean": infinite.pop() if len(infinite) == 1 else math.nan, "sd": None, "n": len(numbers), "of": len(values)}
    mean = math.fsum(numbers) / len(numbers)
    spread = math.fsum((number - mean) ** 2 for number in numbers)
    sd = math.sqrt(spread / (len(numbers) - 1)) if len(numbers) > 1 else None
    return {"mean": mean, "sd": sd, "n": len(numbers), "of": len(values)}


def summarise(rows: list[dict]) -> list[dict]:
    """Pools rows of one name and variant over their seeds, in order of first appearance."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        key = (json.dumps(encode(row["variant"]), sort_keys=True), row["name"])
        groups.setdefault(key, []).append(row)
    return [_summarise_group(group) for group in groups.values()]


def _summarise_group(group: list[dict]) -> dict:
    paths = list(dict.fromkeys(path for row in group for path, _ in leaves(row["metrics"])))
    metrics: dict = {}
    for path in paths:
        found = [get(row["metrics"], path) or {} for row in group]
        leaf = pool([entry.get("value") for entry in found])
        leaf |= {end: pool([entry.get(end) for entry in found])["mean"] for end in ("low", "high")}
        _insert(metrics, path, leaf)
    costs = {key: pool([row["costs"].get(key) for row in group]) for key in group[0]["costs"]}
    notes = [f"seed {row['seed']}: {note}" if len(group) > 1 else note for row in group for note in row["notes"]]
    reference = next((row["reference"] for row in group if row.get("reference")), {})
    return {
        "name": group[0]["name"],
        "group": group[0]["group"],
        "variant": group[0]["variant"],
        "seeds": [row["seed"] for row in group],
        "runs": sorted({row["run"] for row in group}),
        "metrics": metrics,
        "costs": costs,
        "notes": notes,
        "reference": reference,
    }


# --- merging runs -----------------------------------------------------------------------------------------------------


def flatten(settings: dict, prefix: str = "") -> dict:
    """Nested settings as one dict with dotted keys; sequences stay values.

    Examples:
      >>> flatten({"data": {"arms": 3}, "seed": 0})
      {'data.arms': 3, 'seed': 0}
    """
    flat: dict = {}
    for key, value in (settings or {}).items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def differing_settings(settings: list[dict]) -> dict[str, list]:
    """Dotted names of the settings that differ between runs, with each run's value.

    Seeds, directories, the run's name and the evaluation section do not count. Of settings that differ together (arms 3, 6 with
    noise 0.2, 0.1) one is listed: an integer before a number before anything else.

    Examples:
      >>> differing_settings([{"data": {"noise": 0.2, "arms": 3}, "seed": 0}, {"data": {"noise": 0.1, "arms": 6}, "seed": 1}])
      {'data.arms': [3, 6]}
    """
    flat = [flatten(each) for each in settings]
    names = list(dict.fromkeys(name for each in flat for name in each))
    different: dict[str, list] = {}
    for name in names:
        first, last = name.split(".", 1)[0], name.rsplit(".", 1)[-1]
        if first in _NOT_KEY_SECTIONS or last in _NOT_KEY_SETTINGS or last.rsplit("_", 1)[-1] in ("seed", "seeds"):
            continue
        values = [plain(each.get(name)) for each in flat]
        if any(value != values[0] for value in values):
            different[name] = values
    chosen: dict[tuple, str] = {}
    for name in sorted(different, key=lambda name: _kind(different[name])):
        chosen.setdefault(tuple(different[name].index(value) for value in different[name]), name)
    return {name: values for name, values in different.items() if name in chosen.values()}


def _kind(values: list) -> int:
    """0 for integers, 1 for numbers, 2 for anything else."""
    kinds = [0 if isinstance(value, int) and not isinstance(value, bool) else 1 if isinstance(value, float) else 2 for value in values]
    return max(kinds)


def merge(results: list[dict]) -> dict:
    """One results dict from those of several runs (seeds, splits, widths), so that a study can be run in parts.

    Rows of one name are pooled over seeds; settings that differ between the runs (seeds and directories aside) become
    each row's `variant`, so that rows of different variants stay apart and the report lists them as columns.

    Args:
      results: one or more results dicts of this schema. A single one is returned with its summary made again.

    Returns:
      A results dict whose "runs" lists every run's information and settings.

    Raises:
      ValueError: nothing to merge, another schema, other conventions or out-of-distribution sets, rows of one name with
        other metrics, or the same run twice. The message names the run by its position and says what differs.
    """
    if not results:
        raise ValueError("results must hold at least one run")
    seen: dict[str, int] = {}
    for index, each in enumerate(results):
        _check_mergeable(results[0], each, index)
        content = json.dumps(encode([each["run"], each["settings"], each["rows"]]))
        if content in seen:
            raise ValueError(f"runs {seen[content]} and {index} are the same run: pooled, its seeds would count twice")
        seen[content] = index
    parts = [part for each in results for part in each.get("runs") or [{"run": each["run"], "settings": each["settings"]}]]
    different = differing_settings([part["settings"] for part in parts])
    rows, offset = [], 0
    for each in results:
        for row in each["rows"]:
            index = offset + row["run"]
            rows.append({**row, "run": index, "variant": {name: values[index] for name, values in different.items()}})
        offset += len(each.get("runs") or [None])
    return {
        "schema": SCHEMA,
        "run": results[0]["run"],
        "settings": _common(results[0]["settings"], different),
        "runs": parts,
        "conventions": results[0]["conventions"],
        "sets": results[0]["sets"],
        "rows": rows,
        "summary": summarise(rows),
    }


def _common(settings: dict, different: dict) -> dict:
    return {name: value for name, value in flatten(settings).items() if name not in different}


def _check_mergeable(first: dict, each: dict, index: int) -> None:
    if each.get("schema") != SCHEMA:
        raise ValueError(f"run {index} has schema {each.get('schema')!r}, this version of edd merges {SCHEMA!r}: evaluate the run again")
    for name, convention in first["conventions"].items():
        if each["conventions"].get(name) != convention:
            raise ValueError(
                f"run {index} measured {name!r} as {each['conventions'].get(name)!r}, run 0 as {convention!r}: "
                "numbers of different conventions are not pooled; evaluate one of the runs again"
            )
    if set(first["sets"]) != set(each["sets"]):
        raise ValueError(f"run {index} has the sets {sorted(each['sets'])}, run 0 has {sorted(first['sets'])}: only equal sets merge")
    for row in each["rows"]:
        twin = next((other for other in first["rows"] if other["name"] == row["name"]), row)
        mine, theirs = ({path for path, _ in leaves(other["metrics"])} for other in (row, twin))
        if mine != theirs:
            difference = ", ".join(sorted("/".join(path) for path in mine ^ theirs)[:5])
            raise ValueError(f"row {row['name']!r} of run {index} has other metrics than in run 0 (differing: {difference})")
