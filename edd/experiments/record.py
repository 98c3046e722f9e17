"""`run.json`: what was run, with what, by which command; and the guard against mixing two runs in one directory."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys

import jax

from edd.experiments import settings as settings_lib

PACKAGES = ("edd", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain", "tensorflow-datasets")


def write_json(path: pathlib.Path, value: dict) -> None:
    """Writes JSON through a temporary file, so that a full disk or a kill never leaves half a file behind."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n")
    os.replace(temporary, path)


def describe(settings: dict) -> dict:
    """The contents of `run.json`: settings, versions, machine, git commit, command, date (UTC)."""
    return {
        "settings": json.loads(json.dumps(settings)),
        "command": " ".join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
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


def open_run(workdir: pathlib.Path, settings: dict) -> dict:
    """Claims a run directory: writes `run.json`, or resumes when it holds the same settings.

    Args:
      workdir: created if absent.
      settings: nested plain dictionary.

    Returns:
      The contents of `run.json`; a resumed run keeps its first record and gains one "resumed" entry.

    Raises:
      ValueError: if the directory belongs to a run with other settings (the paths that differ are listed), or holds
        an unreadable `run.json`. Nothing in it is touched.
    """
    path = workdir / "run.json"
    new = describe(settings)
    if path.exists():
        try:
            old = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not valid JSON ({error}): choose another --workdir, or remove that file") from None
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
