"""Takes every config two steps at `:smoke`, within 30 s and 2 GiB each: python .ci/smoke.py configs/*.py configs/NAME.py:ARG.

The 30 s are those of the machine on which they were set; a slower one gets as many more as it takes for `yardstick.py`.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

SECONDS = 30.0
YARDSTICK = 1.6  # seconds there: the smoke run of MNIST took 28 s there and, the same commit, 42.6 s where the yardstick takes 2.45 s
TRIES = 2  # a machine may be busy for a minute
GIBIBYTES = 2.0


def run(config: str, workdir: str) -> tuple[int, float, float, str]:
    """(exit status, seconds, peak GiB, output) of one smoke run without any data directory."""
    environment = {key: value for key, value in os.environ.items() if key != "TFDS_DATA_DIR"}
    command = [
        sys.executable,
        "launch/run.py",
        f"--config={config}{',' if ':' in config else ':'}smoke",
        f"--workdir={workdir}",
        "--progress=false",
    ]
    log = pathlib.Path(workdir).with_suffix(".log")
    started = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, time.perf_counter() - started, usage.ru_maxrss / 2**20, log.read_text()


def limit() -> float:
    """Seconds that a smoke run may take on this machine now, never under `SECONDS`."""
    script = str(pathlib.Path(__file__).with_name("yardstick.py"))
    measured = [float(subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout) for _ in range(3)]
    return SECONDS * max(1.0, statistics.median(measured) / YARDSTICK)


def main(configs: list[str]) -> int:
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        for config in configs:
            name = pathlib.Path(config).name.replace(".py", "")
            for attempt in range(TRIES):
                allowed = limit()
                status, seconds, memory, output = run(config, f"{folder}/{name.replace(':', '-')}-{attempt}")
                good = status == 0 and seconds <= allowed and memory <= GIBIBYTES
                print(f"{name:30s} {seconds:6.1f} of {allowed:5.1f} s {memory:6.2f} GiB  {'ok' if good else 'FAILED'}", flush=True)
                if good or status != 0 or memory > GIBIBYTES:
                    break
            if not good:
                bad.append(name)
                print(output[-4000:])
    return 1 if bad or not configs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
