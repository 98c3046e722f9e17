"""Files appear whole or not at all."""

import os

import pytest

from edd.data import files


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    files.write_atomically(path, "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        files.write_atomically(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["results.json"]


def test_two_writers_at_once(tmp_path, monkeypatch):
    """The second begins and ends while the first is about to put its file in place."""
    path, replace = tmp_path / "new" / "file", os.replace

    def late(*names):
        monkeypatch.setattr(files.os, "replace", replace)
        files.write_atomically(path, b"second")
        replace(*names)

    monkeypatch.setattr(files.os, "replace", late)
    files.write_atomically(path, b"first")
    assert path.read_bytes() == b"first" and os.listdir(path.parent) == ["file"]
