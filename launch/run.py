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


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}: every option is a flag, --name=value")
    import jax

    config = _CONFIG.value.to_dict()
    workdir = _WORKDIR.value or f"runs/{config['name']}"
    if _COMPILED.value or not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", _COMPILED.value or f"{workdir}/compiled")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)  # students share most programs, resumed runs all
    if config.get("smoke"):
        jax.config.update("jax_disable_most_optimizations", True)  # two steps: compiling is all the work there is
    if _DISTRIBUTED.value or _COORDINATOR.value:
        jax.distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    from edd import experiments

    try:
        experiments.run(config, workdir, data_dir=_DATA_DIR.value, progress=_PROGRESS.value)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    flags.FLAGS["verbosity"].using_default_value = False  # absl would raise its default, warnings, to info: Orbax narrates every save
    app.run(main)
