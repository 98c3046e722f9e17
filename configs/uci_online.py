"""A distilled student learns online on UCI regression: new labels update its latent in closed form, beside refitting.

Reproduces: no table; a use of arXiv 2510.19290's law over functions. Half of each split's training rows train 30 teachers and the
student, the labels of the other half come later.
Argument: comma-separated: sets=boston+energy, splits=A-B, smoke.
Needs: a folder with uci/SET/data.csv and test_idx.npy (--data_dir or TFDS_DATA_DIR).
Seen on a third of one core: a minute for a set and split.
Command: python launch/run.py --config configs/uci_online.py --workdir runs/uci_online --data_dir DIR
"""

from ml_collections import ConfigDict

SETS = ("boston", "energy", "wine")
TEACHERS = {"epochs": 40.0, "max_steps": 4_000, "batch_size": 32}  # longer, and their noise variances overfit
STUDENT = {"epochs": 1e5, "max_steps": 3_000, "batch_size": 64}


def training(widths: list[int], **program) -> dict:
    return {
        "model": {"name": "mlp", "options": {"widths": widths}},
        "optimizer": {"name": "adam", "learning_rate": 1e-2, "schedule": "cosine"},
        **program,
    }


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    unknown = set(given) - {"splits", "sets", "smoke"}
    if unknown:
        raise ValueError(f"unknown argument {sorted(unknown)}: known are sets=A+B, splits=A-B, smoke")
    first, _, last = given.get("splits", "0-1").partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        raise ValueError(f"splits must be a number or a range like 0-4, got {given['splits']!r}")
    splits = list(range(int(first), int(last or first) + 1))
    return ConfigDict(
        {
            "experiment": "online",
            "name": "uci_online",
            "smoke": "smoke" in given,
            "seed": 0,
            "data": {
                "sets": given["sets"].split("+") if "sets" in given else list(SETS),
                "splits": splits,
                "design": "train",
                "teacher_fraction": 0.5,
            },
            "ensemble": {"num_members": 30, "training": training([100], **TEACHERS)},
            "student": {"method": "dlf", "training": training([50], **STUDENT), "options": {"latent_dim": 10}},
            "counts": [0, 1, 2, 5, 10, 20, 50, 100, 200, 500],
            "refit_counts": [0, 20, 100, 500],
        }
    ).lock()
