"""Runs one experiment: python launch/run.py --config configs/digits.py --workdir runs/digits [--config.seed=1]."""

import sys

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py, or configs/NAME.py:ARG (for example :smoke).")
_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory; resumed if it holds the same run. Default: runs/NAME.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "TFDS directory; default: TFDS_DATA_DIR, else TFDS's own default.")
_COMPILED = flags.DEFINE_string(
    "compilation_cache", None, "Folder of compiled programs; default: JAX_COMPILATION_CACHE_DIR, else in workdir."
)
_PROGRESS = flags.DEFINE_bool("progress", True, "Show progress bars.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join a multi-process run (Slurm, Open MPI, GKE and Cloud TPU are detected).")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0, where it is not detected.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes, where it is not detected.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "This process's number, where it is not detected.")
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where in the code an error came from.")

DAY = 24 * 3600  # the other processes leave when process 0 has written the report, however long that takes


def parse(argv: list[str]) -> list[str]:
    """The flags; a config file, an argument of it or an override that is wrong gives one line."""
    try:
        left = flags.FLAGS(argv)
        _CONFIG.value.to_dict()  # a file that could not be loaded raises when it is asked for
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError) as error:
        if flags.FLAGS.is_parsed() and _TRACEBACK.value:
            raise
        lines = [line.strip() for line in words_of(error, argv).replace("\\n", "\n").splitlines() if line.strip()]
        told = next((line for line in reversed(lines) if "Error: " in line), " ".join(lines))
        sys.exit(f"error: {told[:1000]}")
    if len(left) > 1:
        sys.exit(f"error: unexpected arguments {left[1:]}: every option is a flag, --name=value")
    return left


def words_of(error: Exception, argv: list[str]) -> str:
    """What an error of the flags says; ml_collections hides a key that the file does not hold in a KeyError, or in an AttributeError."""
    inner = error.args[0] if error.args and isinstance(error.args[0], KeyError) else error
    if not isinstance(inner, KeyError):
        return str(error)
    key, _, hint = str(inner.args[0]).partition("\n")
    name = key.strip("'\"")
    given = (part.lstrip("-").partition("=")[0].removeprefix("config.") for part in argv[1:] if part.startswith("--config."))
    path = next((each for each in given if name in each.split(".")), name)
    return f"unknown config key {path!r}: a flag can change only what the config file holds; write other settings into the file. {hint}"


def join() -> None:
    """Joins the other processes, where the flags ask for it."""
    import jax

    given = {"coordinator": _COORDINATOR.value, "num_processes": _NUM_PROCESSES.value, "process_id": _PROCESS_ID.value}
    if not (_DISTRIBUTED.value or given["coordinator"]):
        alone = [f"--{name}" for name, value in given.items() if value is not None]
        if alone:
            raise ValueError(f"{' and '.join(alone)} need --coordinator=host:port, or --distributed where a cluster is detected")
        return
    jax.distributed.initialize(*given.values(), shutdown_timeout_seconds=DAY)


def main(argv):
    del argv
    import jax

    config = _CONFIG.value.to_dict()
    workdir = _WORKDIR.value or f"runs/{config['name']}"
    if _COMPILED.value or not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", _COMPILED.value or f"{workdir}/compiled")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)  # students share most programs, resumed runs all
    if config.get("smoke"):
        jax.config.update("jax_disable_most_optimizations", True)  # two steps: compiling is all the work there is
    from edd.experiments import errors

    def run():
        join()
        from edd import experiments

        experiments.run(config, workdir, data_dir=_DATA_DIR.value, progress=_PROGRESS.value)

    errors.tell(run, show_traceback=_TRACEBACK.value)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    flags.FLAGS["verbosity"].using_default_value = False  # absl would raise its default, warnings, to info: Orbax narrates every save
    app.run(main, flags_parser=parse)
