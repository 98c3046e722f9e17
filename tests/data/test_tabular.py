"""Tables: CSV files, published splits in a small fake of their layout, scaling on the training rows, and clear errors."""

import numpy as np
import pytest

from edd.data import tabular


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "uci" / "yacht"
    place.mkdir(parents=True)
    rows = np.arange(30.0).reshape(10, 3)
    np.savetxt(place / "data.csv", rows, delimiter=",", header="a,b,y", comments="")
    np.save(place / "test_idx.npy", np.array([[0, 3], [9, 1]], np.int32))
    return tmp_path


def test_published_splits(folder, monkeypatch):
    train, test = tabular.load("yacht", 1, folder)
    assert test.targets.tolist() == [29.0, 5.0] and len(train.targets) == 8 and not set(test.targets) & set(train.targets)
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    assert tabular.load("yacht", 0)[1].targets.tolist() == [2.0, 11.0]


def test_csv_is_split_by_seed_and_needs_no_names(tmp_path):
    path = tmp_path / "mine.csv"
    np.savetxt(path, np.arange(40.0).reshape(20, 2), delimiter=",")
    parts = [tabular.load(str(path), split, test_fraction=0.25) for split in (0, 0, 1)]
    assert all(len(test.targets) == 5 and len(train.targets) == 15 for train, test in parts)
    assert parts[0][1].targets.tolist() == parts[1][1].targets.tolist() != parts[2][1].targets.tolist()


def test_scaling_sees_the_training_rows_only():
    train = tabular.table([[1.0, 5.0], [3.0, 5.0]], [10.0, 30.0])
    scaling = tabular.fit_scaling(train)
    inputs, targets = tabular.scale(tabular.table([[5.0, 6.0]], [40.0]), scaling)
    assert inputs.tolist() == [[3.0, 1.0]] and targets.tolist() == [2.0] and inputs.dtype == np.float32


def test_mistakes(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    (folder / "uci" / "energy").mkdir()
    bad = {"words": "a,b\n1,x\n", "narrow": "1\n2\n", "holes": "1,nan\n2,3\n"}
    for name, text in bad.items():
        (tmp_path / f"{name}.csv").write_text(text)
    for call, message in (
        (lambda: tabular.load("yacht", 0), "give --data_dir"),
        (lambda: tabular.load("energy", 0, folder), "data.csv does not exist"),
        (lambda: tabular.load("yacht", 2, folder), r"split must lie in \[0, 2\)"),
        (lambda: tabular.load("yach", 0, folder), "unknown table 'yach'"),
        (lambda: tabular.load(str(tmp_path / "words.csv"), 0), "not a table of numbers"),
        (lambda: tabular.load(str(tmp_path / "narrow.csv"), 0), "at least one feature"),
        (lambda: tabular.load(str(tmp_path / "holes.csv"), 0), "targets must be finite, got nan in row 0"),
        (lambda: tabular.fit_scaling(tabular.table([[1.0], [2.0]], [3.0, 3.0])), "targets must vary"),
        (lambda: tabular.table([1.0], [1.0]), r"inputs must be \[N, d\]"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_mixup_draws_lines_between_rows():
    corners = np.eye(3)
    mixed = tabular.mixup(corners, 500, np.random.default_rng(0))
    np.testing.assert_allclose(mixed.sum(1), 1)
    assert ((mixed > 0).sum(1) <= 2).all()  # between two rows, never three
    assert abs(mixed.max(1).mean() - (1 / 3 + 2 / 3 * 0.75)) < 0.03  # the same row twice in a third of the draws
    extreme = tabular.mixup(corners, 500, np.random.default_rng(0), alpha=0.01)
    assert (extreme.max(1) > 0.99).mean() > 0.9
    for bad in ({"count": 0}, {"alpha": 0.0}):
        with pytest.raises(ValueError, match="mixup needs"):
            tabular.mixup(corners, **{"count": 1, "rng": np.random.default_rng(0), **bad})
