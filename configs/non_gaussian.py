"""Teachers from a law of functions with two modes: where a Gaussian student fails, and by how much, against the modes' separation.

Reproduces: no paper; the limit of arXiv 2510.19290's Gaussian law over functions. Expected: mean and covariance are matched at every
separation; the distance to the law grows to that of the best Gaussian, while Hydra, whose heads are atoms, stays with its teachers.
Argument: smoke.
Seen on a third of one core: 4 minutes for one of the 3 repeats.
Command: python launch/run.py --config configs/non_gaussian.py --workdir runs/non_gaussian
"""

from ml_collections import ConfigDict

STEPS = 2_000


def student(method: str, **options) -> dict:
    training = {
        "model": {"name": "mlp", "options": {"widths": [64, 64], "activation": "tanh"}},
        "optimizer": {"name": "adam", "learning_rate": 3e-3, "schedule": "cosine"},
        "epochs": float(STEPS),
        "max_steps": STEPS,
        "batch_size": 64,
    }
    return {"method": method, "training": training, "options": {"aleatoric_mode": "member", **options}}


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"unknown argument {arg!r}: the only one is smoke")
    return ConfigDict(
        {
            "experiment": "function_laws",
            "name": "non_gaussian",
            "smoke": arg == "smoke",
            "seed": 0,
            "separations": [0.0, 0.5, 1.0, 2.0, 4.0, 8.0],
            "num_teachers": 200,
            "num_points": 65,
            "length": 0.7,
            "repeats": 3,
            "students": {"DLF": student("dlf", latent_dim=10), "Hydra": student("hydra")},
        }
    ).lock()
