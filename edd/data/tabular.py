"""Tables for regression: a CSV with the target in its last column, the UCI sets with their published splits, and their scaling."""

import os
import pathlib
from typing import NamedTuple

import numpy as np

UCI = {
    "boston": "bostonHousing",
    "concrete": "concrete",
    "energy": "energy",
    "kin8nm": "kin8nm",
    "naval": "naval-propulsion-plant",
    "power": "power-plant",
    "protein": "protein-tertiary-structure",
    "wine": "wine-quality-red",
    "yacht": "yacht",
}


class Table(NamedTuple):
    """Rows of features [N, d] and a real target [N], float64, in their own units."""

    inputs: np.ndarray
    targets: np.ndarray


class Scaling(NamedTuple):
    """Means and standard deviations of a training table: what a network sees is (value - mean) / deviation."""

    input_mean: np.ndarray
    input_deviation: np.ndarray
    target_mean: float
    target_deviation: float


def table(inputs, targets) -> Table:
    """Checks a user's arrays and makes them a `Table`.

    Raises:
      ValueError: other shapes than [N, d] and [N], no row or feature, or values that are not finite numbers.

    Examples:
      >>> table([[1.0], [2.0]], [3.0, 4.0]).inputs.shape
      (2, 1)
    """
    try:
        inputs, targets = np.asarray(inputs, np.float64), np.asarray(targets, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"inputs and targets must be numbers: {error}") from None
    if inputs.ndim != 2 or min(inputs.shape) < 1 or targets.shape != inputs.shape[:1]:
        raise ValueError(f"inputs must be [N, d] and targets [N] with N, d >= 1, got shapes {inputs.shape} and {targets.shape}")
    for name, values in (("inputs", inputs), ("targets", targets)):
        bad = np.argwhere(~np.isfinite(values))
        if bad.size:
            raise ValueError(f"{name} must be finite, got {values[tuple(bad[0])]} in row {bad[0][0]}")
    return Table(inputs, targets)


def read_csv(path: str | os.PathLike) -> Table:
    """A CSV file of numbers with one row per example, the target in the last column, with or without a line of names.

    Raises:
      ValueError: the file is not there, not a table of numbers, or has fewer than two columns.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give a CSV file with the target in its last column")
    with path.open() as lines:
        first = lines.readline()
    try:
        [float(cell) for cell in first.split(",")]
        skip = 0
    except ValueError:
        skip = 1
    try:
        values = np.loadtxt(path, delimiter=",", skiprows=skip, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path} is not a table of numbers separated by commas: {error}") from None
    if values.shape[1] < 2:
        raise ValueError(f"{path} must have at least one feature and the target, got {values.shape[1]} column")
    return table(values[:, :-1], values[:, -1])


def load(name: str, split: int, data_dir: str | os.PathLike | None = None, *, test_fraction: float = 0.1) -> tuple[Table, Table]:
    """Training and test table of one split.

    Args:
      name: a UCI set ("boston", "concrete", ...), read from `data_dir`/uci/SET/data.csv with its published test_idx.npy [splits, n_test];
        or the path of a CSV file, which is split at random, seeded by the split's number.
      split: number of the split, from 0.
      data_dir: folder that holds uci/; None: TFDS_DATA_DIR.
      test_fraction: share of a CSV's rows that are held out, in (0, 1).

    Raises:
      ValueError: an unknown name, files that are not there or broken, or a split that does not exist.
    """
    if name in UCI:
        root = data_dir or os.environ.get("TFDS_DATA_DIR")
        if not root:
            raise ValueError(f"{name!r} needs a data directory that holds uci/{UCI[name]}/data.csv: give --data_dir, or set TFDS_DATA_DIR")
        folder = pathlib.Path(root) / "uci" / UCI[name]
        whole = read_csv(folder / "data.csv")
        if not (folder / "test_idx.npy").is_file():
            raise ValueError(f"{folder / 'test_idx.npy'} does not exist: it holds the published splits as rows of test indices")
        splits = np.load(folder / "test_idx.npy")
        if not 0 <= split < len(splits):
            raise ValueError(f"split must lie in [0, {len(splits)}) for {name!r}, got {split}")
        held = splits[split]
    elif name.endswith(".csv"):
        whole = read_csv(name)
        count = round(test_fraction * len(whole.targets))
        if split < 0 or not 0 < count < len(whole.targets):
            raise ValueError(f"{name}: split must be >= 0 and test_fraction leave rows on both sides, got {split} and {test_fraction}")
        held = np.random.default_rng([split, 7]).permutation(len(whole.targets))[:count]
    else:
        raise ValueError(f"unknown table {name!r}: known are {', '.join(UCI)}, or the path of a .csv file")
    kept = np.setdiff1d(np.arange(len(whole.targets)), held)
    return Table(whole.inputs[kept], whole.targets[kept]), Table(whole.inputs[held], whole.targets[held])


def fit_scaling(train: Table) -> Scaling:
    """Scaling fitted on the training rows alone; constant features are left at deviation 1.

    Raises:
      ValueError: fewer than two rows, or a constant target: there is nothing to learn.
    """
    if len(train.targets) < 2 or train.targets.std() == 0:
        raise ValueError(f"targets must vary over at least 2 training rows, got {len(train.targets)} rows of one value")
    deviation = train.inputs.std(0)
    constant = deviation <= 1e-9 * np.maximum(np.abs(train.inputs).max(0), 1e-300)
    return Scaling(train.inputs.mean(0), np.where(constant, 1.0, deviation), float(train.targets.mean()), float(train.targets.std()))


def scale(rows: Table, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, targets) as a network sees them, float32."""
    inputs = (rows.inputs - scaling.input_mean) / scaling.input_deviation
    return inputs.astype(np.float32), ((rows.targets - scaling.target_mean) / scaling.target_deviation).astype(np.float32)


def mixup(inputs: np.ndarray, count: int, rng: np.random.Generator, alpha: float = 1.0) -> np.ndarray:
    """`count` new inputs [count, d], each on the line between two random rows: t x_i + (1 - t) x_j with t ~ Beta(alpha, alpha).

    Raises:
      ValueError: no row, `count` below 1, `alpha` not positive.

    References:
      Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization" (inputs only: the teachers label them).

    Examples:
      >>> mixed = mixup(np.array([[0.0], [1.0]]), 100, np.random.default_rng(0))
      >>> mixed.shape, bool(mixed.min() >= 0), bool(mixed.max() <= 1)
      ((100, 1), True, True)
    """
    if len(inputs) < 1 or count < 1 or not alpha > 0:
        raise ValueError(f"mixup needs rows, a count of at least 1 and a positive alpha, got {len(inputs)}, {count} and {alpha}")
    share = rng.beta(alpha, alpha, size=(count, *[1] * (inputs.ndim - 1))).astype(inputs.dtype)
    first, second = inputs[rng.integers(len(inputs), size=(2, count))]
    return share * first + (1 - share) * second


def smoke(num_features: int = 3, count: int = 40, seed: int = 0) -> Table:
    """An invented table: a noisy sum of the features."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, num_features))
    return Table(inputs, inputs.sum(1) + 0.1 * rng.normal(size=count))
