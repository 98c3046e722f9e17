"""`run.json`: what was run, with what, by which command; and the guard against mixing two runs in one directory."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable

import jax

from edd.experiments import results
from edd.experiments import settings as settings_lib

PACKAGES = ("edd", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain", "tensorflow-datasets")


def write_json(path: pathlib.Path, value: dict) -> None:
    """Writes JSON through a temporary file, so that a full disk or a kill never leaves half a file behind."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n")
    os.replace(temporary, path)


def finished(path: pathlib.Path, make: Callable[[], dict]) -> dict:
    """One part of a study: read from its file, or made and written there first, whole or not at all."""
    if path.exists():
        return results.decode(json.loads(path.read_text()))
    part = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    results.write_atomically(path, json.dumps(results.encode(part), allow_nan=False))
    return part


def describe(settings: dict) -> dict:
    """The contents of `run.json`: settings, versions, machine, git commit, command, date (UTC)."""
    return {
        "settings": json.loads(json.dumps(settings)),
        "command": shlex.join(["python", os.path.relpath(sys.argv[0]) if os.path.isfile(sys.argv[0]) else sys.argv[0], *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cpu_cores": os.cpu_count(),
            "backend": jax.default_backend(),
            "devices": [str(device.device_kind) for device in jax.devices()],
            "processes": jax.process_count(),
        },
    }


def for_report(description: dict) -> dict:
    """What a report shows of `run.json`: without the settings, and without the folders of the machine it was made on.

    Examples:
      >>> for_report({"settings": {}, "command": "python run.py --workdir=/data/me/runs/a --config configs/a.py"})
      {'command': 'python run.py --workdir=.../a --config configs/a.py'}
    """

    def shorten(value):
        if isinstance(value, dict):
            return {key: shorten(item) for key, item in value.items()}
        if isinstance(value, list):
            return [shorten(item) for item in value]
        return re.sub(r"(?<![\w./])(?:/|~/|(?:\.\./)+)(?:[^\s'\"/]+/)*(?=[^\s'\"/])", ".../", value) if isinstance(value, str) else value

    return shorten({key: value for key, value in description.items() if key != "settings"})


def read(workdir: pathlib.Path) -> dict:
    """The contents of a run directory's `run.json`; ValueError if there is none or it cannot be read."""
    path = pathlib.Path(workdir) / "run.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: {workdir} is not a run directory")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): choose another --workdir, or remove that file") from None


def open_run(workdir: pathlib.Path, settings: dict, seeds: dict | None = None) -> dict:
    """Claims a run directory: writes `run.json`, or resumes when it holds the same settings.

    Args:
      workdir: created if absent.
      settings: nested plain dictionary.
      seeds: what -> the integer seed that everything random there comes from.

    Returns:
      The contents of `run.json`; a resumed run keeps its first record and gains one "resumed" entry.

    Raises:
      ValueError: if the directory belongs to a run with other settings (the paths that differ are listed), or holds
        an unreadable `run.json`. Nothing in it is touched.
    """
    path = workdir / "run.json"
    new = {**describe(settings), **({"seeds": seeds} if seeds else {})}
    if path.exists():
        old = read(workdir)
        changed = settings_lib.differences(old.get("settings", {}), new["settings"])
        if changed:
            raise ValueError(
                f"{workdir} holds a run with other settings; choose another --workdir. Differences (old != new): " + "; ".join(changed[:8])
            )
        old.setdefault("resumed", []).append({key: new[key] for key in ("command", "date", "git_commit")})
        new = old
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, new)
    return new


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    folder = pathlib.Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10)
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode:
        return None
    return commit.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
